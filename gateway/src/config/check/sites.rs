//! `sites:`: hosts, routes and where they lead.

use std::collections::HashMap;

use super::super::node::{Entry, Node, Place, Value};
use super::super::report::{nearest, quoted};
use super::super::{
    Certificates, Files, HashBy, HostPattern, Listen, PathMatch, Paths, Pattern, PluginUse,
    Policies, Route, RouteAction, Site, SiteCertificate, Split, SplitBy, Sticky, Symlinks, Test,
    When,
};
use super::fields::Fields;
use super::plugins::is_method;
use super::upstreams::Traffic;
use super::{Checker, Role};

impl<'a> Checker<'a> {
    pub(super) fn sites(
        &mut self,
        fields: &Fields<'a>,
        certificates: &Certificates,
        listen: &[Listen],
    ) -> Vec<Site> {
        let Some(node) = self.required(fields, "sites") else { return Vec::new() };
        let list = self.list(node, "sites");
        if list.is_empty() && matches!(node.value, Value::List(_)) {
            let help = "as in `- {hosts: [app.example.com], upstream: \"http://127.0.0.1:8000\"}`";
            self.warning(node.at, "no site is served", help.to_owned());
        }
        let mut taken = HashMap::new();
        let mut sites = Vec::new();
        for node in list {
            if let Some(fields) = self.fields(node, "sites[]") {
                self.site(&fields, certificates, listen, &mut taken, &mut sites);
            }
        }
        if let Some(default) = &certificates.default {
            let answers = |s: &Site| s.hosts.iter().any(|h| h.matches(default.as_str()));
            if !sites.iter().any(answers) && certificates.files.is_empty() {
                let at = fields.get("certificates").and_then(|c| super::child(c, "default"));
                let message = format!("no site answers for {}", quoted(default.as_str()));
                let help = "the default certificate is that of a site's host".to_owned();
                self.error(at.map_or(fields.at, |n| n.at), message, help);
            }
        }
        sites
    }

    fn site(
        &mut self,
        fields: &Fields<'a>,
        certificates: &Certificates,
        listen: &[Listen],
        taken: &mut HashMap<HostPattern, u64>,
        sites: &mut Vec<Site>,
    ) {
        let hosts = self.hosts(fields, taken);
        if let Some(entry) = fields.entry("passthrough") {
            sites.extend(self.passthrough(fields, entry, hosts));
            return;
        }
        let wish = self.site_wish(fields, listen);
        let client_certificates =
            fields.get("client-certificates").and_then(|n| self.client_certificates(n));
        let router = fields.get("router").and_then(|n| self.plugin_use(n, Role::Router));
        let filters = self.filters(fields);
        let policies = self.policies(fields);
        let paths = self.with_default(fields, "paths", |c, n| c.word(n, &Paths::WORDS));
        let routes = self.routes(fields);
        for (hosts, certificate) in self.site_certificates(&wish, hosts, certificates) {
            sites.push(Site {
                hosts,
                passthrough: None,
                certificate,
                client_certificates: client_certificates.clone(),
                router: router.clone(),
                filters: filters.clone(),
                policies: policies.clone(),
                paths: paths.unwrap_or(Paths::Safe),
                routes: routes.clone(),
                line: fields.at.line,
            });
        }
    }

    /// A site whose connections are not opened: nothing else can be said about it.
    fn passthrough(
        &mut self,
        fields: &Fields<'a>,
        passthrough: &'a Entry,
        hosts: Vec<(HostPattern, Place)>,
    ) -> Option<Site> {
        for other in fields.others(&["hosts", "passthrough"]) {
            let message = format!("a site with `passthrough` has no `{}`", other.key);
            let help = "what goes through is not opened; the servers see to everything".to_owned();
            self.error(other.at, message, help);
        }
        let upstream = self.upstream_for(&passthrough.node, Traffic::Bytes)?;
        Some(Site {
            hosts: hosts.into_iter().map(|(host, _)| host).collect(),
            passthrough: Some(upstream),
            certificate: SiteCertificate::Files,
            client_certificates: None,
            router: None,
            filters: Vec::new(),
            policies: Policies::default(),
            paths: Paths::Safe,
            routes: Vec::new(),
            line: fields.at.line,
        })
    }

