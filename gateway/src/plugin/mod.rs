//! Plugins: components loaded, checked against their grants, called within their limits. The only
//! room that names wasmtime.
//!
//! [`Engine::load`] turns a file into a [`Plugin`]; routers and filters are called through
//! [`Hooks`], solvers through [`Plugin::solver`]. `host` holds what stands behind a plugin's
//! imports. What must never get into a plugin: a secret's value, a file, a socket, another
//! exchange.

mod call;
mod engine;
mod error;
mod facts;
mod fiber;
mod grant;
mod host;
mod load;
mod pool;
mod reserve;
mod secret;
mod session;
mod sign;
mod signing;
mod solver;
mod span;
mod stats;
mod tap;
mod tape;
#[cfg(test)]
mod tests;
mod ticker;
mod totp;
mod trial;
mod v0_1;
mod waiting;
mod wire;

use std::sync::Arc;

use bytes::Bytes;

use crate::acme::policy::Policy;
use crate::acme::solve::dns01::DnsSolver;
use crate::config::Manifest;
use crate::config::lock::Locked;
use crate::feed::Taker;

pub use engine::Engine;
pub use error::{PluginError, Subject};
pub use pool::Hooks;
pub use reserve::Reserve;
pub use sign::{SignError, sign};
pub use stats::{DECISIONS, Failure, HOOKS, Stats, Totals};
pub use tap::{CHUNK_BYTES_MAX, Mode, Tap};
pub use tape::{Recorder, Recording, Replayed, replay_stanza};
pub use trial::{Kind, Placed, SideStatus, Trial, TrialStatus, Verdict};
pub use wire::{Wire, WireAnswer, WireFuture, WireRequest};

/// A component, compiled, linked and self-tested: `configure` succeeded with the plugin's own
/// config.
pub struct Plugin {
    engine: Arc<Engine>,
    compiled: Arc<load::Compiled>,
    facts: Arc<facts::Facts>,
    /// `config:` as JSON text.
    config: Box<str>,
    /// Calls that an instance serves, inclusive.
    calls_max: u64,
    locked: Locked,
    /// What it says about itself.
    manifest: Option<Arc<Manifest>>,
    stats: Arc<Stats>,
    recorder: Recorder,
    reserves: reserve::Reserves,
    start_time: reserve::StartTime,
}

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

/// What a call of a filter led to.
#[derive(Debug)]
pub struct Called {
    /// What it decided.
    pub decision: Decision,
    /// The body that it asked for.
    pub tap: Option<Tap>,
    /// Whether it wants to change the body, so that the head must not tell of the one before; there need
    /// not be a body.
    pub reshapes: bool,
}

impl From<Decision> for Called {
    fn from(decision: Decision) -> Self {
        Self { decision, tap: None, reshapes: false }
    }
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
    /// The worlds it fits, such as `filter`.
    pub worlds: Vec<String>,
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What it says about itself; none when it carries no `plugin.yaml`.
    pub manifest: Option<Manifest>,
    /// What it asks for, in lines, as `gateway.lock` has it.
    pub asks: Vec<String>,
}

impl Inspection {
    /// As `gateway.lock` has it.
    pub fn locked(&self) -> Locked {
        Locked {
            digest: self.digest.clone(),
            version: self.manifest.as_ref().map(|manifest| manifest.version.clone()),
            asks: self.asks.clone(),
        }
    }
}

impl Plugin {
    /// Its name in `gateway.yaml`.
    pub fn name(&self) -> &str {
        &self.facts.subject.name
    }

    /// Which plugin this is: name, file and digest, for messages.
    pub fn subject(&self) -> &Subject {
        &self.facts.subject
    }

    /// SHA-256 of the file, in hex.
    pub fn digest(&self) -> &str {
        &self.facts.subject.digest
    }

    /// Its version and what it asks for, as `gateway.lock` has it.
    pub fn locked(&self) -> &Locked {
        &self.locked
    }

    /// What is counted about it and the versions before it.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Records one request of it.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The worlds it can be used as, such as `filter`.
    pub fn worlds(&self) -> &[&'static str] {
        &self.compiled.worlds
    }

    /// Whether it can be used as `world`.
    pub fn is(&self, world: &str) -> bool {
        self.compiled.worlds.contains(&world)
    }

    /// The plugin as one that says which names may have a certificate.
    pub fn policy(self: &Arc<Self>) -> Arc<dyn Policy> {
        Arc::new(waiting::Judge::new(Arc::clone(self)))
    }

    /// The plugin as one that takes exchanges that have ended.
    pub fn sink(self: &Arc<Self>) -> Arc<dyn Taker> {
        Arc::new(waiting::Sink::new(Arc::clone(self)))
    }

    /// The plugin as one that takes events.
    pub fn listener(self: &Arc<Self>) -> Arc<dyn Taker> {
        Arc::new(waiting::Listener::new(Arc::clone(self)))
    }

    /// The plugin as a DNS-01 solver: a fresh store per call, on a fiber, within `solver_deadline`.
    pub fn solver(self: &Arc<Self>) -> Arc<dyn DnsSolver> {
        Arc::new(solver::Solver::new(Arc::clone(self)))
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name())
            .field("digest", &self.facts.subject.short_digest())
            .finish_non_exhaustive()
    }
}

impl Hooked {
    /// Reads what `configure` returned.
    fn parse(asked: &[String], of: &Subject) -> Result<Self, PluginError> {
        if asked.is_empty() {
            return Ok(Self { request: true, request_body_bytes_max: None, response: true });
        }
        let mut hooked = Self { request: false, request_body_bytes_max: None, response: false };
        for code in asked {
            match code.as_str() {
                "none" => {}
                "request" => hooked.request = true,
                "response" => hooked.response = true,
                other => {
                    let bytes = other.strip_prefix("request-body:").and_then(|n| n.parse().ok());
                    let Some(bytes) = bytes else {
                        return Err(PluginError::UnknownHook {
                            of: of.clone(),
                            code: other.to_owned(),
                        });
                    };
                    hooked.request_body_bytes_max = Some(bytes);
                }
            }
        }
        Ok(hooked)
    }
}
