//! Bodies on the wire: [`Reader`] takes one off a connection, [`Writer`] puts head and body on one.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::chunk::{self, Decoder, Piece};
use super::head::{Framing, HeadError, strip_trailers, write_fields};
use super::poll_read;

/// Reads one body.
#[derive(Debug)]
pub struct Reader(State);

#[derive(Debug)]
enum State {
    Ended,
    Length(u64),
    Chunked(Decoder),
    Close,
}

/// Why a body could not be read to its end.
#[derive(Debug)]
pub enum Broken {
    /// The connection failed.
    Stream(io::Error),
    /// The connection ended before the body.
    Early,
    /// Its coding is broken.
    Malformed(HeadError),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream(_) => "the connection failed",
            Self::Early => "the connection ended before the message",
            Self::Malformed(_) => "the message is malformed",
        })
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Stream(cause) => Some(cause),
            Self::Malformed(cause) => Some(cause),
            Self::Early => None,
        }
    }
}

impl Reader {
    /// A reader of a body that is delimited like this.
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Empty | Framing::Length(0) => State::Ended,
            Framing::Length(bytes) => State::Length(bytes),
            Framing::Chunked => State::Chunked(Decoder::default()),
            Framing::Close => State::Close,
        })
    }

    /// Whether the end has been read.
    pub fn has_ended(&self) -> bool {
        match &self.0 {
            State::Ended => true,
            State::Chunked(decoder) => decoder.has_ended(),
            State::Length(_) | State::Close => false,
        }
    }

    /// What is left, in bytes.
    pub fn size_hint(&self) -> SizeHint {
        match self.0 {
            State::Ended => SizeHint::with_exact(0),
            State::Length(left) => SizeHint::with_exact(left),
            State::Chunked(_) | State::Close => SizeHint::default(),
        }
    }

    /// The next piece, from `input` or from the connection.
    pub fn poll_frame<S>(
        &mut self,
        stream: &mut S,
        input: &mut BytesMut,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>>
    where
        S: AsyncRead + Unpin + ?Sized,
    {
        loop {
            let expected = match &mut self.0 {
                State::Ended => return Poll::Ready(None),
                State::Length(left) => {
                    if !input.is_empty() {
                        let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                        *left -= here as u64;
                        if *left == 0 {
                            self.0 = State::Ended;
                        }
                        return Poll::Ready(Some(Ok(Frame::data(input.split_to(here).freeze()))));
                    }
                    *left
                }
                State::Chunked(decoder) => match decoder.take(input) {
                    Err(cause) => return Poll::Ready(Some(Err(Broken::Malformed(cause)))),
                    Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(Piece::End(fields)) => {
                        self.0 = State::Ended;
                        let trailers = Some(fields).filter(|fields| !fields.is_empty());
                        return Poll::Ready(trailers.map(|fields| Ok(Frame::trailers(fields))));
                    }
                    Ok(Piece::NeedMore) => decoder.expected(),
                },
                State::Close => {
                    if !input.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(input.split().freeze()))));
                    }
                    READ_BYTES
                }
            };
            match ready!(read_some(stream, input, expected, cx)) {
                Err(cause) => return Poll::Ready(Some(Err(Broken::Stream(cause)))),
                Ok(0) if matches!(self.0, State::Close) => self.0 = State::Ended,
                Ok(0) => return Poll::Ready(Some(Err(Broken::Early))),
                Ok(_) => {}
            }
        }
    }
}

/// Reads into `input`. Much goes there directly, little by way of the thread's buffer, so that a body
/// which trickles holds no large one.
fn read_some<S>(
    stream: &mut S,
    input: &mut BytesMut,
    expected: u64,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>>
where
    S: AsyncRead + Unpin + ?Sized,
{
    if expected < DIRECT_BYTES {
        return poll_read(stream, input, cx);
    }
    input.reserve(usize::try_from(expected.min(READ_BYTES)).unwrap_or_default());
    pin!(stream.read_buf(input)).poll(cx)
}

/// Writes one message: a head that is already bytes, and a body as its pieces come.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    written: usize,
    payload: Bytes,
    tail: &'static [u8],
    framing: Framing,
    has_trailers: bool,
    has_ended: bool,
    total: u64,
}

/// Why a message could not be written to its end.
#[derive(Debug)]
pub enum WriteError<E> {
    /// The connection failed.
    Stream(io::Error),
    /// The body failed.
    Body(E),
    /// The body is not as long as the head says.
    Length,
}

