//! Calls that may wait: each has a store of its own and runs on a fiber, so that it can wait for the
//! network without holding a worker. For solvers, policies, sinks and whoever is told of events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{ComponentExportIndex, ComponentNamedList, Instance, Lift, Lower};
use wasmtime::{Store, UpdateDeadline};

use super::Plugin;
use super::call::{self, Overrun, rule};
use super::error::PluginError;
use super::host::Host;
use super::pool::START_MAX;
use super::stats;

/// Calls one function in a fresh instance, within `limits.solver-deadline`. `prepare` puts in what the
/// call is about once the instance has started, and `take` takes out what it left.
///
/// # Errors
/// When it does not start, traps, breaks a rule or overruns a limit. The log has it.
pub(super) async fn call<P, R, T>(
    plugin: &Plugin,
    hook: stats::Hook,
    index: &ComponentExportIndex,
    prepare: impl FnOnce(&mut Host),
    params: P,
    take: impl FnOnce(&mut Host) -> T,
) -> Result<(R, T), PluginError>
where
    P: ComponentNamedList + Lower + Send + Sync + 'static,
    R: ComponentNamedList + Lift + Send + Sync + 'static,
{
    let (facts, limit) = (&plugin.facts, plugin.facts.limits.solver_deadline);
    let name = hook.name();
    let counted = stats::Waiting::begin(&plugin.stats, hook);
    let started = Instant::now();
    let mut store = new_store(plugin);
    let called = async {
        let instance = start(plugin, &mut store, limit).await?;
        let function = match instance.get_typed_func::<P, R>(&mut store, index) {
            Ok(function) => function,
            Err(cause) => return Err(PluginError::Link(facts.subject.clone(), cause)),
        };
        prepare(store.data_mut());
        match function.call_async(&mut store, params).await {
            Ok(result) => Ok(result),
            Err(cause) => {
                let stderr = store.data_mut().output.take_stderr();
                let deadline = Overrun::SolverDeadline;
                let error = call::failure(facts, name, deadline, limit, &stderr, cause);
                call::log(&error, facts, "", &stderr);
                Err(error)
            }
        }
    };
    let called = tokio::time::timeout(limit, called).await.unwrap_or_else(|_elapsed| {
        let error = PluginError::Overrun {
            of: facts.subject.clone(),
            hook: name,
            key: Overrun::SolverDeadline.key(),
            limit: format!("{limit:?}"),
        };
        call::log(&error, facts, "", "");
        Err(error)
    });
    let host = store.data_mut();
    let requests = facts.limits.requests_max.saturating_sub(host.requests_left);
    counted.end(
        started.elapsed(),
        host.memory.used(),
        requests,
        called.as_ref().err().map(|e| facts.secrets.mask_text(&e.to_string()).into_owned()),
    );
    let result = called?;
    host.output.flush(facts, "");
    Ok((result, take(store.data_mut())))
}

/// Starts an instance with the plugin's own configuration and drops it. On a thread and a runtime
/// of its own, since it may be called from inside another runtime.
pub(super) fn self_test(plugin: &Plugin) -> Result<(), PluginError> {
    let start_failed = |cause: std::io::Error| {
        PluginError::Start(plugin.facts.subject.clone(), wasmtime::Error::new(cause))
    };
    let test = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(start_failed)?;
        runtime.block_on(async {
            let mut store = new_store(plugin);
            let started = start(plugin, &mut store, START_MAX);
            match tokio::time::timeout(START_MAX, started).await {
                Ok(started) => started.map(|_| ()),
                Err(_elapsed) => Err(PluginError::Overrun {
                    of: plugin.facts.subject.clone(),
                    hook: "plugin.configure",
                    key: Overrun::SolverDeadline.key(),
                    limit: format!("{START_MAX:?}"),
                }),
            }
        })
    };
    std::thread::scope(|scope| {
        match std::thread::Builder::new().spawn_scoped(scope, test).map_err(start_failed)?.join() {
            Ok(result) => result,
            Err(_panic) => Err(start_failed(std::io::Error::other("the test of the start died"))),
        }
    })
}

fn new_store(plugin: &Plugin) -> Store<Host> {
    let host = Host::new(Arc::clone(&plugin.facts), &plugin.engine.live);
    let mut store = Store::new(&plugin.engine.wasm, host);
    store.limiter(|host| &mut host.memory);
    store.set_epoch_deadline(BURST_TICKS);
    let mut bursts = 0_u32;
    let held = plugin.engine.ticker.hold();
    // It lets others run between bursts, and is stopped when it only computes.
    store.epoch_deadline_callback(move |_| {
        // Dropped with the store: until then time must pass for it.
        let _ = &held;
        bursts = bursts.saturating_add(1);
        if bursts > BURSTS_MAX {
            return Err(rule(format!(
                "it computed for {} seconds; a plugin that may wait mostly does",
                BURST_TICKS.saturating_mul(u64::from(BURSTS_MAX)) / 1000
            )));
        }
        Ok(UpdateDeadline::Yield(BURST_TICKS))
    });
    store
}

/// Instantiates and configures.
async fn start(
    plugin: &Plugin,
    store: &mut Store<Host>,
    allowed: Duration,
) -> Result<Instance, PluginError> {
    let (compiled, facts) = (&plugin.compiled, &plugin.facts);
    let failed = |store: &mut Store<Host>, cause: wasmtime::Error| {
        let stderr = store.data_mut().output.take_stderr();
        call::start_failure(facts, Overrun::SolverDeadline, allowed, &stderr, cause)
    };
    let instance = match compiled.pre.instantiate_async(&mut *store).await {
        Ok(instance) => instance,
        Err(cause) => return Err(failed(store, cause)),
    };
    let configure = instance
        .get_typed_func::<(String,), (Result<Vec<String>, String>,)>(
            &mut *store,
            &compiled.exports.configure,
        )
        .map_err(|cause| PluginError::Link(facts.subject.clone(), cause))?;
    match configure.call_async(&mut *store, (plugin.config.clone().into_string(),)).await {
        Ok((Ok(_hooks),)) => Ok(instance),
        Ok((Err(message),)) => Err(PluginError::Configure { of: facts.subject.clone(), message }),
        Err(cause) => Err(failed(store, cause)),
    }
}

/// Ticks that a guest computes before others get a turn.
const BURST_TICKS: u64 = 10;
/// Bursts of one call, inclusive.
const BURSTS_MAX: u32 = 1000;
