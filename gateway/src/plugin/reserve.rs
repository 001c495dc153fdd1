//! Instances that are ready before they are needed: whoever waits for a request should not also wait
//! for a runtime to start. Filled by the thread of [`Starter`] and by whoever builds a generation;
//! taken from by [`Hooks`](super::Hooks).
//!
//! Only instances that start slowly are kept here, since for the others a start costs less than to
//! hand one over. When none is ready, the request starts one itself, which is counted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::engine::INSTANCES_MAX;
use super::error::PluginError;
use super::pool::{Instance, START_MAX};
use super::{Hooked, Plugin, call};

/// The instances of one plugin under one configuration that wait to be used, on whatever worker.
/// Lives as long as a generation or a place of use has it.
pub struct Reserve {
    plugin: Arc<Plugin>,
    config: Box<str>,
    ready: Mutex<Vec<(Instance, Hooked)>>,
    /// Places of use on all workers.
    places: AtomicUsize,
    /// Whether the starter knows that something is missing.
    is_asked: AtomicBool,
}

/// The reserves of a plugin, by configuration.
#[derive(Default)]
pub(super) struct Reserves(Mutex<HashMap<Box<str>, Weak<Reserve>>>);

/// How long an instance of a plugin takes to start.
pub(super) struct StartTime(AtomicU64);

/// The thread that starts instances and ends them, off the way of requests.
#[derive(Debug)]
pub(super) struct Starter(SyncSender<Job>);

enum Job {
    Fill(Weak<Reserve>),
    /// Gives back what the instance had.
    End(Box<Instance>),
}

impl Reserve {
    /// The reserve of `plugin` under `config`, made when there is none.
    pub fn of(plugin: &Arc<Plugin>, config: &serde_json::Value) -> Arc<Self> {
        let config: Box<str> = config.to_string().into();
        let mut all = plugin.reserves.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&config).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, reserve| reserve.strong_count() > 0);
        let made = Arc::new(Self {
            plugin: Arc::clone(plugin),
            config: config.clone(),
            ready: Mutex::default(),
            places: AtomicUsize::new(0),
            is_asked: AtomicBool::new(false),
        });
        all.insert(config, Arc::downgrade(&made));
        made
    }

    /// Starts instances until `count` are ready, one at least to see that it starts; keeps them if
    /// they are worth keeping. Blocks: call it off the request path.
    ///
    /// # Errors
    /// When one does not start.
    pub fn prepare(&self, count: usize) -> Result<(), PluginError> {
        for _ in 0..count.max(1) {
            let started = Instance::start(&self.plugin, &self.config, START_MAX)?;
            if self.count() >= count || !self.keep(started) || self.count() >= count {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    pub(super) fn config(&self) -> &str {
        &self.config
    }

    /// An instance for a new place of use, started when none is ready.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) fn enter(self: &Arc<Self>) -> Result<(Instance, Hooked), PluginError> {
        let ready = match self.take() {
            Some(ready) => ready,
            None => Instance::start(&self.plugin, &self.config, START_MAX)?,
        };
        self.places.fetch_add(1, Ordering::Relaxed);
        self.ask();
        Ok(ready)
    }

    /// Another instance for a place of use, if one is ready, and the order for the next.
    pub(super) fn next(self: &Arc<Self>) -> Option<Instance> {
        let (instance, _) = self.take()?;
        self.ask();
        Some(instance)
    }

    /// Ends a place of use.
    pub(super) fn leave(&self, instance: Option<Instance>) {
        self.places.fetch_sub(1, Ordering::Relaxed);
        if let Some(instance) = instance {
            self.end(instance);
        }
    }

    /// Ends an instance, elsewhere when that takes its time.
    pub(super) fn end(&self, instance: Instance) {
        if self.plugin.start_time.is_long() {
            // What the starter cannot take ends here.
            let _ = self.plugin.engine.starter.0.try_send(Job::End(Box::new(instance)));
        }
    }

    /// Has the starter fill this up.
    pub(super) fn ask(self: &Arc<Self>) {
        if !self.is_missing() || self.is_asked.swap(true, Ordering::AcqRel) {
            return;
        }
        let job = Job::Fill(Arc::downgrade(self));
        if self.plugin.engine.starter.0.try_send(job).is_err() {
            self.is_asked.store(false, Ordering::Release);
        }
    }

    /// How many are ready.
    pub(super) fn count(&self) -> usize {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self) -> Option<(Instance, Hooked)> {
        let taken = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        self.plugin.stats.ready(-1);
        Some(taken)
    }

    /// Puts an instance in, unless starting the next one costs less.
    fn keep(&self, started: (Instance, Hooked)) -> bool {
        let is_kept = self.plugin.start_time.is_long();
        if is_kept {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push(started);
            self.plugin.stats.ready(1);
        }
        is_kept
    }

    /// How many should be ready: one, against traps; where instances end by themselves, which may
    /// happen on all workers at once, one for each.
    fn is_missing(&self) -> bool {
        let places = self.places.load(Ordering::Relaxed);
        let wanted = match self.plugin.calls_max {
            u64::MAX => places.min(1),
            _ => places.min(READY_MAX),
        };
        self.plugin.start_time.is_long()
            && self.count() < wanted
            && self.plugin.engine.instances() < SPARE_UP_TO
    }

    /// What the starter does. A failure shows again, and is dealt with, when a request starts one.
    fn fill(&self) {
        self.is_asked.store(false, Ordering::Release);
        while self.is_missing() {
            let allowed = self.plugin.restart_max();
            match Instance::start(&self.plugin, &self.config, allowed) {
                Ok(started) => {
                    if !self.keep(started) {
                        return;
                    }
                }
                Err(error) => return call::log(&error, &self.plugin.facts, "", ""),
            }
        }
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        while self.take().is_some() {}
    }
}

impl std::fmt::Debug for Reserve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reserve").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}

impl StartTime {
    /// Notes what a start took. The shortest counts: others waited for memory to be read, or for
    /// a core.
    pub(super) fn note(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_min(nanoseconds, Ordering::Relaxed);
    }

    /// The shortest start so far, if there was any.
    pub(super) fn shortest(&self) -> Option<Duration> {
        let known = self.0.load(Ordering::Relaxed);
        (known != u64::MAX).then(|| Duration::from_nanos(known))
    }

    /// Whether a start is long enough for a request to feel it.
    fn is_long(&self) -> bool {
        self.shortest().is_some_and(|time| time > LONG)
    }
}

impl Default for StartTime {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Starter {
    /// Starts the thread; it ends when this is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start() -> std::io::Result<Self> {
        let (sender, jobs) = sync_channel(JOBS_MAX);
        std::thread::Builder::new().name("plugin-starter".to_owned()).spawn(move || work(&jobs))?;
        Ok(Self(sender))
    }
}

fn work(jobs: &Receiver<Job>) {
    for job in jobs {
        match job {
            Job::Fill(reserve) => {
                if let Some(reserve) = reserve.upgrade() {
                    reserve.fill();
                }
            }
            Job::End(instance) => drop(instance),
        }
    }
}

/// A start that takes longer is kept away from requests.
const LONG: Duration = Duration::from_micros(150);
/// Instances ready under one configuration, inclusive.
const READY_MAX: usize = 16;
/// With more instances alive than this nothing is kept ready.
const SPARE_UP_TO: usize = INSTANCES_MAX as usize / 4 * 3;
/// What the starter has to do yet, inclusive.
const JOBS_MAX: usize = 256;
