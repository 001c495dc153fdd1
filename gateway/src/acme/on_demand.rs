//! Certificates ordered at the first handshake for a name, when an endpoint of the operator's allows
//! it. However many handshakes wait for a name, it is asked about once and ordered once; how many
//! new names there may be in a minute, and in a week for one registered domain, is bounded; and what
//! was not allowed is not asked about again for a while. A name that got in is renewed like any
//! other as long as the endpoint allows it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::error::AcmeError;
use super::need::Need;
use super::policy::{Denied, Question};
use super::{RSA, Shared, Want, client, slot};
use crate::clock::Timestamp;
use crate::config::{self, AcmeIssuer, Challenge, HostPattern, Hostname};
use crate::store::{Store, StoreError};
use crate::tls::accept::Later;

/// What the configuration says about names that come by themselves.
#[derive(Clone)]
pub struct Terms {
    /// Whom to ask, and how much at most.
    pub rules: config::OnDemand,
    /// The hosts of sites on demand, with what their names' certificates are to be.
    pub patterns: Vec<(HostPattern, Vec<AcmeIssuer>, Challenge)>,
    /// Whether each name gets a second certificate with RSA.
    pub has_rsa: bool,
}

impl Terms {
    /// The certificate that a name may have: by its exact host, then a wildcard, then every host.
    pub fn want(&self, name: &str) -> Option<Want> {
        let host = Hostname::parse(name).ok().filter(|host| host.as_str() == name)?;
        if host.ip().is_some() || host.is_this_machine() {
            return None;
        }
        registered_domain(name)?;
        let rank = |pattern: &HostPattern| match pattern {
            HostPattern::Exact(_) => 0,
            HostPattern::Wildcard(_) => 1,
            HostPattern::Any => 2,
        };
        let fitting = self.patterns.iter().filter(|(pattern, ..)| pattern.matches(name));
        let (_, issuers, challenge) = fitting.min_by_key(|(pattern, ..)| rank(pattern))?;
        Some(Want {
            hosts: vec![HostPattern::Exact(host)],
            issuers: issuers.clone().into(),
            challenge: challenge.clone(),
            is_rsa: false,
        })
    }

    /// The same for each kind of key.
    fn wants(&self, name: &str) -> Vec<Want> {
        let first = self.want(name);
        let second = first.clone().filter(|_| self.has_rsa);
        first.into_iter().chain(second.map(|want| Want { is_rsa: true, ..want })).collect()
    }
}

/// What happens for names that nobody configured.
pub struct Desk {
    /// The control runtime: handshakes come from others.
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Names that handshakes wait for; the last word is whether there is a certificate.
    flights: HashMap<String, watch::Sender<Option<bool>>>,
    /// Names that are not asked about before a time.
    refused: HashMap<String, Timestamp>,
    /// Names that got in; kept in the store.
    names: BTreeMap<String, Known>,
    /// First orders in the last minute.
    lately: VecDeque<Timestamp>,
}

/// A name that got in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    since: Timestamp,
    domain: String,
}

/// Why a name does not get in.
#[derive(Debug)]
enum Refused {
    /// The endpoint or the policy said so.
    NotAllowed(String),
    /// The endpoint did not answer, or the policy failed.
    NoAnswer(String),
    /// Too many new names.
    TooMany(&'static str),
}

impl Desk {
    /// Takes the names that got in before from the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(store: &Store) -> Result<Self, StoreError> {
        let names = match store.read(NAMES)?.map(|text| serde_json::from_slice(&text)) {
            Some(Ok(names)) => names,
            Some(Err(cause)) => {
                store.set_aside(NAMES, &cause.to_string())?;
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        };
        let state = Mutex::new(State { names, ..State::default() });
        Ok(Self { runtime: Handle::current(), state })
    }

    /// The certificates of names that got in and may still have one.
    pub fn wants(&self, terms: &Terms) -> Vec<Want> {
        let state = self.lock();
        state.names.keys().flat_map(|name| terms.wants(name)).collect()
    }

    /// Whether a certificate's name is one that got in by itself.
    pub fn has(&self, name: &str) -> bool {
        self.lock().names.contains_key(host_of(name))
    }

