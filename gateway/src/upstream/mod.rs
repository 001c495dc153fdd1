//! Upstreams: which server takes the next request, connections to it, waits and health. Knows
//! nothing of clients or plugins. One [`Upstream`] lives on each worker and is never shared, so
//! nothing here is locked.

mod balance;
mod circuit;
mod connect;
mod eject;
mod h1;
pub mod health;
mod pool;
pub mod resolve;
mod retry;
pub mod sticky;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use hyper::body::Body;

use balance::{Candidate, Chance, PeakEwma};
pub use balance::{number, share};
pub use circuit::{Circuit, Permit};
pub use connect::TlsClient;
use eject::Outlier;
pub use h1::ServerBody;
use pool::Pool;
pub use pool::{Lease, SendError, Sent};
pub use retry::Miss;

use crate::config::{self, Balance, HashBy};
use crate::fault::Fault;
use health::Health;
use resolve::Names;

/// What all workers share of one upstream.
#[derive(Clone)]
pub struct Parts {
    /// How to speak TLS to it, when it has `https` servers.
    pub tls: Option<TlsClient>,
    /// Its health.
    pub health: Arc<Health>,
    /// Where the names of its servers lead.
    pub names: Arc<Names>,
    /// The places at its servers, when they are bounded.
    pub circuit: Option<Arc<Circuit>>,
    /// The value of the sticky cookie for each server; empty without one.
    pub tokens: Arc<[String]>,
}

/// An upstream on one worker. `B` is the type of request bodies.
pub struct Upstream<B> {
    /// Its name in the configuration, for messages.
    pub name: Arc<str>,
    /// Waits.
    pub timeouts: config::UpstreamTimeouts,
    /// Whether servers see the client's `Host`.
    pub preserve_host: bool,
    /// When a request is sent again.
    pub retries: config::Retries,
    /// The header that tells servers of the client.
    pub proxy_protocol: Option<config::ProxyVersion>,
    balance: Balance,
    sticky: Option<config::Sticky>,
    slow_start: Duration,
    eject: Option<config::Eject>,
    servers: Vec<Rc<Server<B>>>,
    weights: Vec<u32>,
    parts: Parts,
    /// For `round-robin`: what each server has coming.
    credit: RefCell<Vec<i64>>,
    chance: RefCell<Chance>,
    budget: RefCell<retry::Budget>,
}

/// One server of an upstream, on one worker.
pub struct Server<B> {
    /// Where it is.
    pub address: config::Server,
    /// The address as the access log shows it.
    pub label: Arc<str>,
    id: u64,
    pool: Pool<B>,
    connect_timeout: Duration,
    open: Cell<u32>,
    latency: Cell<PeakEwma>,
    /// Connections that failed in a row, and until when it is passed over for that.
    failures: Cell<u32>,
    out_until: Cell<Option<Instant>>,
    outlier: RefCell<Outlier>,
    /// Whether it was fit at the last look, and since when it is fit (again), for slow start.
    was_in: Cell<bool>,
    since: Cell<Option<Instant>>,
}

/// What ties a client to a server.
#[derive(Debug, Default)]
pub struct ClientKey {
    hash: Option<u64>,
    /// The value of the sticky cookie that it sent.
    token: Option<String>,
}

/// A server for a request, and its place there.
pub type Place<B> = (Rc<Server<B>>, Option<Permit>);

enum Pick<B> {
    Server(Place<B>),
    /// Every server that could take it has no place left.
    Full,
    /// All have been tried.
    Nobody,
}

/// Why an upstream gave no response.
#[derive(Debug)]
pub enum UpstreamError {
    /// No connection could be made.
    Connect(Arc<str>, std::io::Error),
    /// The connection was not made in time.
    ConnectTimeout(Arc<str>),
    /// TLS with the server failed.
    Tls(Arc<str>, std::io::Error),
    /// The server broke off or broke the protocol.
    Protocol(Arc<str>, Box<dyn std::error::Error + Send + Sync>),
    /// The response's head did not come in time.
    ResponseTimeout(Arc<str>),
    /// `circuit` of this upstream has no place left.
    Full(Arc<str>),
}

