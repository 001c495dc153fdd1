//! The policies of sites and routes: addresses, rate limits, CORS, basic auth, bodies, prefixes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::node::{Node, Place, Value};
use super::super::policies::{
    Addresses, BasicAuth, Coding, Compress, Cors, ForwardAuth, Mirror, OriginPattern, Policies,
    RateLimit, Security, Setting, StatusPattern,
};
use super::super::report::quoted;
use super::super::{PathMatch, SecretText};
use super::Checker;
use super::fields::Fields;
use super::plugins::is_method;
use super::sites::is_field_name;

impl<'a> Checker<'a> {
    /// The policies of a site or a route.
    pub(super) fn policies(&mut self, fields: &Fields<'a>) -> Policies {
        Policies {
            addresses: self.setting(fields, "addresses", Self::addresses),
            rate_limits: self.setting(fields, "rate-limits", Self::rate_limits),
            cors: self.setting(fields, "cors", Self::cors),
            basic_auth: self.setting(fields, "basic-auth", Self::basic_auth),
            request_head: self.setting(fields, "request-head", |c, n| c.size(n, 64, 16 << 20)),
            request_body: self.setting(fields, "request-body", |c, n| c.size(n, 0, u64::MAX >> 1)),
            buffer_request: self.setting(fields, "buffer-request", |c, n| c.size(n, 1, 64 << 20)),
            forward_auth: self.setting(fields, "forward-auth", Self::forward_auth),
            mirror: self.setting(fields, "mirror", Self::mirror),
            security: self.setting(fields, "security", |c, n| {
                c.word(n, &[("basic", Security::Basic), ("strict", Security::Strict)])
            }),
            error_pages: self.setting(fields, "error-pages", Self::error_pages),
            compress: self.setting(fields, "compress", Self::compress),
            strip_prefix: None,
            add_prefix: None,
        }
    }

    /// The policies of a route: what a site can have, and what becomes of the path.
    pub(super) fn route_policies(
        &mut self,
        fields: &Fields<'a>,
        path: Option<&PathMatch>,
    ) -> Policies {
        let strip_prefix = fields.get("strip-prefix").and_then(|n| self.prefix(n));
        if let (Some(prefix), Some(node), Some(PathMatch::Prefix(path) | PathMatch::Exact(path))) =
            (&strip_prefix, fields.get("strip-prefix"), path)
            && !path.starts_with(prefix.as_str())
        {
            let message = format!("no path of this route starts with {}", quoted(prefix));
            let help = format!("the route takes {path}: strip that, or a part of it");
            self.error(node.at, message, help);
        }
        let add_prefix = fields.get("add-prefix").and_then(|n| self.prefix(n));
        Policies { strip_prefix, add_prefix, ..self.policies(fields) }
    }

    /// A policy that may be absent or `off`.
    fn setting<T>(
        &mut self,
        fields: &Fields<'a>,
        key: &str,
        read: impl FnOnce(&mut Self, &'a Node) -> Option<T>,
    ) -> Setting<T> {
        let Some(node) = fields.get(key) else { return Setting::Absent };
        match &node.value {
            Value::Text(text) if text == "off" => Setting::Off,
            Value::Bool(false) => Setting::Off,
            _ => read(self, node).map_or(Setting::Absent, Setting::On),
        }
    }

    /// A path that starts with `/` and does not end with one.
    fn prefix(&mut self, node: &Node) -> Option<String> {
        let path = self.route_path(node)?;
        let bare = path.trim_end_matches('/');
        if bare.is_empty() || bare.contains("//") {
            let message = format!("{} is not a prefix", quoted(&path));
            self.error(node.at, message, "as in /api".to_owned());
            return None;
        }
        let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '\\' | '^');
        if !bare.chars().all(is_plain) {
            let message = format!("{} has characters that a path cannot have", quoted(&path));
            self.error(node.at, message, "write them as %XX".to_owned());
            return None;
        }
        Some(bare.to_owned())
    }

