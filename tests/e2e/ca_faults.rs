//! Promise: whatever a CA does between any two steps of an order (500, 429, HTML, an empty answer, none
//! at all before or after it has done its work, refused nonces), nothing is lost, and orders come
//! through as soon as it works again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::harness::client::Client;
use crate::harness::pebble::{Options, Pebble};
use crate::harness::pki::Ca;
use crate::harness::{Gateway, LATER, output, until};

const NAMES: usize = 12;

/// Stands before Pebble and spoils one answer in four.
struct Spoiler {
    is_on: AtomicBool,
    requests: AtomicUsize,
    spoiled: [AtomicUsize; 6],
    /// Every answer is spoiled in this way.
    only: Option<usize>,
}

impl Spoiler {
    async fn start(pebble: &Pebble, only: Option<usize>) -> (Arc<Self>, u16, String) {
        let ca = Ca::new("Spoiler");
        let pair = ca.sign(&["127.0.0.1", "localhost"]);
        let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let near = rustls::ServerConfig::builder().with_no_client_auth();
        let near = TlsAcceptor::from(Arc::new(near.with_single_cert(chain, key).unwrap()));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pebble.api_root.as_bytes()).unwrap()).unwrap();
        let far = rustls::ClientConfig::builder().with_root_certificates(roots);
        let far = TlsConnector::from(Arc::new(far.with_no_client_auth()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let spoiler = Arc::new(Self {
            is_on: AtomicBool::new(true),
            requests: AtomicUsize::new(0),
            spoiled: Default::default(),
            only,
        });
        let (own, to) = (Arc::clone(&spoiler), pebble.port);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (own, near, far) = (Arc::clone(&own), near.clone(), far.clone());
                tokio::spawn(async move { own.pass(stream, near, far, to).await });
            }
        });
        (spoiler, port, ca.pem)
    }

    /// One connection, one request, as the gateway makes them.
    async fn pass(
        &self,
        stream: TcpStream,
        near: TlsAcceptor,
        far: TlsConnector,
        to: u16,
    ) -> Option<()> {
        let mut near = near.accept(stream).await.ok()?;
        let request = message(&mut near, true).await?;
        let has_body = !request.starts_with(b"HEAD");
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        // Spread over all steps; the directory alone is let through at first, to begin with.
        let kind = match (self.is_on.load(Ordering::Relaxed), self.only) {
            (false, _) => None,
            (true, Some(kind)) => Some(kind),
            (true, None) => ((number * 7 + number / 5) % 4 == 1).then_some((number / 3) % 6),
        };
        if let Some(kind) = kind {
            self.spoiled[kind].fetch_add(1, Ordering::Relaxed);
        }
        let answer = match kind {
            Some(0) => Some("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"),
            Some(1) => Some(
                "HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 25\r\n\r\n\
                 <html>Bad Gateway!</html>",
            ),
            Some(2) => Some(
                "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
            ),
            Some(3) => Some("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>"),
            // Nothing at all.
            Some(4) => return None,
            _ => None,
        };
        if let Some(answer) = answer {
            near.write_all(answer.as_bytes()).await.ok()?;
            return near.shutdown().await.ok();
        }
        let stream = TcpStream::connect(("127.0.0.1", to)).await.ok()?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut far = far.connect(name, stream).await.ok()?;
        far.write_all(&request).await.ok()?;
        let answer = message(&mut far, has_body).await?;
        // The work is done, and nobody hears of it.
        if kind == Some(5) {
            return None;
        }
        near.write_all(&answer).await.ok()?;
        near.shutdown().await.ok()
    }
}

/// A head, and a body when there is one.
async fn message(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    has_body: bool,
) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 16 * 1024];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |text| text.trim().parse().unwrap());
            let is_whole = match head.contains("transfer-encoding: chunked") {
                true => bytes.ends_with(b"0\r\n\r\n"),
                false => bytes.len() >= end + 4 + length,
            };
            if is_whole || !has_body {
                return Some(bytes);
            }
        }
        match stream.read(&mut piece).await {
            Ok(n) if n > 0 => bytes.extend(&piece[..n]),
            _ => return None,
        }
    }
}

