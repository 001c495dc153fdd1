//! Fields between two connections: hop-by-hop fields end here (RFC 9110, section 7.6.1), the facts
//! about the client begin here.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use http::header::{
    CONNECTION, COOKIE, EXPECT, FORWARDED, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use ipnet::IpNet;

/// Removes `connection` and the fields that it names. Done to a request before anything is put into it,
/// since a client must not choose what of that goes on.
pub fn strip_named(headers: &mut HeaderMap) {
    while let Some(connection) = headers.remove(CONNECTION) {
        let Ok(text) = connection.to_str() else { continue };
        for name in text.split(',').map(str::trim) {
            if !name.eq_ignore_ascii_case("te")
                && let Ok(name) = name.parse::<HeaderName>()
                && !is_needed_end_to_end(&name)
            {
                headers.remove(name);
            }
        }
    }
}

/// Removes the fields that belong to one connection, those that `connection` names among them.
/// `te: trailers` stays, since trailers are passed on.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none, and looking at the names costs less than looking each up.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    strip_named(headers);
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(UPGRADE);
    if let Some(te) = headers.remove(TE) {
        let mut codings = te.to_str().unwrap_or_default().split(',');
        if codings.any(|coding| coding.trim().eq_ignore_ascii_case("trailers")) {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    headers.remove(EXPECT);
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "upgrade"
            | "te"
            | "expect"
    )
}

/// Whether this value of `expect` is `100-continue`, the only one there is.
pub fn is_continue(expect: &HeaderValue) -> bool {
    expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

/// Joins `cookie` fields: HTTP/2 and HTTP/3 may split them, and what goes on over HTTP/1.1 must have
/// one (RFC 9113, section 8.2.3; RFC 9114, section 4.2.1).
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice())) {
        headers.insert(COOKIE, whole);
    }
}

/// Fields that a `connection` field must not take away from the next hop.
fn is_needed_end_to_end(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host" | "content-length" | "authorization" | "cookie" | "origin" | "content-type"
    )
}

/// The value of `date` now (RFC 9110, section 6.6.1), formatted once a second.
pub fn date() -> HeaderValue {
    thread_local! {
        static DATE: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|known| match known {
        Some((of, date)) if *of == second => date.clone(),
        _ => known.insert((second, date_at(now))).1.clone(),
    })
}

#[expect(clippy::expect_used, reason = "the form of a date has letters, digits and spaces alone")]
fn date_at(time: SystemTime) -> HeaderValue {
    HeaderValue::try_from(httpdate::fmt_http_date(time)).expect("a date is a field value")
}

/// The client behind `peer`: the peer itself, unless it is a trusted proxy; then the last address of
/// `x-forwarded-for` that is not a trusted proxy's.
pub fn client(peer: SocketAddr, trusted: &[IpNet], headers: &HeaderMap) -> SocketAddr {
    if !is_trusted(peer.ip(), trusted) {
        return peer;
    }
    let mut client = peer;
    let values: Vec<&str> =
        headers.get_all(X_FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).collect();
    for hop in values.iter().rev().flat_map(|value| value.rsplit(',')) {
        let Some(address) = address(hop.trim()) else { break };
        client = SocketAddr::new(address, 0);
        if !is_trusted(address, trusted) {
            break;
        }
    }
    client
}

/// Whether `address` belongs to a trusted proxy.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address.to_canonical()))
}

/// Writes who the client is: `x-forwarded-for`, `-proto`, `-host` and `forwarded` (RFC 7239). What a
/// stranger sent under these names, or as `client-cert` (RFC 9440), is dropped; what a trusted proxy sent is continued.
pub fn forward(headers: &mut HeaderMap, client: &Forwarding, is_peer_trusted: bool) {
    if is_peer_trusted {
        continue_chain(headers, client);
        return;
    }
    if headers.keys().any(is_about_client) {
        for name in ONLY_OF_PROXIES {
            headers.remove(name);
        }
    }
    drop_lookalikes(headers);
    headers.insert(X_FORWARDED_FOR, client.address.clone());
    headers.insert(X_FORWARDED_PROTO, client.scheme.clone());
    headers.insert(X_FORWARDED_HOST, client.authority.clone());
    headers.insert(FORWARDED, client.forwarded.clone());
}

