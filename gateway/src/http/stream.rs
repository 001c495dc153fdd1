//! The streams of an HTTP/2 connection, one task each: hyper's own future for it, and beside it a watch
//! over how slowly the client takes the response. hyper asks a body for a piece only when the client has
//! room for one, so that the body itself could never tell.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::body::{BodyError, ResponseBody};
use super::exchange::Connection;
use super::serve::Pulse;
use crate::bounds::{Pace, Reason};
use crate::config::Limits;

/// Runs the tasks of one connection on the worker's own thread.
#[derive(Clone)]
pub struct StreamExecutor {
    connection: Rc<Connection>,
    pulse: Rc<Pulse>,
    pace: Pace,
}

impl StreamExecutor {
    /// For the streams of `connection`.
    pub fn new(connection: Rc<Connection>, pulse: Rc<Pulse>, limits: &Limits) -> Self {
        let pace = Pace::new(limits.response_rate_min, limits.rate_grace, limits.response_idle);
        Self { connection, pulse, pace }
    }
}

impl<F: Future + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(Watched {
            task: Box::pin(task),
            flow: Rc::default(),
            executor: self.clone(),
            seen: 0,
            seen_of_connection: 0,
            sleep: None,
        });
    }
}

/// What the response of a stream is at.
#[derive(Debug, Default)]
pub struct Flow {
    /// Whether there is a response.
    is_answered: Cell<bool>,
    /// Whether its next piece is waited for, which is not the client's fault.
    awaits_body: Cell<bool>,
    /// Bytes that hyper has taken.
    handed: Cell<u64>,
}

/// The flow of the stream whose task is polled now, for the exchange that runs in it.
pub fn flow() -> Option<Rc<Flow>> {
    CURRENT.with_borrow(Option::clone)
}

struct Watched<F> {
    task: Pin<Box<F>>,
    flow: Rc<Flow>,
    executor: StreamExecutor,
    seen: u64,
    seen_of_connection: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.flow.awaits_body.set(false);
        let before = CURRENT.replace(Some(Rc::clone(&this.flow)));
        let polled = this.task.as_mut().poll(cx);
        CURRENT.set(before);
        match polled {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => this.watch(cx),
        }
    }
}

impl<F> Watched<F> {
    /// Bounds the wait for the client. An end resets the stream.
    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let pace = &mut self.executor.pace;
        if !self.flow.is_answered.get() || self.flow.awaits_body.get() {
            pace.rest(Instant::now);
            return Poll::Pending;
        }
        loop {
            let now = Instant::now();
            let handed = self.flow.handed.get();
            // Of a piece that is on its way, only the connection tells that it moves.
            let of_connection = self.executor.pulse.written();
            if handed != self.seen || of_connection != self.seen_of_connection {
                pace.moved(handed - self.seen, || now);
                (self.seen, self.seen_of_connection) = (handed, of_connection);
            }
            let left = pace.left(now);
            if left.is_zero() {
                let Connection { worker, facts, .. } = &*self.executor.connection;
                worker.notices.note(Reason::SlowResponse, Some(facts.client.ip()));
                return Poll::Ready(());
            }
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
            sleep.as_mut().reset(tokio::time::Instant::from_std(now + left));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// A response's body that tells its stream how far it is.
pub struct FlowBody {
    body: ResponseBody,
    flow: Option<Rc<Flow>>,
    pulse: Rc<Pulse>,
}

impl FlowBody {
    /// The body of a stream's response.
    pub fn new(body: ResponseBody, flow: Option<Rc<Flow>>, pulse: Rc<Pulse>) -> Self {
        if let Some(flow) = &flow {
            flow.is_answered.set(true);
        }
        Self { body, flow, pulse }
    }
}

impl Body for FlowBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let Some(flow) = &this.flow else { return polled };
        flow.awaits_body.set(polled.is_pending());
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            flow.handed.set(flow.handed.get() + data.len() as u64);
            this.pulse.hand(data.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Flow>>> = const { RefCell::new(None) };
}
