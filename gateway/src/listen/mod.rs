//! Sockets and workers: one thread per core, each with its own runtime and its own listening sockets
//! (`SO_REUSEPORT`), so that a connection stays where the kernel put it. The handshake is never
//! awaited in the accept loop. Each https address has a UDP port of the same number beside it, for
//! QUIC ([`quic`]).

mod hello;
mod pass;
mod quic;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle as LocalHandle, LocalSet};

pub use self::quic::Steering;
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
use crate::worker::{OpenPlace, Opened, Worker};

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

/// Sockets that listen already: those of the process before, or of systemd.
#[derive(Default)]
pub struct Inherited {
    /// For connections.
    pub tcp: Vec<StdListener>,
    /// For QUIC.
    pub udp: Vec<UdpSocket>,
}

/// A socket of a running gateway, for the process that takes over.
pub enum Listening {
    /// For connections.
    Tcp(OwnedFd),
    /// For QUIC.
    Udp(OwnedFd),
}

/// What one worker has open: how many, and the oldest of them.
pub type Report = (usize, Vec<Opened>);

/// Asks workers what they have open, also while they drain.
#[derive(Clone)]
pub struct Roll(Vec<mpsc::UnboundedSender<Command>>);

impl Roll {
    /// How many connections and tunnels are open, and the oldest of them. Waits for the workers.
    pub fn call(&self) -> Report {
        let (mut count, mut oldest) = (0, Vec::new());
        for worker in &self.0 {
            let (reply, report) = std::sync::mpsc::channel();
            let _ = worker.send(Command::Report(reply));
            if let Ok((more, some)) = report.recv_timeout(WORKER_ANSWERS) {
                count += more;
                oldest.extend(some);
            }
        }
        oldest.sort_by_key(|opened| opened.since);
        oldest.truncate(OLDEST_TOLD);
        (count, oldest)
    }
}

/// What a worker is told.
enum Command {
    /// Accept here from now on.
    Open(Door, Bound),
    /// Accept here no longer; open connections stay.
    Close(Door),
    /// Say which sockets are open.
    Sockets(std::sync::mpsc::Sender<Vec<Listening>>),
    /// Say what is open.
    Report(std::sync::mpsc::Sender<Report>),
}

/// The task that accepts at a door, and its socket as long as the task has it.
enum Porter {
    Tcp(LocalHandle<()>, Weak<OwnedFd>),
    /// Told whether to accept; it stays until its last connection has ended.
    Quic(watch::Sender<bool>, LocalHandle<()>, Weak<OwnedFd>),
}

impl Porter {
    fn close(&self) {
        match self {
            Self::Tcp(task, _) => task.abort(),
            Self::Quic(is_open, ..) => drop(is_open.send(false)),
        }
    }

    fn is_finished(&self) -> bool {
        match self {
            Self::Tcp(task, _) | Self::Quic(_, task, _) => task.is_finished(),
        }
    }

    /// Its socket, when it accepts.
    fn socket(&self) -> Option<Listening> {
        let copy = |socket: &Weak<OwnedFd>| socket.upgrade()?.try_clone().ok();
        match self {
            Self::Tcp(_, socket) => copy(socket).map(Listening::Tcp),
            Self::Quic(is_open, _, socket) if *is_open.borrow() => copy(socket).map(Listening::Udp),
            Self::Quic(..) => None,
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
    /// For connections of HTTP/1.1, which cannot be told that they end but in a response.
    drain_idle: watch::Sender<bool>,
    is_leaving: Arc<AtomicBool>,
    steering: Arc<Steering>,
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
        steering: Arc<Steering>,
        make: impl Fn() -> Rc<Worker> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (drain, _) = watch::channel(false);
        let (drain_idle, _) = watch::channel(false);
        let make = Arc::new(make);
        let is_leaving = Arc::new(AtomicBool::new(false));
        let open = Arc::new(AtomicUsize::new(0));
        let handles = (0..count).map(|index| {
            let (commands, received) = mpsc::unbounded_channel();
            let make = Arc::clone(&make);
            let house = House {
                open: Arc::clone(&open),
                drain: drain.subscribe(),
                drain_idle: drain_idle.subscribe(),
                is_leaving: Arc::clone(&is_leaving),
                steering: Arc::clone(&steering),
            };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || run(make(), received, house))?;
            Ok(WorkerHandle { commands, thread })
        });
        let handles = handles.collect::<io::Result<Vec<_>>>()?;
        let (open, known) = (Vec::new(), HashSet::new());
        Ok(Self { handles, drain, drain_idle, is_leaving, steering, open, known })
    }

