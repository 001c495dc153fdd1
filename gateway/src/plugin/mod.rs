//! Plugins: components loaded, checked against their grants, called within their limits. The only
//! room that names wasmtime.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::acme::solve::dns01::DnsSolver;
use crate::config::PluginConfig;
use crate::http::head::{ConnectionFacts, RequestHead, ResponseHead};

/// One per process: the wasmtime engine, the epoch ticker, the cache of compiled code, and the
/// key-value state of all plugins.
pub struct Engine {}

/// A component, compiled, linked and self-tested: `configure` succeeded with the plugin's own config.
pub struct Plugin {}

/// A plugin at one place of use, on one worker: keeps an instance and replaces it after a trap.
/// Not `Send`: made and used on its worker.
pub struct Hooks {}

/// The hooks that an instance asked for in `configure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hooked {
    /// `filter.on-request`.
    pub request: bool,
    /// `filter.on-request-body`, with the largest prefix in bytes.
    pub request_body_bytes_max: Option<usize>,
    /// `filter.on-response`.
    pub response: bool,
}

/// What a plugin decided about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: go on.
    Continue,
    /// To this upstream, which exists.
    Upstream(Arc<str>),
    /// A redirect.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// The `location` field.
        location: http::HeaderValue,
    },
    /// A response of the plugin's own.
    Respond {
        /// 200 to 599.
        status: http::StatusCode,
        /// Its fields, none of them the gateway's.
        headers: http::HeaderMap,
        /// Its body.
        body: Bytes,
    },
}

/// What a component is, for `witgate plugin inspect` and for checks at load.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Inspection {
    /// SHA-256 of the file, in hex.
    pub digest: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The worlds it fits: `router`, `filter`, `dns-solver`.
    pub worlds: Vec<String>,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
}

/// Why a plugin did not load or a call failed. Says plugin, digest and cause.
#[derive(Debug)]
pub enum PluginError {}

impl Engine {
    /// Starts the engine. `cache` is where compiled code is kept.
    ///
    /// # Errors
    /// When the machine cannot run it.
    pub fn start(_cache: PathBuf) -> Result<Arc<Self>, PluginError> {
        unimplemented!("owner: plugin")
    }

    /// Reads, compiles (or takes from the cache), links and self-tests a component. Blocks for up to
    /// seconds: call it off the request path. `upstreams` are the names that a router may choose.
    ///
    /// # Errors
    /// When the file is no component, fits no world, lacks a grant, or its `configure` fails.
    pub fn load(
        self: &Arc<Self>,
        _name: &str,
        _config: &PluginConfig,
        _upstreams: &Arc<[Arc<str>]>,
    ) -> Result<Arc<Plugin>, PluginError> {
        unimplemented!("owner: plugin")
    }

    /// Looks at a component without running it.
    ///
    /// # Errors
    /// When it is no component.
    pub fn inspect(&self, _component: &std::path::Path) -> Result<Inspection, PluginError> {
        unimplemented!("owner: plugin")
    }
}

impl Plugin {
    /// SHA-256 of the file, in hex.
    pub fn digest(&self) -> &str {
        unimplemented!("owner: plugin")
    }

    /// Whether it can be used as `world`.
    pub fn is(&self, _world: &str) -> bool {
        unimplemented!("owner: plugin")
    }

    /// The plugin as a DNS-01 solver: a fresh store per call, on a fiber, within `solver_deadline`.
    pub fn solver(self: &Arc<Self>) -> Arc<dyn DnsSolver> {
        unimplemented!("owner: plugin")
    }
}

impl Hooks {
    /// Prepares a plugin for one place of use with that use's configuration, and starts its first
    /// instance.
    ///
    /// # Errors
    /// When `configure` refuses this configuration.
    pub fn new(_plugin: Arc<Plugin>, _config: &serde_json::Value) -> Result<Self, PluginError> {
        unimplemented!("owner: plugin")
    }

    /// Which hooks to call.
    pub fn hooked(&self) -> Hooked {
        unimplemented!("owner: plugin")
    }

    /// Calls `router.route`. On an error the head is as it was before.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule.
    pub fn route(
        &self,
        _connection: &Arc<ConnectionFacts>,
        _request: &mut RequestHead,
    ) -> Result<Decision, PluginError> {
        unimplemented!("owner: plugin")
    }

    /// Calls `filter.on-request`. On an error the head is as it was before.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule.
    pub fn on_request(
        &self,
        _connection: &Arc<ConnectionFacts>,
        _request: &mut RequestHead,
    ) -> Result<Decision, PluginError> {
        unimplemented!("owner: plugin")
    }

    /// Calls `filter.on-request-body`.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule.
    pub fn on_request_body(
        &self,
        _connection: &Arc<ConnectionFacts>,
        _request: &mut RequestHead,
        _prefix: &[u8],
        _is_complete: bool,
    ) -> Result<Decision, PluginError> {
        unimplemented!("owner: plugin")
    }

    /// Calls `filter.on-response`. On an error the head is as it was before.
    ///
    /// # Errors
    /// A trap, an overrun limit, a broken rule.
    pub fn on_response(
        &self,
        _connection: &Arc<ConnectionFacts>,
        _request: &mut RequestHead,
        _response: &mut ResponseHead,
    ) -> Result<(), PluginError> {
        unimplemented!("owner: plugin")
    }
}
