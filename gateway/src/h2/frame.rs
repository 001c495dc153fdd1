//! Frames as bytes (RFC 9113, sections 4 and 6).

use super::Code;

/// Types of frames.
pub mod kind {
    #![expect(missing_docs, reason = "the names of RFC 9113, section 6")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub mod flag {
    #![expect(missing_docs, reason = "the names of RFC 9113, section 6")]
    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// Identifiers of settings (RFC 9113, section 6.5.2; RFC 8441, section 3).
pub mod setting {
    #![expect(missing_docs, reason = "the names of RFC 9113, section 6.5.2")]
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// What stands before a frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the payload.
    pub length: usize,
    /// Its type, see [`kind`].
    pub kind: u8,
    /// Its flags, see [`flag`].
    pub flags: u8,
    /// Its stream, without the reserved bit.
    pub stream: u32,
}

impl Head {
    /// The head of the frame that `input` begins with, when that much is there.
    pub fn peek(input: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, d, e, f, g] = *input.first_chunk::<HEAD_BYTES>()?;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([d & 0x7f, e, f, g]),
        })
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; HEAD_BYTES] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    /// Whether it has all bits of `flags`.
    pub fn has(self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// Writes a whole frame.
pub fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&Head { length: payload.len(), kind, flags, stream }.bytes());
    out.extend_from_slice(payload);
}

/// Writes RST_STREAM.
pub fn write_reset(out: &mut Vec<u8>, stream: u32, code: Code) {
    write(out, kind::RST_STREAM, 0, stream, &code.0.to_be_bytes());
}

/// Writes WINDOW_UPDATE.
pub fn write_window(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    write(out, kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
}

/// Writes GOAWAY.
pub fn write_go_away(out: &mut Vec<u8>, last: u32, code: Code) {
    let ([a, b, c, d], [e, f, g, h]) = (last.to_be_bytes(), code.0.to_be_bytes());
    write(out, kind::GOAWAY, 0, 0, &[a, b, c, d, e, f, g, h]);
}

/// Takes the padding off a payload whose frame says that it has some. `None`: there is more padding
/// than payload (RFC 9113, sections 6.1 and 6.2).
pub fn unpadded(payload: &[u8], is_padded: bool) -> Option<&[u8]> {
    if !is_padded {
        return Some(payload);
    }
    let (padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(*padding))?)
}

/// What a client begins with (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 9;
/// The largest payload that is taken, which is the least that may be announced.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back() {
        let head = Head { length: 0x0102_0304 & 0xff_ffff, kind: 9, flags: 0x2d, stream: 7 };
        assert_eq!(Head::peek(&head.bytes()), Some(head));
        assert_eq!(Head::peek(&head.bytes()[..8]), None);
        // The reserved bit means nothing.
        let mut bytes = head.bytes();
        bytes[5] |= 0x80;
        assert_eq!(Head::peek(&bytes), Some(head));
        assert!(head.has(flag::END_HEADERS) && head.has(flag::PADDED));
    }

    #[test]
    fn padding_comes_off() {
        assert_eq!(unpadded(b"abc", false), Some(&b"abc"[..]));
        assert_eq!(unpadded(b"\x02abcd", true), Some(&b"ab"[..]));
        assert_eq!(unpadded(b"\x02cd", true), Some(&b""[..]));
        assert_eq!(unpadded(b"\x03cd", true), None);
        assert_eq!(unpadded(b"", true), None);
    }
}
