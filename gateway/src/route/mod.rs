//! From host, path, method, fields and query to a route. Pure: no await, no clock, no IO. Called by
//! `http::exchange` for every request; built once per generation.

pub mod path;

use std::collections::HashMap;

use crate::config::{HostPattern, PathMatch, Route, Site, Test, When};
use crate::http::head::{ConnectionFacts, RequestHead};

/// Sites by host, each with its routes in the order in which they are tried.
#[derive(Debug, Default)]
pub struct RouteTable {
    exact: HashMap<Box<str>, usize>,
    wildcard: HashMap<Box<str>, usize>,
    /// The site of every other host.
    any: Option<usize>,
    /// For each site, indices into its `routes`: exact paths first, then prefixes, longest first;
    /// among equals the file's order.
    orders: Vec<Vec<usize>>,
}

impl RouteTable {
    /// Builds the table for `sites`, whose indices it answers with.
    pub fn new(sites: &[Site]) -> Self {
        let mut table = Self::default();
        for (index, site) in sites.iter().enumerate() {
            for host in &site.hosts {
                let (map, name) = match host {
                    HostPattern::Exact(name) => (&mut table.exact, name),
                    HostPattern::Wildcard(name) => (&mut table.wildcard, name),
                    HostPattern::Any => {
                        table.any = Some(index);
                        continue;
                    }
                };
                map.entry(name.as_str().into()).or_insert(index);
            }
            let mut order: Vec<usize> = (0..site.routes.len()).collect();
            order.sort_by_key(|&route| match site.routes.get(route).map(|r| &r.path) {
                Some(PathMatch::Exact(_)) | None => (0, 0),
                Some(PathMatch::Prefix(prefix)) => (1, usize::MAX - prefix.len()),
            });
            table.orders.push(order);
        }
        table
    }

    /// The site for a host in lower case: exact, then the wildcard over its first label, then that of
    /// every host.
    pub fn site(&self, host: &str) -> Option<usize> {
        if let Some(&site) = self.exact.get(host) {
            return Some(site);
        }
        let parts = host.split_once('.').filter(|(label, _)| !label.is_empty());
        parts.and_then(|(_, rest)| self.wildcard.get(rest).copied()).or(self.any)
    }

    /// The first of the site's routes that takes this request of this connection.
    pub fn route(
        &self,
        sites: &[Site],
        site: usize,
        head: &RequestHead,
        facts: &ConnectionFacts,
    ) -> Option<usize> {
        let routes = &sites.get(site)?.routes;
        let order = self.orders.get(site)?;
        let takes = |route: &Route| takes(route, head) && holds(&route.when, head, facts);
        order.iter().copied().find(|&index| routes.get(index).is_some_and(takes))
    }
}

/// Host and port of an authority; the host without brackets.
pub fn split_authority(authority: &str) -> (&str, Option<u16>) {
    if let Some(rest) = authority.strip_prefix('[')
        && let Some((host, after)) = rest.split_once(']')
    {
        return (host, after.strip_prefix(':').and_then(|p| p.parse().ok()));
    }
    let mut colons = memchr::memchr_iter(b':', authority.as_bytes());
    match (colons.next(), colons.next()) {
        (Some(colon), None) => {
            let (host, port) = authority.split_at_checked(colon).unwrap_or_default();
            (host, port.get(1..).and_then(|port| port.parse().ok()))
        }
        _ => (authority, None),
    }
}

fn takes(route: &Route, head: &RequestHead) -> bool {
    takes_path(&route.path, head.target.path())
        && (route.methods.is_empty() || route.methods.iter().any(|m| m == head.method.as_str()))
        && route.headers.iter().all(|(name, want)| takes_field(head, name, want.as_deref()))
        && route.query.iter().all(|(name, want)| {
            query_pairs(head)
                .any(|(key, value)| key == name && want.as_deref().is_none_or(|want| want == value))
        })
}

/// Whether what a route wants besides holds. Most want nothing.
fn holds(when: &When, head: &RequestHead, facts: &ConnectionFacts) -> bool {
    let holds = |test: &Test| test_holds(test, head, facts);
    holds(&when.all)
        && (when.any.is_empty() || when.any.iter().any(holds))
        && !when.not.iter().any(holds)
}

fn test_holds(test: &Test, head: &RequestHead, facts: &ConnectionFacts) -> bool {
    let tls = facts.tls.as_deref();
    let client = facts.client.ip().to_canonical();
    (test.methods.is_empty() || test.methods.iter().any(|m| m == head.method.as_str()))
        && test.path.as_ref().is_none_or(|want| want.takes(&path::decoded(head.target.path())))
        && test.headers.iter().all(|(name, want)| {
            head.headers.get_all(name).iter().any(|value| want.takes(value.as_bytes()))
        })
        && test.query.iter().all(|(name, want)| {
            let mut pairs = query_pairs(head);
            pairs.any(|(key, value)| key == name && want.takes(value.as_bytes()))
        })
        && (test.addresses.is_empty() || test.addresses.iter().any(|net| net.contains(&client)))
        && test.server_name.as_ref().is_none_or(|want| {
            let name = tls.and_then(|tls| tls.server_name.as_deref());
            name.is_some_and(|name| want.takes(name.as_bytes()))
        })
        && test.tls_version.as_deref().is_none_or(|want| tls.is_some_and(|tls| tls.version == want))
        && test
            .client_certificate
            .is_none_or(|want| tls.is_some_and(|tls| tls.client.is_some()) == want)
}

