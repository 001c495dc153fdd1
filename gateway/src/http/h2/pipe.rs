//! A stream that has left HTTP (RFC 8441): bytes both ways, as a stream that a tunnel can join.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::{ClientBody, Reset};
use crate::h1::Duplex;

/// What goes to the client, between the tunnel and the connection.
pub struct Pipe {
    state: RefCell<State>,
    /// Wakes the stream.
    stream: Waker,
}

struct State {
    bytes: BytesMut,
    writer: Option<Waker>,
    has_ended: bool,
    is_broken: bool,
}

/// The tunnel's end: reads what the client sends.
pub struct Tunnel {
    body: ClientBody,
    piece: Bytes,
    pipe: Rc<Pipe>,
}

impl Tunnel {
    /// Over a stream, which `stream` wakes; the pipe is the connection's end.
    pub fn new(body: ClientBody, stream: Waker) -> (Self, Rc<Pipe>) {
        let state = RefCell::new(State {
            bytes: BytesMut::new(),
            writer: None,
            has_ended: false,
            is_broken: false,
        });
        let pipe = Rc::new(Pipe { state, stream });
        (Self { body, piece: Bytes::new(), pipe: Rc::clone(&pipe) }, pipe)
    }
}

impl Pipe {
    /// What is there for the client; `Ready(None)` is the end, an error one before its time.
    pub fn poll(&self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Reset>>> {
        let state = &mut *self.state.borrow_mut();
        if !state.bytes.is_empty() {
            if let Some(writer) = state.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(std::mem::take(&mut state.bytes).freeze())));
        }
        if state.has_ended {
            return Poll::Ready(None);
        }
        // The tunnel wakes the stream itself.
        if state.is_broken { Poll::Ready(Some(Err(Reset))) } else { Poll::Pending }
    }

    /// The stream is over.
    pub fn close(&self) {
        let state = &mut *self.state.borrow_mut();
        state.is_broken = true;
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }
}

impl Duplex for Tunnel {}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.piece.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(cause)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, cause)));
                }
                Some(Ok(frame)) => this.piece = frame.into_data().unwrap_or_default(),
            }
        }
        let fits = this.piece.len().min(buffer.remaining());
        buffer.put_slice(this.piece.split_at(fits).0);
        this.piece.advance(fits);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.pipe.state.borrow_mut();
        if state.is_broken || state.has_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = PIPE_BYTES - state.bytes.len().min(PIPE_BYTES);
        if room == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let fits = bytes.len().min(room);
        state.bytes.extend_from_slice(bytes.split_at(fits).0);
        self.pipe.stream.wake_by_ref();
        Poll::Ready(Ok(fits))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.state.borrow_mut().has_ended = true;
        self.pipe.stream.wake_by_ref();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.pipe.state.borrow_mut().is_broken = true;
        self.pipe.stream.wake_by_ref();
    }
}

const PIPE_BYTES: usize = 64 * 1024;
