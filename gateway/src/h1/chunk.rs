//! Chunked bodies (RFC 9112, section 7.1), read piece by piece.

use bytes::{Buf, Bytes, BytesMut};
use http::header::HeaderMap;

use super::head::{Bounds, HeadError, take_trailers};

/// Where in a chunked body the reader is.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of the trailer section that were looked at before.
    scanned: usize,
}

#[derive(Debug)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Ended,
}

/// A piece of a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the content; never none.
    Data(Bytes),
    /// The end, with the trailers.
    End(HeaderMap),
    /// Nothing before more is read.
    NeedMore,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Size, scanned: 0 }
    }
}

impl Decoder {
    /// Whether the end has been read.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// How many bytes of the present chunk are still to come.
    pub fn expected(&self) -> u64 {
        match self.state {
            State::Data(left) => left,
            _ => 0,
        }
    }

    /// Takes the next piece off `input`.
    ///
    /// # Errors
    /// When the coding is broken. Nothing after it on the connection can be trusted then.
    pub fn take(&mut self, input: &mut BytesMut) -> Result<Piece, HeadError> {
        loop {
            match &mut self.state {
                State::Size => {
                    let Some(size) = take_size(input)? else { return Ok(Piece::NeedMore) };
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(left) => {
                    if input.is_empty() {
                        return Ok(Piece::NeedMore);
                    }
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *left -= here as u64;
                    if *left == 0 {
                        self.state = State::DataEnd;
                    }
                    return Ok(Piece::Data(input.split_to(here).freeze()));
                }
                State::DataEnd => match input.get(..2) {
                    Some(b"\r\n") => {
                        input.advance(2);
                        self.state = State::Size;
                    }
                    Some(_) => return Err(BROKEN),
                    None if input.first().is_some_and(|&b| b != b'\r') => return Err(BROKEN),
                    None => return Ok(Piece::NeedMore),
                },
                State::Trailers => {
                    return match take_trailers(input, &mut self.scanned, TRAILERS)? {
                        None => Ok(Piece::NeedMore),
                        Some(fields) => {
                            self.state = State::Ended;
                            Ok(Piece::End(fields))
                        }
                    };
                }
                State::Ended => return Ok(Piece::End(HeaderMap::new())),
            }
        }
    }
}

/// The size of the next chunk, when its line is there. Extensions are skipped, as RFC 9112 section
/// 7.1.1 wants of a recipient that knows none, when they look like some.
fn take_size(input: &mut BytesMut) -> Result<Option<u64>, HeadError> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return if input.len() > SIZE_LINE_BYTES_MAX { Err(BROKEN) } else { Ok(None) };
    };
    let line = input.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(BROKEN)?;
    if line.len() > SIZE_LINE_BYTES_MAX {
        return Err(BROKEN);
    }
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (digits, extension) = line.split_at_checked(digits).ok_or(BROKEN)?;
    let is_extension = extension.is_empty()
        || extension.starts_with(b";")
            && extension.iter().all(|&b| b == b'\t' || (b >= 0x20 && b != 0x7f));
    if digits.is_empty() || digits.len() > 15 || !is_extension {
        return Err(BROKEN);
    }
    let value = |digit: &u8| u64::from(char::from(*digit).to_digit(16).unwrap_or_default());
    let size = digits.iter().fold(0, |n: u64, digit| (n << 4) | value(digit));
    input.advance(end + 1);
    Ok(Some(size))
}

/// Writes the line before a chunk of `bytes`.
pub fn write_size(out: &mut Vec<u8>, bytes: usize) {
    use std::io::Write as _;
    // Writing to memory does not fail.
    let _ = write!(out, "{bytes:x}\r\n");
}

const BROKEN: HeadError = HeadError::Malformed("The chunks of the body are not valid.");
/// With extensions; 15 digits are more than any body has.
const SIZE_LINE_BYTES_MAX: usize = 512;
const TRAILERS: Bounds = Bounds { bytes_max: 8 * 1024, fields_max: 64 };

#[cfg(test)]
mod tests {
    use super::*;

    /// Content, trailers, and what comes after.
    type Whole = (Vec<u8>, HeaderMap, Vec<u8>);

    /// The content and the trailers, with the bytes handed over `step` at a time.
    fn read(text: &[u8], step: usize) -> Result<Option<Whole>, HeadError> {
        let (mut decoder, mut input, mut content) =
            (Decoder::default(), BytesMut::new(), Vec::new());
        let mut parts = text.chunks(step);
        loop {
            match decoder.take(&mut input)? {
                Piece::Data(data) => content.extend_from_slice(&data),
                Piece::End(fields) => {
                    let mut rest = input.to_vec();
                    rest.extend(parts.flatten());
                    return Ok(Some((content, fields, rest)));
                }
                Piece::NeedMore => match parts.next() {
                    Some(part) => input.extend_from_slice(part),
                    None => return Ok(None),
                },
            }
        }
    }

    #[test]
    fn pieces_of_any_size_give_the_same_content() {
        let text = b"5\r\nhello\r\n006;a=\"b\"\r\n world\r\n0\r\nx-sum: 1\r\n\r\nGET";
        for step in 1..=text.len() {
            let (content, fields, rest) = read(text, step).unwrap().unwrap();
            assert_eq!((content.as_slice(), fields.len()), (&b"hello world"[..], 1), "{step}");
            assert_eq!(rest, b"GET", "{step}");
        }
    }

    #[test]
    fn an_end_that_comes_in_two_pieces_is_one() {
        let text = b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n";
        for step in 1..=text.len() {
            let (content, fields, rest) = read(text, step).unwrap().unwrap();
            assert_eq!((content.as_slice(), fields.len()), (&b"hello"[..], 0), "{step}");
            assert_eq!(rest, b"GET / HTTP/1.1\r\n", "{step}");
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        for text in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\nx",
            b"+1\r\nx",
            b"0x1\r\nx",
            b"1 \r\nx",
            b" 1\r\nx",
            b"1\nx\r\n",
            b"1\r\nxy\r\n",
            b"1\r\nx\n0\r\n",
            b"1\r\nx0\r\n\r\n",
            b"1;\0\r\nx\r\n",
            b"1;a\rb\r\nx\r\n",
            b"ffffffffffffffff\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\nx : y\r\n\r\n",
            b"0\r\nx: y\n\r\n",
        ] {
            let outcome = read(text, 1);
            assert!(outcome.is_err(), "{:?}: {outcome:?}", String::from_utf8_lossy(text));
        }
        let long = format!("1;{}\r\n", "a".repeat(600));
        assert!(read(long.as_bytes(), 7).is_err());
        assert!(read(b"5\r\nhel", 3).unwrap().is_none());
    }

    #[test]
    fn sizes_are_written_in_hexadecimal() {
        let mut out = Vec::new();
        write_size(&mut out, 0x1f40);
        assert_eq!(out, b"1f40\r\n");
    }
}
