//! The mock of a provider: a program of the author's that is told on its standard input, line by line
//! and as JSON, what happens, and answers so on its standard output; or a recording of one.
//! `docs/DNS01.md` has the messages.

use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::plugin::{WireAnswer, WireRequest};

/// A mock of a provider.
pub(super) struct Mock {
    talk: Mutex<Talk>,
}

struct Talk {
    source: Source,
    /// What was said so far, when it shall be kept.
    tape: Option<Vec<Said>>,
}

enum Source {
    Program {
        stdin: ChildStdin,
        lines: Lines<BufReader<ChildStdout>>,
        /// Ends with this.
        _child: Box<Child>,
    },
    Recording(Vec<Said>),
}

/// One message and its answer.
#[derive(Debug, Clone, serde::Serialize, Deserialize)]
struct Said {
    ask: Value,
    answer: Value,
    /// Played already.
    #[serde(skip)]
    is_used: bool,
}

/// What a mock says of itself and its provider. Nothing has to be said.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct About {
    /// The plugin's `config:`.
    pub config: Value,
    /// Texts of secrets that cannot be any text.
    pub secrets: std::collections::BTreeMap<String, String>,
    /// Grants other than those of plugin.yaml.
    pub grants: Option<Vec<String>>,
    /// Ten challenge names, all in one zone.
    pub names: Vec<String>,
    /// How many values a name can hold, where the API has no way to read and keep others.
    pub slots: Option<usize>,
    /// Whether values can be removed.
    pub can_remove: bool,
    /// Whether the solver finds zones by asking the API.
    pub asks_for_zones: bool,
    /// How the API refuses a credential.
    pub unauthorized: Reply,
}

impl Default for About {
    fn default() -> Self {
        let name = |n| match n {
            0 => "_acme-challenge.example.com".to_owned(),
            n => format!("_acme-challenge.n{n}.example.com"),
        };
        Self {
            config: Value::Null,
            secrets: std::collections::BTreeMap::new(),
            grants: None,
            names: (0..10).map(name).collect(),
            slots: None,
            can_remove: true,
            asks_for_zones: true,
            unauthorized: Reply { status: 401, ..Reply::default() },
        }
    }
}

/// An answer of the provider's, in a mock's words.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    /// What was wrong with the request, for the author.
    wrong: Option<String>,
}

#[derive(Deserialize)]
struct Values {
    values: Vec<String>,
}

impl Reply {
    /// The answer, and what was wrong with the request.
    pub(super) fn parts(self) -> (WireAnswer, Option<String>) {
        let body = self.body.into_bytes();
        (WireAnswer { status: self.status, headers: self.headers, body }, self.wrong)
    }
}

impl Mock {
    /// Starts a program, through the shell. `keeps` says that a recording is wanted.
    pub(super) fn start(command: &str, keeps: bool) -> Result<Self, String> {
        let mut program = Command::new("sh");
        program.args(["-c", command]).env("WITGATE_MOCK", "1").kill_on_drop(true);
        program.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            program.spawn().map_err(|cause| format!("cannot start a shell: {cause}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the mock has no standard input or output".to_owned());
        };
        let lines = BufReader::new(stdout).lines();
        let source = Source::Program { stdin, lines, _child: Box::new(child) };
        Ok(Self { talk: Mutex::new(Talk { source, tape: keeps.then(Vec::new) }) })
    }

