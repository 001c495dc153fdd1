//! A configuration written out with every default, as `witgate check --full` prints it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

use super::check::known_name;
use super::units::{duration_text, size_text};
use super::{
    AccessLog, Balance, Certificates, Challenge, Config, Eab, FieldGrant, HeadGrant, Issuer,
    Limits, Listen, LogFormat, OnError, PathMatch, PluginConfig, PluginUse, Route, RouteAction,
    Scheme, Secret, SecretRef, Site, SiteCertificate, Upstream,
};

/// The configuration as YAML, every default filled in. Secrets written in the file appear as
/// `[secret]`; the rest can be loaded again and means the same.
pub fn normal_form(config: &Config) -> String {
    let tree = map([
        ("listen", list(config.listen.iter().map(listen))),
        ("certificates", certificates(&config.certificates)),
        ("sites", list(config.sites.iter().map(|s| site(s, &config.plugins)))),
        (
            "upstreams",
            names(config.upstreams.iter().filter(|(n, u)| !is_anonymous(n, u)), upstream),
        ),
        ("plugins", names(config.plugins.iter(), plugin)),
        (
            "log",
            map([
                ("level", text(&config.log.level)),
                (
                    "access",
                    text(match config.log.access {
                        AccessLog::Json => "json",
                        AccessLog::Text => "text",
                        AccessLog::Off => "off",
                    }),
                ),
                (
                    "format",
                    text(match config.log.format {
                        LogFormat::Text => "text",
                        LogFormat::Json => "json",
                    }),
                ),
            ]),
        ),
        ("store", path(&config.store)),
        ("workers", config.workers.map_or(text("auto"), |n| int(n as u64))),
        ("limits", limits(&config.limits)),
        ("plugin-keys", list(config.plugin_keys.iter().map(text))),
        ("trusted-proxies", list(config.trusted_proxies.iter().map(|n| text(n.to_string())))),
        ("admin", config.admin.as_deref().map_or(text("off"), path)),
    ]);
    // Nothing in the tree can fail to be written; if the library disagrees, say so in its place.
    serde_yaml::to_string(&tree).unwrap_or_else(|error| format!("# cannot be written: {error}\n"))
}

fn listen(l: &Listen) -> Tree {
    let address = text(l.to_string());
    match l.http3 == (l.scheme == Scheme::Https) {
        true => address,
        false => map([("address", address), ("http3", Tree::Bool(l.http3))]),
    }
}

fn certificates(c: &Certificates) -> Tree {
    let file = |f: &super::CertificateFiles| {
        map([("certificate", path(&f.certificate)), ("key", path(&f.key))])
    };
    let mut fields = Vec::new();
    fields.extend(c.contact.as_ref().map(|contact| ("contact", text(contact))));
    fields.push(("issuers", list(c.issuers.iter().map(issuer))));
    fields.push(("challenge", challenge(&c.challenge)));
    fields.push(("files", list(c.files.iter().map(file))));
    fields.extend(c.default.as_ref().map(|name| ("default", text(name.as_str()))));
    fields.push(("resolvers", list(c.resolvers.iter().map(|r| text(r.to_string())))));
    let propagation = map([
        ("check", Tree::Bool(c.propagation.check)),
        ("delay", wait(c.propagation.delay)),
        ("timeout", wait(c.propagation.timeout)),
        ("port", int(c.propagation.port.into())),
    ]);
    fields.push(("propagation", propagation));
    map(fields)
}

fn issuer(issuer: &Issuer) -> Tree {
    if let Some(name) = known_name(issuer) {
        return text(name);
    }
    let Issuer::Acme(acme) = issuer else { return text("local") };
    let mut fields = vec![("directory", text(&acme.directory)), ("name", text(&acme.name))];
    fields.extend(acme.eab.as_ref().map(|e| ("eab", eab(e))));
    fields.extend(acme.roots.as_deref().map(|r| ("roots", path(r))));
    fields.extend(acme.profile.as_ref().map(|p| ("profile", text(p))));
    map(fields)
}

fn eab(eab: &Eab) -> Tree {
    map([("kid", text(&eab.kid)), ("key", source(&eab.key, None))])
}

