//! From a tree of nodes to a [`Config`], collecting everything that is wrong on the way.
//!
//! Every reader here returns something usable after it has recorded an error, so that the walk goes
//! on to the end; a `Config` leaves this module only when no error was recorded. Defaults come from
//! [`super::keys`], nowhere else.

mod certificates;
mod fields;
mod operation;
mod plugins;
mod policies;
mod sites;
mod upstreams;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use super::node::{self, Node, Place, Value};
use super::report::{Finding, Severity, has_password, nearest, quoted};
use super::{Config, Manifest, OnError, Report, Upstream};
pub use certificates::known_directories;
pub(super) use certificates::known_name;
use fields::Fields;
pub(super) use plugins::{field_name, http_grant};

/// What a walk left behind.
pub(super) struct Checked {
    /// The configuration; what it holds means nothing when there are errors.
    pub(super) config: Option<Config>,
    /// Errors and warnings in the order in which they were found.
    pub(super) findings: Vec<Finding>,
    /// Bytes of the text that are secrets.
    pub(super) hidden: Vec<Range<usize>>,
    /// Findings beyond [`FINDINGS_MAX`].
    pub(super) omitted: usize,
}

/// What a component says about itself, by its path.
type Manifests<'a> = &'a dyn Fn(&Path) -> Result<Option<Manifest>, Report>;

/// Walks the whole tree. Relative paths in it are taken from `base`.
pub(super) fn check(root: &Node, text: &str, base: &Path, manifests: Manifests<'_>) -> Checked {
    let mut checker = Checker::new(text, base, manifests);
    node::duplicates(root, &mut |first, second| {
        let key = quoted(&second.key);
        let help = format!("the first one is on line {}; keep one of them", first.at.line);
        checker.error(second.at, format!("the key {key} is here twice"), help);
    });
    let config = checker.config(root);
    let is_good = !checker.findings.iter().any(|f| f.severity == Severity::Error);
    Checked {
        config: config.filter(|_| is_good),
        findings: checker.findings,
        hidden: checker.hidden,
        omitted: checker.omitted,
    }
}

/// The state of one walk.
struct Checker<'a> {
    text: &'a str,
    base: &'a Path,
    read_manifest: Manifests<'a>,
    findings: Vec<Finding>,
    omitted: usize,
    hidden: Vec<Range<usize>>,
    /// Names under `upstreams:`, whether their values are right or not.
    upstream_names: BTreeSet<&'a str>,
    /// Names under `plugins:`, whether their values are right or not.
    plugin_names: BTreeSet<&'a str>,
    /// Names of `certificates.updates`.
    update_names: BTreeSet<&'a str>,
    /// Each plugin's own `config:`.
    plugin_configs: BTreeMap<&'a str, serde_json::Value>,
    /// What each plugin's component says about itself.
    manifests: BTreeMap<&'a str, Manifest>,
    /// Upstreams given as a URL where a name could stand, by that URL.
    anonymous: BTreeMap<String, Upstream>,
    /// Upstreams by name, and whether they take bytes of any kind.
    raw_upstreams: BTreeMap<String, bool>,
    /// Every place that names a plugin.
    uses: Vec<Use<'a>>,
}

/// A place that names a plugin.
struct Use<'a> {
    plugin: &'a str,
    role: Role,
    at: Place,
}

/// What a plugin is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Router,
    Filter,
    Solver,
    ClientHello,
    IssuancePolicy,
    AccessLog,
    Events,
}

impl Role {
    /// The world that fits.
    fn world(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Filter => "filter",
            Self::Solver => "dns-solver",
            Self::ClientHello => "client-hello",
            Self::IssuancePolicy => "issuance-policy",
            Self::AccessLog => "access-log",
            Self::Events => "events",
        }
    }
}

impl<'a> Checker<'a> {
    fn new(text: &'a str, base: &'a Path, read_manifest: Manifests<'a>) -> Self {
        Self {
            text,
            base,
            read_manifest,
            findings: Vec::new(),
            omitted: 0,
            hidden: Vec::new(),
            upstream_names: BTreeSet::new(),
            plugin_names: BTreeSet::new(),
            update_names: BTreeSet::new(),
            plugin_configs: BTreeMap::new(),
            manifests: BTreeMap::new(),
            anonymous: BTreeMap::new(),
            raw_upstreams: BTreeMap::new(),
            uses: Vec::new(),
        }
    }

