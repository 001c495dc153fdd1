//! Upstreams: which server takes the next request, connections to it, waits and health. Knows
//! nothing of clients or plugins. One [`Upstream`] lives on each worker and is never shared, so
//! nothing here is locked.

mod connect;
mod h1;
pub mod health;
mod pool;

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Body;

pub use connect::TlsClient;
pub use h1::ServerBody;
use pool::Pool;
pub use pool::{Lease, SendError, Sent};

use crate::config;
use crate::fault::Fault;
use health::Health;

/// An upstream on one worker. `B` is the type of request bodies.
pub struct Upstream<B> {
    /// Its name in the configuration, for messages.
    pub name: Arc<str>,
    /// Waits.
    pub timeouts: config::UpstreamTimeouts,
    /// Whether servers see the client's `Host`.
    pub preserve_host: bool,
    balance: config::Balance,
    servers: Vec<Rc<Server<B>>>,
    health: Arc<Health>,
    next: Cell<usize>,
}

/// One server of an upstream, on one worker.
pub struct Server<B> {
    /// Where it is.
    pub address: config::Server,
    /// The address as the access log shows it.
    pub label: Arc<str>,
    pool: Pool<B>,
    connect_timeout: Duration,
    open: Cell<u32>,
    /// Peak-EWMA of the time to the response's head, in microseconds.
    latency_us: Cell<f64>,
    failures: Cell<u32>,
    out_until: Cell<Option<Instant>>,
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
}

impl<B> Upstream<B>
where
    B: Body<Data = bytes::Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Prepares the upstream; nothing is connected yet.
    pub fn new(
        name: Arc<str>,
        config: &config::Upstream,
        tls: Option<TlsClient>,
        health: Arc<Health>,
    ) -> Self {
        let server = |address: &config::Server| {
            Rc::new(Server {
                address: address.clone(),
                label: address.to_string().into(),
                pool: Pool::new(address.clone(), tls.clone(), config.timeouts.keepalive),
                connect_timeout: config.timeouts.connect,
                open: Cell::new(0),
                latency_us: Cell::new(0.0),
                failures: Cell::new(0),
                out_until: Cell::new(None),
            })
        };
        Self {
            name,
            timeouts: config.timeouts.clone(),
            preserve_host: config.preserve_host,
            balance: config.balance,
            servers: config.servers.iter().map(server).collect(),
            health,
            next: Cell::new(0),
        }
    }

    /// The server for the next request, leaving out `tried`. Servers that health checks or recent
    /// connection failures took out are only used when there is no other.
    pub fn pick(&self, tried: &[Arc<str>]) -> Option<Rc<Server<B>>> {
        if let [only] = self.servers.as_slice() {
            return if tried.is_empty() { Some(Rc::clone(only)) } else { None };
        }
        let now = Instant::now();
        let untried = |s: &&Rc<Server<B>>| !tried.contains(&s.label);
        let is_in = |index: usize, s: &Rc<Server<B>>| {
            self.health.is_up(index) && s.out_until.get().is_none_or(|until| until <= now)
        };
        let fit: Vec<&Rc<Server<B>>> = self
            .servers
            .iter()
            .enumerate()
            .filter(|(index, s)| untried(s) && is_in(*index, s))
            .map(|(_, s)| s)
            .collect();
        let fit = match fit.is_empty() {
            false => fit,
            true => self.servers.iter().filter(untried).collect(),
        };
        self.choose(&fit).map(Rc::clone)
    }

    fn choose<'a>(&self, fit: &[&'a Rc<Server<B>>]) -> Option<&'a Rc<Server<B>>> {
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        match self.balance {
            _ if fit.len() < 2 => fit.first().copied(),
            config::Balance::RoundRobin => fit.get(turn % fit.len()).copied(),
            config::Balance::LeastConnections => {
                // The turn breaks ties, so that idle servers share the load.
                let order = (0..fit.len()).map(|i| (turn + i) % fit.len());
                order.filter_map(|i| fit.get(i)).min_by_key(|s| s.open.get()).copied()
            }
            config::Balance::P2c => {
                let one = scramble(turn) % fit.len();
                let other = (one + 1 + scramble(turn ^ 0x5bd1) % (fit.len() - 1)) % fit.len();
                let (one, other) = (fit.get(one)?, fit.get(other)?);
                Some(if one.load() <= other.load() { *one } else { *other })
            }
        }
    }

    /// Closes connections that have been unused for longer than the keep-alive time.
    pub fn sweep(&self) {
        for server in &self.servers {
            server.pool.sweep();
        }
    }
}

impl<B> Server<B> {
    fn load(&self) -> f64 {
        self.latency_us.get().max(1.0) * f64::from(self.open.get() + 1)
    }

    fn observe(&self, took: Duration) {
        let sample = took.as_secs_f64() * 1e6;
        let known = self.latency_us.get();
        // A peak counts at once, recovery comes slowly.
        let next = if sample > known { sample } else { known + (sample - known) * 0.1 };
        self.latency_us.set(next);
        self.failures.set(0);
    }

    fn fail(&self) {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        let wait = Duration::from_millis(100 << failures.min(7));
        self.out_until.set(Some(Instant::now() + wait));
    }
}

/// A cheap mix of a counter, so that picks look random without a generator.
fn scramble(n: usize) -> usize {
    let mixed = (n as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from((mixed ^ (mixed >> 29)) >> 16).unwrap_or(0)
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
        }
    }
}

impl std::error::Error for UpstreamError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(_, cause) | Self::Tls(_, cause) => Some(cause),
            Self::Protocol(_, cause) => Some(&**cause),
            Self::ConnectTimeout(_) | Self::ResponseTimeout(_) => None,
        }
    }
}
