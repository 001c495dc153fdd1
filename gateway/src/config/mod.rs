//! `gateway.yaml`: read, checked as a whole, and turned into a [`Config`] that cannot be wrong.
//!
//! Called by the command line, by [`crate::generation`] on start and on reload. May name serde and
//! std; never tokio, wasmtime or rustls, and it opens no file but the configuration itself, what
//! its secrets name, and the components whose own words about their `config:` it takes.

pub mod cases;
mod check;
mod conform;
pub mod credential;
mod field_grant;
/// The write guard of solvers, which their own tests use as well.
#[path = "../../../plugins/sdk/src/testing/guard.rs"]
pub mod guard;
pub mod hostname;
pub mod keys;
pub mod lock;
mod manifest;
mod node;
mod normal;
pub mod policies;
mod report;
mod secret;
pub(crate) mod section;
#[cfg(test)]
mod tests;
mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use check::known_directories;
pub use field_grant::{BodyGrant, FieldGrant, HeadGrant};
pub use hostname::{HostPattern, Hostname};
pub use keys::schema;
pub use manifest::{Manifest, Wanted, WantedHead, WantedSecret, embed};
pub use normal::normal_form;
pub use policies::Policies;
pub use report::{Diagnostic, Excerpt, Report, Severity};

/// A configuration and what it should be told about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is allowed and probably not meant, in the order of the file.
    pub warnings: Vec<Diagnostic>,
    /// The file itself, which may hold secrets.
    pub text: SecretText,
}

/// Reads and checks a file, and the `config:` of each plugin against what its component says about
/// it. Relative paths are taken from the file's own folder.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let limit = node::BYTES_MAX as u64 + 1;
    let read = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    if let Err(error) = read {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => Some("name another one with --config FILE".to_owned()),
            _ => None,
        };
        return Err(Report::whole(path, format!("cannot read the file: {error}"), help));
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let bytes = error.as_bytes().get(..good).unwrap_or_default();
            let line = bytes.iter().filter(|b| **b == b'\n').count() + 1;
            let message = format!("line {line} is not UTF-8 (byte {good} of the file)");
            return Err(Report::whole(path, message, None));
        }
    };
    parse_with(&text, path, path.parent().unwrap_or(Path::new("")), &Manifest::of_file)
}

/// Checks the text that a file had, against components as they are now.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load_text(text: &SecretText, file: &Path) -> Result<Loaded, Report> {
    let base = file.parent().unwrap_or(Path::new(""));
    parse_with(text.expose(), file, base, &Manifest::of_file)
}

/// Checks the text of a file, without a look at components. `file` is what findings call it;
/// relative paths in the text are taken from `base`.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn parse(text: &str, file: &Path, base: &Path) -> Result<Loaded, Report> {
    parse_with(text, file, base, &|_| Ok(None))
}

/// As [`parse`], with the manifest of a component for its path.
fn parse_with(
    text: &str,
    file: &Path,
    base: &Path,
    manifests: &dyn Fn(&Path) -> Result<Option<Manifest>, Report>,
) -> Result<Loaded, Report> {
    if text.len() > node::BYTES_MAX {
        let message =
            format!("the file is larger than {}", units::size_text(node::BYTES_MAX as u64));
        return Err(Report::whole(file, message, None));
    }
    let source = report::Source { file, text };
    let root = match node::read(text) {
        Ok(root) => root,
        Err(error) => return Err(source.unreadable(error)),
    };
    let checked = check::check(&root, text, base, manifests);
    let lock = base.join(file.file_name().unwrap_or_default()).with_extension("lock");
    let diagnostics = source.diagnostics(checked.findings, &checked.hidden);
    match checked.config {
        Some(config) => Ok(Loaded {
            config: Config { lock, ..config },
            warnings: diagnostics,
            text: SecretText::new(text.to_owned()),
        }),
        None => Err(Report { diagnostics, omitted: checked.omitted }),
    }
}

/// A duration as the file writes it, such as `5m`; none when it is none.
pub fn duration(text: &str) -> Option<Duration> {
    units::duration(text)
}

