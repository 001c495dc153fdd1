//! A plugin's secrets: read here, put in place of placeholders here, masked here. They never enter
//! the sandbox and never reach a log. Pure but for reading them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{
    GeneralPurpose, STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD,
};

use crate::config::{Secret, SecretRef, SecretText};

/// The secrets of one plugin.
#[derive(Default)]
pub(super) struct Secrets {
    secrets: BTreeMap<String, Held>,
    /// What must not get out, and what stands for it; the longest first, so that no part of a
    /// secret is left when one contains another.
    masks: Vec<(Vec<u8>, String)>,
}

struct Held {
    text: SecretText,
    /// Hosts it may go to; empty means every granted one.
    hosts: Vec<String>,
}

/// Where a placeholder stands, and so how its secret is written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A field value: as it is.
    Header,
    /// The query of a URL: percent-encoded.
    Query,
    /// A form body: percent-encoded.
    Form,
    /// A JSON body: escaped as inside a JSON string.
    Json,
    /// Any other body: as it is.
    Raw,
}

/// Why a placeholder cannot be filled in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfilled {
    /// There is no secret of this name in the stanza.
    Unknown(String),
    /// The secret may not go to this host.
    Elsewhere(String),
    /// The placeholder is malformed, or the secret cannot stand in this place.
    Malformed(String),
}

impl Secrets {
    /// Reads all secrets of a stanza. The error names the secret.
    pub(super) fn read(
        from: &BTreeMap<String, Secret>,
    ) -> Result<Self, (String, SecretRef, std::io::Error)> {
        let mut secrets = BTreeMap::new();
        for (name, secret) in from {
            let text = read(&secret.source)
                .map_err(|cause| (name.clone(), secret.source.clone(), cause))?;
            secrets.insert(name.clone(), Held { text, hosts: secret.hosts.clone() });
        }
        let mut masks = Vec::new();
        for (name, held) in &secrets {
            mask_forms(name, held.text.expose(), &mut masks);
        }
        masks.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        masks.dedup_by(|(a, _), (b, _)| a == b);
        Ok(Self { secrets, masks })
    }

    /// The secret called `name`, for use as a key inside the host.
    pub(super) fn expose(&self, name: &str) -> Option<&str> {
        self.secrets.get(name).map(|held| held.text.expose())
    }

