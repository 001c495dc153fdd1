//! Local control over a unix socket: status, metrics, reload, renewal. HTTP/1.1, so that curl speaks
//! it: `curl --unix-socket state/admin.sock http://witgate/status`.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::acme::Acme;
use crate::clock::Timestamp;
use crate::generation::Live;
use crate::telemetry::Counters;
use crate::tls::certs::Certs;

/// What the gateway is asked to do.
pub enum Order {
    /// Read the configuration again; the new generation's id, or why not.
    Reload(oneshot::Sender<Result<u64, String>>),
    /// Renew the certificate of a host now.
    Renew(String, oneshot::Sender<Result<(), String>>),
}

/// What can be seen.
#[derive(Clone)]
pub struct State {
    /// The generation in force.
    pub live: Arc<Live>,
    /// Certificates and what they wait for.
    pub acme: Arc<Acme>,
    /// Certificates that are served.
    pub certs: Arc<Certs>,
    /// One per worker.
    pub counters: Vec<Arc<Counters>>,
    /// To the gateway.
    pub orders: mpsc::Sender<Order>,
}

/// The control socket; closed when dropped.
pub struct Server {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens at `path`, for the gateway's own user alone. A socket left there by a process that
    /// died is replaced.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(path: &Path, state: State) -> std::io::Result<Self> {
        if std::os::unix::net::UnixStream::connect(path).is_err() {
            match std::fs::remove_file(path) {
                Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(cause),
                _ => {}
            }
        }
        let listener = UnixListener::bind(path)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, mode)?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = state.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(state.clone(), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { path: path.to_owned(), task })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(
    state: State,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let (status, media, body) = match (request.method(), path.as_str()) {
        (&Method::GET, "/status") => (StatusCode::OK, JSON, status(&state)),
        (&Method::GET, "/metrics") => (StatusCode::OK, METRICS, metrics(&state)),
        (&Method::POST, "/reload") => outcome(ask(&state, Order::Reload).await),
        (&Method::POST, path) if path.starts_with("/renew/") => {
            let host = path.trim_start_matches("/renew/").to_owned();
            outcome(ask(&state, |reply| Order::Renew(host, reply)).await.map(|()| 0))
        }
        (&Method::GET, "/certs") => (StatusCode::OK, JSON, json(&state.acme.status())),
        (&Method::GET, "/certs/plan") => {
            let days = parameter(&request, "days").and_then(|days| days.parse().ok());
            let days: u64 = days.unwrap_or(PLAN_DAYS).min(PLAN_DAYS_MAX);
            let ahead = std::time::Duration::from_secs(days * 24 * 3600);
            (StatusCode::OK, JSON, json(&state.acme.plan(ahead)))
        }
        (&Method::POST, path) if path.starts_with("/revoke/") => {
            let host = path.trim_start_matches("/revoke/");
            let reason = parameter(&request, "reason");
            outcome(state.acme.revoke(host, reason).await.map(|()| 0))
        }
        _ => {
            let help = "GET /status, GET /certs, GET /certs/plan?days=N, GET /metrics, \
                        POST /reload, POST /renew/HOST, POST /revoke/HOST?reason=REASON\n";
            (StatusCode::NOT_FOUND, TEXT, help.to_owned())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let media = http::HeaderValue::from_static(media);
    response.headers_mut().insert(http::header::CONTENT_TYPE, media);
    Ok(response)
}

/// The value of a query parameter; none of ours needs escapes.
fn parameter<'a>(request: &'a Request<Incoming>, name: &str) -> Option<&'a str> {
    let pairs = request.uri().query()?.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
}

fn json(what: &impl serde::Serialize) -> String {
    format!("{:#}\n", serde_json::json!(what))
}

