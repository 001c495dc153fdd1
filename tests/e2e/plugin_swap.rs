//! Promise: a plugin is replaced while requests flow, and nobody notices; a replacement that is no
//! good changes nothing, and the log says what it was and why.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::client::{Client, get};
use crate::harness::guests::{guest, noted, short_digest};
use crate::harness::load::{Load, Plan};
use crate::harness::origin::field;
use crate::harness::websocket::{Frame, WebSocket};
use crate::harness::{Gateway, Origin, RustOrigin, SOON, heavy, until};

/// The router sends `/web…` and `/api…` where the names say, and tells its version in `x-router`.
const YAML: &str = "
sites:
  - hosts: [app.localhost]
    router: chooser
    routes: [{upstream: sockets}]
upstreams:
  web: http://127.0.0.1:@web@
  api: http://127.0.0.1:@web@
  sockets: http://127.0.0.1:@sockets@
plugins:
  chooser: {component: @dir@/chooser.wasm, limits: {deadline: 1s}, config: {at-start: \"@start@\"}}
";

async fn version(client: &Client) -> String {
    let seen = client.get("app.localhost", "/web").await.json();
    field(&seen, "x-router").concat()
}

async fn turns(client: &Client, wanted: &str) {
    until(&format!("version {wanted}"), SOON, async || {
        (version(client).await == wanted).then_some(())
    })
    .await;
}

/// Says something and hears it back, again and again; returns how often.
async fn talk(mut socket: WebSocket, is_over: tokio::sync::watch::Receiver<bool>) -> u64 {
    let mut said = 0_u64;
    while !*is_over.borrow() {
        socket.text(&said.to_string()).await.unwrap();
        assert_eq!(socket.read().await.unwrap(), Frame::Text(said.to_string()));
        said += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_swaps_under_load_fail_nobody() {
    const SWAPS: usize = 200;
    let _turn = heavy().await;
    let (web, sockets) = (RustOrigin::h1().await, Origin::start().await);
    let versions = [("two", guest("router_next")), ("one", guest("router"))];
    let mut gateway = Gateway::new();
    gateway.file("chooser.wasm", &versions[1].1);
    gateway.set("web", web.port).set("sockets", sockets.port).set("start", "nothing");
    gateway.start(YAML).await;
    let client = gateway.client().await;
    let (over, is_over) = tokio::sync::watch::channel(false);
    let mut sockets_open = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let socket = WebSocket::open(&client, "app.localhost", "/ws").await.unwrap();
        sockets_open.spawn(talk(socket, is_over.clone()));
    }
    let plan = Plan { h1: 3, h2: 2, streams: 2, fresh: 1, pause: Duration::from_millis(3) };
    let load = Load::start(&client, "app.localhost", "/web", plan, |answer| {
        answer.status == 200 && !field(&answer.json(), "x-router").is_empty()
    })
    .await;
    let mut http = client.h1("app.localhost").await.unwrap();
    let (mut fds, mut rss) = (0, 0);
    for swap in 0..SWAPS {
        let (version, component) = &versions[swap % 2];
        // Every tenth is compiled anew, the others come from the cache.
        let bytes =
            if swap % 10 < 2 { noted(component, &swap.to_string()) } else { component.clone() };
        if swap % 5 == 4 {
            // In place, so that the watcher may see half a file on the way.
            gateway.file("chooser.wasm", bytes);
        } else {
            gateway.replace("chooser.wasm", bytes);
        }
        until(&format!("swap {swap} to version {version}"), SOON, async || {
            let answer = http.send(get("app.localhost", "/web")).await.expect("an answer");
            (field(&answer.json(), "x-router") == [*version]).then_some(())
        })
        .await;
        if swap == SWAPS / 4 {
            (fds, rss) = (gateway.fds(), gateway.rss_kib());
        }
    }
    over.send_replace(true);
    while let Some(said) = sockets_open.join_next().await {
        assert!(said.expect("no WebSocket was dropped") > SWAPS as u64 / 2);
    }
    load.stop().await.assert_flawless(2000);
    assert!(gateway.fds() < fds + 20, "{fds} descriptors became {}", gateway.fds());
    let now = gateway.rss_kib();
    assert!(now < rss + 25_000, "{rss} KiB became {now} KiB after {SWAPS} swaps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_replacement_changes_nothing_and_is_named() {
    let web = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let good = guest("router");
    gateway.file("chooser.wasm", &good);
    gateway.set("web", web.port).set("sockets", web.port).set("start", "panic");
    gateway.start(YAML).await;
    let client = gateway.client().await;
    assert_eq!(version(&client).await, "one");
    let plan = Plan { h1: 1, h2: 1, streams: 1, fresh: 0, pause: Duration::from_millis(5) };
    let load = Load::start(&client, "app.localhost", "/web", plan, |a| a.status == 200).await;
    let half = good[..good.len() / 2].to_vec();
    for (what, bytes, reason) in [
        ("truncated", half, "component"),
        ("no component at all", b"hello".to_vec(), "component"),
        ("empty", Vec::new(), "component"),
        ("another world", guest("solver"), "router"),
        ("asks for what no router gets", guest("filter_with_http"), "imports http"),
        ("traps at its start", guest("hostile"), "own words"),
    ] {
        let mark = gateway.mark();
        gateway.replace("chooser.wasm", &bytes);
        let line = gateway.logged(mark, &["chooser.wasm", &short_digest(&bytes), reason]).await;
        assert_eq!(version(&client).await, "one", "{what}: {line}");
    }
    let mark = gateway.mark();
    gateway.replace("chooser.wasm", guest("router_next"));
    turns(&client, "two").await;
    gateway
        .logged(mark, &["plugin swapped", "chooser", &short_digest(&guest("router_next"))])
        .await;

    let mark = gateway.mark();
    std::fs::remove_file(gateway.folder().join("chooser.wasm")).unwrap();
    gateway.logged(mark, &["chooser.wasm"]).await;
    assert_eq!(version(&client).await, "two", "a file that is gone changes nothing either");
    load.stop().await.assert_flawless(10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_plugin_at_the_start_is_a_bad_start() {
    let good = guest("router");
    for (name, bytes, reason) in [
        ("hostile", guest("hostile"), "own words"),
        ("truncated", good[..good.len() / 2].to_vec(), "component"),
    ] {
        let mut gateway = Gateway::new();
        gateway.file("chooser.wasm", &bytes);
        gateway.set("web", 9).set("sockets", 9).set("start", "panic").configure(YAML);
        gateway.spawn();
        let status = gateway.end().await;
        assert_eq!(status.code(), Some(1), "{name}");
        gateway.logged(0, &["chooser.wasm", &short_digest(&bytes), reason]).await;
    }
}

/// `POST /reload` at the control socket: the generation in force afterwards.
async fn reload(socket: &std::path::Path) -> u64 {
    let mut stream = tokio::net::UnixStream::connect(socket).await.expect("the control socket");
    let order = b"POST /reload HTTP/1.1\r\nhost: witgate\r\nconnection: close\r\n\r\n";
    stream.write_all(order).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let number = answer.split("generation ").nth(1).and_then(|rest| rest.split(' ').next());
    number.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

/// `WITGATE_SWAPS=10000` for the long run of docs/PLUGINS.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_swaps_with_eighty_routes_leave_memory_flat() {
    let swaps = std::env::var("WITGATE_SWAPS").ok().and_then(|text| text.parse().ok());
    let swaps: u64 = swaps.unwrap_or(1000);
    let _turn = heavy().await;
    let web = RustOrigin::h1().await;
    let versions = [guest("filter"), noted(&guest("filter"), "another digest")];
    let mut gateway = Gateway::new();
    gateway.file("seen.wasm", &versions[0]);
    gateway.set("web", web.port);
    let routes: String = (0..80)
        .map(|n| format!("      - {{path: /{n}/, filters: [seen], upstream: web}}\n"))
        .collect();
    gateway
        .start(&format!(
            "
sites:
  - hosts: [app.localhost]
    routes:
{routes}      - upstream: web
upstreams: {{web: \"http://127.0.0.1:@web@\"}}
plugins: {{seen: {{component: @dir@/seen.wasm, limits: {{deadline: 2s}}}}}}
"
        ))
        .await;
    let client = gateway.client().await;
    let mut http = client.h1("app.localhost").await.unwrap();
    let socket = gateway.store().join("admin.sock");
    let warm = (swaps / 10).max(50);
    let (mut before, mut fds, mut generation) = (0, 0, 0);
    for swap in 1..=swaps {
        gateway.replace("seen.wasm", &versions[usize::from(swap % 2 == 1)]);
        let next = reload(&socket).await;
        assert!(next > generation, "{next} after {generation}");
        generation = next;
        let path = format!("/{}/x", swap % 80);
        let answer = http.send(get("app.localhost", &path)).await.expect("an answer");
        assert_eq!(field(&answer.json(), "x-path"), [path], "swap {swap}");
        if swap == warm {
            (before, fds) = (gateway.rss_kib(), gateway.fds());
        }
    }
    let after = gateway.rss_kib();
    println!("{swaps} swaps: {before} KiB after {warm}, {after} KiB at the end");
    assert!(after <= before + before / 10, "{before} KiB became {after} KiB");
    assert!(gateway.fds() <= fds + 5, "{fds} descriptors became {}", gateway.fds());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_instance_remembers_goes_to_the_next_version() {
    let web = RustOrigin::h1().await;
    let counting = guest("remembering");
    let mut gateway = Gateway::new();
    gateway.file("counting.wasm", &counting);
    gateway.set("web", web.port).set("config", "{}");
    let yaml = "
sites: [{hosts: [app.localhost], filters: [counting], upstream: web}]
upstreams: {web: http://127.0.0.1:@web@}
plugins: {counting: {component: @dir@/counting.wasm, limits: {deadline: 2s}, config: @config@}}
workers: 1
";
    gateway.start(yaml).await;
    let client = gateway.client().await;
    let count = async || {
        let seen = client.get("app.localhost", "/").await.json();
        field(&seen, "x-count").concat().parse::<u64>().unwrap()
    };
    assert_eq!((count().await, count().await), (1, 2));
    let mark = gateway.mark();
    gateway.replace("counting.wasm", noted(&counting, "the next version"));
    gateway.logged(mark, &["plugin swapped"]).await;
    assert_eq!((count().await, count().await), (3, 4));

    // One that fails over what it is handed begins anew, and serves.
    let change = async |gateway: &mut Gateway, config: &str| {
        let mark = gateway.mark();
        let text = gateway.set("config", config).text(yaml);
        gateway.replace("gateway.yaml", text);
        gateway.logged(mark, &["serving", "file changed"]).await;
    };
    change(&mut gateway, "{refuse: \"yes\"}").await;
    let mark = gateway.mark();
    assert_eq!(count().await, 1);
    gateway.logged(0, &["handover.restore", "it refuses"]).await;
    // One that fails to hand anything over leaves nothing.
    change(&mut gateway, "{forget: \"yes\"}").await;
    assert_eq!(count().await, 2);
    change(&mut gateway, "{}").await;
    assert_eq!(count().await, 1);
    gateway.logged(mark, &["handover.save", "it forgets"]).await;
}
