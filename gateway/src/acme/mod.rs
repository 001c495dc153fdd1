//! Certificates over ACME (RFC 8555): which name needs what and when, orders, challenges, and the
//! store of it all. The only room that names instant-acme.

mod account;
pub mod adopt;
pub mod client;
pub mod dns;
mod encrypted;
pub mod error;
#[cfg(test)]
pub(crate) mod fake_dns;
mod hooks;
pub mod jose;
pub mod need;
pub mod on_demand;
mod order;
pub mod policy;
mod propagation;
pub mod rehearsal;
pub mod solve;
mod tsig;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instant_acme::{RevocationReason, RevocationRequest};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinHandle, JoinSet};

use crate::clock::Timestamp;
use crate::config::{AcmeIssuer, Challenge, Hook, HostPattern, Propagation, Resolver};
use crate::fault::describe;
use crate::feed::Feed;
use crate::store::{LEASE_TIME, Lease, Store, StoreError};
use crate::tls::accept::Later;
use crate::tls::certs::{Certificate, CertificateError, Certs, Origin};
use crate::tls::lazy::on_all_cores;
pub use client::post;

use account::{Member, Members};
use error::AcmeError;
use hooks::Event;
use need::{Attempt, Held, History, Issuers, Need, Waiting, Wanted};
use order::{Desk, Proof};
use policy::{Denied, Policy, Question};
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
    pub resolvers: Vec<Resolver>,
    /// How to wait for DNS-01 records.
    pub propagation: Propagation,
    /// What `Challenge::Auto` may use: whether an https listener and an http listener exist.
    pub has_https: bool,
    /// See `has_https`.
    pub has_http: bool,
    /// Names that may come by themselves.
    pub on_demand: Option<on_demand::Terms>,
    /// Who is told of what happens.
    pub hooks: Vec<Hook>,
    /// Plugins among those, by name.
    pub listeners: BTreeMap<String, Arc<Feed>>,
    /// Who is asked about names of the configuration.
    pub policy: Option<Arc<dyn Policy>>,
    /// Who is asked about names that come by themselves.
    pub on_demand_policy: Option<Arc<dyn Policy>>,
}

/// One certificate to have.
#[derive(Debug, Clone, PartialEq)]
pub struct Want {
    /// The names in it: one host, or a name and its wildcard.
    pub hosts: Vec<HostPattern>,
    /// CAs in the order in which they are tried; the same for many.
    pub issuers: Arc<[AcmeIssuer]>,
    /// How control is proved.
    pub challenge: Challenge,
    /// Whether its key is RSA.
    pub is_rsa: bool,
}

impl Want {
    /// The certificate's name in the store and in the log: its names, joined, and its kind of key
    /// when that is not the usual one.
    fn name(&self) -> String {
        let name = need::name(&self.hosts);
        if self.is_rsa { name + RSA } else { name }
    }

    fn directories(&self) -> Vec<&str> {
        self.issuers.iter().map(|issuer| &*issuer.directory).collect()
    }
}

/// The state of one wanted certificate, for the log, the status and `witgate certs`.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct CertificateStatus {
    /// Its names.
    pub hosts: Vec<String>,
    /// What it waits for or what it has, in words for a person.
    pub state: String,
    /// The directory URL of the CA that issued what is served now.
    pub issued_by: Option<String>,
    /// Start of validity of what is served now, in seconds since 1970.
    pub not_before: Option<i64>,
    /// End of validity of what is served now, in seconds since 1970.
    pub not_after: Option<i64>,
    /// When it is renewed, in seconds since 1970.
    pub renew_at: Option<i64>,
    /// The window in which the CA wants it renewed (RFC 9773), in seconds since 1970.
    pub window: Option<(i64, i64)>,
    /// When something is next done about it, in seconds since 1970.
    pub next_at: Option<i64>,
    /// Attempts that failed since the last success.
    pub failures: u32,
    /// The last failure: issuer, RFC 8555 problem type and detail.
    pub last_error: Option<String>,
}

/// An order that lies ahead.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct PlannedOrder {
    /// The names of the certificate.
    pub hosts: Vec<String>,
    /// When, in seconds since 1970.
    pub at: i64,
    /// The issuer's name.
    pub issuer: String,
    /// Why, in words.
    pub reason: String,
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
    on_demand: on_demand::Desk,
    members: Members,
    book: Mutex<Book>,
    changed: Notify,
    stopping: Notify,
}

/// What is wanted and how far each of it is.
#[derive(Default)]
struct Book {
    wants: Option<Arc<Wants>>,
    entries: BTreeMap<String, Entry>,
    issuers: Issuers,
    dns: Option<Arc<Dns01>>,
    leftovers_due: bool,
    /// The last change by any gateway on the same store that is taken in.
    seen: Option<u64>,
}

/// The latest certificates of several gateways on one store.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Changes {
    /// Of the last one; each has the next number.
    last: u64,
    /// Certificates' names, the last one last.
    names: Vec<String>,
}

#[derive(Default, Clone)]
struct Entry {
    history: History,
    served: Option<Arc<Certificate>>,
    held: Option<Held>,
    is_under_way: bool,
    is_asked_for: bool,
    /// Another gateway is at it: not to be looked at before this.
    look_at: Option<Timestamp>,
    /// Whether it ends without another one, because it is not allowed any more.
    is_given_up: bool,
    /// The issuer that a policy names for the next order.
    ruled: Option<String>,
    /// When the end of the certificate was last told.
    alarmed_at: Option<Timestamp>,
}

/// What a task of one certificate came to.
struct Outcome {
    name: String,
    result: Result<Done, Failed>,
}

enum Done {
    Issued(Issued),
    /// A policy names another issuer, which the next turn asks if it may.
    Ruled(String),
    /// Another gateway on the same store is at it.
    Elsewhere,
    /// Another gateway on the same store has done something about it.
    Found(Box<Entry>),
    /// The window, and how long until the CA is asked again.
    Window(Option<(Timestamp, Timestamp)>, Duration),
}

struct Issued {
    certificate: Arc<Certificate>,
    issuer: String,
    directory: String,
    is_second_challenge: bool,
}

/// An order that failed, or a question for a window.
struct Failed {
    cause: AcmeError,
    /// The directory URL of the CA; empty when that is not known.
    directory: String,
    has_other_challenge: bool,
}

/// A challenge as `certificates.challenge` has it.
fn challenge_word(challenge: &Challenge) -> &'static str {
    match challenge {
        Challenge::Auto => "auto",
        Challenge::Http01 => "http-01",
        Challenge::TlsAlpn01 => "tls-alpn-01",
        Challenge::DnsPersist01 => "dns-persist-01",
        Challenge::Dns01(_) => "dns-01",
        Challenge::DnsAccount01(_) => "dns-account-01",
    }
}

/// What was known of a certificate when its order was due.
struct Known {
    history: History,
    held: Option<Held>,
    /// Whether its issuer is one that a policy named.
    is_ruled: bool,
}

