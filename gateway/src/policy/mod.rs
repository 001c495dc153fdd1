//! What the gateway itself does with the requests of a route, beside plugins: who may come, how often,
//! with what, and what the response gets. Compiled once per generation; [`crate::http`] asks here once
//! before filters see the request and once before the response leaves. A route without policies has
//! no [`Policy`] and pays nothing.
//!
//! One file per policy, and what decides in it is pure where it can be.

mod addresses;
mod basic_auth;
mod compress;
mod cors;
mod error_pages;
mod prefix;
mod rate_limit;
mod security;
mod table;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, VARY};

use crate::config::Scheme;
use crate::config::policies::{Coding, ForwardAuth};
use crate::fault::Fault;
use crate::http::head::RequestHead;
pub use basic_auth::hash_password;
pub use compress::{Encoder, ranked};
pub use table::PolicyTable;

/// The policies that hold for a route, ready to use.
#[derive(Debug, Default)]
pub struct Policy {
    addresses: Option<crate::config::policies::Addresses>,
    rate_limits: Vec<Arc<rate_limit::Limiter>>,
    cors: Option<cors::Cors>,
    basic_auth: Option<Arc<basic_auth::BasicAuth>>,
    /// The largest head of a request.
    request_head_bytes_max: Option<u64>,
    /// In the place of `limits.request-body`: the bound, or that there is none.
    request_body_bytes_max: Option<Option<u64>>,
    /// How much of a body is read before a server is asked.
    buffer_bytes_max: Option<usize>,
    compress: Option<crate::config::policies::Compress>,
    forward_auth: Option<ForwardAuth>,
    mirror: Option<crate::config::policies::Mirror>,
    security: Option<crate::config::policies::Security>,
    error_pages: Option<Arc<error_pages::ErrorPages>>,
    prefix: prefix::Prefix,
}

/// One exchange under the policies of its route: what the request said that the response depends on.
#[derive(Debug)]
pub struct Pass {
    policy: Arc<Policy>,
    origin: Option<HeaderValue>,
    standing: Option<rate_limit::Standing>,
    /// How the client would like a response to be compressed.
    accepted: Option<Coding>,
    /// What was taken off the path, for `x-forwarded-prefix`.
    stripped: Option<HeaderValue>,
}

/// What a request that is not refused comes to.
#[derive(Debug)]
pub enum Admission {
    /// It goes on.
    Go,
    /// It is answered with these fields, 204 and no body: a CORS preflight.
    Preflight(HeaderMap),
}

/// Why a request is not let through.
#[derive(Debug)]
pub enum Refusal {
    /// From this address nobody may come.
    Address,
    /// Too many requests; the next one after this time.
    Rate(Duration),
    /// No name and password that are known here; the challenge.
    Credentials(HeaderValue),
    /// More passwords wait to be checked than can be.
    Busy,
    /// Its head is larger than allowed here.
    Head,
}

/// Why policies could not be made ready.
#[derive(Debug)]
pub enum PolicyError {
    /// A file of users could not be read.
    Users(PathBuf, std::io::Error),
    /// A line of a file of users is none, and why.
    UsersLine(PathBuf, usize, &'static str),
    /// The hash of a user's password cannot be used: user, place and why.
    Hash(String, String, String),
    /// An error page cannot be read.
    Page(PathBuf, std::io::Error),
    /// A value cannot be the value of a field: what it is.
    Field(&'static str),
}

impl Pass {
    /// Begins with what the request says.
    pub fn new(policy: Arc<Policy>, head: &RequestHead) -> Self {
        let origin = policy.cors.as_ref().and_then(|_| head.headers.get(http::header::ORIGIN));
        let origin = origin.cloned();
        let compress = policy.compress.as_ref();
        let accepted = compress.and_then(|c| compress::negotiate(&c.codings, &head.headers));
        Self { policy, origin, standing: None, accepted, stripped: None }
    }

    /// Decides about a request from `client`.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn admit(
        &mut self,
        client: IpAddr,
        head: &mut RequestHead,
    ) -> Result<Admission, Refusal> {
        let policy = Arc::clone(&self.policy);
        if let Some(addresses) = &policy.addresses
            && !addresses::may_come(addresses, client)
        {
            return Err(Refusal::Address);
        }
        for limiter in &policy.rate_limits {
            let standing = limiter.take(client, &head.headers);
            let is_worse =
                self.standing.as_ref().is_none_or(|known| standing.remaining <= known.remaining);
            let wait = standing.retry_after;
            if is_worse {
                self.standing = Some(standing);
            }
            if let Some(wait) = wait {
                return Err(Refusal::Rate(wait));
            }
        }
        if policy.request_head_bytes_max.is_some_and(|max| head_bytes(head) > max) {
            return Err(Refusal::Head);
        }
        if let Some(cors) = &policy.cors
            && let Some(fields) = cors.preflight(head)
        {
            // A preflight never carries credentials, so it is answered before they are asked for.
            return Ok(Admission::Preflight(fields));
        }
        if let Some(auth) = &policy.basic_auth {
            auth.admit(&mut head.headers).await?;
        }
        Ok(Admission::Go)
    }

    /// Where a copy of the request goes.
    pub fn mirror(&self) -> Option<&crate::config::policies::Mirror> {
        self.policy.mirror.as_ref()
    }

    /// Who is asked beside, when the request was admitted.
    pub fn forward_auth(&self) -> Option<&ForwardAuth> {
        self.policy.forward_auth.as_ref()
    }

    /// Makes the path what the upstream shall see.
    pub fn rewrite(&mut self, head: &mut RequestHead) {
        if let Some(rewritten) = self.policy.prefix.rewrite(&head.target) {
            head.target = rewritten.target;
            self.stripped = rewritten.stripped;
        }
    }

    /// The page for an error of the gateway's own.
    pub fn error_page(&self, status: http::StatusCode, id: &str) -> Option<String> {
        self.policy.error_pages.as_ref()?.page(status, id)
    }

    /// The bound of the request's body, when the route has one of its own.
    pub fn request_body_bytes_max(&self) -> Option<Option<u64>> {
        self.policy.request_body_bytes_max
    }

    /// How many bytes of the request's body are read before a server is asked.
    pub fn buffer_bytes_max(&self) -> Option<usize> {
        self.policy.buffer_bytes_max
    }

    /// What was taken off the path.
    pub fn stripped(&self) -> Option<&HeaderValue> {
        self.stripped.as_ref()
    }

    /// Gives the response the fields that the policies owe it.
    pub fn respond(&self, scheme: Scheme, fields: &mut HeaderMap) {
        if let Some(level) = self.policy.security {
            security::respond(level, scheme == Scheme::Https, fields);
        }
        if let Some(cors) = &self.policy.cors {
            cors.respond(self.origin.as_ref(), fields);
        }
        if let Some(standing) = &self.standing {
            standing.write(fields);
        }
    }

    /// The coding in which the body shall leave; the head is made to say so. `bytes` is the length of
    /// the body, where it is known.
    pub fn compress(
        &self,
        status: http::StatusCode,
        fields: &mut HeaderMap,
        bytes: Option<u64>,
    ) -> Option<Coding> {
        let policy = self.policy.compress.as_ref()?;
        compress::apply(policy, self.accepted, status, fields, bytes)
    }
}

/// Adds a name to `vary`, unless it is there.
fn add_vary(fields: &mut HeaderMap, name: &'static str) {
    let has = fields.get_all(VARY).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|one| one.trim() == "*" || one.trim().eq_ignore_ascii_case(name))
    });
    if !has {
        fields.append(VARY, HeaderValue::from_static(name));
    }
}

