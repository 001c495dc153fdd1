//! Runs the tools of a language and shows what they say.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{WorkshopError, progress};

/// A command to be run in a project's folder.
pub(super) struct Tool {
    command: Command,
    shown: String,
    has_progress: bool,
}

impl Tool {
    /// `program` in `folder`.
    pub(super) fn new(program: impl AsRef<OsStr>, folder: &Path) -> Self {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command.current_dir(folder).stdin(Stdio::null());
        let shown = Path::new(program).file_name().unwrap_or(program);
        let shown = shown.to_string_lossy().into_owned();
        Self { shown, command, has_progress: false }
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

    /// Leaves standard error to it: it shows its progress itself.
    pub(super) fn shows_progress(mut self) -> Self {
        self.has_progress = true;
        self
    }

    /// Runs it and shows the command, for how long it runs, and what it says. Gives back its standard
    /// output.
    pub(super) fn run(mut self) -> Result<Vec<u8>, WorkshopError> {
        if self.has_progress {
            eprintln!("  {}", self.shown);
            let output = self.command.stderr(Stdio::inherit()).output();
            let output = output.map_err(|cause| WorkshopError::Start(self.shown.clone(), cause))?;
            let Output { status, stdout, .. } = output;
            return result(status.success(), self.shown, stdout, |said| eprint!("{said}"));
        }
        let Self { mut command, shown, .. } = self;
        progress::step(&shown.clone(), |step| {
            let started = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().and_then(
                |mut child| {
                    let error = child.stderr.take();
                    std::thread::scope(|scope| {
                        scope.spawn(|| {
                            let lines = error.map(|error| BufReader::new(error).split(b'\n'));
                            for line in lines.into_iter().flatten().map_while(Result::ok) {
                                step.say(String::from_utf8_lossy(&line).trim_end());
                            }
                        });
                        child.wait_with_output()
                    })
                },
            );
            let output = started.map_err(|cause| WorkshopError::Start(shown.clone(), cause))?;
            let Output { status, stdout, .. } = output;
            result(status.success(), shown, stdout, |said| step.say(said.trim_end()))
        })
    }

    /// Runs it without a word; its standard output when it went well.
    pub(super) fn ask(mut self) -> Option<String> {
        let output = self.command.stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// What a command made; where it failed, what it said on standard output is shown.
fn result(
    is_success: bool,
    command: String,
    stdout: Vec<u8>,
    show: impl FnOnce(&str),
) -> Result<Vec<u8>, WorkshopError> {
    if is_success {
        return Ok(stdout);
    }
    if !stdout.is_empty() {
        show(&String::from_utf8_lossy(&stdout));
    }
    Err(WorkshopError::Failed(command))
}

/// Where a tool is: in `inside` of the project's folder or of one around it, else on the PATH.
pub(super) fn find(name: &str, folder: &Path, inside: &str) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let near = folder.ancestors().map(|folder| folder.join(inside).join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    near.chain(on_path).find(|path| path.is_file())
}
