//! `wit/body.wit`.

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, IF_RANGE,
    RANGE,
};
use http::{Method, StatusCode};
use wasmtime::component::{LinkerInstance, WasmList};

use super::super::call::{Overrun, rule};
use super::super::tap::Mode;
use super::fields;
use super::{Host, Phase, Undo};
use crate::config::BodyGrant;

/// What an instance has to do with bodies.
#[derive(Default)]
pub(in super::super) struct Bodies {
    /// Whether the component has hooks for them.
    pub has_hooks: bool,
    /// Whether the message in hand has one.
    has_body: bool,
    /// What this call asked for.
    asked: Option<Asked>,
    /// Whether this call wants to change the body, if there is one.
    reshapes: bool,
    /// Bodies so far: the number of the last one.
    last: u64,
    /// What the call in hand gives in place of a chunk.
    out: Option<Out>,
}

/// A body that a filter asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Asked {
    pub number: u64,
    pub mode: Mode,
}

/// What goes on in place of a chunk.
#[derive(Default)]
pub(in super::super) struct Out {
    /// The chunk; none at the end of the body.
    chunk: Option<Bytes>,
    pieces: Vec<Bytes>,
    /// What was written last.
    written: BytesMut,
    /// Bytes that may still go on.
    left: u64,
}

impl Bodies {
    /// Before a call about a head.
    pub(in super::super) fn begin(&mut self, has_body: bool) {
        self.has_body = has_body;
        self.asked = None;
        self.reshapes = false;
    }

    /// After it: what was asked for, and whether the head has to be changed.
    pub(in super::super) fn take(&mut self) -> (Option<Asked>, bool) {
        (self.asked.take(), std::mem::take(&mut self.reshapes))
    }

    /// Before a call about a body that is transformed. `left` is how many bytes may go on.
    pub(in super::super) fn show(&mut self, chunk: Option<Bytes>, left: u64) {
        self.out = Some(Out { chunk, left, ..Out::default() });
    }

    /// After it: what goes on.
    pub(in super::super) fn given(&mut self) -> Vec<Bytes> {
        let Some(mut out) = self.out.take() else { return Vec::new() };
        out.close();
        out.pieces
    }
}

impl Out {
    /// What was written becomes a piece.
    fn close(&mut self) {
        if !self.written.is_empty() {
            self.pieces.push(self.written.split().freeze());
        }
    }

    fn take(&mut self, bytes: usize) -> wasmtime::Result<()> {
        match self.left.checked_sub(bytes as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(wasmtime::Error::new(Overrun::BodyGrowth)),
        }
    }
}

/// Links `function` of `body`; false when there is none.
pub(in super::super) fn link(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
) -> wasmtime::Result<bool> {
    match function {
        "transform" => at.func_wrap(function, |mut store, (): ()| {
            Ok((ask(store.data_mut(), Mode::Transform)?,))
        })?,
        "observe" => at.func_wrap(function, |mut store, (): ()| {
            Ok((ask(store.data_mut(), Mode::Observe)?,))
        })?,
        "expect-response" => {
            at.func_wrap(function, |mut store, (): ()| Ok((expect_response(store.data_mut())?,)))?
        }
        "write" => at.func_wrap(function, |mut store, (bytes,): (WasmList<u8>,)| {
            let count = bytes.len();
            store.data_mut().charge(count)?;
            out(store.data_mut())?.take(count)?;
            // The guest's memory and what it is copied to are parts of one store.
            let mut written = std::mem::take(&mut out(store.data_mut())?.written);
            written.extend_from_slice(bytes.as_le_slice(&store));
            out(store.data_mut())?.written = written;
            Ok(())
        })?,
        "pass" => at.func_wrap(function, |mut store, (): ()| {
            let out = out(store.data_mut())?;
            let Some(chunk) = out.chunk.clone() else {
                return Err(rule("at the end of a body there is no chunk to pass".to_owned()));
            };
            out.take(chunk.len())?;
            out.close();
            out.pieces.push(chunk);
            Ok(())
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn out(host: &mut Host) -> wasmtime::Result<&mut Out> {
    let out = host.bodies.out.as_mut();
    out.ok_or_else(|| {
        rule("only `on-chunk` and `on-finish` of a body that is transformed give bytes".to_owned())
    })
}

/// `transform` and `observe`: the body's number, or why there is none.
fn ask(host: &mut Host, mode: Mode) -> wasmtime::Result<Result<u64, &'static str>> {
    let (side, given) = match host.exchange.phase {
        Phase::Request => ("request", host.facts.request.body),
        Phase::Response => ("response", host.facts.response.body),
        _ => {
            let text = "a body is asked for in `on-request` or `on-response`";
            return Err(rule(text.to_owned()));
        }
    };
    if !host.bodies.has_hooks {
        let text =
            "a plugin that asks for bodies exports `body-hooks`: include the world `streaming`";
        return Err(rule(text.to_owned()));
    }
    let wanted = match mode {
        Mode::Observe => BodyGrant::Read,
        Mode::Transform => BodyGrant::Transform,
    };
    if given < wanted {
        host.facts.refuse_body(side, wanted.word());
        return Ok(Err("denied"));
    }
    let (headers, is_partial) = match host.exchange.phase {
        Phase::Response => {
            let head = &host.exchange.response;
            let is_partial = head.status == StatusCode::PARTIAL_CONTENT
                || head.headers.contains_key(CONTENT_RANGE);
            (&head.headers, is_partial)
        }
        _ => {
            let headers = &host.exchange.request.headers;
            (headers, headers.contains_key(CONTENT_RANGE))
        }
    };
    if host.bodies.asked.is_some() {
        return Ok(Err("again"));
    }
    if mode == Mode::Transform {
        if is_partial {
            return Ok(Err("partial"));
        }
        if is_encoded(headers) {
            return Ok(Err("encoded"));
        }
        host.bodies.reshapes = true;
    }
    let bodies = &mut host.bodies;
    if !bodies.has_body {
        return Ok(Err("no-body"));
    }
    bodies.last = bodies.last.wrapping_add(1);
    bodies.asked = Some(Asked { number: bodies.last, mode });
    Ok(Ok(bodies.last))
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

fn expect_response(host: &mut Host) -> wasmtime::Result<Result<(), &'static str>> {
    if host.exchange.phase != Phase::Request {
        return Err(rule("`expect-response` belongs into `on-request`".to_owned()));
    }
    if host.facts.response.body < BodyGrant::Transform {
        host.facts.refuse_body("response", BodyGrant::Transform.word());
        return Ok(Err("denied"));
    }
    let (request, journal) = host.request_mut()?;
    if request.method == Method::GET || request.method == Method::HEAD {
        for name in [RANGE, IF_RANGE] {
            remove(&mut request.headers, journal, name);
        }
    }
    remove(&mut request.headers, journal, ACCEPT_ENCODING);
    let identity = HeaderValue::from_static("identity");
    if request.headers.try_insert(ACCEPT_ENCODING, identity).is_ok() {
        journal.push(Undo::Absent(ACCEPT_ENCODING));
    }
    Ok(Ok(()))
}

fn remove(headers: &mut HeaderMap, journal: &mut Vec<Undo>, name: HeaderName) {
    if let http::header::Entry::Occupied(entry) = headers.entry(&name) {
        let (_, values) = entry.remove_entry_mult();
        journal.extend(fields::values_before(name, values));
    }
}
