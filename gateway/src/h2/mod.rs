//! HTTP/2 (RFC 9113) of a server as a state machine over bytes: frames in, events and bytes out. Streams,
//! windows in both directions, settings and floods are kept here; sockets, time and the exchanges
//! of the streams are the connection's (`http/h2`). Waits for nothing and knows no clock.

pub mod conn;
pub mod flood;
pub mod frame;
pub mod hpack;
pub mod huffman;

use std::fmt;

/// Why a stream or a connection ends (RFC 9113, section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// In order.
    pub const NO_ERROR: Self = Self(0);
    /// A rule of the protocol was broken.
    pub const PROTOCOL: Self = Self(1);
    /// Something here failed.
    pub const INTERNAL: Self = Self(2);
    /// More came than a window allowed.
    pub const FLOW_CONTROL: Self = Self(3);
    /// A frame for a stream that takes none any more.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame of a size that it cannot have.
    pub const FRAME_SIZE: Self = Self(6);
    /// Nothing was done about the request.
    pub const REFUSED_STREAM: Self = Self(7);
    /// The stream is not wanted any more.
    pub const CANCEL: Self = Self(8);
    /// Fields cannot be decompressed.
    pub const COMPRESSION: Self = Self(9);
    /// Too much work for too little.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
}

/// What ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fatal {
    /// What the client is told.
    pub code: Code,
    /// What the log is told.
    pub why: &'static str,
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why)
    }
}

impl std::error::Error for Fatal {}

impl Fatal {
    const fn new(code: Code, why: &'static str) -> Self {
        Self { code, why }
    }

    const fn protocol(why: &'static str) -> Self {
        Self::new(Code::PROTOCOL, why)
    }
}
