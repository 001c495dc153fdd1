//! Which certificate needs what, and when: a pure function of what is wanted, what is stored, what
//! happened before, and the time. No IO, no clock of its own; the tests run it through years.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::HostPattern;

/// What is wanted of one certificate.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its primary name; seeds the jitter.
    pub name: &'a str,
    /// Names that must be in it.
    pub hosts: &'a [HostPattern],
    /// Directory URLs of the CAs, in the order in which they are tried.
    pub directories: &'a [&'a str],
    /// An operator asked for a new one now: pauses of our own do not count, those that a CA asked for
    /// and its limits do.
    pub is_asked_for: bool,
}

/// What is stored of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The names in it.
    pub names: Vec<HostPattern>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// The id of RFC 9773, section 4.1, when it has one.
    pub id: Option<String>,
}

/// What to do about a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// Order it now.
    Order {
        /// The index of the CA in [`Wanted::directories`].
        issuer: usize,
        /// Why.
        reason: Reason,
        /// Whether the order may say that it replaces the one that is held (RFC 9773, section 5).
        is_replacement: bool,
    },
    /// Ask the CA when to renew it (RFC 9773).
    AskWindow,
    /// Nothing before `at`.
    Wait {
        /// When to look again.
        at: Timestamp,
        /// What is waited for.
        waiting: Waiting,
    },
}

/// Why a certificate is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// There is none.
    Missing,
    /// The one there is lacks a name.
    Names,
    /// The one there is comes from a CA that is no longer configured.
    Issuer,
    /// The one there is was revoked.
    Revoked,
    /// It is time.
    Renewal,
    /// An operator asked.
    Asked,
}

impl Reason {
    /// In words, for the log and the status.
    pub fn words(self) -> &'static str {
        match self {
            Self::Missing => "there is none yet",
            Self::Names => "the one there is lacks a name",
            Self::Issuer => "the one there is comes from a CA that is no longer configured",
            Self::Revoked => "the one there is was revoked",
            Self::Renewal => "it is time to renew",
            Self::Asked => "somebody asked for it",
        }
    }
}

impl Waiting {
    /// In words, for the status; `at` is when to look again.
    pub fn words(&self, at: Timestamp) -> String {
        match self {
            Self::Renewal(due) => format!("renewal at {due}"),
            Self::Backoff(reason) => format!("next try at {at} ({})", reason.words()),
            Self::Issuers(reason) => {
                format!("no CA is to be asked before {at} ({})", reason.words())
            }
            Self::NoIssuer => "no issuer is configured for it".to_owned(),
        }
    }
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// The time to renew.
    Renewal(Timestamp),
    /// The pause after a failure.
    Backoff(Reason),
    /// Every CA is out for now: down, rate limiting, or its published limits would be broken.
    Issuers(Reason),
    /// No CA is configured for it.
    NoIssuer,
}

/// What happened to one certificate; kept in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Failures in a row.
    pub failures: u32,
    /// The last failure, until a success.
    pub last_failure: Option<Failure>,
    /// No attempt before this.
    pub retry_at: Option<Timestamp>,
    /// Which CA's turn it is, counted on, so to be taken modulo their number.
    pub issuer_turn: u32,
    /// Whether `challenge: auto` uses its second kind; stays after a success, since that worked.
    pub is_second_challenge: bool,
    /// Directories that told this certificate to wait.
    pub blocked: BTreeMap<String, Timestamp>,
    /// The directory that issued what is held.
    pub issued_by: Option<String>,
    /// Certificates issued lately.
    pub issued: Vec<Event>,
    /// Authorizations that failed lately.
    pub failed_authorizations: Vec<Event>,
    /// What the CA said about when to renew.
    pub window: Option<Window>,
    /// The id of a certificate that was revoked through this gateway, until it is replaced.
    pub revoked: Option<String>,
}

/// Something that counts against a limit of a CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// The directory URL.
    pub directory: String,
}

/// A failed attempt, as told to the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// What kind.
    pub trouble: Trouble,
    /// Issuer, problem type and detail, in words.
    pub text: String,
}

/// What kind of failure an attempt ended with; decides how long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// The CA could not be reached or failed by itself: nothing was counted against anybody.
    Authority,
    /// The CA said that there were too many requests.
    RateLimited,
    /// The CA did not find the proof of control.
    Validation,
    /// The CA refused for good: the name, the account, the profile.
    Refused,
    /// Something on this side: no listener, no solver, the DNS provider, the disk.
    Local,
}

