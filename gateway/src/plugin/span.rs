//! A span for each call of a hook, as a line of the log: `log: {level: "info,witgate::span=debug"}`. Its
//! ids are those of W3C Trace Context, so that whoever collects the lines can hang them under the
//! client's span. While they are off, a call pays one load for them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::stats::{DECISIONS, decision_index};
use super::{Decision, PluginError, Subject};
use crate::http::head::RequestHead;

/// Whether spans are asked for.
#[inline]
pub(super) fn is_on() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

/// Writes the span of one call, which has just ended.
pub(super) fn write(
    of: &Subject,
    hook: &'static str,
    request: &RequestHead,
    took: Duration,
    outcome: Result<&Decision, &PluginError>,
) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = now.saturating_sub(took);
    let parent = request.headers.get("traceparent").and_then(|value| value.to_str().ok());
    let (trace, parent) = parent.and_then(context).unwrap_or(("", ""));
    // The random half of it.
    let span = uuid::Uuid::now_v7().simple().to_string();
    let outcome = match outcome {
        Ok(decision) => DECISIONS.get(decision_index(decision)).copied().unwrap_or_default(),
        Err(_) => "failed",
    };
    tracing::debug!(
        target: TARGET,
        plugin = &*of.name,
        digest = of.short_digest(),
        request = &*request.id,
        trace_id = trace,
        span_id = span.get(16..).unwrap_or_default(),
        parent_span_id = parent,
        start_unix_nanos = u64::try_from(start.as_nanos()).unwrap_or(u64::MAX),
        duration_nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        outcome,
        "{hook}"
    );
}

/// The ids of trace and parent in a `traceparent` (W3C Trace Context, section 3.2).
fn context(value: &str) -> Option<(&str, &str)> {
    let mut parts = value.split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length: usize| {
        let is_lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        text.len() == length && text.bytes().all(is_lower)
    };
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    // Version 00 has four parts; later ones may have more.
    let is_whole = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && is_hex(parent, 16)
        && is_hex(flags, 2)
        && (version != "00" || parts.next().is_none());
    (is_whole && !is_zero(trace) && !is_zero(parent)).then_some((trace, parent))
}

const TARGET: &str = "witgate::span";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_is_read_or_left_alone() {
        let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        assert_eq!(context(&format!("00-{trace}-{parent}-01")), Some((trace, parent)));
        assert_eq!(context(&format!("01-{trace}-{parent}-01-more")), Some((trace, parent)));
        for wrong in [
            String::new(),
            format!("00-{trace}-{parent}"),
            format!("00-{trace}-{parent}-01-more"),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}-{parent}x-01"),
        ] {
            assert_eq!(context(&wrong), None, "{wrong}");
        }
    }
}
