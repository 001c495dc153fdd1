//! Accounts: one per CA, its key stored before the CA hears of it, so that no kill can lose it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, Request};
use instant_acme::{Account, BodyWrapper, Error, HttpClient as _, Problem};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Client, RetryAfter};
use super::error::AcmeError;
use crate::config::{AcmeIssuer, Eab};
use crate::store::Store;

/// An account at a CA, ready for orders.
pub struct Member {
    /// The account.
    pub account: Account,
    /// The issuer's name.
    pub issuer: String,
    retry_after: RetryAfter,
}

/// An account as the store keeps it, beside its key.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The account URL.
    id: String,
    directory: String,
    /// What the CA was last told.
    #[serde(default)]
    contact: Option<String>,
}

impl Member {
    /// The stored account of this CA, or a new one. `is_lost` says that the CA no longer knows the
    /// stored one: then its key is registered again.
    ///
    /// # Errors
    /// When the CA or the store refuses.
    pub async fn open(
        store: &Store,
        issuer: &AcmeIssuer,
        contact: Option<&str>,
        is_lost: bool,
    ) -> Result<Self, AcmeError> {
        let retry_after = RetryAfter::default();
        let folder = folder(issuer);
        let item = format!("{folder}/account.json");
        // The key is stored first: after a kill the same key finds the same account (RFC 8555,
        // section 7.3.1), and an external binding that works only once is not lost.
        let key = stored_key(store, &format!("{folder}/account.key"))?;
        let client = || {
            let client = Client::new(issuer.roots.as_deref(), Arc::clone(&retry_after));
            client.map_err(AcmeError::Roots)
        };
        let of = |cause| AcmeError::of(&issuer.name, cause, taken(&retry_after));
        let kept = if is_lost { None } else { kept(store, &item, issuer)? };
        let mut kept = match kept {
            Some(kept) => kept,
            None => {
                let http = client()?;
                let new = Registration { issuer, contact, client: &http, key: &key };
                let id = new.run().await.map_err(|cause| match cause {
                    RegistrationError::Acme(cause) => of(cause),
                    RegistrationError::Setup(why) => AcmeError::Eab(issuer.name.clone(), why),
                })?;
                tracing::info!(issuer = issuer.name, account = id, "account made");
                let directory = issuer.directory.clone();
                let kept = Kept { id, directory, contact: contact.map(str::to_owned) };
                keep(store, &item, &kept)?;
                kept
            }
        };
        let key = PrivatePkcs8KeyDer::from(key);
        let account = Account::builder_with_http(Box::new(client()?))
            .from_parts(kept.id.clone(), key, issuer.directory.clone())
            .await
            .map_err(of)?;
        let member = Self { account, issuer: issuer.name.clone(), retry_after };
        if kept.contact.as_deref() != contact {
            // A failure is only logged: it must not keep a certificate away.
            match member.change_contact(contact).await {
                Ok(()) => {
                    kept.contact = contact.map(str::to_owned);
                    keep(store, &item, &kept)?;
                    tracing::info!(issuer = issuer.name, "the CA was told the new contact");
                }
                Err(cause) => tracing::warn!(issuer = issuer.name, "contact not changed: {cause}"),
            }
        }
        Ok(member)
    }

    async fn change_contact(&self, contact: Option<&str>) -> Result<(), AcmeError> {
        let contacts: Vec<String> = contact.iter().map(|mail| format!("mailto:{mail}")).collect();
        let contacts: Vec<&str> = contacts.iter().map(String::as_str).collect();
        let told = retry_nonce(|| self.account.update_contacts(&contacts)).await;
        told.map_err(|cause| self.error(cause))
    }

    /// What instant-acme said, with the wait that the CA asked for.
    pub fn error(&self, cause: Error) -> AcmeError {
        AcmeError::of(&self.issuer, cause, taken(&self.retry_after))
    }
}

