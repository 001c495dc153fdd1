//! What every solver has to do, as a list of points, run against a mock of its provider's API that
//! checks credentials and keeps zones.
//!
//! A solver's test describes the mock in a [`Case`] and calls [`Case::run`]. Every call into the
//! solver has a fresh instance, as in the gateway. What only the gateway can do (that guest memory
//! never holds a secret, that a slow provider meets a deadline) is tested there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::guard::{Asked, Guard, Order};
use super::{Sent, answer, configure, with_server};
use crate::dns::{DnsSolver, Failure, Zone, quote_txt};
use crate::http;

/// A solver and the mock of its provider's API.
#[derive(Clone)]
pub struct Case {
    /// The solver's `config:`.
    pub config: Value,
    /// The text of its `plugin.yaml`: every request has to be among its grants, and one that its
    /// `guard` lets through.
    pub manifest: &'static str,
    /// Answers as the API does.
    pub api: fn(&Sent, &mut Zones) -> http::Response,
    /// Whether the placeholders of credentials stand where the API wants them.
    pub is_authorized: fn(&Sent) -> bool,
    /// How the API refuses a credential.
    pub unauthorized: fn() -> http::Response,
    /// The nth challenge name; all are in one zone.
    pub name: fn(usize) -> String,
    /// How many values a name can hold, where the API has no way to read and keep others.
    pub slots: Option<usize>,
    /// Whether values can be removed.
    pub can_remove: bool,
    /// Whether the solver finds zones by asking the API.
    pub asks_for_zones: bool,
}

impl Case {
    /// A provider with zones and record sets; `api` and `is_authorized` describe it.
    pub fn new(
        manifest: &'static str,
        api: fn(&Sent, &mut Zones) -> http::Response,
        is_authorized: fn(&Sent) -> bool,
    ) -> Self {
        Self {
            config: Value::Null,
            manifest,
            api,
            is_authorized,
            unauthorized: || answer(401, json!({"message": "who are you?"})),
            name: |n| match n {
                0 => "_acme-challenge.example.com".to_owned(),
                n => format!("_acme-challenge.n{n}.example.com"),
            },
            slots: None,
            can_remove: true,
            asks_for_zones: true,
        }
    }

    /// Checks every point. With `WITGATE_MOCK` in the environment it plays the provider instead, for
    /// `witgate solver conformance FILE.wasm --mock "cargo test -q conformance -- --nocapture"`, which
    /// holds the component itself to the whole list.
    ///
    /// # Panics
    /// When one is not met; the text has all that are not.
    pub fn run<S: DnsSolver>(&self) {
        if std::env::var_os("WITGATE_MOCK").is_some() {
            let (input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
            // Whatever stands in this line already is nobody's message.
            let _ = writeln!(output);
            return self.serve(input, output);
        }
        let mut unmet = Vec::new();
        for (number, what, check) in points::<S>() {
            if let Err(why) = check(&Bench::new(self)) {
                unmet.push(format!("{number:>2} {what}: {why}"));
            }
        }
        assert!(unmet.is_empty(), "points that are not met:\n{}", unmet.join("\n"));
    }
}

impl Case {
    /// Plays the provider: a message in each line of `input`, its answer in a line of `output`, both
    /// JSON. See `docs/DNS01.md` of Witgate.
    pub fn serve(&self, input: impl BufRead, mut output: impl Write) {
        let mut zones = Zones::default();
        for line in input.lines() {
            let Ok(line) = line else { return };
            let message: Value = serde_json::from_str(&line).unwrap_or_default();
            let answer = self.hear(&message, &mut zones);
            if writeln!(output, "{answer}").and_then(|()| output.flush()).is_err() {
                return;
            }
        }
    }

