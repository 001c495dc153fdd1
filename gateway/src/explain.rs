//! `witgate explain`: what a configuration makes of one request, step by step, with the plugins run for
//! real and nothing sent anywhere. Called by the command line alone. The steps are those of
//! `http::exchange`, in its order.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::config::{
    Challenge, ClientCertificateMode, Config, Issuer, OnError, PathMatch, RouteAction, Scheme,
    Server, Site, SiteCertificate, Split,
};
use crate::fault::describe;
use crate::generation::{Generation, SiteUses};
use crate::http::head::{ConnectionFacts, RequestHead, ResponseHead, ResponseSource};
use crate::http::headers;
use crate::plugin::{Called, Decision, Hooks, Mode, PluginError, Tap};
use crate::route::split_authority;
use crate::tls::TlsFacts;
use crate::tls::certs::Certs;

/// The request to explain.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// An absolute URL.
    pub url: http::Uri,
    /// The server name of the handshake, in lower case; the URL's host if absent.
    pub sni: Option<String>,
    /// Fields, as given.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// Who asks.
    pub peer: IpAddr,
    /// The body, for filters that read its beginning.
    pub body: Vec<u8>,
}

/// Explains a request against a generation and the certificates of files. The text ends with a newline.
///
/// # Errors
/// When the URL is not one that a client could ask for.
pub fn explain(generation: &Generation, certs: &Certs, asked: &Asked) -> Result<String, String> {
    let head = head(asked)?;
    let mut walk = Walk { generation, certs, head, filters: Vec::new(), text: String::new() };
    walk.connection(asked);
    walk.request(asked);
    Ok(walk.text)
}

struct Walk<'g> {
    generation: &'g Generation,
    certs: &'g Certs,
    head: RequestHead,
    /// The filters that the request meets, as indices into the generation's uses.
    filters: Vec<usize>,
    text: String,
}

/// Where the request goes in the end.
enum End {
    Upstream(String),
    Answer(ResponseHead),
    Nowhere,
}