/// A whole configuration, checked: every name refers to something that exists, every default is
/// filled in, every path is absolute or relative to the working directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where to accept connections, in the order of the file.
    pub listen: Vec<Listen>,
    /// Session tickets of a fleet; `None` has keys of our own.
    pub tickets: Option<Tickets>,
    /// How certificates are obtained.
    pub certificates: Certificates,
    /// Sites in the order of the file.
    pub sites: Vec<Site>,
    /// Upstreams by name; one that a site or route gives as a URL is named by that URL.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Plugins by name.
    pub plugins: BTreeMap<String, PluginConfig>,
    /// The plugin that looks at each ClientHello first.
    pub client_hello: Option<PluginUse>,
    /// What is logged.
    pub log: Log,
    /// The folder of accounts, keys, certificates and compiled plugins.
    pub store: PathBuf,
    /// How that folder is opened.
    pub sharing: Sharing,
    /// How many workers serve; `None` means one per core the process may run on.
    pub workers: Option<usize>,
    /// Waits and sizes that bound every exchange.
    pub limits: Limits,
    /// Who may speak for a client's address in `x-forwarded-for` and `forwarded`.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Ed25519 keys in Base64, as written; when there are any, every component must be signed with
    /// one of them.
    pub plugin_keys: Vec<String>,
    /// Whether solvers without a guard are refused.
    pub needs_guards: bool,
    /// The local control socket; `None` switches it off.
    pub admin: Option<PathBuf>,
    /// Where the versions of plugins are written down: `gateway.lock` beside `gateway.yaml`.
    pub lock: PathBuf,
}

/// `tls.tickets`: keys that several machines derive from one secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Tickets {
    /// Where the secret is.
    pub secret: SecretRef,
    /// How long a key makes tickets.
    pub rotation: Duration,
}

/// One entry of `listen:`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listen {
    /// Whether TLS is spoken here.
    pub scheme: Scheme,
    /// The address and port to bind.
    pub address: SocketAddr,
    /// Whether HTTP/3 is served on the UDP port of the same number. Never for plain HTTP.
    pub http3: bool,
    /// Who sends a PROXY header before anything else, and has to.
    pub proxy_protocol: Vec<ipnet::IpNet>,
}

impl std::fmt::Display for Listen {
    /// The short form of the file: scheme and address.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.scheme {
            Scheme::Http => write!(f, "http://{}", self.address),
            Scheme::Https => write!(f, "https://{}", self.address),
        }
    }
}

/// How a client reaches a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP: answers HTTP-01 and redirects the rest to https.
    Http,
    /// TLS, then HTTP/1.1 or HTTP/2 by ALPN; and HTTP/3 over QUIC.
    Https,
}

/// What `store:` says beside the folder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sharing {
    /// Whether other gateways have the same folder open.
    pub is_shared: bool,
    /// The passphrase that private keys in it are sealed with.
    pub seal: Option<SecretRef>,
}

/// A DNS server that resolves for the gateway.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resolver {
    /// Where it is.
    pub address: SocketAddr,
    /// How it is asked.
    pub over: DnsOver,
}

/// How a DNS server is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum DnsOver {
    /// UDP, and TCP for what is cut (RFC 1035, RFC 7766).
    Udp,
    /// TLS (RFC 7858).
    Tls {
        /// The name or address in its certificate.
        name: String,
        /// Trusted instead of the system's roots.
        roots: Option<PathBuf>,
    },
    /// HTTPS (RFC 8484).
    Https {
        /// The name or address in its certificate, and the host that is asked for.
        name: String,
        /// The path.
        path: String,
        /// Trusted instead of the system's roots.
        roots: Option<PathBuf>,
    },
}

impl From<SocketAddr> for Resolver {
    fn from(address: SocketAddr) -> Self {
        Self { address, over: DnsOver::Udp }
    }
}

impl fmt::Display for Resolver {
    /// As in `gateway.yaml`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.address;
        match &self.over {
            DnsOver::Udp => write!(f, "{address}"),
            DnsOver::Tls { name, .. } => write!(f, "tls://{address}#{name}"),
            DnsOver::Https { name, path, .. } => write!(f, "https://{address}{path}#{name}"),
        }
    }
}

/// `certificates:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Certificates {
    /// The e-mail address given to the CA.
    pub contact: Option<String>,
    /// CAs in the order in which they are tried.
    pub issuers: Vec<Issuer>,
    /// How control of a name is proved where the site does not say.
    pub challenge: Challenge,
    /// Certificates that somebody else keeps up to date.
    pub files: Vec<CertificateFiles>,
    /// The name whose certificate is served when a client sends no SNI; without it such a handshake
    /// is refused.
    pub default: Option<Hostname>,
    /// DNS servers to ask for zones and propagation, instead of those of the system.
    pub resolvers: Vec<Resolver>,
    /// The PEM file with the roots by which those that speak TLS are trusted; else the system's.
    pub resolver_roots: Option<PathBuf>,
    /// The plugin that says which names of the configuration may have a certificate.
    pub policy: Option<String>,
    /// How the host waits for DNS-01 records.
    pub propagation: Propagation,
    /// Servers that take updates, by the names that challenges call them.
    pub updates: BTreeMap<String, Rfc2136>,
    /// Certificates that are ordered at the first handshake.
    pub on_demand: Option<OnDemand>,
    /// The kinds of keys.
    pub keys: KeyKinds,
    /// Who is told of what happens to certificates.
    pub hooks: Vec<Hook>,
    /// What the root of the local CA is limited to; empty: nothing.
    pub local_domains: Vec<LocalDomain>,
    /// The ACME server of the local CA; none when it has none.
    pub local_acme: Option<LocalAcme>,
}

