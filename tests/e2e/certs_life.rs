//! Promise: certificates are what the operator wants them to be (kinds of keys, chains), accounts get
//! new keys, orders can be rehearsed, and others are told of what happens.

use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::harness::client::Client;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::{Gateway, LATER, SOON, output, until};

const YAML: &str = "
certificates:
  issuers:
    - directory: \"@directory@\"
      roots: @dir@/pebble.pem
      profile: default
      name: pebble
@more@
  challenge: http-01
@keys@
sites:
  - hosts: [@hosts@]
    routes: [{respond: {status: 200, body: app}}]
";

async fn prepared(gateway: &mut Gateway, how: impl FnOnce(&mut Options)) -> Pebble {
    let mut options = Options::new(gateway.http, gateway.https);
    how(&mut options);
    let pebble = Pebble::start(&options).await;
    gateway.file("pebble.pem", &pebble.api_root);
    gateway.set("directory", pebble.directory()).set("hosts", "app.example.com");
    gateway.set("more", "").set("keys", "");
    pebble
}

async fn certs(gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
    let config = gateway.config().display().to_string();
    let all = [&["certs"], arguments, &["--config", &config]].concat();
    let output = output(env!("CARGO_BIN_EXE_witgate"), &all, LATER).await;
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).expect("UTF-8"))
}

/// A client that knows nothing but RSA.
#[derive(Debug)]
struct RsaOnly;

impl ServerCertVerifier for RsaOnly {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
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

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256]
    }
}

