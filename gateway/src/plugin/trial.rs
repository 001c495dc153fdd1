//! A new version of a plugin beside the one in use: as its shadow, which sees everything and changes
//! nothing, or as a canary, which gets a share of the requests and is taken back when it does worse.
//! Called by exchanges through [`Placed`], and by the gateway, which judges.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::PluginError;
use super::stats::Failure;
use super::{Called, Decision, Hooked, Hooks, Plugin, stats};
use crate::config::Canary;
use crate::http::head::{ConnectionFacts, RequestHead, ResponseHead};
use crate::tls::hello::{HelloFacts, HelloVerdict};

/// A plugin at one place of use on one worker, with the version on trial beside it if there is one.
pub struct Placed {
    main: Hooks,
    beside: Option<Beside>,
}

struct Beside {
    hooks: Hooks,
    trial: Arc<Trial>,
}

/// A version on trial: one for all workers.
#[derive(Debug)]
pub struct Trial {
    plugin: Arc<Plugin>,
    kind: Kind,
    began: Instant,
    /// Set once; workers look at it before every call.
    is_over: AtomicBool,
    end: Mutex<Option<Verdict>>,
    compared: AtomicU64,
    equal: AtomicU64,
    main: Side,
    next: Side,
    difference: Mutex<Option<Failure>>,
    /// Whether the log has its end.
    is_told: AtomicBool,
}

/// How a version is tried.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `shadow: new.wasm`.
    Shadow,
    /// `canary: 5%`.
    Canary(Canary),
}

/// How a trial ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The new version takes over.
    Promoted,
    /// The old version stays, and why.
    RolledBack(String),
}

/// What is counted about one of the two versions during a trial.
#[derive(Debug, Default)]
struct Side {
    calls: AtomicU64,
    failures: AtomicU64,
    nanoseconds: AtomicU64,
    answers: AtomicU64,
    /// Of the answers, those with 5xx.
    errors: AtomicU64,
    times: Times,
}

/// Times of calls in four steps per power of two, from a nanosecond to about a minute.
#[derive(Debug)]
struct Times([AtomicU64; TIMES]);

/// A trial in numbers.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TrialStatus {
    /// The version on trial.
    pub digest: String,
    /// Its version, when it tells one.
    pub version: Option<String>,
    /// `running`, `promoted` or `rolled-back`.
    pub state: &'static str,
    /// Why it was rolled back.
    pub reason: Option<String>,
    /// Calls that both versions got (shadow).
    pub compared: u64,
    /// Those with the same decision and the same edits (shadow).
    pub equal: u64,
    /// The last call in which they differed (shadow).
    pub last_difference: Option<Failure>,
    /// The version in use, while the trial went on.
    pub present: SideStatus,
    /// The version on trial.
    pub next: SideStatus,
}

/// One of the two versions in numbers.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct SideStatus {
    /// Calls.
    pub calls: u64,
    /// Calls that trapped, overran a limit or broke a rule.
    pub failures: u64,
    /// Time in calls, in nanoseconds.
    pub nanoseconds: u64,
    /// The middle time of a call in nanoseconds, to a fifth; 0 without calls.
    pub median_nanoseconds: u64,
    /// Responses to requests that it had a hand in (canary).
    pub answers: u64,
    /// Those with a status of 5xx.
    pub errors: u64,
}

impl Placed {
    /// Prepares a plugin for one place of use, as [`Hooks::new`] does. A version on trial that does
    /// not start here ends its trial.
    ///
    /// # Errors
    /// When `configure` of the version in use refuses this configuration.
    pub fn new(
        plugin: Arc<Plugin>,
        config: &serde_json::Value,
        trial: Option<&Arc<Trial>>,
    ) -> Result<Self, PluginError> {
        let main = Hooks::new(plugin, config)?;
        let beside = trial.filter(|trial| !trial.is_over()).and_then(|trial| {
            match Hooks::new(Arc::clone(&trial.plugin), config) {
                Ok(hooks) => Some(Beside { hooks, trial: Arc::clone(trial) }),
                Err(cause) => {
                    trial.end(Verdict::RolledBack(cause.to_string()));
                    None
                }
            }
        });
        Ok(Self { main, beside })
    }

    /// Takes over what the instance of `before`, in the same place on the same worker, remembers.
    pub fn inherit(&self, before: &Self) {
        if let Some(saved) = before.main.save() {
            self.main.restore(&saved);
        }
    }