    /// Says to all who wait for a name whether there is a certificate now.
    pub fn end(&self, name: &str, is_there: bool) {
        if let Some(waiting) = self.lock().flights.remove(name) {
            waiting.send_replace(Some(is_there));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_refused(&mut self, name: &str, now: Timestamp) -> bool {
        // Never set further ahead, so more means that the clock went back.
        let until = self.refused.get(name).filter(|until| **until <= now + REFUSED_MAX);
        until.is_some_and(|until| *until > now)
    }

    fn refuse(&mut self, name: &str, pause: Duration, now: Timestamp) {
        if self.refused.len() >= REFUSED_NAMES_MAX {
            self.refused.retain(|_, until| *until > now);
        }
        if self.refused.len() >= REFUSED_NAMES_MAX {
            self.refused.clear();
        }
        self.refused.insert(name.to_owned(), now + pause.min(REFUSED_MAX));
    }

    /// Lets a name in, within the bounds.
    fn admit(
        &mut self,
        name: &str,
        rules: &config::OnDemand,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let is_recent = |at: &Timestamp, period| *at + period > now && *at <= now;
        self.lately.retain(|at| is_recent(at, MINUTE));
        if self.lately.len() >= rules.per_minute {
            return Err(Refused::TooMany("`per-minute`"));
        }
        let domain = registered_domain(name).unwrap_or(name).to_owned();
        let of_domain = self.names.values().filter(|known| known.domain == domain);
        if of_domain.filter(|known| is_recent(&known.since, WEEK)).count() >= rules.per_domain {
            return Err(Refused::TooMany("`per-domain`"));
        }
        self.lately.push_back(now);
        self.names.insert(name.to_owned(), Known { since: now, domain });
        Ok(())
    }
}

impl Later for Arc<Shared> {
    fn certificate_for<'a>(
        &'a self,
        name: &'a str,
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(self.wait_for(name))
    }

    fn begin(&self, name: &str) {
        let _ = self.take_off(name);
    }
}

impl Shared {
    /// Joins those who wait for a name, or is the first. None when there is nothing to wait for; else
    /// how long to wait and for what.
    fn take_off(self: &Arc<Self>, name: &str) -> Option<(Duration, Progress)> {
        let (wants, rules) = self.on_demand_wants(name)?;
        let wait = rules.wait;
        let mut state = self.on_demand.lock();
        if state.is_refused(name, Timestamp::now()) {
            return None;
        }
        match state.flights.get(name) {
            Some(flight) => Some((wait, flight.subscribe())),
            None if state.flights.len() >= FLIGHTS_MAX => None,
            None => {
                let (flight, progress) = watch::channel(None);
                state.flights.insert(name.to_owned(), flight);
                let (shared, name) = (Arc::clone(self), name.to_owned());
                self.on_demand.runtime.spawn(async move {
                    shared.fly(&name, wants, &rules).await;
                });
                Some((wait, progress))
            }
        }
    }

    async fn wait_for(self: &Arc<Self>, name: &str) -> bool {
        let Some((wait, mut progress)) = self.take_off(name) else { return false };
        let landed = tokio::time::timeout(wait, progress.wait_for(Option::is_some)).await;
        matches!(landed, Ok(Ok(word)) if *word == Some(true))
    }

    fn on_demand_wants(&self, name: &str) -> Option<(Vec<Want>, config::OnDemand)> {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let terms = book.wants.as_ref()?.on_demand.as_ref()?;
        let wants = terms.wants(name);
        (!wants.is_empty()).then(|| (wants, terms.rules.clone()))
    }

    /// Asks, admits and orders; whoever waits hears of the end.
    async fn fly(self: &Arc<Self>, name: &str, wants: Vec<Want>, rules: &config::OnDemand) {
        if !self.on_demand.has(name)
            && let Err(refused) = self.let_in(name, rules).await
        {
            let pause = match &refused {
                Refused::NotAllowed(why) => {
                    tracing::debug!(name, "no certificate on demand: {why}");
                    rules.remember
                }
                Refused::NoAnswer(why) => {
                    tracing::warn!(name, "no certificate on demand: {why}");
                    SHORT_PAUSE
                }
                Refused::TooMany(bound) => {
                    tracing::warn!(name, "no certificate on demand: {bound} is used up");
                    SHORT_PAUSE
                }
            };
            self.on_demand.lock().refuse(name, pause, Timestamp::now());
            self.on_demand.end(name, false);
            return;
        }
        if let Some(is_there) = self.add(name, wants) {
            self.on_demand.end(name, is_there);
            return;
        }
        self.changed.notify_one();
        // The end comes with the order's; this is for an order that never gets its turn.
        tokio::time::sleep(FLIGHT_TIME).await;
        self.on_demand.end(name, false);
    }

