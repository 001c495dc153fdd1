//! Local control over a unix socket: status, metrics, reload, upgrade,
//! renewal. HTTP/1.1, so that curl speaks
//! it: `curl --unix-socket state/admin.sock http://witgate/status`.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::acme::Acme;
use crate::bounds::{Memory, REASONS};
use crate::clock::Timestamp;
use crate::generation::{Generation, Live};
use crate::listen::{Report, Roll};
use crate::plugin::{DECISIONS, HOOKS, Kind, Plugin, SideStatus, Totals, Trial, TrialStatus};
use crate::telemetry::{Counters, GROUPS};
use crate::tls::certs::Certs;
use crate::tls::keylog::{Lines, Taps, Wanted};

/// What the gateway is asked to do.
pub enum Order {
    /// Read the configuration again; the new generation's id, or why not.
    Reload(oneshot::Sender<Result<u64, String>>),
    /// Renew the certificate of a host now.
    Renew(String, oneshot::Sender<Result<(), String>>),
    /// Have the program that is installed now take over; who serves, or why not.
    Upgrade(oneshot::Sender<Result<String, String>>),
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
    /// The bytes that wait.
    pub memory: Arc<Memory>,
    /// Who can tell what is open.
    pub roll: Roll,
    /// Since when the gateway drains, once it does.
    pub draining: Arc<OnceLock<Instant>>,
    /// Who looks at secrets of handshakes.
    pub taps: Arc<Taps>,
    /// To the gateway.
    pub orders: mpsc::Sender<Order>,
}

/// The control socket; closed when dropped.
pub struct Server {
    path: PathBuf,
    task: JoinHandle<()>,
    /// A copy, for the process that takes over.
    socket: OwnedFd,
    /// Whether another process has taken it over, so that its file stays.
    is_left: bool,
}

