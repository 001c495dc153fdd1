//! What is counted about a plugin: calls, time, failures, decisions. Each place of use on each worker
//! counts for itself, without a locked instruction; whoever asks adds them up.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use super::Decision;

/// What is counted about one plugin, by its name: it outlives versions and reloads.
#[derive(Debug, Default)]
pub struct Stats {
    /// The places of use that are alive.
    places: Mutex<Vec<Weak<Calls>>>,
    /// The sum of those that are gone.
    gone: Calls,
    /// Instances that wait to be used.
    ready: AtomicI64,
}

/// The calls at one place of use on one worker.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// By [`Hook`].
    hooks: [AtomicU64; HOOKS.len()],
    /// By [`decision_index`].
    decisions: [AtomicU64; DECISIONS.len()],
    failures: AtomicU64,
    /// Outgoing requests.
    requests: AtomicU64,
    /// What a sink or listener was not given, or did not take.
    dropped: AtomicU64,
    /// Of measured calls, times [`MEASURED_EVERY`].
    nanoseconds: AtomicU64,
    instances: AtomicU64,
    waited: AtomicU64,
    /// Of bodies, that came in.
    body_bytes_in: AtomicU64,
    /// Of bodies, that went on.
    body_bytes_out: AtomicU64,
    memory_peak_bytes: AtomicU64,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    last: Option<Failure>,
    /// Why calls are refused, while they are.
    quarantine: Option<String>,
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Failure {
    /// Seconds since 1970.
    pub at: u64,
    /// The request it was about.
    pub request: String,
    /// What happened, without secrets.
    pub what: String,
}

/// The hooks that are counted, in the order of [`HOOKS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Route,
    Request,
    RequestBody,
    Response,
    Body,
    ClientHello,
    Traits,
    FindZone,
    Present,
    Poll,
    Cleanup,
    Decide,
    Write,
    Event,
}

impl Hook {
    /// World and function, as messages name them.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Route => "router.route",
            Self::Request => "filter.on-request",
            Self::RequestBody => "filter.on-request-body",
            Self::Response => "filter.on-response",
            Self::Body => "filter.body",
            Self::ClientHello => "client-hello.on-client-hello",
            Self::Traits => "dns-solver.traits",
            Self::FindZone => "dns-solver.find-zone",
            Self::Present => "dns-solver.present",
            Self::Poll => "dns-solver.poll",
            Self::Cleanup => "dns-solver.cleanup",
            Self::Decide => "issuance-policy.decide",
            Self::Write => "access-log.write",
            Self::Event => "events.on-event",
        }
    }
}

/// A call that may wait: counted when it ends, in a place of its own, since several may be under way.
pub(super) struct Waiting<'s> {
    stats: &'s Stats,
    hook: Hook,
}

impl<'s> Waiting<'s> {
    /// Begins.
    pub(super) fn begin(stats: &'s Stats, hook: Hook) -> Self {
        Self { stats, hook }
    }

    /// Counts it: its time, the memory of its instance, the requests that it made, and how it failed if
    /// it did.
    pub(super) fn end(self, took: Duration, memory: usize, requests: u32, failed: Option<String>) {
        let calls = Calls::default();
        if let Some(counter) = calls.hooks.get(self.hook as usize) {
            add(counter, 1);
        }
        add(&calls.nanoseconds, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        add(&calls.requests, requests.into());
        calls.started();
        calls.memory(memory);
        if let Some(what) = failed {
            calls.failed("", what, false);
        }
        self.stats.retire(&calls);
    }
}

/// Sums over all places of use.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Calls by hook, in the order of [`HOOKS`].
    pub calls: [u64; HOOKS.len()],
    /// Decisions of successful calls, in the order of [`DECISIONS`].
    pub decisions: [u64; DECISIONS.len()],
    /// Calls that trapped, overran a limit or broke a rule, and instances that did not start.
    pub failures: u64,
    /// Time in calls, estimated from a sample of them.
    pub seconds: u64,
    /// The same in nanoseconds.
    pub nanoseconds: u64,
    /// Instances put to use.
    pub instances: u64,
    /// Outgoing requests.
    pub requests: u64,
    /// Exchanges and events that it was not given, or did not take.
    pub dropped: u64,
    /// Of these, the ones that a request started because none was ready.
    pub instances_waited_for: u64,
    /// Instances that wait to be used.
    pub instances_ready: i64,
    /// Bytes of bodies that were shown to it.
    pub body_bytes_in: u64,
    /// Bytes of bodies that went on after it.
    pub body_bytes_out: u64,
    /// The largest memory that an instance reached, in bytes.
    pub memory_peak_bytes: u64,
    /// Places of use where calls are refused now, and why.
    pub quarantined: Vec<String>,
    /// The last failure.
    pub last_failure: Option<Failure>,
}

