//! `config:` as it is written.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

/// The whole of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// In the order in which they are tried. None at all is allowed, since each site that uses the
    /// plugin may bring its own.
    #[serde(default)]
    pub(crate) rules: Vec<RawRule>,
}

/// One rule: conditions, all of which must hold, and one action.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawRule {
    pub(crate) hosts: Vec<String>,
    pub(crate) path: Option<String>,
    pub(crate) exact: Option<String>,
    pub(crate) methods: Vec<String>,
    pub(crate) headers: BTreeMap<String, Expected>,
    pub(crate) query: BTreeMap<String, Expected>,

    pub(crate) upstream: Option<String>,
    pub(crate) upstreams: Option<BTreeMap<String, u32>>,
    pub(crate) by: Option<String>,
    pub(crate) redirect: Option<RawRedirect>,
    pub(crate) respond: Option<RawRespond>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRedirect {
    #[serde(default = "permanent")]
    pub(crate) status: u16,
    pub(crate) to: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRespond {
    #[serde(default = "ok")]
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) body: String,
}

/// What a field or parameter must be: present (`true`), absent (`false`), or of this value. A
/// number is taken as its text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Expected {
    Present(bool),
    Number(i64),
    Value(String),
}

fn permanent() -> u16 {
    308
}

fn ok() -> u16 {
    200
}