impl Server {
    /// Listens at `path`, for the gateway's own user alone: with the one of `inherited` that is there
    /// already. A socket left there by a process that died is replaced.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(
        path: &Path,
        state: State,
        inherited: &mut Vec<StdListener>,
    ) -> std::io::Result<Self> {
        let is_here = |socket: &mut StdListener| {
            socket.local_addr().is_ok_and(|address| address.as_pathname() == Some(path))
        };
        let listener = match inherited.extract_if(.., is_here).next() {
            Some(listener) => listener,
            None => bind(path)?,
        };
        listener.set_nonblocking(true)?;
        let socket = listener.as_fd().try_clone_to_owned()?;
        let listener = UnixListener::from_std(listener)?;
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
        Ok(Self { path: path.to_owned(), task, socket, is_left: false })
    }

    /// A copy of its socket.
    pub fn socket(&self) -> Option<OwnedFd> {
        self.socket.try_clone().ok()
    }

    /// Ends, and leaves the socket to the process that has a copy of it.
    pub fn leave(mut self) {
        self.is_left = true;
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        if !self.is_left {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn bind(path: &Path) -> std::io::Result<StdListener> {
    if std::os::unix::net::UnixStream::connect(path).is_err() {
        match std::fs::remove_file(path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
    }
    let listener = StdListener::bind(path)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, mode)?;
    Ok(listener)
}

async fn answer(state: State, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if (request.method(), path.as_str()) == (&Method::POST, "/keylog") {
        return Ok(key_log(&state, &request).unwrap_or_else(|why| {
            response(StatusCode::UNPROCESSABLE_ENTITY, TEXT, Body::Whole(Full::from(why + "\n")))
        }));
    }
    let (status, media, body) = match (request.method(), path.as_str()) {
        (&Method::GET, "/status") => {
            let roll = state.roll.clone();
            let report = tokio::task::spawn_blocking(move || roll.call()).await;
            (StatusCode::OK, JSON, status(&state, report.unwrap_or_default()))
        }
        (&Method::GET, "/metrics") => (StatusCode::OK, METRICS, metrics(&state)),
        (&Method::POST, "/reload") => outcome(ask(&state, Order::Reload).await),
        (&Method::POST, "/upgrade") => words(ask(&state, Order::Upgrade).await),
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
        (&Method::POST, path) if path.starts_with("/plugins/") && path.ends_with("/record") => {
            let name = path.trim_start_matches("/plugins/").trim_end_matches("/record");
            let prefix = parameter(&request, "path").unwrap_or("/");
            let seconds = parameter(&request, "timeout").and_then(|text| text.parse().ok());
            record(&state, name, prefix, seconds.unwrap_or(RECORD_SECONDS)).await
        }
        (&Method::POST, path) if path.starts_with("/revoke/") => {
            let host = path.trim_start_matches("/revoke/");
            let reason = parameter(&request, "reason");
            outcome(state.acme.revoke(host, reason).await.map(|()| 0))
        }
        (&Method::POST, path) if path.starts_with("/rehearse/") => {
            let told = state.acme.rehearse(path.trim_start_matches("/rehearse/")).await;
            words(told)
        }
        (&Method::GET, "/certs/hosts") => (StatusCode::OK, JSON, json(&state.acme.hosts())),
        (&Method::POST, "/rollover") => {
            let told = state.acme.roll_over(parameter(&request, "issuer")).await;
            words(told.map(|names| format!("a new account key at {}", names.join(", "))))
        }
        _ => {
            let help = "GET /status, GET /certs, GET /certs/plan?days=N, GET /metrics, \
                        POST /reload, POST /upgrade, \
                        POST /plugins/NAME/record?path=PATH&timeout=SECONDS, \
                        POST /renew/HOST, POST /revoke/HOST?reason=REASON, POST /rehearse/HOST, \
                        POST /rollover?issuer=NAME, \
                        POST /keylog?sni=NAME&from=ADDRESS&seconds=N\n";
            (StatusCode::NOT_FOUND, TEXT, help.to_owned())
        }
    };
    Ok(response(status, media, Body::Whole(Full::from(body))))
}

fn response(status: StatusCode, media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let media = http::HeaderValue::from_static(media);
    response.headers_mut().insert(http::header::CONTENT_TYPE, media);
    response
}

/// An answer, or lines as they come until their time is over.
enum Body {
    Whole(Full<Bytes>),
    Lines(Lines, Pin<Box<tokio::time::Sleep>>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Self::Lines(lines, end) => {
                if end.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                let line = std::task::ready!(lines.lines.poll_recv(cx));
                Poll::Ready(line.map(|line| Ok(Frame::data(Bytes::from(line)))))
            }
        }
    }

    /// What is known of a whole answer, so that it goes out with its length.
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Lines(..) => SizeHint::default(),
        }
    }
}

/// Writes out secrets of handshakes until the time is over or nobody reads.
fn key_log(state: &State, request: &Request<Incoming>) -> Result<Response<Body>, String> {
    let client = parameter(request, "from")
        .map(|text| text.parse().map_err(|_| format!("{text} is not an address")));
    let seconds = parameter(request, "seconds")
        .map(|text| text.parse().map_err(|_| format!("{text} is not a number of seconds")));
    let server_name = parameter(request, "sni").map(str::to_ascii_lowercase);
    let wanted = Wanted { server_name, client: client.transpose()? };
    let time = Duration::from_secs(seconds.transpose()?.unwrap_or(KEY_LOG_SECONDS));
    let lines = state.taps.open(wanted, time)?;
    let end = Box::pin(tokio::time::sleep_until(lines.until.into()));
    Ok(response(StatusCode::OK, TEXT, Body::Lines(lines, end)))
}

/// Waits for one request of a plugin and tells all about it.
async fn record(
    state: &State,
    name: &str,
    path_prefix: &str,
    seconds: u64,
) -> (StatusCode, &'static str, String) {
    let refuse = |text: String| (StatusCode::UNPROCESSABLE_ENTITY, TEXT, text);
    let Some(plugin) = state.live.current().plugins.get(name).map(Arc::clone) else {
        return refuse(format!("there is no plugin called {name}\n"));
    };
    if !plugin.is("router") && !plugin.is("filter") {
        return refuse(format!("{name} is no router and no filter: no request meets it\n"));
    }
    plugin.recorder().arm(path_prefix);
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds.min(RECORD_SECONDS_MAX));
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(RECORD_POLL).await;
        if let Some(recording) = plugin.recorder().take(&plugin) {
            return (StatusCode::OK, JSON, json(&recording));
        }
    }
    plugin.recorder().disarm();
    refuse(format!("no request below {path_prefix} met the plugin {name} in {seconds} s\n"))
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

