//! `wit/http.wit`: the only way out of the sandbox. The guest says what to send; whether, where to
//! and with which secrets is decided here.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use wasmtime::component::{ComponentType, LinkerInstance, Lower};

use super::super::error::PluginError;
use super::super::facts::Facts;
use super::super::grant::{self, Reach, Target};
use super::super::secret::{self, Place, Unfilled};
use super::super::session::{Role, Sessions, Tokens};
use super::super::signing::{self, Unsigned};
use super::super::wire::{Wire, WireAnswer, WireRequest};
use super::{Host, fields};
use crate::config::SecretText;
use crate::config::credential::{Session, Signing, configured};
use crate::config::guard::{Asked, Guard, Order, Passed};
use crate::tls::roots;

/// Sends the requests of one plugin.
pub(in super::super) struct Client {
    tls: TlsConnector,
    /// In the place of the network.
    wire: Option<Arc<dyn Wire>>,
}

impl Client {
    /// A client that trusts what the system trusts, and speaks to `wire` alone where there is one.
    pub(in super::super) fn over(wire: Option<Arc<dyn Wire>>) -> Result<Self, PluginError> {
        Ok(Self { wire, ..Self::trusting(None)? })
    }

    fn trusting(file: Option<&std::path::Path>) -> Result<Self, PluginError> {
        let mut config = roots::client_config(file).map_err(PluginError::Roots)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), wire: None })
    }
}

/// `response` of the contract.
#[derive(ComponentType, Lower, Debug)]
#[component(record)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// `failure` of the contract.
#[derive(ComponentType, Lower, Debug)]
#[component(record)]
struct Failure {
    code: &'static str,
    message: String,
}

/// What is known about an exchange beside its answer.
#[derive(Debug, Default)]
pub(in super::super) struct Details {
    version: Option<&'static str>,
    address: Option<SocketAddr>,
    took: Option<Duration>,
    retry_after: Option<u64>,
    was_sent: bool,
    is_there: bool,
}

impl Details {
    fn find(&self, key: &str) -> Option<String> {
        if !self.is_there {
            return None;
        }
        match key {
            "http-version" => self.version.map(str::to_owned),
            "address" => self.address.map(|address| address.to_string()),
            "duration-ms" => self.took.map(|took| took.as_millis().to_string()),
            "retry-after-seconds" => self.retry_after.map(|seconds| seconds.to_string()),
            "was-sent" => Some(if self.was_sent { "yes" } else { "no" }.to_owned()),
            _ => None,
        }
    }
}

/// A request as the guest made it.
struct Wanted {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// The parameters of `send`.
type Send = (String, String, Vec<(String, String)>, Vec<u8>);

/// Masks for what only this request made of secrets.
type Masks = Vec<(Vec<u8>, String)>;

/// Links `function` of `http`; false when there is none.
pub(in super::super) fn link(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
) -> wasmtime::Result<bool> {
    if function == "detail" {
        at.func_wrap(function, |store, (key,): (String,)| Ok((store.data().details.find(&key),)))?;
        return Ok(true);
    }
    if function != "send" {
        return Ok(false);
    }
    at.func_wrap_async(function, |mut store, (method, url, headers, body): Send| {
        Box::new(async move {
            let wanted = Wanted { method, url, headers, body };
            let host = store.data_mut();
            host.charge(wanted.bytes())?;
            let Some(left) = host.requests_left.checked_sub(1) else {
                let max = host.facts.limits.requests_max;
                let name = &host.facts.subject.name;
                return Ok((Err(fail(
                    "denied",
                    format!(
                        "the plugin made {max} requests in one call; raise \
                         plugins.{name}.limits.requests if that is too little"
                    ),
                )),));
            };
            host.requests_left = left;
            let facts = Arc::clone(&host.facts);
            let (started, mut details) = (Instant::now(), Details::default());
            let answer = send(&facts, &mut host.order, wanted, &mut details).await;
            (details.took, details.is_there) = (Some(started.elapsed()), true);
            host.details = details;
            Ok((answer,))
        })
    })?;
    Ok(true)
}

impl From<String> for Failure {
    /// What is wrong with a plugin.yaml or the configuration it refers to.
    fn from(message: String) -> Self {
        fail("bad-request", message)
    }
}

impl From<WireAnswer> for Answer {
    fn from(answer: WireAnswer) -> Self {
        let WireAnswer { status, headers, body } = answer;
        Self { status, headers, body }
    }
}

impl Wanted {
    /// As the guest wrote it, names of fields in lower case.
    fn on_wire(&self) -> WireRequest {
        let field = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
        WireRequest {
            method: self.method.clone(),
            url: self.url.clone(),
            headers: self.headers.iter().map(field).collect(),
            body: self.body.clone(),
        }
    }

