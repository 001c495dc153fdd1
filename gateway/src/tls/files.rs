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
    Pair(CertificateFiles, CertificateError),
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
                    let is_new = known.is_none_or(|known| known.key.cert != certificate.key.cert);
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
    let certificate = Certificate::from_files(&chain, &key)
        .map_err(|cause| FilesError::Pair(pair.clone(), cause))?;
    if certificate.not_after < Timestamp::now() {
        tracing::warn!(file = %pair.certificate.display(), "this certificate has expired");
    }
    Ok(Arc::new(certificate))
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
}