    /// Which hooks to call: those that either version asked for. Of a body only what the version in
    /// use asks for is read, since waiting for it can be felt; a canary's wish counts too.
    pub fn hooked(&self) -> Hooked {
        let mut hooked = self.main.hooked();
        if let Some(beside) = self.running() {
            let next = beside.hooks.hooked();
            hooked.request |= next.request;
            hooked.response |= next.response;
            if matches!(beside.trial.kind, Kind::Canary(_)) {
                hooked.request_body_bytes_max =
                    hooked.request_body_bytes_max.max(next.request_body_bytes_max);
            }
        }
        hooked
    }

    /// Whether two versions are in use here.
    pub fn is_on_trial(&self) -> bool {
        self.running().is_some()
    }

    /// Calls `router.route`, as [`Hooks::route`] does.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule.
    pub fn route(
        &self,
        connection: &Arc<ConnectionFacts>,
        request: &mut RequestHead,
    ) -> Result<Decision, PluginError> {
        let called = self.call("route", request, &mut None, |hooks, request, _| {
            hooks.route(connection, request).map(Called::from)
        });
        called.map(|called| called.decision)
    }

    /// Calls `filter.on-request`, as [`Hooks::on_request`] does. A shadow gets no bodies.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule.
    pub fn on_request(
        &self,
        connection: &Arc<ConnectionFacts>,
        request: &mut RequestHead,
        has_body: bool,
    ) -> Result<Called, PluginError> {
        self.call("on-request", request, &mut None, |hooks, request, _| {
            match hooks.hooked().request {
                true => hooks.on_request(connection, request, has_body),
                false => Ok(Decision::Continue.into()),
            }
        })
    }

    /// Calls `filter.on-request-body`, as [`Hooks::on_request_body`] does.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule.
    pub fn on_request_body(
        &self,
        connection: &Arc<ConnectionFacts>,
        request: &mut RequestHead,
        prefix: &[u8],
        is_complete: bool,
    ) -> Result<Decision, PluginError> {
        let called = self.call("on-request-body", request, &mut None, |hooks, request, _| {
            let Some(bytes_max) = hooks.hooked().request_body_bytes_max else {
                return Ok(Decision::Continue.into());
            };
            let mine = prefix.get(..bytes_max).unwrap_or(prefix);
            let is_complete = is_complete && mine.len() == prefix.len();
            hooks.on_request_body(connection, request, mine, is_complete).map(Called::from)
        });
        called.map(|called| called.decision)
    }

    /// Calls `filter.on-response`, as [`Hooks::on_response`] does. A shadow gets no bodies.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule.
    pub fn on_response(
        &self,
        connection: &Arc<ConnectionFacts>,
        request: &mut RequestHead,
        response: &mut ResponseHead,
        has_body: bool,
    ) -> Result<Called, PluginError> {
        self.call("on-response", request, &mut Some(response), |hooks, head, r| match r {
            Some(response) if hooks.hooked().response => {
                hooks.on_response(connection, head, response, has_body)
            }
            _ => Ok(Decision::Continue.into()),
        })
    }

    /// Calls `client-hello.on-client-hello`, as [`Hooks::on_client_hello`] does. Who gets a canary is
    /// chosen by the client's address and port.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule.
    pub fn on_client_hello(&self, hello: &Arc<HelloFacts>) -> Result<HelloVerdict, PluginError> {
        let Some(Beside { hooks, trial }) = self.running() else {
            return self.main.on_client_hello(hello);
        };
        let hook = "on-client-hello";
        let client = hello.client.to_string();
        match &trial.kind {
            Kind::Canary(canary) if is_chosen(&client, canary.share) => {
                let outcome = trial.next.measured(|| hooks.on_client_hello(hello));
                outcome.or_else(|cause| {
                    trial.failed(&canary_failure(hook, &cause), canary);
                    self.main.on_client_hello(hello)
                })
            }
            Kind::Canary(_) => trial.main.measured(|| self.main.on_client_hello(hello)),
            Kind::Shadow => {
                let outcome = trial.main.measured(|| self.main.on_client_hello(hello));
                let shadow = trial.next.measured(|| hooks.on_client_hello(hello));
                let different = match (&outcome, &shadow) {
                    (Ok(one), Ok(other)) if one == other => None,
                    (Ok(_), Ok(_)) => Some("another decision".to_owned()),
                    (Err(_), Err(_)) => None,
                    (Ok(_), Err(cause)) => Some(format!("the new version failed: {cause}")),
                    (Err(cause), Ok(_)) => Some(format!("only the present one failed: {cause}")),
                };
                trial.compare(hook, "", different);
                outcome
            }
        }
    }

