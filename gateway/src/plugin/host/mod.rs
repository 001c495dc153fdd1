//! What stands behind a plugin's imports: one file per interface of the contract, and the store
//! data they share. Called by compiled guests alone; nothing here waits, but `http` and `wasi` in
//! a solver's store.

pub(super) mod body;
pub(super) mod connection;
pub(super) mod crypto;
pub(super) mod decision;
pub(super) mod fields;
pub(super) mod hello;
pub(super) mod http;
pub(super) mod issuance;
pub(super) mod log;
pub(super) mod report;
pub(super) mod request;
pub(super) mod response;
pub(super) mod state;
pub(super) mod wasi;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wasmtime::ResourceLimiter;

use super::Decision;
use super::call::{Overrun, rule};
use super::engine::TABLE_ELEMENTS_MAX;
use super::facts::Facts;
use super::tape::Tape;
use crate::config::Scheme;
use crate::config::guard::Order;
use crate::http::head::{ConnectionFacts, RequestHead, ResponseHead, ResponseSource};

/// The data of one store: one instance of one plugin.
pub(super) struct Host {
    pub facts: Arc<Facts>,
    pub exchange: Exchange,
    pub bodies: body::Bodies,
    pub memory: Memory,
    pub output: wasi::Output,
    /// Bytes that the guest may still hand over in this call.
    pub output_left: usize,
    /// How long the guest may still sleep in this call.
    pub sleep_left: Duration,
    /// Outgoing requests left in this call.
    pub requests_left: u32,
    /// Whether there is a tape: looked at before the lock.
    is_taped: bool,
    tape: Mutex<Option<Tape>>,
    /// What they may change, and what has been proven.
    pub order: Order,
    /// What is known about the last one.
    pub details: http::Details,
    /// The ClientHello in hand.
    pub hello: Option<hello::Case>,
    /// The certificate in question.
    pub issuance: Option<issuance::Case>,
    /// What the guest said about the failure that it returns.
    pub notes: report::Notes,
    _alive: Alive,
}

impl Host {
    pub(super) fn new(facts: Arc<Facts>, live: &Arc<AtomicUsize>) -> Self {
        let memory = Memory { used: 0, max: facts.limits.memory_bytes_max };
        Self {
            exchange: Exchange::default(),
            bodies: body::Bodies::default(),
            memory,
            output: wasi::Output::default(),
            output_left: facts.limits.output_bytes_max,
            sleep_left: Duration::ZERO,
            requests_left: facts.limits.requests_max,
            order: Order::nothing(),
            details: http::Details::default(),
            hello: None,
            issuance: None,
            notes: report::Notes::default(),
            facts,
            is_taped: false,
            tape: Mutex::default(),
            _alive: Alive::new(live),
        }
    }

    /// Fills up what one call may use.
    pub(super) fn refill(&mut self, sleep: Duration) {
        self.output_left = self.facts.limits.output_bytes_max;
        self.requests_left = self.facts.limits.requests_max;
        self.sleep_left = sleep;
    }

    /// Puts a tape in, for one call.
    pub(super) fn put_tape(&mut self, tape: Option<Tape>) {
        self.is_taped = tape.is_some();
        self.tape = Mutex::new(tape);
    }

    /// Takes the tape out.
    pub(super) fn take_tape(&mut self) -> Option<Tape> {
        self.is_taped = false;
        self.tape.get_mut().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// An answer to the guest that does not follow from heads and connection: what `make` makes,
    /// noted when this request is recorded, or what it was then.
    #[inline]
    pub(super) fn answer<T: Serialize + DeserializeOwned>(
        &self,
        call: impl FnOnce() -> String,
        make: impl FnOnce() -> T,
    ) -> T {
        if !self.is_taped {
            return make();
        }
        match &mut *self.tape.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(tape) => tape.answer(call(), make),
            None => make(),
        }
    }

    /// Takes `bytes` off what the guest may hand over.
    pub(super) fn charge(&mut self, bytes: usize) -> wasmtime::Result<()> {
        match self.output_left.checked_sub(bytes) {
            Some(left) => {
                self.output_left = left;
                Ok(())
            }
            None => Err(wasmtime::Error::new(Overrun::Output)),
        }
    }

    /// The request, in a hook.
    pub(super) fn request(&self) -> wasmtime::Result<&RequestHead> {
        match self.exchange.phase {
            Phase::Idle | Phase::Hello | Phase::Body => Err(no_head("request")),
            _ => Ok(&self.exchange.request),
        }
    }