    async fn let_in(&self, name: &str, rules: &config::OnDemand) -> Result<(), Refused> {
        is_allowed(rules, name).await?;
        self.is_allowed_by_policy(name).await?;
        let mut state = self.on_demand.lock();
        state.admit(name, rules, Timestamp::now())?;
        if self.store.is_shared() {
            // Others may have let names in.
            let merged = self.store.change(NAMES, &mut |known| {
                let known = known.and_then(|text| serde_json::from_slice(&text).ok());
                let known: BTreeMap<String, Known> = known.unwrap_or_default();
                state.names.extend(known);
                serde_json::to_vec(&state.names).unwrap_or_default()
            });
            if let Err(cause) = merged {
                tracing::error!("{}", crate::fault::describe(&cause));
            }
        } else {
            self.save(NAMES, &state.names);
        }
        drop(state);
        tracing::info!(name, "a certificate is ordered on demand");
        Ok(())
    }

    /// Asks the policy whether a name may come in; the order itself asks again, for issuer and profile.
    async fn is_allowed_by_policy(&self, name: &str) -> Result<(), Refused> {
        let (policy, want) = {
            let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            let wants = book.wants.as_ref();
            let policy = wants.and_then(|wants| wants.on_demand_policy.clone());
            let terms = wants.and_then(|wants| wants.on_demand.as_ref());
            match (policy, terms.and_then(|terms| terms.want(name))) {
                (Some(policy), Some(want)) => (policy, want),
                _ => return Ok(()),
            }
        };
        let question = Question {
            names: vec![name.to_owned()],
            reason: "on-demand",
            issuers: want.issuers.iter().map(|issuer| issuer.name.clone()).collect(),
            challenge: super::challenge_word(&want.challenge),
            not_after: None,
        };
        match policy.decide(question).await {
            Ok(_) => Ok(()),
            Err(Denied::No(why)) => {
                Err(Refused::NotAllowed(format!("{} denies it: {why}", policy.label())))
            }
            Err(Denied::Unclear(why)) => Err(Refused::NoAnswer(why)),
        }
    }

    /// Adds a name to what is wanted. Tells whether there is a certificate, when that is known now.
    fn add(&self, name: &str, added: Vec<Want>) -> Option<bool> {
        let mut guard = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let book = &mut *guard;
        let wants = Arc::make_mut(book.wants.as_mut()?);
        // Whoever waits, waits for the first.
        let want = added.first()?.clone();
        for want in added {
            if !wants.certificates.contains(&want) {
                let name = want.name();
                book.entries.entry(name.clone()).or_insert_with(|| self.stored(&name));
                wants.certificates.push(want);
            }
        }
        let entry = book.entries.entry(name.to_owned()).or_insert_with(|| self.stored(name));
        if let Some(certificate) = &entry.served
            && certificate.not_after > Timestamp::now()
        {
            self.certs.publish(vec![(slot(name), Arc::clone(certificate))]);
            return Some(true);
        }
        match entry.need(&want, name, &book.issuers, Timestamp::now()) {
            Need::Wait { .. } if !entry.is_under_way => Some(false),
            _ => None,
        }
    }

    /// Whether a name that got in may be renewed.
    ///
    /// # Errors
    /// When the endpoint says no, or nothing.
    pub async fn may_renew(&self, name: &str) -> Result<(), AcmeError> {
        let rules = match self.on_demand.has(name) {
            true => self.on_demand_wants(host_of(name)).map(|(_, rules)| rules),
            false => None,
        };
        let Some(rules) = rules else { return Ok(()) };
        is_allowed(&rules, host_of(name)).await.map_err(|refused| match refused {
            Refused::NotAllowed(why) => {
                AcmeError::NotAllowed(format!("the endpoint no longer allows {name}: {why}"))
            }
            Refused::NoAnswer(why) => AcmeError::Setup(why),
            Refused::TooMany(bound) => AcmeError::Setup(format!("{bound} is used up")),
        })
    }

