//! QUIC: one endpoint per worker and address, on UDP sockets that share the port (`SO_REUSEPORT`).
//!
//! The kernel spreads datagrams by the addresses in them, so a client that changes its own address
//! (from WLAN to mobile, or behind a NAT that forgets) would suddenly speak to another worker. So
//! each connection ID says which worker made it, readable by this process alone, and a worker that
//! gets another's datagram hands it over. Connections never move, and no datagram needs a lock or
//! another thread as long as its client stays where it is.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::aead::quic::{AES_256, HeaderProtectionKey};
use aws_lc_rs::{hmac, rand};
use quinn::crypto::HmacKey;
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{
    AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, Incoming,
    Runtime as _, TokioRuntime, TransportConfig, UdpPoller, VarInt,
};
use rustls_pki_types::CertificateDer;
use tokio::sync::{mpsc, watch};

use super::hello::{self, Sender};
use super::{Caller, Place, canonical, connection_of, place_of_address};
use crate::bounds::Reason;
use crate::config::Limits;
use crate::http::h3;
use crate::telemetry::Counters;
use crate::tls::TlsFacts;
use crate::tls::accept::{group_name, has_not_expired, suite_name};
use crate::tls::clients::ClientCertificate;
use crate::tls::fingerprint::Transport;
use crate::tls::hello::{Refusal, Wish};
use crate::tls::quic::Shaken;
use crate::tls::tickets::Secret;
use crate::worker::Worker;

/// Which endpoint a datagram is for, and how it gets there. One for all workers.
///
/// Each endpoint has a number, its seat. At an upgrade the next process goes on counting where this one
/// ends, with the same key: what comes for a seat of this one is handed back to it.
pub struct Steering {
    /// Hides the seat in a connection ID, since an observer must not see that two of them belong
    /// together (RFC 9000, section 5.1), and lets nobody else make one.
    key: HeaderProtectionKey,
    /// Signs stateless resets (RFC 9000, section 10.3).
    reset: Arc<hmac::Key>,
    /// Taken when an endpoint starts, and for a datagram that came to the wrong one.
    inboxes: Mutex<HashMap<(SocketAddr, u16), mpsc::Sender<Datagram>>>,
    next_seat: AtomicU16,
    /// Whether another process reads our sockets.
    is_deaf: AtomicBool,
    /// To the process before, which has connections left.
    before: Option<UnixDatagram>,
}

/// A datagram that came to another endpoint's socket.
struct Datagram {
    bytes: Box<[u8]>,
    from: SocketAddr,
    to: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
}

impl Steering {
    /// Steering with a key of this process and those that take over from it; seats begin at
    /// `first_seat`. What belongs to others goes to the process `before`.
    ///
    /// # Errors
    /// When the key cannot be used.
    pub fn new(
        secret: &Secret,
        first_seat: u16,
        before: Option<UnixDatagram>,
    ) -> io::Result<Arc<Self>> {
        if let Some(before) = &before {
            before.set_nonblocking(true)?;
        }
        let key = HeaderProtectionKey::new(&AES_256, secret.derive(&[b"steering"]).bytes());
        let reset = hmac::Key::new(hmac::HMAC_SHA256, secret.derive(&[b"reset"]).bytes());
        Ok(Arc::new(Self {
            key: key.map_err(|_| io::Error::other("no key for connection IDs"))?,
            reset: Arc::new(reset),
            inboxes: Mutex::default(),
            next_seat: first_seat.into(),
            is_deaf: false.into(),
            before,
        }))
    }

    /// The seat after the last one.
    pub fn next_seat(&self) -> u16 {
        self.next_seat.load(Ordering::Relaxed)
    }

    /// Whether the sockets are read by the process that takes over, and we get what it hands back.
    pub fn deafen(&self, is_deaf: bool) {
        self.is_deaf.store(is_deaf, Ordering::SeqCst);
        // An empty datagram wakes who waits for an inbox alone.
        let inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        for inbox in inboxes.values() {
            let from = SocketAddr::from(([0; 4], 0));
            let _ = inbox.try_send(Datagram { bytes: Box::default(), from, to: None, ecn: None });
        }
    }

