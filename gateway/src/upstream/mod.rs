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
use std::sync::atomic::AtomicU32;
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
use resolve::{Names, Resolved, Seat};

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
    /// What makes the values of the sticky cookie; none without one.
    pub sticky: Option<sticky::StickyKey>,
}

/// A server, or one of the addresses of one, as a choice sees it.
struct Member<B> {
    server: Rc<Server<B>>,
    /// The place of the server in the configuration.
    index: usize,
    /// What all workers share of the address.
    seat: Option<Arc<Seat>>,
    /// Requests under way there, over all workers, where they are bounded.
    open: Option<Arc<AtomicU32>>,
    /// The value of the sticky cookie.
    token: Option<String>,
}

/// All there are, and the addresses that they were made of.
struct Members<B> {
    list: Rc<[Member<B>]>,
    seen: Vec<Arc<Vec<Arc<Seat>>>>,
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
    servers: Vec<config::Server>,
    weights: Vec<u32>,
    parts: Parts,
    /// The servers whose names are followed.
    named: Vec<Arc<Resolved>>,
    members: RefCell<Members<B>>,
    connect_timeout: Duration,
    keepalive: Duration,
    /// For `round-robin`: what each member has coming.
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
        let seed = uuid::Uuid::now_v7().as_u64_pair().1;
        let named = config.servers.iter().filter_map(|server| parts.names.of(server)).cloned();
        let upstream = Self {
            named: named.collect(),
            members: RefCell::new(Members { list: Rc::from([]), seen: Vec::new() }),
            connect_timeout: config.timeouts.connect,
            keepalive: config.timeouts.keepalive,
            name,
            timeouts: config.timeouts.clone(),
            preserve_host: config.preserve_host,
            retries: config.retries.clone(),
            proxy_protocol: config.proxy_protocol,
            balance: config.balance.clone(),
            sticky: config.sticky.clone(),
            slow_start: config.slow_start,
            eject: config.eject.clone(),
            servers: config.servers.clone(),
            weights: config.weights.clone(),
            parts,
            credit: RefCell::default(),
            chance: RefCell::new(Chance::new(seed)),
            budget: RefCell::new(retry::Budget::new(now)),
        };
        upstream.gather(old.map(|old| Rc::clone(&old.members.borrow().list)).as_deref());
        upstream
    }

    /// What a choice has to choose from now.
    fn members(&self) -> Rc<[Member<B>]> {
        let known = self.members.borrow();
        let pairs = self.named.iter().zip(&known.seen);
        let is_same = pairs.into_iter().all(|(name, seen)| Arc::ptr_eq(&name.seats(), seen));
        let list = Rc::clone(&known.list);
        drop(known);
        if is_same {
            return list;
        }
        self.gather(Some(&list));
        Rc::clone(&self.members.borrow().list)
    }

    /// Makes members of the servers and of the addresses that their names have now. Those that `old` has
    /// alike are taken over; what was begun at others goes on to its end.
    fn gather(&self, old: Option<&[Member<B>]>) {
        let seen: Vec<_> = self.named.iter().map(|name| name.seats()).collect();
        let mut all = Vec::new();
        for (index, address) in self.servers.iter().enumerate() {
            let name = self.parts.names.of(address);
            let at = name.and_then(|name| self.named.iter().position(|n| Arc::ptr_eq(n, name)));
            let seats = at.and_then(|at| seen.get(at)).filter(|seats| !seats.is_empty());
            match seats {
                None => all.push(self.member(index, address, None, old)),
                Some(seats) => {
                    all.extend(
                        seats.iter().map(|seat| self.member(index, address, Some(seat), old)),
                    );
                }
            }
        }
        *self.credit.borrow_mut() = vec![0; all.len()];
        *self.members.borrow_mut() = Members { list: all.into(), seen };
    }

    fn member(
        &self,
        index: usize,
        address: &config::Server,
        seat: Option<&Arc<Seat>>,
        old: Option<&[Member<B>]>,
    ) -> Member<B> {
        let same = |member: &&Member<B>| member.server.address == *address;
        let mut known = old.unwrap_or_default().iter().filter(same);
        let addresses = seat.map(|seat| seat.addresses()).unwrap_or_default();
        let is_it = |member: &&Member<B>| member.server.pool.addresses == addresses;
        let server = known.clone().find(is_it);
        let server = server.map(|member| Rc::clone(&member.server));
        // The first answer for a name brings no server that was not there before.
        let is_added =
            old.is_some() && !known.any(|member| member.server.pool.addresses.is_empty());
        let server = server.unwrap_or_else(|| self.new_server(address, addresses, is_added));
        let open = match seat {
            Some(seat) => self.parts.circuit.is_some().then(|| Arc::clone(&seat.open)),
            None => self.parts.circuit.as_ref().and_then(|circuit| circuit.of(index)).cloned(),
        };
        let token = self.parts.sticky.as_ref().map(|key| key.token(&self.name, &server.label));
        Member { server, index, seat: seat.cloned(), open, token }
    }

    fn new_server(
        &self,
        address: &config::Server,
        addresses: Vec<IpAddr>,
        is_added: bool,
    ) -> Rc<Server<B>> {
        let label: Arc<str> = match addresses.first() {
            Some(ip) => format!("{address} at {ip}").into(),
            None => address.to_string().into(),
        };
        Rc::new(Server {
            address: address.clone(),
            id: balance::number(label.as_bytes()),
            label,
            pool: Pool::new(
                address.clone(),
                self.parts.tls.clone(),
                self.keepalive,
                self.proxy_protocol,
                addresses,
            ),
            connect_timeout: self.connect_timeout,
            open: Cell::new(0),
            latency: Cell::default(),
            failures: Cell::new(0),
            out_until: Cell::new(None),
            outlier: RefCell::default(),
            was_in: Cell::new(true),
            since: Cell::new(is_added.then(Instant::now)),
        })
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
        if self.members().len() < 2 {
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
        let members = self.members();
        let token = members.iter().find(|m| Rc::ptr_eq(&m.server, server))?.token.as_ref()?;
        if members.len() < 2 || key.token.as_ref() == Some(token) {
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
        let members = self.members();
        let members = &*members;
        if let [only] = members {
            return if tried.is_empty() { self.enter(only) } else { Pick::Nobody };
        }
        let now = Instant::now();
        let mut others: Vec<usize> = Vec::with_capacity(members.len());
        let mut fit: Vec<usize> = Vec::with_capacity(members.len());
        for (at, member) in members.iter().enumerate() {
            if !tried.contains(&member.server.label) {
                others.push(at);
                let is_up = match &member.seat {
                    Some(seat) => seat.is_up(),
                    None => self.parts.health.is_up(member.index),
                };
                if member.server.look(is_up, now) {
                    fit.push(at);
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
            let has_place = |m: &Member<B>| m.open.as_ref().is_none_or(|o| circuit.has_place(o));
            fit.retain(|at| members.get(*at).is_some_and(has_place));
        }
        let own = |member: &Member<B>| key.token.is_some() && member.token == key.token;
        if let Some(own) = fit.iter().filter_map(|at| members.get(*at)).find(|m| own(m)) {
            return self.enter(own);
        }
        if !self.slow_start.is_zero() {
            let is_warm = |at: &usize| members.get(*at).is_some_and(|m| self.is_warm(m, now));
            let warm: Vec<usize> = fit.iter().copied().filter(is_warm).collect();
            if !warm.is_empty() {
                fit = warm;
            }
        }
        let chosen = self.choose(members, &fit, key, now).and_then(|at| members.get(at));
        chosen.map_or(Pick::Full, |member| self.enter(member))
    }

    fn choose(
        &self,
        members: &[Member<B>],
        fit: &[usize],
        key: &ClientKey,
        now: Instant,
    ) -> Option<usize> {
        if let [only] = fit {
            return Some(*only);
        }
        let mut chance = self.chance.borrow_mut();
        let candidates: Vec<Candidate> = fit
            .iter()
            .filter_map(|at| {
                let Member { server, index, .. } = members.get(*at)?;
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
    fn is_warm(&self, member: &Member<B>, now: Instant) -> bool {
        let since = member.server.since.get();
        let since = since.map_or(self.slow_start, |since| now.saturating_duration_since(since));
        self.chance.borrow_mut().happens(balance::warmth(since, self.slow_start))
    }

    fn enter(&self, member: &Member<B>) -> Pick<B> {
        let permit = match self.parts.circuit.as_ref().zip(member.open.as_ref()) {
            None => None,
            Some((circuit, open)) => match circuit.enter(open) {
                None => return Pick::Full,
                permit => permit,
            },
        };
        Pick::Server((Rc::clone(&member.server), permit))
    }

    /// Takes note of how a request went at a server: the status of its response, or none. Leaves the
    /// server out when it has failed too often.
    pub fn note(&self, server: &Server<B>, status: Option<StatusCode>) {
        let members = self.members();
        let Some(rules) = self.eject.as_ref().filter(|_| members.len() > 1) else { return };
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
        let out = members.iter().filter(|m| m.server.outlier.borrow().is_out(now)).count();
        let has_room = eject::has_room(rules, members.len(), out);
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
        tried < self.retries.attempts as usize && tried + 1 < self.members().len()
    }

    /// Whether a copy of a request is kept, to be sent again although it was sent.
    pub fn keeps_copies(&self, method: &http::Method, has_body: bool) -> bool {
        self.members().len() > 1 && retry::is_kept(&self.retries, method, has_body)
    }

    /// Closes connections that have been unused for longer than the keep-alive time.
    pub fn sweep(&self) {
        for member in self.members().iter() {
            member.server.pool.sweep();
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
