//! Accounts: one per CA, its key stored before the CA hears of it, so that no kill can lose it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Method, Request};
use instant_acme::{Account, BodyWrapper, Error, HttpClient as _, Problem};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::{Alternates, Client, RetryAfter};
use super::error::{AcmeError, short};
use super::jose::{AccountKey, flattened};
use crate::config::{AcmeIssuer, Eab};
use crate::store::Store;

/// An account at a CA, ready for orders.
pub struct Member {
    /// The account.
    pub account: Account,
    /// The issuer's name.
    pub issuer: String,
    retry_after: RetryAfter,
    /// Other chains of certificates, as the CA tells of them.
    alternates: Alternates,
    configured: AcmeIssuer,
    /// The account's URL.
    id: String,
    key: AccountKey,
}

/// An account as the store keeps it, beside its key.
#[derive(Serialize, Deserialize)]
pub struct Kept {
    /// The account URL.
    pub id: String,
    /// The directory URL.
    pub directory: String,
    /// What the CA was last told.
    #[serde(default)]
    pub contact: Option<String>,
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
        let folder = folder(&issuer.directory);
        let item = format!("{folder}/account.json");
        // The key is stored first: after a kill the same key finds the same account (RFC 8555,
        // section 7.3.1), and an external binding that works only once is not lost.
        let key = stored_key(store, &format!("{folder}/account.key"))?;
        let client = || {
            let client = Client::new(issuer.roots.as_deref(), Arc::clone(&retry_after));
            client.map_err(AcmeError::Roots)
        };
        let http = client()?;
        let caller = Caller { issuer, client: &http };
        let of = |cause| match cause {
            CallError::Acme(cause) => AcmeError::of(&issuer.name, cause, taken(&retry_after)),
            CallError::Setup(why) => AcmeError::Eab(issuer.name.clone(), why),
        };
        let kept = if is_lost { None } else { kept(store, &item, issuer)? };
        let mut kept = match kept {
            Some(kept) => kept,
            None => {
                let id = caller.register(&key, contact).await.map_err(of)?;
                tracing::info!(issuer = issuer.name, account = id, "account made");
                let directory = issuer.directory.clone();
                let kept = Kept { id, directory, contact: contact.map(str::to_owned) };
                keep(store, &item, &kept)?;
                kept
            }
        };
        let is_half_changed = store.read(&next_item(&folder)).map_err(AcmeError::Store)?.is_some();
        let key = match key.is_usual() && !is_half_changed {
            true => key,
            false => match change_key(store, &folder, &caller, &kept.id, &key).await {
                Ok(new) => new,
                // The account as it is goes on.
                Err(ChangeError::Call(cause)) if key.is_usual() && cause.is_refusal() => {
                    store.remove(&next_item(&folder)).map_err(AcmeError::Store)?;
                    tracing::warn!(issuer = issuer.name, "account key not changed: {}", of(cause));
                    key
                }
                Err(ChangeError::Call(cause)) => return Err(of(cause)),
                Err(ChangeError::Acme(cause)) => return Err(cause),
            },
        };
        let der = key.pkcs8().ok_or_else(no_randomness)?;
        let http = client()?;
        let alternates = http.alternates();
        let account = Account::builder_with_http(Box::new(http))
            .from_parts(kept.id.clone(), PrivatePkcs8KeyDer::from(der), issuer.directory.clone())
            .await
            .map_err(|cause| of(cause.into()))?;
        let (configured, id) = (issuer.clone(), kept.id.clone());
        let name = issuer.name.clone();
        let member = Self { account, issuer: name, retry_after, alternates, configured, id, key };
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

    /// Whether the store has the account with the same key still: another gateway on it may have
    /// given it a new one, or registered it anew.
    pub fn is_current(&self, store: &Store) -> bool {
        let folder = folder(&self.configured.directory);
        let read = |name: &str| store.read(&format!("{folder}/{name}")).ok().flatten();
        // What cannot be read just now is no reason to begin anew.
        let is_same_key = read("account.key").is_none_or(|der| {
            AccountKey::from_der(&der).is_none_or(|key| key.jwk() == self.key.jwk())
        });
        let is_same_account = read("account.json").is_none_or(|text| {
            serde_json::from_slice::<Kept>(&text).map_or(true, |kept| kept.id == self.id)
        });
        is_same_key && is_same_account
    }

    /// The account's public key, to be compared.
    pub fn key(&self) -> serde_json::Value {
        self.key.jwk()
    }

    /// The URLs of other chains of the certificate at this URL, which has just come.
    pub fn other_chains(&self, url: &str) -> Vec<String> {
        let mut known = self.alternates.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(url).unwrap_or_default()
    }

