//! Certificates over ACME (RFC 8555): which name needs what and when, orders, challenges, and the
//! store of it all. The only room that names instant-acme.

mod account;
mod client;
mod dns;
pub mod error;
#[cfg(test)]
mod fake_dns;
pub mod need;
mod order;
mod propagation;
pub mod solve;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instant_acme::CertificateIdentifier;
use rustls_pki_types::CertificateDer;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

use crate::clock::Timestamp;
use crate::config::{AcmeIssuer, Challenge, HostPattern, Propagation};
use crate::fault::describe;
use crate::store::{Store, StoreError};
use crate::tls::certs::{Certificate, Certs, Origin};
use account::{Member, Members};
use error::AcmeError;
use need::{Life, Need, State};
use order::{Desk, Proof};
use solve::dns01::{Dns01, DnsSolver};
use solve::http01::Tokens;

/// What the configuration in force wants: given by each new generation.
#[derive(Clone)]
pub struct Wants {
    /// Certificates to have.
    pub certificates: Vec<Want>,
    /// The e-mail address for accounts.
    pub contact: Option<String>,
    /// Solvers by plugin name.
    pub solvers: BTreeMap<String, Arc<dyn DnsSolver>>,
    /// DNS servers to ask, instead of the system's.
    pub resolvers: Vec<std::net::SocketAddr>,
    /// How to wait for DNS-01 records.
    pub propagation: Propagation,
    /// What `Challenge::Auto` may use: whether an https listener and an http listener exist.
    pub has_https: bool,
    /// See `has_https`.
    pub has_http: bool,
}

/// One certificate to have.
#[derive(Debug, Clone, PartialEq)]
pub struct Want {
    /// The names in it: one host, or a name and its wildcard.
    pub hosts: Vec<HostPattern>,
    /// CAs in the order in which they are tried.
    pub issuers: Vec<AcmeIssuer>,
    /// How control is proved.
    pub challenge: Challenge,
}

impl Want {
    /// The certificate's name in the store and in the log: its names, joined.
    fn name(&self) -> String {
        let names: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        names.join(",")
    }
}

/// The state of one wanted certificate, for the log, the status and `witgate certs`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct CertificateStatus {
    /// Its names.
    pub hosts: Vec<String>,
    /// What it waits for or what it has, in words for a person.
    pub state: String,
    /// End of validity of what is served now, in seconds since 1970.
    pub not_after: Option<i64>,
    /// When something is next done about it, in seconds since 1970.
    pub next_at: Option<i64>,
    /// The last failure: issuer, RFC 8555 problem type and detail.
    pub last_error: Option<String>,
}

/// The task that keeps certificates.
pub struct Acme {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    store: Arc<Store>,
    certs: Arc<Certs>,
    tokens: Arc<Tokens>,
    members: Members,
    book: Mutex<Book>,
    changed: Notify,
    stopping: Notify,
}

/// What is wanted and how far each of it is.
#[derive(Default)]
struct Book {
    wants: Option<Wants>,
    entries: BTreeMap<String, Entry>,
    dns: Option<Arc<Dns01>>,
    leftovers_due: bool,
}

#[derive(Default, Clone)]
struct Entry {
    state: State,
    served: Option<Arc<Certificate>>,
    is_under_way: bool,
    is_asked_for: bool,
}

/// What a task of one certificate came to.
struct Outcome {
    name: String,
    result: Result<Done, AcmeError>,
}

enum Done {
    Issued(Arc<Certificate>, String),
    /// The window, and when to ask again.
    Window(Option<(i64, i64)>, i64),
}