impl<B> Upstream<B>
where
    B: Body<Data = bytes::Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Prepares the upstream; nothing is connected yet. Servers that `old` has alike are taken over,
    /// with their connections and what is known about them.
    pub fn new(
        name: Arc<str>,
        config: &config::Upstream,
        parts: Parts,
        old: Option<&Self>,
    ) -> Self {
        let now = Instant::now();
        let old = old.filter(|old| {
            let digest = |parts: &Parts| parts.tls.as_ref().map(|tls| tls.digest);
            let (a, b) = (&old.timeouts, &config.timeouts);
            let same_waits = a.connect == b.connect && a.keepalive == b.keepalive;
            let same_header = old.proxy_protocol == config.proxy_protocol;
            same_waits && same_header && digest(&old.parts) == digest(&parts)
        });
        let server = |address: &config::Server| {
            let known = old.and_then(|old| old.servers.iter().find(|s| s.address == *address));
            let resolved = address.host().and_then(|host| parts.names.of(host)).cloned();
            if let Some(known) = known {
                *known.pool.resolved.borrow_mut() = resolved;
                return Rc::clone(known);
            }
            let label: Arc<str> = address.to_string().into();
            Rc::new(Server {
                address: address.clone(),
                id: balance::number(label.as_bytes()),
                label,
                pool: Pool::new(
                    address.clone(),
                    parts.tls.clone(),
                    config.timeouts.keepalive,
                    config.proxy_protocol,
                    resolved,
                ),
                connect_timeout: config.timeouts.connect,
                open: Cell::new(0),
                latency: Cell::default(),
                failures: Cell::new(0),
                out_until: Cell::new(None),
                outlier: RefCell::default(),
                was_in: Cell::new(true),
                since: Cell::new(old.map(|_| now)),
            })
        };
        let seed = uuid::Uuid::now_v7().as_u64_pair().1;
        Self {
            name,
            timeouts: config.timeouts.clone(),
            preserve_host: config.preserve_host,
            retries: config.retries.clone(),
            proxy_protocol: config.proxy_protocol,
            balance: config.balance.clone(),
            sticky: config.sticky.clone(),
            slow_start: config.slow_start,
            eject: config.eject.clone(),
            servers: config.servers.iter().map(server).collect(),
            weights: config.weights.clone(),
            parts,
            credit: RefCell::new(vec![0; config.servers.len()]),
            chance: RefCell::new(Chance::new(seed)),
            budget: RefCell::new(retry::Budget::new(now)),
        }
    }

    /// Whether this is what the upstream would be made like anew.
    pub fn is_made_of(&self, parts: &Parts) -> bool {
        let digest = |parts: &Parts| parts.tls.as_ref().map(|tls| tls.digest);
        let same_names = Arc::ptr_eq(&self.parts.names, &parts.names);
        Arc::ptr_eq(&self.parts.health, &parts.health)
            && same_names
            && digest(&self.parts) == digest(parts)
    }

    /// What ties a client to one of several servers: taken from its request, as `balance` and
    /// `sticky` say.
    pub fn key(&self, fields: &HeaderMap, client: IpAddr) -> ClientKey {
        if self.servers.len() < 2 {
            return ClientKey::default();
        }
        let hash = match &self.balance {
            Balance::Hash(by) => Some(number_of(by, fields, client)),
            Balance::P2c | Balance::RoundRobin | Balance::LeastConnections => None,
        };
        let sticky = self.sticky.as_ref();
        let token = sticky.and_then(|s| sticky::cookie(fields, &s.cookie)).map(str::to_owned);
        ClientKey { hash, token }
    }

    /// The `set-cookie` that ties the client to this server, when it is not tied to it yet.
    pub fn cookie(
        &self,
        server: &Rc<Server<B>>,
        key: &ClientKey,
        is_secure: bool,
    ) -> Option<http::HeaderValue> {
        let sticky = self.sticky.as_ref()?;
        let index = self.servers.iter().position(|s| Rc::ptr_eq(s, server))?;
        let token = self.parts.tokens.get(index)?;
        if self.servers.len() < 2 || key.token.as_ref() == Some(token) {
            return None;
        }
        sticky::set_cookie(sticky, token, is_secure)
    }

    /// A server for a request that `tried` servers in vain, and a place there; waits for one where
    /// `circuit` allows that. `None` when no server is left.
    ///
    /// # Errors
    /// When no place came free in time, or too many wait.
    pub async fn place(
        &self,
        tried: &[Arc<str>],
        key: &ClientKey,
    ) -> Result<Option<Place<B>>, UpstreamError> {
        let mut waiting = None;
        let start = tokio::time::Instant::now();
        if tried.is_empty() {
            self.budget.borrow_mut().earn(&self.retries);
        }
        loop {
            match self.pick(tried, key) {
                Pick::Server(place) => return Ok(Some(place)),
                Pick::Nobody => return Ok(None),
                Pick::Full => {}
            }
            let full = || UpstreamError::Full(Arc::clone(&self.name));
            if waiting.is_none() {
                waiting = self.parts.circuit.as_ref().and_then(Circuit::queue);
            }
            let Some(waiting) = &waiting else { return Err(full()) };
            let left = self.timeouts.connect.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(full());
            }
            // Now and then it looks by itself: another worker's place may have come free unheard.
            let _ = tokio::time::timeout(left.min(LOOK), waiting.freed()).await;
        }
    }

    /// The server for the next request, leaving out `tried`. Servers that health checks or failures
    /// took out are only used when there is no other.
    fn pick(&self, tried: &[Arc<str>], key: &ClientKey) -> Pick<B> {
        if let [_] = self.servers.as_slice() {
            return if tried.is_empty() { self.enter(0) } else { Pick::Nobody };
        }
        let now = Instant::now();
        let mut others: Vec<usize> = Vec::with_capacity(self.servers.len());
        let mut fit: Vec<usize> = Vec::with_capacity(self.servers.len());
        for (index, server) in self.servers.iter().enumerate() {
            if !tried.contains(&server.label) {
                others.push(index);
                if server.look(self.parts.health.is_up(index), now) {
                    fit.push(index);
                }
            }
        }
        if fit.is_empty() {
            fit = others;
        }
        if fit.is_empty() {
            return Pick::Nobody;
        }
        if let Some(circuit) = &self.parts.circuit {
            fit.retain(|index| circuit.has_place(*index));
        }
        if let Some(token) = &key.token
            && let Some(own) = self.parts.tokens.iter().position(|known| known == token)
            && fit.contains(&own)
        {
            return self.enter(own);
        }
        if !self.slow_start.is_zero() {
            let warm: Vec<usize> =
                fit.iter().copied().filter(|index| self.is_warm(*index, now)).collect();
            if !warm.is_empty() {
                fit = warm;
            }
        }
        self.choose(&fit, key, now).map_or(Pick::Full, |index| self.enter(index))
    }

    fn choose(&self, fit: &[usize], key: &ClientKey, now: Instant) -> Option<usize> {
        if let [only] = fit {
            return Some(*only);
        }
        let mut chance = self.chance.borrow_mut();
        let candidates: Vec<Candidate> = fit
            .iter()
            .filter_map(|index| {
                let server = self.servers.get(*index)?;
                Some(Candidate {
                    weight: self.weights.get(*index).copied().unwrap_or(1),
                    open: server.open.get(),
                    latency_us: server.latency.get().value_us(now),
                    id: server.id,
                })
            })
            .collect();
        let chosen = match (&self.balance, key.hash) {
            (Balance::RoundRobin, _) => {
                let mut all = self.credit.borrow_mut();
                let mut credit: Vec<i64> =
                    fit.iter().map(|index| all.get(*index).copied().unwrap_or(0)).collect();
                let chosen = balance::turn(&candidates, &mut credit);
                for (index, credit) in fit.iter().zip(credit) {
                    if let Some(kept) = all.get_mut(*index) {
                        *kept = credit;
                    }
                }
                chosen
            }
            (Balance::LeastConnections, _) => balance::least(&candidates, &mut chance),
            (Balance::Hash(_), Some(hash)) => balance::rendezvous(&candidates, hash),
            (Balance::P2c | Balance::Hash(_), _) => balance::p2c(&candidates, &mut chance),
        };
        chosen.and_then(|at| fit.get(at).copied())
    }

    /// Whether a server takes part in this choice: one in slow start does only now and then.
    fn is_warm(&self, index: usize, now: Instant) -> bool {
        let since = self.servers.get(index).and_then(|server| server.since.get());
        let since = since.map_or(self.slow_start, |since| now.saturating_duration_since(since));
        self.chance.borrow_mut().happens(balance::warmth(since, self.slow_start))
    }

    fn enter(&self, index: usize) -> Pick<B> {
        let Some(server) = self.servers.get(index) else { return Pick::Nobody };
        let permit = match &self.parts.circuit {
            None => None,
            Some(circuit) => match circuit.enter(index) {
                None => return Pick::Full,
                permit => permit,
            },
        };
        Pick::Server((Rc::clone(server), permit))
    }

    /// Takes note of how a request went at a server: the status of its response, or none. Leaves the
    /// server out when it has failed too often.
    pub fn note(&self, server: &Server<B>, status: Option<StatusCode>) {
        let Some(rules) = self.eject.as_ref().filter(|_| self.servers.len() > 1) else { return };
        let is_failure = status.is_none_or(|status| {
            let is_refusal = matches!(
                status,
                StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED
            );
            status.is_server_error() && !is_refusal
        });
        let now = Instant::now();
        if !is_failure {
            server.outlier.borrow_mut().succeed(rules, now);
            return;
        }
        let out = self.servers.iter().filter(|s| s.outlier.borrow().is_out(now)).count();
        let has_room = eject::has_room(rules, self.servers.len(), out);
        if let Some(time) = server.outlier.borrow_mut().fail(rules, now, has_room) {
            let (upstream, server) = (&self.name, &server.label);
            let seconds = time.as_secs_f64();
            tracing::warn!(%upstream, %server, seconds, "server fails and is left out for a while");
        }
    }

    /// Whether another attempt may follow `attempts` of them.
    pub fn may_retry(&self, miss: Miss, attempts: usize) -> bool {
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
        let mut budget = self.budget.borrow_mut();
        retry::is_worth_it(&self.retries, &mut budget, miss, attempts, Instant::now())
    }

    /// Whether another attempt can follow one that is the next after `tried` others.
    pub fn may_follow(&self, tried: usize) -> bool {
        tried < self.retries.attempts as usize && tried + 1 < self.servers.len()
    }

    /// Whether a copy of a request is kept, to be sent again although it was sent.
    pub fn keeps_copies(&self, method: &http::Method, has_body: bool) -> bool {
        self.servers.len() > 1 && retry::is_kept(&self.retries, method, has_body)
    }

    /// Closes connections that have been unused for longer than the keep-alive time.
    pub fn sweep(&self) {
        for server in &self.servers {
            server.pool.sweep();
        }
    }
}

