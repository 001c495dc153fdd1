//! Requests over plain HTTP: HTTP-01 answers (RFC 8555, section 8.3), else a redirect to https.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION};
use http::{Request, Response, StatusCode};

use super::answer::{self, ExchangeError};
use super::body::ResponseBody;
use super::exchange::{self, Connection};
use super::head::{ResponseHead, ResponseSource};
use super::hints::Hints;
use super::incoming::Incoming;
use super::tunnel::Client;
use crate::config::{Config, Scheme};
use crate::route::split_authority;

/// Serves one request. Without any https listener the sites are served here as they are.
pub async fn serve(
    connection: &Connection,
    request: Request<Incoming>,
    client: Option<Client>,
    hints: Option<Hints>,
) -> Response<ResponseBody> {
    let path = request.uri().path();
    if let Some(token) = path.strip_prefix(CHALLENGE_PATH)
        && let Some(key_authorization) = connection.worker.tokens.answer(token)
    {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let source = ResponseSource::Gateway;
        let head = ResponseHead { status: StatusCode::OK, headers, source };
        let body = Bytes::copy_from_slice(key_authorization.as_bytes());
        return answer::response(head, ResponseBody::full(body));
    }
    let view = connection.worker.view();
    let Some(port) = https_port(&view.generation.config) else {
        return exchange::serve(connection, request, client, hints).await;
    };
    match location(&request, port, |host| view.generation.routes.site(host).is_some()) {
        Ok(location) => {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, location);
            let status = StatusCode::PERMANENT_REDIRECT;
            let head = ResponseHead { status, headers, source: ResponseSource::Gateway };
            answer::response(head, ResponseBody::full(Bytes::new()))
        }
        Err(error) => {
            let (head, body) = error.answer(request.headers(), &connection.worker.ids.next());
            answer::response(head, ResponseBody::full(body))
        }
    }
}

fn https_port(config: &Config) -> Option<u16> {
    let mut https = config.listen.iter().filter(|listen| listen.scheme == Scheme::Https);
    https.next().map(|listen| listen.address.port())
}

fn location(
    request: &Request<Incoming>,
    port: u16,
    is_known: impl Fn(&str) -> bool,
) -> Result<HeaderValue, ExchangeError> {
    let host = request
        .uri()
        .authority()
        .map(|authority| authority.as_str())
        .or_else(|| request.headers().get(HOST).and_then(|host| host.to_str().ok()));
    let host = host.unwrap_or_default().to_ascii_lowercase();
    let (name, _) = split_authority(&host);
    if !is_known(name) {
        return Err(ExchangeError::UnknownHost);
    }
    let name = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    HeaderValue::from_str(&format!("https://{name}{port}{target}"))
        .map_err(|_| ExchangeError::BadRequest("The target of the request is not valid."))
}

const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";