fn words(outcome: Result<String, String>) -> (StatusCode, &'static str, String) {
    match outcome {
        Ok(text) => (StatusCode::OK, TEXT, format!("{text}\n")),
        Err(why) => (StatusCode::UNPROCESSABLE_ENTITY, TEXT, format!("{why}\n")),
    }
}

fn outcome(outcome: Result<u64, String>) -> (StatusCode, &'static str, String) {
    match outcome {
        Ok(0) => (StatusCode::OK, TEXT, "done\n".to_owned()),
        Ok(id) => (StatusCode::OK, TEXT, format!("generation {id} serving\n")),
        Err(why) => (StatusCode::UNPROCESSABLE_ENTITY, TEXT, format!("{why}\n")),
    }
}

fn status(state: &State, (open, oldest): Report) -> String {
    let oldest: Vec<_> = oldest
        .iter()
        .map(|opened| {
            serde_json::json!({
                "client": opened.client.map(|client| client.to_string()),
                "what": opened.what,
                "server_name": opened.server_name,
                "seconds": opened.since.elapsed().as_secs_f64(),
            })
        })
        .collect();
    let generation = state.live.current();
    let plugins = generation.plugins.iter().map(|(name, plugin)| {
        plugin_status(name, plugin, generation.trials.get(name).map(|trial| &**trial))
    });
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
        "process": std::process::id(),
        "generation": generation.id,
        "listen": listen,
        // For how long, when it does.
        "draining_seconds": state.draining.get().map(|since| since.elapsed().as_secs_f64()),
        // Connections and tunnels, and those of them that are open for the longest time.
        "open": { "count": open, "oldest": oldest },
        "plugins": plugins,
        "certificates": state.acme.status(),
        "served_certificates": served.collect::<Vec<_>>(),
    });
    format!("{status:#}\n")
}

/// What one plugin is and how it does.
fn plugin_status(name: &str, plugin: &Plugin, trial: Option<&Trial>) -> serde_json::Value {
    let totals = plugin.stats().totals();
    let (shadow, canary) = match trial.map(|trial| (trial.kind(), trial.status())) {
        Some((Kind::Shadow, status)) => (Some(status), None),
        Some((Kind::Canary(_), status)) => (None, Some(status)),
        None => (None, None),
    };
    serde_json::json!({
        "shadow": shadow,
        "canary": canary,
        "name": name,
        "version": plugin.locked().version,
        "digest": plugin.digest(),
        "worlds": plugin.worlds(),
        "state": if totals.quarantined.is_empty() { "serving" } else { "quarantined" },
        // The places of use on all workers where it is left alone, and why.
        "quarantined": totals.quarantined,
        "calls": totals.calls.iter().sum::<u64>(),
        "failures": totals.failures,
        "last_failure": totals.last_failure,
    })
}

