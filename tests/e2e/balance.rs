//! Promise: requests go where the servers' state and the configuration say: by weight, by a client's key or
//! cookie, past servers that fail, and never more than a server may have.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::client::{Client, get, request, with};
use crate::harness::{Gateway, RustOrigin, SOON, port, until};

/// A gateway with one worker in front of these servers; `settings` are further keys of the upstream.
async fn served(servers: &[String], settings: &str) -> (Gateway, Client) {
    let mut gateway = Gateway::new();
    let yaml = format!(
        "workers: 1\nsites: [{{hosts: [app.localhost], upstream: web}}]\n\
         upstreams: {{web: {{servers: [{}]{settings}}}}}\n",
        servers.join(", ")
    );
    gateway.start(&yaml).await;
    let client = gateway.client().await;
    (gateway, client)
}

fn url(origin: &RustOrigin) -> String {
    format!("\"http://127.0.0.1:{}\"", origin.port)
}

async fn three() -> [RustOrigin; 3] {
    [RustOrigin::h1().await, RustOrigin::h1().await, RustOrigin::h1().await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_share_the_load() {
    let (one, other) = (RustOrigin::h1().await, RustOrigin::h1().await);
    let heavy = format!("{{url: {}, weight: 3}}", url(&one));
    let (_gateway, client) = served(&[heavy, url(&other)], ", balance: round-robin").await;
    let mut http = client.h1("app.localhost").await.unwrap();
    for _ in 0..40 {
        assert_eq!(http.send(get("app.localhost", "/")).await.unwrap().status, 200);
    }
    assert_eq!((one.requests().len(), other.requests().len()), (30, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_stays_at_its_server() {
    let origins = three().await;
    let servers: Vec<String> = origins.iter().map(url).collect();
    let (_gateway, client) = served(&servers, ", balance: {hash: {header: X-Tenant}}").await;
    let mut http = client.h1("app.localhost").await.unwrap();
    for tenant in 0..30 {
        for _ in 0..3 {
            let request = with(get("app.localhost", "/"), "x-tenant", &format!("t{tenant}"));
            assert_eq!(http.send(request).await.unwrap().status, 200);
        }
    }
    let mut seen = BTreeSet::new();
    for origin in &origins {
        let fields = origin.requests().into_iter();
        let tenants: BTreeSet<String> = fields
            .flat_map(|request| crate::harness::origin::field(&request, "x-tenant"))
            .collect();
        assert!(!tenants.is_empty(), "a server got no tenant");
        for tenant in tenants {
            assert!(seen.insert(tenant.clone()), "{tenant} was at two servers");
        }
    }
    assert_eq!(seen.len(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_keeps_a_client_at_its_server() {
    let mut origins = Vec::from(three().await);
    let servers: Vec<String> = origins.iter().map(url).collect();
    let (mut gateway, client) = served(&servers, ", sticky: {cookie: at, max-age: 1h}").await;
    let first = client.get("app.localhost", "/").await;
    let cookie = first.header("set-cookie").to_owned();
    assert!(cookie.starts_with("at="), "{first:?}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=3600"), "{cookie}");
    let pair = cookie.split(';').next().unwrap().to_owned();
    let count = |origin: &RustOrigin| origin.requests().len();
    let own = origins.iter().position(|origin| count(origin) == 1).unwrap();
    let mut http = client.h1("app.localhost").await.unwrap();
    for _ in 0..20 {
        let answer = http.send(with(get("app.localhost", "/"), "cookie", &pair)).await.unwrap();
        assert_eq!(answer.header("set-cookie"), "");
    }
    assert_eq!(count(&origins[own]), 21);
    // The tie outlives the gateway, and nobody can make one up.
    gateway.restart().await;
    client.send(with(get("app.localhost", "/"), "cookie", &pair)).await;
    assert_eq!(count(&origins[own]), 22);
    let forged = client.send(with(get("app.localhost", "/"), "cookie", "at=forged")).await;
    assert!(forged.header("set-cookie").starts_with("at="), "{forged:?}");
    // A server that is gone loses its clients to another, which ties them anew.
    drop(origins.remove(own));
    let moved = client.send(with(get("app.localhost", "/"), "cookie", &pair)).await;
    assert_eq!(moved.status, 200);
    assert!(moved.header("set-cookie").starts_with("at="), "{moved:?}");
    assert!(!moved.header("set-cookie").starts_with(&pair), "{moved:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fails_is_left_out() {
    let (good, bad) = (RustOrigin::h1().await, RustOrigin::h1().await);
    let settings = ", balance: round-robin, eject: {after: 3, time: 2s}";
    let (gateway, client) = served(&[url(&good), url(&bad)], settings).await;
    let mut http = client.h1("app.localhost").await.unwrap();
    let mark = gateway.mark();
    // Every other request is a failure, on one server alone.
    for n in 0..6 {
        let path = if n % 2 == 1 { "/code?code=500" } else { "/" };
        http.send(get("app.localhost", path)).await.unwrap();
    }
    assert_eq!((good.requests().len(), bad.requests().len()), (3, 3));
    gateway.logged(mark, &["left out for a while", &bad.port.to_string()]).await;
    let before = bad.requests().len();
    for _ in 0..6 {
        http.send(get("app.localhost", "/")).await.unwrap();
    }
    assert_eq!(bad.requests().len(), before);
    until("the server to be back", SOON, async || {
        http.send(get("app.localhost", "/")).await.unwrap();
        (bad.requests().len() > before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_to_another_server_unless_it_might_be_done_twice() {
    let (good, other) = (RustOrigin::h1().await, RustOrigin::h1().await);
    let count = || good.requests().len() + other.requests().len();
    let dead = format!("\"http://127.0.0.1:{}\"", port());
    let (_gateway, client) = served(&[dead, url(&good)], ", balance: round-robin").await;
    let mut http = client.h1("app.localhost").await.unwrap();
    // What never left goes elsewhere, whatever its method.
    for n in 0..6 {
        let post = request("POST", "app.localhost", "/", "once");
        assert_eq!(http.send(post).await.unwrap().status, 200);
        assert_eq!(count(), n + 1);
    }
    let settings = ", balance: round-robin, eject: off, timeouts: {response: 2s}, \
                    retries: {budget: 100, statuses: [503], try-timeout: 300ms}";
    let (_gateway, client) = served(&[url(&other), url(&good)], settings).await;
    let mut http = client.h1("app.localhost").await.unwrap();
    // A status that is worth it, until no server is left: then the last response stands.
    let answer = http.send(get("app.localhost", "/code?code=503")).await.unwrap();
    assert_eq!((answer.status, count()), (503, 8));
    let post = request("POST", "app.localhost", "/code?code=503", "once");
    assert_eq!((http.send(post).await.unwrap().status, count()), (503, 9));
    // Silence: 300 ms for a server that another may follow, the whole wait for the last.
    let start = std::time::Instant::now();
    assert_eq!(http.send(get("app.localhost", "/never")).await.unwrap().status, 504);
    assert_eq!(count(), 11);
    assert!(start.elapsed() > Duration::from_millis(2200), "{:?}", start.elapsed());
    // A connection that ends: at both servers for GET, once for POST.
    assert_eq!(http.send(get("app.localhost", "/drop")).await.unwrap().status, 502);
    for origin in [&good, &other] {
        assert!(origin.requests().iter().any(|request| request["target"] == "/drop"));
    }
    let before = count();
    let post = request("POST", "app.localhost", "/drop", "once");
    assert_eq!((http.send(post).await.unwrap().status, count()), (502, before + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_only_pile_up_is_refused() {
    let origin = RustOrigin::h1().await;
    let settings = ", circuit: {requests: 2, pending: 1}, timeouts: {connect: 5s}";
    let (_gateway, client) = served(&[url(&origin)], settings).await;
    let http = client.h2("app.localhost").await.unwrap();
    let send = |path: &'static str| {
        let mut http = http.stream();
        tokio::spawn(async move { http.send(get("app.localhost", path)).await.unwrap() })
    };
    let slow = [send("/slow?ms=1500"), send("/slow?ms=1500")];
    let two = async || (origin.requests().len() == 2).then_some(());
    until("both places to be taken", SOON, two).await;
    let waiting = send("/");
    // Which of the two waits does not matter; one does, the other is refused at once.
    let refused = send("/");
    let mut statuses = Vec::new();
    for answer in [waiting, refused] {
        let answer = answer.await.unwrap();
        if answer.status == 503 {
            assert_eq!(answer.header("retry-after"), "5");
            assert!(origin.requests().len() <= 3);
        }
        statuses.push(answer.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    for answer in slow {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    assert_eq!(client.get("app.localhost", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_server_ends_what_it_began() {
    let (old, new) = (RustOrigin::h1().await, RustOrigin::h1().await);
    let (gateway, client) = served(&[url(&old)], "").await;
    let http = client.h2("app.localhost").await.unwrap();
    let mut open = http.stream();
    let slow =
        tokio::spawn(
            async move { open.send(get("app.localhost", "/slow?ms=1000")).await.unwrap() },
        );
    until("the request", SOON, async || (old.requests().len() == 1).then_some(())).await;
    gateway.configure(&format!(
        "workers: 1\nsites: [{{hosts: [app.localhost], upstream: web}}]\n\
         upstreams: {{web: {{servers: [{}]}}}}\n",
        url(&new)
    ));
    until("the new server", SOON, async || {
        http.stream().send(get("app.localhost", "/")).await.unwrap();
        (!new.requests().is_empty()).then_some(())
    })
    .await;
    assert_eq!(slow.await.unwrap().status, 200);
    let before = old.requests().len();
    http.stream().send(get("app.localhost", "/")).await.unwrap();
    assert_eq!(old.requests().len(), before);
}
