//! A count of each kind of refusal, and a line in the log now and then.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::telemetry::Counters;

/// Why somebody was sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `limits.connections`.
    Connections,
    /// `limits.connections-per-address`.
    Address,
    /// `limits.buffers`.
    Buffers,
    /// A request's body that came too slowly.
    SlowRequest,
    /// A response that was taken too slowly.
    SlowResponse,
    /// Frames of HTTP/2 that ask for work and bring nothing.
    Flood,
    /// No file descriptor was left.
    Descriptors,
}

/// Each reason with its word in metrics and what the log says.
pub const REASONS: [(Reason, &str, &str); 7] = [
    (Reason::Connections, "connections", "connections were refused by `limits.connections`"),
    (Reason::Address, "address", "connections were refused by `limits.connections-per-address`"),
    (Reason::Buffers, "buffers", "requests were answered 503 by `limits.buffers`"),
    (
        Reason::SlowRequest,
        "slow_request",
        "requests ended by `limits.request-body-idle` or `limits.request-body-rate`",
    ),
    (
        Reason::SlowResponse,
        "slow_response",
        "responses ended by `limits.response-idle` or `limits.response-rate`",
    ),
    (Reason::Flood, "flood", "connections ended for a flood of HTTP/2 frames"),
    (
        Reason::Descriptors,
        "descriptors",
        "connections wait since no file descriptor is left; raise the limit of open files",
    ),
];

/// What one worker says about refusals: all are counted, and one line in a while tells how many.
#[derive(Debug)]
pub struct Notices {
    counters: Arc<Counters>,
    lines: [Line; REASONS.len()],
}

#[derive(Debug, Default)]
struct Line {
    last: Cell<Option<Instant>>,
    untold: Cell<u64>,
}

impl Notices {
    /// Nothing said yet.
    pub fn new(counters: Arc<Counters>) -> Self {
        Self { counters, lines: Default::default() }
    }

    /// Notes a refusal; `client` is the one that the line names, if this is when a line is due.
    pub fn note(&self, reason: Reason, client: Option<IpAddr>) {
        let index = reason as usize;
        let (Some(counter), Some(line)) = (self.counters.refused.get(index), self.lines.get(index))
        else {
            return;
        };
        Counters::add(counter, 1);
        line.untold.set(line.untold.get() + 1);
        if line.last.get().is_some_and(|last| last.elapsed() < QUIET) {
            return;
        }
        line.last.set(Some(Instant::now()));
        let count = line.untold.replace(0);
        let what = REASONS.get(index).map(|(_, _, what)| *what).unwrap_or_default();
        let client = client.map(|client| client.to_canonical().to_string());
        tracing::warn!(count, client = client.as_deref(), "{what}");
    }
}

/// Between two lines of one worker about the same.
const QUIET: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_in_the_order_of_their_numbers() {
        for (index, (reason, ..)) in REASONS.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }
}
