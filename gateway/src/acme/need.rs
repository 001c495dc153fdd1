//! What each certificate needs and when: a pure function of the names, what is stored, and the clock.
//! Nothing here waits or asks anybody, so years can be tested in milliseconds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::HostPattern;

/// What is remembered about one certificate between restarts, beside the certificate itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Attempts that failed since the last success.
    pub failures: u32,
    /// Nothing is tried before this time, in seconds since 1970.
    pub not_before: i64,
    /// The last failure, in words.
    pub last_error: Option<String>,
    /// When authorizations failed within the last hour (RFC 8555 servers limit these per name).
    pub failed_authorizations: Vec<i64>,
    /// The renewal window that the CA suggests (RFC 9773): start and end.
    pub window: Option<(i64, i64)>,
    /// When the CA is asked for its window again.
    pub window_due: i64,
}

/// The life of a stored certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Order now, from the issuer at this index.
    Order(usize),
    /// Ask the CA for its renewal window.
    AskWindow,
    /// Nothing before this time.
    Wait(Timestamp),
}

/// One certificate per name, except that a name and its wildcard share one, since they are validated
/// at one place.
pub fn group(hosts: &[HostPattern]) -> Vec<Vec<HostPattern>> {
    let mut groups: Vec<Vec<HostPattern>> = Vec::new();
    for host in hosts {
        match groups.iter_mut().find(|group| group.iter().any(|h| h.base() == host.base())) {
            Some(group) if !group.contains(host) => group.push(host.clone()),
            Some(_) => {}
            None => groups.push(vec![host.clone()]),
        }
    }
    for group in &mut groups {
        group.sort();
    }
    groups
}

/// Decides for one certificate. `name` only spreads the load: the same name always gets the same
/// jitter.
pub fn decide(
    name: &str,
    stored: Option<Life>,
    state: &State,
    issuers: usize,
    now: Timestamp,
) -> Need {
    let due = stored.map_or(now, |life| renewal(name, life, state.window));
    let start = due.max(Timestamp(state.not_before));
    if start <= now {
        // After a failure the next issuer has its turn.
        return Need::Order(usize::try_from(state.failures).unwrap_or(0) % issuers.max(1));
    }
    if let Some(life) = stored
        && state.window_due <= now.0
        && now < life.not_after
    {
        return Need::AskWindow;
    }
    let ask = if stored.is_some() { state.window_due } else { i64::MAX };
    Need::Wait(start.min(Timestamp(ask)))
}

/// When a certificate is renewed: within the window that its CA suggests, else at two thirds of its
/// life, or half of it where it lives for less than ten days. Never by fixed days.
pub fn renewal(name: &str, life: Life, window: Option<(i64, i64)>) -> Timestamp {
    let share = jitter(name);
    if let Some((start, end)) = window.filter(|(start, end)| start < end) {
        let span = u64::try_from(end - start).unwrap_or(0);
        let at = Timestamp(start) + Duration::from_secs(scale(span, share));
        // A window past the end of life would let it expire.
        return at.min(last_chance(life));
    }
    let total = life.not_before.until(life.not_after).as_secs();
    let fraction = if total < SHORT_LIFE_SECONDS { 500 } else { 667 };
    let spread = scale(total / 50, share);
    life.not_before + Duration::from_secs(scale(total, fraction).saturating_sub(spread))
}

/// The state after a failure at `now`. `retry_after` is what the CA or provider asked for;
/// `is_authorization` says that a validation failed.
pub fn failed(
    name: &str,
    state: &State,
    error: String,
    retry_after: Option<Duration>,
    is_authorization: bool,
    now: Timestamp,
) -> State {
    let mut next = state.clone();
    next.failures = state.failures.saturating_add(1);
    next.last_error = Some(error);
    next.failed_authorizations.retain(|at| *at > now.0 - HOUR_SECONDS);
    if is_authorization {
        next.failed_authorizations.push(now.0);
    }
    let steps = state.failures.min(20);
    let wait = FIRST_WAIT_SECONDS.saturating_mul(1 << steps).min(LONGEST_WAIT_SECONDS);
    let wait = wait + scale(wait / 4, jitter(name));
    let mut at = now + Duration::from_secs(wait).max(retry_after.unwrap_or_default());
    // One below the public limit of five failures an hour: the last is kept for a person.
    if next.failed_authorizations.len() >= AUTHORIZATION_FAILURES_MAX
        && let Some(oldest) = next.failed_authorizations.first()
    {
        at = at.max(Timestamp(oldest + HOUR_SECONDS));
    }
    next.not_before = at.0;
    next
}

/// The state after a success.
pub fn succeeded() -> State {
    State::default()
}

fn last_chance(life: Life) -> Timestamp {
    let total = life.not_before.until(life.not_after).as_secs();
    life.not_before + Duration::from_secs(scale(total, 900))
}

/// Thousandths, from the name (FNV-1a), so that a restart changes nothing.
fn jitter(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash >> 16) % 1000
}

fn scale(value: u64, thousandths: u64) -> u64 {
    value / 1000 * thousandths + value % 1000 * thousandths / 1000
}