/// The renewal window of RFC 9773.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The certificate that it is about.
    pub id: String,
    /// Start and end; none when the CA gave none.
    pub suggested: Option<(Timestamp, Timestamp)>,
    /// When to ask again.
    pub ask_at: Timestamp,
}

/// What happened with each CA, by directory URL; kept in the store.
pub type Issuers = BTreeMap<String, IssuerHistory>;

/// What happened with one CA.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IssuerHistory {
    /// Failures of the CA itself, in a row.
    pub failures: u32,
    /// Refusals for too many requests, in a row, whatever the certificate.
    pub limited: u32,
    /// The circuit: no attempt before this.
    pub open_until: Option<Timestamp>,
    /// New orders lately.
    pub orders: Vec<Timestamp>,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// The directory URL.
    pub directory: &'a str,
    /// What kind of failure.
    pub trouble: Trouble,
    /// For the operator.
    pub text: String,
    /// Authorizations that the CA found invalid.
    pub authorizations_failed: u32,
    /// How long the CA or the DNS provider asked to wait.
    pub retry_after: Option<Duration>,
    /// Whether another kind of challenge can be tried instead.
    pub has_other_challenge: bool,
}

/// Which hosts share a certificate: a name and its own wildcard; any other host has one alone, so
/// that one name's trouble is no other's. In the order of the first of each.
pub fn group(hosts: &[HostPattern]) -> Vec<Vec<HostPattern>> {
    let mut groups: Vec<Vec<HostPattern>> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for host in hosts {
        let Some(base) = host.base() else { continue };
        let place = *places.entry(base.as_str()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) if group.contains(host) => {}
            Some(group) => group.push(host.clone()),
            None => groups.push(vec![host.clone()]),
        }
    }
    for group in &mut groups {
        // The name before its wildcard: `Exact` sorts first.
        group.sort();
    }
    groups
}

/// The name of the certificate of these hosts, in the store and in the log: their names, joined.
pub fn name(hosts: &[HostPattern]) -> String {
    let names: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    names.join(",")
}

/// What to do about a certificate at `now`. In this order:
/// 1. nothing is due: ask for the renewal window when that is due, else wait for the renewal;
/// 2. something is due, but the last attempt failed lately: wait;
/// 3. order from the CA whose turn it is, passing over those that are out;
/// 4. all are out: wait for the first to come back.
pub fn need(
    wanted: &Wanted<'_>,
    held: Option<&Held>,
    history: &History,
    issuers: &Issuers,
    now: Timestamp,
) -> Need {
    let (reason, due_at) = due(wanted, held, history, now);
    if due_at > now {
        let ask_at = ask_window_at(wanted, held, history, now);
        return match ask_at {
            Some(at) if at <= now => Need::AskWindow,
            ask_at => Need::Wait {
                at: ask_at.map_or(due_at, |at| at.min(due_at)),
                waiting: Waiting::Renewal(due_at),
            },
        };
    }
    let retry_at = history.retry_at(now).filter(|_| !wanted.is_asked_for);
    if let Some(at) = retry_at.filter(|at| *at > now) {
        return Need::Wait { at, waiting: Waiting::Backoff(reason) };
    }
    let count = wanted.directories.len();
    let turn = usize::try_from(history.issuer_turn).unwrap_or(0);
    let mut back_at: Option<Timestamp> = None;
    for step in 0..count {
        let issuer = (turn + step) % count;
        let Some(directory) = wanted.directories.get(issuer).copied() else { continue };
        let is_replacement = held.is_some_and(|held| {
            held.id.is_some()
                && held.not_after > now
                && history.issued_by.as_deref() == Some(directory)
                && held.names.iter().any(|name| wanted.hosts.contains(name))
        });
        let at = free_at(directory, is_replacement, wanted, history, issuers, now);
        if at <= now {
            return Need::Order { issuer, reason, is_replacement };
        }
        back_at = Some(back_at.map_or(at, |earlier| earlier.min(at)));
    }
    match back_at {
        // Spread over a minute, so that not every name knocks at the instant a CA is back.
        Some(at) => Need::Wait {
            at: at + Duration::from_secs(share(60, (wanted.name, at))),
            waiting: Waiting::Issuers(reason),
        },
        None => Need::Wait { at: now + DAY, waiting: Waiting::NoIssuer },
    }
}