fn kept(store: &Store, item: &str, issuer: &AcmeIssuer) -> Result<Option<Kept>, AcmeError> {
    let Some(stored) = store.read(item).map_err(AcmeError::Store)? else { return Ok(None) };
    let why = match serde_json::from_slice::<Kept>(&stored) {
        Ok(kept) if kept.directory == issuer.directory => return Ok(Some(kept)),
        Ok(_) => "it holds no account of this directory".to_owned(),
        Err(cause) => cause.to_string(),
    };
    store.set_aside(item, &why).map_err(AcmeError::Store)?;
    Ok(None)
}

fn keep(store: &Store, item: &str, kept: &Kept) -> Result<(), AcmeError> {
    let text = serde_json::to_vec(kept).unwrap_or_default();
    store.write(item, &text).map_err(AcmeError::Store)
}

/// The folder of a CA in the store: its directory URL, so that two CAs never share an account.
pub fn folder(issuer: &AcmeIssuer) -> String {
    let url = issuer.directory.trim_start_matches("https://");
    format!("acme/issuers/{}", url.replace('/', "_"))
}

fn taken(retry_after: &RetryAfter) -> Option<Duration> {
    retry_after.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn stored_key(store: &Store, item: &str) -> Result<Vec<u8>, AcmeError> {
    if let Some(key) = store.read(item).map_err(AcmeError::Store)? {
        if pair(&key).is_some() {
            return Ok(key);
        }
        store.set_aside(item, "it holds no P-256 key").map_err(AcmeError::Store)?;
    }
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let key = made.map_err(|_| AcmeError::Setup("this machine gives no randomness".to_owned()))?;
    store.write(item, key.as_ref()).map_err(AcmeError::Store)?;
    Ok(key.as_ref().to_vec())
}

fn pair(pkcs8: &[u8]) -> Option<EcdsaKeyPair> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok()
}

/// `newAccount` (RFC 8555, section 7.3). instant-acme can do this with a key of ours, or with a
/// contact and an external binding, but not with all of them.
struct Registration<'a> {
    issuer: &'a AcmeIssuer,
    contact: Option<&'a str>,
    client: &'a Client,
    /// PKCS#8.
    key: &'a [u8],
}

enum RegistrationError {
    Acme(Error),
    Setup(String),
}

impl<T: Into<Error>> From<T> for RegistrationError {
    fn from(cause: T) -> Self {
        Self::Acme(cause.into())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
    #[serde(default)]
    meta: Meta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    external_account_required: bool,
}

impl Registration<'_> {
    /// Gives the account URL: a new one, or that of the account which this key already has.
    async fn run(self) -> Result<String, RegistrationError> {
        let (_, body) = self.send(Method::GET, &self.issuer.directory, Vec::new()).await?;
        let directory: Directory = serde_json::from_slice(&body)?;
        if directory.meta.external_account_required && self.issuer.eab.is_none() {
            let why = "the CA requires one: set `eab: {kid: …, key: …}` of this issuer to what the \
                       CA's account page shows";
            return Err(RegistrationError::Setup(why.to_owned()));
        }
        let pair = pair(self.key)
            .ok_or_else(|| RegistrationError::Setup("the account key is broken".to_owned()))?;
        let url = &directory.new_account;
        let payload = self.payload(&pair, url)?;
        let mut tries = NONCE_TRIES;
        let mut nonce = None;
        loop {
            let fresh = match nonce.take() {
                Some(nonce) => nonce,
                None => {
                    let (parts, _) =
                        self.send(Method::HEAD, &directory.new_nonce, Vec::new()).await?;
                    replay_nonce(&parts).ok_or(Error::Str("the CA gave no nonce"))?
                }
            };
            let header = json!({"alg": "ES256", "jwk": jwk(&pair), "nonce": fresh, "url": url});
            let body = sign(&header, payload.as_bytes(), |text| {
                let signed = pair.sign(&SystemRandom::new(), text);
                signed.map(|signature| signature.as_ref().to_vec()).unwrap_or_default()
            });
            let (parts, body) = self.send(Method::POST, url, body).await?;
            if parts.status.is_success() {
                let id = parts.headers.get(LOCATION).and_then(|value| value.to_str().ok());
                let id = id.ok_or(Error::Str("the CA gave no account URL"))?;
                return Ok(id.to_owned());
            }
            let cause = Error::Api(serde_json::from_slice::<Problem>(&body)?);
            tries -= 1;
            if !is_bad_nonce(&cause) || tries == 0 {
                return Err(cause.into());
            }
            nonce = replay_nonce(&parts);
        }
    }