    fn bytes(&self) -> usize {
        let headers =
            self.headers.iter().map(|(name, value)| name.len().saturating_add(value.len()));
        headers
            .fold(self.method.len(), usize::saturating_add)
            .saturating_add(self.url.len())
            .saturating_add(self.body.len())
    }
}

/// Sends one request, if it is one that `order` lets through, and masks all that comes back.
async fn send(
    facts: &Facts,
    order: &mut Order,
    mut wanted: Wanted,
    details: &mut Details,
) -> Result<Answer, Failure> {
    let mut masks = Masks::new();
    let mut learned = None;
    let sent = async {
        let target = Target::parse(&wanted.url).map_err(|text| fail("bad-request", text))?;
        granted(facts, &target, &wanted.method)?;
        if facts.sessions.is_only_for_the_host(&target.authority()) {
            let line = target.line(&wanted.method);
            tracing::warn!(
                plugin = &*facts.subject.name,
                digest = facts.subject.short_digest(),
                request = line,
                "refused a request for the machine's own credentials"
            );
            let why = "what it answers are credentials, for which only the gateway itself asks";
            return Err(fail("denied", format!("{line}: {why}")));
        }
        if let Some(guard) = &facts.guard {
            let passed = guarded(facts, guard, order, &target, &mut wanted)?;
            learned = Some((guard, passed));
        }
        let tokens = tokens(facts, &wanted, &mut masks).await?;
        let answer = transmit(facts, wanted, &tokens, &mut masks, details).await?;
        if answer.status == 401 {
            facts.sessions.forget(tokens.keys());
        }
        Ok::<_, Failure>(answer)
    }
    .await;
    if let (Ok(answer), Some((guard, passed))) = (&sent, &learned) {
        guard.learn(order, passed, answer.status, &answer.body);
    }
    let text = |text: &str| {
        String::from_utf8_lossy(&facts.secrets.mask(text.as_bytes(), &masks)).into_owned()
    };
    match sent {
        Ok(answer) => {
            let answer = Answer {
                status: answer.status,
                headers: answer
                    .headers
                    .into_iter()
                    .map(|(name, value)| (text(&name), text(&value)))
                    .collect(),
                body: facts.secrets.mask(&answer.body, &masks).into_owned(),
            };
            if let Some(wire) = wire(facts) {
                wire.handed_over(&WireAnswer {
                    status: answer.status,
                    headers: answer.headers.clone(),
                    body: answer.body.clone(),
                });
            }
            Ok(answer)
        }
        Err(failure) => Err(Failure { code: failure.code, message: text(&failure.message) }),
    }
}

/// Refuses what no grant covers.
fn granted(facts: &Facts, target: &Target, method: &str) -> Result<(), Failure> {
    match facts.grants.iter().any(|grant| grant::covers(grant, method, target)) {
        true => Ok(()),
        false => Err(denied(facts, target, method)),
    }
}

/// Refuses what the plugin's guard does not let through for this order, and says so in the log. What
/// passes is sent as it was understood here.
fn guarded(
    facts: &Facts,
    guard: &Guard,
    order: &Order,
    target: &Target,
    wanted: &mut Wanted,
) -> Result<Passed, Failure> {
    let query = target.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let url = format!("{}://{}{}{query}", target.scheme, target.authority(), target.path);
    let headers: Vec<(String, String)> = wanted
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect();
    let asked = Asked { method: &wanted.method, url: &url, headers: &headers, body: &wanted.body };
    match guard.check(order, &asked, &facts.config) {
        Ok(passed) => {
            if let Some(body) = &passed.body {
                wanted.body.clone_from(body);
            }
            Ok(passed)
        }
        Err(why) => {
            let line = target.line(&wanted.method);
            tracing::warn!(
                plugin = &*facts.subject.name,
                digest = facts.subject.short_digest(),
                request = line,
                "refused a request that is not of the plugin's order: {}",
                facts.secrets.mask_text(&why)
            );
            Err(fail("denied", format!("plugin {} may not send {line}: {why}", facts.subject.name)))
        }
    }
}

/// The tokens that a request names: kept ones, or new ones.
async fn tokens(facts: &Facts, wanted: &Wanted, masks: &mut Masks) -> Result<Tokens, Failure> {
    let mut names = Sessions::named_in(wanted.url.as_bytes());
    names.extend(wanted.headers.iter().flat_map(|(_, value)| Sessions::named_in(value.as_bytes())));
    names.extend(Sessions::named_in(&wanted.body));
    names.extend(signing_of(facts, wanted).and_then(|scheme| role_of(facts, scheme)));
    let mut tokens = Tokens::new();
    for name in names {
        if tokens.contains_key(&name) {
            continue;
        }
        let how = facts.sessions.how(&name, |secret| facts.secrets.has(secret));
        let session = how.map_or(name.as_str(), |(session, _)| session);
        let token = match facts.sessions.kept(session) {
            Some(token) => token,
            None => log_in(facts, session, masks).await?,
        };
        match serde_json::from_str::<Role>(token.expose()) {
            // What it is made of must not come back, each by itself.
            Ok(role) => {
                let parts = [Some(&role.secret), role.session.as_ref()];
                parts.into_iter().flatten().for_each(|it| secret::mask_forms(&name, it, masks));
            }
            Err(_) => secret::mask_forms(&name, token.expose(), masks),
        }
        tokens.insert(name, token);
    }
    Ok(tokens)
}

/// How a request is to be signed.
fn signing_of<'f>(facts: &'f Facts, wanted: &Wanted) -> Option<&'f Signing> {
    let by = wanted.headers.iter().find_map(|(_, value)| signed_by(value))?;
    facts.signing.get(by)
}

