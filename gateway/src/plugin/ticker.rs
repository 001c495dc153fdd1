//! What makes deadlines pass: a thread that advances the epoch of the engine every [`TICK`] while a call
//! may be under way, and rests while none is, so that an idle gateway does not wake the machine a
//! thousand times a second.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

/// The ticker, shared by the thread and those who call.
#[derive(Debug, Default)]
pub(super) struct Ticker {
    /// Ticks so far.
    now: AtomicU64,
    /// It must not rest before this tick.
    until: AtomicU64,
    /// Calls of which nobody knows how long they take.
    held: AtomicUsize,
    is_resting: AtomicBool,
    thread: OnceLock<Thread>,
}

/// Keeps the ticker going while it lives.
pub(super) struct Held(Arc<Ticker>);

impl Ticker {
    /// Starts the thread for `engine`; it ends when the engine is gone.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(engine: &wasmtime::Engine) -> std::io::Result<Arc<Self>> {
        let ticker = Arc::new(Self::default());
        let (engine, own) = (engine.weak(), Arc::clone(&ticker));
        let thread =
            std::thread::Builder::new().name("plugin-ticker".to_owned()).spawn(move || {
                while let Some(engine) = engine.upgrade() {
                    engine.increment_epoch();
                    drop(engine);
                    own.pause();
                }
            })?;
        let _ = ticker.thread.set(thread.thread().clone());
        Ok(ticker)
    }

    fn pause(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if self.is_needed(now) {
            std::thread::sleep(TICK);
            return;
        }
        self.is_resting.store(true, Ordering::SeqCst);
        // Who comes now sees that it rests, or is seen here.
        if !self.is_needed(now) {
            std::thread::park_timeout(REST);
        }
        self.is_resting.store(false, Ordering::SeqCst);
    }

    fn is_needed(&self, now: u64) -> bool {
        now < self.until.load(Ordering::SeqCst) || self.held.load(Ordering::SeqCst) > 0
    }

    /// Sees to it that a deadline of this many ticks from now will pass. Called before every call, so
    /// it writes once a second only.
    pub(super) fn cover(&self, ticks: u64) {
        let end = self.now.load(Ordering::Relaxed).saturating_add(ticks).saturating_add(1);
        if self.until.load(Ordering::Relaxed) < end {
            self.until.fetch_max(end.saturating_add(SLACK_TICKS), Ordering::SeqCst);
            self.wake();
        }
    }

    /// Keeps it going for a call that may wait in between.
    pub(super) fn hold(self: &Arc<Self>) -> Held {
        self.held.fetch_add(1, Ordering::SeqCst);
        self.wake();
        Held(Arc::clone(self))
    }

    fn wake(&self) {
        if self.is_resting.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The resolution of deadlines.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// How long it goes on for calls that may come.
const SLACK_TICKS: u64 = 1000;
/// How often it looks whether the engine is still there.
const REST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn ticks_within(ticker: &Ticker, time: Duration) -> u64 {
        let before = ticker.now.load(Ordering::Relaxed);
        std::thread::sleep(time);
        ticker.now.load(Ordering::Relaxed) - before
    }

    fn wait_for_rest(ticker: &Ticker) {
        let start = Instant::now();
        while !ticker.is_resting.load(Ordering::SeqCst) {
            assert!(start.elapsed() < Duration::from_secs(30), "it never rests");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn it_rests_until_it_is_needed() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        wait_for_rest(&ticker);
        // A look at the engine once a second is all.
        assert!(ticks_within(&ticker, Duration::from_millis(500)) <= 2);
        ticker.cover(50);
        assert!(ticks_within(&ticker, Duration::from_millis(500)) >= 50);
        wait_for_rest(&ticker);
        let held = ticker.hold();
        assert!(ticks_within(&ticker, Duration::from_millis(2500)) >= 50);
        assert!(!ticker.is_resting.load(Ordering::SeqCst));
        drop(held);
        wait_for_rest(&ticker);
    }

    #[test]
    fn a_deadline_passes_also_when_it_rested() {
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let engine = wasmtime::Engine::new(&config).unwrap();
        let ticker = Ticker::start(&engine).unwrap();
        let spin = "(module (func (export \"spin\") (loop (br 0))))";
        let module = wasmtime::Module::new(&engine, wat::parse_str(spin).unwrap()).unwrap();
        for _ in 0..3 {
            wait_for_rest(&ticker);
            let mut store = wasmtime::Store::new(&engine, ());
            let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
            let spin = instance.get_typed_func::<(), ()>(&mut store, "spin").unwrap();
            ticker.cover(20);
            store.set_epoch_deadline(20);
            assert!(spin.call(&mut store, ()).is_err());
        }
    }
}
