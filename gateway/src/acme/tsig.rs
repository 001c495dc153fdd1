//! Messages of DNS UPDATE (RFC 2136) as bytes, and their transaction signatures (TSIG, RFC 8945).
//! Pure: time and id are given. Called by [`super::solve::rfc2136`].

use aws_lc_rs::hmac;

use crate::config::TsigAlgorithm;

/// What happens to one TXT value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// It is added, with a TTL in seconds; one that is there stays.
    Add(&'a str, u32),
    /// It is removed; one that is not there is no matter.
    Remove(&'a str),
}

/// An UPDATE of TXT values at `name` in `zone` (RFC 2136, section 2). None when a name or a value
/// cannot be written.
pub fn update(id: u16, zone: &str, name: &str, changes: &[Change<'_>]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    let count = u16::try_from(changes.len()).ok()?;
    // QR 0, opcode 5; one zone, no prerequisites, `count` updates, nothing additional.
    for word in [id, 5 << 11, 1, 0, count, 0] {
        message.extend_from_slice(&word.to_be_bytes());
    }
    write_name(&mut message, zone)?;
    message.extend_from_slice(&[TYPE_SOA, CLASS_IN].concat());
    for change in changes {
        let (value, class, ttl) = match change {
            Change::Add(value, ttl) => (value, CLASS_IN, *ttl),
            Change::Remove(value) => (value, CLASS_NONE, 0),
        };
        write_name(&mut message, name)?;
        message.extend_from_slice(&[TYPE_TXT, class].concat());
        message.extend_from_slice(&ttl.to_be_bytes());
        let mut text = Vec::new();
        for part in value.as_bytes().chunks(255) {
            text.push(u8::try_from(part.len()).ok()?);
            text.extend_from_slice(part);
        }
        message.extend_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
        message.extend_from_slice(&text);
    }
    Some(message)
}

/// A key that both sides have.
pub struct Key<'a> {
    /// Its name on the server.
    pub name: &'a str,
    /// How it is used.
    pub algorithm: TsigAlgorithm,
    /// The key itself.
    pub secret: &'a [u8],
}

impl Key<'_> {
    /// Signs a message in place; returns the signature, which is part of that of the answer. None when
    /// the key's name cannot be written.
    pub fn sign(&self, message: &mut Vec<u8>, now: u64) -> Option<Vec<u8>> {
        let original = message.get(..2)?.to_vec();
        let mac = self.mac(&[message], &self.variables(now, FUDGE_SECONDS, 0, &[])?);
        let mut data = Vec::new();
        write_name(&mut data, self.algorithm.name())?;
        write_time(&mut data, now, FUDGE_SECONDS);
        data.extend_from_slice(&u16::try_from(mac.len()).ok()?.to_be_bytes());
        data.extend_from_slice(&mac);
        data.extend_from_slice(&original);
        // No error, nothing else.
        data.extend_from_slice(&[0; 4]);
        write_name(message, self.name)?;
        message.extend_from_slice(&[TYPE_TSIG, CLASS_ANY].concat());
        message.extend_from_slice(&0_u32.to_be_bytes());
        message.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        message.extend_from_slice(&data);
        set_additional(message, 1)?;
        Some(mac)
    }

    /// Checks the signature of an answer to a message that was signed with `request`.
    pub fn check(&self, answer: &[u8], request: &[u8], now: u64) -> Signed {
        let Some(found) = Found::read(answer) else { return Signed::Not };
        if found.error != 0 && found.mac.is_empty() {
            return Signed::Refused(found.error);
        }
        let variables = self.variables(found.time, found.fudge, found.error, found.other);
        let (Some(variables), Ok(length)) = (variables, u16::try_from(request.len())) else {
            return Signed::Not;
        };
        let mut bare = answer.get(..found.start).unwrap_or_default().to_vec();
        if let Some(id) = bare.get_mut(..2) {
            id.copy_from_slice(&found.original_id);
        }
        let count = found.additional.saturating_sub(1);
        if set_additional(&mut bare, count).is_none() {
            return Signed::Not;
        }
        let length = length.to_be_bytes();
        let parts = [&length[..], request, &bare, &variables].concat();
        let key = hmac::Key::new(algorithm(self.algorithm), self.secret);
        let is_whole = hmac::verify(&key, &parts, found.mac).is_ok();
        if !is_whole {
            return Signed::Not;
        }
        if found.error != 0 {
            return Signed::Refused(found.error);
        }
        match now.abs_diff(found.time) <= u64::from(found.fudge) {
            true => Signed::Well,
            false => Signed::Refused(BADTIME),
        }
    }

    fn mac(&self, parts: &[&[u8]], variables: &[u8]) -> Vec<u8> {
        let key = hmac::Key::new(algorithm(self.algorithm), self.secret);
        let mut context = hmac::Context::with_key(&key);
        parts.iter().for_each(|part| context.update(part));
        context.update(variables);
        context.sign().as_ref().to_vec()
    }

    /// RFC 8945, section 4.3.3.
    fn variables(&self, time: u64, fudge: u16, error: u16, other: &[u8]) -> Option<Vec<u8>> {
        let mut variables = Vec::new();
        write_name(&mut variables, self.name)?;
        variables.extend_from_slice(&CLASS_ANY);
        variables.extend_from_slice(&0_u32.to_be_bytes());
        write_name(&mut variables, self.algorithm.name())?;
        write_time(&mut variables, time, fudge);
        variables.extend_from_slice(&error.to_be_bytes());
        variables.extend_from_slice(&u16::try_from(other.len()).ok()?.to_be_bytes());
        variables.extend_from_slice(other);
        Some(variables)
    }
}

