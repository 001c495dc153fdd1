//! The contract `witgate:plugin@0.1`: which interfaces there are, who implements their functions,
//! and where a component's exports lie. A later contract gets a file of its own beside this one.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex, Linker, LinkerInstance};

use super::host::{
    Host, body, connection, crypto, decision, hello, http, issuance, log, report, request,
    response, state, wasi,
};

/// Where the exports of a component lie.
pub(super) struct Exports {
    pub configure: ComponentExportIndex,
    pub route: Option<ComponentExportIndex>,
    pub filter: Option<FilterExports>,
    pub solver: Option<SolverExports>,
    pub handover: Option<HandoverExports>,
    pub body: Option<BodyExports>,
    pub on_client_hello: Option<ComponentExportIndex>,
    pub decide: Option<ComponentExportIndex>,
    pub write: Option<ComponentExportIndex>,
    pub on_event: Option<ComponentExportIndex>,
}

/// The functions of `body-hooks`.
pub(super) struct BodyExports {
    pub on_chunk: ComponentExportIndex,
    pub on_finish: ComponentExportIndex,
    pub on_abandon: ComponentExportIndex,
}

/// The functions of `handover`.
pub(super) struct HandoverExports {
    pub save: ComponentExportIndex,
    pub restore: ComponentExportIndex,
}

/// The functions of `filter`.
pub(super) struct FilterExports {
    pub on_request: ComponentExportIndex,
    pub on_request_body: ComponentExportIndex,
    pub on_response: ComponentExportIndex,
}

/// The functions of `dns-solver`.
pub(super) struct SolverExports {
    pub traits: ComponentExportIndex,
    pub find_zone: ComponentExportIndex,
    pub present: ComponentExportIndex,
    pub poll: ComponentExportIndex,
    pub cleanup: ComponentExportIndex,
}

impl Exports {
    /// Finds them; none when the component is no plugin.
    pub(super) fn find(component: &Component) -> Option<Self> {
        let function = |interface: &str, function: &str| {
            let interface =
                component.get_export_index(None, &*format!("{PACKAGE}{interface}{V}"))?;
            component.get_export_index(Some(&interface), function)
        };
        let filter = || {
            Some(FilterExports {
                on_request: function("filter-hooks", "on-request")?,
                on_request_body: function("filter-hooks", "on-request-body")?,
                on_response: function("filter-hooks", "on-response")?,
            })
        };
        let solver = || {
            Some(SolverExports {
                traits: function("dns-solver-hooks", "traits")?,
                find_zone: function("dns-solver-hooks", "find-zone")?,
                present: function("dns-solver-hooks", "present")?,
                poll: function("dns-solver-hooks", "poll")?,
                cleanup: function("dns-solver-hooks", "cleanup")?,
            })
        };
        let handover = || {
            Some(HandoverExports {
                save: function("handover", "save")?,
                restore: function("handover", "restore")?,
            })
        };
        let body = || {
            Some(BodyExports {
                on_chunk: function("body-hooks", "on-chunk")?,
                on_finish: function("body-hooks", "on-finish")?,
                on_abandon: function("body-hooks", "on-abandon")?,
            })
        };
        let found = Self {
            configure: function("plugin", "configure")?,
            route: function("router-hooks", "route"),
            filter: filter(),
            solver: solver(),
            handover: handover(),
            body: body(),
            on_client_hello: function("client-hello-hooks", "on-client-hello"),
            decide: function("issuance-policy-hooks", "decide"),
            write: function("access-log-hooks", "write"),
            on_event: function("event-hooks", "on-event"),
        };
        (!found.worlds().is_empty()).then_some(found)
    }

