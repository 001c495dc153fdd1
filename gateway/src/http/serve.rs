//! From a connection to its requests, by the protocol that was agreed upon.

use std::rc::Rc;

use tokio::sync::watch;

use super::exchange::Connection;
use super::{h1, h2};
use crate::config::Limits;
use crate::h1::Duplex;

/// Serves a connection in a task of its own until it ends: by the client, by a limit, or by `drain`
/// turning true. `place` is held until then.
pub fn spawn<S>(
    stream: S,
    is_h2: bool,
    connection: Rc<Connection>,
    limits: Rc<Limits>,
    drain: watch::Receiver<bool>,
    place: impl Sized + 'static,
) where
    S: Duplex + 'static,
{
    let stream = Box::new(stream);
    // Two tasks instead of one with a branch, which would be as large as the larger of them.
    if is_h2 {
        tokio::task::spawn_local(async move {
            let _place = place;
            h2::serve(stream, connection, limits, drain).await;
        });
    } else {
        tokio::task::spawn_local(async move {
            let _place = place;
            h1::serve(stream, connection, limits, drain).await;
        });
    }
}
