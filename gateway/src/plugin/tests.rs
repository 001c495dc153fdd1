//! The room as a whole, against the components of `tests/guests`.

mod bodies;
mod worlds;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode};

use super::*;
use crate::acme::solve::dns01::{RecordSet, SolverFailure, Zone};
use crate::config::{
    FieldGrant, Grants, HeadGrant, HttpGrant, OnError, PluginConfig, PluginLimits, Reuse, Scheme,
    Secret, SecretRef, SecretText,
};
use crate::http::head::{ConnectionFacts, RequestHead, ResponseHead, ResponseSource};
use crate::tls::TlsFacts;
use crate::tls::clients::ClientCertificate;

/// A component of `tests/guests`, built once.
fn guest(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests");
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--release", "--examples", "--target", "wasm32-wasip2"])
            .args(["--target-dir", "target"])
            .current_dir(&guests)
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the guests do not build");
        guests.join("target/wasm32-wasip2/release/examples")
    });
    folder.join(format!("{name}.wasm"))
}

/// One engine for most tests, as in the gateway.
fn engine() -> Arc<Engine> {
    static ENGINE: OnceLock<(Arc<Engine>, tempfile::TempDir)> = OnceLock::new();
    let (engine, _) = ENGINE.get_or_init(|| {
        let cache = tempfile::tempdir().unwrap();
        (Engine::start(cache.path().join("compiled")).unwrap(), cache)
    });
    Arc::clone(engine)
}

fn config(component: PathBuf, config: serde_json::Value) -> PluginConfig {
    PluginConfig {
        component,
        config,
        on_error: OnError::FailClosed,
        reuse: Reuse { calls_max: None },
        shadow: None,
        canary: None,
        limits: PluginLimits {
            deadline: Duration::from_millis(200),
            solver_deadline: Duration::from_secs(5),
            memory_bytes_max: 16 << 20,
            output_bytes_max: 1 << 20,
            body_growth_bytes_max: 1 << 20,
            state_bytes_max: 1 << 20,
            requests_max: 5,
            log_lines_per_second_max: 100,
        },
        secrets: BTreeMap::new(),
        grants: Grants::default(),
        keys: Vec::new(),
        zones: Vec::new(),
        needs_guard: false,
        line: 1,
    }
}

fn load(name: &str, component: &str) -> Arc<Plugin> {
    let config = config(guest(component), serde_json::Value::Null);
    engine().load(name, &config, &upstreams()).unwrap()
}

fn hooks(component: &str) -> Hooks {
    Hooks::new(load(component, component), &serde_json::Value::Null).unwrap()
}

fn on_request(
    hooks: &Hooks,
    connection: &Arc<ConnectionFacts>,
    head: &mut RequestHead,
) -> Result<Decision, PluginError> {
    hooks.on_request(connection, head, false).map(|called| called.decision)
}

fn on_response(
    hooks: &Hooks,
    connection: &Arc<ConnectionFacts>,
    head: &mut RequestHead,
    response: &mut ResponseHead,
) -> Result<(), PluginError> {
    hooks.on_response(connection, head, response, false).map(|_| ())
}

fn upstreams() -> Arc<[Arc<str>]> {
    Arc::from([Arc::from("web"), Arc::from("api")])
}

fn connection() -> Arc<ConnectionFacts> {
    Arc::new(ConnectionFacts {
        client: "192.0.2.7:4711".parse().unwrap(),
        tls: Some(Arc::new(TlsFacts {
            ja4: Some("t13d1516h2_8daaf6152771_e5627efa2ab1".into()),
            client: client_certificate().map(Arc::new),
            ..TlsFacts::usual(Some("app.example".into()))
        })),
        via: None,
    })
}

fn client_certificate() -> Option<ClientCertificate> {
    let mut params = rcgen::CertificateParams::new(vec!["device.example".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "device 7");
    params.serial_number = Some(rcgen::SerialNumber::from(vec![0xab, 0xcd]));
    let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    ClientCertificate::of(&[made.der().clone()])
}

fn request(target: &str) -> RequestHead {
    let mut headers = HeaderMap::new();
    for (name, value) in [("accept", "text/html"), ("user-agent", "test"), ("x-many", "1")] {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers.append("x-many", HeaderValue::from_static("2"));
    headers.append("x-gone", HeaderValue::from_static("soon"));
    headers.append("x-bytes", HeaderValue::from_bytes(b"\xff\xfe").unwrap());
    RequestHead {
        id: Arc::from("request-1"),
        method: http::Method::GET,
        scheme: Scheme::Https,
        authority: "app.example".to_owned(),
        target: target.parse().unwrap(),
        version: http::Version::HTTP_2,
        headers,
    }
}

fn response(status: u16) -> ResponseHead {
    let mut headers = HeaderMap::new();
    headers.append("server", HeaderValue::from_static("one"));
    headers.append("server", HeaderValue::from_static("two"));
    headers.append("content-length", HeaderValue::from_static("5"));
    ResponseHead {
        status: StatusCode::from_u16(status).unwrap(),
        headers,
        source: ResponseSource::Upstream,
    }
}

/// All that a head says, to compare.
fn text(request: &RequestHead) -> String {
    let mut fields: Vec<_> =
        request.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    // The order of different fields says nothing; that of one field's values does, and is kept.
    fields.sort_by(|a, b| a.split(':').next().cmp(&b.split(':').next()));
    format!("{} {} {} {fields:?}", request.method, request.authority, request.target)
}

fn field<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).map_or("(none)", |value| value.to_str().unwrap())
}

/// What this thread logs while it lives.
struct Log {
    text: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn capture() -> Self {
        let text: Arc<Mutex<Vec<u8>>> = Arc::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer({
                let text = Arc::clone(&text);
                move || Writer(Arc::clone(&text))
            })
            .finish();
        Self { text, _guard: tracing::subscriber::set_default(subscriber) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    fn lines(&self, containing: &str) -> Vec<String> {
        self.text().lines().filter(|line| line.contains(containing)).map(str::to_owned).collect()
    }
}

#[test]
fn a_router_decides() {
    let hooks = hooks("router");
    for (target, wanted) in [
        ("/web/x", Decision::Upstream(Arc::from("web"))),
        ("/api", Decision::Upstream(Arc::from("api"))),
        ("/other", Decision::Continue),
        (
            "/redirect",
            Decision::Redirect {
                status: 308,
                location: HeaderValue::from_static("https://other.example/"),
            },
        ),
        (
            "/respond",
            Decision::Respond {
                status: StatusCode::IM_A_TEAPOT,
                headers: [("x-pot", "tea")]
                    .into_iter()
                    .map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v)))
                    .collect(),
                body: Bytes::from_static(b"short and stout"),
            },
        ),
    ] {
        let mut request = request(target);
        assert_eq!(hooks.route(&connection(), &mut request).unwrap(), wanted, "{target}");
        assert_eq!(field(&request.headers, "x-router"), "one");
    }
    let mut request = request("/rewrite?a=b");
    hooks.route(&connection(), &mut request).unwrap();
    assert_eq!(request.target, "/new?from=router");
    assert_eq!(request.authority, "inner.example:8000");
    assert_eq!(request.method, http::Method::PUT);
}

#[test]
fn a_filter_reads_and_changes_heads() {
    let log = Log::capture();
    let hooks = hooks("filter");
    assert_eq!(
        hooks.hooked(),
        Hooked { request: true, request_body_bytes_max: None, response: true }
    );
    let mut request = request("/all?q=1");
    assert_eq!(on_request(&hooks, &connection(), &mut request).unwrap(), Decision::Continue);
    assert_eq!(
        field(&request.headers, "x-facts"),
        "request-1|GET|https|app.example|q=1|192.0.2.7|4711|HTTP/2|app.example|TLSv1.3|\
         TLS_AES_128_GCM_SHA256|X25519MLKEM768|h2|false|app.example|1+2|None|Some([255, 254])|7"
    );
    let client = field(&request.headers, "x-client").to_owned();
    let parts: Vec<&str> = client.split('|').collect();
    assert_eq!(parts[..3], ["CN=device 7", "CN=device 7", "abcd"]);
    assert_eq!((parts[3].len(), parts[4]), (64, "dns:device.example"));
    assert_eq!(field(&request.headers, "x-state"), "Ok(1) value None");
    let many: Vec<_> = request.headers.get_all("x-many").iter().collect();
    assert_eq!(many, ["1", "2", "3"]);
    assert!(!request.headers.contains_key("x-gone"));

    let mut answer = response(404);
    on_response(&hooks, &connection(), &mut request, &mut answer).unwrap();
    assert_eq!(answer.status, StatusCode::GONE);
    assert_eq!(field(&answer.headers, "x-filter"), "upstream");
    assert!(!answer.headers.contains_key("server"));

    for line in [
        "everything was touched",
        "said on stdout",
        "said on stderr",
        "environment 0 arguments 0 file false",
    ] {
        let lines = log.lines(line);
        assert!(
            lines.iter().any(|line| {
                line.contains("plugin=\"filter\"") && line.contains("request=\"request-1\"")
            }),
            "{line}: {lines:?}"
        );
    }
}

