//! Which header fields a plugin may read or set: `plugins.*.grants.request` and `.response`.

use serde::Serialize;

/// What a plugin may do with the heads of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct HeadGrant {
    /// The fields it may read; others are absent to it.
    pub read: FieldGrant,
    /// The fields it may set, append and remove, and the other parts of the head it may change:
    /// `:method`, `:path` (with the query) and `:authority` of a request, `:status` of a response.
    pub set: FieldGrant,
    /// What it may do with bodies.
    pub body: BodyGrant,
}

/// What a plugin may do with the bodies of one direction; each includes the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BodyGrant {
    /// Nothing.
    #[default]
    None,
    /// See them as they pass.
    Read,
    /// Put other bytes in their place.
    Transform,
}

impl BodyGrant {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read => "read",
            Self::Transform => "transform",
        }
    }

    /// All of them, by their words.
    pub const WORDS: [(&'static str, Self); 3] =
        [("none", Self::None), ("read", Self::Read), ("transform", Self::Transform)];
}

/// A set of names of fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldGrant {
    /// `*`: every field but those that hold credentials.
    pub others: bool,
    /// Names in lower case.
    pub named: Vec<String>,
}

impl Default for FieldGrant {
    /// Everything but credentials.
    fn default() -> Self {
        Self { others: true, named: Vec::new() }
    }
}

impl FieldGrant {
    /// Whether a field is in it, whatever its case. On the way of every request: no allocation, and
    /// one comparison of lengths for most fields.
    #[inline]
    pub fn covers(&self, name: &str) -> bool {
        (self.others && !is_credential(name))
            || self.named.iter().any(|named| named.eq_ignore_ascii_case(name))
    }

    /// What both allow.
    #[must_use]
    pub fn narrowed(&self, other: &Self) -> Self {
        let mine = self.named.iter().filter(|name| other.covers(name));
        let theirs = other.named.iter().filter(|name| self.covers(name));
        let mut named: Vec<String> = mine.chain(theirs).cloned().collect();
        named.sort_unstable();
        named.dedup();
        Self { others: self.others && other.others, named }
    }

    /// As it is written: `*` and names.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.others.then_some("*").into_iter().chain(self.named.iter().map(String::as_str))
    }
}

/// Whether a field holds credentials, which `*` never covers (RFC 6265; RFC 9110, section 11).
fn is_credential(name: &str) -> bool {
    let known = match name.len() {
        6 => "cookie",
        10 => "set-cookie",
        13 => "authorization",
        19 => "proxy-authorization",
        _ => return false,
    };
    known.eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(words: &[&str]) -> FieldGrant {
        let named = words.iter().filter(|w| **w != "*").map(|w| (*w).to_owned()).collect();
        FieldGrant { others: words.contains(&"*"), named }
    }

    #[test]
    fn a_star_covers_everything_but_credentials() {
        let all = FieldGrant::default();
        for name in ["accept", "x-cookie", "cookies", ":method", "www-authenticate", ""] {
            assert!(all.covers(name), "{name}");
        }
        for name in ["cookie", "Cookie", "COOKIE", "set-cookie", "Authorization"] {
            assert!(!all.covers(name), "{name}");
            assert!(grant(&["*", &name.to_lowercase()]).covers(name), "{name}");
        }
        assert!(!all.covers("proxy-authorization"));
        assert!(!grant(&["accept"]).covers("x-other") && grant(&["accept"]).covers("Accept"));
        assert!(!grant(&[]).covers("accept"));
    }

    #[test]
    fn narrowing_keeps_what_both_allow() {
        for (a, b, wanted) in [
            (&["*"][..], &["x-a", "cookie"][..], &["x-a"][..]),
            (&["*", "cookie"], &["x-a", "cookie"], &["cookie", "x-a"]),
            (&["*", "cookie"], &["*"], &["*"]),
            (&["x-a"], &["x-b"], &[]),
        ] {
            let wanted = grant(wanted);
            assert_eq!(grant(a).narrowed(&grant(b)), wanted);
            assert_eq!(grant(b).narrowed(&grant(a)), wanted);
        }
    }
}