    /// Opens what `wanted` has and is not open yet; nothing is opened when one of them fails.
    ///
    /// # Errors
    /// The address that cannot be bound, and why.
    pub fn prepare(&self, wanted: &[Listen]) -> Result<Prepared, (Listen, io::Error)> {
        let mut inherited = Inherited::default();
        Prepared::open(wanted, self.handles.len(), &self.open, &self.known, &mut inherited)
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
            for (worker, socket) in sockets {
                if let Some(worker) = self.handles.get(worker) {
                    let _ = worker.commands.send(Command::Open(door, socket));
                }
            }
        }
        self.open = prepared.wanted;
    }

    /// The sockets of all doors, for the process that takes over. Waits for the workers.
    pub fn sockets(&self) -> Vec<Listening> {
        let all = self.handles.iter().map(|worker| {
            let (reply, sockets) = std::sync::mpsc::channel();
            let _ = worker.commands.send(Command::Sockets(reply));
            sockets.recv_timeout(WORKER_ANSWERS).unwrap_or_default()
        });
        all.flatten().collect()
    }

    /// Who can tell what is open.
    pub fn roll(&self) -> Roll {
        Roll(self.handles.iter().map(|handle| handle.commands.clone()).collect())
    }

    /// Where datagrams of QUIC go.
    pub fn steering(&self) -> &Arc<Steering> {
        &self.steering
    }

    /// Stops accepting, lets open exchanges end, and waits for the workers.
    pub fn drain(self) {
        let _ = self.drain.send(true);
        let _ = self.drain_idle.send(true);
        self.join();
    }

    /// As [`Workers::drain`] after another process has taken over: a client of HTTP/1.1 that waits gets
    /// one more response, which tells it to connect anew, unless it has none to ask for within `idle`.
    /// Closing its connection could meet its next request.
    pub fn leave(self, idle: Duration) {
        self.is_leaving.store(true, Ordering::SeqCst);
        let _ = self.drain.send(true);
        let end = std::time::Instant::now() + idle;
        while std::time::Instant::now() < end
            && self.handles.iter().any(|handle| !handle.thread.is_finished())
        {
            std::thread::sleep(TICK);
        }
        let _ = self.drain_idle.send(true);
        self.join();
    }

    fn join(self) {
        for handle in self.handles {
            drop(handle.commands);
            let _ = handle.thread.join();
        }
    }
}

/// Sockets that are bound but not yet served: each for one worker.
pub struct Prepared {
    wanted: Vec<Door>,
    opened: Vec<(Door, Vec<(usize, Bound)>)>,
}

impl Prepared {
    /// Takes what `wanted` has from `inherited`, and binds the rest, for `count` workers of a process
    /// that has none yet.
    ///
    /// # Errors
    /// The address that cannot be bound, and why.
    pub fn first(
        wanted: &[Listen],
        count: usize,
        inherited: &mut Inherited,
    ) -> Result<Self, (Listen, io::Error)> {
        Self::open(wanted, count, &[], &HashSet::new(), inherited)
    }

    fn open(
        wanted: &[Listen],
        count: usize,
        open: &[Door],
        known: &HashSet<Door>,
        inherited: &mut Inherited,
    ) -> Result<Self, (Listen, io::Error)> {
        let mut prepared = Self { wanted: Vec::new(), opened: Vec::new() };
        for listen in wanted {
            let mut doors = vec![Door { address: listen.address, kind: Kind::Tcp(listen.scheme) }];
            doors
                .extend(listen.http3.then_some(Door { address: listen.address, kind: Kind::Quic }));
            for door in doors {
                prepared.wanted.push(door);
                if open.contains(&door) {
                    continue;
                }
                let fail = |cause| (listen.clone(), cause);
                let sockets = inherited.take(door, count).map_err(fail)?;
                if !sockets.is_empty() {
                    prepared.opened.push((door, sockets));
                    continue;
                }
                // The same address may be reopened for the other scheme: then it is known to be
                // ours.
                let is_ours = known.contains(&door)
                    || open.iter().any(|open| {
                        open.address == door.address
                            && (open.kind == Kind::Quic) == (door.kind == Kind::Quic)
                    });
                let sockets = bind(door, count, is_ours, wanted).map_err(fail)?;
                prepared.opened.push((door, sockets.into_iter().enumerate().collect()));
            }
        }
        Ok(prepared)
    }
}

