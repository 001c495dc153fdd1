//! Promise: a solver is found, its stanza written and checked, its variables taken over from other
//! programs, and it is tried at its provider before an order needs it.

use std::path::Path;
use std::process::Output;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::pki::Ca;
use crate::harness::powerdns::PowerDns;
use crate::harness::updates::{TSIG_SECRET, UpdateServer};
use crate::harness::{Gateway, LATER, output, project};

const WITGATE: &str = env!("CARGO_BIN_EXE_witgate");

async fn witgate(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = output(WITGATE, arguments, LATER).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

fn catalogue() -> String {
    project().join("target/plugins").display().to_string()
}

#[tokio::test]
async fn every_stanza_of_the_catalogue_is_a_good_one() {
    let catalogue = catalogue();
    let (code, out, err) = witgate(&["solver", "list", "--catalogue", &catalogue]).await;
    assert_eq!(code, Some(0), "{err}");
    let names: Vec<&str> = out.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.len() >= 24 && names.contains(&"route53"), "{names:?}");
    assert!(!out.contains("[no guard]"), "{out}");
    let (_, out, _) = witgate(&["solver", "search", "amazon", "--catalogue", &catalogue]).await;
    assert!(out.starts_with("route53 ") && out.lines().count() == 1, "{out}");

    let mut plugins = String::from("plugins:\n");
    for name in names {
        let (code, out, err) = witgate(&["solver", "add", name, "--catalogue", &catalogue]).await;
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("#   change ") && !out.contains("change anything"), "{name}: {out}");
        let stanza = out.split("plugins:\n").nth(1).expect("a stanza");
        let (stanza, challenge) = stanza.split_once("certificates:").expect("a challenge");
        assert_eq!(challenge, format!("\n  challenge: {{dns-01: {name}}}\n"));
        plugins += &stanza.replace("{env: ", "\"not-").replace("}   #", "\"   #");
    }
    let gateway = Gateway::new();
    gateway.configure(&format!(
        "{plugins}sites: [{{hosts: [app.localhost], routes: [{{respond: {{status: 200, body: ok}}}}]}}]\n"
    ));
    let config = gateway.config().display().to_string();
    // It compiles all of them.
    let arguments = ["check", "--plugins", "--config", &config];
    let checked = output(WITGATE, &arguments, std::time::Duration::from_secs(400)).await;
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let (code, _, err) = witgate(&["solver", "add", "rout53", "--catalogue", &catalogue]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("no solver \"rout53\"") && err.contains("route53"), "{err}");
}

