//! What a client may ask for: frames that cost work and bring nothing (RFC 9113, section 10.5) may be as
//! many as an ordinary client has reason for.

use std::time::Instant;

/// What may still be asked for.
#[derive(Debug)]
pub struct Meter {
    credit: u64,
    refilled: Option<Instant>,
}

impl Default for Meter {
    fn default() -> Self {
        Self { credit: CREDIT_MAX, refilled: None }
    }
}

impl Meter {
    /// Takes a frame that brings nothing; whether that is still bearable.
    pub fn take(&mut self, now: impl FnOnce() -> Instant) -> bool {
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

    /// Notes that a request was answered.
    pub fn answered(&mut self) {
        self.earn(FRAMES_PER_ANSWER);
    }

    /// Notes bytes of bodies that went either way, each few of which cost a frame.
    pub fn moved(&mut self, bytes: usize) {
        self.earn(bytes as u64 / BYTES_PER_FRAME);
    }

    fn earn(&mut self, frames: u64) {
        self.credit = self.credit.saturating_add(frames).min(CREDIT_MAX);
    }
}

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

    #[test]
    fn answers_and_bytes_and_time_bring_more() {
        let mut now = Instant::now();
        let mut meter = Meter::default();
        let take =
            |meter: &mut Meter, count: u64, now: Instant| (0..count).all(|_| meter.take(|| now));
        assert!(take(&mut meter, CREDIT_MAX, now));
        meter.answered();
        assert!(take(&mut meter, 4, now));
        meter.moved(1024);
        assert!(take(&mut meter, 2, now));
        assert!(!take(&mut meter, 1, now));
        now += Duration::from_secs(1);
        assert!(take(&mut meter, 100, now));
        assert!(!take(&mut meter, 1, now));
    }
}
