//! Promise: killed at any instant of an order, the gateway comes up again, has lost no key and no
//! certificate, and in the end leaves no challenge record behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::dns01_pebble::{YAML, prepared};
use crate::harness::client::Client;
use crate::harness::{Gateway, LATER, SOON, until};

/// Kills that meet an order under way.
const KILLS: usize = 50;
/// How long an order takes at most, from the start of the gateway: kills fall into this time.
const ORDER_MS: u64 = 1200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_lose_nothing() {
    let (mut gateway, pebble, dns) = prepared(|how| how.reuses = false).await;
    dns.zone("example.com").await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let mut random = Random::new();
    let mut kept = BTreeMap::new();
    let mut account = BTreeMap::new();
    let (mut names, mut met, mut starts) = (0, 0, 0);
    while met < KILLS {
        starts += 1;
        assert!(starts < 4 * KILLS, "only {met} of {starts} kills met an order");
        // A new name when all are served, so that there is an order to interrupt.
        if issued(&gateway) == names {
            names += 1;
        }
        gateway.set("sites", sites(names));
        gateway.configure(YAML);
        gateway.spawn();
        // From the way up to the last step of the order.
        let at = tokio::time::Instant::now() + Duration::from_millis(random.below(ORDER_MS));
        if starts % 5 == 0 {
            gateway.ready().await;
            check(&gateway, &client, &mut kept, &mut account, names).await;
        }
        tokio::time::sleep_until(at).await;
        gateway.process().assert_running();
        let is_ordering = gateway.log().contains("ordering");
        gateway.kill9();
        met += usize::from(is_ordering && issued(&gateway) < names);
    }
    gateway.spawn();
    gateway.ready().await;
    for number in 0..names {
        let name = format!("n{number}.example.com");
        let leaf = client.certified(&name, LATER).await;
        let first = kept.entry(name).or_insert_with(|| leaf.serial.clone());
        assert_eq!(*first, leaf.serial, "a certificate was lost");
    }
    check(&gateway, &client, &mut kept, &mut account, names).await;
    until("every challenge record to be removed", LATER, async || {
        let left = dns.txt("example.com").await;
        left.is_empty().then_some(())
    })
    .await;
    println!("{met} of {starts} kills met an order, {names} names");
}

/// Certificates in the store.
fn issued(gateway: &Gateway) -> usize {
    let folder = std::fs::read_dir(gateway.store().join("acme/certificates"));
    let files = folder.into_iter().flatten().filter_map(Result::ok);
    files.filter(|file| file.file_name().to_string_lossy().ends_with(".pem")).count()
}

/// The account is the same, and every certificate that was ever served still is.
async fn check(
    gateway: &Gateway,
    client: &Client,
    kept: &mut BTreeMap<String, String>,
    account: &mut BTreeMap<String, Vec<u8>>,
    names: usize,
) {
    for (path, content) in account_files(&gateway.store()) {
        let first = account.entry(path.clone()).or_insert_with(|| content.clone());
        assert!(*first == content, "{path} has changed: the account key was lost");
    }
    for number in 0..=names {
        let name = format!("n{number}.example.com");
        match (kept.get(&name), client.clone().fresh().leaf(&name).await) {
            (Some(serial), Ok(leaf)) => assert_eq!(*serial, leaf.serial, "{name} was lost"),
            (Some(serial), Err(e)) => {
                // The listener is there before the store is read: a moment is granted.
                let leaf = client.certified(&name, SOON).await;
                assert_eq!(*serial, leaf.serial, "{name} was lost after {e}");
            }
            (None, Ok(leaf)) => {
                kept.insert(name, leaf.serial);
            }
            (None, Err(_)) => {}
        }
    }
}

/// Account files of the store, by path.
fn account_files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return files };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            files.extend(account_files(&path));
        } else if name.starts_with("account")
            && !name.contains("tmp")
            && let Ok(content) = std::fs::read(&path)
        {
            files.push((path.display().to_string(), content));
        }
    }
    files
}

fn sites(count: usize) -> String {
    let site = |number| {
        format!(
            "  - hosts: [n{number}.example.com]\n    \
             routes: [{{respond: {{status: 200, body: ok}}}}]\n"
        )
    };
    (0..count).map(site).collect()
}

/// Marsaglia's xorshift: enough to pick instants. The seed is printed for a second run.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let seed = now.as_nanos() as u64 | 1;
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
