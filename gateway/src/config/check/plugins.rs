//! `plugins:` and the places that name one.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::conform;
use super::super::node::{Entry, Node, Place, Value};
use super::super::report::{nearest, quoted};
use super::super::{
    BodyGrant, Canary, FieldGrant, FixedResponse, Grants, HeadGrant, HttpGrant, OnError,
    PluginConfig, PluginLimits, PluginUse, Reuse, RouteAction, Secret, WantedHead,
};
use super::fields::Fields;
use super::upstreams::host_and_port;
use super::{Checker, Role, Use, child, list};

impl<'a> Checker<'a> {
    pub(super) fn plugins(&mut self, fields: &Fields<'a>) -> BTreeMap<String, PluginConfig> {
        let mut plugins = BTreeMap::new();
        let silent = self.findings.len();
        let keys: Vec<[u8; 32]> =
            self.plugin_keys(fields).into_iter().map(|(_, key)| key).collect();
        let needs_guard = self.needs_guards(fields);
        // They are reported where the keys themselves are read.
        self.findings.truncate(silent);
        for entry in self.named(fields, "plugins") {
            let config = child(&entry.node, "config").map(|n| n.value.to_json());
            self.plugin_configs.insert(&entry.key, config.unwrap_or_default());
            if let Some(mut plugin) = self.plugin(&entry.node, entry.at.line) {
                plugin.keys.clone_from(&keys);
                plugin.needs_guard = needs_guard;
                self.own_words(entry, &plugin);
                plugins.insert(entry.key.clone(), plugin);
            }
        }
        plugins
    }

    fn plugin(&mut self, node: &'a Node, line: u64) -> Option<PluginConfig> {
        if let Value::Text(text) = &node.value {
            let message = "expected a mapping, found text";
            self.error(node.at, message, format!("write {{component: {text}}}"));
            return None;
        }
        let fields = self.fields(node, "plugins.*")?;
        let component = self.required(&fields, "component").and_then(|n| self.path(n));
        let on_error = self.on_error(&fields);
        let reuse = self.reuse(&fields);
        let shadow = fields.get("shadow").and_then(|n| self.path(n));
        let canary = self.canary(&fields);
        let limits = self.plugin_limits(&fields);
        let grants = self.grants(&fields);
        let secrets = self.secrets(&fields, &grants);
        let zones = self.zones(&fields, "zones that the solver may write in");
        Some(PluginConfig {
            component: component?,
            config: fields.get("config").map(|n| n.value.to_json()).unwrap_or_default(),
            on_error,
            reuse,
            shadow,
            canary,
            limits,
            secrets,
            grants,
            keys: Vec::new(),
            zones,
            needs_guard: false,
            line,
        })
    }

    fn reuse(&mut self, fields: &Fields<'a>) -> Reuse {
        let words = [("worker", false), ("request", true)];
        let is_fresh = self.with_default(fields, "isolation", |c, n| c.word(n, &words));
        let recycle = self.with_default(fields, "recycle", |c, n| match &n.value {
            Value::Text(text) if text == "never" => Some(None),
            _ => c.number(n, 1, u64::from(u32::MAX)).map(Some),
        });
        let calls_max = match (is_fresh, recycle.flatten()) {
            (Some(true), _) => Some(1),
            (_, recycle) => recycle,
        };
        Reuse { calls_max }
    }

    fn canary(&mut self, fields: &Fields<'a>) -> Option<Canary> {
        let node = fields.get("canary")?;
        let (fields, short) = match &node.value {
            Value::Map(_) => (self.fields(node, "plugins.*.canary")?, None),
            _ => (Fields::empty("plugins.*.canary", node.at), Some(node)),
        };
        let share = match short {
            Some(node) => self.share(node),
            None => self.with_default(&fields, "share", |c, n| c.share(n)),
        };
        let time = self.with_default(&fields, "time", |c, n| c.duration(n, true));
        let mut count = |key, min| {
            let max = u64::from(u32::MAX);
            self.with_default(&fields, key, |c, n| c.number(n, min, max)).unwrap_or_default()
        };
        let (calls, failures_max) = (count("calls", 1), count("failures", 0));
        Some(Canary { share: share?, time: time.unwrap_or_default(), calls, failures_max })
    }

