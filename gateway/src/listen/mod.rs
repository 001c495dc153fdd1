//! Sockets and workers: one thread per core, each with its own runtime and its own listening sockets
//! (`SO_REUSEPORT`), so that a connection stays where the kernel put it. The handshake is never
//! awaited in the accept loop. Each https address has a UDP port of the same number beside it, for
//! QUIC ([`quic`]).

mod hello;
mod pass;
mod quic;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle as LocalHandle, LocalSet};

use self::quic::Steering;
use crate::bounds::{AddressPlace, Reason};
use crate::config::{Limits, Listen, Scheme};
use crate::http::exchange::Connection;
use crate::http::head::ConnectionFacts;
use crate::http::headers::is_trusted;
use crate::http::serve;
use crate::proxy::{self, Via};
use crate::telemetry::Counters;
use crate::tls::TlsFacts;
use crate::tls::accept::Accepted;
use crate::tls::fingerprint;
use crate::tls::hello::Wish;
use crate::worker::{OpenPlace, Worker};

/// Where connections come in, whatever the settings of the place are. Those are looked up at each
/// connection, so that a change of them closes no socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Door {
    address: SocketAddr,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Tcp(Scheme),
    Quic,
}

/// A socket of a door.
enum Bound {
    Tcp(StdListener),
    Udp(UdpSocket),
}

/// What a worker is told.
enum Command {
    /// Accept here from now on.
    Open(Door, Bound),
    /// Accept here no longer; open connections stay.
    Close(Door),
}

/// The task that accepts at a door.
enum Porter {
    Tcp(LocalHandle<()>),
    /// Told whether to accept; it stays until its last connection has ended.
    Quic(watch::Sender<bool>, LocalHandle<()>),
}

impl Porter {
    fn close(&self) {
        match self {
            Self::Tcp(task) => task.abort(),
            Self::Quic(is_open, _) => drop(is_open.send(false)),
        }
    }
}

/// A running worker.
pub struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
    thread: JoinHandle<()>,
}

/// All workers, and the sockets they have.
pub struct Workers {
    handles: Vec<WorkerHandle>,
    drain: watch::Sender<bool>,
    open: Vec<Door>,
    /// Doors whose sockets may still be there, since QUIC connections end when they like.
    known: HashSet<Door>,
}

impl Workers {
    /// Starts `count` workers; `make` is called on each worker's own thread.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        count: usize,
        make: impl Fn() -> Rc<Worker> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (drain, _) = watch::channel(false);
        let make = Arc::new(make);
        let open = Arc::new(AtomicUsize::new(0));
        let steering = Steering::new();
        let handles = (0..count).map(|index| {
            let (commands, received) = mpsc::unbounded_channel();
            let (make, drain, open) = (Arc::clone(&make), drain.subscribe(), Arc::clone(&open));
            let place = QuicPlace {
                worker: u16::try_from(index).map_err(io::Error::other)?,
                steering: Arc::clone(&steering),
            };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || run(make(), received, drain, open, place))?;
            Ok(WorkerHandle { commands, thread })
        });
        let handles = handles.collect::<io::Result<Vec<_>>>()?;
        Ok(Self { handles, drain, open: Vec::new(), known: HashSet::new() })
    }

    /// Opens what `wanted` has and is not open yet; nothing is opened when one of them fails.
    ///
    /// # Errors
    /// The address that cannot be bound, and why.
    pub fn prepare(&self, wanted: &[Listen]) -> Result<Prepared, (Listen, io::Error)> {
        let mut prepared = Prepared { wanted: Vec::new(), opened: Vec::new() };
        for listen in wanted {
            let mut doors = vec![Door { address: listen.address, kind: Kind::Tcp(listen.scheme) }];
            doors
                .extend(listen.http3.then_some(Door { address: listen.address, kind: Kind::Quic }));
            for door in doors {
                prepared.wanted.push(door);
                if self.open.contains(&door) {
                    continue;
                }
                // The same address may be reopened for the other scheme: then it is known to be
                // ours.
                let is_ours = self.known.contains(&door)
                    || self.open.iter().any(|open| {
                        open.address == door.address
                            && (open.kind == Kind::Quic) == (door.kind == Kind::Quic)
                    });
                let sockets = bind(door, self.handles.len(), is_ours, wanted)
                    .map_err(|cause| (listen.clone(), cause))?;
                prepared.opened.push((door, sockets));
            }
        }
        Ok(prepared)
    }

    /// Hands prepared sockets to the workers and closes those that are no longer wanted.
    pub fn apply(&mut self, prepared: Prepared) {
        for door in self.open.iter().filter(|open| !prepared.wanted.contains(open)) {
            for worker in &self.handles {
                let _ = worker.commands.send(Command::Close(*door));
            }
        }
        for (door, sockets) in prepared.opened {
            if door.kind == Kind::Quic {
                self.known.insert(door);
            }
            for (worker, socket) in self.handles.iter().zip(sockets) {
                let _ = worker.commands.send(Command::Open(door, socket));
            }
        }
        self.open = prepared.wanted;
    }

    /// Stops accepting, lets open exchanges end, and waits for the workers.
    pub fn drain(self) {
        let _ = self.drain.send(true);
        for handle in self.handles {
            drop(handle.commands);
            let _ = handle.thread.join();
        }
    }
}

