//! Entry functions for hostile bytes: each takes any input to one of the readers that face the network or
//! the operator, and says what held that must not. Used by the targets in `tests/fuzz` and, with a
//! deterministic mutator over the same seeds, by the tests below. Nothing in the gateway calls this.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap as Fields, Method};

use crate::config::{self, Manifest, Paths, ProxyVersion};
use crate::h1::chunk::{self, Decoder, Piece};
use crate::h1::head::{self, Bounds, Framing, HeadError, RequestHead, ResponseHead};
use crate::h2;
use crate::http::files;
use crate::http::h3::gate::{Allowance, Gate, Violation};
use crate::http::headers::{self, Forwarding};
use crate::proxy::{self, Ends};
use crate::route::path as route_path;
use crate::tls::accept;
use crate::tls::certs::Certs;
use crate::tls::fingerprint::{self, Transport};

/// A reader under test: what held that must not, as text.
pub type Entry = fn(&[u8]) -> Result<(), String>;

/// All of them, by the names of their targets and of their folders of seeds.
pub const ENTRIES: [(&str, Entry); 12] = [
    ("hello", hello),
    ("proxy", proxy),
    ("h3", h3),
    ("request", request),
    ("response", response),
    ("chunks", chunks),
    ("path", path),
    ("fields", fields),
    ("config", config),
    ("manifest", manifest),
    ("frames", frames),
    ("hpack", hpack),
];

/// A ClientHello: without a certificate, nobody is served, and a fingerprint is of its form.
///
/// # Errors
/// When somebody is, or when it is not.
pub fn hello(bytes: &[u8]) -> Result<(), String> {
    let message = fingerprint::unwrap_records(bytes);
    // What the other side answers is read by the same reader.
    let _ = fingerprint::agreed(&message);
    if let Some(ja4) = fingerprint::ja4(&message, Transport::Tcp) {
        let is_plain = ja4.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_plain || ja4.len() != JA4_BYTES {
            return Err(format!("{ja4:?} is no fingerprint"));
        }
    }
    match accept::would_serve(bytes, &Certs::default()) {
        false => Ok(()),
        true => Err("a ClientHello is served without any certificate".to_owned()),
    }
}

/// A PROXY header: not a byte more is read than it has, one byte less is none, and what it says of the
/// ends of a connection reads the same when it is written again, in either version.
///
/// # Errors
/// When it does not.
pub fn proxy(bytes: &[u8]) -> Result<(), String> {
    let Some((header, length)) = proxy_header(bytes)? else { return Ok(()) };
    let (whole, cut) = bytes.split_at_checked(length).map_or((bytes, bytes), |(whole, _)| {
        (whole, whole.get(..length.saturating_sub(1)).unwrap_or_default())
    });
    if proxy_header(whole)?.as_ref() != Some(&(header.clone(), length)) {
        return Err(format!("{header:?} comes of what follows it"));
    }
    if let Some((less, _)) = proxy_header(cut)? {
        return Err(format!("{less:?} comes of a header that is cut off"));
    }
    let canonical = |ends: Ends| {
        let side = |end: std::net::SocketAddr| (end.ip().to_canonical(), end.port());
        (side(ends.source), side(ends.destination))
    };
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let authority = header.authority.as_deref();
        let again = proxy_header(&proxy::write(version, header.ends, authority))?;
        let again = again.map(|(again, _)| again).unwrap_or_default();
        // What speaks of no client has nothing to say of its wishes either.
        let is_told = version == ProxyVersion::V2 && header.ends.is_some();
        if again.ends.map(canonical) != header.ends.map(canonical)
            || again.authority != header.authority.clone().filter(|_| is_told)
        {
            return Err(format!("{header:?} reads as {again:?} in {version:?}"));
        }
    }
    Ok(())
}