impl Acme {
    /// Starts the task on the current tokio runtime. Nothing is done before [`Acme::want`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn start(
        store: Arc<Store>,
        certs: Arc<Certs>,
        tokens: Arc<Tokens>,
    ) -> Result<Self, StoreError> {
        store.list("acme/certificates")?;
        let shared = Arc::new(Shared {
            store,
            certs,
            tokens,
            members: Members::default(),
            book: Mutex::default(),
            changed: Notify::new(),
            stopping: Notify::new(),
        });
        let task = tokio::spawn(Arc::clone(&shared).keep());
        Ok(Self { shared, task: Mutex::new(Some(task)) })
    }

    /// Sets what is wanted from now on, publishes what the store has of it, and withdraws the rest.
    /// Never triggers an order by itself: a name that waits for a retry goes on waiting.
    pub fn want(&self, wants: Wants) {
        self.shared.want(wants);
        self.shared.changed.notify_one();
    }

    /// The state of each wanted certificate.
    pub fn status(&self) -> Vec<CertificateStatus> {
        let book = self.shared.book.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(wants) = &book.wants else { return Vec::new() };
        wants.certificates.iter().map(|want| status(want, book.entries.get(&want.name()))).collect()
    }

    /// Orders the certificate of a host now, whatever is due; waits that a CA asked for still hold.
    ///
    /// # Errors
    /// When no certificate of this host is wanted.
    pub fn renew_now(&self, host: &str) -> Result<(), String> {
        let mut book = self.shared.book.lock().unwrap_or_else(PoisonError::into_inner);
        let wants = book.wants.iter().flat_map(|wants| &wants.certificates);
        let name = wants.filter(|want| want.hosts.iter().any(|h| h.matches(host))).map(Want::name);
        let name =
            name.into_iter().next().ok_or_else(|| format!("no ACME certificate for {host}"))?;
        book.entries.entry(name).or_default().is_asked_for = true;
        drop(book);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Ends the task. Orders under way get a moment to take their challenges back; what they leave is
    /// cleaned up at the next start.
    pub async fn stop(&self) {
        self.shared.stopping.notify_one();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = tokio::time::timeout(STOP_TIME, task).await;
        }
    }
}

