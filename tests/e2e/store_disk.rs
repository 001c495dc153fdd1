//! Promise: a disk that is full or read-only costs nothing that is served: certificates go on, the CA
//! is not bothered for what could not be kept, and once there is room again all is well.

use crate::harness::client::Client;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::{Gateway, LATER, output};

const YAML: &str = "
admin: @dir@/admin.sock
certificates:
  issuers: [{directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default, name: pebble}]
  challenge: http-01
sites:
  - hosts: [@hosts@]
    routes: [{respond: {status: 200, body: app}}]
";

async fn run(program: &str, arguments: &[&str]) -> bool {
    output(program, arguments, LATER).await.status.success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_and_a_read_only_disk_lose_nothing() {
    if !run("unshare", &["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).await {
        println!("skipped: no right to mount a small disk");
        return;
    }
    let mut gateway = Gateway::new();
    let pebble = Pebble::start(&Options::new(gateway.http, gateway.https)).await;
    gateway.file("pebble.pem", &pebble.api_root);
    gateway.set("directory", pebble.directory()).set("hosts", "app.example.com");
    let store = gateway.store().display().to_string();
    std::fs::create_dir(&store).expect("a folder");
    // A disk of its own for the store, in a mount namespace of its own.
    let mount = format!("mount -t tmpfs -o size=1m none {store} && exec \"$0\" \"$@\"");
    gateway.inside(&["unshare", "-m", "sh", "-c", &mount]);
    gateway.start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let first = client.certified("app.example.com", LATER).await;
    let config = gateway.config().display().to_string();
    let witgate = env!("CARGO_BIN_EXE_witgate");
    let renew = async |name: &str| {
        assert!(run(witgate, &["certs", "renew", name, "--config", &config]).await);
    };
    let disk = format!("/proc/{}/root{store}", gateway.id());

    // Full.
    let filler = format!("{disk}/filler");
    let _ = std::fs::write(&filler, vec![1; 2 << 20]);
    gateway.set("hosts", "app.example.com, two.example.com").configure(YAML);
    gateway.logged_within(0, &["two.example.com", "no certificate", "No space left"], LATER).await;
    let mark = gateway.mark();
    renew("app.example.com").await;
    gateway.logged_within(mark, &["app.example.com", "No space left"], LATER).await;
    assert_eq!(client.clone().fresh().leaf("app.example.com").await.unwrap(), first);
    assert_eq!(pebble.issued(), 1, "the CA signed what could not be kept");
    std::fs::remove_file(&filler).expect("room");
    renew("two.example.com").await;
    client.certified("two.example.com", LATER).await;
    renew("app.example.com").await;
    let second = crate::harness::until("another certificate", LATER, async || {
        let leaf = client.clone().fresh().leaf("app.example.com").await.ok()?;
        (leaf.serial != first.serial).then_some(leaf)
    })
    .await;

    // Read-only.
    let id = gateway.id().to_string();
    let remount = async |how: &str| {
        let options = format!("remount,{how}");
        let there = ["-t", &id, "-m", "mount", "-o", &options, &store];
        assert!(run("nsenter", &there).await, "{options}");
    };
    remount("ro").await;
    let mark = gateway.mark();
    renew("app.example.com").await;
    gateway.logged_within(mark, &["app.example.com", "Read-only file system"], LATER).await;
    assert_eq!(client.clone().fresh().leaf("app.example.com").await.unwrap(), second);
    assert_eq!(pebble.issued(), 3, "the CA signed what could not be kept");
    remount("rw").await;
    renew("app.example.com").await;
    crate::harness::until("another certificate", LATER, async || {
        let leaf = client.clone().fresh().leaf("app.example.com").await.ok()?;
        (leaf.serial != second.serial).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_read_only_disk_serves_what_is_there() {
    if !run("unshare", &["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).await {
        println!("skipped: no right to mount");
        return;
    }
    let mut gateway = Gateway::new();
    let pebble = Pebble::start(&Options::new(gateway.http, gateway.https)).await;
    gateway.file("pebble.pem", &pebble.api_root);
    gateway.set("directory", pebble.directory()).set("hosts", "app.example.com");
    gateway.start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let leaf = client.certified("app.example.com", LATER).await;
    gateway.kill9();
    let store = gateway.store().display().to_string();
    let mount = format!(
        "mount --bind {store} {store} && mount -o remount,bind,ro {store} && exec \"$0\" \"$@\""
    );
    gateway.inside(&["unshare", "-m", "sh", "-c", &mount]);
    gateway.spawn();
    gateway.ready().await;
    gateway.logged(0, &["read-only"]).await;
    assert_eq!(client.clone().fresh().leaf("app.example.com").await.unwrap(), leaf);
}
