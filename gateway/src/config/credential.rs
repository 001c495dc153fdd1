//! What a solver's plugin.yaml says about credentials that are more than a text put in its place:
//! requests that are signed, and tokens that have to be fetched first. The host does both, so that
//! the key stays out of the plugin. All texts may hold `{config.KEY}` or `{config.KEY:DEFAULT}`, the
//! operator's own `config:`; names of secrets are those of the stanza.

use serde::{Deserialize, Serialize};

/// How a request is signed: the plugin writes `{{sign:NAME}}` as the value of a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scheme", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
#[serde(deny_unknown_fields)]
pub enum Signing {
    /// AWS Signature Version 4.
    AwsSigv4 {
        /// The secret with the access key id.
        key_id: String,
        /// The secret with the secret access key.
        secret: String,
        /// The secret with a session token, when there is such a secret.
        session: Option<String>,
        /// The region.
        region: String,
        /// The service.
        service: String,
        /// The session with the credentials of a role, for where there is no access key.
        otherwise: Option<String>,
    },
    /// HTTP signatures with RSA and SHA-256 (draft-cavage-http-signatures-12), as Oracle Cloud wants
    /// them: over date, target and host, and with a body over its length, type and digest.
    RsaHttp {
        /// The secrets whose texts, with `/` between, are the key's id.
        key_id: Vec<String>,
        /// The secret with the private key in PEM.
        key: String,
    },
    /// OVHcloud's `$1$` signature.
    Ovh {
        /// The secret with the application key.
        application_key: String,
        /// The secret with the application secret.
        application_secret: String,
        /// The secret with the consumer key.
        consumer_key: String,
    },
    /// Tencent Cloud's TC3-HMAC-SHA256.
    Tc3 {
        /// The secret with the secret id.
        key_id: String,
        /// The secret with the secret key.
        secret: String,
        /// The service.
        service: String,
    },
    /// Alibaba Cloud's ACS3-HMAC-SHA256.
    AliyunAcs3 {
        /// The secret with the access key id.
        key_id: String,
        /// The secret with the access key secret.
        secret: String,
    },
    /// Akamai's EG1-HMAC-SHA256.
    AkamaiEg1 {
        /// The secret with the client token.
        client_token: String,
        /// The secret with the client secret.
        client_secret: String,
        /// The secret with the access token.
        access_token: String,
    },
}

/// How a token is fetched: the plugin writes `{{token:NAME}}` where it belongs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "grant", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
#[serde(deny_unknown_fields)]
pub enum Session {
    /// OAuth 2.0 client credentials (RFC 6749, section 4.4).
    ClientCredentials {
        /// The token endpoint.
        url: String,
        /// The secret with the client's id.
        id: String,
        /// The secret with the client's secret.
        secret: String,
        /// The scope to ask for.
        scope: Option<String>,
        /// The session to use where there is no such secret.
        otherwise: Option<String>,
    },
    /// A signed assertion (RFC 7523, section 2.1) with the key of a service account.
    JwtBearer {
        /// The token endpoint, which is the audience as well.
        url: String,
        /// The secret with the account's JSON: `client_email`, `private_key`, `private_key_id`.
        key: String,
        /// The scope to ask for.
        scope: String,
        /// The session to use where there is no such secret.
        otherwise: Option<String>,
    },
    /// The token of the machine's own account, from the metadata service of its cloud (Google,
    /// Azure): `access_token` and `expires_in` as in OAuth 2.0. No plugin can ask there itself.
    Metadata {
        /// Where it is.
        url: String,
        /// Fields of the request.
        #[serde(default)]
        headers: std::collections::BTreeMap<String, String>,
    },
    /// The credentials of an AWS role: those of the container, where the environment names their
    /// place (`AWS_CONTAINER_CREDENTIALS_FULL_URI` or `_RELATIVE_URI`), else those of the instance
    /// (IMDSv2). For `otherwise` of `aws-sigv4`. No plugin can ask there itself.
    AwsRole {
        /// The instance's metadata service.
        url: String,
        /// The container's.
        container: String,
    },
    /// A login of the provider's own.
    Login {
        /// Where it goes, with `POST`.
        url: String,
        /// What it says; placeholders of secrets stand in it.
        json: serde_json::Value,
        /// Where the token stands in the answer, as a JSON pointer (RFC 6901).
        token: Option<String>,
        /// The cookie that is the token instead.
        cookie: Option<String>,
        /// What stands in the answer of a login that was taken, by JSON pointer.
        #[serde(default)]
        expect: std::collections::BTreeMap<String, serde_json::Value>,
        /// How long a token is used.
        lifetime_seconds: u64,
        /// A second step for accounts with two factors.
        unlock: Option<Unlock>,
    },
}