#[test]
fn a_filter_has_data_signed_with_a_secret_it_never_sees() {
    let log = Log::capture();
    let mut config = config(guest("prober"), serde_json::Value::Null);
    let secret = |text: &str| Secret {
        source: SecretRef::Inline(SecretText::new(text.to_owned())),
        hosts: Vec::new(),
    };
    config.secrets.insert("key".to_owned(), secret("Jefe"));
    config.secrets.insert("other".to_owned(), secret("not for this"));
    config.grants.hmac = vec!["key".to_owned()];
    let plugin = engine().load("signer", &config, &upstreams()).unwrap();
    let hooks = Hooks::new(plugin, &config.config).unwrap();
    let saw = |target: &str| {
        let mut head = request(target);
        on_request(&hooks, &connection(), &mut head).unwrap();
        field(&head.headers, "x-saw").to_owned()
    };
    let made = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"Jefe");
    let made = aws_lc_rs::hmac::sign(&made, b"data");
    let hex: String = made.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(saw("/hmac/key"), format!("{hex} Ok(true) Ok(false)"));
    assert_eq!(saw("/hmac/other"), "denied");
    assert_eq!(saw("/hmac/nobody"), "unknown-secret");
    assert_eq!(saw("/hmac-algorithm/md5"), "unknown-algorithm");
    let told = log.lines("may not use the secret");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("plugins.signer.grants.hmac"), "{told:?}");
}

/// A filter that tries one thing with one field, under these grants.
fn prober(name: &str, request: HeadGrant, response: HeadGrant) -> Hooks {
    let mut config = config(guest("prober"), serde_json::Value::Null);
    config.grants.request = request;
    config.grants.response = response;
    Hooks::new(engine().load(name, &config, &upstreams()).unwrap(), &config.config).unwrap()
}

fn only(names: &[&str]) -> FieldGrant {
    let named = names.iter().filter(|name| **name != "*").map(|name| (*name).to_owned());
    FieldGrant { others: names.contains(&"*"), named: named.collect() }
}

/// A request with credentials and a response that sets some.
fn with_credentials(target: &str) -> (RequestHead, ResponseHead) {
    let (mut request, mut response) = (request(target), response(200));
    for name in ["cookie", "authorization", "proxy-authorization", "x-key"] {
        request.headers.insert(name, HeaderValue::from_static("s3cret"));
    }
    for name in ["set-cookie", "x-key"] {
        response.headers.insert(name, HeaderValue::from_static("s3cret"));
    }
    (request, response)
}

/// What the prober saw or changed: `x-saw` of either head, or that it was stopped with the heads
/// unchanged.
fn probe(hooks: &Hooks, target: &str) -> Result<String, String> {
    let connection = connection();
    let (mut request, mut response) = with_credentials(target);
    let (before, fields_before) = (text(&request), response.headers.clone());
    let result = on_request(hooks, &connection, &mut request).and_then(|decision| {
        on_response(hooks, &connection, &mut request, &mut response)?;
        Ok(decision)
    });
    match result {
        Ok(decision) => {
            let saw = request.headers.get("x-saw").or(response.headers.get("x-saw"));
            let saw = saw.map(|value| value.to_str().unwrap().to_owned());
            let is_changed = text(&request) != before
                || response.headers != fields_before
                || response.status != 200
                || decision != Decision::Continue;
            Ok(saw.unwrap_or_else(|| if is_changed { "changed" } else { "nothing" }.to_owned()))
        }
        Err(error) => {
            assert_eq!(text(&request), before, "{target}");
            assert_eq!(response.headers, fields_before, "{target}");
            Err(error.to_string())
        }
    }
}

#[test]
fn credentials_are_out_of_reach_unless_they_are_named() {
    let log = Log::capture();
    let star = prober("star", HeadGrant::default(), HeadGrant::default());
    let named = HeadGrant {
        read: only(&["*", "cookie", "authorization", "proxy-authorization", "set-cookie"]),
        set: only(&["*", "cookie", "authorization", "proxy-authorization", "set-cookie"]),
        ..HeadGrant::default()
    };
    let named = prober("named", named.clone(), named);
    let request = ["cookie", "CoOkIe", "authorization", "Authorization", "proxy-authorization"];
    for name in request {
        for verb in ["header", "header-bytes", "header-values", "late-header"] {
            let seen = probe(&star, &format!("/{verb}/{name}")).unwrap();
            assert!(seen.is_empty() || seen == "nothing", "{verb} {name}: {seen}");
            assert_eq!(
                probe(&named, &format!("/{verb}/{name}")).unwrap(),
                "s3cret",
                "{verb} {name}"
            );
        }
        for verb in ["set", "set-bytes", "append", "remove"] {
            let refused = probe(&star, &format!("/{verb}/{name}")).unwrap_err();
            let lower = name.to_lowercase();
            let told = format!("may not change {lower} of a request");
            assert!(refused.contains(&told), "{verb} {name}: {refused}");
            assert!(refused.contains("plugins.star.grants.request.set"), "{refused}");
            assert_eq!(probe(&named, &format!("/{verb}/{name}")).unwrap(), "changed");
        }
    }
    for verb in ["header", "header-bytes", "header-values"] {
        let seen = probe(&star, &format!("/response-{verb}/Set-Cookie")).unwrap();
        assert!(seen.is_empty() || seen == "nothing", "{verb}: {seen}");
        assert_eq!(probe(&named, &format!("/response-{verb}/set-cookie")).unwrap(), "s3cret");
    }
    for verb in ["response-set", "response-set-bytes", "response-append", "response-remove"] {
        let refused = probe(&star, &format!("/{verb}/set-cookie")).unwrap_err();
        assert!(refused.contains("plugins.star.grants.response.set"), "{verb}: {refused}");
        assert_eq!(probe(&named, &format!("/{verb}/set-cookie")).unwrap(), "changed", "{verb}");
    }
    let refused = probe(&star, "/respond/set-cookie").unwrap_err();
    assert!(refused.contains("set-cookie of a response"), "{refused}");
    assert_eq!(probe(&named, "/respond/set-cookie").unwrap(), "changed");
    let names = probe(&star, "/header-names/-").unwrap();
    assert!(names.contains("x-key") && !names.contains("cookie"), "{names}");
    assert!(!names.contains("authorization"), "{names}");
    assert!(!probe(&star, "/response-header-names/-").unwrap().contains("set-cookie"));
    // Told once for each field, with the line to add, and nothing of the value.
    let told = log.lines("may not read");
    assert_eq!(told.iter().filter(|line| line.contains("\"cookie\"")).count(), 1, "{told:?}");
    assert!(told.iter().all(|line| line.contains("plugins.star.grants")), "{told:?}");
    assert!(!log.text().contains("s3cret"));
}

#[test]
fn a_plugin_touches_only_what_it_is_granted() {
    let request = HeadGrant {
        read: only(&["accept"]),
        set: only(&["x-saw", "x-mine"]),
        ..HeadGrant::default()
    };
    let response =
        HeadGrant { read: only(&["server"]), set: only(&["x-saw"]), ..HeadGrant::default() };
    let narrow = prober("narrow", request, response);
    let wide = prober("wide", HeadGrant::default(), HeadGrant::default());
    for (target, wanted) in [
        ("/header/accept", "text/html"),
        ("/header/x-key", "nothing"),
        ("/header-values/x-many", ""),
        ("/header-names/-", "accept"),
        ("/header/host", "nothing"),
        ("/late-header/x-key", "nothing"),
        ("/set/x-mine", "changed"),
        ("/response-header-names/-", "server"),
        ("/response-header/x-key", "nothing"),
    ] {
        assert_eq!(probe(&narrow, target).as_deref(), Ok(wanted), "{target}");
    }
    for (target, part) in [
        ("/set/x-other", "x-other of a request"),
        ("/append/accept", "accept of a request"),
        ("/remove/user-agent", "user-agent of a request"),
        ("/method/-", ":method of a request"),
        ("/path/-", ":path of a request"),
        ("/query/-", ":path of a request"),
        ("/authority/-", ":authority of a request"),
        ("/respond/x-pot", "x-pot of a response"),
        ("/response-set/x-other", "x-other of a response"),
        ("/response-remove/server", "server of a response"),
        ("/response-status/-", ":status of a response"),
    ] {
        let refused = probe(&narrow, target).unwrap_err();
        assert!(refused.contains(&format!("may not change {part}")), "{target}: {refused}");
        assert_eq!(probe(&wide, target).as_deref(), Ok("changed"), "{target}");
    }
    let parts = HeadGrant {
        read: only(&[]),
        set: only(&[":method", ":path", ":authority"]),
        ..HeadGrant::default()
    };
    let parts = prober(
        "parts",
        parts,
        HeadGrant { read: only(&[]), set: only(&[":status"]), ..HeadGrant::default() },
    );
    for target in ["/method/-", "/path/-", "/query/-", "/authority/-", "/response-status/-"] {
        assert_eq!(probe(&parts, target).as_deref(), Ok("changed"), "{target}");
    }
}