    /// A new connection ID of this seat.
    fn connection_id(&self, seat: u16) -> [u8; ID_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        // Without randomness it is an ID that a connection has already, which quinn sees.
        let _ = rand::fill(&mut nonce);
        let [m, n, check @ ..] = self.mask(nonce);
        let [high, low] = seat.to_be_bytes();
        let mut id = [0; ID_BYTES];
        let parts = [high ^ m, low ^ n].into_iter().chain(check).chain(nonce);
        id.iter_mut().zip(parts).for_each(|(place, byte)| *place = byte);
        id
    }

    fn mask(&self, nonce: [u8; NONCE_BYTES]) -> [u8; 5] {
        let mut sample = [0; 16];
        sample.iter_mut().zip(nonce).for_each(|(place, byte)| *place = byte);
        #[expect(clippy::expect_used, reason = "the sample of AES has 16 bytes")]
        self.key.new_mask(&sample).expect("a sample of 16 bytes")
    }

    /// The seat whose connection a datagram belongs to; none while the client has not yet been given
    /// a connection ID.
    fn seat(&self, datagram: &[u8]) -> Option<u16> {
        let first = *datagram.first()?;
        let is_long = first & 0x80 != 0;
        let id = if is_long {
            // Version 0 is no packet of a connection. A first packet carries an ID of the client's
            // choice (RFC 9000, section 7.2), later ones of all kinds ours; the check tells.
            let has_version = datagram.get(1..5)? != [0; 4];
            let length = usize::from(*datagram.get(5)?);
            if !has_version || length != ID_BYTES {
                return None;
            }
            datagram.get(6..6 + ID_BYTES)?
        } else {
            datagram.get(1..1 + ID_BYTES)?
        };
        let [high, low, a, b, c, nonce @ ..] = <[u8; ID_BYTES]>::try_from(id).ok()?;
        let [m, n, check @ ..] = self.mask(nonce);
        ([a, b, c] == check).then(|| u16::from_be_bytes([high ^ m, low ^ n]))
    }

    fn open(&self, address: SocketAddr, seat: u16) -> mpsc::Receiver<Datagram> {
        let (sender, receiver) = mpsc::channel(INBOX_DATAGRAMS);
        let mut inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        inboxes.insert((address, seat), sender);
        receiver
    }

    fn inbox(&self, address: SocketAddr, seat: u16) -> Option<mpsc::Sender<Datagram>> {
        let inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        inboxes.get(&(address, seat)).cloned()
    }

    /// Hands a datagram to the seat that it is for, here or in the process before. Gives it back when
    /// there is no such seat.
    fn deliver(&self, address: SocketAddr, seat: u16, datagram: Datagram) -> Result<(), Datagram> {
        if let Some(inbox) = self.inbox(address, seat) {
            // A full inbox loses it, as a full socket would.
            let _ = inbox.try_send(datagram);
            return Ok(());
        }
        let Some(before) = &self.before else { return Err(datagram) };
        match before.send(&relay::encode(address, &datagram)) {
            Err(cause) if cause.kind() != io::ErrorKind::WouldBlock => Err(datagram),
            _ => Ok(()),
        }
    }

    /// Takes back what the process that took over gets for us, until it ends.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub async fn take_back(self: Arc<Self>, from_next: UnixDatagram) -> io::Result<()> {
        from_next.set_nonblocking(true)?;
        let from_next = tokio::net::UnixDatagram::from_std(from_next)?;
        let mut buffer = vec![0; RELAYED_BYTES_MAX];
        loop {
            let length = from_next.recv(&mut buffer).await?;
            let bytes = buffer.get(..length).unwrap_or_default();
            let Some((address, datagram)) = relay::decode(bytes) else { continue };
            if let Some(seat) = self.seat(&datagram.bytes) {
                let _ = self.deliver(address, seat, datagram);
            }
        }
    }
}

