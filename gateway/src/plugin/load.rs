//! From a file to a plugin that can be used: read, compile or take from the cache, link, self-test.

use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use wasmtime::component::{Component, InstancePre};

use super::engine::Engine;
use super::error::{PluginError, Subject};
use super::facts::Facts;
use super::host::Host;
use super::host::http::Client;
use super::host::log::Rate;
use super::reserve::{Reserves, StartTime};
use super::secret::Secrets;
use super::session::Sessions;
use super::v0_1::{self, Exports, Unlinked};
use super::wire::Wire;
use super::{Inspection, Plugin, Recorder, fiber, pool, sign};
use crate::config::lock::{self, Locked};
use crate::config::{Manifest, PluginConfig, Secret};
use crate::hex;

/// SHA-256 of a component file.
pub(super) type Digest = [u8; 32];

/// A component as machine code, linked. Shared by every plugin of the same digest.
pub(super) struct Compiled {
    pub pre: InstancePre<Host>,
    pub exports: Exports,
    pub worlds: Vec<&'static str>,
    pub imports_http: bool,
}

/// What a plugin is loaded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Used,
    Shadow,
}

/// A component that can be used, without the configuration it is used with.
struct Parts {
    subject: Subject,
    compiled: Arc<Compiled>,
    manifest: Option<Arc<Manifest>>,
    locked: Locked,
}

impl Engine {
    /// Reads, compiles (or takes from the cache), links and self-tests a component. Blocks for up
    /// to seconds: call it off the request path. `upstreams` are the names that a router may
    /// choose.
    ///
    /// # Errors
    /// When the file is no component, fits no world, imports what there is not, or its `configure`
    /// fails with the plugin's own configuration.
    pub fn load(
        self: &Arc<Self>,
        name: &str,
        config: &PluginConfig,
        upstreams: &Arc<[Arc<str>]>,
    ) -> Result<Arc<Plugin>, PluginError> {
        self.load_as(Role::Used, name, config, &config.component, upstreams, None)
    }

