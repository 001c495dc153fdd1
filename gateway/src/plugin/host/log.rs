//! `wit/log.wit`, and where a plugin's standard output and error go.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tracing::Level;
use wasmtime::component::{LinkerInstance, WasmStr};

use super::super::facts::Facts;
use super::{Host, Phase};

/// The rate at which a plugin may log: a bucket of one second's lines.
pub(in super::super) struct Rate(Mutex<Bucket>);

struct Bucket {
    lines: f64,
    since: Instant,
    dropped: u64,
}

impl Rate {
    pub(in super::super) fn new(per_second: u32) -> Self {
        Self(Mutex::new(Bucket { lines: per_second.into(), since: Instant::now(), dropped: 0 }))
    }

    /// Whether a line may pass, and how many were dropped before it.
    fn pass(&self, per_second: u32, now: Instant) -> Option<u64> {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gained = now.saturating_duration_since(bucket.since).as_secs_f64();
        bucket.since = now;
        let per_second = f64::from(per_second);
        bucket.lines = (bucket.lines + gained * per_second).min(per_second);
        if bucket.lines < 1.0 {
            bucket.dropped = bucket.dropped.saturating_add(1);
            return None;
        }
        bucket.lines -= 1.0;
        Some(std::mem::take(&mut bucket.dropped))
    }
}

/// Links `function` of `log`; false when there is none.
pub(in super::super) fn link(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
) -> wasmtime::Result<bool> {
    match function {
        "write" => {
            at.func_wrap(function, |mut store, (level, message): (WasmStr, WasmStr)| {
                let level = level_of(&level.to_str(&store)?);
                let message = message.to_str(&store)?;
                let bytes = message.len();
                let host = store.data();
                line(&host.facts, host.request_id(), level, &message);
                store.data_mut().charge(bytes)
            })?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

impl Host {
    /// The id of the exchange in hand, or nothing.
    pub(in super::super) fn request_id(&self) -> &str {
        match self.exchange.phase {
            Phase::Idle | Phase::Hello => "",
            _ => &self.exchange.request.id,
        }
    }
}

/// Writes one line of a plugin: masked, cut and counted.
pub(in super::super) fn line(facts: &Facts, request: &str, level: Level, message: &str) {
    let Some(dropped) = facts.log.pass(facts.limits.log_lines_per_second_max, Instant::now())
    else {
        return;
    };
    let (plugin, digest) = (&*facts.subject.name, facts.subject.short_digest());
    if dropped > 0 {
        tracing::warn!(
            plugin,
            digest,
            dropped,
            "the plugin logged more than plugins.{plugin}.limits.log-lines lines a second; the rest \
             was dropped"
        );
    }
    // Masking takes time by length, and nothing interrupts the host: cut first. Then the end may be
    // a piece of a secret, which no mask knows.
    let short = cut(message);
    let masked = facts.secrets.mask_text(short);
    let message = match short.len() == message.len() {
        true => &*masked,
        false => cut_at(&masked, masked.len().saturating_sub(facts.secrets.longest())),
    };
    // The level of an event is part of its code.
    macro_rules! event {
        ($level:ident) => {
            if request.is_empty() {
                tracing::$level!(plugin, digest, "{message}")
            } else {
                tracing::$level!(plugin, digest, request, "{message}")
            }
        };
    }
    match level {
        Level::ERROR => event!(error),
        Level::WARN => event!(warn),
        Level::INFO => event!(info),
        Level::DEBUG => event!(debug),
        Level::TRACE => event!(trace),
    }
}

/// The longest beginning of `text` that is short enough for a line.
pub(in super::super) fn cut(text: &str) -> &str {
    cut_at(text, LINE_BYTES_MAX)
}

fn cut_at(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default()
}

fn level_of(level: &str) -> Level {
    match level {
        "error" => Level::ERROR,
        "warn" => Level::WARN,
        "debug" => Level::DEBUG,
        "trace" => Level::TRACE,
        _ => Level::INFO,
    }
}

/// The longest line, inclusive.
const LINE_BYTES_MAX: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_cut_and_counted() {
        let rate = Rate::new(2);
        let start = Instant::now();
        assert_eq!(rate.pass(2, start), Some(0));
        assert_eq!(rate.pass(2, start), Some(0));
        assert_eq!(rate.pass(2, start), None);
        assert_eq!(rate.pass(2, start), None);
        assert_eq!(rate.pass(2, start + Duration::from_secs(1)), Some(2));
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let long = "ä".repeat(LINE_BYTES_MAX);
        assert!(cut(&long).len() <= LINE_BYTES_MAX);
        assert_eq!(cut("short"), "short");
    }
}
