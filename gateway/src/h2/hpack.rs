//! Compression of fields (RFC 7541). What is read becomes the types of `http` once, when it enters the
//! table: a field that is asked for again is a copy of two pointers. What is written refers to the
//! static table alone, so that nothing about a response is held.

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode};

use super::huffman;

/// One field of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `:method`.
    Method(Method),
    /// `:scheme`, when it is `https`; or `http`.
    Scheme(Scheme),
    /// `:authority`.
    Authority(Authority),
    /// `:path`.
    Path(PathAndQuery),
    /// `:protocol` (RFC 8441); whether it is `websocket`.
    Protocol {
        /// Whether it is that.
        is_websocket: bool,
    },
    /// An ordinary one.
    Ordinary(HeaderName, HeaderValue),
    /// One that no request may have; the text says why. It takes its place in the table all the same.
    Malformed(&'static str),
}

/// The schemes that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

/// The block cannot be read: the state that both sides share is lost with it (RFC 9113, section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// Reads the blocks of one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    /// The newest first.
    table: VecDeque<Entry>,
    /// Of all entries, as RFC 7541, section 4.1, counts it.
    bytes: usize,
    /// What the other side has chosen, at most [`TABLE_BYTES`].
    bytes_max: usize,
}

#[derive(Debug)]
struct Entry {
    field: Field,
    /// Whether the name alone may be asked for, and which it is.
    name: Name,
    bytes: usize,
}

/// The name of a field, for a literal that refers to it.
#[derive(Debug, Clone)]
enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Ordinary(HeaderName),
    Malformed(&'static str, usize),
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES }
    }
}

impl Decoder {
    /// The size of the table now (RFC 7541, section 4.1).
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the next field off `block`: the field and its size (RFC 7541, section 4.1). `None` is the
    /// end. `is_first` tells whether no field came before it in the block.
    ///
    /// # Errors
    /// When the block is broken.
    pub fn next(
        &mut self,
        block: &mut &[u8],
        is_first: bool,
    ) -> Result<Option<(Field, usize)>, Broken> {
        loop {
            let Some(&first) = block.first() else { return Ok(None) };
            return match first {
                0x80.. => self.indexed(integer(block, 7)?).map(Some),
                0x40.. => self.literal(block, 6, true).map(Some),
                // A change of the table's size stands before all fields (section 4.2).
                0x20.. if is_first => {
                    let bytes_max = integer(block, 5)?;
                    if bytes_max > TABLE_BYTES {
                        return Err(Broken);
                    }
                    self.bytes_max = bytes_max;
                    self.evict(0);
                    continue;
                }
                0x20.. => Err(Broken),
                _ => self.literal(block, 4, false).map(Some),
            };
        }
    }

    fn indexed(&self, index: usize) -> Result<(Field, usize), Broken> {
        if let Some((name, value)) = STATIC.get(index.wrapping_sub(1)) {
            return Ok((static_field(index, name, value), name.len() + value.len() + OVERHEAD));
        }
        let entry = index.checked_sub(STATIC.len() + 1).and_then(|at| self.table.get(at));
        entry.map(|entry| (entry.field.clone(), entry.bytes)).ok_or(Broken)
    }

    fn literal(
        &mut self,
        block: &mut &[u8],
        prefix: u32,
        is_kept: bool,
    ) -> Result<(Field, usize), Broken> {
        let index = integer(block, prefix)?;
        let (name, name_bytes) = match index {
            0 => with_string(block, |text| (name_of(text), text.len()))?,
            index if index <= STATIC.len() => {
                let (name, _) = STATIC.get(index - 1).ok_or(Broken)?;
                (static_name(index, name), name.len())
            }
            index => {
                let entry = self.table.get(index - STATIC.len() - 1).ok_or(Broken)?;
                let name_bytes = entry.name.bytes();
                (entry.name.clone(), name_bytes)
            }
        };
        let (field, value_bytes) = with_string(block, |text| (field_of(&name, text), text.len()))?;
        let bytes = name_bytes + value_bytes + OVERHEAD;
        if is_kept {
            self.evict(bytes);
            if bytes <= self.bytes_max {
                self.bytes += bytes;
                let entry = Entry { field: field.clone(), name, bytes };
                self.table.push_front(entry);
            }
        }
        Ok((field, bytes))
    }

