//! The command line: parses words, decides nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
    /// Serve until told to stop (SIGTERM drains, SIGHUP reloads).
    Run(ConfigFile),
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
    /// Work with plugins.
    #[command(subcommand)]
    Plugin(PluginCommand),
}

/// Work with plugins.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
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