    /// What is at a URL of the CA, such as another chain of a certificate (RFC 8555, section 7.4.2).
    ///
    /// # Errors
    /// When the CA does not give it.
    pub async fn text(&self, url: &str) -> Result<String, AcmeError> {
        let roots = self.configured.roots.as_deref();
        let client = Client::new(roots, Arc::clone(&self.retry_after)).map_err(AcmeError::Roots)?;
        let caller = Caller { issuer: &self.configured, client: &client };
        let got = async {
            let directory = caller.directory().await?;
            let header = json!({"kid": self.id, "url": url});
            caller.post(&directory, url, &self.key, header, None).await
        };
        match got.await {
            Ok((_, body)) => Ok(String::from_utf8_lossy(&body).into_owned()),
            Err(CallError::Acme(cause)) => Err(self.error(cause)),
            Err(CallError::Setup(why)) => Err(AcmeError::Setup(why)),
        }
    }

    /// What instant-acme said, with the wait that the CA asked for.
    pub fn error(&self, cause: Error) -> AcmeError {
        AcmeError::of(&self.issuer, cause, taken(&self.retry_after))
    }
}

/// Gives the account a new P-256 key, or takes up a change that a kill broke off. The new key is
/// stored before the CA hears of it, and takes the place of the old one once the CA has it.
async fn change_key(
    store: &Store,
    folder: &str,
    caller: &Caller<'_>,
    account: &str,
    old: &AccountKey,
) -> Result<AccountKey, ChangeError> {
    let of = |cause| ChangeError::Acme(AcmeError::Store(cause));
    let item = next_item(folder);
    let known = store.read(&item).map_err(of)?.and_then(|der| AccountKey::from_der(&der));
    let (new, is_changed) = match known.filter(AccountKey::is_usual) {
        Some(new) => {
            let has = caller.find(&new).await.map_err(ChangeError::Call)?;
            (new, has.as_deref() == Some(account))
        }
        None => (stored_key(store, &item).map_err(ChangeError::Acme)?, false),
    };
    if !is_changed {
        caller.change_key(account, old, &new).await.map_err(ChangeError::Call)?;
    }
    let der = new.pkcs8().ok_or_else(|| ChangeError::Acme(no_randomness()))?;
    store.write(&format!("{folder}/account.key"), &der).map_err(of)?;
    store.remove(&item).map_err(of)?;
    tracing::info!(
        issuer = caller.issuer.name,
        account,
        from = old.kind(),
        to = new.kind(),
        "account key changed"
    );
    Ok(new)
}

enum ChangeError {
    Call(CallError),
    Acme(AcmeError),
}

/// Prepares an account's change to a new key, which the next [`Member::open`] makes.
///
/// # Errors
/// When the store refuses.
pub fn prepare_change(store: &Store, directory: &str) -> Result<(), AcmeError> {
    stored_key(store, &next_item(&folder(directory))).map(drop)
}

/// The key that an account is about to get.
fn next_item(folder: &str) -> String {
    format!("{folder}/account.key.next")
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
pub fn folder(directory: &str) -> String {
    let url = directory.trim_start_matches("https://");
    format!("acme/issuers/{}", url.replace('/', "_"))
}

fn taken(retry_after: &RetryAfter) -> Option<Duration> {
    retry_after.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The account's key in the store, or a new one.
fn stored_key(store: &Store, item: &str) -> Result<AccountKey, AcmeError> {
    if let Some(key) = store.read(item).map_err(AcmeError::Store)? {
        if let Some(key) = AccountKey::from_der(&key) {
            return Ok(key);
        }
        store.set_aside(item, "it holds no key of an account").map_err(AcmeError::Store)?;
    }
    let made = AccountKey::generate().ok_or_else(no_randomness)?;
    store.write(item, &made).map_err(AcmeError::Store)?;
    AccountKey::from_der(&made).ok_or_else(no_randomness)
}

fn no_randomness() -> AcmeError {
    AcmeError::Setup("this machine gives no randomness".to_owned())
}

/// A few calls that instant-acme cannot make: `newAccount` with a key of ours, a contact and an
/// external binding at once, and the change of a key for one of another kind.
struct Caller<'a> {
    issuer: &'a AcmeIssuer,
    client: &'a Client,
}

/// Why such a call failed.
enum CallError {
    Acme(Error),
    Setup(String),
}

impl CallError {
    /// Whether the CA has refused, so that nothing was done.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Setup(_) | Self::Acme(Error::Api(_)))
    }
}

impl<T: Into<Error>> From<T> for CallError {
    fn from(cause: T) -> Self {
        Self::Acme(cause.into())
    }
}

/// RFC 8555, section 7.1.1.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
    key_change: Option<String>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    external_account_required: bool,
}