/// `certificates.local-acme`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAcme {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where names are asked for HTTP-01.
    pub http_port: u16,
    /// Where names are asked for TLS-ALPN-01.
    pub tls_port: u16,
}

/// A DNS server that takes updates (RFC 2136).
#[derive(Debug, Clone, PartialEq)]
pub struct Rfc2136 {
    /// As it is written: host and port.
    pub server: String,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The key that signs; none where the server goes by addresses.
    pub key: Option<TsigKey>,
    /// The zones it has, in lower case without the final dot; empty means to ask it.
    pub zones: Vec<String>,
}

/// A key of TSIG (RFC 8945).
#[derive(Debug, Clone, PartialEq)]
pub struct TsigKey {
    /// Its name, which the server has as well.
    pub name: String,
    /// How it is used.
    pub algorithm: TsigAlgorithm,
    /// The key in Base64.
    pub secret: SecretRef,
}

/// Algorithms of TSIG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TsigAlgorithm {
    /// For servers that know nothing better.
    HmacSha1,
    /// The usual one.
    HmacSha256,
    /// RFC 8945, section 6.
    HmacSha384,
    /// RFC 8945, section 6.
    HmacSha512,
}

impl TsigAlgorithm {
    /// The name on the wire and in `gateway.yaml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "hmac-sha1",
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
        }
    }
}

/// One entry of `certificates.local-domains`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalDomain {
    /// A name and all below it.
    Name(Hostname),
    /// A network of addresses.
    Network(ipnet::IpNet),
}

impl LocalDomain {
    /// Whether a host lies in it.
    pub fn has(&self, host: &HostPattern) -> bool {
        match (self, host.ip()) {
            (Self::Network(network), Some(ip)) => network.contains(&ip),
            (Self::Name(name), None) => host.base().is_some_and(|base| {
                let rest = base.as_str().strip_suffix(name.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
            _ => false,
        }
    }
}

impl std::fmt::Display for LocalDomain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// One entry of `certificates.hooks`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The events it is told of; all when empty.
    pub on: Vec<String>,
    /// How it is told.
    pub by: HookBy,
}

/// How a hook is told of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookBy {
    /// A program and its arguments: gets the event as JSON on its standard input.
    Command(Vec<String>),
    /// A URL: gets the event as JSON by POST.
    Url(String),
    /// A plugin of the world `events`.
    Plugin(String),
}

/// `certificates.on-demand`: which names may have a certificate at their first handshake.
#[derive(Debug, Clone, PartialEq)]
pub struct OnDemand {
    /// The URL that is asked, with `domain=NAME` added to its query.
    pub ask: Option<String>,
    /// The plugin that is asked. Both have to allow it where both are there.
    pub policy: Option<String>,
    /// First orders in a minute, at most.
    pub per_minute: usize,
    /// First orders for names of one registered domain in seven days, at most.
    pub per_domain: usize,
    /// How long a handshake waits for its certificate.
    pub wait: Duration,
    /// How long a name that may not have one is not asked for again.
    pub remember: Duration,
}

/// Waiting for a DNS-01 record to be served everywhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Propagation {
    /// Ask every authoritative server before telling the CA; off means only `delay`.
    pub check: bool,
    /// A fixed wait before the first check.
    pub delay: Duration,
    /// How long to go on checking before the attempt counts as failed.
    pub timeout: Duration,
    /// The port of authoritative servers (for tests and split setups).
    pub port: u16,
}

/// One entry of `certificates.issuers`.
#[derive(Debug, Clone, PartialEq)]
pub enum Issuer {
    /// An ACME server.
    Acme(AcmeIssuer),
    /// The gateway's own CA, kept in the store.
    Local,
}

