//! What a QUIC stream brings, looked at before h3 reads it: frames that do not belong there, heads
//! that are too long or malformed, and floods of frames that mean nothing end here. h3 collects a
//! frame of any size before it looks at it; behind this gate a frame is never larger than allowed.
//! Pure: no await, no clock, no IO.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Buf as _, Bytes, BytesMut};
use h3::error::Code;

use super::section::{self, SectionError};

/// What becomes of bytes that do not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The error code for the peer (RFC 9114, section 8.1).
    pub code: u64,
    /// Whether the whole connection is lost, or the stream alone.
    pub is_fatal: bool,
    /// For the log.
    pub why: &'static str,
}

/// The gate of one stream.
pub struct Gate {
    place: Place,
    step: Step,
    /// Bytes that are not whole yet: a frame's type and length, or a frame that passes as a whole.
    held: BytesMut,
    passed: VecDeque<Bytes>,
    /// Frames of this stream that said nothing.
    idle_frames: u32,
}

enum Place {
    /// A stream that carries a request.
    Request { head_bytes_max: usize, has_head: bool, has_trailers: bool },
    /// A stream of one direction whose type has not come yet.
    Untold(Rc<Allowance>),
    /// The control stream.
    Control(Rc<Allowance>),
    /// Any other: it says nothing that h3 would keep.
    Other,
}

/// What a client may say beside its requests. Grows with their number, since clients change the
/// priority of each.
#[derive(Debug)]
pub struct Allowance(Cell<usize>);

#[derive(Clone, Copy)]
enum Step {
    /// A frame's type and length come next.
    Header,
    /// The rest of a frame that is collected, with its length in all.
    Whole { bytes: usize, is_head: bool },
    /// Bytes of a DATA frame.
    Data(u64),
    /// Bytes of a frame that nobody needs.
    Skip(u64),
}

impl Allowance {
    /// That of a new connection.
    pub fn new() -> Rc<Self> {
        Rc::new(Self(Cell::new(CONTROL_BYTES)))
    }

    /// More, for a request that came.
    pub fn grow(&self) {
        self.0.set(self.0.get().saturating_add(CONTROL_BYTES_PER_REQUEST).min(CONTROL_BYTES * 4));
    }

    fn spend(&self, bytes: usize) -> Result<(), Violation> {
        match self.0.get().checked_sub(bytes) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(fatal(Code::H3_EXCESSIVE_LOAD, "too much beside the requests")),
        }
    }
}

impl Gate {
    /// Of a stream that carries a request whose head may have `head_bytes_max` bytes.
    pub fn request(head_bytes_max: usize) -> Self {
        Self::new(Place::Request { head_bytes_max, has_head: false, has_trailers: false })
    }

    /// Of a stream of one direction.
    pub fn one_way(allowance: Rc<Allowance>) -> Self {
        Self::new(Place::Untold(allowance))
    }

    fn new(place: Place) -> Self {
        let passed = VecDeque::new();
        Self { place, step: Step::Header, held: BytesMut::new(), passed, idle_frames: 0 }
    }

    /// What has passed, in order.
    pub fn pop(&mut self) -> Option<Bytes> {
        self.passed.pop_front()
    }

