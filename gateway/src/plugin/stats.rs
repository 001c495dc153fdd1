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
    decisions: [AtomicU64; 4],
    failures: AtomicU64,
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

/// The hooks that are counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hook {
    Route,
    Request,
    RequestBody,
    Response,
    Body,
}

/// Sums over all places of use.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Calls by hook, in the order of [`HOOKS`].
    pub calls: [u64; HOOKS.len()],
    /// Decisions of successful calls, in the order of [`DECISIONS`].
    pub decisions: [u64; 4],
    /// Calls that trapped, overran a limit or broke a rule, and instances that did not start.
    pub failures: u64,
    /// Time in calls, estimated from a sample of them.
    pub seconds: u64,
    /// The same in nanoseconds.
    pub nanoseconds: u64,
    /// Instances put to use.
    pub instances: u64,
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
        let [route, request, prefix, response, body] = &self.hooks;
        let counter = match hook {
            Hook::Route => route,
            Hook::Request => request,
            Hook::RequestBody => prefix,
            Hook::Response => response,
            Hook::Body => body,
        };
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
pub const HOOKS: [&str; 5] = ["route", "on-request", "on-request-body", "on-response", "body"];
/// The names of what [`Totals::decisions`] counts.
pub const DECISIONS: [&str; 4] = ["continue", "upstream", "redirect", "respond"];
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
        assert_eq!(before.calls, [1, 20, 0, 0, 0]);
        assert_eq!(before.decisions, [20, 0, 0, 0]);
        // The 1st and the 17th were measured.
        assert_eq!((before.failures, before.nanoseconds), (1, 320));
        assert_eq!(before.quarantined, ["boom"]);
        stats.retire(&other);
        drop(other);
        let after = stats.totals();
        assert!(after.quarantined.is_empty());
        assert_eq!(Totals { quarantined: Vec::new(), ..before }, after);
        one.failed("r2", "again".to_owned(), false);
        assert_eq!(stats.totals().last_failure.unwrap().request, "r2");
    }
}
