//! Why there is no certificate: whose answer it was, and what follows from it.

use std::fmt;
use std::time::Duration;

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
        /// How long it asked to wait.
        retry_after: Option<Duration>,
    },
    /// A name was not validated: the name, the issuer, the problem type and the CA's words.
    NotValidated {
        /// The name.
        host: String,
        /// The issuer's name.
        issuer: String,
        /// The challenge type.
        challenge: &'static str,
        /// The problem type without its prefix.
        problem: String,
        /// The CA's words.
        detail: String,
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

impl AcmeError {
    /// What instant-acme said, as ours.
    pub fn of(issuer: &str, cause: instant_acme::Error, retry_after: Option<Duration>) -> Self {
        match cause {
            instant_acme::Error::Api(problem) => Self::Refused {
                issuer: issuer.to_owned(),
                problem: short(problem.r#type.as_deref()),
                detail: problem.detail.unwrap_or_default(),
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

    /// Whether it counts against the CA's limit of failed validations.
    pub fn is_authorization(&self) -> bool {
        matches!(self, Self::NotValidated { .. })
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Setup(_) | Self::NoChallenge { .. } | Self::Roots(_) => Fault::Operator,
            Self::Store(cause) => cause.fault(),
            Self::Make(_) => Fault::Internal,
            _ => Fault::Authority,
        }
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
            Self::NotValidated { host, issuer, challenge, problem, detail } => {
                write!(f, "{issuer} could not validate {host} by {challenge} ({problem}): {detail}")
            }
            Self::Unreachable { issuer, cause } => write!(f, "no use of {issuer}: {cause}"),
            Self::NoChallenge { host, wanted } => {
                write!(f, "the CA offers no {wanted} challenge for {host}")
            }
            Self::Setup(text) => f.write_str(text),
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
