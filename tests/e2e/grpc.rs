//! Promise: gRPC passes through whole in every mode, with its trailers and errors, to h2c servers and to
//! TLS servers that want a client certificate; and gRPC's own health service decides who gets calls.

use std::process::Command;

use serde_json::json;

use crate::harness::guests::guest;
use crate::harness::pki::Ca;
use crate::harness::{
    Gateway, LATER, Process, RustOrigin, SOON, output, port, project, tool, until,
};

/// grpc's own server for Python (C core), on h2c or, with these three files, on TLS.
async fn server(tls: &[&str]) -> (u16, Process) {
    let port = port();
    let mut command = Command::new(tool("venv/bin/python"));
    command.arg(project().join("tests/e2e/app/grpc_server.py")).arg(port.to_string()).args(tls);
    let mut process = Process::start("grpc_server", &command);
    until("the gRPC server to listen", 2 * SOON, || {
        process.assert_running();
        async move { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok() }
    })
    .await;
    (port, process)
}

const YAML: &str = "
sites:
  - hosts: [h2c.localhost]
    # It could change bodies, and asks for none.
    filters: [streaming]
    upstream: h2c
  - hosts: [tls.localhost]
    upstream: tls
upstreams:
  h2c: h2c://127.0.0.1:@h2c@
  tls:
    servers: [\"https://127.0.0.1:@tls@\"]
    roots: ca.pem
    server-name: grpc.internal
    client-certificate: {certificate: client.pem, key: client-key.pem}
plugins:
  streaming:
    component: @dir@/streaming.wasm
    grants: {request: {body: transform}, response: {body: transform}}
";

/// What the client of Python sees of `host`.
async fn call(gateway: &Gateway, host: &str, more: &[&str]) -> serde_json::Value {
    let end = "-----END CERTIFICATE-----\n";
    let root = gateway.local_root().await;
    let root = root.split_inclusive(end).find(|block| block.contains("BEGIN CERTIFICATE"));
    let trust = gateway.file("root.pem", root.unwrap()).display().to_string();
    let script = project().join("tests/e2e/app/grpc_client.py").display().to_string();
    let port = gateway.https.to_string();
    let arguments = [&[script.as_str(), &port, host, &trust], more].concat();
    let output = output(tool("venv/bin/python"), &arguments, LATER).await;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{host}: {errors}\n{}", gateway.log());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mode_passes_through_whole() {
    let mut gateway = Gateway::new();
    let ca = Ca::new("grpc test");
    let (own, client) = (ca.sign(&["grpc.internal"]), ca.sign(&["gateway.internal"]));
    let file = |name: &str, text: &str| gateway.file(name, text).display().to_string();
    let roots = file("ca.pem", &ca.pem);
    let (certificate, key) = (file("own.pem", &own.certificate), file("own-key.pem", &own.key));
    gateway.file("streaming.wasm", guest("streaming"));
    file("client.pem", &client.certificate);
    file("client-key.pem", &client.key);
    let (h2c, _h2c) = server(&[]).await;
    let (tls, _tls) = server(&[&certificate, &key, &roots]).await;
    gateway.set("h2c", h2c).set("tls", tls).start(YAML).await;
    for host in ["h2c.localhost", "tls.localhost"] {
        let seen = call(&gateway, host, &[]).await;
        let last = json!({"x-trailing": "last"});
        assert_eq!(seen["unary"]["answer"], "unary:x", "{host}");
        assert_eq!(seen["unary"]["initial"]["x-initial"], "first", "{host}: {seen}");
        assert_eq!(seen["unary"]["trailers"], last, "{host}");
        assert_eq!(seen["unary"]["binary"], "00ff", "{host}");
        assert_eq!(seen["large"], 3_000_006, "{host}");
        assert_eq!(seen["server_stream"], json!({"count": 1000, "trailers": last}), "{host}");
        let expected = json!({"answer": "1000000", "trailers": last});
        assert_eq!(seen["client_stream"], expected, "{host}");
        assert_eq!(seen["both"], true, "{host}");
        // Errors without a message ("trailers-only"), and one after messages.
        assert_eq!(seen["refuse"]["code"], "FAILED_PRECONDITION", "{host}: {seen}");
        assert_eq!(seen["refuse"]["details"], "no: 100 % of it\nnot", "{host}");
        assert_eq!(seen["refuse"]["trailers"], json!({"x-why": "asked"}), "{host}");
        assert_eq!(seen["unknown"]["code"], "UNIMPLEMENTED", "{host}");
        assert_eq!(seen["late_failure"]["got"], json!(["one", "two"]), "{host}");
        assert_eq!(seen["late_failure"]["code"], "DATA_LOSS", "{host}");
        assert_eq!(seen["deadline"], "DEADLINE_EXCEEDED", "{host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_may_be_silent_as_long_as_both_sides_may() {
    let (port, _server) = server(&[]).await;
    let mut gateway = Gateway::new();
    let yaml = "
sites: [{hosts: [patient.localhost], upstream: patient}, {hosts: [strict.localhost], upstream: strict}]
upstreams:
  patient: {servers: [\"h2c://127.0.0.1:@h2c@\"], timeouts: {idle: 500ms, response: 500ms}}
  strict: {servers: [\"h2c://127.0.0.1:@h2c@\"], timeouts: {stream-idle: 700ms}}
limits: {request-body-idle: 500ms}
";
    gateway.set("h2c", port).start(yaml).await;
    // Longer than any other wait allows: before the first message, between two, and before the end.
    let seen = call(&gateway, "patient.localhost", &["1.5"]).await;
    assert_eq!(seen, json!({"echoes": ["echo:0", "echo:1"], "code": "OK"}), "{}", gateway.log());
    let seen = call(&gateway, "strict.localhost", &["1.5"]).await;
    assert_eq!(seen["echoes"], json!([]), "{seen}");
    assert_ne!(seen["code"], "OK", "{seen}");
    let seen = call(&gateway, "strict.localhost", &["0.4"]).await;
    assert_eq!(seen["code"], "OK", "each side's words count for both: {seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_checks_speak_grpc_and_tcp() {
    let (good, _good) = server(&[]).await;
    // It speaks HTTP/2, and knows nothing of gRPC.
    let bad = RustOrigin::h2c().await;
    let mut gateway = Gateway::new();
    gateway.set("good", good).set("bad", bad.port).set("dead", port());
    gateway
        .start(
            "
sites: [{hosts: [app.localhost], upstream: app}, {hosts: [tcp.localhost], upstream: tcp}]
upstreams:
  app:
    servers: [\"h2c://127.0.0.1:@good@\", \"h2c://127.0.0.1:@bad@\"]
    health: {check: grpc, interval: 100ms, unhealthy-after: 1}
  tcp:
    servers: [\"http://127.0.0.1:@bad@\", \"http://127.0.0.1:@dead@\"]
    health: {check: tcp, interval: 100ms, unhealthy-after: 1}
",
        )
        .await;
    gateway.logged(0, &["server is taken out", &bad.port.to_string()]).await;
    let log = gateway.logged(0, &["server is taken out", "\"tcp\""]).await;
    assert!(!log.contains(&bad.port.to_string()), "{log}");
    let is_out = |line: &&str| line.contains("taken out") && line.contains(&good.to_string());
    assert_eq!(gateway.log().lines().find(is_out), None);
}