/// The metrics of plugins that run inside exchanges.
fn plugin_metrics(text: &mut String, generation: &Generation) {
    let totals: Vec<_> =
        generation.plugins.iter().map(|(name, plugin)| (name, plugin.stats().totals())).collect();
    let mut family =
        |name: &str, kind: &str, help: &str, lines: &dyn Fn(&str, &Totals) -> String| {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (plugin, totals) in &totals {
                text.push_str(&lines(plugin, totals));
            }
        };
    let calls = "witgate_plugin_calls_total";
    family(calls, "counter", "Calls into plugins, by hook.", &|plugin, totals| {
        let lines = HOOKS.iter().zip(totals.calls).filter(|(_, count)| *count > 0);
        lines
            .map(|(hook, n)| format!("{calls}{{plugin=\"{plugin}\",hook=\"{hook}\"}} {n}\n"))
            .collect()
    });
    let decisions = "witgate_plugin_decisions_total";
    family(decisions, "counter", "What plugins decided.", &|plugin, totals| {
        let lines = DECISIONS.iter().zip(totals.decisions).filter(|(_, count)| *count > 0);
        lines
            .map(|(what, n)| {
                format!("{decisions}{{plugin=\"{plugin}\",decision=\"{what}\"}} {n}\n")
            })
            .collect()
    });
    let mut one = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Totals) -> String| {
        family(name, kind, help, &|plugin, totals| {
            format!("{name}{{plugin=\"{plugin}\"}} {}\n", value(totals))
        });
    };
    let failed = "Calls that trapped, overran a limit or broke a rule.";
    one("witgate_plugin_traps_total", "counter", failed, &|t| t.failures.to_string());
    let time = "Time in calls, estimated from one call in sixteen.";
    one("witgate_plugin_seconds_total", "counter", time, &|t| {
        let Totals { nanoseconds, .. } = t;
        format!("{}.{:09}", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)
    });
    let started = "Instances put to use.";
    one("witgate_plugin_instances_total", "counter", started, &|t| t.instances.to_string());
    let sent = "Outgoing requests.";
    one("witgate_plugin_requests_total", "counter", sent, &|t| t.requests.to_string());
    let dropped = "Exchanges and events that a plugin was not given, or did not take.";
    one("witgate_plugin_dropped_total", "counter", dropped, &|t| t.dropped.to_string());
    let waited = "Of these, the ones that a request started because none was ready.";
    one("witgate_plugin_instances_waited_for_total", "counter", waited, &|t| {
        t.instances_waited_for.to_string()
    });
    let ready = "Instances that wait to be used.";
    one("witgate_plugin_instances_ready", "gauge", ready, &|t| t.instances_ready.to_string());
    let bodies = "witgate_plugin_body_bytes_total";
    let help = "Bytes of bodies that came to plugins and went on after them.";
    family(bodies, "counter", help, &|plugin, totals| {
        let both = [("in", totals.body_bytes_in), ("out", totals.body_bytes_out)];
        let lines = both.into_iter().filter(|_| totals.body_bytes_in > 0);
        lines
            .map(|(way, n)| format!("{bodies}{{plugin=\"{plugin}\",direction=\"{way}\"}} {n}\n"))
            .collect()
    });
    let mut one = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Totals) -> String| {
        family(name, kind, help, &|plugin, totals| {
            format!("{name}{{plugin=\"{plugin}\"}} {}\n", value(totals))
        });
    };
    let memory = "The largest memory of an instance.";
    one("witgate_plugin_memory_peak_bytes", "gauge", memory, &|t| t.memory_peak_bytes.to_string());
    let quarantined = "Places of use where the plugin is left alone.";
    one("witgate_plugin_quarantined", "gauge", quarantined, &|t| t.quarantined.len().to_string());
}

