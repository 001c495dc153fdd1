//! Host names, lower-cased and checked at birth, so that no comparison downstream has to think.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// A DNS name in lower-case ASCII (A-labels), or an IP address, without a final dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hostname(Arc<str>);

impl Hostname {
    /// Checks and normalises `text`: IDNA (UTS 46) to A-labels, lower case, no final dot; IP
    /// addresses in their canonical text form, IPv6 with or without brackets.
    ///
    /// # Errors
    /// Says what is wrong with the name, for a person.
    pub fn parse(text: &str) -> Result<Self, HostnameError> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self(ip.to_string().into()));
        }
        let bare = text.strip_suffix('.').unwrap_or(text);
        if bare.is_empty() {
            return Err(HostnameError("is empty"));
        }
        let ascii = idna::domain_to_ascii_strict(bare)
            .map_err(|_| HostnameError("is not a host name (letters, digits, '-' and '.')"))?;
        if ascii.len() > 253 {
            return Err(HostnameError("is longer than 253 characters"));
        }
        // Resolvers and browsers take these for addresses (WHATWG URL, "ends in a number").
        let last = ascii.rsplit('.').next().unwrap_or_default();
        if !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(HostnameError("looks like an IP address and is none"));
        }
        Ok(Self(ascii.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address when the name is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }

    /// Whether it always means the machine itself: `localhost` and what is below it (RFC 6761), and
    /// loopback addresses.
    pub fn is_this_machine(&self) -> bool {
        match self.ip() {
            Some(ip) => ip.is_loopback(),
            None => &*self.0 == "localhost" || self.0.ends_with(".localhost"),
        }
    }

    /// Whether no public CA would ever sign it: an IP address of private use, a name of one label,
    /// or one under `localhost`, `local`, `internal`, `test`, `home.arpa`, `lan`, `invalid`.
    pub fn is_private(&self) -> bool {
        match self.ip() {
            Some(IpAddr::V4(ip)) => {
                // 100.64.0.0/10 is shared address space (RFC 6598), as overlay networks use it.
                let is_shared = matches!(ip.octets(), [100, 64..=127, ..]);
                ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared
            }
            Some(IpAddr::V6(ip)) => {
                ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
            }
            None => {
                let last = self.0.rsplit('.').next().unwrap_or_default();
                let private = ["localhost", "local", "internal", "test", "lan", "invalid"];
                !self.0.contains('.') || private.contains(&last) || self.0.ends_with(".home.arpa")
            }
        }
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name of `hosts:`: one host, or every direct child of one (`*.example.com`, RFC 6125).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// This host.
    Exact(Hostname),
    /// One more label before this name.
    Wildcard(Hostname),
    /// Every host that no other pattern takes: `*`.
    Any,
}

impl HostPattern {
    /// Reads `name`, `*.name` or `*`.
    ///
    /// # Errors
    /// Says what is wrong with the pattern, for a person.
    pub fn parse(text: &str) -> Result<Self, HostnameError> {
        match text.strip_prefix("*.") {
            Some(rest) if !rest.contains('*') => {
                let name = Hostname::parse(rest)?;
                match name.ip() {
                    Some(_) => Err(HostnameError("has a wildcard before an IP address")),
                    None => Ok(Self::Wildcard(name)),
                }
            }
            _ if text == "*" => Ok(Self::Any),
            _ if text.contains('*') => Err(HostnameError(
                "may have '*' only as its whole first label, as in *.example.com",
            )),
            _ => Hostname::parse(text).map(Self::Exact),
        }
    }

    /// The name without its `*.`; none for every host.
    pub fn base(&self) -> Option<&Hostname> {
        match self {
            Self::Exact(name) | Self::Wildcard(name) => Some(name),
            Self::Any => None,
        }
    }

    /// The address when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.base().and_then(Hostname::ip)
    }

    /// See [`Hostname::is_private`].
    pub fn is_private(&self) -> bool {
        self.base().is_some_and(Hostname::is_private)
    }

    /// See [`Hostname::is_this_machine`].
    pub fn is_this_machine(&self) -> bool {
        self.base().is_some_and(Hostname::is_this_machine)
    }

    /// Whether `host`, already in lower case, is one of these.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name.as_str() == host,
            Self::Wildcard(name) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == name.as_str()),
            Self::Any => true,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Wildcard(name) => write!(f, "*.{name}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Why a text is no host name; reads after the name: "`a b` is not a host name".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostnameError(pub &'static str);

impl fmt::Display for HostnameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for HostnameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normal_at_birth() {
        let name = |t| Hostname::parse(t).map(|n| n.to_string());
        assert_eq!(name("App.Example.COM."), Ok("app.example.com".into()));
        assert_eq!(name("bücher.example"), Ok("xn--bcher-kva.example".into()));
        assert_eq!(name("[::1]"), Ok("::1".into()));
        assert!(name("a b").is_err());
        assert!(name("a_b.example").is_err());
        assert!(name("").is_err());
        assert!(name("300.1.1.1").is_err());
        assert!(name("1.2.3").is_err());
    }

    #[test]
    fn a_wildcard_takes_exactly_one_label() {
        let p = HostPattern::parse("*.Tenants.example.com").unwrap();
        assert!(p.matches("a.tenants.example.com"));
        assert!(!p.matches("tenants.example.com"));
        assert!(!p.matches("a.b.tenants.example.com"));
        assert!(!p.matches(".tenants.example.com"));
        assert!(HostPattern::parse("a.*.example.com").is_err());
        assert!(HostPattern::parse("*.127.0.0.1").is_err());
        assert!(HostPattern::parse("*.*.example.com").is_err());
    }

    #[test]
    fn private_names_are_known() {
        for (name, private) in [
            ("localhost", true),
            ("a.localhost", true),
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("::1", true),
            ("nas", true),
            ("app.home.arpa", true),
            ("example.com", false),
            ("8.8.8.8", false),
            ("100.100.1.1", true),
            ("100.128.1.1", false),
        ] {
            assert_eq!(Hostname::parse(name).unwrap().is_private(), private, "{name}");
        }
    }
}
