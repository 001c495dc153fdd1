//! One request as a plugin met it: heads, connection, and every answer of the host (state, clocks,
//! random numbers, keyed checks). Recorded while serving, run again offline against any version.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rustls_pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::facts::Facts;
use super::host::Phase;
use super::{Decision, Hooks, Plugin};
use crate::config::{FieldGrant, HeadGrant, PluginConfig, Scheme};
use crate::http::head::{ConnectionFacts, RequestHead, ResponseHead, ResponseSource};
use crate::tls::TlsFacts;
use crate::tls::clients::ClientCertificate;

/// A recorded request. Fields that the plugin may not read are not in it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// The version of this form.
    pub format: u32,
    /// The plugin's name in `gateway.yaml`.
    pub plugin: String,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// Its version, when it tells one.
    pub version: Option<String>,
    /// The plugin's stanza as far as it decides about calls: `config`, `limits`, `grants`.
    pub stanza: serde_json::Map<String, Json>,
    /// The upstreams that a router may choose.
    pub upstreams: Vec<String>,
    /// The connection.
    pub connection: Connection,
    /// The calls, in their order.
    pub calls: Vec<Call>,
}

/// The connection of a recorded request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    client: SocketAddr,
    tls: Option<Tls>,
}

/// Its handshake.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    server_name: Option<String>,
    version: String,
    cipher_suite: String,
    group: Option<String>,
    alpn: Option<String>,
    is_resumed: bool,
    #[serde(default)]
    ja4: Option<String>,
    /// The certificates of the client in base64 (DER), its own first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    client: Vec<String>,
}

/// One call of a hook.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// `route`, `on-request`, `on-request-body` or `on-response`.
    pub hook: String,
    /// The request before it.
    request: Request,
    /// The response before it.
    response: Option<Response>,
    /// The beginning of the body.
    body: Option<Body>,
    /// What the host answered, in this order.
    answers: Vec<Answer>,
    /// What became of it.
    outcome: Outcome,
}

/// What a call led to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome {
    /// Why it failed, if it did.
    error: Option<String>,
    decision: Json,
    request: Request,
    response: Option<Response>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    id: String,
    method: String,
    scheme: String,
    authority: String,
    target: String,
    version: String,
    fields: Vec<(String, Text)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Response {
    status: u16,
    source: String,
    fields: Vec<(String, Text)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    prefix: Text,
    is_complete: bool,
}

/// An answer of the host to one call of the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    call: String,
    value: Json,
}

/// Bytes, readable where they are UTF-8.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Other { base64: String },
}

/// Where the host's answers of one call go, or come from.
pub(super) enum Tape {
    /// They are noted.
    Recording(Vec<Answer>),
    /// They are those of the recording, by the guest's call.
    Replaying {
        left: HashMap<String, VecDeque<Json>>,
        /// Calls that the recording does not answer.
        missing: Vec<String>,
    },
}

impl Tape {
    /// The host's answer to `call`: what `make` makes, or what it was.
    pub(super) fn answer<T: Serialize + DeserializeOwned>(
        &mut self,
        call: String,
        make: impl FnOnce() -> T,
    ) -> T {
        match self {
            Self::Recording(answers) => {
                let answer = make();
                if answers.len() < ANSWERS_MAX {
                    let value = serde_json::to_value(&answer).unwrap_or_default();
                    answers.push(Answer { call, value });
                }
                answer
            }
            Self::Replaying { left, missing } => {
                let known = left.get_mut(&call).and_then(VecDeque::pop_front);
                match known.and_then(|value| serde_json::from_value(value).ok()) {
                    Some(answer) => answer,
                    None => {
                        missing.push(call);
                        make()
                    }
                }
            }
        }
    }

    fn of(answers: &[Answer]) -> Self {
        let mut left: HashMap<String, VecDeque<Json>> = HashMap::new();
        for Answer { call, value } in answers {
            left.entry(call.clone()).or_default().push_back(value.clone());
        }
        Self::Replaying { left, missing: Vec::new() }
    }
}

