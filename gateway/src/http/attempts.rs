//! One request at the servers of an upstream: at the next one when a server fails, as often as the rules of
//! the upstream allow. Used by exchanges, by forward auth and for mirrored requests.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};

use super::answer::ExchangeError;
use super::body::{Progress, RequestBody, ResponseBody};
use crate::config;
use crate::proxy::Origin;
use crate::upstream::{ClientKey, Miss, Place, Sent, Server, Upstream, UpstreamError};

/// What holds for all attempts of a request.
pub(super) struct Attempts<'a> {
    /// Whose servers are asked.
    pub upstream: &'a Upstream<RequestBody>,
    /// What ties the client to one of them.
    pub key: &'a ClientKey,
    /// The client's connection, for servers that are told of it.
    pub origin: Option<&'a Origin>,
    /// How far the request's body has come.
    pub progress: &'a Progress,
    /// Gets interim responses.
    pub on_interim: &'a dyn Fn(StatusCode, HeaderMap),
    /// The longest wait for the head of a response, from the end of the request.
    pub limit: Duration,
    /// Whether the request may be sent again although it was sent.
    pub is_kept: bool,
}

/// A response's head has come.
pub(super) struct Answered {
    pub sent: Sent<RequestBody>,
    /// From this server.
    pub server: Rc<Server<RequestBody>>,
}

impl Attempts<'_> {
    /// Sends `request`, first to the server of `place`. `asked` hears of every server in turn.
    ///
    /// # Errors
    /// When no server gives a response.
    pub async fn send(
        &self,
        mut request: Request<RequestBody>,
        place: Place<RequestBody>,
        asked: &mut dyn FnMut(&Server<RequestBody>),
    ) -> Result<Answered, ExchangeError> {
        let upstream = self.upstream;
        let (mut server, mut permit) = place;
        let mut tried: Vec<Arc<str>> = Vec::new();
        // A response that was worth another attempt, should none give a better one.
        let mut held = None;
        loop {
            asked(&server);
            let copy = self.is_kept.then(|| Box::new(repeated(&request)));
            let limit = match upstream.retries.try_timeout {
                Some(limit) if self.is_kept && upstream.may_follow(tried.len()) => {
                    limit.min(self.limit)
                }
                _ => self.limit,
            };
            let outcome = {
                let send = server.send(request, self.origin, self.on_interim);
                within(limit, self.progress, &server.label, std::pin::pin!(send)).await
            };
            let (miss, again, error) = match outcome {
                Ok(Ok(mut sent)) => {
                    sent.lease.hold(permit.take());
                    let status = sent.response.status();
                    upstream.note(&server, Some(status));
                    match copy.filter(|_| upstream.retries.statuses.contains(&status.as_u16())) {
                        None => return Ok(Answered { sent, server }),
                        copy => {
                            held = Some(Answered { sent, server: Rc::clone(&server) });
                            (Miss::Status, copy, None)
                        }
                    }
                }
                Ok(Err(failed)) => {
                    if let Some(error) = body_failure(self.progress) {
                        return Err(error);
                    }
                    upstream.note(&server, None);
                    let miss = Miss::of(&failed.cause);
                    (miss, failed.unsent, Some(ExchangeError::Upstream(failed.cause)))
                }
                Err(late) => {
                    upstream.note(&server, None);
                    (Miss::Late, copy, Some(late))
                }
            };
            drop(permit.take());
            tried.push(Arc::clone(&server.label));
            let next = match again {
                Some(again) if upstream.may_retry(miss, tried.len()) => {
                    let place = upstream.place(&tried, self.key).await.ok().flatten();
                    place.map(|place| (again, place))
                }
                _ => None,
            };
            match (next, held.take(), error) {
                (Some((again, (next, place))), still_held, _) => {
                    held = still_held;
                    request = *again;
                    (server, permit) = (next, place);
                    if let Some(host) = own_host(&server.address, upstream.preserve_host) {
                        request.headers_mut().insert(HOST, host);
                    }
                }
                (None, Some(answered), _) => {
                    asked(&answered.server);
                    return Ok(answered);
                }
                (None, None, Some(error)) => return Err(error),
                (None, None, None) => return Err(ExchangeError::Internal("no response is held")),
            }
        }
    }
}

