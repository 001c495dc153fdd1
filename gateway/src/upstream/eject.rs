//! Passive health: a server that fails again and again is left out for a while, longer each time.
//! Pure: the time comes from the caller.

use std::time::{Duration, Instant};

use crate::config;

/// What one server has done lately.
#[derive(Debug, Clone, Default)]
pub struct Outlier {
    /// Failures since the last success.
    failures: u32,
    /// How often it was left out; falls again while it serves well.
    times: u32,
    until: Option<Instant>,
}

impl Outlier {
    /// Whether the server is left out.
    pub fn is_out(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }

    /// A response that is no failure.
    pub fn succeed(&mut self, rules: &config::Eject, now: Instant) {
        self.failures = 0;
        // A server that has been well for as long as it was last left out begins anew.
        if let Some(until) = self.until
            && now >= until + wait(rules, self.times.saturating_sub(1))
        {
            self.times = 0;
        }
    }

    /// A failure. `has_room` says whether the share of servers left out allows one more. Returns for
    /// how long the server is left out from now on, when it newly is.
    pub fn fail(
        &mut self,
        rules: &config::Eject,
        now: Instant,
        has_room: bool,
    ) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        if self.failures < rules.after || !has_room || self.is_out(now) {
            return None;
        }
        let wait = wait(rules, self.times);
        self.failures = 0;
        self.times = self.times.saturating_add(1);
        self.until = Some(now + wait);
        Some(wait)
    }
}

/// Whether one more of `servers` may be left out beside `out`: never the last, and never more than
/// the configured share, but one where the share would round to none.
pub fn has_room(rules: &config::Eject, servers: usize, out: usize) -> bool {
    let share = servers * rules.share_max_percent as usize / 100;
    let least = usize::from(rules.share_max_percent > 0);
    out < share.max(least).min(servers.saturating_sub(1))
}

fn wait(rules: &config::Eject, times: u32) -> Duration {
    rules.time.saturating_mul(1 << times.min(16)).min(rules.time_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> config::Eject {
        config::Eject {
            after: 3,
            time: Duration::from_secs(10),
            time_max: Duration::from_secs(60),
            share_max_percent: 50,
        }
    }

    #[test]
    fn failures_in_a_row_leave_a_server_out_longer_each_time() {
        let (rules, mut now, mut server) = (rules(), Instant::now(), Outlier::default());
        for expected in [10, 20, 40, 60, 60] {
            assert_eq!(server.fail(&rules, now, true), None);
            assert_eq!(server.fail(&rules, now, true), None);
            let expected = Duration::from_secs(expected);
            assert_eq!(server.fail(&rules, now, true), Some(expected));
            assert!(server.is_out(now + expected - Duration::from_millis(1)));
            now += expected;
            assert!(!server.is_out(now));
        }
        // A minute of good service is as long as it was out; then it begins anew.
        server.succeed(&rules, now + Duration::from_secs(59));
        assert_eq!(server.times, 5);
        now += Duration::from_secs(60);
        server.succeed(&rules, now);
        (0..2).for_each(|_| assert_eq!(server.fail(&rules, now, true), None));
        assert_eq!(server.fail(&rules, now, true), Some(Duration::from_secs(10)));
    }

    #[test]
    fn one_success_breaks_the_row() {
        let (rules, now, mut server) = (rules(), Instant::now(), Outlier::default());
        for _ in 0..100 {
            server.fail(&rules, now, true);
            server.fail(&rules, now, true);
            server.succeed(&rules, now);
        }
        assert!(!server.is_out(now));
    }

    #[test]
    fn never_more_than_the_share_and_never_the_last() {
        let (mut rules, now) = (rules(), Instant::now());
        for (servers, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (10, 5)] {
            let allowed = (0..servers).take_while(|out| has_room(&rules, servers, *out)).count();
            assert_eq!(allowed, most, "of {servers}");
        }
        rules.share_max_percent = 100;
        assert_eq!((0..4).take_while(|out| has_room(&rules, 4, *out)).count(), 3);
        rules.share_max_percent = 0;
        assert!(!has_room(&rules, 4, 0));
        rules.share_max_percent = 10;
        assert!(has_room(&rules, 4, 0) && !has_room(&rules, 4, 1));
        let mut server = Outlier::default();
        for _ in 0..10 {
            assert_eq!(server.fail(&rules, now, false), None);
        }
        // The row goes on: as soon as there is room, the next failure takes it out.
        assert!(server.fail(&rules, now, true).is_some());
    }
}
