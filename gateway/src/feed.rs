//! What goes to somebody off the way of requests: gathered in a queue that has a bound, handed over in
//! batches, tried again once or twice, and then dropped and counted. Whoever gives never waits.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

/// Who takes it.
pub trait Taker: Send + Sync {
    /// Which one it is, for the log.
    fn label(&self) -> String;

    /// Takes a batch.
    fn take(
        &self,
        batch: Arc<Vec<String>>,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>>;

    /// Hears how many texts it was not given, or did not take.
    fn dropped(&self, count: u64);
}

/// How texts are handed over.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Texts of a batch, inclusive.
    pub batch_max: usize,
    /// How long the first of a batch waits for others.
    pub wait: Duration,
    /// Pauses before further attempts.
    pub pauses: &'static [Duration],
}

/// A queue and the task that empties it. The task ends when the feed is dropped, after it has handed over
/// what is in it.
pub struct Feed {
    sender: mpsc::Sender<String>,
    waiting: Arc<Waiting>,
    taker: Arc<dyn Taker>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    /// Texts for which there was no room and that nobody has been told of.
    dropped: AtomicU64,
    closing: Notify,
}

impl Feed {
    /// Starts the task on the current runtime.
    pub fn start(taker: Arc<dyn Taker>, pace: Pace) -> Arc<Self> {
        let (sender, texts) = mpsc::channel(TEXTS_MAX);
        let waiting = Arc::new(Waiting::default());
        let emptying = empty(texts, Arc::clone(&taker), Arc::clone(&waiting), pace);
        let task = Mutex::new(Some(tokio::spawn(emptying)));
        Arc::new(Self { sender, waiting, taker, task })
    }

    /// Gives a text; where there is no room it is dropped and counted. Never waits.
    pub fn give(&self, text: String) {
        let bytes = text.len();
        let before = self.waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= BYTES_MAX && self.sender.try_send(text).is_ok() {
            return;
        }
        self.waiting.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.waiting.dropped.fetch_add(1, Ordering::Relaxed);
        self.taker.dropped(1);
    }

    /// Takes no more, and waits until what is in it has been handed over.
    pub async fn finish(&self) {
        // A permit, in case the task is not waiting just now.
        self.waiting.closing.notify_one();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("taker", &self.taker.label()).finish_non_exhaustive()
    }
}

async fn empty(
    mut texts: mpsc::Receiver<String>,
    taker: Arc<dyn Taker>,
    waiting: Arc<Waiting>,
    pace: Pace,
) {
    while let Some(batch) = gather(&mut texts, &waiting, pace).await {
        let bytes: usize = batch.iter().map(String::len).sum();
        let count = batch.len();
        let taken = hand_over(&*taker, Arc::new(batch), &texts, pace).await;
        waiting.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Err(why) = taken {
            let to = taker.label();
            tracing::warn!(to, count, "dropped what was not taken: {why}");
            taker.dropped(u64::try_from(count).unwrap_or(u64::MAX));
        }
        let dropped = waiting.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let to = taker.label();
            tracing::warn!(to, dropped, "dropped what came faster than it was taken");
        }
    }
}

/// The next batch; none when there will be none.
async fn gather(
    texts: &mut mpsc::Receiver<String>,
    waiting: &Waiting,
    pace: Pace,
) -> Option<Vec<String>> {
    let first = tokio::select! {
        biased;
        first = texts.recv() => first?,
        () = waiting.closing.notified() => {
            texts.close();
            texts.recv().await?
        }
    };
    let mut batch = vec![first];
    let end = tokio::time::Instant::now() + pace.wait;
    while batch.len() < pace.batch_max {
        let next = tokio::select! {
            biased;
            next = texts.recv() => next,
            () = waiting.closing.notified() => {
                texts.close();
                continue;
            }
            () = tokio::time::sleep_until(end) => None,
        };
        match next {
            Some(next) => batch.push(next),
            None => break,
        }
    }
    Some(batch)
}