/// The metrics of versions on trial.
fn trial_metrics(text: &mut String, generation: &Generation) {
    let trials: Vec<_> = generation
        .trials
        .iter()
        .map(|(name, trial)| {
            let kind = match trial.kind() {
                Kind::Shadow => "shadow",
                Kind::Canary(_) => "canary",
            };
            (name, kind, trial.status())
        })
        .collect();
    if trials.is_empty() {
        return;
    }
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&TrialStatus) -> u64| {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (plugin, trial, status) in &trials {
            let value = value(status);
            let _ = writeln!(text, "{name}{{plugin=\"{plugin}\",trial=\"{trial}\"}} {value}");
        }
    };
    let help = "Whether a version is on trial and has not been rolled back.";
    family("witgate_plugin_trial", "gauge", help, &|s| u64::from(s.state != "rolled-back"));
    let help = "Calls that the version in use and its shadow both got.";
    family("witgate_plugin_trial_compared_total", "counter", help, &|s| s.compared);
    let help = "Those with the same decision and the same edits.";
    family("witgate_plugin_trial_equal_total", "counter", help, &|s| s.equal);
    for of in ["present", "next"] {
        let pick = |status: &TrialStatus| match of {
            "present" => status.present,
            _ => status.next,
        };
        let mut one = |what: &str, kind: &str, help: &str, value: &dyn Fn(&SideStatus) -> u64| {
            let name = format!("witgate_plugin_trial_{of}_{what}");
            family(&name, kind, help, &|status| value(&pick(status)));
        };
        one("calls_total", "counter", "Calls of this version.", &|s| s.calls);
        one("failures_total", "counter", "Its calls that failed.", &|s| s.failures);
        one("nanoseconds_total", "counter", "Time in its calls.", &|s| s.nanoseconds);
        one("median_nanoseconds", "gauge", "The middle time of a call.", &|s| s.median_nanoseconds);
        one("answers_total", "counter", "Responses it had a hand in.", &|s| s.answers);
        one("errors_total", "counter", "Those with 5xx.", &|s| s.errors);
    }
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
    let passed = sum(|c| c.passed.load(Ordering::Relaxed));
    line("witgate_passed_total", "counter", "Connections passed through, ended.", passed);
    let plugins = sum(|c| c.plugin_failures.load(Ordering::Relaxed));
    line("witgate_plugin_failures_total", "counter", "Plugin calls that failed.", plugins);
    let held = u64::try_from(state.memory.held()).unwrap_or(u64::MAX);
    line("witgate_buffered_bytes", "gauge", "Bytes that wait for slow sides.", held);
    text.push_str("# HELP witgate_handshakes_total Handshakes made, by key exchange group.\n");
    text.push_str("# TYPE witgate_handshakes_total counter\n");
    for (group, name) in GROUPS.iter().enumerate() {
        for (kind, word) in ["no", "yes"].iter().enumerate() {
            let counted = state.counters.iter().filter_map(|c| c.handshakes.get(group)?.get(kind));
            let value: u64 = counted.map(|counter| counter.load(load)).sum();
            let labels = format!("group=\"{name}\",resumed=\"{word}\"");
            let _ = writeln!(text, "witgate_handshakes_total{{{labels}}} {value}");
        }
    }
    text.push_str("# HELP witgate_refused_total What was sent away or ended, by reason.\n");
    text.push_str("# TYPE witgate_refused_total counter\n");
    for (index, (_, word, _)) in REASONS.iter().enumerate() {
        let counted = state.counters.iter().filter_map(|c| c.refused.get(index));
        let value: u64 = counted.map(|counter| counter.load(load)).sum();
        let _ = writeln!(text, "witgate_refused_total{{reason=\"{word}\"}} {value}");
    }
    text.push_str("# HELP witgate_mirrored_total Copies of requests, by what became of them.\n");
    text.push_str("# TYPE witgate_mirrored_total counter\n");
    for (outcome, value) in [
        ("sent", sum(|c| c.mirrors_sent.load(Ordering::Relaxed))),
        ("failed", sum(|c| c.mirrors_failed.load(Ordering::Relaxed))),
        ("skipped", sum(|c| c.mirrors_skipped.load(Ordering::Relaxed))),
    ] {
        let _ = writeln!(text, "witgate_mirrored_total{{outcome=\"{outcome}\"}} {value}");
    }
    text.push_str("# HELP witgate_requests_total Exchanges ended, by status class.\n");
    text.push_str("# TYPE witgate_requests_total counter\n");
    for class in 0..5 {
        let counted = state.counters.iter().filter_map(|c| c.exchanges.get(class));
        let value: u64 = counted.map(|counter| counter.load(load)).sum();
        let _ = writeln!(text, "witgate_requests_total{{status=\"{}xx\"}} {value}", class + 1);
    }
    plugin_metrics(&mut text, &state.live.current());
    trial_metrics(&mut text, &state.live.current());
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

/// How long a key log is written.
const KEY_LOG_SECONDS: u64 = 300;
/// How long a request to record is waited for.
const RECORD_SECONDS: u64 = 60;
const RECORD_SECONDS_MAX: u64 = 3600;
const RECORD_POLL: Duration = Duration::from_millis(50);
/// How far `plan` looks ahead.
const PLAN_DAYS: u64 = 90;
const PLAN_DAYS_MAX: u64 = 3650;
const JSON: &str = "application/json";
const METRICS: &str = "text/plain; version=0.0.4";
const TEXT: &str = "text/plain; charset=utf-8";
