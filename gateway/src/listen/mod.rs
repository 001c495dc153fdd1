//! Sockets and workers: one thread per core, each with its own runtime and its own listening sockets
//! (`SO_REUSEPORT`), so that a connection stays where the kernel put it. The handshake is never
//! awaited in the accept loop. Each https address has a UDP port of the same number beside it, for
//! QUIC ([`quic`]).

mod quic;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use http::HeaderValue;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle as LocalHandle, LocalSet};

use self::quic::Steering;
use crate::config::{Limits, Listen, Scheme};
use crate::http::exchange::Connection;
use crate::http::head::ConnectionFacts;
use crate::http::serve;
use crate::telemetry::Counters;
use crate::tls::TlsFacts;
use crate::tls::accept::Accepted;
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
                    // Closing at once is kinder than a connection that nobody serves.
                    drop(stream);
                    continue;
                }
                Counters::add(&worker.counters.connections, 1);
                let place = Place::take(&worker, &open);
                let task = greet(stream, peer, Rc::clone(&worker), terms.clone(), drain.clone());
                tokio::task::spawn_local(async move {
                    let _place = place;
                    task.await;
                });
            }
            // The peer was gone before we came: not our trouble.
            Err(cause) if is_of_one_connection(&cause) => {}
            Err(cause) => {
                tracing::warn!(%cause, "cannot accept connections, trying again shortly");
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
    limits: Limits,
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
            limits: generation.config.limits.clone(),
            alt_svc: alt_svc.and_then(|text| HeaderValue::from_str(&text).ok()),
        }
    }
}

async fn greet(
    stream: TcpStream,
    peer: SocketAddr,
    worker: Rc<Worker>,
    terms: Terms,
    drain: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let Terms { limits, scheme, alt_svc, .. } = terms;
    if scheme == Scheme::Http {
        let connection = connection_of(&worker, peer, None, None);
        serve::connection(stream, false, connection, limits, drain).await;
        return;
    }
    let local = match stream.local_addr() {
        Ok(local) => local.ip().to_canonical(),
        Err(_) => return,
    };
    match worker.acceptor.accept(stream, local, limits.handshake).await {
        Ok(Accepted::Serve { stream, facts }) => {
            let is_h2 = facts.is_h2;
            let connection = connection_of(&worker, peer, Some(facts), alt_svc);
            serve::connection(stream, is_h2, connection, limits, drain).await;
        }
        Ok(Accepted::Challenged) => {}
        Err(cause) => {
            Counters::add(&worker.counters.handshakes_failed, 1);
            tracing::debug!(client = %peer.ip(), %cause, "handshake refused");
        }
    }
}

/// A connection, as its exchanges need it.
fn connection_of(
    worker: &Rc<Worker>,
    client: SocketAddr,
    tls: Option<TlsFacts>,
    alt_svc: Option<HeaderValue>,
) -> Rc<Connection> {
    Rc::new(Connection {
        worker: Rc::clone(worker),
        scheme: if tls.is_some() { Scheme::Https } else { Scheme::Http },
        facts: Arc::new(ConnectionFacts { client, tls: tls.map(Arc::new) }),
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

fn is_of_one_connection(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

const BACKLOG: i32 = 4096;
const UDP_BUFFER_BYTES: usize = 4 * 1024 * 1024;
const ALT_SVC_SECONDS: u32 = 86_400;
const TICK: Duration = Duration::from_millis(100);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