/// The name in `{{sign:NAME}}`.
fn signed_by(value: &str) -> Option<&str> {
    value.strip_prefix("{{sign:").and_then(|it| it.strip_suffix("}}"))
}

/// The session with the credentials that a signature is made with, when they are a role's.
fn role_of(facts: &Facts, scheme: &Signing) -> Option<String> {
    scheme.otherwise(|name| facts.secrets.has(name)).map(str::to_owned)
}

/// Fetches a token. What is sent and answered here is nothing that the plugin sees.
async fn log_in(facts: &Facts, name: &str, masks: &mut Masks) -> Result<SecretText, Failure> {
    let plugin = &facts.subject.name;
    let read = |secret: &str, url: &str| {
        let target = Target::parse(url).map_err(|text| fail("bad-request", text))?;
        let text = facts.secrets.secret(secret, &target.host);
        text.map(str::to_owned).map_err(|why| unfilled(facts, &target, why))
    };
    let Some(login) = facts.sessions.login(name, &facts.config, read)? else {
        let text = format!("the plugin.yaml of plugin {plugin} has no session {name}");
        return Err(fail("unknown-secret", text));
    };
    if let Some(secret) = &login.also_secret {
        secret::mask_forms(name, secret, masks);
    }
    let how = facts.sessions.how(name, |_| true).map(|(_, how)| how);
    let wanted = match how {
        Some(Session::Metadata { headers, .. }) => Wanted {
            method: "GET".to_owned(),
            url: login.url.clone(),
            headers: headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            body: Vec::new(),
        },
        Some(Session::AwsRole { container, .. }) => {
            role_request(facts, &login.url, container, masks).await?
        }
        _ => Wanted {
            method: "POST".to_owned(),
            url: login.url.clone(),
            headers: vec![
                ("content-type".to_owned(), login.media_type.to_owned()),
                ("accept".to_owned(), "application/json".to_owned()),
            ],
            body: login.body.into_bytes(),
        },
    };
    let answer = ask_for_token(facts, how, wanted, &Tokens::new(), masks).await?;
    let refused = |code: &'static str| {
        let words = String::from_utf8_lossy(&answer.body);
        let words: String = words.trim().chars().take(300).collect();
        fail(code, format!("no token from {}: it answered {}: {words}", login.url, answer.status))
    };
    let token = match answer.status {
        200..300 => facts
            .sessions
            .take(name, &answer.headers, &answer.body)
            .ok_or_else(|| refused("refused-credential"))?,
        429 | 500.. => return Err(refused("protocol")),
        _ => return Err(refused("refused-credential")),
    };
    if let Some(session @ Session::Login { unlock: Some(_), .. }) = how {
        unlock(facts, name, session, &login.url, token.clone(), masks).await?;
    }
    Ok(token)
}

/// Asks a token endpoint, or what stands in the place of the network.
async fn ask_for_token(
    facts: &Facts,
    how: Option<&Session>,
    wanted: Wanted,
    tokens: &Tokens,
    masks: &mut Masks,
) -> Result<Answer, Failure> {
    match (wire(facts), how) {
        (Some(wire), Some(how)) => {
            prepare(facts, wanted, tokens, masks)?;
            Ok(Answer::from(wire.token(how)))
        }
        _ => transmit(facts, wanted, tokens, masks, &mut Details::default()).await,
    }
}

