//! Promise: a new version of a plugin can be tried on live traffic, as a shadow that changes nothing or
//! with a share of the requests, and one that does worse is taken back without a failed request.

use std::time::Duration;

use crate::harness::client::{Client, get, with};
use crate::harness::guests::{digest, guest, noted};
use crate::harness::load::{Load, Plan};
use crate::harness::origin::field;
use crate::harness::{Gateway, RustOrigin, SOON, output, until};

const WITGATE: &str = env!("CARGO_BIN_EXE_witgate");

const PLAN: Plan = Plan { h1: 2, h2: 1, streams: 2, fresh: 0, pause: Duration::from_millis(2) };

/// What `witgate status` says about the plugin `tried`.
async fn status(gateway: &Gateway) -> serde_json::Value {
    let config = gateway.config().display().to_string();
    let ran = output(WITGATE, &["status", "--config", &config], 2 * SOON).await;
    let text = String::from_utf8(ran.stdout).expect("UTF-8");
    let all: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    let plugins = all["plugins"].as_array().expect("plugins");
    plugins.iter().find(|plugin| plugin["name"] == "tried").expect("the plugin").clone()
}

/// Waits until `witgate status` has this at `place` below the plugin.
async fn becomes(gateway: &Gateway, place: &str, wanted: &str) -> serde_json::Value {
    until(&format!("{place} {wanted}"), 3 * SOON, async || {
        let now = status(gateway).await;
        (now.pointer(place).is_some_and(|found| found == wanted)).then_some(now)
    })
    .await
}