fn yaml() -> String {
    let sites: String = (0..NAMES)
        .map(|number| {
            format!(
                "  - hosts: [n{number}.example.com]\n    \
                 routes: [{{respond: {{status: 200, body: ok}}}}]\n"
            )
        })
        .collect();
    format!(
        "
certificates:
  issuers: [{{directory: \"@directory@\", roots: @dir@/ca.pem, profile: default, name: pebble}}]
  challenge: http-01
sites:
{sites}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_fails_between_any_two_steps_costs_nothing_but_time() {
    let mut gateway = Gateway::new();
    let mut options = Options::new(gateway.http, gateway.https);
    options.nonces_refused = 30;
    options.reuses = false;
    let pebble = Pebble::start(&options).await;
    let (spoiler, port, root) = Spoiler::start(&pebble, None).await;
    gateway.file("ca.pem", root);
    gateway.set("directory", format!("https://127.0.0.1:{port}/dir")).start(&yaml()).await;
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    let config = gateway.config().display().to_string();
    // Pauses would be minutes; an operator asks again and again, which no limit of the CA's is
    // broken by.
    let ask_all = async || {
        for number in 0..NAMES {
            let name = format!("n{number}.example.com");
            if client.clone().fresh().leaf(&name).await.is_err() {
                let words = ["certs", "renew", &name, "--config", &config];
                assert!(
                    output(env!("CARGO_BIN_EXE_witgate"), &words, LATER).await.status.success()
                );
            }
        }
    };
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        if round == 3 {
            // A restart in the middle changes nothing.
            gateway.restart().await;
        }
        ask_all().await;
    }
    let key = account_key(&gateway);
    spoiler.is_on.store(false, Ordering::Relaxed);
    let spoiled = spoiler.spoiled.each_ref().map(|count| count.load(Ordering::Relaxed));
    println!("spoiled: {spoiled:?} of {}", spoiler.requests.load(Ordering::Relaxed));
    assert!(spoiled.iter().all(|count| *count > 0), "{spoiled:?}");
    let began = std::time::Instant::now();
    until("all certificates", LATER, async || {
        ask_all().await;
        for number in 0..NAMES {
            let name = format!("n{number}.example.com");
            client.clone().fresh().leaf(&name).await.ok()?;
        }
        Some(())
    })
    .await;
    println!("all there {:?} after the CA worked again", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
    let log = gateway.log();
    assert!(!log.contains("broke off") && !log.contains("panicked"), "{log}");
    assert_eq!(account_key(&gateway), key, "the account's key was lost");
    // An order whose end was not heard of is found again, not made anew.
    let issued = pebble.issued();
    assert!(issued <= 2 * NAMES, "{issued} certificates for {NAMES} names");
    let lines = pebble.process.out.after(0);
    let accounts = lines
        .iter()
        .filter(|line| line.contains("There are now") && line.contains("accounts in memory"))
        .count();
    assert!(accounts <= 1, "{accounts} accounts were made");
}

/// How much faster the gateway's clock goes.
const SPEED: u32 = 10;

/// What `docs/CERTIFICATES.md` states: by its own pauses alone, the gateway has its certificates again
/// no longer after the end of an outage than that has lasted, and two minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_comes_by_itself_and_in_the_time_that_is_stated() {
    let faults = ["status-500", "html-502", "status-429", "html-200", "nothing"];
    let mut gateway = Gateway::new();
    let pebble = Pebble::start(&Options::new(gateway.http, gateway.https)).await;
    let (mut spoilers, mut sites) = (Vec::new(), String::new());
    for (kind, fault) in faults.iter().enumerate() {
        let (spoiler, port, root) = Spoiler::start(&pebble, Some(kind)).await;
        gateway.file(&format!("{fault}.pem"), root);
        spoilers.push(spoiler);
        sites += &format!(
            "  - hosts: [{fault}.example.com]
    certificate:
      challenge: http-01
      issuers:
        - {{directory: \"https://127.0.0.1:{port}/dir\", roots: @dir@/{fault}.pem, profile: default, name: {fault}}}
    routes: [{{respond: {{status: 200, body: ok}}}}]\n"
        );
    }
    let speed = format!("+0 x{SPEED}");
    gateway.clock(&[("FAKETIME", &speed)]).start(&format!("sites:\n{sites}")).await;
    let began = std::time::Instant::now();
    let client = Client::new(gateway.https).trusting(&pebble.root().await);
    for fault in faults {
        gateway.logged_within(0, &[&format!("{fault}.example.com"), "no certificate"], LATER).await;
    }
    tokio::time::sleep(Duration::from_secs(9).saturating_sub(began.elapsed())).await;
    for spoiler in &spoilers {
        spoiler.is_on.store(false, Ordering::Relaxed);
    }
    let outage = began.elapsed() * SPEED;
    let asked = spoilers.iter().map(|spoiler| spoiler.requests.load(Ordering::Relaxed));
    let asked: Vec<usize> = asked.collect();
    let ended = std::time::Instant::now();
    let mut recovered = Vec::new();
    for fault in faults {
        client.certified(&format!("{fault}.example.com"), LATER).await;
        recovered.push((fault, (ended.elapsed() * SPEED).as_secs()));
    }
    println!("after an outage of {} s: {recovered:?}", outage.as_secs());
    let most = outage.as_secs() + 120;
    assert!(recovered.iter().all(|(_, seconds)| *seconds <= most), "{recovered:?}");
    // And nobody was asked without end meanwhile.
    assert!(asked.iter().all(|requests| (1..=12).contains(requests)), "{asked:?}");
}

fn account_key(gateway: &Gateway) -> Vec<u8> {
    let folder = std::fs::read_dir(gateway.store().join("acme/issuers")).unwrap();
    let folder = folder.filter_map(Result::ok).next().unwrap().path();
    std::fs::read(folder.join("account.key")).unwrap()
}
