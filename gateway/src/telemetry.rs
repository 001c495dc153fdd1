//! What the gateway says about itself: the log on standard error, the access log on standard output,
//! counters for the status and for Prometheus.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{self, LogFormat};
use crate::fault::Fault;
use crate::feed::Feed;
use crate::otlp::Trace;
use crate::proxy::Via;
use crate::tls::clients::ClientCertificate;

/// A handle to change what is logged while running.
pub type LevelHandle = tracing_subscriber::reload::Handle<EnvFilter, tracing_subscriber::Registry>;

/// Starts logging. `WITGATE_LOG` overrides `log.level`.
///
/// # Errors
/// When the level is no filter.
pub fn start(log: &config::Log) -> Result<LevelHandle, String> {
    let (filter, handle) = tracing_subscriber::reload::Layer::new(filter(log)?);
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let outcome = match log.format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(layer.with_target(false).with_ansi(is_terminal)).try_init()
        }
    };
    outcome.map_err(|cause| cause.to_string())?;
    Ok(handle)
}

/// The filter that `log.level` describes.
///
/// # Errors
/// When it is no filter.
pub fn filter(log: &config::Log) -> Result<EnvFilter, String> {
    let text = std::env::var("WITGATE_LOG").unwrap_or_else(|_| log.level.clone());
    text.parse::<EnvFilter>().map_err(|cause| format!("log.level `{text}`: {cause}"))
}

/// Counters of one worker: written by it alone, read by the status.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections open now.
    pub open: AtomicU64,
    /// Handshakes that failed.
    pub handshakes_failed: AtomicU64,
    /// Handshakes by their key exchange group, in the order of [`GROUPS`]: full ones, then resumed ones.
    pub handshakes: [[AtomicU64; 2]; GROUPS.len()],
    /// Connections that were passed through, ended.
    pub passed: AtomicU64,
    /// Mirrored requests that were answered.
    pub mirrors_sent: AtomicU64,
    /// Those that no server answered.
    pub mirrors_failed: AtomicU64,
    /// Those that were left out: too long, broken off, or too many at once.
    pub mirrors_skipped: AtomicU64,
    /// Exchanges ended, by the first digit of the status.
    pub exchanges: [AtomicU64; 5],
    /// Who was sent away, by [`crate::bounds::Reason`].
    pub refused: [AtomicU64; crate::bounds::REASONS.len()],
    /// Exchanges answered by the gateway because of a plugin's failure.
    pub plugin_failures: AtomicU64,
}

/// The key exchange groups that are told apart, post-quantum ones first; the last stands for none, as in
/// a resumption of TLS 1.2.
pub const GROUPS: [&str; 5] = ["X25519MLKEM768", "x25519", "secp256r1", "secp384r1", "none"];

impl Counters {
    /// Counts a handshake that was made.
    pub fn handshake(&self, group: Option<&str>, is_resumed: bool) {
        let known = GROUPS.iter().position(|known| Some(*known) == group);
        let known = known.unwrap_or(GROUPS.len() - 1);
        let pair = self.handshakes.get(known);
        if let Some(counter) = pair.and_then(|pair| pair.get(usize::from(is_resumed))) {
            Self::add(counter, 1);
        }
    }

    /// Adds to a counter that only this worker writes: a load and a store, no locked instruction.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes from such a counter.
    pub fn sub(counter: &AtomicU64, n: u64) {
        counter.store(counter.load(Ordering::Relaxed).saturating_sub(n), Ordering::Relaxed);
    }
}

/// The access log of one worker: lines gather here and leave in large writes.
#[derive(Debug, Default)]
pub struct AccessLog {
    buffer: RefCell<String>,
    stamp: RefCell<(i64, String)>,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The response went out whole.
    Complete,
    /// The client went away before that.
    Client,
    /// The upstream broke off in the response's body.
    Upstream,
}

