//! Spans of exchanges and of plugins' hooks, sent to a collector as OTLP over HTTP in its JSON encoding
//! (OpenTelemetry Protocol 1.x, "OTLP/HTTP"; W3C Trace Context). Off, it costs an exchange and a hook one
//! load each; on, nothing waits for it: spans go through a bounded [`Feed`].
//!
//! One exporter for the process, as there is one log: hooks and exchanges find it by themselves.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use aws_lc_rs::rand;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::config::Otlp;
use crate::fault::Fault;
use crate::feed::{Feed, Pace, Taker};
use crate::hex;
use crate::telemetry::{Ending, Record};

/// Whether there is an exporter: looked at before anything else.
static IS_ON: AtomicBool = AtomicBool::new(false);
static EXPORTER: ArcSwapOption<Exporter> = ArcSwapOption::const_empty();

/// Sends spans to one collector.
pub struct Exporter {
    config: Otlp,
    feed: Arc<Feed>,
}

/// The context of W3C Trace Context, section 3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context<'v> {
    /// The trace, 32 hexadecimal digits.
    pub trace: &'v str,
    /// The span of the caller, 16 hexadecimal digits.
    pub parent: &'v str,
    /// Whether the caller records it.
    pub is_sampled: bool,
}

/// The span of an exchange under way.
#[derive(Debug)]
pub struct Trace {
    exporter: Arc<Exporter>,
    trace: String,
    parent: Option<String>,
    span: String,
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").field("endpoint", &self.config.endpoint).finish_non_exhaustive()
    }
}

/// Puts `log.otlp` in force. What did not change goes on; what is replaced sends what it has. Must run
/// inside the control runtime.
///
/// # Errors
/// When a field's secret cannot be read. What was in force before stays.
pub fn configure(config: Option<&Otlp>) -> Result<(), String> {
    let known = EXPORTER.load_full();
    if known.as_ref().map(|known| &known.config) == config {
        return Ok(());
    }
    let next = config.map(|config| {
        let collector = Collector::new(config)?;
        let feed = Feed::start(Arc::new(collector), PACE);
        Ok::<_, String>(Arc::new(Exporter { config: config.clone(), feed }))
    });
    let next = next.transpose()?;
    IS_ON.store(next.is_some(), Ordering::Relaxed);
    EXPORTER.store(next);
    Ok(())
}

/// Sends what is left, at the end of the process.
pub async fn finish() {
    IS_ON.store(false, Ordering::Relaxed);
    if let Some(exporter) = EXPORTER.swap(None) {
        exporter.feed.finish().await;
    }
}

/// Whether spans are sent.
#[inline]
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// Begins the span of an exchange: below the client's, where it sent one that is recorded, else at the
/// root of a trace of its own if that is among the share. `traceparent` then names this span, for
/// hooks and upstreams. None where nothing is recorded; then the client's field stays as it is.
#[inline]
pub fn begin(headers: &mut HeaderMap) -> Option<Box<Trace>> {
    if !is_on() {
        return None;
    }
    begun(headers)
}

fn begun(headers: &mut HeaderMap) -> Option<Box<Trace>> {
    let exporter = EXPORTER.load_full()?;
    let given = headers.get(&TRACEPARENT).and_then(|value| value.to_str().ok()).and_then(context);
    let (trace, parent) = match given {
        Some(context) if !context.is_sampled => return None,
        Some(context) => (context.trace.to_owned(), Some(context.parent.to_owned())),
        None => {
            let mut id = [0; 16];
            rand::fill(&mut id).ok()?;
            // The first bits of a random id are as good a lot as any.
            let lot = u32::from(u16::from_be_bytes([id[0], id[1]])) * 10_000 / (1 << 16);
            if lot >= u32::from(exporter.config.share) {
                return None;
            }
            headers.remove(&TRACESTATE);
            (hex::lower(&id), None)
        }
    };
    let span = span_id()?;
    let field = HeaderValue::try_from(format!("00-{trace}-{span}-01")).ok()?;
    headers.insert(&TRACEPARENT, field);
    Some(Box::new(Trace { exporter, trace, parent, span }))
}