impl Writer {
    /// A writer for a head and a body that is delimited like this. `has_trailers` tells whether the
    /// other side wants trailers.
    pub fn new(head: Vec<u8>, framing: Framing, has_trailers: bool) -> Self {
        Self {
            out: head,
            written: 0,
            payload: Bytes::new(),
            tail: b"",
            framing,
            has_trailers,
            has_ended: framing == Framing::Empty,
            total: 0,
        }
    }

    /// Bytes that have gone out.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes that wait for the connection.
    pub fn waiting(&self) -> usize {
        self.out.len() - self.written + self.payload.len()
    }

    /// Whether it waits for the connection, not for the body.
    pub fn is_blocked(&self) -> bool {
        let has_bytes = self.written < self.out.len() || !self.payload.is_empty();
        self.has_ended || has_bytes || !self.tail.is_empty()
    }

    /// The buffer, empty, for the next message.
    pub fn into_buffer(mut self) -> Vec<u8> {
        self.out.clear();
        self.out
    }

    /// Writes as much as there is and the connection takes; `Ready` when all has gone out.
    pub fn poll<S, B>(
        &mut self,
        stream: &mut S,
        body: &mut B,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError<B::Error>>>
    where
        S: AsyncWrite + Unpin + ?Sized,
        B: Body<Data = Bytes> + Unpin,
    {
        loop {
            if let Err(cause) = self.gather(body, cx) {
                // What there is before the failure is still good: the head above all.
                let rest = self.out.get(self.written..).unwrap_or_default();
                if !rest.is_empty() {
                    let _ = Pin::new(&mut *stream).poll_write(cx, rest);
                    let _ = Pin::new(&mut *stream).poll_flush(cx);
                }
                return Poll::Ready(Err(cause));
            }
            let head = self.out.get(self.written..).unwrap_or_default();
            let slices = [IoSlice::new(head), IoSlice::new(&self.payload), IoSlice::new(self.tail)];
            let polled = match (head.is_empty(), self.payload.is_empty()) {
                (true, true) if self.tail.is_empty() => {
                    ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(WriteError::Stream)?;
                    return match self.has_ended {
                        true => Poll::Ready(Ok(())),
                        // The body has the waker.
                        false => Poll::Pending,
                    };
                }
                (false, true) if self.tail.is_empty() => {
                    Pin::new(&mut *stream).poll_write(cx, head)
                }
                _ => Pin::new(&mut *stream).poll_write_vectored(cx, &slices),
            };
            match ready!(polled).map_err(WriteError::Stream)? {
                0 => {
                    let cause = io::ErrorKind::WriteZero.into();
                    return Poll::Ready(Err(WriteError::Stream(cause)));
                }
                bytes => self.advance(bytes),
            }
        }
    }

    /// Takes pieces from the body while there is room for them.
    fn gather<B>(&mut self, body: &mut B, cx: &mut Context<'_>) -> Result<(), WriteError<B::Error>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        while !self.has_ended && self.payload.is_empty() && self.tail.is_empty() {
            if self.out.len() - self.written > GATHER_BYTES {
                return Ok(());
            }
            if body.is_end_stream() {
                return self.end(None);
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => return self.end(None),
                Poll::Ready(Some(Err(cause))) => return Err(WriteError::Body(cause)),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.add(data)?,
                    Err(frame) => return self.end(frame.into_trailers().ok()),
                },
            }
        }
        Ok(())
    }

    fn add<E>(&mut self, data: Bytes) -> Result<(), WriteError<E>> {
        if data.is_empty() {
            return Ok(());
        }
        let tail: &[u8] = match &mut self.framing {
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(WriteError::Length)?;
                b""
            }
            Framing::Chunked => {
                chunk::write_size(&mut self.out, data.len());
                b"\r\n"
            }
            Framing::Empty | Framing::Close => b"",
        };
        if data.len() <= COPY_BYTES_MAX {
            self.out.extend_from_slice(&data);
            self.out.extend_from_slice(tail);
        } else {
            self.payload = data;
            self.tail = tail;
        }
        Ok(())
    }

    fn end<E>(&mut self, trailers: Option<HeaderMap>) -> Result<(), WriteError<E>> {
        match self.framing {
            Framing::Length(left) if left > 0 => return Err(WriteError::Length),
            Framing::Chunked => {
                self.out.extend_from_slice(b"0\r\n");
                if let Some(mut fields) = trailers.filter(|_| self.has_trailers) {
                    // They may come from another protocol, where nobody looked.
                    strip_trailers(&mut fields);
                    write_fields(&mut self.out, &fields);
                }
                self.out.extend_from_slice(b"\r\n");
            }
            _ => {}
        }
        self.has_ended = true;
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.total += bytes as u64;
        let of_out = bytes.min(self.out.len() - self.written);
        self.written += of_out;
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        let of_payload = (bytes - of_out).min(self.payload.len());
        self.payload.advance(of_payload);
        if self.payload.is_empty() {
            // Lets go of the buffer it is part of, so that the reader can use that again.
            self.payload = Bytes::new();
        }
        self.tail = self.tail.get(bytes - of_out - of_payload..).unwrap_or_default();
    }
}

