//! What a plugin may reach: URLs, grants and addresses. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::HttpGrant;

/// A URL taken apart and normalised, so that grants are checked on what the server will see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// In lower case; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// Percent-encoded, with what need not be encoded decoded.
    pub path: String,
    /// As given, placeholders included.
    pub query: Option<String>,
}

impl Target {
    /// Takes a URL apart. Anything that servers are known to read in more than one way is refused,
    /// since a grant must mean the same here and there. The error says what is wrong.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a URL has no spaces, controls or bytes beyond ASCII".to_owned());
        }
        let (scheme, port, rest) = if let Some(rest) = strip_scheme(url, "https://") {
            ("https", 443, rest)
        } else if let Some(rest) = strip_scheme(url, "http://") {
            ("http", 80, rest)
        } else {
            return Err("a URL starts with https:// or http://".to_owned());
        };
        if rest.contains(['#', '\\']) {
            return Err("a URL has no `#` and no backslash here".to_owned());
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (host, port) = host_and_port(authority, port)?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest, None),
        };
        Ok(Self { scheme, host, port, path: normalise(path)?, query })
    }

    /// Host and port as the `host` field has them.
    pub(super) fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match (self.scheme, self.port) {
            ("https", 443) | ("http", 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// The line to add to `grants.http` so that `method` on this target is let through.
    pub(super) fn line(&self, method: &str) -> String {
        format!("{method} {}://{}{}", self.scheme, self.authority(), self.path)
    }
}

/// Whether `grant` lets `method` on `target` through.
pub(super) fn covers(grant: &HttpGrant, method: &str, target: &Target) -> bool {
    (grant.methods.is_empty() || grant.methods.iter().any(|allowed| allowed == method))
        && grant.scheme == target.scheme
        && grant.port == target.port
        && host_covers(&grant.host, &target.host)
        && path_covers(&grant.path, &target.path)
}

/// Whether a host pattern (a host, or `*.suffix` for every name below it) covers `host`.
pub(super) fn host_covers(pattern: &str, host: &str) -> bool {
    let pattern = pattern.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(pattern);
    match pattern.strip_prefix("*.") {
        Some(suffix) => host
            .len()
            .checked_sub(suffix.len())
            .and_then(|at| host.split_at_checked(at))
            .is_some_and(|(below, end)| {
                end.eq_ignore_ascii_case(suffix) && below.len() > 1 && below.ends_with('.')
            }),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

/// Whether a path pattern covers `path`: a `*` at its end takes any rest, one inside takes what
/// there is of a single segment, which must not be empty.
fn path_covers(pattern: &str, path: &str) -> bool {
    let Some(start) = pattern.strip_suffix('*') else {
        let mut segments = path.split('/');
        let fits = pattern
            .split('/')
            .all(|pattern| segments.next().is_some_and(|segment| segment_covers(pattern, segment)));
        return fits && segments.next().is_none();
    };
    let mut rest = path;
    let mut parts = start.split('/').peekable();
    while let Some(pattern) = parts.next() {
        if parts.peek().is_none() {
            // The last piece only has to be how the rest begins, and may itself hold a `*`.
            return starts(pattern, rest);
        }
        let Some((segment, after)) = rest.split_once('/') else { return false };
        if !segment_covers(pattern, segment) {
            return false;
        }
        rest = after;
    }
    false
}

/// Whether some beginning of `rest`, within its first segment, fits `pattern`.
fn starts(pattern: &str, rest: &str) -> bool {
    let segment = rest.split('/').next().unwrap_or_default();
    pattern.is_empty()
        || segment.char_indices().any(|(at, character)| {
            let end = at.saturating_add(character.len_utf8());
            segment.get(..end).is_some_and(|start| segment_covers(pattern, start))
        })
}

fn segment_covers(pattern: &str, segment: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == segment };
    let Some(rest) = segment.strip_prefix(before) else { return false };
    rest.char_indices().any(|(at, character)| {
        let from = at.saturating_add(character.len_utf8());
        rest.get(from..).is_some_and(|rest| segment_covers(after, rest))
    })
}

/// How far an address is from the public internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Anybody's.
    Public,
    /// This machine or its own networks: for a host that a grant names literally.
    Private,
    /// Link-local, metadata services, multicast, unspecified: only when the grant has the address
    /// itself.
    Special,
}

/// Sorts an address. Addresses that carry an IPv4 address count as that.
pub(super) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => match carried_v4(address) {
            Some(address) => reach_v4(address),
            None => reach_v6(address),
        },
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    let [a, b, c, _] = address.octets();
    if address.is_unspecified() || address.is_broadcast() || a == 0 || a >= 224 {
        return Reach::Special;
    }
    // 169.254/16 holds the metadata services of most clouds; these are the others'.
    if address.is_link_local()
        || address == Ipv4Addr::new(100, 100, 100, 200)
        || address == Ipv4Addr::new(192, 0, 0, 192)
        || address == Ipv4Addr::new(168, 63, 129, 16)
    {
        return Reach::Special;
    }
    let is_private = address.is_loopback()
        || address.is_private()
        // RFC 6598, 6890, 2544 and 5737.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
        || address.is_documentation();
    if is_private { Reach::Private } else { Reach::Public }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    let [first, second, ..] = address.segments();
    if address.is_unspecified()
        || address.is_multicast()
        || address.is_unicast_link_local()
        || address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
    {
        return Reach::Special;
    }
    let is_private = address.is_loopback()
        || address.is_unique_local()
        || (0xfec0..=0xfeff).contains(&first)
        || (first == 0x2001 && second == 0xdb8)
        // Nothing outside of 2000::/3 is public.
        || first & 0xe000 != 0x2000;
    if is_private { Reach::Private } else { Reach::Public }
}

