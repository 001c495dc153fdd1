//! Instances of routers and filters: one per worker and place of use, kept between calls, thrown
//! away after a failure. A call runs inline: no fiber, no lock, no copy of the head. Where starting
//! an instance takes its time, the next one is taken from a [`Reserve`].

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, TypedFunc};

use super::call::{self, Overrun};
use super::error::PluginError;
use super::host::hello::Case;
use super::host::{Exchange, Host, Phase};
use super::reserve::Reserve;
use super::span;
use super::stats::{self, Calls};
use super::tap::Tap;
use super::tape::Tape;
use super::ticker::TICK;
use super::{Called, Decision, Hooked, Plugin};
use crate::http::head::{ConnectionFacts, RequestHead, ResponseHead};
use crate::tls::hello::{HelloFacts, HelloVerdict};

/// A plugin at one place of use, on one worker: keeps an instance and replaces it after a trap.
/// Not `Send`: made and used on its worker.
pub struct Hooks {
    plugin: Arc<Plugin>,
    reserve: Arc<Reserve>,
    hooked: Hooked,
    slot: Rc<RefCell<Slot>>,
    calls: Rc<Counted>,
    /// The host's answers for the next call, in a replay; what is left of them after it.
    tape: RefCell<Option<Tape>>,
}

/// Where the instance of one place of use is; bodies that it holds know it too.
pub(super) struct Slot {
    /// Absent after a failure, until the next call.
    instance: Option<Rc<RefCell<Instance>>>,
    /// Shared with every instance of this place that is alive: bodies may hold some that are not in use
    /// any more.
    alive: Arc<()>,
    breaker: Breaker,
    reserve: Arc<Reserve>,
}

/// What is counted at a place of use, until the last that counts there is gone.
pub(super) struct Counted {
    plugin: Arc<Plugin>,
    calls: Arc<Calls>,
}

impl std::ops::Deref for Counted {
    type Target = Calls;

    fn deref(&self) -> &Calls {
        &self.calls
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.plugin.stats.retire(&self.calls);
    }
}

impl Hooks {
    /// Prepares a plugin for one place of use with that use's configuration, with an instance that
    /// is ready or is started now.
    ///
    /// # Errors
    /// When `configure` refuses this configuration.
    pub fn new(plugin: Arc<Plugin>, config: &serde_json::Value) -> Result<Self, PluginError> {
        let reserve = Reserve::of(&plugin, config);
        let (instance, hooked) = reserve.enter()?;
        let mut slot = Slot {
            instance: None,
            alive: Arc::default(),
            breaker: Breaker::default(),
            reserve: Arc::clone(&reserve),
        };
        slot.put(instance);
        let calls = plugin.stats.place();
        let calls = Rc::new(Counted { plugin: Arc::clone(&plugin), calls });
        calls.started();
        let (slot, tape) = (Rc::new(RefCell::new(slot)), RefCell::default());
        Ok(Self { plugin, reserve, hooked, slot, calls, tape })
    }

    /// The plugin in use.
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// Which hooks to call.
    pub fn hooked(&self) -> Hooked {
        self.hooked
    }

    /// What the instance has to hand over, if it does that. Ends the instance's use: it may be in any
    /// state afterwards.
    pub(super) fn save(&self) -> Option<Vec<u8>> {
        let handover = self.plugin.compiled.exports.handover.as_ref()?;
        let mut slot = self.slot.borrow_mut();
        let instance = slot.instance.take()?;
        let saved = self.outside(&mut instance.borrow_mut(), "handover.save", |instance| {
            let save: TypedFunc<(), (Vec<u8>,)> =
                instance.handle.get_typed_func(&mut instance.store, handover.save)?;
            let (saved,) = save.call(&mut instance.store, ())?;
            instance.store.data_mut().charge(saved.len())?;
            Ok(saved)
        });
        if let Some(instance) = Rc::into_inner(instance) {
            self.reserve.end(instance.into_inner());
        }
        saved.ok()
    }