    fn hosts(
        &mut self,
        fields: &Fields<'a>,
        taken: &mut HashMap<HostPattern, u64>,
    ) -> Vec<(HostPattern, Place)> {
        let mut hosts = Vec::new();
        let Some(node) = self.required(fields, "hosts") else { return hosts };
        let list = self.list(node, "host names");
        if list.is_empty() && matches!(node.value, Value::List(_)) {
            self.error(node.at, "a site needs at least one host", None);
        }
        for node in list {
            let Some(host) = self.host(node) else { continue };
            match taken.get(&host) {
                Some(line) => {
                    let name = quoted(&host.to_string());
                    let message = format!("the host {name} is already taken on line {line}");
                    let help = "a host belongs to one site; merge their routes".to_owned();
                    self.error(node.at, message, help);
                }
                None => {
                    taken.insert(host.clone(), node.at.line);
                    hosts.push((host, node.at));
                }
            }
        }
        hosts
    }

    fn host(&mut self, node: &Node) -> Option<HostPattern> {
        let text = self.line(node, "a host name")?;
        let (bare, why) = match text.split_once("://") {
            Some((_, rest)) => (rest, "a URL, not a host name"),
            None => (text, "a host name with a path"),
        };
        if bare != text || bare.contains('/') {
            let bare = bare.split(['/', ':']).next().unwrap_or_default();
            self.error(
                node.at,
                format!("{} is {why}", quoted(text)),
                format!("did you mean {bare:?}?"),
            );
            return None;
        }
        if let Some((host, port)) = text.rsplit_once(':')
            && !host.contains(':')
            && port.chars().all(|c| c.is_ascii_digit())
        {
            let message = format!("the host {} has a port", quoted(text));
            let help = format!("write {host:?}; ports belong under `listen:`");
            self.error(node.at, message, help);
            return None;
        }
        match HostPattern::parse(text) {
            Ok(host) => Some(host),
            Err(error) => {
                self.error(node.at, format!("the host {} {error}", quoted(text)), None);
                None
            }
        }
    }

    fn filters(&mut self, fields: &Fields<'a>) -> Vec<PluginUse> {
        let list = self.list_of(fields, "filters", "plugins");
        list.iter().filter_map(|n| self.plugin_use(n, Role::Filter)).collect()
    }

    fn routes(&mut self, site: &Fields<'a>) -> Vec<Route> {
        if let Some(entry) = site.entry("upstream") {
            if let Some(routes) = site.entry("routes") {
                let message = "a site has either `upstream` or `routes`";
                let line = entry.at.line;
                let help = format!("make the upstream of line {line} the last route");
                self.error(routes.at, message, help);
            }
            let Some(upstream) = self.upstream_reference(&entry.node) else { return Vec::new() };
            return vec![Route {
                path: PathMatch::Prefix("/".to_owned()),
                methods: Vec::new(),
                headers: Vec::new(),
                query: Vec::new(),
                when: When::default(),
                filters: Vec::new(),
                policies: Policies::default(),
                action: RouteAction::Upstream(upstream),
                line: entry.at.line,
            }];
        }
        let list = self.list_of(site, "routes", "routes");
        let is_empty = match site.get("routes").map(|n| &n.value) {
            None => true,
            Some(Value::List(l)) => l.is_empty(),
            Some(_) => false,
        };
        let is_meant = ["router", "upstream", "routes"].iter().any(|key| site.is_meant(key));
        if is_empty && site.get("router").is_none() && !is_meant {
            let help = "add `upstream: NAME`, `routes: […]` or `router: PLUGIN`".to_owned();
            self.error(site.at, "this site leads nowhere", help);
        }
        let mut routes: Vec<Route> = Vec::new();
        for node in list {
            let Some(route) = self.route(node) else { continue };
            if let Some(first) = routes.iter().find(|first| covers(first, &route)) {
                let line = first.line;
                let message = format!("the route of line {line} takes all that this one takes");
                let help = "it is never reached: put it before that one, or remove it".to_owned();
                self.warning(node.at, message, help);
            }
            routes.push(route);
        }
        routes
    }