impl Trace {
    /// Sends the span of an exchange that has ended.
    pub fn end(&self, record: &Record, ending: Ending) {
        let path = record.target.split('?').next().unwrap_or_default();
        let mut attributes = vec![
            text("http.request.method", record.method.as_str()),
            text("url.scheme", record.scheme),
            text("server.address", &record.authority),
            // Not the query, which may hold what is nobody's business.
            text("url.path", path),
            text("client.address", &record.client.to_canonical().to_string()),
            text("network.protocol.version", version(record.version)),
            text("witgate.request.id", &record.id),
            number("http.response.status_code", record.status.into()),
            number("http.response.body.size", record.bytes_sent),
        ];
        if let Some((upstream, server)) = &record.upstream {
            attributes.push(text("witgate.upstream", upstream));
            attributes.push(text("witgate.server", server));
        }
        let failure = match (&record.failure, ending) {
            (Some((fault, what)), _) => Some((*fault, what.as_str())),
            (None, Ending::Complete) => None,
            (None, Ending::Client) => Some((Fault::Client, "went away during the response")),
            (None, Ending::Upstream) => Some((Fault::Upstream, "broke off in the body")),
        };
        if let Some((fault, _)) = failure {
            attributes.push(text("error.type", &fault.to_string()));
        }
        // Of a server's span only what is not the client's doing is an error.
        let is_error = record.status >= 500 || failure.is_some_and(|(f, _)| f != Fault::Client);
        let status = match (is_error, failure) {
            (true, Some((_, what))) => json!({"code": STATUS_ERROR, "message": what}),
            (true, None) => json!({"code": STATUS_ERROR}),
            (false, _) => json!({}),
        };
        self.exporter.send(&Span {
            trace: &self.trace,
            span: &self.span,
            parent: self.parent.as_deref(),
            name: record.method.as_str(),
            kind: KIND_SERVER,
            took: record.start.elapsed(),
            attributes,
            status,
        });
    }
}

/// One call of a plugin's hook, which has just ended.
pub struct HookCall<'c> {
    /// The value of `traceparent` of the request in hand.
    pub parent: &'c str,
    /// Its id of its own.
    pub span: &'c str,
    /// World and function.
    pub hook: &'c str,
    /// The plugin's name.
    pub plugin: &'c str,
    /// Its digest, shortened.
    pub digest: &'c str,
    /// What it decided, or `failed`.
    pub outcome: &'c str,
    /// How long it took.
    pub took: Duration,
    /// How it failed.
    pub error: Option<String>,
}

/// Sends the span of a hook, if that of its exchange is sent.
pub fn hook(call: HookCall<'_>) {
    let Some(exporter) = EXPORTER.load_full() else { return };
    let Some(context) = context(call.parent).filter(|context| context.is_sampled) else { return };
    let status = match call.error {
        Some(error) => json!({"code": STATUS_ERROR, "message": error}),
        None => json!({}),
    };
    exporter.send(&Span {
        trace: context.trace,
        span: call.span,
        parent: Some(context.parent),
        name: call.hook,
        kind: KIND_INTERNAL,
        took: call.took,
        attributes: vec![
            text("witgate.plugin", call.plugin),
            text("witgate.plugin.digest", call.digest),
            text("witgate.plugin.outcome", call.outcome),
        ],
        status,
    });
}

struct Span<'s> {
    trace: &'s str,
    span: &'s str,
    parent: Option<&'s str>,
    name: &'s str,
    kind: u8,
    took: Duration,
    attributes: Vec<Value>,
    status: Value,
}

impl Exporter {
    fn send(&self, span: &Span<'_>) {
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = end.saturating_sub(span.took);
        let mut json = json!({
            "traceId": span.trace,
            "spanId": span.span,
            "name": span.name,
            "kind": span.kind,
            // 64-bit numbers are texts in the JSON mapping of Protocol Buffers.
            "startTimeUnixNano": start.as_nanos().to_string(),
            "endTimeUnixNano": end.as_nanos().to_string(),
            "attributes": span.attributes,
            "status": span.status,
        });
        if let (Some(parent), Value::Object(fields)) = (span.parent, &mut json) {
            fields.insert("parentSpanId".to_owned(), parent.into());
        }
        self.feed.give(json.to_string());
    }
}

/// Where spans go.
struct Collector {
    endpoint: String,
    headers: HeaderMap,
    /// The resource, as JSON.
    resource: String,
}

