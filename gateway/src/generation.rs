//! One immutable [`Generation`] (configuration, routes, plugins, upstreams) and [`Live`], the one
//! place where it is swapped. A reload builds a whole new generation beside the old one; whatever
//! fails on the way leaves the old one serving.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::config::lock::Lock;
use crate::config::{
    Config, HookBy, PluginUse, Report, Server, SiteCertificate, Tickets, Upstream,
};
use crate::fault::Fault;
use crate::feed::{Feed, Pace};
use crate::plugin::{Engine, Kind, Plugin, PluginError, Reserve, Trial, Verdict};
use crate::policy::{PolicyError, PolicyTable};
use crate::route::RouteTable;
use crate::tls::certs::Certs;
use crate::tls::clients::{ClientAuth, ClientAuthError};
use crate::tls::roots::{self, RootsError};
use crate::tls::tickets::{FleetTickets, Secret};
use crate::tls::{Front, Fronts};
use crate::upstream::health::Health;
use crate::upstream::resolve::Names;
use crate::upstream::sticky::StickyKey;
use crate::upstream::{Circuit, Parts, TlsClient};
use crate::worker;

/// Everything that decides about an exchange. Never changes; replaced as a whole.
pub struct Generation {
    /// Counts up from 1.
    pub id: u64,
    /// The configuration it was built from.
    pub config: Config,
    /// Hosts and paths to routes.
    pub routes: Arc<RouteTable>,
    /// Plugins by name.
    pub plugins: BTreeMap<String, Arc<Plugin>>,
    /// Versions on trial, by the names of the plugins they are beside.
    pub trials: BTreeMap<String, Arc<Trial>>,
    /// Upstreams by name.
    pub upstreams: BTreeMap<Arc<str>, Parts>,
    /// Every place where a router or filter is used, each once.
    pub uses: Vec<PluginUse>,
    /// For each site: its router and filters, then the filters of each of its routes, as indices
    /// into `uses`.
    pub sites: Vec<SiteUses>,
    /// The plugin that is asked about each ClientHello, as an index into `uses`.
    pub client_hello: Option<usize>,
    /// Plugins that take exchanges which have ended.
    pub sinks: Arc<[Arc<Feed>]>,
    /// Plugins that take events, by name.
    pub listeners: BTreeMap<String, Arc<Feed>>,
    /// What the gateway itself does with requests.
    pub policies: PolicyTable,
    /// What each site asks of handshakes.
    pub fronts: Arc<Fronts>,
    /// Instances for the workers that will take this over, and for later.
    _reserves: Vec<Arc<Reserve>>,
    /// Keys of session tickets that other machines have, too.
    pub tickets: Option<FleetTickets>,
}

/// The plugins of a site, as indices into [`Generation::uses`].
#[derive(Debug, Default)]
pub struct SiteUses {
    /// The router.
    pub router: Option<usize>,
    /// The filters of every request.
    pub filters: Vec<usize>,
    /// The further filters of each route.
    pub routes: Vec<Vec<usize>>,
}

/// The generation in force.
pub struct Live {
    current: ArcSwap<Generation>,
    /// The same as `current.id`, so that workers can look without counting a reference.
    id: AtomicU64,
}

/// Why a generation could not be built. The old one goes on serving.
#[derive(Debug)]
pub enum GenerationError {
    /// A plugin did not load or start.
    Plugin(PluginError),
    /// A plugin is used as what it is not: which plugin, the place, the world that is wanted.
    World(String, String, &'static str),
    /// A version of a plugin asks for more than was accepted: which plugin, and the difference.
    AsksMore(String, String),
    /// `gateway.lock` cannot be read.
    Lock(Report),
    /// Roots of an upstream could not be read: its name.
    Roots(String, RootsError),
    /// `client-certificates` of a site cannot be used: its line in the file.
    Clients(u64, ClientAuthError),
    /// A policy of a site or route cannot be carried out.
    Policy(PolicyError),
    /// The secret of `tls.tickets` cannot be had.
    Tickets(String),
    /// The task that builds was ended.
    Cancelled,
}

impl Live {
    /// Puts the first generation in force.
    pub fn new(first: Arc<Generation>) -> Self {
        Self { id: AtomicU64::new(first.id), current: ArcSwap::new(first) }
    }