/// What the signature of an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// It is the server's, and fresh.
    Well,
    /// The server did not take ours: BADSIG (16), BADKEY (17), BADTIME (18), BADTRUNC (22).
    Refused(u16),
    /// There is none, or not of this key.
    Not,
}

/// The id and the code (RFC 2136, section 2.2) of an answer to an UPDATE; none when it is no such.
pub fn code(answer: &[u8], id: u16) -> Option<u16> {
    let flags = word(answer, 2)?;
    let is_answer = flags & 0x8000 != 0 && (flags >> 11) & 15 == 5;
    (word(answer, 0)? == id && is_answer).then_some(flags & 15)
}

/// The signature record of an answer, which is its last.
struct Found<'a> {
    /// Where the record starts.
    start: usize,
    additional: u16,
    time: u64,
    fudge: u16,
    mac: &'a [u8],
    original_id: [u8; 2],
    error: u16,
    other: &'a [u8],
}

impl<'a> Found<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let mut at = 12;
        for _ in 0..word(message, 4)? {
            at = skip_name(message, at)?.checked_add(4)?;
        }
        let additional = word(message, 10)?;
        let all = [word(message, 6)?, word(message, 8)?, additional];
        let count: u32 = all.iter().map(|count| u32::from(*count)).sum();
        let mut last = None;
        for _ in 0..count {
            let data = skip_name(message, at)?.checked_add(10)?;
            let length = usize::from(word(message, data.checked_sub(2)?)?);
            last = Some((at, data, length));
            at = data.checked_add(length)?;
        }
        let (start, data, length) = last.filter(|_| additional > 0)?;
        if message.get(data.checked_sub(10)?..)?.get(..2)? != TYPE_TSIG {
            return None;
        }
        let record = message.get(..data.checked_add(length)?)?;
        let at = skip_name(record, data)?;
        let [t0, t1, t2, t3, t4, t5] = *record.get(at..)?.first_chunk::<6>()?;
        let mac_length = usize::from(word(record, at.checked_add(8)?)?);
        let mac_at = at.checked_add(10)?;
        let after = mac_at.checked_add(mac_length)?;
        let other_length = usize::from(word(record, after.checked_add(4)?)?);
        Some(Self {
            start,
            additional,
            time: u64::from_be_bytes([0, 0, t0, t1, t2, t3, t4, t5]),
            fudge: word(record, at.checked_add(6)?)?,
            mac: record.get(mac_at..after)?,
            original_id: *record.get(after..)?.first_chunk::<2>()?,
            error: word(record, after.checked_add(2)?)?,
            other: record.get(after.checked_add(6)?..)?.get(..other_length)?,
        })
    }
}

/// Behind a name, which may end in a pointer (RFC 1035, section 4.1.4).
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match message.get(at)? {
            0 => return at.checked_add(1),
            length @ 1..64 => at = at.checked_add(usize::from(*length))?.checked_add(1)?,
            192.. => return at.checked_add(2),
            _ => return None,
        }
    }
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..)?.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes))
}

fn set_additional(message: &mut [u8], count: u16) -> Option<()> {
    message.get_mut(10..12)?.copy_from_slice(&count.to_be_bytes());
    Some(())
}

