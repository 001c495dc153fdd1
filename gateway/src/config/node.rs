//! YAML as a tree in which every key and value knows its place.
//!
//! Serde stops at its first error; this tree takes any well-formed document, so that
//! [`super::check`] can walk it and find every error at once.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};

/// A place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// From 1; 0 when unknown.
    pub(super) line: u64,
    /// In characters, from 1; 0 when unknown.
    pub(super) column: u64,
    /// Bytes from the start of the text to the node, when known.
    pub(super) start: usize,
    /// Bytes of the node, quotes included; 0 when unknown.
    pub(super) length: usize,
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        let known = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        Self {
            line: location.line(),
            column: location.column(),
            start: known(location.span().byte_offset()),
            length: known(location.span().byte_len()),
        }
    }
}

/// A value and where it is.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it is used: for an alias, the alias.
    pub(super) at: Place,
    /// Where its text stands: for an alias, the anchored value.
    pub(super) text_at: Place,
    /// What it is.
    pub(super) value: Value,
}

/// What a node can be.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number with a fraction or exponent.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file; a key may occur twice.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The key's text.
    pub(super) key: String,
    /// Where the key is.
    pub(super) at: Place,
    /// Its value.
    pub(super) node: Node,
}

impl Value {
    /// What it is, for "found …". Never quotes more than a short scalar.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(true) => "`true`",
            Self::Bool(false) => "`false`",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// As JSON, for a plugin's own `config:`. Of a key that occurs twice the last one counts (the
    /// checker has refused the file by then).
    pub(super) fn to_json(&self) -> serde_json::Value {
        use serde_json::{Number, Value as Json};
        match self {
            Self::Null => Json::Null,
            Self::Bool(b) => Json::Bool(*b),
            Self::Int(n) => Number::from_i128(*n).map_or(Json::Null, Json::Number),
            Self::Float(f) => Number::from_f64(*f).map_or(Json::Null, Json::Number),
            Self::Text(t) => Json::String(t.clone()),
            Self::List(l) => Json::Array(l.iter().map(|n| n.value.to_json()).collect()),
            Self::Map(m) => {
                Json::Object(m.iter().map(|e| (e.key.clone(), e.node.value.to_json())).collect())
            }
        }
    }
}

/// Calls `found` with the first and the second entry of every key that occurs twice in one mapping.
pub(super) fn duplicates<'a>(node: &'a Node, found: &mut dyn FnMut(&'a Entry, &'a Entry)) {
    match &node.value {
        Value::List(list) => list.iter().for_each(|n| duplicates(n, found)),
        Value::Map(entries) => {
            let mut seen: HashMap<&str, &Entry> = HashMap::with_capacity(entries.len());
            for entry in entries {
                match seen.get(entry.key.as_str()) {
                    Some(first) => found(first, entry),
                    None => {
                        seen.insert(&entry.key, entry);
                    }
                }
                duplicates(&entry.node, found);
            }
        }
        _ => {}
    }
}

/// Why a text is no tree.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// Where reading stopped, as far as known.
    pub(super) at: Place,
    /// Why.
    pub(super) why: String,
    /// What may help.
    pub(super) help: Option<String>,
}

/// Reads one YAML document.
///
/// # Errors
/// The first syntax error, or the bound that the text exceeds.
pub(super) fn read(text: &str) -> Result<Node, Unreadable> {
    // Serde recurses, so give it a stack of known size whatever thread calls this.
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK_BYTES);
        let done = reader.spawn_scoped(scope, || parse(text)).map(|thread| thread.join());
        match done {
            Ok(Ok(parsed)) => parsed.map_err(|error| unreadable(&error)),
            Ok(Err(_)) => Err(Unreadable::because("the YAML library gave up on this file")),
            Err(error) => Err(Unreadable::because(&format!("cannot start a thread: {error}"))),
        }
    })
}

fn parse(text: &str) -> Result<Node, serde_yaml::Error> {
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_events: NODES_MAX * 3,
            max_nodes: NODES_MAX,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_documents: 2,
            max_aliases: 10_000,
            max_anchors: 10_000,
            max_merge_keys: 1_000,
            max_recorded_anchor_events: NODES_MAX * 3,
            max_recorded_anchor_bytes: BYTES_MAX * 2,
            max_total_scalar_bytes: BYTES_MAX * 2,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: NODES_MAX,
            max_replay_stack_depth: DEPTH_MAX,
        },
        // The checker reports every duplicate, with the place of the first.
        duplicate_keys: serde_yaml::options::DuplicateKeyPolicy::PassThrough,
        // `off` and `on` are words here, not truth values.
        strict_booleans: true,
        // `0755` and `1_000` mean different things to different readers: texts, then.
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        emit_comments: false,
        with_snippet: false,
    };
    serde_yaml::from_str_with_options(text, options)
}

