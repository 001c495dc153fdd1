//! How often requests may come: a token bucket for each client or field value, kept as one number, the
//! time at which it will be full again (the generic cell rate algorithm). The table is bounded: what
//! is full again is forgotten first, then what is nearest to it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::bounds::holder;
use crate::config::policies::RateLimit;

/// The buckets of one limit, shared by all workers.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: RateLimit,
    header: Option<HeaderName>,
    start: Instant,
    /// Keys are hashed with a secret of this limiter, so that nobody can choose to collide.
    hasher: RandomState,
    /// Each lock is held for one look-up, and only by requests that fall into it.
    shards: Vec<Mutex<HashMap<u64, u64>>>,
}

/// What a request found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    name: &'static str,
    requests: u32,
    per: Duration,
    /// Tokens that are left.
    pub(super) remaining: u64,
    /// Until the bucket is full again.
    reset: Duration,
    /// When the request comes too early: how long to wait.
    pub(super) retry_after: Option<Duration>,
}

impl Limiter {
    pub(super) fn new(limit: RateLimit) -> Self {
        let header = limit.header.as_ref().and_then(|name| name.parse().ok());
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { limit, header, start: Instant::now(), hasher: RandomState::new(), shards }
    }

    /// Takes a token for this request.
    pub(super) fn take(&self, client: IpAddr, fields: &HeaderMap) -> Standing {
        // A request without the field is counted by its address, so that leaving the field out is no
        // way around.
        let value = self.header.as_ref().and_then(|name| fields.get(name));
        let key = match value {
            Some(value) => self.hasher.hash_one((true, value.as_bytes())),
            None => self.hasher.hash_one((false, holder(client))),
        };
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let index = usize::try_from(key % SHARDS).unwrap_or_default();
        let Some(shard) = self.shards.get(index) else { return self.standing(0, 0, None) };
        let mut buckets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = buckets.get(&key).copied().unwrap_or_default();
        let (next, retry_after) = step(full_at, now, self.interval(), self.limit.burst);
        if retry_after.is_none() {
            if buckets.len() >= BUCKETS_PER_SHARD {
                make_room(&mut buckets, now);
            }
            buckets.insert(key, next);
        }
        self.standing(next, now, retry_after)
    }

    /// The time in which one token comes, in nanoseconds.
    fn interval(&self) -> u64 {
        let nanos = self.limit.per.as_nanos() / u128::from(self.limit.requests.max(1));
        u64::try_from(nanos).unwrap_or(u64::MAX).max(1)
    }

    fn standing(&self, full_at: u64, now: u64, retry_after: Option<u64>) -> Standing {
        let missing = full_at.saturating_sub(now);
        let used = missing.div_ceil(self.interval());
        Standing {
            name: if self.header.is_some() { "header" } else { "address" },
            requests: self.limit.requests,
            per: self.limit.per,
            remaining: u64::from(self.limit.burst).saturating_sub(used),
            reset: Duration::from_nanos(missing),
            retry_after: retry_after.map(Duration::from_nanos),
        }
    }
}

impl Standing {
    /// `ratelimit-policy` and `ratelimit` (draft-ietf-httpapi-ratelimit-headers-10).
    pub(super) fn write(&self, fields: &mut HeaderMap) {
        let (name, window) = (self.name, super::seconds(self.per));
        let policy = format!("\"{name}\";q={};w={window}", self.requests);
        let left = format!("\"{name}\";r={};t={}", self.remaining, super::seconds(self.reset));
        for (field, text) in [(RATELIMIT_POLICY, policy), (RATELIMIT, left)] {
            if let Ok(value) = HeaderValue::from_str(&text) {
                fields.insert(field, value);
            }
        }
    }
}

/// One request at `now` against a bucket that is full at `full_at`: when it is full next, and how long
/// to wait when there is no token.
fn step(full_at: u64, now: u64, interval: u64, burst: u32) -> (u64, Option<u64>) {
    let depth = interval.saturating_mul(u64::from(burst));
    let next = full_at.max(now).saturating_add(interval);
    match next.saturating_sub(now).checked_sub(depth) {
        None | Some(0) => (next, None),
        Some(early) => (full_at, Some(early)),
    }
}

