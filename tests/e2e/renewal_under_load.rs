//! Promise: a certificate is renewed before it ends, and nobody notices.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::harness::client::Client;
use crate::harness::load::{Load, Plan};
use crate::harness::pebble::{Options, Pebble};
use crate::harness::{Gateway, LATER, RustOrigin, until};

const YAML: &str = "
certificates:
  issuers: [{directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default}]
  challenge: tls-alpn-01
sites:
  - hosts: [app.example.com]
    routes: [{upstream: app}]
upstreams:
  app: http://127.0.0.1:@origin@
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_renewals_under_load_fail_nobody() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let mut options = Options::new(gateway.http, gateway.https);
    options.validity = 45;
    let pebble = Pebble::start(&options).await;
    gateway.file("pebble.pem", &pebble.api_root);
    gateway.set("directory", pebble.directory()).set("origin", origin.port).start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    client.certified("app.example.com", LATER).await;
    let plan = Plan { h1: 2, h2: 2, streams: 2, fresh: 2, pause: Duration::from_millis(20) };
    let load = Load::start(&client, "app.example.com", "/", plan, |a| a.status == 200).await;
    let mut serials = BTreeSet::new();
    let renewals = Duration::from_secs(150);
    until("two renewals", renewals, async || {
        let failures = load.failures();
        assert!(failures.is_empty(), "{failures:#?}");
        let leaf = client.clone().fresh().leaf("app.example.com").await;
        let leaf = leaf.expect("a valid certificate");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        assert!(leaf.not_after > now.as_secs() as i64, "{leaf:?} has ended");
        serials.insert(leaf.serial);
        (serials.len() >= 3).then_some(())
    })
    .await;
    load.stop().await.assert_flawless(100);
    assert!(pebble.issued() <= 12, "{} certificates: renewed too eagerly", pebble.issued());
}
