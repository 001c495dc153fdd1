//! A request's body over HTTP/3.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::Method;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body::{Frame, SizeHint};

use super::quic::Reader;

/// A body that is still on its way.
pub struct Body {
    stream: h3::server::RequestStream<Reader, Bytes>,
    /// What `content-length` said, and how much of it is still to come.
    left: Option<u64>,
    step: Step,
    /// The first frame, when it was waited for.
    first: Option<Frame<Bytes>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Data,
    Trailers,
    Ended,
}

/// Why a body broke off.
#[derive(Debug)]
pub enum BodyError {
    /// The client reset it, or broke the protocol, or is gone.
    Stream(h3::error::StreamError),
    /// It is not as long as `content-length` said (RFC 9114, section 4.1.2).
    Length,
}

impl Body {
    /// The body of a request with these fields.
    ///
    /// # Errors
    /// When `content-length` is there twice or is no number.
    pub fn new(
        stream: h3::server::RequestStream<Reader, Bytes>,
        fields: &HeaderMap,
    ) -> Result<Self, BodyError> {
        let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
        let left = match (lengths.next(), lengths.next()) {
            (None, _) => None,
            (Some(text), None) => {
                let text = text.to_str().map_err(|_| BodyError::Length)?;
                let is_number = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
                let length = text.parse().ok().filter(|_| is_number);
                Some(length.ok_or(BodyError::Length)?)
            }
            (Some(_), Some(_)) => return Err(BodyError::Length),
        };
        Ok(Self { stream, left, step: Step::Data, first: None })
    }

    /// Learns whether there is a body at all. The end of a stream may come a packet after the head;
    /// for a method that has no body as a rule it is waited for, so that an upstream is not sent an
    /// empty one.
    ///
    /// # Errors
    /// When the body breaks off.
    pub async fn begin(&mut self, method: &Method) -> Result<(), BodyError> {
        let has_none = match self.left {
            Some(length) => length == 0,
            None => [Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS, Method::TRACE]
                .contains(method),
        };
        let first = std::future::poll_fn(|cx| match self.poll_next(cx) {
            Poll::Pending if !has_none => Poll::Ready(None),
            polled => polled,
        });
        self.first = first.await.transpose()?;
        Ok(())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.step == Step::Data {
            match ready!(self.stream.poll_recv_data(cx)).map_err(BodyError::Stream)? {
                Some(mut data) => {
                    let bytes = data.copy_to_bytes(data.remaining());
                    if let Some(left) = &mut self.left {
                        *left = left.checked_sub(bytes.len() as u64).ok_or(BodyError::Length)?;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                None => self.step = Step::Trailers,
            }
        }
        if self.step == Step::Trailers {
            let trailers = ready!(self.stream.poll_recv_trailers(cx)).map_err(BodyError::Stream)?;
            self.step = Step::Ended;
            if self.left.is_some_and(|left| left > 0) {
                return Poll::Ready(Some(Err(BodyError::Length)));
            }
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(None)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.first.take() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.step == Step::Ended
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.first.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        match (self.left, self.step) {
            (Some(left), _) => SizeHint::with_exact(left + held),
            (None, Step::Ended) => SizeHint::with_exact(held),
            (None, _) => SizeHint::default(),
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(cause) => cause.fmt(f),
            Self::Length => f.write_str("the body is not as long as content-length says"),
        }
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Stream(cause) => cause.source(),
            Self::Length => None,
        }
    }
}
