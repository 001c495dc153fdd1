//! `witgate plugin test` and `bench`: a router or filter against cases, without a gateway or a network.
//! Called by the command line alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::config::cases::{Case, CaseRequest, Cases, Expected, Texts};
use crate::config::{PluginConfig, Scheme};
use crate::fault::describe;
use crate::http::head::{ConnectionFacts, RequestHead, ResponseHead, ResponseSource};
use crate::plugin::{CHUNK_BYTES_MAX, Decision, Engine, Hooks, Tap};
use crate::tls::TlsFacts;

/// What became of a case.
struct Outcome {
    decision: Decision,
    request: RequestHead,
    response: Option<ResponseHead>,
    /// What the plugin made of the bodies of request and response, where it asked for them.
    bodies: [Option<String>; 2],
}

/// Why a case did not get to its end.
enum Stop {
    /// The plugin did not load or refused its configuration.
    Load(String),
    /// A call failed.
    Call(String),
    /// The case itself is wrong.
    Case(String),
}

/// Runs all cases; for each its name and what is not as expected.
pub fn run(engine: &Arc<Engine>, component: &Path, cases: &Cases) -> Vec<(String, Vec<String>)> {
    cases
        .cases
        .iter()
        .map(|case| {
            let outcome = outcome(engine, component, cases, case);
            (case.name.clone(), judge(&case.expect, outcome))
        })
        .collect()
}

/// What a component costs before its first call, and while it waits for the next.
pub struct Standing {
    /// Its size.
    pub component_bytes: u64,
    /// The size of its compiled form in the cache.
    pub compiled_bytes: u64,
    /// Reading and compiling it, once for each version.
    pub compile: Duration,
    /// Loading it from the cache, with the start that tries it.
    pub load: Duration,
    /// Starting one instance, with its `configure`: the best of ten.
    pub start: Duration,
    /// What one instance holds of `limits.memory` after it was called.
    pub memory_bytes: u64,
}

/// Measures what a router or filter costs beside its calls, with the configuration of the first case
/// that has a request. `cache` is an empty folder.
///
/// # Errors
/// When there is no such case, the plugin does not load or a call fails.
pub fn standing(cache: &Path, component: &Path, cases: &Cases) -> Result<Standing, String> {
    let told = |stop| match stop {
        Stop::Load(text) | Stop::Call(text) | Stop::Case(text) => text,
    };
    let engine = || Engine::start(cache.to_owned()).map_err(|error| describe(&error));
    let case = cases.cases.iter().find_map(|case| Some((case, case.request.as_ref()?)));
    let (case, asked) = case.ok_or("no case has a request")?;
    let first = engine()?;
    let began = Instant::now();
    start(&first, component, cases, case).map_err(told)?;
    let compile = began.elapsed();
    drop(first);
    let second = engine()?;
    let began = Instant::now();
    let hooks = start(&second, component, cases, case).map_err(told)?;
    let load = began.elapsed();
    let (facts, head) = request(asked)?;
    // The first of many calls is measured, and so is what it leaves behind.
    for _ in 0..1000 {
        call(&hooks, &facts, &mut head.clone(), asked).map_err(told)?;
    }
    let plugin = hooks.plugin();
    let stanza = cases.stanza(component, case.config.as_ref())?;
    let started = || {
        let began = Instant::now();
        Hooks::new(Arc::clone(plugin), &stanza.config).map(|_| began.elapsed())
    };
    let starts: Result<Vec<_>, _> = (0..10).map(|_| started()).collect();
    let start = starts.map_err(|error| describe(&error))?.into_iter().min().unwrap_or_default();
    Ok(Standing {
        component_bytes: std::fs::metadata(component).map_or(0, |file| file.len()),
        compiled_bytes: bytes_in(cache),
        compile,
        load,
        start,
        memory_bytes: plugin.stats().totals().memory_peak_bytes,
    })
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.metadata().map_or(0, |file| file.len())).sum()
}

/// What a call of one case takes.
pub struct Measured {
    /// The case's name.
    pub name: String,
    /// The best of all rounds.
    pub best: Duration,
    /// The middle one.
    pub median: Duration,
    /// The best without deadlines, when that was measured too.
    pub without_deadlines: Option<Duration>,
}

