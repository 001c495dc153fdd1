//! Tokens that have to be fetched: what is sent for them, what is made of the answer, and how long
//! they are kept. The answer of a token endpoint never reaches the plugin; the token is a secret like
//! any other, put in its place when a request is sent. `host::http` does the sending.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::totp;
use crate::config::SecretText;
use crate::config::credential::{Session, configured};

/// Tokens by name, for one request.
pub(super) type Tokens = BTreeMap<String, SecretText>;

/// The sessions of one plugin.
#[derive(Default)]
pub(super) struct Sessions {
    how: BTreeMap<String, Session>,
    kept: Mutex<BTreeMap<String, Kept>>,
    /// The steps of the last one-time codes.
    codes: Mutex<BTreeMap<String, u64>>,
}

/// The credentials of an AWS role.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Role {
    pub key_id: String,
    pub secret: String,
    pub session: Option<String>,
}

struct Kept {
    token: SecretText,
    until: Instant,
}

/// What to send for a token.
#[derive(Debug)]
pub(super) struct Login {
    pub url: String,
    pub media_type: &'static str,
    /// With placeholders.
    pub body: String,
    /// What of it is secret though it is no placeholder.
    pub also_secret: Option<String>,
}

impl Sessions {
    pub(super) fn new(how: BTreeMap<String, Session>) -> Self {
        Self { how, kept: Mutex::default(), codes: Mutex::default() }
    }

    /// The names of tokens in `text`.
    pub(super) fn named_in(text: &[u8]) -> Vec<String> {
        let text = String::from_utf8_lossy(text);
        let after = text.split("{{token:").skip(1);
        after.filter_map(|rest| Some(rest.split_once("}}")?.0.to_owned())).collect()
    }

    /// How the token `name` is fetched, by name of the session that has it for the secrets there are.
    pub(super) fn how(&self, name: &str, has: impl Fn(&str) -> bool) -> Option<(&str, &Session)> {
        let (name, how) = self.how.get_key_value(name)?;
        match how.otherwise(has) {
            Some(other) => self.how.get_key_value(other).map(|(name, how)| (name.as_str(), how)),
            None => Some((name, how)),
        }
    }