/// The second step of a login, where the stanza has the key of one-time codes.
async fn unlock(
    facts: &Facts,
    name: &str,
    session: &Session,
    url: &str,
    token: SecretText,
    masks: &mut Masks,
) -> Result<(), Failure> {
    let Session::Login { unlock: Some(step), cookie, expect, .. } = session else { return Ok(()) };
    if !facts.secrets.has(&step.secret) {
        return Ok(());
    }
    let target = Target::parse(url).map_err(|text| fail("bad-request", text))?;
    let key = facts.secrets.secret(&step.secret, &target.host);
    let key = key.map_err(|why| unfilled(facts, &target, why))?;
    let now = u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default();
    let Some((code, wait)) = facts.sessions.code(&step.secret, key, now) else {
        let text = format!("the secret {} is no key in Base32", step.secret);
        return Err(fail("refused-credential", text));
    };
    tokio::time::sleep(wait).await;
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    if let Some(cookie) = cookie {
        headers.push(("cookie".to_owned(), format!("{cookie}={{{{token:{name}}}}}")));
    }
    let body = step.json.to_string().replace("{{totp}}", &code).into_bytes();
    let wanted = Wanted { method: "POST".to_owned(), url: url.to_owned(), headers, body };
    let tokens = Tokens::from([(name.to_owned(), token)]);
    let answer = ask_for_token(facts, Some(session), wanted, &tokens, masks).await?;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let is_open = (200..300).contains(&answer.status)
        && expect.iter().all(|(at, wanted)| body.pointer(at) == Some(wanted));
    if is_open {
        return Ok(());
    }
    facts.sessions.forget([name.to_owned()].iter());
    let words: String = String::from_utf8_lossy(&answer.body).trim().chars().take(300).collect();
    Err(fail("refused-credential", format!("{url} did not take the one-time code: {words}")))
}

/// What is sent for the credentials of an AWS role (AWS SDKs and Tools Reference Guide, "Container
/// credential provider" and "IMDS credential provider").
async fn role_request(
    facts: &Facts,
    instance: &str,
    container: &str,
    masks: &mut Masks,
) -> Result<Wanted, Failure> {
    let get = |url: String, headers: Vec<(String, String)>| Wanted {
        method: "GET".to_owned(),
        url,
        headers,
        body: Vec::new(),
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let full = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    if let Some(url) = full.or_else(|| relative.map(|path| format!("{container}{path}"))) {
        let file = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        let token = match file {
            Some(file) => tokio::fs::read_to_string(&file).await.ok(),
            None => variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        };
        let token = token.map(|token| token.trim().to_owned());
        token.iter().for_each(|token| secret::mask_forms("container", token, masks));
        let fields = token.map(|token| ("authorization".to_owned(), token));
        return Ok(get(url, fields.into_iter().collect()));
    }
    let text = |answer: Answer, what: &str| match answer.status {
        200..300 => Ok(String::from_utf8_lossy(&answer.body).trim().to_owned()),
        status => Err(fail("refused-credential", format!("{instance} has no {what}: {status}"))),
    };
    let ttl = ("x-aws-ec2-metadata-token-ttl-seconds".to_owned(), "300".to_owned());
    let asked = Wanted {
        method: "PUT".to_owned(),
        url: format!("{instance}/latest/api/token"),
        headers: vec![ttl],
        body: Vec::new(),
    };
    let token = text(
        transmit(facts, asked, &Tokens::new(), masks, &mut Details::default()).await?,
        "session token",
    )?;
    secret::mask_forms("instance", &token, masks);
    let fields = vec![("x-aws-ec2-metadata-token".to_owned(), token)];
    let place = format!("{instance}/latest/meta-data/iam/security-credentials/");
    let asked = get(place.clone(), fields.clone());
    let role = text(
        transmit(facts, asked, &Tokens::new(), masks, &mut Details::default()).await?,
        "role",
    )?;
    let role = role.lines().next().unwrap_or_default().to_owned();
    Ok(get(format!("{place}{role}"), fields))
}

/// Sends a request that is granted.
async fn transmit(
    facts: &Facts,
    wanted: Wanted,
    tokens: &Tokens,
    masks: &mut Masks,
    details: &mut Details,
) -> Result<Answer, Failure> {
    let written = wire(facts).map(|wire| (wire, wanted.on_wire()));
    let (request, target) = prepare(facts, wanted, tokens, masks)?;
    if let Some((wire, written)) = written {
        return Ok(Answer::from(wire.answer(written, on_wire(request).await).await));
    }
    let is_head = request.method() == Method::HEAD;
    let exchange = exchange(facts, request, &target, is_head, details);
    tokio::time::timeout(EXCHANGE_MAX, exchange).await.unwrap_or_else(|_elapsed| {
        Err(fail("timeout", format!("no whole answer within {EXCHANGE_MAX:?}")))
    })
}

/// What stands in the place of the network.
fn wire(facts: &Facts) -> Option<&Arc<dyn Wire>> {
    facts.client.as_ref().and_then(|client| client.wire.as_ref())
}

/// A finished request for the wire.
async fn on_wire(request: Request<Full<Bytes>>) -> WireRequest {
    let (head, body) = request.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    WireRequest {
        method: head.method.to_string(),
        url: head.uri.to_string(),
        headers: fields.collect(),
        // It is there already.
        body: body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default(),
    }
}

/// Checks a request against the grants, and only then puts secrets in and signs.
fn prepare(
    facts: &Facts,
    wanted: Wanted,
    tokens: &Tokens,
    masks: &mut Masks,
) -> Result<(Request<Full<Bytes>>, Target), Failure> {
    let bad = |text: String| fail("bad-request", text);
    let target = Target::parse(&wanted.url).map_err(bad)?;
    let method = match Method::from_bytes(wanted.method.as_bytes()) {
        Ok(Method::CONNECT) | Err(_) => {
            return Err(bad(format!("{:?} is no method that can be sent", wanted.method)));
        }
        Ok(method) => method,
    };
    granted(facts, &target, method.as_str())?;
    let fill = |text: &[u8], place: Place, masks: &mut Masks| {
        let filled = facts.secrets.fill(text, place, &target.host, tokens, masks);
        filled.map(std::borrow::Cow::into_owned).map_err(|why| unfilled(facts, &target, why))
    };
    let mut headers = HeaderMap::new();
    let (mut place, mut signing) = (Place::Raw, None);
    for (name, value) in &wanted.headers {
        let name = field_name(name)?;
        if let Some(by) = signed_by(value) {
            signing = Some(by);
            continue;
        }
        if name == header::CONTENT_TYPE {
            place = place_of(value);
        }
        let value = fill(value.as_bytes(), Place::Header, masks)?;
        let mut value = HeaderValue::from_bytes(&value)
            .map_err(|_| bad(format!("the value for {name} has bytes that no value may have")))?;
        value.set_sensitive(true);
        headers.try_append(name, value).map_err(|_| bad("there are too many fields".to_owned()))?;
    }
    let body = Bytes::from(fill(&wanted.body, place, masks)?);
    let path = match &target.query {
        Some(query) => {
            let query = fill(query.as_bytes(), Place::Query, masks)?;
            format!("{}?{}", target.path, String::from_utf8_lossy(&query))
        }
        None => target.path.clone(),
    };
    if let Some(by) = signing {
        sign(facts, by, &target, (&method, &path), &mut headers, &body, tokens)?;
    }
    let uri = Uri::builder()
        .scheme(target.scheme)
        .authority(target.authority())
        .path_and_query(path)
        .build()
        .map_err(|_| bad("the URL's query has characters that must be encoded".to_owned()))?;
    headers
        .entry(header::USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!("witgate/", env!("CARGO_PKG_VERSION"))));
    // A compressed answer could carry a secret past the mask.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok((request, target))
}

