//! Promise: the plugins that come with the gateway do what their pages say, in a real gateway.

use crate::harness::client::{get, request, with};
use crate::harness::guests::guest;
use crate::harness::origin::field;
use crate::harness::{Gateway, RustOrigin};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_are_set_appended_and_removed() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let yaml = "
sites:
  - hosts: [app.localhost]
    filters: [headers]
    routes: [{upstream: app}]
  - hosts: [other.localhost]
    filters: [{plugin: headers, config: {response: {set: {x-use: its own}}}}]
    routes: [{upstream: app}]
upstreams:
  app: http://127.0.0.1:@origin@
plugins:
  headers:
    component: \"@plugins@/headers.wasm\"
    config:
      request: {set: {x-set: one}, append: {x-append: two}, remove: [x-remove]}
      response: {set: {strict-transport-security: max-age=63072000}, remove: [content-type]}
";
    gateway.set("origin", origin.port).start(yaml).await;
    let client = gateway.client().await;
    let mut asked = get("app.localhost", "/");
    for (name, value) in [("x-set", "old"), ("x-append", "one"), ("x-remove", "gone")] {
        asked = with(asked, name, value);
    }
    let answer = client.send(asked).await;
    assert_eq!(answer.header("strict-transport-security"), "max-age=63072000");
    assert!(!answer.headers.contains_key("content-type"), "{answer:?}");
    let seen = answer.json();
    assert_eq!(field(&seen, "x-set"), ["one"]);
    assert_eq!(field(&seen, "x-append"), ["one", "two"]);
    assert!(field(&seen, "x-remove").is_empty(), "{seen}");
    let answer = client.get("other.localhost", "/").await;
    assert_eq!(answer.header("x-use"), "its own");
    assert!(!answer.headers.contains_key("strict-transport-security"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_decides_and_a_filter_reads_the_body() {
    let (web, api) = (RustOrigin::h1().await, RustOrigin::h1().await);
    let mut gateway = Gateway::new();
    let yaml = "
sites:
  - hosts: [app.localhost]
    router: router
    filters: [filter]
    routes: [{upstream: web}]
upstreams:
  web: http://127.0.0.1:@web@
  api: http://127.0.0.1:@api@
plugins:
  router: {component: \"@guests@/router.wasm\"}
  filter: {component: \"@guests@/filter.wasm\", config: {body: \"yes\"}}
";
    gateway.set("web", web.port).set("api", api.port).start(yaml).await;
    let client = gateway.client().await;
    assert_eq!(client.get("app.localhost", "/web/x").await.status, 200);
    assert_eq!((web.requests().len(), api.requests().len()), (1, 0));
    assert_eq!(client.get("app.localhost", "/api/x").await.status, 200);
    assert_eq!((web.requests().len(), api.requests().len()), (1, 1));
    let answer = client.get("app.localhost", "/redirect").await;
    assert_eq!((answer.status, answer.header("location")), (308, "https://other.example/"));
    let answer = client.get("app.localhost", "/respond").await;
    assert_eq!((answer.status, answer.text().as_str()), (418, "short and stout"));
    assert_eq!(answer.header("x-pot"), "tea");
    let seen = client.get("app.localhost", "/rewrite").await.json();
    assert_eq!((&seen["method"], &seen["target"]), (&"PUT".into(), &"/new?from=router".into()));
    assert_eq!(field(&seen, "host"), ["inner.example:8000"]);

    let long = "0123456789 and the rest";
    let seen = client.send(request("POST", "app.localhost", "/web", long)).await.json();
    assert_eq!(field(&seen, "x-prefix"), ["0123456789"]);
    assert_eq!(field(&seen, "x-complete"), ["no"]);
    assert_eq!(seen["body"], long, "the body goes on untouched");
    let answer = client.send(request("POST", "app.localhost", "/web", "bad thing")).await;
    assert_eq!(answer.status, 400, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_knows_the_handshake() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.file("prober.wasm", guest("prober"));
    gateway.set("web", origin.port);
    gateway
        .start(
            "
sites: [{hosts: [app.localhost], filters: [facts], upstream: web}]
upstreams: {web: http://127.0.0.1:@web@}
plugins: {facts: {component: @dir@/prober.wasm, limits: {deadline: 2s}}}
",
        )
        .await;
    let client = gateway.client().await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut http = client.h2("app.localhost").await.unwrap();
        let answer = http.send(get("app.localhost", "/tls/x")).await.unwrap();
        let saw = field(&answer.json(), "x-saw").concat();
        seen.push(saw.split(' ').map(str::to_owned).collect::<Vec<_>>());
    }
    let [first, second] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((first[1].as_str(), first[2].as_str()), ("X25519MLKEM768", "false"), "{seen:?}");
    assert_eq!(second[2], "true", "{seen:?}");
    // A session that is resumed has one extension more, and the rest in common.
    let parts = |ja4: &str| ja4.split('_').map(str::to_owned).collect::<Vec<_>>();
    let (one, two) = (parts(&first[3]), parts(&second[3]));
    assert!(one[0].starts_with("t13d") && one[0].ends_with("h2"), "{seen:?}");
    assert_eq!((one[1].len(), one[2].len(), &one[1]), (12, 12, &two[1]), "{seen:?}");
}
