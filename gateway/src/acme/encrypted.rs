//! DNS in private: over TLS (RFC 7858) and over HTTPS (RFC 8484). Called by [`super::dns`] alone.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hickory_proto::op::Message;
use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dns::{DnsError, framed, read};
use crate::tls::roots;

/// Asks a server whose certificate is for `name`, over TLS.
pub(super) async fn over_tls(
    address: SocketAddr,
    name: &str,
    roots: Option<&Path>,
    query: &Message,
) -> Result<Message, DnsError> {
    framed(connect(address, name, roots, &[b"dot"]).await?, query).await
}

/// The same over HTTPS, by POST.
pub(super) async fn over_https(
    address: SocketAddr,
    name: &str,
    path: &str,
    roots: Option<&Path>,
    query: &Message,
) -> Result<Message, DnsError> {
    let failed = |cause: hyper::Error| DnsError::Encrypted(cause.to_string());
    let stream = connect(address, name, roots, &[b"h2", b"http/1.1"]).await?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let body = Full::new(Bytes::from(query.to_vec().map_err(|_| DnsError::Name)?));
    let host = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    let request =
        Request::post(if is_h2 { format!("https://{host}{path}") } else { path.to_owned() })
            .header(CONTENT_TYPE, "application/dns-message")
            .header(ACCEPT, "application/dns-message");
    let request = if is_h2 { request } else { request.header(HOST, host) };
    let request = request.body(body).map_err(|cause| DnsError::Encrypted(cause.to_string()))?;
    let io = TokioIo::new(stream);
    let (response, task) = if is_h2 {
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
        let task = tokio::spawn(async move { drop(connection.await) });
        (sender.send_request(request).await, task)
    } else {
        let (mut sender, connection) = http1::handshake(io).await.map_err(failed)?;
        let task = tokio::spawn(async move { drop(connection.await) });
        (sender.send_request(request).await, task)
    };
    let response = response.map_err(failed)?;
    if !response.status().is_success() {
        return Err(DnsError::Encrypted(format!("HTTP status {}", response.status())));
    }
    let body = Limited::new(response.into_body(), usize::from(u16::MAX)).collect().await;
    task.abort();
    let body = body.map_err(|cause| DnsError::Encrypted(cause.to_string()))?.to_bytes();
    read(&body, query).unwrap_or(Err(DnsError::Malformed))
}

async fn connect(
    address: SocketAddr,
    name: &str,
    roots: Option<&Path>,
    alpn: &[&[u8]],
) -> Result<TlsStream<TcpStream>, DnsError> {
    let refused = |why: String| DnsError::Encrypted(why);
    let mut config = roots::client_config(roots).map_err(|cause| refused(cause.to_string()))?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).map_err(|cause| refused(cause.to_string()))?;
    let tcp = TcpStream::connect(address).await?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    connected.map_err(|cause| refused(cause.to_string()))
}