/// Measures each case that has a request, in `rounds` rounds of a thousand calls. With `bare`, an engine
/// without deadlines, rounds alternate between the two.
///
/// # Errors
/// When the plugin does not load or a call fails.
pub fn bench(
    engine: &Arc<Engine>,
    bare: Option<&Arc<Engine>>,
    component: &Path,
    cases: &Cases,
    rounds: usize,
) -> Result<Vec<Measured>, String> {
    let mut measured = Vec::new();
    for case in &cases.cases {
        let Some(asked) = &case.request else { continue };
        let failed = |stop| match stop {
            Stop::Load(text) | Stop::Call(text) | Stop::Case(text) => {
                format!("{}: {text}", case.name)
            }
        };
        let hooks = start(engine, component, cases, case).map_err(failed)?;
        let bare = match bare {
            Some(bare) => Some(start(bare, component, cases, case).map_err(failed)?),
            None => None,
        };
        let (facts, head) = request(asked).map_err(|text| failed(Stop::Case(text)))?;
        let (mut with, mut without, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds.max(1) {
            with.push(round(&hooks, &facts, &head, asked).map_err(failed)?);
            if let Some(bare) = &bare {
                without.push(round(bare, &facts, &head, asked).map_err(failed)?);
            }
            copies.push(copying(&head));
        }
        with.sort_unstable();
        // A call changes its head, so each gets a copy; the copies are not the plugin's.
        let copy = copies.into_iter().min().unwrap_or_default();
        let of_one = |round: Duration| round.saturating_sub(copy) / CALLS;
        measured.push(Measured {
            name: case.name.clone(),
            best: with.first().copied().map(of_one).unwrap_or_default(),
            median: with.get(with.len() / 2).copied().map(of_one).unwrap_or_default(),
            without_deadlines: without.into_iter().min().map(of_one),
        });
    }
    Ok(measured)
}

/// The time of one round of calls, each with its copy of the head.
fn round(
    hooks: &Hooks,
    facts: &Arc<ConnectionFacts>,
    head: &RequestHead,
    asked: &CaseRequest,
) -> Result<Duration, Stop> {
    let started = Instant::now();
    for _ in 0..CALLS {
        let mut head = head.clone();
        call(hooks, facts, &mut head, asked)?;
    }
    Ok(started.elapsed())
}

/// The time of the copies of one round.
fn copying(head: &RequestHead) -> Duration {
    let started = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(head.clone());
    }
    started.elapsed()
}

/// Calls of one round.
const CALLS: u32 = 1000;

fn start(
    engine: &Arc<Engine>,
    component: &Path,
    cases: &Cases,
    case: &Case,
) -> Result<Hooks, Stop> {
    let stanza: PluginConfig = cases.stanza(component, case.config.as_ref()).map_err(Stop::Load)?;
    let mut upstreams: Vec<Arc<str>> =
        cases.upstreams.iter().map(|name| Arc::from(name.as_str())).collect();
    upstreams.extend(case.expect.upstream.as_deref().map(Arc::from));
    let plugin = engine
        .load("plugin", &stanza, &Arc::from(upstreams))
        .map_err(|error| Stop::Load(describe(&error)))?;
    if !plugin.is("router") && !plugin.is("filter") {
        let text = "a case is a request, for a router or filter; this is a dns-solver";
        return Err(Stop::Case(text.to_owned()));
    }
    Hooks::new(plugin, &stanza.config).map_err(|error| Stop::Load(describe(&error)))
}

