//! Straightforward TLS reverse proxies as lower bounds. env: LISTEN UPSTREAM CERTDIR NCERTS THREADS, arg: mt | tpc | raw
//!  mt   multi-thread tokio, hyper server, hyper-util legacy client (shared pool)
//!  tpc  one current_thread runtime per thread with SO_REUSEPORT, hyper server, hand-kept per-thread pool
//!  raw  as tpc, HTTP/1.1 only, own codec: header bytes are copied through, never put in a map
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug)]
struct Sni(HashMap<String, Arc<CertifiedKey>>, Arc<CertifiedKey>);
impl rustls::server::ResolvesServerCert for Sni {
    fn resolve(&self, h: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(h.server_name().and_then(|n| self.0.get(n)).unwrap_or(&self.1).clone())
    }
}

fn env(k: &str, d: &str) -> String {
    std::env::var(k).unwrap_or_else(|_| d.to_string())
}

fn tls(alpn: &[&str]) -> TlsAcceptor {
    let dir = env("CERTDIR", ".");
    let n: usize = env("NCERTS", "1").parse().unwrap();
    let key: PrivateKeyDer<'static> =
        rustls_pemfile::private_key(&mut &std::fs::read(format!("{dir}/key.pem")).unwrap()[..])
            .unwrap()
            .unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
    let mut map = HashMap::new();
    let mut first = None;
    for i in 0..n {
        let chain: Vec<CertificateDer<'static>> =
            rustls_pemfile::certs(&mut &std::fs::read(format!("{dir}/crt/h{i}.crt")).unwrap()[..])
                .map(|c| c.unwrap())
                .collect();
        let ck = Arc::new(CertifiedKey::new(chain, key.clone()));
        first.get_or_insert_with(|| ck.clone());
        map.insert(format!("h{i}.test"), ck);
    }
    let mut p = rustls::crypto::aws_lc_rs::default_provider();
    p.cipher_suites = vec![rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let mut c = rustls::ServerConfig::builder_with_provider(Arc::new(p))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Sni(map, first.unwrap())));
    c.alpn_protocols = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
    c.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    if let Ok(t) = std::env::var("TICKETS") {
        c.send_tls13_tickets = t.parse().unwrap()
    }
    TlsAcceptor::from(Arc::new(c))
}

fn listen() -> TcpListener {
    let s = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    s.set_reuse_address(true).unwrap();
    s.set_reuse_port(true).unwrap();
    s.bind(&env("LISTEN", "").parse::<SocketAddr>().unwrap().into()).unwrap();
    s.listen(4096).unwrap();
    s.set_nonblocking(true).unwrap();
    TcpListener::from_std(s.into()).unwrap()
}

fn clean(h: &mut hyper::HeaderMap) {
    for k in [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        h.remove(k);
    }
    h.remove("keep-alive");
    h.remove("proxy-connection");
}

type Client = hyper_util::client::legacy::Client<
    hyper_util::client::legacy::connect::HttpConnector,
    Incoming,
>;

async fn mt_proxy(
    c: Client,
    up: HeaderValue,
    ext: bool,
    mut r: Request<Incoming>,
) -> Result<Response<http_body_util::Either<Incoming, Full<Bytes>>>, hyper::Error> {
    let path = r.uri().path_and_query().map(|p| p.as_str()).unwrap_or("/");
    let uri = hyper::Uri::builder()
        .scheme("http")
        .authority(up.as_bytes())
        .path_and_query(path)
        .build()
        .unwrap();
    *r.uri_mut() = uri;
    *r.version_mut() = hyper::Version::HTTP_11;
    clean(r.headers_mut());
    r.headers_mut().entry(HOST).or_insert(up);
    if ext {
        r.headers_mut().insert("x-ext", HeaderValue::from_static("1"));
    }
    Ok(match c.request(r).await {
        Ok(mut p) => {
            clean(p.headers_mut());
            if ext {
                p.headers_mut().insert("x-ext", HeaderValue::from_static("1"));
            }
            p.map(http_body_util::Either::Left)
        }
        Err(_) => {
            let mut p = Response::new(http_body_util::Either::Right(Full::default()));
            *p.status_mut() = StatusCode::BAD_GATEWAY;
            p
        }
    })
}