/// How datagrams go from one process to another.
mod relay {
    use super::{Datagram, EcnCodepoint, IpAddr, SocketAddr};

    /// The address of the door, what is known of the datagram, and its bytes.
    pub(super) fn encode(door: SocketAddr, datagram: &Datagram) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + datagram.bytes.len());
        for (ip, port) in [
            (Some(door.ip()), door.port()),
            (Some(datagram.from.ip()), datagram.from.port()),
            (datagram.to, 0),
        ] {
            let (kind, ip) = match ip {
                None => (0, [0; 16]),
                Some(IpAddr::V4(ip)) => (4, ip.to_ipv6_mapped().octets()),
                Some(IpAddr::V6(ip)) => (6, ip.octets()),
            };
            bytes.push(kind);
            bytes.extend(ip);
            bytes.extend(port.to_be_bytes());
        }
        bytes.push(datagram.ecn.map_or(0, |ecn| ecn as u8));
        bytes.extend(&datagram.bytes);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<(SocketAddr, Datagram)> {
        let (door, bytes) = address(bytes)?;
        let (from, bytes) = address(bytes)?;
        let (to, bytes) = address(bytes)?;
        let (ecn, bytes) = bytes.split_first()?;
        let (to, ecn) = (to.map(|to| to.ip()), EcnCodepoint::from_bits(*ecn));
        Some((door?, Datagram { bytes: bytes.into(), from: from?, to, ecn }))
    }

    fn address(bytes: &[u8]) -> Option<(Option<SocketAddr>, &[u8])> {
        let (kind, bytes) = bytes.split_first()?;
        let (ip, bytes) = bytes.split_first_chunk::<16>()?;
        let (port, bytes) = bytes.split_first_chunk::<2>()?;
        let ip = match kind {
            0 => return Some((None, bytes)),
            4 => IpAddr::from(*ip).to_canonical(),
            _ => IpAddr::from(*ip),
        };
        Some((Some(SocketAddr::new(ip, u16::from_be_bytes(*port))), bytes))
    }
}

/// Makes connection IDs of one seat.
struct Ids {
    steering: Arc<Steering>,
    seat: u16,
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.steering.connection_id(self.seat))
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// An endpoint's socket: what came for another seat is handed over, and what others hand over comes
/// out of it.
struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    address: SocketAddr,
    seat: u16,
    steering: Arc<Steering>,
    /// Polled by the one task that drives the endpoint.
    inbox: Mutex<mpsc::Receiver<Datagram>>,
}

impl Socket {
    fn is_ours(&self, datagram: &[u8]) -> bool {
        self.steering.seat(datagram).is_none_or(|seat| seat == self.seat)
    }

    /// Hands over what is not ours of a buffer that may hold several datagrams of one length, and
    /// closes the gaps. Returns how many bytes are left.
    fn sort(&self, buffer: &mut [u8], meta: &RecvMeta) -> usize {
        let stride = meta.stride.max(1);
        let (mut from, mut to) = (0, 0);
        while from < meta.len {
            let end = (from + stride).min(meta.len);
            let Some(datagram) = buffer.get(from..end) else { break };
            let seat = self.steering.seat(datagram).filter(|seat| *seat != self.seat);
            let is_elsewhere = seat.is_some_and(|seat| {
                let (bytes, from, to) = (datagram.into(), meta.addr, meta.dst_ip);
                let datagram = Datagram { bytes, from, to, ecn: meta.ecn };
                self.steering.deliver(self.address, seat, datagram).is_ok()
            });
            if !is_elsewhere {
                buffer.copy_within(from..end, to);
                to += end - from;
            }
            from = end;
        }
        to
    }

