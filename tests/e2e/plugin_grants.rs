//! Promise: a new version of a plugin that asks for more waits until it is accepted, and where keys are
//! configured only signed components are loaded.

use std::path::Path;
use std::process::Output;

use crate::harness::client::{get, with};
use crate::harness::origin::field;
use crate::harness::{Gateway, SOON, guests, output};

const WITGATE: &str = env!("CARGO_BIN_EXE_witgate");

async fn witgate(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = output(WITGATE, arguments, 2 * SOON).await;
    let text = [stdout, stderr].concat();
    (status.code(), String::from_utf8(text).expect("UTF-8"))
}

/// The guest that tries one thing with one field, with a plugin.yaml that asks to read `fields`.
async fn prober(folder: &Path, version: &str, fields: &str) -> Vec<u8> {
    let manifest = folder.join("plugin.yaml");
    let text = format!(
        "name: prober\nversion: {version}\nworlds: [filter]\n\
         grants: {{request: {{read: [{fields}], set: [x-saw]}}, response: {{read: [], set: []}}}}\n"
    );
    std::fs::write(&manifest, text).expect("written");
    let to = folder.join("built.wasm").display().to_string();
    let from = guests::folder().join("prober.wasm").display().to_string();
    let manifest = manifest.display().to_string();
    let (code, out) = witgate(&["plugin", "embed", &from, &manifest, "--output", &to]).await;
    assert_eq!(code, Some(0), "{out}");
    std::fs::read(to).expect("embedded")
}

const YAML: &str = "
sites: [{hosts: [app.localhost], filters: [prober], upstream: \"builtin:echo\"}]
plugins:
  prober:
    component: @dir@/prober.wasm
    grants: {request: {read: [\"*\", cookie]}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_asks_for_more_waits_until_it_is_accepted() {
    let mut gateway = Gateway::new();
    let folder = gateway.folder().to_owned();
    gateway.file("prober.wasm", prober(&folder, "1.0.0", "accept").await);
    gateway.start(YAML).await;
    let client = gateway.client().await;
    let asked = || with(get("app.localhost", "/header/cookie"), "cookie", "a=s3cret");
    let seen = client.send(asked()).await.json();
    assert!(field(&seen, "x-saw").is_empty(), "it asks for accept alone: {seen}");
    let lock = std::fs::read_to_string(folder.join("gateway.lock")).expect("a lock");
    assert!(lock.contains("version: \"1.0.0\"") && lock.contains("read request accept"), "{lock}");

    // A version that asks for no more is taken, and written down.
    let mark = gateway.mark();
    gateway.replace("prober.wasm", prober(&folder, "1.1.0", "accept").await);
    gateway.logged(mark, &["generation", "serving"]).await;
    let lock = std::fs::read_to_string(folder.join("gateway.lock")).expect("a lock");
    assert!(lock.contains("version: \"1.1.0\""), "{lock}");

    // One that asks for more is not, whoever asks: the watcher, a reload, a check.
    let mark = gateway.mark();
    gateway.replace("prober.wasm", prober(&folder, "2.0.0", "accept, cookie").await);
    let line = gateway.logged(mark, &["asks for more than gateway.lock"]).await;
    assert!(line.contains("1.1.0") && line.contains("2.0.0"), "{line}");
    assert!(line.contains("+ read request cookie"), "{line}");
    assert!(line.contains("witgate plugin accept prober"), "{line}");
    let seen = client.send(asked()).await.json();
    assert!(field(&seen, "x-saw").is_empty(), "the old one serves on: {seen}");
    let config = gateway.config().display().to_string();
    let (code, out) = witgate(&["check", "--plugins", "--config", &config]).await;
    assert!(code == Some(1) && out.contains("+ read request cookie"), "{out}");
    let (code, out) = witgate(&["plugin", "accept", "--config", &config]).await;
    assert!(code == Some(1) && out.contains("+ read request cookie"), "{out}");
    let (code, out) = witgate(&["plugin", "accept", "nobody", "--config", &config]).await;
    assert!(code == Some(1) && out.contains("nobody"), "{out}");

    // Accepting it tells the running gateway.
    let (code, out) = witgate(&["plugin", "accept", "prober", "--config", &config]).await;
    assert_eq!(code, Some(0), "{out}");
    assert_eq!(field(&client.send(asked()).await.json(), "x-saw"), ["a=s3cret"]);
    let (code, out) = witgate(&["check", "--plugins", "--config", &config]).await;
    assert_eq!(code, Some(0), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_signed_components_are_loaded_where_keys_are_configured() {
    let mut gateway = Gateway::new();
    let key = gateway.file("key.pem", KEY).display().to_string();
    let folder = gateway.folder().to_owned();
    let component = gateway.file("prober.wasm", prober(&folder, "1.0.0", "accept").await);
    let component = component.display().to_string();
    let (code, out) = witgate(&["plugin", "sign", &component, "--key", &key]).await;
    assert_eq!(code, Some(0), "{out}");
    let line = out.lines().find(|line| line.starts_with("plugin-keys:")).expect("the key");
    gateway.start(&format!("{YAML}{line}\n")).await;
    let client = gateway.client().await;
    assert_eq!(client.get("app.localhost", "/").await.status, 200);

    let mark = gateway.mark();
    gateway.replace("prober.wasm", prober(&folder, "1.1.0", "accept").await);
    gateway.logged(mark, &["is not signed with a key of `plugin-keys`"]).await;
    assert_eq!(client.get("app.localhost", "/").await.status, 200);
}

const KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
";