    /// Takes in what came.
    ///
    /// # Errors
    /// What must not pass.
    pub fn push(&mut self, mut bytes: Bytes) -> Result<(), Violation> {
        if let Place::Control(allowance) = &self.place {
            allowance.spend(bytes.len())?;
        }
        while !bytes.is_empty() {
            match self.step {
                _ if matches!(self.place, Place::Other) => {
                    self.passed.push_back(std::mem::take(&mut bytes));
                }
                Step::Header => self.header(&mut bytes)?,
                Step::Whole { bytes: all, is_head } => {
                    let missing = all.saturating_sub(self.held.len()).min(bytes.len());
                    self.held.extend_from_slice(&bytes.split_to(missing));
                    self.whole(all, is_head)?;
                }
                Step::Data(left) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    self.passed.push_back(bytes.split_to(n));
                    self.step = rest(left - n as u64, Step::Data);
                }
                Step::Skip(left) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes.advance(n);
                    self.step = rest(left - n as u64, Step::Skip);
                }
            }
        }
        Ok(())
    }

    /// Reads on in a frame's type and length.
    fn header(&mut self, bytes: &mut Bytes) -> Result<(), Violation> {
        self.held.extend_from_slice(&bytes.split_to(1));
        let Some((kind, used)) = integer(&self.held) else { return Ok(()) };
        if let Place::Untold(allowance) = &self.place {
            self.place = match kind {
                CONTROL => Place::Control(Rc::clone(allowance)),
                PUSH => return Err(fatal(Code::H3_STREAM_CREATION_ERROR, "a push by a client")),
                _ => Place::Other,
            };
            if let Place::Control(allowance) = &self.place {
                allowance.spend(bytes.len())?;
            }
            self.passed.push_back(self.held.split().freeze());
            return Ok(());
        }
        let rest = self.held.get(used..).unwrap_or_default();
        let Some((length, more)) = integer(rest) else { return Ok(()) };
        self.frame(kind, length, used + more)
    }

    /// A frame begins.
    fn frame(&mut self, kind: u64, length: u64, header_bytes: usize) -> Result<(), Violation> {
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        let whole = |is_head| Step::Whole { bytes: header_bytes.saturating_add(bytes), is_head };
        match &mut self.place {
            Place::Request { head_bytes_max, has_head, has_trailers } => match kind {
                DATA if *has_head && !*has_trailers => {
                    if length == 0 {
                        self.held.clear();
                        return self.idle();
                    }
                    self.passed.push_back(self.held.split().freeze());
                    self.step = Step::Data(length);
                }
                HEADERS if !*has_trailers => {
                    if bytes > *head_bytes_max {
                        let code = Code::H3_EXCESSIVE_LOAD.value();
                        return Err(Violation { code, is_fatal: false, why: "a head too large" });
                    }
                    *has_trailers = *has_head;
                    let is_head = !std::mem::replace(has_head, true);
                    self.step = whole(is_head);
                    return self.whole(header_bytes + bytes, is_head);
                }
                // Of the control stream, of pushes, and of HTTP/2 (RFC 9114, section 7.2.8).
                0x0..=0x9 | 0xd => {
                    let why = "a frame that does not belong on a request's stream";
                    return Err(fatal(Code::H3_FRAME_UNEXPECTED, why));
                }
                _ => {
                    self.held.clear();
                    if bytes > SKIPPED_BYTES_MAX {
                        return Err(fatal(Code::H3_EXCESSIVE_LOAD, "a large frame of no use"));
                    }
                    self.step = rest(length, Step::Skip);
                    return self.idle();
                }
            },
            Place::Control(_) => match kind {
                SETTINGS | CANCEL_PUSH | GOAWAY | MAX_PUSH_ID => {
                    let bytes_max = if kind == SETTINGS { SETTINGS_BYTES_MAX } else { 8 };
                    if bytes > bytes_max {
                        return Err(fatal(Code::H3_FRAME_ERROR, "a control frame too large"));
                    }
                    self.step = whole(false);
                    return self.whole(header_bytes + bytes, false);
                }
                0x0..=0x9 => {
                    let why = "a frame that does not belong on the control stream";
                    return Err(fatal(Code::H3_FRAME_UNEXPECTED, why));
                }
                _ => {
                    self.held.clear();
                    self.step = rest(length, Step::Skip);
                }
            },
            Place::Untold(_) | Place::Other => {}
        }
        Ok(())
    }

    /// Passes a collected frame on, once it is whole.
    fn whole(&mut self, bytes: usize, is_head: bool) -> Result<(), Violation> {
        if self.held.len() < bytes {
            return Ok(());
        }
        self.step = Step::Header;
        let frame = self.held.split().freeze();
        if !matches!(self.place, Place::Request { .. }) {
            self.passed.push_back(frame);
            return Ok(());
        }
        let header = integer(&frame)
            .and_then(|(_, used)| Some(used + integer(frame.get(used..).unwrap_or_default())?.1));
        let section = frame.get(header.unwrap_or_default()..).unwrap_or_default();
        let rewritten = match is_head {
            true => section::check_head(section),
            false => section::check_trailers(section).map(|()| None),
        };
        match rewritten {
            Ok(None) => self.passed.push_back(frame),
            Ok(Some(section)) => {
                let mut head = BytesMut::with_capacity(section.len() + 9);
                head.extend_from_slice(&[HEADERS as u8]);
                head.extend_from_slice(&(section.len() as u64 | 0b11 << 62).to_be_bytes());
                head.extend_from_slice(&section);
                self.passed.push_back(head.freeze());
            }
            Err(SectionError::Compression) => {
                let why = "fields that cannot be decompressed";
                return Err(fatal(Code::QPACK_DECOMPRESSION_FAILED, why));
            }
            Err(SectionError::Malformed(why)) => {
                let code = Code::H3_MESSAGE_ERROR.value();
                return Err(Violation { code, is_fatal: false, why });
            }
        }
        Ok(())
    }

    fn idle(&mut self) -> Result<(), Violation> {
        self.idle_frames += 1;
        match self.idle_frames > IDLE_FRAMES_MAX {
            true => Err(fatal(Code::H3_EXCESSIVE_LOAD, "a flood of frames of no use")),
            false => Ok(()),
        }
    }
}

