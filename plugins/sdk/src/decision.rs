//! What becomes of the request in hand. The last decision of a call counts; a plugin that decides
//! nothing leaves the request to go on.

use alloc::string::String;

use crate::host::decision as host;

/// Sends the request to an upstream by its name in `gateway.yaml`. Routers only; an unknown name
/// traps.
pub fn to_upstream(name: &str) {
    host::to_upstream(name);
}

/// Answers with a redirect; `status` is 301, 302, 303, 307 or 308.
pub fn redirect(status: u16, location: &str) {
    host::redirect(status, location);
}

/// Answers with a response of the plugin's own; `status` is 200 to 599. The gateway adds
/// `content-length` and `date`.
pub fn respond(status: u16, headers: &[(String, String)], body: &[u8]) {
    host::respond(status, headers, body);
}