    fn hear(&self, message: &Value, zones: &mut Zones) -> Value {
        let text =
            |key: &str| message.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        match text("do").as_str() {
            "describe" => json!({
                "config": self.config,
                "names": (0..10).map(self.name).collect::<Vec<_>>(),
                "slots": self.slots,
                "can-remove": self.can_remove,
                "asks-for-zones": self.asks_for_zones,
                "unauthorized": reply(&(self.unauthorized)()),
            }),
            "reset" => {
                let names = message.get("zones").cloned().unwrap_or_default();
                *zones = Zones {
                    names: serde_json::from_value(names).unwrap_or_default(),
                    is_quoting: message.get("quoting") == Some(&Value::Bool(true)),
                    ..Zones::default()
                };
                json!({})
            }
            "add" => {
                zones.add(&text("name"), &text("value"));
                json!({})
            }
            "values" => json!({"values": zones.values(&text("name"))}),
            "request" => {
                let headers = message.get("headers").cloned().unwrap_or_default();
                let sent = Sent {
                    method: text("method"),
                    url: text("url"),
                    headers: serde_json::from_value(headers).unwrap_or_default(),
                    body: text("body").into_bytes(),
                };
                if (self.is_authorized)(&sent) {
                    return reply(&(self.api)(&sent, zones));
                }
                let mut reply = reply(&(self.unauthorized)());
                if let Some(reply) = reply.as_object_mut() {
                    reply.insert("wrong".to_owned(), "it is without its credentials".into());
                }
                reply
            }
            other => json!({"wrong": format!("no such message: {other}")}),
        }
    }
}

/// An answer in a message.
fn reply(answer: &http::Response) -> Value {
    json!({
        "status": answer.status,
        "headers": answer.headers,
        "body": String::from_utf8_lossy(&answer.body),
    })
}

/// What the provider holds.
#[derive(Debug, Clone, Default)]
pub struct Zones {
    names: Vec<String>,
    records: Vec<Record>,
    next: u64,
    /// Whether the API shows values in the quoted form of zone files.
    is_quoting: bool,
}

/// A TXT record with one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The provider's id.
    pub id: u64,
    /// The absolute name, without the final dot.
    pub name: String,
    /// The plain text.
    pub value: String,
}

impl Zones {
    /// Whether there is such a zone.
    pub fn has(&self, zone: &str) -> bool {
        self.names.iter().any(|name| name == zone)
    }

    /// The zone that holds a name: the longest.
    pub fn zone_of(&self, name: &str) -> Option<&str> {
        let holds = |zone: &&String| {
            name.strip_suffix(zone.as_str()).is_some_and(|b| b.is_empty() || b.ends_with('.'))
        };
        self.names.iter().filter(holds).max_by_key(|zone| zone.len()).map(String::as_str)
    }

    /// The TXT records of a name.
    pub fn txt(&self, name: &str) -> Vec<Record> {
        self.records.iter().filter(|record| record.name == name).cloned().collect()
    }

    /// The names of all zones.
    pub fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// The TXT records of a zone, with their names in it: empty for the zone's own.
    pub fn below(&self, zone: &str) -> Vec<(String, Record)> {
        let of_zone = self.records.iter().filter(|it| self.zone_of(&it.name) == Some(zone));
        of_zone.map(|it| (crate::dns::relative(&it.name, zone).to_owned(), it.clone())).collect()
    }

    /// The values of a name, as the API shows them.
    pub fn shown(&self, name: &str) -> Vec<String> {
        self.txt(name).iter().map(|record| self.show(&record.value)).collect()
    }

    /// A value as the API shows it.
    pub fn show(&self, value: &str) -> String {
        if self.is_quoting { quote_txt(value) } else { value.to_owned() }
    }

    /// Adds a record; returns its id.
    pub fn add(&mut self, name: &str, value: &str) -> u64 {
        self.next += 1;
        let (id, name, value) = (self.next, name.to_owned(), value.to_owned());
        self.records.push(Record { id, name, value });
        id
    }

    /// Makes `values` the whole record set of a name.
    pub fn replace(&mut self, name: &str, values: &[String]) {
        self.records.retain(|record| record.name != name);
        for value in values {
            self.add(name, value);
        }
    }