    /// Forgets a name that may not have a certificate any more and whose last one has ended.
    pub fn forget(&self, book: &mut super::Book, name: &str) {
        let mut state = self.on_demand.lock();
        if !state.names.contains_key(host_of(name)) {
            return;
        }
        let mut gone = vec![name.to_owned()];
        // One with RSA goes alone, and with the name.
        if host_of(name) == name {
            state.names.remove(name);
            self.save(NAMES, &state.names);
            gone.push(format!("{name}{RSA}"));
        }
        drop(state);
        for name in &gone {
            book.entries.remove(name);
        }
        if let Some(wants) = &mut book.wants {
            Arc::make_mut(wants).certificates.retain(|want| !gone.contains(&want.name()));
        }
        self.certs.withdraw(&gone.iter().map(|name| slot(name)).collect::<Vec<_>>());
        tracing::info!(name, "no longer wanted on demand");
    }
}

/// The host of a certificate for one, whatever its kind of key.
fn host_of(name: &str) -> &str {
    name.strip_suffix(RSA).unwrap_or(name)
}

/// What those hear who wait for a name.
type Progress = watch::Receiver<Option<bool>>;

async fn is_allowed(rules: &config::OnDemand, name: &str) -> Result<(), Refused> {
    // Without an endpoint there is a policy.
    let Some(ask) = &rules.ask else { return Ok(()) };
    let separator = if ask.contains('?') { '&' } else { '?' };
    let url = format!("{ask}{separator}domain={name}");
    match tokio::time::timeout(ASK_TIME, client::get(&url)).await {
        Ok(Ok(status)) if status.is_success() => Ok(()),
        Ok(Ok(status)) if status.is_server_error() => {
            Err(Refused::NoAnswer(format!("{ask} answers {status}")))
        }
        Ok(Ok(status)) => Err(Refused::NotAllowed(format!("{ask} answers {status}"))),
        Ok(Err(cause)) => Err(Refused::NoAnswer(format!("{ask} is no help: {cause}"))),
        Err(_) => Err(Refused::NoAnswer(format!("{ask} does not answer"))),
    }
}

/// The name that somebody registered, by the public suffix list: `example.co.uk` of
/// `shop.example.co.uk`; none of a suffix itself.
fn registered_domain(name: &str) -> Option<&str> {
    psl::domain_str(name)
}

const NAMES: &str = "acme/on-demand.json";
const MINUTE: Duration = Duration::from_secs(60);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const ASK_TIME: Duration = Duration::from_secs(5);
/// After an endpoint that did not answer, and when there are too many.
const SHORT_PAUSE: Duration = Duration::from_secs(15);
const FLIGHT_TIME: Duration = Duration::from_secs(300);
const FLIGHTS_MAX: usize = 100;
const REFUSED_NAMES_MAX: usize = 10_000;
const REFUSED_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(per_minute: usize, per_domain: usize) -> config::OnDemand {
        config::OnDemand {
            ask: Some("http://127.0.0.1:1/".to_owned()),
            policy: None,
            per_minute,
            per_domain,
            wait: MINUTE,
            remember: MINUTE,
        }
    }

    #[test]
    fn only_names_that_could_be_signed_are_asked_about() {
        let patterns = ["*", "*.shop.example", "vip.shop.example"].map(|text| {
            let challenge = match text {
                "*" => Challenge::Http01,
                "*.shop.example" => Challenge::TlsAlpn01,
                _ => Challenge::Auto,
            };
            (HostPattern::parse(text).unwrap(), Vec::new(), challenge)
        });
        let terms = Terms { rules: rules(1, 1), patterns: patterns.to_vec(), has_rsa: false };
        let challenge = |name: &str| terms.want(name).map(|want| want.challenge);
        assert_eq!(challenge("vip.shop.example"), Some(Challenge::Auto));
        assert_eq!(challenge("a.shop.example"), Some(Challenge::TlsAlpn01));
        assert_eq!(challenge("b.a.shop.example"), Some(Challenge::Http01));
        assert_eq!(challenge("customer.co.uk"), Some(Challenge::Http01));
        for name in [
            "co.uk",
            "com",
            "nas",
            "127.0.0.1",
            "::1",
            "a.localhost",
            "A.example",
            "*.a.example",
            "a_b.example",
            "",
            "a..example",
            "x.1",
        ] {
            assert!(terms.want(name).is_none(), "{name}");
        }
    }

    #[test]
    fn bounds_hold_and_pass() {
        let now = Timestamp(1_000_000);
        let mut state = State::default();
        let rules = rules(3, 2);
        assert!(state.admit("a.one.co.uk", &rules, now).is_ok());
        assert!(state.admit("b.one.co.uk", &rules, now).is_ok());
        let refused = state.admit("c.one.co.uk", &rules, now).unwrap_err();
        assert!(matches!(refused, Refused::TooMany("`per-domain`")));
        assert!(state.admit("two.co.uk", &rules, now).is_ok());
        let refused = state.admit("three.co.uk", &rules, now).unwrap_err();
        assert!(matches!(refused, Refused::TooMany("`per-minute`")));
        assert!(state.admit("three.co.uk", &rules, now + MINUTE).is_ok());
        assert!(state.admit("c.one.co.uk", &rules, now + WEEK).is_ok());
    }

    #[test]
    fn what_was_refused_is_so_for_a_while_and_never_fills_the_memory() {
        let now = Timestamp(1_000_000);
        let mut state = State::default();
        state.refuse("a.example", MINUTE, now);
        assert!(state.is_refused("a.example", now + MINUTE / 2));
        assert!(!state.is_refused("a.example", now + MINUTE));
        for number in 0..3 * REFUSED_NAMES_MAX {
            state.refuse(&format!("{number}.example"), MINUTE, now);
        }
        assert!(state.refused.len() <= REFUSED_NAMES_MAX);
    }
}