impl Shared {
    fn want(&self, wants: Wants) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = book.wants.is_none();
        let names: BTreeSet<String> = wants.certificates.iter().map(Want::name).collect();
        let gone: Vec<String> =
            book.entries.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in &gone {
            book.entries.remove(name);
        }
        let slots: Vec<String> = gone.iter().map(|name| slot(name)).collect();
        self.certs.withdraw(&slots);
        let mut found = Vec::new();
        for name in names {
            if book.entries.contains_key(&name) {
                continue;
            }
            let entry = self.stored(&name);
            if let Some(certificate) = &entry.served {
                found.push((slot(&name), Arc::clone(certificate)));
            }
            book.entries.insert(name, entry);
        }
        self.certs.publish(found);
        let is_same = book.wants.as_ref().is_some_and(|known| {
            known.resolvers == wants.resolvers && known.propagation == wants.propagation
        });
        if !is_same {
            let (resolvers, propagation) = (wants.resolvers.clone(), wants.propagation.clone());
            // The next one shares locks and journal with the one before.
            let dns = match &book.dns {
                Some(dns) => dns.reconfigured(resolvers, propagation),
                None => Dns01::new(Arc::clone(&self.store), resolvers, propagation),
            };
            book.dns = Some(Arc::new(dns));
        }
        book.leftovers_due |= is_first;
        book.wants = Some(wants);
    }

    /// What the store has of a certificate. What cannot be used is set aside.
    fn stored(&self, name: &str) -> Entry {
        let mut entry = Entry::default();
        let item = state_item(name);
        if let Ok(Some(text)) = self.store.read(&item) {
            match serde_json::from_slice(&text) {
                Ok(state) => entry.state = state,
                Err(cause) => self.set_aside(&item, &cause.to_string()),
            }
        }
        let item = certificate_item(name);
        if let Ok(Some(pem)) = self.store.read(&item) {
            match Certificate::from_pem(&pem, &pem, Origin::Acme) {
                Ok(certificate) => entry.served = Some(Arc::new(certificate)),
                Err(cause) => self.set_aside(&item, &cause.to_string()),
            }
        }
        entry
    }

    fn set_aside(&self, item: &str, why: &str) {
        if let Err(cause) = self.store.set_aside(item, why) {
            tracing::error!("{cause}");
        }
    }

    async fn keep(self: Arc<Self>) {
        let mut tasks: JoinSet<Outcome> = JoinSet::new();
        loop {
            self.clean_leftovers();
            let wait = self.start_due(&mut tasks);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.changed.notified() => {}
                Some(ended) = tasks.join_next() => {
                    if let Ok(outcome) = ended {
                        self.take_in(outcome);
                    }
                }
                () = self.stopping.notified() => break,
            }
        }
        // Orders end by themselves within their own limits; `stop` does not wait for all of that.
        while let Some(ended) = tasks.join_next().await {
            if let Ok(outcome) = ended {
                self.take_in(outcome);
            }
        }
    }

    /// Once after a start: challenge records that a kill left behind.
    fn clean_leftovers(self: &Arc<Self>) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::take(&mut book.leftovers_due) {
            return;
        }
        let (Some(dns), Some(wants)) = (&book.dns, &book.wants) else { return };
        let (dns, solvers) = (Arc::clone(dns), wants.solvers.clone());
        tokio::spawn(async move {
            for left in dns.clean_leftovers(&solvers).await {
                tracing::warn!("challenge record left behind: {left}");
            }
        });
    }

    /// Starts what is due; returns how long nothing else will be.
    fn start_due(self: &Arc<Self>, tasks: &mut JoinSet<Outcome>) -> Duration {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(wants), Some(dns)) = (book.wants.clone(), book.dns.clone()) else {
            return IDLE_TIME;
        };
        let now = Timestamp::now();
        let mut wait = IDLE_TIME;
        for want in &wants.certificates {
            let name = want.name();
            let entry = book.entries.entry(name.clone()).or_default();
            if entry.is_under_way || tasks.len() >= ORDERS_MAX {
                continue;
            }
            let life = entry.served.as_ref().map(|c| life(c));
            let mut need = need::decide(&name, life, &entry.state, want.issuers.len(), now);
            if entry.is_asked_for && entry.state.not_before <= now.0 {
                need = Need::Order(0);
            }
            let (want, wants, dns) = (want.clone(), wants.clone(), Arc::clone(&dns));
            let (shared, state, served) =
                (Arc::clone(self), entry.state.clone(), entry.served.clone());
            match need {
                Need::Wait(until) => wait = wait.min(now.until(until)),
                Need::Order(index) => {
                    entry.is_under_way = true;
                    entry.is_asked_for = false;
                    tasks.spawn(async move {
                        let result = shared.order(&want, &wants, &dns, &state, served, index).await;
                        Outcome { name, result }
                    });
                }
                Need::AskWindow => {
                    entry.is_under_way = true;
                    tasks.spawn(async move {
                        let result = shared.ask_window(&want, &wants, served).await;
                        Outcome { name, result }
                    });
                }
            }
        }
        wait.max(SHORTEST_WAIT)
    }

    async fn order(
        &self,
        want: &Want,
        wants: &Wants,
        dns: &Dns01,
        state: &State,
        served: Option<Arc<Certificate>>,
        index: usize,
    ) -> Result<Done, AcmeError> {
        let none = || AcmeError::Setup("no issuer is configured".to_owned());
        let issuer = want.issuers.get(index).ok_or_else(none)?;
        let mut proofs = proofs(want, wants, state)?.into_iter();
        let name = want.name();
        tracing::info!(certificate = name, issuer = issuer.name, "ordering");
        let member = self.member(issuer, wants.contact.as_deref()).await?;
        let (store, certs, tokens) = (&*self.store, &self.certs, &self.tokens);
        let desk = Desk { store, certs, tokens, dns };
        let replaces = served.and_then(|served| served.key.cert.first().cloned());
        let profile = issuer.profile.as_deref();
        let mut last = None;
        // With `auto` the other way is tried at once when the first cannot be reached.
        let pem = loop {
            let Some(proof) = proofs.next() else {
                return Err(last.unwrap_or_else(none));
            };
            let replaces = replaces.clone();
            let request =
                order::Request { name: &name, hosts: &want.hosts, proof, profile, replaces };
            match order::obtain(&desk, &member, &request).await {
                Ok(pem) => break pem,
                Err(cause) if cause.is_authorization() => last = Some(cause),
                Err(cause) => return Err(cause),
            }
        };
        let certificate = Certificate::from_pem(pem.as_bytes(), pem.as_bytes(), Origin::Acme);
        let certificate = certificate.map_err(AcmeError::Unusable)?;
        // Stored, then served.
        let item = certificate_item(&name);
        self.store.write(&item, pem.as_bytes()).map_err(AcmeError::Store)?;
        order::finish(&self.store, &name)?;
        Ok(Done::Issued(Arc::new(certificate), issuer.name.clone()))
    }

    async fn ask_window(
        &self,
        want: &Want,
        wants: &Wants,
        served: Option<Arc<Certificate>>,
    ) -> Result<Done, AcmeError> {
        let again = Timestamp::now() + WINDOW_PAUSE;
        let leaf = served.as_ref().and_then(|served| served.key.cert.first());
        let (Some(issuer), Some(leaf)) = (want.issuers.first(), leaf) else {
            return Ok(Done::Window(None, again.0));
        };
        let member = self.member(issuer, wants.contact.as_deref()).await?;
        let leaf: &CertificateDer<'_> = leaf;
        let Ok(id) = CertificateIdentifier::try_from(leaf) else {
            return Ok(Done::Window(None, again.0));
        };
        match member.account.renewal_info(&id).await {
            Ok((info, pause)) => {
                let window = info.suggested_window;
                let window = (window.start.unix_timestamp(), window.end.unix_timestamp());
                let again = Timestamp::now() + pause.clamp(WINDOW_PAUSE_MIN, WINDOW_PAUSE_MAX);
                Ok(Done::Window(Some(window), again.0))
            }
            // A CA without renewal information, or a broken answer: renewal goes by the
            // certificate's own life.
            Err(cause) => {
                tracing::debug!(certificate = want.name(), %cause, "no renewal window");
                Ok(Done::Window(None, again.0))
            }
        }
    }

    /// The account at a CA, opened once however many orders need it.
    async fn member(
        &self,
        issuer: &AcmeIssuer,
        contact: Option<&str>,
    ) -> Result<Arc<Member>, AcmeError> {
        let cell = {
            let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(members.entry(format!("{issuer:?}")).or_default())
        };
        let opened = cell.get_or_try_init(|| async {
            Member::open(&self.store, issuer, contact).await.map(Arc::new)
        });
        opened.await.map(Arc::clone)
    }

    fn take_in(&self, outcome: Outcome) {
        let Outcome { name, result } = outcome;
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = book.entries.get_mut(&name) else { return };
        entry.is_under_way = false;
        let now = Timestamp::now();
        match result {
            Ok(Done::Issued(certificate, issuer)) => {
                let until = text(certificate.not_after);
                tracing::info!(
                    certificate = name,
                    issuer,
                    valid_until = until,
                    "certificate issued"
                );
                entry.state = need::succeeded();
                entry.served = Some(Arc::clone(&certificate));
                self.certs.publish(vec![(slot(&name), certificate)]);
            }
            Ok(Done::Window(window, again)) => {
                entry.state.window = window;
                entry.state.window_due = again;
            }
            Err(cause) => {
                let words = describe(&cause);
                let (wait, is_authorization) = (cause.retry_after(), cause.is_authorization());
                entry.state =
                    need::failed(&name, &entry.state, words.clone(), wait, is_authorization, now);
                let next = text(Timestamp(entry.state.not_before));
                tracing::warn!(
                    certificate = name,
                    failures = entry.state.failures,
                    next_try = next,
                    "no certificate: {words}"
                );
            }
        }
        let state = serde_json::to_vec(&entry.state).unwrap_or_default();
        if let Err(cause) = self.store.write(&state_item(&name), &state) {
            tracing::error!("{cause}");
        }
    }
}

