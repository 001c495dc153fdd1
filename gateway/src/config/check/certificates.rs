//! `certificates:` and `sites[].certificate`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::super::node::{Node, Place, Value};
use super::super::report::{nearest, quoted};
use super::super::{
    AcmeIssuer, CertificateFiles, Certificates, Challenge, ClientCertificateMode,
    ClientCertificates, DnsOver, Eab, ForwardCertificate, Hook, HookBy, HostPattern, Issuer,
    KeyKinds, Listen, LocalAcme, LocalDomain, OnDemand, Propagation, Resolver, Rfc2136, Scheme,
    SiteCertificate, TsigAlgorithm, TsigKey, keys,
};
use super::fields::Fields;
use super::upstreams::host_and_port;
use super::{Checker, Role};

/// `sites[].certificate` as written.
pub(super) struct SiteWish<'a> {
    kind: Kind,
    is_on_demand: bool,
    issuers: Option<Vec<Issuer>>,
    challenge: Option<Challenge>,
    /// Where the certificate's wish stands, or the site.
    at: Place,
    /// Another site's or the file's solver, for suggestions.
    solver: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Auto,
    Files,
    Local,
}

impl<'a> Checker<'a> {
    pub(super) fn certificates(&mut self, fields: &Fields<'a>, listen: &[Listen]) -> Certificates {
        let part = self.part(fields, "certificates");
        let contact = part.get("contact").and_then(|n| self.contact(n));
        let issuers = match part.get("issuers") {
            Some(node) => self.issuers(node),
            None => known_issuer("letsencrypt").into_iter().collect(),
        };
        let updates = self.updates(&part);
        let challenge = match part.get("challenge") {
            Some(node) => self.challenge(node, listen),
            None => None,
        };
        let mut files = Vec::new();
        for node in self.list_of(&part, "files", "{certificate: PATH, key: PATH}") {
            let Some(pair) = self.fields(node, "certificates.files[]") else { continue };
            let certificate = self.required(&pair, "certificate").and_then(|n| self.path(n));
            let key = self.required(&pair, "key").and_then(|n| self.path(n));
            let ocsp = pair.get("ocsp").and_then(|n| self.path(n));
            if let (Some(certificate), Some(key)) = (certificate, key) {
                files.push(CertificateFiles { certificate, key, ocsp });
            }
        }
        let default = part.get("default").and_then(|n| self.hostname(n));
        let mut resolvers = Vec::new();
        let resolver_roots = part.get("resolver-roots").and_then(|n| self.path(n));
        for node in self.list_of(&part, "resolvers", "DNS servers") {
            resolvers.extend(self.dns_server(node, resolver_roots.as_ref()));
        }
        let propagation = self.propagation(&part);
        let on_demand = part.get("on-demand").and_then(|n| self.on_demand(n));
        let kinds = [("ecdsa", KeyKinds::Ecdsa), ("both", KeyKinds::Both)];
        let keys = self.with_default(&part, "keys", |c, n| c.word(n, &kinds));
        let policy = part.get("policy").and_then(|n| self.plugin_named(n, Role::IssuancePolicy));
        let mut local_domains = Vec::new();
        for node in self.list_of(&part, "local-domains", "domains and networks") {
            local_domains.extend(self.local_domain(node));
        }
        let local_acme = part.get("local-acme").and_then(|n| self.local_acme(n));
        let mut hooks = Vec::new();
        for node in self.list_of(&part, "hooks", "{command: [PROGRAM]} or {url: URL}") {
            hooks.extend(self.hook(node));
        }
        Certificates {
            contact,
            issuers,
            challenge: challenge.unwrap_or(Challenge::Auto),
            files,
            default,
            resolvers,
            resolver_roots,
            propagation,
            updates,
            on_demand,
            policy,
            keys: keys.unwrap_or_default(),
            hooks,
            local_domains,
            local_acme,
        }
    }

