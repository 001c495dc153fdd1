//! Promise: a site or route says who may come, how often and with what, and what its upstream sees of
//! the path; a reload keeps the counts and takes back passwords at once.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::client::{Client, get, request, with};
use crate::harness::origin::field;
use crate::harness::{Gateway, RustOrigin};

type Stream = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

const YAML: &str = "
sites:
  - hosts: [app.localhost]
    addresses: {deny: [127.0.0.9]}
    request-body: 1KiB
    routes:
      - {path: /inside, addresses: {allow: [127.0.0.2]}, upstream: app}
      - {path: /outside, addresses: off, request-body: 2KiB, upstream: app}
      - {path: /short, request-head: 300, upstream: app}
      - {path: /api, strip-prefix: /api, add-prefix: /v1, upstream: app}
      - path: /few
        rate-limits: [{requests: 2, per: 1h, burst: 3}]
        upstream: app
      - path: /keys
        rate-limits: [{requests: 1, per: 1h, header: x-api-key}]
        upstream: app
      - path: /cors
        cors:
          origins: [https://page.example, \"https://*.pages.example\"]
          methods: [GET, PUT]
          headers: [content-type, x-token]
          expose: [x-total]
          credentials: true
        upstream: app
      - {path: /, upstream: app}
upstreams:
  app: http://127.0.0.1:@origin@
";

async fn gateway(origin: &RustOrigin, yaml: &str) -> (Gateway, Client) {
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).start(yaml).await;
    let client = gateway.client().await;
    (gateway, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_decide_who_may_come() {
    let origin = RustOrigin::h1().await;
    let (gateway, client) = gateway(&origin, YAML).await;
    let status = async |from: &str, path: &str| {
        client.clone().from(from).fresh().get("app.localhost", path).await.status
    };
    assert_eq!(status("127.0.0.1", "/").await, 200);
    assert_eq!(status("127.0.0.9", "/").await, 403);
    assert_eq!(status("127.0.0.9", "/outside").await, 200);
    assert_eq!(status("127.0.0.1", "/inside").await, 403);
    assert_eq!(status("127.0.0.2", "/inside").await, 200);
    // Who may not come does not learn what is there either.
    assert_eq!(status("127.0.0.9", "/nowhere").await, 403);
    assert_eq!(status("127.0.0.1", "/inside/x").await, 403);
    let line = gateway.accessed("/inside/x").await;
    assert_eq!((&line["status"], &line["fault"]), (&403.into(), &"client".into()), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_empty_answers_429_on_every_worker() {
    let origin = RustOrigin::h1().await;
    let (gateway, client) = gateway(&origin, YAML).await;
    let mut passed = 0;
    for _ in 0..8 {
        let answer = client.clone().fresh().get("app.localhost", "/few").await;
        if answer.status == 200 {
            passed += 1;
            let left = format!("\"address\";r={};t=", 3 - passed);
            assert!(answer.header("ratelimit").starts_with(&left), "{answer:?}");
            assert_eq!(answer.header("ratelimit-policy"), "\"address\";q=2;w=3600");
        } else {
            assert_eq!(answer.status, 429, "{answer:?}");
            let wait: u64 = answer.header("retry-after").parse().unwrap();
            assert!((1700..=1800).contains(&wait), "{answer:?}");
        }
    }
    assert_eq!(passed, 3);
    let other = client.clone().from("127.0.0.7").get("app.localhost", "/few").await;
    assert_eq!(other.status, 200);
    for (key, status) in [("a", 200), ("a", 429), ("b", 200)] {
        let asked = with(get("app.localhost", "/keys"), "x-api-key", key);
        assert_eq!(client.send(asked).await.status, status, "{key}");
    }
    // A reload is no way to start anew.
    let mark = gateway.mark();
    gateway.configure(&YAML.replace("path: /outside", "path: /elsewhere"));
    gateway.logged(mark, &["generation 2 serving"]).await;
    assert_eq!(client.clone().fresh().get("app.localhost", "/few").await.status, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_have_the_bound_of_their_route() {
    let origin = RustOrigin::h1().await;
    let (_gateway, client) = gateway(&origin, YAML).await;
    for (path, bytes, status) in [("/short", 100, 200), ("/short", 400, 431), ("/", 400, 200)] {
        for mut http in
            [client.h1("app.localhost").await.unwrap(), client.h2("app.localhost").await.unwrap()]
        {
            let asked = with(get("app.localhost", path), "x-long", &"y".repeat(bytes));
            assert_eq!(http.send(asked).await.unwrap().status, status, "{path} {bytes}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_says_by_what_requests_are_counted() {
    let origin = RustOrigin::h1().await;
    let yaml = "
sites:
  - hosts: [app.localhost]
    router: one
    rate-limits: [{requests: 1, per: 1h, burst: 2, header: x-router}]
    upstream: web
upstreams:
  web: http://127.0.0.1:@origin@
plugins:
  one: {component: \"@guests@/router.wasm\"}
";
    let (_gateway, client) = gateway(&origin, yaml).await;
    // The router gives all requests the same key, whoever sends them and whatever they say.
    for (from, key, status) in
        [("127.0.0.1", "a", 200), ("127.0.0.2", "b", 200), ("127.0.0.3", "c", 429)]
    {
        let asked = with(get("app.localhost", "/web"), "x-router", key);
        assert_eq!(client.clone().from(from).send(asked).await.status, status, "{from}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_have_the_bound_of_their_route() {
    let origin = RustOrigin::h1().await;
    let (_gateway, client) = gateway(&origin, YAML).await;
    for (path, bytes, status) in
        [("/", 1024, 200), ("/", 1025, 413), ("/outside", 2048, 200), ("/outside", 2049, 413)]
    {
        let asked = request("POST", "app.localhost", path, vec![b'x'; bytes]);
        assert_eq!(client.clone().fresh().send(asked).await.status, status, "{path} {bytes}");
    }
    let seen = origin.requests().len();
    assert_eq!(seen, 2, "a body that is known to be too large does not reach the application");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_there_before_a_server_is_asked() {
    let origin = RustOrigin::h1().await;
    let yaml = "
sites:
  - hosts: [app.localhost]
    buffer-request: 4KiB
    request-body: 100KiB
    upstream: http://127.0.0.1:@origin@
limits: {request-body-idle: 1s}
";
    let (_gateway, client) = gateway(&origin, yaml).await;
    let head = "POST / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\
                Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let begin = async || {
        let mut stream = client.tls("app.localhost", &[b"http/1.1"]).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream
    };
    let answer = async |mut stream: Stream| {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        text
    };
    let mut stream = begin().await;
    assert_eq!(origin.connections(), 0, "what is slow takes no server's time");
    stream.write_all(b"5\r\nworld\r\n0\r\n\r\n").await.unwrap();
    let text = answer(stream).await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    let seen = origin.requests();
    assert_eq!(seen[0]["body"], "helloworld", "{seen:?}");
    assert_eq!(field(&seen[0], "content-length"), ["10"], "its length is known now: {seen:?}");
    // What never ends is never asked about.
    let text = answer(begin().await).await;
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    assert_eq!(origin.requests().len(), 1);
    // What is longer goes on as it comes, up to its bound.
    let mut stream = begin().await;
    stream.write_all(format!("1400\r\n{}\r\n", "x".repeat(0x1400)).as_bytes()).await.unwrap();
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let text = answer(stream).await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert_eq!(field(&origin.requests()[1], "transfer-encoding"), ["chunked"]);
    let asked = request("POST", "app.localhost", "/", vec![b'x'; 100 * 1024 + 1]);
    assert_eq!(client.clone().fresh().send(asked).await.status, 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefixes_come_and_go() {
    let origin = RustOrigin::h1().await;
    let (gateway, client) = gateway(&origin, YAML).await;
    let spoofed = with(get("app.localhost", "/api/x?y"), "x-forwarded-prefix", "/evil");
    let seen = client.send(spoofed).await.json();
    assert_eq!(seen["target"], "/v1/x?y");
    assert_eq!(field(&seen, "x-forwarded-prefix"), ["/api"]);
    assert_eq!(client.get("app.localhost", "/api").await.json()["target"], "/v1/");
    assert_eq!(client.get("app.localhost", "/apis").await.json()["target"], "/apis");
    // The log tells what was asked for.
    gateway.accessed("/api/x?y").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_sites_may_read_what_is_said() {
    let origin = RustOrigin::h1().await;
    let (_gateway, client) = gateway(&origin, YAML).await;
    let preflight = |from: &str| {
        let asked = with(request("OPTIONS", "app.localhost", "/cors", ""), "origin", from);
        let asked = with(asked, "access-control-request-method", "PUT");
        with(asked, "access-control-request-headers", "x-token")
    };
    let answer = client.send(preflight("https://a.pages.example")).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), "https://a.pages.example");
    assert_eq!(answer.header("access-control-allow-methods"), "GET, PUT");
    assert_eq!(answer.header("access-control-allow-headers"), "content-type, x-token");
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    let foreign = client.send(preflight("https://evil.example")).await;
    assert_eq!(foreign.header("access-control-allow-origin"), "", "{foreign:?}");
    assert!(origin.requests().is_empty(), "preflights end at the gateway");
    let asked = with(get("app.localhost", "/cors"), "origin", "https://page.example");
    let answer = client.send(asked).await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://page.example");
    assert_eq!(answer.header("access-control-expose-headers"), "x-total");
    assert_eq!(answer.header("vary"), "origin");
    // OPTIONS that is no preflight is the application's.
    let options = client.send(request("OPTIONS", "app.localhost", "/cors", "")).await;
    assert_eq!(options.json()["method"], "OPTIONS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_lets_in_until_it_is_taken_back() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port);
    let hash = hashed("correct horse");
    gateway.file("users", format!("alice:{hash}\n"));
    let yaml = "
sites:
  - hosts: [app.localhost]
    basic-auth: {file: @dir@/users, realm: inside, user-field: x-user}
    routes:
      - {path: /open, basic-auth: off, upstream: app}
      - {path: /, upstream: app}
upstreams:
  app: http://127.0.0.1:@origin@
";
    gateway.start(yaml).await;
    let client = gateway.client().await;
    let asked = |token: &str| {
        let asked = with(get("app.localhost", "/"), "authorization", &format!("Basic {token}"));
        // Neither under its name nor under one that becomes the same variable.
        with(with(asked, "x-user", "root"), "x_user", "root")
    };
    let refused = client.get("app.localhost", "/").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("www-authenticate"), "Basic realm=\"inside\", charset=\"UTF-8\"");
    assert_eq!(client.get("app.localhost", "/open").await.status, 200);
    // alice:wrong
    assert_eq!(client.send(asked("YWxpY2U6d3Jvbmc=")).await.status, 401);
    // alice:correct horse
    let right = "YWxpY2U6Y29ycmVjdCBob3JzZQ==";
    let seen = client.send(asked(right)).await.json();
    assert_eq!(field(&seen, "x-user"), ["alice"]);
    assert!(field(&seen, "x_user").is_empty(), "{seen}");
    assert!(field(&seen, "authorization").is_empty(), "the credentials end at the gateway");
    // The second time needs no hash: twenty of them together are quicker than one hash each.
    let start = std::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(client.send(asked(right)).await.status, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let mark = gateway.mark();
    gateway.replace("users", format!("alice:{}\n", hashed("another one")));
    gateway.logged(mark, &["generation 2 serving"]).await;
    assert_eq!(client.send(asked(right)).await.status, 401);
    // A file that cannot be used changes nothing, and the log says why.
    let mark = gateway.mark();
    gateway.replace("users", "alice:$2b$nonsense\n");
    let why = gateway.logged(mark, &["alice"]).await;
    assert!(why.contains("cannot be used") && !why.contains("nonsense"), "{why}");
    assert_eq!(client.get("app.localhost", "/").await.status, 401);
    assert_eq!(client.get("app.localhost", "/open").await.status, 200);
}

/// What `witgate hash-password` makes of a password.
fn hashed(password: &str) -> String {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut command = Command::new(env!("CARGO_BIN_EXE_witgate"));
    command.arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("witgate starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    writeln!(stdin, "{password}").expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    let hash = String::from_utf8(output.stdout).expect("text").trim().to_owned();
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    hash
}
