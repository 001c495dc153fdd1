//! Promise: no request reaches a server that the gateway did not mean to send. The table of
//! `tests/e2e/smuggling` goes through the gateway to servers that read HTTP in different ways.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::client::Client;
use crate::harness::h2::{self, Ending, RawH2, flag, kind};
use crate::harness::recorder::Recorder;
use crate::harness::{Gateway, Process, SOON, port, project, tool, until, within};

/// A case of either table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    send: Option<String>,
    line: Option<String>,
    get: Option<String>,
    post: Option<String>,
    #[serde(default)]
    fields: Vec<(String, String)>,
    trailers: Option<Vec<(String, String)>>,
    status: Value,
    #[serde(rename = "then")]
    after: Option<String>,
    reaches: Option<String>,
    target: Option<String>,
    body: Option<String>,
    #[serde(default)]
    seen: BTreeMap<String, String>,
    #[serde(default)]
    absent: Vec<String>,
}

/// Whether a server may, must or must not see a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Once,
    Perhaps,
    Never,
}

impl Case {
    fn table(name: &str) -> Vec<Self> {
        let path = project().join("tests/e2e/smuggling").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn reach(&self) -> Reach {
        match self.reaches.as_deref() {
            Some("maybe") => Reach::Perhaps,
            Some(other) => panic!("{}: reaches: {other}", self.name),
            None if self.status == "any" => Reach::Perhaps,
            None if self.status == 200 => Reach::Once,
            None => Reach::Never,
        }
    }

    fn is_open(&self) -> bool {
        self.status == 200 || self.after.as_deref() == Some("open")
    }

    /// What is sent over HTTP/1.1.
    fn text(&self, host: &str, path: &str) -> String {
        let text = if let Some(send) = &self.send {
            send.clone()
        } else if let Some(line) = &self.line {
            format!("{line}\r\nHost: {{h}}\r\n\r\n")
        } else if let Some(fields) = &self.get {
            format!("GET {{p}} HTTP/1.1\r\nHost: {{h}}\r\n{fields}\r\n")
        } else {
            let rest = self.post.as_ref().expect("a case sends something");
            format!("POST {{p}} HTTP/1.1\r\nHost: {{h}}\r\n{rest}")
        };
        fill(&text, host, path)
            .replace("{long}", &"a".repeat(2000))
            .replace("{huge}", &"a".repeat(40_000))
            .replace("{many}", &"X: y\r\n".repeat(200))
    }
}

fn fill(text: &str, host: &str, path: &str) -> String {
    text.replace("{h}", host).replace("{H}", &host.to_uppercase()).replace("{p}", path)
}

/// A server, by the name of its site, and what it says about what it sees.
enum Server {
    Speaking(Process),
    Logging(Process, std::path::PathBuf),
    Recording(Recorder),
}

impl Server {
    /// The targets that it saw, and what it could not read.
    fn saw(&self) -> (Vec<String>, Vec<String>) {
        let lines = match self {
            Self::Speaking(process) => [process.out.after(0), process.err.after(0)].concat(),
            Self::Logging(_, log) => {
                let text = std::fs::read_to_string(log).unwrap_or_default();
                text.lines().map(str::to_owned).collect()
            }
            Self::Recording(recorder) => {
                let seen = recorder.seen();
                let targets = seen.requests.iter().map(|request| request.target.clone());
                return (targets.collect(), seen.complaints);
            }
        };
        let mut targets = Vec::new();
        let mut bad = Vec::new();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                // nginx: the status, then the first line.
                ["SEEN", "200", _, target, "HTTP/1.1"] => targets.push(target.to_owned()),
                ["SEEN", "400" | "499", _, target, "HTTP/1.1"] => targets.push(target.to_owned()),
                ["SEEN", "WEBSOCKET" | "UPGRADE" | "CONNECT", ..] => bad.push(line),
                ["SEEN", _, target] => targets.push(target.to_owned()),
                ["SEEN" | "BAD", ..] => bad.push(line),
                _ if line.contains("Invalid HTTP request") => bad.push(line),
                _ => {}
            }
        }
        (targets, bad)
    }
}

