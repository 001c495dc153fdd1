//! Why there is no certificate: whose answer it was, and what follows from it.

use std::fmt;
use std::time::Duration;

use super::need::Trouble;
use super::solve::dns01::Dns01Error;
use crate::fault::Fault;
use crate::store::StoreError;
use crate::tls::certs::CertificateError;
use crate::tls::roots::RootsError;

/// Why an order did not end in a certificate.
#[derive(Debug)]
pub enum AcmeError {
    /// The CA refused: its name, the RFC 8555 problem type and its detail.
    Refused {
        /// The issuer's name.
        issuer: String,
        /// The problem type without its prefix, such as `rateLimited`; empty when it gave none.
        problem: String,
        /// The CA's words.
        detail: String,
        /// The status of its response.
        status: u16,
        /// How long it asked to wait.
        retry_after: Option<Duration>,
    },
    /// Names were not validated.
    NotValidated {
        /// The issuer's name.
        issuer: String,
        /// Each of them; a name twice when two kinds of challenge were tried.
        names: Vec<Unvalidated>,
    },
    /// The CA could not be reached or spoke oddly.
    Unreachable {
        /// The issuer's name.
        issuer: String,
        /// What happened.
        cause: instant_acme::Error,
    },
    /// The CA offers no challenge of the wanted kind for a name.
    NoChallenge {
        /// The name.
        host: String,
        /// The wanted kind.
        wanted: &'static str,
    },
    /// A name cannot be validated as configured.
    Setup(String),
    /// The operator's endpoint says that a name may not have a certificate any more.
    NotAllowed(String),
    /// The external account binding of an issuer cannot be used: its name, and why.
    Eab(String, String),
    /// The task of an order ended by a fault of the gateway.
    Broken(String),
    /// The DNS-01 record could not be set.
    Dns01(Dns01Error),
    /// The store refused.
    Store(StoreError),
    /// Roots for the CA cannot be read.
    Roots(RootsError),
    /// A key or request could not be made.
    Make(rcgen::Error),
    /// The CA sent a certificate that cannot be served.
    Unusable(CertificateError),
    /// The CA did not finish in time.
    Timeout(String),
}

/// A name that was not validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unvalidated {
    /// The name.
    pub host: String,
    /// The challenge type.
    pub challenge: &'static str,
    /// The problem type without its prefix.
    pub problem: String,
    /// The CA's words.
    pub detail: String,
}

impl AcmeError {
    /// What instant-acme said, as ours.
    pub fn of(issuer: &str, cause: instant_acme::Error, retry_after: Option<Duration>) -> Self {
        match cause {
            instant_acme::Error::Api(problem) => Self::Refused {
                issuer: issuer.to_owned(),
                problem: short(problem.r#type.as_deref()),
                status: problem.status.unwrap_or_default(),
                detail: plain(&details(&problem)),
                retry_after,
            },
            instant_acme::Error::Timeout(_) => Self::Timeout(issuer.to_owned()),
            cause => Self::Unreachable { issuer: issuer.to_owned(), cause },
        }
    }

    /// How long the CA or DNS provider asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Dns01(cause) => cause.retry_after(),
            _ => None,
        }
    }

    /// Authorizations that the CA found invalid, which count against its limits.
    pub fn authorizations_failed(&self) -> u32 {
        match self {
            Self::NotValidated { names, .. } => u32::try_from(names.len()).unwrap_or(u32::MAX),
            _ => 0,
        }
    }

    /// Both failures of an attempt that tried two kinds of challenge.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        match (self, later) {
            (Self::NotValidated { issuer, mut names }, Self::NotValidated { names: more, .. }) => {
                names.extend(more);
                Self::NotValidated { issuer, names }
            }
            (_, later) => later,
        }
    }

    /// The problem type that the CA gave, without its prefix.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Refused { problem, .. } => Some(problem),
            Self::NotValidated { names, .. } => names.first().map(|name| &*name.problem),
            _ => None,
        }
    }

    /// What kind of failure it is, which decides when and where the next attempt is made.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Unreachable { .. } | Self::Timeout(_) | Self::Unusable(_) => Trouble::Authority,
            Self::NotValidated { .. } => Trouble::Validation,
            Self::NoChallenge { .. } => Trouble::Refused,
            Self::Refused { problem, status, .. } => match (problem.as_str(), *status) {
                ("rateLimited", _) | (_, 429) => Trouble::RateLimited,
                (problem, status) => match consequence(problem) {
                    Some((trouble, _)) => trouble,
                    None if status >= 500 => Trouble::Authority,
                    None => Trouble::Refused,
                },
            },
            Self::Setup(_)
            | Self::NotAllowed(_)
            | Self::Eab(..)
            | Self::Broken(_)
            | Self::Dns01(_)
            | Self::Store(_)
            | Self::Roots(_)
            | Self::Make(_) => Trouble::Local,
        }
    }

    /// What the operator can do about a problem that the CA gave; empty when there is nothing.
    pub fn advice(&self) -> &'static str {
        let problem = match self {
            // Of a name, not of the account.
            Self::NotValidated { .. } if self.problem() == Some("unauthorized") => {
                Some("incorrectResponse")
            }
            _ => self.problem(),
        };
        problem.and_then(consequence).map_or("", |(_, advice)| advice)
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Setup(_)
            | Self::NotAllowed(_)
            | Self::Eab(..)
            | Self::NoChallenge { .. }
            | Self::Roots(_) => Fault::Operator,
            Self::NotValidated { .. } => Fault::Operator,
            Self::Refused { .. } if self.trouble() == Trouble::Refused => Fault::Operator,
            Self::Store(cause) => cause.fault(),
            Self::Make(_) | Self::Broken(_) => Fault::Internal,
            _ => Fault::Authority,
        }
    }
}