    /// Counts how a request that was on trial here was answered.
    pub fn answered(&self, request: &str, status: u16) {
        let Some(Beside { trial, .. }) = self.running() else { return };
        let Kind::Canary(canary) = &trial.kind else { return };
        let side = if is_chosen(request, canary.share) { &trial.next } else { &trial.main };
        add(&side.answers, 1);
        if status >= 500 {
            add(&side.errors, 1);
        }
    }

    fn running(&self) -> Option<&Beside> {
        self.beside.as_ref().filter(|beside| !beside.trial.is_over())
    }

    fn call(
        &self,
        hook: &'static str,
        request: &mut RequestHead,
        response: &mut Option<&mut ResponseHead>,
        run: impl Fn(
            &Hooks,
            &mut RequestHead,
            &mut Option<&mut ResponseHead>,
        ) -> Result<Called, PluginError>,
    ) -> Result<Called, PluginError> {
        let Some(Beside { hooks, trial }) = self.running() else {
            return run(&self.main, request, response);
        };
        match &trial.kind {
            Kind::Canary(canary) if is_chosen(&request.id, canary.share) => {
                let outcome = trial.next.measured(|| run(hooks, request, response));
                match outcome {
                    Ok(called) => {
                        let tap = called.tap.map(|tap| tap.on_trial(trial));
                        Ok(Called { tap, ..called })
                    }
                    // The heads are as before: nobody has to suffer for a version that is new.
                    Err(cause) => {
                        trial.failed(&canary_failure(hook, &cause), canary);
                        run(&self.main, request, response)
                    }
                }
            }
            Kind::Canary(_) => trial.main.measured(|| run(&self.main, request, response)),
            Kind::Shadow => {
                let mut request_copy = request.clone();
                let mut response_copy = response.as_deref().cloned();
                let outcome = trial.main.measured(|| run(&self.main, request, response));
                let shadow = trial
                    .next
                    .measured(|| run(hooks, &mut request_copy, &mut response_copy.as_mut()));
                let different = match (&outcome, &shadow) {
                    (Ok(one), Ok(other)) if one.tap.is_some() != other.tap.is_some() => {
                        Some("only one of them asks for the body".to_owned())
                    }
                    (Ok(one), Ok(other)) => difference(
                        (&one.decision, request, response.as_deref()),
                        (&other.decision, &request_copy, response_copy.as_ref()),
                    ),
                    (Err(_), Err(_)) => None,
                    (Ok(_), Err(cause)) => Some(format!("the new version failed: {cause}")),
                    (Err(cause), Ok(_)) => Some(format!("only the present one failed: {cause}")),
                };
                trial.compare(hook, &request.id, different);
                outcome
            }
        }
    }
}

impl std::fmt::Debug for Placed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Placed").field("main", &self.main).finish_non_exhaustive()
    }
}

impl Trial {
    /// Begins to try `plugin`.
    pub fn new(plugin: Arc<Plugin>, kind: Kind) -> Arc<Self> {
        Arc::new(Self {
            plugin,
            kind,
            began: Instant::now(),
            is_over: AtomicBool::new(false),
            end: Mutex::default(),
            compared: AtomicU64::new(0),
            equal: AtomicU64::new(0),
            main: Side::default(),
            next: Side::default(),
            difference: Mutex::default(),
            is_told: AtomicBool::new(false),
        })
    }

