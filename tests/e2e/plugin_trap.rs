//! Promise: whatever a plugin does, it costs its own request and no other.

use std::time::Duration;

use crate::harness::client::{Client, get};
use crate::harness::load::{Load, Plan};
use crate::harness::origin::field;
use crate::harness::{Gateway, RustOrigin, heavy};

const YAML: &str = "
sites:
  - hosts: [calm.localhost]
    router: calm
    routes: [{upstream: web}]
  - hosts: [closed.localhost]
    filters: [closed]
    routes: [{upstream: web}]
  - hosts: [open.localhost]
    filters: [open]
    routes: [{upstream: web}]
  - hosts: [routed.localhost]
    router: closed
    routes: [{upstream: web}]
upstreams:
  web: http://127.0.0.1:@web@
  api: http://127.0.0.1:@web@
plugins:
  calm: {component: \"@guests@/router.wasm\"}
  closed: {component: \"@guests@/hostile.wasm\", limits: {deadline: 100ms, memory: 16MiB}}
  open: {component: \"@guests@/hostile.wasm\", on-error: fail-open, limits: {deadline: 100ms, memory: 16MiB}}
";

/// What the hostile guest does when a request asks for it, and a word of the log's reason.
const MISDEEDS: &[(&str, &str)] = &[
    ("/loop", "limits.deadline"),
    ("/sleep", "limits.deadline"),
    ("/memory", "limits.memory"),
    ("/output", "limits.output"),
    ("/body", "limits.output"),
    ("/log", "limits.output"),
    ("/stdout", "limits.output"),
    ("/recursion", "call stack exhausted"),
    ("/panic", "own words"),
    ("/exit", "called exit"),
    ("/handles", "handles"),
    ("/name", "not a field name"),
    ("/value", "no field value"),
    ("/owned", "owns the field content-length"),
    ("/host", "owns the field host"),
    ("/path", "percent-encoded"),
    ("/method", "CONNECT"),
    ("/authority", "not a host"),
    ("/status", "99 is not a status"),
    ("/respond-owned", "owns the field transfer-encoding"),
    ("/redirect", "200 is not a redirect"),
    ("/upstream", "upstream"),
];

async fn served() -> (RustOrigin, Gateway, Client) {
    let web = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("web", web.port).start(YAML).await;
    let client = gateway.client().await;
    (web, gateway, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_misdeed_costs_its_own_request() {
    let (web, gateway, client) = served().await;
    for name in ["closed.localhost", "routed.localhost"] {
        for (path, reason) in MISDEEDS {
            let before = web.requests().len();
            let answer = client.get(name, path).await;
            assert_eq!(answer.status, 500, "{name}{path}: {answer:?}");
            assert!(!answer.text().contains("own words"), "{answer:?}");
            assert_eq!(web.requests().len(), before, "{path} reached the application");
            let id = answer.header("x-request-id");
            let record = gateway.accessed_as("id", id).await;
            assert_eq!(record["fault"], "plugin", "{record}");
            let error = record["error"].as_str().unwrap_or_default();
            assert!(error.contains("closed") && error.contains(reason), "{reason} in {record}");
            let calm = client.get("calm.localhost", "/web").await;
            assert_eq!(calm.status, 200, "after {path}");
            // A good end between two bad ones keeps the breaker closed.
            assert_eq!(client.get(name, "/fine").await.header("location"), "/changed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_open_goes_on_with_the_request_as_it_was() {
    let (_web, _gateway, client) = served().await;
    for (path, _) in MISDEEDS {
        let answer = client.get("open.localhost", path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let seen = answer.json();
        assert_eq!(seen["target"], *path, "edits are undone");
        assert_eq!(seen["method"], "GET");
        assert!(field(&seen, "x-touched").is_empty(), "{path}: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_instance_serves_the_next_request() {
    let (_web, _gateway, client) = served().await;
    let mut http = client.h1("closed.localhost").await.unwrap();
    for _ in 0..3 {
        let answer = http.send(get("closed.localhost", "/panic")).await.unwrap();
        assert_eq!(answer.status, 500);
        // This path ends well: with the redirect that the guest decides on.
        let answer = http.send(get("closed.localhost", "/fine")).await.unwrap();
        assert_eq!(answer.header("location"), "/changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_fails_again_and_again_is_left_alone() {
    let (_web, gateway, client) = served().await;
    let mut http = client.h1("closed.localhost").await.unwrap();
    let mut last = None;
    for _ in 0..25 {
        let answer = http.send(get("closed.localhost", "/panic")).await.unwrap();
        assert!(answer.status >= 500, "{answer:?}");
        last = Some(answer);
    }
    let record = gateway.accessed_as("id", last.unwrap().header("x-request-id")).await;
    assert!(record.to_string().contains("not called for a while"), "{record}");
    assert_eq!(client.get("calm.localhost", "/web").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_wait_no_longer_than_a_deadline() {
    let _turn = heavy().await;
    let (_web, gateway, client) = served().await;
    let plan = Plan { h1: 4, h2: 1, streams: 2, fresh: 0, pause: Duration::from_millis(2) };
    let load = Load::start(&client, "calm.localhost", "/web", plan, |a| a.status == 200).await;
    let before = gateway.rss_kib();
    let mut http = client.h1("closed.localhost").await.unwrap();
    for round in 0..5 {
        for path in ["/loop", "/memory", "/output", "/log", "/stdout", "/sleep"] {
            let answer = http.send(get("closed.localhost", path)).await.unwrap();
            assert!(answer.status >= 500, "{round} {path}: {answer:?}");
        }
    }
    let report = load.stop().await;
    // Connections that share the worker with the hostile one get a turn between two of its calls.
    report.assert_flawless(30);
    // One call at a time misbehaves, so a request waits for at most one deadline of 100 ms, and for
    // what the machine itself takes.
    let slowest = report.quantile(0.999);
    assert!(slowest < Duration::from_millis(400), "{slowest:?}");
    let growth = gateway.rss_kib().saturating_sub(before);
    assert!(growth < 60_000, "memory grew by {growth} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_log_lines_is_cut() {
    let (_web, gateway, client) = served().await;
    client.get("closed.localhost", "/log").await;
    client.get("closed.localhost", "/stdout").await;
    let log = gateway.log();
    let lines = log.lines().filter(|line| line.contains("zzzz")).count();
    assert!(lines < 2000, "{lines} lines");
    assert!(log.lines().all(|line| line.len() < 20_000), "a line is too long");
}