    fn config(&mut self, root: &'a Node) -> Option<Config> {
        if matches!(root.value, Value::Null) {
            let help = "a first file is: sites: [{hosts: [app.example.com], upstream: \
                        \"http://127.0.0.1:8000\"}]";
            self.error(root.at, "the file holds no configuration", help.to_owned());
            return None;
        }
        self.hide_secrets(root);
        let fields = self.fields(root, "")?;
        self.upstream_names = names_below(&fields, "upstreams");
        self.plugin_names = names_below(&fields, "plugins");

        let listen = self.listen(&fields);
        let certificates = self.certificates(&fields, &listen);
        let plugins = self.plugins(&fields);
        let mut upstreams = self.upstreams(&fields);
        let sites = self.sites(&fields, &certificates, &listen);
        upstreams.append(&mut self.anonymous);
        let config = self.operation(&fields);
        let hello = fields.get("client-hello");
        let client_hello = hello.and_then(|n| self.plugin_use(n, Role::ClientHello));
        self.plugin_uses(&fields, &plugins);
        Some(Config { listen, certificates, sites, upstreams, plugins, client_hello, ..config })
    }

    /// Rules about plugins that only all their uses together can break.
    fn plugin_uses(
        &mut self,
        fields: &Fields<'a>,
        plugins: &BTreeMap<String, super::PluginConfig>,
    ) {
        let uses = std::mem::take(&mut self.uses);
        let used: BTreeSet<&str> = uses.iter().map(|u| u.plugin).collect();
        let mut routers: BTreeMap<&str, u64> = BTreeMap::new();
        for router in uses.iter().filter(|u| u.role == Role::Router) {
            routers.entry(router.plugin).or_insert(router.at.line);
        }
        let Some(Value::Map(entries)) = fields.get("plugins").map(|n| &n.value) else { return };
        for entry in entries {
            let name = entry.key.as_str();
            if !used.contains(name) {
                let message = format!("nothing uses the plugin {}", quoted(name));
                let help = "name it where it shall work, as a router, a filter, a dns-01 solver and so \
                            on, or remove it";
                self.warning(entry.at, message, help.to_owned());
            }
            if let Some(manifest) = self.manifests.get(name).cloned() {
                self.worlds(&manifest, name, &uses);
            }
            let responds =
                plugins.get(name).is_some_and(|p| matches!(p.on_error, OnError::Respond(_)));
            let hello = uses.iter().find(|u| u.role == Role::ClientHello && u.plugin == name);
            if let (Some(hello), true) = (hello, responds) {
                let message = format!("{} has a response for failures", quoted(name));
                let help =
                    "a handshake has no response: write `on-error: fail-closed` or fail-open";
                self.error(hello.at, message, help.to_owned());
            }
            let is_open = plugins.get(name).is_some_and(|p| p.on_error == OnError::FailOpen);
            if let (Some(line), true) = (routers.get(name), is_open) {
                let at = child(&entry.node, "on-error").map_or(entry.at, |n| n.at);
                let message = format!(
                    "{} is the router of line {line}, and a router must not fail open",
                    quoted(name)
                );
                let help = "write `on-error: fail-closed`, or use a plugin of its own as router";
                self.error(at, message, help.to_owned());
            }
        }
    }

