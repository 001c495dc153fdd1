//! How slow the other side may be.

use std::time::{Duration, Instant};

/// The time that the other side of a transfer may let us wait: never longer than `idle` at once, and in
/// the long run no more than `grace` beyond what its bytes take at the slowest rate that is allowed.
/// Only waits for the other side count, so that our own slowness is never its fault.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Bytes per second; none for no lower bound.
    rate: Option<u64>,
    grace: Duration,
    idle: Duration,
    /// What may still be waited.
    credit: Duration,
    /// Since when the present wait goes on.
    since: Option<Instant>,
}

impl Pace {
    /// A transfer that begins.
    pub fn new(rate: Option<u64>, grace: Duration, idle: Duration) -> Self {
        Self { rate, grace, idle, credit: grace, since: None }
    }

    /// No lower bound of the rate from here on.
    pub fn free(&mut self) {
        self.rate = None;
    }

    /// Another longest wait from here on, the present one included; with no lower bound of the rate.
    pub fn stretch(&mut self, idle: Duration) {
        (self.rate, self.idle) = (None, idle);
    }

    /// Has the present wait count from `moment` on, when that is later than its beginning: somebody else
    /// moved whose moves count as well.
    pub fn heard(&mut self, moment: Instant) {
        self.since = self.since.map(|since| since.max(moment));
    }

    /// Notes that the other side moved on by `bytes`; ends the present wait. Credit does not gather: what
    /// was fast once may not be slow for ever.
    pub fn moved(&mut self, bytes: u64, now: impl FnOnce() -> Instant) {
        self.rest(now);
        if let Some(rate) = self.rate.filter(|rate| *rate > 0) {
            let worth = Duration::from_secs_f64(bytes as f64 / rate as f64);
            let most = self.grace.saturating_add(worth);
            self.credit = self.credit.saturating_add(worth).min(most);
        }
    }

    /// Ends the present wait, for which somebody else is to blame from here on.
    pub fn rest(&mut self, now: impl FnOnce() -> Instant) {
        if let Some(since) = self.since.take() {
            self.credit = self.credit.saturating_sub(now().saturating_duration_since(since));
        }
    }

    /// Begins a wait, or goes on with it, and tells how much longer it may take. Zero: it is over.
    pub fn left(&mut self, now: Instant) -> Duration {
        let since = *self.since.get_or_insert(now);
        let waited = now.saturating_duration_since(since);
        let idle = self.idle.saturating_sub(waited);
        match self.rate {
            Some(_) => idle.min(self.credit.saturating_sub(waited)),
            None => idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(30);

    /// How long a transfer of `bytes` every `every` lasts, up to an hour.
    fn lasts(rate: Option<u64>, bytes: u64, every: Duration) -> Duration {
        let start = Instant::now();
        let (mut pace, mut now) = (Pace::new(rate, GRACE, IDLE), start);
        while now - start < Duration::from_secs(3600) {
            let left = pace.left(now);
            if left < every {
                return now + left - start;
            }
            now += every;
            pace.moved(bytes, || now);
        }
        Duration::from_secs(3600)
    }

    #[test]
    fn slow_is_slower_than_the_rate_for_longer_than_the_grace() {
        let second = Duration::from_secs(1);
        let hour = Duration::from_secs(3600);
        assert_eq!(lasts(Some(100), 100, second), hour);
        assert_eq!(lasts(Some(100), 10_000, 9 * second), hour);
        assert!(lasts(Some(100), 50, second) < 30 * second);
        assert!(lasts(Some(100), 1, second) < 12 * second);
        assert_eq!(lasts(Some(100), 1, hour), GRACE);
        assert_eq!(lasts(None, 1, 29 * second), hour);
        assert_eq!(lasts(None, 1, 31 * second), IDLE);
    }

    #[test]
    fn what_was_fast_once_may_not_be_slow_for_ever() {
        let mut now = Instant::now();
        let mut pace = Pace::new(Some(100), GRACE, IDLE);
        pace.moved(1 << 30, || now);
        pace.moved(100, || now);
        assert!(pace.left(now) <= GRACE + Duration::from_secs(1));
        now += Duration::from_secs(5);
        // Our own time is not the other side's.
        pace.rest(|| now);
        now += Duration::from_secs(3600);
        assert_eq!(pace.left(now), Duration::from_secs(6));
        pace.free();
        assert_eq!(pace.left(now), IDLE);
    }

    #[test]
    fn a_wait_goes_on_while_somebody_else_moves() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(100), GRACE, IDLE);
        assert_eq!(pace.left(start), GRACE);
        pace.stretch(3 * IDLE);
        assert_eq!(pace.left(start + IDLE), 2 * IDLE);
        pace.heard(start + IDLE);
        assert_eq!(pace.left(start + IDLE), 3 * IDLE);
        pace.heard(start);
        assert_eq!(pace.left(start + 4 * IDLE), Duration::ZERO);
    }
}
