//! Promise: a plugin can be written in any of these languages. The same router, filter and solver in
//! each of them pass the same cases through a real gateway, and `witgate plugin new` makes a plugin
//! that builds, passes its tests and loads at once.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use crate::harness::client::request;
use crate::harness::origin::field;
use crate::harness::{Gateway, LATER, RustOrigin, conformance, examples, output, project, within};

/// One test for each example, and one for a new plugin made from it.
macro_rules! example {
    ($folder:literal, $world:ident, $name:ident, $new:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            conformance::$world(&examples::built($folder).await).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $new() {
            examples::made($folder, &stringify!($world).replace("solver", "dns-solver")).await;
        }
    };
}

example!("11-router-in-rust", router, a_router_in_rust, a_new_router_in_rust);
example!("12-filter-in-rust", filter, a_filter_in_rust, a_new_filter_in_rust);
example!("13-solver-in-rust", solver, a_solver_in_rust, a_new_solver_in_rust);
example!("21-router-in-go", router, a_router_in_go, a_new_router_in_go);
example!("22-filter-in-go", filter, a_filter_in_go, a_new_filter_in_go);
example!("23-solver-in-go", solver, a_solver_in_go, a_new_solver_in_go);
example!("31-router-in-python", router, a_router_in_python, a_new_router_in_python);
example!("32-filter-in-python", filter, a_filter_in_python, a_new_filter_in_python);
example!("33-solver-in-python", solver, a_solver_in_python, a_new_solver_in_python);
example!("41-router-in-javascript", router, a_router_in_javascript, a_new_router_in_javascript);
example!("42-filter-in-javascript", filter, a_filter_in_javascript, a_new_filter_in_javascript);
example!("43-solver-in-javascript", solver, a_solver_in_javascript, a_new_solver_in_javascript);
example!("51-router-in-typescript", router, a_router_in_typescript, a_new_router_in_typescript);
example!("52-filter-in-typescript", filter, a_filter_in_typescript, a_new_filter_in_typescript);
example!("53-solver-in-typescript", solver, a_solver_in_typescript, a_new_solver_in_typescript);
example!("61-router-in-c", router, a_router_in_c, a_new_router_in_c);
example!("62-filter-in-c", filter, a_filter_in_c, a_new_filter_in_c);
example!("63-solver-in-c", solver, a_solver_in_c, a_new_solver_in_c);
example!("81-router-in-cpp", router, a_router_in_cpp, a_new_router_in_cpp);
example!("82-filter-in-cpp", filter, a_filter_in_cpp, a_new_filter_in_cpp);
example!("83-solver-in-cpp", solver, a_solver_in_cpp, a_new_solver_in_cpp);
example!("91-router-in-zig", router, a_router_in_zig, a_new_router_in_zig);
example!("92-filter-in-zig", filter, a_filter_in_zig, a_new_filter_in_zig);
example!("93-solver-in-zig", solver, a_solver_in_zig, a_new_solver_in_zig);

/// One test for each "after" of docs/MIGRATING-PLUGINS.md: it builds, passes its tests, loads with its
/// `gateway.yaml`, and is what the guide shows.
macro_rules! migration {
    ($name:ident, $folder:literal, $($file:literal),+) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            examples::built($folder).await;
            examples::loads($folder).await;
            examples::is_shown_in("docs/MIGRATING-PLUGINS.md", $folder, &[$($file),+]);
        }
    };
}

migration!(from_caddy, "71-from-caddy-in-go", "plugin.go", "plugin.yaml");
migration!(from_traefik, "72-from-traefik-in-go", "plugin.go");
migration!(from_nginx, "73-from-nginx-in-javascript", "plugin.js");
migration!(from_envoy, "74-from-envoy-in-rust", "src/lib.rs");

/// Heavy runtimes work under the default limits, which the tests of new plugins show; where they are
/// given less they say what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_does_not_fit_names_the_key_to_raise() {
    for example in ["21-router-in-go", "31-router-in-python", "41-router-in-javascript"] {
        let gateway = Gateway::new();
        gateway.configure(&format!(
            "sites: [{{hosts: [a.localhost], router: heavy, routes: [{{respond: {{body: a}}}}]}}]\n\
             upstreams: {{web: builtin:echo}}\n\
             plugins:\n  heavy:\n    component: {}\n    limits: {{memory: 256KiB}}\n    \
             config: {{domain: localhost, tenants: {{a: web}}}}\n",
            examples::built(example).await.display()
        ));
        let config = gateway.config().display().to_string();
        let arguments = ["check", "--plugins", "--config", &config];
        let Output { status, stderr, .. } =
            output(env!("CARGO_BIN_EXE_witgate"), &arguments, 4 * LATER).await;
        let said = String::from_utf8_lossy(&stderr);
        assert!(!status.success() && said.contains("raise plugins.heavy.limits.memory"), "{said}");
    }
}

