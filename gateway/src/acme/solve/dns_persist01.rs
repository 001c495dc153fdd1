//! dns-persist-01 (draft-ietf-acme-dns-persist): a TXT record that an operator sets once and that proves
//! control for good. The gateway writes nothing; it says which record, and looks before it tells the CA.

use hickory_proto::rr::{RData, RecordType};
use serde::Deserialize;

use crate::acme::dns::Resolvers;

/// The record that is wanted for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it belongs.
    pub name: String,
    /// Names of the CA, any of which may stand in it.
    issuers: Vec<String>,
    /// The account's URL.
    account: String,
    /// Whether it is to hold for names below too.
    is_wildcard: bool,
}

/// The challenge, as far as instant-acme does not show it.
#[derive(Debug, Deserialize)]
struct Authorization {
    challenges: Vec<Challenge>,
}

#[derive(Debug, Deserialize)]
struct Challenge {
    r#type: String,
    #[serde(default, rename = "issuer-domain-names")]
    issuers: Vec<String>,
}

impl Record {
    /// What an authorization asks for; none when it offers no such challenge.
    pub fn wanted(
        authorization: &[u8],
        host: &str,
        account: &str,
        is_wildcard: bool,
    ) -> Option<Self> {
        let parsed: Authorization = serde_json::from_slice(authorization).ok()?;
        let offered = parsed.challenges.into_iter().find(|one| one.r#type == CHALLENGE)?;
        Some(Self {
            name: format!("_validation-persist.{host}"),
            issuers: offered.issuers,
            account: account.to_owned(),
            is_wildcard,
        })
    }

    /// The value to set.
    pub fn value(&self) -> String {
        let issuer = self.issuers.first().map_or("THE-CA'S-DOMAIN", String::as_str);
        let policy = if self.is_wildcard { "; policy=wildcard" } else { "" };
        format!("{issuer}; accounturi={}{policy}", self.account)
    }

    /// Whether a value does what is wanted.
    fn is_met_by(&self, value: &str) -> bool {
        let mut parts = value.split(';').map(str::trim);
        let issuer = parts.next().unwrap_or_default().trim_end_matches('.');
        let is_issuer = |known: &String| known.eq_ignore_ascii_case(issuer);
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let has = |name: &str, value: &str| {
            parameters
                .iter()
                .any(|(key, is)| key.trim().eq_ignore_ascii_case(name) && is.trim() == value)
        };
        (self.issuers.is_empty() || self.issuers.iter().any(is_issuer))
            && has("accounturi", &self.account)
            && (!self.is_wildcard || has("policy", "wildcard"))
    }

    /// Looks whether it is there.
    ///
    /// # Errors
    /// What to set, for a person, when it is not, or when nobody answers.
    pub async fn look(&self, resolvers: &Resolvers) -> Result<(), String> {
        let answer = resolvers.ask(&self.name, RecordType::TXT).await;
        let answer = answer.map_err(|cause| format!("cannot look for {}: {cause}", self.name))?;
        let values = answer.answers.iter().filter_map(|record| match &record.data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        });
        let values: Vec<String> = values.collect();
        if values.iter().any(|value| self.is_met_by(value)) {
            return Ok(());
        }
        let there = match values.is_empty() {
            true => String::new(),
            false => format!(" (there is {})", super::super::error::plain(&values.join(", "))),
        };
        Err(format!("set this TXT record, once: {} \"{}\"{there}", self.name, self.value()))
    }
}

/// The challenge's name.
pub const CHALLENGE: &str = "dns-persist-01";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_says_who_may_and_for_what() {
        let authorization = br#"{"challenges": [{"type": "dns-01", "token": "x"},
            {"type": "dns-persist-01", "issuer-domain-names": ["ca.example", "ca.example.net"]}]}"#;
        let account = "https://ca.example/acct/1";
        let one = Record::wanted(authorization, "a.example", account, false).unwrap();
        assert_eq!(one.name, "_validation-persist.a.example");
        assert_eq!(one.value(), "ca.example; accounturi=https://ca.example/acct/1");
        let wild = Record::wanted(authorization, "a.example", account, true).unwrap();
        assert!(one.is_met_by(&one.value()) && wild.is_met_by(&wild.value()));
        assert!(one.is_met_by(&wild.value()) && !wild.is_met_by(&one.value()));
        assert!(one.is_met_by("CA.example.net. ;accountURI=https://ca.example/acct/1;x=y"));
        for value in [
            "",
            "ca.example",
            "other.example; accounturi=https://ca.example/acct/1",
            "ca.example; accounturi=https://ca.example/acct/12",
        ] {
            assert!(!one.is_met_by(value), "{value}");
        }
        assert_eq!(Record::wanted(b"{\"challenges\": []}", "a.example", account, false), None);
    }
}
