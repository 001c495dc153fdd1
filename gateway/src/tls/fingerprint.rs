//! What the bytes of a ClientHello and of the answer to it tell: the client's JA4 fingerprint, and
//! what was agreed on where the library does not say. Pure; any input gives an answer or none.

use crate::hex;
use aws_lc_rs::digest::{SHA256, digest};

/// How the hello came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In TLS records over TCP.
    Tcp,
    /// In QUIC.
    Quic,
}

impl Transport {
    /// `tcp` or `quic`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
        }
    }
}

/// What a ClientHello offers, in the order in which it does, without values that mean nothing
/// (RFC 8701). Numbers are those of the IANA registries "TLS Parameters".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offered {
    /// Cipher suites.
    pub suites: Vec<u16>,
    /// Types of extensions.
    pub extensions: Vec<u16>,
    /// Application protocols.
    pub alpn: Vec<Vec<u8>>,
    /// Versions.
    pub versions: Vec<u16>,
    /// Key exchange groups.
    pub groups: Vec<u16>,
    /// Signature schemes.
    pub signature_schemes: Vec<u16>,
}

/// Reads a ClientHello, a handshake message as of RFC 8446, section 4.
pub fn offered(hello: &[u8]) -> Option<Offered> {
    let mut body = message(hello, CLIENT_HELLO)?;
    let legacy_version = body.u16()?;
    body.take(32)?;
    body.short()?;
    let meant = |bytes: Bytes<'_>| {
        let mut values = numbers(bytes)?;
        values.retain(|value| !is_grease(*value));
        Some(values)
    };
    let mut offered = Offered { suites: meant(body.long()?)?, ..Offered::default() };
    body.short()?;
    // There may be none at all (RFC 5246, section 7.4.1.2).
    let mut rest = body.long().unwrap_or(Bytes(&[]));
    while !rest.0.is_empty() {
        let (kind, mut content) = (rest.u16()?, rest.long()?);
        if is_grease(kind) {
            continue;
        }
        offered.extensions.push(kind);
        match kind {
            ALPN => {
                let mut list = content.long().unwrap_or(Bytes(&[]));
                while let Some(name) = list.short() {
                    offered.alpn.push(name.0.to_vec());
                }
            }
            SIGNATURE_ALGORITHMS => offered.signature_schemes = meant(content.long()?)?,
            SUPPORTED_VERSIONS => offered.versions = meant(content.short()?)?,
            SUPPORTED_GROUPS => {
                offered.groups = content.long().and_then(meant).unwrap_or_default();
            }
            _ => {}
        }
    }
    if offered.versions.is_empty() {
        offered.versions.push(legacy_version);
    }
    Some(offered)
}

impl Offered {
    /// The JA4 fingerprint. Source: FoxIO, "JA4: TLS Client Fingerprinting".
    pub fn ja4(&self, transport: Transport) -> String {
        let (mut suites, mut extensions) = (self.suites.clone(), self.extensions.clone());
        let has_name = extensions.contains(&SERVER_NAME);
        let first = format!(
            "{}{}{}{:02}{:02}{}",
            if transport == Transport::Quic { 'q' } else { 't' },
            version_text(self.versions.iter().copied().max().unwrap_or_default()),
            if has_name { 'd' } else { 'i' },
            suites.len().min(99),
            extensions.len().min(99),
            alpn_text(self.alpn.first().map(Vec::as_slice).unwrap_or_default()),
        );
        suites.sort_unstable();
        extensions.retain(|kind| !matches!(*kind, SERVER_NAME | ALPN));
        extensions.sort_unstable();
        let mut third = list(&extensions);
        if !self.signature_schemes.is_empty() {
            third = format!("{third}_{}", list(&self.signature_schemes));
        }
        format!("{first}_{}_{}", short_digest(&list(&suites)), short_digest(&third))
    }
}

/// The JA4 fingerprint of a ClientHello.
pub fn ja4(hello: &[u8], transport: Transport) -> Option<String> {
    offered(hello).map(|offered| offered.ja4(transport))
}

/// The handshake message in the first TLS records of a connection (RFC 8446, section 5.1).
pub fn unwrap_records(records: &[u8]) -> Vec<u8> {
    let (mut rest, mut message) = (Bytes(records), Vec::new());
    while let Some(head) = rest.take(3) {
        let Some(content) = rest.long() else { break };
        if head.first() != Some(&HANDSHAKE_RECORD) {
            break;
        }
        message.extend_from_slice(content.0);
    }
    message
}

/// What a ServerHello says was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The cipher suite.
    pub suite: u16,
    /// The key exchange group.
    pub group: Option<u16>,
    /// Whether a session is resumed: a pre-shared key was taken.
    pub is_resumed: bool,
}

/// Reads a ServerHello of TLS 1.3, which `flight` begins with. A request to try again is none.
pub fn agreed(flight: &[u8]) -> Option<Agreed> {
    let mut body = message(flight, SERVER_HELLO)?;
    body.u16()?;
    if body.take(32)? == TRY_AGAIN {
        return None;
    }
    body.short()?;
    let mut agreed = Agreed { suite: body.u16()?, group: None, is_resumed: false };
    body.take(1)?;
    let mut extensions = body.long()?;
    while !extensions.0.is_empty() {
        let (kind, mut content) = (extensions.u16()?, extensions.long()?);
        match kind {
            KEY_SHARE => agreed.group = content.u16(),
            PRE_SHARED_KEY => agreed.is_resumed = true,
            _ => {}
        }
    }
    Some(agreed)
}

/// The body of a handshake message of this type (RFC 8446, section 4).
fn message(bytes: &[u8], kind: u8) -> Option<Bytes<'_>> {
    let mut bytes = Bytes(bytes);
    let [found, high, middle, low] = *bytes.take(4)? else { return None };
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    (found == kind).then_some(())?;
    bytes.take(length).map(Bytes)
}

