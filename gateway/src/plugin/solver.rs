//! Plugins as DNS providers.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{ComponentExportIndex, ComponentNamedList, ComponentType, Lift, Lower};

use super::call::Overrun;
use super::error::PluginError;
use super::facts::Facts;
use super::host::Host;
use super::host::report::Notes;
use super::stats::Hook;
use super::v0_1::SolverExports;
use super::{Plugin, fiber};
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

    /// Calls one function in a fresh instance, for an order; returns what was proven and noted on the
    /// way.
    async fn call<P, R>(
        &self,
        hook: Hook,
        export: fn(&SolverExports) -> &ComponentExportIndex,
        order: Order,
        params: P,
    ) -> Result<(R, Order, Notes), SolverFailure>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let plugin = &*self.plugin;
        let facts = &plugin.facts;
        let Some(exports) = &plugin.compiled.exports.solver else {
            let error = PluginError::WrongWorld {
                of: facts.subject.clone(),
                wanted: "dns-solver",
                worlds: plugin.compiled.worlds.clone(),
            };
            return Err(failed("load", &error, facts));
        };
        let index = export(exports);
        // Not before: what `configure` sends is for no order.
        let prepare = move |host: &mut Host| host.order = order;
        let take =
            |host: &mut Host| (std::mem::take(&mut host.order), std::mem::take(&mut host.notes));
        match fiber::call(plugin, hook, index, prepare, params, take).await {
            Ok((result, (order, notes))) => Ok((result, order, notes)),
            Err(error) => {
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
        }
    }

    /// As [`Self::call`], for functions that may fail by contract.
    async fn ask<P, R>(
        &self,
        hook: Hook,
        export: fn(&SolverExports) -> &ComponentExportIndex,
        order: Order,
        params: P,
    ) -> Result<(R, Order), SolverFailure>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: ComponentType + Lift + Send + Sync + 'static,
    {
        let ((answer,), order, notes): (Answer<R>, _, _) =
            self.call(hook, export, order, params).await?;
        let answer = answer.map(|answer| (answer, order));
        answer.map_err(|failure| SolverFailure {
            code: failure.code,
            message: {
                let said = notes.added_to(failure.message);
                self.plugin.facts.secrets.mask_text(&said).into_owned()
            },
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
            let ((traits,), ..): ((Vec<(String, String)>,), _, _) =
                self.call(Hook::Traits, |exports| &exports.traits, order, ()).await?;
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
                .ask(Hook::FindZone, |exports| &exports.find_zone, order, (candidates,))
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
                self.ask(Hook::Present, |exports| &exports.present, order, params).await?;
            Ok(seal(handle, order.ids()))
        })
    }

    fn poll(&self, zone: Zone, handle: String) -> SolverFuture<'_, Option<u32>> {
        Box::pin(async move {
            let (zone, zone_handle, order) = zone_order(zone);
            let params = (zone, zone_handle, unseal(handle).0);
            let asked = self.ask(Hook::Poll, |exports| &exports.poll, order, params);
            asked.await.map(|(wait, _)| wait)
        })
    }

    fn cleanup(&self, at: RecordSet, handle: String) -> SolverFuture<'_, ()> {
        Box::pin(async move {
            let (zone, zone_handle, order) = zone_order(at.zone);
            let (handle, ids) = unseal(handle);
            let order = order.records(&at.name, &at.values, ids);
            let params = (zone, zone_handle, at.name, at.values, handle);
            let asked = self.ask(Hook::Cleanup, |exports| &exports.cleanup, order, params);
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

fn failed(code: &str, error: &PluginError, facts: &super::facts::Facts) -> SolverFailure {
    SolverFailure {
        code: code.to_owned(),
        message: facts.secrets.mask_text(&error.to_string()).into_owned(),
        retry_after: None,
    }
}

/// How a sealed handle starts.
const SEAL: &str = "witgate-proven:";