/// When a certificate is to be renewed: when the CA says, as long as that leaves a tenth of its
/// lifetime, else at two thirds of the lifetime (half of it below ten days), less up to a twentieth
/// by a jitter that is the same at every look.
pub fn renewal_at(name: &str, held: &Held, history: &History, now: Timestamp) -> Timestamp {
    let by_lifetime = renewal_by_lifetime(name, held);
    let lifetime = held.not_before.until(held.not_after);
    let due = match history.suggested(held) {
        Some((start, end)) => {
            let pick = start
                + Duration::from_secs(share(start.until(end).as_secs(), (name, held.not_before)));
            let latest = held.not_before + lifetime.mul_f64(0.9);
            let pick = pick.min(latest);
            // A CA that calls for each new certificate to be renewed at once would be asked for
            // certificates without end.
            match history.early_renewals_used_up_until(pick) {
                Some(until) if pick < by_lifetime => until.min(by_lifetime),
                _ => pick,
            }
        }
        None => by_lifetime,
    };
    // With a clock that runs far ahead, a certificate looks old when it comes. It is the newest that
    // can be had.
    let came_at = history.issued.last().map(|event| event.at);
    let is_odd = |at: &Timestamp| *at > held.not_before + OLD_AT_ISSUE && *at <= now + CLOCK_SLACK;
    match came_at.filter(is_odd) {
        Some(at) => due.max(at + lifetime / 4),
        None => due,
    }
}

/// An order that lies ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// When.
    pub at: Timestamp,
    /// The index of the CA in [`Wanted::directories`].
    pub issuer: usize,
    /// Why.
    pub reason: Reason,
}

/// The orders from `now` to `end`, if each succeeds and brings a certificate that lives as long as the
/// one that is held, and no CA says anything new about when to renew.
pub fn plan(
    wanted: &Wanted<'_>,
    held: Option<&Held>,
    history: &History,
    issuers: &Issuers,
    now: Timestamp,
    end: Timestamp,
) -> Vec<Planned> {
    let lifetime = held.map_or(USUAL_LIFETIME, |held| held.not_before.until(held.not_after));
    let (mut wanted, mut held, mut history) = (*wanted, held.cloned(), history.clone());
    let (mut at, mut planned) = (now, Vec::new());
    for _ in 0..PLAN_STEPS_MAX {
        if at > end {
            break;
        }
        match need(&wanted, held.as_ref(), &history, issuers, at) {
            Need::Wait { at: next, .. } => at = next.max(at + Duration::from_secs(1)),
            Need::AskWindow => {
                if let Some(held) = &held {
                    history.set_window(held, None, DAY, at);
                }
            }
            Need::Order { issuer, reason, .. } => {
                planned.push(Planned { at, issuer, reason });
                let directory = wanted.directories.get(issuer).copied().unwrap_or_default();
                history.succeed_at(directory, at);
                wanted.is_asked_for = false;
                held = Some(Held {
                    names: wanted.hosts.to_vec(),
                    not_before: at,
                    not_after: at + lifetime,
                    id: None,
                });
            }
        }
    }
    planned
}

/// Whether what is held is so near its end that renewal must have failed for long: less than a sixth
/// of its lifetime is left, where renewal begins with a third (or half).
pub fn is_near_end(held: &Held, now: Timestamp) -> bool {
    now.until(held.not_after) < held.not_before.until(held.not_after) / 6
}