    /// `certificates.updates`.
    fn updates(&mut self, part: &Fields<'a>) -> BTreeMap<String, Rfc2136> {
        let mut updates = BTreeMap::new();
        for entry in self.named(part, "updates") {
            if self.plugin_names.contains(entry.key.as_str()) {
                let message = format!("{} is the name of a plugin as well", quoted(&entry.key));
                let help = "give it another name: a challenge names one of both".to_owned();
                self.error(entry.at, message, help);
            }
            self.update_names.insert(&entry.key);
            let Some(fields) = self.fields(&entry.node, "certificates.updates.*") else { continue };
            let server = self.required(&fields, "server").and_then(|node| {
                let text = self.line(node, "a DNS server")?;
                let found = host_and_port(text, 53);
                if found.is_none() {
                    let message = format!("{} is not a server", quoted(text));
                    let help = "as in ns1.example.com, 192.0.2.53:5353 or [2001:db8::53]:53";
                    self.error(node.at, message, help.to_owned());
                }
                found.map(|(host, port)| (text.to_owned(), host, port))
            });
            let algorithms = [
                TsigAlgorithm::HmacSha1,
                TsigAlgorithm::HmacSha256,
                TsigAlgorithm::HmacSha384,
                TsigAlgorithm::HmacSha512,
            ]
            .map(|algorithm| (algorithm.name(), algorithm));
            let algorithm = self.with_default(&fields, "algorithm", |c, n| c.word(n, &algorithms));
            let name = fields.get("key").and_then(|n| self.line(n, "the name of a key"));
            let secret = fields.get("secret");
            let secret = secret.and_then(|n| self.secret(n, "certificates.updates.*.secret"));
            if fields.get("key").is_some() != fields.get("secret").is_some() {
                let message = "`key` and `secret` go together";
                let help = "the key's name on the server, and the key in Base64; or none of both where \
                            the server goes by addresses";
                self.error(entry.at, message, help.to_owned());
            }
            let zones = self.zones(&fields, "zones that the server has");
            let Some((server, host, port)) = server else { continue };
            let key = name.zip(secret).map(|(name, secret)| TsigKey {
                name: name.to_ascii_lowercase(),
                algorithm: algorithm.unwrap_or(TsigAlgorithm::HmacSha256),
                secret,
            });
            updates.insert(entry.key.clone(), Rfc2136 { server, host, port, key, zones });
        }
        updates
    }

    /// `zones` of a place where records are written.
    pub(super) fn zones(&mut self, fields: &Fields<'a>, what: &str) -> Vec<String> {
        let mut zones = Vec::new();
        for node in self.list_of(fields, "zones", what) {
            let Some(text) = self.line(node, "a zone") else { continue };
            let zone = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
            // Not a host name: `_acme-challenge.example.com` is a zone that people delegate.
            let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if zone.is_empty() || !zone.chars().all(is_fine) {
                let message = format!("{} is not the name of a zone", quoted(text));
                self.error(node.at, message, "as in example.com".to_owned());
                continue;
            }
            zones.push(zone);
        }
        zones
    }

    /// A domain, or a network in the form of addresses and prefix length.
    fn local_domain(&mut self, node: &Node) -> Option<LocalDomain> {
        let text = self.line(node, "a domain or a network")?;
        if text.contains('/') || text.parse::<IpAddr>().is_ok() {
            return self.network(node).map(LocalDomain::Network);
        }
        self.hostname(node).map(LocalDomain::Name)
    }

    fn local_acme(&mut self, node: &'a Node) -> Option<LocalAcme> {
        let fields = self.fields(node, "certificates.local-acme")?;
        let listen = self.with_default(&fields, "listen", |c, n| {
            let text = c.line(n, "an address and a port")?;
            let address = text.parse::<SocketAddr>().ok();
            if address.is_none() {
                let message = format!("{} is not an address with a port", quoted(text));
                c.error(n.at, message, "as in 127.0.0.1:8555".to_owned());
            }
            address
        });
        if let (Some(node), Some(address)) = (fields.get("listen"), listen)
            && !address.ip().is_loopback()
        {
            let message = "other machines can ask the local CA for certificates";
            let help = "listen on 127.0.0.1, unless your network is to have them".to_owned();
            self.warning(node.at, message, help);
        }
        let mut port = |key| self.with_default(&fields, key, |c, n| c.number(n, 1, 65_535));
        let ports = [port("http-port"), port("tls-port")];
        let [http, tls] = ports.map(|port| port.and_then(|port| u16::try_from(port).ok()));
        Some(LocalAcme { listen: listen?, http_port: http?, tls_port: tls? })
    }

