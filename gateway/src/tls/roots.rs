//! Whom the gateway trusts when it is the client: CAs' APIs, upstreams over TLS, providers that
//! solvers talk to.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::CertificateFiles;

/// Why no client configuration could be made.
#[derive(Debug)]
pub enum RootsError {
    /// The PEM file could not be read.
    Read(PathBuf, rustls_pki_types::pem::Error),
    /// The PEM file holds no certificate that can be a root.
    Empty(PathBuf),
    /// The client certificate in this file and its key cannot be used.
    Pair(PathBuf, rustls::Error),
}

impl std::fmt::Display for RootsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(path, _) => write!(f, "cannot read PEM from {}", path.display()),
            Self::Empty(path) => write!(f, "{} holds no root certificate", path.display()),
            Self::Pair(path, _) => write!(
                f,
                "the client certificate {} and its key do not go together",
                path.display()
            ),
        }
    }
}

impl std::error::Error for RootsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, cause) => Some(cause),
            Self::Pair(_, cause) => Some(cause),
            Self::Empty(_) => None,
        }
    }
}

/// A client configuration that trusts the PEM file `roots`, or else the system's store, or else (on
/// a machine without one) Mozilla's list. ALPN is left empty for the caller to set.
///
/// # Errors
/// When `roots` cannot be read or holds no root.
pub fn client_config(roots: Option<&Path>) -> Result<ClientConfig, RootsError> {
    let store = match roots {
        Some(path) => Arc::new(from_file(path)?),
        None => Arc::clone(system()),
    };
    Ok(ClientConfig::builder().with_root_certificates(store).with_no_client_auth())
}

/// The same, and shows the certificate of `pair` to servers that ask for one.
///
/// # Errors
/// Also when the pair cannot be read or is none.
pub fn client_config_with(
    roots: Option<&Path>,
    pair: Option<&CertificateFiles>,
) -> Result<ClientConfig, RootsError> {
    let Some(pair) = pair else { return client_config(roots) };
    let store = match roots {
        Some(path) => Arc::new(from_file(path)?),
        None => Arc::clone(system()),
    };
    let read = |path: &Path, cause| RootsError::Read(path.to_owned(), cause);
    let chain = CertificateDer::pem_file_iter(&pair.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|cause| read(&pair.certificate, cause))?;
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|cause| read(&pair.key, cause))?;
    ClientConfig::builder()
        .with_root_certificates(store)
        .with_client_auth_cert(chain, key)
        .map_err(|cause| RootsError::Pair(pair.certificate.clone(), cause))
}

fn from_file(path: &Path) -> Result<RootCertStore, RootsError> {
    let read = |cause| RootsError::Read(path.to_owned(), cause);
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(read)? {
        let (_added, _ignored) = store.add_parsable_certificates([certificate.map_err(read)?]);
    }
    if store.is_empty() { Err(RootsError::Empty(path.to_owned())) } else { Ok(store) }
}

fn system() -> &'static Arc<RootCertStore> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Arc::new(store)
    })
}
