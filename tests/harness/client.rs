//! HTTP clients that show everything: the certificate, the alert, the protocol, every field.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{HOST, HeaderMap};
use http::{Request, Response, Uri, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pki::{Leaf, Pair};
use super::{SOON, until, within};

/// A body to send.
pub type Body = BoxBody<Bytes, io::Error>;

/// A body whose pieces come out of a channel, so that a test decides when each one is sent.
pub struct Pieces(pub tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, io::Error>>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(context)
    }
}

/// A body of `bytes` bytes without a known length, made while it is sent.
pub fn zeros(bytes: usize) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let piece = Bytes::from(vec![0; 1 << 16]);
        let mut left = bytes;
        while left > 0 {
            let piece = piece.slice(..left.min(piece.len()));
            left -= piece.len();
            if sender.send(Ok(Frame::data(piece))).await.is_err() {
                return;
            }
        }
    });
    Pieces(receiver).boxed()
}

/// Where and how to connect. Keeps TLS sessions for resumption.
#[derive(Clone)]
pub struct Client {
    port: u16,
    from: IpAddr,
    roots: Vec<String>,
    versions: Vec<&'static SupportedProtocolVersion>,
    has_sni: bool,
    certificate: Option<Arc<Pair>>,
    preface: Vec<u8>,
    key_log: Option<Arc<dyn rustls::KeyLog>>,
    configs: Arc<Mutex<HashMap<Vec<u8>, Arc<ClientConfig>>>>,
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The protocol it came over.
    pub version: Version,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers; none when there were none.
    pub trailers: Option<HeaderMap>,
}

/// An open connection.
pub enum Http {
    /// HTTP/1.1.
    H1(http1::SendRequest<Body>),
    /// HTTP/2; clones share the connection.
    H2(http2::SendRequest<Body>),
}

impl Client {
    /// A client of `127.0.0.1:port` that trusts nobody yet.
    pub fn new(port: u16) -> Self {
        Self {
            port,
            from: IpAddr::V4(Ipv4Addr::LOCALHOST),
            roots: Vec::new(),
            versions: rustls::ALL_VERSIONS.to_vec(),
            has_sni: true,
            certificate: None,
            preface: Vec::new(),
            key_log: None,
            configs: Arc::default(),
        }
    }

    /// The same client, with the same sessions, of another port.
    pub fn at(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Trusts the certificates of a PEM text as well.
    pub fn trusting(mut self, pem: &str) -> Self {
        self.roots.push(pem.to_owned());
        self.fresh()
    }

    /// Connects from another loopback address, so that the other side can tell clients apart.
    pub fn from(mut self, address: &str) -> Self {
        self.from = address.parse().expect("an address");
        self.fresh()
    }

    /// Offers one TLS version alone.
    pub fn speaking(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self.fresh()
    }

    /// Sends no server name.
    pub fn without_sni(mut self) -> Self {
        self.has_sni = false;
        self.fresh()
    }

    /// Shows this certificate to servers that ask for one. Sessions are kept.
    pub fn showing(mut self, pair: Pair) -> Self {
        self.certificate = Some(Arc::new(pair));
        self.fresh()
    }

    /// Says this before anything else on each connection.
    pub fn saying(mut self, preface: &[u8]) -> Self {
        self.preface = preface.to_vec();
        self.fresh()
    }

    /// Tells what it knows of its connections' secrets.
    pub fn logging(mut self, key_log: Arc<dyn rustls::KeyLog>) -> Self {
        self.key_log = Some(key_log);
        self.fresh()
    }

    /// The same client without any TLS session to resume.
    pub fn fresh(mut self) -> Self {
        self.configs = Arc::default();
        self
    }

    /// A TCP connection.
    pub async fn tcp(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.from, 0))?;
        let mut stream = socket.connect((Ipv4Addr::LOCALHOST, self.port).into()).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.preface).await?;
        Ok(stream)
    }

    /// A TLS connection that asks for `name`; an alert of the server is in the error's text.
    pub async fn tls(&self, name: &str, alpn: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).expect("a server name");
        let connector = TlsConnector::from(self.config(alpn));
        let tcp = self.tcp().await?;
        within("a TLS handshake", SOON, connector.connect(name, tcp)).await
    }

    /// As [`Self::tls`], over a stream of the test's own.
    pub async fn tls_over<S>(&self, name: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(name.to_owned()).expect("a server name");
        let connector = TlsConnector::from(self.config(&[]));
        within("a TLS handshake", SOON, connector.connect(name, stream)).await
    }

    /// The certificate that the server shows for `name`, verified.
    pub async fn leaf(&self, name: &str) -> Result<Leaf, String> {
        let stream = self.tls(name, &[b"http/1.1"]).await.map_err(|e| e.to_string())?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(Leaf::read(chain.first().ok_or("no certificate")?))
    }

    /// The alert with which the server refuses a handshake for `name` (RFC 8446, section 6.2); none
    /// when it does not refuse, or without an alert.
    pub async fn alert(&self, name: &str) -> Option<u8> {
        let refused = self.tls(name, &[b"http/1.1"]).await.err()?;
        match refused.get_ref()?.downcast_ref::<rustls::Error>()? {
            rustls::Error::AlertReceived(alert) => Some(u8::from(*alert)),
            _ => None,
        }
    }

    /// Waits until the server shows a certificate for `name` that verifies.
    pub async fn certified(&self, name: &str, limit: std::time::Duration) -> Leaf {
        let what = format!("a certificate for {name}");
        until(&what, limit, async || self.leaf(name).await.ok()).await
    }

    /// An HTTP/1.1 connection over TLS.
    pub async fn h1(&self, name: &str) -> io::Result<Http> {
        Http::over_h1(self.tls(name, &[b"http/1.1"]).await?).await
    }

    /// An HTTP/2 connection over TLS.
    pub async fn h2(&self, name: &str) -> io::Result<Http> {
        let stream = self.tls(name, &[b"h2"]).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "h2 was negotiated");
        Http::over_h2(stream).await
    }

    /// An HTTP/1.1 connection without TLS.
    pub async fn plain(&self) -> io::Result<Http> {
        Http::over_h1(self.tcp().await?).await
    }

    /// One GET over a new HTTP/1.1 connection with TLS.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn get(&self, name: &str, path: &str) -> Answer {
        self.send(get(name, path)).await
    }

    /// One request over a new HTTP/1.1 connection with TLS, to the host in its URI.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let uri = request.uri().clone();
        let name = uri.host().expect("an absolute URI");
        let mut http = self.h1(name).await.unwrap_or_else(|e| panic!("{uri}: {e}"));
        http.send(request).await.unwrap_or_else(|e| panic!("{uri}: {e:?}"))
    }

    fn config(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut configs = self.configs.lock().expect("no holder panics");
        let config = configs.entry(alpn.concat()).or_insert_with(|| {
            let mut roots = RootCertStore::empty();
            for pem in &self.roots {
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    roots.add(certificate.expect("PEM")).expect("a root");
                }
            }
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&self.versions)
                .expect("versions that the provider has")
                .with_root_certificates(roots);
            let mut config = match &self.certificate {
                None => config.with_no_client_auth(),
                Some(pair) => {
                    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
                    let chain = chain.collect::<Result<_, _>>().expect("a chain");
                    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
                    config.with_client_auth_cert(chain, key).expect("a pair")
                }
            };
            config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
            config.enable_sni = self.has_sni;
            if let Some(key_log) = &self.key_log {
                config.key_log = Arc::clone(key_log);
            }
            Arc::new(config)
        });
        Arc::clone(config)
    }
}

