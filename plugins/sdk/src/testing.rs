//! A double of the gateway for a plugin's own tests, which run on the host with `cargo test`.
//!
//! ```ignore
//! let plugin: Headers = testing::configure(json!({"response": {"remove": ["server"]}}))?;
//! let mut exchange = Exchange::get("https://example.com/").response(200, &[("server", "x")]);
//! exchange.on_response(&plugin);
//! assert_eq!(exchange.response_header("server"), None);
//! ```
//!
//! It keeps the rules of the contract: what would trap in the gateway panics here.

#![expect(clippy::panic, reason = "a broken rule of the contract fails the test")]

pub mod conformance;
pub mod guard;
mod worlds;

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{BodyFilter, Filter, Plugin, Router, config, http};

pub use worlds::{Hello, HelloDecision, IssuanceDecision, Question, noted};

/// Configures a plugin as the gateway does with a stanza's `config:`.
///
/// # Errors
/// The text the operator would see.
#[expect(clippy::needless_pass_by_value, reason = "reads better with `json!` at the call")]
pub fn configure<T: Plugin>(config: Value) -> Result<T, String> {
    T::configure(config::parse(&config.to_string())?)
}

/// What a plugin decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// To this upstream.
    Upstream(String),
    /// A redirect.
    Redirect(u16, String),
    /// A response of the plugin's own: status, fields, body.
    Respond(u16, Vec<(String, String)>, Vec<u8>),
}

/// One exchange: a request and what became of it.
#[derive(Debug, Clone, Default)]
pub struct Exchange {
    client_address: String,
    tls_server_name: Option<String>,
    scheme: String,
    method: String,
    authority: String,
    path: String,
    query: Option<String>,
    request: Fields,
    response: Option<(u16, Fields)>,
    decision: Option<Decision>,
    is_router: bool,
    bodies: Bodies,
}

/// What a filter does with bodies.
#[derive(Debug, Clone, Default)]
struct Bodies {
    /// Why there is none.
    refusal: Option<String>,
    /// The number of the last that was asked for, and whether it is changed.
    asked: Option<(u64, bool)>,
    last: u64,
    chunk: Option<Vec<u8>>,
    given: Option<Vec<u8>>,
}

/// Fields in order; names in lower case.
#[derive(Debug, Clone, Default)]
struct Fields(Vec<(String, Vec<u8>)>);

impl Exchange {
    /// A `GET` of an absolute URL from 192.0.2.1.
    pub fn get(url: &str) -> Self {
        Self::new("GET", url)
    }

    /// A request for an absolute URL from 192.0.2.1.
    pub fn new(method: &str, url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        Self {
            client_address: "192.0.2.1".to_owned(),
            scheme: scheme.to_owned(),
            method: method.to_owned(),
            authority: authority.to_ascii_lowercase(),
            path: path.to_owned(),
            query,
            ..Self::default()
        }
    }

