//! Heads: the first line and the fields of a message (RFC 9112, sections 2 to 5), and what they say
//! about its body (section 6.3).

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, Entry, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::{Method, StatusCode, Uri, Version};

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of first line and fields, inclusive.
    pub bytes_max: usize,
    /// The number of fields, inclusive.
    pub fields_max: usize,
}

/// How a message's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// By its length in bytes.
    Length(u64),
    /// By chunks.
    Chunked,
    /// By the end of the connection; responses only.
    Close,
}

/// A request's head.
#[derive(Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The target, in whichever form it came.
    pub target: Uri,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// All fields, in their order.
    pub fields: HeaderMap,
    /// The body.
    pub framing: Framing,
    /// Whether the connection may take another request after this one.
    pub is_persistent: bool,
}

/// A response's head.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status code.
    pub status: StatusCode,
    /// All fields, in their order.
    pub fields: HeaderMap,
    /// The body.
    pub framing: Framing,
    /// Whether the connection may take another request after this response.
    pub is_persistent: bool,
}

/// Why a head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// It is not a head, or could be understood in two ways; the text says what is wrong.
    Malformed(&'static str),
    /// It is larger than allowed.
    TooLarge,
    /// A version of HTTP that this connection does not speak.
    Version,
    /// A transfer coding other than `chunked`.
    Coding,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(what) => what,
            Self::TooLarge => "the head is larger than allowed",
            Self::Version => "the version of HTTP is not supported",
            Self::Coding => "the transfer coding is not supported",
        })
    }
}

impl std::error::Error for HeadError {}

/// Takes a request's head off `input` when it is there whole. `scanned` is how many bytes of `input`
/// were looked at before; it must be 0 for a new head.
///
/// # Errors
/// When it has to be refused. Nothing after it on the connection can be trusted then.
pub fn take_request(
    input: &mut BytesMut,
    scanned: &mut usize,
    bounds: Bounds,
) -> Result<Option<RequestHead>, HeadError> {
    // RFC 9112, section 2.2: an empty line before a request is ignored.
    // Its CR may have come alone.
    while *scanned <= 1 && input.starts_with(b"\r\n") {
        input.advance(2);
        *scanned = 0;
    }
    let Some(head) = take(input, scanned, bounds)? else { return Ok(None) };
    let (line, mut rest) = line(&head)?;
    let mut words = line.split(|&b| b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(HeadError::Malformed("The first line of the request is not valid."));
    };
    let version = version_of(version)?;
    let method = Method::from_bytes(method)
        .map_err(|_| HeadError::Malformed("The method of the request is not valid."))?;
    // A fragment is not sent (RFC 9110, section 7.1), and the parser would drop it in silence.
    if !target.iter().all(|&b| (0x21..=0x7e).contains(&b) && b != b'#') {
        return Err(HeadError::Malformed("The target of the request is not valid."));
    }
    let target = Uri::from_maybe_shared(head.slice_ref(target))
        .map_err(|_| HeadError::Malformed("The target of the request is not valid."))?;
    let (fields, body) = fields(&head, &mut rest, bounds)?;
    let framing = match (body.coding, body.length) {
        (None, None | Some(0)) => Framing::Empty,
        (None, Some(length)) => Framing::Length(length),
        (Some(_), Some(_)) => return Err(HeadError::Malformed(TWO_FRAMINGS)),
        (Some(_), None) if version == Version::HTTP_10 => {
            return Err(HeadError::Malformed("A request of HTTP/1.0 cannot have chunks."));
        }
        (Some(Coding::Chunked), None) => Framing::Chunked,
        (Some(Coding::Other), None) => return Err(HeadError::Coding),
    };
    let is_persistent = is_persistent(version, &fields);
    Ok(Some(RequestHead { method, target, version, fields, framing, is_persistent }))
}