    fn route(&mut self, node: &'a Node) -> Option<Route> {
        let fields = self.fields(node, "sites[].routes[]")?;
        let path = self.path_match(&fields);
        let methods = self.methods(&fields);
        let headers = self.pairs(&fields, "headers", true);
        let query = self.pairs(&fields, "query", false);
        let when = self.when(&fields);
        let filters = self.filters(&fields);
        let policies = self.route_policies(&fields, path.as_ref());
        let action = self.action(&fields);
        Some(Route {
            path: path?,
            methods,
            headers,
            query,
            when,
            filters,
            policies,
            action: action?,
            line: node.at.line,
        })
    }

    fn methods(&mut self, fields: &Fields<'a>) -> Vec<String> {
        let mut methods = Vec::new();
        for node in self.list_of(fields, "methods", "methods") {
            let Some(method) = self.line(node, "a method") else { continue };
            if !is_method(method) {
                let message = format!("{} is not a method", quoted(method));
                let upper = method.to_ascii_uppercase();
                let help = is_method(&upper).then(|| format!("did you mean {upper:?}?"));
                self.error(node.at, message, help);
            }
            if !methods.iter().any(|m| m == method) {
                methods.push(method.to_owned());
            }
        }
        methods
    }

    /// `when`, `any` and `not` of a route.
    fn when(&mut self, route: &Fields<'a>) -> When {
        let all = route.get("when").map(|node| self.test(node)).unwrap_or_default();
        let mut list = |key| -> Vec<Test> {
            let nodes = self.list_of(route, key, "conditions as of `when`");
            nodes.iter().map(|node| self.test(node)).collect()
        };
        let (any, not) = (list("any"), list("not"));
        When { all, any, not }
    }

    fn test(&mut self, node: &'a Node) -> Test {
        let Some(fields) = self.fields(node, "sites[].routes[].when") else {
            return Test::default();
        };
        if matches!(&node.value, Value::Map(entries) if entries.is_empty()) {
            let help = "write what has to hold, such as `headers: {x-beta: \"1\"}`";
            self.error(node.at, "this condition says nothing", help.to_owned());
        }
        let networks = self.list_of(&fields, "addresses", "networks").iter();
        let versions = [("TLSv1.2", "TLSv1.2"), ("TLSv1.3", "TLSv1.3")];
        Test {
            methods: self.methods(&fields),
            path: fields.get("path").and_then(|n| self.pattern(n)),
            headers: self.patterns(&fields, "headers", true),
            query: self.patterns(&fields, "query", false),
            addresses: networks.filter_map(|n| self.network(n)).collect(),
            server_name: fields.get("server-name").and_then(|n| self.pattern(n)),
            tls_version: fields
                .get("tls-version")
                .and_then(|n| self.word(n, &versions))
                .map(str::to_owned),
            client_certificate: fields.get("client-certificate").and_then(|n| self.bool(n)),
        }
    }

    /// A name and a pattern for each of its values.
    fn patterns(
        &mut self,
        fields: &Fields<'a>,
        key: &str,
        are_headers: bool,
    ) -> Vec<(String, Pattern)> {
        let any = Pattern::new("(?s).*").ok();
        let pairs = self.pairs(fields, key, are_headers);
        let node = fields.get(key);
        let compiled = pairs.into_iter().filter_map(|(name, value)| match value {
            None => Some((name, any.clone()?)),
            Some(text) => match Pattern::new(&text) {
                Ok(pattern) => Some((name, pattern)),
                Err(cause) => {
                    let at = node.map_or(fields.at, |node| node.at);
                    self.no_pattern(at, &text, &cause);
                    None
                }
            },
        });
        compiled.collect()
    }

