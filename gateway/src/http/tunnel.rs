//! What is left of an exchange after 101: bytes both ways until either side ends.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::body::RequestBody;
use crate::fault::Fault;
use crate::telemetry::{Ending, Record};
use crate::upstream::Lease;
use crate::worker::OpenPlace;

/// Joins the client's and the upstream's connection; writes the access-log record at the end.
pub async fn join(
    client: OnUpgrade,
    upstream: OnUpgrade,
    lease: Lease<RequestBody>,
    mut record: Box<Record>,
    place: OpenPlace,
) {
    match tokio::try_join!(client, upstream) {
        Ok((client, upstream)) => {
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            let copied = tokio::io::copy_bidirectional_with_sizes(
                &mut client,
                &mut upstream,
                BUFFER_BYTES,
                BUFFER_BYTES,
            )
            .await;
            if let Ok((_, to_client)) = copied {
                record.bytes_sent = to_client;
            }
        }
        Err(cause) => {
            let text = format!("the upgrade did not come about: {cause}");
            record.failure = Some((Fault::Upstream, text));
        }
    }
    drop(lease);
    drop(place);
    record.write(Ending::Complete);
}

const BUFFER_BYTES: usize = 8 * 1024;
