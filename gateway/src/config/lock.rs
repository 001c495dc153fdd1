//! `gateway.lock`: which version of each plugin is in use and what it asks for. It lies beside
//! `gateway.yaml`; a version that asks for more than is written here waits until the operator
//! accepts it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::node::{self, Node, Value};
use super::{BodyGrant, FieldGrant, Manifest, Report, WantedHead};

/// The content of a `gateway.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    /// By the plugins' names in `gateway.yaml`.
    pub plugins: BTreeMap<String, Locked>,
}

/// One plugin in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Locked {
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// Its version, as far as it says one.
    pub version: Option<String>,
    /// What it asks for, see [`asks`].
    pub asks: Vec<String>,
}

impl Lock {
    /// Reads the file; one that is not there is empty.
    ///
    /// # Errors
    /// When it cannot be read or is not such a file.
    pub fn read(path: &Path) -> Result<Self, Report> {
        let whole = |message: String| {
            let help = "mend it, or take it away: the versions in use are then taken as accepted";
            Report::whole(path, message, Some(help.to_owned()))
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(cause) => return Err(whole(format!("cannot read the file: {cause}"))),
        };
        let root = node::read(&text)
            .map_err(|error| whole(format!("line {}: {}", error.at.line, error.why)))?;
        Self::of(&root).ok_or_else(|| whole("this is not what witgate writes".to_owned()))
    }

    fn of(root: &Node) -> Option<Self> {
        let mut lock = Self::default();
        let Value::Map(plugins) = &child(root, "plugins")?.value else {
            // No plugins at all.
            return matches!(child(root, "plugins")?.value, Value::Null).then_some(lock);
        };
        for entry in plugins {
            let text = |key: &str| match child(&entry.node, key).map(|node| &node.value) {
                Some(Value::Text(text)) => Some(text.clone()),
                _ => None,
            };
            let Value::List(asks) = &child(&entry.node, "asks")?.value else { return None };
            let ask = |node: &Node| match &node.value {
                Value::Text(text) => Some(text.clone()),
                _ => None,
            };
            let locked = Locked {
                digest: text("digest")?.strip_prefix("sha256:")?.to_owned(),
                version: text("version"),
                asks: asks.iter().map(ask).collect::<Option<_>>()?,
            };
            lock.plugins.insert(entry.key.clone(), locked);
        }
        Some(lock)
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let mut text = String::from(HEAD);
        for (name, locked) in &self.plugins {
            // JSON texts are YAML texts.
            let quoted = |text: &str| serde_json::Value::from(text).to_string();
            let _ = writeln!(text, "  {}:", quoted(name));
            let _ = writeln!(text, "    digest: sha256:{}", locked.digest);
            if let Some(version) = &locked.version {
                let _ = writeln!(text, "    version: {}", quoted(version));
            }
            match locked.asks.as_slice() {
                [] => text.push_str("    asks: []\n"),
                asks => {
                    text.push_str("    asks:\n");
                    for ask in asks {
                        let _ = writeln!(text, "      - {}", quoted(ask));
                    }
                }
            }
        }
        text
    }

    /// Writes the file in one step, when it would change.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let text = self.text();
        let present = std::fs::read_to_string(path);
        let is_same = present.as_ref().is_ok_and(|present| *present == text);
        // Nothing to say and nothing said: no file.
        if is_same || (present.is_err() && self.plugins.is_empty()) {
            return Ok(());
        }
        let beside = path.with_extension("lock.new");
        std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path))
    }
}

impl Locked {
    /// What `next` asks for and this does not have.
    pub fn more(&self, next: &Self) -> Vec<String> {
        next.asks.iter().filter(|ask| !self.has(ask)).cloned().collect()
    }

    fn has(&self, ask: &str) -> bool {
        if self.asks.iter().any(|known| known == ask) {
            return true;
        }
        // Who could change everything gives something up with a guard; and so could every solver of a
        // lock from before there were guards.
        let is_guard = |ask: &str| GUARD.iter().any(|verb| ask.starts_with(verb));
        let was_free = self.asks.iter().any(|known| known == UNGUARDED)
            || (self.asks.iter().any(|known| known == SENDS)
                && !self.asks.iter().any(|known| is_guard(known)));
        if was_free && is_guard(ask) {
            return true;
        }
        // Who may transform bodies sees them.
        if let Some(side) = ask.strip_prefix(READ_BODIES) {
            return self
                .asks
                .iter()
                .any(|known| known.strip_prefix(TRANSFORM_BODIES) == Some(side));
        }
        // `read request x` is part of `read request *`, unless x holds credentials.
        let Some((what, name)) = ask.rsplit_once(' ').filter(|(what, _)| is_fields(what)) else {
            return false;
        };
        let all = format!("{what} *");
        self.asks.contains(&all) && FieldGrant::default().covers(name) && name != "*"
    }

