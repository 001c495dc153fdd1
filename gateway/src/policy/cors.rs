//! Which other sites' pages may read responses: the CORS protocol of the Fetch standard. With a policy
//! the gateway speaks it alone: what an application says about it is replaced. Pure.

use http::Method;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName,
    HeaderValue, ORIGIN,
};

use super::PolicyError;
use crate::config::policies::{self, OriginPattern};
use crate::http::head::RequestHead;

/// A policy with its values ready to be sent.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Vec<OriginPattern>,
    methods: HeaderValue,
    headers: Option<HeaderValue>,
    takes_any_header: bool,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

impl Cors {
    pub(super) fn new(policy: &policies::Cors) -> Result<Self, PolicyError> {
        let joined = |list: &[String]| {
            HeaderValue::from_str(&list.join(", "))
                .map_err(|_| PolicyError::Field("what `cors` names"))
        };
        let some = |list: &[String]| match list.is_empty() {
            true => Ok(None),
            false => joined(list).map(Some),
        };
        Ok(Self {
            origins: policy.origins.clone(),
            methods: joined(&policy.methods)?,
            headers: some(&policy.headers)?,
            takes_any_header: policy.headers.iter().any(|name| name == "*"),
            expose: some(&policy.expose)?,
            credentials: policy.credentials,
            max_age: policy.max_age.as_secs().into(),
        })
    }

    /// The fields of the answer to a preflight; `None` when the request is none. A foreign origin gets
    /// no permission, and its browser does the rest.
    pub(super) fn preflight(&self, head: &RequestHead) -> Option<HeaderMap> {
        let asks = head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let origin = head.headers.get(ORIGIN).filter(|_| asks && head.method == Method::OPTIONS)?;
        let mut fields = HeaderMap::new();
        if self.allows(origin) {
            fields.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
            let asked = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
            let headers = if self.takes_any_header { asked } else { self.headers.as_ref() };
            if let Some(headers) = headers {
                fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
            }
            fields.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        }
        super::add_vary(&mut fields, "access-control-request-method");
        super::add_vary(&mut fields, "access-control-request-headers");
        Some(fields)
    }

    /// The fields of any response to `origin`.
    pub(super) fn respond(&self, origin: Option<&HeaderValue>, fields: &mut HeaderMap) {
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            fields.remove::<HeaderName>(name);
        }
        let is_for_all = !self.credentials && self.origins.contains(&OriginPattern::Any);
        if !is_for_all {
            // Without it a cache could hand one origin's answer to another.
            super::add_vary(fields, "origin");
        }
        let Some(origin) = origin.filter(|origin| self.allows(origin)) else { return };
        let allowed = if is_for_all { HeaderValue::from_static("*") } else { origin.clone() };
        fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            fields.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if let Some(expose) = &self.expose {
            fields.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let origin = origin.to_ascii_lowercase();
        self.origins.iter().any(|pattern| match pattern {
            OriginPattern::Any => true,
            OriginPattern::Exact(exact) => *exact == origin,
            OriginPattern::Below(scheme, rest) => origin
                .strip_prefix(scheme.as_str())
                .and_then(|host| host.strip_suffix(rest.as_str()))
                .is_some_and(|labels| {
                    let is_label =
                        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                    !labels.is_empty() && labels.chars().all(is_label)
                }),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Scheme;

    fn cors(origins: Vec<OriginPattern>, credentials: bool) -> Cors {
        let policy = policies::Cors {
            origins,
            methods: vec!["GET".into(), "PUT".into()],
            headers: vec!["x-one".into()],
            expose: vec!["x-two".into()],
            credentials,
            max_age: Duration::from_secs(600),
        };
        Cors::new(&policy).unwrap()
    }

    #[test]
    fn origins_are_compared_whole() {
        let below = OriginPattern::Below("https://".into(), ".example.com".into());
        let cors = cors(vec![OriginPattern::Exact("https://a.example".into()), below], true);
        for (origin, is_allowed) in [
            ("https://a.example", true),
            ("https://A.example", true),
            ("http://a.example", false),
            ("https://a.example.evil.test", false),
            ("https://a.example:8443", false),
            ("https://x.example.com", true),
            ("https://x.y.example.com", true),
            ("https://example.com", false),
            ("https://.example.com", false),
            ("https://evilexample.com", false),
            ("https://evil.test/.example.com", false),
            ("https://evil.test@x.example.com", false),
            ("null", false),
        ] {
            let value = HeaderValue::from_str(origin).unwrap();
            assert_eq!(cors.allows(&value), is_allowed, "{origin}");
        }
    }

    #[test]
    fn what_the_application_says_is_replaced() {
        let cors = cors(vec![OriginPattern::Exact("https://a.example".into())], true);
        let mut fields = HeaderMap::new();
        fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        cors.respond(Some(&HeaderValue::from_static("https://b.example")), &mut fields);
        assert!(!fields.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(fields["vary"], "origin");
        cors.respond(Some(&HeaderValue::from_static("https://a.example")), &mut fields);
        assert_eq!(fields[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(fields[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(fields[ACCESS_CONTROL_EXPOSE_HEADERS], "x-two");
    }

    #[test]
    fn everybody_is_a_star_and_needs_no_vary() {
        let cors = cors(vec![OriginPattern::Any], false);
        let mut fields = HeaderMap::new();
        cors.respond(Some(&HeaderValue::from_static("https://b.example")), &mut fields);
        assert_eq!(fields[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!fields.contains_key("vary"));
    }

    #[test]
    fn only_a_preflight_is_answered() {
        let cors = cors(vec![OriginPattern::Exact("https://a.example".into())], false);
        let head = |method: &str, pairs: &[(&'static str, &'static str)]| RequestHead {
            id: "id".into(),
            method: method.parse().unwrap(),
            scheme: Scheme::Https,
            authority: "b.example".into(),
            target: "/".parse().unwrap(),
            version: http::Version::HTTP_11,
            headers: pairs
                .iter()
                .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
                .collect(),
        };
        let asked = [("origin", "https://a.example"), ("access-control-request-method", "PUT")];
        let fields = cors.preflight(&head("OPTIONS", &asked)).unwrap();
        assert_eq!(fields[ACCESS_CONTROL_ALLOW_METHODS], "GET, PUT");
        assert_eq!(fields[ACCESS_CONTROL_ALLOW_HEADERS], "x-one");
        assert_eq!(fields[ACCESS_CONTROL_MAX_AGE], "600");
        assert!(cors.preflight(&head("OPTIONS", &asked[..1])).is_none());
        assert!(cors.preflight(&head("PUT", &asked)).is_none());
        let foreign = [("origin", "https://b.example"), asked[1]];
        let fields = cors.preflight(&head("OPTIONS", &foreign)).unwrap();
        assert!(!fields.contains_key(ACCESS_CONTROL_ALLOW_METHODS), "{fields:?}");
    }
}
