//! DNS-01 (RFC 8555, section 8.4): what the host does around a solver plugin.
//!
//! Called by orders. [`Dns01::present`] finds where each record belongs, has the plugin write it,
//! and returns when every server that counts serves it; [`Dns01::clean`] removes it. In between lie
//! turns and slots ([`turns`]), the journal ([`journal`]), names and CNAMEs ([`names`]) and
//! [`super::super::propagation`]. Only names that an order needs, or the ends of their CNAME chains,
//! are ever given to a plugin, and only values that this gateway made.

mod journal;
mod names;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::acme::dns::{Patience, Resolvers};
use crate::acme::propagation::{self, Expected, NotPropagated, Watch};
use crate::config::{Hostname, Propagation, Resolver};
use crate::fault::Fault;
use crate::store::Store;
use journal::{Cause, Journal, Keep, Line};
use turns::{Parallelism, Traits, Turns};

/// Presents and cleans up challenge records. One for the whole gateway, so that orders take turns;
/// after a change of the configuration, make the new one with [`Dns01::reconfigured`].
#[derive(Clone)]
pub struct Dns01 {
    shared: Arc<Shared>,
}

/// A value that a CA looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The domain, without `*.`.
    pub domain: Hostname,
    /// The account's URL, when the record's name is to be that account's own
    /// (draft-ietf-acme-dns-account-label).
    pub account: Option<String>,
    /// The TXT value.
    pub value: String,
}

/// Records that are being served; give them to [`Dns01::clean`]. When dropped instead, they stay in
/// the journal for [`Dns01::clean_leftovers`].
#[must_use = "records stay at the provider until they are cleaned up"]
pub struct Presented {
    lines: Vec<Line>,
    parallelism: Parallelism,
    /// Room at names that hold few values: free again when the values are gone.
    slots: Vec<OwnedSemaphorePermit>,
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.lines.iter().map(Line::record)).finish()
    }
}

impl Dns01 {
    /// The DNS servers that it asks.
    pub fn resolvers(&self) -> &Resolvers {
        &self.shared.resolvers
    }

    /// Asks `resolvers` (when empty, those of the system), waits as `propagation` says, and keeps its
    /// journal in `store`.
    pub fn new(
        store: Arc<Store>,
        resolvers: impl IntoIterator<Item = impl Into<Resolver>>,
        propagation: Propagation,
    ) -> Self {
        Self::with(store, resolvers, propagation, Pace::default())
    }

