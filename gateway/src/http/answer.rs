//! The one place where a failure becomes a response. The client learns whose fault it is and how to
//! ask about it (the request id), nothing internal; the log learns the rest.

use std::fmt;

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
};
use http::{Response, StatusCode};

use super::body::ResponseBody;
use super::head::{ResponseHead, ResponseSource};
use crate::fault::Fault;
use crate::policy::Refusal;
use crate::upstream::UpstreamError;

/// Why an exchange did not go as asked.
#[derive(Debug)]
pub enum ExchangeError {
    /// The request cannot be passed on as it is; the text says why.
    BadRequest(&'static str),
    /// No site has this host.
    UnknownHost,
    /// The site's connections are not opened here; or it asks for a certificate of the client, and the
    /// handshake did not, or asked for another.
    WrongHandshake,
    /// The site has no route for this request.
    NoRoute,
    /// A method that the gateway does not pass on.
    Method,
    /// A method that files do not have.
    MethodOfFile,
    /// There is no file of this name.
    NoFile,
    /// A file that is there cannot be read.
    File(std::io::Error),
    /// The request's head is larger than `limits.request-head-size` or has too many fields.
    HeadTooLarge,
    /// The client stopped sending the head of its request.
    HeadStalled,
    /// A version of HTTP that is not spoken here.
    Version,
    /// A transfer coding that is not understood here.
    Coding,
    /// The request's body is larger than `limits.request-body`.
    BodyTooLarge,
    /// The client stopped sending its body.
    BodyStalled,
    /// A policy of the site or route does not let it through.
    Refused(Refusal),
    /// Too much waits in memory, see `limits.buffers`.
    Overloaded,
    /// The upstream failed.
    Upstream(UpstreamError),
    /// A plugin failed: its name in `gateway.yaml`, and what happened.
    Plugin(String, String),
    /// The gateway could not put the message together.
    Internal(&'static str),
}

impl ExchangeError {
    /// The status for the client.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::UnknownHost | Self::WrongHandshake => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodOfFile => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoFile => StatusCode::NOT_FOUND,
            Self::File(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Method => StatusCode::NOT_IMPLEMENTED,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HeadStalled => StatusCode::REQUEST_TIMEOUT,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyStalled => StatusCode::REQUEST_TIMEOUT,
            Self::Upstream(UpstreamError::Full(_)) | Self::Overloaded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Refused(Refusal::Address) => StatusCode::FORBIDDEN,
            Self::Refused(Refusal::Rate(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::Refused(Refusal::Credentials(_)) => StatusCode::UNAUTHORIZED,
            Self::Refused(Refusal::Head) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Refused(Refusal::Busy) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream(cause) if cause.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
            Self::Plugin(..) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::BadRequest(_)
            | Self::UnknownHost
            | Self::WrongHandshake
            | Self::NoRoute
            | Self::Method
            | Self::MethodOfFile
            | Self::NoFile
            | Self::HeadTooLarge
            | Self::HeadStalled
            | Self::Version
            | Self::Coding
            | Self::BodyTooLarge
            | Self::BodyStalled
            | Self::Refused(_) => Fault::Client,
            Self::Upstream(cause) => cause.fault(),
            Self::File(_) => Fault::Operator,
            Self::Plugin(..) => Fault::Plugin,
            Self::Internal(_) | Self::Overloaded => Fault::Internal,
        }
    }

    /// What the client may know.
    fn detail(&self) -> &'static str {
        match self {
            Self::BadRequest(why) => why,
            Self::UnknownHost => "This server does not answer for the host in the request.",
            Self::WrongHandshake => "This host needs a connection of its own.",
            Self::NoRoute => "Nothing answers at this address.",
            Self::Method => "This method is not supported here.",
            Self::MethodOfFile => "A file can be fetched by GET and HEAD alone.",
            Self::NoFile => "There is no such file.",
            Self::File(_) => "This server cannot read the file.",
            Self::HeadTooLarge => "The head of the request is larger than allowed here.",
            Self::HeadStalled => "The head of the request did not arrive in time.",
            Self::Version => "This version of HTTP is not supported here.",
            Self::Coding => "The transfer coding of the request is not supported here.",
            Self::BodyTooLarge => "The body of the request is larger than allowed here.",
            Self::BodyStalled => "The body of the request did not arrive in time.",
            Self::Upstream(UpstreamError::Full(_)) => {
                "The application behind this server has too much to do. Try again later."
            }
            Self::Overloaded => "This server has too much to do. Try again later.",
            Self::Refused(refusal) => refusal.detail(),
            Self::Upstream(cause) if cause.is_timeout() => {
                "The application behind this server did not answer in time."
            }
            Self::Upstream(_) => "The application behind this server cannot be reached.",
            Self::Plugin(..) => "An extension of this server failed.",
            Self::Internal(_) => "This server failed.",
        }
    }

    /// The response's head and body, as JSON (RFC 9457) where the client asks for JSON, else text.
    pub fn answer(&self, request: &HeaderMap, id: &str) -> (ResponseHead, Bytes) {
        let status = self.status();
        let title = status.canonical_reason().unwrap_or("Error");
        let fault = self.fault();
        let detail = self.detail();
        let (media, body) = if wants_json(request) {
            let problem = serde_json::json!({
                "status": status.as_u16(), "title": title, "detail": detail,
                "fault": fault.to_string(), "request_id": id,
            });
            ("application/problem+json", format!("{problem}\n"))
        } else {
            let code = status.as_u16();
            let text = format!("{code} {title}\n\n{detail}\nfault: {fault}\nrequest: {id}\n");
            ("text/plain; charset=utf-8", text)
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if matches!(self, Self::MethodOfFile) {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        if let Self::Refused(refusal) = self {
            refusal.fields(&mut headers);
        }
        (ResponseHead { status, headers, source: ResponseSource::Gateway }, body.into())
    }
}

/// Marks a response after which HTTP/1.1 closes its connection: nothing on it is to be trusted, or the
/// client needs another one. A stream of HTTP/2 or HTTP/3 is separate from the others, so that those go
/// on.
#[derive(Debug, Clone, Copy)]
pub struct LastOfConnection;

/// A response of head and body.
pub fn response(head: ResponseHead, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

/// Whether the client is a program that reads JSON.
pub fn wants_json(request: &HeaderMap) -> bool {
    let accept = request.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let ranges = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
    let ranges: Vec<&str> = ranges.collect();
    let json = ranges.iter().position(|r| r.starts_with("application/") && r.ends_with("json"));
    let text = ranges.iter().position(|r| r.starts_with("text/"));
    match (json, text) {
        (Some(json), Some(text)) => json < text,
        (json, _) => json.is_some(),
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(cause) => cause.fmt(f),
            Self::Plugin(name, what) => write!(f, "plugin {name} failed: {what}"),
            Self::File(_) => f.write_str("a file cannot be read"),
            Self::Internal(why) => f.write_str(why),
            other => f.write_str(other.detail()),
        }
    }
}

impl std::error::Error for ExchangeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // The variant's text is the cause's own, so what comes next is the cause's cause.
            Self::Upstream(cause) => cause.source(),
            Self::File(cause) => Some(cause),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_only_where_it_comes_first() {
        for (accept, json) in [
            ("application/json", true),
            ("application/problem+json, */*", true),
            ("text/html,application/xhtml+xml,application/json;q=0.5", false),
            ("application/json, text/plain, */*", true),
            ("*/*", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(wants_json(&headers), json, "{accept}");
        }
    }

    #[test]
    fn an_answer_names_the_fault_and_nothing_internal() {
        let cause = std::io::Error::other("10.0.0.7 refused");
        let error =
            ExchangeError::Upstream(UpstreamError::Connect("http://10.0.0.7:80".into(), cause));
        let (head, body) = error.answer(&HeaderMap::new(), "abc");
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(head.status, 502);
        assert!(body.contains("fault: upstream") && body.contains("request: abc"));
        assert!(!body.contains("10.0.0.7"));
    }
}
