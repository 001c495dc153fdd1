//! Which streams of a connection have something to do. All of them run in the connection's own task, so
//! that no channel lies between; each has a waker of its own, so that one that moves does not have
//! all others looked at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// The streams of one connection that were woken.
#[derive(Debug, Default)]
pub struct Ready {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    keys: Vec<usize>,
    /// The connection's task, while it waits.
    task: Option<Waker>,
}

/// What wakes one stream. It may outlive the stream, and then wakes the next one under its key for
/// nothing.
#[derive(Debug)]
struct StreamWaker {
    key: usize,
    is_queued: AtomicBool,
    ready: Arc<Ready>,
}

/// A stream's waker, and the other end of it.
#[derive(Debug)]
pub struct Bell {
    own: Arc<StreamWaker>,
    waker: Waker,
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut queue = self.ready.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.keys.push(self.key);
        if let Some(task) = queue.task.take() {
            drop(queue);
            task.wake();
        }
    }
}

impl Bell {
    /// For the stream with this key.
    pub fn new(ready: &Arc<Ready>, key: usize) -> Self {
        let ready = Arc::clone(ready);
        let own = Arc::new(StreamWaker { key, is_queued: AtomicBool::new(false), ready });
        let waker = Waker::from(Arc::clone(&own));
        Self { own, waker }
    }

    /// What rings it.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Says that the stream is looked at now: what comes later rings again.
    pub fn answer(&self) {
        self.own.is_queued.store(false, Ordering::Release);
    }
}

impl Ready {
    /// Takes the streams that were woken, in that order, into `keys`, which is empty.
    pub fn take(&self, keys: &mut Vec<usize>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut queue.keys, keys);
    }

    /// Has the task woken with the next stream; whether one is there already.
    pub fn wait(&self, cx: &Context<'_>) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !queue.keys.is_empty() {
            return true;
        }
        if !queue.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            queue.task = Some(cx.waker().clone());
        }
        false
    }

    /// Lets go of memory that is not needed now.
    pub fn shrink(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).keys = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn one_wake_for_many_streams() {
        let (ready, count) = (Arc::<Ready>::default(), Arc::<Count>::default());
        let bells: Vec<Bell> = (0..3).map(|key| Bell::new(&ready, key)).collect();
        let task = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&task);
        assert!(!ready.wait(&cx));
        for key in [2, 0, 2] {
            bells[key].waker().wake_by_ref();
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let mut keys = Vec::new();
        ready.take(&mut keys);
        assert_eq!(keys, [2, 0]);
        bells[2].answer();
        bells[2].waker().wake_by_ref();
        bells[0].waker().wake_by_ref();
        assert!(ready.wait(&cx), "it need not wait");
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
