//! Certificates that somebody else keeps up to date: PEM files, checked as a pair before they go live,
//! looked at again when they change.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::certs::{Certificate, CertificateError, Certs};
use super::lazy;
use crate::clock::Timestamp;
use crate::config::CertificateFiles;
use crate::fault::Fault;

/// The pairs of `certificates.files`.
#[derive(Debug, Default)]
pub struct Files {
    pairs: Vec<CertificateFiles>,
}

/// Why a pair of files cannot be served.
#[derive(Debug)]
pub enum FilesError {
    /// A file cannot be read.
    Read(PathBuf, std::io::Error),
    /// The pair is no good.
    Pair(Box<CertificateFiles>, CertificateError),
    /// The file holds no OCSP response that says anything.
    Ocsp(PathBuf),
}

impl Files {
    /// Sets the pairs: publishes all of them, withdraws those that are no longer named.
    ///
    /// # Errors
    /// When one cannot be served; then nothing has changed.
    pub fn load(&mut self, pairs: &[CertificateFiles], certs: &Certs) -> Result<(), FilesError> {
        let read = |pair: &CertificateFiles| read(pair).map(|made| (slot(pair), made));
        let loaded = lazy::on_all_cores(pairs, read).into_iter().collect::<Result<Vec<_>, _>>()?;
        let named: HashSet<String> = pairs.iter().map(slot).collect();
        let gone = self.pairs.iter().map(slot).filter(|known| !named.contains(known));
        let gone: Vec<String> = gone.collect();
        certs.withdraw(&gone);
        certs.publish(loaded);
        self.pairs = pairs.to_vec();
        Ok(())
    }

    /// Reads all pairs again. A pair that cannot be served leaves its old certificate in place, with a
    /// log line: key and chain are often written one after the other.
    pub fn reload(&self, certs: &Certs) {
        let served: HashMap<String, Arc<Certificate>> = certs.all().into_iter().collect();
        for pair in &self.pairs {
            match read(pair) {
                Ok(certificate) => {
                    let known = served.get(&slot(pair));
                    let what = |one: &Certificate| (one.key.cert.clone(), one.key.ocsp.clone());
                    let is_new = known.is_none_or(|known| what(known) != what(&certificate));
                    if is_new {
                        let file = pair.certificate.display();
                        tracing::info!(%file, "certificate replaced");
                        certs.publish(vec![(slot(pair), certificate)]);
                    }
                }
                Err(cause) => tracing::error!("{cause}; the certificate before it stays in use"),
            }
        }
    }
}

fn slot(pair: &CertificateFiles) -> String {
    format!("file/{}", pair.certificate.display())
}

fn read(pair: &CertificateFiles) -> Result<Arc<Certificate>, FilesError> {
    let read =
        |path: &PathBuf| std::fs::read(path).map_err(|cause| FilesError::Read(path.clone(), cause));
    let (chain, key) = (read(&pair.certificate)?, read(&pair.key)?);
    let mut certificate = Certificate::from_files(&chain, &key)
        .map_err(|cause| FilesError::Pair(Box::new(pair.clone()), cause))?;
    if let Some(path) = &pair.ocsp {
        let response = read(path)?;
        if !is_ocsp_response(&response) {
            return Err(FilesError::Ocsp(path.clone()));
        }
        Arc::make_mut(&mut certificate.key).ocsp = Some(response);
    }
    if certificate.not_after < Timestamp::now() {
        tracing::warn!(file = %pair.certificate.display(), "this certificate has expired");
    }
    Ok(Arc::new(certificate))
}

/// Whether it is an OCSPResponse in DER whose status is `successful` (RFC 6960, section 4.2.1). Whether
/// it is of this certificate and still good is for clients to judge.
fn is_ocsp_response(der: &[u8]) -> bool {
    let [0x30, length, rest @ ..] = der else { return false };
    let rest = match length {
        0..=0x7f => Some(rest),
        0x81..=0x84 => rest.get(usize::from(length & 0x7f)..),
        _ => None,
    };
    rest.is_some_and(|rest| rest.starts_with(&[0x0a, 1, 0]))
}

impl FilesError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        Fault::Operator
    }
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, cause) => write!(f, "cannot read {}: {cause}", path.display()),
            Self::Pair(pair, cause) => {
                let (certificate, key) = (pair.certificate.display(), pair.key.display());
                write!(f, "the pair {certificate} and {key} {cause}")
            }
            Self::Ocsp(path) => write!(
                f,
                "{} is no OCSP response (DER) with the status `successful`, as `openssl ocsp \
                 -respout` writes it",
                path.display()
            ),
        }
    }
}

impl std::error::Error for FilesError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_pair_leaves_the_old_one_serving() {
        let folder = tempfile::tempdir().unwrap();
        let pair = CertificateFiles {
            certificate: folder.path().join("chain.pem"),
            key: folder.path().join("key.pem"),
            ocsp: None,
        };
        let write = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            std::fs::write(&pair.certificate, made.cert.pem()).unwrap();
            std::fs::write(&pair.key, made.signing_key.serialize_pem()).unwrap();
        };
        let certs = Certs::default();
        let mut files = Files::default();
        assert!(files.load(std::slice::from_ref(&pair), &certs).is_err());
        write("a.example");
        files.load(std::slice::from_ref(&pair), &certs).unwrap();
        let first = certs.find(Some("a.example")).unwrap();
        let key = std::fs::read(&pair.key).unwrap();
        write("a.example");
        let other = std::fs::read(&pair.key).unwrap();
        std::fs::write(&pair.key, key).unwrap();
        files.reload(&certs);
        assert!(Arc::ptr_eq(&first, &certs.find(Some("a.example")).unwrap()));
        std::fs::write(&pair.key, other).unwrap();
        files.reload(&certs);
        assert!(!Arc::ptr_eq(&first, &certs.find(Some("a.example")).unwrap()));
        files.load(&[], &certs).unwrap();
        assert!(certs.find(Some("a.example")).is_none());
    }

    #[test]
    fn a_staple_is_taken_when_it_is_one_and_replaced_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        std::fs::write(path("chain.pem"), made.cert.pem()).unwrap();
        std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let (certificate, key) = (path("chain.pem"), path("key.pem"));
        let pair = CertificateFiles { certificate, key, ocsp: Some(path("ocsp")) };
        let certs = Certs::default();
        let mut files = Files::default();
        let staple = || certs.find(Some("a.example")).unwrap().key.ocsp.clone();
        for wrong in [&b""[..], b"-----BEGIN", &[0x30, 3, 0x0a, 1, 6], &[0x30, 0x82, 1]] {
            std::fs::write(path("ocsp"), wrong).unwrap();
            let refused = files.load(std::slice::from_ref(&pair), &certs).unwrap_err();
            assert!(matches!(refused, FilesError::Ocsp(_)), "{refused}");
        }
        let good = [&[0x30, 0x82, 0, 10, 0x0a, 1, 0][..], &[7; 7]].concat();
        std::fs::write(path("ocsp"), &good).unwrap();
        files.load(std::slice::from_ref(&pair), &certs).unwrap();
        assert_eq!(staple().unwrap(), good);
        std::fs::write(path("ocsp"), b"half").unwrap();
        files.reload(&certs);
        assert_eq!(staple().unwrap(), good, "the one before stays");
        std::fs::write(path("ocsp"), [0x30, 3, 0x0a, 1, 0]).unwrap();
        files.reload(&certs);
        assert_eq!(staple().unwrap(), [0x30, 3, 0x0a, 1, 0]);
    }
}
