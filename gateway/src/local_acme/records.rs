//! Accounts, orders and certificates of the local ACME server, as the store keeps them. Nothing of
//! them is held in memory, so that gateways on one store have the same.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::SerialNumber;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::jws::PublicKey;
use super::problem::{Problem, identifier};
use crate::clock::Timestamp;
use crate::config::HostPattern;
use crate::store::{Store, StoreError};

/// An account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    /// Its public key.
    pub jwk: Value,
    /// What the client gave; shown to it, and used for nothing.
    pub contact: Vec<String>,
    /// Whether it is of no use any more.
    pub is_deactivated: bool,
}

/// An order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The account's id.
    pub account: String,
    /// When it is forgotten.
    pub expires: Timestamp,
    /// One for each name.
    pub proofs: Vec<Proof>,
    /// The certificate's serial number in hexadecimal, once there is one.
    pub serial: Option<String>,
    /// The certificate that this one takes the place of (RFC 9773, section 5).
    pub replaces: Option<String>,
}

/// How far the proof of control of one name is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proof {
    /// The name, with its `*.`.
    pub name: String,
    /// The ways to prove it.
    pub challenges: Vec<Challenge>,
    /// Whether the client has given it up.
    pub is_given_up: bool,
}

/// One way of proof.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Challenge {
    /// `http-01`, `tls-alpn-01` or `dns-01`.
    pub kind: String,
    /// What the client has to show.
    pub token: String,
    /// Whether the client says that it can be looked at.
    pub is_asked: bool,
    /// When it was found.
    pub validated: Option<Timestamp>,
    /// Why it was not found.
    pub error: Option<Problem>,
}

/// A certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Issued {
    /// The chain.
    pub pem: String,
    /// The account's id.
    pub account: String,
    /// Validity.
    pub not_before: Timestamp,
    /// Validity.
    pub not_after: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// Whether an order has said that it replaces this one.
    pub is_replaced: bool,
}

impl Proof {
    /// The name without `*.`.
    pub fn base(&self) -> &str {
        self.name.strip_prefix("*.").unwrap_or(&self.name)
    }

    /// RFC 8555, section 7.1.6.
    pub fn status(&self, now: Timestamp, order: &Order) -> &'static str {
        if self.is_given_up {
            "deactivated"
        } else if self.challenges.iter().any(|one| one.error.is_some()) {
            "invalid"
        } else if self.challenges.iter().any(|one| one.validated.is_some()) {
            "valid"
        } else if order.expires <= now {
            "expired"
        } else {
            "pending"
        }
    }

    /// As RFC 8555, section 7.1.4, writes it; `base` is the server's URL, `path` `ORDER/NUMBER`.
    pub fn document(&self, order: &Order, base: &str, path: &str, now: Timestamp) -> Value {
        let challenges = self.challenges.iter().map(|one| one.document(base, path));
        let mut document = json!({
            "identifier": identifier(self.base()),
            "status": self.status(now, order),
            "expires": order.expires.to_string(),
            "challenges": challenges.collect::<Vec<_>>(),
        });
        if self.name.starts_with("*.") {
            add(&mut document, "wildcard", true.into());
        }
        document
    }
}

impl Challenge {
    /// RFC 8555, section 7.1.6.
    pub fn status(&self) -> &'static str {
        match (&self.validated, &self.error, self.is_asked) {
            (Some(_), ..) => "valid",
            (None, Some(_), _) => "invalid",
            (None, None, true) => "processing",
            (None, None, false) => "pending",
        }
    }

    /// As RFC 8555, section 8, writes it.
    pub fn document(&self, base: &str, path: &str) -> Value {
        let mut document = json!({
            "type": self.kind,
            "url": format!("{base}/challenge/{path}/{}", self.kind),
            "token": self.token,
            "status": self.status(),
        });
        if let Some(at) = self.validated {
            add(&mut document, "validated", at.to_string().into());
        }
        if let Some(error) = &self.error {
            add(&mut document, "error", error.document());
        }
        document
    }
}