    /// Whether only the host may ask at a host and port.
    pub(super) fn is_only_for_the_host(&self, authority: &str) -> bool {
        let authority_of = |url: &&str| {
            let rest = url.split_once("://").map_or(*url, |it| it.1);
            rest.split('/').next().is_some_and(|it| it.eq_ignore_ascii_case(authority))
        };
        let is_machines = |how: &Session| !how.only_for_the_host().is_empty();
        if !self.how.values().any(is_machines) {
            return false;
        }
        // Wherever a cloud has such a service, it is at a link-local address (RFC 3927).
        let host = authority.split(':').next().unwrap_or_default();
        let is_link_local = host.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_link_local());
        let own = std::env::var("AWS_CONTAINER_CREDENTIALS_FULL_URI").ok();
        is_link_local
            || own.as_deref().is_some_and(|url| authority_of(&url))
            || self.how.values().any(|how| how.only_for_the_host().iter().any(authority_of))
    }

    /// The next one-time code of a key in Base32, and the wait before it may be used: each is good
    /// for one login alone.
    pub(super) fn code(&self, name: &str, key: &str, now: u64) -> Option<(String, Duration)> {
        let mut used = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        let last = used.get(name).copied().unwrap_or_default();
        let step = (now / totp::STEP_SECONDS).max(last.saturating_add(1));
        used.insert(name.to_owned(), step);
        let at = step.saturating_mul(totp::STEP_SECONDS);
        Some((totp::code(key, step)?, Duration::from_secs(at.saturating_sub(now))))
    }

    /// A token that is still good.
    pub(super) fn kept(&self, name: &str) -> Option<SecretText> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(name).filter(|kept| Instant::now() < kept.until).map(|kept| kept.token.clone())
    }

    /// Forgets tokens that the provider did not take.
    pub(super) fn forget<'n>(&self, names: impl Iterator<Item = &'n String>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        names.for_each(|name| drop(kept.remove(name)));
    }

    /// What to send for the token `name`; none when there is no such session. `secret` reads the
    /// secret of a name.
    pub(super) fn login<E: From<String>>(
        &self,
        name: &str,
        config: &serde_json::Value,
        secret: impl Fn(&str, &str) -> Result<String, E>,
    ) -> Result<Option<Login>, E> {
        const FORM: &str = "application/x-www-form-urlencoded";
        let Some(how) = self.how.get(name) else { return Ok(None) };
        let text = |text: &str| configured(text, config).map_err(E::from);
        Ok(Some(match how {
            Session::ClientCredentials { url, id, secret, scope, .. } => {
                let scope = match scope {
                    Some(scope) => format!("&scope={}", escape(&text(scope)?)),
                    None => String::new(),
                };
                let body = format!(
                    "grant_type=client_credentials&client_id={{{{secret:{id}}}}}&\
                     client_secret={{{{secret:{secret}}}}}{scope}"
                );
                Login { url: text(url)?, media_type: FORM, body, also_secret: None }
            }
            Session::JwtBearer { url, key, scope, .. } => {
                let url = text(url)?;
                let account = secret(key, &url)?;
                let now = time::OffsetDateTime::now_utc();
                let assertion = super::signing::assertion(&account, &url, &text(scope)?, now)
                    .map_err(|why| E::from(format!("the secret {key} cannot be used: {why}")))?;
                let body = format!(
                    "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&\
                     assertion={assertion}"
                );
                Login { url, media_type: FORM, body, also_secret: Some(assertion) }
            }
            // These are fetched by requests of their own kinds.
            Session::Metadata { url, .. } | Session::AwsRole { url, .. } => Login {
                url: text(url)?,
                media_type: "application/json",
                body: String::new(),
                also_secret: None,
            },
            Session::Login { url, json, .. } => Login {
                url: text(url)?,
                media_type: "application/json",
                body: json.to_string(),
                also_secret: None,
            },
        }))
    }

    /// Takes the token out of an answer and keeps it. None when the answer has none: the provider
    /// refused.
    pub(super) fn take(
        &self,
        name: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Option<SecretText> {
        let how = self.how.get(name)?;
        let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let (token, lifetime) = match how {
            Session::Login { token, cookie, expect, lifetime_seconds, .. } => {
                if expect.iter().any(|(at, wanted)| body.pointer(at) != Some(wanted)) {
                    return None;
                }
                let found = match (token, cookie) {
                    (Some(at), _) => body.pointer(at)?.as_str()?.to_owned(),
                    (None, Some(cookie)) => headers.iter().find_map(|(name, value)| {
                        let pair = value.split(';').next()?;
                        let (key, value) = pair.split_once('=')?;
                        (name == "set-cookie" && key.trim() == cookie).then(|| value.to_owned())
                    })?,
                    (None, None) => return None,
                };
                (found, *lifetime_seconds)
            }
            Session::AwsRole { .. } => {
                // What is kept is the answer, reduced to what signs.
                let part = |name: &str| body.get(name)?.as_str().map(str::to_owned);
                let role = Role {
                    key_id: part("AccessKeyId")?,
                    secret: part("SecretAccessKey")?,
                    session: part("Token"),
                };
                (serde_json::to_string(&role).ok()?, ROLE_SECONDS)
            }
            Session::ClientCredentials { .. }
            | Session::JwtBearer { .. }
            | Session::Metadata { .. } => {
                let token = body.get("access_token")?.as_str()?.to_owned();
                let lifetime = body.get("expires_in");
                let lifetime =
                    lifetime.and_then(|it| it.as_u64().or_else(|| it.as_str()?.parse().ok()));
                (token, lifetime.unwrap_or(LIFETIME_SECONDS))
            }
        };
        if token.is_empty() {
            return None;
        }
        // One that is about to end would end on its way.
        let lifetime = Duration::from_secs(lifetime.min(LIFETIME_SECONDS_MAX)).mul_f64(0.9);
        let token = SecretText::new(token);
        let until = Instant::now().checked_add(lifetime)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(name.to_owned(), Kept { token: token.clone(), until });
        Some(token)
    }
}

fn escape(text: &str) -> String {
    let mut escaped = Vec::new();
    super::secret::percent(text, true, &mut escaped);
    String::from_utf8_lossy(&escaped).into_owned()
}