/// All servers, each behind a site of its name.
async fn servers(gateway: &mut Gateway) -> BTreeMap<&'static str, Server> {
    let folder = project().join("tests/e2e/smuggling");
    let mut ports = BTreeMap::new();
    for name in ["uvicorn", "h11", "node", "lenient", "go", "nginx"] {
        ports.insert(name, port());
    }
    let recorder = Recorder::start().await;
    ports.insert("raw", recorder.port);
    let text = |name: &str| ports[name].to_string();
    let start = |name: &str, program: &std::path::Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&folder).env("PYTHONDONTWRITEBYTECODE", "1");
        Process::start(name, &command)
    };
    let python = tool("venv/bin/python");
    let uvicorn = |name: &str, parser: &str| {
        let port = text(name);
        let arguments =
            ["-m", "uvicorn", "app:app", "--no-access-log", "--port", &port, "--http", parser];
        Server::Speaking(start(name, &python, &arguments))
    };
    let log = gateway.folder().join("nginx-access.log");
    let config = std::fs::read_to_string(folder.join("nginx.conf")).unwrap();
    let config = config.replace("@dir@", &gateway.folder().display().to_string());
    let config = gateway.file("nginx.conf", config.replace("@nginx@", &text("nginx")));
    let nginx =
        ["-c", &config.display().to_string(), "-p", &gateway.folder().display().to_string()];
    let node = [&folder.join("server.js").display().to_string(), &text("node"), &text("lenient")];
    let mut servers = BTreeMap::from([
        ("uvicorn", uvicorn("uvicorn", "httptools")),
        ("h11", uvicorn("h11", "h11")),
        ("node", Server::Speaking(start("node", "node".as_ref(), &node.map(String::as_str)))),
        ("go", Server::Speaking(start("go", &tool("bin/recorder"), &[&text("go")]))),
        ("nginx", Server::Logging(start("nginx", "/usr/sbin/nginx".as_ref(), &nginx), log)),
        ("raw", Server::Recording(recorder)),
    ]);
    let (mut sites, mut upstreams) = (String::new(), String::new());
    for (name, port) in &ports {
        sites += &format!("  - {{hosts: [{name}.localhost], upstream: {name}}}\n");
        upstreams += &format!("  {name}: http://127.0.0.1:{port}\n");
        until(&format!("{name} to listen"), 2 * SOON, async || {
            if let Some(Server::Speaking(process) | Server::Logging(process, _)) =
                servers.get_mut(name)
            {
                process.assert_running();
            }
            tokio::net::TcpStream::connect(("127.0.0.1", *port)).await.ok()
        })
        .await;
    }
    gateway.start(&format!("sites:\n{sites}upstreams:\n{upstreams}")).await;
    servers
}