    /// Percent, as parts of ten thousand.
    pub(super) fn share(&mut self, node: &Node) -> Option<u16> {
        let text = self.line(node, "a share such as 5%")?;
        let share = text.strip_suffix('%').and_then(|number| {
            let (whole, part) = number.trim().split_once('.').unwrap_or((number.trim(), "0"));
            let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            let hundredths: u16 = match (part.len(), is_digits(part)) {
                (1, true) => part.parse::<u16>().ok()? * 10,
                (2, true) => part.parse().ok()?,
                _ => return None,
            };
            let whole: u16 = is_digits(whole).then_some(whole)?.parse().ok()?;
            whole.checked_mul(100)?.checked_add(hundredths).filter(|n| (1..=10_000).contains(n))
        });
        if share.is_none() {
            let message = format!("{} is not a share of requests", quoted(text));
            self.error(node.at, message, "write 5%, or from 0.01% to 100%".to_owned());
        }
        share
    }

    fn on_error(&mut self, fields: &Fields<'a>) -> OnError {
        if let Some(node) = fields.get("on-error").filter(|n| matches!(n.value, Value::Map(_))) {
            let Some(fields) = self.fields(node, "plugins.*.on-error") else {
                return OnError::FailClosed;
            };
            let respond = self.required(&fields, "respond").and_then(|n| self.respond(n));
            return match respond {
                Some(RouteAction::Respond { status, body, content_type }) => {
                    OnError::Respond(FixedResponse { status, body, content_type })
                }
                _ => OnError::FailClosed,
            };
        }
        let words = [("fail-closed", OnError::FailClosed), ("fail-open", OnError::FailOpen)];
        let on_error = self.with_default(fields, "on-error", |c, n| c.word(n, &words));
        on_error.unwrap_or(OnError::FailClosed)
    }

    /// `unguarded-solvers`.
    pub(super) fn needs_guards(&mut self, fields: &Fields<'a>) -> bool {
        let words = [("warn", false), ("refuse", true)];
        let found = self.with_default(fields, "unguarded-solvers", |c, n| c.word(n, &words));
        found.unwrap_or_default()
    }

    /// `plugin-keys` as written, and decoded.
    pub(super) fn plugin_keys(&mut self, fields: &Fields<'a>) -> Vec<(String, [u8; 32])> {
        let mut keys = Vec::new();
        for node in self.list_of(fields, "plugin-keys", "Ed25519 public keys in Base64") {
            let Some(text) = self.line(node, "an Ed25519 public key in Base64") else { continue };
            match STANDARD.decode(text).map(<[u8; 32]>::try_from) {
                Ok(Ok(key)) => keys.push((text.to_owned(), key)),
                _ => {
                    let message = format!("{} is not an Ed25519 public key", quoted(text));
                    let help = "32 bytes in Base64, as `witgate plugin sign` prints them";
                    self.error(node.at, message, help.to_owned());
                }
            }
        }
        keys
    }

