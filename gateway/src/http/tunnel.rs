//! What is left of an exchange after 101: bytes both ways until either side ends.

use std::error::Error;

use bytes::BytesMut;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;

use super::body::RequestBody;
use crate::fault::Fault;
use crate::h1::{Duplex, Upgraded};
use crate::telemetry::{Ending, Record};
use crate::upstream::Lease;
use crate::worker::OpenPlace;

/// A client's connection that may leave HTTP, once the response that says so has gone out.
pub enum Client {
    /// A stream of a connection that hyper drives.
    Hyper(OnUpgrade),
    /// A whole connection.
    H1(oneshot::Receiver<Upgraded>),
}

/// HTTP/2 streams.
impl Duplex for TokioIo<hyper::upgrade::Upgraded> {}

impl Client {
    async fn open(self) -> Result<Upgraded, Box<dyn Error>> {
        match self {
            Self::Hyper(upgrade) => {
                let stream = Box::new(TokioIo::new(upgrade.await?));
                Ok(Upgraded { stream, read: BytesMut::new() })
            }
            Self::H1(upgraded) => Ok(upgraded.await?),
        }
    }
}

/// Joins the client's and the upstream's connection; writes the access-log record at the end.
pub async fn join(
    client: Client,
    upstream: Upgraded,
    lease: Lease<RequestBody>,
    mut record: Box<Record>,
    place: OpenPlace,
) {
    match client.open().await {
        Ok(client) => {
            if let Ok(to_client) = copy(client, upstream).await {
                record.bytes_sent = to_client;
            }
        }
        Err(cause) => {
            let text = format!("the upgrade did not come about: {cause}");
            record.failure = Some((Fault::Client, text));
        }
    }
    drop(lease);
    drop(place);
    record.write(Ending::Complete);
}

/// Copies both ways; returns the bytes to the client.
async fn copy(mut client: Upgraded, mut upstream: Upgraded) -> std::io::Result<u64> {
    let read = upstream.read.len() as u64;
    client.stream.write_all(&upstream.read).await?;
    upstream.stream.write_all(&client.read).await?;
    client.stream.flush().await?;
    upstream.stream.flush().await?;
    let (_, to_client) = tokio::io::copy_bidirectional_with_sizes(
        &mut client.stream,
        &mut upstream.stream,
        BUFFER_BYTES,
        BUFFER_BYTES,
    )
    .await?;
    Ok(read + to_client)
}

const BUFFER_BYTES: usize = 8 * 1024;