    fn hook(&mut self, node: &'a Node) -> Option<Hook> {
        let fields = self.fields(node, "certificates.hooks[]")?;
        let events: Vec<(&'static str, &'static str)> =
            keys::EVENTS.iter().map(|event| (*event, *event)).collect();
        let mut on = Vec::new();
        for event in self.list_of(&fields, "on", "events") {
            on.extend(self.word(event, &events).map(str::to_owned));
        }
        let by = match (fields.get("command"), fields.get("url"), fields.get("plugin")) {
            (Some(_), None, None) => {
                let words = self.list_of(&fields, "command", "a program and its arguments");
                let words: Vec<String> = words
                    .iter()
                    .filter_map(|n| self.line(n, "a word"))
                    .map(str::to_owned)
                    .collect();
                if words.is_empty() {
                    self.error(
                        node.at,
                        "the command is empty",
                        "as in [/usr/bin/deploy]".to_owned(),
                    );
                }
                HookBy::Command(words)
            }
            (None, Some(url), None) => {
                HookBy::Url(self.endpoint(url, "https://ops.example.com/hook")?)
            }
            (None, None, Some(plugin)) => HookBy::Plugin(self.plugin_named(plugin, Role::Events)?),
            _ => {
                let message = "a hook needs one of `command`, `url` and `plugin`";
                self.error(node.at, message, None);
                return None;
            }
        };
        Some(Hook { on, by })
    }

    fn on_demand(&mut self, node: &'a Node) -> Option<OnDemand> {
        let fields = self.fields(node, "certificates.on-demand")?;
        let ask = fields
            .get("ask")
            .and_then(|n| self.endpoint(n, "http://127.0.0.1:8000/may-have-a-certificate"));
        let policy = fields.get("policy");
        let policy = policy.and_then(|n| self.plugin_named(n, Role::IssuancePolicy));
        let is_said = |key| fields.get(key).is_some() || fields.is_meant(key);
        if !is_said("ask") && !is_said("policy") {
            let message = "nobody says which names may have a certificate";
            let help = "add `ask: URL` or `policy: PLUGIN`";
            self.error(node.at, message, help.to_owned());
        }
        let number = |checker: &mut Self, key| {
            checker.with_default(&fields, key, |c, n| c.number(n, 1, 100_000))
        };
        let per_minute = number(self, "per-minute");
        let per_domain = number(self, "per-domain");
        let wait = self.with_default(&fields, "wait", |c, n| c.duration(n, true));
        let remember = self.with_default(&fields, "remember", |c, n| c.duration(n, false));
        let count = |number: Option<u64>| number.and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
        Some(OnDemand {
            ask,
            policy,
            per_minute: count(per_minute),
            per_domain: count(per_domain),
            wait: wait.unwrap_or_default(),
            remember: remember.unwrap_or_default(),
        })
    }

    /// The URL of an endpoint of the operator's.
    pub(super) fn endpoint(&mut self, node: &Node, example: &str) -> Option<String> {
        let text = self.line(node, "the URL of an HTTP endpoint")?;
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
        let is_url = host.is_some_and(|h| super::upstreams::host_and_port(h, 80).is_some());
        if is_url && !text.contains([' ', '#']) {
            return Some(text.to_owned());
        }
        let message = format!("{} is not the URL of an HTTP endpoint", quoted(text));
        self.error(node.at, message, format!("as in {example}"));
        None
    }

    fn propagation(&mut self, part: &Fields<'a>) -> Propagation {
        let part = self.part(part, "propagation");
        let check = self.with_default(&part, "check", Self::bool);
        let delay = self.with_default(&part, "delay", |c, n| c.duration(n, true));
        let timeout = self.with_default(&part, "timeout", |c, n| c.duration(n, false));
        let port = self.with_default(&part, "port", |c, n| c.number(n, 1, 65_535));
        Propagation {
            check: check.unwrap_or(true),
            delay: delay.unwrap_or_default(),
            timeout: timeout.unwrap_or_default(),
            port: port.and_then(|p| u16::try_from(p).ok()).unwrap_or(53),
        }
    }

