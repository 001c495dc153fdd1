//! Load client for what wrk/h2load/oha do not cover. Prints one JSON line.
//! load hs|resume ADDR SECS CONC [pq]     new TLS 1.3 connection + one request each, full or resumed
//! load idle ADDR COUNT                   opens COUNT connections, one request each, prints "ready", holds until stdin closes
//! load down|up ADDR SECS CONC            10 MiB bodies
//! load reload ADDR SECS CONC             half keep-alive (reconnect every 500), half new connections; counts failures
//! load certs DIR N                       one ECDSA P-256 key, N certificates h0.test .. h(N-1).test
//! load first ADDR SNI MAXSECS            seconds until the first answered request
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{client::TlsStream, TlsConnector};

#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug)]
struct NoVerify;
impl ServerCertVerifier for NoVerify {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![
            rustls::SignatureScheme::ECDSA_NISTP256_SHA256,
            rustls::SignatureScheme::RSA_PSS_SHA256,
        ]
    }
}

fn cfg(resume: bool, pq: bool) -> TlsConnector {
    let mut p = rustls::crypto::aws_lc_rs::default_provider();
    p.cipher_suites = vec![rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    p.kx_groups = vec![if pq {
        rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768
    } else {
        rustls::crypto::aws_lc_rs::kx_group::X25519
    }];
    let mut c = rustls::ClientConfig::builder_with_provider(Arc::new(p))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NoVerify))
        .with_no_client_auth();
    c.alpn_protocols = vec![b"http/1.1".to_vec()];
    if !resume {
        c.resumption = rustls::client::Resumption::disabled();
    }
    TlsConnector::from(Arc::new(c))
}

async fn open(c: &TlsConnector, addr: &str, sni: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let t = TcpStream::connect(addr).await?;
    t.set_nodelay(true)?;
    c.connect(ServerName::try_from(sni.to_string()).unwrap(), t).await
}

