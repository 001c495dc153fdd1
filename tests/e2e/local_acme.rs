//! Promise: the local CA is an ACME server for other tools on this machine. certbot and another gateway
//! are its clients, from the first account to the revocation, and it outlives a restart.

use crate::harness::client::Client;
use crate::harness::updates::{TSIG_SECRET, UpdateServer};
use crate::harness::{Gateway, LATER, output, port, tool, until};

/// The gateway whose CA is asked.
const CA: &str = "
certificates:
@more@
  local-acme: {listen: \"127.0.0.1:@acme@\", http-port: @to-http@, tls-port: @to-https@}
sites:
  - hosts: [localhost]
    routes: [{respond: {status: 200, body: ok}}]
";

async fn certs(gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
    let config = gateway.config().display().to_string();
    let all = [&["certs"], arguments, &["--config", &config]].concat();
    let output = output(env!("CARGO_BIN_EXE_witgate"), &all, LATER).await;
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).expect("UTF-8"))
}

/// The root without its key, as `witgate trust --print` gives it to whoever is to trust it.
async fn root(gateway: &Gateway) -> String {
    let config = gateway.config().display().to_string();
    let words = ["trust", "--print", "--config", &config];
    let output = output(env!("CARGO_BIN_EXE_witgate"), &words, LATER).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("PEM")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certbot_gets_renews_and_revokes() {
    let mut ca = Gateway::new();
    let (acme, http) = (port(), port().to_string());
    ca.set("more", "").set("acme", acme).set("to-http", &http).set("to-https", 9);
    ca.start(CA).await;
    let trusted = ca.file("root.pem", root(&ca).await).display().to_string();
    let trusted = format!("REQUESTS_CA_BUNDLE={trusted}");
    let etc = ca.folder().join("letsencrypt");
    let etc_text = etc.display().to_string();
    let server = format!("https://localhost:{acme}/directory");
    let certbot = tool("venv/bin/certbot").display().to_string();
    let run = async |words: &[&str]| {
        let folders = ["--config-dir", "--work-dir", "--logs-dir"].map(|word| [word, &etc_text]);
        let how = ["--non-interactive", "--server", &server];
        let all = [&[&*trusted, &certbot], words, &how, folders.as_flattened()].concat();
        let done = output("/usr/bin/env", &all, LATER).await;
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        (done.status.success(), said)
    };
    let first = [
        "certonly",
        "--standalone",
        "--http-01-port",
        &http,
        "--agree-tos",
        "--register-unsafely-without-email",
        "--domain",
        "tool.localhost",
        "--domain",
        "www.tool.localhost",
    ];
    let (is_done, said) = run(&first).await;
    assert!(is_done, "{said}");
    let live = etc.join("live/tool.localhost");
    let leaf = || {
        let text = std::fs::read(live.join("cert.pem")).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&text).unwrap();
        let leaf = pem.parse_x509().unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len();
        (leaf.raw_serial_as_string(), names)
    };
    let (serial, names) = leaf();
    assert_eq!(names, 2);
    // A restart forgets nothing.
    ca.restart().await;
    let (is_done, said) =
        run(&["renew", "--force-renewal", "--no-random-sleep-on-renew", "--http-01-port", &http])
            .await;
    assert!(is_done, "{said}");
    let (next, _) = leaf();
    assert_ne!(next, serial);
    let chain = live.join("cert.pem").display().to_string();
    let revoke = ["revoke", "--cert-path", &chain, "--reason", "keycompromise"];
    let (is_done, said) = run(&[&revoke[..], &["--no-delete-after-revoke"]].concat()).await;
    assert!(is_done, "{said}");
    ca.logged(0, &["revoked by its owner", &next.replace(':', "")]).await;
    // What no local CA should sign, and what nobody proves.
    for (name, words) in [("tool.example.com", "rejectedIdentifier"), ("other.test", "dns")] {
        let (is_done, said) = run(&[&first[..7], &[name]].concat()).await;
        let logs = std::fs::read_to_string(etc.join("letsencrypt.log")).unwrap();
        assert!(!is_done && logs.contains(&format!("error:{words}")), "{name}: {said}");
    }
}

const CLIENT: &str = "
certificates:
  challenge: @challenge@
  issuers: [{directory: \"https://localhost:@acme@/directory\", roots: @dir@/root.pem, name: nearby}]
  resolvers: [\"127.0.0.1:@dns@\"]
  propagation: {port: @dns@}
  updates:
    own: {server: \"127.0.0.1:@dns@\", key: acme, secret: {env: ACME_TSIG_KEY}}
sites:
  - hosts: [@hosts@]
    routes: [{respond: {status: 200, body: app}}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_gateway_lives_on_it_by_every_challenge() {
    let dns = UpdateServer::bind().await;
    let (mut ca, mut gateway) = (Gateway::new(), Gateway::new());
    let acme = port();
    let more = format!("  local-domains: [example.com]\n  resolvers: [\"127.0.0.1:{}\"]", dns.dns);
    ca.set("more", more).set("acme", acme);
    ca.set("to-http", gateway.http).set("to-https", gateway.https).start(CA).await;
    let root = root(&ca).await;
    gateway.file("root.pem", &root);
    gateway.set("acme", acme).set("dns", dns.dns).env("ACME_TSIG_KEY", TSIG_SECRET);
    gateway.set("challenge", "http-01").set("hosts", "a.example.com").start(CLIENT).await;
    // The root is limited by name constraints, which the client knows.
    let client = Client::new(gateway.https).trusting(&root);
    let first = client.certified("a.example.com", LATER).await;
    gateway.set("challenge", "tls-alpn-01").set("hosts", "b.example.com").configure(CLIENT);
    client.certified("b.example.com", LATER).await;
    gateway.set("challenge", "{dns-01: own}");
    gateway.set("hosts", "c.example.com, \"*.c.example.com\"").configure(CLIENT);
    let both = client.certified("any.c.example.com", LATER).await;
    assert_eq!(both.names, ["*.c.example.com", "c.example.com"]);

    // Renewal after a restart of the CA, which knows the account, the orders and when to renew.
    ca.restart().await;
    gateway.set("challenge", "http-01").set("hosts", "a.example.com").configure(CLIENT);
    assert_eq!(client.certified("a.example.com", LATER).await.serial, first.serial);
    until("renewal information", LATER, async || {
        let (_, said) = certs(&gateway, &["why", "a.example.com"]).await;
        said.contains("as its CA wants it between").then_some(())
    })
    .await;
    let (is_done, said) = certs(&gateway, &["renew", "a.example.com"]).await;
    assert!(is_done, "{said}");
    let changed = async |from: &str| {
        until("another certificate", LATER, async || {
            let leaf = client.clone().fresh().leaf("a.example.com").await.ok()?;
            (leaf.serial != from).then_some(leaf.serial)
        })
        .await
    };
    let second = changed(&first.serial).await;
    let (is_done, said) = certs(&gateway, &["rollover", "nearby"]).await;
    assert!(is_done && said.contains("a new account key at nearby"), "{said}");
    let revoke = ["revoke", "a.example.com", "--reason", "key-compromise"];
    let (is_done, said) = certs(&gateway, &revoke).await;
    assert!(is_done, "{said}");
    changed(&second).await;
    assert_eq!(gateway.log().matches("account made").count(), 1, "{}", gateway.log());
    ca.logged(0, &["revoked by its owner"]).await;

    // Outside the limits nothing is signed, and the log says what a person can do.
    gateway.set("hosts", "a.example.net").configure(CLIENT);
    gateway
        .logged_within(0, &["a.example.net", "rejectedIdentifier", "local-domains"], LATER)
        .await;
}