/// Whether a field says what only a proxy may say.
fn is_about_client(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-") || name.starts_with("client-cert") || name == X_REAL_IP
}

/// Removes fields that an application cannot tell from those that the gateway vouches for: where names
/// become variables (CGI, WSGI, Rack), `x_forwarded_for` is the same as `x-forwarded-for`.
fn drop_lookalikes(headers: &mut HeaderMap) {
    let is_lookalike = |name: &HeaderName| {
        name.as_str().contains('_') && {
            let plain = name.as_str().replace('_', "-");
            VOUCHED.contains(&plain.as_str())
        }
    };
    let found: Vec<HeaderName> =
        headers.keys().filter(|name| is_lookalike(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Takes away what a client sent under a name that is the gateway's to set, and under names that an
/// application cannot tell from it (see [`forward`]).
pub fn take_away(headers: &mut HeaderMap, name: &HeaderName) {
    headers.remove(name);
    let is_alike = |other: &&HeaderName| {
        let pairs = other.as_str().bytes().zip(name.as_str().bytes());
        other.as_str().len() == name.as_str().len() && { pairs }
            .all(|(a, b)| a == b || matches!((a, b), (b'-' | b'_', b'-' | b'_')))
    };
    let found: Vec<HeaderName> = headers.keys().filter(is_alike).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

fn continue_chain(headers: &mut HeaderMap, client: &Forwarding) {
    let append = |headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue| {
        let known: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        let mut joined = known.join(b", ".as_slice());
        if !joined.is_empty() {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(value.as_bytes());
        if let Ok(value) = HeaderValue::from_bytes(&joined) {
            headers.insert(name, value);
        }
    };
    append(headers, X_FORWARDED_FOR, &client.address);
    append(headers, FORWARDED, &client.forwarded);
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, client.scheme.clone());
    }
    if !headers.contains_key(X_FORWARDED_HOST) {
        headers.insert(X_FORWARDED_HOST, client.authority.clone());
    }
}

/// The values that [`forward`] writes: made once per connection and authority, then only counted.
#[derive(Debug, Clone)]
pub struct Forwarding {
    /// The authority that these values are for.
    pub authority: HeaderValue,
    address: HeaderValue,
    scheme: HeaderValue,
    forwarded: HeaderValue,
}

impl Forwarding {
    /// The values for requests to `authority` from `peer`.
    pub fn new(peer: IpAddr, scheme: &'static str, authority: &str) -> Option<Self> {
        let peer = peer.to_canonical();
        let node = match peer {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("\"[{ip}]\""),
        };
        Some(Self {
            authority: HeaderValue::from_str(authority).ok()?,
            address: HeaderValue::from_str(&peer.to_string()).ok()?,
            scheme: HeaderValue::from_static(scheme),
            forwarded: HeaderValue::from_str(&format!(
                "for={node};host=\"{authority}\";proto={scheme}"
            ))
            .ok()?,
        })
    }
}

/// An address as `x-forwarded-for` carries it: bare, or with a port, IPv6 perhaps in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    text.parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok())
}

/// `x-request-id`: the id of the exchange, on the request and the response.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The certificate of the client (RFC 9440).
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
/// What it was signed by.
pub const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// What was taken off the path before the upstream sees it.
pub const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_SERVER: HeaderName = HeaderName::from_static("x-forwarded-server");
/// What strangers may not say and [`forward`] does not write.
const ONLY_OF_PROXIES: [HeaderName; 6] = [
    X_FORWARDED_PORT,
    X_FORWARDED_PREFIX,
    X_FORWARDED_SERVER,
    X_REAL_IP,
    CLIENT_CERT,
    CLIENT_CERT_CHAIN,
];
/// What [`forward`] and the framing of the next connection decide.
const VOUCHED: &[&str] = &[
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-real-ip",
    "x-request-id",
    "client-cert",
    "client-cert-chain",
    "content-length",
    "transfer-encoding",
    "content-type",
    "host",
];
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn fields_of_one_connection_end_here() {
        let mut headers = fields(&[
            ("connection", "keep-alive, x-private"),
            ("connection", "close, cookie"),
            ("keep-alive", "timeout=5"),
            ("x-private", "1"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("cookie", "a=b"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        let left = headers.iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap()));
        let mut left: Vec<_> = left.collect();
        left.sort();
        assert_eq!(left, ["accept=*/*", "cookie=a=b", "te=trailers"]);
    }

    #[test]
    fn cookies_are_put_together_again() {
        let mut headers = fields(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        let cookies: Vec<_> = headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
    }

    #[test]
    fn dates_are_as_http_writes_them() {
        let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(784_111_777);
        assert_eq!(date_at(then), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn strangers_say_nothing_about_the_client() {
        let headers = fields(&[("x-forwarded-for", "1.1.1.1")]);
        let peer = "9.9.9.9:1234".parse().unwrap();
        assert_eq!(client(peer, &[], &headers), peer);
    }

    #[test]
    fn trusted_proxies_vouch_from_the_right() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let peer: SocketAddr = "10.0.0.1:1234".parse().unwrap();
        for (sent, want) in [
            ("6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1"),
            ("1.1.1.1", "1.1.1.1"),
            ("6.6.6.6, [2001:db8::1]", "2001:db8::1"),
            ("6.6.6.6, nonsense, 10.0.0.3", "10.0.0.3"),
            ("10.0.0.9", "10.0.0.9"),
        ] {
            let headers = fields(&[("x-forwarded-for", sent)]);
            let found = client(peer, &trusted, &headers);
            assert_eq!(found.ip(), want.parse::<IpAddr>().unwrap(), "{sent}");
        }
    }

    #[test]
    fn names_that_only_look_like_ours_are_dropped() {
        let values = Forwarding::new("9.9.9.9".parse().unwrap(), "https", "a.example").unwrap();
        let mut headers = fields(&[
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded_proto", "http"),
            ("transfer_encoding", "chunked"),
            ("my_field", "1"),
        ]);
        forward(&mut headers, &values, false);
        assert!(headers.keys().filter(|name| name.as_str().contains('_')).eq(["my_field"]));
    }

    #[test]
    fn a_name_is_taken_away_however_it_is_written() {
        let name = HeaderName::from_static("x-user-name");
        let mut headers = fields(&[
            ("x-user-name", "a"),
            ("x_user_name", "b"),
            ("x-user_name", "c"),
            ("x_user-name", "d"),
            ("x-user-names", "kept"),
            ("xyuser-name", "kept"),
        ]);
        take_away(&mut headers, &name);
        let left: Vec<_> = headers.values().collect();
        assert_eq!(left, ["kept", "kept"]);
        let mut headers = fields(&[("x-user", "a"), ("x_user", "b")]);
        take_away(&mut headers, &HeaderName::from_static("x_user"));
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn a_spoofed_chain_is_replaced_and_a_trusted_one_continued() {
        let values = Forwarding::new("9.9.9.9".parse().unwrap(), "https", "a.example").unwrap();
        let sent = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1")];
        let mut headers = fields(&sent);
        forward(&mut headers, &values, false);
        assert_eq!(headers["x-forwarded-for"], "9.9.9.9");
        assert_eq!(headers["forwarded"], "for=9.9.9.9;host=\"a.example\";proto=https");
        let mut headers = fields(&sent);
        forward(&mut headers, &values, true);
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 9.9.9.9");
        assert_eq!(headers["x-forwarded-proto"], "https");
    }
}
