//! Caddy's data folder: `acme/CA/users/EMAIL/NAME.{json,key}` and
//! `certificates/CA/NAME/NAME.{crt,key,json}`, where CA is the directory's URL without its scheme and
//! with `-` for everything odd. What Caddy's own CA signed stays there.

use std::path::Path;

use serde::Deserialize;

use super::{Found, FoundAccount, address, find, has_extension, name, written};

#[derive(Deserialize)]
struct User {
    location: Option<String>,
    #[serde(default)]
    contact: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default)]
    issuer_data: Option<IssuerData>,
}

#[derive(Deserialize)]
struct IssuerData {
    ca: Option<String>,
}

pub fn read(folder: &Path) -> Found {
    let mut found = Found::default();
    for path in find(&folder.join("acme"), &|path| has_extension(path, "json")) {
        let Some(user) = found.json::<User>(&path) else { continue };
        let Some(key) = found.account_key(&path.with_extension("key")) else { continue };
        let hint = path.ancestors().nth(3).map(name).unwrap_or_default();
        found.accounts.push(FoundAccount {
            directory: None,
            hint,
            url: user.location,
            contact: address(&user.contact.unwrap_or_default()),
            key,
            written: written(&path),
            from: path,
        });
    }
    for path in find(&folder.join("certificates"), &|path| has_extension(path, "crt")) {
        if path.ancestors().nth(2).map(name).as_deref() == Some("local") {
            found.leave(&path, "Caddy's own CA signed it; private names get the local CA here");
            continue;
        }
        let resource = path.with_extension("json");
        let resource = match resource.exists() {
            true => found.json::<Resource>(&resource),
            false => None,
        };
        let directory = resource.and_then(|resource| resource.issuer_data?.ca);
        found.pair(&path, &path.with_extension("key"), directory);
    }
    found
}