async fn mt() {
    let t = tls(&["h2", "http/1.1"]);
    let l = listen();
    let mut hc = hyper_util::client::legacy::connect::HttpConnector::new();
    hc.set_nodelay(true);
    let c: Client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(1024)
        .build(hc);
    let up = HeaderValue::from_str(&env("UPSTREAM", "")).unwrap();
    let ext = env("EXT", "") == "native";
    loop {
        let Ok((s, _)) = l.accept().await else { continue };
        let (t, c, up) = (t.clone(), c.clone(), up.clone());
        tokio::spawn(async move {
            let _ = s.set_nodelay(true);
            let Ok(s) = t.accept(s).await else { return };
            let h2 = s.get_ref().1.alpn_protocol() == Some(b"h2");
            let svc = hyper::service::service_fn(move |r| mt_proxy(c.clone(), up.clone(), ext, r));
            if h2 {
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(128)
                    .serve_connection(TokioIo::new(s), svc)
                    .await;
            } else {
                let _ = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(s), svc)
                    .await;
            }
        });
    }
}

#[derive(Clone)]
struct LocalExec;
impl<F: std::future::Future + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, f: F) {
        tokio::task::spawn_local(f);
    }
}

type Sender = hyper::client::conn::http1::SendRequest<Incoming>;
type Pool = Rc<RefCell<Vec<Sender>>>;

async fn tpc_proxy(
    pool: Pool,
    addr: SocketAddr,
    up: HeaderValue,
    ext: bool,
    mut r: Request<Incoming>,
) -> Result<Response<http_body_util::combinators::UnsyncBoxBody<Bytes, hyper::Error>>, hyper::Error>
{
    let path = r.uri().path_and_query().cloned().unwrap_or_else(|| "/".parse().unwrap());
    *r.uri_mut() = path.into();
    *r.version_mut() = hyper::Version::HTTP_11;
    clean(r.headers_mut());
    r.headers_mut().entry(HOST).or_insert(up);
    if ext {
        r.headers_mut().insert("x-ext", HeaderValue::from_static("1"));
    }
    let mut s: Sender = loop {
        let got = {
            let mut p = pool.borrow_mut();
            match p.iter().rposition(|s| s.is_ready()) {
                Some(i) => Some(p.swap_remove(i)),
                None => {
                    p.retain(|s| !s.is_closed());
                    None
                }
            }
        };
        match got {
            Some(s) => break s,
            None => {
                let Ok(t) = TcpStream::connect(addr).await else {
                    let mut p =
                        Response::new(Full::default().map_err(|e| match e {}).boxed_unsync());
                    *p.status_mut() = StatusCode::BAD_GATEWAY;
                    return Ok(p);
                };
                let _ = t.set_nodelay(true);
                let (s, c) = hyper::client::conn::http1::handshake(TokioIo::new(t)).await?;
                tokio::task::spawn_local(c);
                break s;
            }
        }
    };
    let p = s.send_request(r).await?;
    // not is_ready() until its body is through
    pool.borrow_mut().push(s);
    let mut p = p.map(|b| b.boxed_unsync());
    clean(p.headers_mut());
    if ext {
        p.headers_mut().insert("x-ext", HeaderValue::from_static("1"));
    }
    Ok(p)
}

async fn tpc(t: TlsAcceptor) {
    let l = listen();
    let up = HeaderValue::from_str(&env("UPSTREAM", "")).unwrap();
    let addr: SocketAddr = env("UPSTREAM", "").parse().unwrap();
    let pool: Pool = Rc::default();
    let ext = env("EXT", "") == "native";
    loop {
        let Ok((s, _)) = l.accept().await else { continue };
        let (t, up, pool) = (t.clone(), up.clone(), pool.clone());
        tokio::task::spawn_local(async move {
            let _ = s.set_nodelay(true);
            let Ok(s) = t.accept(s).await else { return };
            let h2 = s.get_ref().1.alpn_protocol() == Some(b"h2");
            let svc = hyper::service::service_fn(move |r| {
                tpc_proxy(pool.clone(), addr, up.clone(), ext, r)
            });
            if h2 && std::env::var_os("COALESCE").is_some() {
                let io = Coalesce { s, buf: Vec::new(), pos: 0, yielded: false };
                let _ = hyper::server::conn::http2::Builder::new(LocalExec)
                    .max_concurrent_streams(128)
                    .serve_connection(TokioIo::new(io), svc)
                    .await;
            } else if h2 {
                let _ = hyper::server::conn::http2::Builder::new(LocalExec)
                    .max_concurrent_streams(128)
                    .serve_connection(TokioIo::new(s), svc)
                    .await;
            } else {
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(s), svc)
                    .await;
            }
        });
    }
}