    /// Puts `next` in force and returns the old one.
    pub fn swap(&self, next: Arc<Generation>) -> Arc<Generation> {
        let id = next.id;
        let old = self.current.swap(next);
        self.id.store(id, Ordering::Release);
        old
    }

    /// The generation in force.
    pub fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// The id of the generation in force.
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::Acquire)
    }
}

impl Generation {
    /// Builds the generation after `previous`: loads and self-tests every plugin, each place of use
    /// included, and prepares upstreams. Upstreams that did not change keep their health.
    ///
    /// # Errors
    /// Everything that went wrong, not only the first.
    pub async fn build(
        config: Config,
        engine: &Arc<Engine>,
        previous: Option<&Generation>,
        sticky: &StickyKey,
        certs: &Arc<Certs>,
    ) -> Result<Arc<Self>, Vec<GenerationError>> {
        let mut errors = Vec::new();
        let names: Arc<[Arc<str>]> =
            config.upstreams.keys().map(|name| Arc::from(name.as_str())).collect();
        let mut plugins = load(&config, engine, &names, &mut errors).await;
        if let Some(previous) = previous {
            keep_unchanged(&config, &mut plugins, previous);
        }
        check_asks(&config, &plugins, &mut errors);
        let (mut uses, sites) = collect_uses(&config);
        let client_hello = config.client_hello.as_ref().map(|place| index_of(&mut uses, place));
        check_worlds(&config, &plugins, &mut errors);
        let mut reserves = Vec::new();
        if errors.is_empty() {
            reserves = try_uses(&uses, &plugins, &mut errors).await;
        }
        let mut trials = BTreeMap::new();
        if errors.is_empty() {
            trials = shadows(&config, engine, &names, &plugins, previous).await;
            if let Some(previous) = previous {
                let begun = canaries(&config, engine, &names, &mut plugins, previous);
                trials.extend(begun.unwrap_or_else(|cause| {
                    errors.push(GenerationError::Plugin(cause));
                    BTreeMap::new()
                }));
            }
        }
        let mut upstreams = BTreeMap::new();
        for (name, upstream) in &config.upstreams {
            match tls_client(upstream) {
                Ok(tls) => {
                    let known = previous.and_then(|previous| {
                        Some((
                            previous.upstreams.get(name.as_str())?,
                            previous.config.upstreams.get(name)?,
                        ))
                    });
                    let parts = parts(name, upstream, tls, known, sticky);
                    upstreams.insert(Arc::from(name.as_str()), parts);
                }
                Err(cause) => errors.push(GenerationError::Roots(name.clone(), cause)),
            }
        }
        let policies = PolicyTable::build(&config, previous.map(|previous| &previous.policies));
        let policies = policies.unwrap_or_else(|wrong| {
            errors.extend(wrong.into_iter().map(GenerationError::Policy));
            PolicyTable::default()
        });
        let fronts = fronts(&config, certs, previous, &mut errors);
        let tickets = config.tickets.as_ref().and_then(|tickets| {
            let read = fleet_tickets(tickets);
            read.map_err(|cause| errors.push(GenerationError::Tickets(cause))).ok()
        });
        if !errors.is_empty() {
            return Err(errors);
        }
        let (sinks, listeners) = feeds(&config, &plugins, previous);
        if let Some(previous) = previous {
            reserves.extend(prepare(&config, &uses, &plugins, &trials, previous).await);
        }
        let id = previous.map_or(1, |previous| previous.id + 1);
        let routes = Arc::new(RouteTable::new(&config.sites));
        let fronts = Arc::new(Fronts {
            routes: Arc::clone(&routes),
            of_sites: fronts,
            default: config.certificates.default.clone(),
        });
        Ok(Arc::new(Self {
            id,
            config,
            routes,
            plugins,
            trials,
            upstreams,
            uses,
            sites,
            client_hello,
            sinks,
            listeners,
            policies,
            fronts,
            _reserves: reserves,
            tickets,
        }))
    }

    /// Plugins that take exchanges which have ended, if there are any.
    pub fn sinks(&self) -> Option<Arc<[Arc<Feed>]>> {
        (!self.sinks.is_empty()).then(|| Arc::clone(&self.sinks))
    }