    /// Makes room for an entry of this size.
    fn evict(&mut self, bytes: usize) {
        while self.bytes + bytes > self.bytes_max {
            let Some(oldest) = self.table.pop_back() else { return };
            self.bytes -= oldest.bytes;
        }
    }
}

impl Name {
    fn bytes(&self) -> usize {
        match self {
            Self::Method => ":method".len(),
            Self::Scheme => ":scheme".len(),
            Self::Authority => ":authority".len(),
            Self::Path => ":path".len(),
            Self::Protocol => ":protocol".len(),
            Self::Ordinary(name) => name.as_str().len(),
            Self::Malformed(_, bytes) => *bytes,
        }
    }
}

fn name_of(text: &[u8]) -> Name {
    match text {
        [b':', ..] => match text {
            b":method" => Name::Method,
            b":scheme" => Name::Scheme,
            b":authority" => Name::Authority,
            b":path" => Name::Path,
            b":protocol" => Name::Protocol,
            _ => Name::Malformed("a pseudo-field that no request has", text.len()),
        },
        _ => match HeaderName::from_lowercase(text) {
            Ok(name) => Name::Ordinary(name),
            Err(_) => Name::Malformed("the name of a field is not valid", text.len()),
        },
    }
}

fn field_of(name: &Name, text: &[u8]) -> Field {
    match name {
        Name::Method => Method::from_bytes(text)
            .map_or(Field::Malformed("the method is not valid"), Field::Method),
        Name::Scheme => match text {
            b"https" => Field::Scheme(Scheme::Https),
            b"http" => Field::Scheme(Scheme::Http),
            _ => Field::Malformed("a scheme that is not served"),
        },
        Name::Authority => Authority::from_maybe_shared(Bytes::copy_from_slice(text))
            .map_or(Field::Malformed("the authority is not valid"), Field::Authority),
        // The parser would drop a fragment, which no request has (RFC 9110, section 7.1).
        Name::Path if text.contains(&b'#') || text.is_empty() => {
            Field::Malformed("the path is not valid")
        }
        Name::Path => PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(text))
            .map_or(Field::Malformed("the path is not valid"), Field::Path),
        Name::Protocol => Field::Protocol { is_websocket: text == b"websocket" },
        Name::Ordinary(name) => match HeaderValue::from_bytes(text) {
            Ok(value) => Field::Ordinary(name.clone(), value),
            Err(_) => Field::Malformed("the value of a field is not valid"),
        },
        Name::Malformed(why, _) => Field::Malformed(why),
    }
}

fn static_name(index: usize, name: &'static str) -> Name {
    match index {
        1 => Name::Authority,
        2 | 3 => Name::Method,
        4 | 5 => Name::Path,
        6 | 7 => Name::Scheme,
        8..=14 => Name::Malformed("a status in a request", name.len()),
        _ => match ORDINARY.get(index - 15) {
            Some(name) => Name::Ordinary(name.clone()),
            None => Name::Malformed("not in the static table", name.len()),
        },
    }
}

fn static_field(index: usize, name: &'static str, value: &'static str) -> Field {
    match index {
        2 => Field::Method(Method::GET),
        3 => Field::Method(Method::POST),
        4 => Field::Path(PathAndQuery::from_static("/")),
        6 => Field::Scheme(Scheme::Http),
        7 => Field::Scheme(Scheme::Https),
        15.. => match ORDINARY.get(index - 15) {
            Some(name) => Field::Ordinary(name.clone(), HeaderValue::from_static(value)),
            None => Field::Malformed("not in the static table"),
        },
        _ => field_of(&static_name(index, name), value.as_bytes()),
    }
}