impl History {
    /// Notes a failure at `now`, and sets when to try again and with what.
    pub fn fail_at(
        &mut self,
        wanted: &Wanted<'_>,
        held: Option<&Held>,
        attempt: &Attempt<'_>,
        now: Timestamp,
    ) {
        self.forget_old(now);
        self.failures = self.failures.saturating_add(1);
        let limits = Limits::of(attempt.directory);
        if limits.failed_authorizations_per_hour.is_some() {
            for _ in 0..attempt.authorizations_failed {
                let directory = attempt.directory.to_owned();
                self.failed_authorizations.push(Event { at: now, directory });
            }
        }
        let is_provider = attempt.trouble == Trouble::Local;
        let pause = match self.has_next_issuer(wanted, attempt.trouble) {
            true => Duration::from_secs(1 + share(NEXT_ISSUER_SECONDS, (wanted.name, now))),
            false => backoff(wanted.name, self.failures, attempt.trouble, held, now),
        };
        self.retry_at = Some(now + pause);
        match (attempt.retry_after, attempt.trouble) {
            // A DNS provider's pause holds for every CA.
            (Some(asked), _) if is_provider => {
                self.retry_at = Some(now + pause.max(asked.min(WEEK)));
            }
            (Some(asked), _) => {
                let until = now + asked.min(WEEK);
                self.blocked.insert(attempt.directory.to_owned(), until);
            }
            (None, Trouble::RateLimited) => {
                self.blocked.insert(attempt.directory.to_owned(), now + HOUR);
            }
            (None, _) => {}
        }
        let tries_other_challenge = attempt.trouble == Trouble::Validation
            && attempt.has_other_challenge
            && !self.is_second_challenge;
        self.is_second_challenge = tries_other_challenge;
        if !tries_other_challenge {
            self.issuer_turn = self.issuer_turn.wrapping_add(1);
        }
        self.last_failure =
            Some(Failure { at: now, trouble: attempt.trouble, text: attempt.text.clone() });
    }

    /// Notes a success.
    pub fn succeed_at(&mut self, directory: &str, now: Timestamp) {
        self.forget_old(now);
        self.failures = 0;
        self.last_failure = None;
        self.retry_at = None;
        self.issuer_turn = 0;
        self.blocked.remove(directory);
        self.issued_by = Some(directory.to_owned());
        self.issued.push(Event { at: now, directory: directory.to_owned() });
        self.window = None;
        self.revoked = None;
    }

    /// Notes that what is held was revoked: it is replaced at once, and the pause after a failure ends.
    pub fn revoke(&mut self, held: &Held) {
        self.revoked.clone_from(&held.id);
        self.retry_at = None;
    }

    /// Notes that the configuration is another one: what it held up may be tried at once. What a CA
    /// counted still counts.
    pub fn configuration_changed(&mut self) {
        if self.last_failure.as_ref().is_some_and(|failure| failure.trouble == Trouble::Local) {
            self.retry_at = None;
            self.failures = 0;
        }
    }

    /// Notes what the CA said about when to renew; `suggested` is none when it said nothing. The
    /// next question is after `again`, within the bounds of RFC 9773, section 4.3.2.
    pub fn set_window(
        &mut self,
        held: &Held,
        suggested: Option<(Timestamp, Timestamp)>,
        again: Duration,
        now: Timestamp,
    ) {
        let Some(id) = held.id.clone() else { return };
        // What was known before is better than nothing.
        let suggested = suggested.or_else(|| self.suggested(held));
        let ask_at = now + again.clamp(Duration::from_secs(60), DAY);
        self.window = Some(Window { id, suggested, ask_at });
    }

    /// The window of what is held, when there is a sane one.
    pub fn suggested(&self, held: &Held) -> Option<(Timestamp, Timestamp)> {
        let window = self.window.as_ref().filter(|w| held.id.as_ref() == Some(&w.id))?;
        window.suggested.filter(|(start, end)| start < end)
    }

    /// Whether it was the CA's own failure and another one has its turn before a pause is made.
    fn has_next_issuer(&self, wanted: &Wanted<'_>, trouble: Trouble) -> bool {
        let count = u32::try_from(wanted.directories.len()).unwrap_or(1);
        matches!(trouble, Trouble::Authority | Trouble::RateLimited)
            && self.failures.checked_rem(count).is_some_and(|rest| rest > 0)
    }

    /// The end of the pause after the last failure. A clock that went back ends it.
    fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        let failed_at = self.last_failure.as_ref()?.at;
        let has_gone_back = now + CLOCK_SLACK < failed_at;
        self.retry_at.filter(|_| !has_gone_back)
    }

    fn early_renewals_used_up_until(&self, at: Timestamp) -> Option<Timestamp> {
        let latest: Vec<Timestamp> = self.issued.iter().map(|event| event.at).collect();
        full_until(&latest, EARLY_RENEWALS_PER_DAY_MAX, DAY, at)
    }

    fn forget_old(&mut self, now: Timestamp) {
        self.issued.retain(|event| event.at + WEEK > now && event.at <= now + CLOCK_SLACK);
        self.failed_authorizations
            .retain(|event| event.at + HOUR > now && event.at <= now + CLOCK_SLACK);
        self.blocked.retain(|_, until| *until > now);
    }
}