/// One exchange for the access log.
pub struct Record {
    /// Where the line goes.
    pub log: Rc<AccessLog>,
    /// The counters to add to.
    pub counters: Arc<Counters>,
    /// How lines look.
    pub format: config::AccessLog,
    /// When the request's head was there.
    pub start: Instant,
    /// The id of the exchange.
    pub id: Arc<str>,
    /// The client's address.
    pub client: std::net::IpAddr,
    /// The request's method.
    pub method: http::Method,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The request's authority.
    pub authority: String,
    /// The request's target.
    pub target: String,
    /// The request's version.
    pub version: http::Version,
    /// The TLS version and key exchange group.
    pub tls: Option<Arc<crate::tls::TlsFacts>>,
    /// The balancer that the connection came through.
    pub via: Option<Arc<Via>>,
    /// Bytes of the client, when the record is of a connection that was passed through.
    pub passed: Option<u64>,
    /// The status sent.
    pub status: u16,
    /// The upstream and server that answered.
    pub upstream: Option<(Arc<str>, Arc<str>)>,
    /// Whose fault a failure is, and what happened.
    pub failure: Option<(Fault, String)>,
    /// Bytes of the response's body that were sent.
    pub bytes_sent: u64,
    /// Plugins that get it, where there are any.
    pub sinks: Option<Arc<[Arc<Feed>]>>,
    /// Its span, where one is recorded.
    pub trace: Option<Box<Trace>>,
}

impl Record {
    /// A record of nothing, to leave behind where one was taken.
    pub fn blank(log: Rc<AccessLog>, counters: Arc<Counters>) -> Self {
        Self {
            log,
            counters,
            format: config::AccessLog::Off,
            start: Instant::now(),
            id: Arc::from(""),
            client: std::net::Ipv4Addr::UNSPECIFIED.into(),
            method: http::Method::GET,
            scheme: "https",
            authority: String::new(),
            target: String::new(),
            version: http::Version::HTTP_11,
            tls: None,
            via: None,
            passed: None,
            status: 0,
            upstream: None,
            failure: None,
            bytes_sent: 0,
            sinks: None,
            trace: None,
        }
    }

    /// Whether somebody wants to know more of it than counters do.
    pub fn is_read(&self) -> bool {
        self.format != config::AccessLog::Off || self.sinks.is_some() || self.trace.is_some()
    }

    /// Writes the line and counts the exchange.
    pub fn write(self, ending: Ending) {
        if self.passed.is_some() {
            Counters::add(&self.counters.passed, 1);
        }
        let class = usize::from(self.status / 100).checked_sub(1);
        if let Some(counter) = class.and_then(|class| self.counters.exchanges.get(class)) {
            Counters::add(counter, 1);
        }
        if let Some(trace) = &self.trace {
            trace.end(&self, ending);
        }
        if let Some(sinks) = &self.sinks {
            let line = self.log.line(&self, ending);
            for sink in sinks.iter() {
                sink.give(line.clone());
            }
        }
        match self.format {
            config::AccessLog::Off => {}
            config::AccessLog::Json => self.log.json(&self, ending),
            config::AccessLog::Text => self.log.text(&self, ending),
        }
    }
}

impl AccessLog {
    fn json(&self, record: &Record, ending: Ending) {
        let mut line = self.buffer.borrow_mut();
        self.push_json(&mut line, record, ending);
        line.push('\n');
        self.flush_when_large(line);
    }

    /// One record as JSON, without a line's end.
    fn line(&self, record: &Record, ending: Ending) -> String {
        let mut line = String::with_capacity(512);
        self.push_json(&mut line, record, ending);
        line
    }

