//! Arguments, then configuration, then runtime, then start, then signals, then drain.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use witgate::cli::{Cli, Command, DebugCommand, PluginCommand};
use witgate::gateway::Gateway;
use witgate::handover::{self, Inheritance, Predecessor};
use witgate::{commands, config, fault, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run { file, take_over } => run(&file.config, take_over),
        Command::Check { file, full, plugins } => commands::check(&file.config, full, plugins),
        Command::Explain { request, sni, headers, data, from, file } => {
            commands::explain(&file.config, &request, sni, &headers, data, from)
        }
        Command::Schema => commands::schema(),
        Command::Trust { file, print } => commands::trust(&file.config, print),
        Command::Untrust(file) => commands::untrust(&file.config),
        Command::Status(file) => commands::admin(&file.config, "GET", "/status"),
        Command::Reload(file) => commands::admin(&file.config, "POST", "/reload"),
        Command::Upgrade(file) => commands::admin(&file.config, "POST", "/upgrade"),
        Command::Debug(DebugCommand::Keylog { sni, from, time, file }) => {
            commands::key_log(&file.config, sni.as_deref(), from, &time)
        }
        Command::HashPassword => commands::hash_password(),
        Command::Plugin(PluginCommand::New { name, lang, world, folder }) => {
            commands::new_plugin(&name, lang, world, folder.as_deref())
        }
        Command::Plugin(PluginCommand::Build { folder }) => commands::build_plugin(&folder),
        Command::Solver(command) => commands::solver::run(&command),
        Command::Certs(command) => commands::certs::run(&command),
        Command::Plugin(PluginCommand::Embed { file, manifest, output }) => {
            commands::embed(&file, &manifest, output.as_deref())
        }
        Command::Plugin(PluginCommand::Accept { names, file }) => {
            commands::accept(&file.config, &names)
        }
        Command::Plugin(PluginCommand::Test { file, cases }) => commands::test(&file, &cases),
        Command::Plugin(PluginCommand::Bench { file, cases, rounds, deadlines }) => {
            commands::bench(&file, &cases, rounds, deadlines)
        }
        Command::Plugin(PluginCommand::Record { name, path, timeout, file }) => {
            commands::record(&file.config, &name, &path, timeout)
        }
        Command::Plugin(PluginCommand::Replay { recording, component }) => {
            commands::replay(&recording, &component)
        }
        Command::Plugin(PluginCommand::Sign { file, key }) => commands::sign(&file, &key),
        Command::Plugin(PluginCommand::Inspect { file, json }) => commands::inspect(&file, json),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{}", text.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn run(file: &Path, take_over: bool) -> Result<(), String> {
    let activated = handover::activated();
    let runtime = commands::runtime()?;
    runtime.block_on(async {
        let (before, inheritance) = match take_over {
            true => {
                let met = Predecessor::meet().await.map_err(|error| fault::describe(&error))?;
                (Some(met.0), met.1)
            }
            false => (None, activated),
        };
        let started = start(file, inheritance, before.as_ref()).await;
        if let (Err(text), Some(before)) = (&started, &before) {
            before.fail(text.trim_end()).await;
        }
        drop(before);
        started?.run().await.map_err(|error| fault::describe(&error))
    })
}

async fn start(
    file: &Path,
    inheritance: Inheritance,
    before: Option<&Predecessor>,
) -> Result<Gateway, String> {
    let loaded = config::load(file).map_err(|report| report.to_string())?;
    let levels = telemetry::start(&loaded.config.log)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let started = Gateway::start(file, loaded, levels, inheritance, before).await;
    started.map_err(|error| fault::describe(&error))
}