/// Adds the fields of a signature.
fn sign(
    facts: &Facts,
    by: &str,
    target: &Target,
    (method, path): (&Method, &str),
    headers: &mut HeaderMap,
    body: &[u8],
    tokens: &Tokens,
) -> Result<(), Failure> {
    let Some(scheme) = facts.signing.get(by) else {
        let plugin = &facts.subject.name;
        let text = format!("the plugin.yaml of plugin {plugin} has no signing {by}");
        return Err(fail("unknown-secret", text));
    };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let given: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect();
    let unsigned = Unsigned {
        method: method.as_str(),
        scheme: target.scheme,
        authority: &target.authority(),
        path,
        query,
        headers: &given,
        body,
    };
    let secret = |name: &str| {
        let text = facts.secrets.secret(name, &target.host);
        text.map(str::to_owned).map_err(|why| unfilled(facts, target, why))
    };
    let text = |text: &str| configured(text, &facts.config).map_err(|why| fail("bad-request", why));
    let now = time::OffsetDateTime::now_utc();
    let nonce = uuid::Uuid::now_v7().simple().to_string();
    let scheme = scheme.without_absent(|name| facts.secrets.has(name));
    let role = role_of(facts, &scheme).and_then(|name| tokens.get(&name));
    let role = role.and_then(|role| serde_json::from_str(role.expose()).ok());
    for (name, value) in signing::sign(&scheme, &unsigned, now, &nonce, secret, text, role)? {
        let mut value = HeaderValue::try_from(value).map_err(|_| {
            fail("bad-request", format!("a secret of signing {by} cannot stand in a field"))
        })?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(())
}

fn denied(facts: &Facts, target: &Target, method: &str) -> Failure {
    fail(
        "denied",
        format!(
            "plugin {} may not send {method} to {}://{}{}; to allow it, add this line: \
             plugins.{}.grants.http: [\"{}\"]",
            facts.subject.name,
            target.scheme,
            target.authority(),
            target.path,
            facts.subject.name,
            target.line(method),
        ),
    )
}

fn unfilled(facts: &Facts, target: &Target, why: Unfilled) -> Failure {
    let plugin = &facts.subject.name;
    match why {
        Unfilled::Unknown(name) => fail(
            "unknown-secret",
            format!("plugin {plugin} has no secret {name}; add plugins.{plugin}.secrets.{name}"),
        ),
        Unfilled::Elsewhere(name) => fail(
            "denied",
            format!(
                "secret {name} of plugin {plugin} may not go to {}; add that host to \
                 plugins.{plugin}.secrets.{name}.hosts if it should",
                target.host
            ),
        ),
        Unfilled::Malformed(text) => fail("bad-request", text),
    }
}

fn field_name(name: &str) -> Result<HeaderName, Failure> {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
        return Err(fail("bad-request", format!("{name:?} is not a field name")));
    };
    let is_hosts = fields::is_owned(name.as_str())
        || matches!(
            name.as_str(),
            // Partial and encoded answers could carry a secret past the mask.
            "range" | "accept-encoding" | "expect" | "proxy-authorization"
        );
    if is_hosts {
        return Err(fail("bad-request", format!("the gateway itself sets the field {name}")));
    }
    Ok(name)
}

