//! The JSON of the API, as far as it is used.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use witgate_sdk::dns::unquote_txt;

/// An element of `GET zones`.
#[derive(Debug, Deserialize)]
pub(crate) struct ZoneEntry {
    pub(crate) id: String,
    name: String,
    #[serde(default)]
    pub(crate) kind: String,
}

impl ZoneEntry {
    pub(crate) fn is_called(&self, absolute: &str) -> bool {
        self.name.eq_ignore_ascii_case(absolute)
    }

    pub(crate) fn is_secondary(&self) -> bool {
        matches!(self.kind.as_str(), "Slave" | "Secondary" | "Consumer")
    }
}

/// `GET zones/ID`.
#[derive(Debug, Deserialize)]
pub(crate) struct ZoneRecords {
    #[serde(default)]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) rrsets: Vec<RecordSet>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RecordSet {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) ttl: u32,
    pub(crate) records: Vec<Record>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) content: String,
    #[serde(default)]
    pub(crate) disabled: bool,
}

impl Record {
    /// Whether this record is served with this text.
    pub(crate) fn holds(&self, value: &str) -> bool {
        !self.disabled && unquote_txt(&self.content) == value
    }
}

/// The body of `PATCH zones/ID`.
#[derive(Debug, Serialize)]
pub(crate) struct Patch<'a> {
    rrsets: [Change<'a>; 1],
}

#[derive(Debug, Serialize)]
struct Change<'a> {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    changetype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
    #[serde(skip_serializing_if = "<[Record]>::is_empty")]
    records: &'a [Record],
}

impl<'a> Patch<'a> {
    /// Makes `records` the whole TXT record set of `name`.
    pub(crate) fn replace(name: &str, ttl: u32, records: &'a [Record]) -> Self {
        let name = format!("{name}.");
        Self {
            rrsets: [Change { name, kind: "TXT", changetype: "REPLACE", ttl: Some(ttl), records }],
        }
    }

    /// Removes the TXT record set of `name`.
    pub(crate) fn delete(name: &str) -> Self {
        let name = format!("{name}.");
        let change = Change { name, kind: "TXT", changetype: "DELETE", ttl: None, records: &[] };
        Self { rrsets: [change] }
    }
}

/// The body of a failed request.
#[derive(Debug, Deserialize)]
pub(crate) struct ServerError {
    pub(crate) error: String,
}
