//! Promise: HTTP/2 is spoken by its rules (RFC 9113, RFC 7541): what breaks one ends the stream or the
//! connection with the error that the rule names, and what breaks none is served. The cases are those
//! of h2spec, but for the priorities of streams, which RFC 9113 has given up.

use crate::harness::h2::{self, Frame, RawH2, flag, frame, kind};
use crate::harness::{Gateway, RustOrigin, SOON, within};

/// What has to come of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The stream is reset with this code, and the connection lives.
    Reset(u32),
    /// The connection ends with this code.
    Over(u32),
    /// Nothing ends.
    Fine,
    /// Stream 1 is answered.
    Status(u16),
}

use Outcome::{Fine, Over, Reset, Status};

const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION: u32 = 9;

const PADDED: u8 = 8;
const HOST: &str = "app.localhost";
const CONTINUED: u8 = 0;
const PUSH_PROMISE: u8 = 5;

/// A whole request.
fn get(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, &h2::get(HOST, "/"))
}

/// A request whose body is to come, and whose answer waits for that.
fn open(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream, &post(&[]))
}

fn post(fields: &[(&str, &str)]) -> Vec<u8> {
    let head = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", "/")];
    h2::block(&[&head, fields].concat())
}

/// A request that never is answered.
fn waiting(stream: u32) -> Vec<u8> {
    let block = h2::get(HOST, "/never");
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, &block)
}

/// A request of these fields beside the usual ones.
fn with(fields: &[(&str, &str)]) -> Vec<u8> {
    let block = [h2::get(HOST, "/"), h2::block(fields)].concat();
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block)
}

fn of(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &h2::block(fields))
}

fn coded(block: &[u8]) -> Vec<u8> {
    let block = [&h2::get(HOST, "/")[..], block].concat();
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block)
}