    /// Adds a field to the request.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request.append(name, value.as_bytes());
        self
    }

    /// Sets the client's address.
    #[must_use]
    pub fn client(mut self, address: &str) -> Self {
        address.clone_into(&mut self.client_address);
        self
    }

    /// Sets the response that [`on_response`](Self::on_response) sees.
    #[must_use]
    pub fn response(mut self, status: u16, headers: &[(&str, &str)]) -> Self {
        let mut fields = Fields::default();
        for (name, value) in headers {
            fields.append(name, value.as_bytes());
        }
        self.response = Some((status, fields));
        self
    }

    /// Calls a router; returns its decision.
    pub fn route(&mut self, plugin: &impl Router) -> Option<Decision> {
        self.is_router = true;
        self.run(|| plugin.route());
        self.decision.take()
    }

    /// Calls a filter's `on_request`; returns its decision.
    pub fn on_request(&mut self, plugin: &impl Filter) -> Option<Decision> {
        let response = self.response.take();
        self.run(|| plugin.on_request());
        self.response = response;
        self.decision.take()
    }

    /// Calls a filter's `on_request_body`; returns its decision.
    pub fn on_request_body(
        &mut self,
        plugin: &impl Filter,
        prefix: &[u8],
        is_complete: bool,
    ) -> Option<Decision> {
        let response = self.response.take();
        self.run(|| plugin.on_request_body(prefix, is_complete));
        self.response = response;
        self.decision.take()
    }

    /// Calls a filter's `on_response`.
    pub fn on_response(&mut self, plugin: &impl Filter) {
        self.run(|| plugin.on_response());
    }

    /// Has a filter that asks for the body hear this code instead.
    #[must_use]
    pub fn without_body(mut self, code: &str) -> Self {
        self.bodies.refusal = Some(code.to_owned());
        self
    }

    /// Shows a filter the pieces of the body that its last hook asked for, and their end. Returns what
    /// goes on; none when it did not ask.
    pub fn body(&mut self, plugin: &impl BodyFilter, chunks: &[&[u8]]) -> Option<Vec<u8>> {
        let (number, transforms) = self.bodies.asked.take()?;
        let body = crate::body::Body::of(number);
        let mut all = Vec::new();
        let shown = chunks.iter().map(|chunk| Some(*chunk)).chain([None]);
        for chunk in shown {
            self.bodies.chunk = chunk.map(<[u8]>::to_vec);
            self.bodies.given = transforms.then(Vec::new);
            self.run(|| match chunk {
                Some(chunk) => plugin.on_chunk(body, chunk),
                None => plugin.on_finish(body),
            });
            let given = self.bodies.given.take();
            all.extend(given.unwrap_or_else(|| chunk.unwrap_or_default().to_vec()));
        }
        Some(all)
    }

    /// The values of a field of the request.
    pub fn request_values(&self, name: &str) -> Vec<String> {
        self.request.values(name)
    }

    /// The first value of a field of the request.
    pub fn request_header(&self, name: &str) -> Option<String> {
        self.request_values(name).into_iter().next()
    }

    /// The values of a field of the response.
    pub fn response_values(&self, name: &str) -> Vec<String> {
        self.response.as_ref().map(|(_, fields)| fields.values(name)).unwrap_or_default()
    }

    /// The first value of a field of the response.
    pub fn response_header(&self, name: &str) -> Option<String> {
        self.response_values(name).into_iter().next()
    }

    /// The status of the response.
    pub fn status(&self) -> Option<u16> {
        self.response.as_ref().map(|(status, _)| *status)
    }

    /// Path and query as the upstream sees them.
    pub fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    fn run(&mut self, call: impl FnOnce()) {
        EXCHANGE.with_borrow_mut(|current| *current = Some(std::mem::take(self)));
        call();
        *self = EXCHANGE.take().unwrap_or_default();
    }
}

impl Fields {
    fn append(&mut self, name: &str, value: &[u8]) {
        self.0.push((name.to_ascii_lowercase(), value.to_owned()));
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    fn change(&mut self, name: &str, value: Option<&[u8]>, keep: bool) {
        let name = crate::field::check_changeable(name).unwrap_or_else(|error| panic!("{error}"));
        if value.is_some_and(|value| {
            value.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f)
        }) {
            panic!("the value of `{name}` is not one of a header field");
        }
        if !keep {
            self.0.retain(|(key, _)| *key != name);
        }
        if let Some(value) = value {
            self.append(&name, value);
        }
    }

