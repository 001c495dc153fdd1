//! The request in hand, each part fetched from the host at most once and only when asked for.

use alloc::string::String;
use core::cell::OnceCell;

use witgate_sdk::request;

#[derive(Debug, Default)]
pub(crate) struct Facts {
    host: OnceCell<String>,
    method: OnceCell<String>,
    path: OnceCell<String>,
    query: OnceCell<Option<String>>,
}

impl Facts {
    /// The host in lower case, without a port and without a final dot.
    pub(crate) fn host(&self) -> &str {
        let host = self.host.get_or_init(request::hostname);
        host.strip_suffix('.').unwrap_or(host)
    }

    pub(crate) fn method(&self) -> &str {
        self.method.get_or_init(request::method)
    }

    /// As sent, percent-encoded.
    pub(crate) fn path(&self) -> &str {
        self.path.get_or_init(request::path)
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.query.get_or_init(request::query).as_deref()
    }
}