impl Collector {
    fn new(config: &Otlp) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (name, source) in &config.headers {
            let wrong = |why: String| format!("log.otlp.headers.{name}: {why}");
            let value = source.read().map_err(|cause| wrong(cause.to_string()))?;
            let mut value = HeaderValue::from_bytes(value.expose().as_bytes())
                .map_err(|_| wrong("it has bytes that no field may have".to_owned()))?;
            value.set_sensitive(true);
            let name = HeaderName::try_from(name.as_str())
                .map_err(|_| wrong("this is no name of a field".to_owned()))?;
            headers.append(name, value);
        }
        let attributes = [
            text("service.name", &config.service),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let resource = json!({"attributes": attributes}).to_string();
        Ok(Self { endpoint: config.endpoint.clone(), headers, resource })
    }

    fn body(&self, spans: &[String]) -> String {
        let scope =
            concat!("{\"name\":\"witgate\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}");
        let mut body = String::with_capacity(256 + spans.iter().map(String::len).sum::<usize>());
        let _ = write!(
            body,
            "{{\"resourceSpans\":[{{\"resource\":{},\"scopeSpans\":[{{\"scope\":{scope},\"spans\":[{}]}}]}}]}}",
            self.resource,
            spans.join(",")
        );
        body
    }
}

impl Taker for Collector {
    fn label(&self) -> String {
        self.endpoint.clone()
    }

    fn take(
        &self,
        batch: Arc<Vec<String>>,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
        Box::pin(async move {
            let body = self.body(&batch);
            let posted = crate::acme::post(&self.endpoint, body, self.headers.clone());
            match tokio::time::timeout(POST_TIME, posted).await {
                Ok(Ok(status)) if status.is_success() => Ok(()),
                Ok(Ok(status)) => Err(format!("it answers {status}")),
                Ok(Err(cause)) => Err(cause.to_string()),
                Err(_) => Err("it does not answer".to_owned()),
            }
        })
    }

    fn dropped(&self, _: u64) {}
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 | http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// A new id for a span, not all zeros.
pub fn span_id() -> Option<String> {
    let mut id = [0; 8];
    rand::fill(&mut id).ok()?;
    id[0] |= 1;
    Some(hex::lower(&id))
}

/// Reads a `traceparent` (W3C Trace Context, section 3.2).
pub fn context(value: &str) -> Option<Context<'_>> {
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
    let is_sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
    let context = Context { trace, parent, is_sampled };
    (is_whole && !is_zero(trace) && !is_zero(parent)).then_some(context)
}

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `SPAN_KIND_INTERNAL` and `SPAN_KIND_SERVER` of opentelemetry/proto/trace/v1.
const KIND_INTERNAL: u8 = 1;
const KIND_SERVER: u8 = 2;
/// `STATUS_CODE_ERROR`.
const STATUS_ERROR: u8 = 2;
const PACE: Pace = Pace {
    batch_max: 512,
    wait: Duration::from_secs(1),
    pauses: &[Duration::from_secs(2), Duration::from_secs(5)],
};
const POST_TIME: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_is_read_or_left_alone() {
        let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let found = |is_sampled| Some(Context { trace, parent, is_sampled });
        assert_eq!(context(&format!("00-{trace}-{parent}-01")), found(true));
        assert_eq!(context(&format!("00-{trace}-{parent}-00")), found(false));
        assert_eq!(context(&format!("01-{trace}-{parent}-03-more")), found(true));
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

    #[test]
    fn nothing_is_begun_while_it_is_off() {
        let mut headers = HeaderMap::new();
        assert!(begin(&mut headers).is_none() && headers.is_empty());
    }

    #[test]
    fn a_batch_is_what_the_protocol_says() {
        let collector = Collector::new(&Otlp {
            endpoint: "http://127.0.0.1:4318/v1/traces".to_owned(),
            headers: Vec::new(),
            share: 10_000,
            service: "a \"gateway\"".to_owned(),
        });
        let body = collector.unwrap().body(&["{\"spanId\":\"1\"}".to_owned(), "{}".to_owned()]);
        let body: Value = serde_json::from_str(&body).unwrap();
        let of = &body["resourceSpans"][0];
        let service = &of["resource"]["attributes"][0];
        assert_eq!(service["key"], "service.name");
        assert_eq!(service["value"]["stringValue"], "a \"gateway\"");
        assert_eq!(of["scopeSpans"][0]["scope"]["name"], "witgate");
        assert_eq!(of["scopeSpans"][0]["spans"].as_array().unwrap().len(), 2);
    }
}
