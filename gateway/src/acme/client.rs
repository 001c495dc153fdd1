//! The HTTP client under instant-acme: our own trust, deadlines, and the `retry-after` of refusals,
//! which instant-acme does not show.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LINK, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::tls::roots::{self, RootsError};

/// What the last refusal asked us to wait.
pub type RetryAfter = Arc<Mutex<Option<Duration>>>;

/// Where a CA offers other chains for a certificate (RFC 8555, section 7.4.2), by its URL.
pub type Alternates = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

/// A client of one CA: a connection per request, since there are few.
pub struct Client {
    tls: Arc<rustls::ClientConfig>,
    retry_after: RetryAfter,
    alternates: Alternates,
}

impl Client {
    /// Trusts `roots`, or else the system's. `retry_after` is where refusals leave their wait.
    ///
    /// # Errors
    /// When the roots cannot be read.
    pub fn new(roots: Option<&Path>, retry_after: RetryAfter) -> Result<Self, RootsError> {
        let mut tls = roots::client_config(roots)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls), retry_after, alternates: Alternates::default() })
    }
}

impl Client {
    /// Where the other chains of certificates are found that come through this client.
    pub fn alternates(&self) -> Alternates {
        Arc::clone(&self.alternates)
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (tls, retry_after) = (Arc::clone(&self.tls), Arc::clone(&self.retry_after));
        let (url, alternates) = (request.uri().to_string(), Arc::clone(&self.alternates));
        let is_plain = matches!(*request.method(), Method::GET | Method::HEAD);
        Box::pin(async move {
            let exchange = tokio::time::timeout(REQUEST_TIME, exchange(Some(tls), request));
            let response = match exchange.await {
                Ok(outcome) => outcome.map_err(Error::Other)?,
                Err(_) => return Err(Error::Other("no answer in time".into())),
            };
            let (mut parts, mut body) = response;
            if parts.status.is_client_error() || parts.status.is_server_error() {
                let asked = wait(&parts.headers, SystemTime::now());
                *retry_after.lock().unwrap_or_else(PoisonError::into_inner) = asked;
                body = problem(parts.status, body);
                if is_plain {
                    // instant-acme would take the body of any answer for what it asked for.
                    return Err(Error::Api(serde_json::from_slice(&body)?));
                }
            } else if is_plain && !parts.headers.contains_key(RETRY_AFTER) {
                // instant-acme refuses renewal information without it; RFC 9773, section 4.3, asks
                // clients to take six hours then.
                parts.headers.insert(RETRY_AFTER, HeaderValue::from_static("21600"));
            }
            let others = links(&parts.headers, "alternate");
            if parts.status.is_success() && !others.is_empty() {
                let mut known = alternates.lock().unwrap_or_else(PoisonError::into_inner);
                // They are looked at right after; what is not is of no use.
                if known.len() >= ALTERNATES_MAX {
                    known.clear();
                }
                known.insert(url, others);
            }
            Ok(BytesResponse::from(Response::from_parts(parts, Full::new(body))))
        })
    }
}

/// Why there is no answer.
pub type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Asks an endpoint of the operator's, over http or https, and gives the status of its answer.
///
/// # Errors
/// When there is no answer. The caller bounds the time.
pub async fn get(url: &str) -> Result<StatusCode, AnyError> {
    let request = Request::builder().uri(url).body(BodyWrapper::default())?;
    exchange(tls_for(url)?, request).await.map(|(parts, _)| parts.status)
}

/// Fetches what is at a URL, over http or https, with `fields` and trust in `roots` (else in the
/// system's), up to `bytes_max` inclusive. A redirect is an answer.
///
/// # Errors
/// When there is no whole answer.
pub async fn fetch(
    url: &str,
    fields: &HeaderMap,
    roots: Option<&Path>,
    bytes_max: usize,
) -> Result<(http::response::Parts, Bytes), AnyError> {
    let mut request = Request::builder().uri(url).body(BodyWrapper::default())?;
    request.headers_mut().extend(fields.clone());
    let tls = match url.starts_with("https:") {
        true => Some(Arc::new(roots::client_config(roots)?)),
        false => None,
    };
    tokio::time::timeout(FETCH_TIME, exchange_within(tls, request, bytes_max)).await?
}

/// Tells an endpoint of the operator's something, over http or https, with these fields, and gives the status of its
/// answer.
///
/// # Errors
/// When there is no answer. The caller bounds the time.
pub async fn post(url: &str, json: String, headers: HeaderMap) -> Result<StatusCode, AnyError> {
    let body = BodyWrapper::from(json.into_bytes());
    let mut request = Request::post(url).body(body)?;
    *request.headers_mut() = headers;
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    exchange(tls_for(url)?, request).await.map(|(parts, _)| parts.status)
}

fn tls_for(url: &str) -> Result<Option<Arc<rustls::ClientConfig>>, RootsError> {
    match url.starts_with("https:") {
        true => roots::client_config(None).map(|tls| Some(Arc::new(tls))),
        false => Ok(None),
    }
}

/// One request over TLS, or over plain TCP without `tls`.
async fn exchange(
    tls: Option<Arc<rustls::ClientConfig>>,
    request: Request<BodyWrapper<Bytes>>,
) -> Result<(http::response::Parts, Bytes), AnyError> {
    exchange_within(tls, request, BODY_BYTES_MAX).await
}

