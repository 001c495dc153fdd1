//! A TLS terminator that changes nothing: what the clients of the tests see through it is what an
//! application server says. It proves them right before they judge the gateway.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCertUsingSni;
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};

use super::pki::Pair;
use super::port;

/// A running relay; it ends with its scope.
pub struct Relay {
    /// Where it listens.
    pub port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    /// Serves `name` with `pair`, and passes HTTP/1.1 and HTTP/2 on to ports of their own.
    pub async fn start(name: &str, pair: &Pair, h1: u16, h2: u16) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
        let key = provider.key_provider.load_private_key(key).expect("a key");
        let mut names = ResolvesServerCertUsingSni::new();
        names.add(name, CertifiedKey::new(chain, key)).expect("a certificate for the name");
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(names));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let port = port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let mut tls = acceptor.accept(stream).await?;
                    let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                    let to = ("127.0.0.1", if is_h2 { h2 } else { h1 });
                    let mut origin = TcpStream::connect(to).await?;
                    tokio::io::copy_bidirectional(&mut tls, &mut origin).await
                });
            }
        });
        Self { port, task }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