    /// The way from this to `next` in lines: the versions, then what is asked for more and less.
    pub fn difference(&self, next: &Self) -> String {
        let short = |locked: &Self| {
            let digest = locked.digest.get(..12).unwrap_or(&locked.digest);
            match &locked.version {
                Some(version) => format!("{version} (sha256 {digest})"),
                None => format!("sha256 {digest}"),
            }
        };
        let mut text = match self.digest.as_str() {
            "" => format!("  new: {}", short(next)),
            _ => format!("  {} -> {}", short(self), short(next)),
        };
        for ask in self.more(next) {
            let _ = write!(text, "\n  + {ask}");
        }
        for ask in next.more(self) {
            let _ = write!(text, "\n  - {ask}");
        }
        text
    }
}

/// What a component asks for, one line each, sorted. `sends` tells whether it imports `http`; of its
/// `worlds`, routers and filters see heads, by default all fields but credentials. `has_bodies` tells
/// whether it has hooks for bodies, which then may be any.
pub fn asks(
    manifest: Option<&Manifest>,
    sends: bool,
    worlds: &[&str],
    has_bodies: bool,
) -> Vec<String> {
    let mut asks = Vec::new();
    for (world, what) in SIGHTS {
        asks.extend(worlds.contains(world).then(|| (*what).to_owned()));
    }
    let has_heads = worlds.contains(&"router") || worlds.contains(&"filter");
    let is_solver = worlds.contains(&"dns-solver");
    if sends {
        asks.push(SENDS.to_owned());
    }
    if sends && is_solver {
        match manifest.and_then(|manifest| manifest.guard.as_ref()) {
            Some(guard) => asks.extend(guard.lines()),
            // What has no guard changes what its grants reach.
            None => asks.push(UNGUARDED.to_owned()),
        }
    }
    if let Some(manifest) = manifest {
        asks.extend(manifest.grants.http.iter().map(|pattern| format!("http {pattern}")));
        asks.extend(manifest.grants.hmac.iter().map(|name| format!("hmac {name}")));
        asks.extend(manifest.secrets.keys().map(|name| format!("secret {name}")));
        let signing = manifest.signing.iter();
        asks.extend(signing.map(|(name, how)| format!("sign {name} {}", how.line())));
        let sessions = manifest.sessions.iter();
        asks.extend(sessions.map(|(name, how)| format!("log in {name} {}", how.line())));
    }
    if has_heads {
        let silent = WantedHead::default();
        let grants = manifest.map(|manifest| &manifest.grants);
        let request = grants.map_or(&silent, |grants| &grants.request);
        let response = grants.map_or(&silent, |grants| &grants.response);
        for (verb, side, fields) in [
            ("read", "request", &request.read),
            ("set", "request", &request.set),
            ("read", "response", &response.read),
            ("set", "response", &response.set),
        ] {
            let all = FieldGrant::default();
            let words = fields.as_ref().unwrap_or(&all).words();
            asks.extend(words.map(|word| format!("{verb} {side} {word}")));
        }
        for (side, wanted) in [("requests", request.body), ("responses", response.body)] {
            match wanted.unwrap_or(BodyGrant::Transform) {
                _ if !has_bodies => {}
                BodyGrant::None => {}
                BodyGrant::Read => asks.push(format!("{READ_BODIES}{side}")),
                BodyGrant::Transform => asks.push(format!("{TRANSFORM_BODIES}{side}")),
            }
        }
    }
    asks.sort_unstable();
    asks.dedup();
    asks
}

/// What components of some worlds see or decide by being that.
const SIGHTS: &[(&str, &str)] = &[
    ("client-hello", "decide about handshakes"),
    ("issuance-policy", "decide about certificates"),
    ("access-log", "see all exchanges"),
    ("events", "see what happens to certificates"),
];
/// What a component that imports `http` asks for.
const SENDS: &str = "send requests";
/// What a solver without a guard asks for.
const UNGUARDED: &str = "change anything that it can reach";
/// What a filter that looks at bodies asks for.
const READ_BODIES: &str = "read bodies of ";
/// What a filter that changes bodies asks for.
const TRANSFORM_BODIES: &str = "transform bodies of ";
/// How the lines of a guard begin.
const GUARD: [&str; 3] = ["change ", "look up ", "also "];

fn is_fields(what: &str) -> bool {
    matches!(what, "read request" | "set request" | "read response" | "set response")
}

fn child<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|e| &e.node),
        _ => None,
    }
}

const HEAD: &str = "\
# Written by witgate: the version of each plugin in use and what it asks for. Keep it with
# gateway.yaml. A version that asks for more waits for `witgate plugin accept NAME`.
plugins:
";

