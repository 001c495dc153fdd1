//! Mirrored requests: a copy of what a route's upstream is sent goes to another upstream, whose answer
//! nobody sees. The client never waits for it, and neither does its request: the body is copied as it
//! goes by and sent once it is whole.

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::Request;
use http::header::{EXPECT, HOST};
use http_body::Body as _;
use tokio::sync::oneshot;

use super::answer::ExchangeError;
use super::attempts::{Answered, Attempts, own_host, repeated};
use super::body::{Progress, RequestBody, ResponseBody};
use crate::config::policies::Mirror;
use crate::fault::describe;
use crate::proxy::Origin;
use crate::telemetry::Counters;
use crate::worker::{View, Worker};

/// Copies `request`, which is about to be sent, when `rules` want it copied. `lot` decides about the
/// share.
pub(super) fn begin(
    worker: &Rc<Worker>,
    view: &Rc<View>,
    rules: &Mirror,
    request: &mut Request<RequestBody>,
    (client, origin): (IpAddr, Origin),
    lot: u64,
) {
    if lot % 100 >= u64::from(rules.share_percent) {
        return;
    }
    if worker.mirrors.get() >= UNDER_WAY_MAX {
        Counters::add(&worker.counters.mirrors_skipped, 1);
        return;
    }
    let mut copy = repeated(request);
    copy.headers_mut().remove(EXPECT);
    let body = request.body_mut().copied(rules.body_bytes_max);
    let (worker, view) = (Rc::clone(worker), Rc::clone(view));
    let upstream = rules.upstream.clone();
    worker.mirrors.set(worker.mirrors.get() + 1);
    tokio::task::spawn_local(async move {
        let outcome = match with_body(&mut copy, body).await {
            false => None,
            true => Some(send(&view, &upstream, copy, client, &origin).await),
        };
        worker.mirrors.set(worker.mirrors.get().saturating_sub(1));
        match outcome {
            None => Counters::add(&worker.counters.mirrors_skipped, 1),
            Some(Ok(())) => Counters::add(&worker.counters.mirrors_sent, 1),
            Some(Err(cause)) => {
                Counters::add(&worker.counters.mirrors_failed, 1);
                tracing::debug!(upstream, cause = describe(&cause), "a mirrored request failed");
            }
        }
    });
}

/// Waits for the body; false when it was too long, or broke off.
async fn with_body(
    copy: &mut Request<RequestBody>,
    body: Option<oneshot::Receiver<Bytes>>,
) -> bool {
    let Some(body) = body else { return true };
    let Ok(bytes) = body.await else { return false };
    *copy.body_mut() = RequestBody::Whole(Some(bytes));
    true
}

async fn send(
    view: &View,
    upstream: &str,
    mut request: Request<RequestBody>,
    client: IpAddr,
    origin: &Origin,
) -> Result<(), ExchangeError> {
    let none = || ExchangeError::Internal("the upstream of `mirror` has no server");
    let upstream = view.upstream(upstream).ok_or_else(none)?;
    let key = upstream.key(request.headers(), client);
    let place = upstream.place(&[], &key).await.map_err(ExchangeError::Upstream)?;
    let place = place.ok_or_else(none)?;
    if let Some(host) = own_host(&place.0.address, upstream.preserve_host) {
        request.headers_mut().insert(HOST, host);
    }
    let attempts = Attempts {
        upstream,
        key: &key,
        origin: upstream.proxy_protocol.map(|_| origin),
        progress: &Progress::default(),
        on_interim: &|_, _| (),
        limit: upstream.timeouts.response,
        is_kept: false,
    };
    let Answered { sent, .. } = attempts.send(request, place, &mut |_| ()).await?;
    let mut body =
        ResponseBody::upstream(sent.response.into_body(), sent.lease, upstream.timeouts.idle);
    // What is read to the end keeps its connection.
    let mut left = ANSWER_BYTES_MAX;
    while left > 0 && !body.is_end_stream() {
        let next = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
        let Some(Ok(frame)) = next else { break };
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
    }
    Ok(())
}

/// Of one worker; more are not copied.
const UNDER_WAY_MAX: usize = 100;
const ANSWER_BYTES_MAX: usize = 1 << 20;
