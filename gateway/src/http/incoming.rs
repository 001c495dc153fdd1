//! What comes in from a connection, whichever protocol it speaks: one type of body for the exchange.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::h3;

/// A body that is still on its way, from a client or from an upstream.
pub enum Incoming {
    /// Of a connection that hyper drives.
    Hyper(hyper::body::Incoming),
    /// Of a client's HTTP/3 connection.
    H3(Box<h3::body::Body>),
}

/// Why a body broke off, in the words of its protocol.
#[derive(Debug)]
pub enum StreamError {
    /// A connection that hyper drives.
    Hyper(hyper::Error),
    /// An HTTP/3 connection.
    H3(h3::body::BodyError),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hyper(cause) => cause.fmt(f),
            Self::H3(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for StreamError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Hyper(cause) => cause.source(),
            Self::H3(cause) => cause.source(),
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match self.get_mut() {
            Self::Hyper(body) => {
                Pin::new(body).poll_frame(cx).map(|next| Some(next?.map_err(StreamError::Hyper)))
            }
            Self::H3(body) => {
                Pin::new(body).poll_frame(cx).map(|next| Some(next?.map_err(StreamError::H3)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(body) => body.is_end_stream(),
            Self::H3(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper(body) => body.size_hint(),
            Self::H3(body) => body.size_hint(),
        }
    }
}
