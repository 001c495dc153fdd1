//! `listen`, `tls`, `log`, `store`, `workers`, `limits`, `trusted-proxies`, `admin`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::super::node::{Node, Value};
use super::super::report::{nearest, quoted};
use super::super::{
    AccessLog, Certificates, Challenge, Config, KeyKinds, Limits, Listen, Log, LogFormat, Otlp,
    Propagation, Scheme, Sharing, Tickets,
};
use super::fields::Fields;
use super::{Checker, Role};

impl<'a> Checker<'a> {
    /// `listen:`; never empty unless an error was recorded.
    pub(super) fn listen(&mut self, fields: &Fields<'a>) -> Vec<Listen> {
        let Some(node) = fields.get("listen") else {
            let default = self.with_default(fields, "listen", |c, node| {
                let list = c.list(node, "addresses").iter();
                Some(list.filter_map(|entry| c.listen_address(entry)).collect())
            });
            return default.unwrap_or_default();
        };
        let list = self.list(node, "addresses, such as https://0.0.0.0:443");
        let mut all: Vec<Listen> = Vec::new();
        for entry in list {
            let Some(listen) = self.listen_entry(entry) else { continue };
            if all.iter().any(|l| l.address == listen.address) {
                let message = format!("{} is already listened on", listen.address);
                self.error(entry.at, message, "one port serves one scheme".to_owned());
            }
            all.push(listen);
        }
        let has_https = all.iter().any(|l| l.scheme == Scheme::Https);
        let are_all_wrong = !list.is_empty() && all.is_empty();
        if !has_https && !are_all_wrong && matches!(node.value, Value::List(_)) {
            let message = "no https:// address is listened on, and sites are served over https";
            self.error(node.at, message, "add https://0.0.0.0:443".to_owned());
        }
        all
    }

    /// One entry: an address, or a mapping with one.
    fn listen_entry(&mut self, node: &'a Node) -> Option<Listen> {
        if !matches!(node.value, Value::Map(_)) {
            return self.listen_address(node);
        }
        let fields = self.fields(node, "listen[]")?;
        let address = self.required(&fields, "address").and_then(|n| self.listen_address(n));
        let http3 = self.with_default(&fields, "http3", Self::bool).unwrap_or_default();
        let mut listen = address?;
        if let Some(entry) = fields.entry("http3")
            && http3
            && listen.scheme == Scheme::Http
        {
            let help = "remove it here; https:// has it by default".to_owned();
            self.error(entry.at, "there is no HTTP/3 without TLS", help);
        }
        listen.http3 &= http3;
        let networks = self.list_of(&fields, "proxy-protocol", "networks").iter();
        listen.proxy_protocol = networks.filter_map(|n| self.network(n)).collect();
        Some(listen)
    }

