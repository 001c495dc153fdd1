//! Promise: plain HTTP leads to https, for names that are served here, and nowhere else.

use crate::harness::client::{Client, get, request};
use crate::harness::{Gateway, RustOrigin};

const YAML: &str = "
sites:
  - hosts: [app.localhost, \"*.wild.localhost\"]
    routes: [{upstream: app}]
upstreams:
  app: http://127.0.0.1:@origin@
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_leads_to_https() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("origin", origin.port).start(YAML).await;
    let mut http = Client::new(gateway.http).plain().await.unwrap();
    for (name, path) in [("app.localhost", "/a/b%20c?d=e&f"), ("x.wild.localhost", "/")] {
        let authority = format!("{name}:{}", gateway.http);
        let answer = http.send(get(&authority, path)).await.unwrap();
        assert_eq!(answer.status, 308, "{answer:?}");
        let to = format!("https://{name}:{}{path}", gateway.https);
        assert_eq!(answer.header("location"), to);
    }
    let post = request("POST", "app.localhost", "/form", "secret=1");
    assert_eq!(http.send(post).await.unwrap().status, 308);
    assert!(origin.requests().is_empty(), "nothing of this reaches the application");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_name_is_not_redirected() {
    let mut gateway = Gateway::new();
    gateway.set("origin", 9).start(YAML).await;
    let mut http = Client::new(gateway.http).plain().await.unwrap();
    for name in ["evil.example", "wild.localhost", "127.0.0.1"] {
        let answer = http.send(get(name, "/")).await.unwrap();
        assert!(matches!(answer.status, 404 | 421), "{name}: {answer:?}");
        assert!(!answer.headers.contains_key("location"), "{name}: {answer:?}");
    }
    let unknown = get("app.localhost", "/.well-known/acme-challenge/no-such-token");
    let answer = http.send(unknown).await.unwrap();
    assert!(matches!(answer.status, 404 | 308), "{answer:?}");
}
