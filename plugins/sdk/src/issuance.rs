//! The certificate in question, and what is decided about it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::host::issuance as host;

/// The names that it is for.
pub fn names() -> Vec<String> {
    host::names()
}

/// Why it is asked for: `configured`, `on-demand` or `renewal`.
pub fn reason() -> String {
    host::reason()
}

/// The issuers that the configuration names.
pub fn issuers() -> Vec<String> {
    host::issuers()
}

/// How control of the names is going to be proved.
pub fn challenge() -> String {
    host::challenge()
}

/// The end of the certificate that there is, in seconds since 1970.
pub fn not_after() -> Option<i64> {
    host::not_after()
}

/// Lets the names have a certificate.
pub fn allow() {
    host::allow();
}

/// Refuses it; `why` is for the operator.
pub fn deny(why: &str) {
    host::deny(why);
}

/// Asks this issuer alone, one of [`issuers`]; any other traps.
pub fn use_issuer(name: &str) {
    host::use_issuer(name);
}

/// Asks for this certificate profile.
pub fn use_profile(name: &str) {
    host::use_profile(name);
}
