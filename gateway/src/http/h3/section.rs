//! The shape of a field section (RFC 9204, section 4.5), checked before it is decoded: h3 takes the
//! last of two `:path` fields and refuses `:protocol: websocket`; here the first is malformed and
//! the second is made readable. Pure: no await, no clock, no IO.
//!
//! Only the static table can be referred to, since the gateway announces no dynamic one. So names
//! and values need not be decoded to be told apart: an index, a literal or its Huffman code stands
//! for exactly one text.

use std::ops::Range;

use crate::h2::huffman;

/// Why a field section is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionError {
    /// It cannot be decompressed: the connection is lost (RFC 9204, section 2.2).
    Compression,
    /// It breaks the rules of messages: the request is lost (RFC 9114, section 4.1.2).
    Malformed(&'static str),
}

/// Checks the section of a request's head. What asks for a WebSocket (RFC 9220) is rewritten to the
/// protocol that stands for it inside the gateway, and any other protocol to one that is refused.
///
/// # Errors
/// A pseudo-field that comes twice, after a field, or does not belong into a request; a section that
/// ends early or refers to a dynamic table.
pub fn check_head(section: &[u8]) -> Result<Option<Vec<u8>>, SectionError> {
    let mut seen = [false; PSEUDO.len()];
    let mut has_field = false;
    let mut protocol: Option<(Range<usize>, bool)> = None;
    let mut lines = Lines::new(section)?;
    while let Some(line) = lines.next()? {
        let Some(pseudo) = line.pseudo? else {
            has_field = true;
            continue;
        };
        if has_field {
            return Err(SectionError::Malformed("a pseudo-field after a field"));
        }
        if let Some(seen) = seen.get_mut(pseudo)
            && std::mem::replace(seen, true)
        {
            return Err(SectionError::Malformed("a pseudo-field twice"));
        }
        if PSEUDO.get(pseudo) == Some(&PROTOCOL) {
            protocol = Some((line.at, line.is_websocket));
        }
    }
    Ok(protocol.map(|(at, is_websocket)| {
        let (before, after) = (section.get(..at.start), section.get(at.end..));
        let name = if is_websocket { WEBSOCKET_INSIDE } else { NO_PROTOCOL };
        let mut rewritten = before.unwrap_or_default().to_vec();
        // A literal name and value, neither of them Huffman-coded: 001N0 and a length of 3 bits.
        rewritten.extend_from_slice(&[0x27, (PROTOCOL.len() - 7) as u8]);
        rewritten.extend_from_slice(PROTOCOL.as_bytes());
        rewritten.push(name.len() as u8);
        rewritten.extend_from_slice(name.as_bytes());
        rewritten.extend_from_slice(after.unwrap_or_default());
        rewritten
    }))
}

/// Checks the section of a request's trailers: no pseudo-field may be in it.
///
/// # Errors
/// As [`check_head`].
pub fn check_trailers(section: &[u8]) -> Result<(), SectionError> {
    let mut lines = Lines::new(section)?;
    while let Some(line) = lines.next()? {
        if line.pseudo?.is_some() {
            return Err(SectionError::Malformed("a pseudo-field among the trailers"));
        }
    }
    Ok(())
}

/// One field line.
struct Line {
    at: Range<usize>,
    /// Which of [`PSEUDO`] it is; none for a field; an error for a pseudo-field that no request has.
    pseudo: Result<Option<usize>, SectionError>,
    is_websocket: bool,
}

struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, SectionError> {
        let mut lines = Self { bytes, at: 0 };
        // Required insert count and base: with no dynamic table both are 0.
        if lines.integer(8)? != 0 || lines.integer(7)? != 0 {
            return Err(SectionError::Compression);
        }
        Ok(lines)
    }

    fn next(&mut self) -> Result<Option<Line>, SectionError> {
        let start = self.at;
        let Some(&first) = self.bytes.get(start) else { return Ok(None) };
        let mut is_websocket = false;
        let pseudo = match first {
            // Indexed, and literal with the name of an index; bit T says static.
            0xc0.. => static_pseudo(self.integer(6)?)?,
            0x50..=0x5f | 0x70..=0x7f => {
                let pseudo = static_pseudo(self.integer(4)?)?;
                self.string(7)?;
                pseudo
            }
            0x20..=0x3f => {
                let (name, is_coded) = self.string(3)?;
                let pseudo = literal_pseudo(name, is_coded);
                let (value, is_coded) = self.string(7)?;
                is_websocket = is_text(value, is_coded, "websocket");
                pseudo
            }
            // The dynamic table, before or after the base.
            _ => return Err(SectionError::Compression),
        };
        Ok(Some(Line { at: start..self.at, pseudo, is_websocket }))
    }

    /// An integer with a prefix of `bits` bits (RFC 7541, section 5.1).
    fn integer(&mut self, bits: u32) -> Result<usize, SectionError> {
        let mask = (1usize << bits) - 1;
        let mut value = usize::from(self.byte()?) & mask;
        if value < mask {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = usize::from(self.byte()?);
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(SectionError::Compression)
    }

    /// A string literal whose length has a prefix of `bits` bits; the bit above says Huffman.
    fn string(&mut self, bits: u32) -> Result<(&'a [u8], bool), SectionError> {
        let first = *self.bytes.get(self.at).ok_or(SectionError::Compression)?;
        let is_coded = first & (1 << bits) != 0;
        let length = self.integer(bits)?;
        let text = self.bytes.get(self.at..).and_then(|rest| rest.get(..length));
        self.at += length;
        text.map(|text| (text, is_coded)).ok_or(SectionError::Compression)
    }

    fn byte(&mut self) -> Result<u8, SectionError> {
        let byte = self.bytes.get(self.at).copied().ok_or(SectionError::Compression)?;
        self.at += 1;
        Ok(byte)
    }
}

/// The pseudo-field of an entry of the static table (RFC 9204, appendix A).
fn static_pseudo(index: usize) -> Result<Result<Option<usize>, SectionError>, SectionError> {
    match index {
        0 => Ok(position(":authority")),
        1 => Ok(position(":path")),
        15..=21 => Ok(position(":method")),
        22..=23 => Ok(position(":scheme")),
        24..=28 | 63..=71 => Ok(Err(SectionError::Malformed("a status in a request"))),
        2..=98 => Ok(Ok(None)),
        _ => Err(SectionError::Compression),
    }
}

fn literal_pseudo(name: &[u8], is_coded: bool) -> Result<Option<usize>, SectionError> {
    let is_pseudo = match is_coded {
        // The code of a colon has seven bits.
        true => name.first().is_some_and(|first| first & 0xfe == 0xb8),
        false => name.first() == Some(&b':'),
    };
    if !is_pseudo {
        return Ok(None);
    }
    let known = PSEUDO.iter().position(|pseudo| is_text(name, is_coded, pseudo));
    known.map(Some).ok_or(SectionError::Malformed("an unknown pseudo-field"))
}

fn position(name: &str) -> Result<Option<usize>, SectionError> {
    Ok(PSEUDO.iter().position(|pseudo| *pseudo == name))
}

/// Whether a string literal is this text.
fn is_text(literal: &[u8], is_coded: bool, text: &str) -> bool {
    match is_coded {
        true => {
            let mut coded = Vec::new();
            huffman::encode(text.as_bytes(), &mut coded);
            coded == literal
        }
        false => literal == text.as_bytes(),
    }
}