    /// As [`Engine::load`], with `wire` in the place of the network.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load_over(
        self: &Arc<Self>,
        name: &str,
        config: &PluginConfig,
        wire: Arc<dyn Wire>,
    ) -> Result<Arc<Plugin>, PluginError> {
        let none: Arc<[Arc<str>]> = Arc::from([]);
        self.load_as(Role::Used, name, config, &config.component, &none, Some(wire))
    }

    /// Loads the version at `config.shadow`, whose state and counts are its own.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load_shadow(
        self: &Arc<Self>,
        name: &str,
        config: &PluginConfig,
        shadow: &Path,
        upstreams: &Arc<[Arc<str>]>,
    ) -> Result<Arc<Plugin>, PluginError> {
        self.load_as(Role::Shadow, name, config, shadow, upstreams, None)
    }

    /// The version that `plugin` is, whatever lies in its file by now, with another configuration.
    ///
    /// # Errors
    /// When it does not start with that.
    pub fn load_again(
        self: &Arc<Self>,
        plugin: &Plugin,
        config: &PluginConfig,
        upstreams: &Arc<[Arc<str>]>,
    ) -> Result<Arc<Plugin>, PluginError> {
        let subject = plugin.facts.subject.clone();
        let (compiled, manifest) = (Arc::clone(&plugin.compiled), plugin.manifest.clone());
        let parts = Parts { subject, compiled, manifest, locked: plugin.locked.clone() };
        self.assemble(Role::Used, parts, config, upstreams, None)
    }

    fn load_as(
        self: &Arc<Self>,
        role: Role,
        name: &str,
        config: &PluginConfig,
        component: &Path,
        upstreams: &Arc<[Arc<str>]>,
        wire: Option<Arc<dyn Wire>>,
    ) -> Result<Arc<Plugin>, PluginError> {
        let name: Arc<str> = Arc::from(name);
        let (file, digest, subject) = read(&name, component)?;
        if !config.keys.is_empty() && !sign::is_signed(&file, &config.keys) {
            return Err(PluginError::Unsigned(subject));
        }
        let manifest = Manifest::of_component(&file, component)
            .map_err(|cause| PluginError::Manifest(subject.clone(), cause))?;
        let compiled = self.compile(&file, digest, &subject)?;
        drop(file);
        let locked = Locked {
            digest: hex::lower(&digest),
            version: manifest.as_ref().map(|manifest| manifest.version.clone()),
            asks: lock::asks(
                manifest.as_ref(),
                compiled.imports_http,
                &compiled.worlds,
                compiled.exports.body.is_some(),
            ),
        };
        let manifest = manifest.map(Arc::new);
        self.assemble(role, Parts { subject, compiled, manifest, locked }, config, upstreams, wire)
    }

    fn assemble(
        self: &Arc<Self>,
        role: Role,
        parts: Parts,
        config: &PluginConfig,
        upstreams: &Arc<[Arc<str>]>,
        wire: Option<Arc<dyn Wire>>,
    ) -> Result<Arc<Plugin>, PluginError> {
        let Parts { subject, compiled, manifest, locked } = parts;
        let own = manifest.as_deref();
        let wanted = own.map(|own| own.grants.clone()).unwrap_or_default();
        let name = Arc::clone(&subject.name);
        let has_guard = own.is_some_and(|own| own.guard.is_some());
        if config.needs_guard && compiled.exports.solver.is_some() && !has_guard {
            return Err(PluginError::Unguarded(subject));
        }
        let secrets = Secrets::read(&config.secrets).map_err(|(secret, from, cause)| {
            PluginError::Secret { of: subject.clone(), secret, from, cause }
        })?;
        warn_inline(&subject, config);
        let client = match compiled.imports_http {
            true => Some(Client::over(wire)?),
            false => None,
        };
        let facts = Facts {
            limits: config.limits.clone(),
            grants: config.grants.http.clone(),
            zones: config.zones.clone(),
            hmac: config.grants.hmac.clone(),
            request: wanted.request.granted(&config.grants.request),
            response: wanted.response.granted(&config.grants.response),
            refused: Mutex::default(),
            secrets,
            guard: own.and_then(|own| own.guard.clone()),
            signing: own.map(|own| own.signing.clone()).unwrap_or_default(),
            sessions: Sessions::new(own.map(|own| own.sessions.clone()).unwrap_or_default()),
            config: config.config.clone(),
            upstreams: upstreams.iter().cloned().collect(),
            state: match role {
                Role::Used => self.state(&name),
                Role::Shadow => Arc::default(),
            },
            log: Rate::new(config.limits.log_lines_per_second_max),
            client,
            subject,
        };
        let plugin = Arc::new(Plugin {
            calls_max: config.reuse.calls_max.unwrap_or(u64::MAX),
            locked,
            manifest,
            stats: match role {
                Role::Used => self.stats(&name),
                Role::Shadow => Arc::default(),
            },
            recorder: Recorder::default(),
            reserves: Reserves::default(),
            start_time: StartTime::default(),
            engine: Arc::clone(self),
            compiled,
            facts: Arc::new(facts),
            config: config.config.to_string().into(),
        });
        warn_unguarded(&plugin);
        // The first instance proves that it starts and takes its configuration.
        if plugin.compiled.exports.may_wait() {
            fiber::self_test(&plugin)?;
        } else {
            pool::self_test(&plugin)?;
        }
        Ok(plugin)
    }

    /// Looks at a component without running it.
    ///
    /// # Errors
    /// When it is no component.
    pub fn inspect(&self, component: &Path) -> Result<Inspection, PluginError> {
        let (file, digest, subject) = read(&Arc::from(""), component)?;
        let manifest = Manifest::of_component(&file, component)
            .map_err(|cause| PluginError::Manifest(subject.clone(), cause))?;
        let component = Component::from_binary(&self.wasm, &file)
            .map_err(|cause| PluginError::Compile(subject, cause))?;
        let ty = component.component_type();
        let found = Exports::find(&component);
        let has_bodies = found.as_ref().is_some_and(|exports| exports.body.is_some());
        let worlds = found.map(|exports| exports.worlds()).unwrap_or_default();
        let sends = v0_1::imports_http(&self.wasm, &component);
        let asks = lock::asks(manifest.as_ref(), sends, &worlds, has_bodies);
        Ok(Inspection {
            digest: hex::lower(&digest),
            bytes: u64::try_from(file.len()).unwrap_or(u64::MAX),
            worlds: worlds.into_iter().map(str::to_owned).collect(),
            imports: ty.imports(&self.wasm).map(|(name, _)| name.to_owned()).collect(),
            exports: ty.exports(&self.wasm).map(|(name, _)| name.to_owned()).collect(),
            manifest,
            asks,
        })
    }

    fn compile(
        self: &Arc<Self>,
        file: &[u8],
        digest: Digest,
        of: &Subject,
    ) -> Result<Arc<Compiled>, PluginError> {
        let place = self.compiled(&digest);
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = place.upgrade() {
            return Ok(known);
        }
        let cached = self.cache.join(format!("{}-{:016x}.cwasm", of.digest, self.compatibility));
        let component = match self.cached(&cached) {
            Some(component) => component,
            None => {
                let component = Component::from_binary(&self.wasm, file)
                    .map_err(|cause| PluginError::Compile(of.clone(), cause))?;
                self.keep(&component, &cached);
                component
            }
        };
        let compiled = Arc::new(self.link(&component, of)?);
        *place = Arc::downgrade(&compiled);
        Ok(compiled)
    }

    fn link(&self, component: &Component, of: &Subject) -> Result<Compiled, PluginError> {
        let Some(exports) = Exports::find(component) else {
            let ty = component.component_type();
            let exports = ty.exports(&self.wasm).map(|(name, _)| name.to_owned()).collect();
            return Err(PluginError::NoWorld { of: of.clone(), exports });
        };
        let imports_http = v0_1::imports_http(&self.wasm, component);
        let is_inline = exports.is_inline();
        if imports_http && is_inline {
            return Err(PluginError::HttpInHook(of.clone()));
        }
        if is_inline && exports.must_wait() {
            return Err(PluginError::TwoKinds { of: of.clone(), worlds: exports.worlds() });
        }
        let linker =
            v0_1::link(&self.wasm, component, !is_inline).map_err(|unlinked| match unlinked {
                Unlinked::Unknown(import) => PluginError::UnknownImport { of: of.clone(), import },
                Unlinked::Type(cause) => PluginError::Link(of.clone(), cause),
            })?;
        let pre = linker
            .instantiate_pre(component)
            .map_err(|cause| PluginError::Link(of.clone(), cause))?;
        Ok(Compiled { pre, worlds: exports.worlds(), exports, imports_http })
    }

    /// Compiled code of an earlier run, when it is there and fits.
    #[expect(
        unsafe_code,
        reason = "compiled code is machine code: it cannot be checked, only trusted"
    )]
    fn cached(&self, path: &Path) -> Option<Component> {
        if !path.exists() {
            return None;
        }
        // SAFETY: the file was written by `keep`: only this user can enter the folder (0700,
        // owner checked at start), a file gets its name only when it is complete and synced, and
        // nothing ever writes to it again, so it is what `Component::serialize` made. That it is of
        // this engine and these settings is checked by `deserialize_file` itself.
        match unsafe { Component::deserialize_file(&self.wasm, path) } {
            Ok(component) => {
                // Only so that `prune` knows what is in use.
                let file = std::fs::File::options().write(true).open(path);
                let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
                Some(component)
            }
            Err(cause) => {
                tracing::warn!(path = %path.display(), %cause, "rebuilding compiled plugin code");
                None
            }
        }
    }

    /// Keeps compiled code for the next start. Failing costs time then, so it is only logged.
    fn keep(&self, component: &Component, path: &Path) {
        let written = component.serialize().map_err(std::io::Error::other).and_then(|code| {
            use std::os::unix::fs::OpenOptionsExt;

            let unique = uuid::Uuid::now_v7().simple().to_string();
            let draft = path.with_extension(unique);
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&draft)?;
            let written = std::io::Write::write_all(&mut file, &code)
                .and_then(|()| file.sync_all())
                .and_then(|()| std::fs::rename(&draft, path))
                .and_then(|()| std::fs::File::open(&self.cache)?.sync_all());
            if written.is_err() {
                let _ = std::fs::remove_file(&draft);
            }
            written.and_then(|()| prune(&self.cache))
        });
        if let Err(cause) = written {
            tracing::warn!(path = %path.display(), %cause, "cannot keep compiled plugin code");
        }
    }
}