    fn poll_inbox(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<Option<usize>> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            let datagram = match inbox.poll_recv(cx) {
                Poll::Ready(Some(datagram)) => datagram,
                Poll::Ready(None) => return Poll::Ready(Some(count).filter(|count| *count > 0)),
                Poll::Pending if count == 0 => return Poll::Pending,
                Poll::Pending => break,
            };
            let length = datagram.bytes.len();
            let Some(place) = buffer.get_mut(..length) else { continue };
            place.copy_from_slice(&datagram.bytes);
            meta.addr = datagram.from;
            meta.len = length;
            meta.stride = length;
            meta.ecn = datagram.ecn;
            meta.dst_ip = datagram.to;
            count += 1;
        }
        Poll::Ready(Some(count))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Some(count)) = self.poll_inbox(cx, buffers, metas)
            && count > 0
        {
            return Poll::Ready(Ok(count));
        }
        if self.steering.is_deaf.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        let polled = self.inner.poll_recv(cx, buffers, metas);
        let Poll::Ready(Ok(count)) = polled else { return polled };
        for (buffer, meta) in buffers.iter_mut().zip(metas).take(count) {
            let whole = buffer.get(..meta.len).unwrap_or_default();
            let are_ours = whole.chunks(meta.stride.max(1)).all(|one| self.is_ours(one));
            if !are_ours {
                meta.len = self.sort(buffer, meta);
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("address", &self.address).finish_non_exhaustive()
    }
}

/// An endpoint on a socket of `address`.
///
/// # Errors
/// When the socket cannot be used.
pub fn endpoint(
    socket: UdpSocket,
    address: SocketAddr,
    steering: &Arc<Steering>,
) -> io::Result<Endpoint> {
    let runtime = Arc::new(TokioRuntime);
    let seat = steering.next_seat.fetch_add(1, Ordering::Relaxed);
    let inbox = Mutex::new(steering.open(address, seat));
    let inner = runtime.wrap_udp_socket(socket)?;
    let socket = Socket { inner, address, seat, steering: Arc::clone(steering), inbox };
    let reset: Arc<dyn HmacKey> = Arc::clone(&steering.reset) as _;
    let mut config = EndpointConfig::new(reset);
    let steering = Arc::clone(steering);
    config.cid_generator(move || Box::new(Ids { steering: Arc::clone(&steering), seat }));
    Endpoint::new_with_abstract_socket(config, None, Arc::new(socket), runtime)
}

/// Accepts connections while `is_open`, and ends with the last of them after that.
pub async fn accept(
    endpoint: Endpoint,
    worker: Rc<Worker>,
    open: Arc<AtomicUsize>,
    mut is_open: watch::Receiver<bool>,
    drain: watch::Receiver<bool>,
) {
    let port = endpoint.local_addr().map_or(0, |address| address.port());
    let mut terms = Terms::new(&worker, port);
    endpoint.set_server_config(Some((*terms.config).clone()));
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = until(&mut is_open, false) => {
                // What was said last must leave the socket before it goes.
                let _place = worker.open.place(None, "QUIC");
                tokio::select! {
                    () = endpoint.wait_idle() => return,
                    () = refuse(&endpoint) => return,
                    () = until(&mut is_open, true) => {}
                }
                continue;
            }
        };
        let Some(incoming) = incoming else { return };
        let generation = worker.view().generation.id;
        if terms.generation != generation {
            terms = Terms::new(&worker, port);
        }
        if open.load(Ordering::Relaxed) >= terms.limits.connections_max {
            worker.notices.note(Reason::Connections, Some(incoming.remote_address().ip()));
            incoming.refuse();
            continue;
        }
        // Nobody has shown yet that the client's address is its own. While few ask, they are
        // believed; a flood of them has to come back with a token (RFC 9000, section 8.1.2).
        if terms.unproven.get() >= UNPROVEN_MAX && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        Counters::add(&worker.counters.connections, 1);
        let place = Place::take(&worker, &open, canonical(incoming.remote_address()));
        let task = greet(incoming, Rc::clone(&worker), terms.clone(), drain.clone(), place);
        tokio::task::spawn_local(task);
    }
}