    fn addresses(&mut self, node: &'a Node) -> Option<Addresses> {
        let fields = self.fields(node, "sites[].addresses")?;
        let mut networks = |key: &str| {
            let found = self.with_default(&fields, key, |c, n| {
                let networks = c.list(n, "networks").iter();
                Some(networks.filter_map(|n| c.network(n)).collect::<Vec<_>>())
            });
            found.unwrap_or_default()
        };
        let (allow, deny) = (networks("allow"), networks("deny"));
        let is_said = fields.get("allow").is_some() || fields.get("deny").is_some();
        if allow.is_empty() && deny.is_empty() && !is_said {
            let message = "neither `allow` nor `deny` names a network";
            self.warning(node.at, message, "as in {allow: [10.0.0.0/8]}".to_owned());
        }
        Some(Addresses { allow, deny })
    }

    fn rate_limits(&mut self, node: &'a Node) -> Option<Vec<RateLimit>> {
        let list = self.list(node, "{requests: …, per: …}");
        Some(list.iter().filter_map(|n| self.rate_limit(n)).collect())
    }

    fn rate_limit(&mut self, node: &'a Node) -> Option<RateLimit> {
        let fields = self.fields(node, "sites[].rate-limits[]")?;
        let count =
            |c: &mut Self, n: &Node| c.number(n, 1, RATE_MAX).and_then(|n| u32::try_from(n).ok());
        let requests = self.required(&fields, "requests").and_then(|n| count(self, n));
        let per = self.with_default(&fields, "per", |c, n| c.duration(n, false));
        let burst = match fields.get("burst") {
            Some(n) => count(self, n),
            None => requests,
        };
        let header = fields.get("header").and_then(|n| self.field_name(n));
        Some(RateLimit { requests: requests?, per: per?, burst: burst?, header })
    }

    /// The name of a field, in lower case.
    fn field_name(&mut self, node: &Node) -> Option<String> {
        let name = self.line(node, "the name of a field")?;
        if !is_field_name(name) {
            self.error(node.at, format!("{} is not the name of a field", quoted(name)), None);
            return None;
        }
        Some(name.to_ascii_lowercase())
    }

    fn cors(&mut self, node: &'a Node) -> Option<Cors> {
        let fields = self.fields(node, "sites[].cors")?;
        let credentials = self.with_default(&fields, "credentials", Self::bool)?;
        let mut origins = Vec::new();
        if let Some(node) = self.required(&fields, "origins") {
            let list = self.list(node, "origins");
            if list.is_empty() && matches!(node.value, Value::List(_)) {
                let help = "as in [https://app.example.com], or remove `cors`".to_owned();
                self.error(node.at, "no origin is named", help);
            }
            for node in list {
                let Some(origin) = self.origin(node) else { continue };
                if origin == OriginPattern::Any && credentials {
                    let message = "every site could act with the cookies of its visitors";
                    let help = "name the origins, or write `credentials: false`".to_owned();
                    self.error(node.at, message, help);
                }
                origins.push(origin);
            }
        }
        let methods = self.with_default(&fields, "methods", |c, n| {
            let list = c.list(n, "methods");
            let mut methods = Vec::new();
            for node in list {
                let Some(method) = c.line(node, "a method") else { continue };
                if !is_method(method) {
                    let message = format!("{} is not a method", quoted(method));
                    let help = format!("did you mean {:?}?", method.to_ascii_uppercase());
                    c.error(node.at, message, help);
                }
                methods.push(method.to_owned());
            }
            Some(methods)
        });
        let headers = self.with_default(&fields, "headers", Self::field_names);
        let expose = self.with_default(&fields, "expose", Self::field_names);
        let max_age = self.with_default(&fields, "max-age", |c, n| c.duration(n, true));
        Some(Cors {
            origins,
            methods: methods?,
            headers: headers?,
            expose: expose?,
            credentials,
            max_age: max_age?,
        })
    }

