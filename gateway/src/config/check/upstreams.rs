//! `upstreams:` and servers given in place of their names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::node::{Node, Place, Value};
use super::super::report::{nearest, quoted};
use super::super::{
    Authority, Balance, CertificateFiles, Circuit, Eject, HashBy, Health, HealthCheck, Hostname,
    ProxyVersion, Resolve, Retries, Server, Sticky, Upstream, UpstreamTimeouts,
};
use super::Checker;
use super::fields::Fields;

impl<'a> Checker<'a> {
    pub(super) fn upstreams(&mut self, fields: &Fields<'a>) -> BTreeMap<String, Upstream> {
        let mut upstreams = BTreeMap::new();
        for entry in self.named(fields, "upstreams") {
            if let Some(upstream) = self.upstream(&entry.node) {
                self.raw_upstreams.insert(entry.key.clone(), is_raw(&upstream));
                upstreams.insert(entry.key.clone(), upstream);
            }
        }
        upstreams
    }

    fn upstream(&mut self, node: &'a Node) -> Option<Upstream> {
        match &node.value {
            Value::Text(_) => {
                let server = self.server(node)?;
                Some(self.upstream_of(server))
            }
            Value::Map(_) => {
                let fields = self.fields(node, "upstreams.*")?;
                let servers = match self.required(&fields, "servers") {
                    Some(list) => {
                        let all = self.list(list, "servers");
                        if all.is_empty() && matches!(list.value, Value::List(_)) {
                            self.error(list.at, "an upstream needs at least one server", None);
                        }
                        all.iter().filter_map(|n| self.weighted_server(n)).collect()
                    }
                    None => Vec::new(),
                };
                Some(self.upstream_with(&fields, servers))
            }
            Value::List(_) => {
                let message = "expected a server or a mapping, found a list";
                self.error(node.at, message, "write {servers: […]}".to_owned());
                None
            }
            other => {
                let message = format!("expected a server or a mapping, found {}", other.name());
                self.error(node.at, message, "as in http://127.0.0.1:8000".to_owned());
                None
            }
        }
    }

    /// An upstream of one server with all defaults.
    fn upstream_of(&mut self, server: Server) -> Upstream {
        self.upstream_with(&Fields::empty("upstreams.*", Place::default()), vec![(server, 1)])
    }

    /// A server, or a server and its weight.
    fn weighted_server(&mut self, node: &'a Node) -> Option<(Server, u32)> {
        if !matches!(node.value, Value::Map(_)) {
            return self.server(node).map(|server| (server, 1));
        }
        let fields = self.fields(node, "upstreams.*.servers[]")?;
        let server = self.required(&fields, "url").and_then(|n| self.server(n));
        let weight = self.count(&fields, "weight", 1, 1_000);
        Some((server?, weight))
    }

    /// A number of this range from a key with a default.
    fn count(&mut self, fields: &Fields<'a>, key: &str, min: u32, max: u32) -> u32 {
        let number = |c: &mut Self, n: &Node| c.number(n, min.into(), max.into());
        let found = self.with_default(fields, key, number);
        found.and_then(|n| u32::try_from(n).ok()).unwrap_or(min)
    }

    fn wait(&mut self, fields: &Fields<'a>, key: &str, may_be_zero: bool) -> std::time::Duration {
        let wait = self.with_default(fields, key, |c, n| c.duration(n, may_be_zero));
        wait.unwrap_or_default()
    }

    fn balance(&mut self, fields: &Fields<'a>) -> Balance {
        let words = [
            ("p2c", Balance::P2c),
            ("round-robin", Balance::RoundRobin),
            ("least-connections", Balance::LeastConnections),
        ];
        match fields.get("balance") {
            Some(node) if matches!(node.value, Value::Map(_)) => {
                let part = self.fields(node, "upstreams.*.balance");
                let by = part.and_then(|part| {
                    let hash = self.required(&part, "hash")?;
                    self.hash_by(hash)
                });
                by.map_or(Balance::P2c, Balance::Hash)
            }
            _ => {
                let word = self.with_default(fields, "balance", |c, n| c.word(n, &words));
                word.unwrap_or(Balance::P2c)
            }
        }
    }