    /// Removes a record; false when there is none.
    pub fn remove(&mut self, id: u64) -> bool {
        let before = self.records.len();
        self.records.retain(|record| record.id != id);
        self.records.len() < before
    }

    /// Removes one value of a name; false when there is none.
    pub fn remove_value(&mut self, name: &str, value: &str) -> bool {
        let id = self.txt(name).iter().find(|record| record.value == value).map(|it| it.id);
        id.is_some_and(|id| self.remove(id))
    }

    fn values(&self, name: &str) -> Vec<String> {
        let mut values: Vec<_> = self.txt(name).into_iter().map(|record| record.value).collect();
        values.sort();
        values
    }
}

/// The absolute name of `relative` in `zone`; `@` and the empty text are the zone itself.
pub fn absolute(relative: &str, zone: &str) -> String {
    match relative {
        "" | "@" => zone.to_owned(),
        relative => format!("{relative}.{zone}"),
    }
}

/// The provider while one point is checked.
struct Bench<'a> {
    case: &'a Case,
    state: Arc<Mutex<State>>,
    manifest: Arc<Manifest>,
}

/// What is of use here of a plugin.yaml.
#[derive(serde::Deserialize)]
struct Manifest {
    #[serde(default)]
    grants: Grants,
    #[serde(default)]
    guard: Value,
    #[serde(skip)]
    rules: Option<Guard>,
}

#[derive(serde::Deserialize, Default)]
struct Grants {
    #[serde(default)]
    http: Vec<String>,
}

impl Manifest {
    fn read(text: &str) -> Result<Self, String> {
        let mut manifest: Self =
            serde_yaml::from_str(text).map_err(|cause| format!("plugin.yaml: {cause}"))?;
        if !manifest.guard.is_null() {
            manifest.rules = Some(Guard::parse(&manifest.guard)?);
        }
        Ok(manifest)
    }
}

#[derive(Default)]
struct State {
    zones: Zones,
    /// Answers to give instead of the API's.
    faults: VecDeque<http::Response>,
    /// What was wrong with requests.
    wrongs: Vec<String>,
    requests: usize,
    /// Proven ids of zones, and of records by name: the gateway keeps them with the handles.
    zone_ids: BTreeMap<String, BTreeSet<String>>,
    ids: BTreeMap<String, BTreeSet<String>>,
}

/// What a point found wrong.
type Outcome = Result<(), String>;

/// A number of the list, what it asks for, and the check.
type Point = (u8, &'static str, fn(&Bench<'_>) -> Outcome);