/// Reads one answer; Ok((body length, the server closes after it)).
async fn answer(s: &mut TlsStream<TcpStream>, buf: &mut [u8]) -> std::io::Result<(usize, bool)> {
    let mut close = false;
    let bad = |m: &str| std::io::Error::new(std::io::ErrorKind::Other, m.to_string());
    let mut head: Vec<u8> = Vec::new();
    let (mut got, total) = loop {
        let n = s.read(buf).await?;
        if n == 0 {
            return Err(bad("eof in head"));
        }
        head.extend_from_slice(&buf[..n]);
        if let Some(i) = memchr::memmem::find(&head, b"\r\n\r\n") {
            let low = head[..i + 2].to_ascii_lowercase();
            close = memchr::memmem::find(&low, b"\r\nconnection: close").is_some();
            if !low.starts_with(b"http/1.1 200") {
                return Err(bad("status"));
            }
            let p = memchr::memmem::find(&low, b"\r\ncontent-length:")
                .ok_or_else(|| bad("no length"))?;
            let v = &low[p + 17..];
            let e = memchr::memchr(b'\r', v).unwrap();
            break (
                head.len() - i - 4,
                std::str::from_utf8(&v[..e]).unwrap().trim().parse::<usize>().unwrap(),
            );
        }
    };
    while got < total {
        let n = s.read(buf).await?;
        if n == 0 {
            return Err(bad("eof in body"));
        }
        got += n;
    }
    Ok((total, close))
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: h0.test\r\nuser-agent: load\r\naccept: */*\r\n\r\n";
const BIG: &[u8] = b"GET /10m HTTP/1.1\r\nhost: h0.test\r\n\r\n";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let a: Vec<String> = std::env::args().collect();
    let num = |i: usize| a.get(i).and_then(|v| v.parse::<usize>().ok()).unwrap_or(0);
    let local = tokio::task::LocalSet::new();
    match a[1].as_str() {
        "certs" => {
            let (dir, n) = (std::path::Path::new(&a[2]), num(3));
            std::fs::create_dir_all(dir).unwrap();
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
            std::fs::create_dir_all(dir.join("pem")).unwrap();
            std::fs::create_dir_all(dir.join("crt")).unwrap();
            for i in 0..n {
                let mut names = vec![format!("h{i}.test")];
                if i == 0 { names.push("localhost".into()) }
                let mut p = rcgen::CertificateParams::new(names.clone()).unwrap();
                p.distinguished_name.push(rcgen::DnType::CommonName, names[0].clone());
                let c = p.self_signed(&key).unwrap().pem();
                std::fs::write(dir.join(format!("crt/h{i}.crt")), &c).unwrap();
                std::fs::write(dir.join(format!("pem/h{i}.pem")), c + &key.serialize_pem()).unwrap();
            }
        }
        "first" => {
            let c = cfg(false, false);
            let t = Instant::now();
            let mut b = vec![0u8; 16384];
            while t.elapsed().as_secs() < num(4) as u64 {
                if let Ok(Ok(mut s)) = tokio::time::timeout(Duration::from_secs(20), open(&c, &a[2], &a[3])).await {
                    if s.write_all(GET).await.is_ok() && answer(&mut s, &mut b).await.is_ok() {
                        let cert = s.get_ref().1.peer_certificates().map(|c| c[0].as_ref().to_vec()).unwrap_or_default();
                        let ok = memchr::memmem::find(&cert, a[3].as_bytes()).is_some();
                        println!("{{\"first_s\":{:.4},\"right_cert\":{ok}}}", t.elapsed().as_secs_f64());
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            println!("{{\"first_s\":null}}");
        }
        "idle" => local.run_until(async {
            let n = num(3);
            let c = cfg(false, false);
            let mut v = Vec::new();
            let mut b = vec![0u8; 16384];
            let mut err = 0;
            for _ in 0..n {
                match open(&c, &a[2], "h0.test").await {
                    Ok(mut s) => { if s.write_all(GET).await.is_err() || answer(&mut s, &mut b).await.is_err() { err += 1 } v.push(s) }
                    Err(_) => err += 1,
                }
            }
            println!("{{\"open\":{},\"err\":{err}}}", v.len());
            let mut i = [0u8; 1];
            use std::io::Read;
            let _ = std::io::stdin().read(&mut i);
        }).await,
        m @ ("hs" | "resume" | "down" | "up" | "reload") => local.run_until(async {
            let c = cfg(m == "resume", a.get(5).map(|s| s == "pq").unwrap_or(false));
            let until = Instant::now() + Duration::from_secs(num(3) as u64);
            let (ok, err, resumed, err_new, bytes) = (Rc::new(Cell::new(0u64)), Rc::new(Cell::new(0u64)), Rc::new(Cell::new(0u64)), Rc::new(Cell::new(0u64)), Rc::new(Cell::new(0u64)));
            let mut js = Vec::new();
            let body: Rc<Vec<u8>> = Rc::new({
                let mut v = format!("POST /up HTTP/1.1\r\nhost: h0.test\r\ncontent-length: {}\r\n\r\n", 10 << 20).into_bytes();
                v.resize(v.len() + (10 << 20), b'x'); v });
            let t0 = Instant::now();
            for k in 0..num(4) {
                let (c, addr, ok, err, resumed, err_new, bytes, body, m) = (c.clone(), a[2].clone(), ok.clone(), err.clone(), resumed.clone(), err_new.clone(), bytes.clone(), body.clone(), m.to_string());
                js.push(tokio::task::spawn_local(async move {
                    let mut b = vec![0u8; 65536];
                    let keep = match m.as_str() { "hs" | "resume" => 1, "reload" => if k % 2 == 0 { 500 } else { 1 }, _ => usize::MAX };
                    while Instant::now() < until {
                        let mut s = match open(&c, &addr, "h0.test").await { Ok(s) => s, Err(e) => { if std::env::var_os("V").is_some() { eprintln!("open {e}") } err.set(err.get() + 1); err_new.set(err_new.get() + 1); tokio::time::sleep(Duration::from_millis(1)).await; continue } };
                        if s.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) { resumed.set(resumed.get() + 1) }
                        let mut i = 0;
                        while i < keep && Instant::now() < until {
                            let w = match m.as_str() { "down" => s.write_all(BIG).await, "up" => s.write_all(&body).await, _ => s.write_all(GET).await };
                            let r = if let Err(e) = w { Err(e) } else { s.flush().await.ok(); answer(&mut s, &mut b).await };
                            match r {
                                Ok((n, close)) => { ok.set(ok.get() + 1); bytes.set(bytes.get() + if m == "up" { 10 << 20 } else { n as u64 }); if close { break } }
                                Err(e) => { if std::env::var_os("V").is_some() { eprintln!("req {i} {e}") } err.set(err.get() + 1); if i == 0 { err_new.set(err_new.get() + 1) } break }
                            }
                            i += 1;
                        }
                        let _ = s.shutdown().await;
                    }
                }));
            }
            for j in js { let _ = j.await; }
            println!("{{\"ok\":{},\"err\":{},\"err_new\":{},\"resumed\":{},\"bytes\":{},\"secs\":{:.3}}}", ok.get(), err.get(), err_new.get(), resumed.get(), bytes.get(), t0.elapsed().as_secs_f64());
        }).await,
        _ => panic!("mode"),
    }
}
