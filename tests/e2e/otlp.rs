//! Promise: spans of exchanges and of plugins' hooks reach a collector as OTLP over HTTP, in the client's
//! trace, with the upstream below; without `log.otlp` nothing is sent and nothing changes.

use serde_json::Value;

use crate::harness::client::{get, with};
use crate::harness::collector::Collector;
use crate::harness::guests::guest;
use crate::harness::origin::field;
use crate::harness::{Gateway, RustOrigin, SOON, until};

const YAML: &str = "
sites:
  - hosts: [app.localhost]
    filters: [filter]
    routes: [{upstream: h1}]
  - hosts: [away.localhost]
    routes: [{upstream: away}]
upstreams:
  h1: http://127.0.0.1:@h1@
  away: http://127.0.0.1:@away@
plugins:
  filter: {component: filter.wasm}
log: {access: json, level: info, format: json@otlp@}
";

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn spans(collector: &Collector) -> Vec<Value> {
    let posts = collector.posts_to("/v1/traces");
    let bodies = posts.iter().map(|post| serde_json::from_str::<Value>(&post.body).unwrap());
    bodies
        .flat_map(|body| {
            body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
        })
        .collect()
}

fn attribute<'s>(span: &'s Value, key: &str) -> &'s Value {
    let all = span["attributes"].as_array().unwrap();
    let found = all.iter().find(|attribute| attribute["key"] == key);
    let value = &found.unwrap_or_else(|| panic!("{key} of {span}"))["value"];
    if value["stringValue"].is_null() { &value["intValue"] } else { &value["stringValue"] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_reach_a_collector_in_the_clients_trace() {
    let (collector, h1) = (Collector::start().await, RustOrigin::h1().await);
    let mut gateway = Gateway::new();
    gateway.file("filter.wasm", guest("filter"));
    let otlp = format!(
        ", otlp: {{endpoint: \"http://127.0.0.1:{}\", service: edge, headers: {{x-key: {{env: KEY}}}}}}",
        collector.port
    );
    gateway.set("h1", h1.port).set("away", crate::harness::port()).set("otlp", otlp);
    gateway.env("KEY", "hunter2").start(YAML).await;
    let client = gateway.client().await;

    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let request = with(get("app.localhost", "/x?secret=1"), "traceparent", &traceparent);
    let seen = client.send(request).await.json();
    let found = until("the spans of the exchange and two hooks", SOON, async || {
        let spans = spans(&collector);
        (spans.len() >= 3).then_some(spans)
    })
    .await;
    let [exchange] = &found.iter().filter(|span| span["kind"] == 2).collect::<Vec<_>>()[..] else {
        panic!("{found:?}")
    };
    assert_eq!((&exchange["traceId"], &exchange["parentSpanId"]), (&TRACE.into(), &PARENT.into()));
    assert_eq!(attribute(exchange, "http.request.method"), "GET");
    assert_eq!(attribute(exchange, "url.path"), "/x");
    assert_eq!(attribute(exchange, "http.response.status_code"), "200");
    assert_eq!(attribute(exchange, "witgate.upstream"), "h1");
    let time = |key: &str| exchange[key].as_str().unwrap().parse::<u64>().unwrap();
    assert!(time("startTimeUnixNano") <= time("endTimeUnixNano"));
    let own = exchange["spanId"].as_str().unwrap();
    // The upstream hangs below the exchange, and so do both hooks.
    assert_eq!(field(&seen, "traceparent"), [format!("00-{TRACE}-{own}-01")]);
    let hooks: Vec<&Value> = found.iter().filter(|span| span["kind"] == 1).collect();
    let names: Vec<&str> = hooks.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["filter.on-request", "filter.on-response"]);
    for hook in hooks {
        assert_eq!((&hook["traceId"], &hook["parentSpanId"]), (&TRACE.into(), &own.into()));
        assert_eq!(attribute(hook, "witgate.plugin"), "filter");
    }
    let post = &collector.posts_to("/v1/traces")[0];
    assert!(post.head.contains("x-key: hunter2") && post.body.contains("\"edge\""), "{post:?}");
    assert!(!post.body.contains("secret=1") && !gateway.log().contains("hunter2"));

    // A client that does not record is left alone; one without a trace gets one; a failure is one.
    let before = spans(&collector).len();
    let silent = format!("00-{TRACE}-{PARENT}-00");
    let request = with(get("app.localhost", "/silent"), "traceparent", &silent);
    assert_eq!(field(&client.send(request).await.json(), "traceparent"), [silent]);
    assert_eq!(client.get("away.localhost", "/away").await.status, 502);
    let failed = until("the span of the failure", SOON, async || {
        spans(&collector).into_iter().skip(before).find(|span| span["kind"] == 2)
    })
    .await;
    assert_eq!(attribute(&failed, "url.path"), "/away");
    assert_eq!((&failed["status"]["code"], failed.get("parentSpanId")), (&2.into(), None));
    assert_eq!(attribute(&failed, "error.type"), "upstream");

    // Switched off by a reload, nothing more is sent, and fields stay as they come.
    let count = spans(&collector).len();
    gateway.set("otlp", "");
    gateway.configure(YAML);
    until("the reload", SOON, async || {
        let request = with(get("app.localhost", "/off"), "traceparent", &traceparent);
        let seen = client.send(request).await.json();
        (field(&seen, "traceparent") == [traceparent.clone()]).then_some(())
    })
    .await;
    gateway.terminate();
    assert!(gateway.end().await.success());
    let off = spans(&collector).into_iter().skip(count).filter(|span| span["kind"] == 2);
    // Those of the time until the reload alone.
    assert!(off.clone().all(|span| attribute(&span, "url.path") == "/off"));
}
