//! Compression of responses: which coding a client gets (RFC 9110, section 12.5.3), which responses are
//! worth it, and the encoders that [`crate::http::body`] drives piece by piece.

use std::io::{self, Write as _};

use flate2::write::GzEncoder;
use http::StatusCode;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
};

use crate::config::policies::{Coding, Compress};

/// The coding that a client likes best of `offered`, which stand in our order; `None` when it would
/// rather have none, or says nothing.
pub fn negotiate(offered: &[Coding], fields: &HeaderMap) -> Option<Coding> {
    ranked(offered, fields).first().copied()
}

/// The codings of `offered` that a client takes, best first.
pub fn ranked(offered: &[Coding], fields: &HeaderMap) -> Vec<Coding> {
    let mut named: Vec<(&str, u16)> = Vec::new();
    for value in fields.get_all(ACCEPT_ENCODING) {
        let Ok(text) = value.to_str() else { continue };
        for part in text.split(',') {
            let mut parts = part.split(';');
            let name = parts.next().unwrap_or_default().trim();
            let quality = parts.find_map(|p| p.trim().strip_prefix(['q', 'Q'])?.strip_prefix('='));
            let quality = quality.map_or(1000, thousandths);
            if !name.is_empty() && named.len() < NAMES_MAX {
                named.push((name, quality));
            }
        }
    }
    let of = |name: &str| named.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, q)| *q);
    let identity = of("identity").unwrap_or(0);
    let quality = |coding: Coding| {
        let alias = if coding == Coding::Gzip { of("x-gzip") } else { None };
        of(coding.name()).or(alias).or(of("*")).unwrap_or(0)
    };
    let mut taken: Vec<(Coding, u16)> = offered.iter().map(|c| (*c, quality(*c))).collect();
    taken.retain(|(_, quality)| *quality > 0 && *quality >= identity);
    // Stable: what is liked the same stays in our order.
    taken.sort_by_key(|(_, quality)| std::cmp::Reverse(*quality));
    taken.into_iter().map(|(coding, _)| coding).collect()
}

/// A weight from 0 to 1 in thousandths; what is no weight counts as 0.
fn thousandths(text: &str) -> u16 {
    let text = text.trim();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|c| c.is_ascii_digit()) {
        return 0;
    }
    let part: u16 = format!("{part:0<3}").parse().unwrap_or(0);
    match whole {
        "0" => part,
        "1" if part == 0 => 1000,
        _ => 0,
    }
}

/// Makes the head that of a compressed response when it is one that should be. `bytes` is the length of
/// the body, where it is known; `accepted` is what the client gets.
pub(super) fn apply(
    policy: &Compress,
    accepted: Option<Coding>,
    status: StatusCode,
    fields: &mut HeaderMap,
    bytes: Option<u64>,
) -> Option<Coding> {
    if !is_suitable(policy, status, fields, bytes) {
        return None;
    }
    super::add_vary(fields, "accept-encoding");
    let coding = accepted?;
    fields.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    for name in [CONTENT_LENGTH, ACCEPT_RANGES, CONTENT_DIGEST, REPR_DIGEST, CONTENT_MD5] {
        fields.remove(name);
    }
    // Other bytes than those that the tag was made for, but the same meaning.
    if let Some(tag) = fields.get(ETAG)
        && !tag.as_bytes().starts_with(b"W/")
    {
        match HeaderValue::from_bytes(&[b"W/".as_slice(), tag.as_bytes()].concat()) {
            Ok(weak) => fields.insert(ETAG, weak),
            Err(_) => fields.remove(ETAG),
        };
    }
    Some(coding)
}

fn is_suitable(
    policy: &Compress,
    status: StatusCode,
    fields: &HeaderMap,
    bytes: Option<u64>,
) -> bool {
    let has_body = !status.is_informational()
        && !matches!(
            status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT
        );
    let length = fields.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let is_large = length.or(bytes).is_none_or(|bytes: u64| bytes >= policy.bytes_min);
    let text = |name| fields.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    let is_fixed = fields.get_all(CACHE_CONTROL).iter().any(|value| {
        let directives = value.to_str().unwrap_or_default().split(',');
        directives.map(str::trim).any(|d| d.eq_ignore_ascii_case("no-transform"))
    });
    let is_encoded = fields.contains_key(CONTENT_ENCODING) || fields.contains_key(CONTENT_RANGE);
    let media = text(CONTENT_TYPE).unwrap_or_default();
    has_body && is_large && !is_fixed && !is_encoded && is_listed(&policy.types, media)
}

