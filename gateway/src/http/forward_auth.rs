//! Forward auth: an upstream is asked about the head of a request before it goes on. Yes is any 2xx, and
//! its named fields go on with the request; any other response is the answer.

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
};
use http::uri::PathAndQuery;
use http::{Method, Request};
use http_body::Body as _;

use super::answer::ExchangeError;
use super::attempts::Aside;
use super::body::{RequestBody, ResponseBody};
use super::head::{RequestHead, ResponseHead, ResponseSource};
use super::headers::{self, Forwarding};
use crate::config::policies::ForwardAuth;
use crate::proxy::Origin;
use crate::upstream::{ClientKey, Upstream};

/// What the upstream says.
pub(super) enum Verdict {
    /// The request goes on with these fields in the place of its own of the same names.
    Yes(Vec<(HeaderName, HeaderValue)>),
    /// This is the answer.
    No(ResponseHead, ResponseBody),
}

/// Asks about `head`. `is_peer_trusted` says whose forwarding fields are continued; `show_client` adds
/// what it learns of the client's certificate.
///
/// # Errors
/// When the upstream does not answer, which is never taken for a yes.
pub(super) async fn ask(
    auth: &ForwardAuth,
    upstream: &Upstream<RequestBody>,
    head: &RequestHead,
    forwarding: &Forwarding,
    is_peer_trusted: bool,
    show_client: impl FnOnce(&mut HeaderMap),
    origin: &Origin,
) -> Result<Verdict, ExchangeError> {
    let mut request = question(auth, head, forwarding, is_peer_trusted)?;
    show_client(request.headers_mut());
    let aside = Aside {
        upstream,
        key: ClientKey::default(),
        origin,
        limit: auth.timeout,
        idle: auth.timeout,
        is_kept: upstream.keeps_copies(request.method(), false),
    };
    let (parts, body) = aside.send(request).await?.into_parts();
    if parts.status.is_informational() {
        return Err(ExchangeError::Internal("the upstream of `forward-auth` did not answer"));
    }
    if parts.status.is_success() {
        drain(body).await;
        let mut fields = Vec::new();
        for name in auth.copy.iter().filter_map(|name| name.parse::<HeaderName>().ok()) {
            let values = parts.headers.get_all(&name).iter().cloned();
            fields.extend(values.map(|value| (name.clone(), value)));
        }
        return Ok(Verdict::Yes(fields));
    }
    let mut fields = parts.headers;
    headers::strip_hop_by_hop(&mut fields);
    let source = ResponseSource::Upstream;
    Ok(Verdict::No(ResponseHead { status: parts.status, headers: fields, source }, body))
}

/// Puts what a yes brought into the request. What the client sent under these names is gone.
pub(super) fn admit(
    auth: &ForwardAuth,
    fields: Vec<(HeaderName, HeaderValue)>,
    head: &mut HeaderMap,
) {
    for name in auth.copy.iter().filter_map(|name| name.parse::<HeaderName>().ok()) {
        headers::take_away(head, &name);
    }
    for (name, value) in fields {
        head.append(name, value);
    }
}

/// A GET with the fields of the request, without its body, that tells where it wants to go.
fn question(
    auth: &ForwardAuth,
    head: &RequestHead,
    forwarding: &Forwarding,
    is_peer_trusted: bool,
) -> Result<Request<RequestBody>, ExchangeError> {
    let bad = || ExchangeError::BadRequest("The request cannot be asked about.");
    let mut fields = head.headers.clone();
    headers::strip_hop_by_hop(&mut fields);
    for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING] {
        fields.remove(name);
    }
    headers::forward(&mut fields, forwarding, is_peer_trusted);
    let text = |text: &str| HeaderValue::from_str(text).map_err(|_| bad());
    fields.insert(X_FORWARDED_METHOD, text(head.method.as_str())?);
    fields.insert(X_FORWARDED_URI, text(head.target.as_str())?);
    fields.insert(HOST, text(&head.authority)?);
    let target: PathAndQuery = auth.path.parse().map_err(|_| bad())?;
    let mut request = Request::new(RequestBody::Empty);
    *request.method_mut() = Method::GET;
    *request.uri_mut() = target.into();
    *request.headers_mut() = fields;
    Ok(request)
}

/// Reads a short body to its end, so that the connection can be used again.
async fn drain(mut body: ResponseBody) {
    let mut left = DRAIN_BYTES_MAX;
    while left > 0 && !body.is_end_stream() {
        let next = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        let Some(Ok(frame)) = next else { return };
        left = left.saturating_sub(frame.data_ref().map_or(0, bytes::Bytes::len));
    }
}

const DRAIN_BYTES_MAX: usize = 64 << 10;
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
