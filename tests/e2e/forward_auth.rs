//! Promise: an upstream may be asked before a request goes on, errors have the operator's own pages, and
//! browsers are told to be careful.

use crate::harness::client::{get, request, with};
use crate::harness::origin::field;
use crate::harness::{Gateway, RustOrigin};

const YAML: &str = "
sites:
  - hosts: [app.localhost]
    security: strict
    error-pages: {404: @dir@/missing.html, 5xx: @dir@/sorry.html}
    routes:
      - path: /private
        forward-auth: {upstream: auth, path: /verify?x=1, copy: [x-user]}
        strip-prefix: /private
        upstream: app
      - path: /down
        forward-auth: {upstream: \"http://127.0.0.1:@closed@\"}
        upstream: app
      - path: /stalled
        forward-auth: {upstream: auth, path: /never, timeout: 200ms}
        upstream: app
      - {path: /open, security: basic, error-pages: off, upstream: \"http://127.0.0.1:@closed@\"}
      - {path: /app, upstream: app}
upstreams:
  app: http://127.0.0.1:@origin@
  auth: http://127.0.0.1:@auth@
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_upstream_that_is_asked_has_the_say() {
    let origin = RustOrigin::h1().await;
    let asked = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.file("missing.html", "<h1>{status} is missing</h1> {request-id}");
    gateway.file("sorry.html", "<h1>sorry</h1>");
    gateway.set("origin", origin.port).set("auth", asked.port);
    gateway.set("closed", crate::harness::port()).start(YAML).await;
    let client = gateway.client().await;

    let refused = client.get("app.localhost", "/private/x?y").await;
    assert_eq!((refused.status, refused.header("location")), (302, "https://login.example/"));
    assert!(origin.requests().is_empty(), "a no ends at the gateway");

    let post = request("POST", "app.localhost", "/private/x?y", "the body");
    let post = with(with(post, "cookie", "good=1"), "x-user", "root");
    let post = with(post, "x-forwarded-uri", "/spoofed");
    let seen = client.send(post).await.json();
    assert_eq!((&seen["target"], &seen["body"]), (&"/x?y".into(), &"the body".into()));
    assert_eq!(field(&seen, "x-user"), ["alice"]);
    let question = asked.requests().pop().unwrap();
    assert_eq!((&question["method"], &question["target"]), (&"GET".into(), &"/verify?x=1".into()));
    assert_eq!(field(&question, "x-forwarded-method"), ["POST"]);
    assert_eq!(field(&question, "x-forwarded-uri"), ["/private/x?y"]);
    assert_eq!(field(&question, "x-forwarded-proto"), ["https"]);
    assert_eq!((&question["body"], field(&question, "content-length").len()), (&"".into(), 0));
    // Many questions go over few connections.
    for _ in 0..20 {
        let asked = with(get("app.localhost", "/private/"), "cookie", "good=1");
        assert_eq!(client.send(asked).await.status, 200);
    }
    assert!(asked.connections() <= 4, "{} connections", asked.connections());

    let before = origin.requests().len();
    assert_eq!(client.get("app.localhost", "/down").await.status, 502);
    assert_eq!(client.get("app.localhost", "/stalled").await.status, 504);
    assert_eq!(origin.requests().len(), before, "silence is no yes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_pages_and_browsers_are_told_to_be_careful() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.file("missing.html", "<h1>{status} is missing</h1> {request-id}");
    gateway.file("sorry.html", "<h1>sorry</h1>");
    gateway.set("origin", origin.port).set("auth", origin.port);
    gateway.set("closed", crate::harness::port()).start(YAML).await;
    let client = gateway.client().await;
    let missing = client.get("app.localhost", "/nowhere").await;
    let id = missing.header("x-request-id");
    assert_eq!(missing.text(), format!("<h1>404 is missing</h1> {id}"));
    assert_eq!(missing.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(client.get("app.localhost", "/down").await.text(), "<h1>sorry</h1>");
    let json = with(get("app.localhost", "/nowhere"), "accept", "application/json");
    assert_eq!(client.send(json).await.json()["status"], 404);
    let plain = client.get("app.localhost", "/open").await;
    assert!(plain.text().starts_with("502 Bad Gateway"), "{plain:?}");
    for (name, basic, strict) in [
        ("strict-transport-security", "max-age=31536000", "max-age=63072000; includeSubDomains"),
        ("x-content-type-options", "nosniff", "nosniff"),
        ("x-frame-options", "SAMEORIGIN", "DENY"),
        ("cross-origin-opener-policy", "", "same-origin"),
    ] {
        assert_eq!(plain.header(name), basic, "{name}");
        assert_eq!(missing.header(name), strict, "{name}");
        assert_eq!(client.get("app.localhost", "/app").await.header(name), strict, "{name}");
    }
}
