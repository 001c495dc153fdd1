//! Promise: a filter sees or changes bodies as they pass, over every protocol, without the gateway
//! holding them; what it does not ask for goes by as before; and a body that a filter breaks off is
//! never taken for a whole one.

use http_body_util::BodyExt as _;
use serde_json::json;

use crate::harness::client::{Answer, Client, get, request, with, zeros};
use crate::harness::guests::guest;
use crate::harness::origin::field;
use crate::harness::quic::Quic;
use crate::harness::{Gateway, LATER, Origin, RustOrigin, SOON, heavy, output, within};

const YAML: &str = "
sites:
  - hosts: [app.localhost]
    filters: [one, two]
    routes: [{upstream: web}]
  - hosts: [open.localhost]
    filters: [open]
    routes: [{upstream: web}]
  - hosts: [files.localhost]
    filters: [one]
    compress: {min-size: 1}
    routes: [{files: @dir@/public}]
upstreams:
  web: http://127.0.0.1:@web@
plugins:
  one:
    component: @dir@/streaming.wasm
    limits: {deadline: 1s}
    grants: {request: {body: transform}, response: {body: transform}}
  two:
    component: @dir@/streaming.wasm
    limits: {deadline: 1s}
    grants: {request: {body: read}, response: {body: read}}
  open:
    component: @dir@/streaming.wasm
    limits: {deadline: 1s}
    on-error: fail-open
    grants: {request: {body: transform}, response: {body: transform}}
";

async fn start(web: u16) -> (Gateway, Client) {
    let mut gateway = Gateway::new();
    gateway.file("streaming.wasm", guest("streaming"));
    std::fs::create_dir_all(gateway.folder().join("public")).unwrap();
    gateway.file("public/page.txt", "a page of some length");
    gateway.set("web", web).start(YAML).await;
    let client = gateway.client().await;
    (gateway, client)
}