async fn exchange_within(
    tls: Option<Arc<rustls::ClientConfig>>,
    request: Request<BodyWrapper<Bytes>>,
    bytes_max: usize,
) -> Result<(http::response::Parts, Bytes), AnyError> {
    let uri = request.uri().clone();
    let host = uri.host().ok_or("the URL has no host")?.trim_matches(['[', ']']).to_owned();
    if tls.is_some() != (uri.scheme_str() == Some("https")) {
        return Err("the URL of a CA must be https".into());
    }
    let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    let (mut sender, task) = match tls {
        Some(tls) => {
            let name = ServerName::try_from(host)?;
            open(TlsConnector::from(tls).connect(name, stream).await?).await?
        }
        None => open(stream).await?,
    };
    let (mut parts, body) = request.into_parts();
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    parts.headers.insert(HOST, HeaderValue::from_str(&authority)?);
    parts.headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    parts.uri = uri.path_and_query().cloned().map(http::Uri::from).unwrap_or_default();
    let response = sender.send_request(Request::from_parts(parts, body)).await?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, bytes_max).collect().await?.to_bytes();
    task.abort();
    Ok((parts, body))
}

/// The targets of `Link` fields with this relation (RFC 8288), as CAs write them.
fn links(headers: &HeaderMap, relation: &str) -> Vec<String> {
    let lines = headers.get_all(LINK).iter().filter_map(|line| line.to_str().ok());
    let of = lines.flat_map(|line| line.split(',')).filter_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let mut parameters = parameters.split(';').map(str::trim);
        let is_it = parameters.any(|parameter| {
            parameter.strip_prefix("rel=").is_some_and(|rel| rel.trim_matches('"') == relation)
        });
        is_it.then(|| target.to_owned())
    });
    of.collect()
}

type Sender = hyper::client::conn::http1::SendRequest<BodyWrapper<Bytes>>;

async fn open(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(Sender, JoinHandle<Result<(), hyper::Error>>), hyper::Error> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    Ok((sender, tokio::spawn(connection)))
}

/// `retry-after` as seconds or as a date (RFC 9110, section 10.2.3).
fn wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// The problem document of a failed answer: its own with the status filled in, or one made from
/// whatever a proxy or a broken server sent instead.
fn problem(status: StatusCode, body: Bytes) -> Bytes {
    let own = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body);
    let mut problem = own.unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&body);
        let start: String = text.trim().chars().take(DETAIL_CHARS_MAX).collect();
        let detail = match start.is_empty() {
            true => format!("HTTP status {status} without a body"),
            false => format!("HTTP status {status} and no problem document: {start}"),
        };
        serde_json::Map::from_iter([("detail".to_owned(), detail.into())])
    });
    problem.insert("status".to_owned(), status.as_u16().into());
    serde_json::to_vec(&problem).map_or(body, Bytes::from)
}

/// RFC 8555, section 6.1.
const AGENT: &str = concat!("witgate/", env!("CARGO_PKG_VERSION"), " instant-acme/0.8");
const DETAIL_CHARS_MAX: usize = 200;
const ALTERNATES_MAX: usize = 64;
const REQUEST_TIME: Duration = Duration::from_secs(30);
const FETCH_TIME: Duration = Duration::from_secs(300);
const BODY_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_both_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, seconds) in [
            ("120", Some(120)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            // The obsolete forms, which recipients must read too (RFC 9110, section 5.6.7).
            ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10)),
            ("Sun Nov  6 08:49:47 1994", Some(10)),
            ("soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(wait(&headers, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn links_of_a_relation_are_found() {
        let mut headers = HeaderMap::new();
        let index = "<https://ca/dir>;rel=\"index\"";
        headers.append(LINK, index.parse().unwrap());
        let two = "<https://ca/c/1>; rel=\"alternate\", <https://ca/c/2>;rel=alternate";
        headers.append(LINK, two.parse().unwrap());
        assert_eq!(links(&headers, "alternate"), ["https://ca/c/1", "https://ca/c/2"]);
        assert_eq!(links(&headers, "up"), Vec::<String>::new());
    }

    #[test]
    fn every_failed_answer_becomes_a_problem() {
        let read = |status, body: &'static str| {
            let body = problem(status, Bytes::from_static(body.as_bytes()));
            serde_json::from_slice::<instant_acme::Problem>(&body).unwrap()
        };
        let html = read(StatusCode::BAD_GATEWAY, "<html>Bad Gateway</html>");
        assert_eq!(html.status, Some(502));
        assert!(html.detail.unwrap().contains("<html>Bad Gateway"));
        let nothing = read(StatusCode::SERVICE_UNAVAILABLE, "");
        assert!(nothing.detail.unwrap().contains("503"));
        let list = read(StatusCode::INTERNAL_SERVER_ERROR, "[1]");
        assert!(list.detail.unwrap().contains("[1]"));
        let kind = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"slow down"}"#;
        let own = read(StatusCode::TOO_MANY_REQUESTS, kind);
        assert_eq!(own.status, Some(429));
        assert_eq!(own.detail.as_deref(), Some("slow down"));
    }
}