    fn hash_by(&mut self, node: &'a Node) -> Option<HashBy> {
        if !matches!(node.value, Value::Map(_)) {
            return self.word(node, &[("address", HashBy::Address)]);
        }
        let fields = self.fields(node, "upstreams.*.balance.hash")?;
        self.hash_key(&fields)
    }

    /// A cookie or a field to go by.
    pub(super) fn hash_key(&mut self, fields: &Fields<'a>) -> Option<HashBy> {
        match (fields.get("cookie"), fields.get("header")) {
            (Some(cookie), None) => self.token(cookie, "a cookie's name").map(HashBy::Cookie),
            (None, Some(header)) => {
                let name = self.token(header, "a field's name")?;
                Some(HashBy::Header(name.to_ascii_lowercase()))
            }
            _ => {
                let message = "a hash goes by one thing";
                let help = "write address, {cookie: NAME} or {header: NAME}";
                self.error(fields.at, message, help.to_owned());
                None
            }
        }
    }

    /// The name of a cookie or field (RFC 9110, section 5.6.2).
    pub(super) fn token(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.line(node, what)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if text.is_empty() || !text.chars().all(allowed) {
            let help = "use letters, digits, `-` and `_`".to_owned();
            self.error(node.at, format!("{} is not {what}", quoted(text)), help);
            return None;
        }
        Some(text.to_owned())
    }

    fn sticky(&mut self, node: &'a Node) -> Option<Sticky> {
        let fields = self.fields(node, "upstreams.*.sticky")?;
        let cookie = self.with_default(&fields, "cookie", |c, n| c.token(n, "a cookie's name"));
        let max_age = fields.get("max-age").and_then(|n| self.duration(n, false));
        Some(Sticky { cookie: cookie?, max_age })
    }

    fn eject(&mut self, fields: &Fields<'a>) -> Option<Eject> {
        if let Some(node) = fields.get("eject")
            && !matches!(node.value, Value::Map(_))
        {
            self.word(node, &[("off", ())]);
            return None;
        }
        let part = self.part(fields, "eject");
        Some(Eject {
            after: self.count(&part, "after", 1, 1_000),
            time: self.wait(&part, "time", false),
            time_max: self.wait(&part, "time-max", false),
            share_max_percent: self.count(&part, "share-max", 0, 100),
        })
    }

    fn look_ups(&mut self, fields: &Fields<'a>) -> Option<Resolve> {
        if let Some(node) = fields.get("resolve")
            && !matches!(node.value, Value::Map(_))
        {
            self.word(node, &[("off", ())]);
            return None;
        }
        let part = self.part(fields, "resolve");
        let servers = self.list_of(&part, "servers", "DNS servers").iter();
        let servers = servers.filter_map(|n| self.resolver(n)).collect();
        Some(Resolve { every: self.wait(&part, "every", false), servers })
    }

    fn circuit(&mut self, fields: &Fields<'a>) -> Circuit {
        let part = self.part(fields, "circuit");
        let open = self.with_default(&part, "requests", |c, n| match is_off(n) {
            true => Some(None),
            false => c.number(n, 1, 1_000_000).map(Some),
        });
        let open_max = open.flatten().and_then(|n| u32::try_from(n).ok());
        let pending_max = self.count(&part, "pending", 0, 1_000_000);
        if let (None, Some(entry)) = (open_max, part.entry("pending"))
            && pending_max > 0
        {
            let message = "`pending` has no effect: nothing bounds `requests`";
            self.warning(entry.at, message, None);
        }
        Circuit { open_max, pending_max }
    }

    fn retries(&mut self, fields: &Fields<'a>) -> Retries {
        let part = self.part(fields, "retries");
        let attempts = self.count(&part, "attempts", 0, 10);
        let budget_percent = self.count(&part, "budget", 0, 100);
        let mut statuses = Vec::new();
        for node in self.list_of(&part, "statuses", "statuses") {
            let status = self.number(node, 400, 599).and_then(|n| u16::try_from(n).ok());
            statuses.extend(status);
        }
        let try_timeout = self.with_default(&part, "try-timeout", |c, n| match is_off(n) {
            true => Some(None),
            false => c.duration(n, false).map(Some),
        });
        Retries { attempts, budget_percent, statuses, try_timeout: try_timeout.flatten() }
    }