/// How secrets are written in a body of this media type.
fn place_of(content_type: &str) -> Place {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media == "application/x-www-form-urlencoded" {
        Place::Form
    } else if media.ends_with("/json") || media.ends_with("+json") {
        Place::Json
    } else {
        Place::Raw
    }
}

/// Connects, sends, and takes the whole answer.
async fn exchange(
    facts: &Facts,
    request: Request<Full<Bytes>>,
    target: &Target,
    is_head: bool,
    details: &mut Details,
) -> Result<Answer, Failure> {
    let addresses = resolve(facts, target).await?;
    let connected = connect(&addresses, target);
    let tcp = tokio::time::timeout(CONNECT_MAX, connected).await.unwrap_or_else(|_elapsed| {
        Err(fail("connect", format!("{} did not answer within {CONNECT_MAX:?}", target.host)))
    })?;
    details.address = tcp.peer_addr().ok();
    let (response, _connection) = if target.scheme == "https" {
        let tls = facts.client.as_ref().map(|client| client.tls.clone());
        let tls = tls.ok_or_else(|| fail("tls", "there is no TLS client".to_owned()))?;
        let name = ServerName::try_from(target.host.clone())
            .map_err(|_| fail("tls", format!("{} is not a name for TLS", target.host)))?;
        let stream = tls
            .connect(name, tcp)
            .await
            .map_err(|cause| fail("tls", format!("{}: {cause}", target.authority())))?;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        details.was_sent = true;
        if is_h2 { over_h2(stream, request).await } else { over_h1(stream, request, target).await }
    } else {
        details.was_sent = true;
        over_h1(tcp, request, target).await
    }?;
    details.version = Some(version_text(response.version()));
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok());
    details.retry_after = retry_after.and_then(|text| seconds_until(text.trim()));
    take(response, is_head).await
}

fn version_text(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 | http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        http::Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

/// What `retry-after` says: seconds, or a date (RFC 9110, section 10.2.3).
fn seconds_until(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let left = at.duration_since(std::time::SystemTime::now()).unwrap_or_default();
    Some(left.as_secs())
}

/// The addresses of the target that the plugin may reach.
async fn resolve(facts: &Facts, target: &Target) -> Result<Vec<SocketAddr>, Failure> {
    let literal: Option<IpAddr> = target.host.parse().ok();
    let found: Vec<SocketAddr> = match literal {
        Some(ip) => vec![SocketAddr::new(ip, target.port)],
        None => tokio::net::lookup_host((target.host.as_str(), target.port))
            .await
            .map_err(|cause| fail("dns", format!("cannot resolve {}: {cause}", target.host)))?
            .collect(),
    };
    let is_named = facts.grants.iter().any(|grant| {
        !grant.host.starts_with("*.") && grant::host_covers(&grant.host, &target.host)
    });
    let may_reach = |address: &SocketAddr| match grant::reach(address.ip()) {
        Reach::Public => true,
        Reach::Private => is_named,
        Reach::Special => is_named && literal.is_some(),
    };
    let allowed: Vec<SocketAddr> = found.iter().copied().filter(may_reach).collect();
    match (allowed.is_empty(), found.first()) {
        (false, _) => Ok(allowed),
        (true, None) => Err(fail("dns", format!("{} has no address", target.host))),
        (true, Some(address)) => Err(fail(
            "denied",
            format!(
                "{} is at {}, which is not a public address; a grant must name it literally to \
                 allow that",
                target.host,
                address.ip()
            ),
        )),
    }
}

/// Connects to the first address that answers. These are the checked ones: the name is not asked
/// again.
async fn connect(addresses: &[SocketAddr], target: &Target) -> Result<TcpStream, Failure> {
    let mut last = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(cause) => last = Some(format!("{address}: {cause}")),
        }
    }
    let last = last.unwrap_or_else(|| "it has no address".to_owned());
    Err(fail("connect", format!("cannot connect to {}: {last}", target.host)))
}

