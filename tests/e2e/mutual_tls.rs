//! Promise: a site that asks for certificates of its clients is reached with them alone, over every
//! protocol; nothing else is a way around it, and log, upstream and plugins learn who the client is.

use rustls::{HandshakeKind, version};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::harness::client::{Client, Http, get, with};
use crate::harness::origin::field;
use crate::harness::pki::{Ca, Pair};
use crate::harness::quic::Quic;
use crate::harness::{Gateway, RustOrigin, SOON, until};

const YAML: &str = "
sites:
  - hosts: [must.localhost]
    client-certificates: {roots: [ca.pem], forward: chain}
    filters: [filter]
    upstream: app
  - hosts: [may.localhost]
    client-certificates: {mode: request, roots: [ca.pem], forward: leaf}
    upstream: app
  - hosts: [open.localhost]
    filters: [filter]
    upstream: app
upstreams:
  app: http://127.0.0.1:@app@
plugins:
  filter: {component: @guests@/filter.wasm}
";

async fn served(yaml: &str) -> (RustOrigin, Ca, Gateway, Client) {
    let (app, ca) = (RustOrigin::h1().await, Ca::new("devices"));
    let mut gateway = Gateway::new();
    gateway.file("ca.pem", &ca.pem);
    gateway.set("app", app.port).start(yaml).await;
    let client = gateway.client().await;
    (app, ca, gateway, client)
}

/// What the server says to a client without a certificate that it takes. In TLS 1.3 the client is done
/// before that is known.
async fn refused(client: &Client, name: &str) -> String {
    let read = async {
        let mut stream = client.tls(name, &[b"http/1.1"]).await?;
        stream.read_u8().await
    };
    read.await.expect_err("the server says nothing first").to_string()
}