    fn client_certificate(&mut self, node: &'a Node) -> Option<CertificateFiles> {
        let fields = self.fields(node, "upstreams.*.client-certificate")?;
        let certificate = self.required(&fields, "certificate").and_then(|n| self.path(n));
        let key = self.required(&fields, "key").and_then(|n| self.path(n));
        Some(CertificateFiles { certificate: certificate?, key: key?, ocsp: None })
    }

    fn upstream_with(&mut self, fields: &Fields<'a>, servers: Vec<(Server, u32)>) -> Upstream {
        let (servers, weights): (Vec<Server>, Vec<u32>) = servers.into_iter().unzip();
        let balance = self.balance(fields);
        let sticky = fields.get("sticky").and_then(|n| self.sticky(n));
        let health = fields.get("health").and_then(|n| self.health(n, &servers));
        let timeouts = self.part(fields, "timeouts");
        let mut wait = |key| {
            self.with_default(&timeouts, key, |c, n| c.duration(n, false)).unwrap_or_default()
        };
        let timeouts = UpstreamTimeouts {
            connect: wait("connect"),
            response: wait("response"),
            idle: wait("idle"),
            stream_idle: wait("stream-idle"),
            keepalive: wait("keepalive"),
        };
        let roots = self.optional_path(fields, "roots");
        let server_name = fields.get("server-name").and_then(|n| self.hostname(n));
        let is_tls = servers.iter().any(|s| matches!(s, Server::Https(_)));
        let client_certificate =
            fields.get("client-certificate").and_then(|n| self.client_certificate(n));
        for key in ["roots", "server-name", "client-certificate"] {
            if let Some(entry) = fields.entry(key)
                && !is_tls
                && !servers.is_empty()
            {
                let message = format!("`{key}` has no effect: no server here is https://");
                self.warning(entry.at, message, None);
            }
        }
        let preserve_host = self.with_default(fields, "preserve-host", Self::bool);
        let versions =
            [("off", None), ("v1", Some(ProxyVersion::V1)), ("v2", Some(ProxyVersion::V2))];
        let proxy_protocol =
            self.with_default(fields, "proxy-protocol", |c, n| c.word(n, &versions)).flatten();
        let is_tcp = |server: &Server| matches!(server, Server::Tcp(_));
        if servers.iter().any(is_tcp) && !servers.iter().all(is_tcp) {
            let help = "requests and unopened connections need upstreams of their own".to_owned();
            self.error(fields.at, "some servers here are tcp:// and some are not", help);
        }
        Upstream {
            servers,
            weights,
            balance,
            sticky,
            slow_start: self.wait(fields, "slow-start", true),
            eject: self.eject(fields),
            circuit: self.circuit(fields),
            retries: self.retries(fields),
            resolve: self.look_ups(fields),
            health,
            timeouts,
            roots,
            server_name,
            client_certificate,
            preserve_host: preserve_host.unwrap_or(true),
            proxy_protocol,
        }
    }

    fn health(&mut self, node: &'a Node, servers: &[Server]) -> Option<Health> {
        let fields = self.fields(node, "upstreams.*.health")?;
        let kinds = [("http", "http"), ("tcp", "tcp"), ("grpc", "grpc")];
        let kind = self.with_default(&fields, "check", |c, n| c.word(n, &kinds));
        let service = self.with_default(&fields, "service", |c, n| {
            c.text(n, "a service's name").map(str::to_owned)
        });
        let service = service.unwrap_or_default();
        for (key, owner) in [("path", "http"), ("service", "grpc")] {
            if let Some(entry) = fields.entry(key)
                && kind.is_some_and(|kind| kind != owner)
            {
                let message = format!("`{key}` has no effect without `check: {owner}`");
                self.warning(entry.at, message, None);
            }
        }
        let check = match kind? {
            "http" => HealthCheck::Http(self.health_path(&fields)?),
            "tcp" => HealthCheck::Tcp,
            _ => HealthCheck::Grpc(service),
        };
        if !matches!(check, HealthCheck::Tcp)
            && let Some(server) = servers.iter().find(|s| matches!(s, Server::Tcp(_)))
        {
            let message = format!("{server} is sent no requests");
            self.error(node.at, message, "write check: tcp".to_owned());
        }
        let is_h1 = |s: &&Server| matches!(s, Server::Http(_) | Server::Unix(_));
        if let (HealthCheck::Grpc(_), Some(server)) = (&check, servers.iter().find(is_h1)) {
            let message = format!("gRPC needs HTTP/2, which {server} is not asked to speak");
            self.error(node.at, message, "write the server as h2c:// or https://".to_owned());
        }
        let wait = |c: &mut Self, key| {
            c.with_default(&fields, key, |c, n| c.duration(n, false)).unwrap_or_default()
        };
        let count = |c: &mut Self, key| {
            let count = c.with_default(&fields, key, |c, n| c.number(n, 1, 1_000));
            u32::try_from(count.unwrap_or(1)).unwrap_or(1)
        };
        Some(Health {
            check,
            interval: wait(self, "interval"),
            timeout: wait(self, "timeout"),
            unhealthy_after: count(self, "unhealthy-after"),
            healthy_after: count(self, "healthy-after"),
        })
    }