/// The frames of a client's HTTP/3 streams: pieces of any size pass alike, and hold no more than is
/// allowed. The first byte says which stream it is.
///
/// # Errors
/// When they do not.
pub fn h3(bytes: &[u8]) -> Result<(), String> {
    let Some((first, bytes)) = bytes.split_first() else { return Ok(()) };
    let make = || match first % 2 {
        0 => Gate::request(BOUNDS.bytes_max),
        _ => Gate::one_way(Allowance::new()),
    };
    let passed = |step: usize| {
        let mut gate = make();
        for piece in bytes.chunks(step) {
            gate.push(Bytes::copy_from_slice(piece))?;
        }
        Ok::<_, Violation>(std::iter::from_fn(|| gate.pop()).flatten().collect::<Vec<u8>>())
    };
    let whole = passed(bytes.len().max(1));
    for step in [1, 3, 16] {
        let parted = passed(step);
        if whole != parted {
            return Err(format!("whole {whole:?}, by {step} {parted:?}"));
        }
    }
    match whole {
        // A wish for a WebSocket grows when it is made readable, once for each head.
        Ok(passed) if passed.len() > bytes.len() + HEAD_GROWS_BY => {
            Err(format!("{} bytes became {}", bytes.len(), passed.len()))
        }
        _ => Ok(()),
    }
}

/// The head of a request: pieces of any size give the same, and what is written again reads the same.
///
/// # Errors
/// When it does not.
pub fn request(bytes: &[u8]) -> Result<(), String> {
    let take =
        |input: &mut BytesMut, scanned: &mut usize| head::take_request(input, scanned, BOUNDS);
    let Some(found) = same_in_pieces(bytes, take)? else { return Ok(()) };
    let RequestHead { method, target, fields, framing, .. } = found;
    let mut out = Vec::new();
    head::write_request_line(&mut out, &method, &target);
    write_again(&mut out, &fields, framing);
    let again = head::take_request(&mut BytesMut::from(&out[..]), &mut 0, AGAIN);
    match again {
        Ok(Some(again))
            if again.framing == framing
                && again.method == method
                && same_fields(&again.fields, &fields) =>
        {
            Ok(())
        }
        other => Err(format!("{:?} reads as {other:?}", String::from_utf8_lossy(&out))),
    }
}

/// The head of a response, as [`request`].
///
/// # Errors
/// As there.
pub fn response(bytes: &[u8]) -> Result<(), String> {
    let method = if bytes.len().is_multiple_of(4) { Method::HEAD } else { Method::GET };
    let take = |input: &mut BytesMut, scanned: &mut usize| {
        head::take_response(input, scanned, BOUNDS, &method)
    };
    let Some(found) = same_in_pieces(bytes, take)? else { return Ok(()) };
    let ResponseHead { status, fields, framing, .. } = found;
    let mut out = Vec::new();
    head::write_status(&mut out, status);
    write_again(&mut out, &fields, framing);
    let again = head::take_response(&mut BytesMut::from(&out[..]), &mut 0, AGAIN, &method);
    match again {
        Ok(Some(again)) if again.status == status && same_fields(&again.fields, &fields) => Ok(()),
        other => Err(format!("{:?} reads as {other:?}", String::from_utf8_lossy(&out))),
    }
}

/// A chunked body: pieces of any size give the same content, the same end and the same rest.
///
/// # Errors
/// When they do not.
pub fn chunks(bytes: &[u8]) -> Result<(), String> {
    let whole = decoded(bytes, bytes.len().max(1));
    for step in [1, 2, 3, 7] {
        let parted = decoded(bytes, step);
        // How much of the content comes before an error depends on the pieces.
        if whole.is_ok() != parted.is_ok() || whole.is_ok() && whole != parted {
            return Err(format!("whole {whole:?}, by {step} {parted:?}"));
        }
    }
    let Ok(Some((content, ..))) = whole else { return Ok(()) };
    let mut out = Vec::new();
    if !content.is_empty() {
        chunk::write_size(&mut out, content.len());
        out.extend_from_slice(&content);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    match decoded(&out, out.len()) {
        Ok(Some((again, fields, rest)))
            if again == content && fields.is_empty() && rest.is_empty() =>
        {
            Ok(())
        }
        other => Err(format!("written again it reads {other:?}")),
    }
}

/// A path: what is safe has no dot segment in any reading, and comes off itself whole.
///
/// # Errors
/// When it has.
pub fn path(bytes: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    let (path, prefix) = text.split_once('\n').unwrap_or((text, "/a%2fb/%63"));
    if !path.starts_with('/') {
        return Ok(());
    }
    if let Some((name, _)) = files::path::name(path, true) {
        let name = Path::new(&name);
        if !name.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            return Err(format!("{path:?} leads to {name:?}, out of its folder"));
        }
    }
    if route_path::strip_prefix(path, path) != Some("") {
        return Err(format!("{path:?} does not come off itself"));
    }
    if let Some(rest) = route_path::strip_prefix(path, prefix)
        && !route_path::decoded(path).ends_with(&route_path::decoded(rest))
    {
        return Err(format!("{path:?} without {prefix:?} is {rest:?}"));
    }
    let is_strict = route_path::check(path, Paths::Strict).is_ok();
    if route_path::check(path, Paths::Safe).is_err() {
        return match is_strict {
            true => Err(format!("{path:?} is strict and not safe")),
            false => Ok(()),
        };
    }
    let mut reading = path.as_bytes().to_vec();
    for _ in 0..2 {
        let mut segments = reading.split(|b| matches!(b, b'/' | b'\\'));
        if segments.any(|segment| segment == b".." || segment == b".") {
            return Err(format!("{path:?} is safe and has a dot segment"));
        }
        // As a server does that decodes everything at once.
        reading = percent_decoded(&reading);
    }
    Ok(())
}

