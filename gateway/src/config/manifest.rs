//! `plugin.yaml`: what a plugin says about itself. It lies beside the plugin's source and travels in
//! a custom section of the component, so that a gateway can check a `config:` and show what a
//! plugin wants without running it.

use std::collections::BTreeMap;
use std::io::{BufReader, Cursor};
use std::path::Path;

use serde::Serialize;

use super::check::{field_name, http_grant};
use super::credential::{Session, Signing};
use super::guard::Guard;
use super::node::{self, Entry, Node, Place, Value};
use super::report::{Finding, Severity, Source, nearest, quoted};
use super::{BodyGrant, Diagnostic, FieldGrant, HeadGrant, Report, conform, section};

/// What a plugin says about itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// Its name, which need not be the one in `gateway.yaml`.
    pub name: String,
    /// Its version, for people.
    pub version: String,
    /// The worlds it is made for, such as `filter`.
    pub worlds: Vec<String>,
    /// Its licence as an SPDX expression.
    pub license: Option<String>,
    /// One line about it.
    pub description: Option<String>,
    /// What it wants to be granted.
    pub grants: Wanted,
    /// The secrets it uses, by the names of its placeholders.
    pub secrets: BTreeMap<String, WantedSecret>,
    /// Which of its requests may change what; none when it does not say.
    pub guard: Option<Guard>,
    /// How its requests are signed, by the names of its placeholders.
    pub signing: BTreeMap<String, Signing>,
    /// How its tokens are fetched, by the names of its placeholders.
    pub sessions: BTreeMap<String, Session>,
    /// The JSON Schema of its `config:`; none when it does not say.
    pub config: Option<serde_json::Value>,
}

/// What a plugin wants to be granted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Wanted {
    /// Patterns as in `plugins.*.grants.http`.
    pub http: Vec<String>,
    /// Names of secrets whose HMAC it uses.
    pub hmac: Vec<String>,
    /// What it does with heads of requests.
    pub request: WantedHead,
    /// What it does with heads of responses.
    pub response: WantedHead,
}

/// What a plugin does with the heads of one direction. What it says here it is held to; where it
/// says nothing, `gateway.yaml` alone decides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct WantedHead {
    /// Fields it reads.
    pub read: Option<FieldGrant>,
    /// Fields and other parts of the head that it changes.
    pub set: Option<FieldGrant>,
    /// What it does with bodies.
    pub body: Option<BodyGrant>,
}

impl WantedHead {
    /// What a plugin with these wishes may do where `gateway.yaml` gives it `given`.
    pub fn granted(&self, given: &HeadGrant) -> HeadGrant {
        let narrowed = |given: &FieldGrant, wanted: &Option<FieldGrant>| match wanted {
            Some(wanted) => given.narrowed(wanted),
            None => given.clone(),
        };
        HeadGrant {
            read: narrowed(&given.read, &self.read),
            set: narrowed(&given.set, &self.set),
            body: given.body.min(self.body.unwrap_or(given.body)),
        }
    }
}

/// A secret that a plugin uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WantedSecret {
    /// What it is, for the operator.
    pub description: Option<String>,
    /// Whether the plugin cannot work without it.
    pub required: bool,
    /// Whether most stanzas have it, though there is another way.
    pub usual: bool,
    /// Environment variables that other programs take it from, the usual one first.
    pub env: Vec<String>,
}

impl Manifest {
    /// Reads the text of a `plugin.yaml`, called `file` in messages.
    ///
    /// # Errors
    /// Everything that is wrong with it. Keys that this version does not know are only warned about.
    pub fn parse(text: &str, file: &Path) -> Result<(Self, Vec<Diagnostic>), Report> {
        let source = Source { file, text };
        let root = node::read(text).map_err(|error| source.unreadable(error))?;
        let mut reader = Reader::default();
        let manifest = reader.manifest(&root);
        let is_good = !reader.findings.iter().any(|f| f.severity == Severity::Error);
        let diagnostics = source.diagnostics(reader.findings, &[]);
        match is_good {
            true => Ok((manifest, diagnostics)),
            false => Err(Report { diagnostics, omitted: 0 }),
        }
    }

    /// The manifest inside a component; none when it carries none. `file` is what messages call
    /// the component.
    ///
    /// # Errors
    /// When what it carries is wrong.
    pub fn of_component(component: &[u8], file: &Path) -> Result<Option<Self>, Report> {
        let found = section::find(&mut Cursor::new(component), section::MANIFEST);
        Self::of_section(found, file)
    }

