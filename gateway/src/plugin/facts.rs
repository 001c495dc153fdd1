//! What is the same for every instance of one loaded plugin.

use std::collections::HashSet;
use std::sync::Arc;

use super::error::Subject;
use super::host::http::Client;
use super::host::log::Rate;
use super::host::state::State;
use super::secret::Secrets;
use crate::config::{HttpGrant, PluginLimits};

/// A plugin's name, limits, grants and secrets. Held by its instances; ends with the last of them.
pub(super) struct Facts {
    pub subject: Subject,
    pub limits: PluginLimits,
    pub grants: Vec<HttpGrant>,
    pub secrets: Secrets,
    pub upstreams: HashSet<Arc<str>>,
    pub state: Arc<State>,
    pub log: Rate,
    /// Sends its requests; only solvers have one.
    pub client: Option<Client>,
}