/// How control of a certificate's names is proved, this time: in the order to try.
fn proofs(want: &Want, wants: &Wants, state: &State) -> Result<Vec<Proof>, AcmeError> {
    let wildcard = want.hosts.iter().find(|host| matches!(host, HostPattern::Wildcard(_)));
    if let (Some(host), false) = (wildcard, matches!(want.challenge, Challenge::Dns01(_))) {
        return Err(AcmeError::Setup(format!(
            "{host} is a wildcard, which CAs only validate by DNS-01: give its site \
             `certificate: {{challenge: {{dns-01: PLUGIN}}}}`"
        )));
    }
    match &want.challenge {
        Challenge::Http01 => Ok(vec![Proof::Http01]),
        Challenge::TlsAlpn01 => Ok(vec![Proof::TlsAlpn01]),
        Challenge::Dns01(name) => match wants.solvers.get(name) {
            Some(solver) => Ok(vec![Proof::Dns01(name.clone(), Arc::clone(solver))]),
            None => Err(AcmeError::Setup(format!("the solver {name} is not loaded"))),
        },
        // Once both ways have failed, later tries take turns, to spare the CA's limits.
        Challenge::Auto => match (wants.has_https, wants.has_http) {
            (true, true) if state.failures == 0 => Ok(vec![Proof::TlsAlpn01, Proof::Http01]),
            (true, true) if state.failures % 2 == 1 => Ok(vec![Proof::Http01]),
            (true, _) => Ok(vec![Proof::TlsAlpn01]),
            (false, true) => Ok(vec![Proof::Http01]),
            (false, false) => {
                Err(AcmeError::Setup("no listener can answer a challenge".to_owned()))
            }
        },
    }
}

