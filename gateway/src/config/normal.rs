//! A configuration written out with every default, as `witgate check --full` prints it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

use super::check::known_name;
use super::policies::{BasicAuth, Security, Setting};
use super::units::{duration_text, size_text};
use super::{
    AccessLog, Balance, Certificates, Challenge, ClientCertificateMode, Config, Eab, FieldGrant,
    FixedResponse, ForwardCertificate, HashBy, HeadGrant, HealthCheck, Hook, HookBy, Issuer,
    KeyKinds, Limits, Listen, Log, LogFormat, OnError, Otlp, PathMatch, Paths, PluginConfig,
    PluginUse, Policies, ProxyVersion, Route, RouteAction, Scheme, Secret, SecretRef, Sharing,
    Site, SiteCertificate, SplitBy, Upstream,
};

/// The configuration as YAML, every default filled in. Secrets written in the file appear as
/// `[secret]`; the rest can be loaded again and means the same.
pub fn normal_form(config: &Config) -> String {
    let listening = [("listen", list(config.listen.iter().map(listen)))];
    let tls = config.tickets.as_ref().map(|t| ("tls", map([("tickets", tickets(t))])));
    let hello = config.client_hello.as_ref();
    let hello = hello.map(|plugin| ("client-hello", plugin_use(plugin, &config.plugins)));
    let tree = map(listening
        .into_iter()
        .chain(tls)
        .chain([
            ("certificates", certificates(&config.certificates)),
            ("sites", list(config.sites.iter().map(|s| site(s, &config.plugins)))),
            (
                "upstreams",
                names(config.upstreams.iter().filter(|(n, u)| !is_anonymous(n, u)), upstream),
            ),
            ("plugins", names(config.plugins.iter(), plugin)),
            ("log", log(&config.log)),
            ("store", store(config)),
            ("workers", config.workers.map_or(text("auto"), |n| int(n as u64))),
            ("limits", limits(&config.limits)),
            ("plugin-keys", list(config.plugin_keys.iter().map(text))),
            ("unguarded-solvers", text(if config.needs_guards { "refuse" } else { "warn" })),
            ("trusted-proxies", list(config.trusted_proxies.iter().map(|n| text(n.to_string())))),
            ("admin", config.admin.as_deref().map_or(text("off"), path)),
        ])
        .chain(hello));
    // Nothing in the tree can fail to be written; if the library disagrees, say so in its place.
    serde_yaml::to_string(&tree).unwrap_or_else(|error| format!("# cannot be written: {error}\n"))
}

fn log(log: &Log) -> Tree {
    let access = match log.access {
        AccessLog::Json => "json",
        AccessLog::Text => "text",
        AccessLog::Off => "off",
    };
    let format = match log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let mut fields =
        vec![("level", text(&log.level)), ("access", text(access)), ("format", text(format))];
    if !log.sinks.is_empty() {
        fields.push(("sinks", list(log.sinks.iter().map(text))));
    }
    fields.extend(log.otlp.as_ref().map(|otlp| ("otlp", self::otlp(otlp))));
    map(fields)
}

fn otlp(otlp: &Otlp) -> Tree {
    let mut fields = vec![("endpoint", text(&otlp.endpoint))];
    if !otlp.headers.is_empty() {
        let headers = otlp.headers.iter().map(|(name, from)| (name.clone(), source(from, None)));
        fields.push(("headers", Tree::Map(headers.collect())));
    }
    fields.push(("share", text(percent(otlp.share))));
    fields.push(("service", text(&otlp.service)));
    map(fields)
}

/// Parts of ten thousand.
fn percent(share: u16) -> String {
    format!("{}.{:02}%", share / 100, share % 100)
}

fn listen(l: &Listen) -> Tree {
    let address = text(l.to_string());
    let mut fields = Vec::new();
    if l.http3 != (l.scheme == Scheme::Https) {
        fields.push(("http3", Tree::Bool(l.http3)));
    }
    if !l.proxy_protocol.is_empty() {
        let networks = l.proxy_protocol.iter().map(|n| text(n.to_string()));
        fields.push(("proxy-protocol", list(networks)));
    }
    match fields.is_empty() {
        true => address,
        false => map(std::iter::once(("address", address)).chain(fields)),
    }
}

fn store(config: &Config) -> Tree {
    let Sharing { is_shared, seal } = &config.sharing;
    if !is_shared && seal.is_none() {
        return path(&config.store);
    }
    let mut fields = vec![("path", path(&config.store)), ("shared", Tree::Bool(*is_shared))];
    fields.extend(seal.as_ref().map(|seal| ("seal", source(seal, None))));
    map(fields)
}

