//! The files of `witgate plugin test`: requests, and what a plugin is to make of them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Json;

use super::{Loaded, Manifest, Report};

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Cases {
    /// The plugin's stanza as in `gateway.yaml`, without its component.
    #[serde(default)]
    pub plugin: BTreeMap<String, Json>,
    /// Upstreams that a router may choose.
    #[serde(default)]
    pub upstreams: Vec<String>,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One request and what is to become of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// `config:` for this case instead of the stanza's.
    pub config: Option<Json>,
    /// The request; none when only loading is looked at.
    pub request: Option<CaseRequest>,
    /// The response that comes back, for filters that look at responses.
    pub response: Option<CaseHead>,
    /// What is expected.
    #[serde(default)]
    pub expect: Expected,
}

/// A request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CaseRequest {
    /// The method; GET if absent.
    pub method: Option<String>,
    /// An absolute URL.
    pub url: String,
    /// Fields.
    #[serde(default)]
    pub headers: BTreeMap<String, Texts>,
    /// The client's address.
    pub from: Option<std::net::IpAddr>,
    /// The body.
    #[serde(default)]
    pub body: String,
}

/// A response.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CaseHead {
    /// The status; 200 if absent.
    pub status: Option<u16>,
    /// Fields.
    #[serde(default)]
    pub headers: BTreeMap<String, Texts>,
    /// The body, in one piece or in several; without it there is none to ask for.
    pub body: Option<Texts>,
}

/// What is expected; what is left out is not looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expected {
    /// A part of the error with which it refuses its configuration.
    pub load_error: Option<String>,
    /// A part of the error with which a call ends.
    pub error: Option<String>,
    /// `continue`, `redirect`, `respond` or `upstream`.
    pub decision: Option<String>,
    /// The upstream that it chose.
    pub upstream: Option<String>,
    /// The status of a redirect or response that it decided, or of the response after it.
    pub status: Option<u16>,
    /// Where it redirects to.
    pub location: Option<String>,
    /// The body of the response that it decided.
    pub body: Option<String>,
    /// The request's body as the upstream gets it, when the plugin asked for it.
    pub request_body: Option<String>,
    /// The response's body as the client gets it, when the plugin asked for it.
    pub response_body: Option<String>,
    /// The request's method afterwards.
    pub method: Option<String>,
    /// The request's authority afterwards.
    pub authority: Option<String>,
    /// The request's path and query afterwards.
    pub target: Option<String>,
    /// Fields of the request afterwards; `null` for one that is to be absent.
    #[serde(default)]
    pub request_headers: BTreeMap<String, Option<Texts>>,
    /// Fields of the response afterwards, whoever made it.
    #[serde(default)]
    pub response_headers: BTreeMap<String, Option<Texts>>,
}

/// One text or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Texts {
    /// One.
    One(String),
    /// Several, in order.
    Several(Vec<String>),
}

impl Texts {
    /// All of them.
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(texts) => texts,
        }
    }
}

impl Cases {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or is no file of cases; says the line.
    pub fn load(path: &Path) -> Result<Self, Report> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| Report::whole(path, format!("cannot read the file: {cause}"), None))?;
        serde_yaml::from_str(&text).map_err(|error| {
            let plain = error.without_snippet().to_string();
            Report::whole(path, plain, None)
        })
    }

    /// A configuration with the component as its only plugin, called `plugin`, under the stanza and
    /// with `config` in place of the stanza's own.
    ///
    /// # Errors
    /// What is wrong with the stanza, one line each, without places in any file.
    pub fn stanza(
        &self,
        component: &Path,
        config: Option<&Json>,
    ) -> Result<super::PluginConfig, String> {
        let mut all: serde_json::Map<String, Json> = self.plugin.clone().into_iter().collect();
        if let Some(config) = config {
            all.insert("config".to_owned(), config.clone());
        }
        stanza(all, component)
    }
}

/// A plugin's stanza on its own, for the component at this path.
///
/// # Errors
/// What is wrong with it, one line each, without places in any file.
pub fn stanza(
    mut stanza: serde_json::Map<String, Json>,
    component: &Path,
) -> Result<super::PluginConfig, String> {
    stanza.insert("component".to_owned(), component.display().to_string().into());
    {
        // JSON is YAML. Nothing of the site is used.
        let whole = serde_json::json!({
            "sites": [{"hosts": ["test.localhost"], "upstream": "builtin:echo"}],
            "plugins": {"plugin": stanza},
        });
        let file = Path::new("gateway.yaml");
        let loaded = super::parse_with(&whole.to_string(), file, Path::new(""), &Manifest::of_file);
        match loaded {
            Ok(Loaded { mut config, .. }) => {
                config.plugins.remove("plugin").ok_or_else(|| "the stanza is empty".to_owned())
            }
            Err(report) => {
                let lines: Vec<String> = report
                    .diagnostics
                    .iter()
                    .filter(|found| found.severity == super::Severity::Error)
                    .map(|found| match &found.suggestion {
                        Some(help) => format!("{} ({help})", found.message),
                        None => found.message.clone(),
                    })
                    .collect();
                Err(lines.join("\n"))
            }
        }
    }
}