    fn payload(&self, pair: &EcdsaKeyPair, url: &str) -> Result<String, RegistrationError> {
        let contact: Vec<String> = self.contact.iter().map(|c| format!("mailto:{c}")).collect();
        let mut payload = json!({"termsOfServiceAgreed": true, "contact": contact});
        if let (Some(eab), Some(fields)) = (&self.issuer.eab, payload.as_object_mut()) {
            fields.insert("externalAccountBinding".to_owned(), binding(eab, pair, url)?);
        }
        Ok(payload.to_string())
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        body: Vec<u8>,
    ) -> Result<(http::response::Parts, Bytes), Error> {
        let body = if body.is_empty() { BodyWrapper::default() } else { BodyWrapper::from(body) };
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(CONTENT_TYPE, "application/jose+json")
            .body(body)?;
        let mut answer = self.client.request(request).await?;
        let body = answer.body.into_bytes().await.map_err(Error::Other)?;
        Ok((answer.parts, body))
    }
}

/// The external account binding (RFC 8555, section 7.3.4).
fn binding(
    eab: &Eab,
    pair: &EcdsaKeyPair,
    url: &str,
) -> Result<serde_json::Value, RegistrationError> {
    let text = eab.key.read().map_err(RegistrationError::Setup)?;
    let key = URL_SAFE_NO_PAD
        .decode(text.expose().trim().trim_end_matches('='))
        .map_err(|_| RegistrationError::Setup("`key` is not base64url".to_owned()))?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let header = json!({"alg": "HS256", "kid": eab.kid, "url": url});
    let signed = sign(&header, jwk(pair).to_string().as_bytes(), |text| {
        hmac::sign(&key, text).as_ref().to_vec()
    });
    Ok(serde_json::from_slice(&signed)?)
}

/// A JSON web signature in the flattened form (RFC 7515, section 7.2.2).
fn sign(
    header: &serde_json::Value,
    payload: &[u8],
    signature: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let protected = URL_SAFE_NO_PAD.encode(header.to_string());
    let payload = URL_SAFE_NO_PAD.encode(payload);
    let signature = signature(format!("{protected}.{payload}").as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(signature);
    let signed = json!({"protected": protected, "payload": payload, "signature": signature});
    signed.to_string().into_bytes()
}

/// The public key (RFC 7518, section 6.2.1).
fn jwk(pair: &EcdsaKeyPair) -> serde_json::Value {
    // An uncompressed point: 4, then 32 bytes of each coordinate (SEC 1, section 2.3.3).
    let point = pair.public_key().as_ref();
    let (x, y) = point.get(1..).and_then(|both| both.split_at_checked(32)).unwrap_or_default();
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    json!({"crv": "P-256", "kty": "EC", "x": x, "y": y})
}

fn replay_nonce(parts: &http::response::Parts) -> Option<String> {
    parts.headers.get("replay-nonce")?.to_str().ok().map(str::to_owned)
}

/// Repeats a call whose nonce was refused (RFC 8555, section 6.5). instant-acme gives up after three;
/// a CA that refuses half of them is still usable.
pub async fn retry_nonce<T, F>(mut call: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut left = NONCE_TRIES;
    loop {
        match call().await {
            Err(cause) if left > 1 && is_bad_nonce(&cause) => left -= 1,
            outcome => return outcome,
        }
    }
}

fn is_bad_nonce(cause: &Error) -> bool {
    let Error::Api(problem) = cause else { return false };
    problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":badNonce"))
}

/// With half of all nonces refused, and three tries of the library each time, one call in 2^60 fails.
const NONCE_TRIES: u32 = 20;

/// Keeps two orders from making two accounts at once.
pub type Members =
    Mutex<std::collections::BTreeMap<String, Arc<tokio::sync::OnceCell<Arc<Member>>>>>;