fn tickets(t: &super::Tickets) -> Tree {
    map([("secret", source(&t.secret, None)), ("rotation", wait(t.rotation))])
}

fn certificates(c: &Certificates) -> Tree {
    let file = |f: &super::CertificateFiles| {
        let pair = [("certificate", path(&f.certificate)), ("key", path(&f.key))];
        map(pair.into_iter().chain(f.ocsp.as_deref().map(|ocsp| ("ocsp", path(ocsp)))))
    };
    let mut fields = Vec::new();
    fields.extend(c.contact.as_ref().map(|contact| ("contact", text(contact))));
    fields.push(("issuers", list(c.issuers.iter().map(issuer))));
    fields.push(("challenge", challenge(&c.challenge)));
    fields.push(("files", list(c.files.iter().map(file))));
    fields.extend(c.default.as_ref().map(|name| ("default", text(name.as_str()))));
    fields.push(("resolvers", list(c.resolvers.iter().map(|r| text(r.to_string())))));
    fields.extend(c.resolver_roots.as_deref().map(|file| ("resolver-roots", path(file))));
    let propagation = map([
        ("check", Tree::Bool(c.propagation.check)),
        ("delay", wait(c.propagation.delay)),
        ("timeout", wait(c.propagation.timeout)),
        ("port", int(c.propagation.port.into())),
    ]);
    fields.push(("propagation", propagation));
    if !c.updates.is_empty() {
        let all = c.updates.iter().map(|(name, server)| (name.clone(), update_server(server)));
        fields.push(("updates", Tree::Map(all.collect())));
    }
    let keys = match c.keys {
        KeyKinds::Ecdsa => "ecdsa",
        KeyKinds::Both => "both",
    };
    fields.push(("keys", text(keys)));
    let domains = c.local_domains.iter().map(|domain| text(domain.to_string()));
    fields.push(("local-domains", list(domains)));
    fields.extend(c.local_acme.as_ref().map(|server| {
        let server = map([
            ("listen", text(server.listen.to_string())),
            ("http-port", int(server.http_port.into())),
            ("tls-port", int(server.tls_port.into())),
        ]);
        ("local-acme", server)
    }));
    fields.push(("hooks", list(c.hooks.iter().map(hook))));
    fields.extend(c.policy.as_ref().map(|plugin| ("policy", text(plugin))));
    fields.extend(c.on_demand.as_ref().map(|d| {
        let who = [("ask", &d.ask), ("policy", &d.policy)].into_iter();
        let who = who.filter_map(|(key, value)| Some((key, text(value.as_ref()?))));
        let terms = map(who.chain([
            ("per-minute", int(d.per_minute as u64)),
            ("per-domain", int(d.per_domain as u64)),
            ("wait", wait(d.wait)),
            ("remember", wait(d.remember)),
        ]));
        ("on-demand", terms)
    }));
    map(fields)
}

fn hook(hook: &Hook) -> Tree {
    let by = match &hook.by {
        HookBy::Command(words) => ("command", list(words.iter().map(text))),
        HookBy::Url(url) => ("url", text(url)),
        HookBy::Plugin(plugin) => ("plugin", text(plugin)),
    };
    map([("on", list(hook.on.iter().map(text))), by])
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
    fields.extend(acme.preferred_chain.as_ref().map(|p| ("preferred-chain", text(p))));
    fields.extend(acme.staging.as_ref().map(|p| ("staging", text(p))));
    map(fields)
}

fn eab(eab: &Eab) -> Tree {
    map([("kid", text(&eab.kid)), ("key", source(&eab.key, None))])
}

fn update_server(server: &super::Rfc2136) -> Tree {
    let mut fields = vec![("server", text(&server.server))];
    if let Some(key) = &server.key {
        fields.push(("key", text(&key.name)));
        fields.push(("algorithm", text(key.algorithm.name())));
        fields.push(("secret", source(&key.secret, None)));
    }
    fields.push(("zones", list(server.zones.iter().map(text))));
    map(fields)
}

fn challenge(challenge: &Challenge) -> Tree {
    match challenge {
        Challenge::Auto => text("auto"),
        Challenge::Http01 => text("http-01"),
        Challenge::TlsAlpn01 => text("tls-alpn-01"),
        Challenge::DnsPersist01 => text("dns-persist-01"),
        Challenge::Dns01(plugin) => map([("dns-01", text(plugin))]),
        Challenge::DnsAccount01(plugin) => map([("dns-account-01", text(plugin))]),
    }
}

