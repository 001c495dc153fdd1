//! Reads `wit/`: enough of the language to compare two versions of the contract, and to write its
//! reference pages. Source: component model, "WIT format".

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// One thing that a WIT file declares, with what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// `interface`, `world`, `func`, `record`, `import` and so on.
    pub(crate) kind: String,
    pub(crate) name: String,
    /// The doc comment, without its slashes.
    pub(crate) docs: Vec<String>,
    /// As it is written, doc comments inside included.
    pub(crate) text: String,
    /// What an interface or world holds.
    pub(crate) items: Vec<Item>,
}

impl Item {
    /// The declaration without comments, in one line and one form.
    pub(crate) fn declaration(&self) -> String {
        let lines = self.text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
        let mut text = words.join(" ");
        for (loose, tight) in [(", }", " }"), (", )", ")"), ("( ", "("), (",)", ")"), (" )", ")")] {
            text = text.replace(loose, tight);
        }
        text
    }
}

/// Keeps the contract as that of a release, for the test that holds later ones against it.
pub(crate) fn freeze(root: &Path, version: &str) -> Result<(), String> {
    let is_version = version.split('.').all(|part| part.parse::<u32>().is_ok());
    if !is_version || version.split('.').count() != 3 {
        return Err(format!("{version} is not a version such as 0.1.0"));
    }
    let to = root.join("wit/frozen").join(version);
    if to.exists() {
        return Err(format!("{} is there already; a release never changes", to.display()));
    }
    let present: Vec<Item> = read(&root.join("wit"))?.into_iter().map(|(_, item)| item).collect();
    let failed = |error| format!("cannot write {}: {error}", to.display());
    for released in fs::read_dir(root.join("wit/frozen")).map_err(failed)?.flatten() {
        let items: Vec<Item> = read(&released.path())?.into_iter().map(|(_, item)| item).collect();
        let broken = broken(&items, &present);
        if !broken.is_empty() {
            let name = released.file_name().to_string_lossy().into_owned();
            return Err(format!("this breaks plugins built for {name}:\n{}", broken.join("\n")));
        }
    }
    fs::create_dir_all(&to).map_err(failed)?;
    for file in fs::read_dir(root.join("wit")).map_err(failed)?.flatten() {
        if file.path().extension().is_some_and(|ending| ending == "wit") {
            fs::copy(file.path(), to.join(file.file_name())).map_err(failed)?;
        }
    }
    Ok(())
}

/// All interfaces and worlds of the files of a folder, with the file's name without its ending.
pub(crate) fn read(folder: &Path) -> Result<Vec<(String, Item)>, String> {
    let failed = |error| format!("cannot read {}: {error}", folder.display());
    let mut files: Vec<_> = fs::read_dir(folder)
        .map_err(failed)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "wit"))
        .collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(failed)?;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let items = parse(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        all.extend(items.into_iter().map(|item| (stem.clone(), item)));
    }
    Ok(all)
}

/// The items of a file's text, `package` included.
pub(crate) fn parse(text: &str) -> Result<Vec<Item>, String> {
    let mut rest = text;
    let items = items(&mut rest)?;
    match rest.trim() {
        "" => Ok(items),
        _ => Err("a `}` too many".to_owned()),
    }
}

fn items(rest: &mut &str) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    let mut docs = Vec::new();
    loop {
        *rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("//") {
            let (line, after) = comment.split_once('\n').unwrap_or((comment, ""));
            if let Some(doc) = line.strip_prefix('/') {
                docs.push(doc.strip_prefix(' ').unwrap_or(doc).trim_end().to_owned());
            }
            *rest = after;
        } else if rest.is_empty() || rest.starts_with('}') {
            return Ok(items);
        } else {
            items.push(item(rest, std::mem::take(&mut docs))?);
        }
    }
}

