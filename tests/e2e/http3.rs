//! Promise: HTTP/3 on the same port, with the same certificates, limits and answers, told to clients by
//! Alt-Svc; a client that moves stays connected; what is malformed is refused.

use serde_json::{Value, json};

use crate::harness::guests::guest;
use crate::harness::origin::field;
use crate::harness::quic::{Quic, values};
use crate::harness::{Gateway, Origin, RustOrigin, SOON, until};

const YAML: &str = "
limits: {request-head-size: 8KiB, request-body: 1MiB, request-fields: 50}
sites:
  - hosts: [h1.localhost]
    routes: [{upstream: h1}]
  - hosts: [h2c.localhost]
    routes: [{upstream: h2c}]
upstreams:
  h1: http://127.0.0.1:@h1@
  h2c: h2c://127.0.0.1:@h2c@
";

async fn served() -> (RustOrigin, RustOrigin, Gateway) {
    let (h1, h2c) = (RustOrigin::h1().await, RustOrigin::h2c().await);
    let mut gateway = Gateway::new();
    gateway.set("h1", h1.port).set("h2c", h2c.port).start(YAML).await;
    (h1, h2c, gateway)
}

fn seen(answer: &Value) -> Value {
    serde_json::from_str(answer["text"].as_str().unwrap_or_default())
        .unwrap_or_else(|_| panic!("{answer}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http3_meets_every_upstream() {
    let (_h1, _h2c, gateway) = served().await;
    for (name, version) in [("h1.localhost", "HTTP/1.1"), ("h2c.localhost", "HTTP/2")] {
        let mut client = Quic::connect(&gateway, "127.0.0.1", name).await.unwrap();
        let answers = client
            .ask(json!([
                {"path": "/a%20b?c=d&e", "headers": [["cookie", "a=1"], ["cookie", "b=2"]]},
                {"method": "POST", "body": "text", "headers": [["content-length", "4"]]},
                {"method": "POST", "body": "streamed"},
                {"path": "/trailers", "headers": [["te", "trailers"]]},
                {"path": "/big?bytes=900000"},
                {"authority": "nobody.example"},
                {"method": "POST", "body": "told", "trailers": [["x-sum", "1"]]},
                {"method": "HEAD", "path": "/trailers"},

            ]))
            .await;
        let get = seen(&answers[0]);
        assert_eq!((&get["version"], &get["method"]), (&json!(version), &json!("GET")));
        assert_eq!(get["target"], "/a%20b?c=d&e");
        assert_eq!(field(&get, "cookie"), ["a=1; b=2"]);
        assert_eq!(field(&get, "x-forwarded-proto"), ["https"]);
        assert!(field(&get, "transfer-encoding").is_empty(), "a GET without a body: {get}");
        assert_eq!(seen(&answers[1])["body"], "text");
        assert_eq!(seen(&answers[2])["body"], "streamed");
        assert_eq!(answers[3]["trailers"], json!([["x-checksum", "abc"]]), "{answers:?}");
        assert_eq!(answers[4]["length"], 900_000, "{}", answers[4]);
        assert_eq!(answers[5]["status"], 421);
        let length = values(&answers[7], "content-length");
        assert!(length.is_empty() && answers[7]["status"] == 200, "unknown: {}", answers[7]);
        let told = seen(&answers[6]);
        assert_eq!(told["body"], "told");
        assert_eq!(told["trailers"], "{\"x-sum\": \"1\"}", "{told}");

        for answer in &answers {
            assert!(values(answer, "alt-svc").is_empty() && !values(answer, "date").is_empty());
            assert!(values(answer, "transfer-encoding").is_empty());
        }
        let many: Vec<Value> = (0..60).map(|n| json!({"path": format!("/?n={n}")})).collect();
        for (n, answer) in client.ask(json!(many)).await.iter().enumerate() {
            assert_eq!(seen(answer)["target"], format!("/?n={n}"));
        }
    }
    let record = gateway.accessed("/trailers").await;
    assert_eq!(record["tls"], "TLSv1.3", "{record}");
    let refused = Quic::connect(&gateway, "127.0.0.1", "nobody.example").await;
    assert!(refused.is_err(), "a name without a certificate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_moves_stays_connected() {
    let (_h1, _h2c, gateway) = served().await;
    let mut client = Quic::connect(&gateway, "127.0.0.1", "h1.localhost").await.unwrap();
    // With two workers, half of the ports belong to the other one.
    for number in 0..12 {
        let answers = client.moved(json!([{"path": format!("/?n={number}")}])).await;
        assert_eq!(seen(&answers[0])["target"], format!("/?n={number}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_are_refused_and_limits_hold() {
    let (h1, _h2c, gateway) = served().await;
    let mut client = Quic::connect(&gateway, "127.0.0.1", "h1.localhost").await.unwrap();
    let head =
        [[":method", "GET"], [":scheme", "https"], [":authority", "h1.localhost"], [":path", "/"]];
    let with = |more: &[[&str; 2]]| {
        let whole = [&head[..], more].concat();
        json!([{"raw": whole}])
    };
    for more in [
        &[[":path", "/b"]][..],
        &[[":authority", "evil.example"]],
        &[["host", "evil.example"]],
        &[["x", "y"], [":method", "POST"]],
        &[["connection", "close"]],
        &[["transfer-encoding", "chunked"]],
        &[["te", "gzip"]],
        &[["X-Upper", "1"]],
        &[["content-length", "5"]],
        &[["content-length", "0"], ["content-length", "0"]],
        &[["x", "a\r\nb"]],
        &[[":protocol", "websocket"]],
    ] {
        let answers = client.ask(with(more)).await;
        assert_eq!(answers[0]["reset"], 0x10e, "{more:?}: {:?}", answers[0]);
    }
    let answers = client.ask(json!([{"raw": head[..2].to_vec()}])).await;
    assert_eq!(answers[0]["reset"], 0x10e);
    let answers =
        client.ask(json!([{"raw": [[":method", "CONNECT"], [":authority", "a:1"]]}])).await;
    assert_eq!(answers[0]["status"], 501);
    assert_eq!(h1.requests().len(), 0, "the application saw none of them");

    let fields: Vec<[String; 2]> = (0..60).map(|n| [format!("x-{n}"), "1".into()]).collect();
    let large: Vec<[String; 2]> =
        vec![["x".into(), "a".repeat(6_000)], ["y".into(), "a".repeat(6_000)]];
    let answers = client
        .ask(json!([
            {"headers": fields},
            {"headers": large},
            {"method": "POST", "body": "a".repeat(2_000_000)},
            {"path": "/after"},
        ]))
        .await;
    assert_eq!(answers[0]["status"], 431);
    assert!(answers[1]["status"] == 431 || answers[1]["reset"] == 0x107, "{}", answers[1]);
    assert_eq!(answers[2]["status"], 413);
    assert_eq!(answers[3]["status"], 200);

    let cancelled: Vec<Value> =
        (0..100).map(|_| json!({"path": "/slow?ms=10000", "cancel": true})).collect();
    assert!(client.ask(json!(cancelled)).await.is_empty());
    assert_eq!(client.ask(json!([{"path": "/then"}])).await[0]["status"], 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_response_is_not_taken_for_a_whole_one() {
    let (_h1, _h2c, gateway) = served().await;
    let mut client = Quic::connect(&gateway, "127.0.0.1", "h1.localhost").await.unwrap();
    let answers = client.ask(json!([{"path": "/half"}, {"path": "/drop"}])).await;
    assert_eq!(answers[0]["reset"], 0x102, "{}", answers[0]);
    assert_eq!(answers[1]["status"], 502);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_requests_end_and_says_goodbye() {
    let (_h1, _h2c, mut gateway) = served().await;
    let mut idle = Quic::connect(&gateway, "127.0.0.1", "h1.localhost").await.unwrap();
    let mut busy = Quic::connect(&gateway, "127.0.0.1", "h1.localhost").await.unwrap();
    busy.order(json!({"requests": [{"path": "/slow?ms=1500"}]})).await;
    until("the request to arrive", SOON, async || (!_h1.requests().is_empty()).then_some(())).await;
    gateway.terminate();
    assert_eq!(idle.read().await["ended"], 0x100);
    assert_eq!(busy.answers().await[0]["status"], 200);
    assert_eq!(busy.read().await["ended"], 0x100);
    assert!(gateway.end().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_and_a_reload_switches_it() {
    let (_h1, _h2c, gateway) = served().await;
    let told = format!("h3=\":{}\"; ma=86400", gateway.https);
    let client = gateway.client().await;
    assert_eq!(client.get("h1.localhost", "/").await.header("alt-svc"), told);
    let mut kept = Quic::connect(&gateway, "127.0.0.1", "h1.localhost").await.unwrap();

    let off = "listen: [{address: \"https://127.0.0.1:@https@\", http3: false}]\n";
    let mark = gateway.mark();
    gateway.configure(&format!("{off}{YAML}"));
    gateway.logged(mark, &["generation 2 serving"]).await;
    let answer = client.clone().fresh().get("h1.localhost", "/").await;
    assert!(answer.headers.get("alt-svc").is_none());
    assert!(Quic::connect(&gateway, "127.0.0.1", "h1.localhost").await.is_err(), "refused");
    assert_eq!(kept.ask(json!([{"path": "/"}])).await[0]["status"], 200, "it stays open");

    let mark = gateway.mark();
    gateway.configure(YAML);
    gateway.logged(mark, &["generation 3 serving"]).await;
    Quic::connect(&gateway, "127.0.0.1", "h1.localhost").await.unwrap();
    assert_eq!(kept.ask(json!([{"path": "/"}])).await[0]["status"], 200);
}

const APP: &str = "
sites:
  - hosts: [app.localhost]
    routes: [{upstream: app}]
upstreams:
  app: http://127.0.0.1:@origin@
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_opens_over_http3() {
    let origin = Origin::start().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).start(APP).await;
    let mut client = Quic::connect(&gateway, "127.0.0.1", "app.localhost").await.unwrap();
    let wish = |protocol: &str| {
        json!([
            [":method", "CONNECT"],
            [":protocol", protocol],
            [":scheme", "https"],
            [":authority", "app.localhost"],
            [":path", "/ws"],
            ["sec-websocket-version", "13"]
        ])
    };
    // A text frame `hi`, masked with 0.
    let answers = client
        .ask(json!([
            {"raw": wish("websocket"), "open": true,
                "until": "hi", "hex": "8182000000006869"},
            {"raw": wish("connect-udp")},
        ]))
        .await;
    assert_eq!(answers[0]["status"], 200, "{}", answers[0]);
    assert!(answers[0]["text"].as_str().unwrap().contains("hi"), "{}", answers[0]);
    assert_eq!(answers[1]["status"], 501, "{}", answers[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_knows_a_handshake_over_quic() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.file("prober.wasm", guest("prober"));
    gateway.set("web", origin.port);
    gateway
        .start(
            "
sites: [{hosts: [h1.localhost], filters: [facts], upstream: web}]
upstreams: {web: http://127.0.0.1:@web@}
plugins: {facts: {component: @dir@/prober.wasm, limits: {deadline: 2s}}}
",
        )
        .await;
    let mut client = Quic::connect(&gateway, "127.0.0.1", "h1.localhost").await.unwrap();
    let answers = client.ask(json!([{"path": "/tls/x"}])).await;
    let saw = field(&seen(&answers[0]), "x-saw").concat();
    let parts: Vec<&str> = saw.split(' ').collect();
    let [suite, group, is_resumed, ja4] = parts[..] else { panic!("{saw}") };
    assert!(suite.starts_with("TLS_") && !group.is_empty(), "{saw}");
    assert_eq!(is_resumed, "false", "{saw}");
    assert!(ja4.starts_with("q13d") && ja4.contains("h3_"), "{saw}");
}