    /// Reports uses of a plugin as what its component says it is not.
    fn worlds(&mut self, manifest: &Manifest, name: &str, uses: &[Use<'_>]) {
        for place in uses.iter().filter(|place| place.plugin == name) {
            let wanted = place.role.world();
            if !manifest.worlds.iter().any(|world| world == wanted) {
                let message = format!("{} cannot be used as a {wanted}", quoted(name));
                let help = format!("its component is a {}", manifest.worlds.join(" and "));
                self.error(place.at, message, help);
            }
        }
    }

    /// Notes where secrets may stand, before any excerpt is cut.
    fn hide_secrets(&mut self, root: &Node) {
        if let Some(Value::Map(plugins)) = child(root, "plugins").map(|n| &n.value) {
            for plugin in plugins {
                if let Some(secrets) = child(&plugin.node, "secrets") {
                    self.hide_scalars(secrets, true);
                }
            }
        }
        let issuers = |n: Option<&Node>| match n.map(|n| &n.value) {
            Some(Value::List(list)) => {
                list.iter().filter_map(|i| child(i, "eab")).cloned().collect()
            }
            _ => Vec::new(),
        };
        let mut found = issuers(child(root, "certificates").and_then(|c| child(c, "issuers")));
        if let Some(Value::List(sites)) = child(root, "sites").map(|n| &n.value) {
            for site in sites {
                self.hide_users(site);
                if let Some(Value::List(routes)) = child(site, "routes").map(|n| &n.value) {
                    routes.iter().for_each(|route| self.hide_users(route));
                }
            }
            let certificates = sites.iter().filter_map(|s| child(s, "certificate"));
            found.extend(certificates.flat_map(|c| issuers(child(c, "issuers"))));
        }
        self.hide_passwords(root);
        if let Some(seal) = child(root, "store").and_then(|store| child(store, "seal")) {
            self.hide_scalars(seal, true);
        }
        let tickets = child(root, "tls").and_then(|tls| child(tls, "tickets"));
        if let Some(secret) = tickets.and_then(|tickets| child(tickets, "secret")) {
            self.hide_scalars(secret, true);
        }
        for eab in &found {
            if let Some(key) = child(eab, "key") {
                self.hide_scalars(key, true);
            }
        }
    }

    /// Hides the hashes of passwords: what is good enough to guess against is not shown.
    fn hide_users(&mut self, place: &Node) {
        if let Some(users) = child(place, "basic-auth").and_then(|auth| child(auth, "users")) {
            self.hide_scalars(users, true);
        }
    }

    /// Hides URLs with a user or password, wherever they stand.
    fn hide_passwords(&mut self, node: &Node) {
        match &node.value {
            Value::Map(entries) => entries.iter().for_each(|e| self.hide_passwords(&e.node)),
            Value::List(list) => list.iter().for_each(|n| self.hide_passwords(n)),
            Value::Text(text) if has_password(text) => self.hide(node),
            _ => {}
        }
    }

    /// Hides scalars where a secret itself may stand: everything but what `env:`, `file:`,
    /// `credential:` and `hosts:` hold.
    fn hide_scalars(&mut self, node: &Node, is_secret: bool) {
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let names_source =
                        matches!(entry.key.as_str(), "env" | "file" | "credential" | "hosts");
                    self.hide_scalars(&entry.node, !names_source);
                }
            }
            Value::List(list) => list.iter().for_each(|n| self.hide_scalars(n, is_secret)),
            _ if is_secret => self.hide(node),
            _ => {}
        }
    }

    fn hide(&mut self, node: &Node) {
        for at in [node.at, node.text_at] {
            if at.length > 0 {
                self.hidden.push(at.start..at.start + at.length);
            }
        }
    }

    fn error(&mut self, at: Place, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.find(Severity::Error, at, message.into(), help.into());
    }

    fn warning(&mut self, at: Place, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.find(Severity::Warning, at, message.into(), help.into());
    }

    fn find(&mut self, severity: Severity, at: Place, message: String, help: Option<String>) {
        // An error must never be dropped in favour of a warning: it decides.
        if self.findings.len() >= FINDINGS_MAX {
            self.omitted += 1;
            let has_error = self.findings.iter().any(|f| f.severity == Severity::Error);
            if has_error || severity == Severity::Warning {
                return;
            }
        }
        self.findings.push(Finding { at, severity, message, suggestion: help });
    }

    /// Whether an upstream has this name; reports it otherwise.
    fn is_upstream(&mut self, node: &Node, name: &str) -> bool {
        let is_known = self.upstream_names.contains(name);
        if !is_known {
            let (message, help) = unresolved(name, "upstream", &self.upstream_names);
            self.error(node.at, message, help);
        }
        is_known
    }

    /// Whether a plugin has this name; reports it otherwise.
    fn is_plugin(&mut self, node: &Node, name: &str) -> bool {
        let is_known = self.plugin_names.contains(name);
        if !is_known {
            let (message, help) = unresolved(name, "plugin", &self.plugin_names);
            self.error(node.at, message, help);
        }
        is_known
    }

    /// A path of the file, taken from the folder of the file when it is relative.
    fn resolve(&self, path: &str) -> PathBuf {
        let joined = self.base.join(path);
        joined.components().filter(|c| !matches!(c, Component::CurDir)).collect()
    }

    /// The text of a node as it stands in the file, for suggestions.
    fn written(&self, node: &Node) -> Option<&'a str> {
        let at = node.text_at;
        let is_hidden = self.hidden.iter().any(|h| h.contains(&at.start));
        let text = self.text.get(at.start..at.start + at.length)?;
        (at.length > 0 && at.length < 80 && !is_hidden && !text.contains('\n')).then_some(text)
    }
}

/// The error about a name that is none of `names`; `what` is "upstream" or "plugin".
fn unresolved(name: &str, what: &str, names: &BTreeSet<&str>) -> (String, String) {
    let help = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None if names.is_empty() => format!("declare it under `{what}s:`"),
        None => {
            let names: Vec<&str> = names.iter().copied().collect();
            format!("declare it under `{what}s:`, where there are: {}", list(&names))
        }
    };
    (format!("there is no {what} named {}", quoted(name)), help)
}

/// The node of a key of a mapping.
fn child<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.node),
        _ => None,
    }
}

/// The keys of a mapping below the root.
fn names_below<'a>(fields: &Fields<'a>, key: &str) -> BTreeSet<&'a str> {
    match fields.get(key).map(|n| &n.value) {
        Some(Value::Map(entries)) => entries.iter().map(|e| e.key.as_str()).collect(),
        _ => BTreeSet::new(),
    }
}

/// `a, b, c`, cut after a dozen.
fn list(names: &[&str]) -> String {
    let mut text = names.iter().take(12).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 12 {
        text.push_str(", …");
    }
    text
}

/// Whether a name can be used for an upstream, plugin or secret without ever being taken for
/// something else.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() <= 64 && text.chars().all(allowed)
}

/// More are counted, not listed.
const FINDINGS_MAX: usize = 100;