/// What is left to read.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// A vector with a length of one byte.
    fn short(&mut self) -> Option<Self> {
        let [length] = *self.take(1)? else { return None };
        self.take(length.into()).map(Self)
    }

    /// A vector with a length of two bytes.
    fn long(&mut self) -> Option<Self> {
        let length = self.u16()?;
        self.take(length.into()).map(Self)
    }
}

fn numbers(mut bytes: Bytes<'_>) -> Option<Vec<u16>> {
    let mut all = Vec::with_capacity(bytes.0.len() / 2);
    while !bytes.0.is_empty() {
        all.push(bytes.u16()?);
    }
    Some(all)
}

/// Values that mean nothing and keep servers tolerant (RFC 8701).
fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

fn version_text(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        _ => "00",
    }
}

/// First and last letter of the first protocol offered, or of its hexadecimal form.
fn alpn_text(protocol: &[u8]) -> String {
    let (Some(first), Some(last)) = (protocol.first(), protocol.last()) else {
        return "00".to_owned();
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return format!("{}{}", char::from(*first), char::from(*last));
    }
    format!("{:x}{:x}", first >> 4, last & 15)
}

fn list(values: &[u16]) -> String {
    let words: Vec<String> = values.iter().map(|value| format!("{value:04x}")).collect();
    words.join(",")
}

/// The first twelve digits of the SHA-256; zeros for nothing.
fn short_digest(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(12);
    }
    let digest = digest(&SHA256, text.as_bytes());
    hex::lower(digest.as_ref().get(..6).unwrap_or_default())
}

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const PRE_SHARED_KEY: u16 = 41;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;
/// The random of a HelloRetryRequest (RFC 8446, section 4.1.3).
const TRY_AGAIN: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn with_length(bytes: &[u8]) -> Vec<u8> {
        let mut all = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        all.extend_from_slice(bytes);
        all
    }

    fn words(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_be_bytes()).collect()
    }

    fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut all = vec![kind, 0];
        all.extend_from_slice(&with_length(body));
        all
    }

    /// The hello of the browser that the description of JA4 takes apart.
    fn hello() -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(with_length(&words(&[
            0xdada, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013,
            0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
        ])));
        body.extend([1, 0]);
        let mut extensions = Vec::new();
        for kind in [
            0x1a1a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023,
            0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015,
        ] {
            let content = match kind {
                ALPN => with_length(b"\x02h2\x08http/1.1"),
                SIGNATURE_ALGORITHMS => with_length(&words(&[
                    0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601,
                ])),
                SUPPORTED_VERSIONS => [&[6][..], &words(&[0x5a5a, 0x0304, 0x0303])].concat(),
                _ => Vec::new(),
            };
            extensions.extend(words(&[kind]));
            extensions.extend(with_length(&content));
        }
        body.extend(with_length(&extensions));
        handshake(CLIENT_HELLO, &body)
    }

    #[test]
    fn the_example_of_the_description_comes_out() {
        let wanted = "13d1516h2_8daaf6152771_e5627efa2ab1";
        assert_eq!(ja4(&hello(), Transport::Tcp).unwrap(), format!("t{wanted}"));
        assert_eq!(ja4(&hello(), Transport::Quic).unwrap(), format!("q{wanted}"));
        // In two records, with more behind.
        let whole = hello();
        let (one, two) = whole.split_at(100);
        let records =
            [&[22, 3, 1][..], &with_length(one), &[22, 3, 1], &with_length(two), &[20, 3, 3, 0]];
        assert_eq!(unwrap_records(&records.concat()), hello());
    }

    #[test]
    fn what_is_offered_is_told_without_what_means_nothing() {
        let offered = offered(&hello()).unwrap();
        assert_eq!(offered.versions, [0x0304, 0x0303]);
        assert_eq!(offered.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!((offered.suites.len(), offered.suites[0]), (15, 0x1301));
        assert_eq!((offered.extensions.len(), offered.extensions[0]), (16, 0x001b));
        assert_eq!(offered.signature_schemes[..2], [0x0403, 0x0804]);
    }

    #[test]
    fn nonsense_has_no_fingerprint_wherever_it_is_cut() {
        let whole = hello();
        for end in 0..whole.len() {
            assert_eq!(ja4(&whole[..end], Transport::Tcp), None, "{end}");
        }
        assert_eq!(alpn_text(b""), "00");
        assert_eq!(alpn_text(b"\xab\xcd"), "ad");
        assert_eq!(short_digest(""), "000000000000");
    }

    #[test]
    fn what_was_agreed_on_is_read() {
        let answer = |random: &[u8], extensions: &[u8]| {
            let body =
                [&[3, 3], random, &[0, 0x13, 0x02, 0], &with_length(extensions)[..]].concat();
            handshake(SERVER_HELLO, &body)
        };
        let share = [&words(&[KEY_SHARE])[..], &with_length(&words(&[0x11ec, 0]))].concat();
        let psk = [&words(&[PRE_SHARED_KEY])[..], &with_length(&[0, 0])].concat();
        let agreed_now = |extensions: &[u8]| agreed(&answer(&[1; 32], extensions)).unwrap();
        let fresh = Agreed { suite: 0x1302, group: Some(0x11ec), is_resumed: false };
        assert_eq!(agreed_now(&share), fresh);
        assert_eq!(agreed_now(&[share, psk].concat()), Agreed { is_resumed: true, ..fresh });
        assert_eq!(agreed(&answer(&TRY_AGAIN, &[])), None);
        assert_eq!(agreed(b"\x02"), None);
    }
}
