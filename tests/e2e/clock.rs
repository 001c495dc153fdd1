//! Promise: a clock that jumps, by a person, a broken battery or a machine that slept, is noticed within
//! seconds. It costs one order at most, and nothing is lost.

use crate::harness::client::Client;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::{Gateway, LATER, output, until};

const YAML: &str = "
certificates:
  issuers: [{directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default, name: pebble}]
  challenge: http-01
sites:
  - hosts: [app.example.com]
    routes: [{respond: {status: 200, body: app}}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_costs_one_order_at_most() {
    let mut gateway = Gateway::new();
    let pebble = Pebble::start(&Options::new(gateway.http, gateway.https)).await;
    gateway.file("pebble.pem", &pebble.api_root);
    let clock = gateway.file("clock", "+0").display().to_string();
    gateway.clock(&[
        ("FAKETIME_TIMESTAMP_FILE", &clock),
        ("FAKETIME_CACHE_DURATION", "1"),
        // The clock that only counts on goes on as it is, as that of a machine does.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]);
    gateway.set("directory", pebble.directory()).start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let first = client.certified("app.example.com", LATER).await;
    let leaf = async || client.clone().fresh().leaf("app.example.com").await.expect("a leaf");
    let jump = async |by: &str| {
        let mark = gateway.mark();
        gateway.replace("clock", by);
        gateway.logged_within(mark, &["the clock has jumped"], LATER).await;
        // Twice as long as the clock is looked at: whatever is begun has begun.
        tokio::time::sleep(std::time::Duration::from_secs(8)).await;
        mark
    };
    // Past the renewal: it is renewed, once, although by this clock the new one is old when it comes.
    jump("+70d").await;
    let second = until("another certificate", LATER, async || {
        let leaf = leaf().await;
        (leaf.serial != first.serial).then_some(leaf)
    })
    .await;
    // To before anything was valid: what is there is served, and nobody is asked for anything.
    let mark = jump("-400d").await;
    assert_eq!(leaf().await, second);
    assert!(!gateway.log_after(mark).contains("ordering"), "{}", gateway.log());
    // Back again: all is as it was, and orders work.
    let mark = jump("+0").await;
    assert_eq!(leaf().await, second);
    assert!(!gateway.log_after(mark).contains("ordering"), "{}", gateway.log());
    assert_eq!(pebble.issued(), 2);
    let config = gateway.config().display().to_string();
    let renew = ["certs", "renew", "app.example.com", "--config", &config];
    assert!(output(env!("CARGO_BIN_EXE_witgate"), &renew, LATER).await.status.success());
    until("a third certificate", LATER, async || {
        (leaf().await.serial != second.serial).then_some(())
    })
    .await;
}