fn site(site: &Site, plugins: &BTreeMap<String, PluginConfig>) -> Tree {
    if let Some(upstream) = &site.passthrough {
        let hosts = list(site.hosts.iter().map(|h| text(h.to_string())));
        return map([("hosts", hosts), ("passthrough", text(upstream))]);
    }
    let certificate = match &site.certificate {
        SiteCertificate::Files => text("files"),
        SiteCertificate::Issued { issuers, challenge: c, is_on_demand } => {
            let mut fields =
                vec![("issuers", list(issuers.iter().map(issuer))), ("challenge", challenge(c))];
            fields.extend(is_on_demand.then_some(("on-demand", Tree::Bool(true))));
            map(fields)
        }
    };
    let mut fields = vec![
        ("hosts", list(site.hosts.iter().map(|h| text(h.to_string())))),
        ("certificate", certificate),
    ];
    fields.extend(site.client_certificates.as_ref().map(|c| {
        let mode = match c.mode {
            ClientCertificateMode::Require => "require",
            ClientCertificateMode::Request => "request",
        };
        let forward = match c.forward {
            ForwardCertificate::Off => "off",
            ForwardCertificate::Leaf => "leaf",
            ForwardCertificate::Chain => "chain",
        };
        let files = |files: &[std::path::PathBuf]| list(files.iter().map(|file| path(file)));
        let tree = map([
            ("mode", text(mode)),
            ("roots", files(&c.roots)),
            ("revoked", files(&c.revoked)),
            ("forward", text(forward)),
        ]);
        ("client-certificates", tree)
    }));
    fields.extend(site.router.as_ref().map(|r| ("router", plugin_use(r, plugins))));
    fields.push(("filters", list(site.filters.iter().map(|f| plugin_use(f, plugins)))));
    let paths = Paths::WORDS.iter().find(|(_, paths)| *paths == site.paths);
    fields.extend(paths.map(|(word, _)| ("paths", text(word))));
    fields.extend(policies(&site.policies));
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
        RouteAction::Split(split) => {
            let shares =
                split.shares.iter().map(|(name, share)| (name.clone(), int((*share).into())));
            ("split", Tree::Map(shares.collect()))
        }
        RouteAction::Redirect { status, to } => {
            ("redirect", map([("status", int((*status).into())), ("to", text(to))]))
        }
        RouteAction::Respond { status, body, content_type } => {
            let status = ("status", int((*status).into()));
            let content_type = ("content-type", text(content_type));
            ("respond", map([status, ("body", text(body)), content_type]))
        }
        RouteAction::Files(files) => ("files", self::files(files)),
    };
    let mut fields = vec![
        place,
        ("methods", list(route.methods.iter().map(text))),
        ("headers", pairs(&route.headers)),
        ("query", pairs(&route.query)),
    ];
    let tests = |tests: &[super::Test]| list(tests.iter().map(test));
    fields.extend(
        (route.when.all != super::Test::default()).then(|| ("when", test(&route.when.all))),
    );
    fields.extend((!route.when.any.is_empty()).then(|| ("any", tests(&route.when.any))));
    fields.extend((!route.when.not.is_empty()).then(|| ("not", tests(&route.when.not))));
    fields.extend([("filters", list(route.filters.iter().map(|f| plugin_use(f, plugins))))]);
    if let RouteAction::Split(split) = &route.action {
        fields.push(("split-by", split_by(&split.by)));
    }
    fields.extend(policies(&route.policies));
    fields.push(action);
    map(fields)
}

/// What a condition says, and no more.
fn test(t: &super::Test) -> Tree {
    let patterns = |pairs: &[(String, super::Pattern)]| {
        Tree::Map(pairs.iter().map(|(name, p)| (name.clone(), text(p.as_str()))).collect())
    };
    let mut fields = Vec::new();
    let mut say = |is_said: bool, key: &'static str, value: &dyn Fn() -> Tree| {
        if is_said {
            fields.push((key, value()));
        }
    };
    say(!t.methods.is_empty(), "methods", &|| list(t.methods.iter().map(text)));
    let pattern = |p: &Option<super::Pattern>| p.as_ref().map_or(Tree::Null, |p| text(p.as_str()));
    say(t.path.is_some(), "path", &|| pattern(&t.path));
    say(!t.headers.is_empty(), "headers", &|| patterns(&t.headers));
    say(!t.query.is_empty(), "query", &|| patterns(&t.query));
    say(!t.addresses.is_empty(), "addresses", &|| {
        list(t.addresses.iter().map(|network| text(network.to_string())))
    });
    say(t.server_name.is_some(), "server-name", &|| pattern(&t.server_name));
    let version = t.tls_version.as_deref();
    say(version.is_some(), "tls-version", &|| text(version.unwrap_or_default()));
    let shown = t.client_certificate;
    say(shown.is_some(), "client-certificate", &|| Tree::Bool(shown.unwrap_or_default()));
    map(fields)
}