    /// The version on trial.
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// How it is tried.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// How it ended, once it has.
    pub fn verdict(&self) -> Option<Verdict> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it. The first verdict stays.
    pub fn end(&self, verdict: Verdict) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(verdict);
        self.is_over.store(true, Ordering::Release);
    }

    /// Looks at a canary: whether it does worse, or has done well for long enough. A shadow goes on
    /// until the configuration changes.
    pub fn judge(&self) -> Option<Verdict> {
        let Kind::Canary(canary) = &self.kind else { return self.verdict() };
        if self.is_over() {
            return self.verdict();
        }
        let (present, next) = (self.main.status(), self.next.status());
        if next.calls < canary.calls {
            return None;
        }
        let verdict = match worse(&present, &next) {
            Some(reason) => Some(Verdict::RolledBack(reason)),
            None => (self.began.elapsed() >= canary.time).then_some(Verdict::Promoted),
        };
        if let Some(verdict) = verdict {
            self.end(verdict);
        }
        self.verdict()
    }

    /// Whether the log has its end.
    pub fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }

    /// Notes that the log has its end.
    pub fn tell(&self) {
        self.is_told.store(true, Ordering::Relaxed);
    }

    /// The trial in numbers.
    pub fn status(&self) -> TrialStatus {
        let (state, reason) = match self.verdict() {
            None => ("running", None),
            Some(Verdict::Promoted) => ("promoted", None),
            Some(Verdict::RolledBack(reason)) => ("rolled-back", Some(reason)),
        };
        TrialStatus {
            digest: self.plugin.digest().to_owned(),
            version: self.plugin.locked().version.clone(),
            state,
            reason,
            compared: self.compared.load(Ordering::Relaxed),
            equal: self.equal.load(Ordering::Relaxed),
            last_difference: self.difference.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            present: self.main.status(),
            next: self.next.status(),
        }
    }

    /// Whether there is a verdict.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Counts a failure of the new version in the middle of a body.
    pub(super) fn failed_body(&self, cause: &PluginError) {
        add(&self.next.failures, 1);
        if let Kind::Canary(canary) = &self.kind {
            self.failed(&canary_failure("body", cause), canary);
        }
    }

    fn failed(&self, what: &str, canary: &Canary) {
        if self.next.failures.load(Ordering::Relaxed) > canary.failures_max {
            let secrets = &self.plugin.facts.secrets;
            self.end(Verdict::RolledBack(secrets.mask_text(what).into_owned()));
        }
    }

    fn compare(&self, hook: &str, request: &str, different: Option<String>) {
        add(&self.compared, 1);
        let Some(what) = different else { return add(&self.equal, 1) };
        let what = self.plugin.facts.secrets.mask_text(&what).into_owned();
        let what = format!("{hook}: {what}");
        let failure = Failure { at: stats::seconds_now(), request: request.to_owned(), what };
        let mut last = self.difference.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none() {
            let (plugin, digest) = (self.plugin.name(), self.plugin.subject().short_digest());
            let what = &failure.what;
            tracing::warn!(
                plugin,
                digest,
                request,
                "the shadow differs for the first time: {what}"
            );
        }
        *last = Some(failure);
    }
}

impl Side {
    fn measured<T>(&self, run: impl FnOnce() -> Result<T, PluginError>) -> Result<T, PluginError> {
        let started = Instant::now();
        let outcome = run();
        let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        add(&self.calls, 1);
        add(&self.nanoseconds, nanoseconds);
        self.times.note(nanoseconds);
        if outcome.is_err() {
            add(&self.failures, 1);
        }
        outcome
    }

    fn status(&self) -> SideStatus {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SideStatus {
            calls: load(&self.calls),
            failures: load(&self.failures),
            nanoseconds: load(&self.nanoseconds),
            median_nanoseconds: self.times.median(),
            answers: load(&self.answers),
            errors: load(&self.errors),
        }
    }
}

impl Times {
    fn note(&self, nanoseconds: u64) {
        let nanoseconds = nanoseconds.max(4);
        let power = u64::from(nanoseconds.ilog2());
        let quarter = (nanoseconds >> power.saturating_sub(2)) & 3;
        let index = usize::try_from(power * 4 + quarter).unwrap_or(usize::MAX);
        if let Some(counter) = self.0.get(index.min(TIMES - 1)) {
            add(counter, 1);
        }
    }

    /// The upper end of the step in which the middle one lies.
    fn median(&self) -> u64 {
        let counts: Vec<u64> = self.0.iter().map(|n| n.load(Ordering::Relaxed)).collect();
        let half = counts.iter().sum::<u64>().div_ceil(2);
        let mut seen = 0;
        let step = counts.iter().zip(0_u32..).find_map(|(count, step)| {
            seen += count;
            (seen >= half && half > 0).then_some(step)
        });
        step.map_or(0, |step| {
            let (power, quarter) = (step / 4, u64::from(step % 4));
            (5 + quarter) << power.saturating_sub(2)
        })
    }
}

