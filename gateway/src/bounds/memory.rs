//! How many bytes wait in the gateway for a slow side, over all connections.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes that wait, of the whole process. Counted in steps, so that most changes touch nothing shared.
#[derive(Debug, Default)]
pub struct Memory {
    held: AtomicUsize,
}

/// What one connection or body holds, until dropped.
#[derive(Debug)]
pub struct Share {
    memory: Arc<Memory>,
    steps: Cell<usize>,
}

impl Memory {
    /// Bytes that wait now, to the step.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// A share that holds nothing yet.
    pub fn share(self: &Arc<Self>) -> Share {
        Share { memory: Arc::clone(self), steps: Cell::new(0) }
    }
}

impl Share {
    /// Says how many bytes it holds now.
    pub fn set(&self, bytes: usize) {
        let (new, old) = (bytes.div_ceil(STEP_BYTES), self.steps.get());
        if new > old {
            self.memory.held.fetch_add((new - old) * STEP_BYTES, Ordering::Relaxed);
        } else if new < old {
            self.memory.held.fetch_sub((old - new) * STEP_BYTES, Ordering::Relaxed);
        }
        self.steps.set(new);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

const STEP_BYTES: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_come_back() {
        let memory = Arc::<Memory>::default();
        let (one, other) = (memory.share(), memory.share());
        one.set(1);
        other.set(100_000);
        assert_eq!(memory.held(), 4096 + 25 * 4096);
        other.set(10);
        one.set(0);
        assert_eq!(memory.held(), 4096);
        drop(other);
        assert_eq!(memory.held(), 0);
    }
}