#[tokio::test]
async fn variables_of_other_programs_become_stanzas() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("env");
    let text = "CF_DNS_API_TOKEN=cf-s3cret\nexport AZURE_CLIENT_ID_FILE=/run/id\n\
                AZURE_CLIENT_SECRET=\"az-s3cret\"\nAZURE_TENANT_ID=t-1\nAZURE_SUBSCRIPTION_ID=s-1\n\
                AZURE_RESOURCE_GROUP=dns\nOVH_APPLICATION_KEY=alone\n\
                DNSUPDATE_NAMESERVER=192.0.2.53\n";
    std::fs::write(&file, text).expect("the file");
    let file = file.display().to_string();
    let arguments = ["solver", "import-env", &file, "--catalogue", &catalogue()];
    let (code, out, err) = witgate(&arguments).await;
    assert_eq!(code, Some(0), "{err}");
    for part in [
        "token: {env: CF_DNS_API_TOKEN}",
        "client-id: {file: \"/run/id\"}",
        "client-secret: {env: AZURE_CLIENT_SECRET}",
        "tenant: \"t-1\"",
        "resource-group: \"dns\"",
        "server: \"192.0.2.53\"",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    assert!(!out.contains("s3cret"), "{out}");
    assert!(!out.contains("dns-ovh"), "not all that it needs: {out}");
    assert!(!Path::new("/nowhere/env").exists());
    let (code, _, _) = witgate(&["solver", "import-env", "/nowhere/env"]).await;
    assert_eq!(code, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_solver_is_tried_at_its_provider() {
    let dns = PowerDns::start().await;
    dns.zone("example.com").await;
    dns.add_txt("example.com", "_acme-challenge.example.com", "kept").await;
    let (pdns, bind) = (dns.dns, UpdateServer::bind().await);
    let mut gateway = Gateway::new();
    for (name, server) in [("powerdns", pdns), ("own", bind.dns)] {
        gateway.set("dns", server).set("api", dns.api).set("key", &dns.key);
        gateway.set("tsig", TSIG_SECRET);
        gateway.configure(
            "certificates:
  resolvers: [\"127.0.0.1:@dns@\"]
  propagation: {port: @dns@, timeout: 10s}
  updates:
    own: {server: \"127.0.0.1:@dns@\", key: acme, secret: \"@tsig@\"}
plugins:
  powerdns:
    component: \"@plugins@/dns-powerdns.wasm\"
    config: {api: \"http://127.0.0.1:@api@\"}
    secrets: {key: \"@key@\"}
    grants: {http: [\"http://127.0.0.1:@api@/api/v1/*\"]}
sites: [{hosts: [app.localhost], routes: [{respond: {status: 200, body: ok}}]}]
",
        );
        let config = gateway.config().display().to_string();
        let run = async |command: &str, zone: &str| {
            witgate(&["solver", command, name, "--zone", zone, "--config", &config]).await
        };
        let (code, out, err) = run("test", "example.com").await;
        assert_eq!(code, Some(0), "{name}: {out}{err}");
        assert!(out.contains("it is served") && out.contains("it is removed"), "{out}");
        let (code, out, err) = run("conformance", "example.com").await;
        assert_eq!(code, Some(0), "{name}: {out}{err}");
        assert!(out.contains("passes 10 of 10"), "{name}: {out}");
        let (code, _, err) = run("test", "elsewhere.example").await;
        assert_eq!(code, Some(1));
        assert!(err.contains("zone-not-found"), "{err}");
    }
    // Resolvers that are asked in private: of the real server's certificate and protocols.
    let (dot, doh) = bind.private;
    let roots = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&roots, &bind.root).expect("the root");
    gateway.set("dns", bind.dns).set("roots", roots.path().display());
    for (resolver, fault) in [
        (format!("tls://127.0.0.1:{dot}#dns.example"), None),
        (format!("https://127.0.0.1:{doh}/dns-query#dns.example"), None),
        (format!("tls://127.0.0.1:{dot}#other.example"), Some("cannot be asked in private")),
        (format!("https://127.0.0.1:{doh}/elsewhere#dns.example"), Some("HTTP status 404")),
    ] {
        gateway.set("resolver", &resolver);
        gateway.configure(
            "certificates:
  resolvers: [\"@resolver@\"]
  resolver-roots: \"@roots@\"
  propagation: {port: @dns@, timeout: 3s}
  updates:
    own: {server: \"127.0.0.1:@dns@\", key: acme, secret: \"@tsig@\"}
sites: [{hosts: [app.localhost], routes: [{respond: {status: 200, body: ok}}]}]
",
        );
        let config = gateway.config().display().to_string();
        let arguments = ["solver", "test", "own", "--zone", "example.com", "--config", &config];
        let (code, out, err) = witgate(&arguments).await;
        match fault {
            None => assert_eq!(code, Some(0), "{resolver}: {out}{err}"),
            Some(fault) => assert!(code == Some(1) && err.contains(fault), "{resolver}: {err}"),
        }
    }
    let kept = [("_acme-challenge.example.com.".to_owned(), "\"kept\"".to_owned())];
    assert_eq!(dns.txt("example.com").await, kept);
    assert_eq!(bind.txt("_acme-challenge.example.com").await, ["kept"]);
}

/// The mocks of the first-party solvers: their own tests, which play the provider when they are told to.
async fn mocks() -> Vec<(String, String)> {
    let manifest = project().join("plugins/Cargo.toml").display().to_string();
    let arguments = [
        "test",
        "--locked",
        "--manifest-path",
        &manifest,
        "--no-run",
        "--message-format=json",
        "--lib",
    ];
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let built = output(&cargo, &arguments, std::time::Duration::from_secs(1200)).await;
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let text = String::from_utf8(built.stdout).expect("UTF-8");
    let messages =
        text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mock = |message: serde_json::Value| {
        let name = message["target"]["name"].as_str()?.replace('_', "-");
        let program = message["executable"].as_str()?;
        let is_mock = name.starts_with("dns-");
        let command =
            format!("exec {program} --exact conformance::it_conforms --nocapture --test-threads=1");
        is_mock.then_some((name, command))
    };
    messages.filter_map(mock).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_solver_passes_the_whole_list_as_a_component() {
    let mocks = mocks().await;
    assert!(mocks.len() >= 25, "{mocks:?}");
    let one = async |(name, mock): (String, String)| {
        let component = format!("{}/{name}.wasm", catalogue());
        let size = std::fs::metadata(&component).expect("a component").len();
        assert!(size < 300 << 10, "{name} has {size} bytes");
        let arguments = ["solver", "conformance", &component, "--mock", &mock];
        let (code, out, err) = witgate(&arguments).await;
        let unmet: Vec<&str> = out.lines().filter(|line| !line.ends_with(": passes")).collect();
        match code == Some(0) && unmet == ["passes 18 of 18"] {
            true => None,
            false => Some(format!("{name}: {unmet:?} {err}")),
        }
    };
    let (even, odd): (Vec<_>, Vec<_>) =
        mocks.into_iter().enumerate().partition(|(n, _)| n % 2 == 0);
    let run = async |some: Vec<(usize, (String, String))>| {
        let mut failures = Vec::new();
        for (_, mock) in some {
            failures.extend(one(mock).await);
        }
        failures
    };
    let (even, odd) = tokio::join!(run(even), run(odd));
    let failures = [even, odd].concat();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_does_not_conform_is_told_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let component = format!("{}/dns-digitalocean.wasm", catalogue());
    // Without a mock: what needs none, and what to bring.
    let (code, out, err) = witgate(&["solver", "conformance", &component]).await;
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("16 a provider that does not answer meets the deadline: passes"), "{out}");
    assert!(
        out.contains(" 1 two values at one name: needs a mock of the provider: `--mock"),
        "{out}"
    );
    assert!(out.contains("passes 3 of 18") && err.contains("see point 1, 2, 3"), "{out}{err}");
    // A mock in any language, of a provider that the plugin does not know: each point is named.
    let mock = "
import json, sys
for line in sys.stdin:
    ask = json.loads(line)
    reply = {'status': 404, 'body': '{}'} if ask['do'] == 'request' else {}
    if ask['do'] == 'values': reply = {'values': []}
    print(json.dumps(reply), flush=True)
";
    std::fs::write(file("mock.py"), mock).expect("a mock");
    let mock = format!("exec python3 {}", file("mock.py"));
    let (code, out, _) = witgate(&["solver", "conformance", &component, "--mock", &mock]).await;
    assert_eq!(code, Some(1));
    assert!(out.contains(" 1 two values at one name: it could not find the zone"), "{out}");
    // What a mock said is played again; another version of the plugin that asks for more is seen.
    let mocks = mocks().await;
    let (_, mock) = mocks.iter().find(|it| it.0 == "dns-digitalocean").expect("a mock");
    let tape = file("tape.jsonl");
    let record = ["solver", "conformance", &component, "--mock", mock, "--record", &tape];
    let (code, out, err) = witgate(&record).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let replay = ["solver", "conformance", &component, "--recording", &tape];
    let (code, out, err) = witgate(&replay).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.ends_with("passes 18 of 18\n"), "{out}");
    let text = std::fs::read_to_string(&tape).expect("the recording");
    assert!(!text.contains("s3cret"), "no secret is recorded");
    let other = format!("{}/dns-linode.wasm", catalogue());
    let (code, out, _) = witgate(&["solver", "conformance", &other, "--recording", &tape]).await;
    assert_eq!(code, Some(1));
    assert!(out.contains("the recording has no such message"), "{out}");
    let (code, _, err) = witgate(&["solver", "conformance", "nothing"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("--zone"), "{err}");
}

#[tokio::test]
async fn variables_of_every_solver_are_known() {
    let catalogue = catalogue();
    let folder = tempfile::tempdir().expect("a folder");
    // As lego v5 and with it Traefik, and the Caddy modules, name what a solver cannot do without.
    for (name, variables) in VARIABLES {
        let file = folder.path().join(name);
        let lines: Vec<String> = variables
            .split(' ')
            .map(|variable| format!("{variable}=v4lue-of-{variable}"))
            .collect();
        std::fs::write(&file, lines.join("\n")).expect("the file");
        let file = file.display().to_string();
        let arguments = ["solver", "import-env", &file, "--catalogue", &catalogue];
        let (code, out, err) = witgate(&arguments).await;
        assert_eq!(code, Some(0), "{name}: {err}");
        assert!(out.contains(&format!("plugins:\n  {name}:\n")), "{name}: {out}");
        assert_eq!(out.matches("plugins:\n").count(), 1, "{name}: {out}");
        for variable in variables.split(' ') {
            let as_secret = format!("{{env: {variable}}}");
            let as_config = format!("\"v4lue-of-{variable}\"");
            assert!(out.contains(&as_secret) || out.contains(&as_config), "{variable}: {out}");
        }
    }
    let (_, out, _) = witgate(&["solver", "list", "--catalogue", &catalogue]).await;
    for line in out.lines() {
        let name = line.split(' ').next().unwrap_or_default();
        assert!(VARIABLES.iter().any(|it| it.0 == name), "{name} has no variables in this test");
    }
}

/// Solvers and the variables that other programs take their credentials from.
const VARIABLES: &[(&str, &str)] = &[
    ("acme-dns", "ACME_DNS_API_BASE"),
    (
        "azure",
        "AZURE_CLIENT_ID AZURE_CLIENT_SECRET AZURE_TENANT_ID AZURE_SUBSCRIPTION_ID AZURE_RESOURCE_GROUP",
    ),
    ("cloudflare", "CF_DNS_API_TOKEN"),
    ("desec", "DESEC_TOKEN"),
    ("digitalocean", "DO_AUTH_TOKEN"),
    ("dnsimple", "DNSIMPLE_OAUTH_TOKEN"),
    ("duckdns", "DUCKDNS_TOKEN"),
    ("gandi", "GANDIV5_PERSONAL_ACCESS_TOKEN"),
    ("gcloud", "GCE_SERVICE_ACCOUNT GCE_PROJECT"),
    ("godaddy", "GODADDY_API_KEY GODADDY_API_SECRET"),
    ("hetzner", "HETZNER_API_TOKEN"),
    ("httpreq", "HTTPREQ_PASSWORD HTTPREQ_ENDPOINT HTTPREQ_USERNAME"),
    ("infomaniak", "INFOMANIAK_ACCESS_TOKEN"),
    ("inwx", "INWX_USERNAME INWX_PASSWORD INWX_SHARED_SECRET"),
    ("ionos", "IONOS_API_KEY"),
    ("linode", "LINODE_TOKEN"),
    ("namecheap", "NAMECHEAP_API_USER NAMECHEAP_API_KEY NAMECHEAP_CLIENT_IP"),
    ("netcup", "NETCUP_CUSTOMER_NUMBER NETCUP_API_KEY NETCUP_API_PASSWORD"),
    ("ns1", "NS1_API_KEY"),
    ("ovh", "OVH_APPLICATION_KEY OVH_APPLICATION_SECRET OVH_CONSUMER_KEY"),
    ("porkbun", "PORKBUN_API_KEY PORKBUN_SECRET_API_KEY"),
    ("powerdns", "PDNS_API_KEY PDNS_API_URL"),
    ("route53", "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION"),
    ("scaleway", "SCW_SECRET_KEY"),
    ("vultr", "VULTR_API_KEY"),
];

/// A registry of OCI artifacts, and a web server: what is at a path, for whoever has the token.
struct Registry {
    port: u16,
    pem: String,
}

impl Registry {
    /// Serves `files` over TLS. Whatever is below `/v2/` wants a token from `/token`; blobs are
    /// elsewhere.
    async fn start(files: Vec<(String, Vec<u8>)>) -> Self {
        let ca = Ca::new("registry");
        let pair = ca.sign(&["localhost", "127.0.0.1"]);
        let pem = |text: &str| {
            let chain = CertificateDer::pem_slice_iter(text.as_bytes());
            chain.collect::<Result<Vec<_>, _>>().expect("PEM")
        };
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(pem(&pair.certificate), key)
            .expect("a pair");
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let files = std::sync::Arc::new(files);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, files) = (acceptor.clone(), std::sync::Arc::clone(&files));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(tcp).await else { return };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8(head).expect("ASCII");
                    let (status, fields, body) = Self::answer(port, &head, &files);
                    let start = format!(
                        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{fields}connection: close\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all(start.as_bytes()).await;
                    let _ = stream.write_all(&body).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { port, pem: ca.pem }
    }

    fn answer(
        port: u16,
        head: &str,
        files: &[(String, Vec<u8>)],
    ) -> (&'static str, String, Vec<u8>) {
        let path = head.split(' ').nth(1).expect("a path");
        let lower = head.to_ascii_lowercase();
        if path.starts_with("/token?") {
            let is_good =
                path.contains("service=test") && path.contains("repository%3Asolvers%3Apull");
            assert!(is_good, "{path}");
            return ("200 OK", String::new(), br#"{"token":"t0ken"}"#.to_vec());
        }
        if path.starts_with("/v2/") && !lower.contains("authorization: bearer t0ken\r\n") {
            let challenge = format!(
                "www-authenticate: Bearer realm=\"https://127.0.0.1:{port}/token\",service=\"test\",scope=\"repository:solvers:pull\"\r\n"
            );
            return ("401 Unauthorized", challenge, Vec::new());
        }
        if let Some(blob) = path.strip_prefix("/v2/solvers/blobs/") {
            let there = format!("location: https://localhost:{port}/storage/{blob}\r\n");
            return ("307 Temporary Redirect", there, Vec::new());
        }
        // Credentials for one host are for no other.
        assert!(!path.starts_with("/storage/") || !lower.contains("authorization"), "{head}");
        match files.iter().find(|it| it.0 == path) {
            Some((_, body)) => ("200 OK", String::new(), body.clone()),
            None => ("404 Not Found", String::new(), Vec::new()),
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn solvers_come_from_urls_and_registries_when_they_are_what_was_pinned() {
    let wasm = |name: &str| std::fs::read(format!("{}/{name}.wasm", catalogue())).expect("built");
    let (vultr, desec) = (wasm("dns-vultr"), wasm("dns-desec"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(path("two")).expect("a folder");
    for (name, bytes) in [("dns-vultr", &vultr), ("dns-desec", &desec)] {
        std::fs::write(path(&format!("two/{name}.wasm")), bytes).expect("a copy");
    }
    let (code, index, err) = witgate(&["solver", "index", &path("two")]).await;
    assert_eq!(code, Some(0), "{err}");
    let layer = |bytes: &[u8], title: &str| {
        json!({"mediaType": "application/wasm", "size": bytes.len(), "digest": format!("sha256:{}", sha256(bytes)),
               "annotations": {"org.opencontainers.image.title": title}})
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},
        "layers": [layer(&vultr, "dns-vultr.wasm"), layer(&desec, "dns-desec.wasm"), layer(b"read me", "README.md")],
    })
    .to_string();
    let (index, manifest) = (index.into_bytes(), manifest.into_bytes());
    let spoiled = [desec.as_slice(), b"\0\x01x"].concat();
    let registry = Registry::start(vec![
        ("/catalogue.json".to_owned(), index.clone()),
        ("/dns-vultr.wasm".to_owned(), vultr.clone()),
        // Not what the catalogue says.
        ("/dns-desec.wasm".to_owned(), spoiled),
        (format!("/v2/solvers/manifests/sha256:{}", sha256(&manifest)), manifest.clone()),
        (format!("/storage/sha256:{}", sha256(&vultr)), vultr.clone()),
        (format!("/storage/sha256:{}", sha256(&desec)), desec.clone()),
    ])
    .await;
    std::fs::write(path("roots.pem"), &registry.pem).expect("roots");
    std::fs::write(path("gateway.yaml"), "").expect("a configuration");
    let host = format!("127.0.0.1:{}", registry.port);
    let web = format!("https://{host}/catalogue.json@sha256:{}", sha256(&index));
    let oci = format!("oci://{host}/solvers:v1@sha256:{}", sha256(&manifest));
    let (roots, into, config) = (path("roots.pem"), path("plugins"), path("gateway.yaml"));
    let run = async |command: &[&str], place: &str| {
        let more = ["--catalogue", place, "--roots", &roots];
        witgate(&[&["solver"], command, &more].concat()).await
    };
    let add = async |name: &str, place: &str| {
        run(&["add", name, "--into", &into, "--config", &config], place).await
    };
    let (code, out, err) = run(&["list"], &web).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("desec ") && out.contains("vultr            Solves DNS-01"), "{out}");
    let (_, out, _) = run(&["list"], &oci).await;
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["desec", "vultr"]);

    // From the catalogue: stored, told, pinned.
    let (code, out, err) = add("vultr", &web).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let stored = path("plugins/dns-vultr.wasm");
    assert_eq!(std::fs::read(&stored).expect("the component"), vultr);
    assert!(
        out.contains(&format!("component: {stored:?}")) && out.contains("#   change DELETE"),
        "{out}"
    );
    let lock = std::fs::read_to_string(path("gateway.lock")).expect("the lock");
    assert!(lock.contains(&format!("digest: sha256:{}", sha256(&vultr))), "{lock}");
    assert!(lock.contains("change DELETE") && lock.contains("\"vultr\""), "{lock}");
    // What is not what the catalogue says is neither stored nor pinned.
    let (code, _, err) = add("desec", &web).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("is not what was pinned"), "{err}");
    assert!(!Path::new(&path("plugins/dns-desec.wasm")).exists());
    // From the registry, with a token, from where its storage is.
    let (code, out, err) = add("desec", &oci).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(std::fs::read(path("plugins/dns-desec.wasm")).expect("the component"), desec);
    // A single component by its URL.
    let single = format!("https://{host}/dns-vultr.wasm@sha256:{}", sha256(&vultr));
    let (code, out, err) = add(&single, &web).await;
    assert_eq!(code, Some(0), "{out}{err}");
    for (place, why) in [
        (format!("https://{host}/catalogue.json"), "is not pinned"),
        (
            format!("https://{host}/catalogue.json@sha256:{}", "0".repeat(64)),
            "is not what was pinned",
        ),
        (format!("oci://{host}/solvers@sha256:{}", "0".repeat(64)), "the registry answers 404"),
        (format!("https://{host}/none@sha256:{}", "0".repeat(64)), "is answered with 404"),
        (format!("http://witgate.invalid/x@sha256:{}", "0".repeat(64)), "is not https"),
    ] {
        let (code, _, err) = run(&["list"], &place).await;
        assert_eq!(code, Some(1), "{place}");
        assert!(err.contains(why), "{place}: {err}");
    }
    // Without its root nobody is believed.
    let (code, _, err) = witgate(&["solver", "list", "--catalogue", &web]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("cannot fetch"), "{err}");
}