/// Waits for a request to record, one at a time. Costs a load for each call while it does not.
#[derive(Debug, Default)]
pub struct Recorder {
    is_armed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    path_prefix: String,
    /// Of the place of use.
    config: Json,
    request: Option<Arc<str>>,
    connection: Option<Connection>,
    calls: Vec<Call>,
    last: Option<Instant>,
    is_whole: bool,
}

/// A call that is being recorded.
pub(super) struct Noting {
    hook: &'static str,
    request: Request,
    response: Option<Response>,
    body: Option<Body>,
}

impl Recorder {
    /// Waits from now on for a request whose path begins with `path_prefix`. Forgets what was
    /// recorded before.
    pub fn arm(&self, path_prefix: &str) {
        *self.state() = State { path_prefix: path_prefix.to_owned(), ..State::default() };
        self.is_armed.store(true, Ordering::Release);
    }

    /// Waits no longer.
    pub fn disarm(&self) {
        self.is_armed.store(false, Ordering::Release);
        *self.state() = State::default();
    }

    /// Whether a request is waited for, or under way.
    #[inline]
    pub(super) fn is_armed(&self) -> bool {
        self.is_armed.load(Ordering::Relaxed)
    }

    /// The recording, once its request has had the last hook that will come.
    pub fn take(&self, plugin: &Plugin) -> Option<Recording> {
        let mut state = self.state();
        let is_old = state.last.is_some_and(|last| last.elapsed() >= NOTHING_MORE);
        if !state.is_whole && !is_old {
            return None;
        }
        self.is_armed.store(false, Ordering::Release);
        let state = std::mem::take(&mut *state);
        let facts = &plugin.facts;
        let mut stanza = serde_json::Map::new();
        stanza.insert("config".to_owned(), state.config);
        stanza.insert("limits".to_owned(), limits(facts));
        stanza.insert("grants".to_owned(), grants(facts));
        Some(Recording {
            format: FORMAT,
            plugin: plugin.name().to_owned(),
            digest: plugin.digest().to_owned(),
            version: plugin.locked.version.clone(),
            stanza,
            upstreams: facts.upstreams.iter().map(ToString::to_string).collect(),
            connection: state.connection?,
            calls: state.calls,
        })
    }

    /// Whether this call is to be recorded, and what was there before it.
    pub(super) fn begin(
        &self,
        hooks: &Hooks,
        phase: Phase,
        connection: &ConnectionFacts,
        request: &RequestHead,
        response: Option<&ResponseHead>,
        body: Option<(&[u8], bool)>,
    ) -> Option<Noting> {
        let facts = &hooks.plugin().facts;
        let mut state = self.state();
        match &state.request {
            Some(id) if **id == *request.id => {}
            Some(_) => return None,
            // Of requests alone.
            None if matches!(phase, Phase::Hello | Phase::Response)
                || state.is_whole
                || !request.target.path().starts_with(&state.path_prefix) =>
            {
                return None;
            }
            None => {
                state.request = Some(Arc::clone(&request.id));
                state.connection = Some(Connection::of(connection));
                state.config = serde_json::from_str(hooks.config()).unwrap_or_default();
            }
        }
        Some(Noting {
            hook: hook_of(phase),
            request: Request::of(request, &facts.request.read),
            response: response.map(|head| Response::of(head, &facts.response.read)),
            body: body.map(|(prefix, is_complete)| Body { prefix: Text::of(prefix), is_complete }),
        })
    }