/// The second step of a login: a one-time code (RFC 6238), sent where the login went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Unlock {
    /// The secret with the key in Base32; without it there is no second step.
    pub secret: String,
    /// What is sent; `{{totp}}` is the code.
    pub json: serde_json::Value,
}

impl Session {
    /// The session to use instead of this one, where it lacks its secret.
    pub fn otherwise(&self, has: impl Fn(&str) -> bool) -> Option<&str> {
        match self {
            Self::ClientCredentials { secret: needs, otherwise, .. }
            | Self::JwtBearer { key: needs, otherwise, .. } => {
                otherwise.as_deref().filter(|_| !has(needs))
            }
            _ => None,
        }
    }

    /// Places that only the host may ask: what they answer is a credential.
    pub fn only_for_the_host(&self) -> Vec<&str> {
        match self {
            Self::Metadata { url, .. } => vec![url],
            Self::AwsRole { url, container } => vec![url, container],
            _ => Vec::new(),
        }
    }
}

impl Signing {
    /// The session with a role's credentials, where there is no access key.
    pub fn otherwise(&self, has: impl Fn(&str) -> bool) -> Option<&str> {
        match self {
            Self::AwsSigv4 { key_id, otherwise, .. } => {
                otherwise.as_deref().filter(|_| !has(key_id))
            }
            _ => None,
        }
    }

    /// This without a session token when there is no such secret.
    #[must_use]
    pub fn without_absent(&self, has: impl Fn(&str) -> bool) -> Self {
        let mut scheme = self.clone();
        if let Self::AwsSigv4 { session, .. } = &mut scheme {
            session.take_if(|name| !has(name));
        }
        scheme
    }

    /// As `gateway.lock` has it.
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Session {
    /// As `gateway.lock` has it.
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// `text` with the operator's configuration in its places.
///
/// # Errors
/// The key that is missing, or has a value that could not stand in a URL.
pub fn configured(text: &str, config: &serde_json::Value) -> Result<String, String> {
    let mut rest = text;
    let mut filled = String::new();
    while let Some((before, from)) = rest.split_once("{config.") {
        let (key, after) = from.split_once('}').ok_or_else(|| format!("{text:?} has no `}}`"))?;
        let (key, default) = match key.split_once(':') {
            Some((key, default)) => (key, Some(default)),
            None => (key, None),
        };
        let given = config.get(key).and_then(serde_json::Value::as_str).or(default);
        let given = given.ok_or_else(|| format!("config.{key} is missing"))?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if given.is_empty() || given.contains("..") || !given.chars().all(is_plain) {
            return Err(format!(
                "config.{key}: only letters, digits, `-`, `_` and `.` can be here"
            ));
        }
        filled.push_str(before);
        filled.push_str(given);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn configuration_stands_in_texts() {
        let config = json!({"tenant": "ab-1", "bad": "a/b"});
        let text = |text| configured(text, &config);
        assert_eq!(text("https://a/{config.tenant}/t").as_deref(), Ok("https://a/ab-1/t"));
        assert_eq!(text("{config.region:us-east-1}").as_deref(), Ok("us-east-1"));
        assert_eq!(text("{json}").as_deref(), Ok("{json}"));
        assert!(text("{config.none}").unwrap_err().contains("config.none"));
        assert!(text("{config.bad}").unwrap_err().contains("config.bad"));
    }
}