fn outcome(
    engine: &Arc<Engine>,
    component: &Path,
    cases: &Cases,
    case: &Case,
) -> Result<Outcome, Stop> {
    let hooks = start(engine, component, cases, case)?;
    let Some(asked) = &case.request else {
        let (_, request) = request(&CaseRequest {
            method: None,
            url: "https://test.localhost/".to_owned(),
            headers: BTreeMap::new(),
            from: None,
            body: String::new(),
        })
        .map_err(Stop::Case)?;
        let decision = Decision::Continue;
        return Ok(Outcome { decision, request, response: None, bodies: [None, None] });
    };
    let (facts, mut request) = request(asked).map_err(Stop::Case)?;
    let (decision, tap) = call(&hooks, &facts, &mut request, asked)?;
    let request_body =
        tap.map(|tap| through(tap, std::slice::from_ref(&asked.body))).transpose()?;
    let mut response_body = None;
    let mut response = match (&decision, &case.response) {
        (Decision::Redirect { status, location }, _) => Some(ResponseHead {
            status: StatusCode::from_u16(*status).unwrap_or_default(),
            headers: HeaderMap::from_iter([(http::header::LOCATION, location.clone())]),
            source: ResponseSource::Plugin,
        }),
        (Decision::Respond { status, headers, .. }, _) => Some(ResponseHead {
            status: *status,
            headers: headers.clone(),
            source: ResponseSource::Plugin,
        }),
        (_, Some(head)) => Some(ResponseHead {
            status: StatusCode::from_u16(head.status.unwrap_or(200))
                .map_err(|_| Stop::Case("the response's status is none".to_owned()))?,
            headers: fields(&head.headers).map_err(Stop::Case)?,
            source: ResponseSource::Upstream,
        }),
        (_, None) => None,
    };
    if let Some(response) = &mut response
        && hooks.plugin().is("filter")
        && hooks.hooked().response
    {
        let body = case.response.as_ref().and_then(|response| response.body.as_ref());
        let called = hooks
            .on_response(&facts, &mut request, response, body.is_some())
            .map_err(|error| Stop::Call(describe(&error)))?;
        if let (Some(tap), Some(body)) = (called.tap, body) {
            response_body = Some(through(tap, body.all())?);
        }
    }
    Ok(Outcome { decision, request, response, bodies: [request_body, response_body] })
}

/// What becomes of a body that comes in these pieces.
fn through(mut tap: Tap, pieces: &[String]) -> Result<String, Stop> {
    let failed = |error| Stop::Call(describe(&error));
    let mut all = Vec::new();
    for piece in pieces {
        for chunk in piece.as_bytes().chunks(CHUNK_BYTES_MAX) {
            all.extend(tap.chunk(Bytes::copy_from_slice(chunk)).map_err(failed)?);
        }
    }
    all.extend(tap.finish().map_err(failed)?);
    Ok(String::from_utf8_lossy(&all.concat()).into_owned())
}

/// The request hooks, in the order of an exchange; ends with the first decision.
fn call(
    hooks: &Hooks,
    facts: &Arc<ConnectionFacts>,
    head: &mut RequestHead,
    asked: &CaseRequest,
) -> Result<(Decision, Option<Tap>), Stop> {
    let failed = |error| Stop::Call(describe(&error));
    let plugin = hooks.plugin();
    let mut decision = Decision::Continue;
    let mut tap = None;
    if plugin.is("router") {
        decision = hooks.route(facts, head).map_err(failed)?;
    }
    if plugin.is("filter") {
        let hooked = hooks.hooked();
        if hooked.request && matches!(decision, Decision::Continue) {
            let has_body = !asked.body.is_empty();
            let called = hooks.on_request(facts, head, has_body).map_err(failed)?;
            (decision, tap) = (called.decision, called.tap);
        }
        if let Some(bytes_max) = hooked.request_body_bytes_max
            && matches!(decision, Decision::Continue)
        {
            let body = asked.body.as_bytes();
            let prefix = body.get(..bytes_max).unwrap_or(body);
            let is_whole = prefix.len() == body.len();
            decision = hooks.on_request_body(facts, head, prefix, is_whole).map_err(failed)?;
        }
    }
    Ok((decision, tap))
}

fn request(asked: &CaseRequest) -> Result<(Arc<ConnectionFacts>, RequestHead), String> {
    let url: http::Uri =
        asked.url.parse().map_err(|cause| format!("{} is not a URL: {cause}", asked.url))?;
    let scheme = match url.scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => return Err(format!("{} is not an https:// or http:// URL", asked.url)),
    };
    let method = asked.method.as_deref().unwrap_or("GET");
    let method: Method = method.parse().map_err(|_| format!("{method} is not a method"))?;
    let authority = url.authority().map(|it| it.as_str().to_ascii_lowercase()).unwrap_or_default();
    let target = url.path_and_query().cloned();
    let head = RequestHead {
        id: Arc::from("case"),
        method,
        scheme,
        target: target.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")),
        version: http::Version::HTTP_2,
        headers: fields(&asked.headers)?,
        authority,
    };
    let tls = (scheme == Scheme::Https).then(|| {
        Arc::new(TlsFacts {
            ja4: Some("t13d1516h2_8daaf6152771_e5627efa2ab1".into()),
            ..TlsFacts::usual(url.host().map(|host| host.to_ascii_lowercase().into()))
        })
    });
    let client = asked.from.unwrap_or(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    Ok((
        Arc::new(ConnectionFacts { client: SocketAddr::new(client, 40_000), tls, via: None }),
        head,
    ))
}