/// The sites that lead to a server; Node has two.
const SITES: &[(&str, &str)] = &[
    ("uvicorn", "uvicorn"),
    ("h11", "h11"),
    ("node", "node"),
    ("lenient", "node"),
    ("go", "go"),
    ("nginx", "nginx"),
    ("raw", "raw"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_arrives_that_was_not_meant() {
    let mut gateway = Gateway::new();
    let servers = servers(&mut gateway).await;
    let client = Arc::new(gateway.client().await);
    let (h1, h2) = (Case::table("h1.yaml"), Case::table("h2.yaml"));
    assert!(h1.len() + h2.len() >= 250, "{} and {} cases", h1.len(), h2.len());
    let turns = Arc::new(tokio::sync::Semaphore::new(16));
    let mut tasks = tokio::task::JoinSet::new();
    for (site, _) in SITES {
        for (protocol, cases) in [("h1", &h1), ("h2", &h2)] {
            for (index, case) in cases.iter().cloned().enumerate() {
                let (client, turns) = (Arc::clone(&client), Arc::clone(&turns));
                tasks.spawn(async move {
                    let _turn = turns.acquire().await.unwrap();
                    let host = format!("{site}.localhost");
                    let path = format!("/{site}-{protocol}-{index}");
                    let outcome = match protocol {
                        "h1" => over_h1(&client, &case, &host, &path).await,
                        _ => over_h2(&client, &case, &host, &path).await,
                    };
                    outcome.err().map(|what| format!("{site} {protocol} {}: {what}", case.name))
                });
            }
        }
    }
    let mut wrong: Vec<String> = tasks.join_all().await.into_iter().flatten().collect();
    wrong.sort();
    for (name, server) in &servers {
        let sites = SITES.iter().filter(|(_, of)| of == name).map(|(site, _)| *site);
        let sites: Vec<&str> = sites.collect();
        wrong.extend(arrived(name, server, &sites, &h1, &h2).await);
    }
    if let Some(Server::Recording(recorder)) = servers.get("raw") {
        wrong.extend(recorded(recorder, "h1", &h1));
        wrong.extend(recorded(recorder, "h2", &h2));
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

/// Sends a case and a request right behind it.
async fn over_h1(client: &Client, case: &Case, host: &str, path: &str) -> Result<(), String> {
    let mut stream = client.tls(host, &[b"http/1.1"]).await.map_err(|e| e.to_string())?;
    let behind = match case.is_open() {
        true => format!("GET {path}-next HTTP/1.1\r\nHost: {host}\r\nX-Behind: 1\r\n\r\n"),
        false => format!("GET {path}-smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    };
    let text = case.text(host, path) + &behind;
    // The refusal may come before all of it was sent.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    let mut statuses = Vec::<u16>::new();
    let read = async {
        while case.is_open() && statuses.len() < 2 || !case.is_open() {
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await {
                Ok(bytes) if bytes > 0 => answer.extend_from_slice(&piece[..bytes]),
                _ => return true,
            }
            let text = String::from_utf8_lossy(&answer);
            let starts = text.match_indices("HTTP/1.1 ");
            statuses =
                starts.filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok()).collect();
            // What was told to go on is no response yet.
            statuses.retain(|status| *status != 100);
        }
        false
    };
    let has_ended = tokio::time::timeout(SOON, read).await;
    let Ok(has_ended) = has_ended else { return Err(format!("nothing more after {statuses:?}")) };
    let is_as_said = match (&case.status, case.is_open()) {
        (Value::String(any), _) if any == "any" => !statuses.is_empty(),
        (status, true) => statuses.len() == 2 && *status == statuses[0] && statuses[1] == 200,
        (status, false) => statuses.len() == 1 && *status == statuses[0] && has_ended,
    };
    match is_as_said {
        true => Ok(()),
        false => Err(format!("{statuses:?}: {}", String::from_utf8_lossy(&answer))),
    }
}

/// Sends a case as frames, and a good request on the next stream, which the connection's end may take
/// along.
async fn over_h2(client: &Client, case: &Case, host: &str, path: &str) -> Result<(), String> {
    let mut h2 = RawH2::connect(client, host).await.map_err(|e| e.to_string())?;
    let filled = |fields: &[(String, String)]| {
        let fields = fields.iter().map(|(n, v)| (n.clone(), fill(v, host, path)));
        h2::block(&fields.collect::<Vec<_>>())
    };
    let is_short = case.body.is_none() && case.trailers.is_none();
    let end = |is_last: bool| if is_last { flag::END_STREAM } else { 0 };
    let flags = flag::END_HEADERS | end(is_short);
    let mut frames = h2::frame(kind::HEADERS, flags, 1, &filled(&case.fields));
    if let Some(body) = &case.body {
        let flags = end(case.trailers.is_none());
        frames.extend(h2::frame(kind::DATA, flags, 1, fill(body, host, path).as_bytes()));
    }
    if let Some(trailers) = &case.trailers {
        let flags = flag::END_HEADERS | flag::END_STREAM;
        frames.extend(h2::frame(kind::HEADERS, flags, 1, &filled(trailers)));
    }
    h2.send_all(&frames).await.map_err(|e| e.to_string())?;
    let ending = tokio::time::timeout(SOON, h2.ending(1)).await.map_err(|_| "no end")?;
    let is_as_said = match (&case.status, ending) {
        (Value::String(any), _) if any == "any" => true,
        (Value::String(refused), Ending::Status(status)) if refused == "refused" => {
            (400..500).contains(&status) || status == 501
        }
        (Value::String(refused), _) => refused == "refused",
        (status, Ending::Status(found)) => *status == found,
        _ => false,
    };
    if !is_as_said {
        return Err(format!("{ending:?}"));
    }
    // A stream's fault must not take the connection's other streams along in silence.
    if matches!(ending, Ending::Status(_) | Ending::Reset(_)) {
        let flags = flag::END_HEADERS | flag::END_STREAM;
        let next = h2::get(host, &format!("{path}-next"));
        if h2.send(kind::HEADERS, flags, 3, &next).await.is_ok() {
            let next = within("the stream after it", SOON, h2.ending(3)).await;
            if !matches!(next, Ending::Status(200) | Ending::GoAway(_) | Ending::Closed) {
                return Err(format!("{ending:?}, and the next stream {next:?}"));
            }
        }
    }
    Ok(())
}

/// What is wrong with what arrived at a server.
async fn arrived(
    name: &str,
    server: &Server,
    sites: &[&str],
    h1: &[Case],
    h2: &[Case],
) -> Vec<String> {
    let mut must = BTreeSet::new();
    let mut may = BTreeSet::new();
    for site in sites {
        for (protocol, cases) in [("h1", h1), ("h2", h2)] {
            for (index, case) in cases.iter().enumerate() {
                let path = format!("/{site}-{protocol}-{index}");
                let target = match &case.target {
                    Some(target) => fill(target, "", &path),
                    None if case.name == "two slashes" => format!("/{path}"),
                    None => path.clone(),
                };
                match case.reach() {
                    Reach::Once => drop(must.insert(target)),
                    Reach::Perhaps => drop(may.insert(target)),
                    Reach::Never => {}
                }
                match protocol == "h1" && case.is_open() {
                    true => must.insert(format!("{path}-next")),
                    false => may.insert(format!("{path}-next")),
                };
            }
        }
    }
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let (targets, bad) = server.saw();
        let seen: BTreeSet<&String> = targets.iter().collect();
        let missing: Vec<_> = must.iter().filter(|target| !seen.contains(target)).collect();
        let is_over = std::time::Instant::now() > deadline;
        if !missing.is_empty() && !is_over {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        }
        let mut wrong: Vec<String> =
            bad.iter().map(|line| format!("{name} could not read: {line}")).collect();
        wrong.extend(missing.iter().map(|target| format!("{name} never saw {target}")));
        let mut counts = BTreeMap::<&String, usize>::new();
        for target in &targets {
            *counts.entry(target).or_default() += 1;
        }
        for (target, count) in counts {
            if !must.contains(target) && !may.contains(target) {
                wrong.push(format!("{name} saw {target}, which was never meant"));
            } else if count > 1 {
                wrong.push(format!("{name} saw {target} {count} times"));
            }
        }
        return wrong;
    }
}

/// What is wrong with the requests as they were on the wire.
fn recorded(recorder: &Recorder, protocol: &str, cases: &[Case]) -> Vec<String> {
    let mut wrong = Vec::new();
    let requests = recorder.seen().requests;
    for (index, case) in cases.iter().enumerate() {
        let path = format!("/raw-{protocol}-{index}");
        let target = case.target.as_ref().map_or(path.clone(), |target| fill(target, "", &path));
        let Some(request) = requests.iter().find(|request| request.target == target) else {
            continue;
        };
        let name = format!("{protocol} {}", case.name);
        let values = |name: &str| {
            let fields = request.fields.iter().chain(&request.trailers);
            fields.filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>()
        };
        for (field, value) in &case.seen {
            if values(field) != [value.as_str()] {
                wrong.push(format!("{name}: {field} was {:?}", values(field)));
            }
        }
        for field in &case.absent {
            if !values(field).is_empty() {
                wrong.push(format!("{name}: {field} was {:?}", values(field)));
            }
        }
        if case.reach() == Reach::Once {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            if case.body.as_ref().is_some_and(|want| *want != body) || !request.is_whole {
                wrong.push(format!("{name}: the body was {body:?}"));
            }
        }
        let forwarded = values("x-forwarded-for");
        if forwarded != ["127.0.0.1"] {
            wrong.push(format!("{name}: x-forwarded-for was {forwarded:?}"));
        }
    }
    wrong
}