/// COALESCE=1: collects what the h2 connection writes and lets one turn of the run queue pass before flushing,
/// so that answers of several streams leave in one TLS record and one system call.
struct Coalesce<S> {
    s: S,
    buf: Vec<u8>,
    pos: usize,
    yielded: bool,
}
impl<S: tokio::io::AsyncWrite + Unpin> Coalesce<S> {
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while self.pos < self.buf.len() {
            let n = std::task::ready!(Pin::new(&mut self.s).poll_write(cx, &self.buf[self.pos..]))?;
            self.pos += n;
        }
        self.buf.clear();
        self.pos = 0;
        Poll::Ready(Ok(()))
    }
}
impl<S: tokio::io::AsyncRead + Unpin> tokio::io::AsyncRead for Coalesce<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        b: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.s).poll_read(cx, b)
    }
}
impl<S: tokio::io::AsyncWrite + Unpin> tokio::io::AsyncWrite for Coalesce<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        b: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.buf.len() + b.len() > 32768 {
            std::task::ready!(self.drain(cx))?
        }
        if b.len() > 32768 {
            return Pin::new(&mut self.s).poll_write(cx, b);
        }
        self.yielded = false;
        self.buf.extend_from_slice(b);
        Poll::Ready(Ok(b.len()))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if !self.buf.is_empty() && !self.yielded {
            self.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        std::task::ready!(self.drain(cx))?;
        Pin::new(&mut self.s).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::task::ready!(self.drain(cx))?;
        Pin::new(&mut self.s).poll_shutdown(cx)
    }
}

// ---- raw: own HTTP/1.1 codec, Content-Length bodies only (a bound, not a product) ----
fn hop(n: &str) -> bool {
    matches!(n.len(), 2 | 7 | 10 | 16 | 17)
        && ["connection", "te", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"]
            .iter()
            .any(|h| n.eq_ignore_ascii_case(h))
}

async fn raw_conn<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut s: S,
    pool: Rc<RefCell<Vec<TcpStream>>>,
    addr: SocketAddr,
    ext: bool,
) -> std::io::Result<()> {
    let mut inb: Vec<u8> = Vec::with_capacity(4096);
    let mut out: Vec<u8> = Vec::with_capacity(4096);
    let mut big: Vec<u8> = Vec::new();
    loop {
        // request head
        out.clear();
        let (hl, cl) = loop {
            if !inb.is_empty() {
                let mut hs = [httparse::EMPTY_HEADER; 64];
                let mut r = httparse::Request::new(&mut hs);
                match r.parse(&inb) {
                    Ok(httparse::Status::Complete(n)) => {
                        let mut cl = 0usize;
                        out.extend_from_slice(r.method.unwrap().as_bytes());
                        out.push(b' ');
                        out.extend_from_slice(r.path.unwrap().as_bytes());
                        out.extend_from_slice(b" HTTP/1.1\r\n");
                        for h in r.headers.iter() {
                            if hop(h.name) {
                                continue;
                            }
                            if h.name.eq_ignore_ascii_case("content-length") {
                                cl = std::str::from_utf8(h.value)
                                    .unwrap_or("0")
                                    .trim()
                                    .parse()
                                    .unwrap_or(0)
                            }
                            out.extend_from_slice(h.name.as_bytes());
                            out.extend_from_slice(b": ");
                            out.extend_from_slice(h.value);
                            out.extend_from_slice(b"\r\n");
                        }
                        if ext {
                            out.extend_from_slice(b"x-ext: 1\r\n")
                        }
                        out.extend_from_slice(b"\r\n");
                        break (n, cl);
                    }
                    Ok(_) => {}
                    Err(_) => return Ok(()),
                }
            }
            if s.read_buf(&mut inb).await? == 0 {
                return Ok(());
            }
        };
        inb.drain(..hl);
        let have = inb.len().min(cl);
        out.extend_from_slice(&inb[..have]);
        inb.drain(..have);
        let got = pool.borrow_mut().pop();
        let mut u = match got {
            Some(u) => u,
            None => {
                let u = TcpStream::connect(addr).await?;
                u.set_nodelay(true)?;
                u
            }
        };
        u.write_all(&out).await?;
        let mut left = cl - have;
        while left > 0 {
            big.clear();
            big.reserve(65536);
            let n = (&mut s).take(left as u64).read_buf(&mut big).await?;
            if n == 0 {
                return Ok(());
            }
            u.write_all(&big[..n]).await?;
            left -= n;
        }
        // answer head
        big.clear();
        out.clear();
        big.reserve(8192);
        let (hl, cl) = loop {
            if u.read_buf(&mut big).await? == 0 {
                return Ok(());
            }
            let mut hs = [httparse::EMPTY_HEADER; 64];
            let mut r = httparse::Response::new(&mut hs);
            match r.parse(&big) {
                Ok(httparse::Status::Complete(n)) => {
                    let mut cl = 0usize;
                    out.extend_from_slice(b"HTTP/1.1 ");
                    let c = r.code.unwrap();
                    out.extend_from_slice(&[
                        b'0' + (c / 100) as u8,
                        b'0' + (c / 10 % 10) as u8,
                        b'0' + (c % 10) as u8,
                        b' ',
                    ]);
                    out.extend_from_slice(r.reason.unwrap_or("").as_bytes());
                    out.extend_from_slice(b"\r\n");
                    for h in r.headers.iter() {
                        if hop(h.name) {
                            continue;
                        }
                        if h.name.eq_ignore_ascii_case("content-length") {
                            cl = std::str::from_utf8(h.value)
                                .unwrap_or("0")
                                .trim()
                                .parse()
                                .unwrap_or(0)
                        }
                        out.extend_from_slice(h.name.as_bytes());
                        out.extend_from_slice(b": ");
                        out.extend_from_slice(h.value);
                        out.extend_from_slice(b"\r\n");
                    }
                    if ext {
                        out.extend_from_slice(b"x-ext: 1\r\n")
                    }
                    out.extend_from_slice(b"\r\n");
                    break (n, cl);
                }
                Ok(_) => big.reserve(8192),
                Err(_) => return Ok(()),
            }
        };
        let mut left = cl - (big.len() - hl);
        out.extend_from_slice(&big[hl..]);
        s.write_all(&out).await?;
        while left > 0 {
            big.clear();
            big.reserve(65536);
            let n = u.read_buf(&mut big).await?;
            if n == 0 {
                return Ok(());
            }
            s.write_all(&big[..n]).await?;
            left -= n;
        }
        s.flush().await?;
        pool.borrow_mut().push(u);
    }
}

