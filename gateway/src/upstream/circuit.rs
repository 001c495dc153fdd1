//! Bounds for what is under way at the servers of one upstream, over all workers: each server has
//! places, some requests may wait for one, the rest is refused at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use crate::config;

/// The places of one upstream.
#[derive(Debug)]
pub struct Circuit {
    rules: config::Circuit,
    /// Requests under way at each server; addresses of a name count for themselves.
    open: Vec<Arc<AtomicU32>>,
    pending: AtomicU32,
    freed: Notify,
}

/// A place at a server, until dropped.
#[derive(Debug)]
pub struct Permit {
    circuit: Arc<Circuit>,
    open: Arc<AtomicU32>,
}

/// A place among those that wait, until dropped.
#[derive(Debug)]
pub struct Waiting(Arc<Circuit>);

impl Circuit {
    /// The places that the configuration gives; `None` when it does not bound them.
    pub fn new(rules: &config::Circuit, servers: usize) -> Option<Arc<Self>> {
        rules.open_max?;
        let open = (0..servers).map(|_| Arc::default()).collect();
        Some(Arc::new(Self {
            rules: rules.clone(),
            open,
            pending: AtomicU32::new(0),
            freed: Notify::new(),
        }))
    }

    /// The count of the server at this index.
    pub fn of(&self, server: usize) -> Option<&Arc<AtomicU32>> {
        self.open.get(server)
    }

    /// Whether a server has a place. Another worker may take it first.
    pub fn has_place(&self, open: &AtomicU32) -> bool {
        self.rules.open_max.is_none_or(|most| open.load(Ordering::Relaxed) < most)
    }

    /// Takes a place at a server.
    pub fn enter(self: &Arc<Self>, open: &Arc<AtomicU32>) -> Option<Permit> {
        let most = self.rules.open_max.unwrap_or(u32::MAX);
        add_below(open, most).then(|| Permit { circuit: Arc::clone(self), open: Arc::clone(open) })
    }

    /// Takes a place among those that wait; `None` when too many do.
    pub fn queue(self: &Arc<Self>) -> Option<Waiting> {
        add_below(&self.pending, self.rules.pending_max).then(|| Waiting(Arc::clone(self)))
    }
}

impl Waiting {
    /// Waits until a place may have come free. It may be taken already when this returns.
    pub async fn freed(&self) {
        self.0.freed.notified().await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.circuit.freed.notify_one();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
        // It may have been woken for a place that it did not take.
        self.0.freed.notify_one();
    }
}

fn add_below(count: &AtomicU32, most: u32) -> bool {
    let add = |n: u32| (n < most).then(|| n + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circuit(open: u32, pending: u32) -> Arc<Circuit> {
        let rules = config::Circuit { open_max: Some(open), pending_max: pending };
        Circuit::new(&rules, 2).unwrap()
    }

    #[test]
    fn places_are_counted_for_each_server() {
        let circuit = circuit(2, 0);
        let (first, second) = (circuit.of(0).unwrap(), circuit.of(1).unwrap());
        let (one, _two) = (circuit.enter(first).unwrap(), circuit.enter(first).unwrap());
        assert!(circuit.enter(first).is_none() && !circuit.has_place(first));
        assert!(circuit.enter(second).is_some());
        drop(one);
        assert!(circuit.enter(first).is_some());
        assert!(circuit.of(2).is_none());
        assert!(circuit.queue().is_none());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn one_that_waits_goes_on_when_a_place_comes_free() {
        let circuit = circuit(1, 1);
        let held = circuit.enter(circuit.of(0).unwrap()).unwrap();
        let waiting = circuit.queue().unwrap();
        assert!(circuit.queue().is_none());
        let task = tokio::spawn(async move {
            waiting.freed().await;
            drop(waiting);
        });
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        drop(held);
        task.await.unwrap();
        assert!(circuit.queue().is_some() && circuit.enter(circuit.of(0).unwrap()).is_some());
    }
}
