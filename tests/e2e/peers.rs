//! Promise of the harness itself: the peers that the other tests talk to are real and work here.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, OrderStatus,
    RetryPolicy,
};
use rustls::HandshakeKind;

use crate::harness::client::{Client, get, request, with, zeros};
use crate::harness::load::{Load, Plan};
use crate::harness::origin::field;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::pki::Ca;
use crate::harness::powerdns::PowerDns;
use crate::harness::relay::Relay;
use crate::harness::websocket::{Frame, WebSocket};
use crate::harness::{Http, LATER, Origin, RustOrigin, SOON, guests, output, port, until, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uvicorn_serves_the_application() {
    let origin = Origin::start().await;
    let mut http = Client::new(origin.port).plain().await.unwrap();
    let answer = http.send(get("app.example", "/json")).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["hello"], "world");
    let mut upload = request("PUT", "app.example", "/upload", "");
    *upload.body_mut() = zeros(3_000_000);
    let answer = http.send(upload).await.unwrap();
    assert_eq!(answer.json()["bytes"], 3_000_000);
    let answer = http.send(get("app.example", "/seen")).await.unwrap();
    assert_eq!(answer.json()["scheme"], "http");
    assert_eq!(answer.json()["client"], "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_small_application_shows_what_it_got() {
    for origin in [RustOrigin::h1().await, RustOrigin::h2c().await] {
        let client = Client::new(origin.port);
        let mut http = if origin.is_h2 {
            Http::over_h2(client.tcp().await.unwrap()).await.unwrap()
        } else {
            client.plain().await.unwrap()
        };
        let answer = http.send(request("POST", "a.example", "/x?y=1", "body")).await.unwrap();
        let json = answer.json();
        assert_eq!(json["method"], "POST");
        assert_eq!(json["target"], "/x?y=1");
        assert_eq!(json["body"], "body");
        assert_eq!(field(&json, "host").is_empty(), origin.is_h2);
        assert!(http.send(get("a.example", "/half")).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pebble_starts_and_shows_its_root() {
    let pebble = Pebble::start(&Options::new(port(), port())).await;
    assert!(pebble.root().await.starts_with("-----BEGIN CERTIFICATE-----"));
    let client = Client::new(pebble.port).trusting(&pebble.api_root);
    let directory = client.send(with(get("localhost", "/dir"), "user-agent", "e2e")).await;
    assert!(directory.json()["newOrder"].is_string(), "{directory:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_see_what_a_server_says() {
    let (uvicorn, small) = (Origin::start().await, RustOrigin::h2c().await);
    let ca = Ca::new("Relay");
    let pair = ca.sign(&["app.example"]);
    let relay = Relay::start("app.example", &pair, uvicorn.port, small.port).await;
    let client = Client::new(relay.port).trusting(&ca.pem);
    assert_eq!(client.leaf("app.example").await.unwrap().names, ["app.example"]);
    assert!(client.alert("other.example").await.is_some());
    assert!(client.clone().without_sni().alert("app.example").await.is_some());
    for offered in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = client.clone().speaking(offered);
        assert_eq!(client.get("app.example", "/json").await.status, 200);
        let stream = client.tls("app.example", &[b"http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    }
    let mut http = client.h2("app.example").await.unwrap();
    let answer = http.send(with(get("app.example", "/trailers"), "te", "trailers")).await.unwrap();
    assert_eq!(answer.trailers.unwrap()["x-checksum"], "abc");

    let mut socket = WebSocket::open(&client, "app.example", "/ws").await.unwrap();
    let large = vec![9; 100_000];
    socket.binary(&large).await.unwrap();
    assert_eq!(socket.read().await.unwrap(), Frame::Binary(large));
    socket.ping(b"x").await.unwrap();
    assert_eq!(socket.read().await.unwrap(), Frame::Pong(b"x".to_vec()));
    socket.text("close").await.unwrap();
    assert_eq!(socket.read().await.unwrap(), Frame::Close(4001, "asked to".to_owned()));

    let plan = Plan { h1: 2, h2: 1, streams: 2, fresh: 1, pause: Duration::from_millis(1) };
    let load = Load::start(&client, "app.example", "/json", plan, |a| a.status == 200).await;
    until("some load", SOON, async || (load.answered() > 50).then_some(())).await;
    drop(uvicorn);
    until("load to notice", SOON, async || (!load.failures().is_empty()).then_some(())).await;
    let report = within("the end of load", SOON, load.stop()).await;
    assert!(report.quantile(0.5) > Duration::ZERO, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pebble_resolves_from_powerdns() {
    let dns = PowerDns::start().await;
    dns.zone("example.com").await;
    let mut options = Options::new(port(), port());
    options.dns = Some(dns.dns);
    let pebble = Pebble::start(&options).await;
    let root = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(root.path(), &pebble.api_root).unwrap();
    let new =
        NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
    let builder = Account::builder_with_root(root.path()).unwrap();
    let (account, _) = builder.create(&new, pebble.directory(), None).await.unwrap();
    let names = [Identifier::Dns("a.example.com".to_owned())];
    let mut order = account.new_order(&NewOrder::new(&names)).await.unwrap();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.unwrap();
        assert_eq!(authorization.status, AuthorizationStatus::Pending);
        let mut challenge = authorization.challenge(ChallengeType::Dns01).unwrap();
        let value = challenge.key_authorization().dns_value();
        dns.add_txt("example.com", "_acme-challenge.a.example.com", &value).await;
        challenge.set_ready().await.unwrap();
    }
    let retry = RetryPolicy::default();
    let status = within("the order", LATER, order.poll_ready(&retry)).await.unwrap();
    assert_eq!(status, OrderStatus::Ready);
    order.finalize().await.unwrap();
    within("the certificate", LATER, order.poll_certificate(&retry)).await.unwrap();
    assert_eq!(pebble.issued(), 1);
    let chain = pebble.root().await;
    assert!(chain.contains("BEGIN CERTIFICATE"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn powerdns_serves_what_its_api_is_told() {
    let server = PowerDns::start().await;
    server.zone("example.com").await;
    assert_eq!(server.txt("example.com").await, []);
    server.add_txt("example.com", "_acme-challenge.example.com", "kept").await;
    let record = ("_acme-challenge.example.com.".to_owned(), "\"kept\"".to_owned());
    assert_eq!(server.txt("example.com").await, [record]);
    let text = txt_over_udp(server.dns, "_acme-challenge.example.com");
    assert!(text.windows(4).any(|bytes| bytes == b"kept"), "{text:?}");
    server.process.err.wait(0, &["Done launching threads"], SOON).await;
}

#[tokio::test]
async fn curl_is_there() {
    let version = output("curl", &["--version"], SOON).await;
    let text = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(text.contains("HTTP2"), "{text}");
}

#[test]
fn a_noted_component_has_another_digest() {
    let bytes = b"\0asm\x0d\0\x01\0";
    let noted = guests::noted(bytes, "1");
    assert_ne!(guests::digest(bytes), guests::digest(&noted));
    assert_eq!(&noted[bytes.len()..], b"\0\x06\x04note1");
}

/// The answer to a TXT question, as it came (RFC 1035, section 4.1).
fn txt_over_udp(port: u16, name: &str) -> Vec<u8> {
    let mut question = b"\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.as_bytes());
    }
    question.extend(b"\x00\x00\x10\x00\x01");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.send_to(&question, ("127.0.0.1", port)).unwrap();
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer).unwrap();
    answer[..length].to_vec()
}