    fn with(
        keep: Arc<dyn Keep>,
        resolvers: impl IntoIterator<Item = impl Into<Resolver>>,
        propagation: Propagation,
        pace: Pace,
    ) -> Self {
        let shared = Shared {
            journal: Arc::new(Journal::new(keep)),
            turns: Arc::default(),
            resolvers: Resolvers::new(resolvers, pace.patience),
            propagation,
            pace,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The same with other settings: shares turns and the journal with this one, which may still be
    /// in use.
    pub fn reconfigured(
        &self,
        resolvers: impl IntoIterator<Item = impl Into<Resolver>>,
        propagation: Propagation,
    ) -> Self {
        let shared = Shared {
            journal: Arc::clone(&self.shared.journal),
            turns: Arc::clone(&self.shared.turns),
            resolvers: Resolvers::new(resolvers, self.shared.pace.patience),
            propagation,
            pace: self.shared.pace,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Has `solver` write the records and waits until they are served. `credential` is the plugin's
    /// name in `gateway.yaml`; `records` has several values for one domain when an order has it both
    /// plain and as a wildcard. What was written is removed
    /// again when this fails. When [`Dns01Error::values_max`] says that the provider holds fewer
    /// values, present fewer at once, and clean them before the next ones.
    ///
    /// # Errors
    /// When a record cannot be placed, written or seen.
    pub async fn present(
        &self,
        credential: &str,
        solver: &Arc<dyn DnsSolver>,
        records: &[Wanted],
    ) -> Result<Presented, Dns01Error> {
        let shared = &self.shared;
        let traits = shared.traits(credential, solver).await?;
        let places = shared.places(credential, solver, traits.parallelism, records).await?;
        check_room(&places, &traits, solver)?;
        let mut presented =
            Presented { lines: Vec::new(), parallelism: traits.parallelism, slots: Vec::new() };
        let done = async {
            for record in places {
                shared.write(credential, solver, &traits, record, &mut presented).await?;
            }
            shared.wait_for_all(solver, &traits, &presented).await
        }
        .await;
        match done {
            Ok(()) => Ok(presented),
            Err(error) => {
                // Its own failures are in the log, and the journal keeps what is left.
                let _logged = self.clean(presented, solver).await;
                Err(error)
            }
        }
    }

    /// Removes exactly the values that were presented. What cannot be removed stays in the journal.
    ///
    /// # Errors
    /// The first failure; the other records were still tried.
    pub async fn clean(
        &self,
        presented: Presented,
        solver: &Arc<dyn DnsSolver>,
    ) -> Result<(), Dns01Error> {
        let Presented { lines, parallelism, slots } = presented;
        let mut outcome = Ok(());
        for line in lines {
            let done = self.shared.erase(line, solver, parallelism).await;
            if let Err(error) = &done {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "challenge record is left behind; it stays in the journal"
                );
            }
            outcome = outcome.and(done);
        }
        drop(slots);
        outcome
    }

    /// Cleans up what an earlier process left behind, and what could not be cleaned up before.
    /// Records that this process is using are not touched. Returns a line for each entry that
    /// remains, with the reason.
    pub async fn clean_leftovers(
        &self,
        solvers: &BTreeMap<String, Arc<dyn DnsSolver>>,
    ) -> Vec<String> {
        let (lines, mut remaining) = self.shared.journal.leftovers().await;
        for line in lines {
            let record = line.record().clone();
            let credential = line.credential().to_owned();
            let Some(solver) = solvers.get(&credential) else {
                remaining.push(format!(
                    "TXT {} in zone {} was left behind by plugin `{credential}`, which is not in \
                     gateway.yaml any more: put it back for a while, or remove the values {} by hand",
                    record.name,
                    record.zone.name,
                    record.values.join(", ")
                ));
                continue;
            };
            let traits = self.shared.traits(&credential, solver).await;
            // Without knowing, as careful as can be.
            let parallelism =
                traits.map_or(Parallelism::PerCredential, |traits| traits.parallelism);
            match self.shared.erase(line, solver, parallelism).await {
                Ok(()) => tracing::info!(
                    plugin = credential,
                    name = record.name,
                    zone = record.zone.name,
                    "removed a challenge record that was left behind"
                ),
                Err(error) => {
                    let cause = std::error::Error::source(&error);
                    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
                    remaining.push(format!("{error}{cause}"));
                }
            }
        }
        remaining
    }
}

/// How fast things are done. Real providers get the default.
#[derive(Debug, Clone, Copy)]
struct Pace {
    patience: Patience,
    /// Calls in all before a solver's failure counts, at least 1.
    attempts_max: u32,
    /// The wait after a first failure; it doubles each time.
    backoff: Duration,
    /// The same after a conflict, which is over at once.
    backoff_conflict: Duration,
    /// The longest wait that a provider can ask for before the order has to wait instead.
    retry_after_max: Duration,
    /// Bounds of the wait between two calls of `poll`.
    poll_min: Duration,
    poll_max: Duration,
    /// How long to wait for room at a name before giving up.
    slot_wait: Duration,
    look: Duration,
    look_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            patience: Patience::default(),
            attempts_max: 4,
            backoff: Duration::from_secs(2),
            backoff_conflict: Duration::from_millis(250),
            retry_after_max: Duration::from_secs(60),
            poll_min: Duration::from_secs(1),
            poll_max: Duration::from_secs(60),
            slot_wait: Duration::from_secs(1800),
            look: Duration::from_secs(1),
            look_max: Duration::from_secs(10),
        }
    }
}

struct Shared {
    journal: Arc<Journal>,
    turns: Arc<Turns>,
    resolvers: Resolvers,
    propagation: Propagation,
    pace: Pace,
}

/// A call of a solver: what takes turns with it, and what its failure is called.
#[derive(Clone, Copy)]
struct Call<'a> {
    credential: &'a str,
    solver: &'a Arc<dyn DnsSolver>,
    parallelism: Parallelism,
    zone: Option<&'a str>,
    /// An infinitive for messages: `add TXT`.
    doing: &'static str,
    /// The name it is done with.
    name: &'a str,
}