/// Forgets buckets that are full, which loses nothing; when that is not enough, those that are the
/// nearest to it. An eighth is free afterwards, so that this is rare.
fn make_room(buckets: &mut HashMap<u64, u64>, now: u64) {
    buckets.retain(|_, full_at| *full_at > now);
    let keep = BUCKETS_PER_SHARD - BUCKETS_PER_SHARD / 8;
    if buckets.len() > keep {
        let mut times: Vec<u64> = buckets.values().copied().collect();
        let excess = times.len() - keep;
        let (_, cut, _) = times.select_nth_unstable(excess);
        let cut = *cut;
        buckets.retain(|_, full_at| *full_at > cut);
    }
}

const SHARDS: u64 = 64;
/// 64 shards of these hold 131072 clients in at most some 4 MiB.
const BUCKETS_PER_SHARD: usize = 2048;
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(requests: u32, per: u64, burst: u32) -> RateLimit {
        RateLimit { requests, per: Duration::from_secs(per), burst, header: None }
    }

    #[test]
    fn a_burst_then_the_rate() {
        let second = 1_000_000_000;
        let (mut full_at, mut now) = (0, 5 * second);
        // Ten a second, three at once.
        for expected in [None, None, None, Some(second / 10)] {
            let (next, wait) = step(full_at, now, second / 10, 3);
            assert_eq!(wait, expected);
            full_at = next;
        }
        now += second / 10;
        let (next, wait) = step(full_at, now, second / 10, 3);
        assert_eq!(wait, None);
        assert_eq!(step(next, now, second / 10, 3).1, Some(second / 10));
        // Over a long time the rate holds to the request.
        let (mut full_at, mut passed) = (0, 0);
        for tick in 0..60_000_u64 {
            let (next, wait) = step(full_at, tick * second / 1000, second / 10, 3);
            full_at = next;
            passed += u64::from(wait.is_none());
        }
        assert!((600..=603).contains(&passed), "{passed}");
    }

    #[test]
    fn clients_and_field_values_have_buckets_of_their_own() {
        let none = HeaderMap::new();
        let limiter = Limiter::new(limit(2, 3600, 2));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(limiter.take(ip("192.0.2.1"), &none).remaining, 1);
        assert_eq!(limiter.take(ip("::ffff:192.0.2.1"), &none).remaining, 0);
        let refused = limiter.take(ip("192.0.2.1"), &none);
        let wait = refused.retry_after.unwrap();
        assert!(wait > Duration::from_secs(1790) && wait <= Duration::from_secs(1800), "{wait:?}");
        assert_eq!(limiter.take(ip("192.0.2.2"), &none).remaining, 1);
        assert_eq!(limiter.take(ip("2001:db8::1"), &none).remaining, 1);
        assert_eq!(limiter.take(ip("2001:db8::2"), &none).remaining, 0);
        let mut fields = HeaderMap::new();
        refused.write(&mut fields);
        assert_eq!(fields["ratelimit-policy"], "\"address\";q=2;w=3600");
        assert_eq!(fields["ratelimit"], "\"address\";r=0;t=3600");

        let header = Some("x-api-key".to_owned());
        let limiter = Limiter::new(RateLimit { header, ..limit(1, 3600, 1) });
        let with = |key: &'static str| {
            HeaderMap::from_iter([(
                HeaderName::from_static("x-api-key"),
                HeaderValue::from_static(key),
            )])
        };
        assert_eq!(limiter.take(ip("192.0.2.1"), &with("a")).retry_after, None);
        assert!(limiter.take(ip("192.0.2.2"), &with("a")).retry_after.is_some());
        assert_eq!(limiter.take(ip("192.0.2.2"), &with("b")).retry_after, None);
        assert_eq!(limiter.take(ip("192.0.2.2"), &none).retry_after, None);
        assert!(limiter.take(ip("192.0.2.2"), &none).retry_after.is_some());
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_worst() {
        let limiter = Limiter::new(limit(10, 3600, 10));
        let none = HeaderMap::new();
        let worst: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..10 {
            assert_eq!(limiter.take(worst, &none).retry_after, None);
        }
        for n in 0..300_000_u32 {
            limiter.take(std::net::Ipv4Addr::from(n).into(), &none);
        }
        let held: usize = limiter.shards.iter().map(|s| s.lock().unwrap().len()).sum();
        assert!(held <= 64 * BUCKETS_PER_SHARD, "{held}");
        assert!(limiter.take(worst, &none).retry_after.is_some());
    }
}
