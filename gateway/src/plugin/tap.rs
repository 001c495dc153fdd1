//! A filter's place in the stream of one body: it is shown the pieces as they pass and says what goes
//! on in their place. Held by the body; the state that belongs to it lives in the instance that asked
//! for the body.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Plugin;
use super::call::{self, Overrun};
use super::error::PluginError;
use super::host::body::Asked;
use super::host::{Host, Phase};
use super::pool::{Counted, Instance, Slot, facts_of, not_there, ticks};
use super::stats::Hook;
use super::trial::Trial;

/// What a filter does with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It sees the body.
    Observe,
    /// What it gives takes the place of the body.
    Transform,
}

/// See the module. Not `Send`: used on its worker. Dropped before the end of the body, it tells the
/// filter that nothing more will come.
pub struct Tap {
    asked: Asked,
    /// Where the instance in use is, and the one that asked, which may be another by now.
    slot: Rc<RefCell<Slot>>,
    instance: Rc<RefCell<Instance>>,
    plugin: Arc<Plugin>,
    calls: Rc<Counted>,
    /// Of the exchange, for the log.
    request: Arc<str>,
    /// The trial that the version is on.
    trial: Option<Arc<Trial>>,
    /// Bytes that came in and went on.
    bytes_in: u64,
    bytes_out: u64,
    /// Whether the filter still waits for this body's end.
    is_open: bool,
}

/// What a call is about.
enum About {
    Chunk(Bytes),
    Finish,
    Abandon,
}

impl Tap {
    pub(super) fn new(
        asked: Asked,
        (slot, instance): (Rc<RefCell<Slot>>, Rc<RefCell<Instance>>),
        plugin: Arc<Plugin>,
        calls: Rc<Counted>,
        request: Arc<str>,
    ) -> Self {
        Self {
            asked,
            slot,
            instance,
            plugin,
            calls,
            request,
            trial: None,
            bytes_in: 0,
            bytes_out: 0,
            is_open: true,
        }
    }

    /// Has failures counted against a version on trial.
    #[must_use]
    pub(super) fn on_trial(mut self, trial: &Arc<Trial>) -> Self {
        self.trial = Some(Arc::clone(trial));
        self
    }

    /// What the filter does with the body.
    pub fn mode(&self) -> Mode {
        self.asked.mode
    }

    /// The plugin's name in `gateway.yaml`.
    pub fn plugin(&self) -> &str {
        self.plugin.name()
    }

    /// Shows the next piece, of at most [`CHUNK_BYTES_MAX`], and returns what goes on.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule; nothing more can be shown then.
    pub fn chunk(&mut self, chunk: Bytes) -> Result<Vec<Bytes>, PluginError> {
        let seen = chunk.clone();
        let given = self.call("body-hooks.on-chunk", About::Chunk(chunk))?;
        Ok(match self.asked.mode {
            Mode::Observe => vec![seen],
            Mode::Transform => given,
        })
    }

    /// Tells the end of the body, and returns what goes on before it.
    ///
    /// # Errors
    /// As [`Tap::chunk`].
    pub fn finish(&mut self) -> Result<Vec<Bytes>, PluginError> {
        let given = self.call("body-hooks.on-finish", About::Finish);
        self.is_open = false;
        given
    }

    fn call(&mut self, hook: &'static str, about: About) -> Result<Vec<Bytes>, PluginError> {
        let shared = Rc::clone(&self.instance);
        let instance = &mut *shared.borrow_mut();
        if instance.is_dead {
            self.is_open = false;
            return Err(PluginError::BodyLost(self.plugin.subject().clone()));
        }
        let started = self.calls.begin(Hook::Body).then(Instant::now);
        let deadline = self.plugin.facts.limits.deadline;
        let ticks = ticks(deadline);
        self.plugin.engine.ticker.cover(ticks);
        instance.store.set_epoch_deadline(ticks);
        let chunk_bytes = match &about {
            About::Chunk(chunk) => chunk.len() as u64,
            About::Finish | About::Abandon => 0,
        };
        self.bytes_in = self.bytes_in.saturating_add(chunk_bytes);
        let host = instance.store.data_mut();
        host.refill(deadline);
        host.exchange.phase = Phase::Body;
        std::mem::swap(&mut host.exchange.request.id, &mut self.request);
        if self.asked.mode == Mode::Transform && !matches!(about, About::Abandon) {
            let growth = self.plugin.facts.limits.body_growth_bytes_max;
            let left = self.bytes_in.saturating_add(growth).saturating_sub(self.bytes_out);
            let chunk = match &about {
                About::Chunk(chunk) => Some(chunk.clone()),
                About::Finish | About::Abandon => None,
            };
            host.bodies.show(chunk, left);
        }
        let result = self.run(instance, &about);
        if let Some(started) = started {
            self.calls.measured(started.elapsed());
            self.calls.memory(instance.store.data().memory.used());
        }
        let Host { exchange, output, facts, bodies, .. } = instance.store.data_mut();
        let given = bodies.given();
        if result.is_ok() && !output.is_empty() {
            output.flush(facts, &exchange.request.id);
        }
        std::mem::swap(&mut exchange.request.id, &mut self.request);
        exchange.phase = Phase::Idle;
        match result {
            Ok(()) => {
                let mut bytes = given.iter().map(|piece| piece.len() as u64).sum();
                if self.asked.mode == Mode::Observe {
                    bytes = chunk_bytes;
                }
                self.bytes_out = self.bytes_out.saturating_add(bytes);
                self.calls.body(chunk_bytes, bytes);
                Ok(given)
            }
            Err(cause) => {
                let stderr = output.take_stderr();
                let error = call::failure(facts, hook, Overrun::Deadline, deadline, &stderr, cause);
                call::log(&error, facts, &self.request, &stderr);
                instance.is_dead = true;
                self.is_open = false;
                let slot = &mut *self.slot.borrow_mut();
                let is_open = slot.fail_body(&shared, &error, Instant::now());
                let what = facts_of(&self.plugin, &error);
                self.calls.failed(&self.request, what, is_open);
                if let Some(trial) = &self.trial {
                    trial.failed_body(&error);
                }
                Err(error)
            }
        }
    }

    fn run(&self, instance: &mut Instance, about: &About) -> wasmtime::Result<()> {
        let exports = self.plugin.compiled.exports.body.as_ref().ok_or_else(not_there)?;
        let (handle, store, number) = (&instance.handle, &mut instance.store, self.asked.number);
        match about {
            About::Chunk(chunk) => handle
                .get_typed_func::<(u64, &[u8]), ()>(&mut *store, &exports.on_chunk)?
                .call(store, (number, chunk)),
            About::Finish => handle
                .get_typed_func::<(u64,), ()>(&mut *store, &exports.on_finish)?
                .call(store, (number,)),
            About::Abandon => handle
                .get_typed_func::<(u64,), ()>(&mut *store, &exports.on_abandon)?
                .call(store, (number,)),
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // A failure is logged, and nobody waits for the result.
        if self.is_open {
            let _ = self.call("body-hooks.on-abandon", About::Abandon);
        }
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap")
            .field("plugin", &self.plugin)
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

/// The largest piece that a filter is shown, inclusive.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;
