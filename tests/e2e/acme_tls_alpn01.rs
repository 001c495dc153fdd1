//! Promise: a certificate over ACME by TLS-ALPN-01 (RFC 8737), with port 443 alone.

use crate::harness::client::Client;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::{Gateway, LATER, port};

const YAML: &str = "
listen: [\"https://127.0.0.1:@https@\"]
certificates:
  issuers: [{directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default}]
  challenge: @challenge@
sites:
  - hosts: [app.example.com]
    routes: [{respond: {status: 200, body: app}}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn port_443_is_enough() {
    for challenge in ["tls-alpn-01", "auto"] {
        let mut gateway = Gateway::new();
        // Nothing listens where Pebble would look for HTTP-01.
        let pebble = Pebble::start(&Options::new(port(), gateway.https)).await;
        gateway.file("pebble.pem", &pebble.api_root);
        gateway.set("directory", pebble.directory()).set("challenge", challenge);
        gateway.start(YAML).await;
        let client = Client::new(gateway.https).trusting(&pebble.root().await);
        let leaf = client.certified("app.example.com", LATER).await;
        assert_eq!(leaf.names, ["app.example.com"]);
        assert_eq!(client.get("app.example.com", "/").await.text(), "app");
        // Outside a challenge the protocol leads nowhere.
        assert!(client.tls("app.example.com", &[b"acme-tls/1"]).await.is_err());
    }
}
