//! Solvers: every call has a store of its own and runs on a fiber, so that it can wait for the
//! network without holding a worker.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{
    ComponentExportIndex, ComponentNamedList, ComponentType, Instance, Lift, Lower,
};
use wasmtime::{Store, UpdateDeadline};

use super::Plugin;
use super::call::{self, Overrun, rule};
use super::error::PluginError;
use super::facts::Facts;
use super::host::Host;
use super::pool::START_MAX;
use super::v0_1::SolverExports;
use crate::acme::solve::dns01::{DnsSolver, RecordSet, SolverFailure, SolverFuture, Zone};
use crate::config::guard::Order;

/// A plugin as a DNS provider.
pub(super) struct Solver {
    plugin: Arc<Plugin>,
}

/// `failure` of the contract.
#[derive(ComponentType, Lift)]
#[component(record)]
struct Failure {
    code: String,
    message: String,
    #[component(name = "retry-after-seconds")]
    retry_after_seconds: Option<u32>,
}

/// What every function but `traits` returns.
type Answer<T> = (Result<T, Failure>,);

impl Solver {
    pub(super) fn new(plugin: Arc<Plugin>) -> Self {
        Self { plugin }
    }

    /// Calls one function in a fresh instance, for an order; returns what was proven on the way.
    async fn call<P, R>(
        &self,
        hook: &'static str,
        export: fn(&SolverExports) -> &ComponentExportIndex,
        order: Order,
        params: P,
    ) -> Result<(R, Order), SolverFailure>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let plugin = &*self.plugin;
        let (facts, limit) = (&plugin.facts, plugin.facts.limits.solver_deadline);
        let Some(exports) = &plugin.compiled.exports.solver else {
            let error = PluginError::WrongWorld {
                of: facts.subject.clone(),
                wanted: "dns-solver",
                worlds: plugin.compiled.worlds.clone(),
            };
            return Err(failed("load", &error, facts));
        };
        let mut store = new_store(plugin);
        let called = async {
            let instance = start(plugin, &mut store, limit).await?;
            let failure = |store: &mut Store<Host>, cause| {
                let stderr = store.data_mut().output.take_stderr();
                let deadline = Overrun::SolverDeadline;
                let error = call::failure(facts, hook, deadline, limit, &stderr, cause);
                call::log(&error, facts, "", &stderr);
                error
            };
            let function = match instance.get_typed_func::<P, R>(&mut store, export(exports)) {
                Ok(function) => function,
                Err(cause) => return Err(PluginError::Link(facts.subject.clone(), cause)),
            };
            // Not before: what `configure` sends is for no order.
            store.data_mut().order = order;
            match function.call_async(&mut store, params).await {
                Ok(result) => Ok(result),
                Err(cause) => Err(failure(&mut store, cause)),
            }
        };
        match tokio::time::timeout(limit, called).await {
            Ok(Ok(result)) => {
                let Host { output, facts, order, .. } = store.data_mut();
                output.flush(facts, "");
                Ok((result, std::mem::take(order)))
            }
            Ok(Err(error)) => {
                let code = match &error {
                    PluginError::Overrun { key, .. } if *key == Overrun::SolverDeadline.key() => {
                        "deadline"
                    }
                    PluginError::Configure { .. }
                    | PluginError::Link(..)
                    | PluginError::Start(..) => "load",
                    _ => "trap",
                };
                Err(failed(code, &error, facts))
            }
            Err(_elapsed) => {
                let error = PluginError::Overrun {
                    of: facts.subject.clone(),
                    hook,
                    key: Overrun::SolverDeadline.key(),
                    limit: format!("{limit:?}"),
                };
                call::log(&error, facts, "", "");
                Err(failed("deadline", &error, facts))
            }
        }
    }

    /// As [`Self::call`], for functions that may fail by contract.
    async fn ask<P, R>(
        &self,
        hook: &'static str,
        export: fn(&SolverExports) -> &ComponentExportIndex,
        order: Order,
        params: P,
    ) -> Result<(R, Order), SolverFailure>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: ComponentType + Lift + Send + Sync + 'static,
    {
        let ((answer,), order): (Answer<R>, Order) = self.call(hook, export, order, params).await?;
        let answer = answer.map(|answer| (answer, order));
        answer.map_err(|failure| SolverFailure {
            code: failure.code,
            message: self.plugin.facts.secrets.mask_text(&failure.message).into_owned(),
            retry_after: failure
                .retry_after_seconds
                .map(|seconds| Duration::from_secs(seconds.into())),
        })
    }
}

impl DnsSolver for Solver {
    fn label(&self) -> String {
        let subject = &self.plugin.facts.subject;
        format!("{} (sha256 {})", subject.name, subject.short_digest())
    }