impl<'a> Bench<'a> {
    fn new(case: &'a Case) -> Self {
        let manifest = Manifest::read(case.manifest);
        let mut state = State::default();
        state.wrongs.extend(manifest.as_ref().err().cloned());
        let empty = Manifest { grants: Grants::default(), guard: Value::Null, rules: None };
        let manifest = Arc::new(manifest.unwrap_or(empty));
        let bench = Self { case, state: Arc::new(Mutex::new(state)), manifest };
        let mut names: Vec<String> = (0..250).map(|n| format!("zone{n}.example")).collect();
        let own = ["example.com", "example.co.uk", "sub.example.org", "example.org"];
        names.extend(own.map(str::to_owned));
        names.push("acme.example.net".to_owned());
        bench.state().zones.names = names;
        bench
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls a fresh instance; what its requests did wrong counts as well.
    fn call<S: DnsSolver, T>(
        &self,
        order: Order,
        call: impl FnOnce(&S) -> Result<T, Failure>,
    ) -> Result<(Result<T, Failure>, Order), String> {
        let (state, manifest) = (Arc::clone(&self.state), Arc::clone(&self.manifest));
        let case = self.case.clone();
        self.state().requests = 0;
        let order = Arc::new(Mutex::new(order));
        let learned = Arc::clone(&order);
        let serve = move |sent: &Sent| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.requests += 1;
            let line = format!("{} {}", sent.method, sent.url);
            if !manifest.grants.http.iter().any(|grant| covers(grant, sent)) {
                state.wrongs.push(format!("{line} is not among the grants of plugin.yaml"));
            }
            let mut order = order.lock().unwrap_or_else(PoisonError::into_inner);
            let asked = Asked {
                method: &sent.method,
                url: &sent.url,
                headers: &sent.headers,
                body: &sent.body,
            };
            let rules = manifest.rules.as_ref();
            let passed = match rules.map(|rules| rules.check(&order, &asked, &case.config)) {
                Some(Ok(passed)) => Some(passed),
                Some(Err(why)) => {
                    state.wrongs.push(format!("the guard refuses {line}: {why}"));
                    None
                }
                None => None,
            };
            if !(case.is_authorized)(sent) {
                state.wrongs.push(format!("{line} is without its credentials"));
            }
            if let Some(fault) = state.faults.pop_front() {
                return Ok(fault);
            }
            let answer = (case.api)(sent, &mut state.zones);
            if let (Some(rules), Some(passed)) = (rules, passed) {
                rules.learn(&mut order, &passed, answer.status, &answer.body);
            }
            Ok(answer)
        };
        let plugin: S = configure(self.case.config.clone())?;
        let result = with_server(serve, || call(&plugin));
        let learned = learned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = self.state();
        if let Some(wrong) = state.wrongs.first() {
            return Err(wrong.clone());
        }
        if state.requests > REQUESTS_MAX {
            return Err(format!("{} requests in one call", state.requests));
        }
        Ok((result, learned))
    }

    fn zone<S: DnsSolver>(&self, name: &str) -> Result<Zone, String> {
        let candidates = candidates(name);
        let order = Order::zones(&candidates);
        let (found, order) = self.call(order, |solver: &S| solver.find_zone(&candidates))?;
        let zone = found.map_err(|failure| text(&failure))?;
        let ids = order.zone_ids(&zone.name);
        self.state().zone_ids.entry(zone.name.clone()).or_default().extend(ids);
        Ok(zone)
    }

    /// What a call that writes may change.
    fn order(&self, zone: &Zone, name: &str, values: &[String]) -> Order {
        let state = self.state();
        let zone_ids = state.zone_ids.get(&zone.name).into_iter().flatten().cloned();
        let ids = state.ids.get(name).into_iter().flatten().cloned();
        Order::zone(&zone.name, zone_ids).records(name, values, ids)
    }

    fn present<S: DnsSolver>(&self, name: &str, values: &[&str]) -> Result<String, String> {
        self.try_present::<S>(name, values)?.map_err(|failure| text(&failure))
    }

    fn try_present<S: DnsSolver>(
        &self,
        name: &str,
        values: &[&str],
    ) -> Result<Result<String, Failure>, String> {
        let (zone, values) = (self.zone::<S>(name)?, owned(values));
        let order = self.order(&zone, name, &values);
        let (presented, order) =
            self.call(order, |solver: &S| solver.present(&zone, name, &values, 3600))?;
        self.state().ids.entry(name.to_owned()).or_default().extend(order.ids());
        Ok(presented)
    }

    fn cleanup<S: DnsSolver>(&self, name: &str, values: &[&str], handle: &str) -> Outcome {
        let (zone, values) = (self.zone::<S>(name)?, owned(values));
        // A handle that is lost takes its proofs with it.
        if handle.is_empty() {
            self.state().ids.remove(name);
        }
        let order = self.order(&zone, name, &values);
        let call = |solver: &S| solver.cleanup(&zone, name, &values, handle);
        self.call(order, call)?.0.map_err(|failure| text(&failure))
    }

    fn expect(&self, name: &str, wanted: &[&str]) -> Outcome {
        let mut wanted = owned(wanted);
        wanted.sort();
        let mut found = self.state().zones.values(name);
        if !self.case.can_remove {
            // Such a server keeps a value that came twice twice; a record set has it once.
            found.dedup();
        }
        if found == wanted { Ok(()) } else { Err(format!("{name} has {found:?}, not {wanted:?}")) }
    }

