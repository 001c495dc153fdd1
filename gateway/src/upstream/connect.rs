//! Making one connection to a server, TLS and HTTP handshake included.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::UpstreamError;
use super::h1::Conn;
use super::pool::Sender;
use crate::config::{Authority, Hostname, Server};
use crate::h1::Duplex;
use crate::http::LocalExecutor;

/// How to speak TLS to the servers of one upstream.
#[derive(Clone)]
pub struct TlsClient {
    /// Trust and ALPN.
    pub config: Arc<rustls::ClientConfig>,
    /// The name to ask for and check instead of the server's own.
    pub server_name: Option<Hostname>,
    /// Of the files that `config` was made from: another one means another trust or certificate.
    pub digest: u64,
}

/// Connects to `server`, at the first of `addresses` that takes it where there are any, writes `preface` and makes it
/// ready for requests. `label` names it in errors.
pub(super) async fn connect<B>(
    server: &Server,
    tls: Option<&TlsClient>,
    label: &Arc<str>,
    addresses: &[IpAddr],
    preface: &[u8],
) -> Result<Sender<B>, UpstreamError>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let failed = |cause| UpstreamError::Connect(Arc::clone(label), cause);
    match server {
        Server::Http(authority) => {
            let stream = tcp(authority, addresses, preface).await.map_err(failed)?;
            Ok(h1(stream))
        }
        Server::H2c(authority) => {
            let stream = tcp(authority, addresses, preface).await.map_err(failed)?;
            h2(stream, label).await
        }
        Server::Unix(path) => Ok(h1(unix(path, preface).await.map_err(failed)?)),
        Server::Https(authority) => {
            let stream = tcp(authority, addresses, preface).await.map_err(failed)?;
            let broken = |cause| UpstreamError::Tls(Arc::clone(label), cause);
            let tls = tls.ok_or_else(|| {
                broken(std::io::Error::other("no TLS configuration for this upstream"))
            })?;
            let name = tls.server_name.as_ref().map_or(authority.host.as_str(), |n| n.as_str());
            let name = ServerName::try_from(name.to_owned())
                .map_err(|cause| broken(std::io::Error::other(cause)))?;
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
            let stream = connector.connect(name, stream).await.map_err(broken)?;
            match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => h2(stream, label).await,
                _ => Ok(h1(stream)),
            }
        }
        Server::Tcp(_) | Server::Echo => {
            Err(failed(std::io::Error::other("requests cannot be sent to this server")))
        }
    }
}

/// Connects to a server for bytes of any kind, and writes `preface`.
pub(super) async fn dial(
    server: &Server,
    addresses: &[IpAddr],
    preface: &[u8],
) -> std::io::Result<Box<dyn Duplex>> {
    match server {
        Server::Tcp(authority) => Ok(Box::new(tcp(authority, addresses, preface).await?)),
        _ => Err(std::io::Error::other("this server takes requests alone")),
    }
}

async fn unix(path: &Path, preface: &[u8]) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(preface).await?;
    Ok(stream)
}

/// Connects to the first of `addresses` that takes it, or to what the system's resolver says now where none is known
/// yet. `preface` is written first: a PROXY header, or nothing.
pub(super) async fn tcp(
    authority: &Authority,
    addresses: &[IpAddr],
    preface: &[u8],
) -> std::io::Result<TcpStream> {
    let mut stream = match addresses {
        [] => TcpStream::connect((authority.host.as_str(), authority.port)).await?,
        known => {
            let all: Vec<SocketAddr> =
                known.iter().map(|ip| SocketAddr::new(*ip, authority.port)).collect();
            TcpStream::connect(all.as_slice()).await?
        }
    };
    stream.set_nodelay(true)?;
    stream.write_all(preface).await?;
    Ok(stream)
}

fn h1<B, S>(stream: S) -> Sender<B>
where
    S: Duplex + 'static,
{
    Sender::H1(Conn::new(Box::new(stream)))
}

async fn h2<B, S>(stream: S, label: &Arc<str>) -> Result<Sender<B>, UpstreamError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|cause| UpstreamError::Protocol(Arc::clone(label), cause.into()))?;
    tokio::task::spawn_local(connection);
    Ok(Sender::H2(sender))
}