/// A name in lower case, uncompressed.
fn write_name(into: &mut Vec<u8>, name: &str) -> Option<()> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let start = into.len();
    for label in name.split('.').filter(|_| !name.is_empty()) {
        if label.is_empty() || label.len() > 63 || !label.is_ascii() {
            return None;
        }
        into.push(u8::try_from(label.len()).ok()?);
        into.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    into.push(0);
    (into.len().saturating_sub(start) <= 255).then_some(())
}

fn write_time(into: &mut Vec<u8>, time: u64, fudge: u16) {
    into.extend_from_slice(time.to_be_bytes().get(2..).unwrap_or_default());
    into.extend_from_slice(&fudge.to_be_bytes());
}

fn algorithm(algorithm: TsigAlgorithm) -> hmac::Algorithm {
    match algorithm {
        TsigAlgorithm::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        TsigAlgorithm::HmacSha256 => hmac::HMAC_SHA256,
        TsigAlgorithm::HmacSha384 => hmac::HMAC_SHA384,
        TsigAlgorithm::HmacSha512 => hmac::HMAC_SHA512,
    }
}

const TYPE_SOA: [u8; 2] = [0, 6];
const TYPE_TXT: [u8; 2] = [0, 16];
const TYPE_TSIG: [u8; 2] = [0, 250];
const CLASS_IN: [u8; 2] = [0, 1];
const CLASS_NONE: [u8; 2] = [0, 254];
const CLASS_ANY: [u8; 2] = [0, 255];
/// How far the clocks may be apart (RFC 8945, section 10).
const FUDGE_SECONDS: u16 = 300;
/// RFC 8945, section 3.
pub const BADTIME: u16 = 18;

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Message;
    use hickory_proto::rr::RecordType;

    fn key() -> Key<'static> {
        Key { name: "acme.", algorithm: TsigAlgorithm::HmacSha256, secret: b"0123456789abcdef" }
    }

    fn message() -> Vec<u8> {
        let long = "x".repeat(300);
        let changes = [Change::Add("one", 60), Change::Remove(&long)];
        update(7, "Example.com.", "_acme-challenge.example.com", &changes).unwrap()
    }

    #[test]
    fn an_update_is_one_that_others_read() {
        let read = Message::from_vec(&message()).unwrap();
        assert_eq!(read.metadata.id, 7);
        assert_eq!(read.queries[0].name().to_string(), "example.com.");
        let [add, remove] = &read.authorities[..] else { panic!("{read:?}") };
        assert_eq!((add.ttl, add.record_type()), (60, RecordType::TXT));
        assert_eq!((remove.ttl, u16::from(remove.dns_class)), (0, 254));
        assert!(update(7, "a..b", "x.a", &[]).is_none());
        assert!(update(7, "é", "x", &[]).is_none());
        assert!(update(7, &"a".repeat(64), "x", &[]).is_none());
    }

    #[test]
    fn a_signature_is_found_and_checked() {
        let mut sent = message();
        let mac = key().sign(&mut sent, 1_000_000).unwrap();
        let found = Found::read(&sent).unwrap();
        assert_eq!((found.time, found.fudge, found.mac), (1_000_000, 300, &mac[..]));
        // An answer signed as a server does: with the signature of the request in front.
        let answer = |error: u16, time: u64| {
            let mut answer = message();
            answer[2] = 0xa8;
            let length = u16::try_from(mac.len()).unwrap().to_be_bytes();
            let variables = key().variables(time, 300, error, &[]).unwrap();
            let own = key().mac(&[&length, &mac, &answer], &variables);
            key().sign(&mut answer, time).unwrap();
            let end = answer.len();
            answer[end - 6 - own.len()..end - 6].copy_from_slice(&own);
            answer[end - 4..end - 2].copy_from_slice(&error.to_be_bytes());
            answer
        };
        let good = answer(0, 1_000_100);
        assert_eq!(key().check(&good, &mac, 1_000_000), Signed::Well);
        assert_eq!(key().check(&good, &mac, 2_000_000), Signed::Refused(BADTIME));
        assert_eq!(key().check(&answer(18, 1_000_100), &mac, 1_000_000), Signed::Refused(18));
        assert_eq!(key().check(&good, b"another request", 1_000_000), Signed::Not);
        let mut changed = good.clone();
        changed[3] = 5;
        assert_eq!(key().check(&changed, &mac, 1_000_000), Signed::Not);
        for end in 0..good.len() {
            assert_eq!(key().check(&good[..end], &mac, 1_000_000), Signed::Not, "{end}");
        }
        assert_eq!(code(&good, 7), Some(0));
        assert_eq!(code(&good, 8), None);
        assert_eq!(code(&message(), 7), None);
    }
}
