//! A span for each call of a hook: to the collector of `log.otlp`, and as a line of the log where
//! `log: {level: "info,witgate::span=debug"}` asks for it. Its ids are those of W3C Trace Context, so that
//! it hangs under the span of its exchange or of the client. While both are off, a call pays two
//! loads for them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::facts::Facts;
use super::stats::{DECISIONS, decision_index};
use super::{Decision, PluginError};
use crate::http::head::RequestHead;
use crate::otlp::{self, HookCall};

/// Whether spans are asked for.
#[inline]
pub(super) fn is_on() -> bool {
    otlp::is_on() || is_logged()
}

#[inline]
fn is_logged() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

/// Writes the span of one call, which has just ended.
pub(super) fn write(
    of_plugin: &Facts,
    hook: &'static str,
    request: &RequestHead,
    took: Duration,
    outcome: Result<&Decision, &PluginError>,
) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = now.saturating_sub(took);
    let parent = request.headers.get("traceparent").and_then(|value| value.to_str().ok());
    let span = otlp::span_id().unwrap_or_default();
    let (outcome, error) = match outcome {
        Ok(decision) => {
            (DECISIONS.get(decision_index(decision)).copied().unwrap_or_default(), None)
        }
        Err(error) => {
            ("failed", Some(of_plugin.secrets.mask_text(&error.to_string()).into_owned()))
        }
    };
    let of = &of_plugin.subject;
    if otlp::is_on()
        && let Some(parent) = parent
    {
        otlp::hook(HookCall {
            parent,
            span: &span,
            hook,
            plugin: &of.name,
            digest: of.short_digest(),
            outcome,
            took,
            error,
        });
    }
    if !is_logged() {
        return;
    }
    let context = parent.and_then(otlp::context);
    let (trace, parent) = context.map_or(("", ""), |context| (context.trace, context.parent));
    tracing::debug!(
        target: TARGET,
        plugin = &*of.name,
        digest = of.short_digest(),
        request = &*request.id,
        trace_id = trace,
        span_id = span,
        parent_span_id = parent,
        start_unix_nanos = u64::try_from(start.as_nanos()).unwrap_or(u64::MAX),
        duration_nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
        outcome,
        "{hook}"
    );
}

const TARGET: &str = "witgate::span";
