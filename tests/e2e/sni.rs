//! Promise: two sites, three sources of certificates, and for every server name the right one; a
//! name that is not here is refused with the alert that says so.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, HandshakeKind, version};

use crate::harness::client::{Client, get};
use crate::harness::pebble::{Options, Pebble};
use crate::harness::pki::Ca;
use crate::harness::{Gateway, LATER, RustOrigin, SOON, until};

const YAML: &str = "
certificates:
  issuers: [{directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default}]
  files: [{certificate: @dir@/chain.pem, key: @dir@/key.pem}]
sites:
  - hosts: [file.example.com, \"*.wild.example.com\"]
    certificate: files
    routes: [{respond: {status: 200, body: file}}]
  - hosts: [app.example.com]
    routes: [{respond: {status: 200, body: acme}}]
  - hosts: [app.localhost, other.localhost]
    routes: [{respond: {status: 200, body: local}}]
";

/// RFC 6066, section 3.
const UNRECOGNIZED_NAME: u8 = 112;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_name_gets_its_own_certificate() {
    let mut gateway = Gateway::new();
    let pebble = Pebble::start(&Options::new(gateway.http, gateway.https)).await;
    let ca = Ca::new("Somebody else's CA");
    let pair = ca.sign(&["file.example.com", "*.wild.example.com"]);
    gateway.file("chain.pem", &pair.certificate);
    gateway.file("key.pem", &pair.key);
    gateway.file("pebble.pem", &pebble.api_root);
    gateway.set("directory", pebble.directory()).start(YAML).await;

    let root = pebble.root().await;
    let by_file = Client::new(gateway.https).trusting(&ca.pem);
    let by_acme = Client::new(gateway.https).trusting(&root);
    let by_local = gateway.client().await;
    by_acme.certified("app.example.com", LATER).await;
    for client in [&version::TLS12, &version::TLS13] {
        let leaf = by_file.clone().speaking(client).leaf("file.example.com").await.unwrap();
        assert_eq!(leaf.names, ["*.wild.example.com", "file.example.com"]);
        assert!(leaf.issuer.contains("Somebody else"), "{leaf:?}");
        let wild = by_file.clone().speaking(client).leaf("any.wild.example.com").await.unwrap();
        assert_eq!(wild, leaf);
        let leaf = by_acme.clone().speaking(client).leaf("app.example.com").await.unwrap();
        assert_eq!(leaf.names, ["app.example.com"]);
        assert!(leaf.issuer.contains("Pebble"), "{leaf:?}");
        for name in ["app.localhost", "other.localhost"] {
            let leaf = by_local.clone().speaking(client).leaf(name).await.unwrap();
            assert!(leaf.names.contains(&name.to_owned()), "{leaf:?}");
        }
    }
    for (client, name, body) in [
        (&by_file, "file.example.com", "file"),
        (&by_file, "any.wild.example.com", "file"),
        (&by_acme, "app.example.com", "acme"),
        (&by_local, "other.localhost", "local"),
    ] {
        assert_eq!(client.get(name, "/").await.text(), body);
    }
}

const FILES: &str = "
certificates:
  files: [{certificate: @dir@/chain.pem, key: @dir@/key.pem}]
  @default@
sites:
  - hosts: [file.example.com]
    certificate: files
    routes: [{respond: {status: 200, body: file}}]
  - hosts: [app.localhost]
    routes: [{upstream: app}]
upstreams:
  app: http://127.0.0.1:@origin@
";

/// A gateway with one certificate from files, and that CA.
async fn with_files(default: &str) -> (Gateway, Ca, RustOrigin) {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let ca = Ca::new("Somebody else's CA");
    let pair = ca.sign(&["file.example.com"]);
    gateway.file("chain.pem", &pair.certificate);
    gateway.file("key.pem", &pair.key);
    gateway.set("default", default).set("origin", origin.port).start(FILES).await;
    (gateway, ca, origin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_absent_names_are_refused() {
    let (gateway, ca, _origin) = with_files("").await;
    for offered in [&version::TLS12, &version::TLS13] {
        let client = Client::new(gateway.https).trusting(&ca.pem).speaking(offered);
        for name in ["evil.example", "example.com", "x.file.example.com", "localhost"] {
            assert_eq!(client.alert(name).await, Some(UNRECOGNIZED_NAME), "{name} {offered:?}");
        }
        let alert = client.clone().without_sni().alert("file.example.com").await;
        assert!(alert.is_some(), "absent SNI, {offered:?}");
        client.leaf("file.example.com").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_default_is_for_clients_without_a_name_alone() {
    let (gateway, ca, _origin) = with_files("default: file.example.com").await;
    let client = Client::new(gateway.https).trusting(&ca.pem);
    let leaf = client.clone().without_sni().leaf("file.example.com").await.unwrap();
    assert_eq!(leaf.names, ["file.example.com"]);
    assert!(client.leaf("evil.example").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_resume_and_keys_are_post_quantum() {
    let (gateway, _ca, _origin) = with_files("").await;
    let client = gateway.client().await;
    let stream = client.tls("app.localhost", &[b"h2", b"http/1.1"]).await.unwrap();
    let session = stream.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    let group = session.negotiated_key_exchange_group().expect("a group").name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    for offered in [&version::TLS12, &version::TLS13] {
        let client = gateway.client().await.speaking(offered);
        // Tickets of TLS 1.3 come after the handshake: they are read together with an answer.
        assert_eq!(client.get("app.localhost", "/").await.status, 200);
        let stream = client.tls("app.localhost", &[b"http/1.1"]).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::Resumed), "{offered:?}");
        let mut http = crate::harness::Http::over_h1(stream).await.unwrap();
        assert_eq!(http.send(get("app.localhost", "/")).await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_files_are_served_once_they_fit() {
    let (gateway, ca, _origin) = with_files("").await;
    let client = Client::new(gateway.https).trusting(&ca.pem);
    let first = client.leaf("file.example.com").await.unwrap();
    let mut open = client.h1("file.example.com").await.unwrap();

    let next = ca.sign(&["file.example.com"]);
    let mark = gateway.mark();
    gateway.replace("chain.pem", &next.certificate);
    gateway.logged(mark, &["key.pem"]).await;
    assert_eq!(client.leaf("file.example.com").await.unwrap(), first, "a pair that does not fit");

    gateway.replace("key.pem", &next.key);
    until("the new certificate", SOON, async || {
        (client.leaf("file.example.com").await.unwrap() != first).then_some(())
    })
    .await;
    assert_eq!(open.send(get("file.example.com", "/")).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_root_outlives_a_restart() {
    let (mut gateway, _ca, _origin) = with_files("").await;
    let root = gateway.local_root().await;
    let client = gateway.client().await;
    client.leaf("app.localhost").await.unwrap();
    gateway.restart().await;
    assert_eq!(gateway.local_root().await, root);
    client.certified("app.localhost", SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_clients_do_not_hold_up_others() {
    let (gateway, _ca, _origin) = with_files("").await;
    let client = gateway.client().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(client.tcp().await.unwrap());
    }
    for _ in 0..20 {
        assert_eq!(client.clone().fresh().get("app.localhost", "/").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_are_counted_by_group() {
    let (gateway, _ca, _origin) = with_files("").await;
    let client = gateway.client().await;
    for _ in 0..3 {
        assert_eq!(client.clone().fresh().get("app.localhost", "/group").await.status, 200);
    }
    let line = |resumed: &str| {
        format!("witgate_handshakes_total{{group=\"X25519MLKEM768\",resumed=\"{resumed}\"}}")
    };
    assert_eq!(gateway.metric(&line("no")).await, 3);
    for _ in 0..2 {
        assert_eq!(client.get("app.localhost", "/").await.status, 200);
    }
    assert_eq!(gateway.metric("witgate_handshakes_total").await, 5);
    assert_eq!(gateway.metric(&line("yes")).await, 1);
    assert_eq!(gateway.accessed("/group").await["tls_group"], "X25519MLKEM768");
}

/// Believes every server, and keeps what was stapled.
#[derive(Debug, Default)]
struct Stapled(std::sync::Mutex<Vec<u8>>);

impl ServerCertVerifier for Stapled {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        staple: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = staple.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ocsp_response_is_stapled_and_replaced() {
    let ca = Ca::new("Somebody else's CA");
    let mut gateway = Gateway::new();
    let pair = ca.sign(&["file.example.com"]);
    gateway.file("chain.pem", &pair.certificate);
    gateway.file("key.pem", &pair.key);
    // OCSPResponse (RFC 6960, section 4.2.1): successful, and something that only its readers look at.
    let first = [&[0x30, 6, 0x0a, 1, 0][..], b"one"].concat();
    let second = [&[0x30, 6, 0x0a, 1, 0][..], b"two"].concat();
    gateway.file("chain.ocsp", &first);
    let yaml = FILES.replace("key: @dir@/key.pem}", "key: @dir@/key.pem, ocsp: @dir@/chain.ocsp}");
    gateway.set("default", "").set("origin", 1).start(&yaml).await;
    let client = Client::new(gateway.https);
    let staple = async || {
        let stapled = std::sync::Arc::new(Stapled::default());
        let mut config = rustls::ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(stapled.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let name = ServerName::try_from("file.example.com").unwrap();
        connector.connect(name, client.tcp().await.unwrap()).await.unwrap();
        stapled.0.lock().unwrap().clone()
    };
    assert_eq!(staple().await, first);
    let mark = gateway.mark();
    gateway.replace("chain.ocsp", b"half");
    gateway.logged(mark, &["chain.ocsp", "no OCSP response"]).await;
    assert_eq!(staple().await, first, "what cannot be used changes nothing");
    gateway.replace("chain.ocsp", &second);
    until("the new response", SOON, async || (staple().await == second).then_some(())).await;
}
