//! Why a plugin did not load or a call failed: one enum, with who it is about in every variant.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{Report, SecretRef};
use crate::fault::Fault;
use crate::tls::roots::RootsError;

/// Which plugin an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its name in `gateway.yaml`; empty when only a file is looked at.
    pub name: Arc<str>,
    /// The component file.
    pub file: Arc<PathBuf>,
    /// SHA-256 of the file in hex; empty when it could not be read.
    pub digest: Arc<str>,
}

impl Subject {
    /// The digest's first twelve digits, enough to tell versions apart.
    pub fn short_digest(&self) -> &str {
        self.digest.get(..12).unwrap_or(&self.digest)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.name.is_empty() {
            write!(f, "plugin {} (", self.name)?;
        }
        write!(f, "{}", self.file.display())?;
        if !self.digest.is_empty() {
            write!(f, ", sha256 {}", self.short_digest())?;
        }
        f.write_str(if self.name.is_empty() { "" } else { ")" })
    }
}

/// Why a plugin did not load or a call failed. Says plugin, digest and cause.
#[derive(Debug)]
pub enum PluginError {
    /// The machine cannot run the Wasm engine.
    Engine(wasmtime::Error),
    /// The cache folder cannot be made or is open to others.
    Cache(PathBuf, std::io::Error),
    /// The component file cannot be read.
    Read(Subject, std::io::Error),
    /// The component file is larger than any plugin should be.
    TooLarge {
        /// The plugin.
        of: Subject,
        /// The limit, inclusive.
        bytes_max: u64,
    },
    /// The file is not a component that can be compiled.
    Compile(Subject, wasmtime::Error),
    /// No key of `plugin-keys` has signed it.
    Unsigned(Subject),
    /// A solver without a guard, where one is asked for.
    Unguarded(Subject),
    /// What it says about itself is wrong.
    Manifest(Subject, Report),
    /// It exports none of the worlds.
    NoWorld {
        /// The plugin.
        of: Subject,
        /// What it does export.
        exports: Vec<String>,
    },
    /// It cannot be used where the configuration names it.
    WrongWorld {
        /// The plugin.
        of: Subject,
        /// The world that is wanted.
        wanted: &'static str,
        /// The worlds it fits.
        worlds: Vec<&'static str>,
    },
    /// It imports something that the gateway does not have.
    UnknownImport {
        /// The plugin.
        of: Subject,
        /// The interface, and the function when that alone is missing.
        import: String,
    },
    /// A plugin that runs inline imports `witgate:plugin/http`.
    HttpInHook(Subject),
    /// It is of worlds that run inline and of ones that wait.
    TwoKinds {
        /// The plugin.
        of: Subject,
        /// The worlds it fits.
        worlds: Vec<&'static str>,
    },
    /// Its imports or exports have other types than the contract's.
    Link(Subject, wasmtime::Error),
    /// A secret of it cannot be read.
    Secret {
        /// The plugin.
        of: Subject,
        /// The secret's name.
        secret: String,
        /// Where it should come from.
        from: SecretRef,
        /// Why not.
        cause: std::io::Error,
    },
    /// `configure` returned an error; the text is the plugin's own.
    Configure {
        /// The plugin.
        of: Subject,
        /// Its words.
        message: String,
    },
    /// `configure` asked for a hook that there is not.
    UnknownHook {
        /// The plugin.
        of: Subject,
        /// What it asked for.
        code: String,
    },
    /// No instance of it could be started.
    Start(Subject, wasmtime::Error),
    /// The roots for its outgoing requests cannot be read.
    Roots(RootsError),
    /// A call trapped, or broke a rule of the contract.
    Trap {
        /// The plugin.
        of: Subject,
        /// The function called.
        hook: &'static str,
        /// What went wrong, in a line; for a panic, its text.
        message: String,
        /// The trap, with the functions it went through.
        cause: wasmtime::Error,
    },
    /// A call went over a limit.
    Overrun {
        /// The plugin.
        of: Subject,
        /// The function called.
        hook: &'static str,
        /// The limit's key below the plugin's stanza, such as `limits.deadline`.
        key: &'static str,
        /// What it is set to.
        limit: String,
    },
    /// Too many calls failed in a row; the plugin is left alone for a while.
    BreakerOpen {
        /// The plugin.
        of: Subject,
        /// The last failure.
        last: String,
    },
    /// The instance that held the state of a body ended, because another call failed.
    BodyLost(Subject),
    /// Bodies under way hold as many instances as they may.
    Crowded(Subject),
}

