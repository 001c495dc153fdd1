//! A plugin's own `config:` against the JSON Schema that its component carries: each problem with
//! its place in the file, in words for a person who edits it. Values are never repeated, since they
//! may be anything.

use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value as Json;

use super::node::{Entry, Node, Place, Value};
use super::report::{nearest, quoted};

/// One thing that the schema does not allow.
#[derive(Debug)]
pub(super) struct Problem {
    /// Where.
    pub(super) at: Place,
    /// What.
    pub(super) message: String,
    /// What to write instead.
    pub(super) help: Option<String>,
}

/// Makes a schema ready for use. Nothing is fetched for it, and its patterns take linear time.
///
/// # Errors
/// When it is no JSON Schema, in a line.
pub(super) fn compile(schema: &Json) -> Result<Validator, String> {
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .offline()
        .build(schema)
        .map_err(|error| match error.instance_path().as_str() {
            "" => error.to_string(),
            path => format!("{error} (at {path})"),
        })
}

/// Everything in `config:` that `schema` does not allow. Without a `config:` that is what would be
/// missing in an empty one, reported at `key`, unless the schema takes nothing at all as well.
pub(super) fn problems(schema: &Json, config: Option<&Node>, key: Place) -> Vec<Problem> {
    // The manifest was refused if it did not compile.
    let Ok(validator) = compile(schema) else { return Vec::new() };
    let config = config.filter(|node| !matches!(node.value, Value::Null));
    let json = match config {
        Some(node) => node.value.to_json(),
        None if validator.is_valid(&Json::Null) => return Vec::new(),
        None => Json::Object(serde_json::Map::new()),
    };
    let mut walk = Walk { schema, config, key, found: Vec::new() };
    for error in validator.iter_errors(&json).take(PROBLEMS_MAX) {
        walk.error(&error, DEPTH_MAX);
    }
    walk.found
}

struct Walk<'a> {
    schema: &'a Json,
    config: Option<&'a Node>,
    key: Place,
    found: Vec<Problem>,
}

impl Walk<'_> {
    fn error(&mut self, error: &ValidationError<'_>, depth: usize) {
        let path = error.instance_path().as_str();
        let node = self.config.and_then(|node| below(node, path));
        let at = node.map_or(self.key, |node| node.at);
        let place = dotted(path);
        let (message, help) = match error.kind() {
            Kind::AdditionalProperties { unexpected }
            | Kind::UnevaluatedProperties { unexpected } => {
                for key in unexpected {
                    self.unknown(error, node, at, &place, key);
                }
                return;
            }
            Kind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let help = self.describe_property(error, name);
                (format!("the key `{name}` is missing in `{place}`"), help)
            }
            Kind::Type { .. } => {
                let wanted = self.keyword(error).map(types).unwrap_or_default();
                let found = node.map_or("nothing", |node| node.value.name());
                (format!("expected {wanted} in `{place}`, found {found}"), self.describe(error))
            }
            Kind::Enum { options } => {
                let words: Vec<&str> =
                    options.as_array().into_iter().flatten().filter_map(Json::as_str).collect();
                let near = match node.map(|node| &node.value) {
                    Some(Value::Text(text)) => nearest(text, words.iter().copied()),
                    _ => None,
                };
                let all: Vec<String> =
                    options.as_array().into_iter().flatten().map(shown).collect();
                let help = near.map(|near| format!("did you mean {near:?}?"));
                (format!("expected one of {} in `{place}`", all.join(", ")), help)
            }
            Kind::Constant { expected_value } => {
                (format!("expected {} in `{place}`", shown(expected_value)), None)
            }
            Kind::Pattern { pattern } => {
                let message = format!("the text in `{place}` does not match {}", quoted(pattern));
                (message, self.describe(error))
            }
            Kind::Not { schema } => match required(schema).as_slice() {
                [] => (format!("what is in `{place}` is not allowed"), self.describe(error)),
                keys => {
                    let keys = backticked(keys);
                    (format!("`{place}` cannot have {keys} at once"), Some("keep one".to_owned()))
                }
            },
            Kind::OneOfMultipleValid { .. } => {
                let here = |key: &&str| node.is_some_and(|node| entry(node, key).is_some());
                let keys: Vec<&str> = self.alternatives(error).into_iter().filter(here).collect();
                match keys.as_slice() {
                    [] => (format!("`{place}` is of several kinds at once"), self.describe(error)),
                    keys => {
                        let keys = backticked(keys);
                        let message = format!("`{place}` cannot have {keys} at once");
                        (message, Some("keep one".to_owned()))
                    }
                }
            }
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
                return self.branches(error, context, at, &place, depth);
            }
            _ => {
                let text = error.masked_with("the value").to_string();
                (format!("{} in `{place}`", text.trim_end_matches('.')), self.describe(error))
            }
        };
        self.found.push(Problem { at, message, help });
    }

    /// None of several forms fits: says what they have in common, or follows the one that was
    /// probably meant.
    fn branches(
        &mut self,
        error: &ValidationError<'_>,
        context: &[Vec<ValidationError<'static>>],
        at: Place,
        place: &str,
        depth: usize,
    ) {
        let keys = self.alternatives(error);
        if !keys.is_empty() {
            let message = format!("one of {} is missing in `{place}`", backticked(&keys));
            let help = self.describe(error);
            self.found.push(Problem { at, message, help });
            return;
        }
        let here = error.instance_path().as_str();
        let is_type = |error: &ValidationError<'_>| {
            matches!(error.kind(), Kind::Type { .. }) && error.instance_path().as_str() == here
        };
        let fitting = context.iter().filter(|branch| !branch.iter().any(is_type));
        match fitting.min_by_key(|branch| branch.len()) {
            Some(branch) if depth > 0 => {
                for error in branch {
                    self.error(error, depth - 1);
                }
            }
            _ => {
                let wanted: Vec<String> = context
                    .iter()
                    .flatten()
                    .filter(|error| is_type(error))
                    .filter_map(|error| self.keyword(error).map(types))
                    .collect();
                let message = format!("expected {} in `{place}`", wanted.join(", or "));
                let help = self.describe(error);
                self.found.push(Problem { at, message, help });
            }
        }
    }

    fn unknown(
        &mut self,
        error: &ValidationError<'_>,
        node: Option<&Node>,
        at: Place,
        place: &str,
        key: &str,
    ) {
        let at = node.and_then(|node| entry(node, key)).map_or(at, |entry| entry.at);
        let known: Vec<&str> = match self.parent(error).and_then(|schema| schema.get("properties"))
        {
            Some(Json::Object(properties)) => properties.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        let help = match nearest(key, known.iter().copied()) {
            Some(near) => Some(format!("did you mean {near:?}?")),
            None if known.is_empty() => None,
            None => Some(format!("the keys here are: {}", known.join(", "))),
        };
        let message = format!("unknown key {} in `{place}`", quoted(key));
        self.found.push(Problem { at, message, help });
    }

    /// The value of the keyword that an error is about.
    fn keyword(&self, error: &ValidationError<'_>) -> Option<&Json> {
        self.schema.pointer(error.schema_path().as_str())
    }

    /// The schema that has that keyword.
    fn parent(&self, error: &ValidationError<'_>) -> Option<&Json> {
        let (parent, _) = error.schema_path().as_str().rsplit_once('/')?;
        self.schema.pointer(parent)
    }

    /// What the schema's author says about the value.
    fn describe(&self, error: &ValidationError<'_>) -> Option<String> {
        let text = self.parent(error)?.get("description")?.as_str()?;
        Some(text.to_owned())
    }

    fn describe_property(&self, error: &ValidationError<'_>, name: &str) -> Option<String> {
        let property = self.parent(error)?.get("properties")?.get(name)?;
        let text = property.get("description")?.as_str()?;
        Some(format!("{name}: {text}"))
    }

    /// The keys of alternatives that are told apart by one required key each; empty when they are
    /// not.
    fn alternatives(&self, error: &ValidationError<'_>) -> Vec<&str> {
        let Some(Json::Array(branches)) = self.keyword(error) else { return Vec::new() };
        let mut keys = Vec::new();
        for branch in branches {
            match (branch.as_object().map(serde_json::Map::len), required(branch).as_slice()) {
                (Some(1), [key]) => keys.push(*key),
                _ => return Vec::new(),
            }
        }
        keys
    }
}

