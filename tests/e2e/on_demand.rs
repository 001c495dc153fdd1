//! Promise: names that nobody configured get a certificate at their first handshake when the
//! operator's endpoint allows it: one question and one order however many wait, within bounds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::certs_life::key_for_rsa_client;
use crate::harness::client::Client;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::quic::Quic;
use crate::harness::{Gateway, LATER, output, until};

const YAML: &str = "
certificates:
  issuers: [{directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default, name: pebble}]
  challenge: http-01
  on-demand: {ask: \"http://127.0.0.1:@ask@/may?key=1\", per-domain: 2, per-minute: 100}
sites:
  - hosts: [\"*\"]
    certificate: {on-demand: true}
    routes: [{respond: {status: 200, body: tenant}}]
";

/// The operator's endpoint: allows every name but those that begin with `no`, and any once told to
/// stop.
#[derive(Default)]
struct Answers {
    asked: Mutex<BTreeMap<String, usize>>,
    is_closed: std::sync::atomic::AtomicBool,
}

impl Answers {
    async fn start() -> (Arc<Self>, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers = Arc::new(Self::default());
        let own = Arc::clone(&answers);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let own = Arc::clone(&own);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    let mut piece = [0; 1024];
                    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
                        match stream.read(&mut piece).await {
                            Ok(n) if n > 0 => head.extend(&piece[..n]),
                            _ => return,
                        }
                    }
                    let head = String::from_utf8(head).unwrap();
                    let target = head.split(' ').nth(1).unwrap();
                    let name = target.strip_prefix("/may?key=1&domain=").expect(target);
                    *own.asked.lock().unwrap().entry(name.to_owned()).or_default() += 1;
                    let is_closed = own.is_closed.load(std::sync::atomic::Ordering::Relaxed);
                    let status = match name.starts_with("no") || is_closed {
                        true => "403 Forbidden",
                        false => "200 OK",
                    };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        (answers, port)
    }

    fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().get(name).copied().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_handshake_orders_once_and_within_bounds() {
    let mut gateway = Gateway::new();
    let pebble = Pebble::start(&Options::new(gateway.http, gateway.https)).await;
    let (answers, port) = Answers::start().await;
    gateway.file("pebble.pem", &pebble.api_root);
    gateway.set("directory", pebble.directory()).set("ask", port).start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);

    // Many at once: all get the same one.
    let name = "shop.customer.co.uk";
    let handshakes = (0..60).map(|_| {
        let client = client.clone().fresh();
        tokio::spawn(async move { client.leaf(name).await })
    });
    let mut serials = Vec::new();
    for handshake in handshakes.collect::<Vec<_>>() {
        serials.push(handshake.await.unwrap().expect("a certificate").serial);
    }
    serials.dedup();
    assert_eq!((serials.len(), answers.asked(name), pebble.issued()), (1, 1, 1));
    assert_eq!(client.get(name, "/").await.text(), "tenant");

    // What is not allowed is refused, and not asked about again.
    for _ in 0..5 {
        assert_eq!(client.clone().fresh().alert("no.customer.org").await, Some(112));
    }
    assert_eq!(answers.asked("no.customer.org"), 1);
    // What no CA could sign is not asked about.
    for name in ["co.uk", "nas", "a.localhost"] {
        assert_eq!(client.alert(name).await, Some(112), "{name}");
        assert_eq!(answers.asked(name), 0, "{name}");
    }
    assert!(client.clone().without_sni().leaf("127.0.0.1").await.is_err());
    assert_eq!(answers.asked("127.0.0.1"), 0);
    // The second name of a registered domain is the last.
    client.certified("two.customer.co.uk", LATER).await;
    assert_eq!(client.alert("three.customer.co.uk").await, Some(112));
    gateway.logged(0, &["three.customer.co.uk", "per-domain"]).await;
    assert_eq!(pebble.issued(), 2);

    // They are kept over a kill.
    gateway.restart().await;
    let leaf = client.clone().fresh().leaf(name).await.expect("a certificate");
    assert_eq!(leaf.serial, serials[0]);
    assert_eq!((answers.asked(name), pebble.issued()), (1, 2));

    // A name that may not have one any more keeps what it has and gets no other.
    answers.is_closed.store(true, std::sync::atomic::Ordering::Relaxed);
    let config = gateway.config().display().to_string();
    let renew = ["certs", "renew", name, "--config", &config];
    assert!(output(env!("CARGO_BIN_EXE_witgate"), &renew, LATER).await.status.success());
    gateway.logged(0, &[name, "no longer allows"]).await;
    assert_eq!(client.clone().fresh().leaf(name).await.expect("a certificate"), leaf);
    assert_eq!((answers.asked(name), pebble.issued()), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_handshake_over_http3_begins_it_and_rsa_comes_beside() {
    let mut gateway = Gateway::new();
    let pebble = Pebble::start(&Options::new(gateway.http, gateway.https)).await;
    let (answers, port) = Answers::start().await;
    gateway.file("pebble.pem", &pebble.api_root);
    let yaml = YAML.replace("  challenge: http-01", "  challenge: http-01\n  keys: both");
    gateway.set("directory", pebble.directory()).set("ask", port).start(&yaml).await;
    let name = "shop.customer.org";
    assert!(Quic::connect(&gateway, "127.0.0.1", name).await.is_err(), "there is none yet");
    // Nobody has come by TCP.
    gateway.logged_within(0, &["certificate issued", "\"shop.customer.org\""], LATER).await;
    let key = until("a certificate for RSA", LATER, async || {
        key_for_rsa_client(gateway.https, name).await
    })
    .await;
    assert_eq!(key, "1.2.840.113549.1.1.1", "rsaEncryption");
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    client.certified(name, LATER).await;
    assert_eq!((answers.asked(name), pebble.issued()), (1, 2));
    assert!(Quic::connect(&gateway, "127.0.0.1", "no.customer.org").await.is_err());
    until("the question", LATER, async || (answers.asked("no.customer.org") == 1).then_some(()))
        .await;
    // Both are kept over a kill, and neither is asked about again.
    gateway.restart().await;
    assert!(key_for_rsa_client(gateway.https, name).await.is_some());
    client.clone().fresh().leaf(name).await.expect("a certificate");
    assert_eq!((answers.asked(name), pebble.issued()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_away_allows_nothing_and_a_handshake_waits_its_time_only() {
    let mut gateway = Gateway::new();
    let (answers, port) = Answers::start().await;
    let yaml = YAML.replace("per-minute: 100", "per-minute: 100, wait: 1s");
    // A CA that accepts connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let directory = format!("https://{}/dir", silent.local_addr().unwrap());
    gateway.file("pebble.pem", &crate::harness::pki::Ca::new("silent").pem);
    gateway.set("directory", directory).set("ask", crate::harness::port()).start(&yaml).await;
    let client = Client::new(gateway.https);
    assert_eq!(client.alert("a.customer.org").await, Some(112));
    gateway.logged(0, &["a.customer.org", "is no help"]).await;
    gateway.set("ask", port).configure(&yaml);
    let mut number = 0;
    until("the next configuration", LATER, async || {
        number += 1;
        let name = format!("b{number}.org");
        let started = std::time::Instant::now();
        assert_eq!(client.clone().fresh().alert(&name).await, Some(112));
        (answers.asked(&name) == 1).then(|| {
            let waited = started.elapsed().as_millis();
            assert!((1000..5000).contains(&waited), "waited {waited} ms");
        })
    })
    .await;
}