fn fatal(code: Code, why: &'static str) -> Violation {
    Violation { code: code.value(), is_fatal: true, why }
}

fn rest(left: u64, step: impl FnOnce(u64) -> Step) -> Step {
    if left == 0 { Step::Header } else { step(left) }
}

/// An integer of variable length (RFC 9000, section 16) and how many bytes it took; `None` while it
/// is not whole.
fn integer(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1usize << (first >> 6);
    let bytes = bytes.get(..length)?;
    let value = bytes.iter().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
    Some((value & ((1 << (8 * length - 2)) - 1), length))
}

/// Types of streams (RFC 9114, section 6.2).
const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
/// Types of frames (RFC 9114, section 7.2).
const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;
const CANCEL_PUSH: u64 = 0x3;
const SETTINGS: u64 = 0x4;
const GOAWAY: u64 = 0x7;
const MAX_PUSH_ID: u64 = 0xd;
const SETTINGS_BYTES_MAX: usize = 4 * 1024;
const SKIPPED_BYTES_MAX: usize = 64 * 1024;
const IDLE_FRAMES_MAX: u32 = 256;
const CONTROL_BYTES: usize = 64 * 1024;
const CONTROL_BYTES_PER_REQUEST: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = &[1, 5, 0, 0, 0xd1, 0xd7, 0xc1];

    /// What passes of `bytes`, put in one by one and all at once.
    fn pass(make: impl Fn() -> Gate, bytes: &[u8]) -> Result<Vec<u8>, Violation> {
        let outcomes = [1, 3, usize::MAX].map(|size| {
            let mut gate = make();
            for piece in bytes.chunks(size.min(bytes.len().max(1))) {
                gate.push(Bytes::copy_from_slice(piece))?;
            }
            Ok(std::iter::from_fn(|| gate.pop()).flatten().collect::<Vec<u8>>())
        });
        assert_eq!(outcomes[0], outcomes[1]);
        assert_eq!(outcomes[0], outcomes[2]);
        let [outcome, ..] = outcomes;
        outcome
    }

    fn request(bytes: &[u8]) -> Result<Vec<u8>, Violation> {
        pass(|| Gate::request(1000), bytes)
    }

    fn one_way(bytes: &[u8]) -> Result<Vec<u8>, Violation> {
        pass(|| Gate::one_way(Allowance::new()), bytes)
    }

    #[test]
    fn a_request_passes_without_what_nobody_needs() {
        let body = [&[0, 3][..], b"abc"].concat();
        let grease = [&[0x21, 4][..], b"abcd"].concat();
        let trailers = [1, 7, 0, 0, 0x21, b'a', 1, b'b', 0xc4];
        let sent = [&grease, HEAD, &grease, &[0, 0], &body, &body, &trailers, &grease].concat();
        let passed = [HEAD, &body, &body, &trailers].concat();
        assert_eq!(request(&sent), Ok(passed));
        // A length may be written longer than it needs to be.
        let long = [&[0x40, 1, 0x80, 0, 0, 5][..], &HEAD[2..]].concat();
        assert_eq!(request(&long), Ok(long.clone()));
    }

    #[test]
    fn what_does_not_belong_on_a_request_ends_the_connection() {
        let trailers: &[u8] = &[1, 2, 0, 0];
        for (bytes, code) in [
            (&[0, 3, 1][..], Code::H3_FRAME_UNEXPECTED),
            (&[4, 0], Code::H3_FRAME_UNEXPECTED),
            (&[6, 0], Code::H3_FRAME_UNEXPECTED),
            (&[5, 0], Code::H3_FRAME_UNEXPECTED),
            (&[13, 1, 0], Code::H3_FRAME_UNEXPECTED),
            (&[HEAD, trailers, &[0, 1, 1]].concat(), Code::H3_FRAME_UNEXPECTED),
            (&[HEAD, trailers, trailers].concat(), Code::H3_FRAME_UNEXPECTED),
            (&[1, 3, 2, 0, 0x80], Code::QPACK_DECOMPRESSION_FAILED),
            (&[0x21, 0xc0, 0, 0, 0, 0, 2, 0, 0], Code::H3_EXCESSIVE_LOAD),
            (&[HEAD, &[0, 0].repeat(300)].concat(), Code::H3_EXCESSIVE_LOAD),
            (&[0x21, 0].repeat(300), Code::H3_EXCESSIVE_LOAD),
        ] {
            let refused = request(bytes).unwrap_err();
            assert_eq!((refused.code, refused.is_fatal), (code.value(), true), "{bytes:?}");
        }
    }

    #[test]
    fn a_bad_head_ends_its_request_alone() {
        let malformed = [1, 6, 0, 0, 0xd1, 0xd7, 0xc1, 0xc1];
        let large = [1, 0x7f, 0xff];
        for (bytes, code) in
            [(&malformed[..], Code::H3_MESSAGE_ERROR), (&large, Code::H3_EXCESSIVE_LOAD)]
        {
            let refused = request(bytes).unwrap_err();
            assert_eq!((refused.code, refused.is_fatal), (code.value(), false), "{bytes:?}");
        }
    }

    #[test]
    fn a_control_stream_says_little() {
        let settings = [0, 4, 2, 6, 0, 7, 1, 0];
        let grease = [0x21, 2, 0, 0];
        assert_eq!(one_way(&[&settings[..], &grease].concat()), Ok(settings.to_vec()));
        for (bytes, code) in [
            (&[0, 0, 0][..], Code::H3_FRAME_UNEXPECTED),
            (&[0, 1, 0], Code::H3_FRAME_UNEXPECTED),
            (&[0, 4, 0x80, 1, 0, 0], Code::H3_FRAME_ERROR),
            (&[0, 7, 9], Code::H3_FRAME_ERROR),
            (&[1], Code::H3_STREAM_CREATION_ERROR),
        ] {
            let refused = one_way(bytes).unwrap_err();
            assert_eq!((refused.code, refused.is_fatal), (code.value(), true), "{bytes:?}");
        }
        let flood = [&settings[..], &grease.repeat(20_000)].concat();
        assert_eq!(one_way(&flood).unwrap_err().code, Code::H3_EXCESSIVE_LOAD.value());
        // The streams of QPACK, and those of no known type, pass as they are.
        for kind in [2, 3, 0x21] {
            assert_eq!(one_way(&[kind, 1, 2, 3]), Ok(vec![kind, 1, 2, 3]));
        }
    }

    #[test]
    fn an_allowance_grows_with_requests() {
        let allowance = Allowance::new();
        assert!(allowance.spend(CONTROL_BYTES).is_ok() && allowance.spend(1).is_err());
        allowance.grow();
        assert!(allowance.spend(CONTROL_BYTES_PER_REQUEST).is_ok());
        assert!(allowance.spend(1).is_err());
    }

    #[test]
    fn integers_of_the_rfc() {
        // RFC 9000, appendix A.1.
        let long = [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c];
        assert_eq!(integer(&long), Some((151_288_809_941_952_652, 8)));
        assert_eq!(integer(&[0x9d, 0x7f, 0x3e, 0x7d]), Some((494_878_333, 4)));
        assert_eq!(integer(&[0x7b, 0xbd]), Some((15_293, 2)));
        assert_eq!(integer(&[0x25]), Some((37, 1)));
        assert_eq!(integer(&[0x7b]), None);
    }
}