    /// Fills in every placeholder of `text` for a request to `host`. `also_masked` gets what the
    /// filling made (Basic credentials) and must not come back either.
    pub(super) fn fill<'t>(
        &self,
        text: &'t [u8],
        place: Place,
        host: &str,
        also_masked: &mut Vec<(Vec<u8>, String)>,
    ) -> Result<Cow<'t, [u8]>, Unfilled> {
        let mut rest = text;
        let mut filled = Vec::new();
        while let Some(start) = find(rest, b"{{") {
            let (before, from) = rest.split_at(start);
            let is_secret = from.starts_with(SECRET);
            if !is_secret && !from.starts_with(BASIC) {
                // Two braces that are none of ours, as in JSON.
                let (braces, after) = from.split_at(1);
                filled.extend_from_slice(before);
                filled.extend_from_slice(braces);
                rest = after;
                continue;
            }
            let Some(end) = end_of(from) else {
                return Err(Unfilled::Malformed("a placeholder has no closing }}".to_owned()));
            };
            let (placeholder, after) = from.split_at(end);
            filled.extend_from_slice(before);
            let placeholder = std::str::from_utf8(placeholder)
                .map_err(|_| Unfilled::Malformed("a placeholder is not UTF-8".to_owned()))?;
            if is_secret {
                let name = inner(placeholder, SECRET.len());
                let text = self.secret(name, host)?;
                escape(text, place, name, &mut filled)?;
            } else if place == Place::Header {
                let basic = self.basic(inner(placeholder, BASIC.len()), host)?;
                also_masked.push((basic.clone().into_bytes(), "[secret:basic]".to_owned()));
                filled.extend_from_slice(b"Basic ");
                filled.extend_from_slice(basic.as_bytes());
            } else {
                return Err(Unfilled::Malformed(
                    "{{basic:…}} can only stand in a field value".to_owned(),
                ));
            }
            rest = after;
        }
        if filled.is_empty() {
            return Ok(Cow::Borrowed(text));
        }
        filled.extend_from_slice(rest);
        Ok(Cow::Owned(filled))
    }

    /// Masks every secret in `bytes`, in every form it is known to take, and `also` beside them.
    pub(super) fn mask<'b>(&self, bytes: &'b [u8], also: &[(Vec<u8>, String)]) -> Cow<'b, [u8]> {
        let mut bytes = Cow::Borrowed(bytes);
        for (needle, stands_for) in also.iter().chain(&self.masks) {
            if let Some(first) = find(&bytes, needle) {
                bytes = Cow::Owned(replace(&bytes, needle, stands_for.as_bytes(), first));
            }
        }
        bytes
    }

    /// As [`Self::mask`], for text.
    pub(super) fn mask_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.mask(text.as_bytes(), &[]) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // Masks and what they stand for are whole UTF-8 texts, so the rest is too.
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// The length of the longest mask: how far from a cut a piece of a secret can reach.
    pub(super) fn longest(&self) -> usize {
        self.masks.first().map_or(0, |(needle, _)| needle.len())
    }

    fn secret(&self, name: &str, host: &str) -> Result<&str, Unfilled> {
        let held = self.secrets.get(name).ok_or_else(|| Unfilled::Unknown(name.to_owned()))?;
        let is_allowed = held.hosts.is_empty()
            || held.hosts.iter().any(|allowed| super::grant::host_covers(allowed, host));
        if is_allowed { Ok(held.text.expose()) } else { Err(Unfilled::Elsewhere(name.to_owned())) }
    }

    /// `USER:NAME` or `{{secret:A}}:NAME` as Basic credentials (RFC 7617), without the scheme.
    fn basic(&self, of: &str, host: &str) -> Result<String, Unfilled> {
        let malformed = || Unfilled::Malformed("expected {{basic:USER:NAME}}".to_owned());
        let (user, name) = of.rsplit_once(':').ok_or_else(malformed)?;
        let user = match user.strip_prefix("{{secret:").and_then(|user| user.strip_suffix("}}")) {
            Some(name) => self.secret(name, host)?,
            None if user.contains(':') => return Err(malformed()),
            None => user,
        };
        Ok(STANDARD.encode(format!("{user}:{}", self.secret(name, host)?)))
    }
}

/// Reads one secret; a final newline of a file is dropped.
fn read(from: &SecretRef) -> std::io::Result<SecretText> {
    let invalid = |text: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, text);
    let text = match from {
        SecretRef::Env(name) => match std::env::var(name) {
            Ok(text) => text,
            Err(std::env::VarError::NotPresent) => {
                return Err(std::io::Error::new(std::io::ErrorKind::NotFound, "it is not set"));
            }
            Err(std::env::VarError::NotUnicode(_)) => return Err(invalid("it is not UTF-8")),
        },
        SecretRef::File(path) => std::fs::read_to_string(path)?,
        SecretRef::Credential(name) => {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                std::io::Error::new(
                    std::io::ErrorKind::NotFound,
                    "CREDENTIALS_DIRECTORY is not set: the unit has no LoadCredential=",
                )
            })?;
            std::fs::read_to_string(std::path::Path::new(&folder).join(name))?
        }
        SecretRef::Inline(text) => text.expose().to_owned(),
    };
    let text = text
        .strip_suffix('\n')
        .map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() {
        return Err(invalid("it is empty"));
    }
    Ok(SecretText::new(text.to_owned()))
}

/// All forms in which a secret may come back.
fn mask_forms(name: &str, secret: &str, masks: &mut Vec<(Vec<u8>, String)>) {
    // One or two bytes would mask half of every answer and are no secret anyway.
    if secret.len() < 3 {
        return;
    }
    let stands_for = format!("[secret:{name}]");
    let mut forms: Vec<Vec<u8>> = vec![secret.as_bytes().to_vec()];
    for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        forms.push(engine.encode(secret).into_bytes());
    }
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        forms.extend((0..3).filter_map(|before| inside_base64(secret, before, engine)));
    }
    for is_upper in [true, false] {
        let mut form = Vec::new();
        percent(secret, is_upper, &mut form);
        forms.push(form);
        forms.push(secret.bytes().flat_map(|byte| hex(byte, is_upper)).collect());
    }
    let mut json = Vec::new();
    json_escape(secret, &mut json);
    // Many writers escape the slash too.
    forms.push(String::from_utf8_lossy(&json).replace('/', "\\/").into_bytes());
    forms.push(json);
    masks.extend(forms.into_iter().map(|form| (form, stands_for.clone())));
}

