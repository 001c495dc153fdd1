//! The conditions of a rule.

use alloc::borrow::{Cow, ToOwned};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use witgate_sdk::{field, request};

use crate::config::{Expected, RawRule};
use crate::facts::Facts;

/// Conditions, all of which must hold. The cheap ones come first.
#[derive(Debug)]
pub(crate) struct Matcher {
    hosts: Vec<Host>,
    path: Path,
    methods: Vec<String>,
    headers: Vec<(String, Wanted)>,
    query: Vec<(String, Wanted)>,
}

#[derive(Debug)]
enum Host {
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: one label in place of the star, as in certificates
    /// (RFC 9525, section 6.3).
    Wildcard(String),
}

#[derive(Debug)]
enum Path {
    Any,
    Exact(String),
    /// Ends with `/`; `takes_itself` says that the path without it fits too.
    Prefix {
        prefix: String,
        takes_itself: bool,
    },
}

#[derive(Debug)]
enum Wanted {
    Present,
    Absent,
    Value(String),
}

impl Matcher {
    pub(crate) fn new(raw: &RawRule) -> Result<Self, String> {
        let path = match (&raw.path, &raw.exact) {
            (Some(_), Some(_)) => return Err(": `path` and `exact` exclude each other".to_owned()),
            (Some(path), None) => Path::prefix(path).map_err(|error| format!(".path: {error}"))?,
            (None, Some(path)) => {
                Path::Exact(checked(path).map_err(|error| format!(".exact: {error}"))?.to_owned())
            }
            (None, None) => Path::Any,
        };
        let mut hosts = Vec::new();
        for (index, host) in raw.hosts.iter().enumerate() {
            hosts.push(Host::new(host).map_err(|error| format!(".hosts[{index}]: {error}"))?);
        }
        let mut headers = Vec::new();
        for (name, expected) in &raw.headers {
            let key =
                field::check_name(name).map_err(|error| format!(".headers.{name}: {error}"))?;
            headers.push((key, Wanted::new(expected)));
        }
        let query = raw.query.iter();
        let query = query.map(|(name, expected)| (name.clone(), Wanted::new(expected))).collect();
        let methods = raw.methods.iter().map(|method| method.to_ascii_uppercase()).collect();
        Ok(Self { hosts, path, methods, headers, query })
    }

    pub(crate) fn fits(&self, facts: &Facts) -> bool {
        (self.hosts.is_empty() || self.hosts.iter().any(|host| host.fits(facts.host())))
            && self.path.fits(facts)
            && (self.methods.is_empty()
                || self.methods.iter().any(|method| method == facts.method()))
            && self.headers.iter().all(|(name, wanted)| wanted.fits_field(name))
            && self.query.iter().all(|(name, wanted)| wanted.fits_query(name, facts.query()))
    }
}

impl Host {
    fn new(text: &str) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        let name = text.strip_prefix("*.").unwrap_or(&text);
        // An IPv6 literal is written in brackets, as in an authority.
        let is_literal = name.starts_with('[') && name.ends_with(']');
        let is_name = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !is_name && !is_literal {
            return Err(format!(
                "`{text}` is not a host: write a name such as app.example.com, or *.example.com \
                 for one label below it, without scheme and port; international names in their \
                 xn-- form"
            ));
        }
        Ok(match text.strip_prefix('*') {
            Some(suffix) => Self::Wildcard(suffix.to_owned()),
            None => Self::Exact(text),
        })
    }

    fn fits(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Wildcard(suffix) => host
                .strip_suffix(suffix.as_str())
                .is_some_and(|label| !label.is_empty() && !label.contains('.')),
        }
    }
}

impl Path {
    /// By whole segments, as the gateway's own routes: `/api` takes `/api` and all below it,
    /// `/api/` only what is below, `/` everything.
    fn prefix(text: &str) -> Result<Self, String> {
        let text = checked(text)?;
        if text == "/" {
            return Ok(Self::Any);
        }
        let takes_itself = !text.ends_with('/');
        let prefix = if takes_itself { format!("{text}/") } else { text.to_owned() };
        Ok(Self::Prefix { prefix, takes_itself })
    }

    fn fits(&self, facts: &Facts) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(path) => facts.path() == path,
            Self::Prefix { prefix, takes_itself } => {
                facts.path().starts_with(prefix.as_str())
                    || (*takes_itself && prefix.strip_suffix('/') == Some(facts.path()))
            }
        }
    }
}

fn checked(path: &str) -> Result<&str, String> {
    if !path.starts_with('/') {
        return Err(format!("a path starts with `/`: write `/{path}`"));
    }
    if path.contains(['?', '#', '*', ' ']) {
        return Err(format!(
            "`{path}` is not a path: it is taken literally, percent-encoded, without wildcards; \
             parameters go under `query:`"
        ));
    }
    Ok(path)
}

impl Wanted {
    fn new(expected: &Expected) -> Self {
        match expected {
            Expected::Present(true) => Self::Present,
            Expected::Present(false) => Self::Absent,
            Expected::Number(number) => Self::Value(number.to_string()),
            Expected::Value(text) => Self::Value(text.clone()),
        }
    }

    fn fits_field(&self, name: &str) -> bool {
        match self {
            Self::Present => request::header_bytes(name).is_some(),
            Self::Absent => request::header_bytes(name).is_none(),
            Self::Value(text) => match request::header(name) {
                Some(value) if value == *text => true,
                // The first value may be of another kind; one of several is enough.
                _ => request::header_values(name).iter().any(|value| value == text),
            },
        }
    }

    fn fits_query(&self, name: &str, query: Option<&str>) -> bool {
        let mut values = query.unwrap_or_default().split('&').filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (!pair.is_empty() && decoded(key) == name).then_some(value)
        });
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Value(text) => values.any(|value| decoded(value) == *text),
        }
    }
}

/// A part of a query in plain text: `+` and percent-encoding undone (WHATWG URL, section 5.1).
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let escaped = match byte {
            b'%' => peek_pair(&rest).and_then(|(high, low)| Some(hex(high)? * 16 + hex(low)?)),
            _ => None,
        };
        match (byte, escaped) {
            (_, Some(value)) => {
                bytes.push(value);
                rest.nth(1);
            }
            (b'+', None) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The two bytes that come next, without taking them.
fn peek_pair(bytes: &core::str::Bytes<'_>) -> Option<(u8, u8)> {
    let mut ahead = bytes.clone();
    Some((ahead.next()?, ahead.next()?))
}
