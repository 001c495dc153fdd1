//! Writes the reference of the contract, one page for each interface and world, from the doc comments
//! of `wit/`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::wit::{self, Item};

/// Writes `docs/reference/`; pages of what is gone go too.
pub(crate) fn write(root: &Path) -> Result<(), String> {
    let folder = root.join("docs/reference");
    let failed = |error| format!("cannot write {}: {error}", folder.display());
    let pages = pages(root)?;
    fs::create_dir_all(&folder).map_err(failed)?;
    for entry in fs::read_dir(&folder).map_err(failed)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !pages.contains_key(&name) {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    for (name, text) in pages {
        fs::write(folder.join(name), text).map_err(failed)?;
    }
    Ok(())
}

/// All pages by their file names.
pub(crate) fn pages(root: &Path) -> Result<BTreeMap<String, String>, String> {
    let contract = wit::read(&root.join("wit"))?;
    let package = contract.iter().find(|(stem, item)| stem == "plugin" && item.kind == "package");
    let (_, package) = package.ok_or("wit/plugin.wit has no package")?;
    let mut pages = BTreeMap::new();
    let mut index = format!("{NOTE}# The contract `{}`\n\n", package.name);
    paragraphs(&mut index, &package.docs);
    for (kind, title) in [("world", "Worlds"), ("interface", "Interfaces")] {
        let _ = write!(index, "\n## {title}\n\n| {kind} | |\n|---|---|\n");
        for (stem, item) in contract.iter().filter(|(_, item)| item.kind == kind) {
            let file = match kind {
                "world" => format!("world-{}.md", item.name),
                _ => format!("{}.md", item.name),
            };
            let first = item.docs.join(" ");
            let first = first.split_once(". ").map_or(first.as_str(), |(first, _)| first);
            let first = first.trim_end_matches('.');
            let _ = writeln!(index, "| [`{}`]({file}) | {first} |", item.name);
            pages.insert(file, page(stem, item));
        }
    }
    pages.insert("README.md".to_owned(), index);
    Ok(pages)
}

fn page(stem: &str, item: &Item) -> String {
    let title = match item.kind.as_str() {
        "world" => "World",
        _ => "Interface",
    };
    let mut text = format!("{NOTE}# {title} `{}`\n\nFrom `wit/{stem}.wit`.\n\n", item.name);
    paragraphs(&mut text, &item.docs);
    if item.kind == "world" {
        let lines = |kind: &str| -> Vec<String> {
            let named = item.items.iter().filter(|inner| inner.kind == kind);
            named.map(|inner| format!("[`{0}`]({0}.md)", inner.name)).collect()
        };
        let _ = write!(text, "\nImports: {}.\n\n", lines("import").join(", "));
        let _ = writeln!(text, "Exports: {}.", lines("export").join(", "));
        return text;
    }
    for inner in &item.items {
        let _ = write!(text, "\n## `{}`\n\n```wit\n{}\n```\n\n", inner.name, dedented(&inner.text));
        paragraphs(&mut text, &inner.docs);
    }
    text
}

fn paragraphs(text: &mut String, docs: &[String]) {
    for line in docs {
        let _ = writeln!(text, "{line}");
    }
}

/// A declaration without the indentation of the interface around it.
fn dedented(text: &str) -> String {
    let lines = text.lines().map(|line| line.strip_prefix("    ").unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

const NOTE: &str = "<!-- Written by `cargo xtask reference` from wit/. -->\n\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_that_of_the_contract() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let pages = pages(&root).unwrap();
        let folder = root.join("docs/reference");
        let mut stale: Vec<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !pages.contains_key(name))
            .collect();
        for (name, text) in &pages {
            if fs::read_to_string(folder.join(name)).ok().as_ref() != Some(text) {
                stale.push(name.clone());
            }
        }
        assert!(stale.is_empty(), "run `cargo xtask reference`: {stale:?}");
        assert!(pages["request.md"].contains("## `set-header`"), "{}", pages["request.md"]);
    }
}