    fn forward_auth(&mut self, node: &'a Node) -> Option<ForwardAuth> {
        let fields = self.fields(node, "sites[].forward-auth")?;
        let upstream = self.required(&fields, "upstream").and_then(|n| self.upstream_reference(n));
        let path = self.with_default(&fields, "path", |c, n| {
            let path = c.line(n, "a path such as /verify")?;
            let is_plain = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
            if !path.starts_with('/') || !is_plain {
                let message = format!("{} is not a path", quoted(path));
                c.error(n.at, message, "as in /verify".to_owned());
            }
            Some(path.to_owned())
        });
        let copy = self.with_default(&fields, "copy", Self::field_names);
        let timeout = self.with_default(&fields, "timeout", |c, n| c.duration(n, false));
        Some(ForwardAuth { upstream: upstream?, path: path?, copy: copy?, timeout: timeout? })
    }

    fn mirror(&mut self, node: &'a Node) -> Option<Mirror> {
        let fields = self.fields(node, "sites[].mirror")?;
        let upstream = self.required(&fields, "upstream").and_then(|n| self.upstream_reference(n));
        let share = self.with_default(&fields, "share", |c, n| c.number(n, 1, 100));
        let body = self.with_default(&fields, "request-body", |c, n| c.size(n, 0, 16 << 20));
        Some(Mirror {
            upstream: upstream?,
            share_percent: u32::try_from(share?).ok()?,
            body_bytes_max: usize::try_from(body?).ok()?,
        })
    }

    fn error_pages(&mut self, node: &'a Node) -> Option<Vec<(StatusPattern, PathBuf)>> {
        let Value::Map(entries) = &node.value else {
            let message = format!("expected a mapping of statuses, found {}", node.value.name());
            self.error(node.at, message, "as in {404: missing.html, 5xx: sorry.html}".to_owned());
            return None;
        };
        let mut pages = Vec::new();
        for entry in entries {
            let key = entry.key.as_str();
            let pattern = match key.strip_suffix("xx").map(str::parse) {
                Some(Ok(class @ 4..=5)) => Some(StatusPattern::Class(class)),
                Some(_) => None,
                None => key
                    .parse()
                    .ok()
                    .filter(|code| (400..600).contains(code))
                    .map(StatusPattern::Exact),
            };
            let Some(pattern) = pattern else {
                let message = format!("{} is not the status of an error", quoted(key));
                self.error(entry.at, message, "as in 404, 4xx or 5xx".to_owned());
                continue;
            };
            pages.extend(self.path(&entry.node).map(|path| (pattern, path)));
        }
        Some(pages)
    }

    fn compress(&mut self, node: &'a Node) -> Option<Compress> {
        let fields = match node.value {
            Value::Bool(true) => Fields::empty("sites[].compress", node.at),
            _ => self.fields(node, "sites[].compress")?,
        };
        let codings = self.with_default(&fields, "encodings", Self::codings);
        let types = self.with_default(&fields, "types", |c, n| {
            let mut types = Vec::new();
            for node in c.list(n, "media types") {
                let Some(text) = c.line(node, "a media type") else { continue };
                let is_part = |p: &str| !p.is_empty() && p.rfind('*').is_none_or(|at| at == 0);
                if !text.split_once('/').is_some_and(|(k, n)| is_part(k) && is_part(n)) {
                    let message = format!("{} is not a media type", quoted(text));
                    c.error(node.at, message, "as in text/html, text/* or */*+json".to_owned());
                }
                types.push(text.to_ascii_lowercase());
            }
            Some(types)
        });
        let bytes_min = self.with_default(&fields, "min-size", |c, n| c.size(n, 0, u64::MAX >> 1));
        Some(Compress { codings: codings?, types: types?, bytes_min: bytes_min? })
    }

    /// A list of content codings.
    pub(super) fn codings(&mut self, node: &Node) -> Option<Vec<Coding>> {
        let words = [Coding::Zstd, Coding::Brotli, Coding::Gzip].map(|c| (c.name(), c));
        let mut codings = Vec::new();
        for node in self.list(node, "zstd, br and gzip") {
            codings.extend(self.word(node, &words).filter(|coding| !codings.contains(coding)));
        }
        Some(codings)
    }

