//! The client's stream inside TLS, over rustls without its buffers: records are opened and sealed in
//! buffers of the thread, so that a quiet connection holds none, a read takes what the socket has, and
//! a write is one system call.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::bounds::Share;
use crate::h1::Duplex;

/// A server's side of a TLS connection over `IO`.
pub struct TlsStream<IO> {
    io: IO,
    session: UnbufferedServerConnection,
    /// What was read and is not opened yet.
    input: Buffer,
    /// What was opened and is not taken yet.
    plain: Buffer,
    /// What is sealed and not written yet.
    out: Buffer,
    /// The client has said that nothing more comes.
    has_ended: bool,
    /// We have said so.
    is_closing: bool,
    /// What is sealed and waits for a client that does not read.
    share: Option<Share>,
}

/// What came of a look at the input.
enum Step {
    /// There may be more in it.
    Again,
    /// Something was opened.
    Opened,
    /// The client has ended its side.
    Ended,
    /// It holds no whole record.
    Short,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> TlsStream<IO> {
    /// Makes the handshake. `input` is what was read of it already.
    ///
    /// # Errors
    /// When the client breaks the protocol, does not agree, or goes away. The alert has then been sent.
    pub async fn accept(io: IO, input: Buffer, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(broken)?;
        let (plain, out) = (Buffer::default(), Buffer::default());
        let (has_ended, is_closing) = (false, false);
        let mut stream =
            Self { io, session, input, plain, out, has_ended, is_closing, share: None };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// Has what waits for the client counted from here on.
    pub fn counted(&mut self, share: Share) {
        self.share = Some(share);
    }

    /// What the handshake agreed upon.
    pub fn session(&self) -> &CommonState {
        &self.session
    }

    /// Ends with the tickets still to be written: they leave with the first response, or when there is
    /// nothing to read.
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.step(None) {
                Ok(Step::Again | Step::Opened) => {}
                Ok(Step::Ended) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(Step::Short) if !self.session.is_handshaking() => {
                    // In TLS 1.2 the last word is ours, and the client waits for it.
                    if self.session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
                        ready!(self.poll_drain(cx))?;
                    }
                    return Poll::Ready(Ok(()));
                }
                Ok(Step::Short) => {
                    ready!(self.poll_drain(cx))?;
                    if ready!(self.poll_fill(cx))? == 0 {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
                Err(cause) => return self.poll_fail(cause, cx),
            }
        }
    }

    /// Looks at the input once, and opens at most one record of data: into `taker`, as far as it goes.
    fn step(&mut self, mut taker: Option<&mut ReadBuf<'_>>) -> Result<Step, rustls::Error> {
        let UnbufferedStatus { discard, state } =
            self.session.process_tls_records(self.input.filled_mut());
        let state = match state {
            Ok(state) => state,
            Err(cause) => {
                self.input.take(discard);
                return Err(cause);
            }
        };
        let step = match state {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let mut rest = record?.payload;
                    if let Some(taker) = &mut taker {
                        let fits = rest.len().min(taker.remaining());
                        let (now, later) = rest.split_at(fits);
                        taker.put_slice(now);
                        rest = later;
                    }
                    self.plain.extend(rest);
                }
                Step::Opened
            }
            ConnectionState::EncodeTlsData(mut message) => {
                let mut room = MESSAGE_BYTES_USUAL;
                loop {
                    match message.encode(self.out.room(room)) {
                        Ok(bytes) => break self.out.fill(bytes),
                        Err(EncodeError::InsufficientSize(short)) => room = short.required_size,
                        Err(EncodeError::AlreadyEncoded) => break,
                    }
                }
                Step::Again
            }
            // All that is sealed goes out in its order.
            ConnectionState::TransmitTlsData(message) => {
                message.done();
                Step::Again
            }
            ConnectionState::PeerClosed | ConnectionState::Closed => {
                self.has_ended = true;
                Step::Ended
            }
            // Early data is never accepted; a state that is not known cannot go on.
            ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake => Step::Short,
            _ => return Err(rustls::Error::General("an unexpected state of TLS".into())),
        };
        self.input.take(discard);
        Ok(step)
    }

    /// Tells the client why, as far as it takes it.
    fn poll_fail<T>(&mut self, cause: rustls::Error, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        // The alert lies ready; after it comes the error again.
        while let Ok(Step::Again) = self.step(None) {}
        let _ = self.poll_drain(cx);
        Poll::Ready(Err(broken(cause)))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.poll_fill(&mut self.io, cx)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.poll_write_out(cx);
        if let Some(share) = &self.share {
            share.set(self.out.filled().len());
        }
        polled
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let bytes = ready!(Pin::new(&mut self.io).poll_write(cx, self.out.filled()))?;
            if bytes == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.take(bytes);
        }
        Poll::Ready(Ok(()))
    }

    /// Brings everything that came to where it belongs, so that data or the end can be sealed.
    fn settle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.step(None) {
                Ok(Step::Short) => return Poll::Ready(Ok(())),
                Ok(_) => {}
                Err(cause) => return self.poll_fail(cause, cx),
            }
        }
    }

    /// Seals as much of `bytes` as one write takes; the rest of the way is the caller's to ask for.
    fn poll_seal(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // What is left of the handshake goes along.
        if self.out.filled().len() > MESSAGE_BYTES_USUAL {
            ready!(self.poll_drain(cx))?;
        }
        // Mostly nothing came in the meantime, and the next look says that there may be written.
        if !self.input.is_empty() || self.session.wants_write() {
            ready!(self.settle(cx))?;
        }
        let (bytes, _) = bytes.split_at(bytes.len().min(SEAL_BYTES_MAX));
        let UnbufferedStatus { discard, state } =
            self.session.process_tls_records(self.input.filled_mut());
        let sealed = match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let room = self.out.room(bytes.len() + SEAL_OVERHEAD_BYTES);
                traffic.encrypt(bytes, room).map_err(broken_pipe)
            }
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        };
        self.input.take(discard);
        self.out.fill(sealed?);
        match self.poll_drain(cx) {
            Poll::Ready(Err(cause)) => Poll::Ready(Err(cause)),
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if !self.plain.is_empty() {
            let fits = self.plain.filled().len().min(buffer.remaining());
            buffer.put_slice(self.plain.filled().split_at(fits).0);
            self.plain.take(fits);
            return Poll::Ready(Ok(()));
        }
        while !self.has_ended {
            match self.step(Some(buffer)) {
                Ok(Step::Opened) if buffer.filled().len() > before => return Poll::Ready(Ok(())),
                Ok(Step::Again | Step::Opened) => {}
                Ok(Step::Ended) => break,
                Ok(Step::Short) => match self.poll_fill(cx)? {
                    Poll::Ready(0) => {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    Poll::Ready(_) => {}
                    Poll::Pending => {
                        // Nobody may write for a while: what was left to be sent goes now.
                        if let Poll::Ready(Err(cause)) = self.poll_drain(cx) {
                            return Poll::Ready(Err(cause));
                        }
                        return Poll::Pending;
                    }
                },
                Err(cause) => return self.poll_fail(cause, cx),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: Duplex> Duplex for TlsStream<IO> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_quiet = self.plain.is_empty() && self.input.is_empty() && !self.has_ended;
        // What lies ready to be sent leaves with a read.
        if is_quiet && self.out.is_empty() { self.io.poll_readable(cx) } else { Poll::Ready(()) }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_seal(cx, bytes)
    }

    /// A head and what follows it share a record.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut parts = slices.iter().filter(|slice| !slice.is_empty());
        let first: &[u8] = parts.next().map_or(&[], |slice| slice);
        if first.len() >= RECORD_BYTES || parts.next().is_none() {
            return self.poll_seal(cx, first);
        }
        let mut gathered = Buffer::default();
        for slice in slices {
            let fits = slice.len().min(RECORD_BYTES - gathered.filled().len());
            gathered.extend(slice.split_at(fits).0);
        }
        let polled = self.poll_seal(cx, gathered.filled());
        gathered.give_back();
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_closing {
            ready!(self.settle(cx))?;
            let stream = &mut *self;
            let UnbufferedStatus { discard, state } =
                stream.session.process_tls_records(stream.input.filled_mut());
            if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
                let room = stream.out.room(SEAL_OVERHEAD_BYTES);
                let sealed = traffic.queue_close_notify(room).map_err(broken_pipe);
                stream.input.take(discard);
                stream.out.fill(sealed?);
            }
            stream.is_closing = true;
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Bytes that come in at the end and go out at the front, in memory of the thread's stock, which it has
/// only while it is not empty.
#[derive(Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// What is in it.
    pub fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Reads what there is into it; 0 is the end. It holds no more than it must over a wait.
    ///
    /// # Errors
    /// As the stream has them.
    pub fn poll_fill<IO: AsyncRead + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(self.room(READ_BYTES_MIN));
        let polled = Pin::new(io).poll_read(cx, &mut room);
        let bytes = room.filled().len();
        match polled {
            Poll::Ready(outcome) => {
                self.fill(bytes);
                if bytes == 0 {
                    self.shrink();
                }
                Poll::Ready(outcome.map(|()| bytes))
            }
            Poll::Pending => {
                self.shrink();
                Poll::Pending
            }
        }
    }

    /// Takes bytes out at the front.
    fn take(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
        if self.is_empty() {
            self.give_back();
        }
    }

    /// Room at the end, of at least this many bytes.
    fn room(&mut self, bytes_min: usize) -> &mut [u8] {
        if self.bytes.len() - self.end < bytes_min {
            let filled = self.end - self.start;
            if self.bytes.len() >= filled + bytes_min {
                self.bytes.copy_within(self.start..self.end, 0);
            } else {
                let mut larger = STOCK.with_borrow_mut(Vec::pop).unwrap_or_default();
                larger.resize((filled + bytes_min).max(BUFFER_BYTES), 0);
                if let Some(place) = larger.get_mut(..filled) {
                    place.copy_from_slice(self.filled());
                }
                self.give_back();
                self.bytes = larger;
            }
            (self.start, self.end) = (0, filled);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Counts bytes of the room in.
    fn fill(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.bytes.len());
    }

    fn extend(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if let Some(room) = self.room(bytes.len()).get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
        }
        self.fill(bytes.len());
    }

    /// For a wait: keeps no more memory than what is in it.
    fn shrink(&mut self) {
        if self.is_empty() {
            self.give_back();
        } else if self.bytes.len() >= BUFFER_BYTES {
            let exact = self.filled().to_vec();
            self.give_back();
            self.end = exact.len();
            self.bytes = exact;
        }
    }

    fn give_back(&mut self) {
        (self.start, self.end) = (0, 0);
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.len() == BUFFER_BYTES {
            STOCK.with_borrow_mut(|stock| {
                if stock.len() < STOCK_MAX {
                    stock.push(bytes);
                }
            });
        }
    }
}

thread_local! {
    static STOCK: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn broken(cause: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}

fn broken_pipe(cause: rustls::unbuffered::EncryptError) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, cause)
}