async fn raw(t: TlsAcceptor) {
    let l = listen();
    let addr: SocketAddr = env("UPSTREAM", "").parse().unwrap();
    let pool: Rc<RefCell<Vec<TcpStream>>> = Rc::default();
    let ext = env("EXT", "") == "native";
    let plain = env("PLAIN", "") == "1";
    loop {
        let Ok((s, _)) = l.accept().await else { continue };
        let (t, pool) = (t.clone(), pool.clone());
        tokio::task::spawn_local(async move {
            let _ = s.set_nodelay(true);
            if plain {
                let _ = raw_conn(s, pool, addr, ext).await;
                return;
            }
            let Ok(mut s) = t.accept(s).await else { return };
            if let Ok(b) = env("TLSBUF", "").parse::<usize>() {
                s.get_mut().1.set_buffer_limit(Some(b))
            }
            let _ = raw_conn(s, pool, addr, ext).await;
        });
    }
}

fn main() {
    let n: usize = env("THREADS", "1").parse().unwrap();
    let mode = std::env::args().nth(1).unwrap_or_default();
    if mode == "mt" {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(n)
            .enable_all()
            .build()
            .unwrap()
            .block_on(async { tokio::spawn(mt()).await.unwrap() });
        return;
    }
    let t = tls(if mode == "raw" { &["http/1.1"] } else { &["h2", "http/1.1"] });
    let js: Vec<_> = (0..n)
        .map(|_| {
            let (t, mode) = (t.clone(), mode.clone());
            std::thread::spawn(move || {
                let rt =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let ls = tokio::task::LocalSet::new();
                if mode == "raw" {
                    ls.block_on(&rt, raw(t))
                } else {
                    ls.block_on(&rt, tpc(t))
                }
            })
        })
        .collect();
    for j in js {
        let _ = j.join();
    }
}