fn challenge(challenge: &Challenge) -> Tree {
    match challenge {
        Challenge::Auto => text("auto"),
        Challenge::Http01 => text("http-01"),
        Challenge::TlsAlpn01 => text("tls-alpn-01"),
        Challenge::Dns01(plugin) => map([("dns-01", text(plugin))]),
    }
}

fn site(site: &Site, plugins: &BTreeMap<String, PluginConfig>) -> Tree {
    let certificate = match &site.certificate {
        SiteCertificate::Files => text("files"),
        SiteCertificate::Issued { issuers, challenge: c } => {
            map([("issuers", list(issuers.iter().map(issuer))), ("challenge", challenge(c))])
        }
    };
    let mut fields = vec![
        ("hosts", list(site.hosts.iter().map(|h| text(h.to_string())))),
        ("certificate", certificate),
    ];
    fields.extend(site.router.as_ref().map(|r| ("router", plugin_use(r, plugins))));
    fields.push(("filters", list(site.filters.iter().map(|f| plugin_use(f, plugins)))));
    fields.push(("routes", list(site.routes.iter().map(|r| route(r, plugins)))));
    map(fields)
}

fn plugin_use(use_: &PluginUse, plugins: &BTreeMap<String, PluginConfig>) -> Tree {
    match plugins.get(&use_.plugin).is_some_and(|p| p.config == use_.config) {
        true => text(&use_.plugin),
        false => map([("plugin", text(&use_.plugin)), ("config", Tree::Json(use_.config.clone()))]),
    }
}

fn route(route: &Route, plugins: &BTreeMap<String, PluginConfig>) -> Tree {
    let place = match &route.path {
        PathMatch::Prefix(path) => ("path", text(path)),
        PathMatch::Exact(path) => ("exact", text(path)),
    };
    let action = match &route.action {
        RouteAction::Upstream(name) => ("upstream", text(name)),
        RouteAction::Redirect { status, to } => {
            ("redirect", map([("status", int((*status).into())), ("to", text(to))]))
        }
        RouteAction::Respond { status, body, content_type } => {
            let status = ("status", int((*status).into()));
            let content_type = ("content-type", text(content_type));
            ("respond", map([status, ("body", text(body)), content_type]))
        }
    };
    map([
        place,
        ("methods", list(route.methods.iter().map(text))),
        ("headers", pairs(&route.headers)),
        ("query", pairs(&route.query)),
        ("filters", list(route.filters.iter().map(|f| plugin_use(f, plugins)))),
        action,
    ])
}

fn pairs(pairs: &[(String, Option<String>)]) -> Tree {
    let value = |v: &Option<String>| v.as_ref().map_or(Tree::Null, text);
    Tree::Map(pairs.iter().map(|(name, v)| (name.clone(), value(v))).collect())
}

/// Whether an upstream was given as a URL where it is used: it is written there alone.
fn is_anonymous(name: &str, upstream: &Upstream) -> bool {
    matches!(upstream.servers.as_slice(), [server] if server.to_string() == name)
}

fn upstream(u: &Upstream) -> Tree {
    let balance = match u.balance {
        Balance::P2c => "p2c",
        Balance::RoundRobin => "round-robin",
        Balance::LeastConnections => "least-connections",
    };
    let mut fields = vec![
        ("servers", list(u.servers.iter().map(|s| text(s.to_string())))),
        ("balance", text(balance)),
    ];
    if let Some(health) = &u.health {
        let health = map([
            ("path", text(&health.path)),
            ("interval", wait(health.interval)),
            ("timeout", wait(health.timeout)),
            ("unhealthy-after", int(health.unhealthy_after.into())),
            ("healthy-after", int(health.healthy_after.into())),
        ]);
        fields.push(("health", health));
    }
    let timeouts = map([
        ("connect", wait(u.timeouts.connect)),
        ("response", wait(u.timeouts.response)),
        ("idle", wait(u.timeouts.idle)),
        ("keepalive", wait(u.timeouts.keepalive)),
    ]);
    fields.push(("timeouts", timeouts));
    fields.extend(u.roots.as_deref().map(|r| ("roots", path(r))));
    fields.extend(u.server_name.as_ref().map(|n| ("server-name", text(n.as_str()))));
    fields.push(("preserve-host", Tree::Bool(u.preserve_host)));
    map(fields)
}

