//! Private keys at rest, sealed with a key that is made from a passphrase: argon2id once per start,
//! then AES-256-GCM for each item, bound to the item's name so that no two can be exchanged.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Shelf, StoreError};

/// Seals and opens items.
pub struct Seal {
    key: LessSafeKey,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

/// How the key is made from the passphrase, and something sealed by it that tells a wrong one.
#[derive(Serialize, Deserialize)]
struct Recipe {
    version: u32,
    memory_kib: u32,
    passes: u32,
    salt: String,
    check: String,
}

impl Seal {
    /// The seal of a store, made at its first use.
    ///
    /// # Errors
    /// When the passphrase is another one, or the store refuses.
    pub fn open(shelf: &dyn Shelf, passphrase: &[u8]) -> Result<Self, StoreError> {
        let wrong = |why: &str| StoreError::Seal(why.to_owned());
        if let Some(text) = shelf.read(RECIPE)? {
            let recipe: Recipe = serde_json::from_slice(&text)
                .map_err(|_| wrong("seal.json is broken: put back a copy of it"))?;
            let salt = STANDARD.decode(&recipe.salt).unwrap_or_default();
            let seal = Self::new(passphrase, &salt, recipe.memory_kib, recipe.passes)?;
            let check = STANDARD.decode(&recipe.check).unwrap_or_default();
            return match seal.unseal(RECIPE, &check) {
                Some(_) => Ok(seal),
                None => Err(wrong("the passphrase is not the one that the store was sealed with")),
            };
        }
        let mut salt = [0; 16];
        rand::fill(&mut salt).map_err(|_| wrong("this machine gives no randomness"))?;
        let seal = Self::new(passphrase, &salt, MEMORY_KIB, PASSES)?;
        let check = seal.seal(RECIPE, b"witgate")?;
        let recipe = Recipe {
            version: 1,
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            salt: STANDARD.encode(salt),
            check: STANDARD.encode(check),
        };
        shelf.write(RECIPE, &serde_json::to_vec_pretty(&recipe).unwrap_or_default())?;
        Ok(seal)
    }

    fn new(
        passphrase: &[u8],
        salt: &[u8],
        memory_kib: u32,
        passes: u32,
    ) -> Result<Self, StoreError> {
        let failed = |why: String| StoreError::Seal(format!("no key can be made: {why}"));
        let params = Params::new(memory_kib.min(MEMORY_KIB_MAX), passes.min(PASSES_MAX), 1, None)
            .map_err(|cause| failed(cause.to_string()))?;
        let mut key = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, salt, &mut key)
            .map_err(|cause| failed(cause.to_string()))?;
        let key = UnboundKey::new(&AES_256_GCM, &key)
            .map_err(|_| failed("the cipher refuses".to_owned()))?;
        Ok(Self { key: LessSafeKey::new(key) })
    }

    /// Seals the content of an item.
    ///
    /// # Errors
    /// When the machine gives no randomness.
    pub fn seal(&self, item: &str, content: &[u8]) -> Result<Vec<u8>, StoreError> {
        let failed = || StoreError::Seal("this machine gives no randomness".to_owned());
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| failed())?;
        let mut sealed = content.to_vec();
        let by = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(item.as_bytes());
        self.key.seal_in_place_append_tag(by, aad, &mut sealed).map_err(|_| failed())?;
        Ok([MARK, &nonce, &sealed].concat())
    }

    /// Opens what [`Seal::seal`] made for this item; none when it is not that.
    pub fn unseal(&self, item: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.strip_prefix(MARK)?.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut content = rest.to_vec();
        let aad = Aad::from(item.as_bytes());
        let length = self.key.open_in_place(nonce, aad, &mut content).ok()?.len();
        content.truncate(length);
        Some(content)
    }
}

/// Whether content is sealed.
pub fn is_sealed(content: &[u8]) -> bool {
    content.starts_with(MARK)
}

/// Whether an item holds a private key.
pub fn is_secret(item: &str) -> bool {
    let is_in = |folder: &str| item.starts_with(folder);
    let is_account_key = is_in("acme/issuers/") && item.contains("/account.key");
    is_account_key
        || ["acme/certificates/", "acme/orders/", "acme/answers/", "local/"].into_iter().any(is_in)
        || item == "sticky.key"
}

/// Whether a store was sealed once.
///
/// # Errors
/// When the store refuses.
pub fn has_seal(shelf: &dyn Shelf) -> Result<bool, StoreError> {
    Ok(shelf.read(RECIPE)?.is_some())
}

const RECIPE: &str = "seal.json";
const MARK: &[u8] = b"witgate sealed 1\n";
/// As OWASP recommends for argon2id.
const MEMORY_KIB: u32 = 46 * 1024;
const PASSES: u32 = 1;
/// A file that somebody else wrote must not take all memory.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 16;
