//! As much XML as APIs of DNS providers speak: elements by name, without names of the same kind inside
//! each other. For answers that are trusted to be well-formed; what is not is not found.

use alloc::string::String;
use alloc::vec::Vec;

/// What stands between the tags of every element called `name`, in order, as it is written.
pub fn elements<'x>(xml: &'x str, name: &str) -> Vec<&'x str> {
    let mut found = Vec::new();
    let mut rest = xml;
    while let Some((_, from)) = rest.split_once('<') {
        let is_start = from.strip_prefix(name).filter(|after| after.starts_with(['>', ' ', '/']));
        let Some(after) = is_start else {
            rest = from;
            continue;
        };
        let Some((tag, inside)) = after.split_once('>') else { break };
        if tag.ends_with('/') {
            found.push("");
            rest = inside;
            continue;
        }
        let mut closing = String::from("</");
        closing.push_str(name);
        closing.push('>');
        let Some((inside, after)) = inside.split_once(closing.as_str()) else { break };
        found.push(inside);
        rest = after;
    }
    found
}

/// The text of the first element called `name`, unescaped.
pub fn text(xml: &str, name: &str) -> Option<String> {
    elements(xml, name).first().map(|inside| unescape(inside))
}

/// An attribute of the first element called `name`, unescaped.
pub fn attribute(xml: &str, name: &str, attribute: &str) -> Option<String> {
    tags(xml, name).first().and_then(|tag| attribute_of(tag, attribute))
}

/// What stands inside the opening tag of every element called `name`, after that name.
pub fn tags<'x>(xml: &'x str, name: &str) -> Vec<&'x str> {
    let mut found = Vec::new();
    for from in xml.split('<').skip(1) {
        let is_start = from.strip_prefix(name).filter(|after| after.starts_with(['>', ' ', '/']));
        found.extend(is_start.and_then(|after| after.split_once('>')).map(|(tag, _)| tag));
    }
    found
}

/// An attribute of an opening tag, unescaped.
pub fn attribute_of(tag: &str, attribute: &str) -> Option<String> {
    let mut rest = tag;
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = after.strip_prefix('"')?.split_once('"')?;
        if name.trim() == attribute {
            return Some(unescape(value));
        }
        rest = after;
    }
    None
}

/// Text for between two tags or in an attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Undoes [`escape`].
pub fn unescape(text: &str) -> String {
    let quotes = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    quotes.replace("&#34;", "\"").replace("&apos;", "'").replace("&#39;", "'").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_and_attributes_are_found() {
        let xml = r#"<?xml version="1.0"?><A xmlns="x"><Zone><Id>/z/1</Id><Zones/></Zone>
            <Zone a="b"><Id>2 &amp;&quot;</Id></Zone><host Name="@" Address="&lt;x&gt;" /></A>"#;
        let zones = elements(xml, "Zone");
        assert_eq!(zones.len(), 2);
        assert_eq!(text(zones[0], "Id").as_deref(), Some("/z/1"));
        assert_eq!(text(zones[1], "Id").as_deref(), Some("2 &\""));
        assert_eq!(elements(xml, "Zones"), [""]);
        assert_eq!(attribute(xml, "host", "Address").as_deref(), Some("<x>"));
        assert_eq!(attribute(xml, "host", "None"), None);
        assert_eq!(text(xml, "None"), None);
        assert_eq!(unescape(&escape("a<b>&\"c\"")), "a<b>&\"c\"");
    }
}