    fn push_json(&self, line: &mut String, record: &Record, ending: Ending) {
        line.push_str("{\"time\":\"");
        self.push_time(line);
        line.push_str("\",\"id\":");
        push_string(line, &record.id);
        let _ = write!(line, ",\"client\":\"{}\"", record.client.to_canonical());
        if record.passed.is_none() {
            line.push_str(",\"method\":");
            push_string(line, record.method.as_str());
        }
        let _ = write!(line, ",\"scheme\":\"{}\",\"host\":", record.scheme);
        push_string(line, &record.authority);
        match record.passed {
            None => {
                line.push_str(",\"path\":");
                push_string(line, &record.target);
                let (version, status) = (record.version, record.status);
                let _ = write!(line, ",\"version\":\"{version:?}\",\"status\":{status}");
            }
            Some(bytes) => {
                let _ = write!(line, ",\"bytes_received\":{bytes}");
            }
        }
        let duration_ms = record.start.elapsed().as_secs_f64() * 1e3;
        let bytes = record.bytes_sent;
        let _ = write!(line, ",\"bytes\":{bytes},\"duration_ms\":{duration_ms:.3}");
        if let Some(tls) = &record.tls {
            let group = tls.group.unwrap_or("-");
            let _ = write!(line, ",\"tls\":\"{}\",\"tls_group\":\"{group}\"", tls.version);
        }
        if let Some(client) = record.tls.as_ref().and_then(|tls| tls.client.as_deref()) {
            push_client(line, client);
        }
        if let Some(via) = &record.via {
            push_via(line, via);
        }
        if let Some((upstream, server)) = &record.upstream {
            line.push_str(",\"upstream\":");
            push_string(line, upstream);
            line.push_str(",\"server\":");
            push_string(line, server);
        }
        match (&record.failure, ending) {
            (Some((fault, error)), _) => {
                let _ = write!(line, ",\"fault\":\"{fault}\",\"error\":");
                push_string(line, error);
            }
            (None, Ending::Complete) => {}
            (None, Ending::Client) => {
                line.push_str(",\"fault\":\"client\",\"error\":\"went away during the response\"");
            }
            (None, Ending::Upstream) => {
                line.push_str(",\"fault\":\"upstream\",\"error\":\"broke off in the body\"");
            }
        }
        line.push('}');
    }

    fn text(&self, record: &Record, ending: Ending) {
        let mut line = self.buffer.borrow_mut();
        self.push_time(&mut line);
        let method = if record.passed.is_some() { "-" } else { record.method.as_str() };
        let _ = write!(
            line,
            " {} {} {}://{}{} {} {}B {:.1}ms",
            record.client.to_canonical(),
            method,
            record.scheme,
            record.authority.escape_debug(),
            record.target.escape_debug(),
            record.status,
            record.bytes_sent,
            record.start.elapsed().as_secs_f64() * 1e3
        );
        if let Some(client) = record.tls.as_ref().and_then(|tls| tls.client.as_deref()) {
            let _ = write!(line, " as {}", client.subject.escape_debug());
        }
        if let Some((upstream, server)) = &record.upstream {
            let _ = write!(line, " -> {upstream} ({server})");
        }
        match (&record.failure, ending) {
            (Some((fault, error)), _) => {
                let _ = write!(line, " {fault}: {}", error.escape_debug());
            }
            (None, Ending::Complete) => {}
            (None, Ending::Client) => line.push_str(" client: went away during the response"),
            (None, Ending::Upstream) => line.push_str(" upstream: broke off in the body"),
        }
        let _ = writeln!(line, " [{}]", record.id);
        self.flush_when_large(line);
    }

    /// The time in RFC 3339 with milliseconds; the seconds are only formatted when they change.
    fn push_time(&self, line: &mut String) {
        let now = OffsetDateTime::now_utc();
        let mut stamp = self.stamp.borrow_mut();
        if stamp.0 != now.unix_timestamp() {
            let whole = now.replace_nanosecond(0).unwrap_or(now);
            let text = whole.format(&Rfc3339).unwrap_or_default();
            *stamp = (now.unix_timestamp(), text.trim_end_matches('Z').to_owned());
        }
        let _ = write!(line, "{}.{:03}Z", stamp.1, now.millisecond());
    }

    fn flush_when_large(&self, line: std::cell::RefMut<'_, String>) {
        if line.len() > FLUSH_BYTES {
            drop(line);
            self.flush();
        }
    }