fn upload(
    host: &str,
    what: &str,
    body: &'static str,
) -> http::Request<crate::harness::client::Body> {
    with(request("POST", host, "/echo", body), "x-on-request", what)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_changed_on_their_way_over_every_protocol() {
    let web = RustOrigin::h1().await;
    let (gateway, client) = start(web.port).await;
    let host = "app.localhost";
    for is_h2 in [false, true] {
        let mut http = match is_h2 {
            true => client.h2(host).await.unwrap(),
            false => client.h1(host).await.unwrap(),
        };
        let down = with(get(host, "/big?bytes=10000"), "x-on-response", "mark");
        let answer = http.send(down).await.unwrap();
        assert_eq!(answer.status, 200);
        let text = answer.text();
        assert_eq!(text.replace(['<', '>'], ""), "b".repeat(10_000));
        assert!(text.starts_with('<') && text.ends_with('>'), "{}", text.len());
        assert_eq!(answer.header("content-length"), "");
        // The second filter may only look; nothing stops it from doing so.
        assert_eq!(answer.header("x-response-body"), "asked");
        let up = http.send(upload(host, "append", "hello")).await.unwrap();
        let seen = up.json();
        let body = seen["body"].as_str().unwrap().to_owned();
        assert!(body.starts_with("hello[5 bytes of "), "{seen}");
        assert_eq!(field(&seen, "content-length"), [""; 0]);
        assert_eq!(field(&seen, "x-request-body"), ["denied"], "by the second");
        let observed = http.send(upload(host, "observe", "hello")).await.unwrap().json();
        assert_eq!(observed["body"], "hello");
        assert_eq!(field(&observed, "content-length"), ["5"]);
        // A response without a body has none to change, and its head tells the same.
        let head = with(request("HEAD", host, "/big?bytes=10", ""), "x-on-response", "upper");
        let answer = http.send(head).await.unwrap();
        assert_eq!((answer.status, answer.header("content-length")), (200, ""));
        assert_eq!(answer.header("x-response-body"), "no-body");
        // Trailers come after what was made of the body.
        let trailers = with(get(host, "/trailers"), "x-on-response", "append");
        let trailers = with(trailers, "te", "trailers");
        let mut response = http.open(trailers).await.unwrap();
        let body = response.body_mut().collect().await.unwrap();
        assert_eq!(body.trailers().map(|t| t["x-checksum"].to_str().unwrap()), Some("abc"));
        let bytes = body.to_bytes();
        assert!(bytes.len() > 10 && bytes.ends_with(b"]"), "{bytes:?}");
    }
    let mut quic = Quic::connect(&gateway, "127.0.0.1", host).await.unwrap();
    let answers =
        quic.ask(json!([{"path": "/big?bytes=5", "headers": [["x-on-response", "upper"]]}])).await;
    assert_eq!(answers[0]["text"], "BBBBB", "{answers:?}");
    let calls = gateway.metric("witgate_plugin_body_bytes_total{plugin=\"one\",direction=\"in\"}");
    assert!(calls.await > 20_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_megabytes_pass_through_a_filter_in_flat_memory() {
    const BYTES: usize = 200_000_000;
    let _turn = heavy().await;
    let app = Origin::start().await;
    let (gateway, client) = start(app.port).await;
    let host = "app.localhost";
    for what in ["upper", "pass"] {
        let mut http = client.h2(host).await.unwrap();
        let warm = with(request("PUT", host, "/upload", "x"), "x-on-request", what);
        assert_eq!(http.send(warm).await.unwrap().json()["bytes"], 1);
        let before = gateway.rss_kib();
        let mut up = request("PUT", host, "/upload", "");
        *up.body_mut() = zeros(BYTES);
        let up = with(up, "x-on-request", what);
        let answer = within("the upload", 4 * LATER, http.send(up)).await.unwrap();
        assert_eq!(answer.json()["bytes"], BYTES, "{answer:?}");
        let path = format!("/download/{BYTES}");
        let mut response = http.open(with(get(host, &path), "x-on-response", what)).await.unwrap();
        let mut bytes = 0;
        let all = async {
            while let Some(frame) = response.body_mut().frame().await {
                bytes += frame.unwrap().data_ref().map_or(0, bytes::Bytes::len);
            }
        };
        within("the download", 4 * LATER, all).await;
        assert_eq!(bytes, BYTES);
        let grown = gateway.rss_kib().saturating_sub(before);
        assert!(grown < 20_000, "memory grew by {grown} KiB over {before} KiB");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_goes_through_a_filter_at_once() {
    let web = RustOrigin::h1().await;
    let (gateway, client) = start(web.port).await;
    for is_h2 in [false, true] {
        let mut http = match is_h2 {
            true => client.h2("app.localhost").await.unwrap(),
            false => client.h1("app.localhost").await.unwrap(),
        };
        let events = with(get("app.localhost", "/events"), "x-on-response", "upper");
        let mut response = http.open(events).await.unwrap();
        let frame = within("an event", SOON, response.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "DATA: ONE\n\n");
        // The client goes away in the middle, and the filter hears of it.
        let mark = gateway.mark();
        drop((response, http));
        gateway.logged(mark, &["abandoned upper after 11 bytes"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_one_instance_keep_apart() {
    let web = RustOrigin::h1().await;
    let (_gateway, client) = start(web.port).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40_usize {
        let client = client.clone();
        tasks.spawn(async move {
            let mut http = client.h2("app.localhost").await.unwrap();
            for round in 0..5 {
                let bytes = 1000 * number + round;
                let path = format!("/big?bytes={bytes}");
                let down = with(get("app.localhost", &path), "x-on-response", "append");
                let text = http.send(down).await.unwrap().text();
                assert!(text[bytes..].starts_with(&format!("[{bytes} bytes of ")), "{bytes}");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// A response that must not arrive whole.
async fn breaks(client: &Client, host: &str, path: &str, what: &str) {
    for is_h2 in [false, true] {
        let mut http = match is_h2 {
            true => client.h2(host).await.unwrap(),
            false => client.h1(host).await.unwrap(),
        };
        let opened = http.open(with(get(host, path), "x-on-response", what)).await;
        // What broke off at once need not even have a head.
        let Ok(response) = opened else { continue };
        let read = within("the end", SOON, Answer::read(response)).await;
        assert!(read.is_err(), "{what} {is_h2}: {read:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_body_is_never_taken_for_a_whole_one() {
    let web = RustOrigin::h1().await;
    let (gateway, client) = start(web.port).await;
    let host = "app.localhost";
    for (what, words) in [
        ("trap", "at the first chunk"),
        ("trap-second", "at the second chunk"),
        ("trap-finish", "at the end"),
        ("loop", "limits.deadline"),
        ("output", "limits.output"),
    ] {
        let mark = gateway.mark();
        breaks(&client, host, "/big?bytes=500000", what).await;
        gateway.logged(mark, &["one", words]).await;
        // What comes then is as if nothing had been.
        let good = client.send(with(get(host, "/big?bytes=3"), "x-on-response", "upper")).await;
        assert_eq!(good.text(), "BBB", "after {what}");
    }
    for (what, words) in [("trap", "at the first chunk"), ("trap-finish", "at the end")] {
        let mark = gateway.mark();
        let answer = client.send(upload(host, what, "hello")).await;
        assert_eq!(answer.status, 500, "{what}: {answer:?}");
        gateway.logged(mark, &["one", words]).await;
        let good = client.send(upload(host, "upper", "hello")).await.json();
        assert_eq!(good["body"], "HELLO", "after {what}");
    }
    // What an upstream saw of them, it saw break off.
    let whole = |seen: &serde_json::Value| seen["body"] == "hello";
    assert!(!web.requests().iter().any(whole), "{:?}", web.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_may_fail_is_left_out_as_a_whole_or_not_at_all() {
    let web = RustOrigin::h1().await;
    let (gateway, client) = start(web.port).await;
    let host = "open.localhost";
    let answer = client.send(with(get(host, "/big?bytes=100000"), "x-on-response", "trap")).await;
    assert_eq!(answer.text(), "b".repeat(100_000));
    assert_eq!(client.send(upload(host, "trap", "hello")).await.json()["body"], "hello");
    assert_eq!(client.send(upload(host, "observe", "trap now")).await.json()["body"], "trap now");
    breaks(&client, host, "/big?bytes=500000", "trap-second").await;
    breaks(&client, host, "/big?bytes=500000", "trap-finish").await;
    assert!(gateway.metric("witgate_plugin_traps_total{plugin=\"open\"}").await >= 5);
}

#[tokio::test]
async fn a_case_has_bodies_too_and_explain_tells_who_asks() {
    let gateway = Gateway::new();
    let component = crate::harness::guests::folder().join("streaming.wasm").display().to_string();
    let cases = gateway.file(
        "cases.yaml",
        "plugin: {grants: {request: {body: transform}, response: {body: transform}}, limits: {deadline: 1s}}
cases:
  - name: up
    request: {url: \"https://a.example/\", method: POST, headers: {x-on-request: upper}, body: hello}
    expect: {decision: continue, request-body: HELLO}
  - name: down
    request: {url: \"https://a.example/\", headers: {x-on-response: mark}}
    response: {body: [one, two]}
    expect: {response-body: <one><two>, request-body: not asked for}
  - name: not as it should be
    request: {url: \"https://a.example/\", headers: {x-on-response: swallow}}
    response: {body: one}
    expect: {response-body: \"4\"}
",
    );
    let test = ["plugin", "test", &component, &cases.display().to_string()];
    let run = output(env!("CARGO_BIN_EXE_witgate"), &test, LATER).await;
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    assert_eq!(text.matches("ok      ").count(), 2, "{text}");
    assert!(text.contains("response body: expected \"4\", found \"3\""), "{text}");

    gateway.file("streaming.wasm", guest("streaming"));
    gateway.configure(
        "
sites: [{hosts: [a.localhost], filters: [one], upstream: \"http://127.0.0.1:1\"}]
plugins:
  one: {component: @dir@/streaming.wasm, grants: {response: {body: transform}}}
",
    );
    let config = gateway.config().display().to_string();
    let explain = [
        "explain",
        "--config",
        &config,
        "GET",
        "https://a.localhost/",
        "-H",
        "x-on-response: upper",
    ];
    let run = output(env!("CARGO_BIN_EXE_witgate"), &explain, LATER).await;
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(text.contains("transforms the body"), "{text}{}", String::from_utf8_lossy(&run.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compression_comes_after_the_filters() {
    let web = RustOrigin::h1().await;
    let (_gateway, client) = start(web.port).await;
    let ask = || {
        let ask = with(get("files.localhost", "/page.txt"), "x-on-response", "upper");
        with(ask, "accept-encoding", "gzip")
    };
    let answer = client.send(ask()).await;
    assert_eq!(answer.header("content-encoding"), "gzip", "{answer:?}");
    let packed = answer.body.to_vec();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.gz");
    std::fs::write(&file, packed).unwrap();
    let output = std::process::Command::new("gzip").arg("-dc").arg(&file).output().unwrap();
    assert_eq!(output.stdout, b"A PAGE OF SOME LENGTH");
    let whole = client.send(with(get("files.localhost", "/page.txt"), "accept", "*/*")).await;
    let tag = whole.header("etag").to_owned();
    let changed = with(get("files.localhost", "/page.txt"), "x-on-response", "upper");
    let changed = client.send(changed).await;
    let weak = format!("W/{}", tag.trim_start_matches("W/"));
    assert_eq!(changed.header("etag"), weak, "{changed:?}");
    assert_eq!(changed.header("accept-ranges"), "");
    let part = with(get("files.localhost", "/page.txt"), "x-on-response", "upper");
    let part = client.send(with(part, "range", "bytes=0-3")).await;
    assert_eq!((part.status, part.header("x-response-body")), (206, "partial"));
}
