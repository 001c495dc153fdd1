//! What the gateway itself does with the requests of a site or route, beside plugins: who may come,
//! how often, with what, and what the response gets. [`crate::policy`] carries it out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::SecretText;

/// The policies of a site or of a route, as written. What a route says takes the place of what its
/// site says under the same key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policies {
    /// Who may come.
    pub addresses: Setting<Addresses>,
    /// How often; all of them count. Empty is the same as off.
    pub rate_limits: Setting<Vec<RateLimit>>,
    /// Which other sites' pages may read responses.
    pub cors: Setting<Cors>,
    /// Names and passwords.
    pub basic_auth: Setting<BasicAuth>,
    /// The largest request head in bytes, inclusive, as HTTP/1.1 writes it; off means no limit but that of
    /// the gateway.
    pub request_head: Setting<u64>,
    /// The largest request body in bytes, inclusive; off means no limit.
    pub request_body: Setting<u64>,
    /// How many bytes of a request's body are read before a server is asked, inclusive.
    pub buffer_request: Setting<u64>,
    /// An upstream that is asked whether a request may go on.
    pub forward_auth: Setting<ForwardAuth>,
    /// Where copies of requests go.
    pub mirror: Setting<Mirror>,
    /// Fields that make browsers careful.
    pub security: Setting<Security>,
    /// Pages for the gateway's own errors.
    pub error_pages: Setting<Vec<(StatusPattern, PathBuf)>>,
    /// Which responses are compressed.
    pub compress: Setting<Compress>,
    /// A prefix that the upstream does not see. Routes only.
    pub strip_prefix: Option<String>,
    /// A prefix that the upstream sees in addition. Routes only.
    pub add_prefix: Option<String>,
}

/// A policy at one place.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Setting<T> {
    /// Not said here: that of the site, or none.
    #[default]
    Absent,
    /// None, whatever the site says.
    Off,
    /// This one.
    On(T),
}

impl<T> Setting<T> {
    /// What holds here when `outer` is what holds around it.
    pub fn or<'a>(&'a self, outer: &'a Self) -> &'a Self {
        match self {
            Self::Absent => outer,
            said => said,
        }
    }

    /// The policy, when there is one.
    pub fn on(&self) -> Option<&T> {
        match self {
            Self::On(policy) => Some(policy),
            Self::Absent | Self::Off => None,
        }
    }
}

/// `addresses:`. What `deny` holds is refused, and what `allow` does not hold, unless it is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Networks that may come; empty means all.
    pub allow: Vec<IpNet>,
    /// Networks that may not.
    pub deny: Vec<IpNet>,
}

/// One entry of `rate-limits:`: a bucket of `burst` tokens, refilled evenly with `requests` per `per`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// Requests per `per` in the long run.
    pub requests: u32,
    /// The time that `requests` is about.
    pub per: Duration,
    /// How many may come at once.
    pub burst: u32,
    /// The field, in lower case, whose value is counted by; `None` counts by client address.
    pub header: Option<String>,
}

/// `mirror:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The upstream that gets copies.
    pub upstream: String,
    /// How many requests are copied, in percent.
    pub share_percent: u32,
    /// The longest body that is copied, in bytes, inclusive.
    pub body_bytes_max: usize,
}

/// `cors:` (the Fetch standard's CORS protocol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Who may read.
    pub origins: Vec<OriginPattern>,
    /// Methods beyond the simple ones.
    pub methods: Vec<String>,
    /// Request fields that scripts may set, in lower case; `*` takes any.
    pub headers: Vec<String>,
    /// Response fields that scripts may read, in lower case.
    pub expose: Vec<String>,
    /// Whether cookies and credentials may be sent along.
    pub credentials: bool,
    /// How long a browser may remember a preflight's answer.
    pub max_age: Duration,
}

/// Which origins `cors.origins` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// `*`: every one.
    Any,
    /// This one, in lower case: `https://app.example.com`.
    Exact(String),
    /// Every name one or more labels below: scheme with `://`, and the rest from its dot on.
    Below(String, String),
}

impl std::fmt::Display for OriginPattern {
    /// As it is written in the file.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(origin) => f.write_str(origin),
            Self::Below(scheme, rest) => write!(f, "{scheme}*{rest}"),
        }
    }
}

/// `forward-auth:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuth {
    /// The upstream that is asked.
    pub upstream: String,
    /// The path that is asked for, with its query.
    pub path: String,
    /// Fields of a yes, in lower case, that go on with the request.
    pub copy: Vec<String>,
    /// How long the answer may take.
    pub timeout: Duration,
}

/// `security:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// What breaks hardly any application.
    Basic,
    /// What an application must be made for.
    Strict,
}

/// A key of `error-pages:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusPattern {
    /// `404`.
    Exact(u16),
    /// `5xx`.
    Class(u16),
}

impl std::fmt::Display for StatusPattern {
    /// As it is written in the file.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(code) => write!(f, "{code}"),
            Self::Class(class) => write!(f, "{class}xx"),
        }
    }
}

/// `compress:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    /// What clients may have, best first.
    pub codings: Vec<Coding>,
    /// Media types that are compressed, in lower case; a `*` at the start of a part takes any start.
    pub types: Vec<String>,
    /// Shorter responses are left alone, in bytes.
    pub bytes_min: u64,
}

/// A content coding (RFC 9110, section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// Its name in fields and in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// How the names of files end that hold it.
    pub fn file_end(self) -> &'static str {
        match self {
            Self::Gzip => "gz",
            Self::Brotli => "br",
            Self::Zstd => "zst",
        }
    }
}

/// `basic-auth:` (RFC 7617).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// What browsers show.
    pub realm: String,
    /// Hashes of passwords by name: argon2id or bcrypt.
    pub users: BTreeMap<String, SecretText>,
    /// More of them, one `name:hash` on a line.
    pub file: Option<PathBuf>,
    /// The field, in lower case, in which the upstream learns the name.
    pub user_field: Option<String>,
}

impl BasicAuth {
    /// A hash with what it was made by and without what could be guessed against.
    pub(super) fn outline(hash: &str) -> String {
        // `$argon2id$v=19$m=…$salt$hash` and `$2b$12$salt-and-hash`.
        let known = if hash.starts_with("$argon2id$") { 4 } else { 3 };
        let parts: Vec<&str> = hash.split('$').take(known).collect();
        format!("{}$[secret]", parts.join("$"))
    }
}