impl Shared {
    async fn traits(
        &self,
        credential: &str,
        solver: &Arc<dyn DnsSolver>,
    ) -> Result<Traits, Dns01Error> {
        let call = Call {
            credential,
            solver,
            parallelism: Parallelism::Parallel,
            zone: None,
            doing: "tell its traits",
            name: "",
        };
        let traits = self.attempt(call, || solver.traits()).await?;
        Ok(Traits::read(&traits, &solver.label()))
    }

    /// Where the records belong: one set for each name, in the order of names.
    async fn places(
        &self,
        credential: &str,
        solver: &Arc<dyn DnsSolver>,
        parallelism: Parallelism,
        records: &[Wanted],
    ) -> Result<Vec<RecordSet>, Dns01Error> {
        let mut wanted: BTreeMap<String, Vec<&String>> = BTreeMap::new();
        for Wanted { domain, account, value } in records {
            let name = names::challenge_name(domain, account.as_deref())?;
            wanted.entry(name).or_default().push(value);
        }
        let mut following = JoinSet::new();
        for name in wanted.keys().cloned() {
            let resolvers = self.resolvers.clone();
            following.spawn(async move {
                let ends = names::follow(&resolvers, &name).await;
                (name, ends)
            });
        }
        let mut ends = BTreeMap::new();
        while let Some(followed) = following.join_next().await {
            let (name, found) = followed.map_err(|_| Dns01Error::Stopped)?;
            ends.insert(name, found?);
        }
        let mut places: BTreeMap<String, RecordSet> = BTreeMap::new();
        for (name, values) in wanted {
            let ends = ends.remove(&name).unwrap_or_default();
            let (end, zone) = self.zone_of(credential, solver, parallelism, &ends).await?;
            let place = places.entry(end.clone()).or_insert_with(|| RecordSet {
                zone,
                name: end,
                values: Vec::new(),
            });
            for value in values {
                if !place.values.contains(value) {
                    place.values.push(value.clone());
                }
            }
        }
        Ok(places.into_values().collect())
    }