    /// Writes the versions in use into `gateway.lock`. Where that cannot be, later versions are not
    /// compared with them, so it is worth a line.
    pub fn write_lock(&self) {
        let locked =
            |(name, plugin): (&String, &Arc<Plugin>)| (name.clone(), plugin.locked().clone());
        let lock = Lock { plugins: self.plugins.iter().map(locked).collect() };
        if let Err(cause) = lock.write(&self.config.lock) {
            tracing::warn!(
                path = %self.config.lock.display(),
                %cause,
                "cannot write down the versions of plugins; later ones are not compared with them"
            );
        }
    }

    /// Files that decide about this generation beside the configuration: a change of one is a reason
    /// to build the next.
    pub fn watched(&self) -> Vec<PathBuf> {
        let plugins = self.config.plugins.values();
        let plugins = plugins.flat_map(|p| std::iter::once(&p.component).chain(&p.shadow).cloned());
        let roots = self.config.upstreams.values().filter_map(|upstream| upstream.roots.clone());
        let pairs = self.config.upstreams.values().filter_map(|u| u.client_certificate.as_ref());
        let pairs = pairs.flat_map(|pair| [pair.certificate.clone(), pair.key.clone()]);
        let clients = self.config.sites.iter().filter_map(|site| site.client_certificates.as_ref());
        let clients = clients.flat_map(|clients| clients.roots.iter().chain(&clients.revoked));
        let clients = clients.cloned();
        plugins
            .chain(roots)
            .chain(pairs)
            .chain(clients)
            .chain(PolicyTable::watched(&self.config))
            .collect()
    }
}

/// Compares what plugins ask for with what `gateway.lock` says was accepted.
fn check_asks(
    config: &Config,
    plugins: &BTreeMap<String, Arc<Plugin>>,
    errors: &mut Vec<GenerationError>,
) {
    let lock = match Lock::read(&config.lock) {
        Ok(lock) => lock,
        Err(report) => return errors.push(GenerationError::Lock(report)),
    };
    for (name, plugin) in plugins {
        let Some(known) = lock.plugins.get(name) else { continue };
        if !known.more(plugin.locked()).is_empty() {
            let difference = known.difference(plugin.locked());
            errors.push(GenerationError::AsksMore(name.clone(), difference));
        }
    }
}

async fn load(
    config: &Config,
    engine: &Arc<Engine>,
    upstreams: &Arc<[Arc<str>]>,
    errors: &mut Vec<GenerationError>,
) -> BTreeMap<String, Arc<Plugin>> {
    let tasks: Vec<_> = config
        .plugins
        .iter()
        .map(|(name, plugin)| {
            let (engine, upstreams) = (Arc::clone(engine), Arc::clone(upstreams));
            let (name, plugin) = (name.clone(), plugin.clone());
            tokio::task::spawn_blocking(move || {
                let loaded = engine.load(&name, &plugin, &upstreams);
                loaded.map(|loaded| (name, loaded))
            })
        })
        .collect();
    let mut plugins = BTreeMap::new();
    for task in tasks {
        match task.await {
            Ok(Ok((name, plugin))) => {
                plugins.insert(name, plugin);
            }
            Ok(Err(cause)) => errors.push(GenerationError::Plugin(cause)),
            Err(_) => errors.push(GenerationError::Cancelled),
        }
    }
    plugins
}

/// A plugin that is the same as before keeps its identity, and with it the workers' instances.
fn keep_unchanged(
    config: &Config,
    plugins: &mut BTreeMap<String, Arc<Plugin>>,
    previous: &Generation,
) {
    if !config.upstreams.keys().eq(previous.config.upstreams.keys()) {
        return;
    }
    for (name, plugin) in plugins.iter_mut() {
        let same_config = config.plugins.get(name) == previous.config.plugins.get(name);
        if let Some(known) = previous.plugins.get(name)
            && same_config
            && known.digest() == plugin.digest()
        {
            *plugin = Arc::clone(known);
        }
    }
}

