//! What comes in from a connection, whichever protocol it speaks: one type of body for the exchange.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::h1::ClientBody;
use super::{h2, h3};
use crate::h1::Upgraded;
use crate::h1::body::Broken;
use crate::upstream::ServerBody;

/// A body that is still on its way, from a client or from an upstream.
pub enum Incoming {
    /// None.
    Empty,
    /// Of a client that speaks HTTP/1.1.
    Client(ClientBody),
    /// Of a server that speaks HTTP/1.1.
    Server(Box<ServerBody>),
    /// No body: the connection has left HTTP.
    Upgraded(Box<Upgraded>),
    /// Of a server that speaks HTTP/2, whose connection hyper drives.
    Hyper(hyper::body::Incoming),
    /// Of a stream of a client's HTTP/2 connection.
    H2(h2::body::ClientBody),
    /// Of a client's HTTP/3 connection.
    H3(Box<h3::body::Body>),
}

/// Why a body broke off, in the words of its protocol.
#[derive(Debug)]
pub enum StreamError {
    /// An HTTP/1.1 connection.
    H1(Broken),
    /// A connection that hyper drives.
    Hyper(hyper::Error),
    /// A stream of a client's HTTP/2 connection.
    H2(h2::body::Reset),
    /// An HTTP/3 connection.
    H3(h3::body::BodyError),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::H1(cause) => cause.fmt(f),
            Self::Hyper(cause) => cause.fmt(f),
            Self::H2(cause) => cause.fmt(f),
            Self::H3(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for StreamError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::H1(cause) => cause.source(),
            Self::Hyper(cause) => cause.source(),
            Self::H2(cause) => cause.source(),
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
            Self::Empty | Self::Upgraded(_) => Poll::Ready(None),
            Self::Client(body) => {
                Pin::new(body).poll_frame(cx).map(|next| Some(next?.map_err(StreamError::H1)))
            }
            Self::Server(body) => {
                Pin::new(body).poll_frame(cx).map(|next| Some(next?.map_err(StreamError::H1)))
            }
            Self::Hyper(body) => {
                Pin::new(body).poll_frame(cx).map(|next| Some(next?.map_err(StreamError::Hyper)))
            }
            Self::H2(body) => {
                Pin::new(body).poll_frame(cx).map(|next| Some(next?.map_err(StreamError::H2)))
            }
            Self::H3(body) => {
                Pin::new(body).poll_frame(cx).map(|next| Some(next?.map_err(StreamError::H3)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Upgraded(_) => true,
            Self::Client(body) => body.is_end_stream(),
            Self::Server(body) => body.is_end_stream(),
            Self::Hyper(body) => body.is_end_stream(),
            Self::H2(body) => body.is_end_stream(),
            Self::H3(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Upgraded(_) => SizeHint::with_exact(0),
            Self::Client(body) => body.size_hint(),
            Self::Server(body) => body.size_hint(),
            Self::Hyper(body) => body.size_hint(),
            Self::H2(body) => body.size_hint(),
            Self::H3(body) => body.size_hint(),
        }
    }
}