    fn traits(&self) -> SolverFuture<'_, Vec<(String, String)>> {
        Box::pin(async {
            let order = Order::nothing();
            let ((traits,), _): ((Vec<(String, String)>,), _) =
                self.call("dns-solver.traits", |exports| &exports.traits, order, ()).await?;
            Ok(traits)
        })
    }

    fn find_zone(&self, mut candidates: Vec<String>) -> SolverFuture<'_, (String, String)> {
        Box::pin(async move {
            let Facts { subject, zones, .. } = &*self.plugin.facts;
            if !zones.is_empty() {
                candidates.retain(|candidate| zones.iter().any(|zone| is_in(candidate, zone)));
            }
            if candidates.is_empty() {
                let name = &subject.name;
                let message = format!(
                    "plugins.{name}.zones is {}, and the record belongs in none of them",
                    zones.join(", ")
                );
                let code = "zone-not-found".to_owned();
                return Err(SolverFailure { code, message, retry_after: None });
            }
            let order = Order::zones(&candidates);
            let ((zone, handle), order): ((String, String), _) = self
                .ask("dns-solver.find-zone", |exports| &exports.find_zone, order, (candidates,))
                .await?;
            let lower = zone.to_ascii_lowercase();
            let ids = order.zone_ids(lower.strip_suffix('.').unwrap_or(&lower));
            Ok((zone, seal(handle, ids)))
        })
    }

    fn present(&self, at: RecordSet, ttl_seconds: u32) -> SolverFuture<'_, String> {
        Box::pin(async move {
            let (zone, zone_handle, order) = zone_order(at.zone);
            let order = order.records(&at.name, &at.values, []);
            let params = (zone, zone_handle, at.name, at.values, ttl_seconds);
            let (handle, order) =
                self.ask("dns-solver.present", |exports| &exports.present, order, params).await?;
            Ok(seal(handle, order.ids()))
        })
    }

    fn poll(&self, zone: Zone, handle: String) -> SolverFuture<'_, Option<u32>> {
        Box::pin(async move {
            let (zone, zone_handle, order) = zone_order(zone);
            let params = (zone, zone_handle, unseal(handle).0);
            let asked = self.ask("dns-solver.poll", |exports| &exports.poll, order, params);
            asked.await.map(|(wait, _)| wait)
        })
    }

    fn cleanup(&self, at: RecordSet, handle: String) -> SolverFuture<'_, ()> {
        Box::pin(async move {
            let (zone, zone_handle, order) = zone_order(at.zone);
            let (handle, ids) = unseal(handle);
            let order = order.records(&at.name, &at.values, ids);
            let params = (zone, zone_handle, at.name, at.values, handle);
            let asked = self.ask("dns-solver.cleanup", |exports| &exports.cleanup, order, params);
            asked.await.map(|((), _)| ())
        })
    }
}

/// Whether a name is a zone or below it.
fn is_in(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The zone of a call: its name, the plugin's own handle, and what is proven about it.
fn zone_order(zone: Zone) -> (String, String, Order) {
    let (handle, ids) = unseal(zone.handle);
    let order = Order::zone(&zone.name, ids);
    (zone.name, handle, order)
}

/// A handle as the journal keeps it: the plugin's own, and the ids that the provider gave for it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Sealed {
    own: String,
    proven: Vec<String>,
}

/// Puts what is proven beside a plugin's handle, so that a later process knows it as well.
fn seal(own: String, proven: Vec<String>) -> String {
    // A handle that looks like a sealed one would be a forged proof.
    if proven.is_empty() && !own.starts_with(SEAL) {
        return own;
    }
    let sealed = Sealed { own, proven };
    format!("{SEAL}{}", serde_json::to_string(&sealed).unwrap_or_default())
}

fn unseal(handle: String) -> (String, Vec<String>) {
    let sealed = handle.strip_prefix(SEAL).map(serde_json::from_str::<Sealed>);
    match sealed {
        Some(Ok(sealed)) => (sealed.own, sealed.proven),
        // From before there were proofs.
        _ => (handle, Vec::new()),
    }
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
                "it computed for {} seconds; a solver mostly waits for its provider",
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

fn failed(code: &str, error: &PluginError, facts: &super::facts::Facts) -> SolverFailure {
    SolverFailure {
        code: code.to_owned(),
        message: facts.secrets.mask_text(&error.to_string()).into_owned(),
        retry_after: None,
    }
}

/// How a sealed handle starts.
const SEAL: &str = "witgate-proven:";
/// Ticks that a solver computes before others get a turn.
const BURST_TICKS: u64 = 10;
/// Bursts of one call, inclusive.
const BURSTS_MAX: u32 = 1000;
