//! Promise: the secrets of TLS connections can be seen for one server name or one client, as long as
//! somebody looks, and the log says so; they are those that the client has. Nobody else's go out.

use std::process::Command;
use std::sync::{Arc, Mutex};

use rustls::{KeyLog, version};

use crate::harness::{Gateway, Process, SOON, output, until};

const YAML: &str = "
sites:
  - hosts: [app.localhost, other.localhost]
    routes: [{respond: {status: 200, body: here}}]
";

/// What the client itself knows.
#[derive(Debug, Default)]
struct Known(Mutex<Vec<String>>);

impl KeyLog for Known {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let line = format!("{label} {} {}", hex(client_random), hex(secret));
        self.0.lock().unwrap().push(line);
    }
}

fn debug(gateway: &Gateway, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_witgate"));
    command.args(["debug", "keylog", "--config"]).arg(gateway.config()).args(more);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_go_out_for_one_name_as_long_as_somebody_looks() {
    let mut gateway = Gateway::new();
    gateway.start(YAML).await;
    let mark = gateway.mark();
    let mut reader = Process::start(
        "witgate debug",
        &debug(&gateway, &["--sni", "App.localhost", "--for", "1m"]),
    );
    gateway.logged(mark, &["KEY LOG", "app.localhost"]).await;
    // One at a time, and whose has to be said.
    let config = gateway.config().display().to_string();
    let witgate = env!("CARGO_BIN_EXE_witgate");
    for (more, why) in [
        (&["--from", "127.0.0.9"][..], "being written already"),
        (&["--sni", "a", "--for", "2h"], "60 minutes"),
        (&["--sni", "a", "--for", "ever"], "not a time"),
        (&[], "--sni"),
    ] {
        let words = [&["debug", "keylog", "--config", &config][..], more].concat();
        let refused = output(witgate, &words, SOON).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(why), "{more:?}: {said}");
    }
    for offered in [&version::TLS12, &version::TLS13] {
        let known = Arc::new(Known::default());
        let client = gateway.client().await.speaking(offered).logging(Arc::clone(&known) as _);
        assert_eq!(client.get("app.localhost", "/").await.text(), "here");
        let wanted = std::mem::take(&mut *known.0.lock().unwrap());
        assert!(!wanted.is_empty());
        until("the client's secrets", SOON, || {
            let got = reader.out.after(0);
            std::future::ready(wanted.iter().all(|line| got.contains(line)).then_some(()))
        })
        .await;
        let before = reader.out.mark();
        assert_eq!(client.get("other.localhost", "/").await.text(), "here");
        assert_eq!(client.get("app.localhost", "/").await.text(), "here");
        let theirs = known.0.lock().unwrap()[0].clone();
        let random = theirs.split(' ').nth(1).unwrap().to_owned();
        until("secrets after those of the other name", SOON, || {
            std::future::ready((!reader.out.after(before).is_empty()).then_some(()))
        })
        .await;
        let got = reader.out.after(before);
        assert!(!got.iter().any(|line| line.contains(&random)), "{got:?}");
    }
    let mark = gateway.mark();
    reader.kill9();
    gateway.logged(mark, &["KEY LOG: ended"]).await;
    // Another one ends by itself.
    let mut brief =
        Process::start("witgate debug", &debug(&gateway, &["--from", "127.0.0.1", "--for", "1s"]));
    assert!(brief.end(SOON).await.success());
}