/// Loads the shadows. One that cannot be used is not worth a refusal: nothing depends on it.
async fn shadows(
    config: &Config,
    engine: &Arc<Engine>,
    upstreams: &Arc<[Arc<str>]>,
    plugins: &BTreeMap<String, Arc<Plugin>>,
    previous: Option<&Generation>,
) -> BTreeMap<String, Arc<Trial>> {
    let mut trials = BTreeMap::new();
    for (name, stanza) in &config.plugins {
        let (Some(shadow), Some(plugin)) = (&stanza.shadow, plugins.get(name)) else { continue };
        let (engine, upstreams) = (Arc::clone(engine), Arc::clone(upstreams));
        let (its_name, its_stanza, file) = (name.clone(), stanza.clone(), shadow.clone());
        let loading = tokio::task::spawn_blocking(move || {
            engine.load_shadow(&its_name, &its_stanza, &file, &upstreams)
        });
        let loaded = match loading.await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(cause)) => {
                let cause = crate::fault::describe(&cause);
                tracing::error!(plugin = name, "there is no shadow: {cause}");
                continue;
            }
            Err(_) => continue,
        };
        if let Some(cause) = misfit(config, name, &loaded) {
            tracing::error!(plugin = name, "there is no shadow: {cause}");
            continue;
        }
        let more = plugin.locked().more(loaded.locked());
        if !more.is_empty() {
            let difference = plugin.locked().difference(loaded.locked());
            tracing::warn!(
                plugin = name,
                "there is no shadow: its version asks for more than the one in use:\n{difference}"
            );
            continue;
        }
        let known = previous.and_then(|previous| {
            let trial = previous.trials.get(name)?;
            let is_same = trial.plugin().digest() == loaded.digest()
                && previous.plugins.get(name).is_some_and(|known| Arc::ptr_eq(known, plugin));
            (is_same && *trial.kind() == Kind::Shadow).then(|| Arc::clone(trial))
        });
        let trial = known.unwrap_or_else(|| Trial::new(loaded, Kind::Shadow));
        trials.insert(name.clone(), trial);
    }
    trials
}

/// Where a plugin with `canary` has a new version, the one before stays in use, and the new one goes
/// on trial, unless it has been.
fn canaries(
    config: &Config,
    engine: &Arc<Engine>,
    upstreams: &Arc<[Arc<str>]>,
    plugins: &mut BTreeMap<String, Arc<Plugin>>,
    previous: &Generation,
) -> Result<BTreeMap<String, Arc<Trial>>, PluginError> {
    let same_upstreams = config.upstreams.keys().eq(previous.config.upstreams.keys());
    let mut trials = BTreeMap::new();
    for (name, next) in plugins.iter_mut() {
        let Some((stanza, before)) =
            config.plugins.get(name).zip(previous.config.plugins.get(name))
        else {
            continue;
        };
        let (Some(canary), Some(known)) = (&stanza.canary, previous.plugins.get(name)) else {
            continue;
        };
        let trial = previous.trials.get(name).filter(|t| matches!(t.kind(), Kind::Canary(_)));
        let promoted = trial.filter(|trial| trial.verdict() == Some(Verdict::Promoted));
        let known = promoted.map_or(known, |trial| trial.plugin());
        let can_stay = misfit(config, name, known).is_none()
            && known.worlds().iter().any(|world| CAN_BE_TRIED.contains(world))
            && stanza.keys == before.keys;
        if known.digest() == next.digest() || !can_stay {
            continue;
        }
        let is_same = same_upstreams && stanza == before;
        let was_tried = trial.filter(|trial| trial.plugin().digest() == next.digest());
        let trial = match (was_tried, is_same) {
            (Some(trial), true) => Arc::clone(trial),
            (Some(trial), false) => {
                let again = Trial::new(Arc::clone(next), Kind::Canary(canary.clone()));
                // What it did then it would do again.
                if let Some(verdict) = trial.verdict() {
                    again.end(verdict);
                }
                again
            }
            (None, _) => Trial::new(Arc::clone(next), Kind::Canary(canary.clone())),
        };
        *next = match is_same {
            true => Arc::clone(known),
            false => engine.load_again(known, stanza, upstreams)?,
        };
        trials.insert(name.clone(), trial);
    }
    Ok(trials)
}

/// Why a version cannot be used where the configuration names the plugin, if it cannot.
fn misfit(config: &Config, name: &str, plugin: &Arc<Plugin>) -> Option<GenerationError> {
    let alone = BTreeMap::from([(name.to_owned(), Arc::clone(plugin))]);
    let mut errors = Vec::new();
    check_worlds(config, &alone, &mut errors);
    errors.pop()
}