    /// Holds a stanza against what its component says about itself.
    fn own_words(&mut self, entry: &'a Entry, plugin: &PluginConfig) {
        let at = child(&entry.node, "component").map_or(entry.at, |node| node.at);
        let manifest = match (self.read_manifest)(&plugin.component) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return,
            Err(report) => {
                let first = report.diagnostics.first();
                let why = first.map(|d| format!("line {}: {}", d.line, d.message));
                let message = format!(
                    "what the component says about itself is wrong: {}",
                    why.unwrap_or_default()
                );
                let help = "mend its plugin.yaml and put it in with `witgate plugin embed`";
                self.error(at, message, help.to_owned());
                return;
            }
        };
        if let Some(schema) = &manifest.config {
            self.conforms(schema, child(&entry.node, "config"), entry.at);
        }
        for (name, wanted) in &manifest.secrets {
            if wanted.required && !plugin.secrets.contains_key(name) {
                let message = format!("the plugin needs the secret `{name}`");
                let what = wanted.description.as_ref().map(|d| format!(" ({d})"));
                let what = what.unwrap_or_default();
                let help = format!("add `secrets: {{{name}: {{env: VARIABLE}}}}`{what}");
                self.error(entry.at, message, help);
            }
        }
        let secrets = child(&entry.node, "secrets").map(|node| &node.value);
        if let Some(Value::Map(secrets)) = secrets {
            for secret in secrets.iter().filter(|s| !manifest.secrets.contains_key(&s.key)) {
                let message = format!("the plugin has no secret {}", quoted(&secret.key));
                let help = match nearest(&secret.key, manifest.secrets.keys().map(String::as_str)) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "remove it".to_owned(),
                };
                self.warning(secret.at, message, help);
            }
        }
        let is_solver = manifest.worlds.iter().any(|world| world == "dns-solver");
        if plugin.needs_guard && is_solver && manifest.guard.is_none() {
            let message = "the solver has no guard, and `unguarded-solvers: refuse` wants one";
            let help = "take a version whose plugin.yaml has a `guard`, or write `unguarded-solvers: warn`: \
                        it may then change whatever its grants and secrets reach";
            self.error(at, message, help.to_owned());
        }
        if plugin.grants.http.is_empty() && !manifest.grants.http.is_empty() {
            let message = "the plugin sends requests, and none is granted";
            let all = manifest.grants.http.join("\", \"");
            self.warning(entry.at, message, format!("it asks for `grants: {{http: [\"{all}\"]}}`"));
        }
        self.ungranted(entry, "request", &manifest.grants.request, &plugin.grants.request);
        self.ungranted(entry, "response", &manifest.grants.response, &plugin.grants.response);
        self.manifests.insert(&entry.key, manifest);
    }

    /// Warns about fields that the component asks for and the stanza does not grant.
    fn ungranted(&mut self, entry: &Entry, side: &str, wanted: &WantedHead, given: &HeadGrant) {
        let uses = [("read", &wanted.read, &given.read), ("set", &wanted.set, &given.set)];
        for (verb, wanted, given) in uses {
            let Some(wanted) = wanted else { continue };
            let missing: Vec<&str> =
                wanted.named.iter().filter(|n| !given.covers(n)).map(String::as_str).collect();
            if missing.is_empty() {
                continue;
            }
            let all: Vec<String> = given
                .words()
                .chain(missing.iter().copied())
                .map(|word| format!("\"{word}\""))
                .collect();
            let message = format!(
                "the plugin asks to {verb} {} of a {side}, which is not granted",
                list(&missing)
            );
            let help =
                format!("to allow it: `grants: {{{side}: {{{verb}: [{}]}}}}`", all.join(", "));
            self.warning(entry.at, message, help);
        }
        if let Some(wanted) = wanted.body.filter(|wanted| *wanted > given.body) {
            let verb = wanted.word();
            let message =
                format!("the plugin asks to {verb} the body of a {side}, which is not granted");
            let help = format!("to allow it: `grants: {{{side}: {{body: {verb}}}}}`");
            self.warning(entry.at, message, help);
        }
    }

    fn conforms(&mut self, schema: &serde_json::Value, config: Option<&'a Node>, key: Place) {
        for problem in conform::problems(schema, config, key) {
            self.error(problem.at, problem.message, problem.help);
        }
    }

    fn plugin_limits(&mut self, fields: &Fields<'a>) -> PluginLimits {
        let limits = self.part(fields, "limits");
        let wait = |c: &mut Self, key| {
            c.with_default(&limits, key, |c, n| c.duration(n, false)).unwrap_or_default()
        };
        let size = |c: &mut Self, key, min, max| {
            let size = c.with_default(&limits, key, |c, n| c.size(n, min, max));
            usize::try_from(size.unwrap_or_default()).unwrap_or(usize::MAX)
        };
        let count = |c: &mut Self, key, max| {
            let count = c.with_default(&limits, key, |c, n| c.number(n, 0, max));
            u32::try_from(count.unwrap_or_default()).unwrap_or(u32::MAX)
        };
        PluginLimits {
            deadline: wait(self, "deadline"),
            solver_deadline: wait(self, "solver-deadline"),
            // One Wasm page at least; 32-bit memories end at 4 GiB.
            memory_bytes_max: size(self, "memory", 64 << 10, 4 << 30),
            output_bytes_max: size(self, "output", 1 << 10, 1 << 30),
            body_growth_bytes_max: self
                .with_default(&limits, "body-growth", |c, n| c.size(n, 0, 1 << 40))
                .unwrap_or_default(),
            state_bytes_max: size(self, "state", 0, 1 << 30),
            requests_max: count(self, "requests", 10_000),
            log_lines_per_second_max: count(self, "log-lines", 1_000_000),
        }
    }

    fn secrets(&mut self, fields: &Fields<'a>, grants: &Grants) -> BTreeMap<String, Secret> {
        let mut secrets = BTreeMap::new();
        for entry in self.named(fields, "secrets") {
            let Some(source) = self.secret(&entry.node, "plugins.*.secrets.*") else { continue };
            let mut hosts = Vec::new();
            if let Some(node) = child(&entry.node, "hosts") {
                for host in self.list(node, "host names") {
                    let Some(text) = self.line(host, "a host name") else { continue };
                    let text = text.to_ascii_lowercase();
                    let bare = text.strip_prefix("*.").unwrap_or(&text);
                    if host_and_port(bare, 443).is_none_or(|(h, _)| h != bare) {
                        let message = format!("{} is not a host name", quoted(&text));
                        let help = "a host alone, without scheme, port or path".to_owned();
                        self.error(host.at, message, help);
                        continue;
                    }
                    if !grants.http.iter().any(|g| hosts_meet(&g.host, &text)) {
                        let message = format!(
                            "the secret is bound to {}, which no grant reaches",
                            quoted(&text)
                        );
                        let help = format!("add `https://{text}/*` to `grants: {{http: […]}}`");
                        self.warning(host.at, message, help);
                    }
                    hosts.push(text);
                }
            }
            if grants.http.is_empty() && !grants.hmac.contains(&entry.key) {
                let message = format!(
                    "the secret {} can be sent nowhere: the plugin has no grants",
                    quoted(&entry.key)
                );
                let help =
                    "add `grants: {http: [\"https://HOST/PATH*\"]}` to the plugin".to_owned();
                self.warning(entry.at, message, help);
            }
            secrets.insert(entry.key.clone(), Secret { source, hosts });
        }
        let hmac = fields.get("grants").and_then(|grants| child(grants, "hmac"));
        if let Some(Node { value: Value::List(names), .. }) = hmac {
            for node in names {
                let Value::Text(name) = &node.value else { continue };
                if secrets.contains_key(name) {
                    continue;
                }
                let message = format!("there is no secret {} in this plugin", quoted(name));
                let help = match nearest(name, secrets.keys().map(String::as_str)) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("add `secrets: {{{name}: {{env: VARIABLE}}}}`"),
                };
                self.error(node.at, message, help);
            }
        }
        secrets
    }

    fn grants(&mut self, fields: &Fields<'a>) -> Grants {
        let grants = self.part(fields, "grants");
        let mut http = Vec::new();
        for node in self.list_of(&grants, "http", "patterns such as https://api.example.com/*") {
            let Some(text) = self.line(node, "a pattern such as https://api.example.com/*") else {
                continue;
            };
            match http_grant(text) {
                Ok(grant) => http.push(grant),
                Err((message, help)) => self.error(node.at, message, help),
            }
        }
        let request = self.head_grant(&grants, "request", &[":method", ":path", ":authority"]);
        let response = self.head_grant(&grants, "response", &[":status"]);
        let hmac = self.list_of(&grants, "hmac", "names of secrets");
        let hmac = hmac.iter().filter_map(|n| self.line(n, "the name of a secret"));
        let hmac = hmac.map(str::to_owned).collect();
        Grants { http, hmac, request, response }
    }

    fn head_grant(&mut self, grants: &Fields<'a>, side: &str, parts: &[&str]) -> HeadGrant {
        let head = self.part(grants, side);
        let read = self.with_default(&head, "read", |c, n| Some(c.field_grant(n, &[])));
        let set = self.with_default(&head, "set", |c, n| Some(c.field_grant(n, parts)));
        let body = self.with_default(&head, "body", |c, n| c.word(n, &BodyGrant::WORDS));
        HeadGrant {
            read: read.unwrap_or_default(),
            set: set.unwrap_or_default(),
            body: body.unwrap_or_default(),
        }
    }

    fn field_grant(&mut self, node: &Node, parts: &[&str]) -> FieldGrant {
        let mut grant = FieldGrant { others: false, named: Vec::new() };
        for node in self.list(node, "names of header fields") {
            let Some(text) = self.line(node, "the name of a header field") else { continue };
            match field_name(text, parts) {
                Ok(None) => grant.others = true,
                Ok(Some(name)) => grant.named.push(name),
                Err((message, help)) => self.error(node.at, message, help),
            }
        }
        grant
    }

    /// A plugin's name, or `{plugin: NAME, config: …}`.
    pub(super) fn plugin_use(&mut self, node: &'a Node, role: Role) -> Option<PluginUse> {
        let (name_node, own) = match &node.value {
            Value::Text(_) => (node, None),
            Value::Map(_) => {
                let fields = self.fields(node, "sites[].router")?;
                (self.required(&fields, "plugin")?, fields.get("config"))
            }
            other => {
                let message = format!("expected the name of a plugin, found {}", other.name());
                self.error(node.at, message, "or {plugin: NAME, config: {…}}".to_owned());
                return None;
            }
        };
        let name = self.plugin_reference(name_node, role)?;
        let config = match own {
            Some(node) => {
                let schema = self.manifests.get(name).and_then(|m| m.config.clone());
                if let Some(schema) = schema {
                    self.conforms(&schema, Some(node), node.at);
                }
                node.value.to_json()
            }
            None => self.plugin_configs.get(name).cloned().unwrap_or_default(),
        };
        Some(PluginUse { plugin: name.to_owned(), config })
    }

    /// The name of a plugin that is used with its own configuration alone.
    pub(super) fn plugin_named(&mut self, node: &'a Node, role: Role) -> Option<String> {
        self.plugin_reference(node, role).map(str::to_owned)
    }

    /// The name of a plugin that exists.
    pub(super) fn plugin_reference(&mut self, node: &'a Node, role: Role) -> Option<&'a str> {
        let name = self.line(node, "the name of a plugin")?;
        if name.contains('/') || name.ends_with(".wasm") {
            let message = format!("{} is a file; plugins are named", quoted(name));
            let help =
                format!("declare it: `plugins: {{NAME: {{component: {name}}}}}`, and use NAME");
            self.error(node.at, message, help);
            return None;
        }
        if !self.is_plugin(node, name) {
            return None;
        }
        self.uses.push(Use { plugin: name, role, at: node.at });
        Some(name)
    }
}