impl Walk<'_> {
    fn line(&mut self, word: &str, text: &str) {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default().trim_end();
        let _ = writeln!(self.text, "{word:<12}{first}");
        for line in lines {
            let _ = writeln!(self.text, "{:<12}{line}", "");
        }
    }

    /// accept, hello, handshake.
    fn connection(&mut self, asked: &Asked) {
        let config = &self.generation.config;
        let scheme = self.head.scheme;
        let (host, port) = split_authority(&self.head.authority);
        let host = host.to_owned();
        let port = port.unwrap_or(if scheme == Scheme::Https { 443 } else { 80 });
        let listens = config.listen.iter().any(|l| l.scheme == scheme && l.address.port() == port);
        let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        let listen = match listens {
            true => format!("port {port}"),
            false => format!("nothing listens on port {port}; there are: {}", listen.join(", ")),
        };
        self.line("accept", &listen);
        if scheme == Scheme::Http {
            let text = "plain HTTP: answers HTTP-01 challenges and redirects the rest to https";
            return self.line("hello", text);
        }
        let asked_host = host;
        let host = asked.sni.clone().unwrap_or_else(|| asked_host.clone());
        let is_address = host.parse::<IpAddr>().is_ok();
        match (is_address, &config.certificates.default) {
            (false, _) => self.line("hello", &format!("server name {host}")),
            (true, Some(default)) => {
                let text = format!("no server name, since it is an address: as {default}");
                self.line("hello", &text);
            }
            (true, None) => {
                let text = "no server name, since it is an address, and `certificates.default` is \
                            not set: refused, unless a certificate is for the address itself";
                self.line("hello", text);
            }
        }
        let site = self.generation.routes.site(&host).and_then(|site| config.sites.get(site));
        let certificate = match site {
            Some(site) => certificate(site),
            None => "none: no site has this name".to_owned(),
        };
        if let Some(upstream) = site.and_then(|site| site.passthrough.as_ref()) {
            let text = format!("none here: bytes go unopened to the upstream {upstream}");
            return self.line("handshake", &text);
        }
        self.line("handshake", &certificate);
        if let Some(found) = self.certs.find(Some(&host)) {
            let names: Vec<String> = found.names.iter().map(ToString::to_string).collect();
            let exact = found.names.iter().any(|name| name.to_string() == host);
            let why = if exact { "has exactly this name" } else { "has its wildcard" };
            let text = format!(
                "the file that {why} comes before all others: {} (ends {})",
                names.join(", "),
                found.not_after
            );
            self.line("", &text);
        }
        let of = |name: &str| self.generation.fronts.find(Some(name), None).clients;
        let (shown, wanted) = (of(&host), of(&asked_host));
        if wanted.is_some() && wanted.map(|w| w.demand) != shown.map(|s| s.demand) {
            let text = format!(
                "{asked_host} asks for certificates of clients, and this handshake was not made \
                 under that: 421"
            );
            self.line("", &text);
        }
        if let Some(clients) = site.and_then(|site| site.client_certificates.as_ref()) {
            self.line(
                "",
                match clients.mode {
                    ClientCertificateMode::Require => "the client has to show a certificate, too",
                    ClientCertificateMode::Request => "the client is asked for a certificate, too",
                },
            );
        }
        if let Some(field) = self.head.headers.get("x-forwarded-for").cloned() {
            let peer = SocketAddr::new(asked.peer, 40_000);
            let client = headers::client(peer, &config.trusted_proxies, &self.head.headers);
            let field = String::from_utf8_lossy(field.as_bytes()).into_owned();
            let why = match headers::is_trusted(asked.peer, &config.trusted_proxies) {
                true => format!("{} is in trusted-proxies, and says {field}", asked.peer),
                false => format!(
                    "the peer; {} is not in trusted-proxies, so its x-forwarded-for is dropped",
                    asked.peer
                ),
            };
            self.line("client", &format!("{}: {why}", client.ip()));
        } else {
            self.line("client", &format!("{}: the peer", asked.peer));
        }
    }

    /// match, decide, rewrite, send, and the response's way back.
    fn request(&mut self, asked: &Asked) {
        if self.head.scheme == Scheme::Http {
            let to = format!("https://{}{}", self.head.authority, self.head.target);
            return self.line("answer", &format!("a redirect to {to}"));
        }
        let facts = facts(&self.generation.config, &self.head, asked);
        let end = self.decide(&facts);
        let end = self.rewrite(&facts, end, &asked.body);
        let head = match end {
            End::Nowhere => return,
            End::Answer(head) => {
                self.line("answer", &format!("{} without asking an upstream", head.status));
                head
            }
            End::Upstream(name) => {
                self.line("send", &self.upstream(&name));
                let (status, headers) = (StatusCode::OK, HeaderMap::new());
                ResponseHead { status, headers, source: ResponseSource::Upstream }
            }
        };
        self.respond(&facts, head);
    }

    fn decide(&mut self, facts: &Arc<ConnectionFacts>) -> End {
        let generation = self.generation;
        let (host, _) = split_authority(&self.head.authority);
        let found = generation.routes.site(host);
        let sites = &generation.config.sites;
        let Some((index, site, uses)) =
            found.and_then(|index| Some((index, sites.get(index)?, generation.sites.get(index)?)))
        else {
            self.line("match", &format!("421: no site has the host {host}"));
            return End::Nowhere;
        };
        let hosts: Vec<String> = site.hosts.iter().map(ToString::to_string).collect();
        self.line("match", &format!("the site of line {}: {}", site.line, hosts.join(", ")));
        self.filters.extend_from_slice(&uses.filters);
        if let Some(router) = uses.router {
            let decided = self
                .call(router, "route", |hooks, head| hooks.route(facts, head).map(Called::from));
            match decided {
                Some(Decision::Continue) => {}
                Some(Decision::Upstream(name)) => return End::Upstream(name.to_string()),
                Some(decision) => return End::Answer(answer(decision)),
                None => return End::Nowhere,
            }
        }
        self.route(index, site, uses, facts)
    }

    fn route(
        &mut self,
        index: usize,
        site: &Site,
        uses: &SiteUses,
        facts: &ConnectionFacts,
    ) -> End {
        let generation = self.generation;
        let route = generation.routes.route(&generation.config.sites, index, &self.head, facts);
        let Some((index, route)) = route.and_then(|at| Some((at, site.routes.get(at)?))) else {
            self.line("route", "404: none of the site's routes takes it");
            return End::Nowhere;
        };
        self.filters.extend(uses.routes.get(index).into_iter().flatten().copied());
        let path = match &route.path {
            PathMatch::Exact(path) => format!("exact: {path}"),
            PathMatch::Prefix(path) => format!("path: {path}"),
        };
        let (to, end) = match &route.action {
            RouteAction::Upstream(name) => {
                (format!("upstream {name}"), End::Upstream(name.clone()))
            }
            RouteAction::Split(Split { shares, .. }) => {
                let all: u32 = shares.iter().map(|(_, share)| share).sum();
                let said: Vec<String> =
                    shares.iter().map(|(name, share)| format!("{name} {share} of {all}")).collect();
                // The largest share stands for the rest of the walk.
                let most = shares.iter().max_by_key(|(_, share)| *share);
                let name = most.map(|(name, _)| name.clone()).unwrap_or_default();
                (format!("split: {}; here {name}", said.join(", ")), End::Upstream(name))
            }
            RouteAction::Redirect { status, to } => {
                (format!("redirect {status} to {to}"), End::Answer(blank(*status)))
            }
            RouteAction::Respond { status, .. } => {
                (format!("respond {status}"), End::Answer(blank(*status)))
            }
            RouteAction::Files(files) => {
                (format!("files below {}", files.root.display()), End::Answer(blank(200)))
            }
        };
        self.line("route", &format!("the route of line {} ({path}): {to}", route.line));
        end
    }

    fn rewrite(&mut self, facts: &Arc<ConnectionFacts>, end: End, body: &[u8]) -> End {
        if matches!(end, End::Nowhere) {
            return end;
        }
        for index in self.filters.clone() {
            let Some(hooks) = self.hooks(index) else { return End::Nowhere };
            let hooked = hooks.hooked();
            drop(hooks);
            if hooked.request {
                let hook = "on-request";
                let has_body = !body.is_empty();
                match self.call(index, hook, |hooks, head| hooks.on_request(facts, head, has_body))
                {
                    Some(Decision::Continue | Decision::Upstream(_)) => {}
                    Some(decision) => return End::Answer(answer(decision)),
                    None => return End::Nowhere,
                }
            }
            if let (Some(bytes_max), End::Upstream(_)) = (hooked.request_body_bytes_max, &end) {
                let prefix = body.get(..bytes_max).unwrap_or(body);
                let is_whole = prefix.len() == body.len();
                let decided = self.call(index, "on-request-body", |hooks, head| {
                    hooks.on_request_body(facts, head, prefix, is_whole).map(Called::from)
                });
                match decided {
                    Some(Decision::Continue | Decision::Upstream(_)) => {}
                    Some(decision) => return End::Answer(answer(decision)),
                    None => return End::Nowhere,
                }
            }
        }
        end
    }

    fn respond(&mut self, facts: &Arc<ConnectionFacts>, mut response: ResponseHead) {
        for index in self.filters.clone().into_iter().rev() {
            let Some(hooks) = self.hooks(index) else { return };
            if !hooks.hooked().response {
                continue;
            }
            let before = response.clone();
            let outcome = hooks.on_response(facts, &mut self.head, &mut response, true);
            let what = match outcome {
                Ok(called) => {
                    let mut lines = Vec::new();
                    lines.extend(called.tap.as_ref().map(|tap| wish(tap).to_owned()));
                    if before.status != response.status {
                        lines.push(format!("status {} -> {}", before.status, response.status));
                    }
                    differences(&mut lines, &before.headers, &response.headers);
                    said(&lines, "changes nothing")
                }
                Err(error) => self.failure(index, &error),
            };
            let of = match before.source {
                ResponseSource::Upstream => format!("on a bare {} of an upstream", before.status),
                _ => format!("on the {}", before.status),
            };
            self.line("response", &format!("{} on-response {of}: {what}", self.name(index)));
        }
    }

    /// Calls a hook, and says what it decided and changed. None when it failed and the request ends.
    fn call(
        &mut self,
        index: usize,
        hook: &str,
        run: impl FnOnce(&Hooks, &mut RequestHead) -> Result<Called, PluginError>,
    ) -> Option<Decision> {
        let hooks = self.hooks(index)?;
        let before = self.head.clone();
        let outcome = run(&hooks, &mut self.head);
        let word = if hook == "route" { "decide" } else { "rewrite" };
        let name = self.name(index);
        match outcome {
            Ok(Called { decision, tap, .. }) => {
                let mut lines = Vec::new();
                lines.extend(tap.as_ref().map(|tap| wish(tap).to_owned()));
                match &decision {
                    Decision::Continue => {}
                    Decision::Upstream(name) => lines.push(format!("to upstream {name}")),
                    Decision::Redirect { status, location } => {
                        lines.push(format!("redirect {status} to {}", shown(location)));
                    }
                    Decision::Respond { status, body, .. } => {
                        lines.push(format!("respond {status} with {} bytes", body.len()));
                    }
                }
                head_differences(&mut lines, &before, &self.head);
                let what = said(&lines, "decides and changes nothing");
                self.line(word, &format!("{name} {hook}: {what}"));
                Some(decision)
            }
            Err(error) => {
                let what = self.failure(index, &error);
                self.line(word, &format!("{name} {hook}: {what}"));
                let goes_on = matches!(self.on_error(index), Some(OnError::FailOpen));
                goes_on.then_some(Decision::Continue)
            }
        }
    }

    fn failure(&self, index: usize, error: &PluginError) -> String {
        let then = match self.on_error(index) {
            Some(OnError::FailOpen) => "goes on without it (on-error: fail-open)".to_owned(),
            Some(OnError::Respond(fixed)) => {
                format!("answers {} (on-error: respond)", fixed.status)
            }
            Some(OnError::FailClosed) | None => "answers 500 (on-error: fail-closed)".to_owned(),
        };
        format!("fails, and the gateway {then}\n{}", describe(error))
    }

    fn on_error(&self, index: usize) -> Option<&OnError> {
        let place = self.generation.uses.get(index)?;
        Some(&self.generation.config.plugins.get(&place.plugin)?.on_error)
    }

    fn name(&self, index: usize) -> String {
        self.generation.uses.get(index).map(|place| place.plugin.clone()).unwrap_or_default()
    }

    fn hooks(&mut self, index: usize) -> Option<Hooks> {
        let place = self.generation.uses.get(index)?;
        let plugin = self.generation.plugins.get(&place.plugin)?;
        match Hooks::new(Arc::clone(plugin), &place.config) {
            Ok(hooks) => Some(hooks),
            Err(error) => {
                let text = format!("{} does not start: {}", place.plugin, describe(&error));
                self.line("rewrite", &text);
                None
            }
        }
    }

    fn upstream(&self, name: &str) -> String {
        let Some(upstream) = self.generation.config.upstreams.get(name) else {
            return format!("upstream {name}, which is not there");
        };
        let servers: Vec<String> = upstream.servers.iter().map(Server::to_string).collect();
        let target = &self.head.target;
        let host = match upstream.preserve_host {
            true => self.head.authority.as_str(),
            false => "the server's own",
        };
        format!(
            "{} {target} with host {host}\nto upstream {name}: one of {}",
            self.head.method,
            servers.join(", ")
        )
    }
}