#[cfg(test)]
mod tests {
    use super::*;

    fn locked(digest: &str, asks: &[&str]) -> Locked {
        Locked {
            digest: digest.to_owned(),
            version: None,
            asks: asks.iter().map(|ask| (*ask).to_owned()).collect(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.lock");
        assert_eq!(Lock::read(&path).unwrap(), Lock::default());
        Lock::default().write(&path).unwrap();
        assert!(!path.exists(), "nothing to say");
        let mut lock = Lock::default();
        let mut one = locked("ab", &["http GET https://a.example/*", "secret \"odd: name\""]);
        one.version = Some("1.0".to_owned());
        lock.plugins.insert("one".to_owned(), one);
        lock.plugins.insert("true".to_owned(), locked("cd", &[]));
        lock.write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap(), lock);
        Lock::default().write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap(), Lock::default());
        for nonsense in ["plugins: [", "plugins: 5", "plugins: {a: {digest: x, asks: []}}", "a: b"]
        {
            std::fs::write(&path, nonsense).unwrap();
            let report = Lock::read(&path).unwrap_err().to_string();
            assert!(report.contains("gateway.lock"), "{nonsense}: {report}");
        }
    }

    #[test]
    fn more_is_what_was_not_there() {
        let old =
            locked("aa", &["http GET https://a.example/*", "read request *", "set request x"]);
        let new = locked(
            "bb",
            &["http DELETE https://a.example/*", "read request accept", "read request cookie"],
        );
        assert_eq!(old.more(&new), ["http DELETE https://a.example/*", "read request cookie"]);
        assert_eq!(
            old.difference(&new),
            "  sha256 aa -> sha256 bb\n  + http DELETE https://a.example/*\n  + read request cookie\n  \
             - http GET https://a.example/*\n  - read request *\n  - set request x"
        );
        assert!(old.more(&old).is_empty());
    }

    #[test]
    fn a_guard_is_less_than_none_and_another_guard_is_more() {
        let sends = "send requests";
        let guarded = locked("bb", &["also PUT */notify", "change POST */records", sends]);
        let wider =
            locked("cc", &["change DELETE */zones/{zone-id}", "change POST */records", sends]);
        let free = locked("dd", &["change anything that it can reach", sends]);
        // From before there were guards.
        let old = locked("aa", &[sends]);
        for before in [&old, &free, &guarded] {
            assert_eq!(before.more(&guarded), [""; 0]);
        }
        assert_eq!(old.more(&free), [""; 0]);
        assert_eq!(guarded.more(&wider), ["change DELETE */zones/{zone-id}"]);
        assert_eq!(guarded.more(&free), ["change anything that it can reach"]);
    }

    #[test]
    fn a_silent_filter_asks_for_every_field_and_a_solver_for_none() {
        let unguarded = ["change anything that it can reach", "send requests"];
        assert_eq!(asks(None, true, &["dns-solver"], false), unguarded);
        let sink = ["see all exchanges", "send requests"];
        assert_eq!(asks(None, true, &["access-log"], false), sink);
        let all = ["read request *", "read response *", "set request *", "set response *"];
        assert_eq!(asks(None, false, &["filter"], false), all);
        let bodies = ["transform bodies of requests", "transform bodies of responses"];
        assert_eq!(asks(None, false, &["filter"], true), [&all[..], &bodies].concat());
        let text = "name: a\nversion: '1'\nworlds: [filter]\n\
                    grants: {request: {read: [cookie], set: []}, response: {read: [], set: []}}\n";
        let (manifest, _) = Manifest::parse(text, Path::new("plugin.yaml")).unwrap();
        assert_eq!(asks(Some(&manifest), false, &["filter"], false), ["read request cookie"]);
        let text = text.replace("read: [], set: []}}", "read: [], set: [], body: read}}");
        let (manifest, _) = Manifest::parse(&text, Path::new("plugin.yaml")).unwrap();
        let asked = asks(Some(&manifest), false, &["filter"], true);
        assert!(asked.contains(&"read bodies of responses".to_owned()), "{asked:?}");
    }

    #[test]
    fn who_transforms_bodies_may_see_them_and_not_the_other_way_round() {
        let reads = locked("aa", &["read bodies of requests", "read response *"]);
        let transforms = locked("bb", &["transform bodies of requests"]);
        assert!(transforms.more(&locked("cc", &["read bodies of requests"])).is_empty());
        assert_eq!(reads.more(&transforms), ["transform bodies of requests"]);
        // Fields are no bodies.
        assert_eq!(
            reads.more(&locked("dd", &["read bodies of responses"])),
            ["read bodies of responses"]
        );
    }
}
