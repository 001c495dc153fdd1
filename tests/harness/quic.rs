//! An HTTP/3 client that is not ours: aioquic, driven by `tests/e2e/quic/client.py`.

use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::pki::Pair;
use super::{Gateway, SOON, project, tool, within};

/// One connection.
pub struct Quic {
    _process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Quic {
    /// Connects to `host` as a client of `name`; the error is what the client says.
    pub async fn connect(gateway: &Gateway, host: &str, name: &str) -> Result<Self, String> {
        Self::connect_showing(gateway, host, name, None).await
    }

    /// The same with a certificate of its own.
    pub async fn connect_showing(
        gateway: &Gateway,
        host: &str,
        name: &str,
        pair: Option<&Pair>,
    ) -> Result<Self, String> {
        let roots = gateway.file(&format!("roots-{name}.pem"), gateway.local_root().await);
        let mut command = Command::new(tool("venv/bin/python"));
        command.arg(project().join("tests/e2e/quic/client.py"));
        command.args([host, &gateway.https.to_string(), name]).arg(roots);
        if let Some(pair) = pair {
            command.arg(gateway.file("quic-client.pem", &pair.certificate));
            command.arg(gateway.file("quic-client-key.pem", &pair.key));
        }
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("python");
        let input = process.stdin.take().expect("its input");
        let output = BufReader::new(process.stdout.take().expect("its output")).lines();
        let mut client = Self { _process: process, input, output };
        match client.read().await {
            said if said["connected"] == true => Ok(client),
            said => Err(said.to_string()),
        }
    }

    /// Sends requests at once and returns the answers in the same order, bodies decoded as `text`.
    pub async fn ask(&mut self, requests: Value) -> Vec<Value> {
        self.order(json!({"requests": requests})).await;
        self.answers().await
    }

    /// Changes the client's port, then asks.
    pub async fn moved(&mut self, requests: Value) -> Vec<Value> {
        self.order(json!({"requests": requests, "move": true})).await;
        self.answers().await
    }

    /// Gives an order without waiting.
    pub async fn order(&mut self, order: Value) {
        self.input.write_all(format!("{order}\n").as_bytes()).await.expect("it takes orders");
    }

    /// The answers to an order.
    pub async fn answers(&mut self) -> Vec<Value> {
        let said = self.read().await;
        let Value::Array(mut answers) = said["answers"].clone() else { panic!("{said}") };
        for answer in &mut answers {
            let body =
                STANDARD.decode(answer["body"].as_str().unwrap_or_default()).expect("base64");
            answer["length"] = json!(body.len());
            answer["text"] = json!(String::from_utf8_lossy(&body));
            answer["body"] = Value::Null;
        }
        answers
    }

    /// What it says next.
    pub async fn read(&mut self) -> Value {
        let line = within("the HTTP/3 client", 2 * SOON, self.output.next_line()).await;
        let line = line.expect("its output").expect("it says something");
        serde_json::from_str(&line).expect("JSON")
    }
}

/// The values of a field of an answer.
pub fn values<'a>(answer: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = answer["fields"].as_array().into_iter().flatten();
    fields.filter(|field| field[0] == name).filter_map(|field| field[1].as_str()).collect()
}
