//! quinn's streams as h3 wants to see them, each behind its [`Gate`]. h3 has no say in how a stream
//! ends when it is dropped; here one that was not finished is reset, so that a client never takes
//! half a response for a whole one.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use super::gate::{Allowance, Gate, Violation};

/// A connection.
pub struct Quic {
    connection: quinn::Connection,
    head_bytes_max: usize,
    allowance: Rc<Allowance>,
    last: Rc<RefCell<Option<Rc<Fate>>>>,
    bidi: Option<Pending<(quinn::SendStream, quinn::RecvStream)>>,
    uni: Option<Pending<quinn::RecvStream>>,
    opener: Opener,
}

type Pending<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>> + Send>>;

/// How a request's stream ends. Shared by its two directions and by who serves it.
pub struct Fate {
    /// The code to reset it with when it is dropped; none lets it end in order.
    code: Cell<Option<u64>>,
    /// Whether its response was finished.
    is_finished: Cell<bool>,
    /// Resolves when the client stops the response, or has all of it, or is gone.
    stopped: RefCell<Option<Stopped>>,
}

/// Resolves to true when the client does not want the response any more.
pub type Stopped = Pin<Box<dyn Future<Output = bool>>>;

impl Fate {
    /// From now on a stream that is dropped unfinished is reset with this code.
    pub fn or_else(&self, code: Code) {
        self.code.set(Some(code.value()));
    }

    /// Resolves when the client stops the response (true), or has all of it (false).
    pub fn stopped(&self) -> Option<Stopped> {
        self.stopped.borrow_mut().take()
    }
}

impl Quic {
    /// Prepares a connection for h3. Heads of requests may have `head_bytes_max` bytes.
    pub fn new(connection: quinn::Connection, head_bytes_max: usize) -> Self {
        Self {
            opener: Opener { connection: connection.clone(), opening: None },
            connection,
            head_bytes_max,
            allowance: Allowance::new(),
            last: Rc::default(),
            bidi: None,
            uni: None,
        }
    }

    /// Where the fate of the request's stream that was accepted last is found.
    pub fn last(&self) -> Rc<RefCell<Option<Rc<Fate>>>> {
        Rc::clone(&self.last)
    }

    fn reader(&self, stream: quinn::RecvStream, gate: Gate, fate: Option<Rc<Fate>>) -> Reader {
        Reader { connection: self.connection.clone(), stream, gate, fate, has_ended: false }
    }

    fn writer(stream: quinn::SendStream, fate: Option<Rc<Fate>>) -> Writer {
        Writer { stream, writing: None, fate }
    }
}

impl quic::Connection<Bytes> for Quic {
    type RecvStream = Reader;
    type OpenStreams = Opener;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Reader, ConnectionErrorIncoming>> {
        let connection = &self.connection;
        let accept = self.uni.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.accept_uni().await })
        });
        let accepted = ready!(accept.as_mut().poll(cx));
        self.uni = None;
        let stream = accepted.map_err(of_connection)?;
        let gate = Gate::one_way(Rc::clone(&self.allowance));
        Poll::Ready(Ok(self.reader(stream, gate, None)))
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Both, ConnectionErrorIncoming>> {
        let connection = &self.connection;
        let accept = self.bidi.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.accept_bi().await })
        });
        let accepted = ready!(accept.as_mut().poll(cx));
        self.bidi = None;
        let (send, receive) = accepted.map_err(of_connection)?;
        self.allowance.grow();
        let stopped = send.stopped();
        let fate = Rc::new(Fate {
            code: Cell::new(None),
            is_finished: Cell::new(false),
            stopped: RefCell::new(Some(Box::pin(
                async move { !matches!(stopped.await, Ok(None)) },
            ))),
        });
        *self.last.borrow_mut() = Some(Rc::clone(&fate));
        let gate = Gate::request(self.head_bytes_max);
        let reader = self.reader(receive, gate, Some(Rc::clone(&fate)));
        Poll::Ready(Ok(Both { writer: Self::writer(send, Some(fate)), reader }))
    }

    fn opener(&self) -> Opener {
        Opener { connection: self.connection.clone(), opening: None }
    }
}

impl quic::OpenStreams<Bytes> for Quic {
    type BidiStream = Both;
    type SendStream = Writer;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Writer, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

/// Opens streams towards the client.
pub struct Opener {
    connection: quinn::Connection,
    opening: Option<Pending<quinn::SendStream>>,
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Both;
    type SendStream = Writer;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        Poll::Ready(Err(never()))
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Writer, StreamErrorIncoming>> {
        let connection = &self.connection;
        let open = self.opening.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.open_uni().await })
        });
        let opened = ready!(open.as_mut().poll(cx));
        self.opening = None;
        Poll::Ready(opened.map(|stream| Quic::writer(stream, None)).map_err(of_stream))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(varint(code.value()), reason);
    }
}