impl Unreadable {
    fn because(why: &str) -> Self {
        Self { at: Place::default(), why: why.to_owned(), help: None }
    }
}

/// The library's errors in the words of this room.
fn unreadable(error: &serde_yaml::Error) -> Unreadable {
    use serde_yaml::Error as E;
    let error = error.without_snippet();
    let at = error.location().map(Place::from).unwrap_or_default();
    // The library ends its texts with its own words for the place.
    let full = error.to_string();
    let first = full.lines().next().unwrap_or_default();
    let plain = first.find(" at line ").and_then(|cut| first.get(..cut)).unwrap_or(first);
    let plain = plain.trim_end_matches([' ', ':', ',']);
    let (why, help) = match error {
        E::MultipleDocuments { .. } => {
            ("a second YAML document starts here", Some("one file holds one configuration"))
        }
        E::Budget { .. } => ("the file is nested too deeply or holds too many values", None),
        E::AliasReplayLimitExceeded { .. }
        | E::AliasReplayCounterOverflow { .. }
        | E::AliasExpansionLimitExceeded { .. }
        | E::AliasReplayStackDepthExceeded { .. } => {
            ("the aliases of this file expand to too many values", None)
        }
        E::AliasError { error, .. } => match error.without_snippet() {
            E::AliasReplayLimitExceeded { .. } | E::AliasReplayStackDepthExceeded { .. } => {
                ("the aliases of this file expand to too many values", None)
            }
            _ => (plain, None),
        },
        E::UnknownAnchor { .. } => (
            "no anchor of this name stands before this alias",
            Some("a value that starts with `*` must be in quotes, as in \"*.example.com\""),
        ),
        E::NullIntoString { .. } => ("a key is empty", None),
        E::Unexpected { expected: "string scalar", .. } => ("a key must be text", None),
        _ if plain.contains("recursion limit") => ("the file is nested too deeply", None),
        _ if plain.contains("mapping values are not allowed") => (
            "a `:` stands where no value can start",
            Some("check the indentation, and put a value that holds `: ` in quotes"),
        ),
        _ if plain.contains("illegal placement of ':'") => (
            "a `:` stands where no value can start",
            Some("is a `[`, `{` or quote before it left open?"),
        ),
        _ if plain.contains("did not find expected '-'") => (
            "this line is indented differently from the entries before it",
            Some("the keys of one entry start in the same column, to the right of its `-`"),
        ),
        _ if plain.contains("tabs disallowed") => {
            ("a tab is used for indentation", Some("YAML is indented by spaces"))
        }
        _ if plain.contains("did not find expected key") => (
            "this line is indented differently from the keys before it",
            Some("keys of one mapping start in the same column"),
        ),
        _ if plain.starts_with("unexpected character") => {
            (plain, Some("put a value that starts with a special character in quotes"))
        }
        _ => (plain, None),
    };
    Unreadable { at, why: why.to_owned(), help: help.map(str::to_owned) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { at: referenced.into(), text_at: defined.into(), value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Int(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Int(v.into()))
    }

    fn visit_i128<E>(self, v: i128) -> Result<Value, E> {
        Ok(Value::Int(v))
    }

    fn visit_u128<E: serde::de::Error>(self, v: u128) -> Result<Value, E> {
        i128::try_from(v).map(Value::Int).map_err(|_| E::custom("a number is too large"))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::Float(v))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Text(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::Text(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element::<Node>()? {
            list.push(node);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let node = map.next_value::<Node>()?;
            if entries.len() > NODES_MAX {
                return Err(A::Error::custom("a mapping has too many keys"));
            }
            entries.push(Entry { key: key.value, at: key.referenced.into(), node });
        }
        Ok(Value::Map(entries))
    }
}

/// The largest text that is read at all, in bytes, inclusive.
pub(super) const BYTES_MAX: usize = 4 << 20;
/// Lists, mappings and scalars in all, those that aliases repeat included.
const NODES_MAX: usize = 200_000;
/// Lists and mappings inside each other.
const DEPTH_MAX: usize = 32;
/// Enough for [`DEPTH_MAX`] in an unoptimised build, several times over.
const STACK_BYTES: usize = 16 << 20;