fn fields(given: &BTreeMap<String, Texts>) -> Result<HeaderMap, String> {
    let mut fields = HeaderMap::new();
    for (name, values) in given {
        let named = HeaderName::from_bytes(name.as_bytes());
        let named = named.map_err(|_| format!("{name:?} is not the name of a field"))?;
        for value in values.all() {
            let value = HeaderValue::from_str(value);
            let value = value.map_err(|_| format!("the value of {name} cannot be sent"))?;
            fields.append(named.clone(), value);
        }
    }
    Ok(fields)
}

/// What is not as expected, one line each.
fn judge(expect: &Expected, outcome: Result<Outcome, Stop>) -> Vec<String> {
    let outcome = match (outcome, &expect.load_error, &expect.error) {
        (Err(Stop::Load(found)), Some(wanted), _) | (Err(Stop::Call(found)), _, Some(wanted)) => {
            return match found.contains(wanted.as_str()) {
                true => Vec::new(),
                false => vec![format!("expected an error with {wanted:?}, found: {found}")],
            };
        }
        (Err(Stop::Load(found) | Stop::Call(found) | Stop::Case(found)), ..) => return vec![found],
        (Ok(_), Some(wanted), _) | (Ok(_), None, Some(wanted)) => {
            return vec![format!("expected an error with {wanted:?}, and all went well")];
        }
        (Ok(outcome), None, None) => outcome,
    };
    let mut wrong = Vec::new();
    let mut same = |what: &str, wanted: Option<&str>, found: &str| {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            wrong.push(format!("{what}: expected {wanted:?}, found {found:?}"));
        }
    };
    let (decision, upstream, body) = match &outcome.decision {
        Decision::Continue => ("continue", None, None),
        Decision::Upstream(name) => ("upstream", Some(&**name), None),
        Decision::Redirect { .. } => ("redirect", None, None),
        Decision::Respond { body, .. } => ("respond", None, Some(String::from_utf8_lossy(body))),
    };
    same("decision", expect.decision.as_deref(), decision);
    same("upstream", expect.upstream.as_deref(), upstream.unwrap_or("none"));
    same("body", expect.body.as_deref(), body.as_deref().unwrap_or("none"));
    let [request_body, response_body] = &outcome.bodies;
    for (what, wanted, found) in [
        ("request body", &expect.request_body, request_body),
        ("response body", &expect.response_body, response_body),
    ] {
        same(what, wanted.as_deref(), found.as_deref().unwrap_or("not asked for"));
    }
    same("method", expect.method.as_deref(), outcome.request.method.as_str());
    same("authority", expect.authority.as_deref(), &outcome.request.authority);
    same("target", expect.target.as_deref(), outcome.request.target.as_str());
    let response = outcome.response.as_ref();
    let status = response.map_or("none".to_owned(), |head| head.status.as_u16().to_string());
    same("status", expect.status.map(|it| it.to_string()).as_deref(), &status);
    let none = HeaderMap::new();
    let response_fields = response.map_or(&none, |head| &head.headers);
    let location = joined(response_fields, "location");
    same("location", expect.location.as_deref(), location.as_deref().unwrap_or("none"));
    for (side, wanted, found) in [
        ("request field", &expect.request_headers, &outcome.request.headers),
        ("response field", &expect.response_headers, response_fields),
    ] {
        for (name, wanted) in wanted {
            let found = joined(found, name);
            let wanted = wanted.as_ref().map(|wanted| wanted.all().join(", "));
            let (wanted, found) = (wanted.as_deref(), found.as_deref());
            same(&format!("{side} {name}"), wanted.or(Some("absent")), found.unwrap_or("absent"));
        }
    }
    wrong
}

fn joined(fields: &HeaderMap, name: &str) -> Option<String> {
    let values: Vec<_> =
        fields.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
    (!values.is_empty()).then(|| values.join(", "))
}