    /// The first of `ends` that is in a zone of the account, and that zone.
    async fn zone_of(
        &self,
        credential: &str,
        solver: &Arc<dyn DnsSolver>,
        parallelism: Parallelism,
        ends: &[String],
    ) -> Result<(String, Zone), Dns01Error> {
        let mut first_error = None;
        for end in ends {
            let candidates = names::candidates(end);
            let call = Call {
                credential,
                solver,
                parallelism,
                zone: None,
                doing: "find the zone of",
                name: end,
            };
            let found = self.attempt(call, || solver.find_zone(candidates.clone())).await;
            match found {
                Ok((answer, handle)) => {
                    let lower = answer.to_ascii_lowercase();
                    let zone = lower.strip_suffix('.').unwrap_or(&lower);
                    if !candidates.iter().any(|candidate| candidate == zone) {
                        return Err(Dns01Error::OutsideZone {
                            label: solver.label(),
                            name: end.clone(),
                            answer,
                        });
                    }
                    tracing::debug!(plugin = credential, name = end, zone, "zone found");
                    return Ok((end.clone(), Zone { name: zone.to_owned(), handle }));
                }
                Err(error) if error.code() == Some("ask-dns") => {
                    let found = self.resolvers.zone_of(end).await;
                    let zone = found.map_err(|cause| Dns01Error::NoZone {
                        name: end.clone(),
                        why: cause.to_string(),
                    })?;
                    tracing::debug!(plugin = credential, name = end, zone, "zone found in the DNS");
                    return Ok((end.clone(), Zone { name: zone, handle: String::new() }));
                }
                Err(error) if error.code() == Some("zone-not-found") => {
                    first_error.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(first_error.unwrap_or(Dns01Error::Stopped))
    }

    /// Writes one record set: the journal first.
    async fn write(
        &self,
        credential: &str,
        solver: &Arc<dyn DnsSolver>,
        traits: &Traits,
        record: RecordSet,
        presented: &mut Presented,
    ) -> Result<(), Dns01Error> {
        if let Some(limit) = traits.values_per_name_max {
            let count = u32::try_from(record.values.len()).unwrap_or(u32::MAX);
            let slots = self.turns.slots(credential, &record.name, limit, count);
            let granted = tokio::time::timeout(self.pace.slot_wait, slots).await;
            let busy = || Dns01Error::Busy { label: solver.label(), name: record.name.clone() };
            presented.slots.push(granted.ok().flatten().ok_or_else(busy)?);
        }
        let failed = |cause| Dns01Error::Journal { name: record.name.clone(), cause };
        let line = self.journal.open(credential, record.clone()).await.map_err(failed)?;
        presented.lines.push(line);
        let call = Call {
            credential,
            solver,
            parallelism: traits.parallelism,
            zone: Some(&record.zone.name),
            doing: "add TXT",
            name: &record.name,
        };
        let present = || solver.present(record.clone(), traits.ttl_seconds);
        let handle = match self.attempt(call, present).await {
            Ok(handle) => handle,
            Err(error) => {
                // Who was not let in wrote nothing, and could not clean up either.
                if matches!(error.code(), Some("auth" | "account-not-entitled"))
                    && let Some(line) = presented.lines.pop()
                    && let Err(cause) = self.journal.close(line).await
                {
                    tracing::warn!(name = record.name, %cause, "entry stays in the DNS journal");
                }
                return Err(error);
            }
        };
        tracing::info!(
            plugin = credential,
            name = record.name,
            zone = record.zone.name,
            values = record.values.len(),
            "challenge record written"
        );
        if let Some(line) = presented.lines.last_mut()
            && let Err(cause) = self.journal.update(line, handle).await
        {
            // Cleaning up works without the handle, so a full disk need not end the order.
            tracing::warn!(name = record.name, %cause, "handle is missing in the DNS journal");
        }
        Ok(())
    }

    async fn wait_for_all(
        self: &Arc<Self>,
        solver: &Arc<dyn DnsSolver>,
        traits: &Traits,
        presented: &Presented,
    ) -> Result<(), Dns01Error> {
        let mut waiting = JoinSet::new();
        for line in &presented.lines {
            let (shared, solver, traits) = (Arc::clone(self), Arc::clone(solver), *traits);
            let (credential, record) = (line.credential().to_owned(), line.record().clone());
            let handle = line.handle();
            waiting.spawn(async move {
                shared.wait_for(&credential, &solver, &traits, record, handle).await
            });
        }
        while let Some(done) = waiting.join_next().await {
            done.map_err(|_| Dns01Error::Stopped)??;
        }
        Ok(())
    }

    /// Waits until the provider says that it is done, the fixed delay is over, and the servers have
    /// the values. No turn is held meanwhile.
    async fn wait_for(
        &self,
        credential: &str,
        solver: &Arc<dyn DnsSolver>,
        traits: &Traits,
        record: RecordSet,
        handle: String,
    ) -> Result<(), Dns01Error> {
        let timeout = self.propagation.timeout.max(traits.propagation_max);
        let started = Instant::now();
        let call = Call {
            credential,
            solver,
            parallelism: traits.parallelism,
            zone: Some(&record.zone.name),
            doing: "tell the state of TXT",
            name: &record.name,
        };
        match self.settle(call, &record, handle, timeout).await {
            Ok(()) => {}
            Err(error) if self.propagation.check => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the provider does not say that the record is live; asking its servers"
                );
            }
            Err(error) => return Err(error),
        }
        let left = timeout.saturating_sub(started.elapsed());
        sleep(self.propagation.delay).await;
        if !self.propagation.check {
            return Ok(());
        }
        let watch = Watch {
            port: self.propagation.port,
            timeout: left,
            interval: self.pace.look,
            interval_max: self.pace.look_max,
        };
        let RecordSet { zone, name, values } = record;
        let expected = Expected { zone: zone.name, name, values };
        propagation::wait(&self.resolvers, &expected, watch)
            .await
            .map_err(Dns01Error::NotPropagated)
    }

    async fn settle(
        &self,
        call: Call<'_>,
        record: &RecordSet,
        handle: String,
        timeout: Duration,
    ) -> Result<(), Dns01Error> {
        let started = Instant::now();
        loop {
            let poll = || call.solver.poll(record.zone.clone(), handle.clone());
            let Some(seconds) = self.attempt(call, poll).await? else { return Ok(()) };
            let wait = Duration::from_secs(seconds.into());
            let wait = wait.clamp(self.pace.poll_min, self.pace.poll_max);
            if started.elapsed() + wait > timeout {
                return Err(Dns01Error::Pending {
                    label: call.solver.label(),
                    name: record.name.clone(),
                    waited: started.elapsed(),
                });
            }
            tracing::debug!(name = record.name, wait_ms = wait.as_millis(), "provider is not done");
            sleep(wait).await;
        }
    }

    /// Removes one record set: the journal last.
    async fn erase(
        &self,
        line: Line,
        solver: &Arc<dyn DnsSolver>,
        parallelism: Parallelism,
    ) -> Result<(), Dns01Error> {
        let record = line.record().clone();
        let call = Call {
            credential: line.credential(),
            solver,
            parallelism,
            zone: Some(&record.zone.name),
            doing: "remove TXT",
            name: &record.name,
        };
        self.attempt(call, || solver.cleanup(record.clone(), line.handle())).await?;
        tracing::debug!(name = record.name, zone = record.zone.name, "challenge record removed");
        let failed = |cause| Dns01Error::Journal { name: record.name.clone(), cause };
        self.journal.close(line).await.map_err(failed)
    }

    /// Makes a call in its turn, and again after failures that pass. The turn is given up between
    /// two attempts.
    async fn attempt<'s, T, F>(&self, call: Call<'_>, mut run: F) -> Result<T, Dns01Error>
    where
        F: FnMut() -> SolverFuture<'s, T>,
    {
        let mut attempt = 1;
        loop {
            let outcome = {
                let _turn = self.turns.turn(call.parallelism, call.credential, call.zone).await;
                run().await
            };
            let failure = match outcome {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            let Some(wait) = self.pace.wait_before_next(&failure, attempt) else {
                return Err(Dns01Error::Solver {
                    label: call.solver.label(),
                    doing: call.doing,
                    name: call.name.to_owned(),
                    attempts: attempt,
                    failure: Box::new(failure),
                });
            };
            tracing::warn!(
                plugin = call.solver.label(),
                name = call.name,
                attempt,
                wait_ms = wait.as_millis(),
                failure = %failure,
                "plugin could not {}; trying again",
                call.doing
            );
            sleep(wait).await;
            attempt += 1;
        }
    }
}

impl Pace {
    /// How long to wait before a call is repeated; none when it shall not be.
    fn wait_before_next(&self, failure: &SolverFailure, attempt: u32) -> Option<Duration> {
        let base = match failure.code.as_str() {
            "auth"
            | "forbidden"
            | "zone-not-found"
            | "ask-dns"
            | "invalid"
            | "account-not-entitled" => {
                return None;
            }
            "trap" | "load" => return None,
            "conflict" => self.backoff_conflict,
            _ => self.backoff,
        };
        let asked = failure.retry_after.unwrap_or_default();
        if attempt >= self.attempts_max || asked > self.retry_after_max {
            return None;
        }
        let wait = base.saturating_mul(1 << (attempt - 1).min(16));
        // Those who failed together shall not come back together.
        let [.., random] = *uuid::Uuid::now_v7().as_bytes();
        let jitter = wait.mul_f64(f64::from(random) / 1020.0);
        Some(asked.max(wait) + jitter)
    }
}

/// Refuses more values than the provider can hold.
fn check_room(
    places: &[RecordSet],
    traits: &Traits,
    solver: &Arc<dyn DnsSolver>,
) -> Result<(), Dns01Error> {
    let Some(limit) = traits.values_per_name_max else { return Ok(()) };
    let most = places.iter().map(|place| place.values.len()).max().unwrap_or(0);
    let all = places.iter().map(|place| place.values.len()).sum();
    // One for each name is one for the whole credential: see `Turns::slots`.
    let count = if limit == 1 { all } else { most };
    match usize::try_from(limit).is_ok_and(|limit| count > limit) {
        true => Err(Dns01Error::TooManyValues { label: solver.label(), limit, count }),
        false => Ok(()),
    }
}

/// Why a challenge record was not presented or not removed.
#[derive(Debug)]
pub enum Dns01Error {
    /// There is no challenge record for this name.
    Name {
        /// As it was asked for.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The CNAMEs of the challenge name lead nowhere.
    Chain {
        /// The names so far.
        chain: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The plugin leaves it to the DNS, and that does not know.
    NoZone {
        /// The name.
        name: String,
        /// What the resolvers say.
        why: String,
    },
    /// The plugin failed, after as many attempts as made sense.
    Solver {
        /// The plugin.
        label: String,
        /// An infinitive: `add TXT`.
        doing: &'static str,
        /// The name it should do it with.
        name: String,
        /// Calls that were made.
        attempts: u32,
        /// The last failure.
        failure: Box<SolverFailure>,
    },
    /// The plugin named a zone that cannot hold the record.
    OutsideZone {
        /// The plugin.
        label: String,
        /// The record's name.
        name: String,
        /// The zone it named.
        answer: String,
    },
    /// The provider cannot hold so many values at once.
    TooManyValues {
        /// The plugin.
        label: String,
        /// What it can hold, inclusive.
        limit: u32,
        /// What was asked for.
        count: usize,
    },
    /// Other orders kept the provider's few places for too long.
    Busy {
        /// The plugin.
        label: String,
        /// The record's name.
        name: String,
    },
    /// The provider went on saying that it is not done.
    Pending {
        /// The plugin.
        label: String,
        /// The record's name.
        name: String,
        /// For how long.
        waited: Duration,
    },
    /// The records are not served.
    NotPropagated(NotPropagated),
    /// The journal in the store could not be written.
    Journal {
        /// The record's name.
        name: String,
        /// What the store said.
        cause: Cause,
    },
    /// The gateway is shutting down.
    Stopped,
}

impl Dns01Error {
    /// How long the provider asked to wait before the next attempt.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Solver { failure, .. } => failure.retry_after,
            _ => None,
        }
    }

