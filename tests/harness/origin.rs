//! Application servers to put behind the gateway.

use std::convert::Infallible;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::{Process, SOON, port, project, tool, until};

/// The FastAPI application of `tests/e2e/app` on Uvicorn, which trusts the forwarding fields of
/// 127.0.0.1, as its default is.
pub struct Origin {
    /// Where it listens.
    pub port: u16,
    _process: Process,
}

impl Origin {
    /// Starts it and waits until it answers.
    pub async fn start() -> Self {
        let port = port();
        let mut command = Command::new(tool("venv/bin/python"));
        command.args(["-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--no-access-log"]);
        command.args(["--port", &port.to_string(), "--ws", "websockets"]);
        command.current_dir(project().join("tests/e2e/app"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        let mut process = Process::start("uvicorn", &command);
        until("Uvicorn to listen", 2 * SOON, || {
            process.assert_running();
            async move { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok() }
        })
        .await;
        Self { port, _process: process }
    }
}

/// A small application inside the test, for what an application server does not do by itself.
///
/// | path | answer |
/// |---|---|
/// | `/never` | none, ever |
/// | `/drop` | none: the connection ends |
/// | `/half` | a head that promises 1000 bytes, 10 bytes, then the connection ends |
/// | `/stall` | a head and 10 bytes, then nothing |
/// | `/slow` | after `?ms=N` |
/// | `/code` | `?code=N` as its status |
/// | `/trailers` | a body with the trailer `x-checksum` |
/// | `/big` | `?bytes=N` bytes |
/// | `/hop` | hop-by-hop fields of its own |
/// | any other | JSON of the request as it came: method, target, version, fields, body |
pub struct RustOrigin {
    /// Where it listens.
    pub port: u16,
    /// Whether it speaks HTTP/2 alone.
    pub is_h2: bool,
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<serde_json::Value>>,
    proxy_headers: Mutex<Vec<Vec<u8>>>,
    connections: std::sync::atomic::AtomicUsize,
}

type Body = BoxBody<Bytes, std::io::Error>;

impl RustOrigin {
    /// An HTTP/1.1 server.
    pub async fn h1() -> Self {
        Self::start(false, false).await
    }

    /// An HTTP/1.1 server that takes a PROXY header first.
    pub async fn proxied() -> Self {
        Self::start(false, true).await
    }

    /// An HTTP/2 server (h2c) that takes a PROXY header first.
    pub async fn proxied_h2c() -> Self {
        Self::start(true, true).await
    }

    /// An HTTP/2 server that takes h2c with prior knowledge, and nothing else.
    pub async fn h2c() -> Self {
        Self::start(true, false).await
    }

    /// The PROXY headers so far, one for each connection.
    pub fn proxy_headers(&self) -> Vec<Vec<u8>> {
        self.seen.proxy_headers.lock().expect("no holder panics").clone()
    }

    /// Every request so far, as JSON.
    pub fn requests(&self) -> Vec<serde_json::Value> {
        self.seen.requests.lock().expect("no holder panics").clone()
    }

    /// How many connections were made to it so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// A server at another loopback address, so that one port can be that of several.
    pub async fn at(address: &str, port: u16, is_h2: bool) -> Self {
        let listener = TcpListener::bind((address, port)).await.expect("a free port");
        Self::serve(listener, is_h2, false)
    }

    async fn start(is_h2: bool, is_proxied: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port())).await.expect("a free port");
        Self::serve(listener, is_h2, is_proxied)
    }

    fn serve(listener: TcpListener, is_h2: bool, is_proxied: bool) -> Self {
        let port = listener.local_addr().expect("it is bound").port();
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                shared.connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    if is_proxied {
                        let Ok(header) = proxy_header(&mut stream).await else { return };
                        shared.proxy_headers.lock().expect("no holder panics").push(header);
                    }
                    let io = TokioIo::new(stream);
                    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                    // How a connection ends is the business of the other side.
                    let _ = if is_h2 {
                        let executor = TokioExecutor::new();
                        let server = hyper::server::conn::http2::Builder::new(executor);
                        server.serve_connection(io, service).await
                    } else {
                        let server = hyper::server::conn::http1::Builder::new();
                        server.serve_connection(io, service).await
                    };
                });
            }
        });
        Self { port, is_h2, seen, task }
    }
}

impl Drop for RustOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads a PROXY header of either version, as it is.
pub async fn proxy_header(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
) -> std::io::Result<Vec<u8>> {
    let mut header = vec![stream.read_u8().await?];
    if header == b"P" {
        while !header.ends_with(b"\r\n") {
            header.push(stream.read_u8().await?);
        }
        return Ok(header);
    }
    header.resize(16, 0);
    stream.read_exact(&mut header[1..]).await?;
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    header.resize(16 + length, 0);
    stream.read_exact(&mut header[16..]).await?;
    Ok(header)
}