fn files(f: &super::Files) -> Tree {
    let mut fields =
        vec![("root", path(&f.root)), ("index", text(f.index.as_deref().unwrap_or("off")))];
    fields.extend(f.fallback.as_ref().map(|name| ("fallback", text(name))));
    fields.push(("precompressed", list(f.precompressed.iter().map(|c| text(c.name())))));
    let symlinks = match f.symlinks {
        super::Symlinks::Refuse => "refuse",
        super::Symlinks::Within => "within",
    };
    fields.push(("symlinks", text(symlinks)));
    fields.push(("hidden", Tree::Bool(f.shows_hidden)));
    fields.extend(f.cache_control.as_ref().map(|value| ("cache-control", text(value))));
    map(fields)
}

/// The policies that are said at a place, in the order of the table.
fn policies(p: &Policies) -> Vec<(&'static str, Tree)> {
    let mut fields = Vec::new();
    let mut say = |key: &'static str, tree: Option<Tree>| fields.extend(tree.map(|t| (key, t)));
    let texts = |list: &[String]| self::list(list.iter().map(text));
    say(
        "addresses",
        setting(&p.addresses, |a| {
            let networks =
                |list: &[ipnet::IpNet]| self::list(list.iter().map(|n| text(n.to_string())));
            map([("allow", networks(&a.allow)), ("deny", networks(&a.deny))])
        }),
    );
    say("rate-limits", setting(&p.rate_limits, |l| list(l.iter().map(rate_limit))));
    say(
        "cors",
        setting(&p.cors, |c| {
            map([
                ("origins", list(c.origins.iter().map(|o| text(o.to_string())))),
                ("methods", texts(&c.methods)),
                ("headers", texts(&c.headers)),
                ("expose", texts(&c.expose)),
                ("credentials", Tree::Bool(c.credentials)),
                ("max-age", wait(c.max_age)),
            ])
        }),
    );
    say(
        "basic-auth",
        setting(&p.basic_auth, |a| {
            let mut fields = vec![("realm", text(&a.realm))];
            if !a.users.is_empty() {
                fields.push((
                    "users",
                    names(a.users.iter(), |h| text(BasicAuth::outline(h.expose()))),
                ));
            }
            fields.extend(a.file.as_deref().map(|f| ("file", path(f))));
            fields.extend(a.user_field.as_ref().map(|f| ("user-field", text(f))));
            map(fields)
        }),
    );
    say("request-head", setting(&p.request_head, |n| text(size_text(*n))));
    say("request-body", setting(&p.request_body, |n| text(size_text(*n))));
    say("buffer-request", setting(&p.buffer_request, |n| text(size_text(*n))));
    say(
        "forward-auth",
        setting(&p.forward_auth, |a| {
            map([
                ("upstream", text(&a.upstream)),
                ("path", text(&a.path)),
                ("copy", texts(&a.copy)),
                ("timeout", wait(a.timeout)),
            ])
        }),
    );
    say(
        "mirror",
        setting(&p.mirror, |m| {
            map([
                ("upstream", text(&m.upstream)),
                ("share", int(m.share_percent.into())),
                ("request-body", text(size_text(m.body_bytes_max as u64))),
            ])
        }),
    );
    say(
        "security",
        setting(&p.security, |level| {
            text(match level {
                Security::Basic => "basic",
                Security::Strict => "strict",
            })
        }),
    );
    say(
        "error-pages",
        setting(&p.error_pages, |pages| {
            Tree::Map(pages.iter().map(|(status, file)| (status.to_string(), path(file))).collect())
        }),
    );
    say(
        "compress",
        setting(&p.compress, |c| {
            map([
                ("encodings", list(c.codings.iter().map(|c| text(c.name())))),
                ("types", texts(&c.types)),
                ("min-size", text(size_text(c.bytes_min))),
            ])
        }),
    );
    say("strip-prefix", p.strip_prefix.as_ref().map(text));
    say("add-prefix", p.add_prefix.as_ref().map(text));
    fields
}