impl Caller<'_> {
    /// `newAccount` (RFC 8555, section 7.3). Gives the account URL: a new one, or that of the account
    /// which this key already has.
    async fn register(&self, key: &AccountKey, contact: Option<&str>) -> Result<String, CallError> {
        let directory = self.directory().await?;
        if directory.meta.external_account_required && self.issuer.eab.is_none() {
            let why = "the CA requires one: set `eab: {kid: …, key: …}` of this issuer to what the \
                       CA's account page shows";
            return Err(CallError::Setup(why.to_owned()));
        }
        let url = &directory.new_account;
        let contact: Vec<String> = contact.iter().map(|c| format!("mailto:{c}")).collect();
        let mut payload = json!({"termsOfServiceAgreed": true, "contact": contact});
        if let (Some(eab), Some(fields)) = (&self.issuer.eab, payload.as_object_mut()) {
            fields.insert("externalAccountBinding".to_owned(), binding(eab, key, url)?);
        }
        let header = json!({"jwk": key.jwk(), "url": url});
        let (parts, _) = self.post(&directory, url, key, header, Some(&payload)).await?;
        account_url(&parts).ok_or_else(|| Error::Str("the CA gave no account URL").into())
    }

    /// The URL of the account that a key has (RFC 8555, section 7.3.1); none when it has none.
    async fn find(&self, key: &AccountKey) -> Result<Option<String>, CallError> {
        let directory = self.directory().await?;
        let url = &directory.new_account;
        let header = json!({"jwk": key.jwk(), "url": url});
        let payload = json!({"onlyReturnExisting": true});
        match self.post(&directory, url, key, header, Some(&payload)).await {
            Ok((parts, _)) => Ok(account_url(&parts)),
            Err(CallError::Acme(Error::Api(problem)))
                if short(problem.r#type.as_deref()) == "accountDoesNotExist" =>
            {
                Ok(None)
            }
            Err(cause) => Err(cause),
        }
    }

    /// `keyChange` (RFC 8555, section 7.3.5): the account gets `new` in the place of `old`.
    async fn change_key(
        &self,
        account: &str,
        old: &AccountKey,
        new: &AccountKey,
    ) -> Result<(), CallError> {
        let directory = self.directory().await?;
        let Some(url) = &directory.key_change else {
            let why = "the CA does not let accounts change their key";
            return Err(CallError::Setup(why.to_owned()));
        };
        let inner = json!({"account": account, "oldKey": old.jwk()});
        let inner = inner.to_string();
        let inner = new.sign(json!({"jwk": new.jwk(), "url": url}), inner.as_bytes());
        let inner: serde_json::Value = serde_json::from_slice(&inner)?;
        let header = json!({"kid": account, "url": url});
        self.post(&directory, url, old, header, Some(&inner)).await.map(drop)
    }

    async fn directory(&self) -> Result<Directory, CallError> {
        let (_, body) = self.send(Method::GET, &self.issuer.directory, Vec::new()).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Sends a signed request until its nonce is taken; without a payload it only reads (RFC 8555,
    /// section 6.3).
    async fn post(
        &self,
        directory: &Directory,
        url: &str,
        key: &AccountKey,
        mut header: serde_json::Value,
        payload: Option<&serde_json::Value>,
    ) -> Result<(http::response::Parts, Bytes), CallError> {
        let payload = payload.map(ToString::to_string).unwrap_or_default();
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
            if let Some(fields) = header.as_object_mut() {
                fields.insert("nonce".to_owned(), fresh.into());
            }
            let body = key.sign(header.clone(), payload.as_bytes());
            let (parts, body) = self.send(Method::POST, url, body).await?;
            if parts.status.is_success() {
                return Ok((parts, body));
            }
            let cause = Error::Api(serde_json::from_slice::<Problem>(&body)?);
            tries -= 1;
            if !is_bad_nonce(&cause) || tries == 0 {
                return Err(cause.into());
            }
            nonce = replay_nonce(&parts);
        }
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
fn binding(eab: &Eab, account: &AccountKey, url: &str) -> Result<serde_json::Value, CallError> {
    let text = eab.key.read().map_err(CallError::Setup)?;
    let key = URL_SAFE_NO_PAD
        .decode(text.expose().trim().trim_end_matches('='))
        .map_err(|_| CallError::Setup("`key` is not base64url".to_owned()))?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let header = json!({"alg": "HS256", "kid": eab.kid, "url": url});
    let signed = flattened(&header, account.jwk().to_string().as_bytes(), |text| {
        hmac::sign(&key, text).as_ref().to_vec()
    });
    Ok(serde_json::from_slice(&signed)?)
}

fn account_url(parts: &http::response::Parts) -> Option<String> {
    parts.headers.get(LOCATION)?.to_str().ok().map(str::to_owned)
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