    fn first(&self, name: &str) -> Option<Vec<u8>> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
    }

    fn values(&self, name: &str) -> Vec<String> {
        let named = self.0.iter().filter(|(key, _)| *key == name);
        named.filter_map(|(_, value)| String::from_utf8(value.clone()).ok()).collect()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (name, _) in &self.0 {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
}

/// A request that a plugin sent, as it left the sandbox: with placeholders, not secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The fields.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Sent {
    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The segments of the path, decoded.
    pub fn segments(&self) -> Vec<String> {
        let url = self.url.split('?').next().unwrap_or_default();
        let path = url.split_once("://").map_or(url, |(_, rest)| rest);
        path.split('/').skip(1).map(unescape).collect()
    }

    /// The first value of a parameter of the query, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let query = self.url.split_once('?')?.1;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| unescape(key) == name).map(|(_, value)| unescape(value))
    }

    /// The parameters of a form body, decoded.
    pub fn form(&self) -> BTreeMap<String, String> {
        let text = String::from_utf8_lossy(&self.body);
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (unescape(name), unescape(value))).collect()
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Undoes [`http::escape`].
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Makes an answer with a JSON body.
#[expect(clippy::needless_pass_by_value, reason = "reads better with `json!` at the call")]
pub fn answer(status: u16, body: Value) -> http::Response {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    http::Response { status, headers, body }
}

/// Runs `call` while `server` answers what it sends.
pub fn with_server<R>(
    server: impl FnMut(&Sent) -> Result<http::Response, http::Error> + 'static,
    call: impl FnOnce() -> R,
) -> R {
    SERVER.with_borrow_mut(|current| *current = Some(Box::new(server)));
    let result = call();
    SERVER.with_borrow_mut(|current| *current = None);
    result
}

/// Recorded exchanges with a provider, one file of `fixtures/`: a JSON list of
/// `{"request": {method, url, headers, body}, "response": {status, headers, body}}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Recording(Vec<Recorded>);

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    request: RecordedRequest,
    response: RecordedResponse,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedRequest {
    method: String,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedResponse {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
}

impl Recording {
    /// Reads a fixture.
    ///
    /// # Panics
    /// When it is not one.
    pub fn new(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("not a recording: {error}"))
    }

    /// Runs `call`, which must send exactly the recorded requests in their order.
    ///
    /// # Panics
    /// When it sends another one, or not all of them.
    pub fn replay<R>(self, call: impl FnOnce() -> R) -> R {
        let count = self.0.len();
        let played = std::rc::Rc::new(std::cell::Cell::new(0));
        let position = std::rc::Rc::clone(&played);
        let mut exchanges = self.0.into_iter();
        let result = with_server(
            move |sent| {
                let Some(Recorded { request, response }) = exchanges.next() else {
                    panic!("not in the recording: {} {}", sent.method, sent.url);
                };
                position.set(position.get() + 1);
                let nth = position.get();
                assert_eq!((&*sent.method, &*sent.url), (&*request.method, &*request.url), "{nth}");
                assert_eq!(sent.json(), request.body, "body of request {nth}");
                for (name, value) in &request.headers {
                    assert_eq!(sent.header(name), Some(value.as_str()), "{name} of request {nth}");
                }
                let mut answer = answer(response.status, response.body);
                answer.headers.extend(response.headers);
                Ok(answer)
            },
            call,
        );
        assert_eq!(played.get(), count, "requests of the recording that were not sent");
        result
    }
}

/// The lines that the plugin has logged on this thread, as level and text; forgets them.
pub fn logged() -> Vec<(String, String)> {
    LOG.take()
}

/// Makes HMACs in the gateway's place, for instance with the crate `hmac`: gets algorithm, the
/// secret's name and data, and returns the code or an error's code.
pub fn with_hmac(make: impl Fn(&str, &str, &[u8]) -> Result<Vec<u8>, String> + 'static) {
    HMAC.set(Some(Box::new(make)));
}

/// Judges signatures in the gateway's place: gets algorithm, public key, data and signature.
pub fn with_signatures(judge: impl Fn(&str, &[u8], &[u8], &[u8]) -> bool + 'static) {
    SIGNATURES.set(Some(Box::new(judge)));
}

