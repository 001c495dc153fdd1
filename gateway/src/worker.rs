//! What one worker thread owns: its view of the generation in force, its plugin instances, its
//! connections to upstreams, its access log. Nothing in it is shared, so nothing is locked.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use crate::acme::solve::http01::Tokens;
use crate::bounds::{Addresses, Memory, Notices};
use crate::config::{Config, PluginUse};
use crate::fault::describe;
use crate::generation::{Generation, Live};
use crate::http::body::RequestBody;
use crate::plugin::{Placed, Plugin, Trial};
use crate::telemetry::{AccessLog, Counters, Ids};
use crate::tls::accept::Acceptor;
use crate::upstream::Upstream;

/// One worker.
pub struct Worker {
    /// Handshakes.
    pub acceptor: Acceptor,
    /// HTTP-01 answers.
    pub tokens: Arc<Tokens>,
    /// The access log.
    pub access: Rc<AccessLog>,
    /// Counters.
    pub counters: Arc<Counters>,
    /// Ids of exchanges.
    pub ids: Ids,
    /// Who was sent away, for the counters and the log.
    pub notices: Notices,
    /// What all workers together bound.
    pub shared: Shared,
    /// Connections and tunnels that are open, for the drain.
    pub open: Open,
    /// Whether another process has taken over, so that responses tell clients to connect anew.
    pub is_leaving: Cell<bool>,
    /// Mirrored requests under way.
    pub mirrors: Cell<usize>,
    live: Arc<Live>,
    view: RefCell<Rc<View>>,
}

thread_local! {
    static HERE: RefCell<Weak<Worker>> = const { RefCell::new(Weak::new()) };
}

/// How many workers there are: as the configuration says, or one for each core.
pub fn count(config: &Config) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    config.workers.unwrap_or_else(cores)
}

/// What is counted over all workers.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    /// Connections by address.
    pub addresses: Arc<Addresses>,
    /// Bytes that wait.
    pub memory: Arc<Memory>,
}

/// What is open on one worker: counted, told about, and waited for at the end.
#[derive(Clone, Default)]
pub struct Open {
    roll: Rc<RefCell<Roll>>,
    ended: Rc<tokio::sync::Notify>,
}

#[derive(Default)]
struct Roll {
    next: u64,
    open: BTreeMap<u64, Opened>,
}

/// One of what is open.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Since when.
    pub since: Instant,
    /// Who is at the other end, when that is known.
    pub client: Option<SocketAddr>,
    /// What is spoken: `handshake`, `HTTP/1.1`, `HTTP/2`, `HTTP/3`, `passed`, `tunnel`.
    pub what: &'static str,
    /// The server name that the client asked for.
    pub server_name: Option<Box<str>>,
}

/// One of what is open, until dropped.
pub struct OpenPlace(Open, u64);

impl Open {
    /// Takes a place.
    pub fn place(&self, client: Option<SocketAddr>, what: &'static str) -> OpenPlace {
        let mut roll = self.roll.borrow_mut();
        let key = roll.next;
        roll.next += 1;
        let since = Instant::now();
        roll.open.insert(key, Opened { since, client, what, server_name: None });
        OpenPlace(self.clone(), key)
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.roll.borrow().open.len()
    }

    /// The ones that are open for the longest time, the oldest first; at most `count`.
    pub fn oldest(&self, count: usize) -> Vec<Opened> {
        self.roll.borrow().open.values().take(count).cloned().collect()
    }

    /// Waits until nothing is open.
    pub async fn ended(&self) {
        while self.count() > 0 {
            self.ended.notified().await;
        }
    }
}

impl OpenPlace {
    /// Says what has become known of it.
    pub fn tell(&self, client: SocketAddr, what: &'static str, server_name: Option<Box<str>>) {
        if let Some(opened) = self.0.roll.borrow_mut().open.get_mut(&self.1) {
            *opened = Opened { since: opened.since, client: Some(client), what, server_name };
        }
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        let mut roll = self.0.roll.borrow_mut();
        roll.open.remove(&self.1);
        if roll.open.is_empty() {
            self.0.ended.notify_one();
        }
    }
}

impl std::fmt::Display for Opened {
    /// As the log says it: `192.0.2.7:5000 HTTP/2 app.example.com for 12.3 s`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.client {
            Some(client) => write!(f, "{client} {}", self.what)?,
            None => f.write_str(self.what)?,
        }
        if let Some(name) = &self.server_name {
            write!(f, " {}", name.escape_debug())?;
        }
        write!(f, " for {:.1} s", self.since.elapsed().as_secs_f64())
    }
}

/// A generation as one worker uses it. An exchange holds on to the one it began with.
pub struct View {
    /// The generation.
    pub generation: Arc<Generation>,
    hooks: Vec<Rc<UseHooks>>,
    upstreams: BTreeMap<Arc<str>, Rc<Upstream<RequestBody>>>,
}

/// The instances of one place of use.
struct UseHooks {
    place: PluginUse,
    plugin: Option<Arc<Plugin>>,
    trial: Option<Arc<Trial>>,
    hooks: Result<Placed, String>,
}

