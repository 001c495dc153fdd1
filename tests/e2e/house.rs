//! Promise: the walls of the house stand. What `docs/ARCHITECTURE.md` says about who may name what is
//! true, every symbol it cites exists, and no test file is forgotten.

use std::path::{Path, PathBuf};

use crate::harness::project;

/// A word, the rooms that may name it, or the rooms that may not.
enum Wall {
    Only(&'static str, &'static [&'static str]),
    Never(&'static str, &'static [&'static str]),
}

/// Paths are below `gateway/src/`; a folder ends with `/`.
const WALLS: &[Wall] = &[
    Wall::Only("wasmtime", &["plugin/"]),
    Wall::Only("instant_acme", &["acme/"]),
    Wall::Only("serde_yaml", &["config/"]),
    Wall::Never("tokio", PURE),
    Wall::Never("async", PURE),
    Wall::Never("await", PURE),
    Wall::Never("wasmtime", &["config/", "route/"]),
    Wall::Never("rustls", &["config/", "route/"]),
];

/// Rooms that wait for nothing and know no clock.
const PURE: &[&str] =
    &["config/", "route/", "h2/", "tls/hello.rs", "acme/need.rs", "plugin/grant.rs"];

/// Header fields, which are cited like types.
const FIELDS: &[&str] = &["Via", "Host", "Accept", "Forwarded"];

#[test]
fn walls_stand() {
    let source = project().join("gateway/src");
    let files = files_below(&source, "rs");
    let mut breaches = Vec::new();
    for file in &files {
        let room = file.strip_prefix(&source).expect("below src").display().to_string();
        let text = std::fs::read_to_string(file).expect("source is UTF-8");
        for (number, line) in text.lines().enumerate() {
            for wall in WALLS {
                if let Some(word) = wall.broken_by(&room, line) {
                    breaches.push(format!("gateway/src/{room}:{}: `{word}`: {line}", number + 1));
                }
            }
        }
    }
    assert!(breaches.is_empty(), "a room names what it must not:\n{}", breaches.join("\n"));
    // A wall around a room that is not there protects nothing.
    let rooms = WALLS.iter().flat_map(|wall| match wall {
        Wall::Only(_, rooms) | Wall::Never(_, rooms) => *rooms,
    });
    for room in rooms {
        let is_there = source.join(room).exists()
            || source.join(room.trim_end_matches('/')).with_extension("rs").exists();
        assert!(is_there, "gateway/src/{room} has a wall but does not exist");
    }
}

#[test]
fn tests_never_name_the_library() {
    for folder in ["tests/e2e", "tests/harness"] {
        for file in files_below(&project().join(folder), "rs") {
            let text = std::fs::read_to_string(&file).expect("source is UTF-8");
            let names_it = text.lines().any(|line| line.trim_start().starts_with("use witgate"));
            assert!(!names_it, "{} uses the library", file.display());
        }
    }
}

#[test]
fn no_test_file_is_forgotten() {
    let folder = project().join("tests/e2e");
    let list = std::fs::read_to_string(folder.join("main.rs")).expect("main.rs");
    for file in files_below(&folder, "rs") {
        let name = file.file_stem().expect("a file name").display().to_string();
        let is_listed = name == "main" || list.contains(&format!("mod {name};"));
        assert!(is_listed, "{} is not in tests/e2e/main.rs", file.display());
    }
}

#[test]
fn the_features_cite_tests_that_exist() {
    let text = std::fs::read_to_string(project().join("docs/FEATURES.md")).expect("FEATURES.md");
    let cited: Vec<_> = text.split('`').filter_map(|word| word.split_once("::")).collect();
    let mut missing = Vec::new();
    let mut sources = files_below(&project().join("gateway/src"), "rs");
    // A module of the gateway's as well.
    sources.push(project().join("plugins/sdk/src/testing/guard.rs"));
    let library: String =
        sources.iter().map(|file| std::fs::read_to_string(file).expect("UTF-8")).collect();
    for (file, test) in &cited {
        let source = match *file {
            "lib" => library.clone(),
            _ => {
                let path = project().join(format!("tests/e2e/{file}.rs"));
                std::fs::read_to_string(&path).unwrap_or_default()
            }
        };
        if !source.contains(&format!("fn {test}()")) {
            missing.push(format!("{file}::{test}"));
        }
    }
    assert!(cited.len() > 40 && missing.is_empty(), "no such tests: {missing:?}");
}

#[test]
fn no_test_is_switched_off() {
    for folder in ["tests/e2e", "gateway/src"] {
        for file in files_below(&project().join(folder), "rs") {
            let text = std::fs::read_to_string(&file).expect("source is UTF-8");
            let has = text.lines().any(|line| line.trim_start().starts_with("#[ignore"));
            assert!(!has, "{} has an ignored test", file.display());
        }
    }
}

#[test]
fn the_architecture_cites_what_exists() {
    let page = project().join("docs/ARCHITECTURE.md");
    let page = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
    let mut source = String::new();
    for (folder, ending) in
        [("gateway/src", "rs"), ("tests", "rs"), ("plugins/sdk/src", "rs"), ("wit", "wit")]
    {
        for file in files_below(&project().join(folder), ending) {
            source += &std::fs::read_to_string(file).expect("source is UTF-8");
        }
    }
    let mut missing = Vec::new();
    for cited in page.split('`').skip(1).step_by(2) {
        let is_path = cited.contains('/') && !cited.contains([' ', ':', '*', '<', '{']);
        let is_type = cited.starts_with(char::is_uppercase)
            && cited.contains(char::is_lowercase)
            && cited.chars().all(char::is_alphanumeric)
            && !FIELDS.contains(&cited);
        let is_symbol = is_type || cited.contains("::") && !cited.contains([' ', '/', '*']);
        let exists = if is_path {
            let folders = ["", "gateway/src", "gateway", "tests"];
            folders.iter().any(|folder| project().join(folder).join(cited).exists())
        } else if is_symbol {
            let symbol = cited.rsplit("::").next().unwrap_or_default();
            has_word(&source, symbol.trim_end_matches("()"))
        } else {
            true
        };
        if !exists {
            missing.push(cited);
        }
    }
    assert!(missing.is_empty(), "docs/ARCHITECTURE.md cites what does not exist: {missing:?}");
}

impl Wall {
    /// The word that a line of this room must not have; comments may name anything.
    fn broken_by(&self, room: &str, line: &str) -> Option<&'static str> {
        let code = line.split("//").next().unwrap_or_default();
        let is_in = |rooms: &[&str]| {
            rooms.iter().any(|allowed| {
                room.starts_with(allowed)
                    || allowed.strip_suffix('/').is_some_and(|name| room == format!("{name}.rs"))
            })
        };
        match self {
            Self::Only(word, rooms) => (has_word(code, word) && !is_in(rooms)).then_some(word),
            Self::Never(word, rooms) => (has_word(code, word) && is_in(rooms)).then_some(word),
        }
    }
}

/// Whether a text has a word that is no part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// All files below a folder with this ending, built things left out.
fn files_below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return files };
    for entry in entries {
        let path = entry.expect("an entry").path();
        let is_built = path.ends_with("target") || path.ends_with(".tools");
        if path.is_dir() && !is_built {
            files.extend(files_below(&path, ending));
        } else if path.extension().is_some_and(|found| found == ending) {
            files.push(path);
        }
    }
    files.sort();
    files
}
