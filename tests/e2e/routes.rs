//! Promise: routes are told apart by patterns, addresses and facts of the handshake, all of them, one of
//! them or none; a route that nothing reaches is named.

use rustls::version;

use crate::harness::Gateway;
use crate::harness::client::{get, request, with};

const YAML: &str = "
sites:
  - hosts: [app.localhost]
    routes:
      - when: {path: \"/v[0-9]+/users/[^/]+\"}
        not: [{methods: [DELETE]}, {headers: {x-role: \".*guest.*\"}}]
        respond: {status: 200, body: user}
      - any: [{headers: {x-beta: \"on|1\"}}, {query: {beta: \"on|1\"}}]
        respond: {status: 200, body: beta}
      - path: /near
        when: {addresses: [127.0.0.2/32]}
        respond: {status: 200, body: near}
      - path: /old
        when: {tls-version: TLSv1.2}
        respond: {status: 200, body: old}
      - path: /name
        when: {server-name: \"app\\\\..*\", client-certificate: false}
        respond: {status: 200, body: name}
      - respond: {status: 200, body: rest}
      - path: /
        when: {path: /never}
        respond: {status: 200, body: never}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions_decide_where_requests_go() {
    let mut gateway = Gateway::new();
    gateway.start(YAML).await;
    let client = gateway.client().await;
    let host = "app.localhost";
    for (request, expected) in [
        (get(host, "/v12/users/alice"), "user"),
        (get(host, "/%7612/users/alice"), "user"),
        (get(host, "/v12/users/alice/x"), "rest"),
        (get(host, "/vx/users/alice"), "rest"),
        (request("DELETE", host, "/v12/users/alice", ""), "rest"),
        (with(get(host, "/v12/users/alice"), "x-role", "a guest of ours"), "rest"),
        (with(get(host, "/x"), "x-beta", "on"), "beta"),
        (with(get(host, "/x"), "x-beta", "one"), "rest"),
        (get(host, "/x?a=1&beta=1"), "beta"),
        (get(host, "/near"), "rest"),
        (get(host, "/old"), "rest"),
        (get(host, "/name"), "name"),
        (get(host, "/never"), "rest"),
    ] {
        let what = format!("{request:?}");
        assert_eq!(client.send(request).await.text(), expected, "{what}");
    }
    assert_eq!(client.clone().from("127.0.0.2").get(host, "/near").await.text(), "near");
    assert_eq!(client.clone().speaking(&version::TLS12).get(host, "/old").await.text(), "old");
    assert!(gateway.log().contains("takes all that this one takes"), "{}", gateway.log());
}
