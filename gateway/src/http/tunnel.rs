//! What is left of an exchange after 101: bytes both ways until either side ends.

use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;

use super::body::RequestBody;
use crate::fault::Fault;
use crate::h1::Upgraded;
use crate::telemetry::{Ending, Record};
use crate::upstream::Lease;
use crate::worker::OpenPlace;

/// A client's connection or stream that may leave HTTP, once the response that says so has gone out.
pub struct Client(oneshot::Receiver<Upgraded>);

impl Client {
    /// One that comes over this channel.
    pub fn new(upgraded: oneshot::Receiver<Upgraded>) -> Self {
        Self(upgraded)
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
    match client.0.await {
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
