//! Runs the tools of a language and shows what they say.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::WorkshopError;

/// A command to be run in a project's folder.
pub(super) struct Tool {
    command: Command,
    shown: String,
}

impl Tool {
    /// `program` in `folder`.
    pub(super) fn new(program: impl AsRef<OsStr>, folder: &Path) -> Self {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command.current_dir(folder).stdin(Stdio::null());
        let shown = Path::new(program).file_name().unwrap_or(program);
        Self { shown: shown.to_string_lossy().into_owned(), command }
    }

    /// Adds arguments.
    pub(super) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        for argument in arguments {
            self.shown.push(' ');
            self.shown.push_str(&argument.as_ref().to_string_lossy());
            self.command.arg(argument);
        }
        self
    }

    /// Sets a variable of its environment.
    pub(super) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self.shown = format!("{name}={value} {}", self.shown);
        self
    }

    /// Runs it and shows the command and what it says. Gives back its standard output.
    pub(super) fn run(mut self) -> Result<Vec<u8>, WorkshopError> {
        eprintln!("  {}", self.shown);
        let output = self.command.stderr(Stdio::inherit()).output();
        let output = output.map_err(|cause| WorkshopError::Start(self.shown.clone(), cause))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
        Err(WorkshopError::Failed(self.shown))
    }

    /// Runs it without a word; its standard output when it went well.
    pub(super) fn ask(mut self) -> Option<String> {
        let output = self.command.stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Where a tool is: in `inside` of the project's folder or of one around it, else on the PATH.
pub(super) fn find(name: &str, folder: &Path, inside: &str) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let near = folder.ancestors().map(|folder| folder.join(inside).join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    near.chain(on_path).find(|path| path.is_file())
}