#[test]
fn a_plugin_is_held_to_what_it_says_it_needs() {
    let manifest = "name: p\nversion: 1.0.0\nworlds: [filter]\n\
                    grants: {request: {read: [accept, cookie], set: [x-saw]}}\n";
    let component = std::fs::read(guest("prober")).unwrap();
    let (component, _) =
        crate::config::embed(&component, manifest, Path::new("plugin.yaml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.wasm");
    std::fs::write(&file, component).unwrap();
    let mut config = config(file, serde_json::Value::Null);
    config.grants.request.read = only(&["*", "cookie", "authorization"]);
    let plugin = engine().load("modest", &config, &upstreams()).unwrap();
    let hooks = Hooks::new(plugin, &config.config).unwrap();
    assert_eq!(probe(&hooks, "/header/cookie").as_deref(), Ok("s3cret"));
    assert_eq!(probe(&hooks, "/header/authorization").as_deref(), Ok("nothing"));
    assert_eq!(probe(&hooks, "/header/x-key").as_deref(), Ok("nothing"));
    assert!(probe(&hooks, "/set/x-other").is_err());
    // It says nothing about responses: as granted.
    assert_eq!(probe(&hooks, "/response-set/x-other").as_deref(), Ok("changed"));
}

#[test]
fn an_unsigned_component_does_not_load_where_signatures_are_asked_for() {
    let mut config = config(guest("filter"), serde_json::Value::Null);
    config.keys.push([7; 32]);
    let error = engine().load("unsigned", &config, &upstreams()).unwrap_err();
    assert!(matches!(error, PluginError::Unsigned(_)), "{error}");
    assert!(error.to_string().contains("witgate plugin sign"), "{error}");
}

#[test]
fn state_is_shared_and_survives_a_swap() {
    let count = |name: &str| {
        let hooks = Hooks::new(load(name, "filter"), &serde_json::Value::Null).unwrap();
        let mut head = request("/all");
        on_request(&hooks, &connection(), &mut head).unwrap();
        field(&head.headers, "x-state").to_owned()
    };
    assert_eq!(count("kept"), "Ok(1) value None");
    assert_eq!(count("kept"), "Ok(2) value None");
    assert_eq!(count("other"), "Ok(1) value None");
}

#[test]
fn a_filter_sees_the_beginning_of_a_body() {
    let plugin = load("body", "filter");
    let hooks = Hooks::new(plugin, &serde_json::json!({"body": "yes"})).unwrap();
    assert_eq!(
        hooks.hooked(),
        Hooked { request: true, request_body_bytes_max: Some(10), response: false }
    );
    let mut head = request("/");
    hooks.on_request_body(&connection(), &mut head, b"0123456789", false).unwrap();
    assert_eq!(field(&head.headers, "x-prefix"), "0123456789");
    assert_eq!(field(&head.headers, "x-complete"), "no");
    let decision = hooks.on_request_body(&connection(), &mut head, b"bad", true).unwrap();
    assert!(matches!(decision, Decision::Respond { status: StatusCode::BAD_REQUEST, .. }));
}

#[test]
fn hostile_calls_are_contained_and_undone() {
    let log = Log::capture();
    let hooks = hooks("hostile");
    let connection = connection();
    for (path, wanted) in [
        ("/loop", "raise plugins.hostile.limits.deadline"),
        ("/sleep", "raise plugins.hostile.limits.deadline"),
        ("/memory", "raise plugins.hostile.limits.memory"),
        ("/output", "raise plugins.hostile.limits.output"),
        ("/body", "raise plugins.hostile.limits.output"),
        ("/log", "raise plugins.hostile.limits.output"),
        ("/stdout", "raise plugins.hostile.limits.output"),
        ("/recursion", "call stack exhausted"),
        ("/panic", "the guest's own words"),
        ("/exit", "the plugin called exit"),
        ("/handles", "handles and drops none"),
        ("/name", "is not a field name"),
        ("/value", "bytes that no field value may have"),
        ("/owned", "the gateway owns the field content-length"),
        ("/host", "the gateway owns the field host"),
        ("/path", "a path is percent-encoded"),
        ("/method", "CONNECT"),
        ("/authority", "is not a host"),
        ("/status", "99 is not a status"),
        ("/respond-owned", "the gateway owns the field transfer-encoding"),
        ("/redirect", "200 is not a redirect"),
    ] {
        let mut head = request(&format!("{path}?q=1"));
        let before = text(&head);
        let started = Instant::now();
        let error = on_request(&hooks, &connection, &mut head).unwrap_err();
        assert!(error.to_string().contains(wanted), "{path}: {error}");
        assert!(error.to_string().contains("plugin hostile ("), "{error}");
        assert_eq!(text(&head), before, "{path}");
        assert!(started.elapsed() < Duration::from_secs(20), "{path}");
        // The next one is served, and sees nothing of the last.
        let mut head = request("/fine");
        let decision = on_request(&hooks, &connection, &mut head).unwrap();
        assert!(matches!(decision, Decision::Redirect { status: 307, .. }), "{path}");
        assert_eq!(head.target, "/changed");
        assert_eq!(field(&head.headers, "x-touched"), "yes");
    }
    let mut head = request("/upstream");
    let error = hooks.route(&connection, &mut head).unwrap_err();
    assert!(error.to_string().contains("no upstream called \"nowhere\""), "{error}");
    let error = on_request(&hooks, &connection, &mut head).unwrap_err();
    assert!(error.to_string().contains("only `router.route`"), "{error}");
    // Its state is full, which is an answer and no trap.
    on_request(&hooks, &connection, &mut request("/state")).unwrap();

    let panics = log.lines("the guest's own words");
    let panic = panics.first().expect("the panic is logged");
    for part in ["plugin=\"hostile\"", "request=\"request-1\"", "digest=", "backtrace="] {
        assert!(panic.contains(part), "{part} in {panic}");
    }
    assert!(!log.lines("misbehave").is_empty(), "the backtrace names functions: {}", log.text());
}

#[test]
fn hostile_responses_are_undone() {
    let hooks = hooks("hostile");
    for path in ["/panic", "/response-status", "/response-owned"] {
        let (mut head, mut answer) = (request(path), response(200));
        let before = format!("{answer:?}");
        on_response(&hooks, &connection(), &mut head, &mut answer).unwrap_err();
        assert_eq!(format!("{:?}", answer.status), "200", "{path}");
        assert_eq!(answer.headers, response(200).headers, "{path}: {before}");
    }
    let hooks = super::tests::hooks("filter");
    let (mut head, mut answer) = (request("/edit-late"), response(200));
    let error = on_response(&hooks, &connection(), &mut head, &mut answer).unwrap_err();
    assert!(error.to_string().contains("the request has been sent"), "{error}");
}

#[test]
fn a_plugin_that_only_fails_is_left_alone() {
    let hooks = hooks("hostile");
    let connection = connection();
    for _ in 0..20 {
        let error = on_request(&hooks, &connection, &mut request("/panic")).unwrap_err();
        assert!(matches!(error, PluginError::Trap { .. }), "{error}");
    }
    let error = on_request(&hooks, &connection, &mut request("/fine")).unwrap_err();
    assert!(matches!(error, PluginError::BreakerOpen { .. }), "{error}");
    assert!(error.to_string().contains("the guest's own words"), "{error}");
}

#[test]
fn what_cannot_work_does_not_load() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let whole = std::fs::read(guest("router")).unwrap();
    let alien = r#"(component (import "other:package/thing@1.0.0" (instance
        (export "f" (func)))))"#;
    let newer = r#"(component
        (import "witgate:plugin/log@0.1.9" (instance (export "shout" (func))))
        (core module $m (func (export "f")))
        (core instance $i (instantiate $m)))"#;
    let at_start = |what: &str| serde_json::json!({ "at-start": what });
    let null = || serde_json::Value::Null;
    for (path, config_json, wanted) in [
        (folder.path().join("absent.wasm"), null(), "cannot read the component of plugin bad"),
        (file("empty.wasm", b""), null(), "is not a component"),
        (file("text.wasm", b"hello"), null(), "is not a component"),
        (file("cut.wasm", &whole[..whole.len() / 2]), null(), "is not a component"),
        (file("module.wasm", b"\0asm\x01\0\0\0"), null(), "is not a component"),
        (file("none.wasm", &wat::parse_str("(component)").unwrap()), null(), "is no plugin"),
        (file("alien.wasm", &wat::parse_str(alien).unwrap()), null(), "is no plugin"),
        (file("newer.wasm", &wat::parse_str(newer).unwrap()), null(), "is no plugin"),
        (guest("filter_with_http"), null(), "may not use: it runs inside a request or handshake"),
        (guest("router"), serde_json::json!({"fail": "say why"}), "configuration: say why"),
        (guest("solver"), serde_json::json!({"fail": "say why"}), "configuration: say why"),
        (guest("filter"), serde_json::json!({"hooks": "request,dance"}), "hook \"dance\""),
        (guest("hostile"), at_start("panic"), "failed in plugin.configure: "),
        (guest("hostile"), at_start("panic"), "the guest's own words"),
        (guest("hostile"), at_start("loop"), "limits.deadline"),
        (guest("hostile"), at_start("memory"), "limits.memory"),
        (guest("hostile"), at_start("request"), "only valid inside a hook"),
    ] {
        let shown = path.display().to_string();
        let error = engine().load("bad", &config(path, config_json), &upstreams()).unwrap_err();
        assert!(error.to_string().contains(wanted), "{shown}: {error}");
        assert!(error.to_string().contains("plugin bad ("), "{error}");
        assert!(error.to_string().contains(&shown), "{error}");
    }
}