/// Collectors work while calls go on for long, and a component may not call out at any time: thousands
/// of calls of one instance, under the default memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_with_a_collector_live_long() {
    let cases = project().join("tests/xtask/cases/filter.yaml").display().to_string();
    for (example, thousands) in
        [("22-filter-in-go", "30"), ("32-filter-in-python", "5"), ("42-filter-in-javascript", "3")]
    {
        let component = examples::built(example).await.display().to_string();
        let arguments = ["plugin", "bench", &component, &cases, "--rounds", thousands];
        let Output { status, stdout, stderr } =
            output(env!("CARGO_BIN_EXE_witgate"), &arguments, 2 * LATER).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(status.success(), "{example}: {}{}", text(&stdout), text(&stderr));
    }
}

/// An instance that has served its calls is followed by one that was started beside the worker, also after
/// the plugin has changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_recycles_is_started_beside_the_requests() {
    let component = examples::built("31-router-in-python").await;
    let yaml = "
workers: 1
sites: [{hosts: [a.localhost], router: heavy, routes: [{respond: {body: front}}]}]
upstreams: {web: builtin:echo}
plugins:
  heavy:
    component: \"@component@\"
    recycle: 10
    limits: {deadline: 10s}
    config: {domain: @domain@, tenants: {a: web}}
";
    let mut gateway = Gateway::new();
    gateway.set("component", component.display()).set("domain", "localhost");
    gateway.start(yaml).await;
    let client = gateway.client().await;
    let mut http = client.h1("a.localhost").await.expect("a connection");
    let value = async |gateway: &Gateway, name: &str| {
        gateway.metric(&format!("witgate_plugin_instances_{name}{{plugin=\"heavy\"}}")).await
    };
    for round in 0..6 {
        if round == 3 {
            // Another configuration is another instance.
            let mark = gateway.mark();
            gateway.set("domain", "a.localhost").configure(yaml);
            gateway.logged_within(mark, &["generation 2 serving"], LATER).await;
        }
        within("an instance that is ready", LATER, async {
            while value(&gateway, "ready").await == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        for _ in 0..10 {
            let asked =
                request("GET", &format!("a.localhost:{}", gateway.https), "/", String::new());
            assert_eq!(http.send(asked).await.expect("an answer").status, 200);
        }
    }
    assert_eq!(value(&gateway, "waited_for_total").await, 0);
    assert!(value(&gateway, "total").await >= 6);
}

/// Where a tool is missing, the message has the command that installs it.
#[tokio::test]
async fn what_is_missing_is_named_with_the_command_that_gets_it() {
    let place = tempfile::tempdir().expect("a folder");
    for (language, tool, command) in [
        ("rust", "cargo", "rustup"),
        ("go", "Go 1.24", "apt-get install golang"),
        ("python", "componentize-py", ".venv/bin/pip install componentize-py=="),
        ("javascript", "componentize-qjs", "npm install --save-dev componentize-qjs@"),
        ("typescript", "tsc", "npm install --save-dev typescript@"),
        ("c", "zig", ".venv/bin/pip install ziglang=="),
        ("cpp", "zig", ".venv/bin/pip install ziglang=="),
        ("zig", "zig", ".venv/bin/pip install ziglang=="),
    ] {
        let folder = place.path().join(language);
        let witgate = |arguments: &[&str]| {
            let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_witgate"));
            command.args(arguments).arg(&folder).env("PATH", place.path());
            command.env_remove("WASI_SDK_PATH").kill_on_drop(true);
            command.output()
        };
        let new = ["plugin", "new", "a", "--lang", language, "--world", "router", "--folder"];
        let made = witgate(&new).await.expect("witgate runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let Output { status, stderr, .. } =
            witgate(&["plugin", "build"]).await.expect("witgate runs");
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{tool} ")) && said.contains(command), "{language}: {said}");
    }
}

/// What editors read of a new plugin is sound: the same files, through the checks that their language
/// servers make, find the SDK, its types and its documentation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn editors_find_the_sdk_its_types_and_its_documentation() {
    let place = tempfile::tempdir().expect("a folder");
    for (language, world, check) in [
        ("go", "filter", "go doc witgate/filter Export | grep -q 'makes a filter'"),
        ("go", "dns-solver", "go vet . && go doc witgate/dns | grep -q 'type Failure'"),
        ("javascript", "router", CHECKED_JAVASCRIPT),
        ("javascript", "filter", CHECKED_JAVASCRIPT),
        ("javascript", "dns-solver", CHECKED_JAVASCRIPT),
        (
            "python",
            "filter",
            "PYTHONPATH=$(python3 -c \"import json; \
            print(json.load(open('pyrightconfig.json'))['extraPaths'][0])\") python3 -c \"import \
            typing, witgate; assert typing.get_type_hints(witgate.respond)['return'] is \
            witgate.Decision; assert witgate.respond.__doc__\" && test -f build/witgate/py.typed",
        ),
        ("c", "filter", "cc $(cat compile_flags.txt) -Werror -fsyntax-only plugin.c"),
        ("cpp", "filter", "c++ $(cat compile_flags.txt) -Werror -fsyntax-only plugin.cpp"),
    ] {
        let folder = place.path().join(format!("{language}-{world}"));
        let path = folder.display().to_string();
        let new = ["plugin", "new", "a", "--lang", language, "--world", world, "--folder", &path];
        let made = output(env!("CARGO_BIN_EXE_witgate"), &new, LATER).await;
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let tools = project().join("tests/.tools/languages/bin");
        let check = format!("cd {path} && export PATH={}:$PATH && {check}", tools.display());
        let checked = output("sh", &["-c", &check], 2 * LATER).await;
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        let failed = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.success(), "{language} {world}: {said}{failed}");
    }
}

