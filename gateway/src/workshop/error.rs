//! Why a plugin could not be made.

use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum as _;

use super::{Language, World};
use crate::config::Report;
use crate::fault::Fault;

/// Why a plugin could not be made. Every text says what to do about it.
#[derive(Debug)]
pub enum WorkshopError {
    /// A file or folder of the project cannot be read or written.
    File(PathBuf, std::io::Error),
    /// `plugin.yaml` does not say what is needed.
    Manifest(Report),
    /// This is no name for a new plugin.
    Name(String),
    /// A new plugin is to be made where something is already.
    Occupied(PathBuf),
    /// There is no example of this world in this language.
    NoTemplate(Language, World),
    /// The folder has nothing that shows its language.
    NoLanguage(PathBuf),
    /// A tool is not installed.
    Missing {
        /// What is missing.
        tool: &'static str,
        /// What it is needed for.
        purpose: &'static str,
        /// The command that installs it.
        command: String,
    },
    /// A tool could not be started.
    Start(String, std::io::Error),
    /// A tool ended with an error, which it has shown.
    Failed(String),
    /// A tool was content, and what it should have made is not there.
    NothingMade(String),
}

impl WorkshopError {
    /// Who has to act: always the person at the keyboard.
    pub fn fault(&self) -> Fault {
        Fault::Operator
    }
}

impl fmt::Display for WorkshopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, _) => write!(f, "{}", path.display()),
            Self::Manifest(report) => report.fmt(f),
            Self::Name(name) => write!(
                f,
                "`{name}` is no name for a plugin: lower-case letters, digits and `-`, at most 64, \
                 with a letter first"
            ),
            Self::Occupied(folder) => write!(
                f,
                "{} is not empty: choose another name, or another place with --folder",
                folder.display()
            ),
            Self::NoTemplate(language, world) => {
                let name = |value: Option<clap::builder::PossibleValue>| {
                    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
                };
                write!(
                    f,
                    "there is no template of the world {} in {}; take --lang rust, or make bindings for \
                     that world from wit/ with the language's own component tools",
                    name(world.to_possible_value()),
                    name(language.to_possible_value())
                )
            }
            Self::NoLanguage(folder) => write!(
                f,
                "{}: cannot see which language this is: there is none of {}",
                folder.display(),
                super::project::MARKS.map(|(file, _)| file).join(", ")
            ),
            Self::Missing { tool, purpose, command } => {
                write!(f, "{tool} is missing, which {purpose}; get it with\n\n    {command}\n")
            }
            Self::Start(tool, _) => write!(f, "cannot start {tool}"),
            Self::Failed(command) => write!(f, "this failed, see above: {command}"),
            Self::NothingMade(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for WorkshopError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(_, cause) | Self::Start(_, cause) => Some(cause),
            _ => None,
        }
    }
}