    /// Notes how a call ended that [`Recorder::begin`] took.
    pub(super) fn end(
        &self,
        hooks: &Hooks,
        noting: Noting,
        tape: Option<Tape>,
        outcome: Result<&Decision, String>,
        request: &RequestHead,
        response: Option<&ResponseHead>,
    ) {
        let facts = &hooks.plugin().facts;
        // A router has one hook; a filter's last is that of the response, if it asked for it.
        let is_last = response.is_some() || !hooks.plugin().is("filter");
        let Noting { hook, request: before, response: response_before, body } = noting;
        let answers = match tape {
            Some(Tape::Recording(answers)) => answers,
            _ => Vec::new(),
        };
        let outcome = Outcome::of(outcome, request, response, facts);
        let mut state = self.state();
        state.calls.push(Call {
            hook: hook.to_owned(),
            request: before,
            response: response_before,
            body,
            answers,
            outcome,
        });
        state.last = Some(Instant::now());
        state.is_whole |= is_last;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a replayed call led to, beside what it led to when it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The hook.
    pub hook: String,
    /// What is different, one line each.
    pub differences: Vec<String>,
    /// What the guest asked the host for and the recording does not have; answered anew.
    pub missing: Vec<String>,
}

impl Recording {
    /// Reads a recording.
    ///
    /// # Errors
    /// When it is none, or one of a later form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let recording: Self = serde_json::from_str(text).map_err(|cause| cause.to_string())?;
        match recording.format {
            FORMAT => Ok(recording),
            other => Err(format!("its form is {other}, and this witgate reads {FORMAT}")),
        }
    }

    /// Runs each recorded call on `hooks` with the host's answers of then.
    ///
    /// # Errors
    /// When the recording holds what no request can have.
    pub fn replay(&self, hooks: &Hooks) -> Result<Vec<Replayed>, String> {
        let connection = Arc::new(self.connection.facts());
        let mut all = Vec::new();
        for call in &self.calls {
            let wrong = || format!("a head in the recording of {} cannot be", call.hook);
            let mut request = call.request.head().ok_or_else(wrong)?;
            let mut response = match &call.response {
                Some(response) => Some(response.head().ok_or_else(wrong)?),
                None => None,
            };
            hooks.load_tape(Tape::of(&call.answers));
            let called = match (call.hook.as_str(), &call.body, &mut response) {
                ("route", ..) => hooks.route(&connection, &mut request),
                ("on-request", ..) if hooks.hooked().request => {
                    hooks.on_request(&connection, &mut request, false).map(|called| called.decision)
                }
                ("on-request-body", Some(body), _)
                    if hooks.hooked().request_body_bytes_max.is_some() =>
                {
                    let prefix = body.prefix.bytes().ok_or_else(wrong)?;
                    hooks.on_request_body(&connection, &mut request, &prefix, body.is_complete)
                }
                ("on-response", _, Some(response)) if hooks.hooked().response => hooks
                    .on_response(&connection, &mut request, response, false)
                    .map(|called| called.decision),
                _ => Ok(Decision::Continue),
            };
            let called = called.map_err(|cause| crate::fault::describe(&cause));
            let called = called.as_ref().map_err(Clone::clone);
            let facts = &hooks.plugin().facts;
            let outcome = Outcome::of(called, &request, response.as_ref(), facts);
            let missing = match hooks.take_tape() {
                Some(Tape::Replaying { missing, .. }) => missing,
                _ => Vec::new(),
            };
            let differences = call.outcome.differences(&outcome);
            all.push(Replayed { hook: call.hook.clone(), differences, missing });
        }
        Ok(all)
    }
}

impl Outcome {
    fn of(
        outcome: Result<&Decision, String>,
        request: &RequestHead,
        response: Option<&ResponseHead>,
        facts: &Facts,
    ) -> Self {
        // What it set it knows, whether it may read it or not.
        let seen = |grant: &HeadGrant| FieldGrant {
            others: grant.read.others,
            named: grant.read.named.iter().chain(&grant.set.named).cloned().collect(),
        };
        let (error, decision) = match outcome {
            Ok(decision) => (None, decision_json(decision)),
            Err(error) => (Some(error), Json::Null),
        };
        Self {
            error,
            decision,
            request: Request::of(request, &seen(&facts.request)),
            response: response.map(|head| Response::of(head, &seen(&facts.response))),
        }
    }