type Make = Box<dyn Fn(&str, &str, &[u8]) -> Result<Vec<u8>, String>>;
type Judge = Box<dyn Fn(&str, &[u8], &[u8], &[u8]) -> bool>;
type Server = Box<dyn FnMut(&Sent) -> Result<http::Response, http::Error>>;

thread_local! {
    static HMAC: RefCell<Option<Make>> = const { RefCell::new(None) };
    static SIGNATURES: RefCell<Option<Judge>> = const { RefCell::new(None) };
    static EXCHANGE: RefCell<Option<Exchange>> = const { RefCell::new(None) };
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
    static LOG: RefCell<Vec<(String, String)>> = const { RefCell::new(Vec::new()) };
    static STATE: RefCell<BTreeMap<String, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
}

/// The doubles, one module for each interface of `wit/`.
pub(crate) mod host {
    pub(crate) use super::worlds::host::{hello, hello_decision, issuance, report};
    use super::{Decision, EXCHANGE, Exchange, LOG, SERVER, STATE, Sent};

    fn with<R>(f: impl FnOnce(&mut Exchange) -> R) -> R {
        EXCHANGE.with_borrow_mut(|current| match current {
            Some(exchange) => f(exchange),
            None => panic!("called outside an exchange: the gateway would trap"),
        })
    }

    pub(crate) mod body {
        use super::{Exchange, with};

        fn ask(it: &mut Exchange, transforms: bool) -> Result<u64, String> {
            if let Some(code) = &it.bodies.refusal {
                return Err(code.clone());
            }
            it.bodies.last += 1;
            it.bodies.asked = Some((it.bodies.last, transforms));
            Ok(it.bodies.last)
        }
        pub(crate) fn transform() -> Result<u64, String> {
            with(|it| ask(it, true))
        }
        pub(crate) fn observe() -> Result<u64, String> {
            with(|it| ask(it, false))
        }
        pub(crate) fn expect_response() -> Result<(), String> {
            with(|it| {
                for name in ["range", "if-range", "accept-encoding"] {
                    it.request.remove(name);
                }
                it.request.append("accept-encoding", b"identity");
                Ok(())
            })
        }
        pub(crate) fn write(bytes: &[u8]) {
            with(|it| match &mut it.bodies.given {
                Some(given) => given.extend_from_slice(bytes),
                None => panic!("no body is transformed here: the gateway would trap"),
            });
        }
        pub(crate) fn pass() {
            with(|it| match (&mut it.bodies.given, &it.bodies.chunk) {
                (Some(given), Some(chunk)) => given.extend_from_slice(chunk),
                _ => panic!("there is no chunk to pass: the gateway would trap"),
            });
        }
    }

    pub(crate) mod crypto {
        use super::super::{HMAC, SIGNATURES};

        pub(crate) fn hmac(algorithm: &str, secret: &str, data: &[u8]) -> Result<Vec<u8>, String> {
            HMAC.with_borrow(|make| match make {
                Some(make) => make(algorithm, secret, data),
                None => panic!("no `with_hmac` in this test: the gateway would make it"),
            })
        }

        pub(crate) fn verify_hmac(
            algorithm: &str,
            secret: &str,
            data: &[u8],
            code: &[u8],
        ) -> Result<bool, String> {
            Ok(hmac(algorithm, secret, data)? == code)
        }

        pub(crate) fn verify_signature(
            algorithm: &str,
            public_key: &[u8],
            data: &[u8],
            signature: &[u8],
        ) -> Result<bool, String> {
            SIGNATURES.with_borrow(|judge| match judge {
                Some(judge) => Ok(judge(algorithm, public_key, data, signature)),
                None => panic!("no `with_signatures` in this test: the gateway would judge"),
            })
        }
    }

    pub(crate) mod connection {
        use super::with;

