//! The command line: parses words, decides nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::workshop::{Language, World};

/// A TLS gateway extended by sandboxed WebAssembly components.
///
/// Start with `witgate run`: it reads gateway.yaml in the present folder, obtains certificates and
/// serves. Change the file or a plugin while it runs and the change takes effect without a restart.
#[derive(Debug, Parser)]
#[command(name = "witgate", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The configuration file, for commands that read it.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = "gateway.yaml")]
    pub config: PathBuf,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until told to stop (SIGTERM drains, SIGHUP reloads, SIGUSR2 upgrades).
    Run {
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
        /// Take over from the process that started this one, see `witgate upgrade`.
        #[arg(long, hide = true)]
        take_over: bool,
    },
    /// Report every error in the configuration, with line and column.
    Check {
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
        /// Print the configuration with every default filled in.
        #[arg(long)]
        full: bool,
        /// Also load every plugin and start it with its configuration.
        #[arg(long)]
        plugins: bool,
    },
    /// Show what becomes of a request, step by step, without sending it anywhere.
    ///
    /// Certificate, client address, site, route, what each plugin decides and changes: against the
    /// configuration file, with its plugins run for real. Try it with another file before a reload.
    Explain {
        /// The method, and the URL as a client would ask for it: `GET https://host/path`; with --sni
        /// `https://NAME/` if absent.
        #[arg(required_unless_present = "sni", num_args = 1..=2, value_names = ["METHOD", "URL"])]
        request: Vec<String>,
        /// The server name of the handshake, when it is another than the URL's host.
        #[arg(long, value_name = "NAME")]
        sni: Option<String>,
        /// A field of the request, as in `-H 'accept: text/html'`; repeat it for more.
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
        headers: Vec<String>,
        /// The body, for filters that read its beginning.
        #[arg(short, long, default_value = "")]
        data: String,
        /// The address that the connection comes from.
        #[arg(long, value_name = "ADDRESS", default_value = "192.0.2.1")]
        from: std::net::IpAddr,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print the JSON Schema of gateway.yaml, for editors.
    Schema,
    /// Make this machine trust the gateway's local CA.
    Trust {
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
        /// Only print the root certificate (PEM).
        #[arg(long)]
        print: bool,
    },
    /// Take back what `trust` did.
    Untrust(ConfigFile),
    /// Show what the running gateway serves.
    Status(ConfigFile),
    /// Make the running gateway read its configuration again.
    Reload(ConfigFile),
    /// Have the program that is installed now take over from the running one, without downtime.
    ///
    /// The running process starts the program of the name that it was started by, hands it its
    /// sockets, and drains once the new one serves. When the new one cannot serve, the running one
    /// serves on, and this says why. SIGUSR2 does the same.
    Upgrade(ConfigFile),
    /// Make a hash for `basic-auth` of the password on standard input.
    HashPassword,
    /// See and steer certificates of the running gateway.
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Find DNS-01 solvers, write their stanzas, and try them at their provider.
    #[command(subcommand)]
    Solver(SolverCommand),
    /// Look into the running gateway.
    #[command(subcommand)]
    Debug(DebugCommand),
    /// Work with plugins.
    #[command(subcommand)]
    Plugin(PluginCommand),
}

/// Look into the running gateway.
#[derive(Debug, Subcommand)]
pub enum DebugCommand {
    /// Write the secrets of new TLS connections (over TCP) to standard output, for Wireshark.
    ///
    /// In the format of SSLKEYLOGFILE, for one server name, one client, or one client's connections to
    /// one name; until the time is over or this command ends. The gateway's log says so, loudly: with
    /// these lines anybody can read what the connections carry.
    Keylog {
        /// The server name.
        #[arg(long, value_name = "NAME", required_unless_present = "from")]
        sni: Option<String>,
        /// The client's address.
        #[arg(long, value_name = "ADDRESS")]
        from: Option<std::net::IpAddr>,
        /// For how long, an hour at most.
        #[arg(long = "for", value_name = "TIME", default_value = "5m")]
        time: String,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
    },
}

