//! The engine of the process: one code generator, one ticker, and what outlives every instance.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::error::PluginError;
use super::host::state::State;
use super::load::{Compiled, Digest};
use super::reserve::Starter;
use super::stats::Stats;
use super::ticker::Ticker;

/// One per process: the wasmtime engine, the epoch ticker, the cache of compiled code, and the
/// key-value state of all plugins.
pub struct Engine {
    pub(super) wasm: wasmtime::Engine,
    /// Makes deadlines pass.
    pub(super) ticker: Arc<Ticker>,
    /// Starts instances off the way of requests.
    pub(super) starter: Starter,
    pub(super) cache: PathBuf,
    /// Tells compiled code of this engine and its settings from that of any other.
    pub(super) compatibility: u64,
    /// Compiled components in use, by digest. The inner lock is held while one compiles, so that
    /// the same file is never compiled twice at once.
    compiled: Mutex<HashMap<Digest, Arc<Mutex<Weak<Compiled>>>>>,
    /// The key-value state of plugins, by name. Never shrinks: it survives swaps and reloads.
    states: Mutex<HashMap<Arc<str>, Arc<State>>>,
    /// What is counted about plugins, by name. Never shrinks, as above.
    stats: Mutex<HashMap<Arc<str>, Arc<Stats>>>,
    /// Instances alive now.
    pub(super) live: Arc<AtomicUsize>,
}

impl Engine {
    /// Starts the engine. `cache` is where compiled code is kept.
    ///
    /// # Errors
    /// When the machine cannot run it, or the cache folder cannot be made private.
    pub fn start(cache: PathBuf) -> Result<Arc<Self>, PluginError> {
        Self::start_with(cache, true)
    }

    /// As [`Engine::start`], without the checks that let a deadline stop a plugin. For measuring what
    /// those cost, and nothing else: what loops here loops for good.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_without_deadlines(cache: PathBuf) -> Result<Arc<Self>, PluginError> {
        Self::start_with(cache, false)
    }

    fn start_with(cache: PathBuf, has_deadlines: bool) -> Result<Arc<Self>, PluginError> {
        private_folder(&cache).map_err(|cause| PluginError::Cache(cache.clone(), cause))?;
        let wasm = match wasmtime::Engine::new(&settings(true, has_deadlines)) {
            Ok(engine) => engine,
            Err(cause) => {
                tracing::warn!(
                    %cause,
                    "cannot reserve the address space for pooled plugin instances; plugins start \
                     more slowly (a limit on virtual memory, such as ulimit -v, is the usual cause)"
                );
                wasmtime::Engine::new(&settings(false, has_deadlines))
                    .map_err(PluginError::Engine)?
            }
        };
        let ticker = Ticker::start(&wasm)
            .map_err(|cause| PluginError::Engine(wasmtime::Error::new(cause)))?;
        let starter =
            Starter::start().map_err(|cause| PluginError::Engine(wasmtime::Error::new(cause)))?;
        let mut hasher = DefaultHasher::new();
        wasm.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Arc::new(Self {
            compatibility: hasher.finish(),
            wasm,
            ticker,
            starter,
            cache,
            compiled: Mutex::default(),
            states: Mutex::default(),
            stats: Mutex::default(),
            live: Arc::default(),
        }))
    }

    /// Instances alive now, for the status page and tests.
    pub fn instances(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether so many instances are alive that those of bodies under way should not become more.
    pub(super) fn is_crowded(&self) -> bool {
        self.instances() >= INSTANCES_OF_BODIES_MAX
    }

    /// The place of the compiled form of `digest`, made when absent.
    pub(super) fn compiled(&self, digest: &Digest) -> Arc<Mutex<Weak<Compiled>>> {
        let mut all = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known, place| {
            known == digest
                || Arc::strong_count(place) > 1
                || place.lock().unwrap_or_else(PoisonError::into_inner).strong_count() > 0
        });
        Arc::clone(all.entry(*digest).or_default())
    }

    /// What is counted about the plugin called `name`.
    pub(super) fn stats(&self, name: &Arc<str>) -> Arc<Stats> {
        let mut all = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(Arc::clone(name)).or_default())
    }

    /// The state of the plugin called `name`, made when absent.
    pub(super) fn state(&self, name: &Arc<str>) -> Arc<State> {
        let mut all = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(Arc::clone(name)).or_default())
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("cache", &self.cache).finish_non_exhaustive()
    }
}

fn settings(is_pooled: bool, has_deadlines: bool) -> Config {
    let mut config = Config::new();
    // Without concurrency support a sync call costs a third; nothing here needs it.
    config
        .concurrency_support(false)
        .epoch_interruption(has_deadlines)
        .cranelift_opt_level(OptLevel::Speed)
        .memory_init_cow(true);
    if is_pooled {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(INSTANCES_MAX)
            // A Python component is about twenty core instances over one memory and table.
            .total_core_instances(INSTANCES_MAX.saturating_mul(24))
            .total_memories(INSTANCES_MAX.saturating_mul(2))
            .total_tables(INSTANCES_MAX.saturating_mul(4))
            .total_stacks(SOLVER_CALLS_MAX)
            .max_component_instance_size(4 << 20)
            .max_core_instance_size(4 << 20)
            .max_tables_per_module(8)
            .max_memories_per_module(4)
            .table_elements(TABLE_ELEMENTS_MAX)
            .linear_memory_keep_resident(64 << 10)
            .table_keep_resident(16 << 10)
            .pagemap_scan(Enabled::Auto);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    } else {
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    }
    config
}

/// Makes `path` a folder that nobody else can enter: what lies in it is run as machine code.
fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};

    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let found = std::fs::metadata(path)?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::PermissionDenied,
            "the folder belongs to another user",
        ));
    }
    if found.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Instances at once, over all workers, plugins and places of use, inclusive.
pub(super) const INSTANCES_MAX: u32 = 1000;
/// The instances alive from which on a place of use gets none beside those that its bodies hold: slow
/// clients must not keep others from starting.
pub(super) const INSTANCES_OF_BODIES_MAX: usize = 750;
/// Solver calls at once, inclusive.
const SOLVER_CALLS_MAX: u32 = 100;
/// Elements of one table, inclusive. Go and Python components have tens of thousands.
pub(super) const TABLE_ELEMENTS_MAX: usize = 100_000;