/// The algorithm of the key in the certificate that such a client is shown.
pub async fn key_for_rsa_client(port: u16, name: &str) -> Option<String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(RsaOnly))
        .with_no_client_auth();
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream =
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.ok()?;
    let leaf = stream.get_ref().1.peer_certificates()?.first()?.to_vec();
    let (_, leaf) = X509Certificate::from_der(&leaf).ok()?;
    Some(leaf.public_key().algorithm.algorithm.to_id_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_get_the_kind_of_key_they_know_and_the_chain_that_is_preferred() {
    let mut gateway = Gateway::new();
    let pebble = prepared(&mut gateway, |options| options.alternate_roots = 2).await;
    let other = pebble.root_of(2).await;
    let (_, pem) = x509_parser::pem::parse_x509_pem(other.as_bytes()).unwrap();
    let root = pem.parse_x509().unwrap();
    let name = root.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned();
    gateway.set("more", format!("      preferred-chain: {name}")).set("keys", "  keys: both");
    gateway.start(YAML).await;
    // Nobody who trusts that root alone would take the first chain.
    let client = Client::new(gateway.https).trusting(&other);
    client.certified("app.example.com", LATER).await;
    let key = until("a certificate for RSA", LATER, async || {
        key_for_rsa_client(gateway.https, "app.example.com").await
    })
    .await;
    assert_eq!(key, "1.2.840.113549.1.1.1", "rsaEncryption");
    assert_eq!(pebble.issued(), 2);
    // A chain that the CA does not have is told, and costs nothing.
    gateway.set("more", "      preferred-chain: Nobody").configure(YAML);
    gateway.logged(0, &["generation 2 serving"]).await;
    let (is_done, said) = certs(&gateway, &["renew", "app.example.com"]).await;
    assert!(is_done, "{said}");
    let line = gateway.logged_within(0, &["no chain below Nobody"], LATER).await;
    assert!(line.contains(&name), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_get_new_keys_and_rehearsals_leave_nothing_behind() {
    let mut gateway = Gateway::new();
    let pebble = prepared(&mut gateway, |_| {}).await;
    let staging = Pebble::start(&Options::new(gateway.http, gateway.https)).await;
    gateway.file("pebble.pem", format!("{}{}", pebble.api_root, staging.api_root));
    gateway.set("more", format!("      staging: {}", staging.directory())).start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let leaf = client.certified("app.example.com", LATER).await;

    let (is_done, said) = certs(&gateway, &["rehearse"]).await;
    assert!(is_done && said.contains("signed by pebble-staging"), "{said}");
    assert!(said.contains("http-01") && said.contains("nothing was kept"), "{said}");
    assert_eq!((pebble.issued(), staging.issued()), (1, 1));
    assert_eq!(client.clone().fresh().leaf("app.example.com").await.unwrap(), leaf);
    let orders = std::fs::read_dir(gateway.store().join("acme/orders")).unwrap();
    assert_eq!(orders.count(), 0, "something of the rehearsal is left");
    gateway.set("hosts", "app.example.com, blocked.org").configure(YAML);
    gateway.logged_within(0, &["blocked.org", "no certificate"], LATER).await;
    let (is_done, said) = certs(&gateway, &["rehearse", "blocked.org"]).await;
    assert!(!is_done && said.contains("rejectedIdentifier"), "{said}");

    let folder = gateway.store().join("acme/issuers");
    let of_pebble = until("the account's folder", SOON, async || {
        let folders = std::fs::read_dir(&folder).ok()?.filter_map(Result::ok);
        let port = format!("{}", pebble.port);
        folders.map(|f| f.path()).find(|path| path.to_string_lossy().contains(&port))
    })
    .await;
    let read = |name: &str| std::fs::read(of_pebble.join(name)).unwrap();
    let (key, account) = (read("account.key"), read("account.json"));
    let (is_done, said) = certs(&gateway, &["rollover", "nobody"]).await;
    assert!(!is_done && said.contains("no certificate of a site"), "{said}");
    let (is_done, said) = certs(&gateway, &["rollover", "pebble"]).await;
    assert!(is_done && said.contains("a new account key at pebble"), "{said}");
    assert_ne!(read("account.key"), key);
    assert_eq!(read("account.json"), account);
    let (is_done, said) = certs(&gateway, &["renew", "app.example.com"]).await;
    assert!(is_done, "{said}");
    until("another certificate", LATER, async || {
        let next = client.clone().fresh().leaf("app.example.com").await.ok()?;
        (next.serial != leaf.serial).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_and_urls_are_told_of_what_happens() {
    let mut gateway = Gateway::new();
    let pebble = prepared(&mut gateway, |_| {}).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let posted: Arc<Mutex<Vec<String>>> = Arc::default();
    let own = Arc::clone(&posted);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = vec![0; 8192];
            let mut length = 0;
            // Head and body may come in pieces; the body is JSON and ends with a brace.
            while !text[..length].ends_with(b"}") {
                match stream.read(&mut text[length..]).await {
                    Ok(n) if n > 0 => length += n,
                    _ => break,
                }
            }
            own.lock().unwrap().push(String::from_utf8_lossy(&text[..length]).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    });
    let told = gateway.folder().join("told");
    gateway.set("keys", format!(
        "  hooks:\n    - {{command: [/bin/sh, -c, 'cat >> {0}; echo \" $WITGATE_EVENT $SECRET\" >> {0}']}}\n    \
         - {{on: [failed], url: \"http://127.0.0.1:{port}/hook\"}}",
        told.display()
    ));
    gateway.set("hosts", "app.example.com, blocked.org");
    gateway.env("SECRET", "hunter2").start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    client.certified("app.example.com", LATER).await;
    let text = until("both events", LATER, async || {
        let text = std::fs::read_to_string(&told).ok()?;
        (text.contains("issued ") && text.contains("failed ")).then_some(text)
    })
    .await;
    assert!(!text.contains("hunter2"), "the program sees the gateway's environment: {text}");
    let issued = text.lines().find(|line| line.contains("\"issued\"")).expect(&text);
    assert!(
        issued.contains("[\"app.example.com\"]") && issued.contains("\"not_after\":1"),
        "{issued}"
    );
    let post = until("the post", LATER, async || posted.lock().unwrap().first().cloned()).await;
    assert!(post.starts_with("POST /hook ") && post.contains("rejectedIdentifier"), "{post}");
    let (is_done, said) = certs(&gateway, &["revoke", "app.example.com"]).await;
    assert!(is_done, "{said}");
    until("the revocation to be told", LATER, async || {
        std::fs::read_to_string(&told).ok()?.contains("revoked at pebble").then_some(())
    })
    .await;
    assert!(posted.lock().unwrap().iter().all(|post| post.contains("failed")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_set_once_proves_control_of_a_name_and_its_wildcard() {
    let mut gateway = Gateway::new();
    let pebble = prepared(&mut gateway, |_| {}).await;
    let yaml = YAML.replace("challenge: http-01", "challenge: dns-persist-01");
    gateway.set("keys", format!("  resolvers: [\"127.0.0.1:{}\"]", pebble.dns));
    gateway.set("hosts", "app.example.com, \"*.app.example.com\"").start(&yaml).await;
    // It says what to set, and has not bothered the CA with it.
    let line = gateway.logged_within(0, &["no certificate", "set this TXT record"], LATER).await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let said = line["message"].as_str().expect("a message");
    let (name, value) = said.split_once("once: ").unwrap().1.split_once(' ').unwrap();
    assert_eq!(name, "_validation-persist.app.example.com");
    assert!(value.contains("accounturi=https://") && value.contains("policy=wildcard"), "{value}");
    let lines = pebble.process.out.after(0);
    assert!(!lines.iter().any(|line| line.contains("POST /chalZ/")), "the CA was told already");
    pebble.set_txt(name, value.trim_matches('"')).await;
    let (is_done, said) = certs(&gateway, &["renew", "app.example.com"]).await;
    assert!(is_done, "{said}");
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let leaf = client.certified("below.app.example.com", LATER).await;
    assert_eq!(leaf.names, ["*.app.example.com", "app.example.com"]);
    // Renewal needs nothing more.
    let (is_done, said) = certs(&gateway, &["renew", "app.example.com"]).await;
    assert!(is_done, "{said}");
    until("another certificate", LATER, async || {
        let next = client.clone().fresh().leaf("app.example.com").await.ok()?;
        (next.serial != leaf.serial).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_not_the_certificates_is_set_aside_and_replaced() {
    let mut gateway = Gateway::new();
    let pebble = prepared(&mut gateway, |_| {}).await;
    gateway.start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let leaf = client.certified("app.example.com", LATER).await;
    gateway.kill9();
    let item = gateway.store().join("acme/certificates/app.example.com.pem");
    let text = std::fs::read_to_string(&item).unwrap();
    let chain = &text[text.find("-----BEGIN CERTIFICATE-----").unwrap()..];
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(&item, format!("{other}{chain}")).unwrap();
    gateway.spawn();
    gateway.ready().await;
    gateway.logged_within(0, &["set aside", "does not belong to it"], LATER).await;
    let next = client.clone().fresh().certified("app.example.com", LATER).await;
    assert_ne!(next.serial, leaf.serial);
    let aside = std::fs::read_dir(gateway.store().join("set-aside")).unwrap();
    assert_eq!(aside.count(), 1);
}
