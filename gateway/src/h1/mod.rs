//! HTTP/1.1 messages (RFC 9112), as bytes: heads and bodies are read strictly and written plainly. Used
//! towards clients by `http` and towards servers by `upstream`; knows neither. What two readers could
//! understand differently is refused, never repaired.

pub mod body;
pub mod chunk;
pub mod head;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A stream of bytes both ways, whatever carries it.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {
    /// Whether a read may bring something. `Pending` is said only where nothing has come, and the task is
    /// woken when something does: a look that costs a fraction of a read in vain.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }
}

impl Duplex for TcpStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(drop)
    }
}

impl Duplex for UnixStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(drop)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Duplex for tokio_rustls::client::TlsStream<IO> {}

/// What stands where a stream was taken away.
impl Duplex for tokio::io::Empty {}

/// For tests: both ends in one process.
impl Duplex for tokio::io::DuplexStream {}

/// A connection that has left HTTP: its stream, and what was already read of it.
pub struct Upgraded {
    /// The stream.
    pub stream: Box<dyn Duplex>,
    /// Bytes of the new protocol that came with the head.
    pub read: BytesMut,
}

/// Reads what there is into `input`. `Ready(Ok(0))` is the end of the stream.
///
/// Bytes land in a buffer of the thread first, so that a connection that waits holds none.
///
/// # Errors
/// As the stream has them.
pub fn poll_read<S>(
    stream: &mut S,
    input: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>>
where
    S: AsyncRead + Unpin + ?Sized,
{
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        match Pin::new(stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                input.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Poll::Ready(Err(cause)) => Poll::Ready(Err(cause)),
            Poll::Pending => Poll::Pending,
        }
    })
}

thread_local! {
    static SCRATCH: std::cell::RefCell<Vec<u8>> =
        std::cell::RefCell::new(vec![0; SCRATCH_BYTES]);
}

const SCRATCH_BYTES: usize = 16 * 1024;