/// An ACME server (RFC 8555).
#[derive(Debug, Clone, PartialEq)]
pub struct AcmeIssuer {
    /// What the log, the status and the store call it: `letsencrypt`, or the directory's host.
    pub name: String,
    /// The directory URL.
    pub directory: String,
    /// External account binding (RFC 8555, section 7.3.4).
    pub eab: Option<Eab>,
    /// A PEM file of roots to trust for the CA's own API, instead of the system's.
    pub roots: Option<PathBuf>,
    /// The certificate profile to ask for.
    pub profile: Option<String>,
    /// Of several chains for a certificate the one whose last certificate was issued by this name.
    pub preferred_chain: Option<String>,
    /// The directory where orders are rehearsed.
    pub staging: Option<String>,
}

/// Which kinds of keys certificates have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyKinds {
    /// ECDSA P-256.
    #[default]
    Ecdsa,
    /// RSA with 2048 bits, beside it one of ECDSA for the clients that know it.
    Both,
}

/// An external account binding.
#[derive(Debug, Clone, PartialEq)]
pub struct Eab {
    /// The key identifier.
    pub kid: String,
    /// The MAC key, base64url.
    pub key: SecretRef,
}

/// How control of a name is proved to a CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// What fits: TLS-ALPN-01 or HTTP-01 by the listeners there are.
    Auto,
    /// RFC 8555, section 8.3.
    Http01,
    /// RFC 8737.
    TlsAlpn01,
    /// RFC 8555, section 8.4, through the plugin or the server of `updates` of this name.
    Dns01(String),
    /// The same at a name of the account's own (draft-ietf-acme-dns-account-label), where the CA offers
    /// it; else as before.
    DnsAccount01(String),
    /// A TXT record that somebody sets once (draft-ietf-acme-dns-persist).
    DnsPersist01,
}

impl Challenge {
    /// Whether it proves control by a DNS record: of wildcards too, of addresses never.
    pub fn is_dns(&self) -> bool {
        self.solver().is_some() || *self == Self::DnsPersist01
    }

    /// The plugin or the server of `updates` that writes its records.
    pub fn solver(&self) -> Option<&str> {
        match self {
            Self::Dns01(name) | Self::DnsAccount01(name) => Some(name),
            Self::Auto | Self::Http01 | Self::TlsAlpn01 | Self::DnsPersist01 => None,
        }
    }
}

/// A certificate and its key in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// The CA's OCSP response (DER), to be stapled.
    pub ocsp: Option<PathBuf>,
}

/// One entry of `sites:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// The names it answers for.
    pub hosts: Vec<HostPattern>,
    /// The upstream that gets its connections as they are, TLS unopened; then it has nothing else.
    pub passthrough: Option<String>,
    /// Where its certificate comes from.
    pub certificate: SiteCertificate,
    /// The certificates that its clients are asked for; `None` asks for none.
    pub client_certificates: Option<ClientCertificates>,
    /// The plugin that picks the upstream.
    pub router: Option<PluginUse>,
    /// Filters in the order in which requests meet them.
    pub filters: Vec<PluginUse>,
    /// What holds for every request, where its route does not say otherwise.
    pub policies: Policies,
    /// Which paths are taken.
    pub paths: Paths,
    /// Routes as written; [`crate::route`] orders them.
    pub routes: Vec<Route>,
    /// The line of the site in the file, for messages. A site whose names need different issuers,
    /// because some are public and some are private, becomes two sites of the same line.
    pub line: u64,
}

/// `sites[].paths`: which paths are taken, before any route is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paths {
    /// None that servers read in different ways: no encoded slash, backslash or empty segment either.
    Strict,
    /// None that steps out of where it seems to be: no dot segment, however written, and no encoded
    /// control character.
    Safe,
    /// All.
    Any,
}

impl Paths {
    /// Each with its word.
    pub const WORDS: [(&'static str, Self); 3] =
        [("safe", Self::Safe), ("strict", Self::Strict), ("any", Self::Any)];
}

/// `sites[].certificate`, with what it leaves out taken from `certificates:`.
#[derive(Debug, Clone, PartialEq)]
pub enum SiteCertificate {
    /// From the issuers, by this challenge.
    Issued {
        /// CAs in the order in which they are tried. `localhost`, private names and IP addresses
        /// that no public CA would sign get [`Issuer::Local`].
        issuers: Vec<Issuer>,
        /// How control is proved.
        challenge: Challenge,
        /// Whether a name gets its certificate at its first handshake, when it may have one.
        is_on_demand: bool,
    },
    /// Only from `certificates.files`.
    Files,
}

/// `sites[].client-certificates`: mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// Whether a client without one is let in.
    pub mode: ClientCertificateMode,
    /// PEM files of the CAs that sign them, at least one.
    pub roots: Vec<PathBuf>,
    /// PEM files of revocation lists (RFC 5280, section 5).
    pub revoked: Vec<PathBuf>,
    /// What upstreams learn of it in header fields.
    pub forward: ForwardCertificate,
}

/// `sites[].client-certificates.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificateMode {
    /// No handshake without one.
    Require,
    /// It is asked for; a client may have none.
    Request,
}

