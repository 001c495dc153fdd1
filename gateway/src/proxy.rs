//! The PROXY protocol, versions 1 and 2 (HAProxy, `proxy-protocol.txt`, 2020-03-05): who a connection is
//! from, said by a balancer before the first byte of the client. Read by `listen` from those it trusts,
//! written by `upstream`. What is not exactly as the text says is refused, since two readers could
//! take different clients from it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::config::ProxyVersion;

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ends {
    /// The client's.
    pub source: SocketAddr,
    /// The one that it connected to.
    pub destination: SocketAddr,
}

/// A connection as upstreams are told of it.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Its ends. Connections to servers are never shared between two of these.
    pub ends: Ends,
    /// The server name that the client asked for.
    pub authority: Option<Box<str>>,
}

/// How a connection came through a balancer.
#[derive(Debug, Clone)]
pub struct Via {
    /// The balancer.
    pub peer: SocketAddr,
    /// What it said.
    pub header: Header,
}

/// What a header says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// The ends of the client's connection; none when the sender speaks for itself (a health check)
    /// or does not know.
    pub ends: Option<Ends>,
    /// The server name that the client asked for.
    pub authority: Option<Box<str>>,
    /// What the sender calls the connection.
    pub unique_id: Option<Box<[u8]>>,
    /// What the client spoke to the sender.
    pub ssl: Option<Ssl>,
}

/// TLS between the client and the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssl {
    /// Its version, such as `TLSv1.3`.
    pub version: Box<str>,
    /// The common name of the client's certificate, when there was one and it was good.
    pub common_name: Option<Box<str>>,
}

/// Why there is no header.
#[derive(Debug)]
pub enum HeaderError {
    /// The connection ended or failed before.
    Io(io::Error),
    /// It does not begin as a header does.
    Absent,
    /// It is not as it has to be.
    Malformed(&'static str),
}

/// Reads a header and not a byte more. The caller bounds the time.
///
/// # Errors
/// When there is none, or it is not as it has to be.
pub async fn read<IO>(io: &mut IO) -> Result<Header, HeaderError>
where
    IO: AsyncRead + Unpin,
{
    // The shortest header of version 1 is longer than the signature of version 2.
    let mut start = [0; SIGNATURE.len()];
    // Byte by byte, so that who sends something else is not waited for.
    for index in 0..start.len() {
        let byte = io.read_u8().await.map_err(HeaderError::Io)?;
        let fits = |wanted: &[u8]| wanted.get(index).is_none_or(|wanted| *wanted == byte);
        let so_far = start.get(..index).unwrap_or_default();
        let is_v2 = SIGNATURE.starts_with(so_far) && fits(SIGNATURE);
        let is_v1 = so_far.starts_with(PROXY) || PROXY.starts_with(so_far);
        if !(is_v2 || is_v1 && fits(PROXY)) {
            return Err(HeaderError::Absent);
        }
        if let Some(place) = start.get_mut(index) {
            *place = byte;
        }
    }
    if start != *SIGNATURE {
        return read_v1(io, &start).await;
    }
    let mut fixed = [0; 4];
    io.read_exact(&mut fixed).await.map_err(HeaderError::Io)?;
    let [command, family, high, low] = fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BYTES_MAX {
        return Err(HeaderError::Malformed("it is longer than 4 KiB"));
    }
    let mut rest = vec![0; length];
    io.read_exact(&mut rest).await.map_err(HeaderError::Io)?;
    let mut whole = SIGNATURE.to_vec();
    whole.extend_from_slice(&fixed);
    whole.extend_from_slice(&rest);
    v2(command, family, &rest, &whole).map_err(HeaderError::Malformed)
}

async fn read_v1<IO>(io: &mut IO, start: &[u8]) -> Result<Header, HeaderError>
where
    IO: AsyncRead + Unpin,
{
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= V1_BYTES_MAX {
            return Err(HeaderError::Malformed("its line does not end within 107 bytes"));
        }
        line.push(io.read_u8().await.map_err(HeaderError::Io)?);
    }
    v1(&line).map_err(HeaderError::Malformed)
}

