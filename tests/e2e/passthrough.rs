//! Promise: connections of a name that is passed through reach their server unopened, with no key of the
//! gateway on the way; they are bounded, counted and logged, and a drain waits for them.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::client::{Client, get};
use crate::harness::origin::proxy_header;
use crate::harness::pki::{Ca, Pair};
use crate::harness::{Gateway, SOON, port, until, within};

const YAML: &str = "
sites:
  - hosts: [inner.localhost]
    passthrough: inner
  - hosts: [told.localhost]
    passthrough: told
  - hosts: [gone.localhost]
    passthrough: tcp://127.0.0.1:@closed@
  - hosts: [silent.localhost]
    passthrough: silent
  - hosts: [own.localhost]
    routes: [{respond: {body: own}}]
upstreams:
  inner: {servers: [\"tcp://127.0.0.1:@closed@\", \"tcp://127.0.0.1:@inner@\"]}
  told: {servers: [\"tcp://127.0.0.1:@told@\"], proxy-protocol: v2}
  silent: {servers: [\"tcp://127.0.0.1:@silent@\"], timeouts: {idle: 300ms}}
";

/// A TLS server that echoes, and says first which PROXY header it was sent.
async fn echo(pair: &Pair, is_proxied: bool) -> u16 {
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let port = port();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let header = match is_proxied {
                    true => proxy_header(&mut stream).await.unwrap(),
                    false => Vec::new(),
                };
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream.write_all(&header).await;
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    port
}

async fn served() -> (Gateway, Client) {
    let ca = Ca::new("inner");
    let pair = ca.sign(&["inner.localhost", "told.localhost"]);
    let mut gateway = Gateway::new();
    gateway.set("inner", echo(&pair, false).await).set("told", echo(&pair, true).await);
    // Accepts and says nothing.
    let silent = TcpListener::bind(("127.0.0.1", port())).await.unwrap();
    gateway.set("silent", silent.local_addr().unwrap().port()).set("closed", port());
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            kept.push(stream);
        }
    });
    gateway.start(YAML).await;
    let client = Client::new(gateway.https).trusting(&ca.pem);
    (gateway, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_leads_to_a_server_unopened() {
    let (gateway, client) = served().await;
    // The certificate is the server's own, and what is said comes back; half a close goes through.
    let mut stream = client.tls("inner.localhost", &[]).await.unwrap();
    stream.write_all(&[7; 100_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    within("the echo", SOON, stream.read_to_end(&mut back)).await.unwrap();
    assert!(back.len() == 100_000 && back.iter().all(|byte| *byte == 7));
    let record = gateway.accessed_as("host", "inner.localhost").await;
    assert_eq!((&record["scheme"], &record["upstream"]), (&"tls".into(), &"inner".into()));
    assert!(record["bytes"].as_u64().unwrap() > 100_000, "{record}");
    assert!(record["bytes_received"].as_u64().unwrap() > 100_000, "{record}");
    assert!(record["status"].is_null() && record["error"].is_null(), "{record}");

    // The server is told of the client.
    let mut stream = client.tls("told.localhost", &[]).await.unwrap();
    let local = stream.get_ref().0.local_addr().unwrap();
    let header = proxy_header(&mut stream).await.unwrap();
    assert_eq!(header[16..20], [127, 0, 0, 1]);
    assert_eq!(header[24..26], local.port().to_be_bytes());
    assert_eq!(header[26..28], gateway.https.to_be_bytes());
    assert!(header.ends_with(b"\x02\x00\x0etold.localhost"));

    // Another name is opened here as ever, and is no way to the one that is not.
    let own = gateway.client().await;
    let mut http = own.h2("own.localhost").await.unwrap();
    assert_eq!(http.send(get("own.localhost", "/")).await.unwrap().text(), "own");
    assert_eq!(http.send(get("inner.localhost", "/")).await.unwrap().status, 421);
    // Where no server answers, an alert says that it is not the client's fault.
    assert_eq!(client.alert("gone.localhost").await, Some(80));
    let record = gateway.accessed_as("host", "gone.localhost").await;
    assert_eq!(record["fault"], "upstream", "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_in_many_pieces_is_understood_and_bounded() {
    let (_gateway, client) = served().await;
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let mut tcp = client.tcp().await.unwrap();
    tokio::spawn(async move {
        let mut head = [0; 5];
        far.read_exact(&mut head).await.unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        far.read_exact(&mut hello).await.unwrap();
        // A record for each seven bytes, a segment for each record.
        for piece in hello.chunks(7) {
            let record = [&[22, 3, 1, 0, piece.len() as u8], piece].concat();
            tcp.write_all(&record).await.unwrap();
            tokio::task::yield_now().await;
        }
        let _ = tokio::io::copy_bidirectional(&mut far, &mut tcp).await;
    });
    let mut stream = client.tls_over("inner.localhost", near).await.unwrap();
    stream.write_all(b"whole").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"whole");

    // A hello that says it is long and comes in records of one byte does not go on for ever.
    let mut tcp = client.tcp().await.unwrap();
    let mut piece = vec![22, 3, 1, 0, 4, 1, 0, 0xff, 0xf0];
    let sent = async {
        let mut total = 0;
        while tcp.write_all(&piece).await.is_ok() && total < 64_000_000 {
            total += piece.len();
            piece = [22, 3, 1, 0, 1, 0].repeat(1000);
        }
        total
    };
    let total = within("the end of an endless hello", SOON, sent).await;
    assert!(total < 64_000_000, "{total}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_ends_it_and_a_drain_does_not() {
    let (mut gateway, client) = served().await;
    let silent = client.clone();
    let ended = within("the idle limit", SOON, silent.tls("silent.localhost", &[])).await;
    assert!(ended.is_err());
    let record = gateway.accessed_as("host", "silent.localhost").await;
    assert!(record["error"].as_str().unwrap().contains("timeouts.idle"), "{record}");

    let mut stream = client.tls("inner.localhost", &[]).await.unwrap();
    gateway.terminate();
    until("the port to be closed", SOON, async || client.tcp().await.err().map(drop)).await;
    for round in 0..3u8 {
        stream.write_all(&[round]).await.unwrap();
        assert_eq!(within("the echo", SOON, stream.read_u8()).await.unwrap(), round);
    }
    drop(stream);
    assert!(gateway.end().await.success());
    let record = gateway.accessed_as("host", "inner.localhost").await;
    assert!(record["bytes"].as_u64().unwrap() > 3, "{record}");
}
