//! Promise: who comes from certbot, Caddy, Traefik or lego brings accounts, keys and certificates
//! along: nothing is ordered anew, and the accounts go on. And whoever leaves gets PEM files.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::client::Client;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::{Gateway, LATER, output, tool};

const YAML: &str = "
certificates:
  contact: ops@example.com
  issuers: [{directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default, name: pebble}]
  challenge: http-01
sites:
  - hosts: [@hosts@]
    routes: [{respond: {status: 200, body: app}}]
";

async fn witgate(gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
    let config = gateway.config().display().to_string();
    let all = [&["certs"], arguments, &["--config", &config]].concat();
    let output = output(env!("CARGO_BIN_EXE_witgate"), &all, LATER).await;
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).expect("UTF-8"))
}

/// The file of the only account in the store.
fn account(gateway: &Gateway, name: &str) -> Vec<u8> {
    let folder = gateway.store().join("acme/issuers");
    let folder = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    std::fs::read(folder.join(name)).unwrap()
}

fn json_of(content: &[u8]) -> serde_json::Value {
    serde_json::from_slice(content).expect("JSON")
}

fn put(path: PathBuf, content: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Starts a gateway on what it imported: the certificate is the one from before, and a further name
/// is ordered by the account from before.
async fn goes_on(gateway: &mut Gateway, pebble: &Pebble, serial: &str) {
    let issued = pebble.issued();
    gateway.start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let leaf = client.certified("app.example.com", LATER).await;
    assert_eq!(leaf.serial, serial);
    assert_eq!(pebble.issued(), issued, "something was ordered");
    gateway.set("hosts", "app.example.com, further.example.com").configure(YAML);
    client.certified("further.example.com", LATER).await;
    assert!(!gateway.log().contains("account made"), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certbot_hands_over_its_account_of_another_kind_and_its_certificates() {
    let mut gateway = Gateway::new();
    let pebble = Pebble::start(&Options::new(gateway.http, gateway.https)).await;
    let etc = gateway.folder().join("letsencrypt");
    let (etc_text, port) = (etc.display().to_string(), gateway.http.to_string());
    let directory = pebble.directory();
    let arguments = [
        ["certonly", "--standalone"],
        ["--http-01-port", &port],
        ["--server", &directory],
        ["--no-verify-ssl", "--agree-tos"],
        ["--email", "ops@example.com"],
        ["--non-interactive", "--no-eff-email"],
        ["--domain", "app.example.com"],
        ["--domain", "www.example.com"],
        ["--config-dir", &etc_text],
        ["--work-dir", &etc_text],
        ["--logs-dir", &etc_text],
    ];
    let certbot = tool("venv/bin/certbot").display().to_string();
    let made = output(&certbot, arguments.as_flattened(), LATER).await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    gateway.file("pebble.pem", &pebble.api_root);
    gateway.set("directory", &directory).set("hosts", "app.example.com, www.example.com");
    gateway.configure(YAML);
    let (is_done, said) = witgate(&gateway, &["import", &etc_text, "--dry-run"]).await;
    assert!(is_done && said.contains("nothing was changed"), "{said}");
    assert!(!gateway.store().exists());
    let (is_done, said) = witgate(&gateway, &["import", &etc_text]).await;
    assert!(is_done, "{said}");
    for words in [
        "certbot",
        "(RSA), which gets a P-256 key",
        "app.example.com, until",
        "www.example.com, until",
        "1 accounts and 2 certificates taken, 0 left",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
    let before = json_of(&account(&gateway, "account.json"));
    let chain = std::fs::read_to_string(etc.join("live/app.example.com/fullchain.pem")).unwrap();
    let serial = serial(&chain);
    goes_on(&mut gateway, &pebble, &serial).await;
    gateway.logged(0, &["account key changed", "RSA", "P-256"]).await;
    assert_eq!(json_of(&account(&gateway, "account.json"))["id"], before["id"]);
    // Once is enough.
    gateway.set("hosts", "app.example.com, third.example.com").configure(YAML);
    gateway.restart().await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    client.certified("third.example.com", LATER).await;
    assert!(!gateway.log().contains("account key changed"), "{}", gateway.log());
    let (is_done, said) = witgate(&gateway, &["import", &etc_text]).await;
    assert!(!is_done && said.contains("in use by another gateway"), "{said}");
    gateway.kill9();
    let (is_done, said) = witgate(&gateway, &["import", &etc_text]).await;
    assert!(is_done && said.contains("0 accounts and 0 certificates taken, 3 left"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caddy_traefik_and_lego_hand_over_and_pem_files_come_out() {
    let mut gateway = Gateway::new();
    let pebble = Pebble::start(&Options::new(gateway.http, gateway.https)).await;
    gateway.file("pebble.pem", &pebble.api_root);
    gateway.set("directory", pebble.directory()).set("hosts", "app.example.com");
    gateway.start(YAML).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let leaf = client.certified("app.example.com", LATER).await;

    let out = gateway.folder().join("out");
    let out_text = out.display().to_string();
    let (is_done, said) = witgate(&gateway, &["export", &out_text]).await;
    assert!(is_done && said.contains("app.example.com"), "{said}");
    let read =
        |name: &str| std::fs::read_to_string(out.join("app.example.com").join(name)).expect(name);
    let (chain, key) = (read("fullchain.pem"), read("privkey.pem"));
    assert_eq!(serial(&chain), leaf.serial);
    assert_eq!(chain.trim(), format!("{}{}", read("cert.pem"), read("chain.pem")).trim());
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----") && !key.contains("CERTIFICATE"));
    let (is_done, said) = witgate(&gateway, &["export", &out_text, "none.example.com"]).await;
    assert!(!is_done && said.contains("no certificate for none.example.com"), "{said}");

    let mine = Mine {
        url: json_of(&account(&gateway, "account.json"))["id"].as_str().unwrap().to_owned(),
        account_key: account(&gateway, "account.key"),
        chain,
        key,
        directory: pebble.directory(),
    };
    gateway.kill9();
    let folder = gateway.folder().join("others");
    type Layout = fn(&Mine, &Path) -> PathBuf;
    let layouts: [(&str, Layout); 4] =
        [("Caddy", caddy), ("Traefik", traefik), ("lego", lego_4), ("lego", lego_5)];
    for (number, (program, write)) in layouts.into_iter().enumerate() {
        let from = write(&mine, &folder.join(number.to_string())).display().to_string();
        let mut next = Gateway::new();
        next.file("pebble.pem", &pebble.api_root);
        next.set("directory", pebble.directory()).set("hosts", "app.example.com");
        // Pebble knocks at one port alone.
        next.http = gateway.http;
        next.set("http", gateway.http);
        next.configure(YAML);
        let (is_done, said) = witgate(&next, &["import", &from]).await;
        assert!(is_done && said.contains(program), "{said}");
        assert!(said.contains("1 accounts and 1 certificates taken"), "{said}");
        goes_on(&mut next, &pebble, &leaf.serial).await;
        let id = json_of(&account(&next, "account.json"))["id"].clone();
        assert_eq!(id, mine.url, "{program}");
    }
}

/// What other programs would have.
struct Mine {
    url: String,
    /// PKCS#8.
    account_key: Vec<u8>,
    chain: String,
    key: String,
    directory: String,
}

impl Mine {
    /// The account's key as Go writes it: SEC 1, which is the content of PKCS#8.
    fn sec1(&self) -> String {
        let begin = self.account_key.windows(4).position(|four| four == [0x04, 0x6d, 0x30, 0x6b]);
        let der = &self.account_key[begin.expect("a P-256 key") + 2..];
        pem("EC PRIVATE KEY", &der[..der[1] as usize + 2])
    }

    fn server(&self, with: &str) -> String {
        let host = self.directory.trim_start_matches("https://");
        host.split('/').next().unwrap().replace(':', with)
    }
}

fn caddy(mine: &Mine, folder: &Path) -> PathBuf {
    let ca = format!("{}-dir", mine.server("-"));
    let user = folder.join("acme").join(&ca).join("users/ops@example.com");
    let registration = json!({
        "status": "valid", "contact": ["mailto:ops@example.com"], "location": mine.url,
        "termsOfServiceAgreed": true,
    });
    put(user.join("ops.json"), registration.to_string());
    put(user.join("ops.key"), mine.sec1());
    let place = folder.join("certificates").join(&ca).join("app.example.com");
    put(place.join("app.example.com.crt"), &mine.chain);
    put(place.join("app.example.com.key"), &mine.key);
    let resource = json!({"sans": ["app.example.com"], "issuer_data": {"ca": mine.directory}});
    put(place.join("app.example.com.json"), resource.to_string());
    let own = folder.join("certificates/local/box.internal");
    put(own.join("box.internal.crt"), &mine.chain);
    folder.to_owned()
}

fn traefik(mine: &Mine, folder: &Path) -> PathBuf {
    let pair = json!({
        "domain": {"main": "app.example.com"}, "Store": "default",
        "certificate": STANDARD.encode(&mine.chain), "key": STANDARD.encode(&mine.key),
    });
    let account = json!({
        "Email": "ops@example.com", "KeyType": "4096",
        "Registration": {"body": {"status": "valid"}, "uri": mine.url},
        "PrivateKey": STANDARD.encode(&mine.account_key),
    });
    let content = json!({
        "myresolver": {"Account": account, "Certificates": [pair]},
        "unused": {"Account": null, "Certificates": null},
    });
    let file = folder.join("acme.json");
    put(file.clone(), content.to_string());
    file
}

fn lego_4(mine: &Mine, folder: &Path) -> PathBuf {
    let home = folder.join("accounts").join(mine.server("_")).join("ops@example.com");
    let registration = json!({"body": {"status": "valid"}, "uri": mine.url});
    let content = json!({"email": "ops@example.com", "registration": registration});
    put(home.join("account.json"), content.to_string());
    put(home.join("keys/ops@example.com.key"), mine.sec1());
    lego_certificates(mine, folder)
}

fn lego_5(mine: &Mine, folder: &Path) -> PathBuf {
    let home = folder.join("accounts").join(mine.server("_")).join("ops@example.com/EC256");
    let registration = json!({"status": "valid", "accountURL": mine.url});
    let content =
        json!({"id": "ops@example.com", "keyType": "EC256", "registration": registration});
    put(home.join("account.json"), content.to_string());
    put(home.join("ops@example.com.key"), mine.sec1());
    lego_certificates(mine, folder)
}

fn lego_certificates(mine: &Mine, folder: &Path) -> PathBuf {
    let place = folder.join("certificates");
    put(place.join("app.example.com.crt"), &mine.chain);
    put(place.join("app.example.com.issuer.crt"), &mine.chain);
    put(place.join("app.example.com.key"), &mine.key);
    put(place.join("app.example.com.json"), json!({"domain": "app.example.com"}).to_string());
    folder.to_owned()
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The serial number of the first certificate.
fn serial(chain: &str) -> String {
    let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).expect("PEM");
    crate::harness::pki::Leaf::read(&pem.contents).serial
}
