//! A plugin's folder: what its `plugin.yaml` says and which language it is in.

use std::path::{Path, PathBuf};

use super::WorkshopError;
use crate::config::Manifest;

/// A language that plugins are made in here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum Language {
    /// Rust, built by cargo.
    Rust,
    /// Go, built by its standard compiler.
    Go,
    /// Python, made a component by componentize-py.
    Python,
    /// JavaScript, made a component by componentize-qjs.
    JavaScript,
    /// TypeScript, compiled by tsc to JavaScript.
    TypeScript,
    /// C, built by zig or a WASI SDK.
    C,
    /// C++, built by zig.
    Cpp,
    /// Zig, built by its own compiler.
    Zig,
}

/// A plugin's folder.
#[derive(Debug, Clone)]
pub struct Project {
    /// Where it is.
    pub folder: PathBuf,
    /// The text of its `plugin.yaml`.
    pub text: String,
    /// What that says.
    pub manifest: Manifest,
    /// The language it is written in.
    pub language: Language,
}

impl Project {
    /// Looks at a folder.
    ///
    /// # Errors
    /// When it has no good `plugin.yaml` or nothing that shows its language.
    pub fn open(folder: &Path) -> Result<Self, WorkshopError> {
        let path = folder.join("plugin.yaml");
        let text = std::fs::read_to_string(&path)
            .map_err(|cause| WorkshopError::File(path.clone(), cause))?;
        let (manifest, _) = Manifest::parse(&text, &path).map_err(WorkshopError::Manifest)?;
        let language = MARKS.into_iter().find(|(file, _)| folder.join(file).is_file());
        let (_, language) = language.ok_or_else(|| WorkshopError::NoLanguage(folder.to_owned()))?;
        Ok(Self { folder: folder.to_owned(), text, manifest, language })
    }

    /// Where the component goes: `NAME.wasm` in its folder.
    pub fn component(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.manifest.name))
    }

    /// What messages call its `plugin.yaml`.
    pub fn manifest_path(&self) -> PathBuf {
        self.folder.join("plugin.yaml")
    }
}

/// The file that shows a language, the first that is there.
pub(super) const MARKS: [(&str, Language); 8] = [
    ("Cargo.toml", Language::Rust),
    ("go.mod", Language::Go),
    ("plugin.py", Language::Python),
    ("plugin.ts", Language::TypeScript),
    ("plugin.js", Language::JavaScript),
    ("plugin.c", Language::C),
    ("plugin.cpp", Language::Cpp),
    ("plugin.zig", Language::Zig),
];
