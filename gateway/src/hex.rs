//! Bytes as hexadecimal digits.

use std::fmt::Write as _;

/// The digits of `bytes`, two for each, in lower case.
pub fn lower(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
