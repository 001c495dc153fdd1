//! Promise: the command line helps, checks and shows, without a running gateway.

use std::process::Output;

use crate::harness::{Gateway, SOON, guests, output};

const WITGATE: &str = env!("CARGO_BIN_EXE_witgate");

async fn witgate(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = output(WITGATE, arguments, 2 * SOON).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test]
async fn help_names_every_command() {
    let (code, out, _) = witgate(&["--help"]).await;
    assert_eq!(code, Some(0));
    for word in ["run", "check", "schema", "trust", "plugin", "gateway.yaml"] {
        assert!(out.contains(word), "{word} in {out}");
    }
    for command in ["run", "check", "schema", "trust"] {
        let (code, out, _) = witgate(&[command, "--help"]).await;
        assert_eq!(code, Some(0), "{command}");
        assert!(out.contains("Usage:"), "{out}");
    }
    let (code, _, err) = witgate(&["rum"]).await;
    assert_eq!(code, Some(2));
    assert!(err.contains("run"), "a suggestion: {err}");
}

#[tokio::test]
async fn version_is_that_of_the_package() {
    let (code, out, _) = witgate(&["--version"]).await;
    assert_eq!((code, out.trim()), (Some(0), concat!("witgate ", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn check_says_everything_that_is_wrong_at_once() {
    let gateway = Gateway::new();
    let good = "sites: [{hosts: [app.localhost], routes: [{respond: {status: 200, body: ok}}]}]\n";
    gateway.configure(good);
    let config = gateway.config().display().to_string();
    let (code, _, err) = witgate(&["check", "--config", &config]).await;
    assert_eq!(code, Some(0), "{err}");

    gateway.configure(
        "sites:\n  - hosts: [app.localhost]\n    rotes: []\n    routes: [{upstream: nowhere}]\n\
         upstreams: {app: \"http://127.0.0.1:99999\"}\n",
    );
    let (code, _, err) = witgate(&["check", "--config", &config]).await;
    assert_eq!(code, Some(1), "{err}");
    for word in
        ["gateway.yaml:7:", "gateway.yaml:8:", "gateway.yaml:9:", "routes", "nowhere", "99999"]
    {
        assert!(err.contains(word), "{word} in {err}");
    }

    let (code, _, err) = witgate(&["check", "--config", "/nowhere/gateway.yaml"]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("/nowhere/gateway.yaml"), "{err}");
}

#[tokio::test]
async fn run_refuses_a_bad_file_as_check_does() {
    let gateway = Gateway::new();
    gateway.configure("sites: [{hosts: [app.localhost], routes: [{upstream: nowhere}]}]\n");
    let config = gateway.config().display().to_string();
    let (code, _, err) = witgate(&["run", "--config", &config]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("nowhere") && err.contains("gateway.yaml:"), "{err}");
}

#[tokio::test]
async fn schema_is_json_schema_of_the_whole_file() {
    let (code, out, _) = witgate(&["schema"]).await;
    assert_eq!(code, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert!(schema["$schema"].as_str().is_some_and(|url| url.contains("json-schema.org")));
    for key in
        ["listen", "certificates", "sites", "upstreams", "plugins", "log", "store", "workers"]
    {
        assert!(schema["properties"].get(key).is_some(), "{key} in {schema}");
    }
}

#[tokio::test]
async fn inspect_tells_what_a_plugin_is() {
    let router = guests::folder().join("router.wasm").display().to_string();
    let (code, out, err) = witgate(&["plugin", "inspect", &router]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("router"), "{out}");
    assert!(out.contains(&guests::digest(&guests::guest("router"))), "{out}");
    let gateway = Gateway::new();
    let broken = gateway.file("broken.wasm", b"\0asm but not really").display().to_string();
    let (code, _, err) = witgate(&["plugin", "inspect", &broken]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("broken.wasm"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trust_prints_the_root_and_never_its_key() {
    let gateway = Gateway::new();
    gateway.configure(
        "sites: [{hosts: [app.localhost], routes: [{respond: {status: 200, body: ok}}]}]\n",
    );
    let config = gateway.config().display().to_string();
    let (code, out, err) = witgate(&["trust", "--print", "--config", &config]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("BEGIN CERTIFICATE"), "{out}");
    assert!(!out.contains("PRIVATE"), "the key must stay in the store");
    assert!(gateway.local_root().await.contains("BEGIN CERTIFICATE"));
}

#[tokio::test]
async fn a_component_carries_its_plugin_yaml_and_check_holds_config_against_it() {
    let mut gateway = Gateway::new();
    let manifest = gateway.file(
        "plugin.yaml",
        "name: tagger\nversion: 2.1.0\nworlds: [filter]\nlicense: MIT\n\
         config:\n  type: object\n  additionalProperties: false\n  \
         properties: {body: {enum: [\"yes\"]}}\n",
    );
    let (manifest, tagger) = (manifest.display().to_string(), "tagger.wasm");
    let component = gateway.folder().join(tagger).display().to_string();
    let plain = guests::folder().join("filter.wasm").display().to_string();
    let (code, out, err) =
        witgate(&["plugin", "embed", &plain, &manifest, "--output", &component]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("tagger 2.1.0"), "{out}");
    let (_, out, _) = witgate(&["plugin", "inspect", "--json", &component]).await;
    let found: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(found["manifest"]["license"], "MIT", "{found}");
    assert_eq!(found["manifest"]["config"]["type"], "object", "{found}");
    let (_, out, _) = witgate(&["plugin", "inspect", &component]).await;
    assert!(out.contains("tagger 2.1.0") && out.contains("additionalProperties"), "{out}");

    let yaml = "sites: [{hosts: [app.localhost], filters: [tagger], upstream: \"builtin:echo\"}]
plugins:
  tagger:
    component: @dir@/tagger.wasm
    config: {bodi: \"yes\"}
";
    let config = gateway.config().display().to_string();
    gateway.configure(yaml);
    let (code, _, err) = witgate(&["check", "--config", &config]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("gateway.yaml:9:14: error: unknown key `bodi` in `config`"), "{err}");
    assert!(err.contains("did you mean \"body\"?"), "{err}");

    // A running gateway holds to the same, and goes on with what it has.
    gateway.start(&yaml.replace("bodi", "body")).await;
    let client = gateway.client().await;
    assert_eq!(client.get("app.localhost", "/").await.status, 200);
    let mark = gateway.mark();
    gateway.configure(yaml);
    gateway.logged(mark, &["unknown key `bodi`"]).await;
    assert_eq!(client.get("app.localhost", "/").await.status, 200);

    // What is wrong with a manifest is said before it is put anywhere.
    let bad = gateway.file("bad.yaml", "name: tagger\nworld: [filter]\n");
    let (code, _, err) =
        witgate(&["plugin", "embed", &component, &bad.display().to_string()]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("bad.yaml:2:1") && err.contains("worlds"), "{err}");
}

#[tokio::test]
async fn a_plugin_is_tested_by_cases_without_a_gateway() {
    let gateway = Gateway::new();
    let headers = gateway.text("@plugins@/headers.wasm").lines().last().expect("a path").to_owned();
    let router = guests::folder().join("router.wasm").display().to_string();
    let good = gateway.file(
        "good.yaml",
        "plugin:
  config: {request: {set: {x-tenant: blue}, remove: [x-debug]}, response: {append: {vary: x-tenant}}}
cases:
  - name: a tenant is tagged
    request: {url: https://blue.example.com/, headers: {x-tenant: forged, x-debug: \"1\"}}
    response: {headers: {vary: accept}}
    expect:
      decision: continue
      request-headers: {x-tenant: blue, x-debug: null}
      response-headers: {vary: [accept, x-tenant]}
  - name: a mistake is refused
    config: {reqest: {}}
    expect: {load-error: unknown key `reqest` in `config`}
",
    );
    let good = good.display().to_string();
    let (code, out, err) = witgate(&["plugin", "test", &headers, &good]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("ok      a tenant is tagged") && out.contains("2 passed"), "{out}");

    let cases = gateway.file(
        "router.yaml",
        "plugin: {limits: {deadline: 2s}}
upstreams: [web]
cases:
  - {name: chosen, request: {url: \"https://a.example/api/x\"}, expect: {upstream: api}}
  - {name: redirected, request: {url: \"https://a.example/redirect\"}, expect: {decision: redirect, status: 308, location: \"https://other.example/\"}}
  - {name: wrong, request: {url: \"https://a.example/respond\"}, expect: {status: 200, body: tea}}
  - {name: rewritten, request: {url: \"https://a.example/rewrite\"}, expect: {method: PUT, target: \"/new?from=router\", authority: \"inner.example:8000\"}}
",
    );
    let cases = cases.display().to_string();
    let (code, out, err) = witgate(&["plugin", "test", &router, &cases]).await;
    assert_eq!(code, Some(1), "{out}{err}");
    assert_eq!(out.matches("ok      ").count(), 3, "{out}");
    assert!(out.contains("FAILED  wrong"), "{out}");
    assert!(out.contains("status: expected \"200\", found \"418\""), "{out}");
    assert!(out.contains("body: expected \"tea\", found \"short and stout\""), "{out}");
    assert!(err.contains("3 passed, 1 failed"), "{err}");

    let (code, out, err) = witgate(&["plugin", "bench", &router, &cases, "--rounds", "2"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("median") && out.contains("rewritten"), "{out}");

    let bad = gateway.file("bad.yaml", "cases:\n  - {name: x, expct: {}}\n");
    let (code, _, err) = witgate(&["plugin", "test", &router, &bad.display().to_string()]).await;
    assert_eq!(code, Some(1));
    assert!(err.contains("bad.yaml") && err.contains("expct") && err.contains("line 2"), "{err}");
}