fn item(rest: &mut &str, docs: Vec<String>) -> Result<Item, String> {
    let start = *rest;
    let words: Vec<&str> = start.split_whitespace().take(2).collect();
    let (kind, name) = match words.as_slice() {
        [kind @ ("interface" | "world"), name] => ((*kind).to_owned(), (*name).to_owned()),
        _ => {
            let text = statement(rest)?;
            return Ok(plain(text, docs));
        }
    };
    let open = start.find('{').ok_or_else(|| format!("{kind} {name} is not opened"))?;
    *rest = start.get(open + 1..).unwrap_or_default();
    let items = items(rest)?;
    *rest = rest.strip_prefix('}').ok_or_else(|| format!("{kind} {name} is not closed"))?;
    let length = start.len() - rest.len();
    let text = start.get(..length).unwrap_or_default().to_owned();
    Ok(Item { kind, name, docs, text, items })
}

/// A declaration up to its `;` or the `}` of its block.
fn statement<'t>(rest: &mut &'t str) -> Result<&'t str, String> {
    let (mut depth, mut in_comment, mut before) = (0_usize, false, ' ');
    for (at, letter) in rest.char_indices() {
        match letter {
            '\n' => in_comment = false,
            _ if in_comment => {}
            '/' if before == '/' => in_comment = true,
            '{' | '(' | '<' => depth += 1,
            // The arrow of a function's result is no bracket.
            '>' if before == '-' => {}
            '}' | ')' | '>' => {
                depth = depth.checked_sub(1).ok_or("brackets do not match")?;
                if letter == '}' && depth == 0 {
                    return Ok(taken(rest, at + 1));
                }
            }
            ';' if depth == 0 => return Ok(taken(rest, at + 1)),
            _ => {}
        }
        before = letter;
    }
    Err("the file ends inside a declaration".to_owned())
}

fn taken<'t>(rest: &mut &'t str, length: usize) -> &'t str {
    let (text, after) = rest.split_at(length);
    *rest = after;
    text
}

fn plain(text: &str, docs: Vec<String>) -> Item {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (kind, name) = match words.as_slice() {
        [kind @ ("record" | "variant" | "enum" | "flags" | "resource" | "type"), name, ..] => {
            (*kind, *name)
        }
        [kind @ ("import" | "export" | "include" | "use" | "package"), name, ..] => (*kind, *name),
        [name, ..] => ("func", *name),
        [] => ("", ""),
    };
    let name = name.trim_end_matches([':', ';', ',']).to_owned();
    Item { kind: kind.to_owned(), name, docs, text: text.to_owned(), items: Vec::new() }
}

