//! Promise of the harness itself: the peers that the other tests talk to are real and work here.

use crate::harness::client::{Client, get, request, with, zeros};
use crate::harness::origin::field;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::powerdns::PowerDns;
use crate::harness::{Origin, RustOrigin, SOON, guests, output, port};

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
            crate::harness::Http::over_h2(client.tcp().await.unwrap()).await.unwrap()
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