    fn pattern(&mut self, node: &Node) -> Option<Pattern> {
        let text = self.line(node, "a regular expression")?;
        let compiled = Pattern::new(text);
        compiled.map_err(|cause| self.no_pattern(node.at, text, &cause)).ok()
    }

    fn no_pattern(&mut self, at: Place, text: &str, cause: &str) {
        let message = format!("{} is not a regular expression: {cause}", quoted(text));
        let help = "letters, `.`, `*`, `+`, `?`, `[…]`, `(…|…)`; there are no look-arounds and no \
                    back-references, which take time without bounds";
        self.error(at, message, help.to_owned());
    }

    fn path_match(&mut self, fields: &Fields<'a>) -> Option<PathMatch> {
        if let (Some(_), Some(exact)) = (fields.entry("path"), fields.entry("exact")) {
            self.error(exact.at, "a route has either `path` or `exact`", None);
        }
        if let Some(node) = fields.get("exact") {
            return self.route_path(node).map(PathMatch::Exact);
        }
        match fields.get("path") {
            Some(node) => self.route_path(node).map(PathMatch::Prefix),
            None => self.with_default(fields, "path", Self::route_path).map(PathMatch::Prefix),
        }
    }

    pub(super) fn route_path(&mut self, node: &Node) -> Option<String> {
        let path = self.line(node, "a path such as /api/")?;
        let name = quoted(path);
        let wrong = if path.contains("://") {
            Some((format!("{name} is a URL, not a path"), None))
        } else if !path.starts_with('/') {
            let help = format!("did you mean `/{path}`?");
            Some((format!("the path {name} does not start with `/`"), Some(help)))
        } else if let Some(cut) = path.find(['?', '#']) {
            let bare = path.get(..cut).unwrap_or("/");
            let help = format!("write `path: {bare}` and put parameters under `query:`");
            Some((format!("the path {name} has more than a path"), Some(help)))
        } else if path.contains('*') {
            let bare = path.trim_end_matches('*');
            let help = match bare.contains('*') {
                true => "a path takes everything below it, and has no wildcards inside".to_owned(),
                false => format!("`path: {bare}` takes everything below it"),
            };
            Some((format!("the path {name} has a `*`"), Some(help)))
        } else if path.split('/').any(|s| matches!(s, "." | "..")) {
            let help = "requests never have one: write the path that is meant".to_owned();
            Some((format!("the path {name} has a dot segment"), Some(help)))
        } else if path.contains(' ') {
            Some((format!("the path {name} has a space"), Some("write it as %20".to_owned())))
        } else {
            None
        };
        match wrong {
            Some((message, help)) => {
                self.error(node.at, message, help);
                None
            }
            None => Some(path.to_owned()),
        }
    }

