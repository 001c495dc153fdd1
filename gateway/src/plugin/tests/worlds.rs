//! The worlds beside routers, filters and solvers.

use super::*;
use crate::acme::policy::{Denied, Question, Ruling};
use crate::tls::fingerprint::{Offered, Transport};
use crate::tls::hello::{HelloFacts, HelloVerdict};

fn hello(name: &str) -> Arc<HelloFacts> {
    let offered = Offered {
        suites: vec![0x1301, 0x1302],
        extensions: vec![0, 16, 43],
        alpn: vec![b"h2".to_vec(), b"\xff\x01".to_vec()],
        versions: vec![0x0304, 0x0303],
        groups: vec![0x11ec],
        signature_schemes: vec![0x0403],
    };
    Arc::new(HelloFacts {
        transport: Transport::Tcp,
        server_name: Some(name.into()).filter(|_| !name.is_empty()),
        ja4: offered.ja4(Transport::Tcp),
        offered,
        message: vec![1; 100],
        client: "192.0.2.7:4711".parse().unwrap(),
        local: "192.0.2.80:443".parse().unwrap(),
        via: None,
    })
}

fn greeter(name: &str, stanza: impl FnOnce(&mut PluginConfig)) -> Hooks {
    let mut config = config(guest("hello"), serde_json::Value::Null);
    stanza(&mut config);
    let upstreams = Arc::from([Arc::from("web"), Arc::from("raw")]);
    let plugin = engine().load(name, &config, &upstreams).unwrap();
    assert_eq!(plugin.worlds(), ["client-hello"]);
    Hooks::new(plugin, &serde_json::Value::Null).unwrap()
}

#[test]
fn a_hello_is_seen_whole_and_decided_about() {
    let hooks = greeter("greeter", |_| {});
    let ask = |name: &str| hooks.on_client_hello(&hello(name)).unwrap();
    assert_eq!(ask("app.example"), HelloVerdict::Continue);
    assert_eq!(ask(""), HelloVerdict::Continue);
    assert_eq!(ask("pass.example"), HelloVerdict::PassThrough(Arc::from("raw")));
    assert_eq!(ask("as.example"), HelloVerdict::TerminateAs("other.example".into()));
    assert_eq!(ask("refuse.example"), HelloVerdict::Refuse(49));
    assert_eq!(ask("number.example"), HelloVerdict::Refuse(99));
    // Refuses whatever does not say all of it.
    assert_eq!(ask("tell.example"), HelloVerdict::Continue);
    let mut bare = HelloFacts::clone(&hello("tell.example"));
    bare.offered.groups.clear();
    assert_eq!(hooks.on_client_hello(&Arc::new(bare)).unwrap(), HelloVerdict::Refuse(90));
    let totals = hooks.plugin().stats().totals();
    assert_eq!((totals.calls[5], totals.failures), (8, 0));
    let decided = |what: &str| {
        let place = DECISIONS.iter().position(|known| *known == what).unwrap();
        totals.decisions[place]
    };
    assert_eq!((decided("continue"), decided("pass-through")), (3, 1));
    assert_eq!((decided("terminate-as"), decided("refuse")), (1, 3));
}

