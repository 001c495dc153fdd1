//! The running gateway: starts everything, builds the next generation when something changed, swaps
//! it in, drains at the end. The only place that knows all rooms.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::acme::on_demand::Terms;
use crate::acme::solve::dns01::DnsSolver;
use crate::acme::solve::http01::Tokens;
use crate::acme::solve::rfc2136::UpdateServer;
use crate::acme::{Acme, Want, Wants};
use crate::admin;
use crate::bounds::Memory;
use crate::config::{
    self, AcmeIssuer, Config, HostPattern, Issuer, KeyKinds, Loaded, Scheme, SecretText,
    SiteCertificate,
};
use crate::fault::describe;
use crate::generation::{Generation, GenerationError, Live};
use crate::handover::{self, Estate, HandoverError, Inheritance, Predecessor, Program, Successor};
use crate::listen::{Prepared, Steering, Workers};
use crate::local_acme;
use crate::plugin::{Engine, Kind, Plugin, Verdict};
use crate::store::{Opening, Store, StoreError};
use crate::telemetry::{Counters, LevelHandle};
use crate::tls::accept::Acceptor;
use crate::tls::certs::Certs;
use crate::tls::files::Files;
use crate::tls::keylog::Taps;
use crate::tls::local::{LocalCa, LocalCaError};
use crate::upstream::sticky::StickyKey;
use crate::watch::Watcher;
use crate::worker::{Shared, Worker};

/// A running gateway.
pub struct Gateway {
    file: PathBuf,
    /// What the file held when the configuration in force was read from it.
    text: SecretText,
    levels: LevelHandle,
    engine: Arc<Engine>,
    live: Arc<Live>,
    workers: Workers,
    certs: Arc<Certs>,
    files: Files,
    sticky: StickyKey,
    local: Arc<LocalCa>,
    acme: Arc<Acme>,
    counters: Vec<Arc<Counters>>,
    memory: Arc<Memory>,
    watcher: Watcher,
    orders: mpsc::Receiver<admin::Order>,
    admin: Option<admin::Server>,
    local_acme: Option<local_acme::Server>,
    /// What may be the control socket already.
    admin_sockets: Vec<UnixListener>,
    order_sender: mpsc::Sender<admin::Order>,
    store: Arc<Store>,
    program: Program,
    draining: Arc<OnceLock<Instant>>,
    taps: Arc<Taps>,
}

/// Why the gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration is wrong.
    Config(config::Report),
    /// The store cannot be used.
    Store(StoreError),
    /// The plugin engine cannot run.
    Engine(crate::plugin::PluginError),
    /// The first generation cannot be built.
    Generation(Vec<GenerationError>),
    /// The local CA cannot be used.
    LocalCa(LocalCaError),
    /// A file certificate cannot be used.
    Files(String),
    /// An address cannot be bound.
    Listen(config::Listen, std::io::Error),
    /// TLS cannot be prepared.
    Tls(rustls::Error),
    /// The machine gave no thread or runtime.
    System(std::io::Error),
    /// Logging cannot start.
    Log(String),
    /// The process before does not let us serve.
    Handover(HandoverError),
}