/// The pseudo-fields of requests (RFC 9114, section 4.3.1; RFC 9220, section 3).
const PSEUDO: [&str; 5] = [":method", ":scheme", ":authority", ":path", PROTOCOL];
const PROTOCOL: &str = ":protocol";
/// What `websocket` is called inside: h3 knows this name and not the other.
const WEBSOCKET_INSIDE: &str = "connect-udp";
/// What every other protocol is called inside.
const NO_PROTOCOL: &str = "webtransport";

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(text: &str) -> Vec<u8> {
        let mut coded = Vec::new();
        huffman::encode(text.as_bytes(), &mut coded);
        coded
    }

    /// A section of literal lines, Huffman-coded where `is_coded` asks.
    fn section(lines: &[(&str, &str)], is_coded: bool) -> Vec<u8> {
        let mut bytes = vec![0, 0];
        let literal = |text: &str| match is_coded {
            true => (coded(text), true),
            false => (text.as_bytes().to_vec(), false),
        };
        let integer = |bytes: &mut Vec<u8>, first: u8, bits: u32, value: usize| {
            let mask = (1usize << bits) - 1;
            if value < mask {
                bytes.push(first | value as u8);
            } else {
                assert!(value - mask < 0x80);
                bytes.extend([first | mask as u8, (value - mask) as u8]);
            }
        };
        for (name, value) in lines {
            let (name, is_coded) = literal(name);
            integer(&mut bytes, 0x20 | u8::from(is_coded) << 3, 3, name.len());
            bytes.extend(name);
            let (value, is_coded) = literal(value);
            integer(&mut bytes, u8::from(is_coded) << 7, 7, value.len());
            bytes.extend(value);
        }
        bytes
    }

    #[test]
    fn the_huffman_code_of_the_rfc() {
        // As ls-qpack writes them.
        let protocol = [0xb9, 0x5d, 0x87, 0x49, 0xc8, 0x7a, 0x3f];
        assert_eq!(coded(":protocol"), protocol);
        let websocket = [0xf0, 0x58, 0xd0, 0x72, 0x75, 0x2a, 0x7f];
        assert_eq!(coded("websocket"), websocket);
        assert_eq!(coded(":path"), [0xb9, 0x58, 0xd3, 0x3f]);
    }

    #[test]
    fn what_is_in_order_passes_as_it_is() {
        for is_coded in [false, true] {
            let lines = [
                (":method", "GET"),
                (":scheme", "https"),
                (":authority", "a"),
                (":path", "/"),
                ("x", "y"),
                ("x", "y"),
            ];
            assert_eq!(check_head(&section(&lines, is_coded)), Ok(None));
        }
        // By index: :method GET, :scheme https, :path /, :authority a, content-length 0.
        let indexed = [0, 0, 0xd1, 0xd7, 0xc1, 0x50, 1, b'a', 0xc4];
        assert_eq!(check_head(&indexed), Ok(None));
        assert_eq!(check_trailers(&section(&[("x-sum", "1")], true)), Ok(()));
    }

    #[test]
    fn what_is_not_in_order_is_refused() {
        let head: &[(&str, &str)] =
            &[(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")];
        for more in [
            &[(":path", "/b")][..],
            &[(":authority", "b")],
            &[(":method", "POST")],
            &[("x", "y"), (":protocol", "websocket")],
            &[(":status", "200")],
            &[(":other", "1")],
            &[(":", "1")],
            &[(":protocol", "a"), (":protocol", "b")],
        ] {
            for is_coded in [false, true] {
                let bytes = section(&[head, more].concat(), is_coded);
                let checked = check_head(&bytes);
                assert!(matches!(checked, Err(SectionError::Malformed(_))), "{more:?}");
            }
        }
        // The same field once by index and once as a literal.
        assert!(check_head(&[0, 0, 0xc1, 0x51, 2, b'/', b'b']).is_err());
        assert!(check_head(&[0, 0, 0xd9]).is_err(), ":status 200 by index");
        assert!(check_trailers(&section(&[(":path", "/")], false)).is_err());
        assert!(check_trailers(&[0, 0, 0xc1]).is_err());
    }

    #[test]
    fn what_needs_a_dynamic_table_or_ends_early_is_lost() {
        for bytes in [
            &[][..],
            &[0],
            &[2, 0, 0x80],
            &[0, 0, 0x80],
            &[0, 0, 0x40, 0],
            &[0, 0, 0x10],
            &[0, 0, 0x00, 0],
            &[0, 0, 0xff, 0x24],
            &[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0, 0, 0x51, 3, b'/'],
            &[0, 0, 0x27],
        ] {
            assert_eq!(check_head(bytes), Err(SectionError::Compression), "{bytes:?}");
        }
    }

    #[test]
    fn a_wish_for_a_websocket_is_made_readable() {
        for is_coded in [false, true] {
            for (asked, inside) in
                [("websocket", WEBSOCKET_INSIDE), ("connect-udp", NO_PROTOCOL), ("x", NO_PROTOCOL)]
            {
                let lines = |protocol| {
                    [(":method", "CONNECT"), (":protocol", protocol), (":path", "/"), ("a", "b")]
                };
                let rewritten = check_head(&section(&lines(asked), is_coded)).unwrap().unwrap();
                let plain = section(&lines(inside)[1..2], false);
                let start = rewritten.windows(plain.len() - 2).position(|w| w == &plain[2..]);
                assert!(start.is_some(), "{asked} {rewritten:?}");
                assert!(rewritten.ends_with(&section(&lines(asked)[2..], is_coded)[2..]));
            }
        }
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic() {
        let mut seed = 7u64;
        for length in 0..400 {
            let bytes: Vec<u8> = (0..length % 40)
                .map(|_| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (seed >> 33) as u8
                })
                .collect();
            let _ = check_head(&bytes);
            let _ = check_head(&[&[0, 0], bytes.as_slice()].concat());
        }
    }
}