/// A request beside that of a client: a question of forward auth, or a copy of a request.
pub(super) struct Aside<'a> {
    /// Whose servers are asked.
    pub upstream: &'a Upstream<RequestBody>,
    /// What ties the client to one of them.
    pub key: ClientKey,
    /// The client's connection, for servers that are told of it.
    pub origin: &'a Origin,
    /// The longest wait for the head of the response.
    pub limit: Duration,
    /// The longest wait between two pieces of it.
    pub idle: Duration,
    /// Whether the request may be sent again although it was sent.
    pub is_kept: bool,
}

impl Aside<'_> {
    /// Sends `request`.
    ///
    /// # Errors
    /// When no server gives a response.
    pub async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, ExchangeError> {
        let Self { upstream, key, limit, is_kept, .. } = self;
        let place = upstream.place(&[], key).await.map_err(ExchangeError::Upstream)?;
        let place = place.ok_or(ExchangeError::Internal("the upstream has no server"))?;
        if let Some(host) = own_host(&place.0.address, upstream.preserve_host) {
            request.headers_mut().insert(HOST, host);
        }
        // Its body, if it has one, is all there.
        let progress = Progress::over();
        let attempts = Attempts {
            upstream,
            key,
            origin: upstream.proxy_protocol.map(|_| self.origin),
            progress: &progress,
            on_interim: &|_, _| (),
            limit: *limit,
            is_kept: *is_kept,
        };
        let Answered { sent, .. } = attempts.send(request, place, &mut |_| ()).await?;
        let (lease, idle) = (sent.lease, self.idle);
        Ok(sent.response.map(|body| ResponseBody::upstream(body, lease, idle, progress)))
    }
}

/// Waits for the response's head. The wait counts from the end of the request's body; while the body
/// still moves, its own idle limit applies.
async fn within<F: Future>(
    limit: Duration,
    progress: &Progress,
    label: &Arc<str>,
    mut send: Pin<&mut F>,
) -> Result<F::Output, ExchangeError> {
    let mut wait = limit;
    loop {
        match tokio::time::timeout(wait, &mut send).await {
            Ok(outcome) => return Ok(outcome),
            Err(_) => {
                let since = progress.last.get().map_or(limit, |last| last.elapsed());
                match limit.checked_sub(since) {
                    Some(left) if !left.is_zero() => wait = left,
                    // The client's turn; its own limit ends that wait.
                    _ if progress.is_awaited.get() => wait = limit,
                    _ => {
                        let late = UpstreamError::ResponseTimeout(Arc::clone(label));
                        return Err(ExchangeError::Upstream(late));
                    }
                }
            }
        }
    }
}

/// The `host` of a server that does not see the client's.
pub(super) fn own_host(server: &config::Server, preserve_host: bool) -> Option<HeaderValue> {
    match server {
        config::Server::Http(a) | config::Server::Https(a) | config::Server::H2c(a)
            if !preserve_host =>
        {
            HeaderValue::from_str(&a.to_string()).ok()
        }
        _ => None,
    }
}

/// A request without a body once more.
pub(super) fn repeated(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// When the request's body is what failed, the client is told so, not that the upstream did.
fn body_failure(progress: &Progress) -> Option<ExchangeError> {
    match progress.failure.get()? {
        "size" => Some(ExchangeError::BodyTooLarge),
        "idle" => Some(ExchangeError::BodyStalled),
        "plugin" => {
            let (name, cause) = progress.plugin.take()?;
            Some(ExchangeError::Plugin(name, cause))
        }
        _ => Some(ExchangeError::BadRequest("The body of the request broke off.")),
    }
}