/// Sockets that are bound but not yet served.
pub struct Prepared {
    wanted: Vec<Door>,
    opened: Vec<(Door, Vec<Bound>)>,
}

/// One socket per worker. With `SO_REUSEPORT` the kernel would let a second gateway share the port
/// in silence, so a socket without it is bound first to see that nobody else is there.
fn bind(door: Door, count: usize, is_ours: bool, wanted: &[Listen]) -> io::Result<Vec<Bound>> {
    let address = door.address;
    // `[::]` takes IPv4 as well unless 0.0.0.0 is listed for the same port.
    let v4 = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), address.port());
    let has_v4 = wanted.iter().any(|listen| listen.address == v4);
    let is_dual = address.ip() == std::net::Ipv6Addr::UNSPECIFIED && !has_v4;
    if !is_ours && address.port() != 0 {
        socket(door, false, is_dual)?;
    }
    let sockets = (0..count).map(|_| {
        let socket = socket(door, true, is_dual)?;
        Ok(match door.kind {
            Kind::Tcp(_) => Bound::Tcp(socket.into()),
            Kind::Quic => Bound::Udp(socket.into()),
        })
    });
    sockets.collect()
}

fn socket(door: Door, is_shared: bool, is_dual: bool) -> io::Result<Socket> {
    let address = door.address;
    let is_tcp = matches!(door.kind, Kind::Tcp(_));
    let (kind, protocol) = match is_tcp {
        true => (Type::STREAM, Protocol::TCP),
        false => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if is_tcp {
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(is_shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(!is_dual)?;
    }
    socket.bind(&address.into())?;
    if is_shared {
        socket.set_nonblocking(true)?;
        if is_tcp {
            socket.listen(BACKLOG)?;
        } else {
            // As large as the system allows: one socket takes the datagrams of all connections.
            let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
            let _ = socket.set_send_buffer_size(UDP_BUFFER_BYTES);
        }
    }
    Ok(socket)
}

/// What a worker needs to take part in QUIC.
struct QuicPlace {
    worker: u16,
    steering: Arc<Steering>,
}

fn run(
    worker: Rc<Worker>,
    commands: mpsc::UnboundedReceiver<Command>,
    drain: watch::Receiver<bool>,
    open: Arc<AtomicUsize>,
    place: QuicPlace,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(cause) => {
            tracing::error!(%cause, "a worker cannot start its runtime");
            return;
        }
    };
    worker.sit_here();
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, serve(Rc::clone(&worker), commands, drain, open, place));
    worker.access.flush();
}

async fn serve(
    worker: Rc<Worker>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    drain: watch::Receiver<bool>,
    open: Arc<AtomicUsize>,
    place: QuicPlace,
) {
    let mut draining = drain.clone();
    let mut porters: HashMap<Door, Porter> = HashMap::new();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Open(door, bound)) => {
                    // A QUIC door that was closed and has connections left opens again.
                    if let Some(Porter::Quic(is_open, task)) = porters.get(&door)
                        && !task.is_finished()
                        && is_open.send(true).is_ok()
                    {
                        continue;
                    }
                    match start(door, bound, &worker, &open, &drain, &place) {
                        Ok(porter) => drop(porters.insert(door, porter)),
                        Err(cause) => {
                            tracing::error!(address = %door.address, %cause, "cannot listen");
                        }
                    }
                }
                Some(Command::Close(door)) => {
                    if let Some(porter) = porters.get(&door) {
                        porter.close();
                    }
                }
                None => break,
            },
            _ = tick.tick() => worker.tick(),
            _ = draining.wait_for(|&drain| drain) => break,
        }
    }
    for porter in porters.values() {
        porter.close();
    }
    let limit = worker.view().generation.config.limits.drain;
    let ended = tokio::time::timeout(limit, worker.open.ended());
    tokio::pin!(ended);
    loop {
        tokio::select! {
            outcome = &mut ended => {
                if outcome.is_err() {
                    tracing::warn!(open = worker.open.count(), "drain time is over, closing");
                }
                return;
            }
            _ = tick.tick() => worker.access.flush(),
        }
    }
}

