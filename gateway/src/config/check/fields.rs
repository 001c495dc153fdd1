//! Readers of single values: each says what it expected and what it found.

use std::time::Duration;

use super::super::keys::{self, Default as KeyDefault};
use super::super::node::{self, Entry, Node, Place, Value};
use super::super::report::{nearest, quoted};
use super::super::{SecretRef, SecretText, units};
use super::{Checker, child, list};

/// The entries of one mapping, known keys only.
pub(super) struct Fields<'a> {
    /// The mapping's path in the table of keys.
    path: String,
    /// Where the mapping is.
    pub(super) at: Place,
    entries: Vec<&'a Entry>,
    /// Known keys that unknown ones were probably meant to be: no need to report them as missing.
    meant: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// A mapping without keys, so that every reader takes its default.
    pub(super) fn empty(path: &str, at: Place) -> Self {
        Self { path: path.to_owned(), at, entries: Vec::new(), meant: Vec::new() }
    }

    /// Whether an unknown key was probably meant to be this one.
    pub(super) fn is_meant(&self, key: &str) -> bool {
        self.meant.contains(&key)
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entry(key).map(|e| &e.node)
    }

    /// A key with its place and value.
    pub(super) fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.iter().copied().find(|e| e.key == key)
    }

    /// The entries with other keys.
    pub(super) fn others(&self, keys: &[&str]) -> Vec<&'a Entry> {
        self.entries.iter().copied().filter(|entry| !keys.contains(&entry.key.as_str())).collect()
    }

    fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }
}

impl<'a> Checker<'a> {
    /// The fields of a mapping whose keys the table lists below `path`. Reports other keys, and
    /// keys without a value.
    pub(super) fn fields(&mut self, node: &'a Node, path: &str) -> Option<Fields<'a>> {
        let path = keys::canonical(path);
        let known = keys::below(path);
        let Value::Map(entries) = &node.value else {
            let place = if path.is_empty() { String::new() } else { format!(" ({path})") };
            let message = format!("expected a mapping{place}, found {}", node.value.name());
            self.error(node.at, message, format!("its keys are: {}", list(&known)));
            return None;
        };
        let mut fields = Fields::empty(path, node.at);
        for entry in entries {
            match known.contains(&entry.key.as_str()) {
                false => fields.meant.extend(self.unknown_key(entry, path, &known)),
                true if fields.entry(&entry.key).is_some() => {}
                true if matches!(entry.node.value, Value::Null)
                    && !matches!(entry.key.as_str(), "config") =>
                {
                    fields.meant.extend(known.iter().find(|k| **k == entry.key));
                    let message = format!("{} has no value", quoted(&entry.key));
                    self.error(entry.at, message, "give it one, or remove the key".to_owned());
                }
                true => fields.entries.push(entry),
            }
        }
        Some(fields)
    }

    /// Reports a key that the table does not know here; returns the one that was probably meant.
    fn unknown_key(
        &mut self,
        entry: &Entry,
        path: &str,
        known: &[&'static str],
    ) -> Option<&'static str> {
        let key = entry.key.as_str();
        let place = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
        let message = format!("unknown key {}{place}", quoted(key));
        let renamed = RENAMED.iter().find(|(other, ours)| *other == key && known.contains(ours));
        let meant = nearest(key, known.iter().copied()).or(renamed.map(|(_, ours)| *ours));
        let ends = |p: &str| p.rsplit('.').next() == Some(key);
        let elsewhere: Vec<&str> = keys::KEYS.iter().map(|k| k.path).filter(|p| ends(p)).collect();
        let part = known.iter().copied().find(|part| {
            let inside =
                if path.is_empty() { (*part).to_owned() } else { format!("{path}.{part}") };
            keys::below(&inside).contains(&key)
        });
        let help = match (meant, elsewhere.as_slice()) {
            (Some(meant), _) => format!("did you mean {meant:?}?"),
            (None, _) if path == "sites[].certificate" && ["certificate", "key"].contains(&key) => {
                "list the files under `certificates.files`, and write `certificate: files` here"
                    .to_owned()
            }
            (None, _) if let Some(part) = part => {
                format!("it belongs one level down: `{part}: {{{key}: …}}`")
            }
            (None, [top, ..]) if *top == key => {
                format!("`{key}` is a key of the file itself, not of a part of it")
            }
            (None, [only]) => format!("there is `{only}`; the keys here are: {}", list(known)),
            (None, _) => format!("the keys here are: {}", list(known)),
        };
        self.error(entry.at, message, help);
        meant
    }

    /// The node of a key that must be there.
    pub(super) fn required(&mut self, fields: &Fields<'a>, key: &str) -> Option<&'a Node> {
        let found = fields.get(key);
        // A key without a value has been reported.
        if found.is_none() && !fields.is_meant(key) {
            let doc = keys::find(&fields.path_of(key)).map_or("", |k| k.doc);
            let place = if fields.path.is_empty() { "the file" } else { fields.path.as_str() };
            let message = format!("the key `{key}` is missing in `{place}`");
            let message = message.replace("`the file`", "the file");
            self.error(
                fields.at,
                message,
                Some(format!("{key}: {doc}")).filter(|_| !doc.is_empty()),
            );
        }
        found
    }

    /// Reads a key with `read`, or its default from the table when it is absent or wrong.
    pub(super) fn with_default<T>(
        &mut self,
        fields: &Fields<'a>,
        key: &str,
        mut read: impl FnMut(&mut Self, &Node) -> Option<T>,
    ) -> Option<T> {
        if let Some(node) = fields.get(key)
            && let Some(value) = read(self, node)
        {
            return Some(value);
        }
        let path = fields.path_of(key);
        let Some(KeyDefault::Is(text)) = keys::find(&path).map(|k| k.default) else {
            self.error(fields.at, format!("the table of keys has no default for `{path}`"), None);
            return None;
        };
        // Defaults are texts of the program; a test reads them all.
        let node = node::read(text).ok()?;
        read(self, &node)
    }

    /// Text; `what` completes "expected …".
    pub(super) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            other => {
                let help = match other {
                    Value::Bool(_) | Value::Int(_) | Value::Float(_) => self
                        .written(node)
                        .map(|t| format!("as text it is written in quotes: \"{t}\"")),
                    _ => None,
                };
                self.error(node.at, format!("expected {what}, found {}", other.name()), help);
                None
            }
        }
    }