/// Why the gateway stopped waiting.
enum Event {
    Reload(&'static str),
    Changed(Vec<PathBuf>),
    Order(admin::Order),
    Renewals,
    Trials,
    Upgrade(Option<oneshot::Sender<Result<String, String>>>),
    Stop(&'static str),
}

impl Gateway {
    /// Starts with the configuration in `file`, and what was inherited: at an upgrade from the process
    /// `before`, which serves until everything here is prepared. Must run inside the control runtime.
    ///
    /// # Errors
    /// Whatever keeps it from serving.
    pub async fn start(
        file: &Path,
        loaded: Loaded,
        levels: LevelHandle,
        inheritance: Inheritance,
        before: Option<&Predecessor>,
    ) -> Result<Self, StartError> {
        let Loaded { config, text, .. } = loaded;
        let Inheritance { mut sockets, admin: admin_sockets, legacy } = inheritance;
        let mut how = opening(&config.sharing).map_err(StartError::Store)?;
        how.is_beside = before.is_some();
        let store = Store::open_as(&config.store, &how).map_err(StartError::Store)?;
        let cache = store.cache_folder("compiled").map_err(StartError::Store)?;
        let engine = Engine::start(cache).map_err(StartError::Engine)?;
        let (certs, first_seat, returns) = match legacy {
            Some(legacy) => {
                let certs = Certs::inherit(legacy.secret, legacy.tickets);
                (certs, legacy.first_seat, Some(legacy.before))
            }
            None => (Certs::default(), 0, None),
        };
        let certs = Arc::new(certs);
        let tokens = Arc::new(Tokens::default());
        if store.is_shared() {
            tokens.share(&store);
            certs.share(&store);
        }
        let local = LocalCa::open(&store, &config.certificates.local_domains);
        let local = local.map_err(StartError::LocalCa)?;
        let sticky = sticky_key(&store).map_err(StartError::Store)?;
        let mut files = Files::default();
        files
            .load(&config.certificates.files, &certs)
            .map_err(|cause| StartError::Files(cause.to_string()))?;
        let generation = Generation::build(config, &engine, None, &sticky, &certs)
            .await
            .map_err(StartError::Generation)?;
        let count = crate::worker::count(&generation.config);
        let prepared = Prepared::first(&generation.config.listen, count, &mut sockets);
        let prepared = prepared.map_err(|(listen, cause)| StartError::Listen(listen, cause))?;
        // What the configuration does not name is nobody's any more.
        drop(sockets);
        if let Some(before) = before {
            before.ready().await.map_err(StartError::Handover)?;
            store.take().map_err(StartError::Store)?;
        }
        let live = Arc::new(Live::new(Arc::clone(&generation)));
        let acme = Acme::start(Arc::clone(&store), Arc::clone(&certs), Arc::clone(&tokens));
        let acme = acme.map_err(StartError::Store)?;
        let acceptor = Acceptor::new(Arc::clone(&certs), acme.later()).map_err(StartError::Tls)?;
        let counters: Vec<Arc<Counters>> = (0..count).map(|_| Arc::default()).collect();
        let shared = Shared::default();
        let steering = Steering::new(certs.process(), first_seat, returns);
        let steering = steering.map_err(StartError::System)?;
        let make = worker_maker(&live, &acceptor, &tokens, &counters, &shared);
        let workers = Workers::start(count, steering, make).map_err(StartError::System)?;
        let (order_sender, orders) = mpsc::channel(16);
        let mut gateway = Self {
            file: file.to_owned(),
            text,
            levels,
            engine,
            live,
            workers,
            certs,
            files,
            sticky,
            local,
            acme: Arc::new(acme),
            counters,
            memory: shared.memory,
            watcher: Watcher::new(),
            orders,
            admin: None,
            local_acme: None,
            admin_sockets,
            order_sender,
            store,
            program: Program::of_this_process(file),
            draining: Arc::default(),
            taps: Arc::clone(acceptor.taps()),
        };
        gateway.put_in_force(&generation);
        gateway.workers.apply(prepared);
        for listen in &generation.config.listen {
            tracing::info!(address = %listen, "listening");
        }
        if let Some(before) = before {
            before.serving().await.map_err(StartError::Handover)?;
        }
        handover::tell_system("READY=1");
        tracing::info!(generation = generation.id, workers = count, "ready");
        Ok(gateway)
    }

    /// Serves until told to stop, then drains.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub async fn run(mut self) -> Result<(), StartError> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hup = signal(SignalKind::hangup()).map_err(StartError::System)?;
        let mut term = signal(SignalKind::terminate()).map_err(StartError::System)?;
        let mut int = signal(SignalKind::interrupt()).map_err(StartError::System)?;
        let mut usr2 = signal(SignalKind::user_defined2()).map_err(StartError::System)?;
        let mut has_successor = false;
        let mut renewals = tokio::time::interval(LOCAL_RENEWALS);
        let mut trials = tokio::time::interval(TRIALS);
        loop {
            let event = tokio::select! {
                _ = trials.tick() => Event::Trials,
                _ = hup.recv() => Event::Reload("SIGHUP"),
                _ = term.recv() => Event::Stop("SIGTERM"),
                _ = int.recv() => Event::Stop("SIGINT"),
                _ = usr2.recv() => Event::Upgrade(None),
                changed = self.watcher.changed() => Event::Changed(changed),
                Some(order) = self.orders.recv() => match order {
                    admin::Order::Upgrade(reply) => Event::Upgrade(Some(reply)),
                    order => Event::Order(order),
                },
                _ = renewals.tick() => Event::Renewals,
            };
            match event {
                Event::Reload(why) => {
                    let _ = self.reload(why).await;
                }
                Event::Changed(files) => self.take_changes(&files).await,
                Event::Order(order) => self.obey(order).await,
                Event::Renewals => {
                    self.local.ensure(&self.certs, &local_names(&self.live.current().config))
                }
                Event::Trials => self.judge_trials().await,
                Event::Upgrade(reply) => {
                    let upgraded = tokio::select! {
                        upgraded = self.upgrade() => upgraded,
                        _ = term.recv() => break,
                        _ = int.recv() => break,
                    };
                    has_successor = upgraded.is_ok();
                    if has_successor && let Some(admin) = self.admin.take() {
                        admin.leave();
                    }
                    if let Some(reply) = reply {
                        let _ = reply.send(upgraded.map_err(|cause| describe(&cause)));
                    }
                    if has_successor {
                        break;
                    }
                }
                Event::Stop(why) => {
                    tracing::info!(signal = why, "draining");
                    break;
                }
            }
        }
        if !has_successor {
            handover::tell_system("STOPPING=1");
        }
        self.stop(int, term, has_successor).await;
        tracing::info!("stopped");
        Ok(())
    }

    /// Lets open exchanges end. A second signal ends it at once.
    async fn stop(
        self,
        mut int: tokio::signal::unix::Signal,
        mut term: tokio::signal::unix::Signal,
        has_successor: bool,
    ) {
        let workers = self.workers;
        let idle = self.live.current().config.limits.drain / 2;
        let _ = self.draining.set(Instant::now());
        // Nobody obeys any more; what is open can be seen to the end.
        drop(self.orders);
        let drained = tokio::task::spawn_blocking(move || match has_successor {
            true => workers.leave(idle),
            false => workers.drain(),
        });
        tokio::select! {
            _ = drained => {}
            _ = int.recv() => tracing::warn!("second signal, stopping at once"),
            _ = term.recv() => tracing::warn!("second signal, stopping at once"),
        }
        drop(self.admin);
        self.acme.stop().await;
        let generation = self.live.current();
        let feeds = generation.sinks.iter().chain(generation.listeners.values());
        let finishing = async {
            for feed in feeds {
                feed.finish().await;
            }
            crate::otlp::finish().await;
        };
        if tokio::time::timeout(FEEDS_END, finishing).await.is_err() {
            tracing::warn!("sinks did not take everything in time");
        }
    }

    /// Has the program, as it is now, take over. When it does not, nothing has changed here.
    async fn upgrade(&mut self) -> Result<String, HandoverError> {
        tracing::info!("upgrade: starting the program that is installed now");
        let upgraded = self.hand_over().await;
        match &upgraded {
            Ok(next) => {
                handover::tell_system(&format!("MAINPID={next}"));
                tracing::info!(process = next, "the new process serves, draining");
            }
            Err(cause) => tracing::error!("upgrade refused, serving on: {}", describe(cause)),
        }
        upgraded.map(|next| format!("process {next} serves, this one drains"))
    }

    async fn hand_over(&mut self) -> Result<u32, HandoverError> {
        let (returns, before) = UnixDatagram::pair().map_err(HandoverError::Protocol)?;
        let estate = Estate {
            sockets: self.workers.sockets(),
            admin: self.admin.as_ref().and_then(admin::Server::socket),
            before,
            secret: self.certs.process().clone(),
            tickets: self.certs.tickets().own(),
            first_seat: self.workers.steering().next_seat(),
        };
        let mut next = Successor::prepare(&self.program, estate).await?;
        // From here until it serves nobody keeps certificates, and datagrams wait in the sockets.
        self.acme.stop().await;
        self.store.release();
        let steering = Arc::clone(self.workers.steering());
        steering.deafen(true);
        let returning = tokio::spawn(Arc::clone(&steering).take_back(returns));
        let gone = next.go().await;
        if let Err(cause) = gone {
            returning.abort();
            steering.deafen(false);
            // Only once it has ended is the store free again.
            drop(next);
            if let Err(cause) = self.store.take() {
                tracing::error!("the store is lost: {}", describe(&cause));
            }
            self.acme.resume();
            return Err(cause);
        }
        Ok(next.id())
    }

    async fn take_changes(&mut self, files: &[PathBuf]) {
        if files.iter().any(|file| file == &self.file) {
            let _ = self.reload("file changed").await;
            return;
        }
        let generation = self.live.current();
        let watched = generation.watched();
        if files.iter().any(|file| !watched.contains(file)) {
            self.files.reload(&self.certs);
        }
        if files.iter().any(|file| watched.contains(file)) {
            let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            let _ = self.reload_components(&names.join(", ")).await;
        }
    }

    /// Lets canaries take over that did well, and tells about those that did not.
    async fn judge_trials(&mut self) {
        let mut is_promoted = false;
        for (name, trial) in &self.live.current().trials {
            if trial.is_told() {
                continue;
            }
            let digest = short(trial.plugin().digest());
            match trial.judge() {
                None => continue,
                Some(Verdict::Promoted) => {
                    tracing::info!(plugin = name, digest, "the canary did well and takes over");
                    is_promoted = true;
                }
                Some(Verdict::RolledBack(reason)) => tracing::error!(
                    plugin = name,
                    digest,
                    "the new version is rolled back, the one before serves on: {reason}"
                ),
            }
            trial.tell();
        }
        if is_promoted {
            let config = self.live.current().config.clone();
            let _ = self.replace(config, "canary").await;
        }
    }

    async fn obey(&mut self, order: admin::Order) {
        match order {
            admin::Order::Reload(reply) => {
                let _ = reply.send(self.reload("admin").await);
            }
            admin::Order::Renew(host, reply) => {
                let _ = reply.send(self.acme.renew_now(&host));
            }
            // Taken by the loop, which ends with it.
            admin::Order::Upgrade(_) => {}
        }
    }

    /// Takes in changed components. A `config:` has to fit what its component says by now, so the
    /// configuration is read again; where the file is being edited and wrong just now, as it was
    /// when it was last in order, so that nobody's typing error holds up a plugin.
    async fn reload_components(&mut self, why: &str) -> Result<u64, String> {
        let report = match config::load(&self.file) {
            Ok(loaded) => return self.take(loaded, why).await,
            Err(report) => report,
        };
        match config::load_text(&self.text, &self.file) {
            Ok(loaded) => {
                tracing::warn!(
                    reason = why,
                    "the configuration file has mistakes and stays out of this reload:\n{report}"
                );
                self.take(loaded, why).await
            }
            Err(_) => Err(self.refuse(why, &report.to_string())),
        }
    }

    /// Reads the configuration again and puts it in force, or says why not and changes nothing.
    async fn reload(&mut self, why: &str) -> Result<u64, String> {
        match config::load(&self.file) {
            Ok(loaded) => self.take(loaded, why).await,
            Err(report) => Err(self.refuse(why, &report.to_string())),
        }
    }

    async fn take(&mut self, loaded: Loaded, why: &str) -> Result<u64, String> {
        let Loaded { mut config, warnings, text } = loaded;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let running = &self.live.current().config;
        if (&config.store, &config.sharing, config.workers)
            != (&running.store, &running.sharing, running.workers)
        {
            tracing::warn!("`store` and `workers` take effect at the next start");
            config.store.clone_from(&running.store);
            config.sharing.clone_from(&running.sharing);
            config.workers = running.workers;
        }
        let id = self.replace(config, why).await?;
        self.text = text;
        Ok(id)
    }

    /// Builds the next generation and swaps it in, or changes nothing.
    async fn replace(&mut self, config: Config, why: &str) -> Result<u64, String> {
        let previous = self.live.current();
        let (sticky, certs) = (&self.sticky, &self.certs);
        let built = Generation::build(config, &self.engine, Some(&previous), sticky, certs).await;
        let next = match built {
            Ok(next) => next,
            Err(errors) => {
                let text: Vec<String> = errors.iter().map(describe).collect();
                return Err(self.refuse(why, &text.join("\n")));
            }
        };
        let prepared = match self.workers.prepare(&next.config.listen) {
            Ok(prepared) => prepared,
            Err((listen, cause)) => {
                return Err(self.refuse(why, &format!("cannot listen on {listen}: {cause}")));
            }
        };
        if next.config.certificates.files != previous.config.certificates.files
            && let Err(cause) = self.files.load(&next.config.certificates.files, &self.certs)
        {
            return Err(self.refuse(why, &cause.to_string()));
        }
        report_swaps(&previous, &next);
        self.live.swap(Arc::clone(&next));
        self.put_in_force(&next);
        self.workers.apply(prepared);
        tracing::info!(generation = next.id, reason = why, "generation {} serving", next.id);
        Ok(next.id)
    }

    fn refuse(&self, why: &str, text: &str) -> String {
        let serving = self.live.current().id;
        tracing::error!(
            reason = why,
            generation = serving,
            "reload refused, nothing changed:\n{text}"
        );
        text.to_owned()
    }

    /// Everything outside the generation that follows from it.
    fn put_in_force(&mut self, generation: &Arc<Generation>) {
        let config = &generation.config;
        match crate::telemetry::filter(&config.log) {
            Ok(filter) => {
                let _ = self.levels.reload(filter);
            }
            Err(cause) => tracing::warn!("{cause}"),
        }
        if let Err(cause) = crate::otlp::configure(config.log.otlp.as_ref()) {
            tracing::warn!("no spans are sent: {cause}");
        }
        generation.write_lock();
        self.certs.set_default(config.certificates.default.clone());
        self.certs.tickets().share(generation.tickets.clone());
        self.local.ensure(&self.certs, &local_names(config));
        self.acme.want(wants(generation));
        let certificates = config.certificates.files.iter();
        let certificates = certificates
            .flat_map(|pair| [&pair.certificate, &pair.key].into_iter().chain(&pair.ocsp).cloned());
        let files = std::iter::once(self.file.clone()).chain(generation.watched());
        self.watcher.watch(files.chain(certificates));
        self.serve_admin(config);
        self.serve_local_acme(config);
    }

    fn serve_local_acme(&mut self, config: &Config) {
        let Some(settings) = &config.certificates.local_acme else {
            self.local_acme = None;
            return;
        };
        let resolvers = &config.certificates.resolvers;
        if let Some(server) = &self.local_acme
            && server.address() == settings.listen
        {
            server.reconfigure(settings, resolvers);
            return;
        }
        let (local, store) = (Arc::clone(&self.local), Arc::clone(&self.store));
        match local_acme::Server::start(settings, resolvers, local, store) {
            Ok(server) => self.local_acme = Some(server),
            Err(cause) => tracing::error!("{}", describe(&cause)),
        }
    }

    fn serve_admin(&mut self, config: &Config) {
        let is_served = self.admin.as_ref().map(admin::Server::path) == config.admin.as_deref();
        if is_served {
            return;
        }
        self.admin = None;
        let Some(path) = &config.admin else { return };
        let state = admin::State {
            live: Arc::clone(&self.live),
            acme: Arc::clone(&self.acme),
            certs: Arc::clone(&self.certs),
            counters: self.counters.clone(),
            memory: Arc::clone(&self.memory),
            roll: self.workers.roll(),
            draining: Arc::clone(&self.draining),
            taps: Arc::clone(&self.taps),
            orders: self.order_sender.clone(),
        };
        match admin::Server::start(path, state, &mut self.admin_sockets) {
            Ok(server) => self.admin = Some(server),
            Err(cause) => {
                tracing::warn!(path = %path.display(), %cause, "no control socket");
            }
        }
    }
}

/// How the configuration wants its store opened.
///
/// # Errors
/// When the passphrase cannot be read.
pub fn opening(sharing: &config::Sharing) -> Result<Opening, StoreError> {
    let passphrase = sharing.seal.as_ref().map(config::SecretRef::read).transpose();
    let passphrase = passphrase.map_err(StoreError::Seal)?;
    Ok(Opening {
        is_shared: sharing.is_shared,
        passphrase: passphrase.map(|text| text.expose().as_bytes().to_vec()),
        is_beside: false,
    })
}

/// The key of sticky cookies, which is kept so that clients stay at their servers over a restart.
fn sticky_key(store: &Store) -> Result<StickyKey, StoreError> {
    if let Some(bytes) = store.read(STICKY_KEY)?.filter(|bytes| bytes.len() >= 32) {
        return Ok(StickyKey::new(&bytes));
    }
    // One that is too short is replaced; what is absent is made by one of those that share the store.
    let bytes = match store.read(STICKY_KEY)? {
        Some(_) => {
            let bytes = StickyKey::random().to_vec();
            store.write(STICKY_KEY, &bytes)?;
            bytes
        }
        None => store.read_or(STICKY_KEY, || Ok::<_, StoreError>(StickyKey::random().to_vec()))?,
    };
    Ok(StickyKey::new(&bytes))
}

fn worker_maker(
    live: &Arc<Live>,
    acceptor: &Acceptor,
    tokens: &Arc<Tokens>,
    counters: &[Arc<Counters>],
    shared: &Shared,
) -> impl Fn() -> Rc<Worker> + Send + Sync + 'static {
    let (live, acceptor, tokens) = (Arc::clone(live), acceptor.clone(), Arc::clone(tokens));
    let shared = shared.clone();
    let spare = Mutex::new(counters.to_vec());
    move || {
        let mine = spare.lock().ok().and_then(|mut spare| spare.pop()).unwrap_or_default();
        Worker::new(Arc::clone(&live), acceptor.clone(), Arc::clone(&tokens), mine, shared.clone())
    }
}