impl Stats {
    /// A new place of use.
    pub(super) fn place(&self) -> Arc<Calls> {
        let calls = Arc::new(Calls::default());
        self.places().push(Arc::downgrade(&calls));
        calls
    }

    /// Counts instances that wait to be used, or no longer do.
    pub(super) fn ready(&self, by: i64) {
        self.ready.fetch_add(by, Ordering::Relaxed);
    }

    /// Adds a place of use that ends to those that are gone.
    pub(super) fn retire(&self, calls: &Calls) {
        let mut places = self.places();
        places.retain(|known| !std::ptr::eq(known.as_ptr(), calls));
        let gone = &self.gone;
        let sums = gone.hooks.iter().zip(&calls.hooks);
        let sums = sums.chain(gone.decisions.iter().zip(&calls.decisions)).chain([
            (&gone.failures, &calls.failures),
            (&gone.requests, &calls.requests),
            (&gone.nanoseconds, &calls.nanoseconds),
            (&gone.instances, &calls.instances),
            (&gone.waited, &calls.waited),
            (&gone.body_bytes_in, &calls.body_bytes_in),
            (&gone.body_bytes_out, &calls.body_bytes_out),
        ]);
        for (sum, one) in sums {
            sum.fetch_add(one.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let peak = calls.memory_peak_bytes.load(Ordering::Relaxed);
        gone.memory_peak_bytes.fetch_max(peak, Ordering::Relaxed);
        let last = calls.trouble().last.clone();
        let mut trouble = gone.trouble();
        trouble.last = later(trouble.last.take(), last);
    }

    /// Counts what a plugin decided outside requests.
    pub(super) fn decided(&self, decision: &str) {
        let place = DECISIONS.iter().position(|known| *known == decision);
        if let Some(counter) = place.and_then(|place| self.gone.decisions.get(place)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts what a sink or listener was not given, or did not take.
    pub(super) fn dropped(&self, count: u64) {
        self.gone.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// Everything so far.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        let places = self.places();
        self.gone.add_to(&mut totals);
        for calls in places.iter().filter_map(Weak::upgrade) {
            calls.add_to(&mut totals);
        }
        totals.instances_ready = self.ready.load(Ordering::Relaxed);
        totals.seconds = totals.nanoseconds / 1_000_000_000;
        totals
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Calls>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    /// Counts the start of a call; true when it is to be measured.
    pub(super) fn begin(&self, hook: Hook) -> bool {
        let Some(counter) = self.hooks.get(hook as usize) else { return false };
        let before = counter.load(Ordering::Relaxed);
        counter.store(before.wrapping_add(1), Ordering::Relaxed);
        before % MEASURED_EVERY == 0
    }

    /// Counts the time of a measured call.
    pub(super) fn measured(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        add(&self.nanoseconds, nanoseconds.saturating_mul(MEASURED_EVERY));
    }

    /// Counts bytes of a body that a call took and gave.
    pub(super) fn body(&self, bytes_in: u64, bytes_out: u64) {
        add(&self.body_bytes_in, bytes_in);
        add(&self.body_bytes_out, bytes_out);
    }

    /// Counts what a call decided.
    pub(super) fn decided(&self, decision: &Decision) {
        if let Some(counter) = self.decisions.get(decision_index(decision)) {
            add(counter, 1);
        }
    }

    /// Counts an instance that is put to use.
    pub(super) fn started(&self) {
        add(&self.instances, 1);
    }

    /// Counts a request that starts an instance because none is ready.
    pub(super) fn waited(&self) {
        add(&self.waited, 1);
    }

    /// Notes how much memory the instance has.
    pub(super) fn memory(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if bytes > self.memory_peak_bytes.load(Ordering::Relaxed) {
            self.memory_peak_bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// Notes a failure, and whether calls are refused from now on.
    pub(super) fn failed(&self, request: &str, what: String, is_quarantined: bool) {
        add(&self.failures, 1);
        let at = seconds_now();
        let mut trouble = self.trouble();
        trouble.quarantine = is_quarantined.then(|| what.clone());
        trouble.last = Some(Failure { at, request: request.to_owned(), what });
    }

    /// Calls go through again.
    pub(super) fn recovered(&self) {
        self.trouble().quarantine = None;
    }

    fn add_to(&self, totals: &mut Totals) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (sum, one) in totals.calls.iter_mut().zip(&self.hooks) {
            *sum = sum.wrapping_add(load(one));
        }
        for (sum, one) in totals.decisions.iter_mut().zip(&self.decisions) {
            *sum = sum.wrapping_add(load(one));
        }
        totals.failures = totals.failures.wrapping_add(load(&self.failures));
        totals.requests = totals.requests.wrapping_add(load(&self.requests));
        totals.dropped = totals.dropped.wrapping_add(load(&self.dropped));
        totals.nanoseconds = totals.nanoseconds.wrapping_add(load(&self.nanoseconds));
        totals.instances = totals.instances.wrapping_add(load(&self.instances));
        totals.instances_waited_for = totals.instances_waited_for.wrapping_add(load(&self.waited));
        totals.body_bytes_in = totals.body_bytes_in.wrapping_add(load(&self.body_bytes_in));
        totals.body_bytes_out = totals.body_bytes_out.wrapping_add(load(&self.body_bytes_out));
        totals.memory_peak_bytes = totals.memory_peak_bytes.max(load(&self.memory_peak_bytes));
        let trouble = self.trouble();
        totals.quarantined.extend(trouble.quarantine.clone());
        totals.last_failure = later(totals.last_failure.take(), trouble.last.clone());
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds to a counter that one worker alone writes: a load and a store, no locked instruction.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

fn later(one: Option<Failure>, other: Option<Failure>) -> Option<Failure> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.at >= one.at { other } else { one }),
        (one, other) => one.or(other),
    }
}

/// Seconds since 1970.
pub(super) fn seconds_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map(|since| since.as_secs()).unwrap_or_default()
}

/// The place of a decision in [`DECISIONS`].
pub(super) fn decision_index(decision: &Decision) -> usize {
    match decision {
        Decision::Continue => 0,
        Decision::Upstream(_) => 1,
        Decision::Redirect { .. } => 2,
        Decision::Respond { .. } => 3,
    }
}

/// The names of what [`Totals::calls`] counts.
pub const HOOKS: [&str; 14] = [
    "route",
    "on-request",
    "on-request-body",
    "on-response",
    "body",
    "on-client-hello",
    "traits",
    "find-zone",
    "present",
    "poll",
    "cleanup",
    "decide",
    "write",
    "on-event",
];
/// The names of what [`Totals::decisions`] counts.
pub const DECISIONS: [&str; 9] = [
    "continue",
    "upstream",
    "redirect",
    "respond",
    "pass-through",
    "terminate-as",
    "refuse",
    "allow",
    "deny",
];
/// One call of so many is measured: a clock costs a third of a small call.
const MEASURED_EVERY: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_still_counts() {
        let stats = Stats::default();
        let (one, other) = (stats.place(), stats.place());
        for _ in 0..20 {
            if one.begin(Hook::Request) {
                one.measured(Duration::from_nanos(10));
            }
            one.decided(&Decision::Continue);
        }
        other.begin(Hook::Route);
        other.failed("r1", "boom".to_owned(), true);
        other.memory(1 << 20);
        let before = stats.totals();
        assert_eq!(before.calls[..5], [1, 20, 0, 0, 0]);
        assert_eq!(before.decisions[..4], [20, 0, 0, 0]);
        // The 1st and the 17th were measured.
        assert_eq!((before.failures, before.nanoseconds), (1, 320));
        assert_eq!(before.quarantined, ["boom"]);
        stats.retire(&other);
        drop(other);
        let after = stats.totals();
        assert!(after.quarantined.is_empty());
        assert_eq!(Totals { quarantined: Vec::new(), ..before }, after);
        let waiting = Waiting::begin(&stats, Hook::Decide);
        waiting.end(Duration::from_nanos(5), 2 << 20, 3, Some("late".to_owned()));
        stats.decided("deny");
        stats.dropped(7);
        let with = stats.totals();
        assert_eq!((with.calls[11], with.requests, with.dropped), (1, 3, 7));
        assert_eq!((with.nanoseconds, with.failures, with.decisions[8]), (325, 2, 1));
        one.failed("r2", "again".to_owned(), false);
        assert_eq!(stats.totals().last_failure.unwrap().request, "r2");
    }
}