fn setting<T>(setting: &Setting<T>, write: impl FnOnce(&T) -> Tree) -> Option<Tree> {
    match setting {
        Setting::Absent => None,
        Setting::Off => Some(text("off")),
        Setting::On(policy) => Some(write(policy)),
    }
}

fn rate_limit(l: &super::policies::RateLimit) -> Tree {
    let mut fields = vec![
        ("requests", int(l.requests.into())),
        ("per", wait(l.per)),
        ("burst", int(l.burst.into())),
    ];
    fields.extend(l.header.as_ref().map(|h| ("header", text(h))));
    map(fields)
}

fn pairs(pairs: &[(String, Option<String>)]) -> Tree {
    let value = |v: &Option<String>| v.as_ref().map_or(Tree::Null, text);
    Tree::Map(pairs.iter().map(|(name, v)| (name.clone(), value(v))).collect())
}

/// Whether an upstream was given as a URL where it is used: it is written there alone.
fn is_anonymous(name: &str, upstream: &Upstream) -> bool {
    matches!(upstream.servers.as_slice(), [server] if server.to_string() == name)
}

fn hash_by(by: &HashBy) -> Tree {
    match by {
        HashBy::Address => text("address"),
        HashBy::Cookie(name) => map([("cookie", text(name))]),
        HashBy::Header(name) => map([("header", text(name))]),
    }
}

fn split_by(by: &SplitBy) -> Tree {
    match by {
        SplitBy::Chance => text("chance"),
        SplitBy::Key(by) => hash_by(by),
        SplitBy::Sticky(sticky) => {
            let mut fields = vec![("sticky", text(&sticky.cookie))];
            fields.extend(sticky.max_age.map(|age| ("max-age", wait(age))));
            map(fields)
        }
    }
}

fn upstream(u: &Upstream) -> Tree {
    let servers = u.servers.iter().zip(&u.weights).map(|(server, weight)| match weight {
        1 => text(server.to_string()),
        _ => map([("url", text(server.to_string())), ("weight", int((*weight).into()))]),
    });
    let balance = match &u.balance {
        Balance::P2c => text("p2c"),
        Balance::RoundRobin => text("round-robin"),
        Balance::LeastConnections => text("least-connections"),
        Balance::Hash(by) => map([("hash", hash_by(by))]),
    };
    let mut fields = vec![("servers", list(servers)), ("balance", balance)];
    if let Some(sticky) = &u.sticky {
        let mut parts = vec![("cookie", text(&sticky.cookie))];
        parts.extend(sticky.max_age.map(|age| ("max-age", wait(age))));
        fields.push(("sticky", map(parts)));
    }
    let off = |value: Option<Tree>| value.unwrap_or_else(|| text("off"));
    let eject = u.eject.as_ref().map(|eject| {
        map([
            ("after", int(eject.after.into())),
            ("time", wait(eject.time)),
            ("time-max", wait(eject.time_max)),
            ("share-max", int(eject.share_max_percent.into())),
        ])
    });
    let circuit = map([
        ("requests", off(u.circuit.open_max.map(|n| int(n.into())))),
        ("pending", int(u.circuit.pending_max.into())),
    ]);
    let retries = map([
        ("attempts", int(u.retries.attempts.into())),
        ("budget", int(u.retries.budget_percent.into())),
        ("statuses", list(u.retries.statuses.iter().map(|s| int((*s).into())))),
        ("try-timeout", off(u.retries.try_timeout.map(wait))),
    ]);
    let resolve = u.resolve.as_ref().map(|resolve| {
        let servers = list(resolve.servers.iter().map(|server| text(server.to_string())));
        map([("every", wait(resolve.every)), ("servers", servers)])
    });
    fields.extend([
        ("slow-start", wait(u.slow_start)),
        ("eject", off(eject)),
        ("circuit", circuit),
        ("retries", retries),
        ("resolve", off(resolve)),
    ]);
    if let Some(health) = &u.health {
        let mut parts = match &health.check {
            HealthCheck::Http(path) => vec![("check", text("http")), ("path", text(path))],
            HealthCheck::Tcp => vec![("check", text("tcp"))],
            HealthCheck::Grpc(name) => vec![("check", text("grpc")), ("service", text(name))],
        };
        parts.extend([
            ("interval", wait(health.interval)),
            ("timeout", wait(health.timeout)),
            ("unhealthy-after", int(health.unhealthy_after.into())),
            ("healthy-after", int(health.healthy_after.into())),
        ]);
        fields.push(("health", map(parts)));
    }
    let timeouts = map([
        ("connect", wait(u.timeouts.connect)),
        ("response", wait(u.timeouts.response)),
        ("idle", wait(u.timeouts.idle)),
        ("stream-idle", wait(u.timeouts.stream_idle)),
        ("keepalive", wait(u.timeouts.keepalive)),
    ]);
    fields.push(("timeouts", timeouts));
    fields.extend(u.roots.as_deref().map(|r| ("roots", path(r))));
    fields.extend(u.server_name.as_ref().map(|n| ("server-name", text(n.as_str()))));
    fields.extend(u.client_certificate.as_ref().map(|pair| {
        let files = [("certificate", path(&pair.certificate)), ("key", path(&pair.key))];
        ("client-certificate", map(files))
    }));
    fields.push(("preserve-host", Tree::Bool(u.preserve_host)));
    let proxy = match u.proxy_protocol {
        None => "off",
        Some(ProxyVersion::V1) => "v1",
        Some(ProxyVersion::V2) => "v2",
    };
    fields.push(("proxy-protocol", text(proxy)));
    map(fields)
}