    /// After a cleanup of everything that was presented.
    fn expect_clean(&self, name: &str, foreign: &[&str]) -> Outcome {
        if self.case.can_remove { self.expect(name, foreign) } else { Ok(()) }
    }

    /// Values that one name can hold at once, at most two.
    fn both(&self) -> &'static [&'static str] {
        if self.case.slots == Some(1) { &[ONE] } else { &[ONE, TWO] }
    }

    /// Somebody else's value at the name, where the provider can keep it.
    fn foreign(&self, name: &str) -> &'static [&'static str] {
        if self.case.slots.is_some() {
            return &[];
        }
        self.state().zones.add(name, FOREIGN);
        &[FOREIGN]
    }

    fn name(&self) -> String {
        (self.case.name)(0)
    }
}

/// The list.
fn points<S: DnsSolver>() -> Vec<Point> {
    vec![
        (1, "two values at one name", |bench| {
            let (name, both) = (bench.name(), bench.both());
            let handle = bench.present::<S>(&name, both)?;
            bench.expect(&name, both)?;
            bench.cleanup::<S>(&name, both, &handle)?;
            bench.expect_clean(&name, &[])
        }),
        (2, "a foreign value at the name is kept", |bench| {
            let (name, both) = (bench.name(), bench.both());
            let foreign = bench.foreign(&name);
            let handle = bench.present::<S>(&name, both)?;
            bench.expect(&name, &[foreign, both].concat())?;
            bench.cleanup::<S>(&name, both, &handle)?;
            bench.expect_clean(&name, foreign)
        }),
        (3, "cleanup can be repeated", |bench| {
            let (name, both) = (bench.name(), bench.both());
            let handle = bench.present::<S>(&name, both)?;
            for _ in 0..2 {
                bench.cleanup::<S>(&name, both, &handle)?;
                bench.expect_clean(&name, &[])?;
            }
            Ok(())
        }),
        (4, "present can be repeated", |bench| {
            let (name, both) = (bench.name(), bench.both());
            bench.present::<S>(&name, both)?;
            let handle = bench.present::<S>(&name, both)?;
            bench.expect(&name, both)?;
            bench.cleanup::<S>(&name, both, &handle)?;
            bench.expect_clean(&name, &[])
        }),
        (5, "429 is `rate-limited`, with Retry-After", |bench| {
            let mut limited = answer(429, json!({"message": "slow down"}));
            limited.headers.push(("retry-after".to_owned(), "42".to_owned()));
            let failure = failing::<S>(bench, limited)?;
            match (failure.code, failure.retry_after_seconds) {
                ("rate-limited", Some(42)) => Ok(()),
                other => Err(format!("it says {other:?}")),
            }
        }),
        (6, "500 is `unavailable`, and the next attempt succeeds", |bench| {
            let failure = failing::<S>(bench, answer(500, json!({"message": "oh"})))?;
            if failure.code != "unavailable" {
                return Err(format!("it says {}", text(&failure)));
            }
            let (name, both) = (bench.name(), bench.both());
            bench.present::<S>(&name, both)?;
            bench.expect(&name, both)
        }),
        (7, "a refused credential is `auth`", |bench| {
            let failure = failing::<S>(bench, (bench.case.unauthorized)())?;
            if failure.code == "auth" { Ok(()) } else { Err(format!("it says {}", text(&failure))) }
        }),
        (8, "zones two labels up and below co.uk", |bench| {
            zones::<S>(
                bench,
                &[
                    ("_acme-challenge.a.b.example.com", "example.com"),
                    ("_acme-challenge.shop.example.co.uk", "example.co.uk"),
                ],
            )?;
            if !bench.case.asks_for_zones {
                return Ok(());
            }
            let candidates = candidates("_acme-challenge.nobody.test");
            let order = Order::zones(&candidates);
            match bench.call(order, |solver: &S| solver.find_zone(&candidates))?.0 {
                Err(failure) if failure.code == "zone-not-found" => Ok(()),
                other => Err(format!("a zone that is not there: {other:?}")),
            }
        }),
        (9, "the right one of many zones, the longest that fits", |bench| {
            zones::<S>(
                bench,
                &[
                    ("_acme-challenge.sub.example.org", "sub.example.org"),
                    ("_acme-challenge.nosub.example.org", "example.org"),
                    ("_acme-challenge.zone249.example", "zone249.example"),
                ],
            )
        }),
        (10, "a name that a CNAME leads to, also a zone's own", |bench| {
            if !bench.case.asks_for_zones {
                return Ok(());
            }
            for name in ["example-com.acme.example.net", "acme.example.net"] {
                let handle = bench.present::<S>(name, &[ONE])?;
                bench.expect(name, &[ONE])?;
                bench.cleanup::<S>(name, &[ONE], &handle)?;
                bench.expect(name, &[])?;
            }
            Ok(())
        }),
        (11, "cleanup after a crash, without a handle", |bench| {
            let (name, both) = (bench.name(), bench.both());
            let foreign = bench.foreign(&name);
            bench.present::<S>(&name, both)?;
            bench.cleanup::<S>(&name, both, "")?;
            bench.expect_clean(&name, foreign)?;
            bench.cleanup::<S>(&name, both, "not a handle of this version")?;
            bench.expect_clean(&name, foreign)
        }),
        (13, "ten names in a zone, no lost change", ten_names::<S>),
        (14, "values in quoted form, in one string and in several", |bench| {
            let long = "x".repeat(300);
            let (name, both) = (bench.name(), [ONE, long.as_str()]);
            let both = if bench.case.slots.is_some() { &both[..1] } else { &both[..] };
            bench.state().zones.is_quoting = true;
            let foreign = bench.foreign(&name);
            bench.present::<S>(&name, both)?;
            let handle = bench.present::<S>(&name, both)?;
            bench.expect(&name, &[foreign, both].concat())?;
            bench.cleanup::<S>(&name, both, &handle)?;
            bench.expect_clean(&name, foreign)
        }),
        (15, "an internationalised name", |bench| {
            if !bench.case.asks_for_zones {
                return Ok(());
            }
            let name = "_acme-challenge.xn--bcher-kva.example.com";
            let handle = bench.present::<S>(name, &[ONE])?;
            bench.expect(name, &[ONE])?;
            bench.cleanup::<S>(name, &[ONE], &handle)?;
            bench.expect(name, &[])
        }),
        (17, "a request that the gateway denies is `forbidden`", |bench| {
            let (zone, values) = (bench.zone::<S>(&bench.name())?, owned(&[ONE]));
            let plugin: S = configure(bench.case.config.clone())?;
            let denied = |_: &Sent| {
                let message = "add this line".to_owned();
                Err(http::Error { code: "denied".to_owned(), message })
            };
            let result =
                with_server(denied, || plugin.present(&zone, &bench.name(), &values, 3600));
            match result {
                Err(failure) if failure.code == "forbidden" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }),
    ]
}

/// The failure of `present` when the provider gives `fault` first.
fn failing<S: DnsSolver>(bench: &Bench<'_>, fault: http::Response) -> Result<Failure, String> {
    let (zone, name) = (bench.zone::<S>(&bench.name())?, bench.name());
    let values = owned(bench.both());
    bench.state().faults.push_back(fault);
    let order = bench.order(&zone, &name, &values);
    match bench.call(order, |solver: &S| solver.present(&zone, &name, &values, 3600))?.0 {
        Err(failure) => Ok(failure),
        Ok(_) => Err("it takes the answer for a success".to_owned()),
    }
}

fn zones<S: DnsSolver>(bench: &Bench<'_>, wanted: &[(&str, &str)]) -> Outcome {
    if !bench.case.asks_for_zones {
        return Ok(());
    }
    for (name, wanted) in wanted {
        let found = bench.zone::<S>(name)?.name;
        if found != *wanted {
            return Err(format!("{name} is in {wanted}, not {found}"));
        }
    }
    Ok(())
}

/// Ten at once where the solver says that it can; in turns, as the gateway does, where not.
fn ten_names<S: DnsSolver>(bench: &Bench<'_>) -> Outcome {
    let plugin: S = configure(bench.case.config.clone())?;
    let takes_turns = plugin
        .traits()
        .into_pairs()
        .iter()
        .any(|(name, value)| name == "parallelism" && value != "parallel");
    let names: Vec<String> = (0..10).map(bench.case.name).collect();
    let one = |name: &String| {
        let handle = bench.present::<S>(name, &[ONE])?;
        bench.expect(name, &[ONE])?;
        Ok::<_, String>(handle)
    };
    // A domain with one slot is busy until it is cleaned.
    if takes_turns {
        for name in &names {
            let handle = one(name)?;
            bench.cleanup::<S>(name, &[ONE], &handle)?;
        }
    } else {
        let handles = std::thread::scope(|scope| {
            let running: Vec<_> = names.iter().map(|name| scope.spawn(|| one(name))).collect();
            let done = running.into_iter().map(std::thread::ScopedJoinHandle::join);
            done.map(|done| done.unwrap_or(Err("it panicked".to_owned()))).collect::<Vec<_>>()
        });
        for (name, handle) in names.iter().zip(handles) {
            bench.expect(name, &[ONE])?;
            bench.cleanup::<S>(name, &[ONE], &handle?)?;
        }
    }
    names.iter().try_for_each(|name| bench.expect_clean(name, &[]))
}

/// A name's suffixes, longest first.
fn candidates(name: &str) -> Vec<String> {
    let mut rest = name;
    let mut all = vec![name.to_owned()];
    while let Some((_, parent)) = rest.split_once('.') {
        all.push(parent.to_owned());
        rest = parent;
    }
    all
}

/// Whether a grant covers a request: a `*` at the end of a path stands for anything, one inside it
/// for text without a slash.
fn covers(grant: &str, sent: &Sent) -> bool {
    let Some((methods, pattern)) = grant.split_once(' ') else { return false };
    let url = sent.url.split('?').next().unwrap_or_default();
    methods.split(',').any(|method| method == sent.method) && matches(pattern, url)
}

fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(before) else { return false };
    if after.is_empty() {
        return true;
    }
    let end = rest.find('/').unwrap_or(rest.len());
    (0..=end).any(|at| rest.get(at..).is_some_and(|rest| matches(after, rest)))
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn text(failure: &Failure) -> String {
    format!("{} ({})", failure.message, failure.code)
}

impl Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Requests of one call, inclusive: the gateway's own default is higher.
const REQUESTS_MAX: usize = 20;

/// Values as long as those of real challenges (43 characters).
const ONE: &str = "LPsIwTo7o8BoG0-vjCyGQGBWSVIPxI-i_X336eUOQZo";
const TWO: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
const FOREIGN: &str = "v=spf1 -all";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Plugin;
    use crate::http::Request;

    /// Makes the mistakes that real clients make: it replaces what is at a name, and removes all.
    struct Careless;

    impl Plugin for Careless {
        type Config = ();

        fn configure(_config: ()) -> Result<Self, String> {
            Ok(Self)
        }
    }

    impl DnsSolver for Careless {
        fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure> {
            // The last two labels, as if there were no co.uk.
            let name = candidates.iter().rev().nth(1).cloned().unwrap_or_default();
            Ok(Zone { name, handle: String::new() })
        }

        fn present(
            &self,
            zone: &Zone,
            name: &str,
            values: &[String],
            _ttl_seconds: u32,
        ) -> Result<String, Failure> {
            let _ = zone;
            let request = Request::put(format!("https://api.example/{name}")).json(&values);
            Ok(request.send()?.status.to_string())
        }

        fn cleanup(
            &self,
            _zone: &Zone,
            name: &str,
            _values: &[String],
            handle: &str,
        ) -> Result<(), Failure> {
            if handle == "200" {
                Request::delete(format!("https://api.example/{name}")).send()?;
            }
            Ok(())
        }
    }

    fn unmet(manifest: &'static str, is_authorized: fn(&Sent) -> bool) -> Vec<u8> {
        let api: fn(&Sent, &mut Zones) -> http::Response = |sent, zones| {
            let values: Vec<String> = serde_json::from_value(sent.json()).unwrap_or_default();
            zones.replace(&sent.segments().pop().unwrap_or_default(), &values);
            answer(200, Value::Null)
        };
        let mut case = Case::new(manifest, api, is_authorized);
        case.config = json!(null);
        let points = points::<Careless>().into_iter();
        points.filter(|(_, _, check)| check(&Bench::new(&case)).is_err()).map(|it| it.0).collect()
    }

    #[test]
    fn mistakes_are_found() {
        let grants = "grants: {http: [\"PUT,DELETE https://api.example/*\"]}";
        // Foreign values, statuses, zones, names that are zones, and handles that are lost.
        let found = unmet(grants, |_| true);
        for point in [2, 5, 6, 7, 8, 9, 11] {
            assert!(found.contains(&point), "{point} is not among {found:?}");
        }
        for point in [1, 3, 4, 13, 15] {
            assert!(!found.contains(&point), "{point} is among {found:?}");
        }
        // Whoever leaves the grants or forgets the credentials fails wherever it sends something.
        for found in [
            unmet("grants: {http: [\"PUT https://api.example/v2/*\"]}", |_| true),
            unmet(grants, |_| false),
        ] {
            assert!(found.contains(&1), "{found:?}");
        }
        // So does one whose guard does not let it do what it does: replace a set unread.
        let guarded = "grants: {http: [\"PUT,DELETE https://api.example/*\"]}\n\
            guard: {writes: [{at: \"PUT https://api.example/{name}\", json: [\"{set}\"]}]}";
        assert!(unmet(guarded, |_| true).contains(&1));
    }

    #[test]
    fn a_case_plays_its_provider_for_the_gateway() {
        let api: fn(&Sent, &mut Zones) -> http::Response = |sent, zones| {
            zones.add("a.example.com", &sent.json()["value"].to_string());
            answer(200, json!({"is": "done"}))
        };
        let case = Case::new("", api, |sent| sent.header("x-key") == Some("{{secret:key}}"));
        let request = |key: &str| json!({"do": "request", "method": "POST", "url": "https://a.example/", "headers": [["x-key", key]], "body": "{\"value\":1}"});
        let messages = [
            json!({"do": "describe"}),
            json!({"do": "reset", "zones": ["example.com"], "quoting": false}),
            json!({"do": "add", "name": "a.example.com", "value": "kept"}),
            request("{{secret:key}}"),
            request("none"),
            json!({"do": "values", "name": "a.example.com"}),
        ];
        let lines: String = messages.iter().map(|message| format!("{message}\n")).collect();
        let mut output = Vec::new();
        case.serve(lines.as_bytes(), &mut output);
        let answers: Vec<Value> = String::from_utf8(output)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(answers[0]["names"][1], "_acme-challenge.n1.example.com");
        assert_eq!(answers[3]["body"], "{\"is\":\"done\"}");
        assert_eq!((&answers[4]["status"], answers[4].get("wrong").is_some()), (&json!(401), true));
        assert_eq!(answers[5]["values"], json!(["1", "kept"]));
    }

    #[test]
    fn grants_cover_what_they_say() {
        for (pattern, text, wanted) in [
            ("https://a.example/z", "https://a.example/z", true),
            ("https://a.example/z/*", "https://a.example/z/1/2", true),
            ("https://a.example/z/*/r", "https://a.example/z/1/r", true),
            ("https://a.example/z/*/r", "https://a.example/z/1/2/r", false),
            ("https://a.example/z/*/r", "https://a.example/z/1/s", false),
        ] {
            assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
        }
    }
}
