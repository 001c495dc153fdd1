//! Rules for header fields, to check a configuration once instead of trapping on every request.

use alloc::format;
use alloc::string::String;

/// Fields that the gateway owns: a plugin can read them and not change them.
pub const OWNED: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Checks the name of a field (RFC 9110, section 5.1) and gives it back in lower case.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn check_name(name: &str) -> Result<String, String> {
    if name.is_empty() || !name.bytes().all(is_token_byte) {
        return Err(format!(
            "`{name}` is not the name of a header field: use letters, digits and hyphens"
        ));
    }
    Ok(name.to_ascii_lowercase())
}

/// Checks the name of a field that is to be changed, and gives it back in lower case.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn check_changeable(name: &str) -> Result<String, String> {
    let name = check_name(name)?;
    if OWNED.contains(&name.as_str()) {
        return Err(format!("the gateway owns the field `{name}`: a plugin cannot change it"));
    }
    Ok(name)
}

/// Checks the value of a field (RFC 9110, section 5.5).
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn check_value(value: &str) -> Result<(), String> {
    if value.bytes().any(|byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f) {
        return Err("a header field's value cannot have line breaks or control characters".into());
    }
    if value.trim_matches([' ', '\t']).len() != value.len() {
        return Err("a header field's value cannot begin or end with a space".into());
    }
    Ok(())
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
