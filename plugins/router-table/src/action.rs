//! What a rule does with the request.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use witgate_sdk::{connection, field, request};

use crate::config::{RawRedirect, RawRespond, RawRule};
use crate::facts::Facts;

#[derive(Debug)]
pub(crate) enum Action {
    Upstream(String),
    Split(Split),
    Redirect { status: u16, to: Template },
    Respond { status: u16, headers: Vec<(String, String)>, body: String },
}

impl Action {
    pub(crate) fn new(raw: &RawRule) -> Result<Self, String> {
        if raw.by.is_some() && raw.upstreams.is_none() {
            return Err(".by: only a rule with `upstreams` makes a choice".to_owned());
        }
        match (&raw.upstream, &raw.upstreams, &raw.redirect, &raw.respond) {
            (Some(name), None, None, None) => Ok(Self::Upstream(name.clone())),
            (None, Some(weights), None, None) => {
                Split::new(weights, raw.by.as_deref()).map(Self::Split)
            }
            (None, None, Some(redirect), None) => Self::redirect(redirect),
            (None, None, None, Some(respond)) => Self::respond(respond),
            _ => Err(": a rule has exactly one of `upstream`, `upstreams`, `redirect` and \
                      `respond`"
                .to_owned()),
        }
    }

    fn redirect(raw: &RawRedirect) -> Result<Self, String> {
        if !matches!(raw.status, 301 | 302 | 303 | 307 | 308) {
            return Err(".redirect.status: must be 301, 302, 303, 307 or 308".to_owned());
        }
        let to = Template::parse(&raw.to).map_err(|error| format!(".redirect.to: {error}"))?;
        Ok(Self::Redirect { status: raw.status, to })
    }

    fn respond(raw: &RawRespond) -> Result<Self, String> {
        if !(200..600).contains(&raw.status) {
            return Err(".respond.status: must be 200 to 599".to_owned());
        }
        let mut headers = Vec::new();
        for (name, value) in &raw.headers {
            let at = |error| format!(".respond.headers.{name}: {error}");
            let key = field::check_changeable(name).map_err(at)?;
            field::check_value(value).map_err(at)?;
            headers.push((key, value.clone()));
        }
        if !raw.body.is_empty() && !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".to_owned(), "text/plain; charset=utf-8".to_owned()));
        }
        Ok(Self::Respond { status: raw.status, headers, body: raw.body.clone() })
    }
}

/// A choice among upstreams by weight.
#[derive(Debug)]
pub(crate) struct Split {
    /// Names with the end of their share of `0..total`.
    shares: Vec<(String, u32)>,
    total: u32,
    by: By,
    /// Requests that had nothing to go by.
    turn: AtomicU32,
    /// Walks through all of `0..total`, far apart, so that shares are mixed and exact.
    stride: u32,
}

/// What a choice goes by.
#[derive(Debug)]
enum By {
    Turn,
    Address,
    Cookie(String),
    Header(String),
}

impl Split {
    fn new(weights: &BTreeMap<String, u32>, by: Option<&str>) -> Result<Self, String> {
        let divisor = weights.values().fold(0, |a, b| common_divisor(a, *b));
        let mut shares = Vec::new();
        let mut total = 0u32;
        for (name, weight) in weights {
            let at = || format!(".upstreams.{name}: weights add up to at most 1000000");
            total = total.checked_add(weight / divisor.max(1)).ok_or_else(at)?;
            if total > WEIGHT_MAX {
                return Err(at());
            }
            shares.push((name.clone(), total));
        }
        if total == 0 {
            return Err(".upstreams: at least one weight must be above 0".to_owned());
        }
        let by = match by {
            None => By::Turn,
            Some("address") => By::Address,
            Some(by) => match by.split_once(':') {
                Some(("cookie", name)) if !name.is_empty() => By::Cookie(name.to_owned()),
                Some(("header", name)) => {
                    By::Header(field::check_name(name).map_err(|error| format!(".by: {error}"))?)
                }
                _ => {
                    return Err(format!(
                        ".by: `{by}` is not known: write `cookie:NAME`, `header:NAME` or `address`"
                    ));
                }
            },
        };
        // Near the golden ratio, which spreads best; coprime, so that each round meets every slot.
        let mut stride = (total / 1000 * 618 + total % 1000 * 618 / 1000).max(1);
        while common_divisor(stride, total) != 1 {
            stride += 1;
        }
        Ok(Self { shares, total, by, turn: AtomicU32::new(0), stride })
    }

    /// The name of the upstream for this request.
    pub(crate) fn pick(&self) -> &str {
        let key = match &self.by {
            By::Turn => None,
            By::Address => Some(connection::client_address()),
            By::Cookie(name) => request::cookie(name),
            By::Header(name) => request::header(name),
        };
        let slot = match key {
            Some(key) => {
                let slot = hash(&key) % u64::from(self.total);
                u32::try_from(slot).unwrap_or_default()
            }
            None => self.next_slot(),
        };
        let share = self.shares.iter().find(|(_, end)| slot < *end).or(self.shares.last());
        share.map(|(name, _)| name.as_str()).unwrap_or_default()
    }

    fn next_slot(&self) -> u32 {
        // One instance serves one call at a time, so this needs no exchange.
        let slot = self.turn.load(Ordering::Relaxed);
        self.turn.store((slot + self.stride) % self.total, Ordering::Relaxed);
        slot
    }
}

/// FNV-1a with the finish of MurmurHash3, since FNV alone leaves short keys in the low bits. The
/// result is part of what users rely on (who is in which share): never change it.
fn hash(key: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

fn common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// The target of a redirect.
#[derive(Debug)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    Host,
    Path,
    Query,
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        if !["https://", "http://", "/", "{path}"].iter().any(|start| text.starts_with(start)) {
            return Err(format!("`{text}` must start with https://, http://, / or {{path}}"));
        }
        field::check_value(text)?;
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            parts.push(Part::Text(before.to_owned()));
            let Some((name, tail)) = after.split_once('}') else {
                return Err(format!("`{text}` has a `{{` without its `}}`"));
            };
            parts.push(match name {
                "host" => Part::Host,
                "path" => Part::Path,
                "query" => Part::Query,
                _ => {
                    return Err(format!(
                        "unknown placeholder `{{{name}}}`: there are {{host}}, {{path}} and \
                         {{query}}"
                    ));
                }
            });
            rest = tail;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    pub(crate) fn fill(&self, facts: &Facts) -> String {
        let mut location = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => location.push_str(text),
                Part::Host => location.push_str(facts.host()),
                Part::Path if location.is_empty() || location == "/" => {
                    // `//evil.example/` would lead to another host (RFC 3986, section 4.2), and so
                    // would `/\` in browsers.
                    location.clear();
                    location.push('/');
                    location.push_str(facts.path().trim_start_matches(['/', '\\']));
                }
                Part::Path => {
                    // The path of `OPTIONS *` must not become part of the host.
                    let path = Some(facts.path()).filter(|path| path.starts_with('/'));
                    let path = path.unwrap_or("/");
                    // `https://example.com/{path}` means one slash.
                    location.truncate(location.trim_end_matches('/').len());
                    location.push_str(path);
                }
                Part::Query => {
                    if let Some(query) = facts.query() {
                        location.push(if location.contains('?') { '&' } else { '?' });
                        location.push_str(query);
                    }
                }
            }
        }
        location
    }
}

/// More precision than anybody needs, and small enough for 32 bits.
const WEIGHT_MAX: u32 = 1_000_000;
