//! PowerDNS with a SQLite database: a real provider with a real API, and the server that Pebble and
//! the gateway ask.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{Answer, Client, request, with};
use super::{Process, SOON, output, port, until};

/// A running PowerDNS.
pub struct PowerDns {
    /// Where it serves DNS, over UDP and TCP.
    pub dns: u16,
    /// Where its API is, over plain HTTP.
    pub api: u16,
    /// The key of its API.
    pub key: String,
    /// The server.
    pub process: Process,
    folder: TempDir,
}

impl PowerDns {
    /// Starts it without any zone.
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("witgate-pdns-").tempdir().expect("a folder");
        let database = folder.path().join("pdns.sqlite3");
        let schema = SCHEMAS.into_iter().find(|path| std::path::Path::new(path).exists());
        let schema = schema.expect("the schema of pdns-backend-sqlite3: run tests/setup first");
        let read = format!(".read {schema}");
        let made = output("sqlite3", &[&database.display().to_string(), &read], SOON).await;
        assert!(made.status.success(), "sqlite3: {made:?}. Run tests/setup first");
        let (dns, api, key) = (port(), port(), "only-for-this-test".to_owned());
        let config = format!(
            "launch=gsqlite3\n\
             gsqlite3-database={}\n\
             gsqlite3-pragma-synchronous=0\n\
             local-address=127.0.0.1\n\
             local-port={dns}\n\
             socket-dir={}\n\
             daemon=no\n\
             guardian=no\n\
             setuid=\n\
             setgid=\n\
             disable-syslog=yes\n\
             security-poll-suffix=\n\
             dnsupdate=yes\n\
             allow-dnsupdate-from=127.0.0.0/8\n\
             api=yes\n\
             api-key={key}\n\
             webserver=yes\n\
             webserver-address=127.0.0.1\n\
             webserver-port={api}\n\
             webserver-allow-from=127.0.0.0/8\n\
             zone-cache-refresh-interval=0\n\
             cache-ttl=0\n\
             negquery-cache-ttl=0\n\
             query-cache-ttl=0\n\
             default-soa-content=ns1.@ hostmaster.@ 0 10800 3600 604800 5\n",
            database.display(),
            folder.path().display(),
        );
        std::fs::write(folder.path().join("pdns.conf"), config).expect("pdns.conf");
        let mut command = Command::new("/usr/sbin/pdns_server");
        command.arg(format!("--config-dir={}", folder.path().display()));
        let process = Process::start("pdns_server", &command);
        let mut server = Self { dns, api, key, process, folder };
        until("PowerDNS to listen", SOON, || {
            server.process.assert_running();
            async move { tokio::net::TcpStream::connect(("127.0.0.1", api)).await.ok() }
        })
        .await;
        server
    }

    /// Makes a zone whose own name server is this one, and in which every name is 127.0.0.1.
    pub async fn zone(&self, zone: &str) {
        let body = json!({
            "name": format!("{zone}."),
            "kind": "Native",
            "nameservers": [format!("ns1.{zone}.")],
            "rrsets": [
                self.address(&format!("ns1.{zone}.")),
                self.address(&format!("{zone}.")),
                self.address(&format!("*.{zone}.")),
            ],
        });
        let answer = self.call("POST", "/zones", &body.to_string()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    /// Makes a TSIG key that may update a zone.
    pub async fn allow_updates(&self, zone: &str, key: &str, secret: &str) {
        let database = self.folder.path().join("pdns.sqlite3").display().to_string();
        let sql = format!(
            "insert into tsigkeys (name, algorithm, secret) values ('{key}', 'hmac-sha256', '{secret}');
             insert into domainmetadata (domain_id, kind, content)
               select id, 'TSIG-ALLOW-DNSUPDATE', '{key}' from domains where name = '{zone}';"
        );
        let done = output("sqlite3", &[&database, &sql], SOON).await;
        assert!(done.status.success(), "sqlite3: {done:?}");
    }

    /// All TXT records of a zone, as name and content.
    pub async fn txt(&self, zone: &str) -> Vec<(String, String)> {
        let answer = self.call("GET", &format!("/zones/{zone}."), "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let zone = answer.json();
        let sets = zone["rrsets"].as_array().expect("record sets");
        let sets = sets.iter().filter(|set| set["type"] == "TXT");
        sets.flat_map(|set| {
            let name = set["name"].as_str().unwrap_or_default().to_owned();
            let records = set["records"].as_array().cloned().unwrap_or_default();
            records.into_iter().map(move |record| {
                (name.clone(), record["content"].as_str().unwrap_or_default().to_owned())
            })
        })
        .collect()
    }

    /// Adds a TXT record of somebody else's, which must survive.
    pub async fn add_txt(&self, zone: &str, name: &str, value: &str) {
        let body = json!({"rrsets": [{
            "name": format!("{name}."),
            "type": "TXT",
            "ttl": 5,
            "changetype": "REPLACE",
            "records": [{"content": format!("\"{value}\""), "disabled": false}],
        }]});
        let answer = self.call("PATCH", &format!("/zones/{zone}."), &body.to_string()).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        let path = format!("/api/v1/servers/localhost{path}");
        let call = request(method, "127.0.0.1", &path, body.to_owned());
        let call = with(call, "x-api-key", &self.key);
        let mut http = Client::new(self.api).plain().await.expect("the API of PowerDNS");
        http.send(call).await.expect("an answer of PowerDNS")
    }

    fn address(&self, name: &str) -> Value {
        json!({
            "name": name,
            "type": "A",
            "ttl": 5,
            "records": [{"content": "127.0.0.1", "disabled": false}],
        })
    }
}

/// Where Debian's releases keep the schema.
const SCHEMAS: [&str; 2] = [
    "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql",
    "/usr/share/doc/pdns-backend-sqlite3/schema.sqlite3.sql",
];