impl Order {
    /// RFC 8555, section 7.1.6.
    pub fn status(&self, now: Timestamp) -> &'static str {
        let has = |status| self.proofs.iter().all(|proof| proof.status(now, self) == status);
        let is_open = |proof: &Proof| matches!(proof.status(now, self), "pending" | "valid");
        match &self.serial {
            Some(_) => "valid",
            None if self.expires <= now || !self.proofs.iter().all(is_open) => "invalid",
            None if has("valid") => "ready",
            None => "pending",
        }
    }

    /// As RFC 8555, section 7.1.3, writes it.
    pub fn document(&self, base: &str, id: &str, now: Timestamp) -> Value {
        let proofs = self.proofs.iter().enumerate();
        let urls = proofs.map(|(at, _)| format!("{base}/authorization/{id}/{at}"));
        let names = self.proofs.iter().map(|proof| identifier(&proof.name));
        let mut document = json!({
            "status": self.status(now),
            "expires": self.expires.to_string(),
            "identifiers": names.collect::<Vec<_>>(),
            "authorizations": urls.collect::<Vec<_>>(),
            "finalize": format!("{base}/order/{id}/finalize"),
        });
        if let Some(serial) = &self.serial {
            add(&mut document, "certificate", format!("{base}/certificate/{serial}").into());
        }
        if let Some(replaced) = &self.replaces {
            add(&mut document, "replaces", replaced.clone().into());
        }
        let errors = self.proofs.iter().flat_map(|proof| &proof.challenges);
        if let Some(error) = errors.filter_map(|one| one.error.as_ref()).next() {
            add(&mut document, "error", error.document());
        }
        document
    }

    /// Its names.
    pub fn names(&self) -> Vec<HostPattern> {
        self.proofs.iter().filter_map(|proof| HostPattern::parse(&proof.name).ok()).collect()
    }
}

fn add(document: &mut Value, name: &str, value: Value) {
    if let Some(fields) = document.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

/// The records in the store.
pub struct Records<'a>(pub &'a Store);

impl Records<'_> {
    /// An item; none when it is absent, or cannot be read and is set aside.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn read<T: DeserializeOwned>(&self, item: &str) -> Result<Option<T>, StoreError> {
        let Some(text) = self.0.read(item)? else { return Ok(None) };
        match serde_json::from_slice(&text) {
            Ok(record) => Ok(Some(record)),
            Err(cause) => self.0.set_aside(item, &cause.to_string()).map(|()| None),
        }
    }

    /// Writes an item.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn write(&self, item: &str, record: &impl Serialize) -> Result<(), StoreError> {
        self.0.write(item, &serde_json::to_vec(record).unwrap_or_default())
    }

    /// Changes an item that is there, with nobody between; gives it as it is then.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn change<T: Serialize + DeserializeOwned>(
        &self,
        item: &str,
        change: impl Fn(&mut T),
    ) -> Result<Option<T>, StoreError> {
        if self.read::<T>(item)?.is_none() {
            return Ok(None);
        }
        let mut changed = None;
        self.0.change(item, &mut |known| {
            let known = known.unwrap_or_default();
            let Ok(mut record) = serde_json::from_slice::<T>(&known) else { return known };
            change(&mut record);
            let text = serde_json::to_vec(&record).unwrap_or_default();
            changed = Some(record);
            text
        })?;
        Ok(changed)
    }

    /// The account of a key, by its thumbprint.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn account_of(&self, key: &PublicKey) -> Result<Option<(String, Account)>, StoreError> {
        let Some(id) = self.read::<String>(&key_item(&key.thumbprint()))? else { return Ok(None) };
        let account = self.read::<Account>(&account_item(&id))?;
        Ok(account.filter(|account| account.jwk == *key.jwk()).map(|account| (id, account)))
    }

    /// Removes what has ended. Gives how many orders remain.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut remaining = 0;
        for item in self.0.list(ORDERS)? {
            match self.read::<Order>(&item)? {
                Some(order) if order.expires > now => remaining += 1,
                _ => self.0.remove(&item)?,
            }
        }
        for item in self.0.list(ISSUED)? {
            if self.read::<Issued>(&item)?.is_none_or(|issued| issued.not_after <= now) {
                self.0.remove(&item)?;
            }
        }
        Ok(remaining)
    }
}

/// A random text that stands in URLs and in the names of items.
pub fn random() -> Option<String> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// The serial number of a certificate, in hexadecimal.
pub fn serial_text(serial: &SerialNumber) -> String {
    crate::hex::lower(&serial.to_bytes())
}

/// Whether a part of a URL may be part of an item's name.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Where an account is.
pub fn account_item(id: &str) -> String {
    format!("{ACCOUNTS}/{id}.json")
}

/// Where it is said whose a key is.
pub fn key_item(thumbprint: &str) -> String {
    format!("local-acme/keys/{thumbprint}.json")
}

/// Where an order is.
pub fn order_item(id: &str) -> String {
    format!("{ORDERS}/{id}.json")
}

/// Where a certificate is.
pub fn issued_item(serial: &str) -> String {
    format!("{ISSUED}/{serial}.json")
}

/// The folder of accounts.
pub const ACCOUNTS: &str = "local-acme/accounts";
/// The folder of orders.
pub const ORDERS: &str = "local-acme/orders";
const ISSUED: &str = "local-acme/issued";