    /// The address of an entry, with every default.
    fn listen_address(&mut self, node: &Node) -> Option<Listen> {
        let example = "an address such as https://0.0.0.0:443";
        if let Value::Int(port) = node.value {
            let message = format!("expected {example}, found a number");
            self.error(node.at, message, format!("did you mean `https://0.0.0.0:{port}`?"));
            return None;
        }
        let text = self.line(node, example)?;
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            Some((other, rest)) => {
                let message = format!("{} is neither http nor https", quoted(other));
                self.error(node.at, message, format!("did you mean `https://{rest}`?"));
                return None;
            }
            None => {
                let guess = match text.parse::<u16>() {
                    Ok(port) => format!("https://0.0.0.0:{port}"),
                    Err(_) => format!("https://{text}"),
                };
                let message = format!("expected {example}, found {}", quoted(text));
                self.error(node.at, message, format!("did you mean `{guess}`?"));
                return None;
            }
        };
        if let Ok(address) = rest.parse::<SocketAddr>() {
            let http3 = scheme == Scheme::Https;
            return Some(Listen { scheme, address, http3, proxy_protocol: Vec::new() });
        }
        let (name, port) = match scheme {
            Scheme::Https => ("https", 443),
            Scheme::Http => ("http", 80),
        };
        let bare = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if let Ok(address) = bare.parse::<SocketAddr>() {
            let message = format!("expected {example}, found a URL with a path");
            self.error(node.at, message, format!("did you mean `{name}://{address}`?"));
            return None;
        }
        let host = bare.rsplit_once(':').map_or(bare, |(host, _)| host);
        let given = bare.rsplit_once(':').and_then(|(_, p)| p.parse().ok()).unwrap_or(port);
        let help = match bare.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) => format!("did you mean `{name}://{}`?", SocketAddr::new(ip, port)),
            Err(_) if host == "localhost" => format!("did you mean `{name}://127.0.0.1:{given}`?"),
            Err(_) if host.is_empty() || host == "*" => {
                format!("did you mean `{name}://0.0.0.0:{given}`, or `{name}://[::]:{given}`?")
            }
            Err(_) => format!(
                "names belong under `hosts:`; to listen everywhere write `{name}://0.0.0.0:{given}`"
            ),
        };
        let message = format!("{} is not an IP address and a port", quoted(bare));
        self.error(node.at, message, help);
        None
    }

    /// Everything that is read here; the rest of the [`Config`] is empty.
    pub(super) fn operation(&mut self, fields: &Fields<'a>) -> Config {
        let log = self.log(fields);
        let (store, sharing) = self.store(fields);
        let workers = self.with_default(fields, "workers", Self::workers).flatten();
        let limits = self.limits(fields);
        let trusted_proxies = self
            .with_default(fields, "trusted-proxies", |c, n| {
                let networks = c.list(n, "networks").iter();
                Some(networks.filter_map(|n| c.network(n)).collect())
            })
            .unwrap_or_default();
        let admin = self.admin(fields, &store);
        let plugin_keys = self.plugin_keys(fields).into_iter().map(|(text, _)| text).collect();
        Config {
            listen: Vec::new(),
            tickets: self.tickets(fields),
            certificates: Certificates {
                contact: None,
                issuers: Vec::new(),
                challenge: Challenge::Auto,
                files: Vec::new(),
                default: None,
                resolvers: Vec::new(),
                resolver_roots: None,
                propagation: Propagation {
                    check: true,
                    delay: std::time::Duration::ZERO,
                    timeout: std::time::Duration::ZERO,
                    port: 53,
                },
                updates: BTreeMap::new(),
                on_demand: None,
                policy: None,
                keys: KeyKinds::Ecdsa,
                hooks: Vec::new(),
                local_domains: Vec::new(),
                local_acme: None,
            },
            sites: Vec::new(),
            upstreams: BTreeMap::new(),
            plugins: BTreeMap::new(),
            client_hello: None,
            log,
            store,
            sharing,
            workers,
            limits,
            trusted_proxies,
            plugin_keys,
            needs_guards: self.needs_guards(fields),
            admin,
            lock: std::path::PathBuf::new(),
        }
    }

    fn tickets(&mut self, fields: &Fields<'a>) -> Option<Tickets> {
        let tls = self.part(fields, "tls");
        let fields = self.fields(tls.get("tickets")?, "tls.tickets")?;
        let secret = self.required(&fields, "secret");
        let secret = secret.and_then(|node| self.secret(node, "tls.tickets.secret"));
        let rotation = self.with_default(&fields, "rotation", |c, n| c.duration(n, false));
        if let (Some(rotation), Some(entry)) = (rotation, fields.entry("rotation"))
            && !(ROTATION_MIN..=ROTATION_MAX).contains(&rotation)
        {
            let message = "keys of tickets change after a second at the earliest, and every three \
                           days at the latest";
            self.error(entry.at, message, "6h is the usual time".to_owned());
        }
        Some(Tickets { secret: secret?, rotation: rotation? })
    }

    fn log(&mut self, fields: &Fields<'a>) -> Log {
        let log = self.part(fields, "log");
        let level = self.with_default(&log, "level", Self::level).unwrap_or_default();
        let access =
            [("json", AccessLog::Json), ("text", AccessLog::Text), ("off", AccessLog::Off)];
        let access = self.with_default(&log, "access", |c, n| c.word(n, &access));
        let format = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let format = self.with_default(&log, "format", |c, n| c.word(n, &format));
        let mut sinks = Vec::new();
        for node in self.list_of(&log, "sinks", "names of plugins") {
            sinks.extend(self.plugin_named(node, Role::AccessLog));
        }
        let otlp = log.get("otlp").and_then(|n| self.otlp(n));
        Log {
            level,
            access: access.unwrap_or(AccessLog::Json),
            sinks,
            otlp,
            format: format.unwrap_or(LogFormat::Text),
        }
    }

    fn otlp(&mut self, node: &'a Node) -> Option<Otlp> {
        let (fields, short) = match &node.value {
            Value::Map(_) => (self.fields(node, "log.otlp")?, None),
            _ => (Fields::empty("log.otlp", node.at), Some(node)),
        };
        let endpoint = short.or_else(|| self.required(&fields, "endpoint"))?;
        let endpoint = self.endpoint(endpoint, "http://127.0.0.1:4318")?;
        let mut headers = Vec::new();
        for entry in self.named(&fields, "headers") {
            let name = entry.key.to_ascii_lowercase();
            if http::HeaderName::try_from(name.as_str()).is_err() {
                let message = format!("{} is not the name of a header field", quoted(&entry.key));
                self.error(entry.at, message, None);
                continue;
            }
            let source = self.secret(&entry.node, "log.otlp.headers.*");
            headers.extend(source.map(|source| (name, source)));
        }
        let share = self.with_default(&fields, "share", |c, n| c.share(n));
        let service = self.with_default(&fields, "service", |c, n| {
            c.line(n, "the name of a service").map(str::to_owned)
        });
        // A path that is none means the place that the protocol has for traces.
        let rest = endpoint.split_once("://").map_or("", |(_, rest)| rest);
        let endpoint = match rest.split_once('/') {
            None | Some((_, "")) => format!("{}/v1/traces", endpoint.trim_end_matches('/')),
            Some(_) => endpoint,
        };
        Some(Otlp {
            endpoint,
            headers,
            share: share.unwrap_or(10_000),
            service: service.unwrap_or_default(),
        })
    }

    /// A level, or a filter of `target=level` parts.
    fn level(&mut self, node: &Node) -> Option<String> {
        let text = self.line(node, "a log level")?;
        for part in text.split(',') {
            let level = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
            if !LEVELS.contains(&level) {
                let help = match nearest(level, LEVELS.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "levels are error, warn, info, debug, trace and off".to_owned(),
                };
                self.error(node.at, format!("{} is not a log level", quoted(level)), help);
                return None;
            }
        }
        Some(text.to_owned())
    }

    fn workers(&mut self, node: &Node) -> Option<Option<usize>> {
        match &node.value {
            Value::Text(text) if text == "auto" => Some(None),
            Value::Int(_) => {
                let number = self.number(node, 1, 4_096)?;
                Some(usize::try_from(number).ok())
            }
            _ => {
                self.word(node, &[("auto", ()), ("a number of threads", ())]);
                None
            }
        }
    }

    fn limits(&mut self, fields: &Fields<'a>) -> Limits {
        let limits = self.part(fields, "limits");
        let mut wait =
            |key| self.with_default(&limits, key, |c, n| c.duration(n, false)).unwrap_or_default();
        let handshake = wait("handshake");
        let request_head = wait("request-head");
        let request_body_idle = wait("request-body-idle");
        let response_idle = wait("response-idle");
        let keepalive = wait("keepalive");
        let drain =
            self.with_default(&limits, "drain", |c, n| c.duration(n, true)).unwrap_or_default();
        let head =
            self.with_default(&limits, "request-head-size", |c, n| c.size(n, 1 << 10, 16 << 20));
        let fields_max =
            self.with_default(&limits, "request-fields", |c, n| c.number(n, 1, 10_000));
        let body = self.off_or_size(&limits, "request-body", 0);
        let request_body_rate_min = self.off_or_size(&limits, "request-body-rate", 1);
        let response_rate_min = self.off_or_size(&limits, "response-rate", 1);
        let rate_grace = self.with_default(&limits, "rate-grace", |c, n| c.duration(n, false));
        let buffered_bytes_max = self.off_or_size(&limits, "buffers", 1 << 20);
        let per_address =
            self.with_default(&limits, "connections-per-address", |c, n| match &n.value {
                Value::Text(text) if text == "off" => Some(None),
                Value::Bool(false) => Some(None),
                _ => c.number(n, 1, 4_000_000_000).map(|n| u32::try_from(n).ok()),
            });
        let connections =
            self.with_default(&limits, "connections", |c, n| c.number(n, 1, i64::MAX as u64));
        let streams = self.with_default(&limits, "streams", |c, n| c.number(n, 1, 100_000));
        let size = |n: Option<u64>| usize::try_from(n.unwrap_or_default()).unwrap_or(usize::MAX);
        Limits {
            handshake,
            request_head,
            request_body_idle,
            response_idle,
            keepalive,
            drain,
            request_head_bytes_max: size(head),
            request_fields_max: size(fields_max),
            request_body_bytes_max: body,
            request_body_rate_min,
            response_rate_min,
            rate_grace: rate_grace.unwrap_or_default(),
            buffered_bytes_max,
            connections_max: size(connections),
            connections_per_address_max: per_address.flatten(),
            streams_max: u32::try_from(streams.unwrap_or_default()).unwrap_or(u32::MAX),
        }
    }

    /// A size that may be `off`.
    fn off_or_size(&mut self, fields: &Fields<'a>, key: &str, least: u64) -> Option<u64> {
        let found = self.with_default(fields, key, |c, n| match &n.value {
            Value::Text(text) if text == "off" => Some(None),
            Value::Bool(false) => Some(None),
            _ => c.size(n, least, u64::MAX >> 1).map(Some),
        });
        found.flatten()
    }

    pub(super) fn network(&mut self, node: &Node) -> Option<ipnet::IpNet> {
        let text = self.line(node, "a network such as 10.0.0.0/8")?;
        if let Ok(network) = text.parse::<ipnet::IpNet>() {
            if network.prefix_len() == 0 {
                let message = format!("{} trusts everybody", quoted(text));
                let help = "anyone can then claim any client address; name your proxies alone";
                self.warning(node.at, message, help.to_owned());
            }
            return Some(network.trunc());
        }
        match text.parse::<IpAddr>() {
            Ok(ip) => Some(ip.into()),
            Err(_) => {
                let message = format!("{} is not a network", quoted(text));
                let help = "write an address and a prefix length, such as 10.0.0.0/8".to_owned();
                self.error(node.at, message, help);
                None
            }
        }
    }

    /// The folder, in short or with how it is opened.
    fn store(&mut self, fields: &Fields<'a>) -> (PathBuf, Sharing) {
        let Some(node @ Node { value: Value::Map(_), .. }) = fields.get("store") else {
            let path = self.with_default(fields, "store", |c, n| c.path(n));
            return (path.unwrap_or_default(), Sharing::default());
        };
        let Some(fields) = self.fields(node, "store") else { return Default::default() };
        let path = self.with_default(&fields, "path", |c, n| c.path(n)).unwrap_or_default();
        let is_shared = self.with_default(&fields, "shared", Self::bool).unwrap_or(false);
        let seal = fields.get("seal").and_then(|n| self.secret(n, "store.seal"));
        (path, Sharing { is_shared, seal })
    }

    fn admin(&mut self, fields: &Fields<'a>, store: &std::path::Path) -> Option<PathBuf> {
        match fields.get("admin") {
            None => Some(store.join("admin.sock")),
            Some(Node { value: Value::Bool(false), .. }) => None,
            Some(node) => match &node.value {
                Value::Text(text) if text == "off" => None,
                Value::Text(_) => self.path(node),
                _ => {
                    let message =
                        format!("expected a socket's path or off, found {}", node.value.name());
                    self.error(node.at, message, None);
                    None
                }
            },
        }
    }
}

const ROTATION_MIN: std::time::Duration = std::time::Duration::from_secs(1);
/// Clients keep tickets for seven days at most, and a key opens them for two rotations.
const ROTATION_MAX: std::time::Duration = std::time::Duration::from_secs(3 * 24 * 3600);
const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];