/// Drops what has not been used for longest, so that a plugin edited all day does not fill the
/// disk. A process that has such a file mapped keeps it.
fn prune(cache: &Path) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(cache)? {
        let entry = entry?;
        files.push((entry.metadata()?.modified()?, entry.path()));
    }
    files.sort_unstable_by(|a, b| b.cmp(a));
    for (_, path) in files.iter().skip(CACHE_FILES_MAX) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// Reads a component file, within a bound.
fn read(name: &Arc<str>, path: &Path) -> Result<(Vec<u8>, Digest, Subject), PluginError> {
    let mut subject =
        Subject { name: Arc::clone(name), file: Arc::new(path.to_owned()), digest: Arc::from("") };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    if let Err(cause) = read {
        return Err(PluginError::Read(subject, cause));
    }
    if u64::try_from(bytes.len()).is_ok_and(|len| len > FILE_BYTES_MAX) {
        return Err(PluginError::TooLarge { of: subject, bytes_max: FILE_BYTES_MAX });
    }
    let mut digest = [0; 32];
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    for (into, byte) in digest.iter_mut().zip(sum.as_ref()) {
        *into = *byte;
    }
    subject.digest = Arc::from(hex::lower(&digest));
    Ok((bytes, digest, subject))
}

/// Says that nothing holds a solver to the records of its orders.
fn warn_unguarded(plugin: &Plugin) {
    let facts = &plugin.facts;
    let is_solver = plugin.compiled.exports.solver.is_some();
    if is_solver
        && plugin.compiled.imports_http
        && facts.guard.is_none()
        && !facts.grants.is_empty()
    {
        tracing::warn!(
            plugin = &*facts.subject.name,
            digest = facts.subject.short_digest(),
            "the plugin's plugin.yaml has no `guard`: it may change whatever its grants and secrets \
             reach, not only the records of an order"
        );
    }
}

fn warn_inline(of: &Subject, config: &PluginConfig) {
    let is_inline = |secret: &Secret| matches!(secret.source, crate::config::SecretRef::Inline(_));
    for (name, _) in config.secrets.iter().filter(|(_, secret)| is_inline(secret)) {
        tracing::warn!(
            plugin = &*of.name,
            secret = name,
            "the secret is written in gateway.yaml; {{env: …}}, {{file: …}} and {{credential: …}} \
             keep it out of backups and version control"
        );
    }
}

/// The largest component file, inclusive.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Files in the cache, inclusive.
const CACHE_FILES_MAX: usize = 64;