async fn ask<T>(
    state: &State,
    order: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Order,
) -> Result<T, String> {
    let (reply, answer) = oneshot::channel();
    let gone = || "the gateway is stopping".to_owned();
    state.orders.send(order(reply)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

fn outcome(outcome: Result<u64, String>) -> (StatusCode, &'static str, String) {
    match outcome {
        Ok(0) => (StatusCode::OK, TEXT, "done\n".to_owned()),
        Ok(id) => (StatusCode::OK, TEXT, format!("generation {id} serving\n")),
        Err(why) => (StatusCode::UNPROCESSABLE_ENTITY, TEXT, format!("{why}\n")),
    }
}

fn status(state: &State) -> String {
    let generation = state.live.current();
    let plugins = generation
        .plugins
        .iter()
        .map(|(name, plugin)| serde_json::json!({"name": name, "digest": plugin.digest()}));
    let plugins: Vec<_> = plugins.collect();
    let served = state.certs.all().into_iter().map(|(slot, certificate)| {
        let names: Vec<String> = certificate.names.iter().map(ToString::to_string).collect();
        serde_json::json!({
            "slot": slot,
            "names": names,
            "not_after": certificate.not_after.0,
            "seconds_left": Timestamp::now().until(certificate.not_after).as_secs(),
        })
    });
    let listen: Vec<String> = generation.config.listen.iter().map(ToString::to_string).collect();
    let status = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "generation": generation.id,
        "listen": listen,
        "plugins": plugins,
        "certificates": state.acme.status(),
        "served_certificates": served.collect::<Vec<_>>(),
    });
    format!("{status:#}\n")
}

/// Prometheus text format.
fn metrics(state: &State) -> String {
    let sum = |pick: fn(&Counters) -> u64| state.counters.iter().map(|c| pick(c)).sum::<u64>();
    let load = Ordering::Relaxed;
    let mut text = String::new();
    let mut line = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    line("witgate_generation", "gauge", "The generation in force.", state.live.id());
    let accepted = sum(|c| c.connections.load(Ordering::Relaxed));
    line("witgate_connections_total", "counter", "Connections accepted.", accepted);
    let open = sum(|c| c.open.load(Ordering::Relaxed));
    line("witgate_connections_open", "gauge", "Connections open.", open);
    let failed = sum(|c| c.handshakes_failed.load(Ordering::Relaxed));
    line("witgate_handshakes_failed_total", "counter", "Handshakes that failed.", failed);
    let plugins = sum(|c| c.plugin_failures.load(Ordering::Relaxed));
    line("witgate_plugin_failures_total", "counter", "Plugin calls that failed.", plugins);
    text.push_str("# HELP witgate_requests_total Exchanges ended, by status class.\n");
    text.push_str("# TYPE witgate_requests_total counter\n");
    for class in 0..5 {
        let counted = state.counters.iter().filter_map(|c| c.exchanges.get(class));
        let value: u64 = counted.map(|counter| counter.load(load)).sum();
        let _ = writeln!(text, "witgate_requests_total{{status=\"{}xx\"}} {value}", class + 1);
    }
    text.push_str("# HELP witgate_certificate_not_after_seconds End of validity.\n");
    text.push_str("# TYPE witgate_certificate_not_after_seconds gauge\n");
    for (slot, certificate) in state.certs.all() {
        let _ = writeln!(
            text,
            "witgate_certificate_not_after_seconds{{slot=\"{slot}\"}} {}",
            certificate.not_after.0
        );
    }
    runway(state, &mut text);
    text
}

/// How long all goes well without any CA, and which certificates do not.
fn runway(state: &State, text: &mut String) {
    let now = Timestamp::now();
    let all = state.acme.status();
    let ends = all.iter().filter_map(|one| one.not_after);
    let mut gauge = |name: &str, help: &str, value: u64| {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    };
    if let Some(first) = ends.min() {
        let help = "Until the first certificate ends, if no CA answered from now on.";
        let left = now.until(Timestamp(first)).as_secs();
        gauge("witgate_certificate_runway_seconds", help, left);
    }
    let is_missing = |end: Option<i64>| end.is_none_or(|end| end <= now.0);
    let missing = all.iter().filter(|one| is_missing(one.not_after)).count();
    let failing = all.iter().filter(|one| one.failures > 0).count();
    let help = "ACME certificates that are wanted and not there, or ended.";
    gauge("witgate_certificates_missing", help, missing.try_into().unwrap_or(u64::MAX));
    let help = "ACME certificates whose last order failed.";
    gauge("witgate_certificates_failing", help, failing.try_into().unwrap_or(u64::MAX));
}

/// How far `plan` looks ahead.
const PLAN_DAYS: u64 = 90;
const PLAN_DAYS_MAX: u64 = 3650;
const JSON: &str = "application/json";
const METRICS: &str = "text/plain; version=0.0.4";
const TEXT: &str = "text/plain; charset=utf-8";