fn respond(fixed: &FixedResponse) -> Tree {
    map([
        ("status", int(fixed.status.into())),
        ("body", text(&fixed.body)),
        ("content-type", text(&fixed.content_type)),
    ])
}

fn plugin(p: &PluginConfig) -> Tree {
    let on_error = match &p.on_error {
        OnError::FailClosed => text("fail-closed"),
        OnError::FailOpen => text("fail-open"),
        OnError::Respond(fixed) => map([("respond", respond(fixed))]),
    };
    let bytes = |n: usize| text(size_text(n as u64));
    let limits = map([
        ("deadline", wait(p.limits.deadline)),
        ("solver-deadline", wait(p.limits.solver_deadline)),
        ("memory", bytes(p.limits.memory_bytes_max)),
        ("output", bytes(p.limits.output_bytes_max)),
        ("body-growth", text(size_text(p.limits.body_growth_bytes_max))),
        ("state", bytes(p.limits.state_bytes_max)),
        ("requests", int(p.limits.requests_max.into())),
        ("log-lines", int(p.limits.log_lines_per_second_max.into())),
    ]);
    let mut fields = vec![("component", path(&p.component))];
    if !p.config.is_null() {
        fields.push(("config", Tree::Json(p.config.clone())));
    }
    fields.push(("on-error", on_error));
    match p.reuse.calls_max {
        Some(1) => fields.push(("isolation", text("request"))),
        calls_max => {
            fields.push(("isolation", text("worker")));
            let recycle = calls_max.map_or(text("never"), int);
            fields.push(("recycle", recycle));
        }
    }
    if let Some(shadow) = &p.shadow {
        fields.push(("shadow", path(shadow)));
    }
    if let Some(canary) = &p.canary {
        let share = percent(canary.share);
        fields.push((
            "canary",
            map([
                ("share", text(&share)),
                ("time", wait(canary.time)),
                ("calls", int(canary.calls)),
                ("failures", int(canary.failures_max)),
            ]),
        ));
    }
    fields.push(("limits", limits));
    fields.push(("zones", list(p.zones.iter().map(text))));
    let secret = |s: &Secret| source(&s.source, Some(&s.hosts));
    fields.push(("secrets", names(p.secrets.iter(), secret)));
    let head = |grant: &HeadGrant| {
        let words = |fields: &FieldGrant| list(fields.words().map(text));
        map([
            ("read", words(&grant.read)),
            ("set", words(&grant.set)),
            ("body", text(grant.body.word())),
        ])
    };
    let grants = map([
        ("http", list(p.grants.http.iter().map(|g| text(&g.pattern)))),
        ("hmac", list(p.grants.hmac.iter().map(text))),
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
    let off_or_size = |bytes: Option<u64>| bytes.map_or(text("off"), |n| text(size_text(n)));
    let body = off_or_size(l.request_body_bytes_max);
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
        ("request-body-rate", off_or_size(l.request_body_rate_min)),
        ("response-rate", off_or_size(l.response_rate_min)),
        ("rate-grace", wait(l.rate_grace)),
        ("buffers", off_or_size(l.buffered_bytes_max)),
        ("connections", int(l.connections_max as u64)),
        (
            "connections-per-address",
            l.connections_per_address_max.map_or(text("off"), |n| int(n.into())),
        ),
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