/// Keeps a connection's task alive until the answer is whole.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn over_h1<S>(
    stream: S,
    mut request: Request<Full<Bytes>>,
    target: &Target,
) -> Result<(Response<Incoming>, Connection), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + std::marker::Send + 'static,
{
    let host = HeaderValue::try_from(target.authority())
        .map_err(|_| fail("bad-request", "the host cannot stand in a field".to_owned()))?;
    request.headers_mut().insert(header::HOST, host);
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(protocol)?;
    let connection = drive(connection);
    let response = sender.send_request(request).await.map_err(protocol)?;
    Ok((response, connection))
}

async fn over_h2<S>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Connection), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + std::marker::Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(protocol)?;
    let connection = drive(connection);
    let response = sender.send_request(request).await.map_err(protocol)?;
    Ok((response, connection))
}

fn drive<F>(connection: F) -> Connection
where
    F: Future<Output = hyper::Result<()>> + std::marker::Send + 'static,
{
    // Its failures come back through the sender as well.
    Connection(tokio::spawn(async move {
        let _ = connection.await;
    }))
}

async fn take(response: Response<Incoming>, is_head: bool) -> Result<Answer, Failure> {
    let (parts, body) = response.into_parts();
    let is_encoded = parts
        .headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if is_encoded && !is_head {
        return Err(fail(
            "protocol",
            "the answer is compressed though that was refused".to_owned(),
        ));
    }
    let headers = parts
        .headers
        .iter()
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|cause| {
        if cause.is::<LengthLimitError>() {
            fail("too-large", format!("the answer is larger than {} MiB", BODY_BYTES_MAX >> 20))
        } else {
            fail("protocol", format!("the answer broke off: {cause}"))
        }
    })?;
    Ok(Answer { status: parts.status.as_u16(), headers, body: body.to_bytes().to_vec() })
}

fn protocol(cause: hyper::Error) -> Failure {
    let mut text = cause.to_string();
    let mut inner = std::error::Error::source(&cause);
    while let Some(cause) = inner {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        inner = cause.source();
    }
    fail("protocol", text)
}

fn fail(code: &'static str, message: String) -> Failure {
    Failure { code, message }
}

