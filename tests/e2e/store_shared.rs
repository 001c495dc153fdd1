//! Promise: several gateways share one store: each certificate is ordered once, all serve it, any
//! of them answers the CA, and when one dies in the middle another takes over. Keys in it are sealed.

use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::harness::client::Client;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::{Gateway, LATER, SOON, output, until};

const YAML: &str = "
store: {path: @store@, shared: true, seal: {file: @dir@/passphrase}}
admin: @dir@/admin.sock
certificates:
  issuers: [{directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default, name: pebble}]
  challenge: @challenge@
sites:
@sites@
";

fn sites(count: usize) -> String {
    let site = |number| {
        format!(
            "  - hosts: [n{number}.example.com]\n    \
             routes: [{{respond: {{status: 200, body: ok}}}}]\n"
        )
    };
    (0..count).map(site).collect()
}

/// Two gateways with a store in common. The CA knocks at a balancer in front of them.
async fn pair(challenge: &str) -> (Gateway, Gateway, Pebble) {
    let (mut first, mut second) = (Gateway::new(), Gateway::new());
    let http = balancer([first.http, second.http]).await;
    let https = balancer([first.https, second.https]).await;
    let pebble = Pebble::start(&Options::new(http, https)).await;
    let store = first.store().display().to_string();
    for gateway in [&mut first, &mut second] {
        gateway.file("pebble.pem", &pebble.api_root);
        gateway.file("passphrase", "correct horse\n");
        gateway.set("directory", pebble.directory()).set("store", &store);
        gateway.set("challenge", challenge);
    }
    (first, second, pebble)
}