/// The names of the tasks under way.
type Names = BTreeMap<tokio::task::Id, String>;

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
        let issuers = match store.read(ISSUERS)?.map(|text| serde_json::from_slice(&text)) {
            Some(Ok(issuers)) => issuers,
            Some(Err(cause)) => {
                store.set_aside(ISSUERS, &cause.to_string())?;
                Issuers::default()
            }
            None => Issuers::default(),
        };
        let shared = Arc::new(Shared {
            on_demand: on_demand::Desk::open(&store)?,
            store,
            certs,
            tokens,
            members: Members::default(),
            book: Mutex::new(Book { issuers, ..Book::default() }),
            changed: Notify::new(),
            stopping: Notify::new(),
        });
        let task = tokio::spawn(Arc::clone(&shared).keep());
        Ok(Self { shared, task: Mutex::new(Some(task)) })
    }

    /// Sets what is wanted from now on, publishes what the store has of it, and withdraws the rest.
    /// Never triggers an order by itself: a name that waits for a retry goes on waiting, unless what
    /// held it up was the configuration that changed.
    pub fn want(&self, wants: Wants) {
        self.shared.want(wants);
        self.shared.changed.notify_one();
    }

    /// Where handshakes for names without a certificate wait.
    pub fn later(&self) -> Arc<dyn Later> {
        Arc::new(Arc::clone(&self.shared))
    }

    /// The state of each wanted certificate.
    pub fn status(&self) -> Vec<CertificateStatus> {
        let book = self.shared.book.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(wants) = &book.wants else { return Vec::new() };
        wants.certificates.iter().map(|want| book.status(want)).collect()
    }

    /// Orders the certificate of a host now, whatever is due; waits that a CA asked for still hold.
    ///
    /// # Errors
    /// When no certificate of this host is wanted.
    pub fn renew_now(&self, host: &str) -> Result<(), String> {
        let mut book = self.shared.book.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<String> = book.find(host)?.iter().map(Want::name).collect();
        for name in names {
            book.entries.entry(name).or_default().is_asked_for = true;
        }
        drop(book);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// The orders of the time ahead, by time, if all goes well.
    pub fn plan(&self, ahead: Duration) -> Vec<PlannedOrder> {
        let book = self.shared.book.lock().unwrap_or_else(PoisonError::into_inner);
        let wants = book.wants.iter().flat_map(|wants| &wants.certificates);
        let now = Timestamp::now();
        let mut planned: Vec<PlannedOrder> =
            wants.flat_map(|want| book.plan(want, now, now + ahead)).collect();
        planned.sort_by(|one, other| (one.at, &one.hosts).cmp(&(other.at, &other.hosts)));
        planned
    }

    /// Revokes the certificate of a host at the CA that issued it, and has it replaced at once, with a
    /// new key. `reason` is a name of RFC 5280, section 5.3.1, in kebab case.
    ///
    /// # Errors
    /// When there is no such certificate or reason, or the CA refuses.
    pub async fn revoke(&self, host: &str, reason: Option<&str>) -> Result<(), String> {
        let wants = {
            let book = self.shared.book.lock().unwrap_or_else(PoisonError::into_inner);
            book.find(host)?
        };
        for want in wants {
            self.revoke_one(want, reason.map(revocation_reason).transpose()?).await?;
        }
        self.shared.changed.notify_one();
        Ok(())
    }

    async fn revoke_one(&self, want: Want, reason: Option<RevocationReason>) -> Result<(), String> {
        let (contact, served, by) = {
            let book = self.shared.book.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = book.entries.get(&want.name());
            let served = entry.and_then(|entry| entry.served.clone());
            let by = entry.and_then(|entry| entry.history.issued_by.clone());
            (book.wants.as_ref().and_then(|w| w.contact.clone()), served, by)
        };
        let name = want.name();
        let issuer = want.issuers.iter().find(|issuer| Some(&issuer.directory) == by.as_ref());
        let issuer = issuer.ok_or_else(|| {
            format!("{name}: the CA that issued it is no longer among the issuers of gateway.yaml")
        })?;
        let served = served.ok_or_else(|| format!("{name} has no certificate yet"))?;
        let leaf = served.key.cert.first().ok_or_else(|| format!("{name} has no certificate"))?;
        let member = self.shared.member(issuer, contact.as_deref(), None).await;
        let member = member.map_err(|cause| describe(&cause))?;
        let request = RevocationRequest { certificate: leaf, reason };
        let told = account::retry_nonce(|| member.account.revoke(&request)).await;
        if let Err(cause) = told.map_err(|cause| member.error(cause))
            && cause.problem() != Some("alreadyRevoked")
        {
            return Err(describe(&cause));
        }
        tracing::warn!(certificate = name, issuer = issuer.name, "revoked; a new one is ordered");
        let mut book = self.shared.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = book.entries.get_mut(&name) {
            entry.history.revoke(&order::held(&served));
            self.shared.save(&state_item(&name), &entry.history);
            self.shared.tell_change(&name);
        }
        let names = want.hosts.iter().map(ToString::to_string).collect();
        let event = Event::now("revoked", names, Some(served.not_after));
        book.tell(&event.saying(format!("revoked at {}", issuer.name)));
        Ok(())
    }

    /// Gives the accounts at a CA, or at all of them, a new key (RFC 8555, section 7.3.5). Returns
    /// the names of the issuers.
    ///
    /// # Errors
    /// When there is no such issuer, or it refuses; the accounts go on with the keys they have.
    pub async fn roll_over(&self, issuer: Option<&str>) -> Result<Vec<String>, String> {
        let (issuers, contact) = {
            let book = self.shared.book.lock().unwrap_or_else(PoisonError::into_inner);
            let wants = book.wants.iter().flat_map(|wants| &wants.certificates);
            let all = wants.flat_map(|want| want.issuers.iter().cloned());
            let mut issuers: Vec<AcmeIssuer> = Vec::new();
            for one in all.filter(|one| issuer.is_none_or(|name| name == one.name)) {
                if !issuers.iter().any(|known| known.directory == one.directory) {
                    issuers.push(one);
                }
            }
            (issuers, book.wants.as_ref().and_then(|w| w.contact.clone()))
        };
        if issuers.is_empty() {
            return Err("no certificate of a site comes from an issuer of this name".to_owned());
        }
        for issuer in &issuers {
            let member = self.shared.member(issuer, contact.as_deref(), None).await;
            let member = member.map_err(|cause| describe(&cause))?;
            let before = member.key();
            {
                let lease = self.shared.account_lease(issuer).await;
                let _lease = lease.map_err(|cause| describe(&cause))?;
                let prepared = account::prepare_change(&self.shared.store, &issuer.directory);
                prepared.map_err(|cause| describe(&cause))?;
            }
            self.shared.forget_member(issuer, contact.as_deref(), &member);
            let next = self.shared.member(issuer, contact.as_deref(), None).await;
            if next.map_err(|cause| describe(&cause))?.key() == before {
                return Err(format!("{} has refused; its account keeps its key", issuer.name));
            }
        }
        Ok(issuers.into_iter().map(|issuer| issuer.name).collect())
    }

    /// Goes through a whole order for a host at the staging directory of its first issuer, and keeps
    /// nothing of it. Says what was done.
    ///
    /// # Errors
    /// What would go wrong.
    pub async fn rehearse(&self, host: &str) -> Result<String, String> {
        let (want, wants, dns) = {
            let book = self.shared.book.lock().unwrap_or_else(PoisonError::into_inner);
            let want = book.find(host)?.into_iter().next();
            let (Some(want), Some(wants), Some(dns)) = (want, &book.wants, &book.dns) else {
                return Err(format!("no ACME certificate for {host}"));
            };
            (want, Arc::clone(wants), Arc::clone(dns))
        };
        let issuer = want.issuers.first().ok_or("it has no issuer")?;
        let directory = issuer.staging.clone().or_else(|| staging_of(&issuer.directory));
        let directory = directory.ok_or_else(|| {
            format!(
                "no staging directory of {} is known: give this issuer `staging: URL`",
                issuer.name
            )
        })?;
        let name = format!("{}-staging", issuer.name.trim_end_matches("-staging"));
        let staging = AcmeIssuer {
            name,
            directory,
            eab: None,
            preferred_chain: None,
            staging: None,
            ..issuer.clone()
        };
        let began = std::time::Instant::now();
        let proofs = proofs(&want, &wants, &History::default());
        let proofs = proofs.map_err(|cause| describe(&cause))?.list;
        let ways: Vec<&str> = proofs.iter().map(Proof::name).collect();
        let name = format!("{}~rehearsal", want.name());
        let obtained = self.shared.obtain(&name, &want, &wants, &dns, proofs, None, &staging).await;
        let forgotten = order::finish(&self.shared.store, &name);
        let (pem, at) = obtained.map_err(|cause| match cause.advice() {
            "" => describe(&cause),
            advice => format!("{}; {advice}", describe(&cause)),
        })?;
        forgotten.map_err(|cause| describe(&cause))?;
        let made = Certificate::from_pem(pem.as_bytes(), pem.as_bytes(), Origin::Acme);
        let made = made.map_err(|cause| format!("the certificate {cause}"))?;
        let hours = made.not_before.until(made.not_after).as_secs() / 3600;
        Ok(format!(
            "{}: signed by {} for {hours} h, by {}, in {:.1} s; nothing was kept",
            need::name(&want.hosts),
            staging.name,
            ways.get(at).copied().unwrap_or_default(),
            began.elapsed().as_secs_f32()
        ))
    }

    /// The hosts that [`Acme::rehearse`] can be asked for, one of each certificate.
    pub fn hosts(&self) -> Vec<String> {
        let book = self.shared.book.lock().unwrap_or_else(PoisonError::into_inner);
        let wants = book.wants.iter().flat_map(|wants| &wants.certificates);
        let usual = wants.filter(|want| !want.is_rsa);
        usual.filter_map(|want| want.hosts.first().map(ToString::to_string)).collect()
    }

    /// Ends the task. Orders under way get a moment to take their challenges back; what they leave is
    /// cleaned up at the next start.
    pub async fn stop(&self) {
        self.shared.stopping.notify_one();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut task) = task
            && tokio::time::timeout(STOP_TIME, &mut task).await.is_err()
        {
            task.abort();
        }
    }

    /// Goes on after [`Acme::stop`].
    pub fn resume(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        *task = Some(tokio::spawn(Arc::clone(&self.shared).keep()));
    }
}