/// `sites[].client-certificates.forward` (RFC 9440).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardCertificate {
    /// Nothing.
    Off,
    /// The certificate, as `client-cert`.
    Leaf,
    /// And the rest of what the client sent, as `client-cert-chain`.
    Chain,
}

/// A plugin at one place of use.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginUse {
    /// The name under `plugins:`.
    pub plugin: String,
    /// The configuration for this use: its own, or the plugin's.
    pub config: serde_json::Value,
}

/// One entry of `sites[].routes`.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Which paths it takes.
    pub path: PathMatch,
    /// Which methods; empty means all.
    pub methods: Vec<String>,
    /// Fields that must be there, name in lower case; `None` means with any value.
    pub headers: Vec<(String, Option<String>)>,
    /// Query parameters that must be there; `None` means with any value.
    pub query: Vec<(String, Option<String>)>,
    /// What has to hold besides.
    pub when: When,
    /// Filters of this route, after those of the site.
    pub filters: Vec<PluginUse>,
    /// What holds for its requests, in the place of what the site says.
    pub policies: Policies,
    /// Where it leads.
    pub action: RouteAction,
    /// The line in the file, for messages.
    pub line: u64,
}

/// `when`, `any` and `not` of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct When {
    /// Has to hold.
    pub all: Test,
    /// One of them has to hold, if there are any.
    pub any: Vec<Test>,
    /// None of them may hold.
    pub not: Vec<Test>,
}

/// What a request and its connection are held against; all of it has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Test {
    /// Methods; empty means all.
    pub methods: Vec<String>,
    /// The whole path, decoded.
    pub path: Option<Pattern>,
    /// A value of each of these fields.
    pub headers: Vec<(String, Pattern)>,
    /// A value of each of these query parameters, as sent.
    pub query: Vec<(String, Pattern)>,
    /// The client's address; empty means any.
    pub addresses: Vec<ipnet::IpNet>,
    /// The server name of the handshake, which none has over plain HTTP.
    pub server_name: Option<Pattern>,
    /// The TLS version: `TLSv1.2` or `TLSv1.3`.
    pub tls_version: Option<String>,
    /// Whether the client showed a certificate.
    pub client_certificate: Option<bool>,
}

/// A regular expression for a whole text. Takes time in proportion to the text, whatever it is.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: regex::bytes::Regex,
}

impl Pattern {
    /// Compiles it.
    ///
    /// # Errors
    /// What is wrong with it, in a line.
    pub fn new(text: &str) -> Result<Self, String> {
        // Bytes that are no text must not be a way around a dot.
        let build = |text: &str| {
            let mut builder = regex::bytes::RegexBuilder::new(text);
            builder.unicode(false).dot_matches_new_line(true).size_limit(PATTERN_BYTES_MAX);
            builder.build()
        };
        // On its own first: `a)|(b` would fit between brackets.
        let built = build(text).and_then(|_| build(&format!("^(?:{text})$")));
        let regex = built.map_err(|cause| match cause {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.trim_start_matches("error: ").to_owned()
            }
        })?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is of this whole text.
    pub fn takes(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// Of a compiled pattern; a hundred of them are nothing to worry about.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Which paths a route takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// The path and everything below it, by whole segments (`/api/` and `/api` both take `/api/x`;
    /// `/api` also takes `/api` itself). `/` takes all.
    Prefix(String),
    /// This path alone.
    Exact(String),
}

/// `sites[].routes[].split` and `split-by`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Upstreams and their shares, one of them above 0.
    pub shares: Vec<(String, u32)>,
    /// What decides.
    pub by: SplitBy,
}

/// What decides where a request of a split goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitBy {
    /// Chance, for each request anew.
    Chance,
    /// The same side for the same value.
    Key(HashBy),
    /// A cookie that the gateway sets: chance once for each client.
    Sticky(Sticky),
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteAction {
    /// To the upstream of this name.
    Upstream(String),
    /// To one of several upstreams.
    Split(Split),
    /// To another place: `redirect: {status: 308, to: URL}`. `{host}`, `{path}` and `{query}` stand
    /// for those of the request.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// The template of the `location` field.
        to: String,
    },
    /// A fixed response: `respond: {status: 200, body: text}`.
    Respond {
        /// 200 to 599.
        status: u16,
        /// The body.
        body: String,
        /// Its media type.
        content_type: String,
    },
    /// Files of a folder.
    Files(std::sync::Arc<Files>),
}

