//! Names and passwords (RFC 7617), checked against argon2id and bcrypt hashes. A check takes tens of
//! milliseconds by design, so it runs off the worker, a few at a time in the whole process, and who
//! came in is remembered for a while under a keyed digest.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Argon2, Params};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Semaphore;

use super::{PolicyError, Refusal};
use crate::config::policies;
use crate::http::headers::take_away;

/// A policy with its users.
#[derive(Debug)]
pub(super) struct BasicAuth {
    users: BTreeMap<String, Arc<Hash>>,
    /// Checked when a name is not known, so that the time tells nobody which names are.
    decoy: Arc<Hash>,
    challenge: HeaderValue,
    user_field: Option<HeaderName>,
    key: hmac::Key,
    /// Who came in: the digest of name and password, and until when that is believed.
    known: Mutex<HashMap<[u8; 32], Instant>>,
}

/// A hash whose form has been checked.
enum Hash {
    Argon2(String),
    Bcrypt(String),
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl BasicAuth {
    /// Reads the users. `place` says where the policy stands, for messages.
    pub(super) fn new(policy: &policies::BasicAuth, place: &str) -> Result<Self, PolicyError> {
        let mut users = BTreeMap::new();
        for (name, hash) in &policy.users {
            users.insert(name.clone(), Arc::new(hashed(name, hash.expose(), place)?));
        }
        if let Some(path) = &policy.file {
            for (name, hash) in read(path)? {
                let hash = hashed(&name, &hash, &path.display().to_string())?;
                users.insert(name, Arc::new(hash));
            }
        }
        let decoy = match users.values().next() {
            Some(first) => Arc::clone(first),
            None => Arc::new(Hash::Argon2(DECOY.to_owned())),
        };
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", policy.realm);
        let challenge =
            HeaderValue::from_str(&challenge).map_err(|_| PolicyError::Field("the realm"))?;
        let user_field = policy
            .user_field
            .as_ref()
            .map(|name| name.parse().map_err(|_| PolicyError::Field("the name of `user-field`")));
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
            .map_err(|_| PolicyError::Field("a random key"))?;
        let user_field = user_field.transpose()?;
        Ok(Self { users, decoy, challenge, user_field, key, known: Mutex::default() })
    }

    /// Lets in who has a name and its password. The credentials end here: the upstream sees the name at
    /// most.
    pub(super) async fn admit(&self, fields: &mut HeaderMap) -> Result<(), Refusal> {
        if let Some(field) = &self.user_field {
            take_away(fields, field);
        }
        let refusal = || Refusal::Credentials(self.challenge.clone());
        let (name, password) =
            fields.get(AUTHORIZATION).and_then(credentials).ok_or_else(refusal)?;
        let digest = self.digest(&name, &password);
        if !self.is_known(&digest) {
            if !self.check(&name, password).await? {
                return Err(refusal());
            }
            self.remember(digest);
        }
        fields.remove(AUTHORIZATION);
        if let Some(field) = &self.user_field
            && let Ok(value) = HeaderValue::from_str(&name)
        {
            fields.insert(field, value);
        }
        Ok(())
    }

    /// Checks a password off the worker. Waits for a turn, but not for long.
    async fn check(&self, name: &str, password: String) -> Result<bool, Refusal> {
        let turn = tokio::time::timeout(TURN_WAIT, TURNS.acquire()).await;
        let Ok(Ok(turn)) = turn else { return Err(Refusal::Busy) };
        let is_user = self.users.contains_key(name);
        let hash = Arc::clone(self.users.get(name).unwrap_or(&self.decoy));
        let checked = tokio::task::spawn_blocking(move || {
            // The turn ends with the work, also when nobody waits for it any more.
            let _turn = turn;
            hash.verifies(&password)
        });
        Ok(checked.await.unwrap_or(false) && is_user)
    }

    fn digest(&self, name: &str, password: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(name.as_bytes());
        context.update(b":");
        context.update(password.as_bytes());
        let tag = context.sign();
        let mut digest = [0; 32];
        for (to, from) in digest.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        digest
    }

    fn is_known(&self, digest: &[u8; 32]) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).is_some_and(|until| *until > Instant::now())
    }

    fn remember(&self, digest: [u8; 32]) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, until| *until > now);
        }
        if known.len() < KNOWN_MAX {
            known.insert(digest, now + KNOWN_FOR);
        }
    }
}

impl Hash {
    fn verifies(&self, password: &str) -> bool {
        match self {
            Self::Argon2(text) => PasswordHash::new(text).is_ok_and(|hash| {
                Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
            }),
            Self::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
        }
    }
}

/// A new argon2id hash, with the parameters that OWASP names first (19 MiB, 2 passes).
///
/// # Errors
/// When the password is too long for the algorithm, or the system has no random bytes.
pub fn hash_password(password: &str) -> Result<String, argon2::password_hash::Error> {
    let mut salt = [0; 16];
    rand::fill(&mut salt).map_err(|_| argon2::password_hash::Error::Crypto)?;
    let salt = SaltString::encode_b64(&salt)?;
    Ok(Argon2::default().hash_password(password.as_bytes(), &salt)?.to_string())
}