/// The node at a JSON Pointer.
fn below<'n>(node: &'n Node, pointer: &str) -> Option<&'n Node> {
    let Some(pointer) = pointer.strip_prefix('/') else { return Some(node) };
    pointer.split('/').try_fold(node, |node, segment| match &node.value {
        Value::List(items) => items.get(segment.parse::<usize>().ok()?),
        Value::Map(_) => entry(node, &unescaped(segment)).map(|entry| &entry.node),
        _ => None,
    })
}

fn entry<'n>(node: &'n Node, key: &str) -> Option<&'n Entry> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
        _ => None,
    }
}

/// A JSON Pointer as it is said elsewhere in these messages: `config.rules[2].path`.
fn dotted(pointer: &str) -> String {
    let mut text = "config".to_owned();
    for segment in pointer.split('/').skip(1) {
        match segment.parse::<usize>() {
            Ok(index) => text.push_str(&format!("[{index}]")),
            Err(_) => {
                text.push('.');
                text.push_str(quoted(&unescaped(segment)).trim_matches('`'));
            }
        }
    }
    text
}

fn unescaped(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

/// The keys that a schema requires.
fn required(schema: &Json) -> Vec<&str> {
    let keys = schema.get("required").and_then(Json::as_array);
    keys.into_iter().flatten().filter_map(Json::as_str).collect()
}

fn backticked(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

/// What `type` asks for, in the words of the other messages.
fn types(keyword: &Json) -> String {
    let word = |name: &Json| match name.as_str().unwrap_or_default() {
        "string" => "text",
        "object" => "a mapping",
        "array" => "a list",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "null" => "nothing",
        _ => "something else",
    };
    match keyword {
        Json::Array(names) => names.iter().map(word).collect::<Vec<_>>().join(", or "),
        name => word(name).to_owned(),
    }
}

/// A value of the schema, as it is written in YAML.
fn shown(value: &Json) -> String {
    match value {
        Json::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    }
}

/// Problems of one `config:`, inclusive.
const PROBLEMS_MAX: usize = 32;
/// Forms inside forms that are followed.
const DEPTH_MAX: usize = 4;
