//! The head of the response in hand. Valid inside [`crate::Filter::on_response`]; anywhere else,
//! and on a change the contract forbids, a call traps.

use alloc::string::String;
use alloc::vec::Vec;

use crate::host::response as host;

/// The status code.
pub fn status() -> u16 {
    host::status()
}

/// Who made the response: `upstream`, `plugin` or `gateway`; treat others as `gateway`.
pub fn source() -> String {
    host::source()
}

/// The first value of a field; none when it is absent or not UTF-8.
pub fn header(name: &str) -> Option<String> {
    host::header(name)
}

/// The first value of a field as the bytes that were sent.
pub fn header_bytes(name: &str) -> Option<Vec<u8>> {
    host::header_bytes(name)
}

/// All values of a field that are UTF-8, in the order they came.
pub fn header_values(name: &str) -> Vec<String> {
    host::header_values(name)
}

/// The names of all fields, each once, in lower case.
pub fn header_names() -> Vec<String> {
    host::header_names()
}

/// Sets a field to one value, in place of any it had.
pub fn set_header(name: &str, value: &str) {
    host::set_header(name, value);
}

/// As [`set_header`], for a value that is not UTF-8.
pub fn set_header_bytes(name: &str, value: &[u8]) {
    host::set_header_bytes(name, value);
}

/// Adds a value to a field beside those it has.
pub fn append_header(name: &str, value: &str) {
    host::append_header(name, value);
}

/// Removes a field with all its values.
pub fn remove_header(name: &str) {
    host::remove_header(name);
}

/// Changes the status code: 200 to 599.
pub fn set_status(status: u16) {
    host::set_status(status);
}