        pub(crate) fn client_address() -> String {
            with(|it| it.client_address.clone())
        }
        pub(crate) fn client_port() -> u16 {
            with(|_| 49_152)
        }
        pub(crate) fn http_version() -> String {
            with(|_| "HTTP/2".to_owned())
        }
        pub(crate) fn tls_server_name() -> Option<String> {
            with(|it| it.tls_server_name.clone())
        }
        pub(crate) fn tls_version() -> Option<String> {
            with(|it| (it.scheme == "https").then(|| "TLSv1.3".to_owned()))
        }
        pub(crate) fn tls_cipher_suite() -> Option<String> {
            with(|it| (it.scheme == "https").then(|| "TLS_AES_256_GCM_SHA384".to_owned()))
        }
        pub(crate) fn tls_group() -> Option<String> {
            with(|it| (it.scheme == "https").then(|| "X25519MLKEM768".to_owned()))
        }
        pub(crate) fn tls_alpn() -> Option<String> {
            with(|it| (it.scheme == "https").then(|| "h2".to_owned()))
        }
        pub(crate) fn tls_is_resumed() -> bool {
            false
        }
        pub(crate) fn tls_ja4() -> Option<String> {
            let ja4 = "t13d1516h2_8daaf6152771_e5627efa2ab1";
            with(|it| (it.scheme == "https").then(|| ja4.to_owned()))
        }
        pub(crate) fn tls_client_subject() -> Option<String> {
            None
        }
        pub(crate) fn tls_client_issuer() -> Option<String> {
            None
        }
        pub(crate) fn tls_client_serial() -> Option<String> {
            None
        }
        pub(crate) fn tls_client_sha256() -> Option<String> {
            None
        }
        pub(crate) fn tls_client_names() -> Vec<String> {
            Vec::new()
        }
    }

    /// The functions on fields, the same for both heads.
    macro_rules! fields {
        ($fields:expr) => {
            pub(crate) fn header(name: &str) -> Option<String> {
                header_bytes(name).and_then(|value| String::from_utf8(value).ok())
            }
            pub(crate) fn header_bytes(name: &str) -> Option<Vec<u8>> {
                with(|it| $fields(it).first(name))
            }
            pub(crate) fn header_values(name: &str) -> Vec<String> {
                with(|it| $fields(it).values(name))
            }
            pub(crate) fn header_names() -> Vec<String> {
                with(|it| $fields(it).names())
            }
            pub(crate) fn set_header(name: &str, value: &str) {
                set_header_bytes(name, value.as_bytes());
            }
            pub(crate) fn set_header_bytes(name: &str, value: &[u8]) {
                with(|it| $fields(it).change(name, Some(value), false));
            }
            pub(crate) fn append_header(name: &str, value: &str) {
                with(|it| $fields(it).change(name, Some(value.as_bytes()), true));
            }
            pub(crate) fn remove_header(name: &str) {
                with(|it| $fields(it).change(name, None, false));
            }
        };
    }

    pub(crate) mod request {
        use super::super::Fields;
        use super::{Exchange, with};

        fn fields_of(exchange: &mut Exchange) -> &mut Fields {
            &mut exchange.request
        }
        fields!(fields_of);

        pub(crate) fn id() -> String {
            with(|_| "0123456789abcdef".to_owned())
        }
        pub(crate) fn method() -> String {
            with(|it| it.method.clone())
        }
        pub(crate) fn scheme() -> String {
            with(|it| it.scheme.clone())
        }
        pub(crate) fn authority() -> String {
            with(|it| it.authority.clone())
        }
        pub(crate) fn path() -> String {
            with(|it| it.path.clone())
        }
        pub(crate) fn query() -> Option<String> {
            with(|it| it.query.clone())
        }
        pub(crate) fn set_method(method: &str) {
            with(|it| method.clone_into(&mut it.method));
        }
        pub(crate) fn set_path(path: &str) {
            assert!(path.starts_with('/') && !path.contains('?'), "not a path: {path}");
            with(|it| path.clone_into(&mut it.path));
        }
        pub(crate) fn set_query(query: Option<&str>) {
            with(|it| it.query = query.map(str::to_owned));
        }
        pub(crate) fn set_authority(authority: &str) {
            with(|it| authority.clone_into(&mut it.authority));
        }
    }