impl Http {
    /// Speaks HTTP/1.1 over any stream.
    pub async fn over_h1<S>(stream: S) -> io::Result<Self>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self::H1(sender))
    }

    /// Speaks HTTP/2 with prior knowledge over any stream.
    pub async fn over_h2<S>(stream: S) -> io::Result<Self>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .handshake(io)
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self::H2(sender))
    }

    /// Sends a request and returns as soon as the response's head is there.
    pub async fn open(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::H1(sender) => {
                sender.ready().await?;
                sender.send_request(origin_form(request)).await
            }
            Self::H2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// Sends a request and reads the whole response.
    pub async fn send(&mut self, request: Request<Body>) -> hyper::Result<Answer> {
        let what = format!("{} {}", request.method(), request.uri());
        within(&what, 3 * SOON, async {
            let response = self.open(request).await?;
            Answer::read(response).await
        })
        .await
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::H1(sender) => sender.is_closed(),
            Self::H2(sender) => sender.is_closed(),
        }
    }

    /// Another handle to the same HTTP/2 connection.
    ///
    /// # Panics
    /// On HTTP/1.1.
    pub fn stream(&self) -> Self {
        match self {
            Self::H1(_) => panic!("an HTTP/1.1 connection has no streams"),
            Self::H2(sender) => Self::H2(sender.clone()),
        }
    }
}

impl Answer {
    /// Reads a response to its end.
    pub async fn read(response: Response<Incoming>) -> hyper::Result<Self> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned();
        Ok(Self {
            status: head.status.as_u16(),
            version: head.version,
            headers: head.headers,
            body: body.to_bytes(),
            trailers,
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(e) => panic!("{e} in {self:?}"),
        }
    }

    /// The first value of a field, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A GET for `https://authority/path`.
pub fn get(authority: &str, path: &str) -> Request<Body> {
    request("GET", authority, path, Bytes::new())
}

/// Any request for `https://authority/path` with a whole body.
pub fn request(method: &str, authority: &str, path: &str, body: impl Into<Bytes>) -> Request<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed();
    Request::builder()
        .method(method)
        .uri(format!("https://{authority}{path}"))
        .body(body)
        .expect("a request")
}

/// Adds a field to a request.
pub fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request.headers_mut().append(name, value.parse().expect("a field value"));
    request
}

/// An absolute URI as HTTP/1.1 wants it: path in the target, authority in `Host`.
fn origin_form(mut request: Request<Body>) -> Request<Body> {
    let uri = request.uri().clone();
    let Some(authority) = uri.authority() else { return request };
    if !request.headers().contains_key(HOST) {
        let host = authority.as_str().parse().expect("an authority is a field value");
        request.headers_mut().insert(HOST, host);
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>().expect("a path");
    request
}