/// Checks the form of a hash.
fn hashed(name: &str, text: &str, place: &str) -> Result<Hash, PolicyError> {
    let wrong = |why: String| PolicyError::Hash(name.to_owned(), place.to_owned(), why);
    if text.starts_with("$argon2id$") {
        let hash = PasswordHash::new(text).map_err(|error| wrong(error.to_string()))?;
        Params::try_from(&hash).map_err(|error| wrong(error.to_string()))?;
        if hash.salt.is_none() || hash.hash.is_none() {
            return Err(wrong("it is not complete".to_owned()));
        }
        return Ok(Hash::Argon2(text.to_owned()));
    }
    if !["$2a$", "$2b$", "$2y$"].iter().any(|start| text.starts_with(start)) {
        return Err(wrong("it is neither argon2id nor bcrypt".to_owned()));
    }
    let parts: bcrypt::HashParts =
        text.parse().map_err(|_: bcrypt::BcryptError| wrong("it is not complete".to_owned()))?;
    if !(4..=18).contains(&parts.get_cost()) || text.len() != 60 {
        return Err(wrong("it is not complete, or has a cost above 18".to_owned()));
    }
    Ok(Hash::Bcrypt(text.to_owned()))
}

/// The users of a file: `name:hash` lines, empty ones and those that start with `#` left out.
fn read(path: &Path) -> Result<Vec<(String, String)>, PolicyError> {
    use std::io::Read as _;
    let failed = |error| PolicyError::Users(path.to_owned(), error);
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(USERS_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 >= USERS_BYTES_MAX {
        return Err(failed(std::io::Error::other("it is larger than 4 MiB")));
    }
    let mut users = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once(':') {
            Some((name, hash)) if !name.is_empty() => {
                users.push((name.to_owned(), hash.to_owned()));
            }
            _ => {
                let why = "this line names no user";
                return Err(PolicyError::UsersLine(path.to_owned(), number + 1, why));
            }
        }
    }
    Ok(users)
}

/// Name and password of an `authorization` field.
fn credentials(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(token.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    let is_bounded = name.len() <= CREDENTIAL_BYTES_MAX && password.len() <= CREDENTIAL_BYTES_MAX;
    is_bounded.then(|| (name.to_owned(), password.to_owned()))
}

/// How many passwords are checked at once: an attacker's guesses take half of the machine at most.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new(cores.div_ceil(2))
});
/// Then the answer is 503.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// How long a password that was right is believed. A changed configuration forgets it at once.
const KNOWN_FOR: Duration = Duration::from_secs(300);
const KNOWN_MAX: usize = 4096;
const CREDENTIAL_BYTES_MAX: usize = 1024;
const USERS_BYTES_MAX: u64 = 4 << 20;
/// Of nobody: the hash of a random password that was thrown away, for a file without users.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA\
                     $GpZ3sK/oH9p7VIiV56G/64Zo/8GaUw434IimaPqxwCo";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecretText;

    fn field(text: &str) -> HeaderMap {
        let value = format!("Basic {}", STANDARD.encode(text));
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    fn policy(users: &[(&str, String)], file: Option<&Path>) -> policies::BasicAuth {
        policies::BasicAuth {
            realm: "here".into(),
            users: users
                .iter()
                .map(|(n, h)| ((*n).to_owned(), SecretText::new(h.clone())))
                .collect(),
            file: file.map(Path::to_owned),
            user_field: Some("x-user".into()),
        }
    }

    #[tokio::test]
    async fn both_kinds_of_hashes_let_in_and_keep_out() {
        let argon = hash_password("correct horse").unwrap();
        let bcrypt = bcrypt::hash_with_salt("battery: staple", 4, [7; 16]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let line = bcrypt.format_for_version(bcrypt::Version::TwoY);
        std::fs::write(&path, format!("# people\n\nbob:{line}\n")).unwrap();
        let auth = BasicAuth::new(&policy(&[("alice", argon)], Some(&path)), "here").unwrap();
        for (text, is_in) in [
            ("alice:correct horse", true),
            ("alice:correct horse", true),
            ("alice:wrong", false),
            ("bob:battery: staple", true),
            ("bob:correct horse", false),
            ("carol:correct horse", false),
            ("alice", false),
            (":", false),
        ] {
            let mut fields = field(text);
            fields.insert("x-user", HeaderValue::from_static("root"));
            let outcome = auth.admit(&mut fields).await;
            assert_eq!(outcome.is_ok(), is_in, "{text}");
            let user = fields.get("x-user").map(|v| v.to_str().unwrap());
            assert_eq!(user, is_in.then(|| text.split(':').next().unwrap()), "{text}");
            assert_eq!(fields.contains_key(AUTHORIZATION), !is_in);
        }
        assert_eq!(auth.known.lock().unwrap().len(), 2);
        let Err(Refusal::Credentials(challenge)) = auth.admit(&mut HeaderMap::new()).await else {
            panic!()
        };
        assert_eq!(challenge, "Basic realm=\"here\", charset=\"UTF-8\"");
        assert!(!format!("{auth:?}").contains("argon2id"));
    }

    #[test]
    fn hashes_that_cannot_work_are_refused() {
        for hash in [
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA",
            "$argon2id$nonsense",
            "$2b$12$short",
            "$2b$99$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "secret",
        ] {
            let error = BasicAuth::new(&policy(&[("alice", hash.into())], None), "line 3");
            let error = error.unwrap_err().to_string();
            assert!(error.contains("alice") && error.contains("line 3"), "{error}");
            assert!(!error.contains(hash), "{error}");
        }
        assert!(PasswordHash::new(DECOY).is_ok());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, "alice:$2b$\nnobody\n").unwrap();
        let error = BasicAuth::new(&policy(&[], Some(&path)), "").unwrap_err().to_string();
        assert!(error.contains("users:2: "), "{error}");
        let missing = BasicAuth::new(&policy(&[], Some(&folder.path().join("none"))), "");
        assert!(missing.unwrap_err().to_string().contains("cannot read the users"));
    }
}