/// Whether a granted host pattern and a secret's host pattern can name the same host.
fn hosts_meet(grant: &str, host: &str) -> bool {
    let within = |pattern: &str, name: &str| {
        let suffix = pattern.strip_prefix('*').filter(|s| s.starts_with('.'));
        suffix.is_some_and(|suffix| name.len() > suffix.len() && name.ends_with(suffix))
    };
    grant == host || within(grant, host) || within(host, grant)
}

/// Reads one name of a list of fields; none for `*`. `parts` are the other parts of the head that may
/// be named.
pub(in super::super) fn field_name(
    text: &str,
    parts: &[&str],
) -> Result<Option<String>, (String, Option<String>)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if text == "*" {
        return Ok(None);
    }
    if text.starts_with(':') {
        return match parts.contains(&text) {
            true => Ok(Some(text.to_owned())),
            false => {
                let message =
                    format!("{} is no part of a head that can be named here", quoted(text));
                let help = match parts {
                    [] => "everything but fields can always be read".to_owned(),
                    parts => format!("there are: {}", parts.join(", ")),
                };
                Err((message, Some(help)))
            }
        };
    }
    if text.is_empty() || !text.chars().all(is_token) || text.contains('*') {
        let message = format!("{} is not the name of a header field", quoted(text));
        return Err((message, Some("a name, such as x-tenant, or * alone for all".to_owned())));
    }
    Ok(Some(text.to_ascii_lowercase()))
}