/// What of a secret can be seen in the Base64 of a longer text, in which it starts `before` bytes
/// after a multiple of three: all characters but those that its neighbours share.
fn inside_base64(secret: &str, before: usize, engine: &GeneralPurpose) -> Option<Vec<u8>> {
    let mut text = vec![0; before];
    text.extend_from_slice(secret.as_bytes());
    let encoded = engine.encode(&text).into_bytes();
    let start = before.saturating_mul(8).div_ceil(6);
    let is_shared = !text.len().is_multiple_of(3);
    let end = encoded.len().saturating_sub(usize::from(is_shared));
    encoded.get(start..end).filter(|inside| inside.len() >= 6).map(<[u8]>::to_vec)
}

fn escape(text: &str, place: Place, name: &str, into: &mut Vec<u8>) -> Result<(), Unfilled> {
    match place {
        Place::Header => {
            if http::HeaderValue::from_str(text).is_err() {
                return Err(Unfilled::Malformed(format!(
                    "the secret {name} has characters that no field value may have"
                )));
            }
            into.extend_from_slice(text.as_bytes());
        }
        Place::Query | Place::Form => percent(text, true, into),
        Place::Json => json_escape(text, into),
        Place::Raw => into.extend_from_slice(text.as_bytes()),
    }
    Ok(())
}

fn percent(text: &str, is_upper: bool, into: &mut Vec<u8>) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            into.push(byte);
        } else {
            into.push(b'%');
            into.extend(hex(byte, is_upper));
        }
    }
}

fn hex(byte: u8, is_upper: bool) -> [u8; 2] {
    let digit = |value: u8| match value {
        0..=9 => b'0'.saturating_add(value),
        _ if is_upper => b'A'.saturating_add(value.saturating_sub(10)),
        _ => b'a'.saturating_add(value.saturating_sub(10)),
    };
    [digit(byte >> 4), digit(byte & 15)]
}

/// The text as it stands between the quotes of a JSON string (RFC 8259, section 7).
fn json_escape(text: &str, into: &mut Vec<u8>) {
    let quoted = serde_json::Value::from(text).to_string();
    let bare = quoted.strip_prefix('"').and_then(|bare| bare.strip_suffix('"'));
    into.extend_from_slice(bare.unwrap_or_default().as_bytes());
}

/// The end of the placeholder at the start of `text`, closing braces included; one may be nested.
fn end_of(text: &[u8]) -> Option<usize> {
    let mut at = 2;
    let mut depth = 1_usize;
    loop {
        let rest = text.get(at..)?;
        if rest.starts_with(b"}}") {
            depth = depth.saturating_sub(1);
            at = at.saturating_add(2);
            if depth == 0 {
                return Some(at);
            }
        } else if rest.starts_with(b"{{") {
            depth = depth.saturating_add(1);
            at = at.saturating_add(2);
        } else if rest.is_empty() {
            return None;
        } else {
            at = at.saturating_add(1);
        }
    }
}

/// What stands between a placeholder's `{{kind:` and `}}`.
fn inner(placeholder: &str, prefix: usize) -> &str {
    placeholder.get(prefix..placeholder.len().saturating_sub(2)).unwrap_or_default()
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len().max(1)).position(|window| window == needle)
}

fn replace(text: &[u8], needle: &[u8], with: &[u8], first: usize) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(text.len());
    let (mut rest, mut next) = (text, Some(first));
    while let Some(at) = next {
        let (before, from) = rest.split_at(at);
        replaced.extend_from_slice(before);
        replaced.extend_from_slice(with);
        rest = from.get(needle.len()..).unwrap_or_default();
        next = find(rest, needle);
    }
    replaced.extend_from_slice(rest);
    replaced
}