impl Default for Times {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// Whether a request belongs to the share of `per_ten_thousand`: the same for all its hooks, on any
/// worker.
fn is_chosen(request: &str, per_ten_thousand: u16) -> bool {
    let mut hasher = DefaultHasher::new();
    request.hash(&mut hasher);
    hasher.finish() % 10_000 < u64::from(per_ten_thousand)
}

fn canary_failure(hook: &str, cause: &PluginError) -> String {
    format!("{hook}: {cause}")
}

/// What speaks against the new version.
fn worse(present: &SideStatus, next: &SideStatus) -> Option<String> {
    let share = |side: &SideStatus| match side.answers {
        0 => 0,
        answers => side.errors.saturating_mul(1000) / answers,
    };
    let (errors, errors_before) = (share(next), share(present));
    if errors > errors_before.saturating_add(ERRORS_MORE_PER_THOUSAND) {
        return Some(format!(
            "{}.{} % of its responses are 5xx, and {}.{} % of the others",
            errors / 10,
            errors % 10,
            errors_before / 10,
            errors_before % 10
        ));
    }
    let (time, before) = (next.median_nanoseconds, present.median_nanoseconds);
    if before > 0 && time > before.saturating_mul(SLOWER_TIMES).saturating_add(SLOWER_NANOSECONDS) {
        let shown = Duration::from_nanos;
        return Some(format!(
            "a call takes {:?}, and {:?} with the present version",
            shown(time),
            shown(before)
        ));
    }
    None
}

/// One version's decision and what it made of the heads.
type Made<'a> = (&'a Decision, &'a RequestHead, Option<&'a ResponseHead>);

/// The first thing in which two versions differ, by name: values may be anybody's secrets.
fn difference(one: Made<'_>, other: Made<'_>) -> Option<String> {
    if one.0 != other.0 {
        let word = |decision| stats::DECISIONS.get(stats::decision_index(decision)).copied();
        let (present, next) = (word(one.0).unwrap_or(""), word(other.0).unwrap_or(""));
        return Some(match present == next {
            true => format!("{present} in another way"),
            false => format!("{next} instead of {present}"),
        });
    }
    let (request, next) = (one.1, other.1);
    if request.method != next.method {
        return Some("the method of the request".to_owned());
    }
    if request.target != next.target {
        return Some("the target of the request".to_owned());
    }
    if request.authority != next.authority {
        return Some("the authority of the request".to_owned());
    }
    if let Some(name) = field_difference(&request.headers, &next.headers) {
        return Some(format!("the field {name} of the request"));
    }
    let (Some(response), Some(next)) = (one.2, other.2) else { return None };
    if response.status != next.status {
        return Some("the status of the response".to_owned());
    }
    let name = field_difference(&response.headers, &next.headers)?;
    Some(format!("the field {name} of the response"))
}

fn field_difference(one: &http::HeaderMap, other: &http::HeaderMap) -> Option<String> {
    let differs =
        |name: &&http::HeaderName| !one.get_all(*name).iter().eq(other.get_all(*name).iter());
    one.keys().chain(other.keys()).find(differs).map(ToString::to_string)
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

const TIMES: usize = 4 * 37;
/// So many more of a thousand responses may be errors before it is taken back, inclusive.
const ERRORS_MORE_PER_THOUSAND: u64 = 20;
/// A call may take so many times as long, and this much more, inclusive.
const SLOWER_TIMES: u64 = 2;
const SLOWER_NANOSECONDS: u64 = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn side(answers: u64, errors: u64, median_nanoseconds: u64) -> SideStatus {
        SideStatus {
            calls: answers,
            failures: 0,
            nanoseconds: 0,
            median_nanoseconds,
            answers,
            errors,
        }
    }

    #[test]
    fn a_share_is_a_share_and_the_same_for_every_hook() {
        let chosen = (0..10_000).filter(|n| is_chosen(&format!("request-{n}"), 500)).count();
        assert!((400..600).contains(&chosen), "{chosen}");
        assert_eq!(is_chosen("a", 500), is_chosen("a", 500));
        assert!((0..1000).all(|n| is_chosen(&n.to_string(), 10_000)));
        assert!(!(0..1000).any(|n| is_chosen(&n.to_string(), 0)));
    }

    #[test]
    fn the_middle_time_is_found_to_a_fifth() {
        let times = Times::default();
        assert_eq!(times.median(), 0);
        for time in [1, 10_000, 10_000, 10_000, 60_000_000_000_000] {
            times.note(time);
        }
        let median = times.median();
        assert!((10_000..12_500).contains(&median), "{median}");
    }

    #[test]
    fn errors_and_slowness_speak_against_a_version() {
        let fine = side(1000, 10, 10_000);
        assert_eq!(worse(&fine, &side(100, 3, 60_000)), None);
        let reason = worse(&fine, &side(100, 10, 10_000)).unwrap();
        assert_eq!(reason, "10.0 % of its responses are 5xx, and 1.0 % of the others");
        let reason = worse(&fine, &side(100, 1, 100_000)).unwrap();
        assert_eq!(reason, "a call takes 100µs, and 10µs with the present version");
        // Nothing to compare with.
        assert_eq!(worse(&side(0, 0, 0), &side(100, 0, 100_000)), None);
    }
}