    /// As [`Manifest::of_component`], for a file. A file that is not there or is no component has
    /// none; loading it says what is wrong.
    ///
    /// # Errors
    /// When what it carries is wrong.
    pub fn of_file(file: &Path) -> Result<Option<Self>, Report> {
        let Ok(open) = std::fs::File::open(file) else { return Ok(None) };
        Self::of_section(section::find(&mut BufReader::new(open), section::MANIFEST), file)
    }

    fn of_section(
        found: std::io::Result<Option<Vec<u8>>>,
        file: &Path,
    ) -> Result<Option<Self>, Report> {
        let Ok(Some(bytes)) = found else { return Ok(None) };
        let inside = file.join("plugin.yaml");
        let Ok(text) = String::from_utf8(bytes) else {
            return Err(Report::whole(&inside, "it is not UTF-8".to_owned(), None));
        };
        Self::parse(&text, &inside).map(|(manifest, _)| Some(manifest))
    }
}

/// The component with the text of a `plugin.yaml` inside, in place of any that it carried, and what
/// the text says. `file` is what messages call the text.
///
/// # Errors
/// Everything that is wrong with the text, or that `component` is none.
pub fn embed(component: &[u8], text: &str, file: &Path) -> Result<(Vec<u8>, Manifest), Report> {
    let (manifest, warnings) = Manifest::parse(text, file)?;
    if !warnings.is_empty() {
        return Err(Report { diagnostics: warnings, omitted: 0 });
    }
    match section::put(component, section::MANIFEST, text.as_bytes()) {
        Ok(with) => Ok((with, manifest)),
        Err(cause) => {
            let message = format!("cannot be put into the component: {cause}");
            let help = "a component is made from a core module by `wasm-tools component new`";
            Err(Report::whole(file, message, Some(help.to_owned())))
        }
    }
}

/// Collects what is wrong on the way.
#[derive(Default)]
struct Reader {
    findings: Vec<Finding>,
}

impl Reader {
    fn manifest(&mut self, root: &Node) -> Manifest {
        node::duplicates(root, &mut |_, second| {
            self.error(second.at, format!("the key {} is here twice", quoted(&second.key)), "");
        });
        let entries = self.entries(root, KEYS);
        let text = |reader: &mut Self, key: &str| reader.text_of(entries, key);
        let name = text(self, "name");
        if let Some((_, at)) = name.as_ref().filter(|(name, _)| !super::check::is_name(name)) {
            let help = "letters, digits, `-`, `_` and `.`, at most 64";
            self.error(*at, "this is not a name for a plugin", help);
        }
        let [name, version] = ["name", "version"].map(|key| {
            let found = text(self, key);
            if entry(entries, key).is_none() {
                self.error(root.at, format!("the key `{key}` is missing"), "");
            }
            found.map(|(text, _)| text).unwrap_or_default()
        });
        Manifest {
            name,
            version,
            worlds: self.worlds(root, entries),
            license: text(self, "license").map(|(text, _)| text),
            description: text(self, "description").map(|(text, _)| text),
            grants: self.wanted(entries),
            secrets: self.secrets(entries),
            guard: self.guard(entries),
            signing: self.named(entries, "signing"),
            sessions: self.named(entries, "sessions"),
            config: self.schema(entries),
        }
    }

    fn worlds(&mut self, root: &Node, entries: &[Entry]) -> Vec<String> {
        let Some(entry) = entry(entries, "worlds") else {
            let help = "as in `worlds: [filter]`";
            self.error(root.at, "the key `worlds` is missing", help);
            return Vec::new();
        };
        let mut worlds = Vec::new();
        for (world, at) in self.texts(&entry.node) {
            if WORLDS.contains(&world.as_str()) {
                worlds.push(world);
            } else {
                let help = match nearest(&world, WORLDS.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("there are: {}", WORLDS.join(", ")),
                };
                self.find(Severity::Warning, at, format!("unknown world {}", quoted(&world)), help);
            }
        }
        worlds
    }

    fn wanted(&mut self, entries: &[Entry]) -> Wanted {
        let mut wanted = Wanted::default();
        let Some(grants) = entry(entries, "grants") else { return wanted };
        let grants = self.entries(&grants.node, GRANTS);
        if let Some(http) = entry(grants, "http") {
            for (pattern, at) in self.texts(&http.node) {
                match http_grant(&pattern) {
                    Ok(_) => wanted.http.push(pattern),
                    Err((message, help)) => self.error(at, message, &help.unwrap_or_default()),
                }
            }
        }
        if let Some(hmac) = entry(grants, "hmac") {
            wanted.hmac = self.texts(&hmac.node).into_iter().map(|(name, _)| name).collect();
        }
        wanted.request = self.head(grants, "request", &[":method", ":path", ":authority"]);
        wanted.response = self.head(grants, "response", &[":status"]);
        wanted
    }

