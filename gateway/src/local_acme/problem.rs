//! What is told to a client that asks for something it cannot have (RFC 8555, section 6.7).

use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A problem document (RFC 9457), kept with the order that it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The type without the prefix that all of RFC 8555's have.
    kind: String,
    /// What is wrong and what to do, for a person.
    detail: String,
    /// The name that it is about.
    #[serde(default)]
    name: Option<String>,
    /// When the client may come again.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// A problem of a type of RFC 8555, section 6.7, without its prefix.
    pub fn new(kind: &str, detail: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), detail: detail.into(), name: None, retry_after: None }
    }

    /// What was sent cannot be understood.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new("malformed", detail)
    }

    /// Something on this side failed; the reason is in the log.
    pub fn internal(cause: &impl std::error::Error) -> Self {
        tracing::error!("the local ACME server: {}", crate::fault::describe(cause));
        Self::new("serverInternal", "the gateway could not do it; its log says why")
    }

    /// Too much of something.
    pub fn limited(detail: impl Into<String>, retry_after: Duration) -> Self {
        let problem = Self::new("rateLimited", detail);
        Self { retry_after: Some(retry_after), ..problem }
    }

    /// About one of several names.
    #[must_use]
    pub fn about(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        match self.kind.as_str() {
            "serverInternal" => StatusCode::INTERNAL_SERVER_ERROR,
            "rateLimited" => StatusCode::TOO_MANY_REQUESTS,
            "unauthorized" | "rejectedIdentifier" | "orderNotReady" => StatusCode::FORBIDDEN,
            "notFound" => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The document.
    pub fn document(&self) -> Value {
        // What RFC 8555 has no type for has none.
        let kind = match self.kind.as_str() {
            "notFound" => "malformed",
            kind => kind,
        };
        let mut document = json!({
            "type": format!("urn:ietf:params:acme:error:{kind}"),
            "detail": self.detail,
            "status": self.status().as_u16(),
        });
        if let (Some(name), Some(fields)) = (&self.name, document.as_object_mut()) {
            fields.insert("identifier".to_owned(), identifier(name));
        }
        document
    }
}

/// A name as RFC 8555, section 9.7.7, and RFC 8738 write it.
pub fn identifier(name: &str) -> Value {
    let kind = if name.parse::<std::net::IpAddr>().is_ok() { "ip" } else { "dns" };
    json!({"type": kind, "value": name})
}