impl Shared {
    fn want(self: &Arc<Self>, mut wants: Wants) {
        if let Some(terms) = &wants.on_demand {
            for want in self.on_demand.wants(terms) {
                if !wants.certificates.iter().any(|known| known.name() == want.name()) {
                    wants.certificates.push(want);
                }
            }
        }
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
        let is_other = book.wants.as_ref().is_none_or(|known| !known.has_same_means(&wants));
        let before = book.wants.clone();
        let before = before.iter().flat_map(|known| &known.certificates);
        let before: BTreeMap<String, &Want> = before.map(|want| (want.name(), want)).collect();
        let mut new = Vec::new();
        for want in &wants.certificates {
            let name = want.name();
            match book.entries.get_mut(&name) {
                Some(entry) if is_other || before.get(&name) != Some(&want) => {
                    entry.history.configuration_changed();
                }
                Some(_) => {}
                None => new.push(name),
            }
        }
        for (name, entry) in self.stored_all(&new) {
            if let Some(certificate) = &entry.served {
                found.push((slot(&name), Arc::clone(certificate)));
            }
            book.entries.insert(name, entry);
        }
        self.certs.publish(found.clone());
        self.check_keys(found);
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
        book.wants = Some(Arc::new(wants));
    }

    /// What the store has of many certificates, read by all cores.
    fn stored_all(&self, names: &[String]) -> Vec<(String, Entry)> {
        on_all_cores(names, |name| (name.clone(), self.stored_with(name, Certificate::from_stored)))
    }