/// Whether a media type is one of the list, whose entries may say `text/*` or `*/*+json`.
fn is_listed(types: &[String], media: &str) -> bool {
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((kind, name)) = media.split_once('/') else { return false };
    let takes = |pattern: &str, part: &str| match pattern.strip_prefix('*') {
        Some(end) => part.ends_with(end),
        None => pattern == part,
    };
    types.iter().filter_map(|t| t.split_once('/')).any(|(k, n)| takes(k, kind) && takes(n, name))
}

/// An encoder that is given pieces and gives pieces.
pub enum Encoder {
    /// RFC 1952.
    Gzip(Box<GzEncoder<Vec<u8>>>),
    /// RFC 7932.
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    /// RFC 8878.
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
}

impl Encoder {
    /// An encoder whose memory is bounded by small windows: a gateway has many at once.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => {
                let level = flate2::Compression::new(GZIP_LEVEL);
                Self::Gzip(Box::new(GzEncoder::new(Vec::new(), level)))
            }
            Coding::Brotli => {
                let writer = brotli::CompressorWriter::new(
                    Vec::new(),
                    BROTLI_BUFFER_BYTES,
                    BROTLI_QUALITY,
                    WINDOW_LOG,
                );
                Self::Brotli(Box::new(writer))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(WINDOW_LOG)?;
                Self::Zstd(Box::new(encoder))
            }
        })
    }

    /// Takes a piece in.
    ///
    /// # Errors
    /// When the encoder fails, after which it is of no use.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(piece),
            Self::Brotli(encoder) => encoder.write_all(piece),
            Self::Zstd(encoder) => encoder.write_all(piece),
        }
    }

    /// Brings out all that was taken in, at some cost in size.
    ///
    /// # Errors
    /// When the encoder fails, after which it is of no use.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }

    /// How many bytes are there to take.
    pub fn ready(&self) -> usize {
        match self {
            Self::Gzip(encoder) => encoder.get_ref().len(),
            Self::Brotli(encoder) => encoder.get_ref().len(),
            Self::Zstd(encoder) => encoder.get_ref().len(),
        }
    }

    /// Takes what is there.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        })
    }

    /// Ends the stream and gives the rest.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// 256 KiB: good for text, and a hundred streams of one connection cost tens of megabytes at most.