impl IssuerHistory {
    /// Notes that a new order is about to be made.
    pub fn order_at(&mut self, now: Timestamp) {
        self.orders.retain(|at| *at + THREE_HOURS > now && *at <= now + CLOCK_SLACK);
        self.orders.push(now);
    }

    /// Notes how an attempt ended: success, or its trouble. Opens the circuit after a failure of
    /// the CA itself, and after three refusals in a row for too many requests.
    pub fn end_at(&mut self, failed: Option<(Trouble, Option<Duration>)>, now: Timestamp) {
        match failed {
            Some((Trouble::Authority, asked)) => {
                self.failures = self.failures.saturating_add(1);
                let pause = exponential(self.failures, HOUR);
                self.open_until = Some(now + pause.max(asked.unwrap_or_default().min(DAY)));
            }
            Some((Trouble::RateLimited, asked)) => {
                self.limited = self.limited.saturating_add(1);
                if self.limited >= 3 {
                    self.open_until = Some(now + asked.unwrap_or(MINUTE).min(DAY));
                }
            }
            // The CA answered: it works.
            Some((Trouble::Validation | Trouble::Refused, _)) | None => {
                self.failures = 0;
                self.limited = 0;
                self.open_until = None;
            }
            Some((Trouble::Local, _)) => {}
        }
    }
}

/// What a CA publishes as its limits; none for a CA whose limits are not known, where its own
/// answers have to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// New orders per account in three hours; renewals by RFC 9773 do not count.
    pub orders_per_three_hours: Option<usize>,
    /// Certificates with exactly the same names in seven days.
    pub duplicates_per_week: Option<usize>,
    /// Failed authorizations per name, account and hour.
    pub failed_authorizations_per_hour: Option<usize>,
}

impl Limits {
    /// The limits of the CA with this directory. Source: letsencrypt.org/docs/rate-limits, 2026-08.
    pub fn of(directory: &str) -> Self {
        let is_letsencrypt = directory
            .strip_prefix("https://")
            .and_then(|rest| rest.split('/').next())
            .is_some_and(|host| host == "acme-v02.api.letsencrypt.org");
        match is_letsencrypt {
            true => Self {
                orders_per_three_hours: Some(300),
                duplicates_per_week: Some(5),
                failed_authorizations_per_hour: Some(5),
            },
            false => Self::default(),
        }
    }
}

/// Why and since when something is to be done.
fn due(
    wanted: &Wanted<'_>,
    held: Option<&Held>,
    history: &History,
    now: Timestamp,
) -> (Reason, Timestamp) {
    let Some(held) = held else { return (Reason::Missing, now) };
    if wanted.is_asked_for {
        return (Reason::Asked, now);
    }
    if !wanted.hosts.iter().all(|host| held.names.contains(host)) {
        return (Reason::Names, now);
    }
    if held.id.is_some() && history.revoked == held.id {
        return (Reason::Revoked, now);
    }
    let is_foreign =
        history.issued_by.as_deref().is_some_and(|by| !wanted.directories.contains(&by));
    if is_foreign {
        return (Reason::Issuer, now);
    }
    (Reason::Renewal, renewal_at(wanted.name, held, history, now))
}

fn renewal_by_lifetime(name: &str, held: &Held) -> Timestamp {
    let lifetime = held.not_before.until(held.not_after);
    let part = if lifetime < SHORT_LIFETIME { lifetime / 2 } else { lifetime / 3 * 2 };
    let jitter = Duration::from_secs(share(lifetime.as_secs() / 20, (name, held.not_before)));
    held.not_before + part.saturating_sub(jitter)
}

fn ask_window_at(
    wanted: &Wanted<'_>,
    held: Option<&Held>,
    history: &History,
    now: Timestamp,
) -> Option<Timestamp> {
    let held = held.filter(|held| held.id.is_some() && held.not_after > now)?;
    let issued_by = history.issued_by.as_deref()?;
    if !wanted.directories.contains(&issued_by) {
        return None;
    }
    let known = history.window.as_ref().filter(|window| held.id.as_ref() == Some(&window.id));
    // A clock that went back makes a far future of what was at most a day.
    Some(known.map_or(now, |window| window.ask_at.min(now + DAY)))
}