    fn health_path(&mut self, fields: &Fields<'a>) -> Option<String> {
        let Some(node) = fields.get("path") else {
            if !fields.is_meant("path") {
                let help = "as in path: /healthz, or write check: tcp".to_owned();
                self.error(fields.at, "a health check needs a path to ask for", help);
            }
            return None;
        };
        let path = self.line(node, "a path")?;
        if !path.starts_with('/') {
            let message = format!("the path {} does not start with `/`", quoted(path));
            self.error(node.at, message, format!("did you mean `/{path}`?"));
        }
        Some(path.to_owned())
    }

    /// The name of an upstream, or a server in its place: that becomes an upstream named by its
    /// URL.
    pub(super) fn upstream_reference(&mut self, node: &'a Node) -> Option<String> {
        self.upstream_for(node, Traffic::Requests)
    }

    /// The same for one or the other use.
    pub(super) fn upstream_for(&mut self, node: &'a Node, wanted: Traffic) -> Option<String> {
        let name = self.upstream_named(node)?;
        self.takes(node.at, &name, wanted);
        Some(name)
    }

    /// Reports an upstream whose servers take something else.
    pub(super) fn takes(&mut self, at: Place, name: &str, wanted: Traffic) {
        let is_raw = *self.raw_upstreams.get(name).unwrap_or(&false);
        match (wanted, is_raw) {
            (Traffic::Requests, true) => {
                let message = format!("the servers of {} take no requests", quoted(name));
                let help = "tcp:// is for `passthrough`; write http://, https:// or h2c://";
                self.error(at, message, help.to_owned());
            }
            (Traffic::Bytes, false) if self.raw_upstreams.contains_key(name) => {
                let message = format!("the servers of {} take requests", quoted(name));
                let help = "what goes through is not opened: write the servers as tcp://";
                self.error(at, message, help.to_owned());
            }
            _ => {}
        }
    }

    fn upstream_named(&mut self, node: &'a Node) -> Option<String> {
        let text = self.line(node, "the name of an upstream or a server's URL")?;
        let is_server =
            text.contains("://") || text.starts_with("unix:") || text.starts_with("builtin:");
        if is_server && !self.upstream_names.contains(text) {
            let server = self.server(node)?;
            let name = server.to_string();
            if !self.anonymous.contains_key(&name) {
                let upstream = self.upstream_of(server);
                self.raw_upstreams.insert(name.clone(), is_raw(&upstream));
                self.anonymous.insert(name.clone(), upstream);
            }
            return Some(name);
        }
        if looks_like_address(text) && !self.upstream_names.contains(text) {
            let message = format!("{} is no upstream's name and no URL", quoted(text));
            self.error(node.at, message, format!("did you mean `http://{text}`?"));
            return None;
        }
        self.is_upstream(node, text).then(|| text.to_owned())
    }