async fn router_with(gateway: &mut Gateway, origin: &RustOrigin, extra: &str) -> Client {
    gateway.file("tried.wasm", guest("router"));
    gateway.set("web", origin.port);
    gateway
        .start(&format!(
            "
sites:
  - hosts: [app.localhost]
    router: tried
    upstream: web
upstreams:
  web: http://127.0.0.1:@web@
  api: http://127.0.0.1:@web@
plugins:
  tried: {{component: @dir@/tried.wasm, limits: {{deadline: 2s}}, {extra}}}
"
        ))
        .await;
    gateway.client().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_sees_everything_and_changes_nothing() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.file("next.wasm", noted(&guest("router"), "the same but for its digest"));
    let client = router_with(&mut gateway, &origin, "shadow: @dir@/next.wasm").await;
    let load = Load::start(&client, "app.localhost", "/web", PLAN, |answer| {
        answer.status == 200 && field(&answer.json(), "x-router") == ["one"]
    })
    .await;
    let busy = async |least: u64| {
        until("calls of the shadow", 3 * SOON, async || {
            let now = status(&gateway).await;
            (now["shadow"]["compared"].as_u64()? >= least).then_some(now)
        })
        .await
    };
    let now = busy(200).await;
    assert_eq!(now["shadow"]["compared"], now["shadow"]["equal"], "{now:#}");
    assert_eq!(now["shadow"]["next"]["failures"], 0, "{now:#}");
    assert!(now["shadow"]["next"]["median_nanoseconds"].as_u64() > Some(0), "{now:#}");

    // Another version says something else: it is noticed, and nobody else notices.
    let mark = gateway.mark();
    let other = guest("router_next");
    gateway.replace("next.wasm", &other);
    becomes(&gateway, "/shadow/digest", &digest(&other)).await;
    gateway.logged(mark, &["the shadow differs", "x-router"]).await;
    let now = busy(100).await;
    assert_eq!(now["shadow"]["equal"], 0, "{now:#}");
    let what = now["shadow"]["last_difference"]["what"].as_str().expect("a difference");
    assert_eq!(what, "route: the field x-router of the request");

    // One that traps, and one that is no plugin: still nobody.
    let hostile = guest("hostile");
    gateway.replace("next.wasm", &hostile);
    becomes(&gateway, "/shadow/digest", &digest(&hostile)).await;
    let mark = gateway.mark();
    gateway.replace("next.wasm", b"no component");
    gateway.logged(mark, &["there is no shadow", "component"]).await;
    assert!(status(&gateway).await["shadow"].is_null());
    load.stop().await.assert_flawless(300);
    assert!(origin.requests().iter().all(|seen| field(seen, "x-router") == ["one"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_does_well_takes_over() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let canary = "canary: {share: 25%, time: 2s, calls: 40}";
    let client = router_with(&mut gateway, &origin, canary).await;
    let load = Load::start(&client, "app.localhost", "/web", PLAN, |answer| {
        answer.status == 200 && !field(&answer.json(), "x-router").is_empty()
    })
    .await;
    let mark = gateway.mark();
    let (old, new) = (digest(&guest("router")), digest(&guest("router_next")));
    gateway.replace("tried.wasm", guest("router_next"));
    let during = becomes(&gateway, "/canary/digest", &new).await;
    assert_eq!((&during["digest"], &during["canary"]["state"]), (&old.into(), &"running".into()));
    let before = origin.requests().len();
    becomes(&gateway, "/digest", &new).await;
    gateway.logged(mark, &["the canary did well", "tried"]).await;
    load.stop().await.assert_flawless(100);
    let seen = origin.requests();
    let share = |version: &str| {
        let of = seen.iter().skip(before).filter(|seen| field(seen, "x-router") == [version]);
        of.count()
    };
    let (one, two) = (share("one"), share("two"));
    assert!(one > two / 2 && two >= 40, "{one} by the old version, {two} by the new");
    assert_eq!(field(&client.get("app.localhost", "/web").await.json(), "x-router"), ["two"]);
    assert!(status(&gateway).await["canary"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_traps_is_taken_back_and_fails_nobody() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let client =
        router_with(&mut gateway, &origin, "canary: {share: 50%, time: 1s, calls: 1}").await;
    // The old version leaves this path to the routes, the new one panics at it.
    let load = Load::start(&client, "app.localhost", "/panic", PLAN, |answer| {
        answer.status == 200 && field(&answer.json(), "x-router") == ["one"]
    })
    .await;
    let mark = gateway.mark();
    gateway.replace("tried.wasm", guest("hostile"));
    let now = becomes(&gateway, "/canary/state", "rolled-back").await;
    let reason = now["canary"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("the guest's own words"), "{reason}");
    assert_eq!(now["digest"], digest(&guest("router")));
    gateway.logged(mark, &["is rolled back", "tried", "the guest's own words"]).await;
    // A reload for another reason does not try it again.
    let mark = gateway.mark();
    gateway.hangup();
    gateway.logged(mark, &["serving", "SIGHUP"]).await;
    assert_eq!(status(&gateway).await["canary"]["state"], "rolled-back");
    // A better one is tried.
    gateway.replace("tried.wasm", guest("router_next"));
    load.stop().await.assert_flawless(50);
    let plan = Plan { pause: Duration::from_millis(5), ..PLAN };
    let load = Load::start(&client, "app.localhost", "/web", plan, |a| a.status == 200).await;
    becomes(&gateway, "/digest", &digest(&guest("router_next"))).await;
    load.stop().await.assert_flawless(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_with_errors_or_that_is_slow_is_taken_back() {
    let origin = RustOrigin::h1().await;
    for (path, reason) in [("/fail/x", "5xx"), ("/spin/300000", "a call takes")] {
        let mut gateway = Gateway::new();
        gateway.file("tried.wasm", guest("filter"));
        gateway.set("web", origin.port);
        gateway
            .start(
                "
sites: [{hosts: [app.localhost], filters: [tried], upstream: web}]
upstreams: {web: http://127.0.0.1:@web@}
plugins:
  tried:
    component: @dir@/tried.wasm
    limits: {deadline: 2s}
    canary: {share: 30%, time: 1h, calls: 30}
",
            )
            .await;
        let client = gateway.client().await;
        let is_fine = move |status| status == 200 || path.starts_with("/fail") && status == 503;
        let load =
            Load::start(&client, "app.localhost", path, PLAN, move |a| is_fine(a.status)).await;
        gateway.replace("tried.wasm", guest("prober"));
        let now = becomes(&gateway, "/canary/state", "rolled-back").await;
        let found = now["canary"]["reason"].as_str().expect("a reason");
        assert!(found.contains(reason), "{found}");
        load.stop().await.assert_flawless(30);
        assert_eq!(client.get("app.localhost", path).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_gateway_yaml_holds_up_no_plugin() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let client = router_with(&mut gateway, &origin, "on-error: fail-closed").await;
    let mark = gateway.mark();
    gateway.replace("gateway.yaml", "sites: [");
    gateway.logged(mark, &["reload refused"]).await;
    let mark = gateway.mark();
    gateway.replace("tried.wasm", guest("router_next"));
    gateway.logged(mark, &["the configuration file has mistakes"]).await;
    gateway.logged(mark, &["plugin swapped", "tried"]).await;
    assert_eq!(field(&client.get("app.localhost", "/web").await.json(), "x-router"), ["two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_request_comes_out_the_same_offline_or_shows_what_changed() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.file("filter.wasm", guest("filter"));
    gateway.file("prober.wasm", guest("prober"));
    gateway.set("web", origin.port);
    gateway
        .start(
            "
sites: [{hosts: [app.localhost], filters: [seen], upstream: web}]
upstreams: {web: http://127.0.0.1:@web@}
plugins:
  seen: {component: @dir@/filter.wasm, limits: {deadline: 2s}}
",
        )
        .await;
    let client = gateway.client().await;
    let config = gateway.config().display().to_string();
    let run = async |arguments: &[&str]| {
        let ran = output(WITGATE, arguments, 3 * SOON).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (ran.status.code(), text(ran.stdout), text(ran.stderr))
    };
    let recorded = async {
        let arguments = ["plugin", "record", "seen", "--path", "/all", "--config", &config];
        run(&arguments).await
    };
    let asked = async {
        // It is waited for from some moment on; others do not count.
        loop {
            let request = with(get("app.localhost", "/all?q=1"), "cookie", "s3cret=1");
            assert_eq!(client.send(request).await.status, 200);
            client.get("app.localhost", "/other").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (code, recording, err) = tokio::select! {
        recorded = recorded => recorded,
        () = asked => unreachable!("it asks without end"),
    };
    assert_eq!(code, Some(0), "{err}");
    let told: serde_json::Value = serde_json::from_str(&recording).expect("JSON");
    let hooks: Vec<_> = told["calls"].as_array().expect("calls").iter().collect();
    assert_eq!(hooks.len(), 2, "{recording}");
    assert_eq!(
        (&hooks[0]["hook"], &hooks[1]["hook"]),
        (&"on-request".into(), &"on-response".into())
    );
    assert_eq!(hooks[0]["request"]["target"], "/all?q=1");
    assert!(recording.contains("state.increment requests 1"), "{recording}");
    assert!(!recording.contains("s3cret"), "what it may not read is not kept");

    // Offline, with the count of then, although there is no state at all.
    let file = gateway.file("recording.json", &recording).display().to_string();
    let component = gateway.folder().join("filter.wasm").display().to_string();
    let (code, out, err) = run(&["plugin", "replay", &file, &component]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(out.matches("same").count(), 2, "{out}");
    // Another version: what it does otherwise, by name.
    let other = gateway.folder().join("prober.wasm").display().to_string();
    let (code, out, err) = run(&["plugin", "replay", &file, &other]).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("DIFFERENT  on-request"), "{out}");
    assert!(out.contains("request field x-agent: [") && out.contains("became absent"), "{out}");
    assert!(err.contains("comes out different"), "{err}");

    let (code, _, err) = run(&["plugin", "replay", &config, &other]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("is not what `witgate plugin record` writes"), "{err}");
    let none = ["plugin", "record", "seen", "--path", "/no", "--timeout", "1", "--config", &config];
    let (code, _, err) = run(&none).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("no request below /no met the plugin seen"), "{err}");
}