/// Fields of a request on their way to a server: whatever a stranger sends, there is one client.
///
/// # Errors
/// When there is another.
pub fn fields(bytes: &[u8]) -> Result<(), String> {
    let mut fields = Fields::new();
    for line in bytes.split(|b| *b == b'\n') {
        let Some(at) = line.iter().position(|b| *b == b':') else { continue };
        let (name, value) = line.split_at_checked(at).unwrap_or_default();
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            let _ = fields.try_append(name, value);
        }
    }
    let peer = std::net::SocketAddr::from(([192, 0, 2, 1], 1));
    let trusted = ["192.0.2.0/24".parse::<ipnet::IpNet>().map_err(|e| e.to_string())?];
    let _ = headers::client(peer, &trusted, &fields);
    if headers::client(peer, &[], &fields) != peer {
        return Err("a stranger says who it is".to_owned());
    }
    headers::join_cookies(&mut fields);
    headers::strip_named(&mut fields);
    headers::strip_hop_by_hop(&mut fields);
    let Some(ours) = Forwarding::new(peer.ip(), "https", "a.example") else {
        return Err("no forwarding fields".to_owned());
    };
    headers::forward(&mut fields, &ours, false);
    let clients: Vec<_> = fields.get_all("x-forwarded-for").iter().collect();
    let odd = ["connection", "keep-alive", "transfer-encoding", "upgrade", "x_forwarded_for"];
    match clients.as_slice() {
        [one] if *one == "192.0.2.1" && odd.iter().all(|name| !fields.contains_key(*name)) => {
            Ok(())
        }
        _ => Err(format!("{fields:?}")),
    }
}

/// A configuration: its mistakes and its normal form can be written, whatever it is.
///
/// # Errors
/// When the normal form of a file is none.
pub fn config(bytes: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    let (file, base) = (Path::new("gateway.yaml"), Path::new("/etc/witgate"));
    match config::parse(text, file, base) {
        Err(report) => drop(report.to_string()),
        Ok(loaded) => {
            let normal = config::normal_form(&loaded.config);
            // Secrets that stood in the file do not stand in its normal form.
            if !normal.contains("[secret]")
                && let Err(report) = config::parse(&normal, file, base)
            {
                return Err(format!("the normal form is refused:\n{report}\n{normal}"));
            }
        }
    }
    Ok(())
}

/// What a plugin says of itself: its mistakes can be written, whatever it is.
///
/// # Errors
/// Never; it must not panic.
pub fn manifest(bytes: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    match Manifest::parse(text, Path::new("plugin.yaml")) {
        Err(report) => drop(report.to_string()),
        Ok((_, warnings)) => drop(format!("{warnings:?}")),
    }
    Ok(())
}

/// Frames of HTTP/2 after the preface and settings: pieces of any size give the same events and the same
/// answers, and no more streams are open than allowed.
///
/// # Errors
/// When they do not, or are.
pub fn frames(bytes: &[u8]) -> Result<(), String> {
    let whole = events(bytes, bytes.len().max(1))?;
    for step in [1, 3, 64] {
        let parted = events(bytes, step)?;
        if whole != parted {
            return Err(format!("whole {whole:?}, by {step} {parted:?}"));
        }
    }
    Ok(())
}

