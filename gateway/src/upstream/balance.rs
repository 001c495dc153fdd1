//! Which of several servers takes a request. Pure: the caller brings what is known about each server,
//! the time and the chance, so that tests run whole days of load in a moment.

use std::time::{Duration, Instant};

/// What a choice knows of one server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Its share relative to the others.
    pub weight: u32,
    /// Requests under way.
    pub open: u32,
    /// The expected time to a response's head in microseconds; zero when nothing is known.
    pub latency_us: f64,
    /// What it is called, as a number that every worker and every restart computes alike.
    pub id: u64,
}

impl Candidate {
    /// Requests under way for its weight.
    fn load(&self) -> f64 {
        f64::from(self.open) / f64::from(self.weight.max(1)) + 1.0
    }
}

/// The better of two that are picked at random by weight: the lower product of latency and load.
/// Where both are about as good, chance decides by weight.
pub fn p2c(candidates: &[Candidate], chance: &mut Chance) -> Option<usize> {
    let one = by_weight(candidates, None, chance)?;
    let Some(other) = by_weight(candidates, Some(one), chance) else { return Some(one) };
    let (a, b) = (candidates.get(one)?, candidates.get(other)?);
    let is_known = a.latency_us > 0.0 && b.latency_us > 0.0;
    let cost = |c: &Candidate| if is_known { c.latency_us * c.load() } else { c.load() };
    let (cost_a, cost_b) = (cost(a), cost(b));
    if cost_a > cost_b * SAME_WITHIN {
        return Some(other);
    }
    if cost_b > cost_a * SAME_WITHIN {
        return Some(one);
    }
    let both = u64::from(a.weight) + u64::from(b.weight);
    Some(if chance.below(both) < u64::from(a.weight) { one } else { other })
}

/// The fewest requests under way for its weight; chance decides between equals.
pub fn least(candidates: &[Candidate], chance: &mut Chance) -> Option<usize> {
    let load = |at: usize| candidates.get(at).map_or(f64::MAX, Candidate::load);
    let start = usize::try_from(chance.below(candidates.len() as u64)).unwrap_or(0);
    let order = (0..candidates.len()).map(|step| (start + step) % candidates.len());
    order.min_by(|a, b| load(*a).total_cmp(&load(*b)))
}

/// Smooth weighted round robin: one turn of every server. `credit` holds what each server has coming,
/// by its place in `candidates`, and is kept between turns.
pub fn turn(candidates: &[Candidate], credit: &mut [i64]) -> Option<usize> {
    let mut best: Option<(usize, i64)> = None;
    let mut sum = 0;
    for (at, (candidate, credit)) in candidates.iter().zip(credit.iter_mut()).enumerate() {
        let weight = i64::from(candidate.weight);
        sum += weight;
        *credit += weight;
        if best.is_none_or(|(_, most)| *credit > most) {
            best = Some((at, *credit));
        }
    }
    let (at, _) = best?;
    if let Some(credit) = credit.get_mut(at) {
        *credit -= sum;
    }
    Some(at)
}

/// The server for a key by weighted rendezvous hashing: each server draws a lot from the key, the
/// best lot wins. When a server goes, its keys alone move; when one comes, it takes its share of keys
/// from all others, and no other key moves.
pub fn rendezvous(candidates: &[Candidate], key: u64) -> Option<usize> {
    let lot = |candidate: &Candidate| {
        // In (0, 1): the upper 53 bits, moved off zero.
        let drawn = ((mix(key ^ mix(candidate.id)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -f64::from(candidate.weight) / drawn.ln()
    };
    let lots = candidates.iter().map(lot).enumerate();
    lots.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(at, _)| at)
}

/// One of several upstreams by their shares: the same for the same key, and when a share changes, no key
/// moves but to or from that one.
pub fn share(shares: &[(String, u32)], key: u64) -> Option<&str> {
    let candidate = |(name, share): &(String, u32)| {
        let id = number(name.as_bytes());
        Candidate { weight: *share, open: 0, latency_us: 0.0, id }
    };
    let candidates: Vec<Candidate> = shares.iter().map(candidate).collect();
    let (name, share) = shares.get(rendezvous(&candidates, key)?)?;
    (*share > 0).then_some(name.as_str())
}

/// How much of its share a server takes `since` it came (back): from a tenth at first to all of it
/// after `ramp`.
pub fn warmth(since: Duration, ramp: Duration) -> f64 {
    if ramp.is_zero() || since >= ramp {
        return 1.0;
    }
    COLD + (1.0 - COLD) * since.as_secs_f64() / ramp.as_secs_f64()
}

/// The expected time to a response's head: a peak counts at once, recovery comes with samples and with
/// time, so that a server that was slow is tried again.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeakEwma {
    value_us: f64,
    at: Option<Instant>,
}

impl PeakEwma {
    /// The expectation in microseconds; zero when nothing is known.
    pub fn value_us(&self, now: Instant) -> f64 {
        let age = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.value_us * (-age.as_secs_f64() / FORGET.as_secs_f64()).exp()
    }

    /// Takes in how long a response took.
    pub fn observe(&mut self, took: Duration, now: Instant) {
        let sample = took.as_secs_f64() * 1e6;
        let known = self.value_us(now);
        self.value_us = if sample > known { sample } else { known + (sample - known) * 0.1 };
        self.at = Some(now);
    }
}

/// Numbers that look random: cheap, and no secret depends on them.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// A sequence of its own for every seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 to `bound`, exclusive; 0 when the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((u128::from(mix(self.0)) * u128::from(bound)) >> 64) as u64
    }

    /// Whether something with this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        probability >= 1.0 || (self.below(1 << 53) as f64) < probability * (1u64 << 53) as f64
    }
}