    /// The request to change and the journal to note the change in.
    pub(super) fn request_mut(&mut self) -> wasmtime::Result<(&mut RequestHead, &mut Vec<Undo>)> {
        match self.exchange.phase {
            Phase::Idle | Phase::Hello | Phase::Body => Err(no_head("request")),
            Phase::Response => Err(rule(
                "the request has been sent: in `on-response` it can be read but not changed"
                    .to_owned(),
            )),
            Phase::Route | Phase::Request | Phase::RequestBody => {
                Ok((&mut self.exchange.request, &mut self.exchange.journal))
            }
        }
    }

    /// The response, in `on-response`.
    pub(super) fn response(&self) -> wasmtime::Result<&ResponseHead> {
        match self.exchange.phase {
            Phase::Response => Ok(&self.exchange.response),
            _ => Err(rule("`response` is only valid inside `filter.on-response`".to_owned())),
        }
    }

    /// The response to change and the journal to note the change in.
    pub(super) fn response_mut(&mut self) -> wasmtime::Result<(&mut ResponseHead, &mut Vec<Undo>)> {
        match self.exchange.phase {
            Phase::Response => Ok((&mut self.exchange.response, &mut self.exchange.journal)),
            _ => Err(rule("`response` is only valid inside `filter.on-response`".to_owned())),
        }
    }
}

fn no_head(interface: &str) -> wasmtime::Error {
    rule(format!("`{interface}` is only valid inside a hook about heads"))
}

/// The exchange in hand. Heads are swapped in for a call and out after it, so that nothing is
/// copied and nothing is shared.
pub(super) struct Exchange {
    pub phase: Phase,
    pub connection: Option<Arc<ConnectionFacts>>,
    pub request: RequestHead,
    pub response: ResponseHead,
    pub decision: Decision,
    /// How to undo the edits of this call, the last one last. Empty while nothing is edited, and
    /// its memory is kept between calls.
    pub journal: Vec<Undo>,
}

/// Which hook is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Hello,
    Route,
    Request,
    RequestBody,
    Response,
    /// A hook of `body-hooks`.
    Body,
}

/// One edit, seen backwards. Whether fields are those of the request or of the response follows
/// from the hook: in none can both be edited.
pub(super) enum Undo {
    /// The field was absent.
    Absent(::http::HeaderName),
    /// The field had this value and these after it, mostly none.
    Values(::http::HeaderName, ::http::HeaderValue, Vec<::http::HeaderValue>),
    /// The field had one value fewer.
    Appended(::http::HeaderName),
    Method(::http::Method),
    Target(::http::uri::PathAndQuery),
    Authority(String),
    Status(::http::StatusCode),
}

impl Exchange {
    /// Takes every edit of this call back.
    pub(super) fn undo(&mut self) {
        while let Some(edit) = self.journal.pop() {
            let headers = match self.phase {
                Phase::Response => &mut self.response.headers,
                _ => &mut self.request.headers,
            };
            match edit {
                Undo::Absent(name) => {
                    headers.remove(name);
                }
                Undo::Values(name, first, others) => {
                    fields::restore(headers, &name, std::iter::once(first).chain(others));
                }
                Undo::Appended(name) => {
                    let mut values: Vec<_> = headers.get_all(&name).iter().cloned().collect();
                    values.pop();
                    fields::restore(headers, &name, values.into_iter());
                }
                Undo::Method(method) => self.request.method = method,
                Undo::Target(target) => self.request.target = target,
                Undo::Authority(authority) => self.request.authority = authority,
                Undo::Status(status) => self.response.status = status,
            }
        }
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            connection: None,
            request: RequestHead {
                id: Arc::from(""),
                method: ::http::Method::GET,
                scheme: Scheme::Https,
                authority: String::new(),
                target: ::http::uri::PathAndQuery::from_static("/"),
                version: ::http::Version::HTTP_11,
                headers: ::http::HeaderMap::new(),
            },
            response: ResponseHead {
                status: ::http::StatusCode::OK,
                headers: ::http::HeaderMap::new(),
                source: ResponseSource::Gateway,
            },
            decision: Decision::Continue,
            journal: Vec::new(),
        }
    }
}

/// Counts what an instance holds against its limits. Growth beyond them traps, so that the log
/// names the limit and not the guest's own out-of-memory message.
pub(super) struct Memory {
    /// Bytes of all linear memories.
    used: usize,
    max: usize,
}

impl Memory {
    /// Bytes that the instance has now.
    pub(super) fn used(&self) -> usize {
        self.used
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        if used > self.max {
            return Err(wasmtime::Error::new(Overrun::Memory));
        }
        self.used = used;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            return Err(rule(format!("a table may have at most {TABLE_ELEMENTS_MAX} elements")));
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        16
    }
}

/// One instance in the engine's count.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(live))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