/// The most that one record carries (RFC 8446, section 5.1).
const RECORD_BYTES: usize = 16 * 1024;
/// Four records leave in one system call.
const SEAL_BYTES_MAX: usize = 4 * RECORD_BYTES;
/// What records and a key update add to that.
const SEAL_OVERHEAD_BYTES: usize = 512;
const BUFFER_BYTES: usize = SEAL_BYTES_MAX + SEAL_OVERHEAD_BYTES + MESSAGE_BYTES_USUAL;
/// The rest of a record, in most cases.
const READ_BYTES_MIN: usize = RECORD_BYTES + SEAL_OVERHEAD_BYTES;
const MESSAGE_BYTES_USUAL: usize = 4 * 1024;
/// Buffers that a thread keeps for the next who needs one.
const STOCK_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use rustls::ClientConfig;
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio_rustls::{TlsConnector, client};

    use super::*;
    use crate::tls::certs::Origin;
    use crate::tls::certs::tests::certificate;

    /// Both ends of a connection over a pipe that takes so many bytes at once.
    async fn pair(
        pipe_bytes: usize,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> (TlsStream<DuplexStream>, client::TlsStream<DuplexStream>) {
        let own = certificate(&["a.example"], Origin::File);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(own.key.cert[0].clone()).unwrap();
        let client = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from((*own.key).clone())));
        let (near, far) = tokio::io::duplex(pipe_bytes);
        let name = ServerName::try_from("a.example").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let (server, client) = tokio::join!(
            TlsStream::accept(far, Buffer::default(), Arc::new(server)),
            connector.connect(name, near)
        );
        (server.unwrap(), client.unwrap())
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn much_goes_both_ways_through_narrow_pipes() {
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            for pipe_bytes in [7, 1000, 64 * 1024] {
                let (mut server, mut client) = pair(pipe_bytes, version).await;
                let sent = bytes(300_000);
                let server = async {
                    let mut got = vec![0; sent.len()];
                    server.read_exact(&mut got).await.unwrap();
                    assert!(got == sent);
                    server.write_all(&got).await.unwrap();
                    server.shutdown().await.unwrap();
                    assert_eq!(server.read(&mut got).await.unwrap(), 0);
                };
                let client = async {
                    client.write_all(&sent).await.unwrap();
                    client.flush().await.unwrap();
                    let mut got = Vec::new();
                    client.read_to_end(&mut got).await.unwrap();
                    assert!(got == sent);
                    client.shutdown().await.unwrap();
                };
                tokio::join!(server, client);
            }
        }
    }

    #[tokio::test]
    async fn a_head_and_its_body_share_a_record() {
        let (mut server, mut client) = pair(64 * 1024, &rustls::version::TLS13).await;
        let slices = [IoSlice::new(b"head"), IoSlice::new(b""), IoSlice::new(b"body")];
        assert_eq!(server.write_vectored(&slices).await.unwrap(), 8);
        server.flush().await.unwrap();
        let mut got = [0; 100];
        assert_eq!(client.read(&mut got).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn keys_that_the_client_renews_are_followed() {
        let (mut server, mut client) = pair(1000, &rustls::version::TLS13).await;
        for _ in 0..3 {
            client.get_mut().1.refresh_traffic_keys().unwrap();
            let (sent, got) = tokio::join!(
                async {
                    client.write_all(b"ping").await.unwrap();
                    client.flush().await.unwrap();
                    let mut got = [0; 4];
                    client.read_exact(&mut got).await.unwrap();
                    got
                },
                async {
                    let mut got = [0; 4];
                    server.read_exact(&mut got).await.unwrap();
                    server.write_all(b"pong").await.unwrap();
                    server.flush().await.unwrap();
                    got
                }
            );
            assert_eq!((&sent, &got), (b"pong", b"ping"));
        }
    }

    #[tokio::test]
    async fn only_a_close_notify_is_an_end() {
        let (mut server, client) = pair(64 * 1024, &rustls::version::TLS13).await;
        let (io, _) = client.into_inner();
        drop(io);
        let cause = server.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(cause.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn what_was_changed_on_the_way_is_refused_with_an_alert() {
        let (mut server, client) = pair(64 * 1024, &rustls::version::TLS13).await;
        let (mut io, mut session) = client.into_inner();
        // The record is none of this connection.
        io.write_all(&[
            23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
        ])
        .await
        .unwrap();
        let cause = server.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(cause.kind(), io::ErrorKind::InvalidData);
        drop(server);
        let mut alert = Vec::new();
        io.read_to_end(&mut alert).await.unwrap();
        session.read_tls(&mut &alert[..]).unwrap();
        let refused = session.process_new_packets().unwrap_err();
        assert_eq!(refused, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
    }

    #[tokio::test]
    async fn a_quiet_connection_holds_no_buffer() {
        let (mut server, mut client) = pair(64 * 1024, &rustls::version::TLS13).await;
        client.write_all(&bytes(100)).await.unwrap();
        client.flush().await.unwrap();
        server.read_exact(&mut [0; 100]).await.unwrap();
        server.write_all(&bytes(100_000)).await.ok();
        let mut got = vec![0; 100_000];
        tokio::join!(async { server.flush().await.unwrap() }, async {
            client.read_exact(&mut got).await.map(drop).unwrap()
        });
        let waiting = std::future::poll_fn(|cx| {
            let mut room = [0; 10];
            let mut room = ReadBuf::new(&mut room);
            Poll::Ready(Pin::new(&mut server).poll_read(cx, &mut room).is_pending())
        });
        assert!(waiting.await);
        for buffer in [&server.input, &server.plain, &server.out] {
            assert_eq!(buffer.bytes.capacity(), 0);
        }
    }
}