/// Where solvers are.
#[derive(Debug, Args)]
pub struct Catalogue {
    /// A folder with components, https://HOST/catalogue.json@sha256:HEX, or
    /// oci://REGISTRY/REPOSITORY@sha256:HEX.
    #[arg(long, value_name = "PLACE", default_value = "target/plugins")]
    pub catalogue: String,
    /// A PEM file with the roots to trust there, instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub roots: Option<PathBuf>,
}

/// Find DNS-01 solvers, write their stanzas, and try them at their provider.
#[derive(Debug, Subcommand)]
pub enum SolverCommand {
    /// List the solvers of the catalogue.
    List {
        /// The catalogue.
        #[command(flatten)]
        catalogue: Catalogue,
    },
    /// List the solvers whose name or description has a word in it.
    Search {
        /// The word.
        word: String,
        /// The catalogue.
        #[command(flatten)]
        catalogue: Catalogue,
    },
    /// Fetch a solver and print its stanza for gateway.yaml, and what it will be allowed to do.
    ///
    /// What is not on this machine is downloaded, held against its digest, and stored. Beside a
    /// gateway.yaml, gateway.lock is told what was added, so that nothing else takes its place.
    Add {
        /// The solver, with or without `dns-`; or a component, https://HOST/x.wasm@sha256:HEX or
        /// oci://REGISTRY/REPOSITORY@sha256:HEX.
        name: String,
        /// The folder to store it in.
        #[arg(long, value_name = "FOLDER", default_value = "plugins")]
        into: PathBuf,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
        /// What gateway.yaml shall call it; a second account at a provider is a second name.
        #[arg(long, value_name = "NAME")]
        r#as: Option<String>,
        /// The catalogue.
        #[command(flatten)]
        catalogue: Catalogue,
    },
    /// Print the catalogue file of a folder, to be served beside its components.
    Index {
        /// The folder.
        folder: PathBuf,
    },
    /// Print stanzas for the providers whose variables Traefik, Caddy or lego were given.
    ///
    /// Secrets stay where they are: the stanzas name the variables.
    ImportEnv {
        /// A file of KEY=VALUE lines; else this process's own variables.
        file: Option<PathBuf>,
        /// The catalogue.
        #[command(flatten)]
        catalogue: Catalogue,
    },
    /// Write, check and remove a record for real.
    Test {
        /// The solver, by its name in gateway.yaml.
        name: String,
        /// A zone that its credential may change.
        #[arg(long, value_name = "ZONE")]
        zone: String,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Hold a solver to the list of what each one has to do.
    ///
    /// A component (my.wasm) meets a mock of its provider, which you bring, and a CA and DNS in this
    /// process; docs/DNS01.md says what a mock is. A solver of gateway.yaml is tried for real, in a
    /// zone for tests: that shows the points that can be seen from outside.
    Conformance {
        /// A component, or a solver by its name in gateway.yaml.
        name: String,
        /// A zone that its credential may change, for a solver of gateway.yaml.
        #[arg(long, value_name = "ZONE", conflicts_with_all = ["mock", "recording"])]
        zone: Option<String>,
        /// The program that plays the component's provider, for the shell.
        #[arg(long, value_name = "COMMAND", conflicts_with = "recording")]
        mock: Option<String>,
        /// Keep what the mock said, for --recording.
        #[arg(long, value_name = "FILE", requires = "mock")]
        record: Option<PathBuf>,
        /// Play what a mock said earlier.
        #[arg(long, value_name = "FILE")]
        recording: Option<PathBuf>,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
    },
}

/// See and steer certificates of the running gateway.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// List what each name has, from which CA and until when, and what is done next.
    List {
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the orders that lie ahead.
    Plan {
        /// How far to look.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say why a name has the certificate it has, or has none.
    Why {
        /// The host name.
        name: String,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Order a new certificate for a name now. Limits of the CA and waits it asked for still hold.
    Renew {
        /// The host name.
        name: String,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Go through whole orders at the staging directory of the first issuer, and keep nothing.
    ///
    /// Listeners, DNS, solvers and the CA's view of the names are all tried for real, and no limit of
    /// the CA proper is touched.
    Rehearse {
        /// Host names; all without any.
        names: Vec<String>,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Give the gateway's accounts new keys.
    Rollover {
        /// The issuer's name; all without one.
        issuer: Option<String>,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Take over the accounts and certificates of Caddy, Traefik, certbot or lego.
    ///
    /// Reads their files and changes nothing there. Accounts and keys are kept, so that no limit of a
    /// CA starts to count; what this gateway has already and is as good stays.
    Import {
        /// Their folder (such as /etc/letsencrypt) or file (acme.json).
        from: PathBuf,
        /// Whose it is; recognised by itself.
        #[arg(long)]
        layout: Option<crate::migrate::Layout>,
        /// Only say what would be taken.
        #[arg(long)]
        dry_run: bool,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Write certificates with their keys as PEM files: FOLDER/NAME/fullchain.pem and privkey.pem.
    Export {
        /// Where to.
        folder: PathBuf,
        /// Host names; all that are in the store without any.
        names: Vec<String>,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Revoke the certificate of a name, and replace it with one that has a new key.
    Revoke {
        /// The host name.
        name: String,
        /// Why: unspecified, key-compromise, affiliation-changed, superseded or
        /// cessation-of-operation.
        #[arg(long)]
        reason: Option<String>,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
    },
}

/// Work with plugins.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Make a new plugin: a project that builds, passes its tests and runs at once.
    ///
    /// It is one of the examples under your name: a router that sends each tenant to an upstream, a
    /// filter that checks tokens, or a DNS-01 solver for a JSON API. Change what you need.
    New {
        /// The plugin's name.
        name: String,
        /// The language to write it in.
        #[arg(short, long, value_enum)]
        lang: Language,
        /// What it is to be.
        #[arg(short, long, value_enum)]
        world: World,
        /// Where to make it (default: a folder with its name, here).
        #[arg(short, long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
    /// Build a plugin with the tools of its language: FOLDER/NAME.wasm.
    Build {
        /// The plugin's folder, which has a plugin.yaml.
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Put a plugin.yaml into the component it describes.
    ///
    /// A gateway then checks the plugin's `config:` with file, line and column, names missing
    /// secrets, and shows what the plugin wants, all without running it.
    Embed {
        /// The component, changed in place.
        file: PathBuf,
        /// The plugin.yaml.
        manifest: PathBuf,
        /// Write the result here, and leave the component as it is.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Run a router or filter against cases, without a gateway or a network.
    ///
    /// A file of cases holds the plugin's stanza, requests, and what is to become of them; see
    /// docs/PLUGINS.md.
    Test {
        /// The component.
        file: PathBuf,
        /// Files of cases (YAML).
        #[arg(required = true)]
        cases: Vec<PathBuf>,
    },
    /// Measure what the calls of cases cost.
    Bench {
        /// The component.
        file: PathBuf,
        /// A file of cases (YAML), as for `test`.
        cases: PathBuf,
        /// Rounds of a thousand calls.
        #[arg(long, default_value_t = 50)]
        rounds: usize,
        /// Also measure without deadlines, and show what they cost.
        #[arg(long)]
        deadlines: bool,
    },
    /// Record the next request that a plugin of the running gateway meets, as JSON on standard
    /// output: heads, connection and every answer it got. Fields that it may not read are left out;
    /// those that it may can be anybody's secrets.
    Record {
        /// The plugin's name in gateway.yaml.
        name: String,
        /// Only a request whose path begins with this.
        #[arg(long, default_value = "/")]
        path: String,
        /// How many seconds to wait for it.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
        timeout: u32,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Run a recorded request again, offline, with this version of the plugin, and show what becomes
    /// different.
    Replay {
        /// What `record` wrote.
        recording: PathBuf,
        /// The component.
        component: PathBuf,
    },
    /// Show what new versions of plugins ask for beyond gateway.lock, and allow it.
    Accept {
        /// The plugins to accept, by their names in gateway.yaml; without any, only show.
        names: Vec<String>,
        /// The configuration file.
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Sign a component with an Ed25519 key, for gateways with `plugin-keys`.
    Sign {
        /// The component, changed in place.
        file: PathBuf,
        /// The private key in PEM (PKCS #8): `openssl genpkey -algorithm ed25519`.
        #[arg(short, long, value_name = "PEM")]
        key: PathBuf,
    },
    /// Show what a component is: what it says about itself, its worlds, imports and digest.
    Inspect {
        /// The component.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}