/// Refuses whoever comes, so that clients turn to TCP at once instead of waiting for an answer.
async fn refuse(endpoint: &Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        incoming.refuse();
    }
}

/// Waits until the door is open or not. Nobody opens it again once its sender is gone.
async fn until(is_open: &mut watch::Receiver<bool>, state: bool) {
    if is_open.wait_for(|is_open| *is_open == state).await.is_err() && state {
        std::future::pending::<()>().await;
    }
}

/// What new connections are served by.
#[derive(Clone)]
struct Terms {
    generation: u64,
    port: u16,
    limits: Limits,
    config: Arc<quinn::ServerConfig>,
    /// Whether a plugin is asked about each ClientHello.
    is_asked_about: bool,
    /// Handshakes under way on this endpoint.
    unproven: Rc<std::cell::Cell<usize>>,
}

impl Terms {
    fn new(worker: &Worker, port: u16) -> Self {
        let generation = Arc::clone(&worker.view().generation);
        let limits = super::within_descriptors(generation.config.limits.clone());
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(limits.streams_max.into())
            .max_concurrent_uni_streams(UNI_STREAMS.into())
            .stream_receive_window(STREAM_WINDOW_BYTES.into())
            .receive_window(CONNECTION_WINDOW_BYTES.into())
            .send_window(CONNECTION_WINDOW_BYTES.into())
            .datagram_receive_buffer_size(None)
            // A client that is gone is noticed by this; one without a request is sent away by
            // `limits.keepalive`.
            .max_idle_timeout(Some(VarInt::from_u32(IDLE_MS).into()))
            .keep_alive_interval(Some(Duration::from_millis(u64::from(IDLE_MS) / 3)));
        let fronts = Arc::clone(&generation.fronts);
        let find = move |name: Option<&str>, _: &[u8]| Wish::Site(fronts.find(name, None));
        let crypto = worker.acceptor.quic(Arc::new(find));
        let mut config = quinn::ServerConfig::new(crypto, worker.acceptor.quic_tokens());
        config.transport_config(Arc::new(transport));
        Self {
            generation: generation.id,
            port,
            limits,
            is_asked_about: generation.client_hello.is_some(),
            config: Arc::new(config),
            unproven: Rc::default(),
        }
    }
}

async fn greet(
    incoming: Incoming,
    worker: Rc<Worker>,
    terms: Terms,
    drain: watch::Receiver<bool>,
    place: Place,
) {
    let client = canonical(incoming.remote_address());
    let shaken = {
        let _unproven = Unproven::count(&terms.unproven);
        let config = match terms.is_asked_about {
            true => {
                let local = incoming.local_ip().unwrap_or_else(|| unspecified(client.ip()));
                let local = canonical(SocketAddr::new(local, terms.port));
                Arc::new(asking(&worker, &terms, client, local))
            }
            false => Arc::clone(&terms.config),
        };
        match incoming.accept_with(config) {
            Ok(connecting) => tokio::time::timeout(terms.limits.handshake, connecting).await,
            Err(cause) => Ok(Err(cause)),
        }
    };
    match shaken {
        Ok(Ok(quic)) => {
            // Only now it is known that the address is the client's own.
            let Some(_of_address) = place_of_address(&worker, client.ip(), &terms.limits) else {
                return;
            };
            let facts = facts(&quic);
            if let Err(cause) = has_not_expired(&facts) {
                Counters::add(&worker.counters.handshakes_failed, 1);
                tracing::debug!(client = %client.ip(), %cause, "handshake refused");
                return;
            }
            let local = quic.local_ip().unwrap_or_else(|| unspecified(client.ip()));
            let local = canonical(SocketAddr::new(local, terms.port));
            let caller = Caller { client, local, via: None };
            place.of_worker.tell(client, "HTTP/3", facts.server_name.clone());
            let connection = connection_of(&worker, caller, Some(facts), None);
            h3::connection(quic, connection, terms.limits, drain).await;
        }
        Ok(Err(cause)) => {
            Counters::add(&worker.counters.handshakes_failed, 1);
            tracing::debug!(client = %client.ip(), %cause, "handshake refused");
        }
        Err(_) => {
            Counters::add(&worker.counters.handshakes_failed, 1);
            tracing::debug!(client = %client.ip(), "handshake not finished in time");
        }
    }
}

