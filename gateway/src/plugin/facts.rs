//! What is the same for every instance of one loaded plugin.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::Subject;
use super::host::http::Client;
use super::host::log::Rate;
use super::host::state::State;
use super::secret::Secrets;
use super::session::Sessions;
use crate::config::credential::Signing;
use crate::config::guard::Guard;
use crate::config::{HeadGrant, HttpGrant, PluginLimits};

/// A plugin's name, limits, grants and secrets. Held by its instances; ends with the last of them.
pub(super) struct Facts {
    pub subject: Subject,
    pub limits: PluginLimits,
    pub grants: Vec<HttpGrant>,
    /// Zones that it may write in; all if empty.
    pub zones: Vec<String>,
    /// Secrets whose HMAC it may have.
    pub hmac: Vec<String>,
    /// What it may do with heads of requests.
    pub request: HeadGrant,
    /// What it may do with heads of responses.
    pub response: HeadGrant,
    /// Fields that it was refused and that the log has told about.
    pub refused: Mutex<BTreeSet<String>>,
    pub secrets: Secrets,
    /// What its requests may change; none when it does not say.
    pub guard: Option<Guard>,
    pub signing: BTreeMap<String, Signing>,
    pub sessions: Sessions,
    /// `config:`.
    pub config: serde_json::Value,
    pub upstreams: HashSet<Arc<str>>,
    pub state: Arc<State>,
    pub log: Rate,
    /// Sends its requests; only solvers have one.
    pub client: Option<Client>,
}

impl Facts {
    /// Tells the log, once for each field, that a plugin found it absent because it may not read it.
    /// `side` is `request` or `response`.
    pub(super) fn refuse_read(&self, side: &str, name: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let known = format!("{side} {}", name.to_ascii_lowercase());
        if refused.len() >= REFUSED_MAX || !refused.insert(known) {
            return;
        }
        drop(refused);
        let (plugin, digest) = (&*self.subject.name, self.subject.short_digest());
        tracing::warn!(
            plugin,
            digest,
            "the plugin may not read {name:?} of a {side} and finds it absent; to allow it, name it \
             in plugins.{plugin}.grants.{side}.read"
        );
    }
}

impl Facts {
    /// Tells the log, once for each, that a plugin may not do with bodies what it asked for. `side` is
    /// `request` or `response`, `verb` is `read` or `transform`.
    pub(super) fn refuse_body(&self, side: &str, verb: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= REFUSED_MAX || !refused.insert(format!("body {side} {verb}")) {
            return;
        }
        drop(refused);
        let (plugin, digest) = (&*self.subject.name, self.subject.short_digest());
        tracing::warn!(
            plugin,
            digest,
            "the plugin may not {verb} the body of a {side}; to allow it, write \
             `body: {verb}` in plugins.{plugin}.grants.{side}"
        );
    }

    /// Tells the log, once for each secret, that a plugin may not use it as a key.
    pub(super) fn refuse_hmac(&self, secret: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= REFUSED_MAX || !refused.insert(format!("hmac {secret}")) {
            return;
        }
        drop(refused);
        let (plugin, digest) = (&*self.subject.name, self.subject.short_digest());
        tracing::warn!(
            plugin,
            digest,
            "the plugin may not use the secret {secret:?} as a key; to allow it, name it in \
             plugins.{plugin}.grants.hmac"
        );
    }
}

/// Fields that the log tells about, inclusive: a plugin can ask for anything.
const REFUSED_MAX: usize = 32;
