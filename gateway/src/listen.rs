//! Sockets and workers: one thread per core, each with its own runtime and its own listening sockets
//! (`SO_REUSEPORT`), so that a connection stays where the kernel put it. The handshake is never
//! awaited in the accept loop.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle as LocalHandle, LocalSet};

use crate::config::{Limits, Listen, Scheme};
use crate::http::exchange::Connection;
use crate::http::head::ConnectionFacts;
use crate::http::serve;
use crate::telemetry::Counters;
use crate::tls::accept::Accepted;
use crate::worker::{OpenPlace, Worker};

/// What a worker is told.
enum Command {
    /// Accept here from now on.
    Open(Listen, StdListener),
    /// Accept here no longer; open connections stay.
    Close(Listen),
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
    open: Vec<Listen>,
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
        let handles = (0..count).map(|index| {
            let (commands, received) = mpsc::unbounded_channel();
            let (make, drain, open) = (Arc::clone(&make), drain.subscribe(), Arc::clone(&open));
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || run(make(), received, drain, open))?;
            Ok(WorkerHandle { commands, thread })
        });
        let handles = handles.collect::<io::Result<Vec<_>>>()?;
        Ok(Self { handles, drain, open: Vec::new() })
    }

    /// Opens what `wanted` has and is not open yet; nothing is opened when one of them fails.
    ///
    /// # Errors
    /// The address that cannot be bound, and why.
    pub fn prepare(&self, wanted: &[Listen]) -> Result<Prepared, (Listen, io::Error)> {
        let mut opened = Vec::new();
        for listen in wanted.iter().filter(|listen| !self.open.contains(listen)) {
            // The same address may be reopened for the other scheme: then it is known to be ours.
            let is_ours = self.open.iter().any(|open| open.address == listen.address);
            let sockets = bind(listen.address, self.handles.len(), is_ours, wanted)
                .map_err(|cause| (listen.clone(), cause))?;
            opened.push((listen.clone(), sockets));
        }
        Ok(Prepared { wanted: wanted.to_vec(), opened })
    }

    /// Hands prepared sockets to the workers and closes those that are no longer wanted.
    pub fn apply(&mut self, prepared: Prepared) {
        for listen in self.open.iter().filter(|open| !prepared.wanted.contains(open)) {
            for worker in &self.handles {
                let _ = worker.commands.send(Command::Close(listen.clone()));
            }
        }
        for (listen, sockets) in prepared.opened {
            for (worker, socket) in self.handles.iter().zip(sockets) {
                let _ = worker.commands.send(Command::Open(listen.clone(), socket));
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
    wanted: Vec<Listen>,
    opened: Vec<(Listen, Vec<StdListener>)>,
}

/// One socket per worker. With `SO_REUSEPORT` the kernel would let a second gateway share the port
/// in silence, so a socket without it is bound first to see that nobody else is there.
fn bind(
    address: SocketAddr,
    count: usize,
    is_ours: bool,
    wanted: &[Listen],
) -> io::Result<Vec<StdListener>> {
    // `[::]` takes IPv4 as well unless 0.0.0.0 is listed for the same port.
    let v4 = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), address.port());
    let has_v4 = wanted.iter().any(|listen| listen.address == v4);
    let is_dual = address.ip() == std::net::Ipv6Addr::UNSPECIFIED && !has_v4;
    if !is_ours && address.port() != 0 {
        socket(address, false, is_dual)?;
    }
    (0..count).map(|_| socket(address, true, is_dual).map(Into::into)).collect()
}

fn socket(address: SocketAddr, is_shared: bool, is_dual: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(!is_dual)?;
    }
    socket.bind(&address.into())?;
    if is_shared {
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
    }
    Ok(socket)
}

fn run(
    worker: Rc<Worker>,
    commands: mpsc::UnboundedReceiver<Command>,
    drain: watch::Receiver<bool>,
    open: Arc<AtomicUsize>,
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
    tasks.block_on(&runtime, serve(Rc::clone(&worker), commands, drain, open));
    worker.access.flush();
}

async fn serve(
    worker: Rc<Worker>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    drain: watch::Receiver<bool>,
    open: Arc<AtomicUsize>,
) {
    let mut draining = drain.clone();
    let mut listeners: HashMap<Listen, LocalHandle<()>> = HashMap::new();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Open(listen, socket)) => match TcpListener::from_std(socket) {
                    Ok(socket) => {
                        let task = accept(
                            socket,
                            listen.scheme,
                            Rc::clone(&worker),
                            Arc::clone(&open),
                            drain.clone(),
                        );
                        listeners.insert(listen, tokio::task::spawn_local(task));
                    }
                    Err(cause) => tracing::error!(address = %listen.address, %cause, "cannot listen"),
                },
                Some(Command::Close(listen)) => {
                    if let Some(task) = listeners.remove(&listen) {
                        task.abort();
                    }
                }
                None => break,
            },
            _ = tick.tick() => worker.tick(),
            _ = draining.wait_for(|&drain| drain) => break,
        }
    }
    for (_, task) in listeners {
        task.abort();
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

async fn accept(
    socket: TcpListener,
    scheme: Scheme,
    worker: Rc<Worker>,
    open: Arc<AtomicUsize>,
    drain: watch::Receiver<bool>,
) {
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                let limits = worker.view().generation.config.limits.clone();
                if open.load(Ordering::Relaxed) >= limits.connections_max {
                    // Closing at once is kinder than a connection that nobody serves.
                    drop(stream);
                    continue;
                }
                Counters::add(&worker.counters.connections, 1);
                let place = Place::take(&worker, &open);
                let task = greet(stream, peer, scheme, Rc::clone(&worker), limits, drain.clone());
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

async fn greet(
    stream: TcpStream,
    peer: SocketAddr,
    scheme: Scheme,
    worker: Rc<Worker>,
    limits: Limits,
    drain: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let connection = |tls| {
        Rc::new(Connection {
            worker: Rc::clone(&worker),
            facts: Arc::new(ConnectionFacts { client: peer, tls }),
            scheme,
            forwarding: std::cell::RefCell::default(),
        })
    };
    if scheme == Scheme::Http {
        serve::connection(stream, false, connection(None), limits, drain).await;
        return;
    }
    let local = match stream.local_addr() {
        Ok(local) => local.ip().to_canonical(),
        Err(_) => return,
    };
    let handshake = worker.acceptor.accept(stream, local);
    match tokio::time::timeout(limits.handshake, handshake).await {
        Ok(Ok(Accepted::Serve { stream, facts })) => {
            let is_h2 = facts.is_h2;
            let connection = connection(Some(Arc::new(facts)));
            serve::connection(stream, is_h2, connection, limits, drain).await;
        }
        Ok(Ok(Accepted::Challenged)) => {}
        Ok(Err(cause)) => {
            Counters::add(&worker.counters.handshakes_failed, 1);
            tracing::debug!(client = %peer.ip(), %cause, "handshake refused");
        }
        Err(_) => {
            Counters::add(&worker.counters.handshakes_failed, 1);
            tracing::debug!(client = %peer.ip(), "handshake not finished in time");
        }
    }
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
const TICK: Duration = Duration::from_millis(100);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
