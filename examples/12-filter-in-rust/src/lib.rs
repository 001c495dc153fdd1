//! A filter: lets requests through that carry a JWT signed with HMAC-SHA256 (RFC 7519, `HS256` of
//! RFC 7518), and hands its claims to the application as fields. The application need not know
//! about tokens, and cannot be told lies by clients.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};
use witgate_sdk::{Filter, Plugin, crypto, decision, field, request, response};

mod token;

/// The plugin, configured.
pub struct JwtFilter {
    config: Config,
}

/// `config:` of the stanza.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The `iss` that tokens must have; none takes any.
    issuer: Option<String>,
    /// The `aud` that tokens must have, alone or in a list; none takes any.
    audience: Option<String>,
    /// Which claim becomes which field of the request.
    #[serde(default = "subject")]
    claims: BTreeMap<String, String>,
    /// Seconds by which clocks may differ.
    #[serde(default)]
    leeway: u32,
    /// Whether the application gets the token too.
    #[serde(default)]
    keep_token: bool,
}

fn subject() -> BTreeMap<String, String> {
    BTreeMap::from([("sub".to_owned(), "x-user".to_owned())])
}

impl Plugin for JwtFilter {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        // Better now than at the first request.
        crypto::hmac("sha256", token::KEY, b"").map_err(|code| format!("secrets.key: {code}"))?;
        for (claim, name) in &config.claims {
            field::check_changeable(name)
                .map_err(|error| format!("config.claims.{claim}: {error}"))?;
        }
        Ok(Self { config })
    }
}

impl Filter for JwtFilter {
    fn on_request(&self) {
        // Only the token may say who the client is.
        for name in self.config.claims.values() {
            request::remove_header(name);
        }
        match self.admit() {
            Ok(fields) => {
                for (name, value) in fields {
                    request::set_header(name, &value);
                }
                if !self.config.keep_token {
                    request::remove_header("authorization");
                }
            }
            Err(refusal) => refuse(refusal),
        }
    }

    fn on_response(&self) {
        // What one user may see must not come out of a cache for another.
        response::append_header("vary", "authorization");
    }
}

impl JwtFilter {
    /// The fields that a good token gives the request, or why it is refused.
    fn admit(&self) -> Result<Vec<(&str, String)>, &'static str> {
        let authorization = request::header("authorization").ok_or("missing-token")?;
        let token = match authorization.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err("missing-token"),
        };
        let claims = token::verify(token)?;
        self.check(&claims)?;
        let mut fields = Vec::new();
        for (claim, name) in &self.config.claims {
            let text = match claims.get(claim) {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) => text.clone(),
                Some(Value::Bool(flag)) => flag.to_string(),
                Some(Value::Number(number)) if !number.is_f64() => number.to_string(),
                Some(_) => return Err("malformed-claim"),
            };
            field::check_value(&text).map_err(|_| "malformed-claim")?;
            fields.push((name.as_str(), text));
        }
        Ok(fields)
    }

    /// Times, issuer and audience (RFC 7519, section 4.1).
    fn check(&self, claims: &serde_json::Map<String, Value>) -> Result<(), &'static str> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let leeway = f64::from(self.config.leeway);
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or("malformed-claim"),
        };
        if time("exp")?.is_some_and(|end| now >= end + leeway) {
            return Err("expired");
        }
        if time("nbf")?.is_some_and(|start| now < start - leeway) {
            return Err("not-yet-valid");
        }
        if let Some(issuer) = &self.config.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err("wrong-issuer");
        }
        if let Some(audience) = &self.config.audience {
            let is_meant = match claims.get("aud") {
                Some(Value::String(one)) => one == audience,
                Some(Value::Array(several)) => several.iter().any(|one| one == audience.as_str()),
                _ => false,
            };
            if !is_meant {
                return Err("wrong-audience");
            }
        }
        Ok(())
    }
}

/// 401 with the reason for the client (RFC 6750, section 3).
fn refuse(reason: &str) {
    let challenge = match reason {
        "missing-token" => "Bearer".to_owned(),
        _ => format!("Bearer error=\"invalid_token\", error_description=\"{reason}\""),
    };
    let headers = [
        ("content-type".to_owned(), "application/json".to_owned()),
        ("www-authenticate".to_owned(), challenge),
    ];
    decision::respond(401, &headers, json!({"error": reason}).to_string().as_bytes());
}

witgate_sdk::export!(JwtFilter: filter);

#[cfg(test)]
mod tests {
    use witgate_sdk::testing::{Decision, Exchange, configure, with_hmac};

    use super::*;

    fn filter() -> JwtFilter {
        with_hmac(|_, secret, data| match secret {
            "key" => Ok(token::hmac_sha256(data)),
            _ => Err("unknown-secret".to_owned()),
        });
        configure(json!({"issuer": "login"})).unwrap()
    }

    fn ask(claims: &Value) -> (Exchange, Option<Decision>) {
        let token = token::sign(claims);
        let mut exchange = Exchange::get("https://example.com/")
            .header("x-user", "forged")
            .header("authorization", &format!("Bearer {token}"));
        let decision = exchange.on_request(&filter());
        (exchange, decision)
    }

    fn refusal(decision: Option<Decision>) -> String {
        match decision {
            Some(Decision::Respond(401, _, body)) => String::from_utf8(body).unwrap(),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_good_token_tells_the_application_who_it_is() {
        let (exchange, decision) = ask(&json!({"sub": "ann", "iss": "login"}));
        assert_eq!(decision, None);
        assert_eq!(exchange.request_values("x-user"), ["ann"]);
        assert_eq!(exchange.request_header("authorization"), None);
    }

    #[test]
    fn bad_tokens_are_refused_with_the_reason() {
        let (_, decision) = ask(&json!({"sub": "ann", "iss": "login", "exp": 1}));
        assert_eq!(refusal(decision), r#"{"error":"expired"}"#);
        let (_, decision) = ask(&json!({"sub": "ann", "iss": "elsewhere"}));
        assert_eq!(refusal(decision), r#"{"error":"wrong-issuer"}"#);
        let decision = Exchange::get("https://example.com/").on_request(&filter());
        assert_eq!(refusal(decision), r#"{"error":"missing-token"}"#);
    }

    #[test]
    fn a_key_that_is_missing_is_a_load_error() {
        with_hmac(|_, _, _| Err("unknown-secret".to_owned()));
        let error = configure::<JwtFilter>(json!({})).err().unwrap();
        assert_eq!(error, "secrets.key: unknown-secret");
    }
}
