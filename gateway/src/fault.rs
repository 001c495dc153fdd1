//! Whose fault a failure is. Every error enum of the gateway answers `fault()`, and status, retry and
//! log level follow from it in one place.

use std::fmt;

/// Who has to do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The client sent something wrong.
    Client,
    /// The application server failed.
    Upstream,
    /// A plugin failed.
    Plugin,
    /// The configuration or the machine is wrong.
    Operator,
    /// The certificate authority or a DNS provider refused or failed.
    Authority,
    /// The gateway itself is wrong.
    Internal,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Plugin => "plugin",
            Self::Operator => "operator",
            Self::Authority => "authority",
            Self::Internal => "internal",
        })
    }
}

/// An error and its causes, on one line.
pub fn describe(error: &impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