/// Reads one pattern of `grants.http`.
pub(in super::super) fn http_grant(text: &str) -> Result<HttpGrant, (String, Option<String>)> {
    let wrong = |message: String, help: String| Err((message, Some(help)));
    let (methods, url) = match text.rsplit_once(' ') {
        Some((methods, url)) => (methods.trim(), url),
        None => ("", text),
    };
    let methods: Vec<String> = match methods {
        "" => Vec::new(),
        listed => listed.split(',').map(|m| m.trim().to_owned()).collect(),
    };
    if let Some(method) = methods.iter().find(|m| !is_method(m)) {
        let help = match method.is_empty() {
            true => "write `GET,POST https://host/path*`".to_owned(),
            false => format!("methods are in capitals: `{}`", method.to_ascii_uppercase()),
        };
        return wrong(format!("{} is not a method", quoted(method)), help);
    }
    if url.contains('@') {
        let message = "a pattern cannot hold a user or password".to_owned();
        return wrong(message, "secrets belong under `secrets:`".to_owned());
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        let message = format!("the pattern {} has no scheme", quoted(url));
        return wrong(message, format!("did you mean `https://{url}`?"));
    };
    let default_port = match scheme {
        "https" => 443,
        "http" => 80,
        other => {
            let near = nearest(other, ["https", "http"]).unwrap_or("https");
            let message = format!("{} is neither https nor http", quoted(other));
            return wrong(message, format!("did you mean `{near}://{rest}`?"));
        }
    };
    let Some(slash) = rest.find('/') else {
        let message = format!("the pattern {} has no path", quoted(url));
        return wrong(message, format!("write `{scheme}://{rest}/*` for every path of that host"));
    };
    let (authority, path) = rest.split_at_checked(slash).unwrap_or((rest, "/"));
    if path.contains(['?', '#']) {
        let message = "a pattern ends with the path; queries are always allowed".to_owned();
        let path = path.split(['?', '#']).next().unwrap_or_default();
        return wrong(message, format!("did you mean `{scheme}://{authority}{path}`?"));
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        let help = "write the path that is meant".to_owned();
        return wrong(format!("the path {} has a dot segment", quoted(path)), help);
    }
    // Inside, `*` is a whole segment; at the end it may follow anything.
    let inside = path.strip_suffix('*').unwrap_or(path);
    if inside.split('/').any(|segment| segment.contains('*') && segment != "*") {
        let message = format!("in {} a `*` is part of a segment", quoted(path));
        let help = "`*` is a whole segment (/zones/*/records) or the end (/zones*)".to_owned();
        return wrong(message, help);
    }
    let wildcard = authority.strip_prefix("*.");
    let parsed = host_and_port(wildcard.unwrap_or(authority), default_port);
    let Some((host, port)) = parsed else {
        let message = format!("{} is not a host", quoted(authority));
        let help = match authority.contains('*') {
            true => "a `*` can stand for the first label only: https://*.example.com/*".to_owned(),
            false => "as in https://api.example.com/*".to_owned(),
        };
        return wrong(message, help);
    };
    if wildcard.is_some() && !host.contains('.') {
        let message = format!("{} would take every host of a whole domain", quoted(authority));
        return wrong(message, "name at least two labels: https://*.example.com/*".to_owned());
    }
    let host = if wildcard.is_some() { format!("*.{host}") } else { host };
    Ok(HttpGrant {
        pattern: text.to_owned(),
        methods,
        scheme: scheme.to_owned(),
        host,
        port,
        path: path.to_owned(),
    })
}

/// Whether a text is a method in capitals.
pub(super) fn is_method(text: &str) -> bool {
    !text.is_empty() && text.len() <= 32 && text.chars().all(|c| c.is_ascii_uppercase() || c == '-')
}
