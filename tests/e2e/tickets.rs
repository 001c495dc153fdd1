//! Promise: machines that share a secret and nothing else resume each other's sessions; without it, or
//! with another one, they make new ones and serve all the same.

use rustls::{HandshakeKind, version};

use crate::harness::client::{Client, get};
use crate::harness::pki::{Ca, Pair};
use crate::harness::{Gateway, Http};

const YAML: &str = "
tls: {tickets: {secret: {file: @dir@/tickets}, rotation: 1h}}
certificates:
  files: [{certificate: @dir@/chain.pem, key: @dir@/key.pem}]
sites:
  - hosts: [app.example.com]
    certificate: files
    routes: [{respond: {status: 200, body: here}}]
";

async fn started(pair: &Pair, secret: &str) -> Gateway {
    let mut gateway = Gateway::new();
    gateway.file("chain.pem", &pair.certificate);
    gateway.file("key.pem", &pair.key);
    gateway.file("tickets", secret);
    gateway.start(YAML).await;
    gateway
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_with_one_secret_resume_each_others_sessions() {
    let ca = Ca::new("A CA");
    let pair = ca.sign(&["app.example.com"]);
    let secret = "c2l4dHktZm91ciBieXRlcyBvZiBjaGFuY2Ugb3Igc28K\n";
    let one = started(&pair, secret).await;
    let other = started(&pair, secret).await;
    let stranger = started(&pair, &format!("another {secret}")).await;
    for offered in [&version::TLS12, &version::TLS13] {
        let client = Client::new(one.https).trusting(&ca.pem).speaking(offered);
        for (gateway, expected) in [
            (&one, HandshakeKind::Full),
            (&other, HandshakeKind::Resumed),
            (&one, HandshakeKind::Resumed),
            (&stranger, HandshakeKind::Full),
            (&other, HandshakeKind::Full),
        ] {
            let client = client.clone().at(gateway.https);
            let stream = client.tls("app.example.com", &[b"http/1.1"]).await.unwrap();
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(expected), "{offered:?} at {}", gateway.https);
            // Tickets of TLS 1.3 come after the handshake: they are read together with an answer.
            let mut http = Http::over_h1(stream).await.unwrap();
            assert_eq!(http.send(get("app.example.com", "/")).await.unwrap().text(), "here");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_too_short_is_not_taken_and_changes_take_effect_at_once() {
    let ca = Ca::new("A CA");
    let pair = ca.sign(&["app.example.com"]);
    let gateway = started(&pair, "c2l4dHktZm91ciBieXRlcyBvZiBjaGFuY2Ugb3Igc28K").await;
    let client = Client::new(gateway.https).trusting(&ca.pem);
    assert_eq!(client.get("app.example.com", "/").await.status, 200);
    let mark = gateway.mark();
    gateway.file("tickets", "short");
    gateway.configure(&format!("{YAML}limits: {{drain: 1s}}\n"));
    gateway.logged(mark, &["tls.tickets.secret", "fewer than 32"]).await;
    let stream = client.tls("app.example.com", &[b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "as before");
    let mark = gateway.mark();
    gateway.configure(
        &YAML.replace("tls: {tickets: {secret: {file: @dir@/tickets}, rotation: 1h}}", ""),
    );
    gateway.logged(mark, &["serving"]).await;
    let stream = client.tls("app.example.com", &[b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full), "other keys");
}