/// Takes a response's head off `input` when it is there whole, like [`take_request`]. `method` is that
/// of the request it answers.
///
/// # Errors
/// When it has to be refused.
pub fn take_response(
    input: &mut BytesMut,
    scanned: &mut usize,
    bounds: Bounds,
    method: &Method,
) -> Result<Option<ResponseHead>, HeadError> {
    let bad = HeadError::Malformed("the status line is not valid");
    // Another protocol may never send the end of a head: one look at its beginning is enough.
    let beginning = input.get(..RESPONSE_BEGINNING.len()).unwrap_or(input);
    if !RESPONSE_BEGINNING.starts_with(beginning) {
        return Err(bad);
    }
    let Some(head) = take(input, scanned, bounds)? else { return Ok(None) };
    let (line, mut rest) = line(&head)?;
    let (version, line) = line.split_at_checked(8).ok_or(bad)?;
    let version = version_of(version)?;
    let (status, reason) = line.split_at_checked(4).ok_or(bad)?;
    let has_reason = reason.is_empty() || reason.starts_with(b" ");
    let status = status.strip_prefix(b" ").and_then(|code| StatusCode::from_bytes(code).ok());
    let status = status.filter(|_| has_reason).ok_or(bad)?;
    let (fields, body) = fields(&head, &mut rest, bounds)?;
    let has_none = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let framing = match (body.coding, body.length) {
        (Some(_), Some(_)) => return Err(HeadError::Malformed(TWO_FRAMINGS)),
        _ if has_none => Framing::Empty,
        (Some(Coding::Chunked), None) if version == Version::HTTP_11 => Framing::Chunked,
        (Some(_), None) => return Err(HeadError::Coding),
        (None, Some(0)) => Framing::Empty,
        (None, Some(length)) => Framing::Length(length),
        (None, None) => Framing::Close,
    };
    let is_persistent = framing != Framing::Close && is_persistent(version, &fields);
    Ok(Some(ResponseHead { status, fields, framing, is_persistent }))
}

/// Takes the trailer section after the last chunk off `input` (RFC 9112, section 7.1.2). Fields that
/// would change how the message is read or routed are dropped (RFC 9110, section 6.5.1).
///
/// # Errors
/// As for a head.
pub fn take_trailers(
    input: &mut BytesMut,
    scanned: &mut usize,
    bounds: Bounds,
) -> Result<Option<HeaderMap>, HeadError> {
    // The CR of an empty section may have come alone.
    if *scanned <= 1 && input.starts_with(b"\r\n") {
        input.advance(2);
        *scanned = 0;
        return Ok(Some(HeaderMap::new()));
    }
    let Some(section) = take(input, scanned, bounds)? else { return Ok(None) };
    let (mut fields, _) = fields(&section, &mut &section[..], bounds)?;
    strip_trailers(&mut fields);
    Ok(Some(fields))
}

/// Removes from a trailer section what must not stand in one.
pub fn strip_trailers(fields: &mut HeaderMap) {
    for name in NEVER_TRAILERS {
        fields.remove(*name);
    }
}

/// The bytes up to and with the first empty line, when they are there.
fn take(
    input: &mut BytesMut,
    scanned: &mut usize,
    bounds: Bounds,
) -> Result<Option<Bytes>, HeadError> {
    let fresh = input.get(*scanned..).unwrap_or_default();
    for at in memchr::memchr_iter(b'\n', fresh) {
        let end = *scanned + at + 1;
        let before = input.get(..end - 1).unwrap_or_default();
        if !before.ends_with(b"\r") {
            return Err(HeadError::Malformed("A line does not end with CR and LF."));
        }
        if before.ends_with(b"\r\n\r") {
            *scanned = 0;
            return match end <= bounds.bytes_max {
                true => Ok(Some(input.split_to(end).freeze())),
                false => Err(HeadError::TooLarge),
            };
        }
    }
    *scanned = input.len();
    match input.len() < bounds.bytes_max {
        true => Ok(None),
        false => Err(HeadError::TooLarge),
    }
}

