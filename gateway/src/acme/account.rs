//! Accounts: one per CA, its key stored before the CA hears of it, so that no kill can lose it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use instant_acme::{
    Account, AccountBuilder, AccountCredentials, Error, ExternalAccountKey, Key, NewAccount,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::client::{Client, RetryAfter};
use super::error::AcmeError;
use crate::config::AcmeIssuer;
use crate::store::Store;

/// An account at a CA, ready for orders.
pub struct Member {
    /// The account.
    pub account: Account,
    /// The issuer's name.
    pub issuer: String,
    retry_after: RetryAfter,
}

impl Member {
    /// The stored account of this CA, or a new one.
    ///
    /// # Errors
    /// When the CA or the store refuses.
    pub async fn open(
        store: &Store,
        issuer: &AcmeIssuer,
        contact: Option<&str>,
    ) -> Result<Self, AcmeError> {
        let retry_after = RetryAfter::default();
        let folder = folder(issuer);
        let item = format!("{folder}/account.json");
        let of = |cause| AcmeError::of(&issuer.name, cause, taken(&retry_after));
        let builder = || builder(issuer, &retry_after);
        if let Some(stored) = store.read(&item).map_err(AcmeError::Store)? {
            match serde_json::from_slice::<AccountCredentials>(&stored) {
                Ok(credentials) => {
                    let known = builder()?.from_credentials(credentials).await.map_err(of)?;
                    return Ok(Self::new(known, issuer, retry_after));
                }
                Err(cause) => {
                    store.set_aside(&item, &cause.to_string()).map_err(AcmeError::Store)?;
                }
            }
        }
        let mail = contact.map(|contact| format!("mailto:{contact}"));
        let contacts: Vec<&str> = mail.as_deref().into_iter().collect();
        let (account, credentials) = match &issuer.eab {
            Some(eab) => {
                let key = external_key(eab)?;
                let new = NewAccount {
                    contact: &contacts,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let directory = issuer.directory.clone();
                builder()?.create(&new, directory, Some(&key)).await.map_err(of)?
            }
            None => {
                // The key is stored first: after a kill the same key finds the same account.
                let key = stored_key(store, &format!("{folder}/account.key"))?;
                let made = retry_nonce(|| async {
                    let pair = pair(&key)?;
                    let builder = builder().map_err(|cause| Error::Other(Box::new(cause)))?;
                    builder.create_from_key(pair, issuer.directory.clone()).await
                });
                let (account, credentials) = made.await.map_err(of)?;
                if !contacts.is_empty() {
                    let updated = retry_nonce(|| account.update_contacts(&contacts)).await;
                    updated.map_err(of)?;
                }
                (account, credentials)
            }
        };
        let text = serde_json::to_vec(&credentials).map_err(|cause| of(Error::Json(cause)))?;
        store.write(&item, &text).map_err(AcmeError::Store)?;
        tracing::info!(issuer = issuer.name, account = account.id(), "account made");
        Ok(Self::new(account, issuer, retry_after))
    }

    fn new(account: Account, issuer: &AcmeIssuer, retry_after: RetryAfter) -> Self {
        Self { account, issuer: issuer.name.clone(), retry_after }
    }

    /// What instant-acme said, with the wait that the CA asked for.
    pub fn error(&self, cause: Error) -> AcmeError {
        AcmeError::of(&self.issuer, cause, taken(&self.retry_after))
    }
}

/// The folder of a CA in the store: its directory URL, so that two CAs never share an account.
pub fn folder(issuer: &AcmeIssuer) -> String {
    let url = issuer.directory.trim_start_matches("https://");
    format!("acme/issuers/{}", url.replace('/', "_"))
}

fn taken(retry_after: &RetryAfter) -> Option<Duration> {
    retry_after.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn builder(issuer: &AcmeIssuer, retry_after: &RetryAfter) -> Result<AccountBuilder, AcmeError> {
    let client = Client::new(issuer.roots.as_deref(), Arc::clone(retry_after));
    Ok(Account::builder_with_http(Box::new(client.map_err(AcmeError::Roots)?)))
}

fn external_key(eab: &crate::config::Eab) -> Result<ExternalAccountKey, AcmeError> {
    let text = eab.key.read().map_err(|cause| AcmeError::Setup(format!("eab.key: {cause}")))?;
    let key = URL_SAFE_NO_PAD
        .decode(text.expose().trim().trim_end_matches('='))
        .map_err(|_| AcmeError::Setup("eab.key is not base64url".to_owned()))?;
    Ok(ExternalAccountKey::new(eab.kid.clone(), &key))
}

fn stored_key(store: &Store, item: &str) -> Result<Vec<u8>, AcmeError> {
    if let Some(key) = store.read(item).map_err(AcmeError::Store)? {
        match pair(&key) {
            Ok(_) => return Ok(key),
            Err(cause) => {
                store.set_aside(item, &cause.to_string()).map_err(AcmeError::Store)?;
            }
        }
    }
    let made = Key::generate_pkcs8();
    let (_, key) =
        made.map_err(|_| AcmeError::Setup("this machine gives no randomness".to_owned()))?;
    store.write(item, key.secret_pkcs8_der()).map_err(AcmeError::Store)?;
    Ok(key.secret_pkcs8_der().to_vec())
}

fn pair(der: &[u8]) -> Result<(Key, PrivateKeyDer<'static>), Error> {
    let key = PrivatePkcs8KeyDer::from(der.to_vec());
    Ok((Key::from_pkcs8_der(key.clone_key())?, PrivateKeyDer::Pkcs8(key)))
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

const NONCE_TRIES: u32 = 10;

/// Keeps two orders from making two accounts at once.
pub type Members =
    Mutex<std::collections::BTreeMap<String, Arc<tokio::sync::OnceCell<Arc<Member>>>>>;
