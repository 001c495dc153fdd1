//! Fields that make browsers careful, where the application says nothing of its own. Pure.

use http::header::{HeaderMap, HeaderName, HeaderValue, SERVER};

use crate::config::policies::Security;

/// Adds what is missing and takes away what only helps attackers. `is_https` says how the client came:
/// over plain HTTP nothing may be said about HTTPS (RFC 6797, section 7.2).
pub(super) fn respond(level: Security, is_https: bool, fields: &mut HeaderMap) {
    let (hsts, preset) = match level {
        Security::Basic => (HSTS_BASIC, BASIC),
        Security::Strict => (HSTS_STRICT, STRICT),
    };
    let mut add = |name: &'static str, value: &'static str| {
        let name = HeaderName::from_static(name);
        if !fields.contains_key(&name) {
            fields.insert(name, HeaderValue::from_static(value));
        }
    };
    if is_https {
        add("strict-transport-security", hsts);
    }
    preset.iter().for_each(|(name, value)| add(name, value));
    for name in [SERVER, HeaderName::from_static("x-powered-by")] {
        fields.remove(name);
    }
}

const HSTS_BASIC: &str = "max-age=31536000";
const HSTS_STRICT: &str = "max-age=63072000; includeSubDomains";
const BASIC: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "SAMEORIGIN"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
];
const STRICT: &[(&str, &str)] = &[
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'; \
         object-src 'none'",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_application_has_the_last_word() {
        let mut fields = HeaderMap::new();
        fields.insert("x-frame-options", HeaderValue::from_static("ALLOW-FROM x"));
        fields.insert(SERVER, HeaderValue::from_static("old/1.0"));
        respond(Security::Strict, true, &mut fields);
        assert_eq!(fields["x-frame-options"], "ALLOW-FROM x");
        assert_eq!(fields["strict-transport-security"], HSTS_STRICT);
        assert!(fields.contains_key("content-security-policy"));
        assert!(!fields.contains_key(SERVER));
        let mut fields = HeaderMap::new();
        respond(Security::Basic, false, &mut fields);
        assert_eq!(fields["x-content-type-options"], "nosniff");
        assert!(!fields.contains_key("strict-transport-security"));
        assert!(!fields.contains_key("content-security-policy"));
    }
}
