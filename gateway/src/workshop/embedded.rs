//! What travels in the binary: the contract and the SDKs. A build writes them into the project's
//! `build/`, so that they always fit this gateway.

use std::path::Path;

use include_dir::{Dir, DirEntry, include_dir};

use super::{Language, WorkshopError};

/// The contract, `wit/`.
static WIT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../wit");
/// The Rust crate `witgate-sdk`.
static RUST: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk");
/// The workspace that the crate takes its version and its lints from.
static RUST_WORKSPACE: &str = include_str!("../../../plugins/Cargo.toml");
/// The Go module `witgate`.
static GO: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk-go");
/// The Python package `witgate`.
static PYTHON: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk-py/witgate");
/// The JavaScript package `witgate`.
static JAVASCRIPT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk-js");
/// The C sources `witgate.h` and what belongs to them.
static C: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk-c");
/// What C++ has over that.
static CPP: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk-cpp");
/// What Zig has over that.
static ZIG: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk-zig");

/// Writes what a project in this language builds on into its folder. Its own files stay as they are.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn write(language: Language, folder: &Path) -> Result<(), WorkshopError> {
    let build = folder.join("build");
    match language {
        Language::Rust => {
            // As in this repository, since the crate looks for the contract beside its workspace.
            contract_into(&build.join("wit"))?;
            tree(&RUST, &build.join("plugins/sdk"), &["rs", "toml"])?;
            let workspace = alone(RUST_WORKSPACE);
            file(&build.join("plugins/Cargo.toml"), workspace.as_bytes())
        }
        Language::Go => tree(&GO, &build.join("witgate"), &["go", "mod", "s"]),
        Language::Python => {
            contract_into(&build.join("wit"))?;
            tree(&PYTHON, &build.join("witgate"), &["py", "typed"])
        }
        Language::JavaScript | Language::TypeScript => {
            contract_into(&build.join("wit"))?;
            tree(&JAVASCRIPT, &folder.join("node_modules/witgate"), &["js", "ts", "json"])
        }
        Language::C => tree(&C, &build.join("witgate"), &["c", "h"]),
        Language::Cpp => {
            tree(&C, &build.join("witgate"), &["c", "h"])?;
            tree(&CPP, &build.join("witgate"), &["hpp"])
        }
        Language::Zig => {
            tree(&C, &build.join("witgate"), &["c", "h"])?;
            tree(&ZIG, &build.join("witgate"), &["zig"])
        }
    }
}

/// The names and texts of the contract's files.
pub(super) fn contract() -> impl Iterator<Item = (&'static str, &'static str)> {
    WIT.files().filter_map(|file| Some((file.path().to_str()?, file.contents_utf8()?)))
}

fn contract_into(folder: &Path) -> Result<(), WorkshopError> {
    contract().try_for_each(|(name, text)| file(&folder.join(name), text.as_bytes()))
}

/// The workspace without its members but the SDK.
fn alone(workspace: &str) -> String {
    let line = |line: &str| match line.starts_with("members = ") {
        true => "members = [\"sdk\"]\n".to_owned(),
        false => format!("{line}\n"),
    };
    workspace.lines().map(line).collect()
}

/// Writes the files below a folder that have one of these endings.
fn tree(from: &Dir<'_>, folder: &Path, endings: &[&str]) -> Result<(), WorkshopError> {
    from.entries().iter().try_for_each(|entry| match entry {
        DirEntry::Dir(inner) => {
            let name = inner.path().file_name().unwrap_or_default();
            tree(inner, &folder.join(name), endings)
        }
        DirEntry::File(inner) => {
            let name = inner.path().file_name().unwrap_or_default();
            let ending = inner.path().extension().unwrap_or_default();
            let is_test = name.to_string_lossy().ends_with("_test.go");
            if endings.iter().any(|one| ending == *one) && !is_test {
                file(&folder.join(name), inner.contents())?;
            }
            Ok(())
        }
    })
}

/// Writes a file, and the folders it is in. One that is there already is left alone, so that tools
/// that look at times need not work again.
pub(super) fn file(path: &Path, contents: &[u8]) -> Result<(), WorkshopError> {
    if std::fs::read(path).is_ok_and(|present| present == contents) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, contents))
        .map_err(|cause| WorkshopError::File(path.to_owned(), cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_and_the_sdks_are_inside() {
        for (language, names) in [
            (Language::Rust, &["build/plugins/sdk/src/export/lean.rs", "build/wit/http.wit"][..]),
            (Language::Go, &["build/witgate/go.mod", "build/witgate/internal/abi/abi.go"]),
            (Language::Python, &["build/witgate/_router.py", "build/wit/plugin.wit"]),
            (
                Language::TypeScript,
                &["node_modules/witgate/index.d.ts", "node_modules/witgate/streaming.js"],
            ),
            (Language::C, &["build/witgate/witgate.h"]),
            (Language::Cpp, &["build/witgate/witgate.h", "build/witgate/witgate.hpp"]),
            (Language::Zig, &["build/witgate/json.c", "build/witgate/witgate.zig"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            write(language, folder.path()).unwrap();
            for name in names {
                assert!(folder.path().join(name).is_file(), "{name}");
            }
        }
        let workspace = alone(RUST_WORKSPACE);
        assert!(workspace.contains("members = [\"sdk\"]"), "{workspace}");
    }
}