/// What ACME is asked for: the certificates of all sites that issuers other than the local CA sign.
fn wants(generation: &Generation) -> Wants {
    let config = &generation.config;
    let mut certificates: Vec<Want> = Vec::new();
    // By name, since two sites may want the same.
    let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut patterns = Vec::new();
    let mut solvers: BTreeMap<String, Arc<dyn DnsSolver>> = BTreeMap::new();
    for (hosts, site) in issued(config) {
        let SiteCertificate::Issued { issuers, challenge, is_on_demand } = site else { continue };
        let issuers = issuers.iter().filter_map(|issuer| match issuer {
            Issuer::Acme(acme) => Some(acme.clone()),
            Issuer::Local => None,
        });
        let issuers: Vec<_> = issuers.collect();
        if issuers.is_empty() {
            continue;
        }
        if let Some(name) = challenge.solver() {
            if let Some(plugin) = generation.plugins.get(name) {
                solvers.insert(name.to_owned(), plugin.solver());
            } else if let Some(server) = config.certificates.updates.get(name) {
                solvers.insert(name.to_owned(), Arc::new(UpdateServer::new(name, server)));
            }
        }
        if *is_on_demand {
            patterns.extend(
                hosts.iter().map(|host| (host.clone(), issuers.clone(), challenge.clone())),
            );
            continue;
        }
        let issuers: Arc<[AcmeIssuer]> = issuers.into();
        for hosts in crate::acme::need::group(hosts) {
            let (issuers, challenge) = (Arc::clone(&issuers), challenge.clone());
            let name = crate::acme::need::name(&hosts);
            let want = Want { hosts, issuers, challenge, is_rsa: false };
            let known = places.entry(name).or_default();
            if known.iter().any(|at| certificates.get(*at) == Some(&want)) {
                continue;
            }
            known.push(certificates.len());
            if config.certificates.keys == KeyKinds::Both {
                certificates.push(Want { is_rsa: true, ..want.clone() });
            }
            certificates.push(want);
        }
    }
    let policy = |name: Option<&String>| {
        name.and_then(|name| generation.plugins.get(name)).map(Plugin::policy)
    };
    let has = |scheme| config.listen.iter().any(|listen| listen.scheme == scheme);
    Wants {
        certificates,
        contact: config.certificates.contact.clone(),
        solvers,
        resolvers: config.certificates.resolvers.clone(),
        propagation: config.certificates.propagation.clone(),
        has_https: has(Scheme::Https),
        has_http: has(Scheme::Http),
        hooks: config.certificates.hooks.clone(),
        listeners: generation.listeners.clone(),
        policy: policy(config.certificates.policy.as_ref()),
        on_demand_policy: policy(
            config.certificates.on_demand.as_ref().and_then(|on_demand| on_demand.policy.as_ref()),
        ),
        on_demand: config.certificates.on_demand.clone().map(|rules| {
            let has_rsa = config.certificates.keys == KeyKinds::Both;
            Terms { rules, patterns, has_rsa }
        }),
    }
}