/// A header and how many bytes it has; `None` when there is none.
fn proxy_header(bytes: &[u8]) -> Result<Option<(proxy::Header, usize)>, String> {
    let mut rest = bytes;
    let outcome = {
        let mut reading = std::pin::pin!(proxy::read(&mut rest));
        // Bytes in memory never wait.
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match reading.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(outcome) => outcome,
            std::task::Poll::Pending => return Err("a header that waits for nothing".to_owned()),
        }
    };
    Ok(outcome.ok().map(|header| (header, bytes.len() - rest.len())))
}

/// What comes of frames, as text, and what is answered.
fn events(bytes: &[u8], step: usize) -> Result<(String, Vec<u8>), String> {
    let bounds = h2::conn::Bounds { head_bytes_max: 4096, fields_max: 24, streams_max: 4 };
    let mut conn = h2::conn::Conn::new(bounds);
    let mut input = BytesMut::from(h2::frame::PREFACE);
    input.extend_from_slice(&[0, 0, 0, h2::frame::kind::SETTINGS, 0, 0, 0, 0, 0]);
    let now = std::time::Instant::now();
    let mut seen = String::new();
    for piece in bytes.chunks(step) {
        input.extend_from_slice(piece);
        loop {
            let event = match conn.take(&mut input, || now) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(fatal) => return Ok((format!("{seen}{fatal:?}"), conn.out)),
            };
            seen += &format!("{event:?}\n");
            if conn.open() > bounds.streams_max {
                return Err("more streams are open than allowed".to_owned());
            }
            // Some are answered at once, so that keys come again; what has come is taken.
            match event {
                h2::conn::Event::Request { key, is_last: true, .. } if key % 2 == 0 => {
                    conn.finish(key);
                }
                h2::conn::Event::Data { key, data, .. } => conn.release(Some(key), data.len()),
                _ => {}
            }
        }
    }
    Ok((seen, conn.out))
}

/// Blocks of HPACK, each after a byte that says how long it is: the table keeps to its size, and a text
/// that was Huffman-coded decodes to itself.
///
/// # Errors
/// When it does not.
pub fn hpack(bytes: &[u8]) -> Result<(), String> {
    let (mut code, mut text) = (Vec::new(), Vec::new());
    h2::huffman::encode(bytes, &mut code);
    if h2::huffman::decode(&code, &mut text).is_none() || text != bytes {
        return Err(format!("{bytes:x?} comes back as {text:x?}"));
    }
    let mut decoder = h2::hpack::Decoder::default();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first() {
        let (mut block, after) = after.split_at(after.len().min(usize::from(*length)));
        rest = after;
        let mut is_first = true;
        while let Ok(Some((_, size))) = decoder.next(&mut block, is_first) {
            is_first = false;
            if size < 32 || decoder.bytes() > h2::hpack::TABLE_BYTES {
                return Err(format!("a field of {size}, a table of {}", decoder.bytes()));
            }
        }
    }
    Ok(())
}

/// Reads a head whole and in pieces; the same has to come of it.
fn same_in_pieces<H: std::fmt::Debug>(
    bytes: &[u8],
    take: impl Fn(&mut BytesMut, &mut usize) -> Result<Option<H>, HeadError>,
) -> Result<Option<H>, String> {
    let mut input = BytesMut::from(bytes);
    let whole = take(&mut input, &mut 0);
    for step in [1, 3, 16] {
        let (mut parted, mut scanned, mut outcome) = (BytesMut::new(), 0, Ok(None));
        let mut parts = bytes.chunks(step);
        for part in parts.by_ref() {
            parted.extend_from_slice(part);
            outcome = take(&mut parted, &mut scanned);
            if !matches!(outcome, Ok(None)) {
                break;
            }
        }
        let rest = [&parted[..], &parts.collect::<Vec<_>>().concat()].concat();
        let is_same = match (&whole, &outcome) {
            (Ok(one), Ok(other)) => {
                format!("{one:?}") == format!("{other:?}") && (one.is_none() || input[..] == rest)
            }
            (Err(_), Err(_)) => true,
            // What is too much is seen when there is that much.
            _ => false,
        };
        if !is_same {
            return Err(format!("whole {whole:?}, by {step} {outcome:?}"));
        }
    }
    Ok(whole.ok().flatten())
}

fn write_again(out: &mut Vec<u8>, fields: &HeaderMap, framing: Framing) {
    for (name, value) in fields {
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            head::write_field(out, name.as_str(), value.as_bytes());
        }
    }
    head::write_framing(out, framing);
    out.extend_from_slice(b"\r\n");
}

