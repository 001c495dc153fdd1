//! Whom the gateway trusts when it is the client: CAs' APIs, upstreams over TLS, providers that
//! solvers talk to.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Why no client configuration could be made.
#[derive(Debug)]
pub enum RootsError {
    /// The PEM file could not be read.
    Read(PathBuf, rustls_pki_types::pem::Error),
    /// The PEM file holds no certificate that can be a root.
    Empty(PathBuf),
}

impl std::fmt::Display for RootsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(path, _) => write!(f, "cannot read roots from {}", path.display()),
            Self::Empty(path) => write!(f, "{} holds no root certificate", path.display()),
        }
    }
}

impl std::error::Error for RootsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, cause) => Some(cause),
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
