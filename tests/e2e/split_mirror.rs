//! Promise: requests of a route are split over upstreams by their shares, and copies of them go elsewhere
//! without anybody noticing but the counters.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::harness::client::{Client, Http, get, request, with, zeros};
use crate::harness::origin::field;
use crate::harness::{Gateway, RustOrigin, SOON, output, port, until};

const SPLIT: &str = "
sites:
  - hosts: [app.localhost]
    routes: [{split: {stable: @stable@, canary: @canary@, never: 0}}]
upstreams:
  stable: http://127.0.0.1:@one@
  canary: http://127.0.0.1:@two@
  never: http://127.0.0.1:@closed@
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_keeps_to_its_shares() {
    let (stable, canary) = (RustOrigin::h1().await, RustOrigin::h1().await);
    let mut gateway = Gateway::new();
    gateway.set("one", stable.port).set("two", canary.port).set("closed", port());
    gateway.set("stable", 90).set("canary", 10).start(SPLIT).await;
    let client = gateway.client().await;
    let mut http = client.h2("app.localhost").await.unwrap();
    for _ in 0..400 {
        assert_eq!(http.send(get("app.localhost", "/")).await.unwrap().status, 200);
    }
    let (most, few) = (stable.requests().len(), canary.requests().len());
    // Nine deviations of a fair draw around 40.
    assert!(most + few == 400 && (5..=94).contains(&few), "{most} and {few}");
    gateway.set("stable", 0).set("canary", 1);
    let mark = gateway.mark();
    gateway.configure(SPLIT);
    gateway.logged(mark, &["generation 2 serving"]).await;
    for _ in 0..20 {
        assert_eq!(http.send(get("app.localhost", "/")).await.unwrap().status, 200);
    }
    assert_eq!((stable.requests().len(), canary.requests().len()), (most, few + 20));
}

const SIDES: &str = "
sites:
  - hosts: [app.localhost]
    routes:
      - {path: /drawn, split: {stable: @stable@, canary: @canary@}, split-by: {sticky: side, max-age: 1d}}
      - {path: /keyed, split: {stable: @stable@, canary: @canary@}, split-by: {header: x-user}}
upstreams:
  stable: http://127.0.0.1:@one@
  canary: http://127.0.0.1:@two@
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_stays_on_one_side_of_a_split() {
    let (stable, canary) = (RustOrigin::h1().await, RustOrigin::h1().await);
    let mut gateway = Gateway::new();
    gateway.set("one", stable.port).set("two", canary.port);
    gateway.set("stable", 50).set("canary", 50).start(SIDES).await;
    let client = gateway.client().await;
    let mut http = client.h2("app.localhost").await.unwrap();
    let is_canary = async |http: &mut Http, asked| {
        let before = canary.requests().len();
        let answer = http.send(asked).await.unwrap();
        assert_eq!(answer.status, 200);
        (canary.requests().len() > before, answer.header("set-cookie").to_owned())
    };
    let (mut drawn, mut keyed) = (Vec::new(), Vec::new());
    for user in 0..24 {
        let (side, cookie) = is_canary(&mut http, get("app.localhost", "/drawn")).await;
        let (value, rest) = cookie.split_once(';').unwrap();
        assert!(value.starts_with("side=") && rest.contains("Max-Age=86400"), "{cookie}");
        let value = value.to_owned();
        for _ in 0..3 {
            let asked = with(get("app.localhost", "/drawn"), "cookie", &value);
            assert_eq!(is_canary(&mut http, asked).await, (side, String::new()));
        }
        drawn.push((value, side));
        let user = format!("user-{user}");
        let asked = || with(get("app.localhost", "/keyed"), "x-user", &user);
        let (side, cookie) = is_canary(&mut http, asked()).await;
        assert!(cookie.is_empty(), "{cookie}");
        assert_eq!(is_canary(&mut http, asked()).await.0, side);
        keyed.push((user, side));
    }
    for sides in [&drawn, &keyed] {
        let there = sides.iter().filter(|(_, side)| *side).count();
        assert!((1..=23).contains(&there), "{sides:?}");
    }
    // Where the canary's share grows, nobody who was there leaves it.
    gateway.set("stable", 20).set("canary", 80);
    let mark = gateway.mark();
    gateway.configure(SIDES);
    gateway.logged(mark, &["generation 2 serving"]).await;
    for (value, _) in drawn.iter().filter(|(_, side)| *side) {
        let asked = with(get("app.localhost", "/drawn"), "cookie", value);
        assert!(is_canary(&mut http, asked).await.0, "{value} left");
    }
    for (user, _) in keyed.iter().filter(|(_, side)| *side) {
        let asked = with(get("app.localhost", "/keyed"), "x-user", user);
        assert!(is_canary(&mut http, asked).await.0, "{user} left");
    }
}

