//! Takes accounts and certificates of other programs into the store, and gives those in the store
//! out as PEM files. What is there already and better is never replaced.

use std::fmt::Write as _;
use std::path::Path;

use super::account::{self, Kept};
use super::jose::AccountKey;
use super::need::{self, History};
use super::{certificate_item, state_item};
use crate::clock::Timestamp;
use crate::config::HostPattern;
use crate::fault::describe;
use crate::migrate::{Found, FoundAccount, FoundCertificate, FoundKey};
use crate::store::{Store, StoreError};
use crate::tls::certs::{Certificate, Origin};

/// What the configuration says about what is taken.
pub struct Wishes<'a> {
    /// Directory URLs of CAs that may be meant, best first.
    pub directories: &'a [String],
    /// The e-mail address for accounts.
    pub contact: Option<&'a str>,
    /// The names of each wanted certificate.
    pub wanted: &'a [Vec<HostPattern>],
}

/// What became of what was found, for a person.
#[derive(Debug, Default)]
pub struct Taken {
    /// A line for each account and certificate.
    pub lines: Vec<String>,
    /// Accounts taken.
    pub accounts: usize,
    /// Certificates taken.
    pub certificates: usize,
    /// What was left where it is.
    pub left: usize,
}

/// Takes all of it into the store; with `is_rehearsal` only says what would be done.
///
/// # Errors
/// When the store refuses. What was taken before stays.
pub fn take(
    store: &Store,
    found: Found,
    wishes: &Wishes<'_>,
    is_rehearsal: bool,
) -> Result<Taken, StoreError> {
    let mut desk = Desk { store, wishes, is_rehearsal, taken: Taken::default() };
    let mut accounts = found.accounts;
    // That of the configured contact first.
    accounts
        .sort_by_key(|one| wishes.contact.is_some() && one.contact.as_deref() != wishes.contact);
    let mut served: Vec<String> = Vec::new();
    for one in &accounts {
        desk.account(one, &mut served)?;
    }
    let mut known: Vec<(String, Timestamp)> = Vec::new();
    for one in &found.certificates {
        desk.certificate(one, &mut known)?;
    }
    for (path, why) in &found.left {
        desk.leave(path, why);
    }
    for hosts in wishes.wanted {
        let name = need::name(hosts);
        let is_there = known.iter().any(|(taken, _)| *taken == name)
            || store.read(&certificate_item(&name))?.is_some();
        if !is_there {
            desk.taken.lines.push(format!("missing      {name}: it is ordered at the next start"));
        }
    }
    Ok(desk.taken)
}

struct Desk<'a> {
    store: &'a Store,
    wishes: &'a Wishes<'a>,
    is_rehearsal: bool,
    taken: Taken,
}

impl Desk<'_> {
    fn leave(&mut self, path: &Path, why: &str) {
        self.taken.left += 1;
        self.taken.lines.push(format!("left         {}: {why}", path.display()));
    }

    fn write(&self, item: &str, content: &[u8]) -> Result<(), StoreError> {
        if self.is_rehearsal { Ok(()) } else { self.store.write(item, content) }
    }

    fn account(&mut self, one: &FoundAccount, served: &mut Vec<String>) -> Result<(), StoreError> {
        let key = match &one.key {
            FoundKey::Der(der) => AccountKey::from_der(der),
            FoundKey::Jwk(text) => AccountKey::from_jwk(text),
        };
        let Some((key, der)) = key.and_then(|key| key.pkcs8().map(|der| (key, der))) else {
            self.leave(&one.from, "its key is of no kind that is known here (P-256, P-384, RSA)");
            return Ok(());
        };
        let Some(url) = &one.url else {
            self.leave(&one.from, "this account was never registered");
            return Ok(());
        };
        let directory = one.directory.clone().or_else(|| self.directory(&one.hint, url));
        let Some(directory) = directory else {
            let why = format!("no issuer of the configuration is that of {url}");
            self.leave(&one.from, &why);
            return Ok(());
        };
        let folder = account::folder(&directory);
        let item = format!("{folder}/account.json");
        if served.contains(&directory) || self.store.read(&item)?.is_some() {
            let why = format!("there is an account at {directory} already");
            self.leave(&one.from, &why);
            return Ok(());
        }
        let contact = one.contact.clone();
        let kept = Kept { id: url.clone(), directory: directory.clone(), contact };
        // The key first, as always.
        self.write(&format!("{folder}/account.key"), &der)?;
        self.write(&item, &serde_json::to_vec(&kept).unwrap_or_default())?;
        let mut line = format!("account      {url} ({})", key.kind());
        if !key.is_usual() {
            line.push_str(", which gets a P-256 key before its first order");
        }
        self.taken.lines.push(line);
        self.taken.accounts += 1;
        served.push(directory);
        Ok(())
    }

    fn certificate(
        &mut self,
        one: &FoundCertificate,
        known: &mut Vec<(String, Timestamp)>,
    ) -> Result<(), StoreError> {
        let (chain, key) = (one.chain_pem.as_bytes(), one.key_pem.as_bytes());
        let certificate = match Certificate::from_pem(chain, key, Origin::Acme) {
            Ok(certificate) => certificate,
            Err(cause) => {
                self.leave(&one.from, &format!("it {}", describe(&cause)));
                return Ok(());
            }
        };
        let end = certificate.not_after;
        if end <= Timestamp::now() {
            self.leave(&one.from, &format!("it ended {end}"));
            return Ok(());
        }
        let pem = format!("{}\n{}", one.key_pem.trim_end(), one.chain_pem);
        for name in self.names(&certificate) {
            let better = match known.iter().find(|(taken, _)| *taken == name) {
                Some((_, end)) => Some(*end),
                None => self.end_of_stored(&name)?,
            };
            if better.is_some_and(|better| better >= end) {
                self.leave(&one.from, &format!("there is one for {name} that is as good"));
                continue;
            }
            known.retain(|(taken, _)| *taken != name);
            known.push((name.clone(), end));
            self.write(&certificate_item(&name), pem.as_bytes())?;
            let history = History { issued_by: one.directory.clone(), ..History::default() };
            self.write(&state_item(&name), &serde_json::to_vec(&history).unwrap_or_default())?;
            let mut line = format!("certificate  {name}, until {end}");
            if let Some(by) = &one.directory {
                let _ = write!(line, ", from {by}");
            }
            if !self.wishes.wanted.iter().any(|hosts| need::name(hosts) == name) {
                line.push_str(" (no site wants it; it is kept)");
            }
            self.taken.lines.push(line);
            self.taken.certificates += 1;
        }
        Ok(())
    }

    /// The names under which a certificate is kept: those of the wanted ones that it can serve, and
    /// groups of what is left over.
    fn names(&self, certificate: &Certificate) -> Vec<String> {
        let has = |host: &HostPattern| certificate.names.contains(host);
        let fits = |hosts: &&Vec<HostPattern>| hosts.iter().all(has);
        let wanted: Vec<&Vec<HostPattern>> = self.wishes.wanted.iter().filter(fits).collect();
        let rest = certificate.names.iter().filter(|host| !wanted.iter().any(|w| w.contains(host)));
        let rest: Vec<HostPattern> = rest.cloned().collect();
        let rest = need::group(&rest);
        wanted.into_iter().chain(&rest).map(|hosts| need::name(hosts)).collect()
    }

    fn end_of_stored(&self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        let pem = self.store.read(&certificate_item(name))?;
        let stored = pem.and_then(|pem| Certificate::from_pem(&pem, &pem, Origin::Acme).ok());
        Ok(stored.map(|stored| stored.not_after))
    }

    /// The directory that an account belongs to, by what its program called the CA, else by the
    /// host of the account's URL.
    fn directory(&self, hint: &str, url: &str) -> Option<String> {
        let plain = |text: &str| -> String {
            let rest = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
            rest.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
        };
        let host = |url: &str| -> Option<String> {
            url.strip_prefix("https://")?.split('/').next().map(str::to_owned)
        };
        let mut all = self.wishes.directories.iter();
        let by_hint = all.clone().find(|known| {
            let name = plain(known);
            let of_host = host(known).map(|host| plain(&host));
            !hint.is_empty() && (name == plain(hint) || of_host == Some(plain(hint)))
        });
        let by_host = || all.find(|known| host(known).is_some() && host(known) == host(url));
        by_hint.or_else(by_host).cloned()
    }
}