/// The bytes of a head as HTTP/1.1 writes them, whatever it came in.
fn head_bytes(head: &RequestHead) -> u64 {
    let line = head.method.as_str().len() + head.target.as_str().len() + " HTTP/1.1\r\n ".len();
    let host = "host: \r\n\r\n".len() + head.authority.len();
    let field = |(name, value): (&http::HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + ": \r\n".len()
    };
    (line + host + head.headers.iter().map(field).sum::<usize>()) as u64
}

/// Whole seconds, rounded up, so that waiting that long is enough.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl Refusal {
    /// The fields that the answer needs.
    pub fn fields(&self, fields: &mut HeaderMap) {
        match self {
            Self::Rate(wait) => {
                fields.insert(http::header::RETRY_AFTER, seconds(*wait).max(1).into());
            }
            Self::Credentials(challenge) => {
                fields.insert(http::header::WWW_AUTHENTICATE, challenge.clone());
            }
            Self::Address | Self::Busy | Self::Head => {}
        }
    }
}

impl Refusal {
    /// What the client may know.
    pub fn detail(&self) -> &'static str {
        match self {
            Self::Address => "Requests from this address are not accepted here.",
            Self::Rate(_) => "Too many requests. Try again later.",
            Self::Credentials(_) => "A name and a password that are known here are needed.",
            Self::Head => "The head of the request is larger than allowed here.",
            Self::Busy => "Too many passwords are being checked. Try again in a moment.",
        }
    }
}

impl PolicyError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        Fault::Operator
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Users(path, _) => write!(f, "cannot read the users of {}", path.display()),
            Self::Page(path, _) => write!(f, "cannot read the error page {}", path.display()),
            Self::UsersLine(path, line, why) => {
                write!(f, "{}:{line}: {why}; write NAME:HASH", path.display())
            }
            Self::Hash(user, place, why) => write!(
                f,
                "the hash of the password of {user:?} ({place}) cannot be used: {why}; make a new \
                 one with `witgate hash-password`"
            ),
            Self::Field(what) => write!(f, "{what} cannot be the value of a field"),
        }
    }
}

impl std::error::Error for PolicyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Users(_, cause) | Self::Page(_, cause) => Some(cause),
            Self::UsersLine(..) | Self::Hash(..) | Self::Field(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vary_grows_by_what_is_not_there() {
        let mut fields = HeaderMap::new();
        fields.insert(VARY, HeaderValue::from_static("Cookie, origin"));
        add_vary(&mut fields, "origin");
        assert_eq!(fields.get_all(VARY).iter().count(), 1);
        add_vary(&mut fields, "accept-encoding");
        assert_eq!(fields.get_all(VARY).iter().count(), 2);
        fields.clear();
        fields.insert(VARY, HeaderValue::from_static("*"));
        add_vary(&mut fields, "origin");
        assert_eq!(fields.get_all(VARY).iter().count(), 1);
    }
}
