//! What there is to say about a failure beside its text.

/// Says more about the failure that this call is about to return, by key: `help`, `permission`,
/// `request-id`, `url`, or any other.
pub fn note(key: &str, value: &str) {
    crate::host::report::note(key, value);
}