/// Both directions of a request's stream.
pub struct Both {
    writer: Writer,
    reader: Reader,
}

impl quic::BidiStream<Bytes> for Both {
    type SendStream = Writer;
    type RecvStream = Reader;

    fn split(self) -> (Writer, Reader) {
        (self.writer, self.reader)
    }
}

impl quic::RecvStream for Both {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.reader.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.reader.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.reader.recv_id()
    }
}

impl quic::SendStream<Bytes> for Both {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.writer.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.writer.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.writer.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.writer.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.writer.send_id()
    }
}

/// The direction from the client.
pub struct Reader {
    connection: quinn::Connection,
    stream: quinn::RecvStream,
    gate: Gate,
    fate: Option<Rc<Fate>>,
    has_ended: bool,
}

impl Reader {
    fn violation(&mut self, violation: Violation) -> StreamErrorIncoming {
        let Violation { code, is_fatal, why } = violation;
        tracing::debug!(client = %self.connection.remote_address().ip(), why, "refused over QUIC");
        if is_fatal {
            self.connection.close(varint(code), why.as_bytes());
            let connection_error = ConnectionErrorIncoming::ApplicationClose { error_code: code };
            return StreamErrorIncoming::ConnectionErrorIncoming { connection_error };
        }
        if let Some(fate) = &self.fate {
            fate.code.set(Some(code));
        }
        let _ = self.stream.stop(varint(code));
        self.has_ended = true;
        StreamErrorIncoming::StreamTerminated { error_code: code }
    }
}

impl quic::RecvStream for Reader {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            if let Some(bytes) = self.gate.pop() {
                return Poll::Ready(Ok(Some(bytes)));
            }
            if self.has_ended {
                return Poll::Ready(Ok(None));
            }
            let read = pin!(self.stream.read_chunk(CHUNK_BYTES, true)).poll(cx);
            match ready!(read) {
                Ok(Some(chunk)) => {
                    if let Err(violation) = self.gate.push(chunk.bytes) {
                        return Poll::Ready(Err(self.violation(violation)));
                    }
                }
                Ok(None) => self.has_ended = true,
                Err(error) => {
                    self.has_ended = true;
                    return Poll::Ready(Err(match error {
                        ReadError::Reset(code) => {
                            StreamErrorIncoming::StreamTerminated { error_code: code.into() }
                        }
                        ReadError::ConnectionLost(error) => of_stream(error),
                        other => StreamErrorIncoming::Unknown(Box::new(other)),
                    }));
                }
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        self.has_ended = true;
        let _ = self.stream.stop(varint(code));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.has_ended {
            // The response did not need the rest of the request (RFC 9114, section 4.1).
            let code = self.fate.as_ref().and_then(|fate| fate.code.get());
            let code = code.filter(|code| *code == Code::H3_REQUEST_REJECTED.value());
            let _ = self.stream.stop(varint(code.unwrap_or(Code::H3_NO_ERROR.value())));
        }
    }
}

/// The direction to the client.
pub struct Writer {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
    fate: Option<Rc<Fate>>,
}

impl quic::SendStream<Bytes> for Writer {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = self.writing.as_mut().filter(|data| data.has_remaining()) {
            let written = Pin::new(&mut self.stream).poll_write(cx, data.chunk());
            match ready!(written) {
                Ok(n) => data.advance(n),
                Err(error) => {
                    self.writing = None;
                    return Poll::Ready(Err(match error {
                        WriteError::Stopped(code) => {
                            StreamErrorIncoming::StreamTerminated { error_code: code.into() }
                        }
                        WriteError::ConnectionLost(error) => of_stream(error),
                        other => StreamErrorIncoming::Unknown(Box::new(other)),
                    }));
                }
            }
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            let text = "one piece is written before the next".to_owned();
            let connection_error = ConnectionErrorIncoming::InternalError(text);
            return Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error });
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let Some(fate) = &self.fate {
            fate.is_finished.set(true);
        }
        let finished = self.stream.finish();
        Poll::Ready(finished.map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, code: u64) {
        let _ = self.stream.reset(varint(code));
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(fate) = &self.fate
            && !fate.is_finished.get()
            && let Some(code) = fate.code.get()
        {
            let _ = self.stream.reset(varint(code));
        }
    }
}

fn of_stream(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: of_connection(error) }
}

fn of_connection(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

/// A server opens no stream of both directions (RFC 9114, section 6.1).
fn never() -> StreamErrorIncoming {
    let text = "a server opens no stream of both directions".to_owned();
    let connection_error = ConnectionErrorIncoming::InternalError(text);
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error }
}

#[expect(clippy::expect_used, reason = "quinn's ids are integers of 62 bits, as are h3's")]
fn stream_id(id: quinn::StreamId) -> StreamId {
    let id: u64 = VarInt::from(id).into();
    id.try_into().expect("an id of 62 bits")
}

fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

const CHUNK_BYTES: usize = 64 * 1024;