/// Reads a whole line of version 1 (section 2.1), its end included.
///
/// # Errors
/// What is wrong with it.
pub fn v1(line: &[u8]) -> Result<Header, &'static str> {
    let line = line.strip_prefix(PROXY).and_then(|line| line.strip_suffix(b"\r\n"));
    let line = line.and_then(|line| std::str::from_utf8(line).ok()).ok_or("it is no line")?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Header::default());
    }
    let parts: Vec<&str> = line.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = parts.as_slice() else {
        return Err("it does not have five parts");
    };
    let address = |text: &str| -> Option<IpAddr> {
        match *family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let port = |text: &str| {
        let is_plain = text.bytes().all(|b| b.is_ascii_digit());
        let is_canonical = text == "0" || !text.starts_with('0');
        text.parse::<u16>().ok().filter(|_| is_plain && is_canonical)
    };
    let end = |ip: &str, number: &str| Some(SocketAddr::new(address(ip)?, port(number)?));
    let ends = end(source, source_port).zip(end(destination, destination_port));
    let (source, destination) = ends.ok_or("its addresses or ports are none")?;
    Ok(Header { ends: Some(Ends { source, destination }), ..Header::default() })
}

/// Reads what follows the fixed part of version 2 (section 2.2); `whole` is all of the header.
fn v2(command: u8, family: u8, rest: &[u8], whole: &[u8]) -> Result<Header, &'static str> {
    let is_proxied = match command {
        0x20 => false,
        0x21 => true,
        _ => return Err("its version or command is unknown"),
    };
    let addresses = match family >> 4 {
        0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        _ => return Err("its address family is unknown"),
    };
    if family & 0xf > 2 {
        return Err("its transport is unknown");
    }
    if !is_proxied {
        // A receiver skips all that LOCAL brings along.
        return Ok(Header::default());
    }
    let (place, extra) = rest.split_at_checked(addresses).ok_or("its addresses are cut off")?;
    let mut header = Header { ends: v2_ends(place), ..Header::default() };
    let crc_at = whole.len() - extra.len();
    tlvs(extra, &mut |kind, at, value| {
        match kind {
            TLV_AUTHORITY => {
                header.authority = Some(text(value, 255).ok_or("its authority is no name")?)
            }
            TLV_UNIQUE_ID if value.len() > 128 => return Err("its unique id is too long"),
            TLV_UNIQUE_ID => header.unique_id = Some(value.into()),
            TLV_SSL => header.ssl = ssl(value)?,
            TLV_CRC32C => {
                let sum = <[u8; 4]>::try_from(value).map_err(|_| "its checksum is none")?;
                let mut zeroed = whole.to_vec();
                zeroed
                    .get_mut(crc_at + at..)
                    .and_then(|z| z.get_mut(..4))
                    .ok_or("cut off")?
                    .fill(0);
                if crc32c(&zeroed) != u32::from_be_bytes(sum) {
                    return Err("its checksum is wrong");
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(header)
}

fn v2_ends(place: &[u8]) -> Option<Ends> {
    let (ips, ports) = place.split_at_checked(place.len().checked_sub(4)?)?;
    let (one, other) = ips.split_at_checked(ips.len() / 2)?;
    let ip = |bytes: &[u8]| -> Option<IpAddr> {
        match bytes.len() {
            4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
            16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
            // Names of unix sockets say nothing here.
            _ => None,
        }
    };
    let [a, b, c, d] = <[u8; 4]>::try_from(ports).ok()?;
    Some(Ends {
        source: SocketAddr::new(ip(one)?, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(ip(other)?, u16::from_be_bytes([c, d])),
    })
}

/// Takes an entry: its type, the place of its value, and the value.
type Take<'t> = dyn FnMut(u8, usize, &[u8]) -> Result<(), &'static str> + 't;

/// Walks type-length-value entries.
fn tlvs(bytes: &[u8], take: &mut Take<'_>) -> Result<(), &'static str> {
    let mut at = 0;
    while let Some([kind, high, low, rest @ ..]) = bytes.get(at..).filter(|b| !b.is_empty()) {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        take(*kind, at + 3, rest.get(..length).ok_or("an entry is cut off")?)?;
        at += 3 + length;
    }
    if at == bytes.len() { Ok(()) } else { Err("an entry is cut off") }
}

fn ssl(value: &[u8]) -> Result<Option<Ssl>, &'static str> {
    let [client, verify @ ..] = value else { return Err("its ssl is cut off") };
    let (verify, entries) = verify.split_at_checked(4).ok_or("its ssl is cut off")?;
    let (mut version, mut common_name) = (None, None);
    tlvs(entries, &mut |kind, _, value| {
        match kind {
            TLV_SSL_VERSION => version = Some(text(value, 64).ok_or("its ssl is no text")?),
            TLV_SSL_CN => common_name = Some(text(value, 256).ok_or("its ssl is no text")?),
            _ => {}
        }
        Ok(())
    })?;
    let is_ssl = client & 1 != 0;
    let is_verified = client & 6 != 0 && verify == [0; 4];
    Ok(version
        .filter(|_| is_ssl)
        .map(|version| Ssl { version, common_name: common_name.filter(|_| is_verified) }))
}

fn text(value: &[u8], bytes_max: usize) -> Option<Box<str>> {
    let text = std::str::from_utf8(value).ok()?;
    let is_plain = !text.is_empty() && text.len() <= bytes_max && !text.contains(char::is_control);
    is_plain.then(|| text.into())
}

/// CRC-32C (RFC 3309, appendix).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let is_odd = crc & 1 == 1;
            crc = (crc >> 1) ^ if is_odd { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// A header about a connection; none of ends speaks for the gateway itself.
pub fn write(version: ProxyVersion, ends: Option<Ends>, authority: Option<&str>) -> Vec<u8> {
    // One family for both ends.
    let ends = ends.map(|ends| {
        let (a, b) = (ends.source.ip().to_canonical(), ends.destination.ip().to_canonical());
        match (a, b) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => (ends, a, b),
            _ => (ends, mapped(a), mapped(b)),
        }
    });
    match (version, ends) {
        (ProxyVersion::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (ProxyVersion::V1, Some((ends, a, b))) => {
            let family = if a.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (ends.source.port(), ends.destination.port());
            format!("PROXY {family} {a} {b} {from} {to}\r\n").into_bytes()
        }
        (ProxyVersion::V2, None) => [SIGNATURE.as_slice(), &[0x20, 0, 0, 0]].concat(),
        (ProxyVersion::V2, Some((ends, a, b))) => {
            let mut rest = Vec::new();
            for ip in [a, b] {
                match ip {
                    IpAddr::V4(ip) => rest.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => rest.extend_from_slice(&ip.octets()),
                }
            }
            rest.extend_from_slice(&ends.source.port().to_be_bytes());
            rest.extend_from_slice(&ends.destination.port().to_be_bytes());
            if let Some(name) = authority.filter(|name| name.len() <= 255) {
                rest.extend_from_slice(&[TLV_AUTHORITY, 0]);
                rest.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
                rest.extend_from_slice(name.as_bytes());
            }
            let mut header = SIGNATURE.to_vec();
            header.extend_from_slice(&[0x21, if a.is_ipv4() { 0x11 } else { 0x21 }]);
            header.extend_from_slice(&u16::try_from(rest.len()).unwrap_or(0).to_be_bytes());
            header.extend_from_slice(&rest);
            header
        }
    }
}

fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        v6 => v6,
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(cause) => cause.fmt(f),
            Self::Absent => f.write_str("no PROXY header, which this address has to send"),
            Self::Malformed(what) => write!(f, "a malformed PROXY header: {what}"),
        }
    }
}

impl std::error::Error for HeaderError {}

const PROXY: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_BYTES_MAX: usize = 107;
const V2_BYTES_MAX: usize = 4096;
const TLV_AUTHORITY: u8 = 0x02;
const TLV_CRC32C: u8 = 0x03;
const TLV_UNIQUE_ID: u8 = 0x05;
const TLV_SSL: u8 = 0x20;
const TLV_SSL_VERSION: u8 = 0x21;
const TLV_SSL_CN: u8 = 0x22;

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    async fn read_all(bytes: &[u8]) -> (Result<Header, String>, usize) {
        let mut rest = bytes;
        let outcome = read(&mut rest).await.map_err(|cause| cause.to_string());
        (outcome, rest.len())
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_not_a_byte_more() {
        for (source, destination) in
            [("192.0.2.1:1", "198.51.100.2:443"), ("[2001:db8::1]:65535", "[2001:db8::2]:443")]
        {
            let ends = ends(source, destination);
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                let mut bytes = write(version, Some(ends), Some("a.example"));
                bytes.extend_from_slice(b"\x16rest");
                let (header, left) = read_all(&bytes).await;
                let header = header.unwrap();
                assert_eq!((header.ends, left), (Some(ends), 5));
                let authority = (version == ProxyVersion::V2).then_some("a.example");
                assert_eq!(header.authority.as_deref(), authority);
                let (header, left) = read_all(&write(version, None, None)).await;
                assert_eq!((header.unwrap(), left), (Header::default(), 0));
            }
        }
        let mixed = write(ProxyVersion::V1, Some(ends("192.0.2.1:1", "[2001:db8::2]:443")), None);
        assert!(mixed.starts_with(b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 443"));
    }

    #[tokio::test]
    async fn a_line_that_could_be_read_in_two_ways_is_refused() {
        for (line, is_good) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n", true),
            ("PROXY UNKNOWN ffff::1 anything at all\r\n", true),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 443\n", false),
            ("PROXY TCP4  192.0.2.1 192.0.2.2 1 443\r\n", false),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", false),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 443 5\r\n", false),
            ("PROXY TCP4 192.0.2.01 192.0.2.2 1 443\r\n", false),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 01 443\r\n", false),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 443\r\n", false),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", false),
            ("PROXY TCP6 192.0.2.1 192.0.2.2 1 443\r\n", false),
            ("PROXY UDP4 192.0.2.1 192.0.2.2 1 443\r\n", false),
            ("proxy TCP4 192.0.2.1 192.0.2.2 1 443\r\n", false),
            ("PROXYTCP4 192.0.2.1 192.0.2.2 1 443\r\n", false),
            ("GET / HTTP/1.1\r\n", false),
            ("\x16\x03\x01\x02\x00\x01", false),
            ("", false),
        ] {
            let line = format!("{line}{}", if line.ends_with('\n') { "" } else { "x" });
            let (header, _) = read_all(line.as_bytes()).await;
            assert_eq!(header.is_ok(), is_good, "{line:?}: {header:?}");
        }
        let endless = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
        assert!(read_all(endless.as_bytes()).await.0.unwrap_err().contains("107"));
    }

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, rest].concat()
    }

    const V4: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 1, 187];

    #[tokio::test]
    async fn entries_are_read_and_cut_ones_refused() {
        let ssl = b"\x20\x00\x17\x07\0\0\0\0\x21\x00\x07TLSv1.3\x22\x00\x05alice";
        let good =
            [V4, b"\x02\x00\x09a.example\x05\x00\x02id\xee\x00\x01x", ssl.as_slice()].concat();
        let read = read_all(&header(0x21, 0x11, &good)).await.0.unwrap();
        assert_eq!(read.ends, Some(ends("192.0.2.1:1", "192.0.2.2:443")));
        assert_eq!(read.authority.as_deref(), Some("a.example"));
        assert_eq!(read.unique_id.as_deref(), Some(b"id".as_slice()));
        let ssl = read.ssl.unwrap();
        assert_eq!((&*ssl.version, ssl.common_name.as_deref()), ("TLSv1.3", Some("alice")));
        // Any cut of what is announced as whole is refused, wherever it falls.
        for length in 0..good.len() {
            let outcome = read_all(&header(0x21, 0x11, &good[..length])).await.0;
            let is_between = [12, 24, 29, 33].contains(&length);
            assert_eq!(outcome.is_ok(), is_between, "{length}: {outcome:?}");
        }
        for (command, family, rest, is_good) in [
            (0x20, 0x11, &b"anything"[..], true),
            (0x21, 0x00, b"", true),
            (0x21, 0x31, &[0; 216], true),
            (0x11, 0x11, V4, false),
            (0x22, 0x11, V4, false),
            (0x21, 0x41, V4, false),
            (0x21, 0x13, V4, false),
            (0x21, 0x21, V4, false),
            (0x21, 0x11, &[0; 5000], false),
            (0x21, 0x11, &[V4, b"\x02\x00\x02\0a"].concat(), false),
        ] {
            let outcome = read_all(&header(command, family, rest)).await.0;
            assert_eq!(outcome.is_ok(), is_good, "{command:x} {family:x}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_checksum_is_checked() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let mut whole = header(0x21, 0x11, &[V4, b"\x03\x00\x04\0\0\0\0"].concat());
        let sum = crc32c(&whole).to_be_bytes();
        let end = whole.len();
        whole[end - 4..].copy_from_slice(&sum);
        assert!(read_all(&whole).await.0.is_ok());
        whole[end - 1] ^= 1;
        assert!(read_all(&whole).await.0.unwrap_err().contains("checksum"));
    }
}
