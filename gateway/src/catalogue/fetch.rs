//! Downloads: over https alone but for this machine, within a bound, and only what was pinned.

use std::path::PathBuf;

use bytes::Bytes;
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION};

use super::sha256;
use crate::acme::client;

/// Fetches what the command line names.
#[derive(Debug, Clone, Default)]
pub struct Fetcher {
    /// A PEM file with the roots that servers are trusted by, instead of the system's.
    pub roots: Option<PathBuf>,
}

/// An answer.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Fetcher {
    /// What is at a URL, when it is what the digest says.
    pub(super) async fn pinned(&self, url: &str, digest: &str) -> Result<Vec<u8>, String> {
        let answer = self.get(url, &HeaderMap::new()).await?;
        if !answer.status.is_success() {
            return Err(format!("{url} is answered with {}", answer.status));
        }
        checked(answer.body, digest, url)
    }

    /// Gets a URL, through redirects. Credentials stay with the host they were for.
    pub(super) async fn get(&self, url: &str, fields: &HeaderMap) -> Result<Answer, String> {
        let (mut url, mut fields) = (url.to_owned(), fields.clone());
        for _ in 0..REDIRECTS_MAX {
            let uri: http::Uri = url.parse().map_err(|_| format!("{url:?} is no URL"))?;
            let host = uri.host().unwrap_or_default().to_owned();
            if uri.scheme_str() != Some("https") && !is_this_machine(&host) {
                return Err(format!("{url} is not https"));
            }
            let asked = client::fetch(&url, &fields, self.roots.as_deref(), BYTES_MAX);
            let (parts, body) =
                asked.await.map_err(|cause| format!("cannot fetch {url}: {cause}"))?;
            let target = parts.headers.get(LOCATION).and_then(|target| target.to_str().ok());
            let Some(target) = target.filter(|_| parts.status.is_redirection()) else {
                return Ok(Answer { status: parts.status, headers: parts.headers, body });
            };
            let next = match target.starts_with('/') && !target.starts_with("//") {
                true => {
                    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
                    format!("{}://{authority}{target}", uri.scheme_str().unwrap_or("https"))
                }
                false => target.to_owned(),
            };
            let is_same = |next: &http::Uri| {
                next.authority() == uri.authority() && next.scheme() == uri.scheme()
            };
            if !next.parse().is_ok_and(|next| is_same(&next)) {
                fields.remove(AUTHORIZATION);
            }
            url = next;
        }
        Err(format!("{url}: too many redirects"))
    }
}

/// The bytes, when they are what the digest says.
pub(super) fn checked(bytes: Bytes, digest: &str, what: &str) -> Result<Vec<u8>, String> {
    let is = sha256(&bytes);
    match is == digest {
        true => Ok(bytes.to_vec()),
        false => {
            Err(format!("{what} is not what was pinned: it is sha256:{is}, not sha256:{digest}"))
        }
    }
}

/// Whether a host is this machine, to which nothing can be overheard.
pub(super) fn is_this_machine(host: &str) -> bool {
    let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// One field.
pub(super) fn field(name: HeaderName, value: &str) -> Result<HeaderMap, String> {
    let mut value = HeaderValue::from_str(value).map_err(|_| format!("{name} cannot be sent"))?;
    value.set_sensitive(name == AUTHORIZATION);
    Ok(HeaderMap::from_iter([(name, value)]))
}

/// The largest file, inclusive: lego's providers in one component have some ten.
const BYTES_MAX: usize = 64 << 20;
const REDIRECTS_MAX: usize = 5;