/// What of a released contract another one changes, in lines; empty when every component built for
/// `released` still fits `present`.
pub(crate) fn broken(released: &[Item], present: &[Item]) -> Vec<String> {
    let by_name = |items: &[Item]| -> BTreeMap<(String, String), Item> {
        items.iter().map(|i| ((i.kind.clone(), i.name.clone()), i.clone())).collect()
    };
    let exported: Vec<String> = released
        .iter()
        .filter(|item| item.kind == "world")
        .flat_map(|world| &world.items)
        .filter(|item| item.kind == "export")
        .map(|item| item.name.clone())
        .collect();
    let (old, new) = (by_name(released), by_name(present));
    let mut broken = Vec::new();
    for ((kind, name), old) in old.iter().filter(|((kind, _), _)| kind != "package") {
        let Some(new) = new.get(&(kind.clone(), name.clone())) else {
            broken.push(format!("{kind} {name} is gone"));
            continue;
        };
        let (had, has) = (by_name(&old.items), by_name(&new.items));
        for ((kind, item), was) in &had {
            match has.get(&(kind.clone(), item.clone())) {
                None => broken.push(format!("{kind} {name}.{item} is gone")),
                Some(is) if is.declaration() != was.declaration() => broken.push(format!(
                    "{kind} {name}.{item} was `{}` and is `{}`",
                    was.declaration(),
                    is.declaration()
                )),
                Some(_) => {}
            }
        }
        // A plugin that is built already does not export what is added later.
        let must_not_grow = |kind: &str| kind == "export" || exported.contains(name);
        for (kind, item) in has.keys().filter(|key| !had.contains_key(*key)) {
            if must_not_grow(kind) {
                broken.push(format!(
                    "{kind} {name}.{item} is new, and components of before do not export it: make \
                     a new interface"
                ));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn repository(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
    }

    fn contract(folder: &str) -> Vec<Item> {
        let items = read(&repository(folder)).unwrap();
        items.into_iter().map(|(_, item)| item).collect()
    }

    #[test]
    fn every_released_contract_still_holds() {
        let present = contract("wit");
        let mut seen = 0;
        for folder in fs::read_dir(repository("wit/frozen")).unwrap() {
            let name = folder.unwrap().file_name().into_string().unwrap();
            let broken = broken(&contract(&format!("wit/frozen/{name}")), &present);
            assert!(
                broken.is_empty(),
                "wit/ breaks plugins built for {name}; add beside what is there, or make a new \
                 interface version:\n{}",
                broken.join("\n")
            );
            seen += 1;
        }
        assert!(seen > 0, "no released contract");
    }

    #[test]
    fn nothing_in_the_contract_is_closed_and_everything_is_explained() {
        for item in contract("wit").iter().filter(|item| item.kind != "package") {
            assert!(!item.docs.is_empty(), "{} {} has no doc comment", item.kind, item.name);
            for inner in &item.items {
                let is_closed = matches!(inner.kind.as_str(), "enum" | "variant" | "flags");
                assert!(
                    !is_closed,
                    "{}.{} is a {}: a case more would break every compiled plugin. Use a text with \
                     documented codes",
                    item.name, inner.name, inner.kind
                );
                let needs_words = matches!(inner.kind.as_str(), "func" | "record");
                let has_words = !inner.docs.is_empty();
                assert!(!needs_words || has_words, "{}.{} is undocumented", item.name, inner.name);
            }
        }
    }

    #[test]
    fn a_change_that_breaks_plugins_is_named() {
        let released = "package a:b@0.1.0;\n\
            /// An interface.\n\
            interface host { /* no */ \n record r { a: string } f: func(x: option<u8>) -> r; }\n\
            interface hooks { enum e { one, two } go: func(e: e); }\n\
            world w { import host; export hooks; }";
        let released = parse(&released.replace("/* no */", "")).unwrap();
        for (from, to, wanted) in [
            ("one, two }", "one, two, three }", "enum hooks.e was"),
            ("a: string", "a: string, b: u8", "record host.r was"),
            ("x: option<u8>", "x: u8", "func host.f was"),
            ("f: func(x: option<u8>) -> r;", "", "func host.f is gone"),
            ("go: func(e: e);", "go: func(e: e); stop: func();", "func hooks.stop is new"),
            ("export hooks;", "export hooks; export more;", "export w.more is new"),
            ("import host;", "", "import w.host is gone"),
            ("interface host", "interface hosts", "interface host is gone"),
        ] {
            let text: String = released.iter().map(|item| item.text.as_str()).collect();
            let present = parse(&text.replace(from, to)).unwrap();
            let broken = broken(&released, &present);
            assert!(broken.iter().any(|line| line.contains(wanted)), "{to}: {broken:?}");
        }
        let text: String = released.iter().map(|item| item.text.as_str()).collect();
        for (from, to) in [
            ("f: func(x: option<u8>) -> r;", "f: func(\n  x: option<u8>,\n) -> r;\n g: func();"),
            ("record r { a: string }", "record r {\n    /// Words.\n    a: string,\n}"),
            ("import host;", "import host; import more;"),
        ] {
            let present = parse(&text.replace(from, to)).unwrap();
            assert_eq!(broken(&released, &present), Vec::<String>::new(), "{to}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["interface a {", "interface a { f: func() }", "}", "interface", "a: func("] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
