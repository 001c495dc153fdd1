//! Paths as their readers may understand them: which are refused since two readers could disagree, and
//! how a path compares with one of `gateway.yaml`. Pure. What goes on to an upstream is what the client
//! sent.

use std::borrow::Cow;

use crate::config::Paths;

/// Why a path is not taken under `paths:`.
///
/// # Errors
/// The text for the client.
pub fn check(path: &str, paths: Paths) -> Result<(), &'static str> {
    if paths == Paths::Any || path == "*" {
        return Ok(());
    }
    let has_escape = path.contains('%');
    if has_escape && path_escapes(path).any(|byte| byte.is_some_and(|b| b < 0x20 || b == 0x7f)) {
        return Err("The path has an encoded control character.");
    }
    // What any reader may take for a separator, so that no way to write a dot segment is missed.
    let text = if has_escape { separated(path) } else { Cow::Borrowed(path) };
    let mut segments = text.split(['/', '\\']);
    if segments.any(|s| matches!(s.split(';').next(), Some("." | ".."))) {
        return Err("The path has a dot segment.");
    }
    if paths == Paths::Safe {
        return Ok(());
    }
    if path.contains('\\') || path_escapes(path).any(|b| matches!(b, Some(b'/' | b'\\'))) {
        return Err("The path has an encoded slash or a backslash.");
    }
    if path.contains("//") {
        return Err("The path has an empty segment.");
    }
    if path_escapes(path).any(|byte| byte.is_none()) {
        return Err("The path has a percent sign that encodes nothing.");
    }
    Ok(())
}

/// A path without its percent signs, for comparison: servers take `/%61` for `/a`. `%2F` and `%25` stay
/// as they are, since a slash in a segment separates nothing.
pub fn decoded(path: &str) -> Cow<'_, [u8]> {
    if !path.contains('%') {
        return Cow::Borrowed(path.as_bytes());
    }
    let mut bytes = Vec::with_capacity(path.len());
    for (_, unit) in units(path) {
        unit.push(&mut bytes);
    }
    Cow::Owned(bytes)
}

/// What comes after `prefix`, however either is encoded.
pub fn strip_prefix<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    if !path.contains('%') && !prefix.contains('%') {
        return path.strip_prefix(prefix);
    }
    let wanted = decoded(prefix);
    let mut seen = Vec::with_capacity(wanted.len());
    let mut rest = units(path);
    let mut end = 0;
    while seen.len() < wanted.len() {
        let (next, unit) = rest.next()?;
        unit.push(&mut seen);
        end = next;
    }
    path.get(end..).filter(|_| seen == *wanted)
}

/// A byte of a path, or an escape.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Plain(u8),
    Escaped(u8),
}

impl Unit {
    fn push(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Escaped(b'/') => bytes.extend_from_slice(b"%2F"),
            Self::Escaped(b'%') => bytes.extend_from_slice(b"%25"),
            Self::Plain(byte) | Self::Escaped(byte) => bytes.push(byte),
        }
    }
}

/// The units of a path, each with where it ends. A percent sign that encodes nothing is itself.
fn units(path: &str) -> impl Iterator<Item = (usize, Unit)> {
    let bytes = path.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let first = *bytes.get(at)?;
        let unit = match escape(bytes, at) {
            Some(byte) => Unit::Escaped(byte),
            None => Unit::Plain(first),
        };
        at += if matches!(unit, Unit::Escaped(_)) { 3 } else { 1 };
        Some((at, unit))
    })
}

/// What each percent sign of a path encodes; `None` for one that encodes nothing.
fn path_escapes(path: &str) -> impl Iterator<Item = Option<u8>> {
    let bytes = path.as_bytes();
    memchr::memchr_iter(b'%', bytes).map(move |at| escape(bytes, at))
}

fn escape(bytes: &[u8], at: usize) -> Option<u8> {
    let [b'%', high, low] = bytes.get(at..at + 3)? else { return None };
    let digit = |c: &u8| char::from(*c).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// A path with every dot, slash, backslash and semicolon decoded, as often as it was encoded.
fn separated(path: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(path);
    for _ in 0..DECODINGS_MAX {
        let mut next = String::with_capacity(text.len());
        let mut has_changed = false;
        let bytes = text.as_bytes();
        let mut from = 0;
        for at in memchr::memchr_iter(b'%', bytes) {
            let Some(byte @ (b'.' | b'/' | b'\\' | b';' | b'%')) = escape(bytes, at) else {
                continue;
            };
            next.push_str(text.get(from..at).unwrap_or_default());
            next.push(char::from(byte));
            from = at + 3;
            has_changed = true;
        }
        if !has_changed {
            break;
        }
        next.push_str(text.get(from..).unwrap_or_default());
        text = Cow::Owned(next);
    }
    text
}

/// More than this often nobody decodes.
const DECODINGS_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_seen_however_they_are_written() {
        for path in [
            "/..",
            "/.",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/%2e%2e/a",
            "/.%2E",
            "/a/%2e./b",
            "/a/..;x/b",
            "/a/..%2fb",
            "/a/..%5cb",
            "/a\\..\\b",
            "/a%2f..%2fb",
            "/%252e%252e/a",
            "/a/%2e%2e%3bx/b",
            "/a%00",
            "/a%0d%0ab",
            "/%7f",
        ] {
            assert!(check(path, Paths::Safe).is_err(), "{path}");
            assert!(check(path, Paths::Any).is_ok(), "{path}");
        }
        for path in [
            "/",
            "*",
            "/a..b",
            "/...",
            "/.well-known/x",
            "/a.b/",
            "/a//b",
            "/@a%2fb",
            "/a%5cb",
            "/100%",
            "/a%zz",
            "/%E2%80%A6",
            "/;x",
            "/a;..",
        ] {
            assert!(check(path, Paths::Safe).is_ok(), "{path}");
        }
        for path in ["/a//b", "//", "/@a%2fb", "/a%5cb", "/a\\b", "/100%", "/a%zz", "/%2"] {
            assert!(check(path, Paths::Strict).is_err(), "{path}");
        }
        for path in ["/", "/a/b/", "/a%20b", "/%C3%BC", "*"] {
            assert!(check(path, Paths::Strict).is_ok(), "{path}");
        }
    }

    #[test]
    fn encoded_letters_compare_as_letters() {
        for (path, want) in [
            ("/%61dmin", "/admin"),
            ("/a%2fb", "/a%2Fb"),
            ("/%2561", "/%2561"),
            ("/%C3%BC", "/ü"),
            ("/a%zz%", "/a%zz%"),
        ] {
            assert_eq!(*decoded(path), *want.as_bytes(), "{path}");
        }
    }

    #[test]
    fn prefixes_come_off_however_they_are_written() {
        for (path, prefix, rest) in [
            ("/api/x", "/api", Some("/x")),
            ("/%61pi/x%20y", "/api", Some("/x%20y")),
            ("/api/x", "/%61pi", Some("/x")),
            ("/ap", "/api", None),
            ("/%61po/x", "/api", None),
            ("/a%2fb/c", "/a%2Fb", Some("/c")),
            ("/a%2fb/c", "/a/b", None),
            ("/%", "/api", None),
        ] {
            assert_eq!(strip_prefix(path, prefix), rest, "{path} {prefix}");
        }
    }
}
