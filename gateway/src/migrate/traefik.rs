//! Traefik's `acme.json`: for each certificate resolver an account and its certificates, all in
//! base64; in version 1 there was one resolver without a name.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::{Found, FoundAccount, FoundCertificate, FoundKey, written};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Resolver {
    account: Option<Account>,
    #[serde(default)]
    certificates: Option<Vec<Pair>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Account {
    #[serde(default)]
    email: String,
    registration: Option<Registration>,
    private_key: Option<String>,
}

#[derive(Deserialize)]
struct Registration {
    uri: Option<String>,
}

#[derive(Deserialize)]
struct Pair {
    #[serde(alias = "Certificate")]
    certificate: String,
    #[serde(alias = "Key")]
    key: String,
}

pub fn read(path: &Path) -> Found {
    let mut found = Found::default();
    let Some(all) = found.json::<serde_json::Map<String, Value>>(path) else { return found };
    let resolvers: Vec<(String, Value)> = match all.contains_key("Account") {
        true => vec![(String::new(), Value::Object(all))],
        false => all.into_iter().collect(),
    };
    for (resolver, value) in resolvers {
        let place = path.join(&resolver);
        match serde_json::from_value::<Resolver>(value) {
            Ok(resolver) => take(&mut found, path, &place, resolver),
            Err(cause) => found.leave(&place, format!("no resolver that Traefik writes: {cause}")),
        }
    }
    found
}

fn take(found: &mut Found, path: &Path, place: &Path, resolver: Resolver) {
    if let Some(account) = resolver.account
        && let Some(key) = account.private_key
    {
        match STANDARD.decode(key) {
            Ok(key) => found.accounts.push(FoundAccount {
                from: place.to_owned(),
                directory: None,
                hint: String::new(),
                url: account.registration.and_then(|known| known.uri),
                contact: Some(account.email).filter(|email| !email.is_empty()),
                key: FoundKey::Der(key),
                written: written(path),
            }),
            Err(cause) => found.leave(place, format!("its account's key is not base64: {cause}")),
        }
    }
    for pair in resolver.certificates.unwrap_or_default() {
        let text = |encoded: &str| String::from_utf8(STANDARD.decode(encoded).ok()?).ok();
        match (text(&pair.certificate), text(&pair.key)) {
            (Some(chain_pem), Some(key_pem)) => found.certificates.push(FoundCertificate {
                from: place.to_owned(),
                chain_pem,
                key_pem,
                directory: None,
            }),
            _ => found.leave(place, "a certificate or key is not PEM in base64"),
        }
    }
}
