//! Components to load: the odd and hostile ones of `tests/guests`, and changes to their bytes.

use std::path::PathBuf;

use super::project;

/// Where `make guests` leaves them.
pub fn folder() -> PathBuf {
    project().join("tests/guests/target/wasm32-wasip2/release/examples")
}

/// The bytes of a guest.
///
/// # Panics
/// When it was not built, saying how to.
pub fn guest(name: &str) -> Vec<u8> {
    let path = folder().join(format!("{name}.wasm"));
    match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) => panic!("{}: {e}. Run `make guests` first", path.display()),
    }
}

/// The same component with another digest: a custom section with `note` at its end changes nothing
/// else (WebAssembly core specification, section 5.5.3).
pub fn noted(component: &[u8], note: &str) -> Vec<u8> {
    let name = b"note";
    assert!(note.len() < 100, "the lengths are written as one LEB128 byte each");
    let mut bytes = component.to_vec();
    bytes.extend([0, (1 + name.len() + note.len()) as u8, name.len() as u8]);
    bytes.extend(name);
    bytes.extend(note.as_bytes());
    bytes
}

/// The beginning of [`digest`], as log lines have it at least.
pub fn short_digest(bytes: &[u8]) -> String {
    digest(bytes)[..12].to_owned()
}

/// SHA-256 in hex.
pub fn digest(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
