//! Active health checks: a task per server on the control runtime writes, workers read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::TlsClient;
use super::connect::tcp;
use crate::config::{self, Server};

/// Which servers of an upstream are up. Ends its checks when the last owner lets go.
#[derive(Debug)]
pub struct Health {
    up: Arc<[AtomicBool]>,
    tasks: Vec<JoinHandle<()>>,
}

impl Health {
    /// All servers up, nothing checked.
    pub fn unchecked(servers: usize) -> Arc<Self> {
        let up = (0..servers).map(|_| AtomicBool::new(true)).collect();
        Arc::new(Self { up, tasks: Vec::new() })
    }

    /// Starts checks on the current runtime when the upstream asks for them. Servers count as up
    /// until a check says otherwise.
    pub fn start(name: &str, upstream: &config::Upstream, tls: Option<&TlsClient>) -> Arc<Self> {
        let Some(health) = &upstream.health else {
            return Self::unchecked(upstream.servers.len());
        };
        let up: Arc<[AtomicBool]> =
            upstream.servers.iter().map(|_| AtomicBool::new(true)).collect();
        let tasks = upstream.servers.iter().enumerate().map(|(index, server)| {
            tokio::spawn(watch(
                name.to_owned(),
                server.clone(),
                tls.cloned(),
                health.clone(),
                Arc::clone(&up),
                index,
            ))
        });
        let tasks = tasks.collect();
        Arc::new(Self { up, tasks })
    }

    /// Whether the server at this index is up.
    pub fn is_up(&self, index: usize) -> bool {
        self.up.get(index).is_none_or(|up| up.load(Ordering::Relaxed))
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn watch(
    name: String,
    server: Server,
    tls: Option<TlsClient>,
    health: config::Health,
    up: Arc<[AtomicBool]>,
    index: usize,
) {
    let mut run = 0u32;
    loop {
        let check = check(&server, tls.as_ref(), &health.path);
        let outcome = match tokio::time::timeout(health.timeout, check).await {
            Ok(outcome) => outcome,
            Err(_) => Err("no answer in time".to_owned()),
        };
        let Some(flag) = up.get(index) else { return };
        let is_up = flag.load(Ordering::Relaxed);
        run = if outcome.is_ok() == is_up { 0 } else { run + 1 };
        let enough = if is_up { health.unhealthy_after } else { health.healthy_after };
        if run >= enough {
            run = 0;
            flag.store(!is_up, Ordering::Relaxed);
            match outcome {
                Ok(()) => tracing::info!(upstream = name, %server, "server is healthy again"),
                Err(cause) => {
                    tracing::warn!(upstream = name, %server, cause, "server is taken out")
                }
            }
        }
        tokio::time::sleep(health.interval).await;
    }
}

async fn check(server: &Server, tls: Option<&TlsClient>, path: &str) -> Result<(), String> {
    let text = |cause: std::io::Error| cause.to_string();
    match server {
        Server::Http(authority) => ask(tcp(authority).await.map_err(text)?, authority, path).await,
        Server::H2c(authority) => tcp(authority).await.map(drop).map_err(text),
        Server::Unix(socket) => {
            let host = config::Authority { host: "localhost".into(), port: 80 };
            ask(UnixStream::connect(socket).await.map_err(text)?, &host, path).await
        }
        Server::Https(authority) => {
            let stream = tcp(authority).await.map_err(text)?;
            let Some(tls) = tls else { return Ok(()) };
            let name = tls.server_name.as_ref().map_or(authority.host.as_str(), |n| n.as_str());
            let name = rustls_pki_types::ServerName::try_from(name.to_owned())
                .map_err(|cause| cause.to_string())?;
            let mut h1_only = (*tls.config).clone();
            h1_only.alpn_protocols = vec![b"http/1.1".to_vec()];
            let connector = tokio_rustls::TlsConnector::from(Arc::new(h1_only));
            ask(connector.connect(name, stream).await.map_err(text)?, authority, path).await
        }
        Server::Echo => Ok(()),
    }
}

async fn ask<S>(stream: S, authority: &config::Authority, path: &str) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|cause| cause.to_string())?;
    let task = tokio::spawn(connection);
    let request = hyper::Request::get(path)
        .header(http::header::HOST, authority.to_string())
        .header(http::header::USER_AGENT, "witgate-health")
        .body(Empty::<Bytes>::new())
        .map_err(|cause| cause.to_string())?;
    let status = sender.send_request(request).await.map(|response| response.status());
    task.abort();
    match status {
        Ok(status) if status.is_success() || status.is_redirection() => Ok(()),
        Ok(status) => Err(format!("answered {status}")),
        Err(cause) => Err(cause.to_string()),
    }
}