/// From the first packet to a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// From name resolution to the last byte of the answer.
const EXCHANGE_MAX: Duration = Duration::from_secs(30);
/// The largest answer, inclusive.
const BODY_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};
    use std::convert::Infallible;
    use std::path::PathBuf;

    use hyper::service::service_fn;
    use rustls_pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;

    use super::super::super::error::Subject;
    use super::super::super::secret::Secrets;
    use super::super::log::Rate;
    use super::*;
    use crate::config::{HeadGrant, HttpGrant, PluginLimits};

    fn grant(scheme: &str, host: &str, port: u16) -> HttpGrant {
        HttpGrant {
            pattern: format!("{scheme}://{host}:{port}/*"),
            methods: Vec::new(),
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            port,
            path: "/*".to_owned(),
        }
    }

    fn facts(grants: Vec<HttpGrant>, client: Client) -> Facts {
        let limits = PluginLimits {
            deadline: Duration::from_millis(50),
            solver_deadline: Duration::from_secs(5),
            memory_bytes_max: 1 << 20,
            output_bytes_max: 1 << 20,
            body_growth_bytes_max: 1 << 20,
            state_bytes_max: 1 << 20,
            requests_max: 5,
            log_lines_per_second_max: 1,
        };
        Facts {
            subject: Subject {
                name: Arc::from("p"),
                file: Arc::new(PathBuf::from("p.wasm")),
                digest: Arc::from(""),
            },
            limits,
            hmac: Vec::new(),
            grants,
            zones: Vec::new(),
            request: HeadGrant::default(),
            response: HeadGrant::default(),
            refused: std::sync::Mutex::default(),
            secrets: Secrets::read(&BTreeMap::new()).ok().unwrap(),
            guard: None,
            signing: BTreeMap::new(),
            sessions: Sessions::default(),
            config: serde_json::Value::Null,
            upstreams: HashSet::new(),
            state: Arc::default(),
            log: Rate::new(1),
            client: Some(client),
        }
    }

    async fn respond(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let answer = |builder: http::response::Builder, body: Vec<u8>| {
            Ok(builder.body(Full::new(Bytes::from(body))).unwrap())
        };
        match request.uri().path() {
            "/large" => answer(Response::builder(), vec![b'x'; BODY_BYTES_MAX + 1]),
            "/packed" => answer(Response::builder().header("content-encoding", "gzip"), Vec::new()),
            "/moved" => {
                answer(Response::builder().status(302).header("location", "/x"), Vec::new())
            }
            "/hang" => std::future::pending().await,
            _ => {
                let host = request.headers().get("host").map_or("", |h| h.to_str().unwrap());
                let authority = request.uri().authority().map_or("", |a| a.as_str());
                let text = format!("{:?} {host}{authority}", request.version());
                answer(Response::builder(), text.into_bytes())
            }
        }
    }

    /// An https server on loopback that speaks one protocol; its port and the file of its root.
    async fn serve(alpn: &'static [u8], folder: &std::path::Path) -> (u16, PathBuf) {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let root = folder.join("root.pem");
        std::fs::write(&root, cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let (io, service) = (TokioIo::new(stream), service_fn(respond));
                    if alpn == b"h2" {
                        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _ = http2.serve_connection(io, service).await;
                    } else {
                        let http1 = hyper::server::conn::http1::Builder::new();
                        let _ = http1.serve_connection(io, service).await;
                    }
                });
            }
        });
        (port, root)
    }

    async fn send_any(facts: &Facts, wanted: Wanted) -> Result<Answer, Failure> {
        send(facts, &mut Order::nothing(), wanted, &mut Details::default()).await
    }

    fn get(url: String) -> Wanted {
        Wanted { method: "GET".to_owned(), url, headers: Vec::new(), body: Vec::new() }
    }

    #[tokio::test]
    async fn both_protocols_are_spoken_and_answers_are_bounded() {
        for (alpn, version) in [(&b"h2"[..], "HTTP/2.0"), (b"http/1.1", "HTTP/1.1")] {
            let folder = tempfile::tempdir().unwrap();
            let (port, root) = serve(alpn, folder.path()).await;
            let client = Client::trusting(Some(&root)).unwrap();
            let facts = facts(vec![grant("https", "localhost", port)], client);
            let url = |path: &str| format!("https://LOCALHOST:{port}{path}");
            let answer = send_any(&facts, get(url("/x"))).await.unwrap();
            let body = String::from_utf8(answer.body).unwrap();
            assert_eq!(body, format!("{version} localhost:{port}"));
            // A redirect is an answer.
            assert_eq!(send_any(&facts, get(url("/moved"))).await.unwrap().status, 302);
            assert_eq!(send_any(&facts, get(url("/large"))).await.unwrap_err().code, "too-large");
            assert_eq!(send_any(&facts, get(url("/packed"))).await.unwrap_err().code, "protocol");
        }
    }

    #[tokio::test]
    async fn strangers_and_private_addresses_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (port, _root) = serve(b"http/1.1", folder.path()).await;
        let client = || Client::over(None).unwrap();
        let named = facts(vec![grant("https", "localhost", port)], client());
        let failure =
            send_any(&named, get(format!("https://localhost:{port}/"))).await.unwrap_err();
        assert_eq!(failure.code, "tls", "{failure:?}");

        // A pattern that only happens to cover a name gives no way into this machine.
        let wide = facts(vec![grant("https", "*.example", port)], client());
        let target = Target::parse(&format!("https://localhost:{port}/")).unwrap();
        let failure = resolve(&wide, &target).await.unwrap_err();
        assert_eq!(failure.code, "denied");
        assert!(failure.message.contains("not a public address"), "{failure:?}");

        let metadata = Target::parse("http://169.254.169.254/latest").unwrap();
        assert_eq!(resolve(&wide, &metadata).await.unwrap_err().code, "denied");
        let literal = facts(vec![grant("http", "169.254.169.254", 80)], client());
        assert!(resolve(&literal, &metadata).await.is_ok());
    }

    #[tokio::test]
    async fn what_the_gateway_owns_cannot_be_sent() {
        let facts = facts(vec![grant("http", "localhost", 80)], Client::over(None).unwrap());
        for name in ["Host", "content-length", "connection", "range", "accept-encoding", "a b"] {
            let mut wanted = get("http://localhost/".to_owned());
            wanted.headers.push((name.to_owned(), "1".to_owned()));
            assert_eq!(send_any(&facts, wanted).await.unwrap_err().code, "bad-request", "{name}");
        }
        for (name, value) in [("x", "a\r\nb: c"), ("x", "\0")] {
            let mut wanted = get("http://localhost/".to_owned());
            wanted.headers.push((name.to_owned(), value.to_owned()));
            assert_eq!(
                send_any(&facts, wanted).await.unwrap_err().code,
                "bad-request",
                "{value:?}"
            );
        }
    }

    #[test]
    fn bodies_are_known_by_their_media_type() {
        for (media, place) in [
            ("application/json", Place::Json),
            ("Application/Problem+JSON; charset=utf-8", Place::Json),
            ("application/x-www-form-urlencoded", Place::Form),
            ("text/plain", Place::Raw),
        ] {
            assert_eq!(place_of(media), place, "{media}");
        }
    }
}