/// Splits the first line off, without its end.
fn line(text: &[u8]) -> Result<(&[u8], &[u8]), HeadError> {
    let bad = HeadError::Malformed("A line does not end with CR and LF.");
    let end = memchr::memchr(b'\r', text).ok_or(bad)?;
    let (line, rest) = text.split_at_checked(end).ok_or(bad)?;
    Ok((line, rest.strip_prefix(b"\r\n").ok_or(bad)?))
}

/// What the fields of a message say about its body.
#[derive(Default)]
struct Body {
    coding: Option<Coding>,
    length: Option<u64>,
}

#[derive(Clone, Copy)]
enum Coding {
    Chunked,
    Other,
}

/// Reads field lines up to the empty one. `head` holds the bytes that `rest` looks at, so that values
/// are parts of it instead of copies.
fn fields(head: &Bytes, rest: &mut &[u8], bounds: Bounds) -> Result<(HeaderMap, Body), HeadError> {
    // Room for the fields that most requests have, and those that the gateway adds.
    let mut fields = HeaderMap::with_capacity(FIELDS_USUAL);
    let mut body = Body::default();
    let mut count = 0;
    loop {
        let (line, after) = line(rest)?;
        *rest = after;
        if line.is_empty() {
            return Ok((fields, body));
        }
        count += 1;
        if count > bounds.fields_max {
            return Err(HeadError::TooLarge);
        }
        let colon = memchr::memchr(b':', line)
            .ok_or(HeadError::Malformed("A field has no colon after its name."))?;
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        // Folded lines and spaces before the colon fail here: neither may be part of a name.
        let name = HeaderName::from_bytes(name)
            .map_err(|_| HeadError::Malformed("The name of a field is not valid."))?;
        let value = trim(value.get(1..).unwrap_or_default());
        let value = HeaderValue::from_maybe_shared(head.slice_ref(value))
            .map_err(|_| HeadError::Malformed("The value of a field is not valid."))?;
        if name == CONTENT_LENGTH {
            body.add_length(value.as_bytes())?;
        } else if name == TRANSFER_ENCODING {
            body.add_coding(value.as_bytes())?;
        }
        match fields.try_entry(name) {
            Ok(Entry::Vacant(entry)) => {
                entry.try_insert(value).map_err(|_| HeadError::TooLarge)?;
            }
            Ok(Entry::Occupied(mut entry)) => entry.append(value),
            Err(_) => return Err(HeadError::TooLarge),
        }
    }
}

impl Body {
    /// RFC 9112, section 6.3: more than one length is refused, even when they agree.
    fn add_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        let is_number = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        if self.length.is_some() || !is_number {
            return Err(HeadError::Malformed("The length of the body is not valid."));
        }
        let digits = value.iter().map(|digit| u64::from(digit - b'0'));
        self.length = Some(digits.fold(0, |n: u64, digit| n.wrapping_mul(10).wrapping_add(digit)));
        Ok(())
    }

    fn add_coding(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.coding.is_some() {
            return Err(HeadError::Malformed("The body is coded more than once."));
        }
        self.coding = Some(match value.eq_ignore_ascii_case(b"chunked") {
            true => Coding::Chunked,
            false => Coding::Other,
        });
        Ok(())
    }
}

fn version_of(text: &[u8]) -> Result<Version, HeadError> {
    match text {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(HeadError::Version)
        }
        _ => Err(HeadError::Malformed("The version of HTTP is not valid.")),
    }
}

/// RFC 9112, section 9.3.
fn is_persistent(version: Version, fields: &HeaderMap) -> bool {
    if version == Version::HTTP_10 {
        names(fields, "keep-alive") && !names(fields, "close")
    } else {
        !names(fields, "close")
    }
}

/// Whether a `connection` field has this option.
fn names(fields: &HeaderMap, option: &str) -> bool {
    fields.get_all(CONNECTION).iter().any(|value| {
        let mut options = value.as_bytes().split(|&b| b == b',');
        options.any(|found| trim(found).eq_ignore_ascii_case(option.as_bytes()))
    })
}