const WINDOW_LOG: u32 = 18;
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
const BROTLI_BUFFER_BYTES: usize = 4096;
const ZSTD_LEVEL: i32 = 3;
/// More names in one request are not looked at.
const NAMES_MAX: usize = 32;
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[Coding] = &[Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn the_client_chooses_and_our_order_breaks_ties() {
        for (accept, want) in [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, deflate, br", Some(Coding::Brotli)),
            ("GZIP", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("gzip;q=1.0, br;q=0.8", Some(Coding::Gzip)),
            ("gzip;q=0, *", Some(Coding::Zstd)),
            ("*;q=0, gzip;q=0.001", Some(Coding::Gzip)),
            ("zstd;q=0,br;q=0,gzip;q=0", None),
            ("*;q=0", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip", Some(Coding::Gzip)),
            ("identity;q=0", None),
            ("deflate", None),
            ("gzip;q=2", None),
            ("gzip;q=0.9999", None),
            ("gzip; Q=0.5 ", Some(Coding::Gzip)),
            ("", None),
            (",;,;q=1,", None),
        ] {
            assert_eq!(negotiate(ALL, &fields(&[("accept-encoding", accept)])), want, "{accept}");
        }
        assert_eq!(negotiate(ALL, &HeaderMap::new()), None);
        let all = fields(&[("accept-encoding", "gzip, br;q=0.5, zstd;q=0.7")]);
        assert_eq!(ranked(ALL, &all), [Coding::Gzip, Coding::Zstd, Coding::Brotli]);
    }

    fn policy() -> Compress {
        Compress {
            codings: ALL.to_vec(),
            types: ["text/*", "application/json", "*/*+json"].map(String::from).to_vec(),
            bytes_min: 1024,
        }
    }

    #[test]
    fn only_what_gains_is_compressed() {
        let html = ("content-type", "text/html; charset=utf-8");
        for (status, pairs, bytes, is_compressed) in [
            (200, vec![html], Some(5000), true),
            (404, vec![html], None, true),
            (200, vec![("content-type", "application/problem+JSON")], None, true),
            (200, vec![("content-type", "image/png")], None, false),
            (200, vec![("content-type", "nonsense")], None, false),
            (200, vec![], None, false),
            (200, vec![html], Some(1023), false),
            (200, vec![html, ("content-length", "1023")], None, false),
            (206, vec![html], None, false),
            (204, vec![html], None, false),
            (304, vec![html], None, false),
            (200, vec![html, ("content-range", "bytes 0-1/2")], None, false),
            (200, vec![html, ("content-encoding", "br")], None, false),
            (200, vec![html, ("cache-control", "public, No-Transform")], None, false),
        ] {
            let mut fields = fields(&pairs);
            let status = StatusCode::from_u16(status).unwrap();
            let coding = apply(&policy(), Some(Coding::Gzip), status, &mut fields, bytes);
            assert_eq!(coding.is_some(), is_compressed, "{status} {pairs:?}");
            assert_eq!(fields.contains_key("vary"), is_compressed, "{pairs:?}");
        }
    }

    #[test]
    fn the_head_tells_what_became_of_the_body() {
        let mut head = fields(&[
            ("content-type", "text/css"),
            ("content-length", "5000"),
            ("accept-ranges", "bytes"),
            ("etag", "\"abc\""),
            ("content-digest", "sha-256=:x:"),
        ]);
        let unaccepted = apply(&policy(), None, StatusCode::OK, &mut head, None);
        assert_eq!((unaccepted, &head["etag"]), (None, &HeaderValue::from_static("\"abc\"")));
        // Also the answer without compression depends on the field.
        assert_eq!(head["vary"], "accept-encoding");
        assert!(apply(&policy(), Some(Coding::Zstd), StatusCode::OK, &mut head, None).is_some());
        assert_eq!(head["content-encoding"], "zstd");
        assert_eq!(head["etag"], "W/\"abc\"");
        for gone in ["content-length", "accept-ranges", "content-digest"] {
            assert!(!head.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn what_was_flushed_can_be_read_before_the_end() {
        use std::io::Read as _;
        let text = "data: a line of an event stream\n\n".repeat(100);
        for coding in ALL {
            let mut encoder = Encoder::new(*coding).unwrap();
            encoder.write(text.as_bytes()).unwrap();
            encoder.flush().unwrap();
            let mut out = encoder.take();
            let mut early = vec![0; text.len()];
            let stream: &[u8] = &out;
            match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(stream).read_exact(&mut early),
                Coding::Brotli => brotli::Decompressor::new(stream, 4096).read_exact(&mut early),
                Coding::Zstd => {
                    zstd::stream::read::Decoder::new(stream).unwrap().read_exact(&mut early)
                }
            }
            .unwrap();
            assert_eq!(early, text.as_bytes(), "{coding:?}");
            encoder.write(b"end").unwrap();
            out.extend(encoder.finish().unwrap());
            let mut whole = Vec::new();
            let stream: &[u8] = &out;
            match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(stream).read_to_end(&mut whole),
                Coding::Brotli => brotli::Decompressor::new(stream, 4096).read_to_end(&mut whole),
                Coding::Zstd => {
                    zstd::stream::read::Decoder::new(stream).unwrap().read_to_end(&mut whole)
                }
            }
            .unwrap();
            assert_eq!(whole, format!("{text}end").as_bytes(), "{coding:?}");
            assert!(out.len() < text.len() / 4, "{coding:?}: {}", out.len());
        }
    }
}
