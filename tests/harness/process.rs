//! A child process that dies with its scope, and the lines it writes.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::until;

/// A running program in a process group of its own. Dropping it kills the whole group; so does the
/// death of the thread that started it, where `setpriv` is installed.
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    /// What it wrote to standard output so far.
    pub out: Lines,
    /// What it wrote to standard error so far.
    pub err: Lines,
}

/// Lines as they come in.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Process {
    /// Starts `command`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(name: &str, command: &Command) -> Self {
        let mut wrapped = die_with_parent(command);
        wrapped.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        wrapped.process_group(0);
        let mut child = match wrapped.spawn() {
            Ok(child) => child,
            Err(e) => panic!("{name} ({}): {e}", command.get_program().display()),
        };
        let (out, err) = (Lines::default(), Lines::default());
        out.follow(child.stdout.take().expect("stdout is piped"));
        err.follow(child.stderr.take().expect("stderr is piped"));
        Self { name: name.to_owned(), child, ended: None, out, err }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; none while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended
    }

    /// Waits until it has ended by itself.
    pub async fn end(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} to end", self.name);
        until(&what, limit, || std::future::ready(self.ended())).await
    }

    /// Sends it a signal; nothing when it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let _ = kill_process(self.pid(), signal);
        }
    }

    /// Kills it without warning, as a power cut would, and waits for it to be gone.
    pub fn kill9(&mut self) {
        if self.ended().is_none() {
            let _ = kill_process_group(self.pid(), Signal::KILL);
            self.ended = self.child.wait().ok();
        }
    }

    /// Panics with what it wrote when it is no longer running.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.ended() {
            panic!(
                "{} ended with {:?}, signal {:?}\n{}\n{}",
                self.name,
                status.code(),
                status.signal(),
                self.out.text(),
                self.err.text()
            );
        }
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).expect("VmRSS is a number of kB")
    }

    /// How many file descriptors it has open.
    pub fn fds(&self) -> usize {
        let path = format!("/proc/{}/fd", self.id());
        std::fs::read_dir(&path).unwrap_or_else(|e| panic!("{path}: {e}")).count()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("--- {}, standard error, last lines ---", self.name);
            for line in self.err.last(60) {
                eprintln!("{line}");
            }
            eprintln!("--- {}, standard output, last lines ---", self.name);
            for line in self.out.last(15) {
                eprintln!("{line}");
            }
        }
    }
}

impl Lines {
    /// All lines so far, as one text.
    pub fn text(&self) -> String {
        self.with(|lines| lines.join("\n"))
    }

    /// All lines from number `mark` on.
    pub fn after(&self, mark: usize) -> Vec<String> {
        self.with(|lines| lines.get(mark..).unwrap_or_default().to_vec())
    }

    /// How many lines there are: a mark for [`Self::after`] and [`Self::find`].
    pub fn mark(&self) -> usize {
        self.with(Vec::len)
    }

    /// The first line from `mark` on that has all of `words`, whatever their case.
    pub fn find(&self, mark: usize, words: &[&str]) -> Option<String> {
        let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
        self.with(|lines| {
            lines
                .get(mark..)
                .unwrap_or_default()
                .iter()
                .find(|line| {
                    let line = line.to_lowercase();
                    words.iter().all(|word| line.contains(word))
                })
                .cloned()
        })
    }

    /// Waits for [`Self::find`].
    pub async fn wait(&self, mark: usize, words: &[&str], limit: Duration) -> String {
        let what = format!("a line with {words:?}");
        until(&what, limit, || std::future::ready(self.find(mark, words))).await
    }

    fn last(&self, count: usize) -> Vec<String> {
        self.with(|lines| lines[lines.len().saturating_sub(count)..].to_vec())
    }

    fn with<T>(&self, read: impl FnOnce(&Vec<String>) -> T) -> T {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn follow(&self, stream: impl Read + Send + 'static) {
        let lines = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(count) if count > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                lines.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                line.clear();
            }
        });
    }
}

/// The same command, started through `setpriv` so that the kernel kills it when the tests are killed
/// and run no destructor any more.
fn die_with_parent(command: &Command) -> Command {
    let mut wrapped = if std::path::Path::new("/usr/bin/setpriv").exists() {
        let mut wrapped = Command::new("/usr/bin/setpriv");
        wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program());
        wrapped
    } else {
        Command::new(command.get_program())
    };
    wrapped.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped
}