impl Inherited {
    /// The sockets of a door, shared out over `count` workers; none when there are none. All of them
    /// are served, since the system may give connections to any. Workers may share a socket for
    /// connections; one for QUIC belongs to one worker.
    fn take(&mut self, door: Door, count: usize) -> io::Result<Vec<(usize, Bound)>> {
        let mut sockets = Vec::new();
        match door.kind {
            Kind::Tcp(_) => {
                let is_it = |socket: &mut StdListener| is_at(socket.local_addr(), door.address);
                let mut found: Vec<StdListener> = self.tcp.extract_if(.., is_it).collect();
                let missing = if found.is_empty() { 0 } else { count.saturating_sub(found.len()) };
                let more: Vec<StdListener> = found
                    .iter()
                    .cycle()
                    .take(missing)
                    .map(StdListener::try_clone)
                    .collect::<io::Result<_>>()?;
                found.extend(more);
                for socket in found {
                    socket.set_nonblocking(true)?;
                    sockets.push(Bound::Tcp(socket));
                }
            }
            Kind::Quic => {
                let is_it = |socket: &mut UdpSocket| is_at(socket.local_addr(), door.address);
                for socket in self.udp.extract_if(.., is_it) {
                    socket.set_nonblocking(true)?;
                    sockets.push(Bound::Udp(socket));
                }
            }
        }
        Ok(sockets.into_iter().enumerate().map(|(i, socket)| (i % count.max(1), socket)).collect())
    }
}

fn is_at(found: io::Result<SocketAddr>, wanted: SocketAddr) -> bool {
    found.is_ok_and(|found| (found.ip(), found.port()) == (wanted.ip(), wanted.port()))
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

/// What all workers have in common, beside what each owns.
struct House {
    /// Open connections of all.
    open: Arc<AtomicUsize>,
    drain: watch::Receiver<bool>,
    drain_idle: watch::Receiver<bool>,
    is_leaving: Arc<AtomicBool>,
    steering: Arc<Steering>,
}

fn run(worker: Rc<Worker>, commands: mpsc::UnboundedReceiver<Command>, house: House) {
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
    tasks.block_on(&runtime, serve(Rc::clone(&worker), commands, house));
    worker.access.flush();
}

async fn serve(worker: Rc<Worker>, mut commands: mpsc::UnboundedReceiver<Command>, house: House) {
    let mut draining = house.drain.clone();
    let mut porters: Vec<(Door, Porter)> = Vec::new();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Open(door, bound)) => {
                    porters.retain(|(_, porter)| !porter.is_finished());
                    // A QUIC door that was closed and has connections left opens again.
                    let is_reopened = porters.iter().any(|(known, porter)| match porter {
                        Porter::Quic(is_open, ..) if *known == door && !*is_open.borrow() => {
                            is_open.send(true).is_ok()
                        }
                        _ => false,
                    });
                    if is_reopened {
                        continue;
                    }
                    match start(door, bound, &worker, &house) {
                        Ok(porter) => porters.push((door, porter)),
                        Err(cause) => {
                            tracing::error!(address = %door.address, %cause, "cannot listen");
                        }
                    }
                }
                Some(Command::Close(door)) => {
                    let of_door = porters.iter().filter(|(known, _)| *known == door);
                    of_door.for_each(|(_, porter)| porter.close());
                }
                Some(Command::Sockets(reply)) => {
                    let sockets = porters.iter().filter_map(|(_, porter)| porter.socket());
                    let _ = reply.send(sockets.collect());
                }
                Some(Command::Report(reply)) => {
                    let _ = reply.send((worker.open.count(), worker.open.oldest(OLDEST_TOLD)));
                }
                None => break,
            },
            _ = tick.tick() => worker.tick(),
            _ = draining.wait_for(|&drain| drain) => break,
        }
    }
    worker.is_leaving.set(house.is_leaving.load(Ordering::SeqCst));
    for (_, porter) in &porters {
        porter.close();
    }
    let limit = worker.view().generation.config.limits.drain;
    let ended = tokio::time::timeout(limit, worker.open.ended());
    tokio::pin!(ended);
    loop {
        tokio::select! {
            outcome = &mut ended => {
                if outcome.is_err() {
                    let oldest = worker.open.oldest(OLDEST_TOLD);
                    let oldest: Vec<String> = oldest.iter().map(ToString::to_string).collect();
                    tracing::warn!(
                        open = worker.open.count(),
                        "drain time is over, closing: {}",
                        oldest.join(", ")
                    );
                }
                return;
            }
            Some(command) = commands.recv() => {
                if let Command::Report(reply) = command {
                    let _ = reply.send((worker.open.count(), worker.open.oldest(OLDEST_TOLD)));
                }
            }
            _ = tick.tick() => worker.access.flush(),
        }
    }
}