    /// `headers:` and `query:`: names with values, or names alone.
    fn pairs(
        &mut self,
        fields: &Fields<'a>,
        key: &str,
        are_headers: bool,
    ) -> Vec<(String, Option<String>)> {
        let mut pairs: Vec<(String, Option<String>)> = Vec::new();
        let Some(node) = fields.get(key) else { return pairs };
        let mut names: Vec<(&str, Place, Option<&Node>)> = Vec::new();
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let value = Some(&entry.node).filter(|n| !matches!(n.value, Value::Null));
                    names.push((&entry.key, entry.at, value));
                }
            }
            Value::List(list) => {
                for node in list {
                    if let Some(name) = self.line(node, "a name") {
                        names.push((name, node.at, None));
                    }
                }
            }
            other => {
                let message =
                    format!("expected a mapping or a list of names, found {}", other.name());
                self.error(node.at, message, format!("as in `{key}: {{NAME: VALUE}}`"));
            }
        }
        for (name, at, value) in names {
            if are_headers && !is_field_name(name) {
                self.error(at, format!("{} is not the name of a field", quoted(name)), None);
                continue;
            }
            let name = if are_headers { name.to_ascii_lowercase() } else { name.to_owned() };
            if are_headers && pairs.iter().any(|(other, _)| *other == name) {
                let message = format!("the field {} is here twice", quoted(&name));
                self.error(at, message, "field names have no case".to_owned());
            }
            let value = value.and_then(|n| self.text(n, "the value as text")).map(str::to_owned);
            pairs.push((name, value));
        }
        pairs
    }

    fn action(&mut self, fields: &Fields<'a>) -> Option<RouteAction> {
        let given: Vec<_> = ACTIONS.iter().filter_map(|key| fields.entry(key)).collect();
        match given.as_slice() {
            [] if ACTIONS.iter().any(|key| fields.is_meant(key)) => None,
            [] => {
                let help = "add `upstream: NAME`, `files: FOLDER`, `redirect: {to: …}` or \
                            `respond: {…}`"
                    .to_owned();
                self.error(fields.at, "this route leads nowhere", help);
                None
            }
            [only] => {
                let action = self.one_action(&only.key, &only.node);
                self.split_by(fields, action)
            }
            [first, second, ..] => {
                let message = format!(
                    "a route leads to one place, and here are `{}` and `{}`",
                    first.key, second.key
                );
                self.error(second.at, message, "keep one of them".to_owned());
                for entry in given {
                    self.one_action(&entry.key, &entry.node);
                }
                None
            }
        }
    }

    fn one_action(&mut self, key: &str, node: &'a Node) -> Option<RouteAction> {
        match key {
            "upstream" => self.upstream_reference(node).map(RouteAction::Upstream),
            "split" => self.split(node),
            "redirect" => self.redirect(node),
            "files" => self.files(node),
            _ => self.respond(node),
        }
    }

    fn split(&mut self, node: &'a Node) -> Option<RouteAction> {
        let Value::Map(entries) = &node.value else {
            let message = format!("expected upstreams and shares, found {}", node.value.name());
            self.error(node.at, message, "as in split: {stable: 95, canary: 5}".to_owned());
            return None;
        };
        let mut shares = Vec::new();
        for entry in entries {
            let name = Node { value: Value::Text(entry.key.clone()), ..entry.node.clone() };
            let is_known = self.is_upstream(&Node { at: entry.at, ..name }, &entry.key);
            let share = self.number(&entry.node, 0, 1_000_000).and_then(|n| u32::try_from(n).ok());
            if is_known && let Some(share) = share {
                self.takes(entry.at, &entry.key, Traffic::Requests);
                shares.push((entry.key.clone(), share));
            }
        }
        if shares.iter().all(|(_, share)| *share == 0) {
            let help = "give one of its upstreams a share above 0".to_owned();
            self.error(node.at, "this split leads nowhere", help);
            return None;
        }
        Some(RouteAction::Split(Split { shares, by: SplitBy::Chance }))
    }

    /// What decides where the requests of a split go.
    fn split_by(
        &mut self,
        fields: &Fields<'a>,
        action: Option<RouteAction>,
    ) -> Option<RouteAction> {
        let Some(node) = fields.get("split-by") else { return action };
        if fields.entry("split").is_none() && !fields.is_meant("split") {
            self.error(node.at, "`split-by` is for a route with `split`", None);
        }
        let by = match &node.value {
            Value::Map(_) => self.split_key(node),
            _ => {
                let address = SplitBy::Key(HashBy::Address);
                self.word(node, &[("chance", SplitBy::Chance), ("address", address)])
            }
        };
        match action {
            Some(RouteAction::Split(split)) => {
                Some(RouteAction::Split(Split { by: by.unwrap_or(SplitBy::Chance), ..split }))
            }
            other => other,
        }
    }

    fn split_key(&mut self, node: &'a Node) -> Option<SplitBy> {
        let fields = self.fields(node, "sites[].routes[].split-by")?;
        let max_age = fields.get("max-age").and_then(|n| self.duration(n, false));
        if let Some(entry) = fields.entry("max-age").filter(|_| fields.get("sticky").is_none()) {
            self.error(entry.at, "`max-age` is for a cookie that the gateway sets", None);
        }
        match (fields.get("cookie"), fields.get("header"), fields.get("sticky")) {
            (None, None, Some(sticky)) => {
                let cookie = self.token(sticky, "a cookie's name")?;
                Some(SplitBy::Sticky(Sticky { cookie, max_age }))
            }
            (Some(_), None, None) | (None, Some(_), None) => {
                self.hash_key(&fields).map(SplitBy::Key)
            }
            _ => {
                let help = "write {sticky: NAME}, {cookie: NAME}, {header: NAME} or address";
                self.error(node.at, "a split goes by one thing", help.to_owned());
                None
            }
        }
    }

    fn files(&mut self, node: &'a Node) -> Option<RouteAction> {
        let path = "sites[].routes[].files";
        let (fields, root) = match &node.value {
            Value::Text(_) => (Fields::empty(path, node.at), Some(node)),
            _ => {
                let fields = self.fields(node, path)?;
                let root = self.required(&fields, "root");
                (fields, root)
            }
        };
        let root = root.and_then(|n| self.path(n));
        let index = self.with_default(&fields, "index", |c, n| match &n.value {
            Value::Text(text) if text == "off" => Some(None),
            Value::Bool(false) => Some(None),
            _ => c.file_name(n).map(Some),
        });
        let fallback = fields.get("fallback").and_then(|n| self.file_name(n));
        let precompressed = self.with_default(&fields, "precompressed", Self::codings);
        let links = [("refuse", Symlinks::Refuse), ("within", Symlinks::Within)];
        let symlinks = self.with_default(&fields, "symlinks", |c, n| c.word(n, &links));
        let shows_hidden = self.with_default(&fields, "hidden", Self::bool);
        let cache_control = fields.get("cache-control").and_then(|n| {
            let text = self.line(n, "the value of cache-control")?;
            if !text.is_ascii() {
                self.error(n.at, "the value of a field is plain ASCII text", None);
            }
            Some(text.to_owned())
        });
        let files = Files {
            root: root?,
            index: index?,
            fallback,
            precompressed: precompressed?,
            symlinks: symlinks?,
            shows_hidden: shows_hidden?,
            cache_control,
        };
        Some(RouteAction::Files(std::sync::Arc::new(files)))
    }

    /// The name of a file below a root.
    fn file_name(&mut self, node: &Node) -> Option<String> {
        let name = self.line(node, "the name of a file")?;
        let bare = name.trim_start_matches("./").trim_start_matches('/');
        if bare != name || name.split('/').any(|s| matches!(s, "" | "." | "..")) {
            let message = format!("{} is not a file below the folder", quoted(name));
            let steps_out = bare.split('/').any(|s| matches!(s, "" | "." | ".."));
            let help = (!steps_out).then(|| format!("did you mean {bare:?}?"));
            self.error(node.at, message, help);
            return None;
        }
        Some(name.to_owned())
    }

    fn redirect(&mut self, node: &'a Node) -> Option<RouteAction> {
        if let Value::Text(to) = &node.value {
            let message = "expected a mapping, found text";
            self.error(node.at, message, format!("write {{to: {to:?}}}"));
            return None;
        }
        let fields = self.fields(node, "sites[].routes[].redirect")?;
        let status = self.with_default(&fields, "status", |c, n| {
            let status = c.number(n, 301, 308)?;
            if !REDIRECTS.contains(&status) {
                let message = format!("{status} is not a redirect");
                c.error(n.at, message, "use 301, 302, 303, 307 or 308".to_owned());
            }
            u16::try_from(status).ok()
        });
        let to = self.required(&fields, "to").and_then(|n| self.template(n));
        Some(RouteAction::Redirect { status: status?, to: to? })
    }

    /// The template of a `location` field.
    fn template(&mut self, node: &Node) -> Option<String> {
        let text = self.line(node, "a URL or a path")?;
        let is_place = ["https://", "http://", "/"].iter().any(|start| text.starts_with(start));
        if !is_place && !text.starts_with("{path}") {
            let message = format!("{} is neither a URL nor a path", quoted(text));
            self.error(node.at, message, format!("did you mean `https://{text}`?"));
        }
        if !text.is_ascii() || text.contains(' ') {
            let message = format!("{} has characters that a URL cannot have", quoted(text));
            self.error(node.at, message, "write them as %XX".to_owned());
        }
        let mut rest = text;
        while let Some((_, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else {
                self.error(node.at, format!("a `{{` of {} is not closed", quoted(text)), None);
                break;
            };
            if !PLACEHOLDERS.contains(&name) {
                let help = match nearest(name, PLACEHOLDERS.iter().copied()) {
                    Some(near) => format!("did you mean `{{{near}}}`?"),
                    None => "there are {host}, {path} and {query}".to_owned(),
                };
                self.error(
                    node.at,
                    format!("nothing is known of {}", quoted(&format!("{{{name}}}"))),
                    help,
                );
            }
            rest = after;
        }
        Some(text.to_owned())
    }

    pub(super) fn respond(&mut self, node: &'a Node) -> Option<RouteAction> {
        if let Value::Int(status) = node.value {
            let message = "expected a mapping, found a number";
            self.error(node.at, message, format!("write {{status: {status}}}"));
            return None;
        }
        let fields = self.fields(node, "sites[].routes[].respond")?;
        let status = self.with_default(&fields, "status", |c, n| {
            c.number(n, 200, 599).and_then(|n| u16::try_from(n).ok())
        });
        let body = self
            .with_default(&fields, "body", |c, n| c.text(n, "the body as text").map(str::to_owned));
        let content_type = self.with_default(&fields, "content-type", |c, n| {
            let text = c.line(n, "a media type")?;
            if !text.is_ascii() || !text.contains('/') {
                let message = format!("{} is not a media type", quoted(text));
                c.error(n.at, message, "as in text/plain; charset=utf-8".to_owned());
            }
            Some(text.to_owned())
        });
        Some(RouteAction::Respond { status: status?, body: body?, content_type: content_type? })
    }
}

/// Whether every request that `later` takes is taken by `first`, which stands before it. Routes of
/// other paths cannot: exact paths and longer prefixes are tried before it, wherever they stand.
fn covers(first: &Route, later: &Route) -> bool {
    let demands = |first: &[(String, Option<String>)], later: &[(String, Option<String>)]| {
        first.iter().all(|(name, want)| {
            later.iter().any(|(n, w)| n == name && (want.is_none() || want == w))
        })
    };
    let takes_methods = first.methods.is_empty()
        || !later.methods.is_empty() && later.methods.iter().all(|m| first.methods.contains(m));
    first.path == later.path
        && takes_methods
        && demands(&first.headers, &later.headers)
        && demands(&first.query, &later.query)
        // Whether one pattern takes all that another takes is not asked.
        && (first.when == When::default() || first.when == later.when)
}

/// A token (RFC 9110, section 5.6.2).
pub(super) fn is_field_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(allowed)
}

const REDIRECTS: &[u64] = &[301, 302, 303, 307, 308];
/// Keys that say where a route leads.
const ACTIONS: &[&str] = &["upstream", "split", "redirect", "respond", "files"];
const PLACEHOLDERS: &[&str] = &["host", "path", "query"];