/// The IPv4 address inside mapped, compatible, NAT64 (RFC 6052, 8215) and 6to4 addresses.
fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => Some(v4(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        _ => None,
    }
}

fn strip_scheme<'u>(url: &'u str, scheme: &str) -> Option<&'u str> {
    let (start, rest) = url.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn host_and_port(authority: &str, default: u16) -> Result<(String, u16), String> {
    if authority.contains('@') {
        return Err("a URL has no user or password here; use an authorization field".to_owned());
    }
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (ip, port) = rest.split_once(']').ok_or("the URL's [ is not closed")?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| format!("{ip} is not an IPv6 address"))?;
        (ip.to_string(), port.strip_prefix(':').or(port.is_empty().then_some("")))
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, Some("")),
        };
        (name(host)?, port)
    };
    let port = match port {
        Some("") => default,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse().ok().filter(|port| *port != 0).ok_or("the URL's port is no port")?
        }
        _ => return Err("the URL's port is no port".to_owned()),
    };
    Ok((host, port))
}

/// A host name or IPv4 address, in lower case and without a final dot.
fn name(host: &str) -> Result<String, String> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
    if !is_name {
        return Err(format!(
            "{host:?} is not a host name; internationalised names are written xn--"
        ));
    }
    // `127.1`, `0x7f.0.0.1` and `2130706433` are addresses to some resolvers and names to others.
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if is_number && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("{host:?} is neither a host name nor an IPv4 address"));
    }
    Ok(host)
}

