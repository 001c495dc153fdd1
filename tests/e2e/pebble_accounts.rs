//! Promise: any CA will do: one that wants an external account binding, one that forgets accounts, one
//! that signs addresses by a profile, one of several.

use crate::harness::client::Client;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::{Gateway, LATER, SOON};

const YAML: &str = "
certificates:
  contact: ops@example.com
  issuers:
    - directory: \"@directory@\"
      roots: @dir@/pebble.pem
      profile: @profile@
@eab@
  challenge: http-01
sites:
  - hosts: [@hosts@]
    routes: [{respond: {status: 200, body: app}}]
";

const KID: &str = "kid-1";
const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

async fn prepared(options: &Options, gateway: &mut Gateway) -> Pebble {
    let pebble = Pebble::start(options).await;
    gateway.file("pebble.pem", &pebble.api_root);
    let directory = pebble.directory();
    gateway.set("directory", directory).set("profile", "default").set("eab", "");
    gateway.set("hosts", "app.example.com");
    pebble
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_external_account_is_bound_and_survives_its_binding() {
    let mut gateway = Gateway::new();
    let mut options = Options::new(gateway.http, gateway.https);
    options.eab = Some((KID.to_owned(), KEY.to_owned()));
    options.nonces_refused = 30;
    let pebble = prepared(&options, &mut gateway).await;
    gateway.start(YAML).await;
    let line = gateway.logged_within(0, &["app.example.com", "no certificate"], LATER).await;
    assert!(line.contains("eab"), "it says what is missing: {line}");

    // What the configuration held up goes on with the next one, at once.
    gateway.file("eab.key", KEY);
    gateway.set("eab", format!("      eab: {{kid: {KID}, key: {{file: @dir@/eab.key}}}}"));
    gateway.set("dir", gateway.folder().display().to_string());
    gateway.configure(YAML);
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    client.certified("app.example.com", SOON).await;
    let log = gateway.log();
    assert!(!log.contains(KEY), "the key is in the log");
    // The account goes on without its binding, since the key was stored.
    gateway.set("hosts", "app.example.com, two.example.com").set("eab", "");
    gateway.configure(YAML);
    gateway.restart().await;
    client.certified("two.example.com", LATER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_the_ca_lost_is_registered_again() {
    let mut gateway = Gateway::new();
    let mut options = Options::new(gateway.http, gateway.https);
    let pebble = prepared(&options, &mut gateway).await;
    gateway.start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let first = client.certified("app.example.com", LATER).await;
    let key = |gateway: &Gateway| {
        let folder = gateway.store().join("acme/issuers");
        let folder = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
        std::fs::read(folder.join("account.key")).unwrap()
    };
    let before = key(&gateway);
    // The new one knows no accounts and has other roots.
    options.port = Some(pebble.port);
    drop(pebble);
    let pebble = prepared(&options, &mut gateway).await;
    gateway.set("hosts", "app.example.com, two.example.com").configure(YAML);
    gateway.restart().await;
    let client_of_both = Client::new(gateway.https).trusting(&pebble.root().await);
    client_of_both.certified("two.example.com", LATER).await;
    assert_eq!(client.certified("app.example.com", LATER).await, first);
    assert!(key(&gateway) == before, "the account key is another one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_gets_a_short_lived_certificate_by_its_profile() {
    let mut gateway = Gateway::new();
    let mut options = Options::new(gateway.http, gateway.https);
    options.profiles = vec![("shortlived".to_owned(), 160 * 3600)];
    let pebble = prepared(&options, &mut gateway).await;
    gateway.set("profile", "shortlived").set("hosts", "127.0.0.1, app.example.com");
    gateway.start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let leaf = client.certified("app.example.com", LATER).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let left = leaf.not_after - now.as_secs() as i64;
    assert!((150 * 3600..=160 * 3600).contains(&left), "valid for {left} s");
    let line = gateway.logged_within(0, &["certificate issued", "127.0.0.1\""], LATER).await;
    assert!(line.contains("127.0.0.1"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_issuer_signs_while_the_first_is_away() {
    let yaml = YAML.replace(
        "    - directory: \"@directory@\"",
        "    - {directory: \"@away@\", roots: @dir@/pebble.pem, name: first}\n    \
         - directory: \"@directory@\"\n      name: second",
    );
    let mut gateway = Gateway::new();
    let options = Options::new(gateway.http, gateway.https);
    let pebble = prepared(&options, &mut gateway).await;
    gateway.set("away", format!("https://127.0.0.1:{}/dir", crate::harness::port()));
    gateway.start(&yaml).await;
    // It is the CA's own failure, so the second has its turn without a pause.
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let leaf = client.certified("app.example.com", SOON).await;
    gateway.logged(0, &["no certificate", "first", "next_try"]).await;
    assert_eq!(leaf.names, ["app.example.com"]);
}
