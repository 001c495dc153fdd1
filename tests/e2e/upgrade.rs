//! Promise: a new binary takes over without one connection that is refused or reset, over HTTP/1.1,
//! HTTP/2 and HTTP/3, and sessions go on; when the new one cannot serve, the old one serves on and says
//! why. systemd is told who serves, and may have opened the sockets.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustls::HandshakeKind;
use serde_json::json;

use crate::harness::client::{Client, Http, get};
use crate::harness::quic::Quic;
use crate::harness::{Gateway, LATER, RustOrigin, SOON, output, until};

const YAML: &str = "
limits: {drain: 20s}
sites:
  - hosts: [app.localhost]
    routes: [{upstream: app}]
upstreams:
  app: http://127.0.0.1:@origin@
";

/// A process that is not our child. Killed with the scope.
struct Other(Pid);

impl Other {
    fn id(&self) -> i32 {
        self.0.as_raw_nonzero().get()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Waits until a process has ended, or only its status is left.
async fn ended(id: i32) {
    until(&format!("process {id} to end"), LATER, || {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"));
        std::future::ready(stat.map_or(true, |stat| stat.contains(") Z ")).then_some(()))
    })
    .await;
}

/// Whether the connection had been ended in order before this request: it is not served, and its client
/// makes it again (RFC 9113, section 6.8).
fn is_unserved(cause: &hyper::Error) -> bool {
    let text = format!("{cause:?}");
    text.contains("GoAway") && text.contains("NO_ERROR")
}

/// Requests without end on connections of every kind, and all that went wrong.
#[derive(Default)]
struct Steady {
    is_over: AtomicBool,
    answered: [AtomicU64; 4],
    failures: Mutex<Vec<String>>,
}

impl Steady {
    fn start(client: &Client) -> (Arc<Self>, Vec<tokio::task::JoinHandle<()>>) {
        let steady = Arc::new(Self::default());
        let mut tasks = Vec::new();
        for kind in [0, 0, 1, 1, 2, 2] {
            tasks.push(tokio::spawn(Arc::clone(&steady).ask(client.clone(), kind)));
        }
        (steady, tasks)
    }

    fn fail(&self, what: String) {
        self.failures.lock().unwrap().push(what);
    }

    /// 0: HTTP/1.1 that is kept; 1: HTTP/2; 2: a new connection and handshake for each request.
    async fn ask(self: Arc<Self>, client: Client, kind: usize) {
        let mut http: Option<Http> = None;
        while !self.is_over.load(Ordering::Relaxed) {
            let mut open = match http.take().filter(|http| !http.is_closed()) {
                Some(open) => open,
                None => {
                    let opened = match kind {
                        0 => client.h1("app.localhost").await,
                        1 => client.h2("app.localhost").await,
                        _ => client.clone().fresh().h1("app.localhost").await,
                    };
                    match opened {
                        Ok(open) => open,
                        Err(cause) => {
                            self.fail(format!("{kind}: connection: {cause}"));
                            continue;
                        }
                    }
                }
            };
            match open.send(get("app.localhost", "/")).await {
                Ok(answer) if answer.status == 200 => {
                    self.answered[kind].fetch_add(1, Ordering::Relaxed);
                    let is_last = answer.header("connection") == "close";
                    http = Some(open).filter(|_| !is_last && kind != 2);
                }
                Ok(answer) => self.fail(format!("{kind}: {} {}", answer.status, answer.text())),
                // It was told that the connection ends, and has not sent the request.
                Err(cause) if kind == 1 && (cause.is_canceled() || is_unserved(&cause)) => {}
                Err(cause) => self.fail(format!("{kind}: {cause:?}")),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn stop(&self, tasks: Vec<tokio::task::JoinHandle<()>>) {
        self.is_over.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
        let failures = self.failures.lock().unwrap();
        assert!(
            failures.is_empty(),
            "{} failures: {:#?}",
            failures.len(),
            &failures[..failures.len().min(5)]
        );
    }

    fn answers(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|kind| self.answered[kind].load(Ordering::Relaxed))
    }
}

async fn upgrade(gateway: &Gateway) -> Output {
    let config = gateway.config().display().to_string();
    output(env!("CARGO_BIN_EXE_witgate"), &["upgrade", "--config", &config], LATER).await
}

/// The process that answers at the control socket.
async fn serving_id(gateway: &Gateway) -> u32 {
    let socket = gateway.store().join("admin.sock").display().to_string();
    let curl = ["--silent", "--unix-socket", &socket, "http://witgate/status"];
    let text = output("curl", &curl, SOON).await.stdout;
    let status: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    status["process"].as_u64().and_then(|id| id.try_into().ok()).expect("a process id")
}

/// The same, which is not the one that the test started.
async fn serving(gateway: &Gateway) -> Other {
    let id = i32::try_from(serving_id(gateway).await).expect("an id");
    Other(Pid::from_raw(id).expect("an id"))
}

/// A new QUIC connection for each request.
fn ask_over_http3(steady: &Steady, gateway: &Gateway) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        while !steady.is_over.load(Ordering::Relaxed) {
            match Quic::connect(gateway, "127.0.0.1", "app.localhost").await {
                Ok(mut quic) => {
                    let answers = quic.ask(json!([{"path": "/"}])).await;
                    match answers[0]["status"] == 200 {
                        true => drop(steady.answered[3].fetch_add(1, Ordering::Relaxed)),
                        false => steady.fail(format!("HTTP/3: {}", answers[0])),
                    }
                }
                Err(cause) => steady.fail(format!("HTTP/3: {cause}")),
            }
        }
    });
}

/// Puts a script in place of the program, in one step.
fn install(binary: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let beside = binary.with_extension("new");
    std::fs::write(&beside, script).unwrap();
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(beside, binary).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_binary_takes_over_and_nobody_notices() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let binary = gateway.copied();
    gateway.set("origin", origin.port).start(YAML).await;
    let client = gateway.client().await;
    // Sessions of before, over both versions.
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
    let known = versions.map(|version| client.clone().speaking(version));
    for client in &known {
        assert_eq!(client.get("app.localhost", "/").await.status, 200);
    }
    let mut idle = client.h1("app.localhost").await.unwrap();
    assert_eq!(idle.send(get("app.localhost", "/idle")).await.unwrap().status, 200);
    let (steady, mut tasks) = Steady::start(&client);
    let gateway = Arc::new(gateway);
    tasks.push(tokio::task::spawn_blocking({
        let (steady, gateway) = (Arc::clone(&steady), Arc::clone(&gateway));
        move || ask_over_http3(&steady, &gateway)
    }));
    let mut old_quic = Quic::connect(&gateway, "127.0.0.1", "app.localhost").await.unwrap();
    until("load of every kind", LATER, || {
        std::future::ready((steady.answers().iter().all(|n| *n > 0)).then_some(()))
    })
    .await;
    // Requests that the old process has to bring to their end.
    old_quic.order(json!({"requests": [{"path": "/slow?ms=4000"}]})).await;
    let mut slow = tokio::task::JoinSet::new();
    for mut http in
        [client.h1("app.localhost").await.unwrap(), client.h2("app.localhost").await.unwrap()]
    {
        slow.spawn(async move { http.send(get("app.localhost", "/slow?ms=4000")).await });
    }
    until("the slow requests to arrive", SOON, || {
        let slow = origin.requests().iter().filter(|r| r.to_string().contains("slow")).count();
        std::future::ready((slow == 3).then_some(()))
    })
    .await;

    let upgraded = upgrade(&gateway).await;
    let said = String::from_utf8_lossy(&upgraded.stdout).into_owned();
    let failed = String::from_utf8_lossy(&upgraded.stderr).into_owned();
    assert!(upgraded.status.success(), "{said}{failed}");
    let next = serving(&gateway).await;
    let before = i32::try_from(gateway.id()).unwrap();
    assert_ne!(next.id(), before);
    assert!(said.contains(&next.id().to_string()), "{said}");
    while let Some(answer) = slow.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status, 200);
    }
    assert_eq!(old_quic.answers().await[0]["status"], 200, "what the old process began");
    // An idle connection is told with its next response, instead of being closed under it.
    if !idle.is_closed() {
        let answer = idle.send(get("app.localhost", "/idle")).await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    }
    for (client, version) in known.iter().zip(["TLS 1.2", "TLS 1.3"]) {
        let stream = client.tls("app.localhost", &[b"http/1.1"]).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::Resumed), "{version} over the upgrade");
    }
    let after = steady.answers();
    until("load of every kind after the upgrade", LATER, || {
        let more = steady.answers();
        std::future::ready((0..4).all(|kind| more[kind] > after[kind] + 1).then_some(()))
    })
    .await;
    ended(before).await;

    // The one that took over is a gateway like any other: it can be upgraded, by a signal, too.
    std::fs::copy(env!("CARGO_BIN_EXE_witgate"), binary.with_extension("new")).unwrap();
    std::fs::rename(binary.with_extension("new"), &binary).unwrap();
    let mark = gateway.mark();
    kill_process(next.0, Signal::USR2).unwrap();
    gateway.logged_within(mark, &["the new process serves"], LATER).await;
    let third = serving(&gateway).await;
    assert_ne!(third.id(), next.id());
    ended(next.id()).await;
    steady.stop(tasks).await;
    kill_process(third.0, Signal::TERM).unwrap();
    ended(third.id()).await;
    assert!(!gateway.store().join("admin.sock").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_binary_that_fails_changes_nothing() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    let binary = gateway.copied();
    gateway.set("origin", origin.port).start(YAML).await;
    let client = gateway.client().await;
    let id = gateway.id();
    let (steady, tasks) = Steady::start(&client);
    let ready_then_gone = "#!/usr/bin/env python3
import socket
line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=0)
line.setblocking(True)
line.recvmsg(131072, 65536)
line.recvmsg(131072, 65536)
line.send(b'\"ready\"')
assert line.recv(100) == b'\"go\"'
";
    for (program, why) in [
        ("#!/bin/sh\nexit 3\n", "exit status: 3"),
        ("#!/nowhere/at/all\n", "could not be started"),
        ("#!/usr/bin/env python3\nimport os\nos.write(0, b'\"go\"')\n", "is not understood"),
        (ready_then_gone, "ended before it was ready"),
    ] {
        install(&binary, program);
        let refused = upgrade(&gateway).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(why), "{program}: {said}");
        assert_eq!(serving_id(&gateway).await, id);
        let mut quic = Quic::connect(&gateway, "127.0.0.1", "app.localhost").await.unwrap();
        assert_eq!(quic.ask(json!([{"path": "/"}])).await[0]["status"], 200, "{program}");
    }
    // The program is good, and what it finds is not.
    std::fs::remove_file(&binary).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_witgate"), &binary).unwrap();
    gateway.configure(&format!("{YAML}nonsense: 1\n"));
    let refused = upgrade_at(&gateway).await;
    assert!(refused.contains("nonsense"), "{refused}");
    gateway.configure(YAML);
    let mark = gateway.mark();
    gateway.hangup();
    gateway.logged(mark, &["serving"]).await;
    steady.stop(tasks).await;
    assert_eq!(serving_id(&gateway).await, id);
    // Nothing of it stands in the way of one that succeeds.
    assert!(upgrade(&gateway).await.status.success());
    let next = serving(&gateway).await;
    assert_eq!(client.get("app.localhost", "/").await.status, 200);
    assert!(gateway.end().await.success());
    drop(next);
}