/// From here on, a read goes into a buffer of its own.
const DIRECT_BYTES: u64 = 16 * 1024;
const READ_BYTES: u64 = 64 * 1024;
/// Small pieces share one write until there are as many bytes as one TLS record takes.
const GATHER_BYTES: usize = 12 * 1024;
const COPY_BYTES_MAX: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use super::*;

    type Frames = VecDeque<Frame<Bytes>>;

    struct Pieces(Frames);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    async fn written(framing: Framing, pieces: Vec<Frame<Bytes>>) -> Result<Vec<u8>, String> {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        let mut writer = Writer::new(b"HEAD".to_vec(), framing, true);
        let mut body = Pieces(pieces.into());
        let outcome = std::future::poll_fn(|cx| writer.poll(&mut near, &mut body, cx)).await;
        outcome.map_err(|cause| format!("{cause:?}"))?;
        drop(near);
        let mut text = Vec::new();
        far.read_to_end(&mut text).await.unwrap();
        assert_eq!(writer.total(), text.len() as u64);
        Ok(text)
    }

    fn data(text: &str) -> Frame<Bytes> {
        Frame::data(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[tokio::test]
    async fn what_is_written_reads_back() {
        let large = "x".repeat(100_000);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("1"));
        for (framing, last) in [
            (Framing::Length(100_005), None),
            (Framing::Chunked, Some(Frame::trailers(trailers))),
            (Framing::Close, None),
        ] {
            let mut pieces = vec![data("he"), data(""), data(&large), data("llo")];
            let has_trailers = last.is_some();
            pieces.extend(last);
            let text = written(framing, pieces).await.unwrap();
            let (mut reader, mut input) = (Reader::new(framing), BytesMut::new());
            let mut stream = &text[4..];
            let (mut content, mut ends) = (Vec::new(), 0);
            loop {
                let next =
                    std::future::poll_fn(|cx| reader.poll_frame(&mut stream, &mut input, cx));
                match next.await.transpose().unwrap().map(Frame::into_data) {
                    Some(Ok(piece)) => content.extend_from_slice(&piece),
                    Some(Err(trailers)) => ends += usize::from(trailers.is_trailers()),
                    None => break,
                }
            }
            assert_eq!(content.len(), 100_005, "{framing:?}");
            assert!(content.starts_with(b"hex") && content.ends_with(b"xllo"));
            assert!(reader.has_ended() && input.is_empty());
            assert_eq!(ends == 1, has_trailers, "{framing:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_not_as_long_as_said_fails() {
        for pieces in [vec![data("abcd")], vec![data("ab")], vec![]] {
            let outcome = written(Framing::Length(3), pieces).await;
            assert!(outcome.unwrap_err().contains("Length"));
        }
        let mut reader = Reader::new(Framing::Length(3));
        let (mut stream, mut input) = (&b"ab"[..], BytesMut::new());
        let mut next = async || {
            std::future::poll_fn(|cx| reader.poll_frame(&mut stream, &mut input, cx)).await
        };
        assert!(next().await.unwrap().is_ok());
        assert!(matches!(next().await, Some(Err(Broken::Early))));
    }

    #[tokio::test]
    async fn pieces_go_out_before_the_next_is_there() {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        let mut body = One(Some(data("one")));
        let mut writer = Writer::new(Vec::new(), Framing::Chunked, false);
        let polled =
            std::future::poll_fn(|cx| Poll::Ready(writer.poll(&mut near, &mut body, cx))).await;
        assert!(polled.is_pending());
        let mut text = [0; 8];
        far.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"3\r\none\r\n");
    }

    /// One piece, then nothing for good.
    struct One(Option<Frame<Bytes>>);

    impl Body for One {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.take() {
                Some(first) => Poll::Ready(Some(Ok(first))),
                None => Poll::Pending,
            }
        }
    }
}