/// The place of a use, which is added when it is new.
fn index_of(uses: &mut Vec<PluginUse>, place: &PluginUse) -> usize {
    if let Some(index) = uses.iter().position(|known| known == place) {
        return index;
    }
    uses.push(place.clone());
    uses.len() - 1
}

/// What gives to plugins that take exchanges, in the order of `log.sinks`.
type Sinks = Arc<[Arc<Feed>]>;
/// What gives to plugins that take events, by their names.
type Listeners = BTreeMap<String, Arc<Feed>>;

/// What gives to sinks and listeners. Those of plugins that did not change are kept with what waits in
/// them; others end once it has been handed over.
fn feeds(
    config: &Config,
    plugins: &BTreeMap<String, Arc<Plugin>>,
    previous: Option<&Generation>,
) -> (Sinks, Listeners) {
    let is_same = |name: &str| {
        let known = previous.and_then(|previous| previous.plugins.get(name));
        known.zip(plugins.get(name)).is_some_and(|(known, now)| Arc::ptr_eq(known, now))
    };
    let sink = |name: &String| {
        let known = previous.and_then(|previous| {
            let place = previous.config.log.sinks.iter().position(|known| known == name)?;
            previous.sinks.get(place).filter(|_| is_same(name)).map(Arc::clone)
        });
        known.or_else(|| plugins.get(name).map(|plugin| Feed::start(plugin.sink(), OF_EXCHANGES)))
    };
    let hooks = config.certificates.hooks.iter();
    let named = hooks.filter_map(|hook| match &hook.by {
        HookBy::Plugin(name) => Some(name),
        HookBy::Command(_) | HookBy::Url(_) => None,
    });
    let listeners = named.filter_map(|name| {
        let known = previous.and_then(|previous| previous.listeners.get(name));
        let known = known.filter(|_| is_same(name)).map(Arc::clone);
        let feed = known
            .or_else(|| plugins.get(name).map(|plugin| Feed::start(plugin.listener(), OF_EVENTS)));
        Some((name.clone(), feed?))
    });
    (config.log.sinks.iter().filter_map(sink).collect(), listeners.collect())
}

fn collect_uses(config: &Config) -> (Vec<PluginUse>, Vec<SiteUses>) {
    let mut uses: Vec<PluginUse> = Vec::new();
    let mut index = |place: &PluginUse| index_of(&mut uses, place);
    let mut sites = Vec::new();
    for site in &config.sites {
        sites.push(SiteUses {
            router: site.router.as_ref().map(&mut index),
            filters: site.filters.iter().map(&mut index).collect(),
            routes: site
                .routes
                .iter()
                .map(|route| route.filters.iter().map(&mut index).collect())
                .collect(),
        });
    }
    (uses, sites)
}

fn check_worlds(
    config: &Config,
    plugins: &BTreeMap<String, Arc<Plugin>>,
    errors: &mut Vec<GenerationError>,
) {
    let mut check = |name: &str, place: String, world: &'static str| {
        if let Some(plugin) = plugins.get(name).filter(|plugin| !plugin.is(world)) {
            errors.push(GenerationError::World(plugin.subject().to_string(), place, world));
        }
    };
    if let Some(place) = &config.client_hello {
        check(&place.plugin, "`client-hello`".to_owned(), "client-hello");
    }
    for name in &config.log.sinks {
        check(name, "`log.sinks`".to_owned(), "access-log");
    }
    for hook in &config.certificates.hooks {
        if let HookBy::Plugin(name) = &hook.by {
            check(name, "`certificates.hooks`".to_owned(), "events");
        }
    }
    let on_demand = config.certificates.on_demand.as_ref().and_then(|d| d.policy.as_ref());
    for name in config.certificates.policy.iter().chain(on_demand) {
        check(name, "`certificates`".to_owned(), "issuance-policy");
    }
    for site in &config.sites {
        let hosts: Vec<String> = site.hosts.iter().map(ToString::to_string).collect();
        let place = format!("site {} (line {})", hosts.join(", "), site.line);
        if let Some(router) = &site.router {
            check(&router.plugin, place.clone(), "router");
        }
        let routes = site.routes.iter().flat_map(|route| &route.filters);
        for filter in site.filters.iter().chain(routes) {
            check(&filter.plugin, place.clone(), "filter");
        }
        if let SiteCertificate::Issued { challenge, .. } = &site.certificate
            && let Some(solver) = challenge.solver()
        {
            check(solver, place, "dns-solver");
        }
    }
}