async fn hand_over(
    taker: &dyn Taker,
    batch: Arc<Vec<String>>,
    texts: &mpsc::Receiver<String>,
    pace: Pace,
) -> Result<(), String> {
    let mut pauses = pace.pauses.iter();
    loop {
        let Err(why) = taker.take(Arc::clone(&batch)).await else { return Ok(()) };
        match pauses.next() {
            // At the end of the process there is no time for pauses.
            Some(pause) if !texts.is_closed() => tokio::time::sleep(*pause).await,
            Some(_) => {}
            None => return Err(why),
        }
    }
}

/// Texts that may wait, inclusive.
const TEXTS_MAX: usize = 10_000;
/// Bytes that may wait, inclusive.
const BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes what it gets; fails as often as it is told to.
    #[derive(Default)]
    struct Notebook {
        batches: Mutex<Vec<Vec<String>>>,
        fails: AtomicU64,
        dropped: AtomicU64,
        gate: Option<Arc<tokio::sync::Semaphore>>,
    }

    impl Taker for Notebook {
        fn label(&self) -> String {
            "notebook".to_owned()
        }

        fn take(
            &self,
            batch: Arc<Vec<String>>,
        ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + '_>> {
            Box::pin(async move {
                if let Some(gate) = &self.gate {
                    gate.acquire().await.unwrap().forget();
                }
                let left = self.fails.load(Ordering::Relaxed);
                if left > 0 {
                    self.fails.store(left - 1, Ordering::Relaxed);
                    return Err("not now".to_owned());
                }
                self.batches.lock().unwrap().push(batch.to_vec());
                Ok(())
            })
        }

        fn dropped(&self, count: u64) {
            self.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    const PACE: Pace = Pace {
        batch_max: 3,
        wait: Duration::from_millis(50),
        pauses: &[Duration::from_millis(10), Duration::from_millis(20)],
    };

    async fn until(mut is_so: impl FnMut() -> bool) {
        for _ in 0..1000 {
            if is_so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it did not come to that");
    }

    #[tokio::test]
    async fn texts_come_in_order_in_batches_and_again_after_a_failure() {
        let taker = Arc::new(Notebook { fails: AtomicU64::new(2), ..Notebook::default() });
        let feed = Feed::start(Arc::clone(&taker) as _, PACE);
        for n in 0..7 {
            feed.give(n.to_string());
        }
        until(|| taker.batches.lock().unwrap().len() == 3).await;
        feed.give("last".to_owned());
        feed.finish().await;
        let batches = taker.batches.lock().unwrap().clone();
        let wanted = [&["0", "1", "2"][..], &["3", "4", "5"], &["6"], &["last"]];
        assert_eq!(batches, wanted);
        assert_eq!(taker.dropped.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_nobody_takes_is_dropped_and_counted_and_what_comes_later_is_not() {
        let taker = Arc::new(Notebook { fails: AtomicU64::new(3), ..Notebook::default() });
        let feed = Feed::start(Arc::clone(&taker) as _, PACE);
        feed.give("lost".to_owned());
        until(|| taker.dropped.load(Ordering::Relaxed) == 1).await;
        feed.give("kept".to_owned());
        feed.finish().await;
        assert_eq!(*taker.batches.lock().unwrap(), [["kept"]]);
    }

    #[tokio::test]
    async fn a_taker_that_hangs_costs_no_more_than_the_room() {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let taker = Arc::new(Notebook { gate: Some(Arc::clone(&gate)), ..Notebook::default() });
        let feed = Feed::start(Arc::clone(&taker) as _, PACE);
        let long = "x".repeat(BYTES_MAX / 4);
        for _ in 0..100 {
            feed.give(long.clone());
        }
        assert_eq!(taker.dropped.load(Ordering::Relaxed), 96);
        assert!(feed.waiting.bytes.load(Ordering::Relaxed) <= BYTES_MAX);
        gate.add_permits(100);
        feed.finish().await;
        let taken: usize = taker.batches.lock().unwrap().iter().map(Vec::len).sum();
        assert_eq!(taken, 4);
        assert_eq!(feed.waiting.bytes.load(Ordering::Relaxed), 0);
    }
}