    /// Text that is not empty and stays on one line.
    pub(super) fn line<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        let text = self.text(node, what)?;
        if text.is_empty() {
            self.error(node.at, format!("expected {what}, found an empty text"), None);
            return None;
        }
        if text.chars().any(char::is_control) {
            let message = format!("expected {what}, found a text with a control character");
            self.error(node.at, message, None);
            return None;
        }
        Some(text)
    }

    /// Text that stays on one line, under a key that may be absent.
    pub(super) fn optional_line(
        &mut self,
        fields: &Fields<'a>,
        key: &str,
        what: &str,
    ) -> Option<String> {
        fields.get(key).and_then(|n| self.line(n, what)).map(str::to_owned)
    }

    /// A file's path, under a key that may be absent.
    pub(super) fn optional_path(
        &mut self,
        fields: &Fields<'a>,
        key: &str,
    ) -> Option<std::path::PathBuf> {
        fields.get(key).and_then(|n| self.path(n))
    }

    /// A file's path, made absolute by the folder of the configuration.
    pub(super) fn path(&mut self, node: &Node) -> Option<std::path::PathBuf> {
        let text = self.line(node, "a path")?;
        if text.contains("://") {
            let message = format!("expected a path, found the URL {}", quoted(text));
            self.error(node.at, message, "only files of this machine can be used".to_owned());
            return None;
        }
        Some(self.resolve(text))
    }

    pub(super) fn bool(&mut self, node: &Node) -> Option<bool> {
        match &node.value {
            Value::Bool(b) => Some(*b),
            other => {
                let help = match other {
                    Value::Text(t) if ["yes", "on", "y"].contains(&t.to_lowercase().as_str()) => {
                        Some("write `true`".to_owned())
                    }
                    Value::Text(t) if ["no", "off", "n"].contains(&t.to_lowercase().as_str()) => {
                        Some("write `false`".to_owned())
                    }
                    _ => None,
                };
                let found = self.found(node);
                self.error(node.at, format!("expected true or false, found {found}"), help);
                None
            }
        }
    }

    /// A whole number from `min` to `max`, inclusive.
    pub(super) fn number(&mut self, node: &Node, min: u64, max: u64) -> Option<u64> {
        let bounds = match max {
            _ if max >= i64::MAX as u64 => format!("of at least {min}"),
            _ => format!("from {min} to {max}"),
        };
        if let Value::Int(n) = node.value
            && let Ok(n) = u64::try_from(n)
            && (min..=max).contains(&n)
        {
            return Some(n);
        }
        let found = self.found(node);
        let message = format!("expected a whole number {bounds}, found {found}");
        self.error(node.at, message, None);
        None
    }

    /// The value of a scalar, or what it is.
    fn found(&self, node: &Node) -> String {
        match (&node.value, self.written(node)) {
            (Value::Text(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_), Some(t)) => {
                quoted(t)
            }
            (value, _) => value.name().to_owned(),
        }
    }

    /// A duration; zero only where `may_be_zero`.
    pub(super) fn duration(&mut self, node: &Node, may_be_zero: bool) -> Option<Duration> {
        let text = match &node.value {
            Value::Text(text) => text.clone(),
            Value::Int(n) => n.to_string(),
            _ => String::new(),
        };
        match units::duration(&text) {
            Some(Duration::ZERO) if !may_be_zero => {
                self.error(node.at, "expected a duration longer than zero", None);
                None
            }
            Some(duration) => Some(duration),
            None => {
                let found = self.found(node);
                let meant = units::duration_meant(&text).filter(|m| units::duration(m).is_some());
                let is_bare = matches!(node.value, Value::Int(_));
                let help = match meant {
                    Some(meant) if is_bare => {
                        format!("a unit is missing: did you mean `{meant}` or `{text}ms`?")
                    }
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => {
                        "a number and ms, s, m, h or d, such as 20ms or 5s, up to 366d".to_owned()
                    }
                };
                self.error(node.at, format!("expected a duration, found {found}"), help);
                None
            }
        }
    }

    /// A size in bytes from `min` to `max`, inclusive.
    pub(super) fn size(&mut self, node: &Node, min: u64, max: u64) -> Option<u64> {
        let text = match &node.value {
            Value::Text(text) => text.clone(),
            Value::Int(n) => n.to_string(),
            _ => String::new(),
        };
        let found = self.found(node);
        match units::size(&text) {
            Some(size) if (min..=max).contains(&size) => Some(size),
            Some(_) => {
                let (min, max) = (units::size_text(min), units::size_text(max));
                let message = format!("expected a size from {min} to {max}, found {found}");
                self.error(node.at, message, None);
                None
            }
            None => {
                let help = match units::size_meant(&text) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => "a number and B, KiB, MiB, GiB, KB, MB or GB, such as 16MiB".to_owned(),
                };
                self.error(node.at, format!("expected a size, found {found}"), help);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Clone>(&mut self, node: &Node, words: &[(&'static str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        // `off` is a word, but `false` is what other programs make of it.
        let text = match &node.value {
            Value::Text(text) => text.as_str(),
            Value::Bool(false) => "off",
            _ => "",
        };
        if let Some((_, value)) = words.iter().find(|(name, _)| *name == text) {
            return Some(value.clone());
        }
        let found = self.found(node);
        let help =
            nearest(text, names.iter().copied()).map(|near| format!("did you mean {near:?}?"));
        let expected = match names.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => String::new(),
        };
        self.error(node.at, format!("expected {expected}, found {found}"), help);
        None
    }

    /// The entries of a list; `what` completes "expected a list of …".
    pub(super) fn list<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        match &node.value {
            Value::List(list) => list,
            other => {
                // One text can stand for a list of texts, not for a list of mappings.
                let are_maps = ["sites", "routes"].contains(&what) || what.starts_with('{');
                let is_text = !matches!(other, Value::Map(_)) && !are_maps;
                let help = self.written(node).filter(|_| is_text);
                let help = help.map(|t| format!("write a list: [{t}]"));
                self.error(
                    node.at,
                    format!("expected a list of {what}, found {}", other.name()),
                    help,
                );
                &[]
            }
        }
    }

    /// The entries of a list under a key that may be absent.
    pub(super) fn list_of(&mut self, fields: &Fields<'a>, key: &str, what: &str) -> &'a [Node] {
        fields.get(key).map_or(&[], |n| self.list(n, what))
    }

    /// The fields of a mapping under a key that may be absent; an absent one is an empty mapping.
    pub(super) fn part(&mut self, fields: &Fields<'a>, key: &str) -> Fields<'a> {
        let path = fields.path_of(key);
        let found = fields.get(key).and_then(|n| self.fields(n, &path));
        found.unwrap_or_else(|| Fields::empty(&path, fields.at))
    }

    /// The entries of a mapping from names of the file's choice, each name checked.
    pub(super) fn named(&mut self, fields: &Fields<'a>, key: &str) -> Vec<&'a Entry> {
        let Some(node) = fields.get(key) else { return Vec::new() };
        let Value::Map(entries) = &node.value else {
            let message = format!("expected a mapping of names, found {}", node.value.name());
            self.error(node.at, message, format!("as in `{key}: {{NAME: …}}`"));
            return Vec::new();
        };
        for entry in entries {
            if !super::is_name(&entry.key) {
                let message = format!("{} is not a name", quoted(&entry.key));
                let help = "use up to 64 letters, digits, `-`, `_` and `.`".to_owned();
                self.error(entry.at, message, help);
            }
        }
        entries.iter().collect()
    }

    /// A secret's source: a mapping with exactly one of `env`, `file` and `credential` (its other
    /// keys are the caller's), or the secret itself, which is warned about.
    pub(super) fn secret(&mut self, node: &'a Node, path: &str) -> Option<SecretRef> {
        let sources = "{env: VARIABLE}, {file: PATH} or {credential: NAME}";
        match &node.value {
            Value::Text(text) if !text.is_empty() => {
                self.hide(node);
                let message = "a secret is written in the file itself";
                self.warning(node.at, message, format!("better: {sources}"));
                return Some(SecretRef::Inline(SecretText::new(text.clone())));
            }
            Value::Map(_) => {}
            _ => {
                self.hide(node);
                let message = format!("expected where the secret is, found {}", node.value.name());
                self.error(node.at, message, format!("write {sources}"));
                return None;
            }
        }
        let fields = self.fields(node, path)?;
        let given: Vec<&'static str> =
            ["env", "file", "credential"].into_iter().filter(|k| fields.get(k).is_some()).collect();
        match given.as_slice() {
            ["env"] => {
                let name = self.line(fields.get("env")?, "the name of an environment variable")?;
                if name.contains(['=', '$', ' ']) {
                    let message = format!("{} is not the name of a variable", quoted(name));
                    let bare = name.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                    self.error(fields.get("env")?.at, message, format!("did you mean {bare:?}?"));
                }
                Some(SecretRef::Env(name.to_owned()))
            }
            ["file"] => self.path(fields.get("file")?).map(SecretRef::File),
            ["credential"] => {
                let node = fields.get("credential")?;
                let name = self.line(node, "the name of a systemd credential")?;
                if name.contains('/') || name == "." || name == ".." {
                    let message = format!("{} is not the name of a credential", quoted(name));
                    let help = "it is the part before the `:` of LoadCredential=".to_owned();
                    self.error(node.at, message, help);
                }
                Some(SecretRef::Credential(name.to_owned()))
            }
            [] => {
                // An unknown key has been reported, and says enough.
                let has_others = child(node, "hosts").is_some() || fields.entries.is_empty();
                if has_others {
                    let message = "it is not said where the secret is";
                    self.error(node.at, message, format!("write {sources}"));
                }
                None
            }
            _ => {
                let message = format!("a secret has one source, here are: {}", list(&given));
                self.error(node.at, message, format!("keep one of {sources}"));
                None
            }
        }
    }
}

/// What other programs call our keys.
const RENAMED: &[(&str, &str)] = &[
    ("domain", "hosts"),
    ("domains", "hosts"),
    ("hostname", "hosts"),
    ("server_name", "hosts"),
    ("names", "hosts"),
    ("backend", "upstream"),
    ("proxy", "upstream"),
    ("proxy_pass", "upstream"),
    ("reverse_proxy", "upstream"),
    ("service", "upstream"),
    ("target", "upstream"),
    ("backends", "upstreams"),
    ("services", "upstreams"),
    ("clusters", "upstreams"),
    ("middlewares", "filters"),
    ("middleware", "filters"),
    ("plugins", "filters"),
    ("tls", "certificate"),
    ("ssl", "certificate"),
    ("cert", "certificate"),
    ("tls", "certificates"),
    ("acme", "certificates"),
    ("email", "contact"),
    ("ca", "issuers"),
    ("issuer", "issuers"),
    ("server", "directory"),
    ("prefix", "path"),
    ("location", "path"),
    ("url", "servers"),
    ("urls", "servers"),
    ("endpoints", "servers"),
    ("lb_policy", "balance"),
    ("policy", "balance"),
    ("healthcheck", "health"),
    ("health_check", "health"),
    ("sni", "server-name"),
    ("pass-host-header", "preserve-host"),
    ("file", "component"),
    ("wasm", "component"),
    ("settings", "config"),
    ("options", "config"),
    ("permissions", "grants"),
    ("logging", "log"),
    ("entrypoints", "listen"),
    ("bind", "listen"),
    ("threads", "workers"),
    ("code", "status"),
    ("location", "to"),
    ("url", "to"),
    ("text", "body"),
    ("dns", "dns-01"),
    ("plugin", "dns-01"),
    ("provider", "dns-01"),
    ("hmac", "key"),
    ("hmac-key", "key"),
];
