//! Reads a plugin's `config:`; an error names the key it is about.

use alloc::format;
use alloc::string::{String, ToString};

use serde::de::DeserializeOwned;

/// Reads the JSON text of a configuration. `null`, which stands for an absent `config:`, reads like
/// an empty map unless the type takes `null` itself.
///
/// # Errors
/// A text for the operator that begins with the key's path, such as
/// `config.rules[2].methods: invalid type: string "GET", expected a sequence`.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    if text.trim() == "null" {
        return serde_json::from_str("null").or_else(|_| parse_text("{}"));
    }
    parse_text(text)
}

fn parse_text<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let json = &mut serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(json).map_err(|error| {
        let path = match error.path().to_string() {
            path if path == "." => "config".to_string(),
            path => format!("config.{path}"),
        };
        let reason = error.inner().to_string();
        // The place in the JSON text means nothing to somebody who wrote YAML.
        let reason = reason.rsplit_once(" at line ").map_or(reason.as_str(), |(text, _)| text);
        format!("{path}: {reason}")
    })
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(default)]
        rules: Vec<BTreeMap<String, u8>>,
    }

    #[test]
    fn an_error_names_the_path() {
        let error = parse::<Config>(r#"{"rules": [{"a": 1}, {"b": "two"}]}"#).unwrap_err();
        assert_eq!(error, "config.rules[1].b: invalid type: string \"two\", expected u8");
        let error = parse::<Config>(r#"{"rule": []}"#).unwrap_err();
        assert_eq!(error, "config.rule: unknown field `rule`, expected `rules`");
    }

    #[test]
    fn an_absent_configuration_is_an_empty_map() {
        assert!(parse::<Config>("null").unwrap().rules.is_empty());
        parse::<()>("null").unwrap();
    }
}