/// Without optional white space around it (RFC 9110, section 5.6.3).
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Writes a request's first line, its target in origin form.
pub fn write_request_line(out: &mut Vec<u8>, method: &Method, target: &Uri) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    match target.path_and_query() {
        Some(target) => {
            // Of `https://host?query`: an empty path is written as `/` (RFC 9112, section 3.2.1).
            if target.as_str().starts_with('?') {
                out.push(b'/');
            }
            out.extend_from_slice(target.as_str().as_bytes());
        }
        None => out.push(b'/'),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Writes a response's status line. Fields follow by [`write_field`].
pub fn write_status(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes field lines, without the empty one.
pub fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        write_field(out, name.as_str(), value.as_bytes());
    }
}

/// Writes one field line.
pub fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the field that delimits a body, if it has to be said.
pub fn write_framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            write_number(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Empty | Framing::Close => {}
    }
}

fn write_number(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut first = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(n % 10).unwrap_or_default();
        first = at;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
}

const TWO_FRAMINGS: &str = "The message has both a length and a transfer coding.";
const FIELDS_USUAL: usize = 24;
const RESPONSE_BEGINNING: &[u8] = b"HTTP/1.";
/// Fields that say how a message is delimited, routed, who sent it, or what it may do: some servers put
/// trailers among the other fields.
const NEVER_TRAILERS: &[&str] = &[
    "transfer-encoding",
    "content-length",
    "host",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "cookie",
    "set-cookie",
    "authorization",
    "content-type",
    "content-encoding",
    "content-range",
    "expect",
    "forwarded",
    "proxy-authorization",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "x-request-id",
];

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes_max: 1024, fields_max: 8 };

    fn read(text: &[u8]) -> Result<Option<RequestHead>, HeadError> {
        take_request(&mut BytesMut::from(text), &mut 0, BOUNDS)
    }

    fn answer(text: &[u8], method: Method) -> Result<Option<ResponseHead>, HeadError> {
        take_response(&mut BytesMut::from(text), &mut 0, BOUNDS, &method)
    }

    #[test]
    fn a_request_is_read_whole_and_nothing_after_it() {
        let text =
            b"\r\nPOST /a?b HTTP/1.1\r\nHost: x\r\nX-Y:\t z \t\r\ncontent-length: 3\r\n\r\nabcGET";
        let mut input = BytesMut::from(&text[..]);
        let head = take_request(&mut input, &mut 0, BOUNDS).unwrap().unwrap();
        assert_eq!((head.method, head.target.to_string()), (Method::POST, "/a?b".into()));
        assert_eq!((head.framing, head.is_persistent), (Framing::Length(3), true));
        assert_eq!(head.fields["x-y"], "z");
        assert_eq!(&input[..], b"abcGET");
    }

    #[test]
    fn a_head_in_single_bytes_is_the_same_head() {
        let text = b"GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n";
        let (mut input, mut scanned) = (BytesMut::new(), 0);
        for (at, byte) in text.iter().enumerate() {
            input.extend_from_slice(&[*byte]);
            let head = take_request(&mut input, &mut scanned, BOUNDS).unwrap();
            assert_eq!(head.is_some(), at + 1 == text.len());
            if let Some(head) = head {
                assert!(head.is_persistent && head.version == Version::HTTP_10);
            }
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let malformed: &[&[u8]] = &[
            b"GET / HTTP/1.1\nhost: a\n\n",
            b"GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: a\r\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n",
            b"GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET / HTTP/1.1 \r\nhost: a\r\n\r\n",
            b" GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET\t/\tHTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET /\x7f HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET /\xc3\xa4 HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET /#x HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GE(T / HTTP/1.1\r\nhost: a\r\n\r\n",
            b"GET / http/1.1\r\nhost: a\r\n\r\n",
            b"GET / HTTP/11\r\nhost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost : a\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost\r\n\r\n",
            b"GET / HTTP/1.1\r\n: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n x: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nx: a\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\nx: a\0b\r\n\r\n",
            b"GET / HTTP/1.1\r\nx\0: ab\r\n\r\n",
            b"GET / HTTP/1.1\r\nx: a\x01b\r\n\r\n",
            b"GET / HTTP/1.1\r\nx: a\x7fb\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 3, 3\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: +3\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: -3\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 0x3\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length:\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 3 3\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 18446744073709551617\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
        ];
        for text in malformed {
            let outcome = read(text);
            let shown = String::from_utf8_lossy(text);
            assert!(matches!(outcome, Err(HeadError::Malformed(_))), "{shown:?}: {outcome:?}");
        }
        for coding in ["identity", "chunked, identity", "gzip, chunked", "xchunked", ", chunked"] {
            let text = format!("POST / HTTP/1.1\r\ntransfer-encoding: {coding}\r\n\r\n");
            assert_eq!(read(text.as_bytes()).unwrap_err(), HeadError::Coding, "{coding}");
        }
        assert_eq!(read(b"GET / HTTP/2.0\r\n\r\n").unwrap_err(), HeadError::Version);
    }

    #[test]
    fn heads_are_bounded() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(9));
        assert_eq!(read(many.as_bytes()).unwrap_err(), HeadError::TooLarge);
        let long = format!("GET /{}", "a".repeat(1020));
        assert_eq!(read(long.as_bytes()).unwrap_err(), HeadError::TooLarge);
        assert!(read(&long.as_bytes()[..1023]).unwrap().is_none());
    }

    #[test]
    fn a_response_says_how_its_body_ends() {
        let get = Method::GET;
        for (text, framing) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Framing::Length(5)),
            ("HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", Framing::Empty),
            ("HTTP/1.1 200 \r\ntransfer-encoding: Chunked\r\n\r\n", Framing::Chunked),
            ("HTTP/1.0 200 OK\r\n\r\n", Framing::Close),
            ("HTTP/1.1 204 No Content\r\n\r\n", Framing::Empty),
            ("HTTP/1.1 304 x\r\ncontent-length: 9\r\n\r\n", Framing::Empty),
            ("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", Framing::Empty),
        ] {
            let head = answer(text.as_bytes(), get.clone()).unwrap().unwrap();
            assert_eq!(head.framing, framing, "{text}");
        }
        let head = answer(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Method::HEAD);
        assert_eq!(head.unwrap().unwrap().framing, Framing::Empty);
        for text in [
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 200OK\r\n\r\n",
            "SSH-2.0-x\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        ] {
            assert!(answer(text.as_bytes(), get.clone()).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_written_as_they_are() {
        for n in [0, 7, 10, 1_234_567_890, u64::MAX] {
            let mut out = Vec::new();
            write_number(&mut out, n);
            assert_eq!(String::from_utf8(out).unwrap(), n.to_string());
        }
    }

    #[test]
    fn an_empty_path_is_written_as_a_slash() {
        for (target, line) in [
            ("https://a.example?q=/x", "GET /?q=/x HTTP/1.1\r\n"),
            ("https://a.example", "GET / HTTP/1.1\r\n"),
            ("/x?q", "GET /x?q HTTP/1.1\r\n"),
            ("*", "GET * HTTP/1.1\r\n"),
        ] {
            let mut out = Vec::new();
            write_request_line(&mut out, &Method::GET, &target.parse().unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), line);
        }
    }

    #[test]
    fn trailers_cannot_change_the_message() {
        let mut input = BytesMut::from(&b"x-sum: 1\r\ncontent-length: 5\r\n\r\nGET"[..]);
        let fields = take_trailers(&mut input, &mut 0, BOUNDS).unwrap().unwrap();
        assert_eq!((fields.len(), &fields["x-sum"]), (1, &HeaderValue::from_static("1")));
        assert_eq!(&input[..], b"GET");
        let mut input = BytesMut::from(&b"\r\nGET"[..]);
        assert!(take_trailers(&mut input, &mut 0, BOUNDS).unwrap().unwrap().is_empty());
        assert_eq!(&input[..], b"GET");
    }
}