    fn differences(&self, now: &Self) -> Vec<String> {
        let mut all = Vec::new();
        let mut differ = |what: &str, then: &str, now: &str| {
            if then != now {
                all.push(format!("{what}: {then} became {now}"));
            }
        };
        let fine = "no error".to_owned();
        // Messages carry digests and places; that it failed is what counts.
        if self.error.is_some() != now.error.is_some() {
            let error = |outcome: &Self| outcome.error.clone().unwrap_or_else(|| fine.clone());
            differ("error", &error(self), &error(now));
        }
        differ("decision", &self.decision.to_string(), &now.decision.to_string());
        differ("method", &self.request.method, &now.request.method);
        differ("authority", &self.request.authority, &now.request.authority);
        differ("target", &self.request.target, &now.request.target);
        let response = |outcome: &Self| match &outcome.response {
            Some(response) => (response.status.to_string(), response.fields.clone()),
            None => ("none".to_owned(), Vec::new()),
        };
        let ((status, fields), (status_now, fields_now)) = (response(self), response(now));
        differ("status", &status, &status_now);
        for (side, then, now) in [
            ("request field", &self.request.fields, &now.request.fields),
            ("response field", &fields, &fields_now),
        ] {
            let mut names: Vec<&String> = then.iter().chain(now).map(|(name, _)| name).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let values = |of: &[(String, Text)]| {
                    let mine = of.iter().filter(|(known, _)| known == name);
                    let mine: Vec<&Text> = mine.map(|(_, value)| value).collect();
                    match mine.is_empty() {
                        true => "absent".to_owned(),
                        false => serde_json::json!(mine).to_string(),
                    }
                };
                differ(&format!("{side} {name}"), &values(then), &values(now));
            }
        }
        all
    }
}

impl Connection {
    fn of(facts: &ConnectionFacts) -> Self {
        let tls = facts.tls.as_ref().map(|tls| Tls {
            server_name: tls.server_name.as_deref().map(str::to_owned),
            version: tls.version.to_owned(),
            cipher_suite: tls.cipher_suite.to_owned(),
            group: tls.group.map(str::to_owned),
            alpn: tls.alpn.map(str::to_owned),
            is_resumed: tls.is_resumed,
            ja4: tls.ja4.as_deref().map(str::to_owned),
            client: match &tls.client {
                Some(client) => client.chain().iter().map(|one| STANDARD.encode(one)).collect(),
                None => Vec::new(),
            },
        });
        Self { client: facts.client, tls }
    }

    fn facts(&self) -> ConnectionFacts {
        // The names of a handshake are constants where one takes place. A replay is one process.
        let constant = |text: &String| -> &'static str { text.clone().leak() };
        let tls = self.tls.as_ref().map(|tls| {
            Arc::new(TlsFacts {
                server_name: tls.server_name.clone().map(String::into_boxed_str),
                version: constant(&tls.version),
                cipher_suite: constant(&tls.cipher_suite),
                group: tls.group.as_ref().map(constant),
                alpn: tls.alpn.as_ref().map(constant),
                is_h2: tls.alpn.as_deref() == Some("h2"),
                is_resumed: tls.is_resumed,
                ja4: tls.ja4.clone().map(String::into_boxed_str),
                demand: None,
                client: client(&tls.client).map(Arc::new),
            })
        });
        ConnectionFacts { client: self.client, tls, via: None }
    }
}

fn client(chain: &[String]) -> Option<ClientCertificate> {
    let decode = |one: &String| STANDARD.decode(one).ok().map(CertificateDer::from);
    ClientCertificate::of(&chain.iter().map(decode).collect::<Option<Vec<_>>>()?)
}

impl Request {
    fn of(head: &RequestHead, read: &FieldGrant) -> Self {
        Self {
            id: head.id.to_string(),
            method: head.method.to_string(),
            scheme: match head.scheme {
                Scheme::Http => "http".to_owned(),
                Scheme::Https => "https".to_owned(),
            },
            authority: head.authority.clone(),
            target: head.target.to_string(),
            version: format!("{:?}", head.version),
            fields: fields_of(&head.headers, read),
        }
    }

    fn head(&self) -> Option<RequestHead> {
        Some(RequestHead {
            id: Arc::from(self.id.as_str()),
            method: self.method.parse().ok()?,
            scheme: if self.scheme == "http" { Scheme::Http } else { Scheme::Https },
            authority: self.authority.clone(),
            target: self.target.parse().ok()?,
            version: match self.version.as_str() {
                "HTTP/1.0" => http::Version::HTTP_10,
                "HTTP/2.0" => http::Version::HTTP_2,
                "HTTP/3.0" => http::Version::HTTP_3,
                _ => http::Version::HTTP_11,
            },
            headers: map_of(&self.fields)?,
        })
    }
}