fn client_cert(pair: &Pair) -> String {
    let lines: Vec<&str> = pair.certificate.lines().filter(|l| !l.starts_with('-')).collect();
    format!(":{}:", lines.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_required_shown_and_told() {
    let (_app, ca, gateway, client) = served(YAML).await;
    let pair = ca.sign(&["device.example"]);
    let (text, sent) = (pair.certificate.clone(), client_cert(&pair));
    let stranger = client.clone().showing(Ca::new("others").sign(&["device.example"]));
    let device = client.clone().showing(Pair { certificate: text.clone(), key: pair.key.clone() });
    for protocol in [&version::TLS12, &version::TLS13] {
        let none = client.clone().speaking(protocol);
        assert!(refused(&none, "must.localhost").await.contains("Certificate"), "{protocol:?}");
        let stranger = stranger.clone().speaking(protocol);
        let said = refused(&stranger, "must.localhost").await;
        assert!(said.contains("UnknownCA") || said.contains("BadCert"), "{said}");
        let mut device = device.clone().speaking(protocol).h1("must.localhost").await.unwrap();
        let request = with(get("must.localhost", "/all"), "client-cert", ":Zm9yZ2Vk:");
        let request = with(request, "client-cert-chain", ":Zm9yZ2Vk:");
        let seen = device.send(request).await.unwrap().json();
        assert_eq!(field(&seen, "client-cert"), [sent.as_str()], "{seen}");
        assert!(field(&seen, "client-cert-chain").is_empty(), "{seen}");
        let told = field(&seen, "x-client").concat();
        assert!(told.contains("CN=witgate e2e|CN=devices|"), "{told}");
        assert!(told.ends_with("|dns:device.example"), "{told}");
        assert_eq!(told.split('|').nth(3).map(str::len), Some(64), "{told}");
    }
    let record = gateway.accessed("/all").await;
    let logged = &record["client_certificate"];
    assert_eq!(logged["issuer"], "CN=devices", "{record}");
    assert_eq!(logged["names"], json!(["dns:device.example"]));
    assert_eq!(logged["sha256"].as_str().map(str::len), Some(64), "{record}");
    // A site that only asks takes both, and tells the upstream the truth.
    let request = || with(get("may.localhost", "/"), "client-cert", ":Zm9yZ2Vk:");
    let seen = client.send(request()).await.json();
    assert!(field(&seen, "client-cert").is_empty(), "{seen}");
    let seen = device.send(request()).await.json();
    assert_eq!(field(&seen, "client-cert"), [sent.as_str()]);
    assert!(refused(&stranger, "may.localhost").await.contains("Unknown"), "a wrong one is none");
    // A site that does not ask drops what strangers claim.
    let request = with(get("open.localhost", "/"), "client-cert", ":Zm9yZ2Vk:");
    assert!(field(&client.send(request).await.json(), "client-cert").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_name_on_the_connection_is_no_way_around() {
    let (_app, ca, _gateway, client) = served(YAML).await;
    let device = client.clone().showing(ca.sign(&["device.example"]));
    // Handshakes for names that ask for nothing, or less.
    for name in ["open.localhost", "may.localhost"] {
        for client in [&client, &device] {
            let (mut h1, mut h2) = (client.h1(name).await.unwrap(), client.h2(name).await.unwrap());
            for http in [&mut h1, &mut h2] {
                let answer = http.send(get("must.localhost", "/")).await.unwrap();
                assert_eq!(answer.status, 421, "{name}");
            }
            assert!(h1.open(get("open.localhost", "/")).await.is_err(), "a new connection");
            let answer = h2.send(get("open.localhost", "/all")).await.unwrap();
            assert_eq!(answer.status, 200);
        }
    }
    // One that gave a certificate may ask for other sites, which learn nothing of it.
    let mut h2 = device.h2("must.localhost").await.unwrap();
    let seen = h2.send(get("open.localhost", "/all")).await.unwrap().json();
    assert_eq!(field(&seen, "x-client"), ["||||"], "{seen}");
    assert_eq!(h2.send(get("may.localhost", "/")).await.unwrap().status, 421);
    assert_eq!(h2.send(get("must.localhost", "/")).await.unwrap().status, 200);
}

const LATER_ASKED: &str = "
sites:
  - hosts: [must.localhost]
    @asks@
    upstream: app
upstreams:
  app: http://127.0.0.1:@app@
";

async fn kind(client: &Client) -> Option<HandshakeKind> {
    let stream = client.tls("must.localhost", &[b"http/1.1"]).await.ok()?;
    let kind = stream.get_ref().1.handshake_kind();
    let mut http = Http::over_h1(stream).await.unwrap();
    // The ticket comes with the response.
    http.send(get("must.localhost", "/")).await.ok()?;
    kind
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_session_is_no_way_around() {
    let (app, ca) = (RustOrigin::h1().await, Ca::new("devices"));
    let mut gateway = Gateway::new();
    gateway.file("ca.pem", &ca.pem);
    gateway.set("asks", "").set("app", app.port).start(LATER_ASKED).await;
    for protocol in [&version::TLS12, &version::TLS13] {
        let client = gateway.client().await.speaking(protocol);
        assert_eq!(kind(&client).await, Some(HandshakeKind::Full));
        assert_eq!(kind(&client).await, Some(HandshakeKind::Resumed), "the session would do");
        let mut open = client.h1("must.localhost").await.unwrap();
        assert_eq!(open.send(get("must.localhost", "/")).await.unwrap().status, 200);

        gateway.set("asks", "client-certificates: {roots: [ca.pem]}");
        let mark = gateway.mark();
        gateway.configure(LATER_ASKED);
        gateway.logged(mark, &["generation", "serving"]).await;
        assert_eq!(open.send(get("must.localhost", "/")).await.unwrap().status, 421);
        assert_eq!(kind(&client).await, None, "{protocol:?}");

        // With a certificate sessions resume, and bring it along.
        let pair = ca.sign(&["device.example"]);
        let list = ca.revoke(&pair);
        let device = client.showing(pair);
        assert_eq!(kind(&device).await, Some(HandshakeKind::Full));
        assert_eq!(kind(&device).await, Some(HandshakeKind::Resumed));
        // A list that revokes it ends that.
        gateway.file("revoked.pem", &list);
        gateway.set("asks", "client-certificates: {roots: [ca.pem], revoked: [revoked.pem]}");
        let mark = gateway.mark();
        gateway.configure(LATER_ASKED);
        gateway.logged(mark, &["generation", "serving"]).await;
        let said = refused(&device, "must.localhost").await;
        assert!(said.contains("CertificateRevoked") || said.contains("Revoked"), "{said}");
        let other = gateway.client().await.speaking(protocol).showing(ca.sign(&["b.example"]));
        assert_eq!(kind(&other).await, Some(HandshakeKind::Full));

        gateway.set("asks", "");
        let mark = gateway.mark();
        gateway.configure(LATER_ASKED);
        gateway.logged(mark, &["generation", "serving"]).await;
    }
    // Roots are watched, and a file that cannot be used changes nothing.
    gateway.set("asks", "client-certificates: {roots: [ca.pem]}").configure(LATER_ASKED);
    let device = gateway.client().await.showing(ca.sign(&["device.example"]));
    until("the demand", SOON, async || {
        (refused_or_served(&gateway.client().await).await != 200).then_some(())
    })
    .await;
    let mark = gateway.mark();
    gateway.replace("ca.pem", "nothing");
    gateway.logged(mark, &["ca.pem holds no root certificate", "line"]).await;
    assert_eq!(refused_or_served(&device).await, 200);
    gateway.replace("ca.pem", &Ca::new("others").pem);
    until("the new roots", SOON, async || (refused_or_served(&device).await != 200).then_some(()))
        .await;
}

/// The status of a response, or 0.
async fn refused_or_served(client: &Client) -> u16 {
    let Ok(mut http) = client.h1("must.localhost").await else { return 0 };
    http.send(get("must.localhost", "/")).await.map_or(0, |answer| answer.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http3_is_no_way_around() {
    let (_app, ca, gateway, _client) = served(YAML).await;
    let pair = ca.sign(&["device.example"]);
    let mut none = Quic::connect(&gateway, "127.0.0.1", "must.localhost").await.unwrap();
    // RFC 8446, section 6.2: certificate_required, as QUIC carries it (RFC 9001, section 4.8).
    assert_eq!(none.read().await["ended"], 0x100 + 116);
    let mut open = Quic::connect(&gateway, "127.0.0.1", "open.localhost").await.unwrap();
    let answers = open.ask(json!([{"authority": "must.localhost"}, {"path": "/all"}])).await;
    assert_eq!((&answers[0]["status"], &answers[1]["status"]), (&json!(421), &json!(200)));
    let mut device =
        Quic::connect_showing(&gateway, "127.0.0.1", "must.localhost", Some(&pair)).await.unwrap();
    let answers = device
        .ask(json!([
            {"path": "/all", "headers": [["client-cert", ":Zm9yZ2Vk:"]]},
            {"authority": "open.localhost", "path": "/all"},
            {"authority": "may.localhost"},
        ]))
        .await;
    let seen: Value = serde_json::from_str(answers[0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(field(&seen, "client-cert"), [client_cert(&pair)]);
    assert!(field(&seen, "x-client").concat().ends_with("|dns:device.example"), "{seen}");
    let seen: Value = serde_json::from_str(answers[1]["text"].as_str().unwrap()).unwrap();
    assert_eq!(field(&seen, "x-client"), ["||||"]);
    assert_eq!(answers[2]["status"], 421);
}