    /// Hands the instance what the one before it saved. One that fails over it is thrown away.
    pub(super) fn restore(&self, saved: &[u8]) {
        let Some(handover) = &self.plugin.compiled.exports.handover else { return };
        let mut slot = self.slot.borrow_mut();
        let Some(instance) = slot.instance.clone() else { return };
        let restored = self.outside(&mut instance.borrow_mut(), "handover.restore", |instance| {
            let restore: TypedFunc<(&[u8],), ()> =
                instance.handle.get_typed_func(&mut instance.store, handover.restore)?;
            restore.call(&mut instance.store, (saved,))
        });
        if restored.is_err() {
            slot.instance = None;
        }
    }

    /// Runs a function of the instance outside any request, within the deadline of a call. A failure
    /// is logged.
    fn outside<T>(
        &self,
        instance: &mut Instance,
        function: &'static str,
        run: impl FnOnce(&mut Instance) -> wasmtime::Result<T>,
    ) -> Result<T, PluginError> {
        let deadline = self.plugin.facts.limits.deadline;
        instance.store.set_epoch_deadline(ticks(deadline));
        instance.store.data_mut().refill(deadline);
        let result = run(instance);
        let Host { output, facts, .. } = instance.store.data_mut();
        result.inspect(|_| output.flush(facts, "")).map_err(|cause| {
            let stderr = output.take_stderr();
            let error = call::failure(facts, function, Overrun::Deadline, deadline, &stderr, cause);
            call::log(&error, facts, "", &stderr);
            error
        })
    }

    /// The host's answers for the next call.
    pub(super) fn load_tape(&self, tape: Tape) {
        *self.tape.borrow_mut() = Some(tape);
    }

    /// What is left of them after it.
    pub(super) fn take_tape(&self) -> Option<Tape> {
        self.tape.borrow_mut().take()
    }

    /// The configuration of this place of use, as JSON.
    pub(super) fn config(&self) -> &str {
        self.reserve.config()
    }

    /// Calls `router.route`. On an error the head is as it was before.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule.
    pub fn route(
        &self,
        connection: &Arc<ConnectionFacts>,
        request: &mut RequestHead,
    ) -> Result<Decision, PluginError> {
        let hook = "router.route";
        self.call(Phase::Route, hook, connection, request, None, None, false, |instance| {
            call_plain(&instance.route, &mut instance.store)
        })
        .map(|called| called.decision)
    }

    /// Calls `filter.on-request`. On an error the head is as it was before. `has_body` says whether
    /// there is a body that the filter can ask for.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule.
    pub fn on_request(
        &self,
        connection: &Arc<ConnectionFacts>,
        request: &mut RequestHead,
        has_body: bool,
    ) -> Result<Called, PluginError> {
        self.call(
            Phase::Request,
            "filter.on-request",
            connection,
            request,
            None,
            None,
            has_body,
            |instance| call_plain(&instance.on_request, &mut instance.store),
        )
    }

    /// Calls `filter.on-request-body`. On an error the head is as it was before.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule.
    pub fn on_request_body(
        &self,
        connection: &Arc<ConnectionFacts>,
        request: &mut RequestHead,
        prefix: &[u8],
        is_complete: bool,
    ) -> Result<Decision, PluginError> {
        let hook = "filter.on-request-body";
        let body = Some((prefix, is_complete));
        self.call(Phase::RequestBody, hook, connection, request, None, body, false, |instance| {
            let filter = self.plugin.compiled.exports.filter.as_ref();
            let index = filter.map(|filter| &filter.on_request_body).ok_or_else(not_there)?;
            let function =
                instance.handle.get_typed_func::<(&[u8], bool), ()>(&mut instance.store, index)?;
            function.call(&mut instance.store, (prefix, is_complete))
        })
        .map(|called| called.decision)
    }

    /// Calls `filter.on-response`. On an error the head is as it was before. `has_body` says whether
    /// there is a body that the filter can ask for.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule.
    pub fn on_response(
        &self,
        connection: &Arc<ConnectionFacts>,
        request: &mut RequestHead,
        response: &mut ResponseHead,
        has_body: bool,
    ) -> Result<Called, PluginError> {
        self.call(
            Phase::Response,
            "filter.on-response",
            connection,
            request,
            Some(response),
            None,
            has_body,
            |instance| call_plain(&instance.on_response, &mut instance.store),
        )
    }

