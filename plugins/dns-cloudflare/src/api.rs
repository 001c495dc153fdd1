//! The JSON of the API, as far as it is used, and what its error codes mean.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::dns::{Failure, quote_txt};
use witgate_sdk::http::Response;

use crate::GONE;

/// The envelope of every answer.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub(crate) struct Reply<T> {
    pub(crate) success: bool,
    #[serde(default)]
    errors: Vec<ApiError>,
    #[serde(default = "Option::default")]
    pub(crate) result: Option<T>,
}

#[derive(Debug, Deserialize)]
struct ApiError {
    code: u32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    error_chain: Vec<ApiError>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ZoneEntry {
    pub(crate) id: String,
    pub(crate) name: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RecordEntry {
    pub(crate) id: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    pub(crate) content: String,
}

impl RecordEntry {
    pub(crate) fn is_txt_of(&self, name: &str) -> bool {
        self.kind == "TXT" && self.name.eq_ignore_ascii_case(name)
    }
}

/// The body of `POST dns_records`.
#[derive(Debug, Serialize)]
pub(crate) struct NewRecord<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    content: String,
    ttl: u32,
    comment: &'static str,
}

impl<'a> NewRecord<'a> {
    pub(crate) fn new(name: &'a str, value: &str, ttl: u32) -> Self {
        let comment = "ACME challenge, written by Witgate";
        Self { kind: "TXT", name, content: quote_txt(value), ttl, comment }
    }
}

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The same record is there already.
    Exists,
    Failure(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl Trouble {
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::Failure(failure) => failure,
            Self::Exists => Failure::new("conflict", "Cloudflare says that the record exists"),
        }
    }
}

impl<T> Reply<T> {
    /// What an answer without a result means; `secret` is the one it was asked with.
    pub(crate) fn trouble(&self, answer: &Response, secret: &str) -> Trouble {
        let has = |codes: &[u32]| self.errors.iter().any(|error| error.has(codes));
        if has(&EXISTS) {
            return Trouble::Exists;
        }
        let words: Vec<String> = self.errors.iter().map(ApiError::words).collect();
        let words = words.join("; ");
        let mut failure =
            Failure::from_answer(answer, format!("Cloudflare answered {}: {words}", answer.status));
        if has(&ABSENT) {
            failure.code = GONE;
        } else if has(&REFUSED) || answer.status == 401 {
            failure.code = "auth";
            failure.message = format!("Cloudflare refused the token (secret `{secret}`): {words}");
        } else if has(&[AUTHENTICATION_ERROR]) || answer.status == 403 {
            failure.code = "forbidden";
            failure.message = format!(
                "Cloudflare does not let this token (secret `{secret}`) do that: it needs the \
                 permissions Zone:Read and DNS:Edit for the zone: {words}"
            );
        } else if has(&NO_ROUTE) {
            failure.code = "zone-not-found";
        } else if has(&LIMITED) && failure.code != "rate-limited" {
            failure.code = "rate-limited";
            failure.retry_after_seconds = answer.retry_after_seconds();
        }
        Trouble::Failure(failure)
    }
}

impl ApiError {
    fn has(&self, codes: &[u32]) -> bool {
        codes.contains(&self.code) || self.error_chain.iter().any(|error| error.has(codes))
    }

    fn words(&self) -> String {
        let mut words = format!("{} ({})", self.message, self.code);
        for error in &self.error_chain {
            words.push_str(": ");
            words.push_str(&error.words());
        }
        words
    }
}

/// "An identical record already exists" and "A record with the same settings already exists".
const EXISTS: [u32; 2] = [81057, 81058];
/// "Record does not exist".
const ABSENT: [u32; 1] = [81044];
/// Malformed, unknown, expired or missing credentials.
const REFUSED: [u32; 7] = [1000, 1001, 6003, 6111, 9103, 9106, 9109];
/// "Authentication error": in fact the token is known, and may not do this.
const AUTHENTICATION_ERROR: u32 = 10000;
/// "Could not route": there is no such zone.
const NO_ROUTE: [u32; 2] = [7000, 7003];
/// "Please wait and consider throttling your request speed".
const LIMITED: [u32; 2] = [971, 10429];