    fn head(&mut self, grants: &[Entry], side: &str, parts: &[&str]) -> WantedHead {
        let Some(head) = entry(grants, side) else { return WantedHead::default() };
        let head = self.entries(&head.node, HEAD);
        let read = entry(head, "read").map(|entry| self.fields(&entry.node, &[]));
        let set = entry(head, "set").map(|entry| self.fields(&entry.node, parts));
        let body = entry(head, "body").and_then(|entry| self.body(&entry.node));
        WantedHead { read, set, body }
    }

    fn body(&mut self, node: &Node) -> Option<BodyGrant> {
        let word = match &node.value {
            Value::Text(text) => text.as_str(),
            _ => "",
        };
        let known = BodyGrant::WORDS.iter().find(|(known, _)| *known == word);
        if known.is_none() {
            self.error(node.at, "expected none, read or transform", "");
        }
        known.map(|(_, grant)| *grant)
    }

    fn fields(&mut self, node: &Node, parts: &[&str]) -> FieldGrant {
        let mut grant = FieldGrant { others: false, named: Vec::new() };
        for (name, at) in self.texts(node) {
            match field_name(&name, parts) {
                Ok(None) => grant.others = true,
                Ok(Some(name)) => grant.named.push(name),
                Err((message, help)) => self.error(at, message, &help.unwrap_or_default()),
            }
        }
        grant
    }

    fn secrets(&mut self, entries: &[Entry]) -> BTreeMap<String, WantedSecret> {
        let Some(secrets) = entry(entries, "secrets") else { return BTreeMap::new() };
        let Value::Map(secrets) = &secrets.node.value else {
            self.error(secrets.at, "expected a mapping from names of secrets", "");
            return BTreeMap::new();
        };
        let mut wanted = BTreeMap::new();
        for secret in secrets {
            let entries = self.entries(&secret.node, SECRET);
            let description = self.text_of(entries, "description").map(|(text, _)| text);
            let mut flag =
                |key: &str| match entry(entries, key).map(|it| (&it.node.value, it.node.at)) {
                    None => false,
                    Some((Value::Bool(flag), _)) => *flag,
                    Some((_, at)) => {
                        self.error(at, "expected true or false", "");
                        false
                    }
                };
            let (required, usual) = (flag("required"), flag("usual"));
            let env =
                entry(entries, "env").map(|entry| self.texts(&entry.node)).unwrap_or_default();
            let env = env.into_iter().map(|(name, _)| name).collect();
            let secret_wanted = WantedSecret { description, required, usual, env };
            wanted.insert(secret.key.clone(), secret_wanted);
        }
        wanted
    }

    fn guard(&mut self, entries: &[Entry]) -> Option<Guard> {
        let entry = entry(entries, "guard")?;
        match Guard::parse(&entry.node.value.to_json()) {
            Ok(guard) => Some(guard),
            Err(why) => {
                self.error(entry.at, format!("this is no guard: {why}"), "see docs/PLUGINS.md");
                None
            }
        }
    }

    /// A mapping from names to things that serde reads.
    fn named<T: serde::de::DeserializeOwned>(
        &mut self,
        entries: &[Entry],
        key: &str,
    ) -> BTreeMap<String, T> {
        let Some(found) = entry(entries, key) else { return BTreeMap::new() };
        let Value::Map(named) = &found.node.value else {
            self.error(found.at, format!("`{key}` is a mapping from names"), "");
            return BTreeMap::new();
        };
        let mut all = BTreeMap::new();
        for entry in named {
            match serde_json::from_value(entry.node.value.to_json()) {
                Ok(one) => drop(all.insert(entry.key.clone(), one)),
                Err(cause) => self.error(entry.at, cause.to_string(), "see docs/PLUGINS.md"),
            }
        }
        all
    }

    fn schema(&mut self, entries: &[Entry]) -> Option<serde_json::Value> {
        let entry = entry(entries, "config")?;
        let schema = entry.node.value.to_json();
        if let Err(why) = conform::compile(&schema) {
            let help = "`config` is the JSON Schema (2020-12) of the plugin's configuration";
            self.error(entry.at, format!("this is no JSON Schema: {why}"), help);
        }
        Some(schema)
    }