    /// Calls `client-hello.on-client-hello`.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule.
    pub fn on_client_hello(&self, hello: &Arc<HelloFacts>) -> Result<HelloVerdict, PluginError> {
        let mut verdict = HelloVerdict::Continue;
        let nobody = Arc::new(ConnectionFacts { client: hello.client, tls: None, via: None });
        let mut nothing = Exchange::default().request;
        let hook = "client-hello.on-client-hello";
        self.call(Phase::Hello, hook, &nobody, &mut nothing, None, None, false, |instance| {
            let index = self.plugin.compiled.exports.on_client_hello.as_ref();
            let index = index.ok_or_else(not_there)?;
            let function = instance.handle.get_typed_func::<(), ()>(&mut instance.store, index)?;
            let case = Case { facts: Arc::clone(hello), verdict: HelloVerdict::Continue };
            instance.store.data_mut().hello = Some(case);
            let called = function.call(&mut instance.store, ());
            if let Some(case) = instance.store.data_mut().hello.take() {
                verdict = case.verdict;
            }
            called
        })?;
        self.plugin.stats.decided(match &verdict {
            HelloVerdict::Continue => "continue",
            HelloVerdict::PassThrough(_) => "pass-through",
            HelloVerdict::TerminateAs(_) => "terminate-as",
            HelloVerdict::Refuse(_) => "refuse",
        });
        Ok(verdict)
    }

    #[expect(clippy::too_many_arguments, reason = "what one call of any hook is about")]
    fn call(
        &self,
        phase: Phase,
        hook: &'static str,
        connection: &Arc<ConnectionFacts>,
        request: &mut RequestHead,
        mut response: Option<&mut ResponseHead>,
        body: Option<(&[u8], bool)>,
        has_body: bool,
        run: impl FnOnce(&mut Instance) -> wasmtime::Result<()>,
    ) -> Result<Called, PluginError> {
        let slot = &mut *self.slot.borrow_mut();
        let shared = slot.instance(&self.calls)?;
        let outcome = {
            let instance = &mut *shared.borrow_mut();
            let recorder = &self.plugin.recorder;
            let noting = match recorder.is_armed() {
                true => recorder.begin(self, phase, connection, request, response.as_deref(), body),
                false => None,
            };
            let tape = match &noting {
                Some(_) => Some(Tape::Recording(Vec::new())),
                None => self.tape.borrow_mut().take(),
            };
            let (is_measured, is_traced) = (self.calls.begin(counted(phase)), span::is_on());
            let started = (is_measured || is_traced).then(Instant::now);
            let deadline = self.plugin.facts.limits.deadline;
            let ticks = ticks(deadline);
            self.plugin.engine.ticker.cover(ticks);
            instance.store.set_epoch_deadline(ticks);
            let host = instance.store.data_mut();
            host.refill(deadline);
            host.put_tape(tape);
            host.exchange.phase = phase;
            host.bodies.begin(has_body);
            host.exchange.connection = Some(Arc::clone(connection));
            std::mem::swap(&mut host.exchange.request, request);
            if let Some(response) = response.as_deref_mut() {
                std::mem::swap(&mut host.exchange.response, response);
            }
            let result = run(instance);
            let took = started.map(|started| started.elapsed());
            if let Some(took) = took.filter(|_| is_measured) {
                self.calls.measured(took);
                self.calls.memory(instance.store.data().memory.used());
            }
            let tape = instance.store.data_mut().take_tape();
            let Host { exchange, output, facts, bodies, .. } = instance.store.data_mut();
            match &result {
                Ok(()) => exchange.journal.clear(),
                Err(_) => exchange.undo(),
            }
            if result.is_ok() && !output.is_empty() {
                output.flush(facts, &exchange.request.id);
            }
            std::mem::swap(&mut exchange.request, request);
            if let Some(response) = response.as_deref_mut() {
                std::mem::swap(&mut exchange.response, response);
            }
            exchange.phase = Phase::Idle;
            exchange.connection = None;
            let decision = std::mem::replace(&mut exchange.decision, Decision::Continue);
            if let Some(noting) = noting {
                let error = result.as_ref().err().map(|cause| cause.root_cause().to_string());
                let outcome = error.map_or(Ok(&decision), Err);
                recorder.end(self, noting, tape, outcome, request, response.as_deref());
            } else if tape.is_some() {
                *self.tape.borrow_mut() = tape;
            }
            match result {
                Ok(()) => {
                    instance.calls_left = instance.calls_left.saturating_sub(1);
                    if instance.calls_left == 0 {
                        slot.instance = None;
                    }
                    if slot.breaker.failures > 0 {
                        slot.breaker.failures = 0;
                        self.calls.recovered();
                    }
                    // Of a hello there is another decision.
                    if phase != Phase::Hello {
                        self.calls.decided(&decision);
                    }
                    if let Some(took) = took.filter(|_| is_traced) {
                        span::write(&self.plugin.facts, hook, request, took, Ok(&decision));
                    }
                    let (asked, reshapes) = bodies.take();
                    let tap = asked.map(|asked| {
                        let (slot, instance) = (Rc::clone(&self.slot), Rc::clone(&shared));
                        let (plugin, calls) = (Arc::clone(&self.plugin), Rc::clone(&self.calls));
                        Tap::new(asked, (slot, instance), plugin, calls, Arc::clone(&request.id))
                    });
                    Ok(Called { decision, tap, reshapes })
                }
                Err(cause) => {
                    let stderr = output.take_stderr();
                    let error =
                        call::failure(facts, hook, Overrun::Deadline, deadline, &stderr, cause);
                    call::log(&error, facts, &request.id, &stderr);
                    instance.is_dead = true;
                    slot.fail(&error, Instant::now());
                    let what = facts_of(&self.plugin, &error);
                    self.calls.failed(&request.id, what, slot.breaker.open_until.is_some());
                    if let Some(took) = took.filter(|_| is_traced) {
                        span::write(&self.plugin.facts, hook, request, took, Err(&error));
                    }
                    Err(error)
                }
            }
        };
        // When it is out of use, and no body holds it.
        if let Some(instance) = Rc::into_inner(shared) {
            self.reserve.end(instance.into_inner());
        }
        outcome
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        let last = self.slot.borrow_mut().instance.take();
        // Bodies under way may hold it yet.
        self.reserve.leave(last.and_then(Rc::into_inner).map(RefCell::into_inner));
    }
}