/// The command line reads the same broken file, so the socket is asked here.
async fn upgrade_at(gateway: &Gateway) -> String {
    let socket = gateway.store().join("admin.sock").display().to_string();
    let curl = ["--silent", "-X", "POST", "--unix-socket", &socket, "http://witgate/upgrade"];
    String::from_utf8(output("curl", &curl, LATER).await.stdout).expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_opens_the_sockets_and_is_told_who_serves() {
    let origin = RustOrigin::h1().await;
    let mut gateway = Gateway::new();
    gateway.copied();
    let told = gateway.folder().join("notify");
    let notify = UnixDatagram::bind(&told).unwrap();
    notify.set_read_timeout(Some(LATER)).unwrap();
    let (https, http) = (gateway.https.to_string(), gateway.http.to_string());
    // Without SO_REUSEPORT nobody but who inherits them could listen there.
    let activate = "import os, socket, sys
https, http, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
kinds = [(https, socket.SOCK_STREAM), (https, socket.SOCK_DGRAM), (http, socket.SOCK_STREAM)]
sockets = []
for port, kind in kinds:
    one = socket.socket(socket.AF_INET, kind)
    one.bind(('127.0.0.1', port))
    if kind == socket.SOCK_STREAM:
        one.listen(64)
    sockets.append(os.dup(one.fileno()))
high = [os.dup2(fd, 100 + n) for n, fd in enumerate(sockets)]
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n, inheritable=True)
    os.close(fd)
os.environ['LISTEN_FDS'] = str(len(sockets))
os.environ['LISTEN_PID'] = str(os.getpid())
os.execvp(command[0], command)
";
    let script = gateway.file("activate.py", activate).display().to_string();
    gateway.inside(&["python3", &script, &https, &http]);
    gateway.env("NOTIFY_SOCKET", &told.display().to_string());
    gateway.set("origin", origin.port).start(YAML).await;
    let hear = || {
        let mut text = [0; 256];
        let length = notify.recv(&mut text).expect("something is told");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    assert_eq!(hear(), "READY=1");
    let client = gateway.client().await;
    assert_eq!(client.get("app.localhost", "/").await.status, 200);
    let mut quic = Quic::connect(&gateway, "127.0.0.1", "app.localhost").await.unwrap();
    assert_eq!(quic.ask(json!([{"path": "/"}])).await[0]["status"], 200);
    assert!(upgrade(&gateway).await.status.success());
    let next = serving(&gateway).await;
    let said = [hear(), hear()];
    let main = format!("MAINPID={}", next.id());
    assert!(said.contains(&main) && said.contains(&"READY=1".to_owned()), "{said:?}");
    assert_eq!(client.get("app.localhost", "/").await.status, 200);
    kill_process(next.0, Signal::TERM).unwrap();
    assert_eq!(hear(), "STOPPING=1");
}