/// How long the credentials of a role are used: AWS has new ones five minutes before the old ones end.
const ROLE_SECONDS: u64 = 240;
/// How long a token is used whose endpoint does not say.
const LIFETIME_SECONDS: u64 = 300;
/// The longest time a token is used, inclusive.
const LIFETIME_SECONDS_MAX: u64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sessions(how: serde_json::Value) -> Sessions {
        Sessions::new(serde_json::from_value(how).unwrap())
    }

    fn login(sessions: &Sessions, name: &str) -> Result<Option<Login>, String> {
        sessions.login(name, &json!({"tenant": "t1"}), |_, _| Ok("{}".to_owned()))
    }

    #[test]
    fn client_credentials_are_asked_for_and_kept() {
        let sessions = sessions(json!({"azure": {
            "grant": "client-credentials", "url": "https://login.example/{config.tenant}/token",
            "id": "client", "secret": "key", "scope": "https://m.example/.default",
        }}));
        let asked = login(&sessions, "azure").unwrap().unwrap();
        assert_eq!(asked.url, "https://login.example/t1/token");
        assert_eq!(
            asked.body,
            "grant_type=client_credentials&client_id={{secret:client}}&client_secret={{secret:key}}\
             &scope=https%3A%2F%2Fm.example%2F.default"
        );
        assert!(login(&sessions, "other").unwrap().is_none());
        assert!(sessions.kept("azure").is_none());
        let token = sessions.take("azure", &[], br#"{"access_token":"abc","expires_in":3600}"#);
        assert_eq!(token.unwrap().expose(), "abc");
        assert_eq!(sessions.kept("azure").unwrap().expose(), "abc");
        sessions.forget([&"azure".to_owned()].into_iter());
        assert!(sessions.kept("azure").is_none());
        sessions.take("azure", &[], br#"{"access_token":"abc","expires_in":0}"#).unwrap();
        assert!(sessions.kept("azure").is_none(), "it has ended");
        assert!(sessions.take("azure", &[], br#"{"error":"invalid_client"}"#).is_none());
    }

    #[test]
    fn a_login_has_its_token_in_the_body_or_in_a_cookie() {
        let sessions = sessions(json!({
            "body": {"grant": "login", "url": "https://a.example/", "json": {"key": "{{secret:k}}"},
                     "token": "/data/id", "expect": {"/status": "success"}, "lifetime-seconds": 60},
            "cookie": {"grant": "login", "url": "https://a.example/", "json": {}, "cookie": "sid",
                       "expect": {"/code": 1000}, "lifetime-seconds": 60},
        }));
        assert_eq!(login(&sessions, "body").unwrap().unwrap().body, r#"{"key":"{{secret:k}}"}"#);
        let good = br#"{"status":"success","data":{"id":"s1"}}"#;
        assert_eq!(sessions.take("body", &[], good).unwrap().expose(), "s1");
        let bad = br#"{"status":"error","data":{"id":"s1"}}"#;
        assert!(sessions.take("body", &[], bad).is_none());
        let headers = [("set-cookie".to_owned(), "sid=s2; path=/; secure".to_owned())];
        assert_eq!(sessions.take("cookie", &headers, br#"{"code":1000}"#).unwrap().expose(), "s2");
        assert!(sessions.take("cookie", &headers, br#"{"code":2200}"#).is_none());
        assert!(sessions.take("cookie", &[], br#"{"code":1000}"#).is_none());
    }

    #[test]
    fn a_session_without_its_secret_is_another() {
        let sessions = sessions(json!({
            "azure": {"grant": "client-credentials", "url": "https://login.example/", "id": "client", "secret": "key", "otherwise": "machine"},
            "machine": {"grant": "metadata", "url": "http://169.254.169.254/x?resource=y", "headers": {"metadata": "true"}},
            "role": {"grant": "aws-role", "url": "http://169.254.169.254", "container": "http://169.254.170.2"},
        }));
        let name = |has: bool| sessions.how("azure", |_| has).unwrap().0.to_owned();
        assert_eq!((name(true), name(false)), ("azure".to_owned(), "machine".to_owned()));
        for (authority, is) in [
            ("169.254.169.254", true),
            ("169.254.170.2", true),
            ("169.254.170.23:8080", true),
            ("login.example", false),
        ] {
            assert_eq!(sessions.is_only_for_the_host(authority), is, "{authority}");
        }
        let answer = br#"{"AccessKeyId":"A","SecretAccessKey":"S","Token":"T","Expiration":"x"}"#;
        let role = sessions.take("role", &[], answer).unwrap();
        assert_eq!(role.expose(), r#"{"key_id":"A","secret":"S","session":"T"}"#);
        assert!(sessions.take("role", &[], b"{}").is_none());
    }

    #[test]
    fn a_code_is_used_once() {
        let sessions = sessions(json!({}));
        let key = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        let (first, wait) = sessions.code("a", key, 59).unwrap();
        assert_eq!((first.as_str(), wait), ("287082", Duration::ZERO));
        let (second, wait) = sessions.code("a", key, 59).unwrap();
        assert!(second != first && wait == Duration::from_secs(1));
        assert_eq!(sessions.code("b", key, 59).unwrap().0, first);
        assert!(sessions.code("c", "no base32!", 59).is_none());
    }

    #[test]
    fn tokens_are_found_where_they_are_named() {
        let named = Sessions::named_in(b"Bearer {{token:a}} {{secret:b}} {{token:c}} {{token:");
        assert_eq!(named, ["a", "c"]);
    }
}