fn query_pairs(head: &RequestHead) -> impl Iterator<Item = (&str, &str)> {
    let pairs = head.target.query().unwrap_or_default().split('&');
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn takes_path(want: &PathMatch, path: &str) -> bool {
    match want {
        PathMatch::Exact(exact) => {
            path == exact
                || (path.contains('%') || exact.contains('%'))
                    && path::decoded(path) == path::decoded(exact)
        }
        PathMatch::Prefix(prefix) => {
            let stem = prefix.strip_suffix('/').unwrap_or(prefix);
            // `/` takes everything, also the `*` of OPTIONS.
            stem.is_empty()
                || path::strip_prefix(path, stem).is_some_and(|rest| match rest {
                    // `/api/` asks for something below, `/api` also takes the name itself.
                    "" => !prefix.ends_with('/'),
                    rest => rest.starts_with('/'),
                })
        }
    }
}

fn takes_field(head: &RequestHead, name: &str, want: Option<&str>) -> bool {
    let mut values = head.headers.get_all(name).iter();
    match want {
        None => values.next().is_some(),
        Some(want) => values.any(|value| value.as_bytes() == want.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Pattern, RouteAction, Scheme, SiteCertificate};
    use crate::tls::TlsFacts;

    fn route(path: PathMatch) -> Route {
        Route {
            path,
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
            when: When::default(),
            filters: Vec::new(),
            policies: Default::default(),
            action: RouteAction::Upstream("a".into()),
            line: 1,
        }
    }

    fn site(hosts: &[&str], routes: Vec<Route>) -> Site {
        Site {
            hosts: hosts.iter().map(|h| HostPattern::parse(h).unwrap()).collect(),
            certificate: SiteCertificate::Files,
            passthrough: None,
            client_certificates: None,
            router: None,
            filters: Vec::new(),
            policies: Default::default(),
            routes,
            paths: crate::config::Paths::Safe,
            line: 1,
        }
    }

    fn head(method: &str, target: &str) -> RequestHead {
        RequestHead {
            id: "id".into(),
            method: method.parse().unwrap(),
            scheme: Scheme::Https,
            authority: "a.example".into(),
            target: target.parse().unwrap(),
            version: http::Version::HTTP_11,
            headers: http::HeaderMap::new(),
        }
    }

    fn facts() -> ConnectionFacts {
        let client = "192.0.2.7:5000".parse().unwrap();
        let tls = Some(std::sync::Arc::new(TlsFacts::usual(Some("a.example".into()))));
        ConnectionFacts { client, tls, via: None }
    }

    #[test]
    fn conditions_hold_together_one_of_them_or_none() {
        let pattern = |text: &str| Pattern::new(text).unwrap();
        let of_path = |text: &str| Test { path: Some(pattern(text)), ..Test::default() };
        let field =
            |text: &str| Test { headers: vec![("x-a".into(), pattern(text))], ..Test::default() };
        let mut narrow = route(PathMatch::Prefix("/".into()));
        narrow.when = When {
            all: of_path("/v[0-9]+/.*"),
            any: vec![
                field("b|c"),
                Test { query: vec![("beta".into(), pattern("on"))], ..Test::default() },
            ],
            not: vec![
                Test { methods: vec!["DELETE".into()], ..Test::default() },
                of_path(".*/admin"),
            ],
        };
        let sites = [site(&["a.example"], vec![narrow])];
        let table = RouteTable::new(&sites);
        let at = |method, target, value: Option<&'static str>| {
            let mut head = head(method, target);
            if let Some(value) = value {
                head.headers.append("x-a", "other".parse().unwrap());
                head.headers.append("x-a", value.parse().unwrap());
            }
            table.route(&sites, 0, &head, &facts()).is_some()
        };
        assert!(at("GET", "/v1/x", Some("b")) && at("GET", "/v1/x", Some("c")));
        assert!(!at("GET", "/v1/x", Some("bc")), "the whole value");
        assert!(at("GET", "/v12/x?a=1&beta=on", None));
        assert!(!at("GET", "/v12/x?beta=off", None) && !at("GET", "/v/x?beta=on", None));
        assert!(!at("DELETE", "/v1/x", Some("b")) && !at("GET", "/v1/admin", Some("b")));
        assert!(!at("GET", "/v1/%61dmin", Some("b")), "as servers read it");
    }

    #[test]
    fn the_connection_narrows_a_route() {
        let takes = |test: Test, facts: &ConnectionFacts| {
            let mut narrow = route(PathMatch::Prefix("/".into()));
            narrow.when.all = test;
            let sites = [site(&["a.example"], vec![narrow])];
            RouteTable::new(&sites).route(&sites, 0, &head("GET", "/"), facts).is_some()
        };
        let plain = ConnectionFacts { tls: None, ..facts() };
        let from = |net: &str| Test { addresses: vec![net.parse().unwrap()], ..Test::default() };
        assert!(takes(from("192.0.2.0/24"), &facts()) && !takes(from("10.0.0.0/8"), &facts()));
        let mapped = ConnectionFacts { client: "[::ffff:192.0.2.7]:1".parse().unwrap(), ..facts() };
        assert!(takes(from("192.0.2.0/24"), &mapped));
        let version = |v: &str| Test { tls_version: Some(v.into()), ..Test::default() };
        assert!(takes(version("TLSv1.3"), &facts()) && !takes(version("TLSv1.2"), &facts()));
        assert!(!takes(version("TLSv1.3"), &plain));
        let name =
            |text: &str| Test { server_name: Some(Pattern::new(text).unwrap()), ..Test::default() };
        assert!(takes(name(r"a\..*"), &facts()) && !takes(name("b.*"), &facts()));
        assert!(!takes(name(".*"), &plain));
        let shown = |is| Test { client_certificate: Some(is), ..Test::default() };
        assert!(takes(shown(false), &facts()) && !takes(shown(true), &facts()));
    }

    #[test]
    fn patterns_take_linear_time_and_have_bounds() {
        assert!(Pattern::new("(a*)*b").unwrap().takes(b"aab"));
        let long = vec![b'a'; 30_000];
        assert!(!Pattern::new("(a|aa)+(a|aa)+(a|aa)+b").unwrap().takes(&long));
        assert!(Pattern::new(".*/admin").unwrap().takes(b"/\xff\n/admin"));
        for wrong in ["(", "a)|(b", "a{2000}{2000}", r"(a)\1", "(?=a)"] {
            assert!(Pattern::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_exact_host_wins_over_a_wildcard() {
        let sites = [site(&["*.example.com"], vec![]), site(&["a.example.com"], vec![])];
        let table = RouteTable::new(&sites);
        assert_eq!(table.site("a.example.com"), Some(1));
        assert_eq!(table.site("b.example.com"), Some(0));
        assert_eq!(table.site("c.b.example.com"), None);
        assert_eq!(table.site("example.com"), None);
    }

    #[test]
    fn exact_paths_then_the_longest_prefix() {
        let prefix = |p: &str| route(PathMatch::Prefix(p.into()));
        let mut post = prefix("/api");
        post.methods = vec!["POST".into()];
        let sites = [site(
            &["a.example"],
            vec![prefix("/"), prefix("/api/"), route(PathMatch::Exact("/api/x".into())), post],
        )];
        let table = RouteTable::new(&sites);
        let at = |method, target| table.route(&sites, 0, &head(method, target), &facts());
        assert_eq!(at("GET", "/"), Some(0));
        assert_eq!(at("GET", "/api"), Some(0));
        assert_eq!(at("POST", "/api"), Some(3));
        assert_eq!(at("GET", "/api/"), Some(1));
        assert_eq!(at("GET", "/api/y?z"), Some(1));
        assert_eq!(at("GET", "/apis"), Some(0));
        assert_eq!(at("GET", "/api/x"), Some(2));
        assert_eq!(at("OPTIONS", "*"), Some(0));
        // Servers decode what need not have been encoded.
        assert_eq!(at("GET", "/%61pi/y"), Some(1));
        assert_eq!(at("GET", "/a%70i/%78"), Some(2));
        assert_eq!(at("GET", "/api%2Fx"), Some(0));
    }

    #[test]
    fn fields_and_query_narrow_a_route() {
        let mut narrow = route(PathMatch::Prefix("/".into()));
        narrow.headers = vec![("x-beta".into(), Some("1".into())), ("x-any".into(), None)];
        narrow.query = vec![("v".into(), Some("2".into()))];
        let sites = [site(&["a.example"], vec![narrow])];
        let table = RouteTable::new(&sites);
        let mut request = head("GET", "/?a=1&v=2");
        assert_eq!(table.route(&sites, 0, &request, &facts()), None);
        request.headers.insert("x-beta", "1".parse().unwrap());
        request.headers.insert("x-any", "".parse().unwrap());
        assert_eq!(table.route(&sites, 0, &request, &facts()), Some(0));
        request.target = "/?v=3".parse().unwrap();
        assert_eq!(table.route(&sites, 0, &request, &facts()), None);
    }

    #[test]
    fn authorities_split() {
        assert_eq!(split_authority("a.example:8443"), ("a.example", Some(8443)));
        assert_eq!(split_authority("a.example"), ("a.example", None));
        assert_eq!(split_authority("[::1]:443"), ("::1", Some(443)));
        assert_eq!(split_authority("[::1]"), ("::1", None));
    }
}