/// Decodes what need not be encoded (RFC 3986, section 6.2.2.2) and refuses what is ambiguous.
fn normalise(path: &str) -> Result<String, String> {
    if path.is_empty() {
        return Ok("/".to_owned());
    }
    if path.contains("{{") {
        return Err(
            "placeholders stand in field values, the query and the body, never in the path"
                .to_owned(),
        );
    }
    let mut normal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        normal.push_str(before);
        let (digits, after) = after.split_at_checked(2).ok_or("the path ends inside a %-escape")?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let byte = u8::from_str_radix(digits, 16).ok().filter(|_| is_hex);
        let byte = byte.ok_or_else(|| format!("%{digits} is not an escape"))?;
        match byte {
            b'/' | b'\\' | b'.' | 0..=0x1f | 0x7f => {
                return Err(format!(
                    "%{digits} in a path is read differently by different servers"
                ));
            }
            b'-' | b'_' | b'~' => normal.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => normal.push(char::from(byte)),
            _ => {
                normal.push('%');
                normal.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = after;
    }
    normal.push_str(rest);
    let is_dotted = normal.split('/').any(|segment| {
        let segment = segment.split(';').next().unwrap_or_default();
        segment == "." || segment == ".."
    });
    if is_dotted || normal.contains("//") {
        return Err("a path has no `.`, `..` or empty segments here".to_owned());
    }
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(pattern: &str) -> HttpGrant {
        let (methods, url) = pattern.rsplit_once(' ').unwrap_or(("", pattern));
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_at(rest.find('/').unwrap());
        let (host, port) = authority.rsplit_once(':').map_or_else(
            || (authority, if scheme == "https" { 443 } else { 80 }),
            |(host, port)| (host, port.parse().unwrap()),
        );
        HttpGrant {
            pattern: pattern.to_owned(),
            methods: methods.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect(),
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        }
    }

    #[test]
    fn grants_cover_what_they_say() {
        for (pattern, method, url, wanted) in [
            ("https://a.example/v1/zones*", "GET", "https://a.example/v1/zones", true),
            ("https://a.example/v1/zones*", "GET", "https://a.example/v1/zones/1/r?x=1", true),
            ("https://a.example/v1/zones*", "GET", "https://a.example/v1/zonesfoo", true),
            ("https://a.example/v1/zones*", "GET", "https://a.example/v1/zone", false),
            ("https://a.example/v1/zones*", "GET", "https://a.example/v2/zones", false),
            ("https://a.example/v1/zones*", "GET", "http://a.example/v1/zones", false),
            ("https://a.example/v1/zones*", "GET", "https://a.example:8443/v1/zones", false),
            ("https://a.example/v1/zones*", "GET", "https://A.EXAMPLE:443/v1/zones", true),
            ("https://a.example/v1/zones*", "GET", "https://a.example./v1/zones", true),
            ("https://a.example/v1/zones*", "GET", "https://b.a.example/v1/zones", false),
            ("https://a.example/v1/zones*", "GET", "https://a.example/v1/%7aones", true),
            ("GET,PUT https://a.example/*", "PUT", "https://a.example/x", true),
            ("GET,PUT https://a.example/*", "DELETE", "https://a.example/x", false),
            ("GET https://a.example/*", "get", "https://a.example/x", false),
            ("https://a.example/*", "GET", "https://a.example", true),
            ("https://a.example/", "GET", "https://a.example", true),
            ("https://a.example/", "GET", "https://a.example/x", false),
            ("https://a.example/z/*/r", "GET", "https://a.example/z/1/r", true),
            ("https://a.example/z/*/r", "GET", "https://a.example/z/1/2/r", false),
            ("https://a.example/z/*/r", "GET", "https://a.example/z//r", false),
            ("https://a.example/z/*/r*", "GET", "https://a.example/z/1/records/2", true),
            ("https://a.example/z/*/r*", "GET", "https://a.example/z/1/other", false),
            ("https://a.example/z/v*x/r", "GET", "https://a.example/z/v12x/r", true),
            ("https://a.example/z/v*x/r", "GET", "https://a.example/z/v12y/r", false),
            ("https://*.a.example/*", "GET", "https://b.a.example/x", true),
            ("https://*.a.example/*", "GET", "https://c.b.a.example/x", true),
            ("https://*.a.example/*", "GET", "https://a.example/x", false),
            ("https://*.a.example/*", "GET", "https://xa.example/x", false),
            ("http://127.0.0.1:8081/api/*", "GET", "http://127.0.0.1:8081/api/v1", true),
            ("http://[::1]:8081/api/*", "GET", "http://[::1]:8081/api/v1", true),
        ] {
            let is_covered =
                Target::parse(url).is_ok_and(|target| covers(&grant(pattern), method, &target));
            assert_eq!(is_covered, wanted, "{pattern} {method} {url}");
        }
    }

    #[test]
    fn ambiguous_urls_are_refused() {
        for url in [
            "",
            "a.example/x",
            "ftp://a.example/x",
            "https:/a.example/x",
            "https://user@a.example/",
            "https://a.example@evil.example/",
            "https://a.example:80:80/",
            "https://a.example:/x:0",
            "https://a.example:0/",
            "https://a.example:99999/",
            "https://a.example:+1/",
            "https://a..example/",
            "https:///x",
            "https://a.example/a/../b",
            "https://a.example/a/./b",
            "https://a.example/a/..;x/b",
            "https://a.example/..",
            "https://a.example/a//b",
            "https://a.example/%2e%2e/b",
            "https://a.example/a%2Fb",
            "https://a.example/a%5cb",
            "https://a.example/a\\b",
            "https://a.example/a%00",
            "https://a.example/a%zz",
            "https://a.example/a%",
            "https://a.example/a%+1",
            "https://a.example/a b",
            "https://a.example/a#b",
            "https://a.example/ä",
            "https://a.example/{{secret:t}}",
            "https://{{secret:t}}/",
            "https://127.1/",
            "https://0x7f.0.0.1/",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://[::1/",
            "https://[nope]/",
            "https://[::1]x/",
        ] {
            let parsed = Target::parse(url);
            // Only this one has a port that is merely left out.
            let is_default_port = url == "https://a.example:/x:0";
            assert_eq!(parsed.is_ok(), is_default_port, "{url}: {parsed:?}");
        }
    }

    #[test]
    fn addresses_are_sorted() {
        for (address, wanted) in [
            ("1.1.1.1", Reach::Public),
            ("2606:4700::1111", Reach::Public),
            ("127.0.0.1", Reach::Private),
            ("127.9.9.9", Reach::Private),
            ("10.0.0.1", Reach::Private),
            ("172.16.0.1", Reach::Private),
            ("192.168.1.1", Reach::Private),
            ("100.64.0.1", Reach::Private),
            ("198.18.0.1", Reach::Private),
            ("::1", Reach::Private),
            ("fd12::1", Reach::Private),
            ("fec0::1", Reach::Private),
            ("2001:db8::1", Reach::Private),
            ("::ffff:127.0.0.1", Reach::Private),
            ("::ffff:1.1.1.1", Reach::Public),
            ("::127.0.0.1", Reach::Private),
            ("64:ff9b::10.0.0.1", Reach::Private),
            ("2002:7f00:1::", Reach::Private),
            ("0.0.0.0", Reach::Special),
            ("0.1.2.3", Reach::Special),
            ("255.255.255.255", Reach::Special),
            ("224.0.0.1", Reach::Special),
            ("240.0.0.1", Reach::Special),
            ("169.254.169.254", Reach::Special),
            ("::ffff:169.254.169.254", Reach::Special),
            ("100.100.100.200", Reach::Special),
            ("fd00:ec2::254", Reach::Special),
            ("fe80::1", Reach::Special),
            ("ff02::1", Reach::Special),
            ("::", Reach::Special),
        ] {
            assert_eq!(reach(address.parse().unwrap()), wanted, "{address}");
        }
    }

    #[test]
    fn a_denied_call_names_the_line() {
        let target = Target::parse("https://api.example.com/v1/zones?name=x").unwrap();
        assert_eq!(target.line("GET"), "GET https://api.example.com/v1/zones");
        let target = Target::parse("http://[::1]:8081/x").unwrap();
        assert_eq!(target.line("PUT"), "PUT http://[::1]:8081/x");
    }
}