const MIRROR: &str = "
sites:
  - hosts: [app.localhost]
    mirror: {upstream: copies, request-body: 10KiB}
    routes:
      - {path: /private, upstream: app, mirror: off}
      - {path: /part, upstream: app, mirror: {upstream: copies, share: 50}}
      - {path: /lost, upstream: app, mirror: {upstream: closed}}
      - {path: /stuck, upstream: app, mirror: {upstream: stuck}}
      - {upstream: app}
upstreams:
  app: http://127.0.0.1:@app@
  copies: http://127.0.0.1:@copies@
  closed: http://127.0.0.1:@closed@
  stuck: {servers: [\"http://127.0.0.1:@stuck@\"], timeouts: {response: 60s}}
";

async fn mirrored(gateway: &Gateway, outcome: &str) -> u64 {
    let socket = gateway.store().join("admin.sock").display().to_string();
    let arguments = ["--silent", "--unix-socket", &socket, "http://witgate/metrics"];
    let text = output("curl", &arguments, SOON).await.stdout;
    let text = String::from_utf8(text).unwrap();
    let start = format!("witgate_mirrored_total{{outcome=\"{outcome}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
    value.parse().unwrap()
}

/// A request as a server saw it, without what differs by itself.
fn seen(request: &Value) -> (String, String, String, Vec<String>) {
    let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
    (text("method"), text("target"), text("body"), field(request, "x-forwarded-for"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_go_elsewhere_unnoticed() {
    let (app, copies) = (RustOrigin::h1().await, RustOrigin::h1().await);
    // Takes connections and answers nothing.
    let stuck = TcpListener::bind(("127.0.0.1", port())).await.unwrap();
    let mut gateway = Gateway::new();
    gateway.set("app", app.port).set("copies", copies.port).set("closed", port());
    gateway.set("stuck", stuck.local_addr().unwrap().port()).start(MIRROR).await;
    let client: Client = gateway.client().await;
    let mut h1 = client.h1("app.localhost").await.unwrap();
    let mut h2 = client.h2("app.localhost").await.unwrap();
    for http in [&mut h1, &mut h2] {
        let ask = with(get("app.localhost", "/a?b=c"), "x-mine", "1");
        assert_eq!(http.send(ask).await.unwrap().status, 200);
        let ask = request("POST", "app.localhost", "/known", "a body");
        assert_eq!(http.send(ask).await.unwrap().json()["body"], "a body");
        let pieces = request("POST", "app.localhost", "/streamed", "").map(|_| zeros(5000));
        assert_eq!(http.send(pieces).await.unwrap().status, 200);
        // What is longer than the bound, or not to be copied, is not.
        let long = Bytes::from(vec![b'x'; 10 * 1024 + 1]);
        let long = request("POST", "app.localhost", "/long", long);
        assert_eq!(http.send(long).await.unwrap().status, 200);
        assert_eq!(http.send(get("app.localhost", "/private")).await.unwrap().status, 200);
    }
    until("six copies", SOON, async || (mirrored(&gateway, "sent").await == 6).then_some(())).await;
    assert_eq!(mirrored(&gateway, "skipped").await, 2);
    let wanted = |all: Vec<Value>| {
        let not = |target: &str| !target.starts_with("/long") && !target.starts_with("/private");
        let mut all: Vec<_> = all.iter().map(seen).filter(|request| not(&request.1)).collect();
        all.sort();
        all
    };
    let copied = copies.requests();
    assert_eq!(wanted(app.requests()), wanted(copied.clone()));
    assert_eq!(copied.len(), 6, "{copied:?}");
    assert!(copied.iter().all(|copy| field(copy, "host") == ["app.localhost"]));

    for _ in 0..100 {
        h1.send(get("app.localhost", "/part")).await.unwrap();
    }
    let half = || copies.requests().iter().filter(|copy| copy["target"] == "/part").count();
    until("about half", SOON, async || (20..=80).contains(&half()).then_some(())).await;

    // Upstreams of copies that are away or slow are nobody's trouble.
    for path in ["/lost", "/stuck"] {
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(h2.send(get("app.localhost", path)).await.unwrap().status, 200);
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{path}");
    }
    until("failures", SOON, async || (mirrored(&gateway, "failed").await == 20).then_some(()))
        .await;
    // Only so many are under way at once.
    let many: Vec<_> = (0..250)
        .map(|_| {
            let mut http = h2.stream();
            tokio::spawn(async move { http.send(get("app.localhost", "/stuck")).await })
        })
        .collect();
    for one in many {
        assert_eq!(one.await.unwrap().unwrap().status, 200);
    }
    assert!(mirrored(&gateway, "skipped").await > 2 + 100);
}