    fn contact(&mut self, node: &Node) -> Option<String> {
        let text = self.line(node, "an e-mail address")?;
        let is_address = text.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty() && host.contains('.') && !host.contains('@')
        });
        if let Some(bare) = text.strip_prefix("mailto:") {
            let message = "expected an e-mail address, found a mailto: URL";
            self.error(node.at, message, format!("did you mean {bare:?}?"));
        } else if !is_address || text.contains([' ', '/', ':']) {
            let message = format!("{} is not an e-mail address", quoted(text));
            self.error(node.at, message, "as in ops@example.com".to_owned());
        }
        Some(text.to_owned())
    }

    /// A DNS server, asked over UDP, TLS or HTTPS.
    fn dns_server(&mut self, node: &Node, roots: Option<&PathBuf>) -> Option<Resolver> {
        let Value::Text(text) = &node.value else { return self.resolver(node).map(Resolver::from) };
        let (rest, is_https) = match (text.strip_prefix("tls://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            (None, None) => return self.resolver(node).map(Resolver::from),
        };
        let (rest, name) = match rest.split_once('#') {
            Some((rest, name)) => (rest, Some(name.to_ascii_lowercase())),
            None => (rest, None),
        };
        let (address, path) = match rest.split_once('/') {
            Some((address, path)) if is_https => (address, format!("/{path}")),
            None if is_https => (rest, "/dns-query".to_owned()),
            _ => (rest, String::new()),
        };
        let port = if is_https { 443 } else { 853 };
        let bare = address.trim_matches(['[', ']']).parse::<IpAddr>();
        let bare = bare.map(|ip| SocketAddr::new(ip, port));
        let address = bare.or_else(|_| address.parse::<SocketAddr>());
        let is_name = |name: &String| {
            name.parse::<IpAddr>().is_ok()
                || host_and_port(name, port).is_some_and(|it| it.0 == *name)
        };
        let (Ok(address), true) = (address, name.as_ref().is_none_or(is_name)) else {
            let message = format!("{} is not the address of a DNS server", quoted(text));
            let help = "an IP address, since its name would have to be resolved first, and the name in its \
                        certificate: tls://9.9.9.9#dns.quad9.net or https://9.9.9.9/dns-query#dns.quad9.net";
            self.error(node.at, message, help.to_owned());
            return None;
        };
        let name = name.unwrap_or_else(|| address.ip().to_string());
        let roots = roots.cloned();
        let over = match is_https {
            true => DnsOver::Https { name, path, roots },
            false => DnsOver::Tls { name, roots },
        };
        Some(Resolver { address, over })
    }

    pub(super) fn resolver(&mut self, node: &Node) -> Option<SocketAddr> {
        let text = self.line(node, "the address of a DNS server")?;
        let bare = text.trim_matches(['[', ']']);
        let address = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
        match address.or_else(|_| text.parse::<SocketAddr>()) {
            Ok(address) => Some(address),
            Err(_) => {
                let message = format!("{} is not the address of a DNS server", quoted(text));
                let help = "write an IP address, with a port if it is not 53: 1.1.1.1".to_owned();
                self.error(node.at, message, help);
                None
            }
        }
    }

    fn issuers(&mut self, node: &'a Node) -> Vec<Issuer> {
        let list = self.list(node, "issuers");
        if list.is_empty() && matches!(node.value, Value::List(_)) {
            let message = "no issuer is left to ask for certificates";
            let help = "write `[letsencrypt]`, or `[local]` for the gateway's own CA";
            self.error(node.at, message, help.to_owned());
        }
        let mut issuers: Vec<Issuer> = Vec::new();
        for entry in list {
            let Some(issuer) = self.issuer(entry) else { continue };
            if issuers.iter().any(|i| issuer_name(i) == issuer_name(&issuer)) {
                let name = quoted(issuer_name(&issuer));
                let help = "name one of them otherwise with `name:`, or remove it".to_owned();
                self.error(entry.at, format!("two issuers are named {name}"), help);
            }
            issuers.push(issuer);
        }
        issuers
    }

    fn issuer(&mut self, node: &'a Node) -> Option<Issuer> {
        match &node.value {
            Value::Text(name) => {
                if let Some(issuer) = known_issuer(name) {
                    self.eab_is_there(node, &issuer);
                    return Some(issuer);
                }
                let help = match nearest(name, keys::ISSUERS.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None if name.starts_with("http") => {
                        format!("an ACME server is written as {{directory: {name}}}")
                    }
                    None => {
                        format!("there are {}, and {{directory: URL}}", super::list(keys::ISSUERS))
                    }
                };
                self.error(node.at, format!("there is no issuer named {}", quoted(name)), help);
                None
            }
            Value::Map(_) => self.acme_issuer(node),
            other => {
                let message = format!("expected an issuer, found {}", other.name());
                self.error(node.at, message, "as in letsencrypt or {directory: URL}".to_owned());
                None
            }
        }
    }

    fn acme_issuer(&mut self, node: &'a Node) -> Option<Issuer> {
        let fields = self.fields(node, "certificates.issuers[]")?;
        let directory = self.required(&fields, "directory");
        let directory = directory.and_then(|n| self.directory(n));
        let name = fields.get("name").and_then(|n| {
            let name = self.line(n, "a name")?;
            if !super::is_name(name) || name == "local" {
                let message = format!("{} cannot be the name of an issuer", quoted(name));
                let help = "use letters, digits, `-`, `_` and `.`; `local` is taken".to_owned();
                self.error(n.at, message, help);
            }
            Some(name.to_owned())
        });
        let eab = fields.get("eab").and_then(|n| self.eab(n));
        let roots = self.optional_path(&fields, "roots");
        let profile = self.optional_line(&fields, "profile", "the name of a profile");
        let preferred_chain =
            self.optional_line(&fields, "preferred-chain", "the common name of a root");
        let staging = fields.get("staging").and_then(|n| self.directory(n)).map(|(_, url)| url);
        let (known, directory) = directory?;
        let issuer = Issuer::Acme(AcmeIssuer {
            name: name.or(known).unwrap_or_else(|| host_of(&directory)),
            directory,
            eab,
            roots,
            profile,
            preferred_chain,
            staging,
        });
        if fields.get("eab").is_none() {
            self.eab_is_there(node, &issuer);
        }
        Some(issuer)
    }

    /// A directory's URL, and its name when it is a known CA.
    fn directory(&mut self, node: &Node) -> Option<(Option<String>, String)> {
        let text = self.line(node, "the URL of an ACME directory")?;
        if let Some((name, url)) = DIRECTORIES.iter().find(|(n, url)| *n == text || *url == text) {
            return Some((Some((*name).to_owned()), (*url).to_owned()));
        }
        let rest = text.strip_prefix("https://");
        let host = rest.and_then(|r| r.split(['/', '?', '#']).next());
        let is_url = host.is_some_and(|h| super::upstreams::host_and_port(h, 443).is_some());
        if is_url && !text.contains([' ', '#']) {
            return Some((None, text.to_owned()));
        }
        let (message, help) = match text.strip_prefix("http://") {
            Some(rest) => (
                "ACME is spoken over https only (RFC 8555, section 6.1)".to_owned(),
                format!("did you mean `https://{rest}`?"),
            ),
            None => (
                format!("{} is not the URL of an ACME directory", quoted(text)),
                match nearest(text, DIRECTORIES.iter().map(|(n, _)| *n)) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "as in https://acme.example.com/directory".to_owned(),
                },
            ),
        };
        self.error(node.at, message, help);
        None
    }

    fn eab(&mut self, node: &'a Node) -> Option<Eab> {
        let fields = self.fields(node, "certificates.issuers[].eab")?;
        let kid = self.required(&fields, "kid");
        let kid = kid.and_then(|n| self.line(n, "the key identifier from the CA"));
        let key = self.required(&fields, "key");
        let key = key.and_then(|n| self.secret(n, "certificates.issuers[].eab.key"));
        Some(Eab { kid: kid?.to_owned(), key: key? })
    }

    /// Warns about CAs that give no account without external account binding.
    fn eab_is_there(&mut self, node: &Node, issuer: &Issuer) {
        let Issuer::Acme(acme) = issuer else { return };
        let needs = ["zerossl", "google"];
        let known = DIRECTORIES.iter().find(|(_, url)| *url == acme.directory);
        if let Some((name, _)) = known.filter(|(name, _)| needs.contains(name)) {
            let message = format!("{name} gives no account without external account binding");
            let help = format!(
                "write {{directory: {name}, eab: {{kid: KID, key: {{env: VARIABLE}}}}}} with what \
                 {name} gave you"
            );
            self.warning(node.at, message, help);
        }
    }

    /// How control is proved; checks that the listeners allow it.
    fn challenge(&mut self, node: &'a Node, listen: &[Listen]) -> Option<Challenge> {
        if let Value::Map(_) = node.value {
            let fields = self.fields(node, "certificates.challenge")?;
            let (plugin, make): (_, fn(String) -> Challenge) = match fields.get("dns-account-01") {
                Some(plugin) => (plugin, Challenge::DnsAccount01),
                None => (self.required(&fields, "dns-01")?, Challenge::Dns01),
            };
            if fields.get("dns-account-01").is_some() && fields.get("dns-01").is_some() {
                let message = "two challenges for one name";
                let help = "keep dns-account-01: it takes dns-01 where the CA does not offer it";
                self.error(node.at, message, help.to_owned());
            }
            if let Value::Text(name) = &plugin.value
                && self.update_names.contains(name.as_str())
            {
                return Some(make(name.clone()));
            }
            let plugin = self.plugin_reference(plugin, Role::Solver)?;
            return Some(make(plugin.to_owned()));
        }
        if let Value::Text(text) = &node.value
            && ["dns-01", "dns-account-01"].contains(&text.as_str())
        {
            let message = format!("{text} needs the plugin that writes the records");
            self.error(node.at, message, format!("write {{{text}: PLUGIN}}"));
            return None;
        }
        let words = [
            ("auto", Some(Challenge::Auto)),
            ("http-01", Some(Challenge::Http01)),
            ("tls-alpn-01", Some(Challenge::TlsAlpn01)),
            ("dns-persist-01", Some(Challenge::DnsPersist01)),
            ("{dns-01: PLUGIN}", None),
            ("{dns-account-01: PLUGIN}", None),
        ];
        let challenge = self.word(node, &words)??;
        let has_http = listen.iter().any(|l| l.scheme == Scheme::Http);
        if challenge == Challenge::Http01 && !has_http && !listen.is_empty() {
            let message = "http-01 is asked for, and no http:// address is listened on";
            let help = "add http://0.0.0.0:80 to `listen:`, or use tls-alpn-01".to_owned();
            self.error(node.at, message, help);
        }
        Some(challenge)
    }

    /// `sites[].certificate`.
    pub(super) fn site_wish(&mut self, site: &Fields<'a>, listen: &[Listen]) -> SiteWish<'a> {
        let mut wish = SiteWish {
            kind: Kind::Auto,
            is_on_demand: false,
            issuers: None,
            challenge: None,
            at: site.at,
            solver: None,
        };
        if let Some(node) = site.get("certificate") {
            wish.at = node.at;
            match &node.value {
                Value::Map(_) => {
                    if let Some(fields) = self.fields(node, "sites[].certificate") {
                        wish.challenge =
                            fields.get("challenge").and_then(|n| self.challenge(n, listen));
                        wish.issuers = fields.get("issuers").map(|n| self.issuers(n));
                        let on_demand = fields.get("on-demand").and_then(|n| self.bool(n));
                        wish.is_on_demand = on_demand.unwrap_or(false);
                    }
                }
                _ => {
                    let words =
                        [("auto", Kind::Auto), ("files", Kind::Files), ("local", Kind::Local)];
                    wish.kind = self.word(node, &words).unwrap_or(Kind::Auto);
                }
            }
        }
        wish.solver = self.uses.iter().find(|u| u.role == Role::Solver).map(|u| u.plugin);
        wish
    }

    /// `client-certificates:` of a site.
    pub(super) fn client_certificates(&mut self, node: &'a Node) -> Option<ClientCertificates> {
        let fields = self.fields(node, "sites[].client-certificates")?;
        let modes = [
            ("require", ClientCertificateMode::Require),
            ("request", ClientCertificateMode::Request),
        ];
        let mode = self.with_default(&fields, "mode", |c, n| c.word(n, &modes));
        let mut roots = Vec::new();
        if let Some(node) = self.required(&fields, "roots") {
            let list = self.list(node, "PEM files");
            if list.is_empty() && matches!(node.value, Value::List(_)) {
                let help = "name the PEM file of the CA that signs your clients' certificates";
                self.error(node.at, "without a CA no certificate is valid", help.to_owned());
            }
            roots.extend(list.iter().filter_map(|n| self.path(n)));
        }
        let revoked = self.list_of(&fields, "revoked", "PEM files").iter();
        let revoked = revoked.filter_map(|n| self.path(n)).collect();
        let forms = [
            ("off", ForwardCertificate::Off),
            ("leaf", ForwardCertificate::Leaf),
            ("chain", ForwardCertificate::Chain),
        ];
        let forward = self.with_default(&fields, "forward", |c, n| c.word(n, &forms));
        Some(ClientCertificates { mode: mode?, roots, revoked, forward: forward? })
    }

    /// The certificates of a site's hosts: one group, or one of public and one of private names
    /// when they come from different issuers.
    pub(super) fn site_certificates(
        &mut self,
        wish: &SiteWish<'a>,
        hosts: Vec<(HostPattern, Place)>,
        all: &Certificates,
    ) -> Vec<(Vec<HostPattern>, SiteCertificate)> {
        let challenge = wish.challenge.clone().unwrap_or_else(|| all.challenge.clone());
        let issued = |issuers: Vec<Issuer>| {
            // The local CA signs what is configured at once, so there is nothing to wait for.
            let has_acme = issuers.iter().any(|issuer| matches!(issuer, Issuer::Acme(_)));
            let is_on_demand = wish.is_on_demand && has_acme;
            SiteCertificate::Issued { issuers, challenge: challenge.clone(), is_on_demand }
        };
        if let Some((_, at)) = hosts.iter().find(|(host, _)| *host == HostPattern::Any)
            && !wish.is_on_demand
            && wish.kind != Kind::Files
        {
            let message = "no certificate is good for every host";
            let help = "add `certificate: {on-demand: true}` to this site, or `certificate: files`";
            self.error(*at, message, help.to_owned());
        }
        if wish.is_on_demand && all.on_demand.is_none() {
            let message = "nobody says which names may have a certificate";
            let help = "add `certificates: {on-demand: {ask: URL}}`, or `policy: PLUGIN` there";
            self.error(wish.at, message, help.to_owned());
        }
        let is_local = |issuer: &Issuer| *issuer == Issuer::Local;
        if wish.is_on_demand && wish.issuers.as_ref().unwrap_or(&all.issuers).iter().all(is_local) {
            let message = "the local CA signs nothing on demand";
            self.error(wish.at, message, "name another issuer".to_owned());
        }
        let patterns =
            |hosts: &[(HostPattern, Place)]| hosts.iter().map(|(h, _)| h.clone()).collect();
        match wish.kind {
            Kind::Files => {
                if all.files.is_empty() {
                    let message = "the certificate is to come from files, and there are none";
                    let help = "add `certificates: {files: [{certificate: PATH, key: PATH}]}`";
                    self.error(wish.at, message, help.to_owned());
                }
                return vec![(patterns(&hosts), SiteCertificate::Files)];
            }
            Kind::Local => return vec![(patterns(&hosts), issued(vec![Issuer::Local]))],
            Kind::Auto => {}
        }
        if let Some(own) = &wish.issuers {
            self.can_be_issued(wish, &hosts, own, &challenge);
            return vec![(patterns(&hosts), issued(own.clone()))];
        }
        let custom: Vec<Issuer> = all.issuers.iter().filter(|i| is_custom(i)).cloned().collect();
        let for_private = if custom.is_empty() { vec![Issuer::Local] } else { custom };
        let (private, public): (Vec<_>, Vec<_>) =
            hosts.into_iter().partition(|(host, _)| host.is_private());
        // `localhost` is another machine for everybody else: no CA but our own can know it.
        let (own, private): (Vec<_>, Vec<_>) =
            private.into_iter().partition(|(host, _)| host.is_this_machine());
        let for_own = vec![Issuer::Local];
        let mut groups = Vec::new();
        for (hosts, issuers) in [(public, &all.issuers), (private, &for_private), (own, &for_own)] {
            if !hosts.is_empty() {
                self.can_be_issued(wish, &hosts, issuers, &challenge);
                groups.push((patterns(&hosts), issued(issuers.clone())));
            }
        }
        groups
    }

    /// Reports hosts that these issuers and this challenge can never give a certificate for.
    fn can_be_issued(
        &mut self,
        wish: &SiteWish<'a>,
        hosts: &[(HostPattern, Place)],
        issuers: &[Issuer],
        challenge: &Challenge,
    ) {
        let acme: Vec<&AcmeIssuer> = issuers
            .iter()
            .filter_map(|i| match i {
                Issuer::Acme(acme) => Some(acme),
                Issuer::Local => None,
            })
            .collect();
        if acme.is_empty() {
            return;
        }
        let is_dns = challenge.is_dns();
        for (host, at) in hosts {
            let name = quoted(&host.to_string());
            if matches!(host, HostPattern::Wildcard(_)) && !is_dns && !wish.is_on_demand {
                let solver = wish.solver.unwrap_or("PLUGIN");
                let message =
                    format!("{name} needs the dns-01 challenge: no other proves a wildcard");
                let help = format!(
                    "add `certificate: {{challenge: {{dns-01: {solver}}}}}` to this site, or \
                     `certificate: files`"
                );
                self.error(*at, message, help);
            }
            if host.ip().is_some() && is_dns {
                let message = format!("{name} is an IP address, which dns-01 cannot prove");
                let help = "give its site `certificate: {challenge: http-01}`".to_owned();
                self.error(*at, message, help);
            }
            let is_public_ip = host.ip().is_some() && !host.is_private();
            let plain = |a: &AcmeIssuer| is_known(&a.directory) && a.profile.is_none();
            if is_public_ip && !is_dns && acme.iter().all(|a| plain(a)) {
                let message =
                    format!("{name} is an IP address, signed only in a short-lived profile");
                let help = "write `issuers: [{directory: letsencrypt, profile: shortlived}]`";
                self.warning(*at, message, help.to_owned());
            }
            if host.is_private()
                && issuers.iter().all(|i| !is_custom(i))
                && issuers.len() == acme.len()
            {
                let message = format!("no public CA signs {name}");
                let help = "remove `issuers` from this site, and it gets the local CA".to_owned();
                self.warning(*at, message, help);
            }
        }
    }
}

