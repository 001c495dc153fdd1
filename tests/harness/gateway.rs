//! The gateway under test.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::client::Client;
use super::{LATER, Process, SOON, port, project, until};

/// A running `witgate run` with a folder, a configuration and ports of its own. All of it goes with
/// the scope.
pub struct Gateway {
    /// The port of the https listener of the standard head.
    pub https: u16,
    /// The port of the http listener of the standard head.
    pub http: u16,
    values: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    descriptors: Option<u64>,
    /// What it is started by, such as `unshare -m`.
    wrapper: Vec<String>,
    binary: PathBuf,
    process: Option<Process>,
    folder: TempDir,
}

impl Gateway {
    /// A folder and two ports, nothing running yet.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("witgate-e2e-").tempdir().expect("a folder");
        let (https, http) = (port(), port());
        let mut gateway = Self {
            https,
            http,
            values: Vec::new(),
            environment: Vec::new(),
            arguments: Vec::new(),
            descriptors: None,
            wrapper: Vec::new(),
            binary: PathBuf::from(env!("CARGO_BIN_EXE_witgate")),
            process: None,
            folder,
        };
        gateway.set("https", https);
        gateway.set("http", http);
        let folder = gateway.folder().display().to_string();
        gateway.set("dir", folder);
        gateway.set("plugins", project().join("target/plugins").display());
        gateway.set("guests", super::guests::folder().display());
        gateway
    }

    /// Gives `@name@` in every configuration from now on a value.
    pub fn set(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.values.retain(|(known, _)| known != name);
        self.values.push((name.to_owned(), value.to_string()));
        self
    }

    /// Sets an environment variable for the next start.
    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets the next start open no more than this many files.
    pub fn descriptors(&mut self, count: u64) -> &mut Self {
        self.descriptors = Some(count);
        self
    }

    /// Starts it by another program from the next time on, which gets the command as its last
    /// arguments and has to become it.
    pub fn inside(&mut self, wrapper: &[&str]) -> &mut Self {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Gives it a clock of its own from the next start on: what libfaketime is told by the environment.
    ///
    /// # Panics
    /// When libfaketime is not installed.
    pub fn clock(&mut self, how: &[(&str, &str)]) -> &mut Self {
        let folders = std::fs::read_dir("/usr/lib").expect("/usr/lib").filter_map(Result::ok);
        let libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
        let library = libraries.into_iter().find(|library| library.exists());
        let library = library.expect("libfaketime is missing: run tests/setup");
        self.env("LD_PRELOAD", &library.display().to_string());
        for (name, value) in how {
            self.env(name, value);
        }
        self
    }

    /// Starts it from a copy of the binary from the next time on, which a test may replace; where it
    /// is.
    pub fn copied(&mut self) -> PathBuf {
        self.binary = self.folder().join("witgate");
        std::fs::copy(env!("CARGO_BIN_EXE_witgate"), &self.binary).expect("a copy of the binary");
        self.binary.clone()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.running().id()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder().join("gateway.yaml")
    }

    /// Its store.
    pub fn store(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// Puts a file into its folder and returns its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// Replaces a file in its folder in one step, as a deployment does.
    pub fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let new = self.file(&format!("{name}.new"), content);
        std::fs::rename(new, self.folder().join(name)).expect("rename");
    }

    /// The whole configuration for `yaml`: the standard head for what it leaves out, and `@name@`
    /// replaced.
    pub fn text(&self, yaml: &str) -> String {
        let has = |key: &str| yaml.lines().any(|line| line.starts_with(key));
        let mut text = String::new();
        if !has("listen:") {
            text += "listen: [\"https://127.0.0.1:@https@\", \"http://127.0.0.1:@http@\"]\n";
        }
        if !has("store:") {
            text += "store: @dir@/state\n";
        }
        if !has("log:") {
            text += "log: {level: info, access: json, format: json}\n";
        }
        if !has("workers:") {
            text += "workers: 2\n";
        }
        text += yaml;
        for (name, value) in &self.values {
            text = text.replace(&format!("@{name}@"), value);
        }
        text
    }

    /// Writes the configuration in one step. A running gateway reloads it by itself.
    pub fn configure(&self, yaml: &str) -> &Self {
        self.replace("gateway.yaml", self.text(yaml));
        self
    }

    /// Writes the configuration, starts the gateway and waits until it serves.
    pub async fn start(&mut self, yaml: &str) -> &mut Self {
        self.configure(yaml);
        self.spawn();
        self.ready().await;
        self
    }

    /// Starts the process and does not wait for anything.
    pub fn spawn(&mut self) {
        let binary = self.binary.display().to_string();
        let limited = self.descriptors.map(|count| {
            ["prlimit".to_owned(), format!("--nofile={count}:{count}"), "--".to_owned()]
        });
        let limited = limited.iter().flatten();
        let mut words = self.wrapper.iter().chain(limited).chain(std::iter::once(&binary));
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words);
        command.arg("run").arg("--config").arg(self.config()).args(&self.arguments);
        command.current_dir(self.folder()).env("RUST_BACKTRACE", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start("witgate", &command));
    }

    /// Waits until it says `ready`.
    pub async fn ready(&mut self) {
        until("the gateway to be ready", LATER, || {
            let process = self.process();
            process.assert_running();
            std::future::ready(process.err.after(0).iter().any(|line| is_ready(line)).then_some(()))
        })
        .await;
    }

    /// The process.
    ///
    /// # Panics
    /// When it was not started.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the gateway was started")
    }

    /// Kills it without warning.
    pub fn kill9(&mut self) {
        self.process().kill9();
    }

    /// Starts it again on the same folder and ports, after an end of any kind.
    pub async fn restart(&mut self) {
        self.kill9();
        self.spawn();
        self.ready().await;
    }

    /// Asks it to end, without waiting.
    pub fn terminate(&mut self) {
        self.process().signal(Signal::TERM);
    }

    /// Asks it to reload.
    pub fn hangup(&mut self) {
        self.process().signal(Signal::HUP);
    }

    /// Waits for its end.
    pub async fn end(&mut self) -> ExitStatus {
        self.process().end(SOON).await
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.running().rss_kib()
    }

    /// Open file descriptors.
    pub fn fds(&self) -> usize {
        self.running().fds()
    }

    /// A mark in its log: pass it to [`Self::logged`] to see only what comes after.
    pub fn mark(&self) -> usize {
        self.running().err.mark()
    }

    /// The first line of its log after `mark` that has all of `words`; waits for it.
    pub async fn logged(&self, mark: usize, words: &[&str]) -> String {
        self.running().err.wait(mark, words, SOON).await
    }

    /// As [`Self::logged`], with another limit.
    pub async fn logged_within(&self, mark: usize, words: &[&str], limit: Duration) -> String {
        self.running().err.wait(mark, words, limit).await
    }

    /// Its whole log so far.
    pub fn log(&self) -> String {
        self.running().err.text()
    }

    /// What it has logged since a [`Gateway::mark`].
    pub fn log_after(&self, mark: usize) -> String {
        self.running().err.after(mark).join("\n")
    }

    /// The records of its access log so far.
    pub fn access(&self) -> Vec<serde_json::Value> {
        let lines = self.running().out.after(0);
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for the access record of a path, given as the client sent it.
    pub async fn accessed(&self, path: &str) -> serde_json::Value {
        self.accessed_as("path", path).await
    }

    /// Waits for an access record that has this text under this key.
    pub async fn accessed_as(&self, key: &str, value: &str) -> serde_json::Value {
        until(&format!("the access record with {key} {value}"), SOON, async || {
            self.access().into_iter().find(|record| record[key] == value)
        })
        .await
    }

    /// A metric of its control socket, summed over labels that are not given: `name{label="value"}`.
    pub async fn metric(&self, name: &str) -> u64 {
        let socket = self.store().join("admin.sock").display().to_string();
        let curl = ["--silent", "--unix-socket", &socket, "http://witgate/metrics"];
        let text = super::output("curl", &curl, SOON).await.stdout;
        let text = String::from_utf8(text).expect("UTF-8");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| line.rsplit_once(' ')).filter_map(|(key, value)| {
            let is_it = key == name || key.split('{').next() == Some(name);
            is_it.then(|| value.parse::<u64>().ok())?
        });
        values.sum()
    }

    /// The root of its local CA: certificate and key in one PEM.
    pub async fn local_root(&self) -> String {
        let path = self.store().join("local/root.pem");
        until("the local root", SOON, || std::future::ready(std::fs::read_to_string(&path).ok()))
            .await
    }

    /// A client of its https listener that trusts its local CA.
    pub async fn client(&self) -> Client {
        Client::new(self.https).trusting(&self.local_root().await)
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the gateway was started")
    }
}

/// Whether a log line has the word `ready`, in text or JSON.
fn is_ready(line: &str) -> bool {
    line.split(|letter: char| !letter.is_alphanumeric()).any(|word| word == "ready")
}