/// An integer with a prefix of `bits` bits (RFC 7541, section 5.1).
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, Broken> {
    let mask = (1usize << bits) - 1;
    let (first, mut rest) = block.split_first().ok_or(Broken)?;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (byte, after) = rest.split_first().ok_or(Broken)?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            // Nothing that is read here is as large as that.
            if shift > 21 {
                return Err(Broken);
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// Takes a string literal off `block` (RFC 7541, section 5.2) and lets `use_text` at its text.
fn with_string<T>(block: &mut &[u8], use_text: impl FnOnce(&[u8]) -> T) -> Result<T, Broken> {
    let is_coded = block.first().ok_or(Broken)? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Broken)?;
    *block = rest;
    if !is_coded {
        return Ok(use_text(text));
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        huffman::decode(text, scratch).ok_or(Broken)?;
        let used = use_text(scratch);
        if scratch.capacity() > SCRATCH_BYTES_MAX {
            *scratch = Vec::new();
        }
        Ok(used)
    })
}

thread_local! {
    static SCRATCH: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Writes that the table of this direction is empty from here on.
pub fn write_no_table(out: &mut Vec<u8>) {
    out.push(0x20);
}

/// Writes `:status`.
pub fn write_status(out: &mut Vec<u8>, status: StatusCode) {
    let indexed = match status.as_u16() {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => {
            out.extend_from_slice(&[8, 3]);
            return out.extend_from_slice(status.as_str().as_bytes());
        }
    };
    out.push(0x80 | indexed);
}

/// Writes an ordinary field, to be kept in no table.
pub fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    match static_index(name) {
        Some(index) => write_integer(out, 0, 4, index),
        None => {
            out.push(0);
            write_integer(out, 0, 7, name.len());
            out.extend_from_slice(name.as_bytes());
        }
    }
    write_integer(out, 0, 7, value.len());
    out.extend_from_slice(value);
}

