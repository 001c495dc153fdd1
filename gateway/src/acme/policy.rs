//! Who is asked whether names may have a certificate. A policy only narrows: bounds of the configuration
//! and what is known of the CAs' limits hold whatever it says.

use std::pin::Pin;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The names of the certificate.
    pub names: Vec<String>,
    /// `configured`, `on-demand` or `renewal`.
    pub reason: &'static str,
    /// The issuers by name, in the order in which they are tried.
    pub issuers: Vec<String>,
    /// How control is proved, as `certificates.challenge` has it.
    pub challenge: &'static str,
    /// The end of the certificate that there is, in seconds since 1970.
    pub not_after: Option<i64>,
}

/// What is said about an order that may be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruling {
    /// The issuer, one of the question's; none leaves the choice to the gateway.
    pub issuer: Option<String>,
    /// The profile; none leaves that of the configuration.
    pub profile: Option<String>,
}

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// It was said so, and why.
    No(String),
    /// Nothing was said, because asking failed.
    Unclear(String),
}

/// Who is asked.
pub trait Policy: Send + Sync {
    /// Which one it is, for the log.
    fn label(&self) -> String;

    /// Decides.
    fn decide(
        &self,
        question: Question,
    ) -> Pin<Box<dyn Future<Output = Result<Ruling, Denied>> + Send + '_>>;
}