fn plugin(p: &PluginConfig) -> Tree {
    let on_error = match p.on_error {
        OnError::FailClosed => "fail-closed",
        OnError::FailOpen => "fail-open",
    };
    let bytes = |n: usize| text(size_text(n as u64));
    let limits = map([
        ("deadline", wait(p.limits.deadline)),
        ("solver-deadline", wait(p.limits.solver_deadline)),
        ("memory", bytes(p.limits.memory_bytes_max)),
        ("output", bytes(p.limits.output_bytes_max)),
        ("state", bytes(p.limits.state_bytes_max)),
        ("requests", int(p.limits.requests_max.into())),
        ("log-lines", int(p.limits.log_lines_per_second_max.into())),
    ]);
    let mut fields = vec![("component", path(&p.component))];
    if !p.config.is_null() {
        fields.push(("config", Tree::Json(p.config.clone())));
    }
    fields.push(("on-error", text(on_error)));
    fields.push(("limits", limits));
    let secret = |s: &Secret| source(&s.source, Some(&s.hosts));
    fields.push(("secrets", names(p.secrets.iter(), secret)));
    let head = |grant: &HeadGrant| {
        let words = |fields: &FieldGrant| list(fields.words().map(text));
        map([("read", words(&grant.read)), ("set", words(&grant.set))])
    };
    let grants = map([
        ("http", list(p.grants.http.iter().map(|g| text(&g.pattern)))),
        ("request", head(&p.grants.request)),
        ("response", head(&p.grants.response)),
    ]);
    fields.push(("grants", grants));
    map(fields)
}

fn source(source: &SecretRef, hosts: Option<&[String]>) -> Tree {
    let from = match source {
        SecretRef::Env(name) => ("env", text(name)),
        SecretRef::File(file) => ("file", path(file)),
        SecretRef::Credential(name) => ("credential", text(name)),
        SecretRef::Inline(_) => return text("[secret]"),
    };
    let mut fields = vec![from];
    fields.extend(hosts.map(|hosts| ("hosts", list(hosts.iter().map(text)))));
    map(fields)
}

fn limits(l: &Limits) -> Tree {
    let body = l.request_body_bytes_max.map_or(text("off"), |n| text(size_text(n)));
    map([
        ("handshake", wait(l.handshake)),
        ("request-head", wait(l.request_head)),
        ("request-body-idle", wait(l.request_body_idle)),
        ("response-idle", wait(l.response_idle)),
        ("keepalive", wait(l.keepalive)),
        ("drain", wait(l.drain)),
        ("request-head-size", text(size_text(l.request_head_bytes_max as u64))),
        ("request-fields", int(l.request_fields_max as u64)),
        ("request-body", body),
        ("connections", int(l.connections_max as u64)),
        ("streams", int(l.streams_max.into())),
    ])
}

/// What is written, in the order in which it is written.
enum Tree {
    Null,
    Bool(bool),
    Int(u64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
    /// A plugin's own configuration.
    Json(serde_json::Value),
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(b) => serializer.serialize_bool(*b),
            Self::Int(n) => serializer.serialize_u64(*n),
            Self::Text(t) => serializer.serialize_str(t),
            Self::List(list) => {
                let mut seq = serializer.serialize_seq(Some(list.len()))?;
                list.iter().try_for_each(|item| seq.serialize_element(item))?;
                seq.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
            Self::Json(value) => value.serialize(serializer),
        }
    }
}

fn text(text: impl AsRef<str>) -> Tree {
    Tree::Text(text.as_ref().to_owned())
}

fn int(number: u64) -> Tree {
    Tree::Int(number)
}

fn wait(duration: Duration) -> Tree {
    Tree::Text(duration_text(duration))
}

fn path(path: &Path) -> Tree {
    Tree::Text(path.display().to_string())
}

fn list(items: impl Iterator<Item = Tree>) -> Tree {
    Tree::List(items.collect())
}

fn map(fields: impl IntoIterator<Item = (&'static str, Tree)>) -> Tree {
    Tree::Map(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn names<'a, T: 'a>(
    entries: impl Iterator<Item = (&'a String, &'a T)>,
    write: impl Fn(&'a T) -> Tree,
) -> Tree {
    Tree::Map(entries.map(|(name, value)| (name.clone(), write(value))).collect())
}