/// Hands connections to the two ports in turns, or to the one that answers.
async fn balancer(ports: [u16; 2]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut turn = 0;
        while let Ok((mut near, _)) = listener.accept().await {
            turn += 1;
            let order = [ports[turn % 2], ports[(turn + 1) % 2]];
            tokio::spawn(async move {
                for port in order {
                    if let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_order_once_and_serve_the_same() {
    let (mut first, mut second, pebble) = pair("auto").await;
    for gateway in [&mut first, &mut second] {
        gateway.set("sites", sites(4)).configure(YAML);
        gateway.spawn();
    }
    first.ready().await;
    second.ready().await;
    let root = pebble.root().await;
    let clients = [&first, &second].map(|g| Client::new(g.https).trusting(&root));
    for number in 0..4 {
        let name = format!("n{number}.example.com");
        let mut serials = Vec::new();
        for client in &clients {
            serials.push(client.certified(&name, LATER).await.serial);
        }
        assert_eq!(serials[0], serials[1], "{name}");
    }
    assert_eq!(pebble.issued(), 4);
    let logs = first.log() + &second.log();
    assert_eq!(logs.matches("account made").count(), 1, "{logs}");
    assert_eq!(logs.matches("made a root").count(), 1, "{logs}");
    assert!(logs.contains("taken over from another gateway"), "{logs}");

    // What lies on the disk opens to the passphrase alone.
    let (files, keys) = bare_keys(&first.store());
    assert!(files > 10 && keys.is_empty(), "{files} files, bare keys in {keys:?}");
    second.kill9();
    second.file("passphrase", "wrong");
    second.spawn();
    assert!(!second.end().await.success());
    assert!(second.log().contains("not the one that the store was sealed with"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_takes_over_from_one_that_was_killed() {
    let (mut first, mut second, pebble) = pair("http-01").await;
    let root = pebble.root().await;
    let mut taken_over = 0;
    for round in 1..=3 {
        for gateway in [&mut first, &mut second] {
            gateway.set("sites", sites(round)).configure(YAML);
            gateway.spawn();
        }
        first.ready().await;
        second.ready().await;
        let name = format!("n{}.example.com", round - 1);
        let holder = until("somebody to hold the lease", LATER, async || {
            let lease = first.store().join(format!("leases/certificates/{name}.json"));
            let text = std::fs::read(lease).ok()?;
            let lease: serde_json::Value = serde_json::from_slice(&text).ok()?;
            Some(lease["holder"].as_str()?.to_owned())
        })
        .await;
        let (dying, living) = match has_open(&first, &holder) {
            true => (&mut first, &second),
            false => (&mut second, &first),
        };
        dying.kill9();
        let started = std::time::Instant::now();
        let client = Client::new(living.https).trusting(&root);
        let leaf = client.certified(&name, LATER).await;
        assert_eq!(leaf.names, [name]);
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        taken_over += 1;
        first.kill9();
        second.kill9();
    }
    assert_eq!(taken_over, 3);
    // An order that was taken over goes on; none is made twice.
    assert!(pebble.issued() <= 6, "{}", pebble.issued());
    // Nothing is left to hold anybody up.
    second.spawn();
    second.ready().await;
    let client = Client::new(second.https).trusting(&root);
    for number in 0..3 {
        client.certified(&format!("n{number}.example.com"), SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_follow_a_new_key_a_new_contact_and_a_revocation() {
    let (mut first, mut second, pebble) = pair("http-01").await;
    let yaml = YAML.replace("certificates:\n", "certificates:\n  contact: @contact@\n");
    for gateway in [&mut first, &mut second] {
        gateway.set("contact", "one@example.com").set("sites", sites(1)).configure(&yaml);
        gateway.spawn();
    }
    first.ready().await;
    second.ready().await;
    let root = pebble.root().await;
    let clients = [&first, &second].map(|g| Client::new(g.https).trusting(&root));
    let mut serials = Vec::new();
    for client in &clients {
        serials.push(client.certified("n0.example.com", LATER).await.serial);
    }
    assert_eq!(serials[0], serials[1]);
    let changed = async |from: &str| {
        let mut serials = Vec::new();
        for client in &clients {
            serials.push(
                until("another certificate", LATER, async || {
                    let leaf = client.clone().fresh().leaf("n0.example.com").await.ok()?;
                    (leaf.serial != from).then_some(leaf.serial)
                })
                .await,
            );
        }
        assert_eq!(serials[0], serials[1]);
        serials.remove(0)
    };
    // Both have used the account: now it gets a new key at one of them, and the other orders with it.
    renew(&second).await;
    let serial = changed(&serials[0]).await;
    renew(&first).await;
    let serial = changed(&serial).await;
    certs(&first, &["rollover", "pebble"]).await;
    renew(&second).await;
    let serial = changed(&serial).await;
    certs(&second, &["rollover"]).await;
    renew(&first).await;
    let serial = changed(&serial).await;
    // A new contact is told once, by the one that orders first.
    for gateway in [&mut first, &mut second] {
        gateway.set("contact", "two@example.com").configure(&yaml);
        gateway.logged(0, &["generation 2 serving"]).await;
    }
    renew(&first).await;
    let serial = changed(&serial).await;
    renew(&second).await;
    let serial = changed(&serial).await;
    let logs = first.log() + &second.log();
    assert_eq!(logs.matches("the CA was told the new contact").count(), 1, "{logs}");
    assert_eq!(logs.matches("account made").count(), 1, "{logs}");
    // Revoked at one, replaced at all, by one order.
    let issued = pebble.issued();
    certs(&second, &["revoke", "n0.example.com", "--reason", "key-compromise"]).await;
    assert!(pebble.status(&serial).await.contains("Revoked"));
    changed(&serial).await;
    assert_eq!(pebble.issued(), issued + 1);
    let logs = first.log() + &second.log();
    assert!(!logs.contains("no certificate:"), "an order failed: {logs}");
}

async fn renew(gateway: &Gateway) {
    certs(gateway, &["renew", "n0.example.com"]).await;
}

async fn certs(gateway: &Gateway, arguments: &[&str]) {
    let config = gateway.config().display().to_string();
    let all = [&["certs"], arguments, &["--config", &config]].concat();
    let output = output(env!("CARGO_BIN_EXE_witgate"), &all, LATER).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Whether a gateway is the one of this name.
fn has_open(gateway: &Gateway, holder: &str) -> bool {
    let folder = format!("/proc/{}/fd", gateway.id());
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut files = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    files.any(|file| file.ends_with(holder))
}

/// How many files there are below a folder, and those that hold a private key as it is.
fn bare_keys(folder: &Path) -> (usize, Vec<String>) {
    let (mut count, mut bare) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).unwrap().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            let (more, bares) = bare_keys(&path);
            count += more;
            bare.extend(bares);
        } else if let Ok(content) = std::fs::read(&path) {
            count += 1;
            let has = |text: &[u8]| content.windows(text.len()).any(|part| part == text);
            // PEM, and the algorithm of a PKCS#8 key of P-256.
            if has(b"PRIVATE KEY") || has(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04]) {
                bare.push(path.display().to_string());
            }
        }
    }
    (count, bare)
}