/// What a failure was, without secrets.
pub(super) fn facts_of(plugin: &Plugin, error: &PluginError) -> String {
    plugin.facts.secrets.mask_text(&error.to_string()).into_owned()
}

fn counted(phase: Phase) -> stats::Hook {
    match phase {
        Phase::Hello => stats::Hook::ClientHello,
        Phase::Route => stats::Hook::Route,
        Phase::Idle | Phase::Request => stats::Hook::Request,
        Phase::RequestBody => stats::Hook::RequestBody,
        Phase::Response => stats::Hook::Response,
        Phase::Body => stats::Hook::Body,
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks")
            .field("plugin", &self.plugin)
            .field("hooked", &self.hooked)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    /// How long a start may take that comes after the first: longer is a failure like any other.
    pub(super) fn restart_max(&self) -> Duration {
        self.facts.limits.deadline.saturating_mul(10).max(RESTART_MIN)
    }
}

/// Starts an instance with the plugin's own configuration and drops it.
pub(super) fn self_test(plugin: &Plugin) -> Result<(), PluginError> {
    Instance::start(plugin, &plugin.config, START_MAX).map(|_| ())
}

impl Slot {
    /// Puts an instance in use.
    fn put(&mut self, mut instance: Instance) {
        instance._place = Some(Arc::clone(&self.alive));
        self.instance = Some(Rc::new(RefCell::new(instance)));
    }

    /// The instance to call; when there is none one that is ready, and else one that is started now.
    fn instance(&mut self, calls: &Calls) -> Result<Rc<RefCell<Instance>>, PluginError> {
        let reserve = Arc::clone(&self.reserve);
        let plugin = reserve.plugin();
        if self.instance.is_none() {
            let now = Instant::now();
            if self.breaker.is_open(now) {
                let (of, last) = (plugin.facts.subject.clone(), self.breaker.last.clone());
                return Err(PluginError::BreakerOpen { of, last });
            }
            // Those that bodies hold must leave room for the instances of others.
            if Arc::strong_count(&self.alive) > 1 && plugin.engine.is_crowded() {
                return Err(PluginError::Crowded(plugin.facts.subject.clone()));
            }
            let next = match reserve.next() {
                Some(ready) => Ok(ready),
                None => {
                    calls.waited();
                    let started = Instance::start(plugin, reserve.config(), plugin.restart_max());
                    started.map(|(instance, _)| instance)
                }
            };
            match next {
                Ok(instance) => {
                    calls.started();
                    self.put(instance);
                }
                Err(error) => {
                    call::log(&error, &plugin.facts, "", "");
                    self.fail(&error, now);
                    self.breaker.open(now);
                    calls.failed("", facts_of(plugin, &error), true);
                    return Err(error);
                }
            }
        }
        match &self.instance {
            Some(instance) => Ok(Rc::clone(instance)),
            // Just put there.
            None => Err(PluginError::Start(plugin.facts.subject.clone(), not_there())),
        }
    }

    /// As [`Slot::fail`], for a failure about a body that `instance` holds, which may be another than
    /// the one in use by now. Says whether calls are refused from now on.
    pub(super) fn fail_body(
        &mut self,
        instance: &Rc<RefCell<Instance>>,
        error: &PluginError,
        now: Instant,
    ) -> bool {
        if self.instance.as_ref().is_some_and(|present| Rc::ptr_eq(present, instance)) {
            self.fail(error, now);
        }
        self.breaker.open_until.is_some()
    }

    /// A trapped instance can never be entered again.
    fn fail(&mut self, error: &PluginError, now: Instant) {
        self.instance = None;
        if self.breaker.fail(now) {
            self.breaker.last = error.to_string();
        }
    }
}

/// One instance, started and configured. It can be started on one thread and used on another.
pub(super) struct Instance {
    pub(super) store: Store<Host>,
    pub(super) handle: wasmtime::component::Instance,
    route: Option<Hook>,
    on_request: Option<Hook>,
    on_response: Option<Hook>,
    /// Calls that it may still serve. Those about bodies it has begun do not count.
    calls_left: u64,
    /// Whether a call trapped, so that it cannot be entered again.
    pub(super) is_dead: bool,
    /// See [`Slot::alive`].
    _place: Option<Arc<()>>,
}

/// A function without parameters, its type checked.
type Hook = TypedFunc<(), ()>;

impl Instance {
    /// Starts and configures one.
    ///
    /// # Errors
    /// When it does not start within `allowed`, or `configure` refuses the configuration.
    pub(super) fn start(
        plugin: &Plugin,
        config: &str,
        allowed: Duration,
    ) -> Result<(Self, Hooked), PluginError> {
        let (compiled, facts) = (&plugin.compiled, &plugin.facts);
        let began = Instant::now();
        let host = Host::new(Arc::clone(facts), &plugin.engine.live);
        let mut store = Store::new(&plugin.engine.wasm, host);
        store.limiter(|host| &mut host.memory);
        let ticks = ticks(allowed);
        plugin.engine.ticker.cover(ticks);
        store.set_epoch_deadline(ticks);
        store.data_mut().refill(allowed);
        store.data_mut().bodies.has_hooks = compiled.exports.body.is_some();
        let failed = |store: &mut Store<Host>, cause: wasmtime::Error| {
            let stderr = store.data_mut().output.take_stderr();
            call::start_failure(facts, Overrun::Deadline, allowed, &stderr, cause)
        };
        let handle = match compiled.pre.instantiate(&mut store) {
            Ok(handle) => handle,
            Err(cause) => return Err(failed(&mut store, cause)),
        };
        let configure = handle
            .get_typed_func::<(&str,), (Result<Vec<String>, String>,)>(
                &mut store,
                &compiled.exports.configure,
            )
            .map_err(|cause| PluginError::Link(facts.subject.clone(), cause))?;
        let asked = match configure.call(&mut store, (config,)) {
            Ok((asked,)) => asked,
            Err(cause) => return Err(failed(&mut store, cause)),
        };
        let Host { output, facts, .. } = store.data_mut();
        output.flush(facts, "");
        let asked = asked.map_err(|message| PluginError::Configure {
            of: plugin.facts.subject.clone(),
            message,
        })?;
        let hooked = Hooked::parse(&asked, &plugin.facts.subject)?;
        let filter = compiled.exports.filter.as_ref();
        let route = hook(&mut store, &handle, compiled.exports.route.as_ref(), plugin)?;
        let on_request = filter.map(|filter| &filter.on_request);
        let on_request = hook(&mut store, &handle, on_request, plugin)?;
        let on_response = filter.map(|filter| &filter.on_response);
        let on_response = hook(&mut store, &handle, on_response, plugin)?;
        plugin.start_time.note(began.elapsed());
        let instance = Self {
            store,
            handle,
            route,
            on_request,
            on_response,
            calls_left: plugin.calls_max,
            is_dead: false,
            _place: None,
        };
        Ok((instance, hooked))
    }
}

fn hook(
    store: &mut Store<Host>,
    handle: &wasmtime::component::Instance,
    index: Option<&ComponentExportIndex>,
    plugin: &Plugin,
) -> Result<Option<Hook>, PluginError> {
    let Some(index) = index else { return Ok(None) };
    match handle.get_typed_func(store, index) {
        Ok(hook) => Ok(Some(hook)),
        Err(cause) => Err(PluginError::Link(plugin.facts.subject.clone(), cause)),
    }
}

fn call_plain(hook: &Option<Hook>, store: &mut Store<Host>) -> wasmtime::Result<()> {
    match hook {
        Some(hook) => hook.call(store, ()),
        None => Err(not_there()),
    }
}

pub(super) fn not_there() -> wasmtime::Error {
    call::rule("the component does not export this hook".to_owned())
}

/// Leaves a plugin alone that only fails: a trap and a fresh instance for each request would cost
/// the worker more than they are worth.
#[derive(Default)]
struct Breaker {
    /// Failures since the last success or since `since`.
    failures: u32,
    since: Option<Instant>,
    open_until: Option<Instant>,
    last: String,
}

impl Breaker {
    /// Whether calls are refused now. When that time is over one call is let through, and its
    /// failure opens the breaker again.
    fn is_open(&mut self, now: Instant) -> bool {
        match self.open_until {
            Some(until) if now < until => true,
            Some(_) => {
                self.open_until = None;
                self.failures = FAILURES_MAX.saturating_sub(1);
                self.since = Some(now);
                false
            }
            None => false,
        }
    }

    /// Counts a failure; true when that opens it.
    fn fail(&mut self, now: Instant) -> bool {
        let is_old = self.since.is_none_or(|since| now.saturating_duration_since(since) > WINDOW);
        if self.failures == 0 || is_old {
            self.failures = 0;
            self.since = Some(now);
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            self.open(now);
        }
        self.open_until.is_some()
    }

    fn open(&mut self, now: Instant) {
        self.open_until = now.checked_add(OPEN);
    }
}

/// A time in ticks of the epoch, rounded up, the running tick not counted.
pub(super) fn ticks(time: Duration) -> u64 {
    let ticks = time.as_nanos().div_ceil(TICK.as_nanos()).saturating_add(1);
    u64::try_from(ticks).unwrap_or(u64::MAX >> 1).min(u64::MAX >> 1)
}

/// How long a start may take at load, when nobody waits for it.
pub(super) const START_MAX: Duration = Duration::from_secs(5);
/// The shortest time that a later start is given.
const RESTART_MIN: Duration = Duration::from_millis(100);
/// Failures in [`WINDOW`] without a success that open the breaker.
const FAILURES_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);
/// How long an open breaker refuses calls.
const OPEN: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_breaker_opens_after_failures_in_a_row_and_tries_again() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        for _ in 1..FAILURES_MAX {
            assert!(!breaker.fail(start));
        }
        assert!(breaker.fail(start));
        assert!(breaker.is_open(start));
        let later = start + OPEN;
        assert!(!breaker.is_open(later));
        assert!(breaker.fail(later), "one failure is enough after it was open");
        assert!(!breaker.is_open(later + OPEN));
        breaker.failures = 0;
        assert!(!breaker.fail(later + OPEN));
    }

    #[test]
    fn slow_failures_do_not_open_the_breaker() {
        let mut breaker = Breaker::default();
        let mut now = Instant::now();
        for _ in 0..100 {
            assert!(!breaker.fail(now));
            now += WINDOW / 10;
        }
    }

    #[test]
    fn ticks_round_up() {
        assert_eq!(ticks(Duration::ZERO), 1);
        assert_eq!(ticks(Duration::from_micros(1)), 2);
        assert_eq!(ticks(Duration::from_millis(10)), 11);
        assert_eq!(ticks(Duration::MAX), u64::MAX >> 1);
    }
}
