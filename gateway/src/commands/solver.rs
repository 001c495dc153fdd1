//! `witgate solver`: finds solvers in a catalogue, writes their stanzas, and tries them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{runtime, tempfile_folder};
use crate::acme::rehearsal::Rehearsal;
use crate::acme::solve::dns01::DnsSolver;
use crate::acme::solve::rfc2136::UpdateServer;
use crate::cli::SolverCommand;
use crate::config::{self, Config, Manifest, lock};
use crate::fault::describe;
use crate::generation::Generation;
use crate::plugin::Engine;
use crate::upstream::sticky::StickyKey;

/// Runs one of the commands.
///
/// # Errors
/// What went wrong, for a person.
pub fn run(command: &SolverCommand) -> Result<(), String> {
    match command {
        SolverCommand::List { catalogue } => list(&catalogue.catalogue, ""),
        SolverCommand::Search { word, catalogue } => list(&catalogue.catalogue, word),
        SolverCommand::Add { name, r#as, catalogue } => {
            let solver = find(&catalogue.catalogue, name)?;
            print!("{}", stanza(&solver, r#as.as_deref(), &BTreeMap::new()));
            Ok(())
        }
        SolverCommand::ImportEnv { file, catalogue } => {
            import_env(&catalogue.catalogue, file.as_deref())
        }
        SolverCommand::Test { name, zone, file } => {
            with_solver(&file.config, name, async |solver, config| {
                rehearsal(solver, config, zone).once(|line| println!("{line}")).await
            })
        }
        SolverCommand::Conformance { name, zone, file } => {
            with_solver(&file.config, name, async |solver, config| {
                let rehearsal = rehearsal(solver, config, zone);
                let points = rehearsal.conform(|point| match &point.outcome {
                    Ok(()) => println!("{:>2} {}: passes", point.number, point.what),
                    Err(why) => println!("{:>2} {}: {why}", point.number, point.what),
                });
                let points = points.await;
                let passed = points.iter().filter(|point| point.outcome.is_ok()).count();
                println!(
                    "passes {passed} of {}; the others of the list want a provider that fails on \
                     purpose: see `witgate_sdk::testing::conformance`",
                    points.len()
                );
                if passed == points.len() { Ok(()) } else { Err("it does not conform".to_owned()) }
            })
        }
    }
}

/// A solver of a catalogue.
struct Solver {
    file: PathBuf,
    manifest: Manifest,
}

impl Solver {
    /// What people call it: without the `dns-` of its file.
    fn short(&self) -> &str {
        self.manifest.name.strip_prefix("dns-").unwrap_or(&self.manifest.name)
    }
}

/// All solvers in a folder, by name.
fn solvers(folder: &Path) -> Result<Vec<Solver>, String> {
    let cannot = |cause: std::io::Error| format!("cannot read {}: {cause}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let file = entry.map_err(cannot)?.path();
        if file.extension().is_none_or(|ending| ending != "wasm") {
            continue;
        }
        let manifest = Manifest::of_file(&file).map_err(|report| report.to_string())?;
        let is_solver = |it: &Manifest| it.worlds.iter().any(|world| world == "dns-solver");
        if let Some(manifest) = manifest.filter(is_solver) {
            found.push(Solver { file, manifest });
        }
    }
    found.sort_by(|a, b| a.short().cmp(b.short()));
    Ok(found)
}

fn find(folder: &Path, name: &str) -> Result<Solver, String> {
    let mut all = solvers(folder)?;
    let at = all.iter().position(|it| it.short() == name || it.manifest.name == name);
    match at {
        Some(at) => Ok(all.swap_remove(at)),
        None => Err(format!(
            "{} has no solver {name:?}; there are: {}",
            folder.display(),
            all.iter().map(Solver::short).collect::<Vec<_>>().join(", ")
        )),
    }
}

fn list(folder: &Path, word: &str) -> Result<(), String> {
    let word = word.to_ascii_lowercase();
    for solver in solvers(folder)? {
        let about = solver.manifest.description.clone().unwrap_or_default();
        let is_it = |text: &str| text.to_ascii_lowercase().contains(&word);
        if is_it(solver.short()) || is_it(&about) {
            let guard = if solver.manifest.guard.is_some() { "" } else { " [no guard]" };
            println!("{:<16} {about}{guard}", solver.short());
        }
    }
    Ok(())
}

/// The stanza for gateway.yaml, and in comments what it will be allowed to do. `known` are variables
/// that are set, with their values, which only stand in it when they are no secrets.
fn stanza(solver: &Solver, name: Option<&str>, known: &BTreeMap<String, String>) -> String {
    let manifest = &solver.manifest;
    let name = name.unwrap_or(solver.short());
    let mut text = String::new();
    let about = manifest.description.clone().unwrap_or_default();
    let _ = writeln!(text, "# {} {}: {about}", manifest.name, manifest.version);
    let _ = writeln!(text, "# It will be allowed to:");
    for line in lock::asks(Some(manifest), true, &["dns-solver"]) {
        if line != "send requests" && !line.starts_with("http ") {
            let _ = writeln!(text, "#   {line}");
        }
    }
    let _ = writeln!(text, "plugins:\n  {name}:");
    let _ = writeln!(text, "    component: {:?}", solver.file.display().to_string());
    let config = own_config(manifest, known);
    if !config.is_empty() {
        let _ = writeln!(text, "    config: {{{}}}", config.join(", "));
    }
    let is_left_out =
        |wanted: &config::WantedSecret| !wanted.required && from_is_absent(wanted, known);
    if !manifest.secrets.is_empty() {
        let mark = if manifest.secrets.values().all(is_left_out) { "#: " } else { "" };
        let _ = writeln!(text, "    {mark}secrets:");
    }
    for (secret, wanted) in &manifest.secrets {
        let file = |name: &String| known.get(&format!("{name}_FILE"));
        let variable = wanted.env.iter().find(|name| known.contains_key(*name));
        let from = match (variable, wanted.env.iter().find_map(file)) {
            (Some(variable), _) => format!("{{env: {variable}}}"),
            (None, Some(path)) => format!("{{file: {path:?}}}"),
            (None, None) => {
                let unnamed =
                    format!("{name}_{secret}").to_ascii_uppercase().replace(['-', '.'], "_");
                format!("{{env: {}}}", wanted.env.first().unwrap_or(&unnamed))
            }
        };
        let mark = if is_left_out(wanted) { "#: " } else { "" };
        let about = wanted.description.as_ref().map(|it| format!("   # {it}")).unwrap_or_default();
        let _ = writeln!(text, "      {mark}{secret}: {from}{about}");
    }
    let _ = writeln!(text, "    grants:\n      http:");
    for grant in &manifest.grants.http {
        let _ = writeln!(text, "        - {grant:?}");
    }
    let _ = writeln!(text, "certificates:\n  challenge: {{dns-01: {name}}}");
    text
}

fn from_is_absent(wanted: &config::WantedSecret, known: &BTreeMap<String, String>) -> bool {
    !wanted
        .env
        .iter()
        .any(|name| known.contains_key(name) || known.contains_key(&format!("{name}_FILE")))
}

/// `key: value` for what `config:` has to have, and for what variables say.
fn own_config(manifest: &Manifest, known: &BTreeMap<String, String>) -> Vec<String> {
    let Some(schema) = &manifest.config else { return Vec::new() };
    let required = schema.get("required").and_then(|it| it.as_array()).cloned().unwrap_or_default();
    let properties = schema.get("properties").and_then(|it| it.as_object());
    let mut config = Vec::new();
    for (key, property) in properties.into_iter().flatten() {
        let names = property.get("x-env").and_then(|it| it.as_array()).into_iter().flatten();
        let value = names.filter_map(|it| it.as_str()).find_map(|name| known.get(name));
        match value {
            Some(value) => config.push(format!("{key}: {value:?}")),
            None if required.iter().any(|it| it == key) => {
                let example = property.get("examples").and_then(|it| it.get(0)).cloned();
                let example = example.unwrap_or_else(|| key.to_ascii_uppercase().into());
                config.push(format!("{key}: {example}"));
            }
            None => {}
        }
    }
    config
}

/// Stanzas for the providers whose variables are set, in this process or in a file of `KEY=VALUE`
/// lines, as those of Traefik, Caddy and lego.
fn import_env(folder: &Path, file: Option<&Path>) -> Result<(), String> {
    let known: BTreeMap<String, String> = match file {
        Some(path) => variables(
            &std::fs::read_to_string(path)
                .map_err(|cause| format!("cannot read {}: {cause}", path.display()))?,
        ),
        None => std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    };
    let mut found = false;
    for solver in solvers(folder)? {
        let mut required = solver.manifest.secrets.values().filter(|it| it.required).peekable();
        if required.peek().is_some() && required.all(|it| !from_is_absent(it, &known)) {
            found = true;
            println!("{}", stanza(&solver, None, &known));
        }
    }
    if let Some(text) = updates(&known) {
        found = true;
        println!("{text}");
    }
    match found {
        true => Ok(()),
        false => {
            Err("no variables of a solver of the catalogue are set; `witgate solver list` shows \
                      what there is"
                .to_owned())
        }
    }
}

/// The server of RFC 2136 that lego's variables name.
fn updates(known: &BTreeMap<String, String>) -> Option<String> {
    let variable = |rest: &str| {
        let names = [format!("DNSUPDATE_{rest}"), format!("RFC2136_{rest}")];
        names.into_iter().find(|name| known.contains_key(name))
    };
    let value = |rest: &str| variable(rest).and_then(|name| known.get(&name));
    let mut text = format!(
        "# DNS UPDATE (RFC 2136), without a plugin\ncertificates:\n  challenge: {{dns-01: own}}\n  \
         updates:\n    own:\n      server: {:?}\n",
        value("NAMESERVER")?
    );
    if let (Some(key), Some(secret)) = (value("TSIG_KEY"), variable("TSIG_SECRET")) {
        let _ = writeln!(text, "      key: {:?}", key.trim_end_matches('.'));
        if let Some(algorithm) = value("TSIG_ALGORITHM") {
            let algorithm = algorithm.trim_end_matches('.').to_ascii_lowercase();
            let _ = writeln!(text, "      algorithm: {algorithm}");
        }
        let _ = writeln!(text, "      secret: {{env: {secret}}}");
    }
    Some(text)
}

/// `KEY=VALUE` lines, as shells, systemd and Docker read them.
fn variables(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
        let value = value.trim();
        let quoted = ['"', '\''].iter().find_map(|quote| {
            value.strip_prefix(*quote).and_then(|value| value.strip_suffix(*quote))
        });
        Some((name.trim().to_owned(), quoted.unwrap_or(value).to_owned()))
    };
    text.lines().filter_map(line).collect()
}

fn rehearsal(solver: Arc<dyn DnsSolver>, config: &Config, zone: &str) -> Rehearsal {
    let of = &config.certificates;
    Rehearsal::new(solver, zone, of.resolvers.clone(), &of.propagation)
}

/// Builds the configuration as `run` does, and calls `then` with one of its solvers.
fn with_solver(
    file: &Path,
    name: &str,
    then: impl AsyncFnOnce(Arc<dyn DnsSolver>, &Config) -> Result<(), String>,
) -> Result<(), String> {
    let config = config::load(file).map_err(|report| report.to_string())?.config;
    let cache = tempfile_folder()?;
    let done = runtime()?.block_on(async {
        let engine = Engine::start(cache.clone()).map_err(|cause| describe(&cause))?;
        let built =
            Generation::build(config.clone(), &engine, None, &StickyKey::new(&[]), &Arc::default())
                .await;
        let generation =
            built.map_err(|errors| errors.iter().map(describe).collect::<Vec<_>>().join("\n"))?;
        let plugin = generation.plugins.get(name).filter(|plugin| plugin.is("dns-solver"));
        let server = config.certificates.updates.get(name);
        let solver: Arc<dyn DnsSolver> = match (plugin, server) {
            (Some(plugin), _) => plugin.solver(),
            (None, Some(server)) => Arc::new(UpdateServer::new(name, server)),
            (None, None) => {
                return Err(format!("{} has no dns-solver called {name}", file.display()));
            }
        };
        then(solver, &config).await
    });
    let _ = std::fs::remove_dir_all(&cache);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_shells_do() {
        let read = variables("# a\nexport A=1\nB=\"two words\"\n C = 'x'\nnonsense\nD=a=b\n");
        let wanted = [("A", "1"), ("B", "two words"), ("C", "x"), ("D", "a=b")];
        let wanted: Vec<_> = wanted.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        assert_eq!(read.into_iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_server_of_updates_is_imported_without_its_secret() {
        let known = variables(
            "RFC2136_NAMESERVER=192.0.2.53:53\nRFC2136_TSIG_KEY=acme.\n\
             RFC2136_TSIG_ALGORITHM=hmac-sha512.\nRFC2136_TSIG_SECRET=c2VjcmV0\n",
        );
        let text = updates(&known).unwrap();
        assert!(text.contains("secret: {env: RFC2136_TSIG_SECRET}"), "{text}");
        assert!(text.contains("algorithm: hmac-sha512\n") && !text.contains("c2VjcmV0"), "{text}");
        assert!(updates(&BTreeMap::new()).is_none());
    }
}