#[test]
fn a_hostile_greeter_costs_its_own_handshake() {
    let hooks = greeter("hostile-greeter", |_| {});
    for (name, wanted) in [
        ("loop.example", "went over 200ms"),
        ("memory.example", "KiB of memory"),
        ("panic.example", "the plugin's own words"),
        ("upstream.example", "no upstream called \"nobody\""),
        ("request.example", "`request` is only valid inside a hook"),
    ] {
        let error = hooks.on_client_hello(&hello(name)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{name}: {error}");
        assert!(error.contains("client-hello.on-client-hello"), "{name}: {error}");
        // The next one is served by a fresh instance, and nothing is left of the one before.
        assert_eq!(hooks.on_client_hello(&hello("app.example")).unwrap(), HelloVerdict::Continue);
    }
}

#[test]
fn what_waits_is_not_there_for_a_filter() {
    let text = |interface: &str, function: &str| {
        format!(
            r#"(component
              (import "witgate:plugin/{interface}@0.1.0" (instance $i
                (export "{function}" (func))))
              (core func $f (canon lower (func $i "{function}")))
              (core module $m (import "h" "f" (func $f)) (func (export "on") (call $f))
                (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                (func (export "configure") (param i32 i32) (result i32)
                  (i32.store8 (i32.const 0) (i32.const 0)) (i32.store (i32.const 4) (i32.const 0))
                  (i32.store (i32.const 8) (i32.const 0)) (i32.const 0))
                (func (export "body") (param i32 i32 i32)))
              (core instance $c (instantiate $m (with "h" (instance (export "f" (func $f))))))
              (func $configure (param "config" string) (result (result (list string) (error string)))
                (canon lift (core func $c "configure") (memory (core memory $c "memory")) (realloc (core func $c "realloc"))))
              (func $on (canon lift (core func $c "on")))
              (func $body (param "prefix" (list u8)) (param "complete" bool)
                (canon lift (core func $c "body") (memory (core memory $c "memory")) (realloc (core func $c "realloc"))))
              (instance $p (export "configure" (func $configure)))
              (instance $h (export "on-request" (func $on)) (export "on-request-body" (func $body))
                (export "on-response" (func $on)))
              (export "witgate:plugin/plugin@0.1.0" (instance $p))
              (export "witgate:plugin/filter-hooks@0.1.0" (instance $h)))"#
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let load = |interface: &str, function: &str| {
        let file = folder.path().join(format!("{interface}-{function}.wasm"));
        std::fs::write(&file, wat::parse_str(text(interface, function)).unwrap()).unwrap();
        let config = config(file, serde_json::Value::Null);
        let plugin = engine().load(&format!("odd-{interface}"), &config, &upstreams())?;
        Hooks::new(plugin, &config.config)
    };
    // It may not even be there for one that runs inline.
    let error = load("issuance", "allow").unwrap_err().to_string();
    assert!(error.contains("issuance@0.1.0#allow, which this gateway does not have"), "{error}");
    // One of another type does not fit.
    let error = load("hello", "transport").unwrap_err().to_string();
    assert!(error.contains("does not fit the contract"), "{error}");
}

fn judge(name: &str, url: &str, stanza: impl FnOnce(&mut PluginConfig)) -> Arc<Plugin> {
    let mut config = config(guest("policy"), serde_json::json!({ "url": url }));
    stanza(&mut config);
    let plugin = engine().load(name, &config, &upstreams()).unwrap();
    assert_eq!(plugin.worlds(), ["issuance-policy", "access-log", "events"]);
    plugin
}

fn granted(url: &str) -> impl FnOnce(&mut PluginConfig) {
    let (host, port) = url.strip_prefix("http://").unwrap().split_once(':').unwrap();
    let grant = HttpGrant {
        pattern: format!("POST {url}/*"),
        methods: vec!["POST".to_owned()],
        scheme: "http".to_owned(),
        host: host.to_owned(),
        port: port.parse().unwrap(),
        path: "/*".to_owned(),
    };
    move |config| config.grants.http = vec![grant]
}

fn ask(plugin: &Arc<Plugin>, name: &str) -> Result<Ruling, Denied> {
    let question = Question {
        names: vec![name.to_owned(), "also.example".to_owned()],
        reason: "on-demand",
        issuers: vec!["first".to_owned(), "second".to_owned()],
        challenge: "auto",
        not_after: Some(7),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(plugin.policy().decide(question))
}

#[test]
fn a_policy_allows_names_issuers_and_profiles_and_nothing_by_silence() {
    let provider = Provider::start();
    let plugin = judge("judge", &provider.url, granted(&provider.url));
    assert_eq!(ask(&plugin, "shop.example"), Ok(Ruling::default()));
    let second = Ruling { issuer: Some("second".to_owned()), profile: None };
    assert_eq!(ask(&plugin, "issuer.example"), Ok(second));
    let short = Ruling { issuer: None, profile: Some("shortlived".to_owned()) };
    assert_eq!(ask(&plugin, "profile.example"), Ok(short));
    let no = |why: &str| Err(Denied::No(why.to_owned()));
    // What it noted beside its reason goes to the operator as well.
    let why = "it is not for sale (request-id: r-7); ask the shop";
    assert_eq!(ask(&plugin, "deny.example"), no(why));
    assert_eq!(ask(&plugin, "silent.example"), no("it decided nothing, which denies"));
    assert_eq!(ask(&plugin, "ask.example"), Ok(Ruling::default()));
    let [sent] = &provider.seen()[..] else { panic!("{:?}", provider.seen()) };
    assert!(sent.starts_with("POST /ask ") && sent.ends_with("ask.example"), "{sent}");
    let totals = plugin.stats().totals();
    assert_eq!((totals.calls[11], totals.requests, totals.failures), (6, 1, 0));
    assert_eq!((totals.decisions[7], totals.decisions[8]), (4, 2));
}

#[test]
fn a_hostile_policy_allows_nothing_and_reaches_nothing() {
    let stanza = |config: &mut PluginConfig| {
        config.limits.solver_deadline = Duration::from_millis(500);
    };
    let plugin = judge("hostile-judge", "http://127.0.0.1:1", stanza);
    for (name, wanted) in [
        ("panic.example", "the policy's own words"),
        ("loop.example", "went over 500ms"),
        ("sleep.example", "went over 500ms"),
        ("nobody.example", "names no issuer \"nobody\""),
    ] {
        match ask(&plugin, name) {
            Err(Denied::Unclear(why)) => assert!(why.contains(wanted), "{name}: {why}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    match ask(&plugin, "denied.example") {
        Err(Denied::No(why)) => {
            let line = "plugins.hostile-judge.grants.http: [\"GET https://elsewhere.example/\"]";
            assert!(why.contains(line), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(plugin.stats().totals().failures, 4);
}

#[test]
fn sinks_and_listeners_ship_what_they_get_and_say_why_not() {
    let provider = Provider::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let batch = |texts: &[&str]| Arc::new(texts.iter().map(|text| (*text).to_owned()).collect());
    let plugin = judge("shipper", &provider.url, granted(&provider.url));
    runtime.block_on(plugin.sink().take(batch(&["{\"a\":1}", "{\"b\":2}"]))).unwrap();
    runtime.block_on(plugin.listener().take(batch(&["{\"event\":\"issued\"}"]))).unwrap();
    let seen = provider.seen();
    assert!(seen[0].starts_with("POST /records ") && seen[0].ends_with("{\"a\":1}\n{\"b\":2}"));
    assert!(seen[1].starts_with("POST /event ") && seen[1].ends_with("{\"event\":\"issued\"}"));
    for (take, wanted) in [("full up", "full up"), ("panic", "the sink's own words")] {
        let mut config = config(guest("policy"), serde_json::json!({ "take": take }));
        config.limits.solver_deadline = Duration::from_millis(500);
        let plugin = engine().load(&format!("sink-{take}"), &config, &upstreams()).unwrap();
        let error = runtime.block_on(plugin.sink().take(batch(&["{}"]))).unwrap_err();
        assert!(error.contains(wanted), "{error}");
        plugin.sink().dropped(3);
        assert_eq!(plugin.stats().totals().dropped, 3);
    }
}

#[test]
fn a_component_is_of_one_kind() {
    let config = config(guest("two_kinds"), serde_json::Value::Null);
    let error = engine().load("both", &config, &upstreams()).unwrap_err().to_string();
    assert!(error.contains("is filter, issuance-policy: some of these run inline"), "{error}");
}