impl Worker {
    /// Prepares a worker with the generation in force.
    pub fn new(
        live: Arc<Live>,
        acceptor: Acceptor,
        tokens: Arc<Tokens>,
        counters: Arc<Counters>,
        shared: Shared,
    ) -> Rc<Self> {
        let view = View::new(live.current(), None);
        Rc::new(Self {
            acceptor,
            tokens,
            access: Rc::default(),
            notices: Notices::new(Arc::clone(&counters)),
            shared,
            counters,
            ids: Ids::default(),
            open: Open::default(),
            is_leaving: Cell::new(false),
            mirrors: Cell::new(0),
            live,
            view: RefCell::new(Rc::new(view)),
        })
    }

    /// Makes it the worker of this thread.
    pub fn sit_here(self: &Rc<Self>) {
        HERE.with(|here| *here.borrow_mut() = Rc::downgrade(self));
    }

    /// The worker of this thread.
    pub fn here() -> Option<Rc<Self>> {
        HERE.with(|here| here.borrow().upgrade())
    }

    /// The generation in force, as this worker uses it.
    pub fn view(&self) -> Rc<View> {
        if self.view.borrow().generation.id != self.live.id() {
            self.renew();
        }
        Rc::clone(&self.view.borrow())
    }

    /// Takes over a new generation: what did not change (instances, connections) is kept.
    fn renew(&self) {
        let old = Rc::clone(&self.view.borrow());
        let next = Rc::new(View::new(self.live.current(), Some(&old)));
        *self.view.borrow_mut() = next;
    }

    /// What is done now and then: closes unused connections, writes the access log.
    pub fn tick(&self) {
        self.access.flush();
        let view = self.view();
        for upstream in view.upstreams.values() {
            upstream.sweep();
        }
    }
}

impl View {
    /// Whether so much waits for slow sides that new requests and copies would only add to it.
    pub fn is_short_of_memory(&self, worker: &Worker) -> bool {
        let max = self.generation.config.limits.buffered_bytes_max;
        max.is_some_and(|max| worker.shared.memory.held() as u64 > max)
    }

    fn new(generation: Arc<Generation>, old: Option<&View>) -> Self {
        let hooks = generation.uses.iter().map(|place| hooks(&generation, place, old)).collect();
        let mut upstreams = BTreeMap::new();
        for (name, parts) in &generation.upstreams {
            let Some(config) = generation.config.upstreams.get(name.as_ref()) else { continue };
            let kept = old.and_then(|old| {
                let same = old.generation.config.upstreams.get(name.as_ref()) == Some(config);
                old.upstreams.get(name).filter(|u| same && u.is_made_of(parts)).map(Rc::clone)
            });
            let upstream = kept.unwrap_or_else(|| {
                let old = old.and_then(|old| old.upstreams.get(name)).map(|old| &**old);
                Rc::new(Upstream::new(Arc::clone(name), config, parts.clone(), old))
            });
            upstreams.insert(Arc::clone(name), upstream);
        }
        Self { generation, hooks, upstreams }
    }

    /// The hooks of a place of use.
    ///
    /// # Errors
    /// When its instance did not start on this worker.
    pub fn hooks(&self, index: usize) -> Result<&Placed, String> {
        match self.hooks.get(index).map(|hooks| &hooks.hooks) {
            Some(Ok(hooks)) => Ok(hooks),
            Some(Err(cause)) => Err(cause.clone()),
            None => Err("no such place of use".to_owned()),
        }
    }

    /// The upstream of this name.
    pub fn upstream(&self, name: &str) -> Option<&Rc<Upstream<RequestBody>>> {
        self.upstreams.get(name)
    }
}

fn hooks(generation: &Generation, place: &PluginUse, old: Option<&View>) -> Rc<UseHooks> {
    let plugin = generation.plugins.get(&place.plugin);
    let trial = generation.trials.get(&place.plugin);
    let kept = old.and_then(|old| {
        old.hooks.iter().find(|known| {
            let same = match (&known.plugin, plugin) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                _ => false,
            };
            let same_trial = known.trial.as_ref().map(Arc::as_ptr) == trial.map(Arc::as_ptr);
            same && same_trial && known.place == *place && known.hooks.is_ok()
        })
    });
    if let Some(kept) = kept {
        return Rc::clone(kept);
    }
    let hooks = match plugin {
        Some(plugin) => {
            let placed = Placed::new(Arc::clone(plugin), &place.config, trial);
            let before = old.and_then(|old| before(old, place));
            if let (Ok(placed), Some(before)) = (&placed, &before) {
                placed.inherit(before);
            }
            placed.map_err(|cause| describe(&cause))
        }
        None => Err(format!("plugin {} is not in this generation", place.plugin)),
    };
    Rc::new(UseHooks {
        place: place.clone(),
        plugin: plugin.map(Arc::clone),
        trial: trial.map(Arc::clone),
        hooks,
    })
}

/// The instances that a place of use had, also under another configuration, if that was the only place
/// of its plugin.
fn before<'v>(old: &'v View, place: &PluginUse) -> Option<&'v Placed> {
    let same = old.hooks.iter().find(|known| known.place == *place);
    let mut of_plugin = old.hooks.iter().filter(|known| known.place.plugin == place.plugin);
    let alone = match (of_plugin.next(), of_plugin.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    };
    same.or(alone)?.hooks.as_ref().ok()
}