impl Response {
    fn of(head: &ResponseHead, read: &FieldGrant) -> Self {
        Self {
            status: head.status.as_u16(),
            source: match head.source {
                ResponseSource::Upstream => "upstream".to_owned(),
                ResponseSource::Plugin => "plugin".to_owned(),
                ResponseSource::Gateway => "gateway".to_owned(),
            },
            fields: fields_of(&head.headers, read),
        }
    }

    fn head(&self) -> Option<ResponseHead> {
        Some(ResponseHead {
            status: StatusCode::from_u16(self.status).ok()?,
            headers: map_of(&self.fields)?,
            source: match self.source.as_str() {
                "upstream" => ResponseSource::Upstream,
                "plugin" => ResponseSource::Plugin,
                _ => ResponseSource::Gateway,
            },
        })
    }
}

impl Text {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Plain(text.to_owned()),
            Err(_) => Self::Other { base64: STANDARD.encode(bytes) },
        }
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(text) => Some(text.as_bytes().to_vec()),
            Self::Other { base64 } => STANDARD.decode(base64).ok(),
        }
    }
}

fn fields_of(headers: &HeaderMap, read: &FieldGrant) -> Vec<(String, Text)> {
    let readable = headers.iter().filter(|(name, _)| read.covers(name.as_str()));
    readable.map(|(name, value)| (name.to_string(), Text::of(value.as_bytes()))).collect()
}

fn map_of(fields: &[(String, Text)]) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        map.append(name, HeaderValue::from_bytes(&value.bytes()?).ok()?);
    }
    Some(map)
}

fn decision_json(decision: &Decision) -> Json {
    match decision {
        Decision::Continue => serde_json::json!("continue"),
        Decision::Upstream(name) => serde_json::json!({ "upstream": &**name }),
        Decision::Redirect { status, location } => {
            serde_json::json!({"redirect": status, "location": Text::of(location.as_bytes())})
        }
        Decision::Respond { status, headers, body } => {
            let all = FieldGrant { others: true, named: vec!["set-cookie".to_owned()] };
            serde_json::json!({
                "respond": status.as_u16(),
                "fields": fields_of(headers, &all),
                "body": Text::of(body),
            })
        }
    }
}

fn hook_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Route => "route",
        Phase::RequestBody => "on-request-body",
        Phase::Response => "on-response",
        Phase::Idle | Phase::Hello | Phase::Request | Phase::Body => "on-request",
    }
}

/// The limits of calls as `gateway.yaml` has them.
fn limits(facts: &Facts) -> Json {
    let limits = &facts.limits;
    serde_json::json!({
        "deadline": format!("{}ms", limits.deadline.as_millis().max(1)),
        "memory": limits.memory_bytes_max.to_string(),
        "output": limits.output_bytes_max.to_string(),
        "body-growth": limits.body_growth_bytes_max.to_string(),
        "state": limits.state_bytes_max.to_string(),
    })
}

/// The grants as `gateway.yaml` has them.
fn grants(facts: &Facts) -> Json {
    let head = |grant: &HeadGrant| {
        let words = |grant: &FieldGrant| grant.words().map(str::to_owned).collect::<Vec<_>>();
        serde_json::json!({
            "read": words(&grant.read),
            "set": words(&grant.set),
            "body": grant.body.word(),
        })
    };
    serde_json::json!({"request": head(&facts.request), "response": head(&facts.response)})
}

/// The stanza for a replay with `component`. Secrets are not in it: what was made with them is on the
/// tape.
///
/// # Errors
/// When the recording's stanza does not fit the component.
pub fn replay_stanza(recording: &Recording, component: &Path) -> Result<PluginConfig, String> {
    crate::config::cases::stanza(recording.stanza.clone(), component)
}

const FORMAT: u32 = 1;
/// Answers of one call that are kept, inclusive.
const ANSWERS_MAX: usize = 10_000;
/// After this long without another hook, none will come.
const NOTHING_MORE: Duration = Duration::from_secs(2);