    /// Writes what has gathered. Called by the worker several times a second and at the end.
    pub fn flush(&self) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.is_empty() {
            return;
        }
        // A closed standard output must not end the gateway.
        let _ = std::io::stdout().lock().write_all(buffer.as_bytes());
        buffer.clear();
    }
}

/// Ids of exchanges: unique over all workers and restarts, not guessable across processes, and cheap.
#[derive(Debug)]
pub struct Ids {
    prefix: String,
    next: Cell<u64>,
}

impl Default for Ids {
    fn default() -> Self {
        // The first half is a timestamp and random bits of a UUID (RFC 9562), new for each worker.
        let seed = uuid::Uuid::now_v7().simple().to_string();
        Self { prefix: seed.get(..24).unwrap_or_default().to_owned(), next: Cell::new(0) }
    }
}

impl Ids {
    /// The next id: 32 hexadecimal digits.
    pub fn next(&self) -> Arc<str> {
        let n = self.next.get();
        self.next.set(n.wrapping_add(1));
        let mut text = [0u8; 32];
        let (head, tail) = text.split_at_mut(24);
        head.copy_from_slice(self.prefix.as_bytes().get(..24).unwrap_or(&[b'0'; 24]));
        for (place, digit) in tail.iter_mut().rev().enumerate() {
            let nibble = (n >> (4 * place)) as u8 & 0xf;
            *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        }
        Arc::from(std::str::from_utf8(&text).unwrap_or_default())
    }
}

fn push_via(line: &mut String, via: &Via) {
    let _ = write!(line, ",\"proxy\":{{\"peer\":\"{}\"", via.peer.ip());
    let header = &via.header;
    let ssl = header.ssl.as_ref();
    let id = header.unique_id.as_deref().map(|id| match std::str::from_utf8(id) {
        Ok(text) if text.bytes().all(|b| b.is_ascii_graphic()) => text.to_owned(),
        _ => id.iter().map(|byte| format!("{byte:02x}")).collect(),
    });
    for (name, value) in [
        ("authority", header.authority.as_deref()),
        ("unique_id", id.as_deref()),
        ("tls", ssl.map(|ssl| &*ssl.version)),
        ("common_name", ssl.and_then(|ssl| ssl.common_name.as_deref())),
    ] {
        if let Some(value) = value {
            let _ = write!(line, ",\"{name}\":");
            push_string(line, value);
        }
    }
    line.push('}');
}

fn push_client(line: &mut String, client: &ClientCertificate) {
    line.push_str(",\"client_certificate\":{\"subject\":");
    push_string(line, &client.subject);
    line.push_str(",\"issuer\":");
    push_string(line, &client.issuer);
    let _ = write!(line, ",\"serial\":\"{}\",\"sha256\":\"{}\"", client.serial, client.sha256);
    line.push_str(",\"names\":[");
    for (index, name) in client.names.iter().enumerate() {
        line.push_str(if index == 0 { "" } else { "," });
        push_string(line, name);
    }
    line.push_str("]}");
}

fn push_string(line: &mut String, text: &str) {
    line.push('"');
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c == '"' || c == '\\' || c.is_control()) {
        let (clean, odd) = rest.split_at(at);
        line.push_str(clean);
        let mut chars = odd.chars();
        match chars.next() {
            Some(c @ ('"' | '\\')) => line.extend(['\\', c]),
            Some(c) => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            None => {}
        }
        rest = chars.as_str();
    }
    line.push_str(rest);
    line.push('"');
}

const FLUSH_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_json() {
        for text in ["plain", "a\"b\\c", "tab\there", "né\u{1}"] {
            let mut line = String::new();
            push_string(&mut line, text);
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        }
    }

    #[test]
    fn ids_differ_and_are_hexadecimal() {
        let ids = Ids::default();
        let (a, b) = (ids.next(), ids.next());
        assert_ne!(a, b);
        assert!(a.len() == 32 && a.bytes().all(|c| c.is_ascii_hexdigit()), "{a}");
        assert_ne!(Ids::default().next(), Ids::default().next());
    }
}