fn status(want: &Want, entry: Option<&Entry>) -> CertificateStatus {
    let entry = entry.cloned().unwrap_or_default();
    let name = want.name();
    let served = entry.served.as_deref();
    let issuers = want.issuers.len();
    let now = Timestamp::now();
    let need = need::decide(&name, served.map(life), &entry.state, issuers, now);
    let next_at = match need {
        Need::Wait(until) => until,
        Need::Order(_) | Need::AskWindow => now,
    };
    let state = match (served, entry.is_under_way) {
        (Some(_), true) => "serving, renewing".to_owned(),
        (None, true) => "ordering".to_owned(),
        (Some(_), false) => "serving".to_owned(),
        (None, false) if entry.state.failures > 0 => "waiting for the next try".to_owned(),
        (None, false) => "waiting to be ordered".to_owned(),
    };
    CertificateStatus {
        hosts: want.hosts.iter().map(ToString::to_string).collect(),
        state,
        not_after: served.map(|served| served.not_after.0),
        next_at: Some(next_at.0),
        last_error: entry.state.last_error,
    }
}

fn life(certificate: &Certificate) -> Life {
    Life { not_before: certificate.not_before, not_after: certificate.not_after }
}

fn slot(name: &str) -> String {
    format!("acme/{name}")
}

fn certificate_item(name: &str) -> String {
    format!("acme/certificates/{name}.pem")
}

fn state_item(name: &str) -> String {
    format!("acme/state/{name}.json")
}

fn text(at: Timestamp) -> String {
    let format = &time::format_description::well_known::Rfc3339;
    let at = time::OffsetDateTime::from_unix_timestamp(at.0).ok();
    at.and_then(|at| at.format(format).ok()).unwrap_or_default()
}

const ORDERS_MAX: usize = 8;
const IDLE_TIME: Duration = Duration::from_secs(3600);
const SHORTEST_WAIT: Duration = Duration::from_millis(200);
const STOP_TIME: Duration = Duration::from_secs(10);
/// How often a CA is asked for a window when it does not say.
const WINDOW_PAUSE: Duration = Duration::from_secs(6 * 3600);
const WINDOW_PAUSE_MIN: Duration = Duration::from_secs(60);
const WINDOW_PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);
