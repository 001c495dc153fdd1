//! `cargo xtask`: what is too much logic for the Makefile. No dependencies.

mod component;
mod cost;
mod languages;
mod plugins;
mod reference;
// Only its writing half is wanted here.
#[allow(dead_code, reason = "shared with the gateway")]
#[path = "../../../gateway/src/config/section.rs"]
mod section;
mod wit;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let result = match (arguments.next().as_deref(), arguments.next()) {
        (Some("plugins"), None) => plugins::build(),
        (Some("freeze"), Some(version)) => {
            plugins::root().and_then(|root| wit::freeze(&root, &version))
        }
        (Some("languages"), witgate) => languages::write(witgate.as_deref()),
        (Some("cost"), None) => cost::check(false),
        (Some("cost"), Some(how)) if how == "--write" => cost::check(true),
        (Some("reference"), None) => plugins::root().and_then(|root| reference::write(&root)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

const USAGE: &str = "usage: cargo xtask COMMAND

  plugins   build the first-party plugins into target/plugins/
  freeze V  keep wit/ as the contract of release V
  reference write docs/reference/ from wit/
  cost [--write]
            count the instructions of a request, and compare with tests/bench/cost.txt or write it
  languages [WITGATE | --release]
            measure what plugins cost in each language, for the table of docs/PLUGINS.md,
            with this gateway or one that is built for it; when nothing else runs";