fn write_integer(out: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let mask = (1usize << bits) - 1;
    if value < mask {
        return out.push(first | value as u8);
    }
    out.push(first | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The place in the static table of a name that responses have.
fn static_index(name: &str) -> Option<usize> {
    Some(match name {
        "date" => 33,
        "content-type" => 31,
        "content-length" => 28,
        "server" => 54,
        "cache-control" => 24,
        "etag" => 34,
        "last-modified" => 44,
        "set-cookie" => 55,
        "vary" => 59,
        "location" => 46,
        "accept-ranges" => 18,
        "access-control-allow-origin" => 20,
        "age" => 21,
        "allow" => 22,
        "content-disposition" => 25,
        "content-encoding" => 26,
        "content-language" => 27,
        "content-range" => 30,
        "expires" => 36,
        "link" => 45,
        "retry-after" => 53,
        "strict-transport-security" => 56,
        "via" => 60,
        "www-authenticate" => 61,
        _ => return None,
    })
}

/// The size of the table that the other side may fill, which is what every connection begins with.
pub const TABLE_BYTES: usize = 4096;
/// What an entry counts for beside its name and value.
const OVERHEAD: usize = 32;
const SCRATCH_BYTES_MAX: usize = 16 * 1024;

/// The static table (RFC 7541, appendix A); its first entry is 1.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The names of its entries from 15 on.
static ORDINARY: [HeaderName; 47] = [
    header::ACCEPT_CHARSET,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::ACCEPT_RANGES,
    header::ACCEPT,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::AGE,
    header::ALLOW,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::ETAG,
    header::EXPECT,
    header::EXPIRES,
    header::FROM,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::LAST_MODIFIED,
    header::LINK,
    header::LOCATION,
    header::MAX_FORWARDS,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::REFERER,
    header::REFRESH,
    header::RETRY_AFTER,
    header::SERVER,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::TRANSFER_ENCODING,
    header::USER_AGENT,
    header::VARY,
    header::VIA,
    header::WWW_AUTHENTICATE,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
    }

    fn text(field: &Field) -> (String, String) {
        let (name, value) = match field {
            Field::Method(method) => (":method", method.to_string()),
            Field::Scheme(Scheme::Http) => (":scheme", "http".into()),
            Field::Scheme(Scheme::Https) => (":scheme", "https".into()),
            Field::Authority(authority) => (":authority", authority.to_string()),
            Field::Path(path) => (":path", path.to_string()),
            Field::Protocol { is_websocket } => (":protocol", is_websocket.to_string()),
            Field::Ordinary(name, value) => (name.as_str(), value.to_str().unwrap().to_owned()),
            Field::Malformed(why) => ("malformed", (*why).to_owned()),
        };
        (name.to_owned(), value)
    }

    fn all(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Broken> {
        let (mut rest, mut fields) = (block, Vec::new());
        while let Some((field, _)) = decoder.next(&mut rest, fields.is_empty())? {
            fields.push(text(&field));
        }
        Ok(fields)
    }

    /// What the table holds, as the RFC prints it.
    fn table(decoder: &Decoder) -> Vec<(String, String)> {
        decoder.table.iter().map(|entry| text(&entry.field)).collect()
    }

    fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn integers_of_appendix_c_1() {
        for (bytes, bits, value) in
            [(&[0x0a][..], 5, 10), (&[0x1f, 0x9a, 0x0a], 5, 1337), (&[0x2a], 8, 42)]
        {
            assert_eq!(integer(&mut &bytes[..], bits), Ok(value));
            let mut out = Vec::new();
            write_integer(&mut out, 0, bits, value);
            assert_eq!(out, bytes);
        }
        assert_eq!(integer(&mut &[0x1f, 0xff, 0xff, 0xff, 0xff, 1][..], 5), Err(Broken));
        assert_eq!(integer(&mut &[0x1f, 0x80][..], 5), Err(Broken));
    }

    #[test]
    fn literals_of_appendix_c_2() {
        for (block, field, is_kept) in [
            (
                "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
                ("custom-key", "custom-header"),
                true,
            ),
            ("040c 2f73 616d 706c 652f 7061 7468", (":path", "/sample/path"), false),
            ("1008 7061 7373 776f 7264 0673 6563 7265 74", ("password", "secret"), false),
            ("82", (":method", "GET"), false),
        ] {
            let mut decoder = Decoder::default();
            assert_eq!(all(&mut decoder, &hex(block)).unwrap(), pairs(&[field]));
            assert_eq!(decoder.table.len() == 1, is_kept);
            assert_eq!(decoder.bytes, if is_kept { 55 } else { 0 });
        }
    }

    const FIRST: &[(&str, &str)] = &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
    ];
    const THIRD: &[(&str, &str)] = &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ];

    #[test]
    fn requests_of_appendix_c_3_and_c_4() {
        let second = [FIRST, &[("cache-control", "no-cache")]].concat();
        for blocks in [
            [
                "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
                "8286 84be 5808 6e6f 2d63 6163 6865",
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
            ],
            [
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                "8286 84be 5886 a8eb 1064 9cbf",
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ],
        ] {
            let mut decoder = Decoder::default();
            let blocks = blocks.map(hex);
            assert_eq!(all(&mut decoder, &blocks[0]).unwrap(), pairs(FIRST));
            assert_eq!(decoder.bytes, 57);
            assert_eq!(all(&mut decoder, &blocks[1]).unwrap(), pairs(&second));
            assert_eq!(decoder.bytes, 110);
            assert_eq!(all(&mut decoder, &blocks[2]).unwrap(), pairs(THIRD));
            assert_eq!(decoder.bytes, 164);
            let held = [
                ("custom-key", "custom-value"),
                ("cache-control", "no-cache"),
                (":authority", "www.example.com"),
            ];
            assert_eq!(table(&decoder), pairs(&held));
        }
    }

    /// Of responses only the fields; a status is nothing that is read here, but it has its place.
    #[test]
    fn responses_of_appendix_c_5_and_c_6() {
        for blocks in [
            [
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 \
                 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 \
                 6c65 2e63 6f6d",
                "4803 3330 37c1 c0bf",
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d \
                 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 \
                 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e \
                 3d31",
            ],
            [
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
                 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                "4883 640e ffc1 c0bf",
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
                 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
            ],
        ] {
            let mut decoder = Decoder { bytes_max: 256, ..Decoder::default() };
            let status = ("malformed", "a status in a request");
            let date = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
            let place = ("location", "https://www.example.com");
            let private = ("cache-control", "private");
            let blocks = blocks.map(hex);
            let fields = [status, private, date, place];
            assert_eq!(all(&mut decoder, &blocks[0]).unwrap(), pairs(&fields));
            assert_eq!(decoder.bytes, 222);
            assert_eq!(all(&mut decoder, &blocks[1]).unwrap(), pairs(&fields));
            assert_eq!(decoder.bytes, 222);
            let later = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
            let coding = ("content-encoding", "gzip");
            let cookie = ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
            let fields = [status, private, later, place, coding, cookie];
            assert_eq!(all(&mut decoder, &blocks[2]).unwrap(), pairs(&fields));
            assert_eq!(decoder.bytes, 215);
            assert_eq!(table(&decoder), pairs(&[cookie, coding, later]));
        }
    }

    #[test]
    fn the_tables_belong_together() {
        for (at, (name, value)) in STATIC.iter().enumerate() {
            let index = at + 1;
            if let Some(ordinary) = at.checked_sub(14) {
                assert_eq!(ORDINARY[ordinary].as_str(), *name);
            }
            if !(8..=14).contains(&index) && index != 1 {
                let (field, bytes) = Decoder::default().indexed(index).unwrap();
                assert_eq!(text(&field), (name.to_string(), value.to_string()));
                assert_eq!(bytes, name.len() + value.len() + OVERHEAD);
            }
            if let Some(found) = static_index(name) {
                assert_eq!(STATIC[found - 1].0, *name);
            }
        }
    }

    #[test]
    fn broken_blocks_are_told() {
        for block in [
            // Index 0, one beyond the tables, a name beyond them.
            &[0x80][..],
            &[0xbe],
            &[0x7f, 0x00, 0x00],
            // A string that ends early, or in the middle of a code.
            &[0x00, 0x05, b'a'],
            &[0x00, 0x81, 0x00, 0x00],
            &[0x00],
            // A table larger than allowed, and a change of its size after a field.
            &[0x3f, 0xe2, 0x1f],
            &[0x82, 0x20],
        ] {
            assert_eq!(all(&mut Decoder::default(), block), Err(Broken), "{block:x?}");
        }
        assert_eq!(all(&mut Decoder::default(), &[0x3f, 0xe1, 0x1f, 0x20, 0x82]).unwrap().len(), 1);
    }

    #[test]
    fn what_is_written_reads_back() {
        let long = "v".repeat(1000);
        let mut out = Vec::new();
        let fields = [
            ("content-type", "text/plain"),
            ("x-own", "1"),
            ("date", long.as_str()),
            ("via", ""),
            (&long[..300], "x"),
        ];
        for (name, value) in fields {
            write_field(&mut out, name, value.as_bytes());
        }
        let mut decoder = Decoder::default();
        assert_eq!(all(&mut decoder, &out).unwrap(), pairs(&fields));
        assert!(decoder.table.is_empty());
    }

    #[test]
    fn what_is_malformed_has_its_place_all_the_same() {
        let mut block = Vec::new();
        for (name, value) in [("X-Upper", "a"), (":evil", "b"), ("fine", "c")] {
            block.push(0x40);
            for text in [name, value] {
                block.push(text.len() as u8);
                block.extend_from_slice(text.as_bytes());
            }
        }
        block.extend([0xbe, 0xbf, 0xc0]);
        // A name of the table with another value.
        block.extend([0x7e, 1, b'd']);
        let mut decoder = Decoder::default();
        let fields = all(&mut decoder, &block).unwrap();
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[2..6], ["fine", "fine", "malformed", "malformed"]);
        assert_eq!(decoder.bytes, 3 * 32 + 8 + 6 + 5 + 32 + 5);
    }
}