/// Writes the certificates in the store as PEM files, `NAME/{privkey,cert,chain,fullchain}.pem`;
/// those of `hosts`, or all when it is empty. Returns a line for each.
///
/// # Errors
/// When a file cannot be written, the store not be read, or a host has no certificate.
pub fn give(store: &Store, folder: &Path, hosts: &[String]) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    let mut given: Vec<&String> = Vec::new();
    for item in store.list("acme/certificates").map_err(|cause| describe(&cause))? {
        let name = item.rsplit('/').next().unwrap_or_default().trim_end_matches(".pem");
        let Some(pem) = store.read(&item).map_err(|cause| describe(&cause))? else { continue };
        let certificate = match Certificate::from_pem(&pem, &pem, Origin::Acme) {
            Ok(certificate) => certificate,
            Err(cause) => {
                lines.push(format!("left         {item} {}", describe(&cause)));
                continue;
            }
        };
        let is_for = |host: &&String| {
            let is_name = |name: &HostPattern| name.to_string() == **host || name.matches(host);
            certificate.names.iter().any(is_name)
        };
        let asked: Vec<&String> = hosts.iter().filter(is_for).collect();
        if asked.is_empty() && !hosts.is_empty() {
            continue;
        }
        given.extend(asked);
        // A wildcard's star has a meaning in shells.
        let folder = folder.join(name.replace('*', "_"));
        write_parts(&folder, &String::from_utf8_lossy(&pem))?;
        lines.push(format!("{}: until {}", folder.display(), certificate.not_after));
    }
    match hosts.iter().find(|host| !given.contains(host)) {
        Some(missing) => Err(format!("the store has no certificate for {missing}")),
        None => Ok(lines),
    }
}

fn write_parts(folder: &Path, pem: &str) -> Result<(), String> {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    let failed =
        |path: &Path, cause: std::io::Error| format!("cannot write {}: {cause}", path.display());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|cause| failed(folder, cause))?;
    let at = pem.find(BEGIN_CERTIFICATE).unwrap_or(pem.len());
    let (key, chain) = pem.split_at(at);
    let end = chain.find(END_CERTIFICATE).map_or(chain.len(), |at| at + END_CERTIFICATE.len());
    let (leaf, rest) = chain.split_at(end);
    let leaf = format!("{leaf}\n");
    let parts = [
        ("privkey.pem", key),
        ("cert.pem", &leaf),
        ("chain.pem", rest.trim_start()),
        ("fullchain.pem", chain),
    ];
    for (name, text) in parts {
        let (path, new) = (folder.join(name), folder.join(format!("{name}.new")));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&new)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(|cause| failed(&path, cause))?;
    }
    Ok(())
}

const BEGIN_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const END_CERTIFICATE: &str = "-----END CERTIFICATE-----";