    /// How many values the provider can hold, when more were presented at once. With 1, present one
    /// record at a time and clean it before the next.
    pub fn values_max(&self) -> Option<u32> {
        match self {
            Self::TooManyValues { limit, .. } => Some(*limit),
            _ => None,
        }
    }

    /// The plugin's code, when it was the plugin that failed.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Solver { failure, .. } => Some(&failure.code),
            _ => None,
        }
    }

    /// Who has to do something about it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Name { .. } | Self::Chain { .. } | Self::NoZone { .. } | Self::Journal { .. } => {
                Fault::Operator
            }
            Self::Solver { failure, .. } => match failure.code.as_str() {
                "auth" | "forbidden" | "zone-not-found" | "account-not-entitled" | "load" => {
                    Fault::Operator
                }
                "trap" | "deadline" => Fault::Plugin,
                _ => Fault::Authority,
            },
            Self::OutsideZone { .. } => Fault::Plugin,
            Self::TooManyValues { .. }
            | Self::Busy { .. }
            | Self::Pending { .. }
            | Self::NotPropagated(_) => Fault::Authority,
            Self::Stopped => Fault::Internal,
        }
    }
}

impl std::fmt::Display for Dns01Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name { name, why } => write!(f, "no DNS-01 challenge for {name}: {why}"),
            Self::NoZone { name, why } => write!(
                f,
                "the plugin leaves the zone of {name} to the DNS, and the resolvers know none: {why}; see \
                 certificates.resolvers"
            ),
            Self::Chain { chain, why } => {
                write!(f, "the CNAMEs {chain} cannot be followed: {why}; correct them in the DNS")
            }
            Self::Solver { label, doing, name, attempts, failure } => {
                let space = if name.is_empty() { "" } else { " " };
                write!(f, "plugin {label} could not {doing}{space}{name}")?;
                if *attempts > 1 {
                    write!(f, " in {attempts} attempts")?;
                }
                f.write_str(advice(&failure.code))
            }
            Self::OutsideZone { label, name, answer } => write!(
                f,
                "plugin {label} says that {name} is in zone {answer:?}, which is not above that name; \
                 nothing was written"
            ),
            Self::TooManyValues { label, limit, count } => write!(
                f,
                "plugin {label} can hold {limit} challenge value(s) at a time, not {count}: they have \
                 to be validated one after another"
            ),
            Self::Busy { label, name } => write!(
                f,
                "plugin {label} has no room for TXT {name}: other orders have been using it for too \
                 long"
            ),
            Self::Pending { label, name, waited } => write!(
                f,
                "plugin {label} says that TXT {name} is still not live after {} s; if the provider \
                 is that slow, raise certificates.propagation.timeout",
                waited.as_secs()
            ),
            Self::NotPropagated(inner) => inner.fmt(f),
            Self::Journal { name, .. } => {
                write!(f, "cannot keep the journal of TXT {name} in the store")
            }
            Self::Stopped => f.write_str("the gateway is stopping"),
        }
    }
}

