//! The folder `.lego`: `accounts/SERVER/EMAIL/account.json` with its key beside it (version 5) or in
//! `keys/` (version 4), and `certificates/NAME.{crt,key,json}`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Found, FoundAccount, address, find, folders_and_files, has_extension, name, written};

#[derive(Deserialize)]
struct Account {
    email: Option<String>,
    registration: Option<Registration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    /// Version 4.
    uri: Option<String>,
    /// Version 5.
    #[serde(rename = "accountURL")]
    account_url: Option<String>,
    #[serde(default)]
    contact: Vec<String>,
}

pub fn read(folder: &Path) -> Found {
    let mut found = Found::default();
    let accounts = folder.join("accounts");
    for path in find(&accounts, &|path| name(path) == "account.json") {
        let Some(account) = found.json::<Account>(&path) else { continue };
        let Some(home) = path.parent() else { continue };
        let keys = [folders_and_files(home), folders_and_files(&home.join("keys"))].concat();
        let key: Option<PathBuf> = keys.into_iter().find(|key| has_extension(key, "key"));
        let Some(key) = key else {
            found.leave(&path, "there is no key beside it");
            continue;
        };
        let Some(key) = found.account_key(&key) else { continue };
        let server = path.strip_prefix(&accounts).ok().and_then(|place| place.iter().next());
        let hint = server.map(|server| server.to_string_lossy().into_owned()).unwrap_or_default();
        let known = account.registration;
        let contact = known.as_ref().and_then(|known| address(&known.contact));
        found.accounts.push(FoundAccount {
            directory: None,
            hint,
            url: known.and_then(|known| known.uri.or(known.account_url)),
            contact: account.email.or(contact),
            key,
            written: written(&path),
            from: path,
        });
    }
    for path in folders_and_files(&folder.join("certificates")) {
        let is_issuer = name(&path).ends_with(".issuer.crt");
        if has_extension(&path, "crt") && !is_issuer {
            found.pair(&path, &path.with_extension("key"), None);
        }
    }
    found
}