/// `files:` of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The folder.
    pub root: PathBuf,
    /// The file that stands for a folder; `None` means none does.
    pub index: Option<String>,
    /// The file that is served, with 200, where there is none; relative to the root.
    pub fallback: Option<String>,
    /// Codings of which there may be a file beside a file: `app.js.br`.
    pub precompressed: Vec<policies::Coding>,
    /// What becomes of symbolic links.
    pub symlinks: Symlinks,
    /// Whether names that start with a dot are served.
    pub shows_hidden: bool,
    /// The value of `cache-control`.
    pub cache_control: Option<String>,
}

/// `files.symlinks`. The root itself may always be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symlinks {
    /// As if they were not there.
    Refuse,
    /// Followed where they stay below the root.
    Within,
}

/// One entry of `upstreams:`.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Servers, at least one.
    pub servers: Vec<Server>,
    /// The share of each server, in the same order; at least 1.
    pub weights: Vec<u32>,
    /// How a server is chosen.
    pub balance: Balance,
    /// The cookie that keeps a client at its server.
    pub sticky: Option<Sticky>,
    /// The time in which a server that is new or back comes to its whole share.
    pub slow_start: Duration,
    /// When a server that fails is left out; `None` never leaves one out.
    pub eject: Option<Eject>,
    /// Bounds for what is under way.
    pub circuit: Circuit,
    /// When a request is sent again.
    pub retries: Retries,
    /// How names of servers are looked up again; `None` looks them up at each connection.
    pub resolve: Option<Resolve>,
    /// Active health checks.
    pub health: Option<Health>,
    /// Waits for this upstream.
    pub timeouts: UpstreamTimeouts,
    /// A PEM file of roots to trust for `https://` servers, instead of the system's.
    pub roots: Option<PathBuf>,
    /// The name to ask for and to check in TLS, instead of the server's own.
    pub server_name: Option<Hostname>,
    /// Shown to `https://` servers that ask for one.
    pub client_certificate: Option<CertificateFiles>,
    /// Whether the upstream sees the client's `Host` (true) or the server's own.
    pub preserve_host: bool,
    /// The PROXY header that tells servers of each client; `None` sends none.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// `upstreams.*.resolve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// The longest time between two look-ups of a name.
    pub every: Duration,
    /// DNS servers to ask, whose times to live count; the system's resolver if empty.
    pub servers: Vec<SocketAddr>,
}

/// `upstreams.*.proxy-protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Bytes, with the server name.
    V2,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Server {
    /// `http://host:port`: HTTP/1.1.
    Http(Authority),
    /// `https://host:port`: HTTP/2 or HTTP/1.1 by ALPN.
    Https(Authority),
    /// `h2c://host:port`: HTTP/2 with prior knowledge.
    H2c(Authority),
    /// `unix:/path`: HTTP/1.1 over a socket.
    Unix(PathBuf),
    /// `tcp://host:port`: bytes of any kind, for sites that pass them through.
    Tcp(Authority),
    /// `builtin:echo`: a page inside the gateway that shows the request as an application sees it.
    Echo,
}

impl Server {
    /// The host that is connected to, where there is one.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Http(a) | Self::Https(a) | Self::H2c(a) | Self::Tcp(a) => Some(&a.host),
            Self::Unix(_) | Self::Echo => None,
        }
    }
}

impl std::fmt::Display for Server {
    /// As it is written in the file.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(authority) => write!(f, "http://{authority}"),
            Self::Https(authority) => write!(f, "https://{authority}"),
            Self::H2c(authority) => write!(f, "h2c://{authority}"),
            Self::Tcp(authority) => write!(f, "tcp://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Echo => f.write_str("builtin:echo"),
        }
    }
}

/// Host and port of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    /// A name or an IP address (IPv6 without brackets).
    pub host: String,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for Authority {
    /// `host:port`, IPv6 in brackets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// `upstreams.*.balance`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// The better of two picked at random, by open requests and recent latency.
    P2c,
    /// One after another.
    RoundRobin,
    /// The fewest open requests.
    LeastConnections,
    /// The same server for the same key.
    Hash(HashBy),
}

/// `upstreams.*.balance.hash`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// The client's address.
    Address,
    /// The value of a cookie.
    Cookie(String),
    /// The value of a header field, its name in lower case.
    Header(String),
}