/// What an operator can do, after the sentence that says what failed.
fn advice(code: &str) -> &'static str {
    match code {
        "auth" => "; check the plugin's secrets in gateway.yaml",
        "forbidden" => "; allow the credential to edit TXT records of this zone",
        "zone-not-found" => {
            "; the account has no zone for it: use the credential of the account that has, or make \
             the challenge name a CNAME into a zone that this account has"
        }
        "account-not-entitled" => {
            "; the provider does not offer its API to this account: make the challenge name a CNAME \
             into a zone at another provider"
        }
        "rate-limited" => "; the provider limits how often it may be asked",
        _ => "",
    }
}

impl std::error::Error for Dns01Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Solver { failure, .. } => Some(failure.as_ref()),
            Self::Journal { cause, .. } => Some(cause.as_ref()),
            _ => None,
        }
    }
}

/// A boxed future, since solvers are used through a trait object.
pub type SolverFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SolverFailure>> + Send + 'a>>;

/// A DNS provider, as `wit/dns-solver.wit` describes it. `plugin` implements it.
pub trait DnsSolver: Send + Sync {
    /// The plugin's name in `gateway.yaml` and digest, for messages.
    fn label(&self) -> String;

    /// `traits` of the contract.
    fn traits(&self) -> SolverFuture<'_, Vec<(String, String)>>;