/// The names of each certificate that a CA other than the local one is asked for.
pub fn wanted_names(config: &Config) -> Vec<Vec<HostPattern>> {
    let is_acme = |issuer: &Issuer| matches!(issuer, Issuer::Acme(_));
    let asked = issued(config).filter(|(_, site)| match site {
        SiteCertificate::Issued { issuers, is_on_demand, .. } => {
            !is_on_demand && issuers.iter().any(is_acme)
        }
        SiteCertificate::Files => false,
    });
    asked.flat_map(|(hosts, _)| crate::acme::need::group(hosts)).collect()
}

/// Names whose certificate comes from the local CA.
fn local_names(config: &Config) -> Vec<Vec<HostPattern>> {
    let local = issued(config).filter_map(|(hosts, site)| match site {
        SiteCertificate::Issued { issuers, .. } => {
            issuers.contains(&Issuer::Local).then(|| hosts.to_vec())
        }
        SiteCertificate::Files => None,
    });
    local.collect()
}

fn issued(config: &Config) -> impl Iterator<Item = (&[HostPattern], &SiteCertificate)> {
    config.sites.iter().map(|site| (site.hosts.as_slice(), &site.certificate))
}

fn report_swaps(previous: &Generation, next: &Generation) {
    for (name, trial) in &next.trials {
        let known = previous.trials.get(name);
        if known.is_some_and(|known| Arc::ptr_eq(known, trial)) {
            continue;
        }
        let what = match trial.kind() {
            Kind::Shadow => "a shadow runs beside the plugin",
            Kind::Canary(_) => "a canary gets its share of the requests",
        };
        tracing::info!(plugin = name, digest = short(trial.plugin().digest()), "{what}");
    }
    for (name, plugin) in &next.plugins {
        match previous.plugins.get(name) {
            Some(known) if known.digest() == plugin.digest() => {}
            Some(known) => {
                tracing::info!(
                    plugin = name,
                    from = short(known.digest()),
                    to = short(plugin.digest()),
                    "plugin swapped"
                );
            }
            None => {
                tracing::info!(plugin = name, digest = short(plugin.digest()), "plugin loaded");
            }
        }
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(report) => report.fmt(f),
            Self::Store(cause) => cause.fmt(f),
            Self::Engine(cause) => cause.fmt(f),
            Self::Generation(errors) => {
                let text: Vec<String> = errors.iter().map(describe).collect();
                f.write_str(&text.join("\n"))
            }
            Self::LocalCa(cause) => cause.fmt(f),
            Self::Files(text) | Self::Log(text) => f.write_str(text),
            Self::Listen(listen, cause) => {
                write!(f, "cannot listen on {listen}: {cause}")?;
                match cause.kind() {
                    std::io::ErrorKind::AddrInUse => {
                        f.write_str("; another program (or another gateway) has this port")
                    }
                    std::io::ErrorKind::PermissionDenied => f.write_str(
                        "; ports below 1024 need CAP_NET_BIND_SERVICE: `setcap \
                         cap_net_bind_service=+ep witgate`, or use higher ports",
                    ),
                    _ => Ok(()),
                }
            }
            Self::Tls(cause) => write!(f, "cannot prepare TLS: {cause}"),
            Self::System(cause) => cause.fmt(f),
            Self::Handover(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(cause) => cause.source(),
            Self::Engine(cause) => cause.source(),
            Self::LocalCa(cause) => cause.source(),
            Self::Handover(cause) => cause.source(),
            _ => None,
        }
    }
}

/// How often certificates of the local CA are looked at.
const LOCAL_RENEWALS: Duration = Duration::from_secs(3600);
/// How often canaries are judged.
const TRIALS: Duration = Duration::from_secs(1);
/// How long sinks have at the end to take what is left.
const FEEDS_END: Duration = Duration::from_secs(5);
const STICKY_KEY: &str = "sticky.key";
