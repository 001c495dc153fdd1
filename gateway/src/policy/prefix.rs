//! What an upstream sees of a path: a prefix less, a prefix more. Pure.

use http::HeaderValue;
use http::uri::PathAndQuery;

use crate::route::path::strip_prefix;

/// What to take off the path and what to put before it; neither ends with `/`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) strip: Option<String>,
    pub(super) add: Option<String>,
}

/// A target after that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rewritten {
    pub(super) target: PathAndQuery,
    /// What was taken off.
    pub(super) stripped: Option<HeaderValue>,
}

impl Prefix {
    /// The target that the upstream sees; `None` when it is the same. Whole segments are taken off, so
    /// `/api` leaves `/apis` alone, and the rest is not touched: `/api//x` becomes `//x`.
    pub(super) fn rewrite(&self, target: &PathAndQuery) -> Option<Rewritten> {
        if self.strip.is_none() && self.add.is_none() || !target.path().starts_with('/') {
            return None;
        }
        let path = target.path();
        let rest = self.strip.as_deref().and_then(|prefix| {
            let rest = strip_prefix(path, prefix)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((prefix, rest))
        });
        let stripped = rest.and_then(|(prefix, _)| HeaderValue::from_str(prefix).ok());
        let rest = rest.map_or(path, |(_, rest)| rest);
        let add = self.add.as_deref().unwrap_or_default();
        let mut text = format!("{add}{rest}");
        if rest.is_empty() {
            text.push('/');
        }
        if let Some(query) = target.query() {
            text.push('?');
            text.push_str(query);
        }
        // Checked when the configuration was read, so what comes out is a target again.
        let target = PathAndQuery::try_from(text).ok()?;
        Some(Rewritten { target, stripped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_segments_come_and_go() {
        for (strip, add, target, want) in [
            (Some("/api"), None, "/api/x?y=1", "/x?y=1"),
            (Some("/api"), None, "/api", "/"),
            (Some("/api"), None, "/api?y", "/?y"),
            (Some("/api"), None, "/apis/x", "/apis/x"),
            (Some("/api"), None, "/%61pi/x", "/x"),
            (Some("/api"), None, "/api//evil.example", "//evil.example"),
            (Some("/api"), Some("/v1"), "/api/x", "/v1/x"),
            (Some("/api"), Some("/v1"), "/api", "/v1/"),
            (None, Some("/v1"), "/x%2Fy", "/v1/x%2Fy"),
            (None, Some("/v1"), "/", "/v1/"),
        ] {
            let prefix = Prefix { strip: strip.map(Into::into), add: add.map(Into::into) };
            let rewritten = prefix.rewrite(&target.parse().unwrap()).unwrap();
            assert_eq!(rewritten.target.as_str(), want, "{target}");
        }
        let prefix = Prefix { strip: Some("/a".into()), add: None };
        assert_eq!(prefix.rewrite(&"*".parse().unwrap()), None);
        assert_eq!(Prefix::default().rewrite(&"/".parse().unwrap()), None);
        let stripped = |target: &str| prefix.rewrite(&target.parse().unwrap()).unwrap().stripped;
        assert_eq!(stripped("/a/b").unwrap(), "/a");
        assert_eq!(stripped("/b"), None);
    }
}
