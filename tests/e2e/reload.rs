//! Promise: everything in the file can be changed while running, nothing that is open is dropped, and
//! a file that is wrong changes nothing and says why.

use std::time::Duration;

use crate::harness::client::{Client, get};
use crate::harness::load::{Load, Plan};
use crate::harness::websocket::{Frame, WebSocket};
use crate::harness::{Gateway, Origin, SOON, heavy, port, until};

const YAML: &str = "
sites:
  - hosts: [app.localhost]
    routes: [{respond: {status: 200, body: \"@body@\"}}]
";

async fn says(client: &Client, name: &str, body: &str) {
    until(&format!("{name} to say {body}"), SOON, async || {
        let mut http = client.h1(name).await.ok()?;
        let answer = http.send(get(name, "/")).await.ok()?;
        (answer.text() == body).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_in_force_at_once() {
    let mut gateway = Gateway::new();
    gateway.set("body", "one").start(YAML).await;
    let client = gateway.client().await;
    says(&client, "app.localhost", "one").await;
    let mut open =
        [client.h1("app.localhost").await.unwrap(), client.h2("app.localhost").await.unwrap()];
    let mark = gateway.mark();
    gateway.set("body", "two").configure(YAML);
    gateway.logged(mark, &["generation", "serving"]).await;
    says(&client, "app.localhost", "two").await;
    for http in &mut open {
        let answer = http.send(get("app.localhost", "/")).await.unwrap();
        assert_eq!(answer.text(), "two", "an open connection sees the new generation");
    }
    // Written in place, as an editor may do.
    let text = gateway.set("body", "three").text(YAML);
    std::fs::write(gateway.config(), text).unwrap();
    says(&client, "app.localhost", "three").await;
    let more = "  - hosts: [more.localhost]\n    routes: [{respond: {status: 200, body: more}}]\n";
    gateway.configure(&format!("{YAML}{more}"));
    says(&client, "more.localhost", "more").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_reloads() {
    let mut gateway = Gateway::new();
    gateway.set("body", "one").start(YAML).await;
    let client = gateway.client().await;
    for _ in 0..3 {
        let mark = gateway.mark();
        gateway.hangup();
        gateway.logged(mark, &["generation", "serving"]).await;
        says(&client, "app.localhost", "one").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_changes_nothing_and_says_why() {
    let mut gateway = Gateway::new();
    gateway.set("body", "one").start(YAML).await;
    let client = gateway.client().await;
    let mut open = client.h1("app.localhost").await.unwrap();
    let good = gateway.text(YAML);
    for (bad, reason) in [
        (format!("{good}upstreams: {{app: ftp://127.0.0.1}}\n"), "ftp"),
        (
            format!("{good}  - hosts: [other.localhost]\n    routes: [{{upstream: nowhere}}]\n"),
            "nowhere",
        ),
        (format!("{good}plugins: {{gone: {{component: ./gone.wasm}}}}\n"), "gone.wasm"),
        (good.replace("sites:", "sits:"), "sits"),
        ("listen: [".to_owned(), "gateway.yaml:1"),
        (String::new(), "gateway.yaml"),
    ] {
        let mark = gateway.mark();
        gateway.replace("gateway.yaml", &bad);
        gateway.logged(mark, &["reload refused"]).await;
        gateway.logged(mark, &[reason]).await;
        says(&client, "app.localhost", "one").await;
        assert_eq!(open.send(get("app.localhost", "/")).await.unwrap().text(), "one");
    }
    gateway.set("body", "two").configure(YAML);
    says(&client, "app.localhost", "two").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_come_and_go() {
    let origin = Origin::start().await;
    let mut gateway = Gateway::new();
    let other = port();
    let yaml = |listen: &str| {
        format!(
            "listen: [{listen}]\nsites:\n  - hosts: [app.localhost]\n    \
             routes: [{{upstream: app}}]\nupstreams: {{app: \"http://127.0.0.1:@origin@\"}}\n"
        )
    };
    let first = "\"https://127.0.0.1:@https@\"";
    let second = "\"https://127.0.0.1:@other@\"";
    gateway.set("origin", origin.port).set("other", other).start(&yaml(first)).await;
    let root = gateway.local_root().await;
    let (old, new) = (gateway.client().await, Client::new(other).trusting(&root));
    assert_eq!(old.get("app.localhost", "/json").await.status, 200);
    assert!(new.tcp().await.is_err());

    gateway.configure(&yaml(&format!("{first}, {second}")));
    new.certified("app.localhost", SOON).await;
    assert_eq!(old.get("app.localhost", "/json").await.status, 200);
    let mut open = WebSocket::open(&old, "app.localhost", "/ws").await.unwrap();

    gateway.configure(&yaml(second));
    until("the first listener to go", SOON, async || old.tcp().await.err()).await;
    assert_eq!(new.get("app.localhost", "/json").await.status, 200);
    open.text("still open").await.unwrap();
    assert_eq!(open.read().await.unwrap(), Frame::Text("still open".to_owned()));

    // A port that somebody else has: refused, and nothing changes.
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().port().to_string();
    let mark = gateway.mark();
    gateway.configure(&yaml(&format!("{second}, \"https://127.0.0.1:{taken}\"")));
    gateway.logged(mark, &["reload refused", &taken]).await;
    assert_eq!(new.get("app.localhost", "/json").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_reloads_under_load_fail_nobody() {
    let _turn = heavy().await;
    let origin = Origin::start().await;
    let mut gateway = Gateway::new();
    let yaml = "
sites:
  - hosts: [app.localhost]
    routes: [{upstream: app}, {exact: /number, respond: {status: 200, body: \"@number@\"}}]
upstreams:
  app: http://127.0.0.1:@origin@
";
    gateway.set("origin", origin.port).set("number", 0).start(yaml).await;
    let client = gateway.client().await;
    let plan = Plan { h1: 3, h2: 2, streams: 2, fresh: 1, pause: Duration::from_millis(3) };
    let load = Load::start(&client, "app.localhost", "/json", plan, |a| a.status == 200).await;
    let mut socket = WebSocket::open(&client, "app.localhost", "/ws").await.unwrap();
    let mut http = client.h1("app.localhost").await.unwrap();
    let (mut fds, mut rss) = (0, 0);
    for number in 1..=50 {
        gateway.set("number", number).configure(yaml);
        let number = number.to_string();
        until("the new generation", SOON, async || {
            let answer = http.send(get("app.localhost", "/number")).await.unwrap();
            (answer.text() == number).then_some(())
        })
        .await;
        socket.text(&number).await.unwrap();
        assert_eq!(socket.read().await.unwrap(), Frame::Text(number.clone()));
        if number == "10" {
            (fds, rss) = (gateway.fds(), gateway.rss_kib());
        }
    }
    load.stop().await.assert_flawless(500);
    assert!(gateway.fds() < fds + 20, "{fds} descriptors became {}", gateway.fds());
    assert!(gateway.rss_kib() < rss + 20_000, "{rss} KiB became {}", gateway.rss_kib());
}