    /// The worlds that the exports make.
    pub(super) fn worlds(&self) -> Vec<&'static str> {
        let mut worlds = Vec::new();
        worlds.extend(self.route.is_some().then_some("router"));
        worlds.extend(self.filter.is_some().then_some("filter"));
        worlds.extend(self.on_client_hello.is_some().then_some("client-hello"));
        worlds.extend(self.solver.is_some().then_some("dns-solver"));
        worlds.extend(self.decide.is_some().then_some("issuance-policy"));
        worlds.extend(self.write.is_some().then_some("access-log"));
        worlds.extend(self.on_event.is_some().then_some("events"));
        worlds
    }

    /// Whether its calls run inline on a worker and cannot wait.
    pub(super) fn is_inline(&self) -> bool {
        self.route.is_some() || self.filter.is_some() || self.on_client_hello.is_some()
    }

    /// Whether its calls have a store of their own and may wait.
    pub(super) fn may_wait(&self) -> bool {
        self.solver.is_some() || self.must_wait()
    }

    /// Whether it is of a world that never was in a component with one that runs inline. A solver could
    /// be, as long as it sends nothing.
    pub(super) fn must_wait(&self) -> bool {
        self.decide.is_some() || self.write.is_some() || self.on_event.is_some()
    }
}

/// Why a component cannot be linked.
pub(super) enum Unlinked {
    /// It imports this, which there is not.
    Unknown(String),
    /// A type does not fit.
    Type(wasmtime::Error),
}

impl From<wasmtime::Error> for Unlinked {
    fn from(cause: wasmtime::Error) -> Self {
        Self::Type(cause)
    }
}

/// Links what `component` imports, under the very names it uses. With `may_wait` its calls run on a
/// fiber and `http` is there.
pub(super) fn link(
    engine: &wasmtime::Engine,
    component: &Component,
    may_wait: bool,
) -> Result<Linker<Host>, Unlinked> {
    let mut linker = Linker::new(engine);
    for (name, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = import.ty else {
            return Err(Unlinked::Unknown(name.to_owned()));
        };
        let mut at = linker.instance(name)?;
        let interface = name.split_once('@').map_or(name, |(interface, _)| interface);
        let is_wasi = interface.starts_with("wasi:");
        if !is_wasi && !is_ours(name) {
            return Err(Unlinked::Unknown(name.to_owned()));
        }
        for (item, export) in instance.exports(engine) {
            match export.ty {
                ComponentItem::ComponentFunc(_) if is_wasi => {
                    wasi::link_function(&mut at, interface, item, may_wait)?;
                }
                ComponentItem::ComponentFunc(_) => {
                    if !link_function(&mut at, interface, item, may_wait)? {
                        return Err(Unlinked::Unknown(format!("{name}#{item}")));
                    }
                }
                ComponentItem::Resource(_) if is_wasi => {
                    wasi::link_resource(&mut at, interface, item)?;
                }
                ComponentItem::Type(_) => {}
                _ => return Err(Unlinked::Unknown(format!("{name}#{item}"))),
            }
        }
    }
    Ok(linker)
}

/// Whether a component imports `http`.
pub(super) fn imports_http(engine: &wasmtime::Engine, component: &Component) -> bool {
    let http = format!("{PACKAGE}http@0.1.");
    component.component_type().imports(engine).any(|(name, _)| name.starts_with(&http))
}

fn link_function(
    at: &mut LinkerInstance<'_, Host>,
    interface: &str,
    function: &str,
    may_wait: bool,
) -> wasmtime::Result<bool> {
    match interface.strip_prefix(PACKAGE) {
        Some("body") => body::link(at, function),
        Some("connection") => connection::link(at, function),
        Some("crypto") => crypto::link(at, function),
        Some("decision") => decision::link(at, function),
        Some("log") => log::link(at, function),
        Some("request") => request::link(at, function),
        Some("response") => response::link(at, function),
        Some("state") => state::link(at, function),
        Some("hello") => hello::link(at, function),
        Some("hello-decision") => hello::link_decision(at, function),
        Some("http") if may_wait => http::link(at, function),
        Some("issuance") if may_wait => issuance::link(at, function),
        Some("report") if may_wait => report::link(at, function),
        _ => Ok(false),
    }
}

/// Whether an import is of this contract, in any of its 0.1 versions.
fn is_ours(name: &str) -> bool {
    name.starts_with(PACKAGE)
        && name.split_once('@').is_some_and(|(_, version)| version.starts_with("0.1."))
}

const PACKAGE: &str = "witgate:plugin/";
const V: &str = "@0.1.0";
