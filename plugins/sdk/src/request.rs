//! The head of the request in hand. Valid inside [`crate::Router::route`] and the hooks of
//! [`crate::Filter`]; anywhere else, and on a change the contract forbids, a call traps.

use alloc::string::String;
use alloc::vec::Vec;

use crate::host::request as host;

/// The id of this exchange, as in the access log.
pub fn id() -> String {
    host::id()
}

/// The method, such as `GET`.
pub fn method() -> String {
    host::method()
}

/// `https` or `http`: how the client reached the gateway.
pub fn scheme() -> String {
    host::scheme()
}

/// The authority: host in lower case, and port when the client sent one.
pub fn authority() -> String {
    host::authority()
}

/// The host of [`authority`], without a port.
pub fn hostname() -> String {
    let mut authority = host::authority();
    let host_end = match authority.strip_prefix('[') {
        Some(literal) => literal.find(']').map(|end| end + 2),
        None => authority.find(':'),
    };
    if let Some(end) = host_end {
        authority.truncate(end);
    }
    authority
}

/// The path as sent, percent-encoded, without the query.
pub fn path() -> String {
    host::path()
}

/// The query without its `?`.
pub fn query() -> Option<String> {
    host::query()
}

/// The value of a cookie (RFC 6265, section 4.2): the first of that name.
pub fn cookie(name: &str) -> Option<String> {
    host::header_values("cookie").iter().find_map(|field| {
        field.split(';').find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then(|| String::from(value))
        })
    })
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

/// Changes the method that the upstream sees.
pub fn set_method(method: &str) {
    host::set_method(method);
}

/// Changes the path that the upstream sees; percent-encoded, starts with `/`, without a query.
pub fn set_path(path: &str) {
    host::set_path(path);
}

/// Changes the query that the upstream sees, without its `?`; none removes it.
pub fn set_query(query: Option<&str>) {
    host::set_query(query);
}

/// Changes the authority that the upstream sees.
pub fn set_authority(authority: &str) {
    host::set_authority(authority);
}
