//! Promise: a solver is found, its stanza written and checked, its variables taken over from other
//! programs, and it is tried at its provider before an order needs it.

use std::path::Path;
use std::process::Output;

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
    let (code, _, err) = witgate(&["check", "--plugins", "--config", &config]).await;
    assert_eq!(code, Some(0), "{err}");
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
    let kept = [("_acme-challenge.example.com.".to_owned(), "\"kept\"".to_owned())];
    assert_eq!(dns.txt("example.com").await, kept);
    assert_eq!(bind.txt("_acme-challenge.example.com").await, ["kept"]);
}