#[test]
fn unknown_imports_are_named() {
    let component = |import: &str| {
        wat::parse_str(format!(
            r#"(component
                (import "{import}" (instance (export "f" (func))))
                (core module $m
                    (memory (export "memory") 1)
                    (func (export "r") (param i32 i32 i32 i32) (result i32) i32.const 0)
                    (func (export "c") (param i32 i32) (result i32) i32.const 1024)
                    (func (export "h")))
                (core instance $i (instantiate $m))
                (alias core export $i "memory" (core memory $memory))
                (func $c (param "config" string) (result (result (list string) (error string)))
                    (canon lift (core func $i "c") (memory $memory)
                        (realloc (core func $i "r"))))
                (func $h (canon lift (core func $i "h")))
                (instance $plugin (export "configure" (func $c)))
                (instance $router (export "route" (func $h)))
                (export "witgate:plugin/plugin@0.1.0" (instance $plugin))
                (export "witgate:plugin/router-hooks@0.1.3" (instance $router)))"#
        ))
        .unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    for import in
        ["other:package/thing@1.0.0", "witgate:plugin/log@0.1.9", "witgate:plugin/log@0.2.0"]
    {
        let path = folder.path().join("guest.wasm");
        std::fs::write(&path, component(import)).unwrap();
        let config = config(path, serde_json::Value::Null);
        let error = engine().load("bad", &config, &upstreams()).unwrap_err();
        assert!(matches!(error, PluginError::UnknownImport { .. }), "{error}");
        assert!(error.to_string().contains(import), "{error}");
        assert!(error.to_string().contains("witgate:plugin@0.1.0"), "{error}");
    }
    // What only exists for runtimes is there to link, and traps when called.
    let path = folder.path().join("wasi.wasm");
    std::fs::write(&path, component("wasi:nowhere/nothing@0.2.3")).unwrap();
    let config = config(path, serde_json::Value::Null);
    assert!(engine().load("fine", &config, &upstreams()).unwrap().is("router"));
}

#[test]
fn compiled_code_is_kept_and_rebuilt_when_broken() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("compiled");
    let config = config(guest("router"), serde_json::Value::Null);
    let load = || {
        let engine = Engine::start(cache.clone()).unwrap();
        engine.load("router", &config, &upstreams()).map(|plugin| plugin.digest().to_owned())
    };
    let digest = load().unwrap();
    let files = || -> Vec<PathBuf> {
        std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let [file] = &files()[..] else { panic!("{:?}", files()) };
    assert!(file.file_name().unwrap().to_str().unwrap().starts_with(&digest));
    let mode = |path: &Path| {
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions())
    };
    assert_eq!(mode(file) & 0o777, 0o600);
    assert_eq!(mode(&cache) & 0o777, 0o700);
    let inode =
        |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    let written = inode(file);
    load().unwrap();
    assert_eq!(inode(file), written);
    std::fs::write(file, b"rubbish").unwrap();
    load().unwrap();
    assert!(std::fs::metadata(file).unwrap().len() > 1000);
    assert_eq!(files().len(), 1);
    // A plugin edited all day long leaves only the latest behind.
    for number in 0..100 {
        let path = cache.join(format!("{number}.cwasm"));
        std::fs::write(&path, b"old").unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    std::fs::remove_file(file).unwrap();
    load().unwrap();
    assert_eq!(files().len(), 64);
    assert!(file.exists());
}

/// A plugin that 80 routes use alike is one place of use on a worker, so a swap is one load and one
/// instance there.
#[test]
fn ten_thousand_swaps_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path().join("compiled")).unwrap();
    let small =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/museum/0.1.0/rust-router.wasm");
    let one = std::fs::read(small).unwrap();
    let two = crate::config::section::put(&one, "another digest", b"").unwrap();
    let configs = [one, two].map(|component| {
        let file = folder.path().join(format!("{}.wasm", component.len()));
        std::fs::write(&file, component).unwrap();
        config(file, serde_json::Value::Null)
    });
    let connection = connection();
    let mut live: Option<Hooks> = None;
    let mut rss_after_warm_up = 0;
    for turn in 0..10_000 {
        let plugin = engine.load("swapped", &configs[turn % 2], &upstreams()).unwrap();
        live = Some(Hooks::new(plugin, &serde_json::Value::Null).unwrap());
        let mut head = request("/web");
        live.as_ref().unwrap().route(&connection, &mut head).unwrap();
        assert_eq!(field(&head.headers, "x-router"), "one");
        // On a busy machine a start can look long enough for one more to be made ready, and for the
        // last to be ended elsewhere.
        assert!(engine.instances() < 20, "{} instances", engine.instances());
        if turn == 1_000 {
            rss_after_warm_up = rss_kib();
        }
    }
    // Other tests run in this process at the same time, so this only finds what grows with swaps.
    let growth = rss_kib().saturating_sub(rss_after_warm_up);
    assert!(growth < 200_000, "{growth} KiB for 9000 swaps");
    let totals = live.as_ref().unwrap().plugin().stats().totals();
    assert_eq!((totals.calls[0], totals.instances), (10_000, 10_000));
    drop(live);
    let began = Instant::now();
    while engine.instances() > 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} instances", engine.instances());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn rss_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn an_instance_serves_as_many_calls_as_it_may() {
    let seen = |name: &str, calls_max: Option<u64>| {
        let mut config = config(guest("prober"), serde_json::Value::Null);
        config.reuse = Reuse { calls_max };
        let plugin = engine().load(name, &config, &upstreams()).unwrap();
        let hooks = Hooks::new(plugin, &config.config).unwrap();
        let mut seen = Vec::new();
        for target in ["/remember/a", "/remember/b", "/remember/c", "/remember/d"] {
            let mut head = request(target);
            on_request(&hooks, &connection(), &mut head).unwrap();
            seen.push(field(&head.headers, "x-saw").to_owned());
        }
        (seen, hooks.plugin().stats().totals().instances)
    };
    let texts = |texts: [&str; 4]| texts.map(str::to_owned).to_vec();
    let kept = texts(["nothing", "a", "b", "c"]);
    assert_eq!(seen("kept", None), (kept, 1));
    // Nothing of one request reaches another.
    let fresh = texts(["nothing", "nothing", "nothing", "nothing"]);
    assert_eq!(seen("fresh", Some(1)), (fresh, 4));
    let some = texts(["nothing", "a", "b", "nothing"]);
    assert_eq!(seen("some", Some(3)), (some, 2));
}

/// The prober, whose `configure` computes for some milliseconds.
fn slow_starter(name: &str, calls_max: Option<u64>) -> (Arc<Plugin>, serde_json::Value) {
    let start = serde_json::json!({"start-turns": "20000000"});
    let mut config = config(guest("prober"), start.clone());
    config.reuse = Reuse { calls_max };
    (engine().load(name, &config, &upstreams()).unwrap(), start)
}

fn wait_for_ready(reserve: &Reserve, count: usize) {
    let began = Instant::now();
    while reserve.count() < count {
        assert!(began.elapsed() < Duration::from_secs(60), "no instance is made ready");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nobody_waits_for_a_slow_start() {
    let (plugin, start) = slow_starter("slow", Some(1));
    let took = plugin.start_time.shortest().unwrap();
    let hooks = Hooks::new(Arc::clone(&plugin), &start).unwrap();
    let reserve = Reserve::of(&plugin, &start);
    // Every call has an instance of its own, that one in four ends by a trap, and each was there before.
    let mut quickest = Duration::MAX;
    for turn in 0..12 {
        wait_for_ready(&reserve, 1);
        let mut head = request(if turn % 4 == 0 { "/set/host" } else { "/remember/a" });
        let began = Instant::now();
        let outcome = hooks.on_request(&connection(), &mut head, false);
        quickest = quickest.min(began.elapsed());
        assert_eq!(outcome.is_err(), turn % 4 == 0, "{outcome:?}");
        assert!(reserve.count() <= 1);
    }
    assert!(quickest < took / 2, "a call takes {quickest:?}, a start {took:?}");
    let totals = plugin.stats().totals();
    assert_eq!((totals.instances, totals.instances_waited_for), (12, 0));
    // Who comes faster than instances can be started starts them.
    for _ in 0..5 {
        hooks.on_request(&connection(), &mut request("/remember/a"), false).unwrap();
    }
    let totals = plugin.stats().totals();
    assert!(totals.instances_waited_for > 0 && totals.instances == 17, "{totals:?}");
}

#[test]
fn a_generation_brings_its_instances_along() {
    let (plugin, start) = slow_starter("brought", None);
    let reserve = Reserve::of(&plugin, &start);
    reserve.prepare(1).unwrap();
    reserve.prepare(3).unwrap();
    // No more than asked for, however often.
    reserve.prepare(3).unwrap();
    assert_eq!((reserve.count(), plugin.stats().totals().instances_ready), (3, 3));
    let of_workers: Vec<_> = (0..3)
        .map(|_| {
            let (plugin, start) = (Arc::clone(&plugin), start.clone());
            std::thread::spawn(move || {
                let hooks = Hooks::new(plugin, &start).unwrap();
                hooks.on_request(&connection(), &mut request("/remember/a"), false).unwrap();
            })
        })
        .collect();
    of_workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!(plugin.stats().totals().instances, 3);
    drop(reserve);
    let began = Instant::now();
    while plugin.stats().totals().instances_ready > 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "what nobody can use is kept");
        std::thread::sleep(Duration::from_millis(1));
    }
    // A quick start is not worth it.
    let quick = load("quick", "router");
    for _ in 0..20 {
        drop(Hooks::new(Arc::clone(&quick), &serde_json::Value::Null).unwrap());
    }
    let reserve = Reserve::of(&quick, &serde_json::Value::Null);
    reserve.prepare(3).unwrap();
    assert_eq!(reserve.count(), 0);
}

