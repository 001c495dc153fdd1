//! The HTTP client under instant-acme: our own trust, deadlines, and the `retry-after` of refusals,
//! which instant-acme does not show.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::roots::{self, RootsError};

/// What the last refusal asked us to wait.
pub type RetryAfter = Arc<Mutex<Option<Duration>>>;

/// A client of one CA: a connection per request, since there are few.
pub struct Client {
    tls: Arc<rustls::ClientConfig>,
    retry_after: RetryAfter,
}

impl Client {
    /// Trusts `roots`, or else the system's. `retry_after` is where refusals leave their wait.
    ///
    /// # Errors
    /// When the roots cannot be read.
    pub fn new(roots: Option<&Path>, retry_after: RetryAfter) -> Result<Self, RootsError> {
        let mut tls = roots::client_config(roots)?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls), retry_after })
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (tls, retry_after) = (Arc::clone(&self.tls), Arc::clone(&self.retry_after));
        Box::pin(async move {
            let exchange = tokio::time::timeout(REQUEST_TIME, exchange(tls, request));
            let response = match exchange.await {
                Ok(outcome) => outcome.map_err(Error::Other)?,
                Err(_) => return Err(Error::Other("no answer in time".into())),
            };
            let status = response.status().as_u16();
            if status >= 400 {
                let asked = wait(response.headers(), SystemTime::now());
                *retry_after.lock().unwrap_or_else(PoisonError::into_inner) = asked;
            }
            Ok(BytesResponse::from(response))
        })
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(
    tls: Arc<rustls::ClientConfig>,
    request: Request<BodyWrapper<Bytes>>,
) -> Result<Response<Full<Bytes>>, AnyError> {
    let uri = request.uri().clone();
    let host = uri.host().ok_or("the URL has no host")?.trim_matches(['[', ']']).to_owned();
    if uri.scheme_str() != Some("https") {
        return Err("the URL of a CA must be https".into());
    }
    let port = uri.port_u16().unwrap_or(443);
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    let stream = TlsConnector::from(tls).connect(ServerName::try_from(host)?, stream).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let task = tokio::spawn(connection);
    let (mut parts, body) = request.into_parts();
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    parts.headers.insert(HOST, HeaderValue::from_str(&authority)?);
    parts.uri = uri.path_and_query().cloned().map(http::Uri::from).unwrap_or_default();
    let response = sender.send_request(Request::from_parts(parts, body)).await?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await?.to_bytes();
    task.abort();
    Ok(Response::from_parts(parts, Full::new(body)))
}

/// `retry-after` as seconds or as a date (RFC 9110, section 10.2.3).
fn wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let at = time::PrimitiveDateTime::parse(text, format).ok()?.assume_utc();
    Some(SystemTime::from(at).duration_since(now).unwrap_or_default())
}

const REQUEST_TIME: Duration = Duration::from_secs(30);
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
            ("soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(wait(&headers, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