/// Begins to accept at a door.
fn start(door: Door, bound: Bound, worker: &Rc<Worker>, house: &House) -> io::Result<Porter> {
    let (worker, open, drain) = (Rc::clone(worker), Arc::clone(&house.open), house.drain.clone());
    match bound {
        Bound::Tcp(socket) => {
            let copy = Rc::new(socket.as_fd().try_clone_to_owned()?);
            let known = Rc::downgrade(&copy);
            let ends = Ends { all: drain, idle: house.drain_idle.clone() };
            let task = accept(TcpListener::from_std(socket)?, door, worker, open, ends);
            let task = tokio::task::spawn_local(async move {
                let _copy = copy;
                task.await;
            });
            Ok(Porter::Tcp(task, known))
        }
        Bound::Udp(socket) => {
            let copy = Rc::new(socket.as_fd().try_clone_to_owned()?);
            let known = Rc::downgrade(&copy);
            let endpoint = quic::endpoint(socket, door.address, &house.steering)?;
            let (is_open, opened) = watch::channel(true);
            let task = quic::accept(endpoint, worker, open, opened, drain);
            let task = tokio::task::spawn_local(async move {
                let _copy = copy;
                task.await;
            });
            Ok(Porter::Quic(is_open, task, known))
        }
    }
}

/// When connections are asked to end: those that can be told so between requests, and HTTP/1.1.
#[derive(Clone)]
struct Ends {
    all: watch::Receiver<bool>,
    idle: watch::Receiver<bool>,
}

async fn accept(
    socket: TcpListener,
    door: Door,
    worker: Rc<Worker>,
    open: Arc<AtomicUsize>,
    ends: Ends,
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
                let place = Place::take(&worker, &open, canonical(peer));
                // The handshake's task ends when the connection's begins: one that waits for its next
                // request holds no more memory than that takes.
                tokio::task::spawn_local(greet(
                    stream,
                    peer,
                    Rc::clone(&worker),
                    terms.clone(),
                    ends.clone(),
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
    ends: Ends,
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
    let tell = |what, name| place.of_worker.tell(caller.client, what, name);
    if scheme == Scheme::Http {
        tell("HTTP/1.1", None);
        let place = (place, of_address);
        let connection = connection_of(&worker, caller, None, None);
        serve::spawn(stream, false, connection, limits, ends.idle, place);
        return;
    }
    let to = caller.local.ip();
    let sender = hello::Sender::tcp(&caller);
    let client = caller.client.ip();
    let wish = |name: Option<&str>, records: &[u8], is_ours: bool| {
        let wish = match is_ours {
            true => Wish::Site(worker.view().generation.fronts.find(name, Some(to))),
            false => hello::wish(&worker, &sender, name, || fingerprint::unwrap_records(records)),
        };
        wish.logged_to(worker.acceptor.taps().find(name, client))
    };
    match worker.acceptor.accept(stream, to, limits.handshake, wish).await {
        Ok(Accepted::Serve { mut stream, facts }) => {
            stream.counted(worker.shared.memory.share());
            let is_h2 = facts.is_h2;
            tell(if is_h2 { "HTTP/2" } else { "HTTP/1.1" }, facts.server_name.clone());
            let place = (place, of_address);
            let connection = connection_of(&worker, caller, Some(facts), alt_svc);
            let drain = if is_h2 { ends.all } else { ends.idle };
            serve::spawn(stream, is_h2, connection, limits, drain, place);
        }
        Ok(Accepted::Pass { io, read, server_name, upstream }) => {
            tell("passed", server_name.as_deref().map(Box::from));
            let _place = (place, of_address);
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
    if let Some(tls) = &tls {
        worker.counters.handshake(tls.group, tls.is_resumed);
    }
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
    of_worker: OpenPlace,
}

impl Place {
    fn take(worker: &Worker, open: &Arc<AtomicUsize>, client: SocketAddr) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Counters::add(&worker.counters.open, 1);
        let (open, counters) = (Arc::clone(open), Arc::clone(&worker.counters));
        let of_worker = worker.open.place(Some(client), "handshake");
        Self { open, counters, of_worker }
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
/// How many of what is open are told about.
const OLDEST_TOLD: usize = 20;
/// How long a worker may take to say what it has: it serves, meanwhile.
const WORKER_ANSWERS: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