#[test]
fn state_outlives_a_hundred_fresh_instances() {
    let mut config = config(guest("filter"), serde_json::Value::Null);
    config.reuse = Reuse { calls_max: Some(1) };
    let plugin = engine().load("counted", &config, &upstreams()).unwrap();
    let hooks = Hooks::new(plugin, &config.config).unwrap();
    for turn in 1..=100 {
        let mut head = request("/all");
        on_request(&hooks, &connection(), &mut head).unwrap();
        assert_eq!(field(&head.headers, "x-state"), format!("Ok({turn}) value None"));
    }
    assert_eq!(hooks.plugin().stats().totals().instances, 100);
}

#[test]
fn one_trap_in_ten_of_ten_thousand_calls_costs_itself_alone() {
    let hooks = hooks("hostile");
    let connection = connection();
    for turn in 0..10_000 {
        let is_bad = turn % 10 == 0;
        let mut head = request(if is_bad { "/panic" } else { "/fine" });
        let decision = on_request(&hooks, &connection, &mut head);
        assert_eq!(decision.is_err(), is_bad, "{turn}");
    }
}

#[test]
fn inspection_tells_what_a_component_is() {
    let found = engine().inspect(&guest("hostile")).unwrap();
    assert_eq!(found.worlds, ["router", "filter"]);
    assert!(found.imports.iter().any(|import| import == "witgate:plugin/request@0.1.0"));
    assert!(found.exports.iter().any(|export| export == "witgate:plugin/plugin@0.1.0"));
    let found = engine().inspect(&guest("solver")).unwrap();
    assert_eq!(found.worlds, ["dns-solver"]);
}

#[test]
fn what_a_call_costs() {
    let plugin = load("timed", "filter");
    let noop = Hooks::new(Arc::clone(&plugin), &serde_json::json!({"noop": "yes"})).unwrap();
    let full = Hooks::new(plugin, &serde_json::Value::Null).unwrap();
    let connection = connection();
    for (name, hooks) in [("nothing", noop), ("3 reads, 3 sets", full)] {
        let mut head = request("/path");
        let batch = || {
            let started = Instant::now();
            for _ in 0..1000 {
                on_request(&hooks, &connection, &mut head).unwrap();
            }
            started.elapsed() / 1000
        };
        let best = std::iter::repeat_with(batch).take(20).min().unwrap();
        println!("{name}: {best:?} a call at best, with this build's optimisation");
    }
}