    /// Holds keys that were not read yet against their certificates, slowly. One that does not belong
    /// there is set aside, and the certificate ordered anew.
    fn check_keys(self: &Arc<Self>, found: Vec<(String, Arc<Certificate>)>) {
        if found.is_empty() {
            return;
        }
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            for part in found.chunks(KEYS_AT_ONCE) {
                for (slot, certificate) in part.iter().filter(|(_, one)| !one.is_sound()) {
                    shared.drop_unsound(slot, certificate);
                }
                std::thread::sleep(KEYS_PAUSE);
            }
        });
    }

    fn drop_unsound(&self, slot: &str, certificate: &Arc<Certificate>) {
        let name = slot.strip_prefix("acme/").unwrap_or(slot);
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = book.entries.get_mut(name) else { return };
        if !entry.served.as_ref().is_some_and(|served| Arc::ptr_eq(served, certificate)) {
            return;
        }
        self.set_aside(&certificate_item(name), "its private key does not belong to it");
        (entry.served, entry.held) = (None, None);
        drop(book);
        self.certs.withdraw(&[slot.to_owned()]);
        self.changed.notify_one();
    }

    /// What the store has of a certificate. What cannot be used is set aside.
    fn stored(&self, name: &str) -> Entry {
        self.stored_with(name, |pem, origin| Certificate::from_pem(pem, pem, origin))
    }

    fn stored_with(
        &self,
        name: &str,
        read: impl Fn(&[u8], Origin) -> Result<Certificate, CertificateError>,
    ) -> Entry {
        let mut entry = Entry::default();
        let item = state_item(name);
        if let Ok(Some(text)) = self.store.read(&item) {
            match serde_json::from_slice(&text) {
                Ok(state) => entry.history = state,
                Err(cause) => self.set_aside(&item, &cause.to_string()),
            }
        }
        let item = certificate_item(name);
        if let Ok(Some(pem)) = self.store.read(&item) {
            match read(&pem, Origin::Acme) {
                Ok(certificate) => {
                    entry.held = Some(order::held(&certificate));
                    entry.served = Some(Arc::new(certificate));
                }
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
        let mut names = Names::new();
        let mut clocks = Clocks::now();
        loop {
            self.clean_leftovers();
            self.see_changes();
            let scan = std::time::Instant::now();
            let mut wait = self.start_due(&mut tasks, &mut names);
            // With very many names a look at all of them takes a while: what ends meanwhile is taken in,
            // and leads to the next look only after a rest.
            let rest = scan.elapsed() * REST;
            if self.store.is_shared() {
                wait = wait.min(LOOK_TIME);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = clocks.jump() => {}
                () = self.changed.notified() => {}
                Some(ended) = tasks.join_next_with_id() => {
                    self.end(ended, &mut names);
                    if rest > SHORTEST_WAIT {
                        tokio::time::sleep(rest.saturating_sub(scan.elapsed())).await;
                    }
                    while let Some(ended) = tasks.try_join_next_with_id() {
                        self.end(ended, &mut names);
                    }
                }
                () = self.stopping.notified() => break,
            }
        }
        // Orders end by themselves within their own limits; `stop` does not wait for all of that.
        while let Some(ended) = tasks.join_next_with_id().await {
            self.end(ended, &mut names);
        }
    }

    fn end(&self, ended: Result<(tokio::task::Id, Outcome), JoinError>, names: &mut Names) {
        match ended {
            Ok((id, outcome)) => {
                names.remove(&id);
                self.take_in(outcome);
            }
            // A fault of ours; the certificate must not wait for good because of it.
            Err(broken) => {
                if let Some(name) = names.remove(&broken.id()) {
                    let cause = AcmeError::Broken(broken.to_string());
                    let directory = String::new();
                    let result = Err(Failed { cause, directory, has_other_challenge: false });
                    self.take_in(Outcome { name, result });
                }
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
    fn start_due(self: &Arc<Self>, tasks: &mut JoinSet<Outcome>, names: &mut Names) -> Duration {
        let mut guard = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let book = &mut *guard;
        let (Some(wants), Some(dns)) = (&book.wants, &book.dns) else { return IDLE_TIME };
        let now = Timestamp::now();
        let mut wait = IDLE_TIME;
        let mut due = Vec::new();
        for want in &wants.certificates {
            let name = want.name();
            let entry = book.entries.entry(name.clone()).or_default();
            if let Some(words) = entry.alarm(&name, now) {
                let names = want.hosts.iter().map(ToString::to_string).collect();
                let end = entry.held.as_ref().map(|held| held.not_after);
                hooks::tell(wants, &Event::now("ending", names, end).saying(words));
            }
            if entry.is_under_way {
                continue;
            }
            if let Some(at) = entry.look_at.filter(|at| *at > now) {
                wait = wait.min(now.until(at));
                continue;
            }
            let want = entry.narrowed(want);
            match entry.need(&want, &name, &book.issuers, now) {
                Need::Wait { at, .. } => wait = wait.min(now.until(at)),
                // Those that never failed first, so that hopeless ones keep nobody waiting.
                need => due.push((entry.history.failures, entry.end(), name, need, want)),
            }
        }
        due.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
        for (_, _, name, need, want) in due {
            let Some(entry) = book.entries.get_mut(&name) else { continue };
            if tasks.len() >= ORDERS_MAX {
                break;
            }
            // An order before it in this turn may have used up what a CA allows.
            let need = match need {
                Need::Order { .. } => entry.need(&want, &name, &book.issuers, now),
                need => need,
            };
            let (shared, want, wants) = (Arc::clone(self), want.into_owned(), Arc::clone(wants));
            let (history, served) = (entry.history.clone(), entry.served.clone());
            let task = match need {
                Need::Wait { at, .. } => {
                    wait = wait.min(now.until(at));
                    continue;
                }
                Need::Order { issuer, reason, is_replacement } => {
                    let Some(issuer) = want.issuers.get(issuer).cloned() else { continue };
                    entry.is_asked_for = false;
                    tracing::info!(
                        certificate = name,
                        issuer = issuer.name,
                        reason = reason.words(),
                        "ordering"
                    );
                    if !is_replacement {
                        // Before the CA counts it, so that a kill does not lose count.
                        let directory = issuer.directory.clone();
                        self.change_issuers(&mut book.issuers, |issuers| {
                            issuers.entry(directory.clone()).or_default().order_at(now);
                        });
                    }
                    let held = entry.held.clone();
                    let is_ruled = entry.ruled.is_some();
                    let served = served.filter(|_| is_replacement);
                    let (name, dns) = (name.clone(), Arc::clone(dns));
                    tasks.spawn(async move {
                        let known = Known { history, held, is_ruled };
                        let result = shared.order(&want, &wants, &dns, known, served, &issuer);
                        let result = result.await;
                        Outcome { name, result }
                    })
                }
                Need::AskWindow => {
                    let name = name.clone();
                    tasks.spawn(async move {
                        let result = shared.ask_window(&want, &wants, &history, served).await;
                        Outcome { name, result }
                    })
                }
            };
            entry.is_under_way = true;
            names.insert(task.id(), name);
        }
        wait.max(SHORTEST_WAIT)
    }

    async fn order(
        &self,
        want: &Want,
        wants: &Wants,
        dns: &Dns01,
        known: Known,
        replaced: Option<Arc<Certificate>>,
        issuer: &AcmeIssuer,
    ) -> Result<Done, Failed> {
        let directory = issuer.directory.clone();
        let mut has_other_challenge = false;
        let lease = match self.store.lease(&format!("certificates/{}", want.name())) {
            Ok(Some(lease)) => lease,
            Ok(None) => return Ok(Done::Elsewhere),
            Err(cause) => {
                return Err(Failed {
                    cause: AcmeError::Store(cause),
                    directory,
                    has_other_challenge,
                });
            }
        };
        if self.store.is_shared() {
            let stored = self.stored(&want.name());
            if stored.held != known.held || stored.history != known.history {
                return Ok(Done::Found(Box::new(stored)));
            }
        }
        let history = &known.history;
        let issuer = &match self.ruled(want, wants, issuer, &known).await {
            Ok(Some(issuer)) if issuer.directory == directory => issuer,
            Ok(Some(other)) => return Ok(Done::Ruled(other.name)),
            Ok(None) => issuer.clone(),
            Err(cause) => return Err(Failed { cause, directory, has_other_challenge }),
        };
        let ordered = async {
            if history.issued_by.is_some() {
                self.may_renew(&want.name()).await?;
            }
            let proofs = proofs(want, wants, history)?;
            has_other_challenge = proofs.has_other;
            let name = want.name();
            let (pem, at) =
                self.obtain(&name, want, wants, dns, proofs.list, replaced, issuer).await?;
            let certificate = Certificate::from_pem(pem.as_bytes(), pem.as_bytes(), Origin::Acme);
            let certificate = Arc::new(certificate.map_err(AcmeError::Unusable)?);
            // Stored, then served.
            self.store.write(&certificate_item(&name), pem.as_bytes()).map_err(AcmeError::Store)?;
            order::finish(&self.store, &name)?;
            if self.store.is_shared() {
                // Before the lease ends, so that the next holder knows.
                let mut next = history.clone();
                next.is_second_challenge = history.is_second_challenge != (at > 0);
                next.succeed_at(&issuer.directory, Timestamp::now());
                self.save(&state_item(&name), &next);
                self.tell_change(&name);
            }
            let is_second_challenge = history.is_second_challenge != (at > 0);
            Ok((certificate, is_second_challenge))
        };
        let renewing = async {
            loop {
                tokio::time::sleep(LEASE_TIME / 3).await;
                if let Err(cause) = lease.renew() {
                    break AcmeError::Store(cause);
                }
            }
        };
        let ordered = tokio::select! {
            ordered = ordered => ordered,
            cause = renewing => Err(cause),
        };
        match ordered {
            Ok((certificate, is_second_challenge)) => {
                let issuer = issuer.name.clone();
                Ok(Done::Issued(Issued { certificate, issuer, directory, is_second_challenge }))
            }
            Err(cause) => Err(Failed { cause, directory, has_other_challenge }),
        }
    }

    /// Asks the policy about an order, where there is one: the issuer that it is to be made with, with the
    /// profile for it.
    async fn ruled(
        &self,
        want: &Want,
        wants: &Wants,
        picked: &AcmeIssuer,
        known: &Known,
    ) -> Result<Option<AcmeIssuer>, AcmeError> {
        let name = want.name();
        let is_on_demand = self.on_demand.has(&name);
        let policy = if is_on_demand { &wants.on_demand_policy } else { &wants.policy };
        let Some(policy) = policy else { return Ok(None) };
        // What the configuration says, also where an earlier answer has narrowed it.
        let whole = wants.certificates.iter().find(|whole| whole.name() == name).unwrap_or(want);
        let question = Question {
            names: want.hosts.iter().map(ToString::to_string).collect(),
            reason: match (known.history.issued_by.is_some(), is_on_demand) {
                (true, _) => "renewal",
                (false, true) => "on-demand",
                (false, false) => "configured",
            },
            issuers: whole.issuers.iter().map(|issuer| issuer.name.clone()).collect(),
            challenge: challenge_word(&want.challenge),
            not_after: known.held.as_ref().map(|held| held.not_after.0),
        };
        let ruling = policy.decide(question).await.map_err(|denied| match denied {
            Denied::No(why) => {
                AcmeError::NotAllowed(format!("{} denies it: {why}", policy.label()))
            }
            Denied::Unclear(why) => AcmeError::Setup(why),
        })?;
        let other = ruling.issuer.filter(|name| *name != picked.name);
        let issuer = match other {
            Some(_) if known.is_ruled => {
                let why = format!("{} names another issuer each time", policy.label());
                return Err(AcmeError::Setup(why));
            }
            Some(name) => whole.issuers.iter().find(|issuer| issuer.name == name),
            None => Some(picked),
        };
        Ok(issuer.map(|issuer| AcmeIssuer {
            profile: ruling.profile.or_else(|| issuer.profile.clone()),
            ..issuer.clone()
        }))
    }

    /// Runs the order with each proof until one is accepted: with `auto` the other way is tried at
    /// once when the first cannot be reached. Gives the certificate and which proof it was.
    #[expect(clippy::too_many_arguments, reason = "they are what an order is made of")]
    async fn obtain(
        &self,
        name: &str,
        want: &Want,
        wants: &Wants,
        dns: &Dns01,
        proofs: Vec<Proof>,
        replaced: Option<Arc<Certificate>>,
        issuer: &AcmeIssuer,
    ) -> Result<(String, usize), AcmeError> {
        let contact = wants.contact.as_deref();
        let mut member = self.member(issuer, contact, None).await?;
        let (store, certs, tokens) = (&*self.store, &self.certs, &self.tokens);
        let desk = Desk { store, certs, tokens, dns };
        let replaces = replaced.as_deref().and_then(order::certificate_id);
        let mut failed: Option<AcmeError> = None;
        for (at, proof) in proofs.into_iter().enumerate() {
            let request = order::Request {
                name,
                hosts: &want.hosts,
                proof,
                profile: issuer.profile.as_deref(),
                preferred_chain: issuer.preferred_chain.as_deref(),
                is_rsa: want.is_rsa,
                replaces: replaces.clone(),
            };
            let mut outcome = order::obtain(&desk, &member, &request).await;
            if let Err(cause) = &outcome
                && cause.problem() == Some("accountDoesNotExist")
            {
                // The CA has lost the account, as test CAs do at each start.
                member = self.member(issuer, contact, Some(&member)).await?;
                outcome = order::obtain(&desk, &member, &request).await;
            } else if outcome.is_err() && !member.is_current(&self.store) {
                // It got a new key meanwhile, from here or from another gateway.
                self.forget_member(issuer, contact, &member);
                member = self.member(issuer, contact, None).await?;
                outcome = order::obtain(&desk, &member, &request).await;
            }
            match outcome {
                Ok(pem) => return Ok((pem, at)),
                Err(cause) if cause.authorizations_failed() > 0 => {
                    failed = Some(match failed {
                        Some(earlier) => earlier.and(cause),
                        None => cause,
                    });
                }
                Err(cause) => return Err(cause),
            }
        }
        Err(failed.unwrap_or_else(|| AcmeError::Setup("no challenge can be used".to_owned())))
    }

    async fn ask_window(
        &self,
        want: &Want,
        wants: &Wants,
        history: &History,
        served: Option<Arc<Certificate>>,
    ) -> Result<Done, Failed> {
        let by = history.issued_by.as_deref();
        let issuer = want.issuers.iter().find(|issuer| Some(&*issuer.directory) == by);
        let id = served.as_deref().and_then(order::certificate_id);
        let (Some(issuer), Some(id)) = (issuer, id) else {
            return Ok(Done::Window(None, WINDOW_PAUSE));
        };
        let ask = async {
            let member = self.member(issuer, wants.contact.as_deref(), None).await?;
            match member.account.renewal_info(&id).await {
                Ok((info, pause)) => {
                    let window = info.suggested_window;
                    let of = |at: time::OffsetDateTime| Timestamp(at.unix_timestamp());
                    Ok(Done::Window(Some((of(window.start), of(window.end))), pause))
                }
                Err(cause) => Err(member.error(cause)),
            }
        };
        match ask.await {
            Ok(done) => Ok(done),
            // A CA without renewal information, or a broken answer: renewal goes by the
            // certificate's own life.
            Err(cause) => {
                let cause: AcmeError = cause;
                tracing::debug!(certificate = want.name(), "no renewal window: {cause}");
                Ok(Done::Window(None, cause.retry_after().unwrap_or(WINDOW_PAUSE)))
            }
        }
    }

    /// The account at a CA, opened once however many orders need it. `lost` is one that the CA does
    /// not know any more.
    async fn member(
        &self,
        issuer: &AcmeIssuer,
        contact: Option<&str>,
        lost: Option<&Arc<Member>>,
    ) -> Result<Arc<Member>, AcmeError> {
        let cell = {
            let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
            let cell = members.entry(format!("{issuer:?} {contact:?}")).or_default();
            // Whoever notices first clears the way; the others find the new one.
            let is_lost =
                lost.zip(cell.get()).is_some_and(|(lost, known)| Arc::ptr_eq(lost, known));
            let is_old = self.store.is_shared()
                && cell.get().is_some_and(|known| !known.is_current(&self.store));
            if is_lost || is_old {
                *cell = Arc::default();
            }
            Arc::clone(cell)
        };
        let opened = cell.get_or_try_init(|| async {
            // Two gateways must not make two accounts.
            let _lease = self.account_lease(issuer).await?;
            Member::open(&self.store, issuer, contact, lost.is_some()).await.map(Arc::new)
        });
        opened.await.map(Arc::clone)
    }

    /// Has an account opened anew by whoever needs it next.
    fn forget_member(&self, issuer: &AcmeIssuer, contact: Option<&str>, known: &Arc<Member>) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{issuer:?} {contact:?}");
        if members.get(&key).and_then(|cell| cell.get()).is_some_and(|it| Arc::ptr_eq(it, known)) {
            members.remove(&key);
        }
    }

    /// Waits until no other gateway is about to make or change the account at a CA.
    async fn account_lease(&self, issuer: &AcmeIssuer) -> Result<Lease, AcmeError> {
        let name = account::folder(&issuer.directory);
        for _ in 0..ACCOUNT_LEASE_TRIES {
            if let Some(lease) = self.store.lease(&name).map_err(AcmeError::Store)? {
                return Ok(lease);
            }
            tokio::time::sleep(ACCOUNT_LEASE_PAUSE).await;
        }
        Err(AcmeError::Setup(format!(
            "another gateway has been busy with the account at {} for too long",
            issuer.name
        )))
    }

    /// Changes what is known of the CAs, for all gateways on the same store.
    fn change_issuers(&self, issuers: &mut Issuers, change: impl Fn(&mut Issuers)) {
        if !self.store.is_shared() {
            change(issuers);
            self.save(ISSUERS, issuers);
            return;
        }
        let mut next = issuers.clone();
        let changed = self.store.change(ISSUERS, &mut |known| {
            if let Some(known) = known.and_then(|text| serde_json::from_slice(&text).ok()) {
                next = known;
            }
            change(&mut next);
            serde_json::to_vec(&next).unwrap_or_default()
        });
        match changed {
            Ok(()) => *issuers = next,
            Err(cause) => {
                change(issuers);
                tracing::error!("{}", describe(&cause));
            }
        }
    }

    /// Tells the other gateways on the same store of a certificate that is another one now.
    fn tell_change(&self, name: &str) {
        if !self.store.is_shared() {
            return;
        }
        let told = self.store.change(CHANGES, &mut |known| {
            let known = known.and_then(|text| serde_json::from_slice::<Changes>(&text).ok());
            let mut changes = known.unwrap_or_default();
            changes.last += 1;
            changes.names.push(name.to_owned());
            let over = changes.names.len().saturating_sub(CHANGES_MAX);
            changes.names.drain(..over);
            serde_json::to_vec(&changes).unwrap_or_default()
        });
        if let Err(cause) = told {
            tracing::error!("{}", describe(&cause));
        }
    }

    /// Takes in what other gateways on the same store have obtained.
    fn see_changes(&self) {
        if !self.store.is_shared() {
            return;
        }
        let known = self.store.read(CHANGES).ok().flatten();
        let known = known.and_then(|text| serde_json::from_slice::<Changes>(&text).ok());
        let changes = known.unwrap_or_default();
        let mut guard = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let book = &mut *guard;
        let new = match book.seen.replace(changes.last) {
            Some(seen) => usize::try_from(changes.last.saturating_sub(seen)).unwrap_or(usize::MAX),
            // What there was at the start has been read.
            None => 0,
        };
        let names: Vec<String> = match new <= changes.names.len() {
            true => changes.names.iter().rev().take(new).cloned().collect(),
            false => book.entries.keys().cloned().collect(),
        };
        for name in names {
            if let Some(entry) = book.entries.get_mut(&name)
                && !entry.is_under_way
            {
                self.adopt(entry, &name, self.stored(&name));
            }
        }
    }

    /// Takes over what another gateway on the same store has stored.
    fn adopt(&self, entry: &mut Entry, name: &str, stored: Entry) {
        entry.history = stored.history;
        entry.look_at = None;
        if stored.held.is_none() || stored.held == entry.held {
            return;
        }
        entry.held = stored.held;
        entry.served = stored.served;
        if let Some(certificate) = &entry.served {
            let valid_until = certificate.not_after;
            tracing::info!(certificate = name, %valid_until, "taken over from another gateway");
            self.certs.publish(vec![(slot(name), Arc::clone(certificate))]);
            self.on_demand.end(name, true);
        }
    }

    fn take_in(&self, outcome: Outcome) {
        let Outcome { name, result } = outcome;
        let mut guard = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let book = &mut *guard;
        let now = Timestamp::now();
        match result {
            Ok(Done::Issued(issued)) => self.take_in_issued(book, &name, issued, now),
            Ok(Done::Ruled(issuer)) => {
                if let Some(entry) = book.entries.get_mut(&name) {
                    entry.is_under_way = false;
                    entry.ruled = Some(issuer);
                }
            }
            Ok(Done::Elsewhere) => {
                if let Some(entry) = book.entries.get_mut(&name) {
                    entry.is_under_way = false;
                    entry.look_at = Some(now + LOOK_TIME);
                }
            }
            Ok(Done::Found(stored)) => {
                if let Some(entry) = book.entries.get_mut(&name) {
                    entry.is_under_way = false;
                    self.adopt(entry, &name, *stored);
                }
            }
            Ok(Done::Window(window, again)) => {
                let Some(entry) = book.entries.get_mut(&name) else { return };
                entry.is_under_way = false;
                if let Some(held) = &entry.held {
                    entry.history.set_window(held, window, again, now);
                }
                self.save(&state_item(&name), &entry.history);
            }
            Err(failed) => self.take_in_failed(book, &name, &failed, now),
        }
    }

    fn take_in_issued(&self, book: &mut Book, name: &str, issued: Issued, now: Timestamp) {
        let Issued { certificate, issuer, directory, is_second_challenge } = issued;
        let valid_until = certificate.not_after;
        tracing::info!(certificate = name, issuer, %valid_until, "certificate issued");
        self.change_issuers(&mut book.issuers, |issuers| {
            issuers.entry(directory.clone()).or_default().end_at(None, now);
        });
        // No longer wanted: it stays in the store for when it is wanted again.
        let Some(entry) = book.entries.get_mut(name) else {
            let mut history = self.stored(name).history;
            history.succeed_at(&directory, now);
            self.save(&state_item(name), &history);
            self.on_demand.end(name, false);
            return;
        };
        entry.is_under_way = false;
        entry.ruled = None;
        // Whoever asked meanwhile has it.
        entry.is_asked_for = false;
        entry.history.is_second_challenge = is_second_challenge;
        entry.history.succeed_at(&directory, now);
        entry.held = Some(order::held(&certificate));
        entry.served = Some(Arc::clone(&certificate));
        self.save(&state_item(name), &entry.history);
        let names = certificate.names.iter().map(ToString::to_string).collect();
        self.certs.publish(vec![(slot(name), certificate)]);
        self.on_demand.end(name, true);
        book.tell(&Event::now("issued", names, Some(valid_until)).saying(issuer));
    }

    /// Notes a failed attempt, and says in the log what is waited for and until when.
    fn take_in_failed(&self, book: &mut Book, name: &str, failed: &Failed, now: Timestamp) {
        self.on_demand.end(name, false);
        let Failed { cause, directory, has_other_challenge } = failed;
        let ended = Some((cause.trouble(), cause.retry_after()));
        if !directory.is_empty() {
            self.change_issuers(&mut book.issuers, |issuers| {
                issuers.entry(directory.clone()).or_default().end_at(ended, now);
            });
        }
        let told = book.wants.as_ref();
        let wants = book.wants.iter().flat_map(|wants| &wants.certificates);
        let want = wants.into_iter().find(|want| want.name() == name);
        let (Some(want), Some(entry)) = (want, book.entries.get_mut(name)) else { return };
        entry.is_under_way = false;
        entry.ruled = None;
        let words = describe(cause);
        let attempt = Attempt {
            directory,
            trouble: cause.trouble(),
            text: words.clone(),
            authorizations_failed: cause.authorizations_failed(),
            retry_after: cause.retry_after(),
            has_other_challenge: *has_other_challenge,
        };
        let directories = want.directories();
        let (hosts, directories) = (&want.hosts, &directories);
        let wanted = Wanted { name, hosts, directories, is_asked_for: false };
        entry.history.fail_at(&wanted, entry.held.as_ref(), &attempt, now);
        // A name of the configuration stays wanted.
        let came_by_itself = self.on_demand.has(name);
        entry.is_given_up = matches!(cause, AcmeError::NotAllowed(_)) && came_by_itself;
        if entry.is_given_up && entry.held.as_ref().is_none_or(|held| held.not_after <= now) {
            self.forget(book, name);
            return;
        }
        self.save(&state_item(name), &entry.history);
        let next_try =
            match need::need(&wanted, entry.held.as_ref(), &entry.history, &book.issuers, now) {
                Need::Wait { waiting: Waiting::Renewal(at), .. } | Need::Wait { at, .. } => at,
                Need::Order { .. } | Need::AskWindow => now,
            };
        let end = entry.held.as_ref().map(|held| held.not_after);
        let names = want.hosts.iter().map(ToString::to_string).collect();
        if let Some(told) = told {
            hooks::tell(told, &Event::now("failed", names, end).saying(words.clone()));
        }
        let left = entry.held.as_ref().map(|held| now.until(held.not_after));
        let failures = entry.history.failures;
        let advice = cause.advice();
        tracing::warn!(
            certificate = name,
            failures,
            %next_try,
            fault = %cause.fault(),
            seconds_left = left.map(|left| left.as_secs()),
            advice = (!advice.is_empty()).then_some(advice),
            "no certificate: {words}"
        );
    }

    /// Keeps what happened. A failure is logged: the state in memory stays right until a restart.
    fn save(&self, item: &str, what: &impl serde::Serialize) {
        let text = serde_json::to_vec(what).unwrap_or_default();
        if let Err(cause) = self.store.write(item, &text) {
            tracing::error!("{}", describe(&cause));
        }
    }
}

impl Wants {
    /// Whether what could hold up a certificate is as before: listeners, solvers, DNS.
    fn has_same_means(&self, other: &Self) -> bool {
        let labels = |wants: &Self| -> Vec<(String, String)> {
            let solvers = wants.solvers.iter();
            solvers.map(|(name, solver)| (name.clone(), solver.label())).collect()
        };
        self.resolvers == other.resolvers
            && self.propagation == other.propagation
            && self.has_https == other.has_https
            && self.has_http == other.has_http
            && labels(self) == labels(other)
    }
}

impl Entry {
    /// What is wanted, from the issuer alone that a policy named, where it did.
    fn narrowed<'w>(&self, want: &'w Want) -> Cow<'w, Want> {
        let Some(ruled) = &self.ruled else { return Cow::Borrowed(want) };
        let issuers = want.issuers.iter().filter(|issuer| issuer.name == *ruled).cloned();
        let issuers: Arc<[AcmeIssuer]> = issuers.collect();
        if issuers.is_empty() {
            return Cow::Borrowed(want);
        }
        Cow::Owned(Want { issuers, ..want.clone() })
    }

    fn need(&self, want: &Want, name: &str, issuers: &Issuers, now: Timestamp) -> Need {
        let (hosts, directories) = (&want.hosts, &want.directories());
        let wanted = Wanted { name, hosts, directories, is_asked_for: self.is_asked_for };
        need::need(&wanted, self.held.as_ref(), &self.history, issuers, now)
    }

    /// Tells the operator, now and then, that a certificate is near its end.
    fn alarm(&mut self, name: &str, now: Timestamp) -> Option<String> {
        let held = self.held.as_ref()?;
        let pause = (held.not_before.until(held.not_after) / 24).min(ALARM_PAUSE);
        let is_told = self.alarmed_at.is_some_and(|at| at.until(now) < pause && at <= now);
        if is_told || self.is_given_up || !need::is_near_end(held, now) {
            return None;
        }
        self.alarmed_at = Some(now);
        let last_error = self.history.last_failure.as_ref().map(|failure| &*failure.text);
        let seconds_left = now.until(held.not_after).as_secs();
        let what = if seconds_left > 0 { "ends" } else { "has ended" };
        tracing::error!(
            certificate = name,
            seconds_left,
            failures = self.history.failures,
            last_error,
            "the certificate {what} {} and could not be renewed",
            held.not_after
        );
        let why = last_error.map(|text| format!(": {text}")).unwrap_or_default();
        Some(format!("it {what} {} and could not be renewed{why}", held.not_after))
    }

    /// End of what is held; the beginning of time without any, so that it sorts first.
    fn end(&self) -> Timestamp {
        self.held.as_ref().map_or(Timestamp(i64::MIN), |held| held.not_after)
    }
}

/// A reason of RFC 5280, section 5.3.1, as far as the CAs take it from subscribers.
fn revocation_reason(name: &str) -> Result<RevocationReason, String> {
    Ok(match name {
        "unspecified" => RevocationReason::Unspecified,
        "key-compromise" => RevocationReason::KeyCompromise,
        "affiliation-changed" => RevocationReason::AffiliationChanged,
        "superseded" => RevocationReason::Superseded,
        "cessation-of-operation" => RevocationReason::CessationOfOperation,
        other => {
            return Err(format!(
                "`{other}` is no reason: unspecified, key-compromise, affiliation-changed, \
                 superseded or cessation-of-operation"
            ));
        }
    })
}

impl Book {
    /// The wanted certificates of a host: one for each kind of key.
    fn find(&self, host: &str) -> Result<Vec<Want>, String> {
        let wants = self.wants.iter().flat_map(|wants| &wants.certificates);
        let is_for = |h: &HostPattern| h.to_string() == host || h.matches(host);
        let mut found = wants.filter(|want| want.hosts.iter().any(is_for));
        let first = found.next().ok_or_else(|| format!("no ACME certificate for {host}"))?;
        // The same with another kind of key.
        let others = found.filter(|want| want.hosts == first.hosts);
        Ok(std::iter::once(first).chain(others).cloned().collect())
    }

    /// Tells the hooks.
    fn tell(&self, event: &Event) {
        if let Some(wants) = &self.wants {
            hooks::tell(wants, event);
        }
    }

    fn plan(&self, want: &Want, now: Timestamp, end: Timestamp) -> Vec<PlannedOrder> {
        let name = want.name();
        let entry = self.entries.get(&name).cloned().unwrap_or_default();
        let directories = want.directories();
        let wanted = Wanted {
            name: &name,
            hosts: &want.hosts,
            directories: &directories,
            is_asked_for: entry.is_asked_for,
        };
        let planned =
            need::plan(&wanted, entry.held.as_ref(), &entry.history, &self.issuers, now, end);
        let planned = planned.into_iter().map(|planned| PlannedOrder {
            hosts: want.hosts.iter().map(ToString::to_string).collect(),
            at: planned.at.0,
            issuer: want.issuers.get(planned.issuer).map(|i| i.name.clone()).unwrap_or_default(),
            reason: planned.reason.words().to_owned(),
        });
        planned.collect()
    }

    fn status(&self, want: &Want) -> CertificateStatus {
        let name = want.name();
        let entry = self.entries.get(&name).cloned().unwrap_or_default();
        let now = Timestamp::now();
        let need = entry.need(want, &name, &self.issuers, now);
        let has = match &entry.held {
            Some(held) if held.not_after > now => {
                format!("serving, valid until {}", held.not_after)
            }
            Some(held) => format!("serving one that ended {}", held.not_after),
            None => "no certificate yet".to_owned(),
        };
        let (does, next_at) = match (entry.is_under_way, &need) {
            (true, _) => ("under way".to_owned(), now),
            (false, Need::Wait { at, waiting }) => (waiting.words(*at), *at),
            (false, Need::AskWindow) => ("asking the CA when to renew".to_owned(), now),
            (false, Need::Order { reason, .. }) => {
                (format!("waiting for its turn: {}", reason.words()), now)
            }
        };
        let held = entry.held.as_ref();
        CertificateStatus {
            hosts: want.hosts.iter().map(ToString::to_string).collect(),
            state: format!("{has}; {does}"),
            issued_by: held.and(entry.history.issued_by.clone()),
            not_before: held.map(|held| held.not_before.0),
            not_after: held.map(|held| held.not_after.0),
            renew_at: held.map(|held| need::renewal_at(&name, held, &entry.history, now).0),
            window: held.and_then(|held| entry.history.suggested(held)).map(|(a, b)| (a.0, b.0)),
            next_at: Some(next_at.0),
            failures: entry.history.failures,
            last_error: entry.history.last_failure.map(|failure| failure.text),
        }
    }
}

/// The wall's clock beside the one that only counts on. They part when somebody sets the clock, and
/// when a machine has slept: what is waited for by the second may be long due by the first.
struct Clocks {
    wall: Timestamp,
    count: tokio::time::Instant,
}

impl Clocks {
    fn now() -> Self {
        Self { wall: Timestamp::now(), count: tokio::time::Instant::now() }
    }

    /// Returns when the wall's clock has jumped.
    async fn jump(&mut self) {
        loop {
            tokio::time::sleep(CLOCK_LOOK).await;
            let now = Self::now();
            let expected = self.wall + now.count.duration_since(self.count);
            let seconds = now.wall.0 - expected.0;
            *self = now;
            if seconds.unsigned_abs() > CLOCK_SLACK.as_secs() {
                tracing::warn!(seconds, now = %self.wall, "the clock has jumped");
                return;
            }
        }
    }
}

/// The ways in which control is proved in one attempt, in the order to try.
struct Proofs {
    list: Vec<Proof>,
    /// Whether the next attempt can take another way.
    has_other: bool,
}

/// How control of a certificate's names is proved, this time.
fn proofs(want: &Want, wants: &Wants, history: &History) -> Result<Proofs, AcmeError> {
    let wildcard = want.hosts.iter().find(|host| matches!(host, HostPattern::Wildcard(_)));
    let is_dns = want.challenge.is_dns();
    if let (Some(host), false) = (wildcard, is_dns) {
        return Err(AcmeError::Setup(format!(
            "{host} is a wildcard, which CAs only validate by DNS-01: give its site \
             `certificate: {{challenge: {{dns-01: PLUGIN}}}}`"
        )));
    }
    let only = |proof| Ok(Proofs { list: vec![proof], has_other: false });
    match &want.challenge {
        Challenge::Http01 => only(Proof::Http01),
        Challenge::DnsPersist01 => only(Proof::DnsPersist01),
        Challenge::TlsAlpn01 => only(Proof::TlsAlpn01),
        Challenge::Dns01(name) | Challenge::DnsAccount01(name) => match wants.solvers.get(name) {
            Some(solver) => {
                let (name, solver) = (name.clone(), Arc::clone(solver));
                only(match &want.challenge {
                    Challenge::DnsAccount01(_) => Proof::DnsAccount01(name, solver),
                    _ => Proof::Dns01(name, solver),
                })
            }
            None => Err(AcmeError::Setup(format!("the solver {name} is not loaded"))),
        },
        Challenge::Auto => match (wants.has_https, wants.has_http) {
            (true, true) => {
                let mut list = vec![Proof::TlsAlpn01, Proof::Http01];
                if history.is_second_challenge {
                    list.reverse();
                }
                // Once both ways have failed, later tries take turns, to spare the CA's limits.
                let is_first_try = history.failures == 0;
                list.truncate(if is_first_try { 2 } else { 1 });
                Ok(Proofs { list, has_other: !is_first_try })
            }
            (true, false) => only(Proof::TlsAlpn01),
            (false, true) => only(Proof::Http01),
            (false, false) => {
                Err(AcmeError::Setup("no listener can answer a challenge".to_owned()))
            }
        },
    }
}

/// The directory where a public CA lets orders be tried.
fn staging_of(directory: &str) -> Option<String> {
    const LETSENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
    const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
    [LETSENCRYPT, STAGING].contains(&directory).then(|| STAGING.to_owned())
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

/// Ends the name of a certificate with RSA.
const RSA: &str = "~rsa";
/// How often the clocks are held against each other, and how far they may part meanwhile.
const CLOCK_LOOK: Duration = Duration::from_secs(5);
const CLOCK_SLACK: Duration = Duration::from_secs(30);
/// Keys are checked in the background, so many and then a pause: half of a core at most.
const KEYS_AT_ONCE: usize = 50;
const KEYS_PAUSE: Duration = Duration::from_millis(5);
/// How much longer than a look at all certificates the rest after it is.
const REST: u32 = 4;
const ORDERS_MAX: usize = 8;
const IDLE_TIME: Duration = Duration::from_secs(3600);
const SHORTEST_WAIT: Duration = Duration::from_millis(200);
/// Between two alarms about the end of one certificate, at most.
const ALARM_PAUSE: Duration = Duration::from_secs(6 * 3600);
const STOP_TIME: Duration = Duration::from_secs(10);
/// How often a CA is asked for a window when it does not say.
const WINDOW_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// How often changes by other gateways on the same store are looked for.
const LOOK_TIME: Duration = Duration::from_secs(2);
const ACCOUNT_LEASE_PAUSE: Duration = Duration::from_millis(250);
/// A minute.
const ACCOUNT_LEASE_TRIES: u32 = 240;
/// The latest certificates of all gateways on the same store.
const CHANGES: &str = "acme/changes.json";
const CHANGES_MAX: usize = 64;
/// What happened with each CA.
const ISSUERS: &str = "acme/issuers.json";