/// The head that a client would send for the URL.
fn head(asked: &Asked) -> Result<RequestHead, String> {
    let scheme = match asked.url.scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => return Err(format!("{} is not an https:// or http:// URL", asked.url)),
    };
    let authority = asked.url.authority().map(|it| it.as_str().to_ascii_lowercase());
    let authority = authority.filter(|it| !it.contains('@')).ok_or("the URL has no plain host")?;
    let target = asked.url.path_and_query().cloned();
    let headers = asked.fields.iter().filter(|(name, _)| name != http::header::HOST).cloned();
    let mut fields = HeaderMap::new();
    for (name, value) in headers {
        fields.append(name, value);
    }
    Ok(RequestHead {
        id: Arc::from("explain"),
        method: asked.method.clone(),
        scheme,
        authority,
        target: target.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")),
        version: http::Version::HTTP_2,
        headers: fields,
    })
}

/// What a plugin would learn about the connection: that of a present-day client.
fn facts(config: &Config, head: &RequestHead, asked: &Asked) -> Arc<ConnectionFacts> {
    let peer = SocketAddr::new(asked.peer, 40_000);
    let (host, _) = split_authority(&head.authority);
    let name = asked.sni.as_deref().unwrap_or(host);
    Arc::new(ConnectionFacts {
        client: headers::client(peer, &config.trusted_proxies, &head.headers),
        tls: Some(Arc::new(TlsFacts::usual(Some(name.into())))),
        via: None,
    })
}

