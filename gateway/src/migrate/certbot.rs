//! certbot's configuration folder: `accounts/DIRECTORY/ID/{regr,private_key}.json`,
//! `live/NAME/{fullchain,privkey}.pem` and `renewal/NAME.conf`, which names CA and account.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use serde::Deserialize;

use super::{Found, FoundAccount, FoundKey, address, find, folders_and_files, name, written};

#[derive(Deserialize)]
struct Registration {
    uri: Option<String>,
    #[serde(default)]
    body: Body,
}

#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    contact: Vec<String>,
}

pub fn read(folder: &Path) -> Found {
    let mut found = Found::default();
    let mut used = BTreeMap::new();
    for path in folders_and_files(&folder.join("live")) {
        if !path.is_dir() {
            continue;
        }
        let settings = folder.join("renewal").join(format!("{}.conf", name(&path)));
        let settings = std::fs::read_to_string(settings).unwrap_or_default();
        if let Some(account) = setting(&settings, "account") {
            used.insert(account.to_owned(), ());
        }
        let directory = setting(&settings, "server").map(str::to_owned);
        found.pair(&path.join("fullchain.pem"), &path.join("privkey.pem"), directory);
    }
    let accounts = folder.join("accounts");
    for path in find(&accounts, &|path| name(path) == "regr.json") {
        let Some(registration) = found.json::<Registration>(&path) else { continue };
        let Some(home) = path.parent() else { continue };
        let Some(jwk) = found.text(&home.join("private_key.json")) else { continue };
        // The folders between are the directory's URL.
        let place = home.parent().and_then(|server| server.strip_prefix(&accounts).ok());
        let directory = place.map(|place| format!("https://{}", place.display()));
        // The one that renewals are made with comes before one that lies there from earlier days.
        let is_used = used.contains_key(&name(home));
        found.accounts.push(FoundAccount {
            directory,
            hint: String::new(),
            url: registration.uri,
            contact: address(&registration.body.contact),
            key: FoundKey::Jwk(jwk.into_bytes()),
            written: if is_used { SystemTime::now() } else { written(&path) },
            from: path,
        });
    }
    found
}

/// A line `key = value`.
fn setting<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim())
    })
}