/// What follows from each problem type of RFC 8555, section 6.7, and of the later documents that add
/// to them: how the next attempt is made, and what a person can do.
fn consequence(problem: &str) -> Option<(Trouble, &'static str)> {
    use Trouble::{Authority, RateLimited, Refused, Validation};
    Some(match problem {
        "accountDoesNotExist" => {
            (Refused, "the CA has lost the account; it is registered again at the next attempt")
        }
        "alreadyReplaced" => (Refused, ""),
        "alreadyRevoked" => (Refused, "it is revoked already; nothing is left to do"),
        "badCSR" => (Refused, "the CA does not take this set of names or this kind of key"),
        "badNonce" | "serverInternal" => (Authority, ""),
        "badPublicKey" | "badSignatureAlgorithm" => {
            (Refused, "the CA does not take the account's kind of key; name another issuer")
        }
        "badRevocationReason" => (Refused, "the CA does not take this reason; leave it out"),
        "caa" => (Refused, "allow this CA in the CAA records of the domain (RFC 8659)"),
        "compound" => (Refused, ""),
        "connection" => (
            Validation,
            "the CA must reach this gateway from outside: check DNS, port and firewall",
        ),
        "dns" => (Validation, "check that the name has A or AAAA records and DNSSEC is in order"),
        "externalAccountRequired" => {
            (Refused, "set `eab: {kid: …, key: …}` of this issuer to what its account page shows")
        }
        "incorrectResponse" => (
            Validation,
            "something else than this gateway answers for the name: check DNS and \
                          whatever stands in front",
        ),
        "invalidContact" | "unsupportedContact" => {
            (Refused, "the CA does not take `certificates.contact`")
        }
        "invalidProfile" => (Refused, "the CA has no such `profile`"),
        "malformed" => (Refused, ""),
        "orderNotReady" => (Refused, "the next attempt makes a new order"),
        "rateLimited" => (RateLimited, "the CA's limits are kept; name a second issuer to go on"),
        "rejectedIdentifier" => (Refused, "the CA does not sign this name by its policy"),
        "tls" => (Validation, "something else than this gateway answers TLS for the name"),
        "unauthorized" => (Refused, "the account may be deactivated at the CA"),
        "unsupportedIdentifier" => {
            (Refused, "the CA does not sign names of this kind; IP addresses may need a `profile`")
        }
        "userActionRequired" => {
            (Refused, "the CA wants its terms to be agreed to: follow the link in its words")
        }
        _ => return None,
    })
}

/// The words of a problem, those of its parts included.
fn details(problem: &instant_acme::Problem) -> String {
    let mut text = problem.detail.clone().unwrap_or_default();
    for part in &problem.subproblems {
        text.push_str("; ");
        text.push_str(part.to_string().trim_start_matches(": "));
    }
    text
}

/// What others wrote, fit for one line of a log.
pub fn plain(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// A problem type without the prefix that all of RFC 8555's have.
pub fn short(problem: Option<&str>) -> String {
    let text = problem.unwrap_or_default();
    text.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(text).to_owned()
}

impl fmt::Display for AcmeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { issuer, problem, detail, .. } => {
                write!(f, "{issuer} refused ({problem}): {detail}")
            }
            Self::NotValidated { issuer, names } => {
                write!(f, "{issuer} could not validate")?;
                for (at, name) in names.iter().enumerate() {
                    let Unvalidated { host, challenge, problem, detail } = name;
                    let separator = if at == 0 { "" } else { ";" };
                    write!(f, "{separator} {host} by {challenge} ({problem}): {detail}")?;
                }
                Ok(())
            }
            Self::Eab(issuer, why) => write!(f, "the `eab` of {issuer} cannot be used: {why}"),
            Self::Broken(why) => write!(f, "the order broke off: {why}"),
            Self::Unreachable { issuer, cause } => write!(f, "no use of {issuer}: {cause}"),
            Self::NoChallenge { host, wanted } => {
                write!(f, "the CA offers no {wanted} challenge for {host}")
            }
            Self::Setup(text) | Self::NotAllowed(text) => f.write_str(text),
            Self::Dns01(cause) => cause.fmt(f),
            Self::Store(cause) => cause.fmt(f),
            Self::Roots(cause) => cause.fmt(f),
            Self::Make(cause) => write!(f, "no key or request could be made: {cause}"),
            Self::Unusable(cause) => write!(f, "the CA's certificate {cause}"),
            Self::Timeout(issuer) => write!(f, "{issuer} did not finish in time"),
        }
    }
}