/// Where a site's certificate comes from, in a line.
fn certificate(site: &Site) -> String {
    let (issuers, challenge, is_on_demand) = match &site.certificate {
        SiteCertificate::Files => return "a certificate of `certificates.files`".to_owned(),
        SiteCertificate::Issued { issuers, challenge, is_on_demand } => {
            (issuers, challenge, *is_on_demand)
        }
    };
    let names: Vec<&str> = issuers
        .iter()
        .map(|issuer| match issuer {
            Issuer::Acme(issuer) => issuer.name.as_str(),
            Issuer::Local => "the local CA",
        })
        .collect();
    let names = names.join(", else ");
    if issuers.iter().all(|issuer| matches!(issuer, Issuer::Local)) {
        return format!("a certificate of {names}");
    }
    let challenge = match challenge {
        Challenge::Auto => "tls-alpn-01 or http-01".to_owned(),
        Challenge::Http01 => "http-01".to_owned(),
        Challenge::TlsAlpn01 => "tls-alpn-01".to_owned(),
        Challenge::Dns01(plugin) => format!("dns-01 through {plugin}"),
        Challenge::DnsAccount01(plugin) => format!("dns-account-01 or dns-01 through {plugin}"),
        Challenge::DnsPersist01 => "dns-persist-01".to_owned(),
    };
    let when = if is_on_demand { ", ordered at the first handshake" } else { "" };
    format!("a certificate of {names}, by {challenge}{when}")
}

