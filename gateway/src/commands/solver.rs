//! `witgate solver`: finds solvers in a catalogue, writes their stanzas, and tries them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{runtime, tempfile_folder};
use crate::acme::rehearsal::{Point, Rehearsal};
use crate::acme::solve::dns01::DnsSolver;
use crate::acme::solve::rfc2136::UpdateServer;
use crate::catalogue::{self, Fetcher, Found, Place};
use crate::cli::{Catalogue, SolverCommand};
use crate::config::lock::{self, Lock, Locked};
use crate::config::{self, Config, Manifest};
use crate::conformance::{Provider, conform};
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
        SolverCommand::List { catalogue } => runtime()?.block_on(list(catalogue, "")),
        SolverCommand::Search { word, catalogue } => runtime()?.block_on(list(catalogue, word)),
        SolverCommand::Add { name, into, file, r#as, catalogue } => {
            let solver = runtime()?.block_on(fetch(catalogue, name, into))?;
            let name = r#as.as_deref().unwrap_or(solver.short());
            pin(&solver, name, &file.config)?;
            print!("{}", stanza(&solver, Some(name), &BTreeMap::new()));
            Ok(())
        }
        SolverCommand::Index { folder } => {
            let index = catalogue::index(folder)?;
            let text = serde_json::to_string_pretty(&index).map_err(|cause| cause.to_string())?;
            println!("{text}");
            Ok(())
        }
        SolverCommand::ImportEnv { file, catalogue } => {
            let Place::Folder(folder) = Place::parse(&catalogue.catalogue)? else {
                return Err(
                    "variables are looked for in a folder of solvers: `witgate solver add` those \
                            that you need first"
                        .to_owned(),
                );
            };
            import_env(&folder, file.as_deref())
        }
        SolverCommand::Test { name, zone, file } => {
            with_solver(&file.config, name, async |solver, config| {
                rehearsal(solver, config, zone).once(|line| println!("{line}")).await
            })
        }
        SolverCommand::Conformance { name, zone: None, mock, record, recording, .. } => {
            let component = Path::new(name);
            if component.extension().is_none_or(|ending| ending != "wasm") {
                return Err(format!(
                    "{name} is no component (a file that ends in .wasm); to try a solver of gateway.yaml, \
                     add --zone ZONE"
                ));
            }
            let (mock, record, recording) = (mock.clone(), record.clone(), recording.clone());
            conformance(component, &Provider { mock, record, recording })
        }
        SolverCommand::Conformance { name, zone: Some(zone), file, .. } => {
            with_solver(&file.config, name, async |solver, config| {
                let rehearsal = rehearsal(solver, config, zone);
                let points = rehearsal.conform(say).await;
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

/// Holds a component to the whole list.
fn conformance(component: &Path, provider: &Provider) -> Result<(), String> {
    let folder = tempfile_folder()?;
    let points = runtime()?.block_on(conform(component, provider, &folder, say));
    let _ = std::fs::remove_dir_all(&folder);
    let points = points?;
    let unmet: Vec<String> = points
        .iter()
        .filter(|point| point.outcome.is_err())
        .map(|point| point.number.to_string())
        .collect();
    println!("passes {} of {}", points.len() - unmet.len(), points.len());
    match unmet.is_empty() {
        true => Ok(()),
        false => Err(format!("it does not conform: see point {}", unmet.join(", "))),
    }
}

fn say(point: &Point) {
    match &point.outcome {
        Ok(()) => println!("{:>2} {}: passes", point.number, point.what),
        Err(why) => println!("{:>2} {}: {why}", point.number, point.what),
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

/// The solver called `name`, on this machine: fetched into a folder when it is not there yet.
async fn fetch(of: &Catalogue, name: &str, into: &Path) -> Result<Solver, String> {
    let fetcher = Fetcher { roots: of.roots.clone() };
    let (place, is_single) = match name.contains("://") {
        true => (name, true),
        false => (of.catalogue.as_str(), false),
    };
    let all = Place::parse(place)?.solvers(&fetcher).await?;
    let is_it = |it: &&Found| it.short() == name || it.name == name;
    let found = match (is_single, all.as_slice()) {
        (true, [only]) => Some(only),
        (true, _) => None,
        (false, all) => all.iter().find(is_it),
    };
    let found = found.ok_or_else(|| {
        let names = all.iter().map(Found::short).collect::<Vec<_>>().join(", ");
        match is_single {
            true => format!("{place} has several: name one with `--catalogue {place}`: {names}"),
            false => format!("{place} has no solver {name:?}; there are: {names}"),
        }
    })?;
    if let Some(file) = found.file() {
        let bytes = found.bytes(&fetcher).await?;
        let manifest = catalogue::manifest(&bytes, file)?;
        return Ok(Solver { file: file.to_owned(), manifest });
    }
    let bytes = found.bytes(&fetcher).await?;
    let manifest = catalogue::manifest(&bytes, Path::new(&found.name))?;
    // A name of the catalogue's could be a path.
    let file = into.join(format!("{}.wasm", manifest.name));
    let cannot = |cause: std::io::Error| format!("cannot write {}: {cause}", file.display());
    std::fs::create_dir_all(into).map_err(cannot)?;
    let beside = file.with_extension("wasm.new");
    std::fs::write(&beside, &bytes)
        .and_then(|()| std::fs::rename(&beside, &file))
        .map_err(cannot)?;
    println!("# stored in {}: sha256:{}", file.display(), catalogue::sha256(&bytes));
    Ok(Solver { file, manifest })
}

/// Writes into the `gateway.lock` beside `config` which version was added and what it asks for. What
/// is there under this name already stays, for `witgate plugin accept`.
fn pin(solver: &Solver, name: &str, config: &Path) -> Result<(), String> {
    if !config.exists() {
        return Ok(());
    }
    let path = config.with_extension("lock");
    let mut lock = Lock::read(&path).map_err(|report| report.to_string())?;
    let bytes = std::fs::read(&solver.file)
        .map_err(|cause| format!("cannot read {}: {cause}", solver.file.display()))?;
    let next = Locked {
        digest: catalogue::sha256(&bytes),
        version: Some(solver.manifest.version.clone()),
        asks: lock::asks(Some(&solver.manifest), true, &["dns-solver"], false),
    };
    match lock.plugins.get(name) {
        Some(known) if *known == next => return Ok(()),
        Some(known) => {
            let difference = known.difference(&next).replace('\n', "\n# ");
            println!("# {} has another {name}:\n# {difference}", path.display());
            return Ok(());
        }
        None => drop(lock.plugins.insert(name.to_owned(), next)),
    }
    lock.write(&path).map_err(|cause| format!("cannot write {}: {cause}", path.display()))?;
    println!("# pinned in {}", path.display());
    Ok(())
}

async fn list(of: &Catalogue, word: &str) -> Result<(), String> {
    let word = word.to_ascii_lowercase();
    let fetcher = Fetcher { roots: of.roots.clone() };
    for found in Place::parse(&of.catalogue)?.solvers(&fetcher).await? {
        let is_it = |text: &str| text.to_ascii_lowercase().contains(&word);
        if is_it(found.short()) || is_it(&found.about) {
            println!("{:<16} {}", found.short(), found.about);
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
    for line in lock::asks(Some(manifest), true, &["dns-solver"], false) {
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
    let is_left_out = |wanted: &config::WantedSecret| {
        let is_needed = wanted.required || (wanted.usual && known.is_empty());
        !is_needed && from_is_absent(wanted, known)
    };
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
        let secrets = || solver.manifest.secrets.values();
        let is_there = |it: &config::WantedSecret| !from_is_absent(it, &known);
        // Of what is usual, all or nothing: half a credential is somebody else's.
        let needed = |it: &config::WantedSecret| it.required || it.usual;
        let is_known = secrets().any(is_there) || has_variables(&solver.manifest, &known);
        if is_known && secrets().filter(|it| needed(it)).all(is_there) {
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

/// Whether a variable is set that stands for something in `config:`.
fn has_variables(manifest: &Manifest, known: &BTreeMap<String, String>) -> bool {
    let properties = manifest.config.as_ref().and_then(|it| it.get("properties")?.as_object());
    let names = properties.into_iter().flat_map(|it| it.values()).filter_map(|it| it.get("x-env"));
    let names = names.filter_map(|it| it.as_array()).flatten().filter_map(|it| it.as_str());
    let mut names = names;
    names.any(|name| known.contains_key(name))
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