/// The issuer of a well-known name.
fn known_issuer(name: &str) -> Option<Issuer> {
    if name == "local" {
        return Some(Issuer::Local);
    }
    let (name, directory) = DIRECTORIES.iter().find(|(known, _)| *known == name)?;
    Some(Issuer::Acme(AcmeIssuer {
        name: (*name).to_owned(),
        directory: (*directory).to_owned(),
        eab: None,
        roots: None,
        profile: None,
        preferred_chain: None,
        staging: None,
    }))
}

/// The word under which a known CA's plain issuer can be written.
pub(in super::super) fn known_name(issuer: &Issuer) -> Option<&'static str> {
    keys::ISSUERS.iter().copied().find(|name| known_issuer(name).as_ref() == Some(issuer))
}

fn issuer_name(issuer: &Issuer) -> &str {
    match issuer {
        Issuer::Acme(acme) => &acme.name,
        Issuer::Local => "local",
    }
}

/// The directory URLs of CAs that have a name here.
pub fn known_directories() -> impl Iterator<Item = &'static str> {
    DIRECTORIES.iter().map(|(_, url)| *url)
}

fn is_known(directory: &str) -> bool {
    DIRECTORIES.iter().any(|(_, url)| *url == directory)
}

/// Whether it is a CA of the operator's own choice, which may sign private names.
fn is_custom(issuer: &Issuer) -> bool {
    matches!(issuer, Issuer::Acme(acme) if !is_known(&acme.directory))
}

fn host_of(url: &str) -> String {
    let rest = url.strip_prefix("https://").unwrap_or(url);
    rest.split(['/', ':', '?']).next().unwrap_or(rest).to_ascii_lowercase()
}

/// ACME directories of public CAs.
const DIRECTORIES: &[(&str, &str)] = &[
    ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
    ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
    ("zerossl", "https://acme.zerossl.com/v2/DV90"),
    ("google", "https://dv.acme-v02.api.pki.goog/directory"),
];