/// When this CA may next be asked for this certificate.
fn free_at(
    directory: &str,
    is_replacement: bool,
    wanted: &Wanted<'_>,
    history: &History,
    issuers: &Issuers,
    now: Timestamp,
) -> Timestamp {
    let limits = Limits::of(directory);
    let of = |events: &[Event]| -> Vec<Timestamp> {
        events.iter().filter(|event| event.directory == directory).map(|event| event.at).collect()
    };
    let mut at = now;
    if let Some(max) = limits.duplicates_per_week
        && let Some(until) = full_until(&of(&history.issued), max, WEEK, now)
    {
        at = at.max(until);
    }
    if let Some(max) = limits.failed_authorizations_per_hour {
        // All of the order's authorizations may fail.
        let max = max.saturating_sub(wanted.hosts.len().saturating_sub(1)).max(1);
        if let Some(until) = full_until(&of(&history.failed_authorizations), max, HOUR, now) {
            at = at.max(until);
        }
    }
    if let Some(issuer) = issuers.get(directory)
        && let Some(max) = limits.orders_per_three_hours
        && !is_replacement
        && let Some(until) = full_until(&issuer.orders, max, THREE_HOURS, now)
    {
        at = at.max(until);
    }
    // Neither of these is ever set further ahead, so more means that the clock went back.
    if let Some(until) = history.blocked.get(directory).filter(|until| **until <= now + WEEK) {
        at = at.max(*until);
    }
    if wanted.is_asked_for {
        return at;
    }
    let circuit = issuers.get(directory).and_then(|issuer| issuer.open_until);
    if let Some(until) = circuit.filter(|until| *until <= now + DAY) {
        at = at.max(until);
    }
    at
}

/// When there is room again for one more of at most `max` events in `period`; none when there is.
fn full_until(
    events: &[Timestamp],
    max: usize,
    period: Duration,
    now: Timestamp,
) -> Option<Timestamp> {
    if events.len() < max {
        return None;
    }
    let is_recent = |at: &Timestamp| *at + period > now && *at <= now + CLOCK_SLACK;
    let mut recent: Vec<Timestamp> = events.iter().copied().filter(is_recent).collect();
    recent.sort();
    let over = (recent.len() + 1).checked_sub(max).filter(|over| *over > 0)?;
    recent.get(over - 1).map(|at| *at + period)
}

/// The pause after the `failures`-th failure in a row: a minute, doubled each time, up to a day; up
/// to a quarter longer by jitter. Less when the certificate's end is near (an eighth of what
/// remains), and at most six hours (one, when nothing was counted against the name) without one.
fn backoff(
    name: &str,
    failures: u32,
    trouble: Trouble,
    held: Option<&Held>,
    now: Timestamp,
) -> Duration {
    let remaining = held.map(|held| now.until(held.not_after)).filter(|left| !left.is_zero());
    let max = match (remaining, trouble) {
        (Some(left), _) => (left / 8).clamp(10 * MINUTE, DAY),
        (None, Trouble::Authority | Trouble::RateLimited) => HOUR,
        (None, _) => 6 * HOUR,
    };
    let pause = exponential(failures, max);
    pause + Duration::from_secs(share(pause.as_secs() / 4, (name, failures, now)))
}

fn exponential(failures: u32, max: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    MINUTE.saturating_mul(1 << doublings).min(max)
}

/// A number from 0 to `whole` (exclusive, but 0 of 0), evenly spread by `seed` and always the same
/// for it. FNV-1a with a final mix, since the standard hasher may change between releases.
fn share(whole: u64, seed: impl Hash) -> u64 {
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^ (mixed >> 29)
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    seed.hash(&mut hasher);
    hasher.finish().checked_rem(whole).unwrap_or(0)
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const THREE_HOURS: Duration = Duration::from_secs(3 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// Of a certificate that is yet to come.
const USUAL_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
const PLAN_STEPS_MAX: u32 = 5000;
const SHORT_LIFETIME: Duration = Duration::from_secs(10 * 24 * 3600);
/// How far ahead of the clock an event of the past may be before it is taken for one of a clock
/// that was wrong then.
const CLOCK_SLACK: Duration = Duration::from_secs(60);
/// CAs set the beginning of validity back by an hour or so.
const OLD_AT_ISSUE: Duration = Duration::from_secs(26 * 3600);
/// Within this time an order goes from a CA that fails to the next one.
const NEXT_ISSUER_SECONDS: u64 = 5;
const EARLY_RENEWALS_PER_DAY_MAX: usize = 5;

#[cfg(test)]
mod tests;
