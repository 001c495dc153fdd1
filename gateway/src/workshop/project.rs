//! A plugin's folder: what its `plugin.yaml` says and which language it is in.

use std::path::{Path, PathBuf};

use super::WorkshopError;
use crate::config::manifest;

/// A language that plugins are made in here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Rust, built by cargo.
    Rust,
}

/// A plugin's folder.
#[derive(Debug, Clone)]
pub struct Project {
    /// Where it is.
    pub folder: PathBuf,
    /// The plugin's name: `NAME.wasm` is built.
    pub name: String,
    /// The worlds it is for.
    pub worlds: Vec<String>,
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
        let manifest =
            manifest::read(&text).map_err(|what| WorkshopError::Manifest(path.clone(), what))?;
        let is_name = |name: &str| {
            name.starts_with(|first: char| first.is_ascii_lowercase())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !is_name(&manifest.name) {
            let what = format!(
                "name: `{}` must be lower-case letters, digits and `-`, and begin with a letter",
                manifest.name
            );
            return Err(WorkshopError::Manifest(path, what));
        }
        let language = MARKS.into_iter().find(|(file, _)| folder.join(file).is_file());
        let (_, language) = language.ok_or_else(|| WorkshopError::NoLanguage(folder.to_owned()))?;
        Ok(Self {
            folder: folder.to_owned(),
            name: manifest.name,
            worlds: manifest.worlds,
            language,
        })
    }

    /// Where the component goes.
    pub fn component(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.name))
    }
}

/// The file that shows a language, the first that is there.
pub(super) const MARKS: [(&str, Language); 1] = [("Cargo.toml", Language::Rust)];