    /// Plays what [`Mock::recording`] gave.
    pub(super) fn replay(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file)
            .map_err(|cause| format!("cannot read {}: {cause}", file.display()))?;
        let said = |(number, line): (usize, &str)| {
            serde_json::from_str(line)
                .map_err(|cause| format!("{}:{}: {cause}", file.display(), number + 1))
        };
        let said: Vec<Said> = text.lines().enumerate().map(said).collect::<Result<_, _>>()?;
        Ok(Self { talk: Mutex::new(Talk { source: Source::Recording(said), tape: None }) })
    }

    /// All that was said, a line of JSON for each message.
    pub(super) async fn recording(&self) -> String {
        let talk = self.talk.lock().await;
        let lines = talk.tape.iter().flatten();
        lines.map(|said| serde_json::to_string(said).unwrap_or_default() + "\n").collect()
    }

    pub(super) async fn about(&self) -> Result<About, String> {
        self.ask("describe", json!({"do": "describe"}), None).await
    }

    /// Forgets everything, and has these zones.
    pub(super) async fn reset(&self, zones: &[String], is_quoting: bool) -> Result<(), String> {
        let message = json!({"do": "reset", "zones": zones, "quoting": is_quoting});
        self.ask::<Value>("reset", message, None).await.map(drop)
    }

    /// Somebody else adds a value.
    pub(super) async fn add(&self, name: &str, value: &str) -> Result<(), String> {
        self.ask::<Value>("add", json!({"do": "add", "name": name, "value": value}), None)
            .await
            .map(drop)
    }

    /// The TXT values of a name, sorted; `for_dns` when the name server asks, which may be often.
    pub(super) async fn values(&self, name: &str, for_dns: bool) -> Result<Vec<String>, String> {
        let message = json!({"do": "values", "name": name, "for-dns": for_dns});
        let Values { mut values } = self.ask("values", message, None).await?;
        values.sort();
        Ok(values)
    }

    /// A request of the solver.
    pub(super) async fn request(
        &self,
        written: &WireRequest,
        sent: &WireRequest,
    ) -> Result<Reply, String> {
        let mut message = written_as(written);
        if let Some(message) = message.as_object_mut() {
            message.insert("do".to_owned(), "request".into());
        }
        self.ask("request", message, Some(written_as(sent))).await
    }

    /// Asks and reads the answer. What is `sent` has keys and times in it, which no recording knows.
    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        message: Value,
        sent: Option<Value>,
    ) -> Result<T, String> {
        let mut talk = self.talk.lock().await;
        let Talk { source, tape } = &mut *talk;
        let answer = match source {
            Source::Recording(said) => {
                // What comes more often than it did gets the last answer again.
                let is_dns = message.get("for-dns") == Some(&Value::Bool(true));
                let unused = said.iter().position(|it| !it.is_used && it.ask == message);
                let at = unused
                    .or_else(|| said.iter().rposition(|it| is_dns && it.ask == message))
                    .ok_or_else(|| format!("the recording has no such message: {message}"))?;
                let found = said.get_mut(at).ok_or("the recording ends here")?;
                found.is_used = true;
                found.answer.clone()
            }
            Source::Program { stdin, lines, .. } => {
                let mut whole = message.clone();
                if let (Some(whole), Some(sent)) = (whole.as_object_mut(), sent) {
                    whole.insert("sent".to_owned(), sent);
                }
                let line = format!("{whole}\n");
                let told = async {
                    stdin.write_all(line.as_bytes()).await?;
                    stdin.flush().await
                };
                told.await.map_err(|cause| format!("the mock has ended: {cause}"))?;
                let answer = timeout(ANSWER_MAX, next_object(lines)).await;
                answer.map_err(|_| format!("the mock has no answer to `{what}`"))??
            }
        };
        if let Some(tape) = tape {
            tape.push(Said { ask: message, answer: answer.clone(), is_used: false });
        }
        serde_json::from_value(answer)
            .map_err(|cause| format!("the mock's answer to `{what}` is not as documented: {cause}"))
    }
}

/// The next line that is a JSON object; whatever else a program prints is not for us.
async fn next_object(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<Value, String> {
    loop {
        let line = lines.next_line().await.map_err(|cause| format!("the mock: {cause}"))?;
        let line = line.ok_or("the mock has ended")?;
        if !line.starts_with('{') {
            continue;
        }
        return serde_json::from_str(&line)
            .map_err(|cause| format!("the mock said what is no JSON: {cause}: {line}"));
    }
}

fn written_as(request: &WireRequest) -> Value {
    json!({
        "method": request.method,
        "url": request.url,
        "headers": request.headers,
        "body": String::from_utf8_lossy(&request.body),
    })
}

/// How long a mock is waited for: it may be compiled first.
const ANSWER_MAX: std::time::Duration = std::time::Duration::from_secs(300);