/// What one connection is served by where a plugin is asked about its ClientHello: the question says
/// whose it is. quinn wants to be able to carry it to other threads, which it never does, since all of
/// a worker's connections are driven on its own; so the worker is not in it, but found there.
fn asking(
    worker: &Worker,
    terms: &Terms,
    client: SocketAddr,
    local: SocketAddr,
) -> quinn::ServerConfig {
    let sender = Sender { transport: Transport::Quic, client, local, via: None };
    let find = move |name: Option<&str>, message: &[u8]| match Worker::here() {
        Some(worker) => hello::wish(&worker, &sender, name, || message.to_vec()),
        None => Wish::Refuse(Refusal::PluginFailed),
    };
    let mut config = (*terms.config).clone();
    config.crypto = worker.acceptor.quic(Arc::new(find));
    config
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn facts(quic: &quinn::Connection) -> TlsFacts {
    let data = quic.handshake_data();
    let data = data.and_then(|data| data.downcast::<Shaken>().ok());
    let (server_name, demand, ja4, agreed) = match data {
        Some(data) => (data.server_name, data.demand, data.ja4, data.agreed),
        None => (None, None, None, None),
    };
    let chain = quic.peer_identity();
    let chain = chain.and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let client = chain.and_then(|chain| ClientCertificate::of(&chain));
    TlsFacts {
        server_name: server_name.map(String::into_boxed_str),
        version: "TLSv1.3",
        cipher_suite: agreed.map_or("", |agreed| suite_name(agreed.suite.into())),
        group: agreed.and_then(|agreed| agreed.group).map(|group| group_name(group.into())),
        alpn: Some("h3"),
        is_h2: false,
        is_resumed: agreed.is_some_and(|agreed| agreed.is_resumed),
        ja4: ja4.map(String::into_boxed_str),
        demand,
        client: client.map(Arc::new),
    }
}

/// One handshake under way.
struct Unproven(Rc<std::cell::Cell<usize>>);

impl Unproven {
    fn count(count: &Rc<std::cell::Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Unproven {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Two bytes for the seat, three that show that the ID is ours, the rest of chance.
const ID_BYTES: usize = 5 + NONCE_BYTES;
const NONCE_BYTES: usize = 7;
/// The largest datagram, and what is said about it.
const RELAYED_BYTES_MAX: usize = 66 * 1024;
const INBOX_DATAGRAMS: usize = 1024;
/// Handshakes of one endpoint that may be under way before a client has to prove its address.
const UNPROVEN_MAX: usize = 256;
/// Control, two of QPACK, and some of no use (RFC 9114, section 6.2).
const UNI_STREAMS: u32 = 8;
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
const IDLE_MS: u32 = 30_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// A datagram of this first byte that carries `id`.
    fn datagram(first: u8, id: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        if first & 0x80 != 0 {
            bytes.extend([0, 0, 0, 1, id.len() as u8]);
        }
        bytes.extend(id);
        bytes.extend([0; 20]);
        bytes
    }

    fn steering(first_seat: u16, before: Option<UnixDatagram>) -> Arc<Steering> {
        let secret = Secret::from_bytes(&[7; 32]).unwrap();
        Steering::new(&secret, first_seat, before).unwrap()
    }

    #[test]
    fn a_connection_id_leads_to_its_seat() {
        let steering = steering(0, None);
        for seat in [0, 1, 7, 4095] {
            let id = steering.connection_id(seat);
            for first in [0x40, 0xe0, 0xc0, 0xd0] {
                assert_eq!(steering.seat(&datagram(first, &id)), Some(seat), "{first:x}");
            }
            assert_eq!(steering.seat(&datagram(0xe0, &id[..8])), None, "another's ID");
            let mut clients = id;
            clients[11] ^= 1;
            assert_eq!(steering.seat(&datagram(0xc0, &clients)), None, "of a client's choice");
        }
        for short in [&[][..], &[0x40], &[0xe0, 0, 0, 0, 1, 12, 0], &[0x40, 1, 2, 3]] {
            assert_eq!(steering.seat(short), None);
        }
    }

    #[test]
    fn connection_ids_of_one_seat_do_not_look_alike() {
        let steering = steering(0, None);
        let ids: std::collections::HashSet<[u8; 2]> = (0..64)
            .map(|_| {
                let [first, second, ..] = steering.connection_id(3);
                [first, second]
            })
            .collect();
        assert!(ids.len() > 50, "{} of 64 differ", ids.len());
    }

    #[tokio::test]
    async fn what_belongs_to_the_process_before_goes_back_to_it() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let before = steering(0, None);
        let next = steering(2, Some(ours));
        let door: SocketAddr = "127.0.0.1:443".parse().unwrap();
        let mut inbox = before.open(door, 1);
        let taking = tokio::spawn(Arc::clone(&before).take_back(theirs));
        let from = "[2001:db8::1]:5000".parse().unwrap();
        let bytes = datagram(0x40, &before.connection_id(1));
        assert_eq!(next.seat(&bytes), Some(1), "the key is the same");
        let make = || Datagram {
            bytes: bytes.clone().into(),
            from,
            to: Some("192.0.2.7".parse().unwrap()),
            ecn: Some(EcnCodepoint::Ect0),
        };
        assert!(next.deliver(door, 1, make()).is_ok());
        let got = inbox.recv().await.unwrap();
        assert_eq!(
            (&got.bytes[..], got.from, got.ecn),
            (&bytes[..], from, Some(EcnCodepoint::Ect0))
        );
        assert_eq!(got.to, Some("192.0.2.7".parse().unwrap()));
        taking.abort();
        assert!(taking.await.unwrap_err().is_cancelled());
        assert!(next.deliver(door, 1, make()).is_err(), "it has ended");
        assert!(before.deliver(door, 5, make()).is_err(), "there is nobody");
    }

    #[tokio::test]
    async fn a_datagram_of_another_worker_is_handed_over() {
        let steering = steering(0, None);
        let address: SocketAddr = "127.0.0.1:443".parse().unwrap();
        let udp = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let sockets = [0, 1].map(|seat| Socket {
            inner: TokioRuntime.wrap_udp_socket(udp()).unwrap(),
            address,
            seat,
            steering: Arc::clone(&steering),
            inbox: Mutex::new(steering.open(address, seat)),
        });
        let [ours, theirs] = [0, 1].map(|seat| datagram(0x40, &steering.connection_id(seat)));
        let client = udp();
        let to = sockets[0].local_addr().unwrap();
        for bytes in [&ours, &theirs, &ours, &theirs] {
            client.send_to(bytes, to).unwrap();
        }
        // Two ours for worker 0, two handed to worker 1.
        for (socket, expected) in sockets.iter().zip([&ours, &theirs]) {
            let mut seen = 0;
            while seen < 2 {
                let mut storage = [[0u8; 2048]; 4];
                let mut buffers = storage.each_mut().map(|b| IoSliceMut::new(b));
                let mut metas = [RecvMeta::default(); 4];
                let received =
                    std::future::poll_fn(|cx| socket.poll_recv(cx, &mut buffers, &mut metas));
                let count = received.await.unwrap();
                for (buffer, meta) in buffers.iter().zip(&metas).take(count) {
                    for datagram in buffer[..meta.len].chunks(meta.stride) {
                        assert_eq!(datagram, &expected[..]);
                        assert_eq!(meta.addr, client.local_addr().unwrap());
                        seen += 1;
                    }
                }
            }
        }
    }
}