    /// `find-zone` of the contract: zone and zone handle.
    fn find_zone(&self, candidates: Vec<String>) -> SolverFuture<'_, (String, String)>;

    /// `present` of the contract: the handle.
    fn present(&self, at: RecordSet, ttl_seconds: u32) -> SolverFuture<'_, String>;

    /// `poll` of the contract.
    fn poll(&self, zone: Zone, handle: String) -> SolverFuture<'_, Option<u32>>;

    /// `cleanup` of the contract.
    fn cleanup(&self, at: RecordSet, handle: String) -> SolverFuture<'_, ()>;
}

/// A zone at a provider.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Zone {
    /// Its name, lower case, without the final dot.
    pub name: String,
    /// The provider's id.
    pub handle: String,
}

/// TXT values at one name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecordSet {
    /// The zone that holds the name.
    pub zone: Zone,
    /// The absolute name, lower case, without the final dot.
    pub name: String,
    /// The values.
    pub values: Vec<String>,
}

/// Why a solver did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolverFailure {
    /// A code of `wit/dns-solver.wit`, or of the host: `trap`, `deadline`, `load`.
    pub code: String,
    /// For the operator; secrets are already masked.
    pub message: String,
    /// How long the provider asked to wait.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Display for SolverFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for SolverFailure {}