    fn field_names(&mut self, node: &Node) -> Option<Vec<String>> {
        let list = self.list(node, "names of fields");
        Some(list.iter().filter_map(|n| self.field_name(n)).collect())
    }

    /// `*`, or scheme and host, where the host may start with `*.`.
    fn origin(&mut self, node: &Node) -> Option<OriginPattern> {
        let text = self.line(node, "an origin")?;
        if text == "*" {
            return Some(OriginPattern::Any);
        }
        let lower = text.to_ascii_lowercase();
        let wrong = |c: &mut Self, help: String| {
            c.error(node.at, format!("{} is not an origin", quoted(text)), help);
            None
        };
        let Some((scheme, host)) = lower.split_once("://") else {
            return wrong(self, format!("did you mean `https://{lower}`?"));
        };
        if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) || !host.is_ascii() {
            let bare = host.split('/').next().unwrap_or_default();
            return wrong(self, format!("scheme, host and port alone: `{scheme}://{bare}`"));
        }
        match host.strip_prefix('*') {
            Some(rest) if rest.starts_with('.') && !rest.contains('*') => {
                Some(OriginPattern::Below(format!("{scheme}://"), rest.to_owned()))
            }
            _ if host.contains('*') => {
                wrong(self, "a `*` stands for the first labels: https://*.example.com".to_owned())
            }
            _ => Some(OriginPattern::Exact(lower)),
        }
    }

    fn basic_auth(&mut self, node: &'a Node) -> Option<BasicAuth> {
        let fields = self.fields(node, "sites[].basic-auth")?;
        let realm = self.with_default(&fields, "realm", |c, n| {
            let realm = c.line(n, "a realm")?;
            if !realm.is_ascii() || realm.contains(['"', '\\']) {
                c.error(n.at, "a realm is plain ASCII text without quotes", None);
            }
            Some(realm.to_owned())
        });
        let file = self.optional_path(&fields, "file");
        let mut users = BTreeMap::new();
        match fields.get("users").map(|n| (n, &n.value)) {
            Some((_, Value::Map(entries))) => {
                for entry in entries {
                    if let Some(hash) = self.user(&entry.key, entry.at, &entry.node) {
                        users.insert(entry.key.clone(), hash);
                    }
                }
            }
            Some((node, other)) => {
                let message = format!("expected a mapping of names, found {}", other.name());
                self.error(node.at, message, "as in `users: {NAME: HASH}`".to_owned());
            }
            None => {}
        }
        if users.is_empty() && file.is_none() && fields.get("users").is_none() {
            let help = "add `users: {NAME: HASH}` or `file: users.htpasswd`".to_owned();
            self.error(node.at, "nobody could come in", help);
        }
        let user_field = fields.get("user-field").and_then(|n| self.field_name(n));
        Some(BasicAuth { realm: realm?, users, file, user_field })
    }

    fn user(&mut self, name: &str, at: Place, node: &Node) -> Option<SecretText> {
        if name.is_empty() || name.contains(':') || name.chars().any(char::is_control) {
            let message = format!("{} cannot be a user's name", quoted(name));
            self.error(at, message, "a name has no `:`".to_owned());
        }
        let Value::Text(hash) = &node.value else {
            let message = format!("expected the hash of a password, found {}", node.value.name());
            self.error(node.at, message, HASHES.to_owned());
            return None;
        };
        let is_hash = ["$argon2id$", "$2a$", "$2b$", "$2y$"].iter().any(|s| hash.starts_with(s));
        if !is_hash {
            self.error(
                node.at,
                "this is no hash of a password that is known here",
                HASHES.to_owned(),
            );
            return None;
        }
        Some(SecretText::new(hash.clone()))
    }
}

const HASHES: &str = "argon2id or bcrypt: `witgate hash-password` makes one";
/// A token per nanosecond would be the end of it.
const RATE_MAX: u64 = 1_000_000;