    /// One server.
    pub(super) fn server(&mut self, node: &Node) -> Option<Server> {
        let text = self.line(node, "a server such as http://127.0.0.1:8000")?;
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() || path.starts_with("//") {
                let path = path.trim_start_matches('/');
                let message = "expected a socket as unix:/path";
                self.error(node.at, message, format!("did you mean `unix:/{path}`?"));
                return None;
            }
            return Some(Server::Unix(self.resolve(path)));
        }
        if let Some(name) = text.strip_prefix("builtin:") {
            if name != "echo" {
                let message = format!("there is no builtin server {}", quoted(name));
                self.error(node.at, message, "there is `builtin:echo`".to_owned());
                return None;
            }
            return Some(Server::Echo);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let help = match looks_like_address(text) {
                true => format!("did you mean `http://{text}`?"),
                false => SERVERS.to_owned(),
            };
            self.error(node.at, format!("{} is not a server's URL", quoted(text)), help);
            return None;
        };
        let port = match scheme {
            "http" | "h2c" => 80,
            "https" | "tcp" => 443,
            other => {
                let near = nearest(other, ["http", "https", "h2c", "tcp"]);
                let near = near.map(|near| format!("did you mean `{near}://{rest}`?"));
                let message = format!("servers do not speak {}", quoted(other));
                self.error(node.at, message, near.unwrap_or_else(|| SERVERS.to_owned()));
                return None;
            }
        };
        let authority = self.authority(node, scheme, rest, port)?;
        Some(match scheme {
            "https" => Server::Https(authority),
            "h2c" => Server::H2c(authority),
            "tcp" => Server::Tcp(authority),
            _ => Server::Http(authority),
        })
    }

    /// `host[:port]` after a scheme. Hosts may have `_`, as container names do.
    fn authority(&mut self, node: &Node, scheme: &str, rest: &str, port: u16) -> Option<Authority> {
        if rest.contains('@') {
            let help =
                "a password does not belong here; a filter can set the field `authorization`";
            self.error(node.at, "a server's URL cannot hold a user or password", help.to_owned());
            return None;
        }
        let bare = match rest.find(['/', '?', '#']) {
            Some(cut) => {
                let bare = rest.get(..cut).unwrap_or(rest);
                if rest.get(cut..) != Some("/") {
                    let message = "a server is a scheme, a host and a port, without a path";
                    let help =
                        format!("did you mean `{scheme}://{bare}`? A filter can rewrite paths");
                    self.error(node.at, message, help);
                    return None;
                }
                bare
            }
            None => rest,
        };
        if let Some((host, port)) = host_and_port(bare, port) {
            return Some(Authority { host, port });
        }
        let message = format!("{} is not a host and a port", quoted(bare));
        let help = match bare.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("did you mean `{scheme}://[{ip}]`?"),
            _ => "as in http://127.0.0.1:8000 or http://[::1]:8000".to_owned(),
        };
        self.error(node.at, message, help);
        None
    }

    /// A host name alone.
    pub(super) fn hostname(&mut self, node: &Node) -> Option<Hostname> {
        let text = self.line(node, "a host name")?;
        match Hostname::parse(text) {
            Ok(name) => Some(name),
            Err(error) => {
                self.error(node.at, format!("the host {} {error}", quoted(text)), None);
                None
            }
        }
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(super) fn host_and_port(text: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            match port {
                "" => (host, None),
                port => (host, Some(port.strip_prefix(':')?)),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(port) if !port.starts_with('+') => port.parse().ok().filter(|p| *p > 0)?,
        Some(_) => return None,
        None => default,
    };
    let is_v6 = host.parse::<std::net::Ipv6Addr>().is_ok() && text.starts_with('[');
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_host = !host.is_empty()
        && host.len() <= 253
        && !host.starts_with(['-', '.'])
        && !host.contains("..")
        && host.chars().all(allowed);
    (is_v6 || is_host).then(|| (host.to_ascii_lowercase(), port))
}

/// Whether an upstream takes bytes of any kind. All its servers do, or none.
fn is_raw(upstream: &Upstream) -> bool {
    upstream.servers.iter().any(|server| matches!(server, Server::Tcp(_)))
}

/// What an upstream is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    /// Requests.
    Requests,
    /// Bytes that are not looked at.
    Bytes,
}

/// Whether `off` stands here, or what other programs make of it.
fn is_off(node: &Node) -> bool {
    matches!(&node.value, Value::Text(text) if text == "off")
        || matches!(node.value, Value::Bool(false))
}

/// Whether a text without a scheme was probably meant as host and port.
fn looks_like_address(text: &str) -> bool {
    let has_port = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    (has_port || text.parse::<IpAddr>().is_ok()) && host_and_port(text, 80).is_some()
}

const SERVERS: &str =
    "a server is http://, https://, h2c:// or tcp:// and a host, unix:/path, or builtin:echo";
