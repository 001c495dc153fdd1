//! Values of fields: fixed texts, or texts with placeholders.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use witgate_sdk::{connection, field, request};

/// A value, ready to be written.
#[derive(Debug)]
pub(crate) enum Value {
    Fixed(String),
    Template(Vec<Part>),
}

/// A piece of a value.
#[derive(Debug)]
pub(crate) enum Part {
    Text(String),
    RequestId,
    ClientAddress,
    Host,
}

impl Value {
    pub(crate) fn fixed(text: &str) -> Self {
        Self::Fixed(text.to_owned())
    }

    /// Reads `text`: `{request-id}`, `{client-address}` and `{host}` are placeholders, `{{` and
    /// `}}` are braces.
    pub(crate) fn parse(text: &Text) -> Result<Self, String> {
        field::check_value(&text.0)?;
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text.0.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(at);
            literal.push_str(before);
            if let Some(tail) = after.strip_prefix("{{") {
                literal.push('{');
                rest = tail;
            } else if let Some(tail) = after.strip_prefix("}}") {
                literal.push('}');
                rest = tail;
            } else if let Some((name, tail)) =
                after.strip_prefix('{').and_then(|tail| tail.split_once('}'))
            {
                parts.push(Part::Text(core::mem::take(&mut literal)));
                parts.push(Part::named(name)?);
                rest = tail;
            } else {
                literal.push_str(after.get(..1).unwrap_or_default());
                rest = after.get(1..).unwrap_or_default();
            }
        }
        literal.push_str(rest);
        if parts.is_empty() {
            return Ok(Self::Fixed(literal));
        }
        parts.push(Part::Text(literal));
        Ok(Self::Template(parts))
    }

    /// Hands the value of this exchange to `write`; a fixed one without a copy.
    pub(crate) fn with(&self, write: impl FnOnce(&str)) {
        match self {
            Self::Fixed(text) => write(text),
            Self::Template(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Text(piece) => text.push_str(piece),
                        Part::RequestId => text.push_str(&request::id()),
                        Part::ClientAddress => text.push_str(&connection::client_address()),
                        Part::Host => text.push_str(&request::hostname()),
                    }
                }
                write(&text);
            }
        }
    }
}

impl Part {
    fn named(name: &str) -> Result<Self, String> {
        match name {
            "request-id" => Ok(Self::RequestId),
            "client-address" => Ok(Self::ClientAddress),
            "host" => Ok(Self::Host),
            _ => Err(format!(
                "unknown placeholder `{{{name}}}`: there are {{request-id}}, {{client-address}} \
                 and {{host}}; write `{{{{` for a brace"
            )),
        }
    }
}

/// A text in YAML, where `x-xss-protection: 0` is a number.
#[derive(Debug)]
pub(crate) struct Text(pub(crate) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl Visitor<'_> for TextVisitor {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number or a boolean")
            }
            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
            fn visit_bool<E>(self, is_true: bool) -> Result<Text, E> {
                Ok(Text(is_true.to_string()))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// One text or a list of them.
#[derive(Debug)]
pub(crate) struct OneOrMany(Vec<Text>);

impl OneOrMany {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Text> {
        self.0.iter()
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = OneOrMany;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }
            fn visit_str<E>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(Vec::from([Text(text.to_owned())])))
            }
            fn visit_u64<E>(self, number: u64) -> Result<OneOrMany, E> {
                Ok(OneOrMany(Vec::from([Text(number.to_string())])))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMany(texts))
            }
        }
        deserializer.deserialize_any(ListVisitor)
    }
}