async fn answer(
    seen: Arc<Seen>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    let path = request.uri().path().to_owned();
    let number = number(request.uri().query());
    let request = describe(request).await;
    seen.requests.lock().expect("no holder panics").push(request.clone());
    let gone = || std::io::Error::other("the test asked for it");
    match path.as_str() {
        "/never" => std::future::pending().await,
        "/drop" => Err(gone()),
        "/half" => {
            let body = pieces(vec![Ok(data(10)), Err(gone())], false);
            let mut response = Response::new(body);
            response.headers_mut().insert("content-length", HeaderValue::from_static("1000"));
            Ok(response)
        }
        "/stall" => Ok(Response::new(pieces(vec![Ok(data(10))], true))),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(number)).await;
            Ok(Response::new(whole(request.to_string())))
        }
        "/code" => {
            let mut response = Response::new(whole("as asked"));
            *response.status_mut() = http::StatusCode::from_u16(number as u16).expect("a status");
            Ok(response)
        }
        "/events" => {
            let event = Frame::data(Bytes::from_static(b"data: one\n\n"));
            let mut response = Response::new(pieces(vec![Ok(event)], true));
            let media = HeaderValue::from_static("text/event-stream");
            response.headers_mut().insert("content-type", media);
            Ok(response)
        }
        "/verify" => {
            let is_known = field(&request, "cookie") == ["good=1"];
            let mut response = Response::new(whole("asked"));
            if is_known {
                response.headers_mut().insert("x-user", HeaderValue::from_static("alice"));
            } else {
                *response.status_mut() = http::StatusCode::FOUND;
                let place = HeaderValue::from_static("https://login.example/");
                response.headers_mut().insert("location", place);
            }
            Ok(response)
        }
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", HeaderValue::from_static("abc"));
            let frames = vec![Ok(data(10)), Ok(Frame::trailers(trailers))];
            let mut response = Response::new(pieces(frames, false));
            response.headers_mut().insert("trailer", HeaderValue::from_static("x-checksum"));
            Ok(response)
        }
        "/big" => Ok(Response::new(whole(vec![b'b'; number as usize]))),
        "/hop" => {
            let mut response = Response::new(whole("hop"));
            for (name, value) in [
                ("connection", "x-private"),
                ("x-private", "for the next hop alone"),
                ("keep-alive", "timeout=5"),
                ("proxy-authenticate", "Basic"),
                ("x-public", "for all"),
            ] {
                response.headers_mut().append(name, HeaderValue::from_static(value));
            }
            Ok(response)
        }
        _ => {
            let mut response = Response::new(whole(request.to_string()));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert("content-type", json);
            Ok(response)
        }
    }
}

/// A request as JSON; reads its body.
async fn describe(request: Request<Incoming>) -> serde_json::Value {
    let (head, body) = request.into_parts();
    let fields = head
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]));
    let fields: Vec<_> = fields.collect();
    let version = match head.version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_11 => "HTTP/1.1",
        _ => "other",
    };
    let body = match body.collect().await {
        Ok(body) => body,
        Err(e) => return json!({"target": head.uri.to_string(), "error": e.to_string()}),
    };
    let trailers = body.trailers().map(|fields| format!("{fields:?}"));
    json!({
        "method": head.method.as_str(),
        "target": head.uri.path_and_query().map_or("", |target| target.as_str()),
        "authority": head.uri.authority().map(|authority| authority.as_str()),
        "version": version,
        "headers": fields,
        "trailers": trailers,
        "body": String::from_utf8_lossy(&body.to_bytes()),
    })
}

/// The values of a field in the JSON of [`RustOrigin`] or of the application's `/seen`.
pub fn field(request: &serde_json::Value, name: &str) -> Vec<String> {
    let fields = request["headers"].as_array().expect("a list of fields");
    let values = fields.iter().filter(|field| field[0] == name);
    values.map(|field| field[1].as_str().unwrap_or_default().to_owned()).collect()
}

fn number(query: Option<&str>) -> u64 {
    let value = query.and_then(|query| query.split_once('=')).map(|(_, value)| value);
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}

fn data(count: usize) -> Frame<Bytes> {
    Frame::data(Bytes::from(vec![b'x'; count]))
}

fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// A body in pieces, each flushed before the next; it never ends when it `stalls`.
fn pieces(frames: Vec<Result<Frame<Bytes>, std::io::Error>>, stalls: bool) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for frame in frames {
            if sender.send(frame).await.is_err() {
                return;
            }
        }
        if stalls {
            sender.closed().await;
        }
    });
    super::client::Pieces(receiver).boxed()
}
