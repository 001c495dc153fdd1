//! Mirrored requests: a copy of what a route's upstream is sent goes to another upstream, whose answer
//! nobody sees. The client never waits for it, and neither does its request: the body is copied as it
//! goes by and sent once it is whole.

use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::Request;
use http::header::EXPECT;
use http_body::Body as _;
use tokio::sync::oneshot;

use super::answer::ExchangeError;
use super::attempts::{Aside, repeated};
use super::body::{Copied, RequestBody};
use crate::bounds::Share;
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
    if worker.mirrors.get() >= UNDER_WAY_MAX || view.is_short_of_memory(worker) {
        Counters::add(&worker.counters.mirrors_skipped, 1);
        return;
    }
    let mut copy = repeated(request);
    copy.headers_mut().remove(EXPECT);
    let body = request.body_mut().copied(rules.body_bytes_max, worker.shared.memory.share());
    let (worker, view) = (Rc::clone(worker), Rc::clone(view));
    let upstream = rules.upstream.clone();
    worker.mirrors.set(worker.mirrors.get() + 1);
    tokio::task::spawn_local(async move {
        let outcome = match with_body(&mut copy, body).await {
            Err(Skipped) => None,
            // What is kept of it counts until there is an answer.
            Ok(_share) => Some(send(&view, &upstream, copy, client, &origin).await),
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

/// The body was too long, or broke off.
struct Skipped;

/// Waits for the body, and tells what it holds.
async fn with_body(
    copy: &mut Request<RequestBody>,
    body: Option<oneshot::Receiver<Copied>>,
) -> Result<Option<Share>, Skipped> {
    let Some(body) = body else { return Ok(None) };
    let Copied { bytes, share } = body.await.map_err(|_| Skipped)?;
    *copy.body_mut() = RequestBody::Whole(Some(bytes));
    Ok(Some(share))
}

async fn send(
    view: &View,
    upstream: &str,
    request: Request<RequestBody>,
    client: IpAddr,
    origin: &Origin,
) -> Result<(), ExchangeError> {
    let none = ExchangeError::Internal("the upstream of `mirror` is not in this generation");
    let upstream = view.upstream(upstream).ok_or(none)?;
    let aside = Aside {
        upstream,
        key: upstream.key(request.headers(), client),
        origin,
        limit: upstream.timeouts.response,
        idle: upstream.timeouts.idle,
        is_kept: false,
    };
    let mut body = aside.send(request).await?.into_body();
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
