//! Promise: TLS to upstreams goes by their own roots and name, and shows a client certificate where one is
//! asked for; a new certificate at the same path takes effect.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::pki::{Ca, Leaf, Pair};
use crate::harness::{Gateway, SOON, port, until};

/// A TLS server that wants a client certificate of `ca` and answers with the name in it and the SNI.
async fn server(ca: &Ca, own: &Pair) -> u16 {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let chain = CertificateDer::pem_slice_iter(own.certificate.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let port = port();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let tls = stream.get_ref().1;
            let shown = tls.peer_certificates().and_then(|chain| chain.first()).unwrap();
            let text =
                format!("{} {}", Leaf::read(shown).names[0], tls.server_name().unwrap_or("-"));
            let answer = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

const YAML: &str = "
sites:
  - {hosts: [good.localhost], upstream: good}
  - {hosts: [none.localhost], upstream: none}
  - {hosts: [name.localhost], upstream: name}
  - {hosts: [roots.localhost], upstream: roots}
upstreams:
  good:
    servers: [\"https://127.0.0.1:@port@\"]
    roots: ca.pem
    server-name: app.internal
    client-certificate: {certificate: client.pem, key: client-key.pem}
  none: {servers: [\"https://127.0.0.1:@port@\"], roots: ca.pem, server-name: app.internal}
  name:
    servers: [\"https://127.0.0.1:@port@\"]
    roots: ca.pem
    server-name: other.internal
    client-certificate: {certificate: client.pem, key: client-key.pem}
  roots:
    servers: [\"https://127.0.0.1:@port@\"]
    server-name: app.internal
    client-certificate: {certificate: client.pem, key: client-key.pem}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roots_name_and_client_certificate_are_checked_and_shown() {
    let ca = Ca::new("internal");
    let port = server(&ca, &ca.sign(&["app.internal"])).await;
    let mut gateway = Gateway::new();
    let put = |name: &str| {
        let pair = ca.sign(&[name]);
        gateway.replace("client-key.pem", &pair.key);
        gateway.replace("client.pem", &pair.certificate);
    };
    put("first.internal");
    gateway.file("ca.pem", &ca.pem);
    gateway.set("port", port).start(YAML).await;
    let client = gateway.client().await;
    let answer = client.get("good.localhost", "/").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "first.internal app.internal"));
    for (host, why) in [
        ("none.localhost", "CertificateRequired"),
        ("name.localhost", "not valid for name"),
        ("roots.localhost", "UnknownIssuer"),
    ] {
        assert_eq!(client.get(host, "/").await.status, 502, "{host}");
        let record = gateway.accessed_as("host", host).await;
        let error = record["error"].as_str().unwrap_or_default();
        assert!(error.contains(why), "{host}: {record}");
    }
    let pair = ca.sign(&["second.internal"]);
    gateway.replace("client-key.pem", &pair.key);
    gateway.replace("client.pem", &pair.certificate);
    until("the new certificate", 2 * SOON, async || {
        let answer = client.get("good.localhost", "/").await;
        (answer.text() == "second.internal app.internal").then_some(())
    })
    .await;
}