    /// The entries of a mapping; keys that are not `known` are warned about.
    fn entries<'n>(&mut self, node: &'n Node, known: &[&str]) -> &'n [Entry] {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            other => {
                self.error(node.at, format!("expected a mapping, found {}", other.name()), "");
                &[]
            }
        };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let help = match nearest(&entry.key, known.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("the keys here are: {}", known.join(", ")),
            };
            let message = format!("unknown key {}", quoted(&entry.key));
            self.find(Severity::Warning, entry.at, message, help);
        }
        entries
    }

    fn text_of(&mut self, entries: &[Entry], key: &str) -> Option<(String, Place)> {
        let node = &entry(entries, key)?.node;
        match &node.value {
            Value::Text(text) => Some((text.clone(), node.at)),
            other => {
                let message = format!("expected text, found {}", other.name());
                self.error(node.at, message, "put it in quotes");
                None
            }
        }
    }

    fn texts(&mut self, node: &Node) -> Vec<(String, Place)> {
        let Value::List(items) = &node.value else {
            self.error(node.at, format!("expected a list, found {}", node.value.name()), "");
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in items {
            match &item.value {
                Value::Text(text) => texts.push((text.clone(), item.at)),
                other => {
                    self.error(item.at, format!("expected text, found {}", other.name()), "");
                }
            }
        }
        texts
    }

    fn error(&mut self, at: Place, message: impl Into<String>, help: &str) {
        self.find(Severity::Error, at, message.into(), help.to_owned());
    }

    fn find(&mut self, severity: Severity, at: Place, message: String, help: String) {
        let suggestion = Some(help).filter(|help| !help.is_empty());
        self.findings.push(Finding { at, severity, message, suggestion });
    }
}

fn entry<'e>(entries: &'e [Entry], key: &str) -> Option<&'e Entry> {
    entries.iter().find(|entry| entry.key == key)
}

/// The keys of `plugin.yaml`.
const KEYS: &[&str] = &[
    "name",
    "version",
    "worlds",
    "license",
    "description",
    "grants",
    "secrets",
    "guard",
    "signing",
    "sessions",
    "config",
];
const GRANTS: &[&str] = &["http", "hmac", "request", "response"];
const HEAD: &[&str] = &["read", "set", "body"];
const SECRET: &[&str] = &["description", "required", "usual", "env"];
/// The worlds of the contract.
const WORLDS: &[&str] =
    &["router", "filter", "client-hello", "dns-solver", "issuance-policy", "access-log", "events"];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(Manifest, Vec<Diagnostic>), Report> {
        Manifest::parse(text, Path::new("plugin.yaml"))
    }

    #[test]
    fn every_plugin_of_the_house_describes_itself() {
        let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
        let mut seen = 0;
        for folder in std::fs::read_dir(plugins).unwrap() {
            let file = folder.unwrap().path().join("plugin.yaml");
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            let (manifest, warnings) = Manifest::parse(&text, &file).unwrap();
            assert!(warnings.is_empty(), "{warnings:?}");
            assert!(manifest.config.is_some() && manifest.license.is_some(), "{manifest:?}");
            seen += 1;
        }
        assert!(seen >= 4);
    }

    #[test]
    fn mistakes_are_found_at_their_places() {
        let report = parse(
            "name: a b\nworlds: [filtre]\ngrants: {http: [example.com]}\n\
             secrets: {t: {required: maybe}}\nconfig: {type: nonsense}\nlicence: MIT\n",
        )
        .unwrap_err();
        let places: Vec<_> =
            report.diagnostics.iter().map(|d| (d.line, d.column, d.message.as_str())).collect();
        assert_eq!(
            places.iter().map(|(line, column, _)| (*line, *column)).collect::<Vec<_>>(),
            [(1, 1), (1, 7), (2, 10), (3, 17), (4, 25), (5, 1), (6, 1)],
            "{report}"
        );
        assert!(report.to_string().contains("did you mean \"filter\"?"), "{report}");
        assert!(report.to_string().contains("did you mean \"license\"?"), "{report}");
    }

    #[test]
    fn a_manifest_comes_back_out_of_the_component() {
        let text = "name: a\nversion: 1.0.0\nworlds: [filter]\nconfig: {type: object}\n";
        let empty = b"\0asm\x0d\0\x01\0";
        let (component, manifest) = embed(empty, text, Path::new("plugin.yaml")).unwrap();
        let found = Manifest::of_component(&component, Path::new("a.wasm")).unwrap();
        assert_eq!(found, Some(manifest));
        assert_eq!(Manifest::of_component(empty, Path::new("a.wasm")).unwrap(), None);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.wasm");
        std::fs::write(&file, &component).unwrap();
        assert_eq!(Manifest::of_file(&file).unwrap(), found);
        assert_eq!(Manifest::of_file(&folder.path().join("none.wasm")).unwrap(), None);

        // A key that this version does not know: no way in, but no reason not to load.
        let newer = format!("{text}future: 1\n");
        assert!(embed(empty, &newer, Path::new("plugin.yaml")).is_err());
        assert!(parse(&newer).is_ok());
        assert!(embed(b"\0asm\x01\0\0\0", text, Path::new("plugin.yaml")).is_err());
    }
}
