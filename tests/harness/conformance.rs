//! One list of cases per world (`tests/conformance`), run against any component through a real
//! gateway. Whatever language an example is written in, it does the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Map, Value, json};

use super::client::{Answer, Client, request};
use super::origin::field;
use super::pebble::{Options, Pebble};
use super::{Gateway, LATER, Process, RustOrigin, output, port, project};

/// Runs the router's cases.
pub async fn router(component: &Path) {
    let list = cases("router");
    let apps = [RustOrigin::h1().await, RustOrigin::h1().await, RustOrigin::h1().await];
    let [one, two, front] = &apps;
    let mut gateway = Gateway::new();
    gateway.set("component", component.display()).set("one", one.port).set("two", two.port);
    gateway.set("front", front.port).set("config", &list["config"]);
    gateway.set("other", &list["config-with-default"]);
    let yaml = "
sites:
  - hosts: [shop.localhost, \"*.shop.localhost\", \"*.blue.shop.localhost\", away.localhost, xshop.localhost]
    router: plugin
    routes: [{upstream: front}]
  - hosts: [other.localhost, \"*.other.localhost\"]
    router: {plugin: plugin, config: @other@}
    routes: [{upstream: front}]
upstreams:
  web-1: http://127.0.0.1:@one@
  web-2: http://127.0.0.1:@two@
  front: http://127.0.0.1:@front@
plugins:
  plugin: {component: \"@component@\", config: @config@, limits: @limits@}
";
    gateway.set("limits", LIMITS).start(yaml).await;
    let client = gateway.client().await;
    let mut failures = Vec::new();
    for case in list["requests"].as_array().expect("requests") {
        let before = apps.each_ref().map(|app| app.requests().len());
        let answer = ask(&client, case, text(case, "host"), gateway.https, None).await;
        let after = apps.each_ref().map(|app| app.requests().len());
        let got: Vec<&str> = ["web-1", "web-2", "front"]
            .into_iter()
            .zip(before.iter().zip(after))
            .filter(|(_, (before, after))| *before < after)
            .map(|(name, _)| name)
            .collect();
        let mut failed = differences(case, &answer, gateway.https);
        let expected: Vec<&str> = case["upstream"].as_str().into_iter().collect();
        if got != expected {
            failed.push(format!("{got:?} got it, not {expected:?}"));
        }
        note(&mut failures, case, failed);
    }
    mistakes(component, &mut gateway, yaml, &list, &mut failures).await;
    done("router", failures, &gateway);
}

/// Runs the filter's cases.
pub async fn filter(component: &Path) {
    let list = cases("filter");
    let app = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.set("component", component.display()).set("app", app.port);
    gateway.set("config", &list["config"]).set("open", &list["config-open"]);
    gateway.set("key", &list["key"]);
    let yaml = "
sites:
  - {hosts: [app.localhost], filters: [plugin], routes: [{upstream: app}]}
  - {hosts: [open.localhost], filters: [{plugin: plugin, config: @open@}], routes: [{upstream: app}]}
upstreams:
  app: http://127.0.0.1:@app@
plugins:
  plugin:
    component: \"@component@\"
    config: @config@
    limits: @limits@
    secrets: {key: @key@}
    grants: {hmac: [key], request: {read: [authorization], set: [\"*\", authorization]}}
";
    gateway.set("limits", LIMITS).start(yaml).await;
    let client = gateway.client().await;
    let mut failures = Vec::new();
    for case in list["requests"].as_array().expect("requests") {
        let key = text(&list, "key");
        let credentials = case.get("token").map(|token| credentials(token, key));
        let host = case["host"].as_str().unwrap_or("app.localhost");
        let before = app.requests().len();
        let answer = ask(&client, case, host, gateway.https, credentials.as_deref()).await;
        let mut failed = differences(case, &answer, gateway.https);
        let is_through = app.requests().len() > before;
        if let Some(reason) = case["refused"].as_str() {
            let expected = json!({"error": reason});
            let body = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
            if is_through || answer.status != 401 || body != expected {
                failed.push(format!("not refused as {reason}: {answer:?}"));
            }
            let challenge = match reason {
                "missing-token" => "Bearer".to_owned(),
                _ => format!("Bearer error=\"invalid_token\", error_description=\"{reason}\""),
            };
            if answer.header("www-authenticate") != challenge {
                failed.push(format!("challenges with {}", answer.header("www-authenticate")));
            }
            if answer.header("content-type") != "application/json" {
                failed.push(format!("is of type {}", answer.header("content-type")));
            }
        } else if !is_through || answer.status != 200 {
            failed.push(format!("did not get through: {answer:?}"));
        } else if case["keeps-token"] == true {
            let seen = field(&answer.json(), "authorization");
            if Some(seen.concat()) != credentials {
                failed.push(format!("the application saw the token {seen:?}"));
            }
        }
        if answer.header("vary") != "authorization" {
            failed.push(format!("vary is {:?}", answer.header("vary")));
        }
        note(&mut failures, case, failed);
    }
    mistakes(component, &mut gateway, yaml, &list, &mut failures).await;
    done("filter", failures, &gateway);
}

/// Runs the solver's cases, all at once: most of them wait for each other's retries.
pub async fn solver(component: &Path) {
    const TOKEN: &str = "not-to-be-seen-in-a-log";
    let list = cases("dns-solver");
    let mut words = BTreeMap::new();
    let mut script = Map::new();
    let mut sites = String::new();
    for (number, case) in list["requests"].as_array().expect("requests").iter().enumerate() {
        let word = format!("t{number:02}");
        let case: Value = serde_json::from_str(&case.to_string().replace("{t}", &word)).unwrap();
        let mut plan = case.as_object().expect("a case").clone();
        plan.entry("zones").or_insert_with(|| json!({format!("{word}.example"): {}}));
        script.insert(word.clone(), Value::Object(plan));
        sites += &format!("  - {{hosts: {}, routes: [{{respond: {{}}}}]}}\n", case["hosts"]);
        words.insert(word, case);
    }
    let mut gateway = Gateway::new();
    let api = port();
    let script = gateway.file("script.json", Value::Object(script).to_string());
    let mut command = std::process::Command::new("python3");
    command.arg(project().join("examples/provider.py"));
    command.args(["--port", &api.to_string(), "--token", TOKEN]).arg("--script").arg(script);
    let provider = Process::start("provider.py", &command);
    provider.out.wait(0, &["serving"], LATER).await;
    let mut how = Options::new(gateway.http, gateway.https);
    how.believes = true;
    let pebble = Pebble::start(&how).await;
    gateway.file("pebble.pem", &pebble.api_root);
    gateway.env("PROVIDER_TOKEN", TOKEN);
    gateway.set("component", component.display()).set("api", api).set("sites", sites);
    gateway.set("directory", pebble.directory()).set("dns", pebble.dns);
    gateway.set("config", json!({"api": format!("http://127.0.0.1:{api}/v1")}));
    let yaml = "
certificates:
  issuers: [{directory: \"@directory@\", roots: @dir@/pebble.pem, profile: default}]
  challenge: {dns-01: plugin}
  resolvers: [\"127.0.0.1:@dns@\"]
  propagation: {check: false, delay: 0s}
plugins:
  plugin:
    component: \"@component@\"
    config: @config@
    secrets: {token: {env: PROVIDER_TOKEN}}
    grants: {http: [\"GET,POST,DELETE http://127.0.0.1:@api@/v1/*\"]}
sites:
@sites@
";
    gateway.start(yaml).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let mut failures = Vec::new();
    let end = tokio::time::Instant::now() + LATER;
    for (word, case) in &words {
        note(&mut failures, case, solved(&gateway, &client, &provider, word, case, end).await);
    }
    if gateway.log().contains(TOKEN) {
        failures.push("the secret is in the log".to_owned());
    }
    mistakes(component, &mut gateway, yaml, &list, &mut failures).await;
    done("dns-solver", failures, &gateway);
}

/// Waits until a case of the solver has come to its end, and says what is not as it should be.
async fn solved(
    gateway: &Gateway,
    client: &Client,
    provider: &Process,
    word: &str,
    case: &Value,
    end: tokio::time::Instant,
) -> Vec<String> {
    let mut failed = Vec::new();
    if let Some(words) = case["log"].as_array() {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        while !gateway.log().lines().any(|line| words.iter().all(|word| line.contains(word))) {
            if tokio::time::Instant::now() > end {
                return vec![format!("nothing in the log has {words:?}")];
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    } else {
        let host = text(&case["hosts"], "0").replace('*', "any");
        while client.leaf(&host).await.is_err() {
            if tokio::time::Instant::now() > end {
                failed.push("there is no certificate".to_owned());
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let is_refused = case["log"].is_array();
    let Some(expected) = case["calls"].as_array() else { return failed };
    let optional = |call: &str| call.strip_prefix('?').map(str::to_owned);
    let expected: Vec<&str> = expected.iter().filter_map(Value::as_str).collect();
    let left = case.get("left").cloned().unwrap_or_else(|| json!([]));
    let met = || {
        let (calls, left_now) = seen(provider, word);
        let mut calls = calls.into_iter().peekable();
        for call in &expected {
            match (optional(call), calls.peek()) {
                (Some(call), Some(next)) => drop(next.starts_with(&call).then(|| calls.next())),
                (Some(_), None) => {}
                // Removed somehow: no more is said about it.
                (None, Some(_)) if *call == "nothing-left" => {
                    calls = Vec::new().into_iter().peekable()
                }
                (None, Some(next)) if next == call => drop(calls.next()),
                _ => return false,
            }
        }
        // An order that failed is tried again later.
        (is_refused || calls.next().is_none()) && left_now == left
    };
    while !met() && tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if !met() {
        let (calls, left_now) = seen(provider, word);
        failed.push(format!("called {calls:?}, left {left_now}; expected {expected:?}, {left}"));
    }
    failed
}

/// What the provider was asked in one case, repeated `get` once, and what it has now.
fn seen(provider: &Process, word: &str) -> (Vec<String>, Value) {
    let mut calls: Vec<String> = Vec::new();
    let mut left = json!([]);
    for line in provider.out.after(0) {
        let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
        if line["key"] != word {
            continue;
        }
        let call = match text(&line, "did") {
            "find" => format!("find {}", text(&line, "on")),
            did => did.to_owned(),
        };
        if call != "get" || calls.last().is_none_or(|last| last != "get") {
            calls.push(call);
        }
        left = line["left"].clone();
    }
    (calls, left)
}

/// Gives the plugin all wrong configurations at once: the reload must refuse each with the reason.
async fn mistakes(
    component: &Path,
    gateway: &mut Gateway,
    yaml: &str,
    list: &Value,
    failures: &mut Vec<String>,
) {
    let key = &list["key"];
    let list = list["mistakes"].as_array().expect("mistakes");
    // Without its schema and the secrets it needs: the gateway would find most of them by itself.
    let source = component.parent().expect("a folder").join("plugin.yaml");
    let text = std::fs::read_to_string(&source).expect("plugin.yaml");
    let ends = ["\nsecrets:", "\nconfig:"].into_iter().filter_map(|key| text.find(key));
    let text = &text[..=ends.min().expect("plugin.yaml has a schema")];
    let manifest = gateway.file("plugin.yaml", text);
    let bare = gateway.folder().join("bare.wasm");
    let embed = [component, &manifest].map(|path| path.display().to_string());
    let arguments = ["plugin", "embed", &embed[0], &embed[1], "-o", &bare.display().to_string()];
    let embedded = output(env!("CARGO_BIN_EXE_witgate"), &arguments, LATER).await;
    assert!(embedded.status.success(), "{embedded:?}");
    gateway.set("bare", bare.display());
    let mut stanzas = String::from("\nplugins:\n");
    for (number, case) in list.iter().enumerate() {
        let config = &case["config"];
        let keys = match (key.is_null(), case["secret-is-not-granted"] == true) {
            (true, _) => String::new(),
            (_, true) => format!(", secrets: {{key: {key}}}"),
            _ => format!(", secrets: {{key: {key}}}, grants: {{hmac: [key]}}"),
        };
        stanzas +=
            &format!("  mistake-{number:02}: {{component: \"@bare@\", config: {config}{keys}}}\n");
    }
    let mark = gateway.mark();
    gateway.configure(&yaml.replacen("\nplugins:\n", &stanzas, 1));
    let last = format!("plugin mistake-{:02} (", list.len() - 1);
    gateway.logged_within(mark, &[&last], LATER).await;
    let log = gateway.log();
    for (number, case) in list.iter().enumerate() {
        let Some((_, said)) = log.split_once(&format!("plugin mistake-{number:02} (")) else {
            note(failures, case, vec!["it loads".to_owned()]);
            continue;
        };
        let said = said.split("plugin mistake-").next().unwrap_or_default();
        let names = case["names"].as_array().expect("names");
        let missing = names.iter().filter_map(Value::as_str).filter(|name| !said.contains(name));
        let missing = missing.map(|name| format!("`{name}` is not in: {}", said.trim())).collect();
        note(failures, case, missing);
    }
}

/// Sends the request of a case.
async fn ask(
    client: &Client,
    case: &Value,
    host: &str,
    port: u16,
    credentials: Option<&str>,
) -> Answer {
    let method = case["method"].as_str().unwrap_or("GET");
    let target = case["target"].as_str().unwrap_or("/");
    let body = case["body"].as_str().unwrap_or_default().to_owned();
    let mut asked = request(method, &format!("{host}:{port}"), target, body);
    let fields = case["headers"].as_object().into_iter().flatten();
    for (name, value) in fields {
        let name: http::HeaderName = name.parse().expect("the name of a field");
        let value = value.as_str().expect("a text").parse().expect("the value of a field");
        asked.headers_mut().append(name, value);
    }
    if let Some(credentials) = credentials {
        let value = credentials.parse().expect("the value of a field");
        asked.headers_mut().insert(http::header::AUTHORIZATION, value);
    }
    let mut http = client.h1(host).await.unwrap_or_else(|e| panic!("{host}: {e}"));
    http.send(asked).await.unwrap_or_else(|e| panic!("{case}: {e}"))
}

/// What of an answer is not as its case has it.
fn differences(case: &Value, answer: &Answer, port: u16) -> Vec<String> {
    let with_port = |text: &str| text.replace("{port}", &port.to_string());
    let mut failed = Vec::new();
    let mut expect = |what: &str, expected: Value, got: Value| {
        if expected != got {
            failed.push(format!("{what} is {got}, not {expected}"));
        }
    };
    if let Some(status) = case["status"].as_u64() {
        expect("status", status.into(), answer.status.into());
    }
    if let Some(location) = case["location"].as_str() {
        expect("location", with_port(location).into(), answer.header("location").into());
    }
    if let Some(media_type) = case["type"].as_str() {
        expect("content-type", media_type.into(), answer.header("content-type").into());
    }
    let body = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    if let Some(json) = case.get("json") {
        expect("the body", json.clone(), body.clone());
    }
    if let Some(path) = case.get("path") {
        expect("the target", path.clone(), body["target"].clone());
    }
    if body["headers"].is_array() {
        for (name, values) in case["seen"].as_object().into_iter().flatten() {
            let expected = values.as_array().expect("a list of values").iter();
            let expected: Vec<_> = expected.map(|v| with_port(v.as_str().unwrap())).collect();
            expect(name, json!(expected), json!(field(&body, name)));
        }
    } else if case.get("seen").is_some() {
        failed.push(format!("the application did not see it: {answer:?}"));
    }
    failed
}

/// The credentials of a case: a token that is signed with `key` unless the case says otherwise.
fn credentials(token: &Value, key: &str) -> String {
    if let Some(raw) = token["raw"].as_str() {
        return raw.to_owned();
    }
    let mut claims = json!({"iss": "https://login.example", "aud": "shop"});
    for (name, value) in token["claims"].as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs() as i64;
    for (claim, key) in [("exp", "exp-in"), ("nbf", "nbf-in")] {
        if let Some(seconds) = token[key].as_i64() {
            claims[claim] = (now + seconds).into();
        }
    }
    let header = token.get("header").cloned().unwrap_or_else(|| json!({"alg": "HS256"}));
    let signed =
        format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let key = token["key"].as_str().unwrap_or(key);
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.as_bytes());
    let signature = BASE64.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()));
    let mut all = format!("{signed}.{signature}");
    all.truncate(all.len() - token["cut"].as_u64().unwrap_or_default() as usize);
    format!("{} {all}", token["scheme"].as_str().unwrap_or("Bearer"))
}

fn note(failures: &mut Vec<String>, case: &Value, failed: Vec<String>) {
    let name = text(case, "name");
    failures.extend(failed.into_iter().map(|failed| format!("{name}: {failed}")));
}

fn done(world: &str, failures: Vec<String>, gateway: &Gateway) {
    assert!(failures.is_empty(), "{world}: {} failures:\n{}", failures.len(), failures.join("\n"));
    let trap = gateway.log().lines().find(|line| line.contains("trap")).map(str::to_owned);
    assert_eq!(trap, None, "a call trapped");
}

/// A text of a case, by key or by place.
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    let found = key.parse::<usize>().map_or_else(|_| &value[key], |place| &value[place]);
    found.as_str().unwrap_or_else(|| panic!("{key} is missing in {value}"))
}

fn cases(world: &str) -> Value {
    let path = project().join("tests/conformance").join(format!("{world}.yaml"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let list: Value = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{world}.yaml: {e}"));
    let count = |key: &str| list[key].as_array().map_or(0, Vec::len);
    assert!(count("requests") + count("mistakes") >= 40, "{world}.yaml has too few cases");
    list
}

/// The defaults of the gateway, but for the deadline: the machine is busy with other tests.
const LIMITS: &str = "{deadline: 500ms}";
