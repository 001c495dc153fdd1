//! Promise: every failure gets an answer of our own that says whose fault it is, as text or JSON,
//! and tells nothing about the inside.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::client::{Answer, Client, get, request, with};
use crate::harness::{Gateway, RustOrigin, SOON, port, within};

const YAML: &str = "
sites:
  - hosts: [app.localhost]
    routes:
      - path: /down/
        upstream: down
      - path: /origin/
        upstream: origin
      - exact: /never
        upstream: origin
      - exact: /drop
        upstream: origin
      - exact: /half
        upstream: origin
      - exact: /stall
        upstream: origin
  - hosts: [other.localhost]
    routes: [{upstream: origin}]
upstreams:
  down: http://127.0.0.1:@down@
  origin: {servers: [\"http://127.0.0.1:@origin@\"], timeouts: {response: 400ms, idle: 400ms}}
";

async fn served() -> (RustOrigin, Gateway, Client) {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).set("down", port()).start(YAML).await;
    let client = gateway.client().await;
    (origin, gateway, client)
}

/// Checks what all of our own answers have in common.
fn assert_tells_nothing(answer: &Answer) {
    let text = format!("{:?} {}", answer.headers, answer.text()).to_lowercase();
    for word in ["127.0.0.1", "hyper", "rustls", "tokio", "os error", "refused", ".rs", "panick"] {
        assert!(!text.contains(word), "`{word}` in {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_names_the_fault_in_text_or_json() {
    let (_origin, gateway, client) = served().await;
    for (path, status, fault) in [
        ("/down/x", 502, "upstream"),
        ("/drop", 502, "upstream"),
        ("/never", 504, "upstream"),
        ("/no-such-route", 404, "client"),
    ] {
        for mut http in
            [client.h1("app.localhost").await.unwrap(), client.h2("app.localhost").await.unwrap()]
        {
            let answer = http.send(get("app.localhost", path)).await.unwrap();
            assert_eq!(answer.status, status, "{path}: {answer:?}");
            assert!(answer.header("content-type").starts_with("text/plain"), "{path}: {answer:?}");
            assert!(answer.text().contains(fault), "{path}: {answer:?}");
            assert_tells_nothing(&answer);

            let json = with(get("app.localhost", path), "accept", "application/json");
            let answer = http.send(json).await.unwrap();
            assert_eq!(answer.status, status, "{path}: {answer:?}");
            // RFC 9457.
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert_eq!(answer.json()["status"], status);
            assert_eq!(answer.json()["fault"], fault, "{path}");
            assert_tells_nothing(&answer);
            let id = answer.json()["request_id"].as_str().expect("an id").to_owned();
            let record = gateway.accessed_as("id", &id).await;
            assert_eq!(record["fault"], fault, "{record}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_head_has_a_length_and_no_body() {
    let (_origin, gateway, client) = served().await;
    for mut http in
        [client.h1("app.localhost").await.unwrap(), client.h2("app.localhost").await.unwrap()]
    {
        let asked = request("HEAD", "app.localhost", "/no-such-route", "");
        let answer = http.send(asked).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (404, 0), "{answer:?}");
        assert_ne!(answer.header("content-length"), "0", "{answer:?}");
        assert!(!answer.header("content-length").is_empty(), "{answer:?}");
        // The connection is as good as before.
        let again = http.send(get("app.localhost", "/no-such-route")).await.unwrap();
        assert_eq!(again.status, 404);
    }
    let record = gateway.accessed("/no-such-route").await;
    assert_eq!(record["bytes"], 0, "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_body_is_not_passed_off_as_whole() {
    let (_origin, gateway, client) = served().await;
    for path in ["/half", "/stall"] {
        for mut http in
            [client.h1("app.localhost").await.unwrap(), client.h2("app.localhost").await.unwrap()]
        {
            let answer = http.send(get("app.localhost", path)).await;
            assert!(answer.is_err(), "{path}: {answer:?}");
        }
        let record = gateway.accessed(path).await;
        assert_eq!(record["fault"], "upstream", "{record}");
    }
    assert_eq!(client.get("other.localhost", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_not_here_is_said_to_be_misdirected() {
    let (origin, _gateway, client) = served().await;
    let mut h1 = client.h1("app.localhost").await.unwrap();
    let mut h2 = client.h2("app.localhost").await.unwrap();
    for http in [&mut h1, &mut h2] {
        let answer = http.send(get("evil.example", "/")).await.unwrap();
        assert_eq!(answer.status, 421, "{answer:?}");
        assert_tells_nothing(&answer);
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_requests_are_refused() {
    let (origin, _gateway, client) = served().await;
    let many = "x-many: 1\r\n".repeat(2000);
    let long = format!("x-long: {}\r\n", "y".repeat(200_000));
    let cases: [(&str, String, &[u16]); 8] = [
        ("two lengths", "POST / HTTP/1.1\r\nHost: other.localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd".into(), &[400]),
        ("two hosts", "GET / HTTP/1.1\r\nHost: other.localhost\r\nHost: app.localhost\r\n\r\n".into(), &[400]),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into(), &[400]),
        ("odd encoding", "POST / HTTP/1.1\r\nHost: other.localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n".into(), &[400, 501]),
        ("bad host", "GET / HTTP/1.1\r\nHost: other.localhost/x\r\n\r\n".into(), &[400, 421]),
        ("a space in a name", "GET / HTTP/1.1\r\nHost: other.localhost\r\nX-Bad : 1\r\n\r\n".into(), &[400]),
        ("many fields", format!("GET / HTTP/1.1\r\nHost: other.localhost\r\n{many}\r\n"), &[400, 431]),
        ("a long head", format!("GET / HTTP/1.1\r\nHost: other.localhost\r\n{long}\r\n"), &[400, 431]),
    ];
    for (what, text, statuses) in cases {
        let mut stream = client.tls("other.localhost", &[b"http/1.1"]).await.unwrap();
        // The refusal may come before all of it was sent.
        let _ = stream.write_all(text.as_bytes()).await;
        let mut answer = Vec::new();
        within(what, SOON, async {
            // The connection may stay open: the head is enough.
            while !answer.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                answer.push(byte);
            }
        })
        .await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.get(9..12).and_then(|status| status.parse::<u16>().ok());
        let is_refused = status.is_some_and(|status| statuses.contains(&status));
        assert!(is_refused, "{what}: {answer}");
    }
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_beside_chunks_is_refused_with_all_that_follows() {
    // RFC 9112, section 6.1: somebody may be trying to smuggle a request past one of two readers.
    let (origin, _gateway, client) = served().await;
    let mut stream = client.tls("other.localhost", &[b"http/1.1"]).await.unwrap();
    let request = "POST / HTTP/1.1\r\nHost: other.localhost\r\nContent-Length: 3\r\n\
                   Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n\
                   GET /smuggled HTTP/1.1\r\nHost: other.localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = within("the end of the connection", SOON, stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_nothing_is_not_waited_for() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let yaml = format!("{YAML}limits: {{handshake: 300ms, request-head: 300ms}}\n");
    gateway.set("origin", origin.port).set("down", port()).start(&yaml).await;
    let client = gateway.client().await;
    let mut rest = Vec::new();
    let mut silent = client.tcp().await.unwrap();
    let _ = within("the end of a silent connection", SOON, silent.read_to_end(&mut rest)).await;
    let mut slow = client.tls("other.localhost", &[b"http/1.1"]).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: oth").await.unwrap();
    let _ = within("the end of a slow head", SOON, slow.read_to_end(&mut rest)).await;
    assert!(rest.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(client.get("other.localhost", "/").await.status, 200);
}