impl PluginError {
    /// Who has to do something about it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Engine(_)
            | Self::Cache(..)
            | Self::Read(..)
            | Self::TooLarge { .. }
            | Self::Roots(_)
            | Self::WrongWorld { .. }
            | Self::Unsigned(_)
            | Self::Unguarded(_)
            | Self::Secret { .. } => Fault::Operator,
            Self::Compile(..)
            | Self::Manifest(..)
            | Self::NoWorld { .. }
            | Self::UnknownImport { .. }
            | Self::HttpInHook(_)
            | Self::TwoKinds { .. }
            | Self::Link(..)
            | Self::Configure { .. }
            | Self::UnknownHook { .. }
            | Self::Start(..)
            | Self::Trap { .. }
            | Self::Overrun { .. }
            | Self::BreakerOpen { .. }
            | Self::BodyLost(_)
            | Self::Crowded(_) => Fault::Plugin,
        }
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(_) => f.write_str("cannot start the WebAssembly engine"),
            Self::Cache(path, _) => {
                write!(f, "cannot use {} for compiled plugins", path.display())
            }
            Self::Read(of, _) => write!(f, "cannot read the component of {of}"),
            Self::TooLarge { of, bytes_max } => {
                write!(f, "{of} is larger than {} MiB", bytes_max >> 20)
            }
            Self::Compile(of, _) => {
                write!(f, "{of} is not a component that this gateway can compile")
            }
            Self::Unguarded(of) => write!(
                f,
                "plugin {of} is a solver without a guard, and `unguarded-solvers: refuse` wants one: take a \
                 version whose plugin.yaml has a `guard`"
            ),
            Self::Unsigned(of) => write!(
                f,
                "{of} is not signed with a key of `plugin-keys`; sign it with `witgate plugin sign`"
            ),
            Self::Manifest(of, _) => {
                write!(f, "{of} is wrong about itself; mend its plugin.yaml and put it in again")
            }
            Self::NoWorld { of, exports } => write!(
                f,
                "{of} is no plugin: it must export plugin and the hooks of a world of {CONTRACT}, such as \
                 filter-hooks; it exports {}",
                list(exports)
            ),
            Self::WrongWorld { of, wanted, worlds } => {
                write!(f, "{of} cannot be used as {wanted}: it is {}", list(worlds))
            }
            Self::UnknownImport { of, import } => write!(
                f,
                "{of} imports {import}, which this gateway does not have; its contract is \
                 {CONTRACT}. Build the plugin for this version or use a newer gateway"
            ),
            Self::HttpInHook(of) => write!(
                f,
                "{of} imports http of {CONTRACT}, which a router, a filter or a client-hello plugin \
                 may not use: it runs inside a request or handshake and cannot wait. Remove the import"
            ),
            Self::TwoKinds { of, worlds } => write!(
                f,
                "{of} is {}: some of these run inline and some wait for the host. Make two \
                 components of it",
                list(worlds)
            ),
            Self::Link(of, _) => write!(f, "{of} does not fit the contract {CONTRACT}"),
            Self::Secret { of, secret, from, .. } => {
                write!(f, "{of}: cannot read secret {secret} from {}", origin(from))
            }
            Self::Configure { of, message } => {
                write!(f, "{of} does not accept its configuration: {message}")
            }
            Self::UnknownHook { of, code } => write!(
                f,
                "{of} asks for the hook {code:?}; a filter may ask for request, request-body:N, \
                 response or none"
            ),
            Self::Start(of, _) => write!(f, "{of} cannot be started"),
            Self::Roots(_) => f.write_str("no TLS roots for the requests of plugins"),
            Self::Trap { of, hook, message, .. } => write!(f, "{of} failed in {hook}: {message}"),
            Self::Overrun { of, hook, key, limit } => write!(
                f,
                "{of} was stopped in {hook}: it went over {limit}; raise plugins.{}.{key} if that \
                 is too little",
                of.name
            ),
            Self::BreakerOpen { of, last } => {
                write!(f, "{of} is not called for a while, since it failed again and again: {last}")
            }
            Self::Crowded(of) => write!(
                f,
                "{of} gets no further instance, since bodies that are under way hold too many; \
                 without `isolation: request` and `recycle` they share one"
            ),
            Self::BodyLost(of) => write!(
                f,
                "the instance of {of} that held the state of this body ended, since another call \
                 failed; with `isolation: request` each body has an instance of its own"
            ),
        }
    }
}

impl std::error::Error for PluginError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Engine(cause)
            | Self::Compile(_, cause)
            | Self::Link(_, cause)
            | Self::Start(_, cause)
            | Self::Trap { cause, .. } => Some(cause.as_ref()),
            Self::Cache(_, cause) | Self::Read(_, cause) | Self::Secret { cause, .. } => {
                Some(cause)
            }
            Self::Roots(cause) => Some(cause),
            Self::Manifest(_, cause) => Some(cause),
            Self::TooLarge { .. }
            | Self::Unsigned(_)
            | Self::Unguarded(_)
            | Self::NoWorld { .. }
            | Self::WrongWorld { .. }
            | Self::UnknownImport { .. }
            | Self::HttpInHook(_)
            | Self::TwoKinds { .. }
            | Self::Configure { .. }
            | Self::UnknownHook { .. }
            | Self::Overrun { .. }
            | Self::BreakerOpen { .. }
            | Self::BodyLost(_)
            | Self::Crowded(_) => None,
        }
    }
}

fn list<S: AsRef<str>>(items: &[S]) -> String {
    if items.is_empty() {
        return "nothing".to_owned();
    }
    items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

/// Where a secret comes from, without the secret.
fn origin(from: &SecretRef) -> String {
    match from {
        SecretRef::Env(name) => format!("the environment variable {name}"),
        SecretRef::File(path) => path.display().to_string(),
        SecretRef::Credential(name) => format!("the systemd credential {name}"),
        SecretRef::Inline(_) => "gateway.yaml".to_owned(),
    }
}

/// The contract that this gateway speaks.
pub(super) const CONTRACT: &str = "witgate:plugin@0.1.0";