/// A provider on loopback: answers each request by its path, and keeps what it was sent.
struct Provider {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Provider {
    fn start() -> Self {
        use std::io::{BufRead, BufReader, Read, Write};

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap() > 0 {}
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |length| length.parse().unwrap());
                let mut body = vec![0; length];
                stream.read_exact(&mut body).unwrap();
                let sent = format!("{head}{}", String::from_utf8_lossy(&body));
                kept.lock().unwrap().push(sent.clone());
                let (fields, body) = answer(&sent);
                let status =
                    if fields.starts_with("location") { "307 Over There" } else { "200 OK" };
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
                let _ = write!(stream.get_mut(), "{head}{fields}\r\n{body}");
            }
        });
        Self { url, seen }
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn answer(sent: &str) -> (String, String) {
    use base64::Engine as _;

    let all: String = sent.split_whitespace().collect::<Vec<_>>().join(" ");
    match sent.split([' ', '?']).nth(1).unwrap_or_default() {
        "/echo" | "/records" => (String::new(), all),
        "/echo-base64" => {
            let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
            (String::new(), format!("{} {}", encode(SECRET), encode(&format!("me:{SECRET}"))))
        }
        "/echo-percent" => (String::new(), "s3cr%2Ft%22value s3cr%2ft%22value".to_owned()),
        "/echo-header" => (format!("x-echo: {SECRET}\r\n"), String::new()),
        "/redirect" => ("location: /zones/victim\r\n".to_owned(), String::new()),
        "/token" => {
            (String::new(), r#"{"access_token":"t0ken-of-today","expires_in":60}"#.to_owned())
        }
        "/login" => ("set-cookie: sid=s3ssion\r\n".to_owned(), r#"{"code":1000}"#.to_owned()),
        "/machine" => {
            (String::new(), r#"{"access_token":"t0ken-of-the-machine","expires_in":60}"#.to_owned())
        }
        "/latest/api/token" => (String::new(), "t0ken-of-imds".to_owned()),
        "/latest/meta-data/iam/security-credentials/" => (String::new(), "a-role".to_owned()),
        "/latest/meta-data/iam/security-credentials/a-role" => (
            String::new(),
            r#"{"AccessKeyId":"ASIAROLE","SecretAccessKey":"s3cret-of-role","Token":"s3ssion-of-role"}"#
                .to_owned(),
        ),
        "/zones" => (
            String::new(),
            r#"{"result":[{"id":"z1","name":"example.com"},{"id":"zv","name":"victim.example"}]}"#
                .to_owned(),
        ),
        "/zones/z1/records" if sent.starts_with("GET") => (
            String::new(),
            r#"{"result":[
            {"id":"own-1","name":"_acme-challenge.example.com","type":"TXT","content":"one"},
            {"id":"foreign","name":"_acme-challenge.example.com","type":"TXT","content":"kept"},
            {"id":"www","name":"www.example.com","type":"A","content":"one"}]}"#
                .to_owned(),
        ),
        "/zones/z1/records" => (String::new(), r#"{"result":{"id":"own-2"}}"#.to_owned()),
        _ => (String::new(), "fine".to_owned()),
    }
}

const SECRET: &str = "s3cr/t\"value";

fn solver(provider: &Provider, name: &str, grants: &[&str]) -> Arc<Plugin> {
    solver_of(guest("solver"), provider, name, grants)
}

fn solver_of(component: PathBuf, provider: &Provider, name: &str, grants: &[&str]) -> Arc<Plugin> {
    solver_with(component, serde_json::json!({ "url": provider.url }), provider, name, grants)
}

fn solver_with(
    component: PathBuf,
    own: serde_json::Value,
    provider: &Provider,
    name: &str,
    grants: &[&str],
) -> Arc<Plugin> {
    let config = solver_config(component, own, provider, grants);
    engine().load(name, &config, &upstreams()).unwrap()
}

fn solver_config(
    component: PathBuf,
    own: serde_json::Value,
    provider: &Provider,
    grants: &[&str],
) -> PluginConfig {
    let authority = provider.url.strip_prefix("http://").unwrap();
    let (host, port) = authority.split_once(':').unwrap();
    let mut config = config(component, own);
    config.limits.solver_deadline = Duration::from_millis(500);
    let source = SecretRef::Inline(SecretText::new(SECRET.to_owned()));
    config.secrets.insert("token".to_owned(), Secret { source, hosts: Vec::new() });
    for path in grants {
        config.grants.http.push(HttpGrant {
            pattern: format!("{}{path}", provider.url),
            methods: Vec::new(),
            scheme: "http".to_owned(),
            host: host.to_owned(),
            port: port.parse().unwrap(),
            path: (*path).to_owned(),
        });
    }
    config
}

fn present(plugin: &Arc<Plugin>, handle: &str) -> Result<String, SolverFailure> {
    let solver = plugin.solver();
    let at = RecordSet {
        zone: Zone { name: "example.com".to_owned(), handle: handle.to_owned() },
        name: "_acme-challenge.example.com".to_owned(),
        values: vec!["one".to_owned(), "two".to_owned()],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(solver.present(at, 60))
}

#[test]
fn a_solver_sends_secrets_it_never_sees() {
    let provider = Provider::start();
    let plugin = solver(&provider, "sends", &["/records"]);
    let returned = present(&plugin, "").unwrap();
    let [sent] = &provider.seen()[..] else { panic!() };
    for part in [
        "POST /records?key=s3cr%2Ft%22value HTTP/1.1\r\n",
        "x-api-key: s3cr/t\"value\r\n",
        "authorization: Basic bWU6czNjci90InZhbHVl\r\n",
        "accept-encoding: identity\r\n",
        "user-agent: witgate/",
        "\"t\":\"s3cr/t\\\"value\"}",
        "\"values\":\"one,two\",\"ttl\":60",
    ] {
        assert!(sent.contains(part), "{part} in {sent}");
    }
    assert!(sent.contains(&format!("host: {}", &provider.url["http://".len()..])), "{sent}");
    for part in [
        "/records?key=[secret:token] ",
        "x-api-key: [secret:token] ",
        "Basic [secret:basic] ",
        "\\\"t\\\":\\\"[secret:token]",
    ] {
        let part = part.replace("\\\"", "\"");
        assert!(returned.contains(&part), "{part} in {returned}");
    }
    assert!(!returned.contains("s3cr"), "{returned}");

    let solver = plugin.solver();
    assert!(solver.label().starts_with("sends (sha256 "));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let zones = vec!["a.example.com".to_owned(), "example.com".to_owned()];
        assert_eq!(solver.find_zone(zones).await.unwrap().0, "example.com");
        assert_eq!(solver.find_zone(Vec::new()).await.unwrap_err().code, "zone-not-found");
        let traits = solver.traits().await.unwrap();
        assert_eq!(traits, [("parallelism".to_owned(), "per-zone".to_owned())]);
        let zone = Zone { name: "example.com".to_owned(), handle: String::new() };
        assert_eq!(solver.poll(zone.clone(), "9".to_owned()).await, Ok(Some(9)));
        let at = RecordSet { zone, name: "x.example.com".to_owned(), values: Vec::new() };
        let no = solver.cleanup(at, String::new()).await.unwrap_err();
        assert_eq!(
            (no.code.as_str(), no.retry_after),
            ("rate-limited", Some(Duration::from_secs(7)))
        );
    });
}

#[test]
fn a_solver_reaches_only_what_is_granted() {
    let provider = Provider::start();
    let plugin = solver(&provider, "narrow", &["/other"]);
    let no = present(&plugin, "").unwrap_err();
    assert_eq!(no.code, "denied");
    let line = format!("plugins.narrow.grants.http: [\"POST {}/records\"]", provider.url);
    assert!(no.message.contains(&line), "{no}");
    let no = present(&plugin, "elsewhere").unwrap_err();
    assert_eq!(no.code, "denied");
    assert!(no.message.contains("[\"GET https://elsewhere.example/v1/zones\"]"), "{no}");
    assert!(provider.seen().is_empty());

    let plugin = solver(&provider, "wide", &["/*"]);
    let no = present(&plugin, "unknown").unwrap_err();
    assert_eq!(no.code, "unknown-secret");
    assert!(no.message.contains("plugins.wide.secrets.nobody"), "{no}");
    let no = present(&plugin, "host-field").unwrap_err();
    assert_eq!(no.code, "bad-request");
    assert!(provider.seen().is_empty());
    let no = present(&plugin, "many").unwrap_err();
    assert_eq!(no.code, "denied");
    assert!(no.message.contains("plugins.wide.limits.requests"), "{no}");
    assert_eq!(provider.seen().len(), 5);
}

#[test]
fn a_thief_finds_no_secret() {
    let log = Log::capture();
    let provider = Provider::start();
    let plugin = solver(&provider, "thief", &["/*"]);
    let loot = present(&plugin, "thief").unwrap();
    assert!(provider.seen().iter().any(|sent| sent.contains(SECRET)), "the provider got it");
    let log = log.text();
    assert!(log.contains("environment []"), "{log}");
    for text in [&loot, &log] {
        for form in ["s3cr", "czNjci90InZhbHVl", "bWU6czNjci90InZhbHVl"] {
            assert!(!text.contains(form), "{form} in {text}");
        }
        assert!(text.contains("[secret:token]"), "{text}");
    }
}

/// A solver that does what it is told, with rules that are as good as those of the house.
fn burglar(provider: &Provider, name: &str, lines: &str) -> Arc<Plugin> {
    let manifest = r#"
name: burglar
version: 1.0.0
worlds: [dns-solver]
secrets: {token: {}}
guard:
  reads:
    - {at: "GET */zones?*", each: /result, zone: /name, zone-id: /id}
    - {at: "GET */zones/{zone-id}/records?name={name}", each: /result, name: /name, type: /type, value: /content, id: /id}
  writes:
    - {at: "POST */zones/{zone-id}/records", json: {type: TXT, name: "{name}", content: "{value}"}, id: /result/id}
    - DELETE */zones/{zone-id}/records/{id}
signing:
  ovh: {scheme: ovh, application-key: token, application-secret: token, consumer-key: token}
sessions:
  today: {grant: client-credentials, url: "@/token", id: token, secret: token}
"#;
    let component = std::fs::read(guest("burglar")).unwrap();
    let own = serde_json::json!({"url": provider.url, "lines": lines});
    let (file, _folder) = embedded(&component, &manifest.replace('@', &provider.url));
    solver_with(file, own, provider, name, &["/*"])
}

/// A component with a plugin.yaml in it.
fn embedded(component: &[u8], manifest: &str) -> (PathBuf, tempfile::TempDir) {
    let file = Path::new("plugin.yaml");
    let (component, _) = crate::config::embed(component, manifest, file).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("embedded.wasm");
    std::fs::write(&file, component).unwrap();
    (file, folder)
}

/// The plugin's own part of a handle.
fn own(handle: &str) -> String {
    let Some(sealed) = handle.strip_prefix("witgate-proven:") else { return handle.to_owned() };
    let sealed: serde_json::Value = serde_json::from_str(sealed).unwrap();
    sealed["own"].as_str().unwrap().to_owned()
}

#[test]
fn a_solver_changes_nothing_but_the_records_of_its_order() {
    let log = Log::capture();
    let provider = Provider::start();
    let plugin = burglar(&provider, "burglar", "");
    let good = r#"{"type":"TXT","name":"_acme-challenge.example.com","content":"one"}"#;
    let look = "GET @/zones?page=1\nGET @/zones/z1/records?name=_acme-challenge.example.com";
    for line in [
        // Before anything is proven.
        format!("POST @/zones/z1/records {good}"),
        "DELETE @/zones/z1/records/own-1".to_owned(),
        // Other zones, names, types and values; more than was asked for.
        format!("{look}\nPOST @/zones/zv/records {good}"),
        format!("{look}\nPOST @/zones/z1/records {}", good.replace("_acme-challenge", "www")),
        format!("{look}\nPOST @/zones/z1/records {}", good.replace("TXT", "A")),
        format!("{look}\nPOST @/zones/z1/records {}", good.replace("\"one\"", "\"v=spf1 +all\"")),
        format!("{look}\nPOST @/zones/z1/records {}", good.replace('{', "{\"proxied\":true,")),
        format!("{look}\nPOST @/zones/z1/records [{good},{good}]"),
        // Records that are somebody else's, a whole zone, other methods and ways.
        format!("{look}\nDELETE @/zones/z1/records/foreign"),
        format!("{look}\nDELETE @/zones/z1/records/www"),
        format!("{look}\nDELETE @/zones/z1"),
        format!("{look}\nPUT @/zones/z1/records/own-1 {good}"),
        format!("{look}\nPATCH @/zones/z1 {{}}"),
        format!("{look}\nGET @/zones/z1^x-http-method-override=DELETE"),
        format!("{look}\nGET @/zones/z1?_method=DELETE"),
        format!("{look}\nPOST @/zones/z1/records?x=1 {good}"),
        format!("{look}\nPOST @/zones/z1/records/ {good}"),
        format!("{look}\nPOST @/zones/z1/../zv/records {good}"),
        format!("{look}\nPOST @/zones/z1%2frecords {good}"),
        // Echoes and redirects, with and without the secret; the way to a token.
        "POST @/echo {\"result\":{\"id\":\"www\"}}".to_owned(),
        "POST @/echo {{secret:token}}".to_owned(),
        "POST @/redirect {}".to_owned(),
        "POST @/token grant_type=client_credentials&client_secret={{secret:token}}".to_owned(),
        // Other hosts.
        "POST https://elsewhere.example/zones/z1/records {}".to_owned(),
    ] {
        let said = own(&present(&plugin, &line).unwrap());
        let last = said.lines().last().unwrap();
        assert!(
            last.starts_with("denied: ") || last.starts_with("bad-request: "),
            "{line}: {said}"
        );
        let seen = provider.seen();
        assert!(seen.iter().all(|sent| sent.starts_with("GET /zones")), "{line}: {seen:?}");
    }
    // A redirect is an answer, and is not followed.
    assert!(present(&plugin, "GET @/redirect").unwrap().starts_with("307 "));
    assert_eq!(provider.seen().len(), 1);
    let lines = log.lines("refused a request");
    assert!(lines.len() > 15, "{lines:?}");
    let wanted = ["burglar", "digest", "/zones/z1/records", "www.example.com"];
    let is_told = |line: &String| wanted.iter().all(|word| line.contains(word));
    assert!(lines.iter().any(is_told), "{lines:?}");

    // What the order is for is done, though of two keys of one name only one is sent.
    let twice = good.replace('{', "{\"name\":\"www.example.com\",");
    let said = present(&plugin, &format!("{look}\nPOST @/zones/z1/records {twice}")).unwrap();
    assert!(said.contains("own-2"), "{said}");
    let seen = provider.seen();
    assert!(!seen.iter().any(|sent| sent.contains("www.example.com")), "{seen:?}");
}

#[test]
fn proofs_come_from_the_provider_and_survive_the_plugin() {
    let provider = Provider::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (name, values) = ("_acme-challenge.example.com".to_owned(), vec!["one".to_owned()]);
    let good = r#"{"type":"TXT","name":"_acme-challenge.example.com","content":"one"}"#;
    let candidates = vec![name.clone(), "example.com".to_owned()];
    let solver = |name: &str, lines: &str| burglar(&provider, name, lines).solver();
    let set = |handle: String| RecordSet {
        zone: Zone { name: "example.com".to_owned(), handle },
        name: name.clone(),
        values: values.clone(),
    };
    // The id of the zone was proven by `find-zone`, and is known to `present` in another store.
    let finder = solver("finder", "GET @/zones?page=1");
    let (_, sealed) = runtime.block_on(finder.find_zone(candidates.clone())).unwrap();
    let own = sealed.split_once("\"own\":\"").unwrap().1.split_once("\",\"proven").unwrap().0;
    let with = |lines: &str| sealed.replace(own, &lines.replace('"', "\\\"").replace('\n', "\\n"));
    let add = format!("POST @/zones/z1/records {good}");
    let handle = runtime.block_on(finder.present(set(with(&add)), 60)).unwrap();
    assert!(handle.contains("own-2"), "{handle}");
    // The id of the record is known to `cleanup`; without it the same is refused.
    let remove = "DELETE @/zones/z1/records/own-2";
    provider.seen();
    let clean =
        |handle: &str| runtime.block_on(finder.cleanup(set(with(remove)), handle.to_owned()));
    assert!(!clean("").unwrap_err().message.contains("200 "));
    assert!(provider.seen().is_empty());
    let said = clean(&handle).unwrap_err().message;
    assert!(provider.seen()[0].starts_with("DELETE /zones/z1/records/own-2"), "{said}");
    // A plugin cannot write a proof of its own, neither of a zone nor of a record.
    let forged = r#"witgate-proven:{"own":"","proven":["zv","www"]}"#;
    let handle = present(&burglar(&provider, "forger", ""), &format!("return {forged}")).unwrap();
    let said = clean(&handle.replace("own-2", "www")).unwrap_err().message;
    assert!(said.contains("denied"), "{said}");
    // Nothing changes a record in `find-zone` and `poll`.
    provider.seen();
    let early = solver("early", &add.replace('"', "'").replace('\'', ""));
    let _ = runtime.block_on(early.find_zone(vec!["example.com".to_owned()]));
    let zone = Zone { name: "example.com".to_owned(), handle: with(&add) };
    let no = runtime.block_on(finder.poll(zone, String::new())).unwrap_err();
    assert!(no.message.contains("may change nothing"), "{no}");
    assert!(provider.seen().is_empty());
}

#[test]
fn keys_that_sign_and_tokens_that_are_fetched_are_never_in_a_guest() {
    let provider = Provider::start();
    let plugin = burglar(&provider, "signer", "");
    let backwards: String = SECRET.chars().rev().collect();
    let token: String = "t0ken-of-today".chars().rev().collect();
    let lines = [
        "GET @/echo?k={{secret:token}}^x-ovh-signature={{sign:ovh}}^authorization=Bearer~{{token:today}}",
        "GET @/echo^authorization=Bearer~{{token:today}}",
        &format!("scan {backwards}"),
        &format!("scan {token}"),
        "scan :ohce/\n",
    ]
    .join("\n");
    let said = present(&plugin, &lines).unwrap();
    assert!(said.contains("found 0\nfound 0"), "{said}");
    assert!(said.contains("[secret:today]") && said.contains("[secret:token]"), "{said}");
    let seen = provider.seen();
    let sent: Vec<&str> = seen.iter().filter_map(|sent| sent.lines().next()).collect();
    let echo = "GET /echo?k=s3cr%2Ft%22value HTTP/1.1";
    assert_eq!(sent, ["POST /token HTTP/1.1", echo, "GET /echo HTTP/1.1"]);
    assert!(seen[0].contains("client_secret=s3cr%2Ft%22value"), "{}", seen[0]);
    assert!(seen[1].contains("x-ovh-signature: $1$") && seen[1].contains("x-ovh-timestamp: "));
    assert!(seen[1].contains("authorization: Bearer t0ken-of-today"), "{}", seen[1]);
    // What is in memory is found: the text that it was told to send.
    let said = present(&plugin, "scan ohce/@ TEG").unwrap();
    assert_eq!(said, "found 0", "only what is there");
    let said = present(&plugin, "GET @/echo\nscan ohce/@").unwrap();
    assert!(!said.ends_with("found 0"), "{said}");
    assert!(present(&plugin, "GET @/x^a={{sign:none}}").unwrap().contains("no signing none"));
    assert!(present(&plugin, "GET @/x^a={{token:none}}").unwrap().contains("no session none"));
}

#[test]
fn a_machines_own_credentials_are_used_and_never_seen() {
    let (provider, cloud) = (Provider::start(), Provider::start());
    let manifest = r#"
name: burglar
version: 1.0.0
worlds: [dns-solver]
secrets: {none: {}, token: {}, codes: {}}
guard: {writes: ["DELETE */nothing"]}
signing:
  aws: {scheme: aws-sigv4, key-id: none, secret: none, region: us-east-1, service: route53, otherwise: role}
sessions:
  today: {grant: client-credentials, url: "@/token", id: none, secret: none, otherwise: machine}
  machine: {grant: metadata, url: "%/machine?of=me", headers: {metadata-flavor: Google}}
  role: {grant: aws-role, url: "%", container: "%"}
  two-factors:
    grant: login
    url: "@/login"
    json: {user: "{{secret:token}}"}
    expect: {/code: 1000}
    cookie: sid
    lifetime-seconds: 60
    unlock: {secret: codes, json: {method: account.unlock, tan: "{{totp}}"}}
"#;
    let text = manifest.replace('@', &provider.url).replace('%', &cloud.url);
    let component = std::fs::read(guest("burglar")).unwrap();
    let (file, _folder) = embedded(&component, &text);
    let own = serde_json::json!({"url": provider.url, "lines": ""});
    let mut config = solver_config(file.clone(), own.clone(), &provider, &["/*"]);
    config.grants.http.extend(solver_config(file, own, &cloud, &["/*"]).grants.http);
    let codes = SecretRef::Inline(SecretText::new("JBSWY3DPEHPK3PXP".to_owned()));
    config.secrets.insert("codes".to_owned(), Secret { source: codes, hosts: Vec::new() });
    (config.limits.solver_deadline, config.limits.requests_max) = (Duration::from_secs(20), 20);
    let plugin = engine().load("machine", &config, &upstreams()).unwrap();
    let secrets =
        ["t0ken-of-the-machine", "t0ken-of-imds", "s3cret-of-role", "s3ssion-of-role", "s3ssion"];
    let mut lines = vec![
        "GET @/echo^authorization=Bearer~{{token:today}}".to_owned(),
        "GET @/echo^authorization={{sign:aws}}".to_owned(),
        "GET @/echo^cookie=sid={{token:two-factors}}".to_owned(),
        // Not even by way of a question that looks harmless.
        format!("GET {}/machine?of=me^metadata-flavor=Google", cloud.url),
        format!("GET {}/latest/meta-data/iam/security-credentials/a-role", cloud.url),
    ];
    lines.extend(secrets.iter().map(|it| format!("scan {}", it.chars().rev().collect::<String>())));
    let log = Log::capture();
    let said = present(&plugin, &lines.join("\n")).unwrap();
    assert_eq!(said.matches("denied: ").count(), 2, "{said}");
    assert_eq!(said.matches("found 0").count(), secrets.len(), "{said}");
    assert!(secrets.iter().all(|secret| !said.contains(secret)), "{said}");
    assert_eq!(log.lines("credentials").len(), 2);
    let (sent, asked) = (provider.seen(), cloud.seen());
    let [bearer, signed, login, unlock, session] = &sent[..] else { panic!("{sent:?}") };
    assert!(bearer.contains("authorization: Bearer t0ken-of-the-machine\r\n"), "{bearer}");
    assert!(signed.contains("authorization: AWS4-HMAC-SHA256 Credential=ASIAROLE/"), "{signed}");
    assert!(signed.contains("x-amz-security-token: s3ssion-of-role\r\n"), "{signed}");
    assert!(login.starts_with("POST /login") && !login.contains("cookie:"), "{login}");
    assert!(unlock.contains("cookie: sid=s3ssion\r\n"), "{unlock}");
    let code = unlock.split("\"tan\":\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(code.len() == 6 && code.bytes().all(|digit| digit.is_ascii_digit()), "{unlock}");
    assert!(session.contains("cookie: sid=s3ssion\r\n"), "{session}");
    let first: Vec<&str> = asked.iter().filter_map(|sent| sent.split(" HTTP/").next()).collect();
    let place = "/latest/meta-data/iam/security-credentials/";
    let wanted = [
        "GET /machine?of=me".to_owned(),
        "PUT /latest/api/token".to_owned(),
        format!("GET {place}"),
        format!("GET {place}a-role"),
    ];
    assert_eq!(first, wanted);
    assert!(asked[0].contains("metadata-flavor: Google\r\n"), "{}", asked[0]);
    assert!(asked[1].contains("x-aws-ec2-metadata-token-ttl-seconds: 300\r\n"), "{}", asked[1]);
    assert!(asked[3].contains("x-aws-ec2-metadata-token: t0ken-of-imds\r\n"), "{}", asked[3]);
}

#[test]
fn a_solver_without_a_guard_is_refused_where_one_is_wanted() {
    let provider = Provider::start();
    let own = serde_json::json!({"url": provider.url, "lines": ""});
    let load = |component: PathBuf, needs_guard: bool| {
        let mut config = solver_config(component, own.clone(), &provider, &["/*"]);
        config.needs_guard = needs_guard;
        engine().load("unguarded", &config, &upstreams())
    };
    let log = Log::capture();
    load(guest("solver"), false).unwrap();
    assert_eq!(log.lines("has no `guard`").len(), 1, "it is warned about");
    let refused = load(guest("solver"), true).unwrap_err();
    assert!(matches!(refused, PluginError::Unguarded(_)));
    assert!(refused.to_string().contains("unguarded-solvers: refuse"), "{refused}");
    let manifest =
        "name: b\nversion: '1'\nworlds: [dns-solver]\nguard: {writes: [\"DELETE */x\"]}\n";
    let (guarded, _folder) = embedded(&std::fs::read(guest("burglar")).unwrap(), manifest);
    load(guarded, true).unwrap();
}

#[test]
fn a_solver_writes_in_the_zones_of_its_stanza_alone() {
    let provider = Provider::start();
    let url = serde_json::json!({ "url": provider.url });
    let mut config = solver_config(guest("solver"), url, &provider, &["/*"]);
    config.zones = vec!["example.com".to_owned()];
    let plugin = engine().load("zoned", &config, &upstreams()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let find = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        runtime.block_on(plugin.solver().find_zone(names))
    };
    assert_eq!(find(&["a.example.com", "example.com", "com"]).unwrap().0, "example.com");
    // The end of a CNAME in somebody else's zone, though the account may have it.
    let no = find(&["a.victim.example", "victim.example", "example"]).unwrap_err();
    assert_eq!(no.code, "zone-not-found");
    assert!(no.message.contains("plugins.zoned.zones is example.com"), "{no}");
    assert!(find(&["notexample.com", "com"]).is_err());
}

#[test]
fn two_accounts_at_one_provider_are_two_stanzas() {
    let provider = Provider::start();
    let account = |name: &str, key: &str| {
        let url = serde_json::json!({ "url": provider.url });
        let mut config = solver_config(guest("solver"), url, &provider, &["/*"]);
        let source = SecretRef::Inline(SecretText::new(key.to_owned()));
        config.secrets.insert("token".to_owned(), Secret { source, hosts: Vec::new() });
        engine().load(name, &config, &upstreams()).unwrap()
    };
    let (one, two) = (account("account-one", "key-of-one"), account("account-two", "key-of-two"));
    for (plugin, own, other) in
        [(&one, "key-of-one", "key-of-two"), (&two, "key-of-two", "key-of-one")]
    {
        let said = present(plugin, "").unwrap();
        assert!(!said.contains(own), "{said}");
        let sent = provider.seen().concat();
        assert!(sent.contains(own) && !sent.contains(other), "{sent}");
    }
}

#[test]
fn hostile_solvers_are_contained() {
    let provider = Provider::start();
    let plugin = solver(&provider, "hostile-solver", &["/*"]);
    for (handle, code, wanted) in [
        ("loop", "deadline", "limits.solver-deadline"),
        ("sleep", "deadline", "limits.solver-deadline"),
        ("panic", "trap", "the solver's own words"),
    ] {
        let started = Instant::now();
        let no = present(&plugin, handle).unwrap_err();
        assert_eq!(no.code, code, "{no}");
        assert!(no.message.contains(wanted), "{no}");
        assert!(started.elapsed() < Duration::from_secs(3), "{handle}");
    }
    // It may wait, and the next call is a new one.
    present(&plugin, "nap").unwrap();
}

#[test]
fn a_looping_solver_lets_others_work() {
    let provider = Provider::start();
    let plugin = solver(&provider, "looping", &["/*"]);
    let solver = plugin.solver();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let at = RecordSet {
        zone: Zone { name: String::new(), handle: "loop".to_owned() },
        name: String::new(),
        values: Vec::new(),
    };
    let (result, turns) = runtime.block_on(async {
        let ticking = async {
            let mut turns = 0;
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                turns += 1;
                if turns == 5 {
                    return turns;
                }
            }
        };
        tokio::join!(solver.present(at, 60), ticking)
    });
    assert_eq!(result.unwrap_err().code, "deadline");
    assert_eq!(turns, 5);
}

/// Plugins that were compiled for earlier releases of the contract, and what they are to do for good.
#[test]
fn museum_pieces_still_work() {
    let museum = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/museum");
    let mut seen = [0; 3];
    for release in std::fs::read_dir(&museum).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(pieces) = std::fs::read_dir(&release) else { continue };
        for piece in pieces.map(|entry| entry.unwrap().path()) {
            let name = piece.file_stem().unwrap().to_str().unwrap().to_owned();
            let version = release.file_name().unwrap().to_str().unwrap();
            let subject = format!("{version}-{name}");
            match name.rsplit('-').next() {
                Some("router") => {
                    old_router(&piece, &subject);
                    seen[0] += 1;
                }
                Some("filter") => {
                    old_filter(&piece, &subject);
                    seen[1] += 1;
                }
                Some("solver") => {
                    old_solver(&piece, &subject);
                    seen[2] += 1;
                }
                _ => panic!("{subject}: a router, filter or solver?"),
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

fn old_hooks(piece: &Path, subject: &str) -> Hooks {
    let config = config(piece.to_owned(), serde_json::Value::Null);
    let plugin = engine().load(subject, &config, &upstreams());
    Hooks::new(plugin.unwrap_or_else(|error| panic!("{subject}: {error}")), &config.config).unwrap()
}

fn old_router(piece: &Path, subject: &str) {
    let hooks = old_hooks(piece, subject);
    let decide = |target: &str| hooks.route(&connection(), &mut request(target)).unwrap();
    assert_eq!(decide("/web/x"), Decision::Upstream(Arc::from("web")), "{subject}");
    assert_eq!(decide("/other"), Decision::Continue, "{subject}");
    assert!(matches!(decide("/redirect"), Decision::Redirect { status: 308, .. }), "{subject}");
    assert!(matches!(decide("/respond"), Decision::Respond { .. }), "{subject}");
    let mut head = request("/rewrite");
    hooks.route(&connection(), &mut head).unwrap();
    assert_eq!(head.target, "/new?from=router", "{subject}");
    assert_eq!(head.authority, "inner.example:8000", "{subject}");
}

fn old_filter(piece: &Path, subject: &str) {
    let hooks = old_hooks(piece, subject);
    let mut head = request("/all?q=1");
    on_request(&hooks, &connection(), &mut head).unwrap();
    let facts = field(&head.headers, "x-facts");
    let known = "request-1|GET|https|app.example|q=1|192.0.2.7|4711|HTTP/2|app.example|TLSv1.3|\
                 TLS_AES_128_GCM_SHA256|X25519MLKEM768|";
    assert!(facts.starts_with(known), "{subject}: {facts}");
    assert!(facts.ends_with("app.example|1+2|None|Some([255, 254])|7"), "{subject}: {facts}");
    assert_eq!(field(&head.headers, "x-state"), "Ok(1) value None", "{subject}");
    let mut answer = response(404);
    on_response(&hooks, &connection(), &mut head, &mut answer).unwrap();
    assert_eq!(answer.status, StatusCode::GONE, "{subject}");
    assert_eq!(field(&answer.headers, "x-filter"), "upstream", "{subject}");
}

fn old_solver(piece: &Path, subject: &str) {
    let provider = Provider::start();
    let plugin = solver_of(piece.to_owned(), &provider, subject, &["/records"]);
    let returned = present(&plugin, "").unwrap();
    let [sent] = &provider.seen()[..] else { panic!("{subject}") };
    assert!(sent.starts_with("POST /records?key=s3cr%2Ft%22value "), "{subject}: {sent}");
    assert!(sent.contains("\"values\":\"one,two\",\"ttl\":60"), "{subject}: {sent}");
    assert!(!returned.contains("s3cr"), "{subject}: {returned}");
    let solver = plugin.solver();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let zones = vec!["a.example.com".to_owned(), "example.com".to_owned()];
        assert_eq!(solver.find_zone(zones).await.unwrap().0, "example.com", "{subject}");
        let zone = Zone { name: "example.com".to_owned(), handle: String::new() };
        assert_eq!(solver.poll(zone.clone(), "9".to_owned()).await, Ok(Some(9)), "{subject}");
        let at = RecordSet { zone, name: "x.example.com".to_owned(), values: Vec::new() };
        let no = solver.cleanup(at, String::new()).await.unwrap_err();
        assert_eq!(no.code, "rate-limited", "{subject}");
    });
}

#[test]
fn a_filter_may_ask_for_no_hook() {
    let load = |hooks: &str| {
        let config = config(guest("filter"), serde_json::json!({ "hooks": hooks }));
        let plugin = engine().load(&format!("hooks-{hooks}"), &config, &upstreams())?;
        Hooks::new(plugin, &config.config).map(|hooks| hooks.hooked())
    };
    let none = Hooked { request: false, request_body_bytes_max: None, response: false };
    assert_eq!(load("none").unwrap(), none);
    assert_eq!(load("response").unwrap(), Hooked { response: true, ..none });
    assert!(load("nonsense").unwrap_err().to_string().contains("response or none"));
}