const HOUR_SECONDS: i64 = 3600;
const FIRST_WAIT_SECONDS: u64 = 60;
const LONGEST_WAIT_SECONDS: u64 = 24 * 3600;
const SHORT_LIFE_SECONDS: u64 = 10 * 24 * 3600;
const AUTHORIZATION_FAILURES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86400;

    fn hosts(text: &[&str]) -> Vec<HostPattern> {
        text.iter().map(|host| HostPattern::parse(host).unwrap()).collect()
    }

    #[test]
    fn a_name_and_its_wildcard_share_a_certificate() {
        let groups = group(&hosts(&["*.a.example", "b.example", "a.example", "x.a.example"]));
        assert_eq!(
            groups,
            [hosts(&["a.example", "*.a.example"]), hosts(&["b.example"]), hosts(&["x.a.example"])]
        );
    }

    /// Runs a certificate through simulated time with a CA that is down in `outages` (days), and
    /// returns the orders made and the longest time without a valid certificate.
    fn simulate(name: &str, life_days: i64, years: i64, outages: &[(i64, i64)]) -> (u32, i64) {
        let end = Timestamp(years * 365 * DAY);
        let (mut now, mut stored, mut state) = (Timestamp(0), None::<Life>, State::default());
        let (mut orders, mut longest) = (0, 0);
        let mut in_last_hour: Vec<i64> = Vec::new();
        while now < end {
            // A restart at any time changes nothing: the state goes through its stored form.
            state = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
            if let Some(life) = stored {
                longest = longest.max(now.0 - life.not_after.0);
            }
            match decide(name, stored, &state, 1, now) {
                Need::Order(_) => {
                    let day = now.0 / DAY;
                    if outages.iter().any(|(from, to)| (*from..*to).contains(&day)) {
                        in_last_hour.retain(|at| *at > now.0 - HOUR_SECONDS);
                        in_last_hour.push(now.0);
                        assert!(
                            in_last_hour.len() <= 5,
                            "{} failures in an hour",
                            in_last_hour.len()
                        );
                        state = failed(name, &state, "down".into(), None, true, now);
                    } else {
                        orders += 1;
                        let not_after = Timestamp(now.0 + life_days * DAY);
                        stored = Some(Life { not_before: now, not_after });
                        state = State { window_due: i64::MAX, ..succeeded() };
                    }
                }
                Need::AskWindow => state.window_due = i64::MAX,
                Need::Wait(until) => {
                    assert!(until > now);
                    now = until;
                }
            }
        }
        (orders, longest)
    }

    #[test]
    fn no_certificate_expires_and_none_is_ordered_too_often() {
        for life in [90, 64, 45, 6] {
            for name in ["a.example", "b.example", "*.c.example"] {
                let outage = if life == 6 { 1 } else { 10 };
                let outages: Vec<(i64, i64)> =
                    (1..40).map(|n| (n * 100, n * 100 + outage)).collect();
                let (orders, longest) = simulate(name, life, 10, &outages);
                assert!(longest <= 0, "{name} of {life} days was expired for {longest} s");
                let fair = 3650 * 2 / life;
                assert!(
                    i64::from(orders) <= fair + fair / 20 + 10,
                    "{orders} orders for {life} days"
                );
            }
        }
    }

    #[test]
    fn the_window_of_the_ca_is_kept() {
        let life = Life { not_before: Timestamp(0), not_after: Timestamp(90 * DAY) };
        for name in ["a", "b", "c.example"] {
            let at = renewal(name, life, Some((10 * DAY, 12 * DAY)));
            assert!((10 * DAY..=12 * DAY).contains(&at.0));
        }
        let late = renewal("a", life, Some((95 * DAY, 96 * DAY)));
        assert!(late < life.not_after);
        let revoked = renewal("a", life, Some((-2, -1)));
        assert!(revoked < Timestamp(0));
    }

    #[test]
    fn what_the_ca_asks_for_is_waited() {
        let now = Timestamp(1000);
        let asked = Some(Duration::from_secs(7200));
        let state = failed("a", &State::default(), "429".into(), asked, false, now);
        assert_eq!(
            decide("a", None, &state, 1, Timestamp(1000 + 7199)),
            Need::Wait(Timestamp(8200))
        );
        assert_eq!(decide("a", None, &state, 1, Timestamp(8200)), Need::Order(0));
    }

    #[test]
    fn issuers_take_turns_after_failures() {
        let now = Timestamp(0);
        let state = failed("a", &State::default(), "x".into(), None, false, now);
        assert_eq!(decide("a", None, &state, 2, Timestamp(DAY)), Need::Order(1));
        let state = failed("a", &state, "x".into(), None, false, now);
        assert_eq!(decide("a", None, &state, 2, Timestamp(DAY)), Need::Order(0));
    }

    #[test]
    fn many_names_are_spread() {
        let life = Life { not_before: Timestamp(0), not_after: Timestamp(90 * DAY) };
        let times = (0..10_000).map(|n| renewal(&format!("h{n}.example"), life, None).0 / 3600);
        let mut hours = std::collections::HashMap::new();
        for hour in times {
            *hours.entry(hour).or_insert(0) += 1;
        }
        assert!(*hours.values().max().unwrap() < 600, "{:?}", hours.values().max());
    }
}