/// `upstreams.*.sticky`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// How long browsers keep it; `None` until they are closed.
    pub max_age: Option<Duration>,
}

/// `upstreams.*.eject`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eject {
    /// Failures in a row that leave a server out.
    pub after: u32,
    /// For how long the first time; each further time doubles it.
    pub time: Duration,
    /// The longest time.
    pub time_max: Duration,
    /// The most servers that may be left out, in percent, inclusive.
    pub share_max_percent: u32,
}

/// `upstreams.*.circuit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circuit {
    /// The most requests under way at one server, inclusive; `None` for no limit.
    pub open_max: Option<u32>,
    /// The most requests that wait for a place, inclusive.
    pub pending_max: u32,
}

/// `upstreams.*.retries`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// The most attempts after the first.
    pub attempts: u32,
    /// The most attempts of requests that were sent, in percent of all requests.
    pub budget_percent: u32,
    /// Statuses that are worth another attempt.
    pub statuses: Vec<u16>,
    /// How long to wait for a response while another attempt may follow; `None` as long as for the
    /// last.
    pub try_timeout: Option<Duration>,
}

/// `upstreams.*.health.check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthCheck {
    /// A GET of this path is answered with 2xx or 3xx.
    Http(String),
    /// A connection is made, TLS included.
    Tcp,
    /// gRPC's health service (`grpc.health.v1`) says that this service is serving.
    Grpc(String),
}

/// `upstreams.*.health`.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// What is asked.
    pub check: HealthCheck,
    /// The time between two checks.
    pub interval: Duration,
    /// How long one check may take.
    pub timeout: Duration,
    /// Failures in a row that take a server out.
    pub unhealthy_after: u32,
    /// Successes in a row that bring it back.
    pub healthy_after: u32,
}

/// `upstreams.*.timeouts`.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTimeouts {
    /// To connect, TLS included.
    pub connect: Duration,
    /// From the request's end to the response's head.
    pub response: Duration,
    /// Between two pieces of the response's body; not for upgraded connections.
    pub idle: Duration,
    /// How long both sides of a stream that goes both ways may be silent.
    pub stream_idle: Duration,
    /// How long an unused connection is kept.
    pub keepalive: Duration,
}

/// One entry of `plugins:`.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    /// The component file.
    pub component: PathBuf,
    /// `config:` as JSON; `Null` when absent.
    pub config: serde_json::Value,
    /// What becomes of a request when the plugin fails.
    pub on_error: OnError,
    /// How long an instance lives.
    pub reuse: Reuse,
    /// A version that sees what this one sees, and changes nothing.
    pub shadow: Option<PathBuf>,
    /// How a new version begins; at once if absent.
    pub canary: Option<Canary>,
    /// Bounds of each call and instance.
    pub limits: PluginLimits,
    /// Secrets by the name that placeholders use.
    pub secrets: BTreeMap<String, Secret>,
    /// What it may do beyond computing.
    pub grants: Grants,
    /// Ed25519 public keys of which one must have signed the component; none are needed if empty.
    pub keys: Vec<[u8; 32]>,
    /// DNS zones that a solver may write in; all of its account if empty.
    pub zones: Vec<String>,
    /// Whether a solver without a guard is refused.
    pub needs_guard: bool,
    /// The line in the file, for messages.
    pub line: u64,
}

/// A response that the file itself holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedResponse {
    /// 200 to 599.
    pub status: u16,
    /// The body.
    pub body: String,
    /// Its media type.
    pub content_type: String,
}

/// `plugins.*.canary`: a new version gets a share of the requests before it takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// Of ten thousand requests: 1 to 10,000.
    pub share: u16,
    /// How long it has to do well.
    pub time: Duration,
    /// How many calls it has to have had by then.
    pub calls: u64,
    /// How many of them may fail, inclusive.
    pub failures_max: u64,
}

/// `plugins.*.isolation` and `plugins.*.recycle`: how many calls an instance of a router or filter
/// serves, inclusive; none when there is no end to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    /// Calls.
    pub calls_max: Option<u64>,
}

/// `plugins.*.on-error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnError {
    /// The request is answered with 500.
    FailClosed,
    /// The request goes on as if the plugin were not there. Not for routers.
    FailOpen,
    /// The request is answered with this.
    Respond(FixedResponse),
}