fn setting(name: u16, value: u32) -> Vec<u8> {
    let payload = [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(kind::SETTINGS, 0, 0, &payload)
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn data(stream: u32, is_last: bool, bytes: &[u8]) -> Vec<u8> {
    frame(kind::DATA, u8::from(is_last), stream, bytes)
}

fn continued(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(kind::CONTINUATION, flags, stream, block)
}

/// Each with the section that it is about.
#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<(&'static str, Vec<u8>, Outcome)> {
    let block = h2::get(HOST, "/");
    let (first, rest) = block.split_at(10);
    let begun = |stream| frame(kind::HEADERS, flag::END_STREAM, stream, first);
    let reserved = {
        let mut bytes = frame(kind::PING, 0, 0, &[0; 8]);
        bytes[5] = 0x80;
        bytes
    };
    let priority = |stream, bytes: usize| frame(kind::PRIORITY, 0, stream, &vec![0; bytes]);
    let ends = flag::END_HEADERS | flag::END_STREAM;
    vec![
        ("4.1 unknown frames", [frame(99, 0xff, 0, b"x"), get(1)].concat(), Status(200)),
        (
            "4.1 undefined flags",
            [frame(kind::PING, 0xfe, 0, &[0; 8]), get(1)].concat(),
            Status(200),
        ),
        ("4.1 the reserved bit", [reserved, get(1)].concat(), Status(200)),
        ("4.2 the largest frame", [open(1), data(1, true, &[0; 16384])].concat(), Status(200)),
        ("4.2 data too large", [open(1), data(1, true, &[0; 16385])].concat(), Over(FRAME_SIZE)),
        ("4.2 a head too large", coded(&[0; 17000]), Over(FRAME_SIZE)),
        ("4.3 no block of fields", frame(kind::HEADERS, ends, 1, &[0xff; 4]), Over(COMPRESSION)),
        ("4.3 a priority inside", [begun(1), priority(1, 5)].concat(), Over(PROTOCOL)),
        ("4.3 another head inside", [begun(1), get(3)].concat(), Over(PROTOCOL)),
        ("5.1 data while idle", data(1, true, b"x"), Over(PROTOCOL)),
        ("5.1 a reset while idle", reset(1, 8), Over(PROTOCOL)),
        ("5.1 a window while idle", window(1, 10), Over(PROTOCOL)),
        ("5.1 a continuation while idle", continued(1, 4, rest), Over(PROTOCOL)),
        (
            "5.1 data after the end",
            [waiting(1), data(1, true, b"x")].concat(),
            Reset(STREAM_CLOSED),
        ),
        ("5.1 a head after the end", [waiting(1), get(1)].concat(), Reset(STREAM_CLOSED)),
        (
            "5.1 a continuation after the end",
            [waiting(1), continued(1, 4, rest)].concat(),
            Over(PROTOCOL),
        ),
        (
            "5.1 data after a reset",
            [open(1), reset(1, 8), data(1, true, b"x")].concat(),
            Reset(STREAM_CLOSED),
        ),
        ("5.1 a head after a reset", [open(1), reset(1, 8), get(1)].concat(), Over(STREAM_CLOSED)),
        ("5.1 a window after a reset", [open(1), reset(1, 8), window(1, 1)].concat(), Fine),
        ("5.1 a priority after a reset", [open(1), reset(1, 8), priority(1, 5)].concat(), Fine),
        ("5.1.1 an even stream", get(2), Over(PROTOCOL)),
        ("5.1.1 a smaller stream", [waiting(5), get(3)].concat(), Over(PROTOCOL)),
        (
            "5.1.2 too many streams",
            (0..=100).flat_map(|n| waiting(2 * n + 1)).collect(),
            Reset(REFUSED_STREAM),
        ),
        ("5.5 an unknown frame inside", [begun(1), frame(99, 0, 1, b"")].concat(), Over(PROTOCOL)),
        ("6.1 data of no stream", data(0, true, b"x"), Over(PROTOCOL)),
        (
            "6.1 too much padding",
            [open(1), frame(kind::DATA, PADDED, 1, &[5, 0, 0])].concat(),
            Over(PROTOCOL),
        ),
        (
            "6.1 padding",
            [open(1), frame(kind::DATA, PADDED | flag::END_STREAM, 1, b"\x02xx\0\0")].concat(),
            Status(200),
        ),
        ("6.2 a head of no stream", get(0), Over(PROTOCOL)),
        (
            "6.2 too much padding",
            frame(kind::HEADERS, PADDED | ends, 1, &[9, 0x82, 0]),
            Over(PROTOCOL),
        ),
        (
            "6.2 padding and a priority",
            frame(
                kind::HEADERS,
                PADDED | 0x20 | ends,
                1,
                &[&[1, 0, 0, 0, 0, 9][..], &block, &[0]].concat(),
            ),
            Status(200),
        ),
        ("6.3 a priority of no stream", priority(0, 5), Over(PROTOCOL)),
        ("6.3 a short priority", [waiting(1), priority(1, 4)].concat(), Reset(FRAME_SIZE)),
        ("6.3 a priority while idle", [priority(7, 5), get(9)].concat(), Fine),
        ("6.4 a reset of no stream", reset(0, 8), Over(PROTOCOL)),
        (
            "6.4 a short reset",
            [waiting(1), frame(kind::RST_STREAM, 0, 1, &[0; 3])].concat(),
            Over(FRAME_SIZE),
        ),
        ("6.5 an ack with settings", frame(kind::SETTINGS, 1, 0, &[0; 6]), Over(FRAME_SIZE)),
        ("6.5 settings of a stream", frame(kind::SETTINGS, 0, 1, &[0; 6]), Over(PROTOCOL)),
        ("6.5 settings cut off", frame(kind::SETTINGS, 0, 0, &[0; 3]), Over(FRAME_SIZE)),
        ("6.5.2 push neither on nor off", setting(2, 2), Over(PROTOCOL)),
        ("6.5.2 a window too large", setting(4, 1 << 31), Over(FLOW_CONTROL)),
        ("6.5.2 frames too small", setting(5, 16383), Over(PROTOCOL)),
        ("6.5.2 frames too large", setting(5, 1 << 24), Over(PROTOCOL)),
        ("6.5.2 an unknown setting", [setting(0xff, 1), get(1)].concat(), Status(200)),
        ("6.7 a ping of a stream", frame(kind::PING, 0, 1, &[0; 8]), Over(PROTOCOL)),
        ("6.7 a short ping", frame(kind::PING, 0, 0, &[0; 6]), Over(FRAME_SIZE)),
        ("6.7 an answer to no ping", frame(kind::PING, 1, 0, &[9; 8]), Fine),
        ("6.8 a goaway of a stream", frame(kind::GOAWAY, 0, 1, &[0; 8]), Over(PROTOCOL)),
        ("6.9 a window by nothing", window(0, 0), Over(PROTOCOL)),
        ("6.9 a stream's window by nothing", [waiting(1), window(1, 0)].concat(), Reset(PROTOCOL)),
        ("6.9 a short window", frame(kind::WINDOW_UPDATE, 0, 0, &[0; 3]), Over(FRAME_SIZE)),
        ("6.9.1 a window too large", [window(0, i32::MAX as u32)].concat(), Over(FLOW_CONTROL)),
        (
            "6.9.1 a stream's window too large",
            [waiting(1), window(1, i32::MAX as u32)].concat(),
            Reset(FLOW_CONTROL),
        ),
        (
            "6.9.2 windows too large by a setting",
            [waiting(1), window(1, 1 << 30), setting(4, i32::MAX as u32)].concat(),
            Over(FLOW_CONTROL),
        ),
        (
            "6.10 continuations",
            [begun(1), continued(1, CONTINUED, &rest[..3]), continued(1, 4, &rest[3..])].concat(),
            Status(200),
        ),
        ("6.10 one too many", [waiting(1), continued(1, 4, b"")].concat(), Over(PROTOCOL)),
        ("6.10 of no stream", [begun(1), continued(0, 4, rest)].concat(), Over(PROTOCOL)),
        ("6.10 of another stream", [begun(1), continued(3, 4, rest)].concat(), Over(PROTOCOL)),
        ("6.10 data inside", [begun(1), data(1, false, b"x")].concat(), Over(PROTOCOL)),
        ("7 an unknown error", [open(1), reset(1, 0xff)].concat(), Fine),
        (
            "8.1 a second head that does not end",
            [open(1), frame(kind::HEADERS, flag::END_HEADERS, 1, &h2::block(&[("x", "y")]))]
                .concat(),
            Reset(PROTOCOL),
        ),
        (
            "8.1 trailers",
            [open(1), frame(kind::HEADERS, ends, 1, &h2::block(&[("x", "y")]))].concat(),
            Status(200),
        ),
        ("8.2.1 capitals", with(&[("X-Test", "ok")]), Reset(PROTOCOL)),
        ("8.2.2 connection", with(&[("connection", "keep-alive")]), Reset(PROTOCOL)),
        ("8.2.2 te", with(&[("te", "trailers, deflate")]), Reset(PROTOCOL)),
        ("8.2.2 te: trailers", with(&[("te", "trailers")]), Status(200)),
        ("8.3 an unknown pseudo-field", with(&[(":test", "ok")]), Reset(PROTOCOL)),
        ("8.3 a field of responses", with(&[(":status", "200")]), Reset(PROTOCOL)),
        (
            "8.3 a pseudo-field after a field",
            of(&[(":method", "GET"), ("x", "y"), (":scheme", "https"), (":path", "/")]),
            Reset(PROTOCOL),
        ),
        (
            "8.3 a pseudo-field in trailers",
            [open(1), frame(kind::HEADERS, ends, 1, &h2::block(&[(":method", "GET")]))].concat(),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1 an empty path",
            of(&[(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "")]),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1 no method",
            of(&[(":scheme", "https"), (":authority", HOST), (":path", "/")]),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1 no scheme",
            of(&[(":method", "GET"), (":authority", HOST), (":path", "/")]),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1 no path",
            of(&[(":method", "GET"), (":scheme", "https"), (":authority", HOST)]),
            Reset(PROTOCOL),
        ),
        ("8.3.1 two methods", with(&[(":method", "GET")]), Reset(PROTOCOL)),
        ("8.3.1 two schemes", with(&[(":scheme", "https")]), Reset(PROTOCOL)),
        ("8.3.1 two paths", with(&[(":path", "/")]), Reset(PROTOCOL)),
        (
            "8.1.1 a length that is not that of the body",
            [
                frame(kind::HEADERS, flag::END_HEADERS, 1, &post(&[("content-length", "1")])),
                data(1, true, b"test"),
            ]
            .concat(),
            Reset(PROTOCOL),
        ),
        (
            "8.1.1 nor that of its pieces",
            [
                frame(kind::HEADERS, flag::END_HEADERS, 1, &post(&[("content-length", "9")])),
                data(1, false, b"test"),
                data(1, true, b"test"),
            ]
            .concat(),
            Reset(PROTOCOL),
        ),
        ("8.4 a push", frame(PUSH_PROMISE, flag::END_HEADERS, 1, &block), Over(PROTOCOL)),
        ("HPACK 2.3.3 an index beyond the tables", coded(&[0xc6]), Over(COMPRESSION)),
        ("HPACK 4.2 a new size at the end", coded(&[0x20]), Over(COMPRESSION)),
        (
            "HPACK 5.2 more than 7 bits",
            coded(b"\x00\x01x\x87\xf2\xb2\x4a\xf9\xff\xff\xff"),
            Over(9),
        ),
        ("HPACK 5.2 zeros", coded(b"\x00\x01x\x81\x18"), Over(COMPRESSION)),
        ("HPACK 5.2 the end", coded(b"\x00\x01x\x85\xff\xff\xff\xff\xff"), Over(COMPRESSION)),
        ("HPACK 6.1 index 0", coded(&[0x80]), Over(COMPRESSION)),
        (
            "HPACK 6.3 a table too large",
            frame(kind::HEADERS, ends, 1, &[&[0x3f, 0xff, 0xff, 0x7f][..], &block].concat()),
            Over(COMPRESSION),
        ),
    ]
}

/// Sends frames and a ping after them; what became of both.
async fn outcome(h2: &mut RawH2, frames: &[u8], expected: Outcome) -> Outcome {
    // The end may come before all is sent.
    let _ = h2.send_all(&[frames, &frame(kind::PING, 0, 0, b"barrier!")].concat()).await;
    let (mut reset, mut status, mut is_past) = (None, None, false);
    loop {
        if let (true, Some(code)) = (is_past, reset) {
            return Reset(code);
        }
        if is_past && (status.is_some() || !matches!(expected, Status(_))) {
            return status.map_or(Fine, Status);
        }
        let Some(Frame { kind, flags, payload, .. }) = h2.next().await else {
            return reset.map_or(Over(u32::MAX), Reset);
        };
        let code = |at: usize| {
            let bytes = payload.get(at..at + 4).expect("an error code");
            u32::from_be_bytes(bytes.try_into().expect("four bytes"))
        };
        match kind {
            kind::RST_STREAM => reset = Some(code(0)),
            kind::GOAWAY => return Over(code(4)),
            kind::PING if flags == 1 && payload == b"barrier!" => is_past = true,
            kind::HEADERS => status = Some(if payload[0] == 0x88 { 200 } else { 0 }),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_are_kept() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let yaml = "sites: [{hosts: [app.localhost], upstream: \"http://127.0.0.1:@origin@\"}]
limits: {streams: 100}
";
    gateway.set("origin", origin.port).start(yaml).await;
    let client = gateway.client().await;
    let mut wrong = Vec::new();
    for (what, frames, expected) in cases() {
        let mut h2 = RawH2::connect(&client, HOST).await.unwrap();
        let seen = within(what, SOON, outcome(&mut h2, &frames, expected)).await;
        if seen != expected {
            wrong.push(format!("{what}: {seen:?} instead of {expected:?}"));
        }
        if let Over(_) = seen {
            let rest = async { while h2.next().await.is_some() {} };
            within(&format!("{what}: the end of the connection"), SOON, rest).await;
        }
    }
    // What comes first must be the preface, then settings.
    for first in [&b"INVALID CONNECTION PREFACE\r\n\r\n"[..], &get(1)] {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = client.tls(HOST, &[b"h2"]).await.unwrap();
        let preface =
            if first.starts_with(b"I") { &b""[..] } else { b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" };
        stream.write_all(&[preface, first].concat()).await.unwrap();
        let mut all = Vec::new();
        let _ = within("the end", SOON, stream.read_to_end(&mut all)).await;
        let end = frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1]);
        if !all.ends_with(&end) {
            wrong.push(format!("a wrong beginning: {all:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
    gateway.process().assert_running();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_goes_by_the_windows_of_the_client() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let yaml = "sites: [{hosts: [app.localhost], upstream: \"http://127.0.0.1:@origin@\"}]\n";
    gateway.set("origin", origin.port).start(yaml).await;
    let client = gateway.client().await;
    let mut h2 = RawH2::connect(&client, HOST).await.unwrap();
    let ends = flag::END_HEADERS | flag::END_STREAM;
    let big = frame(kind::HEADERS, ends, 1, &h2::get(HOST, "/big?bytes=10"));
    h2.send_all(&[setting(4, 3), big].concat()).await.unwrap();
    let mut sizes = Vec::new();
    let mut piece = async |h2: &mut RawH2| loop {
        let frame = within("data", SOON, h2.next()).await.expect("a frame");
        if frame.kind == kind::DATA {
            sizes.push(frame.payload.len());
            break frame.flags & flag::END_STREAM != 0;
        }
    };
    assert!(!piece(&mut h2).await);
    h2.send_all(&window(1, 1)).await.unwrap();
    assert!(!piece(&mut h2).await);
    // A smaller setting takes from the window of an open stream; the next four bytes only fill it up.
    h2.send_all(&[setting(4, 0), window(1, 3), window(1, 2)].concat()).await.unwrap();
    assert!(!piece(&mut h2).await);
    h2.send_all(&setting(4, 100)).await.unwrap();
    assert!(piece(&mut h2).await);
    assert_eq!(sizes, [3, 1, 2, 4]);
}