/// What a filter asked for.
fn wish(tap: &Tap) -> &'static str {
    match tap.mode() {
        Mode::Observe => "observes the body",
        Mode::Transform => "transforms the body",
    }
}

fn answer(decision: Decision) -> ResponseHead {
    let (status, headers) = match decision {
        Decision::Redirect { status, location } => {
            let headers = HeaderMap::from_iter([(http::header::LOCATION, location)]);
            (StatusCode::from_u16(status).unwrap_or_default(), headers)
        }
        Decision::Respond { status, headers, .. } => (status, headers),
        Decision::Continue | Decision::Upstream(_) => (StatusCode::OK, HeaderMap::new()),
    };
    ResponseHead { status, headers, source: ResponseSource::Plugin }
}

fn blank(status: u16) -> ResponseHead {
    let status = StatusCode::from_u16(status).unwrap_or_default();
    ResponseHead { status, headers: HeaderMap::new(), source: ResponseSource::Gateway }
}

fn head_differences(lines: &mut Vec<String>, before: &RequestHead, after: &RequestHead) {
    let (was, is) = (before.target.as_str(), after.target.as_str());
    for (what, was, is) in [
        ("method", before.method.as_str(), after.method.as_str()),
        ("authority", &before.authority, &after.authority),
        ("target", was, is),
    ] {
        if was != is {
            lines.push(format!("{what} {was} -> {is}"));
        }
    }
    differences(lines, &before.headers, &after.headers);
}

fn differences(lines: &mut Vec<String>, before: &HeaderMap, after: &HeaderMap) {
    let values = |map: &HeaderMap, name: &HeaderName| -> Vec<String> {
        map.get_all(name).iter().map(shown).collect()
    };
    for name in before.keys() {
        let (was, is) = (values(before, name), values(after, name));
        if was != is {
            lines.extend(was.iter().filter(|v| !is.contains(v)).map(|v| format!("- {name}: {v}")));
            lines.extend(is.iter().filter(|v| !was.contains(v)).map(|v| format!("+ {name}: {v}")));
        }
    }
    for name in after.keys().filter(|name| !before.contains_key(*name)) {
        lines.extend(values(after, name).iter().map(|value| format!("+ {name}: {value}")));
    }
}

fn said(lines: &[String], nothing: &str) -> String {
    match lines {
        [] => nothing.to_owned(),
        [one] => one.clone(),
        many => format!("\n  {}", many.join("\n  ")).trim_start_matches(' ').to_owned(),
    }
}

fn shown(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
