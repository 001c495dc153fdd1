//! What other programs keep of accounts and certificates, read from their folders: Caddy, Traefik,
//! certbot, lego. Reads only; [`crate::acme::adopt`] puts what was found into the store.

mod caddy;
mod certbot;
mod lego;
mod traefik;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

/// What a folder of another program holds.
#[derive(Debug, Default)]
pub struct Found {
    /// Accounts, the most recent first.
    pub accounts: Vec<FoundAccount>,
    /// Certificates with their keys.
    pub certificates: Vec<FoundCertificate>,
    /// What could not be read, and why.
    pub left: Vec<(PathBuf, String)>,
}

/// An account at a CA.
#[derive(Debug)]
pub struct FoundAccount {
    /// Where it was found.
    pub from: PathBuf,
    /// The directory URL of its CA, as far as the program wrote it down.
    pub directory: Option<String>,
    /// A part of the directory's URL, where the program kept no more than that.
    pub hint: String,
    /// The account's URL; none when it was never registered.
    pub url: Option<String>,
    /// The e-mail address.
    pub contact: Option<String>,
    /// Its private key.
    pub key: FoundKey,
    /// When it was last written.
    pub written: SystemTime,
}

/// A private key as it was found.
pub enum FoundKey {
    /// PKCS#8, SEC 1 or PKCS#1.
    Der(Vec<u8>),
    /// A JSON web key.
    Jwk(Vec<u8>),
}

impl std::fmt::Debug for FoundKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FoundKey")
    }
}

/// A certificate with its key.
pub struct FoundCertificate {
    /// Where it was found.
    pub from: PathBuf,
    /// The chain, leaf first.
    pub chain_pem: String,
    /// The private key.
    pub key_pem: String,
    /// The directory URL of the CA that issued it, when the program wrote it down.
    pub directory: Option<String>,
}

impl std::fmt::Debug for FoundCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FoundCertificate").field("from", &self.from).finish_non_exhaustive()
    }
}

/// The programs whose files are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    /// The data folder, such as /var/lib/caddy/.local/share/caddy.
    Caddy,
    /// acme.json.
    Traefik,
    /// The configuration folder, such as /etc/letsencrypt.
    Certbot,
    /// The folder .lego.
    Lego,
}

impl Layout {
    /// Recognises the layout of a file or folder.
    pub fn of(path: &Path) -> Option<Self> {
        let has = |name: &str| path.join(name).is_dir();
        if path.is_file() {
            return Some(Self::Traefik);
        }
        if has("live") || has("renewal") {
            return Some(Self::Certbot);
        }
        let certificates = folders_and_files(&path.join("certificates"));
        let is_folder = |path: &PathBuf| path.is_dir();
        match (has("acme"), certificates.iter().any(is_folder)) {
            (true, _) | (_, true) => Some(Self::Caddy),
            _ if !certificates.is_empty() || has("accounts") => Some(Self::Lego),
            _ => None,
        }
    }

    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Caddy => "Caddy",
            Self::Traefik => "Traefik",
            Self::Certbot => "certbot",
            Self::Lego => "lego",
        }
    }

    /// Reads everything. What cannot be read is told in [`Found::left`].
    pub fn read(self, path: &Path) -> Found {
        let mut found = match self {
            Self::Caddy => caddy::read(path),
            Self::Traefik => traefik::read(path),
            Self::Certbot => certbot::read(path),
            Self::Lego => lego::read(path),
        };
        found.accounts.sort_by_key(|account| std::cmp::Reverse(account.written));
        found
    }
}

impl Found {
    fn leave(&mut self, path: &Path, why: impl Into<String>) {
        self.left.push((path.to_owned(), why.into()));
    }

    /// Reads a file; what cannot be read is left.
    fn text(&mut self, path: &Path) -> Option<String> {
        match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(cause) => {
                self.leave(path, cause.to_string());
                None
            }
        }
    }

    /// Reads a JSON file; what cannot be read is left.
    fn json<T: serde::de::DeserializeOwned>(&mut self, path: &Path) -> Option<T> {
        let text = self.text(path)?;
        match serde_json::from_str(&text) {
            Ok(value) => Some(value),
            Err(cause) => {
                self.leave(path, format!("it is not what this program writes: {cause}"));
                None
            }
        }
    }

    /// Reads an account's key in PEM.
    fn account_key(&mut self, path: &Path) -> Option<FoundKey> {
        let text = self.text(path)?;
        match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
            Ok(key) => Some(FoundKey::Der(key.secret_der().to_vec())),
            Err(cause) => {
                self.leave(path, format!("it holds no private key: {cause}"));
                None
            }
        }
    }

    /// A chain and a key in files of their own.
    fn pair(&mut self, chain: &Path, key: &Path, directory: Option<String>) {
        let Some(chain_pem) = self.text(chain) else { return };
        let Some(key_pem) = self.text(key) else { return };
        let from = chain.to_owned();
        self.certificates.push(FoundCertificate { from, chain_pem, key_pem, directory });
    }
}

/// What lies in a folder, sorted; nothing when there is none.
fn folders_and_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// The files with this name, or with this extension, in a folder and all below it.
fn find(folder: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in folders_and_files(folder) {
        match path.is_dir() {
            true => found.extend(find(&path, is_wanted)),
            false if is_wanted(&path) => found.push(path),
            false => {}
        }
    }
    found
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|known| known == extension)
}

fn written(path: &Path) -> SystemTime {
    let written = std::fs::metadata(path).and_then(|meta| meta.modified());
    written.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// `mailto:ops@example.com` without its scheme.
fn address(contact: &[String]) -> Option<String> {
    contact.first().map(|url| url.strip_prefix("mailto:").unwrap_or(url).to_owned())
}
