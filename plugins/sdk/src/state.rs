//! A small key-value store that the host keeps for the plugin, shared by all its instances. It
//! survives a swap of the plugin and a reload, and ends with the process.

use alloc::string::String;
use alloc::vec::Vec;

use crate::host::state as host;

/// The value of a key; none when absent or expired.
pub fn get(key: &str) -> Option<Vec<u8>> {
    host::get(key)
}

/// Sets a key; with `ttl_seconds` it expires after that time.
///
/// # Errors
/// `key-too-long`, `value-too-long` or `quota`.
pub fn set(key: &str, value: &[u8], ttl_seconds: Option<u32>) -> Result<(), String> {
    host::set(key, value, ttl_seconds)
}

/// Removes a key; does nothing when it is absent.
pub fn remove(key: &str) {
    host::remove(key);
}

/// Adds `by` to a counter and returns its new value. An absent key counts as 0 and then gets
/// `ttl_seconds`; a present one keeps its own expiry.
///
/// # Errors
/// `key-too-long`, `quota` or `not-a-counter`.
pub fn increment(key: &str, by: i64, ttl_seconds: Option<u32>) -> Result<i64, String> {
    host::increment(key, by, ttl_seconds)
}