/// A number for a text, the same in every process (FNV-1a, then mixed).
pub fn number(text: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(text.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// One at random by weight, leaving out `without`.
fn by_weight(
    candidates: &[Candidate],
    without: Option<usize>,
    chance: &mut Chance,
) -> Option<usize> {
    let others = candidates.iter().enumerate().filter(|(at, _)| Some(*at) != without);
    let sum = others.clone().map(|(_, c)| u64::from(c.weight)).sum();
    let mut left = chance.below(sum);
    for (at, candidate) in others {
        match left.checked_sub(u64::from(candidate.weight)) {
            Some(rest) => left = rest,
            None => return Some(at),
        }
    }
    None
}

/// A bijection that spreads every bit over all others (the finalizer of SplitMix64).
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// Costs that differ by less than this factor count as equal: latency is noisy.
const SAME_WITHIN: f64 = 1.5;
/// The share that a server starts with.
const COLD: f64 = 0.1;
/// After this time without a response, an expectation has shrunk to 1/e.
const FORGET: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(weights: &[u32]) -> Vec<Candidate> {
        let server = |(at, weight): (usize, &u32)| Candidate {
            weight: *weight,
            open: 0,
            latency_us: 0.0,
            id: number(format!("http://10.0.0.{at}:80").as_bytes()),
        };
        weights.iter().enumerate().map(server).collect()
    }

    /// Simulated load: a request every `gap`; a server answers after `took(server, time, open)`.
    /// Returns how many requests each server got in each second.
    fn simulate(
        weights: &[u32],
        gap: Duration,
        seconds: u64,
        took: impl Fn(usize, Duration, u32) -> Duration,
    ) -> Vec<Vec<u32>> {
        let start = Instant::now();
        let mut known = servers(weights);
        let mut latency = vec![PeakEwma::default(); weights.len()];
        let mut under_way: Vec<(Duration, usize, Duration)> = Vec::new();
        let mut counts = vec![vec![0; weights.len()]; seconds as usize];
        let mut chance = Chance::new(7);
        let mut time = Duration::ZERO;
        while time < Duration::from_secs(seconds) {
            under_way.retain(|(end, server, took)| {
                if *end <= time {
                    known[*server].open -= 1;
                    latency[*server].observe(*took, start + *end);
                }
                *end > time
            });
            for (candidate, latency) in known.iter_mut().zip(&latency) {
                candidate.latency_us = latency.value_us(start + time);
            }
            let picked = p2c(&known, &mut chance).unwrap();
            let took = took(picked, time, known[picked].open);
            known[picked].open += 1;
            under_way.push((time + took, picked, took));
            counts[time.as_secs() as usize][picked] += 1;
            time += gap;
        }
        counts
    }

    #[test]
    fn p2c_moves_traffic_off_a_slow_server_and_back() {
        let ms = Duration::from_millis;
        // Server 0 is 50 times slower from the fifth to the tenth second.
        let took = |server: usize, time: Duration, _| match (server, time.as_secs()) {
            (0, 5..10) => ms(250),
            _ => ms(5),
        };
        let counts = simulate(&[1, 1, 1], ms(1), 60, took);
        let share = |second: usize| f64::from(counts[second][0]) / 1000.0;
        assert!((0.25..0.42).contains(&share(3)), "{}", share(3));
        for second in 6..10 {
            assert!(share(second) < 0.03, "second {second}: {}", share(second));
        }
        assert!(share(59) > 0.2, "it does not come back: {}", share(59));
        // And nobody is starved or flooded of the two others.
        let (one, two) = (f64::from(counts[8][1]), f64::from(counts[8][2]));
        assert!((0.7..1.4).contains(&(one / two)), "{one} {two}");
    }

    #[test]
    fn p2c_keeps_an_overloaded_server_from_drowning() {
        // The latency of server 0 grows with what it has to do: half the capacity of the others.
        let took = |server: usize, _, open: u32| {
            let each = if server == 0 { 8 } else { 4 };
            Duration::from_millis(each * u64::from(open + 1))
        };
        let counts = simulate(&[1, 1, 1], Duration::from_millis(2), 30, took);
        let total = |server: usize| counts[10..].iter().map(|s| s[server]).sum::<u32>();
        assert!(total(0) < total(1) && total(0) < total(2), "{} {}", total(0), total(1));
        assert!(total(0) > 500, "{}", total(0));
    }

    #[test]
    fn weights_are_shares() {
        let equal = |_, _, _| Duration::from_millis(5);
        for gap in [Duration::from_millis(10), Duration::from_micros(200)] {
            let counts = simulate(&[3, 1], gap, 20, equal);
            let heavy: u32 = counts.iter().map(|s| s[0]).sum();
            let all: u32 = counts.iter().flatten().sum();
            let share = f64::from(heavy) / f64::from(all);
            assert!((0.70..0.80).contains(&share), "every {gap:?}: {share}");
        }
        let (candidates, mut credit) = (servers(&[3, 1, 1]), vec![0; 3]);
        let order: Vec<usize> = (0..5).map(|_| turn(&candidates, &mut credit).unwrap()).collect();
        assert_eq!(order, [0, 1, 0, 2, 0]);
        assert_eq!(credit, [0, 0, 0]);
    }

    #[test]
    fn least_goes_by_weight() {
        let mut candidates = servers(&[3, 1]);
        (candidates[0].open, candidates[1].open) = (2, 1);
        for _ in 0..20 {
            assert_eq!(least(&candidates, &mut Chance::new(1)), Some(0));
        }
        assert_eq!(least(&[], &mut Chance::new(1)), None);
        let mut chance = Chance::new(3);
        let idle = servers(&[1, 1]);
        let first = (0..1000).filter(|_| least(&idle, &mut chance) == Some(0)).count();
        assert!((400..600).contains(&first), "{first}");
    }

    #[test]
    fn a_server_that_comes_or_goes_moves_its_own_keys_alone() {
        for count in 2..12 {
            let all = servers(&vec![1; count]);
            let fewer = &all[..count - 1];
            let (keys, mut moved) = (20_000u64, 0);
            for key in 0..keys {
                let before = rendezvous(&all, mix(key)).unwrap();
                let after = rendezvous(fewer, mix(key)).unwrap();
                if before == count - 1 {
                    moved += 1;
                } else {
                    assert_eq!(before, after, "key {key} moved between servers that stayed");
                }
            }
            let fair = keys as f64 / count as f64;
            assert!((fair * 0.9..fair * 1.1).contains(&f64::from(moved)), "{count}: {moved}");
        }
    }

    #[test]
    fn keys_follow_weights() {
        let candidates = servers(&[3, 1]);
        let heavy = (0..20_000).filter(|k| rendezvous(&candidates, mix(*k)) == Some(0)).count();
        assert!((14_500..15_500).contains(&heavy), "{heavy}");
    }

    #[test]
    fn a_share_that_grows_takes_no_key_of_those_it_had() {
        let shares =
            |canary| vec![("stable".to_owned(), 100 - canary), ("canary".to_owned(), canary)];
        let of = |canary: u32, key: u64| share(&shares(canary), mix(key)).unwrap().to_owned();
        for (few, many) in [(0, 5), (5, 20), (20, 100)] {
            let mut counts = [0, 0];
            for key in 0..20_000 {
                let (before, after) = (of(few, key) == "canary", of(many, key) == "canary");
                assert!(after || !before, "key {key} left at {many}");
                counts[0] += u32::from(before);
                counts[1] += u32::from(after);
            }
            for (count, percent) in counts.iter().zip([few, many]) {
                assert!(count.abs_diff(percent * 200) < 250, "{count} of {percent} percent");
            }
        }
        assert_eq!(share(&[("none".to_owned(), 0)], 1), None);
        assert_eq!(share(&[], 1), None);
    }

    #[test]
    fn warmth_grows_from_a_tenth_to_all() {
        let s = Duration::from_secs;
        assert!((warmth(s(0), s(10)) - 0.1).abs() < 1e-9);
        assert!((warmth(s(5), s(10)) - 0.55).abs() < 1e-9);
        assert!((warmth(s(10), s(10)) - 1.0).abs() < 1e-9);
        assert!((warmth(s(0), s(0)) - 1.0).abs() < 1e-9);
    }
}