const SECRET: &[u8] = b"{{secret:";
const BASIC: &[u8] = b"{{basic:";

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(list: &[(&str, &str, &[&str])]) -> Secrets {
        let from = list
            .iter()
            .map(|(name, text, hosts)| {
                let source = SecretRef::Inline(SecretText::new((*text).to_owned()));
                let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
                ((*name).to_owned(), Secret { source, hosts })
            })
            .collect();
        Secrets::read(&from).ok().unwrap()
    }

    fn fill(secrets: &Secrets, text: &str, place: Place) -> Result<String, Unfilled> {
        let mut also = Vec::new();
        let filled = secrets.fill(text.as_bytes(), place, "api.example", &mut also)?;
        Ok(String::from_utf8(filled.into_owned()).unwrap())
    }

    #[test]
    fn placeholders_are_escaped_for_their_place() {
        let held = secrets(&[("t", "a\"b&c/d", &[]), ("u", "me", &[])]);
        for (text, place, wanted) in [
            ("Bearer {{secret:t}}", Place::Header, "Bearer a\"b&c/d"),
            ("k={{secret:t}}&x=1", Place::Query, "k=a%22b%26c%2Fd&x=1"),
            ("k={{secret:t}}", Place::Form, "k=a%22b%26c%2Fd"),
            ("{\"k\":{\"t\":\"{{secret:t}}\"}}", Place::Json, "{\"k\":{\"t\":\"a\\\"b&c/d\"}}"),
            ("{{secret:u}}{{secret:u}}", Place::Raw, "meme"),
            ("{{{secret:u}}}", Place::Raw, "{me}"),
            ("{{other}} {{", Place::Raw, "{{other}} {{"),
            ("{{basic:joe:u}}", Place::Header, "Basic am9lOm1l"),
            ("{{basic:{{secret:u}}:u}}", Place::Header, "Basic bWU6bWU="),
        ] {
            assert_eq!(fill(&held, text, place).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn placeholders_that_cannot_be_filled_say_why() {
        let held =
            secrets(&[("t", "x\ny", &["api.example"]), ("o", "secret", &["*.other.example"])]);
        assert_eq!(
            fill(&held, "{{secret:none}}", Place::Raw),
            Err(Unfilled::Unknown("none".to_owned()))
        );
        assert_eq!(
            fill(&held, "{{secret:o}}", Place::Raw),
            Err(Unfilled::Elsewhere("o".to_owned()))
        );
        assert!(matches!(fill(&held, "{{secret:t}}", Place::Header), Err(Unfilled::Malformed(_))));
        assert!(matches!(fill(&held, "{{secret:t", Place::Raw), Err(Unfilled::Malformed(_))));
        assert!(matches!(fill(&held, "{{basic:a:t}}", Place::Json), Err(Unfilled::Malformed(_))));
    }

    #[test]
    fn secrets_are_masked_in_every_form() {
        let held = secrets(&[("t", "s3cr/t \"x", &[]), ("long", "s3cr/t \"x and more", &[])]);
        let also = [(b"am9l".to_vec(), "[secret:basic]".to_owned())];
        for text in [
            "s3cr/t \"x",
            "s3cr%2Ft%20%22x",
            "s3cr%2ft%20%22x",
            "s3cr/t \\\"x",
            "s3cr\\/t \\\"x",
            &STANDARD.encode("s3cr/t \"x"),
            &URL_SAFE_NO_PAD.encode("s3cr/t \"x"),
        ] {
            let text = format!("<{text}> <{text}>");
            let masked = held.mask(text.as_bytes(), &also);
            assert_eq!(String::from_utf8_lossy(&masked), "<[secret:t]> <[secret:t]>", "{text}");
        }
        for around in [("", ""), ("a", "b"), ("ab", "c"), ("abc", "de"), ("abcd", "")] {
            let encoded = STANDARD.encode(format!("{}s3cr/t \"x{}", around.0, around.1));
            let masked =
                String::from_utf8(held.mask(encoded.as_bytes(), &[]).into_owned()).unwrap();
            assert!(masked.contains("[secret:t]"), "{around:?}: {encoded} became {masked}");
            assert!(masked.len() < 26, "{around:?}: {masked}");
        }
        assert_eq!(held.mask_text("s3cr/t \"x and more"), "[secret:long]");
        assert_eq!(&*held.mask(b"Basic am9l!", &also), b"Basic [secret:basic]!");
        assert!(matches!(held.mask_text("nothing here"), Cow::Borrowed(_)));
    }
}