/// Starts an instance for every place of use once, so that a bad `config:` of a use is found now.
async fn try_uses(
    uses: &[PluginUse],
    plugins: &BTreeMap<String, Arc<Plugin>>,
    errors: &mut Vec<GenerationError>,
) -> Vec<Arc<Reserve>> {
    let mut reserves = Vec::new();
    for place in uses {
        let Some(plugin) = plugins.get(&place.plugin) else { continue };
        let reserve = Reserve::of(plugin, &place.config);
        reserves.push(Arc::clone(&reserve));
        match tokio::task::spawn_blocking(move || reserve.prepare(1)).await {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => errors.push(GenerationError::Plugin(cause)),
            Err(_) => errors.push(GenerationError::Cancelled),
        }
    }
    reserves
}

/// Starts the instances that workers will need when they take this generation over from `previous`,
/// so that their requests do not wait for that. One that does not start is their concern.
async fn prepare(
    config: &Config,
    uses: &[PluginUse],
    plugins: &BTreeMap<String, Arc<Plugin>>,
    trials: &BTreeMap<String, Arc<Trial>>,
    previous: &Generation,
) -> Vec<Arc<Reserve>> {
    let workers = worker::count(config);
    let mut reserves = Vec::new();
    for place in uses {
        let (plugin, trial) = (plugins.get(&place.plugin), trials.get(&place.plugin));
        let known = previous.uses.contains(place).then(|| previous.plugins.get(&place.plugin));
        let is_kept = known.flatten().map(Arc::as_ptr) == plugin.map(Arc::as_ptr)
            && previous.trials.get(&place.plugin).map(Arc::as_ptr) == trial.map(Arc::as_ptr);
        if is_kept {
            continue;
        }
        let beside = trial.filter(|trial| !trial.is_over()).map(|trial| trial.plugin());
        for plugin in plugin.into_iter().chain(beside) {
            let reserve = Reserve::of(plugin, &place.config);
            reserves.push(Arc::clone(&reserve));
            let _ = tokio::task::spawn_blocking(move || reserve.prepare(workers)).await;
        }
    }
    reserves
}

/// What each site asks of handshakes. What did not change is kept, so that tickets stay good.
fn fronts(
    config: &Config,
    certs: &Arc<Certs>,
    previous: Option<&Generation>,
    errors: &mut Vec<GenerationError>,
) -> Vec<Front> {
    let mut fronts: Vec<Front> = Vec::new();
    for site in &config.sites {
        let known = previous.iter().flat_map(|previous| &previous.fronts.of_sites).chain(&fronts);
        let known = known.filter_map(|front| front.clients.as_ref());
        let clients = site.client_certificates.as_ref();
        let clients = clients.map(|clients| ClientAuth::load(clients, certs, known)).transpose();
        let clients = clients.unwrap_or_else(|cause| {
            errors.push(GenerationError::Clients(site.line, cause));
            None
        });
        let passthrough = site.passthrough.as_deref().map(Arc::from);
        fronts.push(Front { passthrough, clients, key_log: None });
    }
    fronts
}

fn fleet_tickets(tickets: &Tickets) -> Result<FleetTickets, String> {
    let text = tickets.secret.read()?;
    if text.expose().trim().len() < TICKET_SECRET_MIN {
        return Err(format!(
            "{} has fewer than {TICKET_SECRET_MIN} letters: make one with `openssl rand -base64 32`",
            tickets.secret
        ));
    }
    let secret = Secret::from_text(text.expose().trim());
    Ok(FleetTickets { secret, rotation: tickets.rotation })
}