/// Begins to accept at a door.
fn start(
    door: Door,
    bound: Bound,
    worker: &Rc<Worker>,
    open: &Arc<AtomicUsize>,
    drain: &watch::Receiver<bool>,
    place: &QuicPlace,
) -> io::Result<Porter> {
    let (worker, open, drain) = (Rc::clone(worker), Arc::clone(open), drain.clone());
    match bound {
        Bound::Tcp(socket) => {
            let task = accept(TcpListener::from_std(socket)?, door, worker, open, drain);
            Ok(Porter::Tcp(tokio::task::spawn_local(task)))
        }
        Bound::Udp(socket) => {
            let endpoint = quic::endpoint(socket, door.address, place.worker, &place.steering)?;
            let (is_open, opened) = watch::channel(true);
            let task = quic::accept(endpoint, worker, open, opened, drain);
            Ok(Porter::Quic(is_open, tokio::task::spawn_local(task)))
        }
    }
}

async fn accept(
    socket: TcpListener,
    door: Door,
    worker: Rc<Worker>,
    open: Arc<AtomicUsize>,
    drain: watch::Receiver<bool>,
) {
    let mut terms = Terms::new(&worker, door);
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                if terms.generation != worker.view().generation.id {
                    terms = Terms::new(&worker, door);
                }
                if open.load(Ordering::Relaxed) >= terms.limits.connections_max {
                    worker.notices.note(Reason::Connections, Some(peer.ip()));
                    // Closing at once is kinder than a connection that nobody serves.
                    drop(stream);
                    continue;
                }
                Counters::add(&worker.counters.connections, 1);
                let place = Place::take(&worker, &open);
                // The handshake's task ends when the connection's begins: one that waits for its next
                // request holds no more memory than that takes.
                tokio::task::spawn_local(greet(
                    stream,
                    peer,
                    Rc::clone(&worker),
                    terms.clone(),
                    drain.clone(),
                    place,
                ));
            }
            // The peer was gone before we came: not our trouble.
            Err(cause) if is_of_one_connection(&cause) => {}
            Err(cause) => {
                if is_of_descriptors(&cause) {
                    worker.notices.note(Reason::Descriptors, None);
                } else {
                    tracing::warn!(%cause, "cannot accept connections, trying again shortly");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What new connections are served by; made once per generation and door.
#[derive(Clone)]
struct Terms {
    generation: u64,
    scheme: Scheme,
    limits: Rc<Limits>,
    /// Who sends a PROXY header first.
    proxies: Arc<[IpNet]>,
    /// Tells clients of HTTP/3.
    alt_svc: Option<HeaderValue>,
}

impl Terms {
    fn new(worker: &Worker, door: Door) -> Self {
        let generation = Arc::clone(&worker.view().generation);
        let listen = generation.config.listen.iter().find(|l| l.address == door.address);
        let port = listen.filter(|listen| listen.http3).map(|listen| listen.address.port());
        let alt_svc = port.map(|port| format!("h3=\":{port}\"; ma={ALT_SVC_SECONDS}"));
        Self {
            generation: generation.id,
            scheme: match door.kind {
                Kind::Tcp(scheme) => scheme,
                Kind::Quic => Scheme::Https,
            },
            limits: Rc::new(within_descriptors(generation.config.limits.clone())),
            proxies: listen.map(|l| l.proxy_protocol.as_slice()).unwrap_or_default().into(),
            alt_svc: alt_svc.and_then(|text| HeaderValue::from_str(&text).ok()),
        }
    }
}

/// The limits, with no more connections than there are file descriptors for, and some for upstreams, files
/// and what else has to go on when all places are taken.
fn within_descriptors(limits: Limits) -> Limits {
    let Ok((descriptors, _)) = rlimit::Resource::NOFILE.get() else { return limits };
    let kept = (descriptors / 4).clamp(KEPT_DESCRIPTORS_MIN, KEPT_DESCRIPTORS_MAX);
    let places = usize::try_from(descriptors.saturating_sub(kept)).unwrap_or(usize::MAX);
    Limits { connections_max: limits.connections_max.min(places.max(1)), ..limits }
}

/// Makes the handshake and hands the connection to a task of its protocol.
async fn greet(
    stream: TcpStream,
    peer: SocketAddr,
    worker: Rc<Worker>,
    terms: Terms,
    drain: watch::Receiver<bool>,
    place: Place,
) {
    let _ = stream.set_nodelay(true);
    let mut stream = stream;
    let Ok(local) = stream.local_addr() else { return };
    let Terms { limits, scheme, alt_svc, proxies, .. } = terms;
    let deadline = tokio::time::Instant::now() + limits.handshake;
    let failed = |cause: &dyn std::fmt::Display| {
        Counters::add(&worker.counters.handshakes_failed, 1);
        tracing::debug!(client = %peer.ip(), %cause, "handshake refused");
    };
    let mut caller = Caller { client: canonical(peer), local: canonical(local), via: None };
    if is_trusted(peer.ip(), &proxies) {
        match tokio::time::timeout_at(deadline, proxy::read(&mut stream)).await {
            Ok(Ok(header)) => caller = caller.through(header),
            Ok(Err(cause)) => return failed(&cause),
            Err(_) => return failed(&"no PROXY header in time"),
        }
    }
    let Some(of_address) = place_of_address(&worker, caller.client.ip(), &limits) else { return };
    let place = (place, of_address);
    if scheme == Scheme::Http {
        let connection = connection_of(&worker, caller, None, None);
        serve::spawn(stream, false, connection, limits, drain, place);
        return;
    }
    let to = caller.local.ip();
    let sender = hello::Sender::tcp(&caller);
    let wish = |name: Option<&str>, records: &[u8], is_ours: bool| match is_ours {
        true => Wish::Site(worker.view().generation.fronts.find(name, Some(to))),
        false => hello::wish(&worker, &sender, name, || fingerprint::unwrap_records(records)),
    };
    match worker.acceptor.accept(stream, to, limits.handshake, wish).await {
        Ok(Accepted::Serve { mut stream, facts }) => {
            stream.counted(worker.shared.memory.share());
            let is_h2 = facts.is_h2;
            let connection = connection_of(&worker, caller, Some(facts), alt_svc);
            serve::spawn(stream, is_h2, connection, limits, drain, place);
        }
        Ok(Accepted::Pass { io, read, server_name, upstream }) => {
            pass::through(&worker, caller, pass::Passage { io, read, server_name, upstream }).await;
        }
        Ok(Accepted::Challenged) => {}
        Err(cause) => failed(&cause),
    }
}

/// Who connects, and to which address.
struct Caller {
    client: SocketAddr,
    local: SocketAddr,
    via: Option<Arc<Via>>,
}

impl Caller {
    /// The caller that a balancer speaks for.
    fn through(self, header: proxy::Header) -> Self {
        let (client, local) = match header.ends {
            Some(ends) => (canonical(ends.source), canonical(ends.destination)),
            None => (self.client, self.local),
        };
        Self { client, local, via: Some(Arc::new(Via { peer: self.client, header })) }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A place in the count of the client's address, `None` when that has too many. Trusted proxies speak
/// for others and are not counted; neither is anybody where there is no limit.
#[expect(clippy::option_option, reason = "no place is refused, a place that is not counted is not")]
fn place_of_address(
    worker: &Worker,
    client: IpAddr,
    limits: &Limits,
) -> Option<Option<AddressPlace>> {
    let Some(max) = limits.connections_per_address_max else { return Some(None) };
    if is_trusted(client, &worker.view().generation.config.trusted_proxies) {
        return Some(None);
    }
    let place = worker.shared.addresses.take(client, max);
    if place.is_none() {
        worker.notices.note(Reason::Address, Some(client));
    }
    place.map(Some)
}

/// A connection, as its exchanges need it.
fn connection_of(
    worker: &Rc<Worker>,
    caller: Caller,
    tls: Option<TlsFacts>,
    alt_svc: Option<HeaderValue>,
) -> Rc<Connection> {
    let Caller { client, local, via } = caller;
    Rc::new(Connection {
        worker: Rc::clone(worker),
        scheme: if tls.is_some() { Scheme::Https } else { Scheme::Http },
        facts: Arc::new(ConnectionFacts { client, tls: tls.map(Arc::new), via }),
        local,
        forwarding: std::cell::RefCell::default(),
        alt_svc,
    })
}

/// A connection's place in the counts of the gateway, given back when it ends however it ends.
struct Place {
    open: Arc<AtomicUsize>,
    counters: Arc<Counters>,
    _of_worker: OpenPlace,
}

impl Place {
    fn take(worker: &Worker, open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Counters::add(&worker.counters.open, 1);
        let (open, counters) = (Arc::clone(open), Arc::clone(&worker.counters));
        Self { open, counters, _of_worker: worker.open.place() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        Counters::sub(&self.counters.open, 1);
    }
}

/// Whether it is for want of file descriptors, which others give back.
fn is_of_descriptors(cause: &io::Error) -> bool {
    let code = cause.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(code, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

fn is_of_one_connection(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

const KEPT_DESCRIPTORS_MIN: u64 = 64;
const KEPT_DESCRIPTORS_MAX: u64 = 16_384;
const BACKLOG: i32 = 4096;
const UDP_BUFFER_BYTES: usize = 4 * 1024 * 1024;
const ALT_SVC_SECONDS: u32 = 86_400;
const TICK: Duration = Duration::from_millis(100);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