/// What a request is told apart by, as a number; the client's address where there is nothing else.
pub fn number_of(by: &HashBy, fields: &HeaderMap, client: IpAddr) -> u64 {
    let value = match by {
        HashBy::Address => None,
        HashBy::Cookie(name) => sticky::cookie(fields, name).map(str::as_bytes),
        HashBy::Header(name) => fields.get(name).map(http::HeaderValue::as_bytes),
    };
    match (value, client.to_canonical()) {
        (Some(value), _) => number(value),
        (None, IpAddr::V4(ip)) => number(&ip.octets()),
        (None, IpAddr::V6(ip)) => number(&ip.octets()),
    }
}

impl<B> Server<B> {
    /// Whether it is fit for requests, as far as is known.
    fn look(&self, is_up: bool, now: Instant) -> bool {
        let is_passed_over = self.out_until.get().is_some_and(|until| until > now);
        let is_in = is_up && !is_passed_over && !self.outlier.borrow().is_out(now);
        if is_in && !self.was_in.get() {
            self.since.set(Some(now));
        }
        self.was_in.set(is_in);
        is_in
    }

    fn observe(&self, took: Duration) {
        let mut latency = self.latency.get();
        latency.observe(took, Instant::now());
        self.latency.set(latency);
        self.failures.set(0);
    }

    fn fail(&self) {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        let wait = Duration::from_millis(100 << failures.min(7));
        self.out_until.set(Some(Instant::now() + wait));
    }
}

impl UpstreamError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        Fault::Upstream
    }

    /// Whether the wait ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout(_) | Self::ResponseTimeout(_))
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(to, _) => write!(f, "cannot connect to {to}"),
            Self::ConnectTimeout(to) => write!(f, "{to} did not accept a connection in time"),
            Self::Tls(to, _) => write!(f, "TLS with {to} failed"),
            Self::Protocol(to, _) => write!(f, "{to} broke off or broke the protocol"),
            Self::ResponseTimeout(to) => write!(f, "{to} did not answer in time"),
            Self::Full(name) => write!(
                f,
                "every server of upstream {name} has as many requests as circuit.requests allows"
            ),
        }
    }
}

impl std::error::Error for UpstreamError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(_, cause) | Self::Tls(_, cause) => Some(cause),
            Self::Protocol(_, cause) => Some(&**cause),
            Self::ConnectTimeout(_) | Self::ResponseTimeout(_) | Self::Full(_) => None,
        }
    }
}

/// How often a request that waits for a place looks by itself.
const LOOK: Duration = Duration::from_millis(50);