/// What workers share of an upstream. What did not change is kept: counts, and what checks know.
fn parts(
    name: &str,
    upstream: &Upstream,
    tls: Option<TlsClient>,
    known: Option<(&Parts, &Upstream)>,
    sticky: &StickyKey,
) -> Parts {
    let same = known.filter(|(parts, config)| {
        let digest = |tls: Option<&TlsClient>| tls.map(|tls| tls.digest);
        *config == upstream && digest(parts.tls.as_ref()) == digest(tls.as_ref())
    });
    if let Some((parts, _)) = same {
        return parts.clone();
    }
    let was_up = |server: &Server| {
        let index = known.and_then(|(_, config)| config.servers.iter().position(|s| s == server));
        index.is_none_or(|index| known.is_none_or(|(parts, _)| parts.health.is_up(index)))
    };
    let names = Names::start(name, upstream, known.map(|(parts, _)| &*parts.names));
    let health = Health::start(name, upstream, tls.as_ref(), &names, was_up);
    let circuit = Circuit::new(&upstream.circuit, upstream.servers.len());
    let sticky = upstream.sticky.is_some().then(|| sticky.clone());
    Parts { tls, health, names, circuit, sticky }
}

fn tls_client(upstream: &Upstream) -> Result<Option<TlsClient>, RootsError> {
    if !upstream.servers.iter().any(|server| matches!(server, Server::Https(_))) {
        return Ok(None);
    }
    let pair = upstream.client_certificate.as_ref();
    let mut config = roots::client_config_with(upstream.roots.as_deref(), pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server_name = upstream.server_name.clone();
    let files = pair.map(|pair| [&pair.certificate, &pair.key]).into_iter().flatten();
    let mut hasher = std::hash::DefaultHasher::new();
    for file in upstream.roots.iter().chain(files) {
        std::hash::Hash::hash(&std::fs::read(file).unwrap_or_default(), &mut hasher);
    }
    let digest = std::hash::Hasher::finish(&hasher);
    Ok(Some(TlsClient { config: Arc::new(config), server_name, digest }))
}

impl GenerationError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Plugin(cause) => cause.fault(),
            Self::Policy(cause) => cause.fault(),
            Self::Clients(_, cause) => cause.fault(),
            Self::World(..)
            | Self::Roots(..)
            | Self::AsksMore(..)
            | Self::Lock(_)
            | Self::Tickets(_) => Fault::Operator,
            Self::Cancelled => Fault::Internal,
        }
    }
}

impl fmt::Display for GenerationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugin(cause) => cause.fmt(f),
            Self::World(name, place, world) => write!(
                f,
                "{name} is used as a {world} by {place}, but its component does not export \
                 that world; see what it is with `witgate plugin inspect`"
            ),
            Self::AsksMore(name, difference) => write!(
                f,
                "plugin {name} asks for more than gateway.lock has:\n{difference}\nto allow it, run \
                 `witgate plugin accept {name}`"
            ),
            Self::Lock(report) => report.fmt(f),
            Self::Roots(name, cause) => write!(f, "upstream {name}: {cause}"),
            Self::Policy(cause) => cause.fmt(f),
            Self::Clients(line, cause) => {
                write!(f, "client-certificates of the site of line {line}: {cause}")
            }
            Self::Tickets(cause) => write!(f, "tls.tickets.secret: {cause}"),
            Self::Cancelled => f.write_str("building the generation was cancelled"),
        }
    }
}

impl std::error::Error for GenerationError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Plugin(cause) => cause.source(),
            Self::Roots(_, cause) => cause.source(),
            Self::Policy(cause) => cause.source(),
            Self::Clients(_, cause) => cause.source(),
            Self::World(..)
            | Self::AsksMore(..)
            | Self::Lock(_)
            | Self::Tickets(_)
            | Self::Cancelled => None,
        }
    }
}

/// Worlds of which two versions can run beside each other.
const CAN_BE_TRIED: [&str; 3] = ["router", "filter", "client-hello"];
const OF_EXCHANGES: Pace =
    Pace { batch_max: 500, wait: Duration::from_secs(1), pauses: &[Duration::from_secs(2)] };
const OF_EVENTS: Pace = Pace {
    batch_max: 1,
    wait: Duration::ZERO,
    pauses: &[Duration::from_secs(2), Duration::from_secs(20)],
};
/// Of what makes ticket keys: 256 bits in Base64 have 44.
const TICKET_SECRET_MIN: usize = 32;
