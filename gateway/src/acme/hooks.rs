//! Telling others what happens to certificates: programs and URLs of the operator's. Nothing waits for
//! them, and what they do changes nothing here.

use std::process::Stdio;
use std::time::Duration;

use http::HeaderMap;
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;

use super::{Wants, client};
use crate::clock::Timestamp;
use crate::config::HookBy;

/// What happened to a certificate.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// One of [`crate::config::keys::EVENTS`].
    pub event: &'static str,
    /// The names in the certificate.
    pub names: Vec<String>,
    /// When, in seconds since 1970.
    pub at: i64,
    /// The end of the certificate that is served now, in seconds since 1970.
    pub not_after: Option<i64>,
    /// In words, what went wrong or who issued it.
    pub message: String,
}

impl Event {
    /// Something that happened now.
    pub fn now(event: &'static str, names: Vec<String>, not_after: Option<Timestamp>) -> Self {
        let not_after = not_after.map(|at| at.0);
        Self { event, names, at: Timestamp::now().0, not_after, message: String::new() }
    }

    /// The same, with words.
    #[must_use]
    pub fn saying(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }
}

/// Tells all hooks that want to know. Must run inside a tokio runtime.
pub fn tell(wants: &Wants, event: &Event) {
    for hook in &wants.hooks {
        let is_wanted = hook.on.is_empty() || hook.on.iter().any(|name| name == event.event);
        let Ok(json) = serde_json::to_string(event) else { continue };
        if let HookBy::Plugin(name) = &hook.by {
            let listener = wants.listeners.get(name).filter(|_| is_wanted);
            listener.inspect(|listener| listener.give(json));
        } else if is_wanted {
            let (by, name) = (hook.by.clone(), event.event);
            tokio::spawn(async move {
                if let Err(why) = told(&by, name, &json).await {
                    let hook = match &by {
                        HookBy::Command(words) => words.join(" "),
                        HookBy::Url(name) | HookBy::Plugin(name) => name.clone(),
                    };
                    tracing::warn!(hook, event = name, "a hook failed: {why}");
                }
            });
        }
    }
}

async fn told(by: &HookBy, event: &str, json: &str) -> Result<(), String> {
    match by {
        HookBy::Command(words) => {
            let ran = tokio::time::timeout(COMMAND_TIME, run(words, event, json)).await;
            ran.map_err(|_| format!("it took longer than {} s", COMMAND_TIME.as_secs()))?
        }
        // It is given to its feed.
        HookBy::Plugin(_) => Ok(()),
        HookBy::Url(url) => {
            let mut pauses = PAUSES.iter();
            loop {
                let posted = tokio::time::timeout(
                    POST_TIME,
                    client::post(url, json.to_owned(), HeaderMap::new()),
                );
                let why = match posted.await {
                    Ok(Ok(status)) if status.is_success() => return Ok(()),
                    Ok(Ok(status)) => format!("it answers {status}"),
                    Ok(Err(cause)) => cause.to_string(),
                    Err(_) => "it does not answer".to_owned(),
                };
                match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => return Err(why),
                }
            }
        }
    }
}

async fn run(words: &[String], event: &str, json: &str) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("the command is empty")?;
    let mut command = tokio::process::Command::new(program);
    // The gateway's own environment may hold secrets.
    let kept = ["PATH", "HOME", "LANG"].map(|name| (name, std::env::var_os(name)));
    let kept = kept.into_iter().filter_map(|(name, value)| Some((name, value?)));
    command.args(arguments).env_clear().envs(kept).env("WITGATE_EVENT", event);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|cause| format!("{program}: {cause}"))?;
    if let Some(mut input) = child.stdin.take() {
        // A program that does not read it is fine too.
        let _ = input.write_all(json.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(|cause| cause.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim().lines().last().unwrap_or_default();
    Err(format!("{}: {}", output.status, super::error::plain(last)))
}

const COMMAND_TIME: Duration = Duration::from_secs(60);
const POST_TIME: Duration = Duration::from_secs(10);
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(20)];