    pub(crate) mod response {
        use super::super::Fields;
        use super::{Exchange, with};

        fn head(exchange: &mut Exchange) -> &mut (u16, Fields) {
            let Some(head) = &mut exchange.response else {
                panic!("there is no response here: the gateway would trap");
            };
            head
        }
        fn fields_of(exchange: &mut Exchange) -> &mut Fields {
            &mut head(exchange).1
        }
        fields!(fields_of);

        pub(crate) fn status() -> u16 {
            with(|it| head(it).0)
        }
        pub(crate) fn source() -> String {
            with(|_| "upstream".to_owned())
        }
        pub(crate) fn set_status(status: u16) {
            assert!((200..600).contains(&status), "not a status: {status}");
            with(|it| head(it).0 = status);
        }
    }

    pub(crate) mod decision {
        use super::{Decision, with};

        pub(crate) fn to_upstream(name: &str) {
            with(|it| {
                assert!(it.is_router, "only a router can choose an upstream");
                it.decision = Some(Decision::Upstream(name.to_owned()));
            });
        }
        pub(crate) fn redirect(status: u16, location: &str) {
            assert!(matches!(status, 301 | 302 | 303 | 307 | 308), "not a redirect: {status}");
            with(|it| it.decision = Some(Decision::Redirect(status, location.to_owned())));
        }
        pub(crate) fn respond(status: u16, headers: &[(String, String)], body: &[u8]) {
            assert!((200..600).contains(&status), "not a status: {status}");
            let decision = Decision::Respond(status, headers.to_vec(), body.to_vec());
            with(|it| it.decision = Some(decision));
        }
    }

    pub(crate) mod log {
        pub(crate) fn write(level: &str, message: &str) {
            super::LOG.with_borrow_mut(|log| log.push((level.to_owned(), message.to_owned())));
        }
    }

    pub(crate) mod state {
        use super::STATE;

        pub(crate) fn get(key: &str) -> Option<Vec<u8>> {
            STATE.with_borrow(|state| state.get(key).cloned())
        }
        pub(crate) fn set(key: &str, value: &[u8], _ttl: Option<u32>) -> Result<(), String> {
            if key.len() > 256 {
                return Err("key-too-long".to_owned());
            }
            if value.len() > 64 * 1024 {
                return Err("value-too-long".to_owned());
            }
            STATE.with_borrow_mut(|state| state.insert(key.to_owned(), value.to_owned()));
            Ok(())
        }
        pub(crate) fn remove(key: &str) {
            STATE.with_borrow_mut(|state| state.remove(key));
        }
        pub(crate) fn increment(key: &str, by: i64, ttl: Option<u32>) -> Result<i64, String> {
            let current = match get(key).map(String::from_utf8) {
                None => 0,
                Some(Ok(text)) => text.parse().map_err(|_| "not-a-counter".to_owned())?,
                Some(Err(_)) => return Err("not-a-counter".to_owned()),
            };
            let next = i64::saturating_add(current, by);
            set(key, next.to_string().as_bytes(), ttl)?;
            Ok(next)
        }
    }

    pub(crate) mod http {
        use super::{SERVER, Sent};
        use crate::http::{Error, Response};

        pub(crate) fn send(
            method: &str,
            url: &str,
            headers: &[(String, String)],
            body: &[u8],
        ) -> Result<Response, Error> {
            let sent = Sent {
                method: method.to_owned(),
                url: url.to_owned(),
                headers: headers.to_vec(),
                body: body.to_vec(),
            };
            SERVER.with_borrow_mut(|server| match server {
                Some(server) => server(&sent),
                None => panic!("no server in this test: {method} {url}"),
            })
        }
        pub(crate) fn detail(_key: &str) -> Option<String> {
            None
        }
    }
}