/// Whether all fields but those of the framing are the same.
fn same_fields(one: &HeaderMap, other: &HeaderMap) -> bool {
    let text = |fields: &HeaderMap| {
        let others =
            fields.iter().filter(|(n, _)| **n != CONTENT_LENGTH && **n != TRANSFER_ENCODING);
        others.map(|field| format!("{field:?}")).collect::<Vec<_>>()
    };
    text(one) == text(other)
}

/// Content, trailers, and what comes after.
type Whole = (Vec<u8>, HeaderMap, Vec<u8>);

fn decoded(bytes: &[u8], step: usize) -> Result<Option<Whole>, HeadError> {
    let (mut decoder, mut input, mut content) = (Decoder::default(), BytesMut::new(), Vec::new());
    let mut parts = bytes.chunks(step);
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

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digit = |c: &u8| char::from(*c).to_digit(16);
        let escaped = match rest {
            [b'%', high, low, ..] => digit(high).zip(digit(low)),
            _ => None,
        };
        match escaped.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = rest.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// `t13d1516h2_8daaf6152771_b186095e22b6` and all others.
const JA4_BYTES: usize = 36;
/// The length of a head in eight bytes, and the name for the protocol that stands for a WebSocket.
const HEAD_GROWS_BY: usize = 64;
const BOUNDS: Bounds = Bounds { bytes_max: 2048, fields_max: 24 };
/// What is written again has spaces after its colons.
const AGAIN: Bounds = Bounds { bytes_max: 8192, fields_max: 32 };

#[cfg(test)]
mod tests {
    use super::*;

    /// What is worth putting somewhere, of all formats.
    const TOKENS: &[&str] = &[
        "\r\n",
        "\n",
        "\r",
        "\r\n\r\n",
        " ",
        "\t",
        ":",
        ": ",
        "\0",
        "0",
        "5\r\n",
        ";",
        "%2e",
        "%2F",
        "..",
        "/",
        "\\",
        "%",
        "#",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "chunked",
        "Connection: ",
        "x-forwarded-for: 1.1.1.1\n",
        "HTTP/1.1",
        "HTTP/1.0",
        "- ",
        "[",
        "{",
        "}",
        "&a ",
        "*a",
        "é",
        "\u{ff}",
        "'",
        "\"",
        "|",
        "~",
        "sites:\n",
        "ffffffffffffffff",
        "18446744073709551616",
        "PROXY TCP4 ",
        "192.0.2.1 ",
        "\r\n\r\n\0\r\nQUIT\n",
        "\x01\x05\0\0",
    ];

    #[test]
    fn mutations_of_the_seeds_find_nothing() {
        let rounds = std::env::var("FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4000);
        for (name, entry) in ENTRIES {
            let folder =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds").join(name);
            let mut files: Vec<_> = std::fs::read_dir(&folder)
                .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
                .map(|entry| entry.unwrap().path())
                .collect();
            files.sort();
            let seeds: Vec<Vec<u8>> = files.iter().map(|f| std::fs::read(f).unwrap()).collect();
            assert!(!seeds.is_empty(), "{}", folder.display());
            for (seed, file) in seeds.iter().zip(&files) {
                entry(seed).unwrap_or_else(|what| panic!("{}: {what}", file.display()));
            }
            let rounds = if name == "config" { rounds / 20 } else { rounds };
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            for _ in 0..rounds {
                let bytes = mutated(&seeds, &mut random);
                if let Err(what) = entry(&bytes) {
                    panic!("{name}: {:?}: {what}", String::from_utf8_lossy(&bytes));
                }
            }
        }
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit.max(1) as u64) as usize
        }
    }

    fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(5) {
            let at = random.below(bytes.len() + 1);
            match random.below(6) {
                0 if at < bytes.len() => bytes[at] = random.below(256) as u8,
                1 => {
                    let token = TOKENS[random.below(TOKENS.len())].bytes();
                    drop(bytes.splice(at..at, token));
                }
                2 => drop(bytes.drain(at..(at + random.below(16)).min(bytes.len()))),
                3 => {
                    let end = (at + random.below(64)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = random.below(bytes.len() + 1);
                    drop(bytes.splice(to..to, piece));
                }
                4 => {
                    let other = &seeds[random.below(seeds.len())];
                    let from = random.below(other.len() + 1);
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
                _ => bytes.truncate(at),
            }
        }
        bytes
    }
}
