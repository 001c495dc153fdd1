//! BIND and Knot as primaries of example.com that take signed updates of TXT records.

use std::process::Command;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use tempfile::TempDir;

use super::pki::Ca;
use super::{Process, SOON, port, until};

/// A running server.
pub struct UpdateServer {
    /// Where it serves DNS, over UDP and TCP.
    pub dns: u16,
    /// Where it serves DNS over TLS, and over HTTPS at `/dns-query`, as `dns.example`. BIND alone.
    pub private: (u16, u16),
    /// The root of its certificate, as PEM.
    pub root: String,
    _process: Process,
    _folder: TempDir,
}

/// The key `acme` of all of them, in Base64.
pub const TSIG_SECRET: &str = "b25seSBmb3IgdGhlc2UgdGVzdHMgb2YgV2l0Z2F0ZSE=";

const ZONE: &str = "$ORIGIN example.com.
$TTL 5
@ SOA ns1 hostmaster 1 10800 3600 604800 5
@ NS ns1
@ A 127.0.0.1
ns1 A 127.0.0.1
* A 127.0.0.1
_acme-challenge TXT \"kept\"
";

impl UpdateServer {
    /// BIND.
    pub async fn bind() -> Self {
        let (dot, doh) = (super::port(), super::port());
        let config = |folder: &str, port: u16| {
            format!(
                "tls own {{ cert-file \"{folder}/cert.pem\"; key-file \"{folder}/key.pem\"; }};
                 http own {{ endpoints {{ \"/dns-query\"; }}; }};
                 options {{
                   listen-on port {dot} tls own {{ 127.0.0.1; }};
                   listen-on port {doh} tls own http own {{ 127.0.0.1; }}; directory \"{folder}\"; pid-file none; session-keyfile none;
                   listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
                   recursion no; dnssec-validation no; }};
                 controls {{ }};
                 key acme {{ algorithm hmac-sha256; secret \"{TSIG_SECRET}\"; }};
                 zone example.com {{ type primary; file \"example.com.zone\";
                   update-policy {{ grant acme zonesub TXT; }}; }};"
            )
        };
        let bind = Self::start("/usr/sbin/named", &["-g", "-c"], config).await;
        Self { private: (dot, doh), ..bind }
    }

    /// Knot.
    pub async fn knot() -> Self {
        let config = |folder: &str, port: u16| {
            format!(
                "server:
  rundir: {folder}
  listen: 127.0.0.1@{port}
log:
  - target: stderr
    any: info
database:
  storage: {folder}
key:
  - id: acme
    algorithm: hmac-sha256
    secret: {TSIG_SECRET}
acl:
  - id: acme
    key: acme
    action: update
    update-type: TXT
zone:
  - domain: example.com
    storage: {folder}
    file: example.com.zone
    acl: acme
"
            )
        };
        Self::start("/usr/sbin/knotd", &["-c"], config).await
    }

    async fn start(program: &str, before: &[&str], config: impl Fn(&str, u16) -> String) -> Self {
        let folder = tempfile::Builder::new().prefix("witgate-dns-").tempdir().expect("a folder");
        let dns = port();
        let file = folder.path().join("server.conf");
        let text = config(&folder.path().display().to_string(), dns);
        std::fs::write(&file, text).expect("the configuration");
        std::fs::write(folder.path().join("example.com.zone"), ZONE).expect("the zone");
        let ca = Ca::new("dns");
        let pair = ca.sign(&["dns.example"]);
        std::fs::write(folder.path().join("cert.pem"), pair.certificate).expect("a certificate");
        std::fs::write(folder.path().join("key.pem"), pair.key).expect("its key");
        let mut command = Command::new(program);
        command.args(before).arg(&file);
        let mut process = Process::start(program, &command);
        until("the DNS server to serve its zone. Has tests/setup run?", SOON, || {
            process.assert_running();
            async move { (txt(dns, "_acme-challenge.example.com").await == ["kept"]).then_some(()) }
        })
        .await;
        Self { dns, private: (0, 0), root: ca.pem, _process: process, _folder: folder }
    }

    /// The TXT values of a name.
    pub async fn txt(&self, name: &str) -> Vec<String> {
        txt(self.dns, name).await
    }
}

/// The TXT values of a name at a server on loopback; none when it does not answer.
async fn txt(server: u16, name: &str) -> Vec<String> {
    let mut query = Message::query();
    let name = Name::from_ascii(name).expect("a name");
    query.add_query(Query::query(name, RecordType::TXT));
    let asked = async {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.ok()?;
        socket.connect(("127.0.0.1", server)).await.ok()?;
        socket.send(&query.to_vec().ok()?).await.ok()?;
        let mut answer = [0; 4096];
        let length = socket.recv(&mut answer).await.ok()?;
        Message::from_vec(answer.get(..length)?).ok()
    };
    let answer = tokio::time::timeout(std::time::Duration::from_secs(1), asked).await;
    let records = answer.ok().flatten().map(|answer| answer.answers).unwrap_or_default();
    let texts = records.iter().filter_map(|record| match &record.data {
        RData::TXT(txt) => Some(txt.to_string()),
        _ => None,
    });
    let mut texts: Vec<String> = texts.map(|text| text.trim_matches('"').to_owned()).collect();
    texts.sort();
    texts
}