impl std::error::Error for AcmeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Dns01(cause) => cause.source(),
            Self::Store(cause) => cause.source(),
            Self::Roots(cause) => cause.source(),
            _ => None,
        }
    }
}

const TEXT_CHARS_MAX: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(problem: &str, status: u16) -> AcmeError {
        AcmeError::Refused {
            issuer: "letsencrypt".to_owned(),
            problem: problem.to_owned(),
            detail: "because".to_owned(),
            status,
            retry_after: None,
        }
    }

    /// The list of RFC 8555, section 6.7.
    const TYPES: [&str; 25] = [
        "accountDoesNotExist",
        "alreadyRevoked",
        "badCSR",
        "badNonce",
        "badPublicKey",
        "badRevocationReason",
        "badSignatureAlgorithm",
        "caa",
        "compound",
        "connection",
        "dns",
        "externalAccountRequired",
        "incorrectResponse",
        "invalidContact",
        "malformed",
        "orderNotReady",
        "rateLimited",
        "rejectedIdentifier",
        "serverInternal",
        "tls",
        "unauthorized",
        "unsupportedContact",
        "unsupportedIdentifier",
        "userActionRequired",
        // RFC 9773, section 7.4.
        "alreadyReplaced",
    ];

    #[test]
    fn every_problem_type_of_the_rfc_leads_somewhere() {
        for problem in TYPES {
            assert!(consequence(problem).is_some(), "{problem}");
            let trouble = refused(problem, 400).trouble();
            let is_passing = matches!(problem, "badNonce" | "serverInternal");
            assert_eq!(trouble == Trouble::Authority, is_passing, "{problem}");
            assert_eq!(trouble == Trouble::RateLimited, problem == "rateLimited", "{problem}");
        }
        assert_eq!(refused("", 429).trouble(), Trouble::RateLimited);
        assert_eq!(refused("", 503).trouble(), Trouble::Authority);
        assert_eq!(refused("new-and-unknown", 400).trouble(), Trouble::Refused);
        assert_eq!(refused("caa", 403).fault(), Fault::Operator);
        assert_eq!(refused("serverInternal", 500).fault(), Fault::Authority);
    }

    /// What `docs/CERTIFICATES.md` says of each.
    #[test]
    fn the_table_in_the_documentation_is_the_code() {
        let text = include_str!("../../../docs/CERTIFICATES.md");
        let mut missing = Vec::new();
        for problem in TYPES.into_iter().chain(["invalidProfile", "something new"]) {
            let error = refused(problem, 400);
            let taken_for = match error.trouble() {
                Trouble::Authority => "the CA",
                Trouble::RateLimited => "too many",
                Trouble::Validation => "proof",
                Trouble::Refused => "refused",
                Trouble::Local => unreachable!("a CA is asked"),
            };
            let next = match problem {
                "badNonce" => "asked again at once with the new nonce, up to twenty times",
                "alreadyReplaced" => "the order is made again without `replaces`, at once",
                _ => error.advice(),
            };
            let row = format!("| `{problem}` | {taken_for} | {next} |");
            if !text.contains(&row) {
                missing.push(row);
            }
        }
        assert!(missing.is_empty(), "docs/CERTIFICATES.md lacks:\n{}", missing.join("\n"));
    }

    #[test]
    fn texts_name_issuer_type_and_detail_on_one_line() {
        assert_eq!(refused("caa", 403).to_string(), "letsencrypt refused (caa): because");
        let name = |challenge| Unvalidated {
            host: "a.example".to_owned(),
            challenge,
            problem: "connection".to_owned(),
            detail: "no route".to_owned(),
        };
        let error = |challenge| {
            let names = vec![name(challenge)];
            AcmeError::NotValidated { issuer: "letsencrypt".to_owned(), names }
        };
        let both = error("tls-alpn-01").and(error("http-01"));
        assert_eq!(both.authorizations_failed(), 2);
        let error = error("http-01");
        assert_eq!(error.authorizations_failed(), 1);
        assert_eq!(
            error.to_string(),
            "letsencrypt could not validate a.example by http-01 (connection): no route"
        );
        assert_eq!(plain("a\nb\u{1b}[1m"), "a b [1m");
        assert!(plain(&"x".repeat(5000)).chars().count() <= TEXT_CHARS_MAX + 1);
    }
}
