//! A meter of what a client of HTTP/2 asks for: frames that cost work and bring nothing (RFC 9113, section
//! 10.5) may be as many as an ordinary client has reason for. h2 itself bounds memory; this bounds the
//! work.

use std::time::Instant;

/// Reads the heads of the frames that go by. Pure, but for the time that it is given.
#[derive(Debug)]
pub struct Meter {
    /// Bytes to pass over: of the preface first, then of a frame's payload.
    skip: usize,
    head: [u8; HEAD_BYTES],
    known: usize,
    /// What may still be asked for.
    credit: u64,
    refilled: Option<Instant>,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            known: 0,
            credit: CREDIT_MAX,
            refilled: None,
        }
    }
}

impl Meter {
    /// Passes what was read; whether it is still bearable.
    pub fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> bool {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len());
                self.skip -= passed;
                bytes = bytes.get(passed..).unwrap_or_default();
                continue;
            }
            let Some(((byte, rest), place)) =
                bytes.split_first().zip(self.head.get_mut(self.known))
            else {
                return true;
            };
            *place = *byte;
            bytes = rest;
            self.known += 1;
            if self.known == HEAD_BYTES {
                self.known = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]);
                self.skip = usize::try_from(length).unwrap_or(usize::MAX);
                if is_costly(kind, flags, length) && !self.take(&now) {
                    return false;
                }
                if kind == DATA {
                    self.earn(u64::from(length) / BYTES_PER_FRAME);
                }
            }
        }
        true
    }

    /// Notes that a request was answered.
    pub fn answered(&mut self) {
        self.earn(FRAMES_PER_ANSWER);
    }

    /// Notes bytes that were sent to the client, each few of which it may acknowledge.
    pub fn sent(&mut self, bytes: usize) {
        self.earn((bytes as u64).div_ceil(BYTES_PER_FRAME));
    }

    fn earn(&mut self, frames: u64) {
        self.credit = self.credit.saturating_add(frames).min(CREDIT_MAX);
    }

    fn take(&mut self, now: impl Fn() -> Instant) -> bool {
        if self.credit == 0 {
            let now = now();
            let since = self.refilled.replace(now);
            let seconds = since.map_or(0.0, |since| (now - since).as_secs_f64());
            self.earn((seconds * FRAMES_PER_SECOND) as u64);
        }
        if self.credit == 0 {
            return false;
        }
        self.credit -= 1;
        true
    }
}

/// Whether a frame asks for work and brings nothing.
fn is_costly(kind: u8, flags: u8, length: u32) -> bool {
    match kind {
        DATA => length == 0 && flags & END_STREAM == 0,
        HEADERS => false,
        SETTINGS | PING => flags & ACK == 0,
        // PRIORITY, RST_STREAM, PUSH_PROMISE, GOAWAY, WINDOW_UPDATE, CONTINUATION, and what is not known.
        _ => true,
    }
}

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
/// A client that opens many streams at once resets them all, and sets each one's window before.
const CREDIT_MAX: u64 = 2000;
const FRAMES_PER_SECOND: f64 = 100.0;
/// A window for the stream and one for the connection, a reset, and one to spare.
const FRAMES_PER_ANSWER: u64 = 4;
const BYTES_PER_FRAME: u64 = 512;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, 1];
        bytes.resize(HEAD_BYTES + length, b'x');
        bytes
    }

    fn meter() -> Meter {
        let mut meter = Meter::default();
        assert!(meter.read(&[0; PREFACE_BYTES], Instant::now));
        meter
    }

    #[test]
    fn floods_end_and_ordinary_frames_do_not() {
        let now = Instant::now();
        for (kind, flags, length) in [
            (PING, 0, 8),
            (SETTINGS, 0, 6),
            (3, 0, 4),
            (2, 0, 5),
            (DATA, 0, 0),
            (9, 0, 1),
            (99, 0, 3),
            (8, 0, 4),
        ] {
            let mut meter = meter();
            let flood = frame(kind, flags, length).repeat(CREDIT_MAX as usize);
            assert!(meter.read(&flood, || now), "{kind}");
            assert!(!meter.read(&frame(kind, flags, length), || now), "{kind}");
        }
        for (kind, flags, length) in [
            (DATA, 0, 1000),
            (DATA, END_STREAM, 0),
            (HEADERS, 0, 20),
            (PING, ACK, 8),
            (SETTINGS, ACK, 0),
        ] {
            let flood = frame(kind, flags, length).repeat(4 * CREDIT_MAX as usize);
            assert!(meter().read(&flood, || now), "{kind}");
        }
    }

    #[test]
    fn answers_and_bytes_and_time_bring_more() {
        let mut now = Instant::now();
        let mut meter = meter();
        let flood = frame(PING, 0, 8).repeat(CREDIT_MAX as usize);
        assert!(meter.read(&flood, || now));
        meter.answered();
        assert!(meter.read(&frame(PING, 0, 8).repeat(4), || now));
        meter.sent(1024);
        assert!(meter.read(&frame(8, 0, 4).repeat(2), || now));
        assert!(!meter.read(&frame(SETTINGS, 0, 0), || now));
        now += Duration::from_secs(1);
        assert!(meter.read(&frame(SETTINGS, 0, 0).repeat(100), || now));
        assert!(!meter.read(&frame(SETTINGS, 0, 0), || now));
    }

    #[test]
    fn frames_may_come_in_any_pieces() {
        let now = Instant::now();
        let text = [frame(HEADERS, 4, 300), frame(DATA, 0, 0), frame(PING, 0, 8)].concat();
        for step in 1..text.len() {
            let mut meter = meter();
            assert!(text.chunks(step).all(|piece| meter.read(piece, || now)));
            assert_eq!(meter.credit, CREDIT_MAX - 2, "{step}");
        }
    }
}
