//! Pebble, the ACME server for tests, and the DNS server that comes with it.

use std::process::Command;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client::Client;
use super::pki::Ca;
use super::{Process, SOON, port, tool, until};

/// A running Pebble with certificate authorities of its own. It refuses 5 % of all nonces, as its
/// default is.
pub struct Pebble {
    /// Where its API is.
    pub port: u16,
    /// The root to trust for its API, as PEM.
    pub api_root: String,
    /// The port of the DNS server that it asks.
    pub dns: u16,
    /// Pebble.
    pub process: Process,
    management: u16,
    /// The management port of its DNS server.
    dns_management: u16,
    _folder: TempDir,
    /// The DNS server that answers `127.0.0.1` for every name; none when another one is used.
    _dns: Option<Process>,
}

/// How Pebble is to behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// The port it connects to for HTTP-01.
    pub http: u16,
    /// The port it connects to for TLS-ALPN-01.
    pub https: u16,
    /// The DNS server it asks; none starts one that answers `127.0.0.1` for every name.
    pub dns: Option<u16>,
    /// How long certificates are valid, in seconds.
    pub validity: u64,
    /// Whether it reuses valid authorizations for half of the orders, as its default is.
    pub reuses: bool,
    /// The external account binding that it requires: key identifier and key, base64url.
    pub eab: Option<(String, String)>,
    /// Further profiles: the name, and how long certificates are valid, in seconds.
    pub profiles: Vec<(String, u64)>,
    /// The port of its API; none takes a free one.
    pub port: Option<u16>,
    /// Nonces refused, of a hundred.
    pub nonces_refused: u32,
    /// How many further roots its certificates have chains to.
    pub alternate_roots: u32,
    /// Whether it takes every challenge for solved, without a look at the network.
    pub believes: bool,
}

impl Options {
    /// For a gateway on these ports.
    pub fn new(http: u16, https: u16) -> Self {
        Self {
            http,
            https,
            dns: None,
            validity: 90 * 24 * 3600,
            reuses: true,
            eab: None,
            profiles: Vec::new(),
            port: None,
            nonces_refused: 5,
            alternate_roots: 0,
            believes: false,
        }
    }
}

impl Pebble {
    /// Starts it and waits until it answers.
    pub async fn start(options: &Options) -> Self {
        let folder =
            tempfile::Builder::new().prefix("witgate-pebble-").tempdir().expect("a folder");
        let api = Ca::new("Pebble API");
        let pair = api.sign(&["localhost", "127.0.0.1"]);
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a file of Pebble");
            path
        };
        let (acme, management) = (options.port.unwrap_or_else(port), port());
        let mut profiles = json!({"default": {
            "description": "for tests",
            "validityPeriod": options.validity,
        }});
        for (name, validity) in &options.profiles {
            profiles[name] = json!({"description": "for tests", "validityPeriod": validity});
        }
        let keys = options.eab.iter().map(|(kid, key)| (kid.clone(), json!(key)));
        let keys: serde_json::Map<_, _> = keys.collect();
        let config = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{acme}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": write("api.pem", &pair.certificate),
            "privateKey": write("api-key.pem", &pair.key),
            "httpPort": options.http,
            "tlsPort": options.https,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": options.eab.is_some(),
            "externalAccountMACKeys": keys,
            "domainBlocklist": ["blocked.org"],
            "retryAfter": {"authz": 1, "order": 1},
            "keyAlgorithm": "ecdsa",
            "profiles": profiles,
        }});
        let (dns, dns_port, dns_management) = match options.dns {
            Some(port) => (None, port, 0),
            None => {
                let (dns, port, management) = challtestsrv().await;
                (Some(dns), port, management)
            }
        };
        let mut command = Command::new(tool("bin/pebble"));
        command.arg("-config").arg(write("pebble.json", &config.to_string()));
        command.args(["-dnsserver", &format!("127.0.0.1:{dns_port}")]);
        command.env("PEBBLE_VA_NOSLEEP", "1");
        command.env("PEBBLE_WFE_NONCEREJECT", options.nonces_refused.to_string());
        if !options.reuses {
            command.env("PEBBLE_AUTHZREUSE", "0");
        }
        command.env("PEBBLE_ALTERNATE_ROOTS", options.alternate_roots.to_string());
        if options.believes {
            command.env("PEBBLE_VA_ALWAYS_VALID", "1");
        }
        let process = Process::start("pebble", &command);
        let mut pebble = Self {
            port: acme,
            api_root: api.pem,
            dns: dns_port,
            process,
            management,
            dns_management,
            _folder: folder,
            _dns: dns,
        };
        pebble.listening().await;
        pebble
    }

    /// The directory URL.
    pub fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    /// The root of the certificates it issues, as PEM.
    pub async fn root(&self) -> String {
        self.root_of(0).await
    }

    /// The root of one of its chains, as PEM.
    pub async fn root_of(&self, chain: u32) -> String {
        let client = Client::new(self.management).trusting(&self.api_root);
        let answer = client.get("localhost", &format!("/roots/{chain}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text()
    }

    /// What it says about a certificate, by its serial number in hexadecimal: `Valid` or `Revoked`.
    pub async fn status(&self, serial: &str) -> String {
        let client = Client::new(self.management).trusting(&self.api_root);
        let path = format!("/cert-status-by-serial/{}", serial.replace(':', ""));
        client.get("localhost", &path).await.text()
    }

    /// Sets a TXT record at its DNS server.
    pub async fn set_txt(&self, name: &str, value: &str) {
        let body = json!({"host": format!("{name}."), "value": value}).to_string();
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", self.dns_management)).await;
        let mut stream = stream.expect("the DNS server's management");
        let request = format!(
            "POST /set-txt HTTP/1.1\r\nhost: dns\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.contains(" 200 "), "{answer}");
    }

    /// How many certificates it has issued.
    pub fn issued(&self) -> usize {
        let lines = self.process.out.after(0);
        lines.iter().filter(|line| line.contains("Issued certificate serial")).count()
    }

    async fn listening(&mut self) {
        let ports = [self.port, self.management];
        until("Pebble to listen", SOON, || {
            self.process.assert_running();
            async move {
                for port in ports {
                    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
                }
                Some(())
            }
        })
        .await;
    }
}

/// The DNS server that comes with Pebble, answering `127.0.0.1` for every name.
async fn challtestsrv() -> (Process, u16, u16) {
    let (dns, management) = (port(), port());
    let mut command = Command::new(tool("bin/pebble-challtestsrv"));
    command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""]);
    command.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
    command.args(["-dnsserver", &format!("127.0.0.1:{dns}")]);
    command.args(["-management", &format!("127.0.0.1:{management}")]);
    let mut process = Process::start("pebble-challtestsrv", &command);
    until("challtestsrv to listen", SOON, || {
        process.assert_running();
        async move { tokio::net::TcpStream::connect(("127.0.0.1", management)).await.ok() }
    })
    .await;
    (process, dns, management)
}
