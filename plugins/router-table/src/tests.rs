//! Tables of rules, and what becomes of requests.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use witgate_sdk::testing::{Decision, Exchange, configure};

use super::RouterTable;

fn table(rules: Value) -> RouterTable {
    configure(json!({ "rules": rules })).unwrap()
}

fn upstream(plugin: &RouterTable, mut exchange: Exchange) -> String {
    match exchange.route(plugin) {
        Some(Decision::Upstream(name)) => name,
        None => "-".to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_rule_that_fits_decides() {
    let plugin = table(json!([
        {"hosts": ["a.example", "*.tenants.example"], "path": "/api", "upstream": "api"},
        {"hosts": ["a.example"], "exact": "/health", "methods": ["get", "HEAD"], "upstream": "up"},
        {"path": "/files/", "upstream": "files"},
        {"headers": {"X-Canary": "1"}, "upstream": "canary"},
        {"headers": {"x-internal": true, "x-public": false}, "upstream": "internal"},
        {"query": {"beta": 1, "name": "a b"}, "upstream": "beta"},
        {"hosts": ["a.example"], "upstream": "web"},
    ]));
    for (method, url, headers, expected) in [
        ("GET", "https://a.example/api", vec![], "api"),
        ("GET", "https://a.example/api/x?y", vec![], "api"),
        ("GET", "https://A.Example.:8443/api/", vec![], "api"),
        ("GET", "https://a.example/apis", vec![], "web"),
        ("GET", "https://t1.tenants.example/api/x", vec![], "api"),
        ("GET", "https://x.t1.tenants.example/api/x", vec![], "-"),
        ("GET", "https://tenants.example/api/x", vec![], "-"),
        ("GET", "https://a.example/health", vec![], "up"),
        ("POST", "https://a.example/health", vec![], "web"),
        ("GET", "https://b.example/files/1", vec![], "files"),
        ("GET", "https://b.example/files", vec![], "-"),
        ("GET", "https://b.example/", vec![("x-canary", "0"), ("x-canary", "1")], "canary"),
        ("GET", "https://b.example/", vec![("x-canary", "0")], "-"),
        ("GET", "https://b.example/", vec![("x-internal", "")], "internal"),
        ("GET", "https://b.example/", vec![("x-internal", "1"), ("x-public", "")], "-"),
        ("GET", "https://b.example/?name=a+b&beta=1", vec![], "beta"),
        ("GET", "https://b.example/?beta=%31&n%61me=a%20b", vec![], "beta"),
        ("GET", "https://b.example/?beta=11&name=a+b", vec![], "-"),
        ("GET", "https://b.example/?beta=1&name=%zz%", vec![], "-"),
        ("GET", "https://[2001:db8::1]:8443/", vec![], "-"),
    ] {
        let mut exchange = Exchange::new(method, url);
        for (name, value) in &headers {
            exchange = exchange.header(name, value);
        }
        assert_eq!(upstream(&plugin, exchange), expected, "{method} {url} {headers:?}");
    }
}

#[test]
fn weights_are_exact_and_mixed() {
    let plugin = table(json!([{"upstreams": {"a": 90, "b": 10, "off": 0}}]));
    let picks: Vec<String> =
        (0..1000).map(|_| upstream(&plugin, Exchange::get("https://a.example/"))).collect();
    for round in picks.chunks(10) {
        assert_eq!(round.iter().filter(|name| *name == "b").count(), 1);
        assert!(!round.contains(&"off".to_owned()));
    }
}

#[test]
fn a_choice_by_cookie_header_or_address_stays() {
    for (by, with) in [
        (
            "cookie:sid",
            (|e: Exchange, k| e.header("cookie", &format!("x=1; sid={k}"))) as fn(_, &str) -> _,
        ),
        ("header:X-User", |e: Exchange, k| e.header("x-user", k)),
        ("address", |e: Exchange, k| e.client(k)),
    ] {
        let plugin = table(json!([{"upstreams": {"a": 75, "b": 25}, "by": by}]));
        let mut counts = BTreeMap::new();
        for user in 0..1000 {
            let key = format!("user-{user}");
            let pick = || upstream(&plugin, with(Exchange::get("https://a.example/"), &key));
            let first = pick();
            assert_eq!(first, pick());
            *counts.entry(first).or_insert(0) += 1;
        }
        assert!((200..300).contains(&counts["b"]), "{by}: {counts:?}");
    }
}

#[test]
fn a_redirect_is_filled_in() {
    for (to, url, location) in [
        (
            "https://{host}{path}{query}",
            "http://a.example:80/x%20y?q=1",
            "https://a.example/x%20y?q=1",
        ),
        ("https://b.example/{path}{query}", "http://a.example/x", "https://b.example/x"),
        (
            "https://b.example/?from=a&{query}",
            "http://a.example/?q",
            "https://b.example/?from=a&&q",
        ),
        ("{path}{query}", "http://a.example//evil.example/", "/evil.example/"),
        ("/{path}", "http://a.example//evil.example/", "/evil.example/"),
        ("/new", "http://a.example/old", "/new"),
    ] {
        let plugin = table(json!([{"redirect": {"to": to}}]));
        let decision = Exchange::get(url).route(&plugin);
        assert_eq!(decision, Some(Decision::Redirect(308, location.to_owned())), "{to} {url}");
    }
}

#[test]
fn a_response_is_fixed() {
    let plugin =
        table(json!([{"respond": {"status": 410, "headers": {"X-A": "b"}, "body": "gone"}}]));
    let text = ("content-type".to_owned(), "text/plain; charset=utf-8".to_owned());
    let fields = vec![("x-a".to_owned(), "b".to_owned()), text];
    let decision = Exchange::get("https://a.example/").route(&plugin);
    assert_eq!(decision, Some(Decision::Respond(410, fields, b"gone".to_vec())));
}

#[test]
fn errors_name_the_rule_and_the_key() {
    for (rule, error) in [
        (
            json!({}),
            "config.rules[0]: a rule has exactly one of `upstream`, `upstreams`, \
                     `redirect` and `respond`",
        ),
        (
            json!({"upstream": "a", "path": "api"}),
            "config.rules[0].path: a path starts with `/`: write `/api`",
        ),
        (
            json!({"upstream": "a", "path": "/a", "exact": "/b"}),
            "config.rules[0]: `path` and `exact` exclude each other",
        ),
        (
            json!({"upstream": "a", "by": "address"}),
            "config.rules[0].by: only a rule with `upstreams` makes a choice",
        ),
        (
            json!({"upstreams": {"a": 1}, "by": "ip"}),
            "config.rules[0].by: `ip` is not known: write `cookie:NAME`, `header:NAME` or \
             `address`",
        ),
        (
            json!({"upstreams": {"a": 0}}),
            "config.rules[0].upstreams: at least one weight must be above 0",
        ),
        (
            json!({"redirect": {"status": 300, "to": "/"}}),
            "config.rules[0].redirect.status: must be 301, 302, 303, 307 or 308",
        ),
        (
            json!({"redirect": {"to": "{host}/x"}}),
            "config.rules[0].redirect.to: `{host}/x` must start with https://, http://, / or \
             {path}",
        ),
        (
            json!({"redirect": {"to": "/{pth}"}}),
            "config.rules[0].redirect.to: unknown placeholder `{pth}`: there are {host}, {path} \
             and \
          {query}",
        ),
        (
            json!({"upstream": "a", "methods": "GET"}),
            "config.rules[0].methods: invalid type: string \"GET\", expected a sequence",
        ),
        (json!({"respond": {"status": 99}}), "config.rules[0].respond.status: must be 200 to 599"),
    ] {
        let error_of = configure::<RouterTable>(json!({"rules": [rule]})).unwrap_err();
        assert_eq!(error_of, error);
    }
    let error = configure::<RouterTable>(json!({"rule": []})).unwrap_err();
    assert_eq!(error, "config.rule: unknown field `rule`, expected `rules`");
    configure::<RouterTable>(json!(null)).unwrap();
    let host = json!({"rules": [{"hosts": ["https://a"], "upstream": "a"}]});
    assert!(configure::<RouterTable>(host).unwrap_err().starts_with("config.rules[0].hosts[0]: "));
}