/// Its own tests need Node's types, which `npm install` would have to bring.
const CHECKED_JAVASCRIPT: &str = "rm plugin.test.js && tsc -p jsconfig.json --noEmit";

/// One test for what each SDK offers beside heads and decisions: `tests/probes`.
macro_rules! probe {
    ($name:ident, $language:literal) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            sdk(&examples::probe($language).await).await;
        }
    };
}

/// The example that changes bodies builds, passes its tests and loads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_filter_in_rust() {
    examples::built("14-body-in-rust").await;
    examples::loads("14-body-in-rust").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_in_python() {
    bodies(&examples::probe("python").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_in_javascript() {
    bodies(&examples::probe("javascript").await).await;
}

/// What each SDK that has it offers for bodies as they pass: `tests/probes`.
async fn bodies(component: &Path) {
    let app = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway
        .set("component", component.display())
        .set("app", app.port)
        .env("KEY", "a secret of some length")
        .start(
            "
sites: [{hosts: [a.localhost], filters: [probe], routes: [{upstream: app}]}]
upstreams: {app: \"http://127.0.0.1:@app@\"}
plugins:
  probe:
    component: \"@component@\"
    limits: {deadline: 1s}
    secrets: {key: {env: KEY}}
    grants:
      hmac: [key]
      request: {body: transform}
      response: {body: transform}
",
        )
        .await;
    let client = gateway.client().await;
    let post = |path: &str| request("POST", "a.localhost", path, "some words");
    let seen = client.send(post("/upper")).await.json();
    assert_eq!(seen["body"], "SOME WORDS|10 bytes");
    assert_eq!(field(&seen, "accept-encoding"), ["identity"]);
    assert_eq!(client.send(post("/observe")).await.json()["body"], "some words");
    gateway.logged(0, &["the probe observed 10 bytes"]).await;
    let passed = client.send(post("/pass")).await;
    assert!(passed.text().ends_with("}<end>"), "{passed:?}");
    assert_eq!(passed.header("x-again"), "again");
}

probe!(the_sdk_of_go, "go");
probe!(the_sdk_of_python, "python");
probe!(the_sdk_of_javascript, "javascript");
probe!(the_sdk_of_c, "c");

async fn sdk(component: &Path) {
    let mut gateway = Gateway::new();
    gateway
        .set("component", component.display())
        .env("KEY", "a secret of some length")
        .start(
            "
sites: [{hosts: [a.localhost], filters: [probe], routes: [{upstream: app}]}]
upstreams: {app: builtin:echo}
plugins:
  probe:
    component: \"@component@\"
    limits: {deadline: 500ms}
    secrets: {key: {env: KEY}}
    grants: {hmac: [key], request: {read: [\"*\"], set: [\"*\"]}, response: {set: [\"*\"]}}
",
        )
        .await;
    let client = gateway.client().await;
    let ask = async |path: &str, body: &str| {
        let asked =
            request("POST", &format!("a.localhost:{}", gateway.https), path, body.to_owned());
        let mut http = client.h1("a.localhost").await.expect("a connection");
        let answer = http.send(asked).await.expect("an answer");
        (answer.header("x-status").to_owned(), String::from_utf8_lossy(&answer.body).into_owned())
    };
    let ok = |text: &str| ("200".to_owned(), text.to_owned());
    for n in 1..=3 {
        assert_eq!(ask("/state", "").await, ok(&format!("n={n} k=v{n}")));
    }
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"a secret of some length");
    let code = aws_lc_rs::hmac::sign(&key, b"data");
    let hex: String = code.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(ask("/crypto", "").await, ok(&format!("{hex} true false unknown-algorithm")));
    assert_eq!(ask("/connection", "").await, ok("127.0.0.1 HTTP/1.1"));
    assert_eq!(ask("/body", "word").await, ok("prefix=word true"));
    assert_eq!(ask("/body", "words").await, ok("prefix=word false"));
    assert_eq!(ask("/", "").await.0, "200");
    gateway.logged(0, &["the probe speaks", "WARN"]).await;
}