/// `plugins.*.limits`.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginLimits {
    /// Wall time of one call into a router or filter; solvers get `solver_deadline`.
    pub deadline: Duration,
    /// Wall time of one call into a solver, its outgoing requests included.
    pub solver_deadline: Duration,
    /// Linear memory of one instance, in bytes.
    pub memory_bytes_max: usize,
    /// What one call may hand to the host in all (edits, response, log), in bytes.
    pub output_bytes_max: usize,
    /// How much longer a body may become, in bytes.
    pub body_growth_bytes_max: u64,
    /// The key-value state of the plugin, in bytes.
    pub state_bytes_max: usize,
    /// Outgoing requests of one call.
    pub requests_max: u32,
    /// Log lines per second.
    pub log_lines_per_second_max: u32,
}

/// A secret of a plugin: where it comes from and where it may go.
#[derive(Debug, Clone, PartialEq)]
pub struct Secret {
    /// Where the value comes from.
    pub source: SecretRef,
    /// The hosts it may be sent to; empty means every host that `grants.http` names.
    pub hosts: Vec<String>,
}

/// Where a secret comes from. The value is read when a generation is built and is never part of the
/// configuration's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// An environment variable of the gateway.
    Env(String),
    /// A file; a final newline is dropped.
    File(PathBuf),
    /// A systemd credential (`$CREDENTIALS_DIRECTORY/NAME`).
    Credential(String),
    /// Written into the file itself: allowed, warned about.
    Inline(SecretText),
}

/// A secret's text, which never prints itself.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// Takes a secret in.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. Only for the place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// `plugins.*.grants`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Grants {
    /// Outgoing requests.
    pub http: Vec<HttpGrant>,
    /// Secrets whose HMAC it may have, by name.
    pub hmac: Vec<String>,
    /// Heads of requests.
    pub request: HeadGrant,
    /// Heads of responses.
    pub response: HeadGrant,
}

/// One pattern of `grants.http`: `[METHOD[,METHOD] ]SCHEME://HOST[:PORT]/PATH`, where a `*` at the
/// end of the path takes any rest, and one inside takes any single segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGrant {
    /// As written.
    pub pattern: String,
    /// Methods; empty means all.
    pub methods: Vec<String>,
    /// `https` or `http`.
    pub scheme: String,
    /// The host, literally, or `*.suffix`.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path pattern.
    pub path: String,
}

/// `log:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,witgate::acme=debug`.
    pub level: String,
    /// One line per exchange.
    pub access: AccessLog,
    /// Plugins of the world `access-log`, which get each exchange that has ended.
    pub sinks: Vec<String>,
    /// Where spans are sent.
    pub otlp: Option<Otlp>,
    /// Format of all other lines.
    pub format: LogFormat,
}

/// `log.otlp`: where spans of exchanges and plugins' hooks are sent, as OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otlp {
    /// The URL of the collector, `/v1/traces` included.
    pub endpoint: String,
    /// What the collector asks for, mostly a key; in order of the file.
    pub headers: Vec<(String, SecretRef)>,
    /// Of traces that begin here: parts of ten thousand. A client's `traceparent` says it itself.
    pub share: u16,
    /// `service.name` of the resource.
    pub service: String,
}

/// `log.access`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// One JSON object per line, on standard output.
    Json,
    /// A line for people.
    Text,
    /// None.
    Off,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `limits:`: waits and sizes that bound every exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From a connection's or request's first byte to the end of its head.
    pub request_head: Duration,
    /// Between two pieces of a request's body.
    pub request_body_idle: Duration,
    /// How long a client may take no byte of a response that is there.
    pub response_idle: Duration,
    /// How long a connection may be without a request.
    pub keepalive: Duration,
    /// How long open exchanges may go on after SIGTERM.
    pub drain: Duration,
    /// The request head, inclusive, in bytes.
    pub request_head_bytes_max: usize,
    /// The number of fields of a request, inclusive.
    pub request_fields_max: usize,
    /// The request body in bytes, inclusive; `None` means no limit.
    pub request_body_bytes_max: Option<u64>,
    /// The slowest that a request's body may come, in bytes per second; `None` means no limit.
    pub request_body_rate_min: Option<u64>,
    /// The slowest that a response may be taken, in bytes per second; `None` means no limit.
    pub response_rate_min: Option<u64>,
    /// How long a client may be slower than that.
    pub rate_grace: Duration,
    /// Bytes that wait in memory for slow sides, inclusive; `None` means no limit.
    pub buffered_bytes_max: Option<u64>,
    /// Open connections of the whole gateway, inclusive.
    pub connections_max: usize,
    /// Open connections of one address or IPv6 /64, inclusive; `None` means no limit.
    pub connections_per_address_max: Option<u32>,
    /// Open requests of one HTTP/2 or HTTP/3 connection, inclusive.
    pub streams_max: u32,
}
