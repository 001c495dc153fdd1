//! The commands beside `run`: each prints what it found and ends.

pub mod certs;
pub mod solver;

use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cases;
use crate::config::cases::Cases;
use crate::config::lock::Lock;
use crate::config::{self, Config, Manifest};
use crate::explain;
use crate::fault::describe;
use crate::gateway;
use crate::generation::Generation;
use crate::plugin::{self, Engine, Hooks, Recording};
use crate::store::Store;
use crate::tls::certs::Certs;
use crate::tls::files::Files;
use crate::tls::local::LocalCa;
use crate::trust;
use crate::upstream::sticky::StickyKey;
use crate::workshop::{self, Language, Project, World};

/// The runtime for everything that is not on a request's path.
///
/// # Errors
/// When the machine gives none.
pub fn runtime() -> Result<tokio::runtime::Runtime, String> {
    // File descriptors are connections: take as many as the machine allows.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|cause| format!("cannot start: {cause}"))
}

/// `witgate check`.
///
/// # Errors
/// Every error in the configuration.
pub fn check(file: &Path, is_full: bool, with_plugins: bool) -> Result<(), String> {
    let loaded = config::load(file).map_err(|report| report.to_string())?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    if with_plugins {
        with_generation(loaded.config.clone(), |_| ())?;
    }
    if is_full {
        print!("{}", config::normal_form(&loaded.config));
    } else {
        println!("{}: fine, {}", file.display(), summary(&loaded.config));
    }
    Ok(())
}

/// `witgate explain`.
///
/// # Errors
/// When the configuration, a plugin or the request is wrong.
pub fn explain(
    file: &Path,
    request: &[String],
    sni: Option<String>,
    headers: &[String],
    data: String,
    peer: IpAddr,
) -> Result<(), String> {
    let of_sni = sni.as_ref().map(|name| format!("https://{name}/")).unwrap_or_default();
    let (method, url) = match request {
        [method, url] => (method.as_str(), url),
        [url] => ("GET", url),
        [] if sni.is_some() => ("GET", &of_sni),
        _ => return Err("one method and one URL".to_owned()),
    };
    let method = method.parse().map_err(|_| format!("{method} is not a method"))?;
    let url = url.parse().map_err(|cause| format!("{url} is not a URL: {cause}"))?;
    let mut fields = Vec::new();
    for header in headers {
        let parsed = header.split_once(':').and_then(|(name, value)| {
            let value = http::HeaderValue::from_str(value.trim()).ok()?;
            Some((http::HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
        });
        fields
            .push(parsed.ok_or_else(|| format!("{header:?} is not a field: write `name: value`"))?);
    }
    let sni = sni.map(|name| name.to_ascii_lowercase());
    let asked = explain::Asked { method, url, sni, fields, peer, body: data.into_bytes() };
    let loaded = config::load(file).map_err(|report| report.to_string())?;
    let certs = Certs::default();
    let files = Files::default().load(&loaded.config.certificates.files, &certs);
    files.map_err(|cause| cause.to_string())?;
    let explained = |generation: &Generation| explain::explain(generation, &certs, &asked);
    let text = with_generation(loaded.config, explained)??;
    print!("{text}");
    Ok(())
}

/// `witgate schema`.
///
/// # Errors
/// Never.
pub fn schema() -> Result<(), String> {
    println!("{:#}", config::schema());
    Ok(())
}

/// `witgate hash-password`: what `basic-auth.users` wants. The password is the first line, so that it
/// stands neither in the history of a shell nor in the list of processes.
///
/// # Errors
/// When there is no password, or none that can be hashed.
pub fn hash_password() -> Result<(), String> {
    use std::io::IsTerminal as _;
    if std::io::stdin().is_terminal() {
        eprintln!("Type the password (it will be seen) and press Enter:");
    }
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|error| format!("cannot read the password: {error}"))?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err("the password is empty: write it on standard input".to_owned());
    }
    let hash = crate::policy::hash_password(password)
        .map_err(|error| format!("cannot hash the password: {error}"))?;
    println!("{hash}");
    Ok(())
}

/// `witgate trust`.
///
/// # Errors
/// When the local CA cannot be opened or no store took it.
pub fn trust(file: &Path, is_print: bool) -> Result<(), String> {
    let root = local_root(file)?;
    if is_print {
        print!("{root}");
        return Ok(());
    }
    trust::install(&root).print()
}

/// `witgate untrust`.
///
/// # Errors
/// When the local CA cannot be opened or a store kept it.
pub fn untrust(file: &Path) -> Result<(), String> {
    trust::remove(&local_root(file)?).print()
}

/// `witgate plugin inspect`.
///
/// # Errors
/// When the file is no component.
pub fn inspect(component: &Path, is_json: bool) -> Result<(), String> {
    let cache = tempfile_folder()?;
    let inspected = Engine::start(cache.clone()).and_then(|engine| engine.inspect(component));
    let _ = std::fs::remove_dir_all(&cache);
    let found = inspected.map_err(|cause| describe(&cause))?;
    if is_json {
        println!("{:#}", serde_json::json!(found));
        return Ok(());
    }
    println!("{}", component.display());
    if let Some(manifest) = &found.manifest {
        print_manifest(manifest);
    }
    println!("  asks     {}", found.asks.join("\n           "));
    println!("  digest   sha256:{}", found.digest);
    println!("  size     {} bytes", found.bytes);
    println!("  worlds   {}", found.worlds.join(", "));
    println!("  imports  {}", found.imports.join("\n           "));
    println!("  exports  {}", found.exports.join("\n           "));
    match found.manifest.as_ref().and_then(|manifest| manifest.config.as_ref()) {
        Some(schema) => {
            println!("  config   {}", format!("{schema:#}").replace('\n', "\n           "))
        }
        None if found.manifest.is_some() => println!("  config   anything"),
        None => println!("  it carries no plugin.yaml: see `witgate plugin embed`"),
    }
    Ok(())
}

/// `witgate plugin new`.
///
/// # Errors
/// When the name is none or the project cannot be written.
pub fn new_plugin(
    name: &str,
    language: Language,
    world: World,
    folder: Option<&Path>,
) -> Result<(), String> {
    let folder = folder.unwrap_or(Path::new(name));
    workshop::create(folder, name, language, world).map_err(|cause| describe(&cause))?;
    let shown = folder.display();
    println!("{shown}: made. README.md has the rest; to begin:\n");
    println!("    cd {shown}");
    println!("    witgate plugin build     # or it says what is missing, and how to get it");
    println!("    witgate run              # with the gateway.yaml of this folder");
    Ok(())
}

/// `witgate plugin build`: builds, and looks at what was made.
///
/// # Errors
/// When a tool is missing or fails, or the component does not fit the worlds it is meant for.
pub fn build_plugin(folder: &Path) -> Result<(), String> {
    let started = std::time::Instant::now();
    let project = Project::open(folder).map_err(|cause| describe(&cause))?;
    let manifest = &project.manifest;
    eprintln!("{} {} ({})", manifest.name, manifest.version, manifest.worlds.join(", "));
    let component = workshop::build(&project).map_err(|cause| describe(&cause))?;
    let cache = tempfile_folder()?;
    let inspected = workshop::step("looks at the component", |_| {
        Engine::start(cache.clone()).and_then(|engine| engine.inspect(&component))
    });
    let _ = std::fs::remove_dir_all(&cache);
    let found = inspected.map_err(|cause| describe(&cause))?;
    if let Some(missing) = manifest.worlds.iter().find(|world| !found.worlds.contains(world)) {
        return Err(format!(
            "{}: plugin.yaml says that this is a {missing}, and it exports only {}",
            component.display(),
            found.exports.join(", ")
        ));
    }
    let kib = found.bytes.div_ceil(1024);
    let seconds = started.elapsed().as_secs_f32();
    println!("{}: {kib} KiB, {}, in {seconds:.1} s", component.display(), found.worlds.join(", "));
    Ok(())
}

fn print_manifest(manifest: &Manifest) {
    println!("  name     {} {}", manifest.name, manifest.version);
    if let Some(text) = &manifest.description {
        println!("  about    {text}");
    }
    if let Some(text) = &manifest.license {
        println!("  license  {text}");
    }
    for (name, secret) in &manifest.secrets {
        let (what, need) = (secret.description.as_deref().unwrap_or(""), secret.required);
        println!("  secret   {name}{}: {what}", if need { " (required)" } else { "" });
    }
}

/// `witgate plugin embed`.
///
/// # Errors
/// Everything that is wrong with the manifest; files that cannot be read or written.
pub fn embed(component: &Path, manifest: &Path, output: Option<&Path>) -> Result<(), String> {
    let failed =
        |verb: &str, path: &Path, cause| format!("cannot {verb} {}: {cause}", path.display());
    let bytes = std::fs::read(component).map_err(|cause| failed("read", component, cause))?;
    let text =
        std::fs::read_to_string(manifest).map_err(|cause| failed("read", manifest, cause))?;
    let embedded = config::embed(&bytes, &text, manifest).map_err(|report| report.to_string());
    let (with, found) = embedded?;
    let to = output.unwrap_or(component);
    if with != bytes || to != component {
        replace(to, &with)?;
    }
    println!("{}: {} {}", to.display(), found.name, found.version);
    Ok(())
}

/// `witgate plugin sign`.
///
/// # Errors
/// When the component or the key cannot be used, or the result not be written.
pub fn sign(component: &Path, key: &Path) -> Result<(), String> {
    let bytes = std::fs::read(component)
        .map_err(|cause| format!("cannot read {}: {cause}", component.display()))?;
    let (signed, public) = plugin::sign(&bytes, key).map_err(|cause| describe(&cause))?;
    if signed != bytes {
        replace(component, &signed)?;
    }
    println!(
        "{}: signed; gateways take it with\n\nplugin-keys: [\"{public}\"]",
        component.display()
    );
    Ok(())
}

/// `witgate plugin test`.
///
/// # Errors
/// When a file cannot be used, or a case does not come out as expected.
pub fn test(component: &Path, files: &[PathBuf]) -> Result<(), String> {
    let (mut passed, mut failed) = (0_usize, 0_usize);
    with_engine(|engine| {
        for file in files {
            let all = Cases::load(file).map_err(|report| report.to_string())?;
            for (name, wrong) in cases::run(engine, component, &all) {
                if wrong.is_empty() {
                    passed += 1;
                    println!("ok      {name}");
                    continue;
                }
                failed += 1;
                println!("FAILED  {name}");
                wrong
                    .iter()
                    .flat_map(|text| text.lines())
                    .for_each(|line| println!("        {line}"));
            }
        }
        Ok(())
    })?;
    match (passed, failed) {
        (0, 0) => Err("there are no cases".to_owned()),
        (_, 0) => {
            println!("{passed} passed");
            Ok(())
        }
        _ => Err(format!("{passed} passed, {failed} failed")),
    }
}

/// `witgate plugin bench`.
///
/// # Errors
/// When a file cannot be used or a call fails.
pub fn bench(
    component: &Path,
    file: &Path,
    rounds: usize,
    with_deadlines: bool,
) -> Result<(), String> {
    let all = Cases::load(file).map_err(|report| report.to_string())?;
    let cache = tempfile_folder()?;
    let standing = cases::standing(&cache, component, &all);
    let _ = std::fs::remove_dir_all(&cache);
    let found = standing?;
    let kib = |bytes: u64| format!("{} KiB", bytes.div_ceil(1024));
    for (name, value) in [
        ("component", kib(found.component_bytes)),
        ("compiled", kib(found.compiled_bytes)),
        ("compiling", format!("{:.2?}", found.compile)),
        ("loading", format!("{:.2?}", found.load)),
        ("instance", format!("{:.2?}", found.start)),
        ("memory", kib(found.memory_bytes)),
    ] {
        println!("{value:>12}  {name}");
    }
    let measured = with_engine(|engine| {
        if !with_deadlines {
            return cases::bench(engine, None, component, &all, rounds);
        }
        let cache = tempfile_folder()?;
        let bare = Engine::start_without_deadlines(cache.clone()).map_err(|cause| describe(&cause));
        let done = bare.and_then(|bare| cases::bench(engine, Some(&bare), component, &all, rounds));
        let _ = std::fs::remove_dir_all(&cache);
        done
    })?;
    let more = if with_deadlines {
        format!("{:>12}{:>10}", "unlimited", "deadlines")
    } else {
        String::new()
    };
    println!("{:>12}{:>12}{more}", "best", "median");
    for cases::Measured { name, best, median, without_deadlines } in measured {
        let (best_text, median) = (format!("{best:?}"), format!("{median:?}"));
        let more = without_deadlines.map(|bare| {
            let cost = (best.as_secs_f64() / bare.as_secs_f64().max(1e-9) - 1.0) * 100.0;
            format!("{:>12}{:>10}", format!("{bare:?}"), format!("{cost:+.1} %"))
        });
        println!("{best_text:>12}{median:>12}{}  {name}", more.unwrap_or_default());
    }
    Ok(())
}

/// `witgate plugin record`.
///
/// # Errors
/// When no gateway answers, it has no such plugin, or no request came.
pub fn record(file: &Path, name: &str, path: &str, timeout: u32) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    if !path.starts_with('/') || !path.chars().all(plain) {
        return Err(format!("{path} is not the beginning of a path in plain letters"));
    }
    admin(file, "POST", &format!("/plugins/{name}/record?path={path}&timeout={timeout}"))
}

/// `witgate plugin replay`.
///
/// # Errors
/// When a file cannot be used, or something becomes different.
pub fn replay(recording: &Path, component: &Path) -> Result<(), String> {
    let shown = recording.display();
    let text = std::fs::read_to_string(recording)
        .map_err(|cause| format!("cannot read {shown}: {cause}"))?;
    let tape = Recording::parse(&text)
        .map_err(|cause| format!("{shown} is not what `witgate plugin record` writes: {cause}"))?;
    let stanza = plugin::replay_stanza(&tape, component)?;
    let replayed = with_engine(|engine| {
        let upstreams: Vec<Arc<str>> = tape.upstreams.iter().map(|n| Arc::from(&**n)).collect();
        let loaded = engine.load(&tape.plugin, &stanza, &Arc::from(upstreams));
        let loaded = loaded.map_err(|cause| describe(&cause))?;
        let hooks = Hooks::new(loaded, &stanza.config).map_err(|cause| describe(&cause))?;
        tape.replay(&hooks)
    })?;
    let mut is_same = true;
    for call in &replayed {
        match call.differences.is_empty() {
            true => println!("same       {}", call.hook),
            false => println!("DIFFERENT  {}", call.hook),
        }
        call.differences.iter().for_each(|difference| println!("           {difference}"));
        for missing in &call.missing {
            println!("           not in the recording, answered anew: {missing}");
        }
        is_same &= call.differences.is_empty();
    }
    match is_same {
        true => Ok(()),
        false => Err("the recorded request comes out different".to_owned()),
    }
}

/// An engine with a cache of its own, gone afterwards.
fn with_engine<T>(work: impl FnOnce(&Arc<Engine>) -> Result<T, String>) -> Result<T, String> {
    let cache = tempfile_folder()?;
    let engine = Engine::start(cache.clone()).map_err(|cause| describe(&cause));
    let done = engine.and_then(|engine| work(&engine));
    let _ = std::fs::remove_dir_all(&cache);
    done
}

/// `witgate plugin accept`.
///
/// # Errors
/// When a name is none, a component cannot be read, or the lock not be written; without names also
/// when there is anything to accept.
pub fn accept(file: &Path, names: &[String]) -> Result<(), String> {
    let config = config::load(file).map_err(|report| report.to_string())?.config;
    if let Some(name) = names.iter().find(|name| !config.plugins.contains_key(*name)) {
        return Err(format!("{} has no plugin called {name}", file.display()));
    }
    let mut lock = Lock::read(&config.lock).map_err(|report| report.to_string())?;
    let cache = tempfile_folder()?;
    let found = Engine::start(cache.clone()).and_then(|engine| {
        let inspect = |(name, plugin): (&String, &config::PluginConfig)| {
            engine.inspect(&plugin.component).map(|found| (name.clone(), found.locked()))
        };
        config.plugins.iter().map(inspect).collect::<Result<Vec<_>, _>>()
    });
    let _ = std::fs::remove_dir_all(&cache);
    let mut waiting = Vec::new();
    for (name, next) in found.map_err(|cause| describe(&cause))? {
        let known = lock.plugins.get(&name).cloned().unwrap_or_default();
        if known == next {
            continue;
        }
        println!("{name}\n{}", known.difference(&next));
        if names.contains(&name) {
            lock.plugins.insert(name, next);
        } else if !known.digest.is_empty() && !known.more(&next).is_empty() {
            waiting.push(name);
        }
    }
    if !names.is_empty() {
        lock.write(&config.lock)
            .map_err(|cause| format!("cannot write {}: {cause}", config.lock.display()))?;
        println!("accepted: {}", names.join(", "));
        // A gateway that runs has refused it so far.
        if config.admin.as_ref().is_some_and(|socket| socket.exists()) {
            return admin(file, "POST", "/reload");
        }
        return Ok(());
    }
    match waiting.as_slice() {
        [] => Ok(()),
        names => Err(format!("to allow it, run `witgate plugin accept {}`", names.join(" "))),
    }
}

/// Replaces a component in one step: a running gateway may be watching the place.
fn replace(component: &Path, with: &[u8]) -> Result<(), String> {
    let beside = component.with_extension("wasm.new");
    std::fs::write(&beside, with)
        .and_then(|()| std::fs::rename(&beside, component))
        .map_err(|cause| format!("cannot write {}: {cause}", component.display()))
}

/// Asks the running gateway over its control socket and prints the answer.
///
/// # Errors
/// When no gateway answers there, or it refuses.
pub fn admin(file: &Path, method: &str, path: &str) -> Result<(), String> {
    print!("{}", ask(file, method, path)?);
    Ok(())
}

/// `witgate debug keylog`.
///
/// # Errors
/// When no gateway answers, or it refuses.
pub fn key_log(
    file: &Path,
    sni: Option<&str>,
    from: Option<IpAddr>,
    time: &str,
) -> Result<(), String> {
    let time = config::duration(time).ok_or_else(|| format!("{time} is not a time such as 5m"))?;
    if let Some(name) = sni
        && !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    {
        return Err(format!("{name} is not a server name"));
    }
    let mut path = format!("/keylog?seconds={}", time.as_secs());
    path.extend(sni.map(|name| format!("&sni={name}")));
    path.extend(from.map(|address| format!("&from={address}")));
    let (name, mut stream) = control(file)?;
    let failed = |cause| format!("{name}: {cause}");
    // HTTP/1.0, so that what comes is the lines and nothing else.
    let request = format!("POST {path} HTTP/1.0\r\nhost: witgate\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).map_err(failed)?;
        head.extend(byte);
    }
    if !String::from_utf8_lossy(&head).contains(" 200 ") {
        let mut why = String::new();
        stream.read_to_string(&mut why).map_err(failed)?;
        return Err(why);
    }
    let mut lines = std::io::BufReader::new(stream);
    let mut line = String::new();
    while std::io::BufRead::read_line(&mut lines, &mut line).map_err(failed)? > 0 {
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(failed)?;
        line.clear();
    }
    Ok(())
}

/// The control socket of the running gateway, and its name.
fn control(file: &Path) -> Result<(String, std::os::unix::net::UnixStream), String> {
    let config = config::load(file).map_err(|report| report.to_string())?.config;
    let socket = config.admin.ok_or("`admin: off` in the configuration: no control socket")?;
    let name = socket.display().to_string();
    let stream = std::os::unix::net::UnixStream::connect(&socket)
        .map_err(|cause| format!("no gateway answers at {name}: {cause}"))?;
    Ok((name, stream))
}

/// Asks the running gateway over its control socket.
fn ask(file: &Path, method: &str, path: &str) -> Result<String, String> {
    let (name, mut stream) = control(file)?;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: witgate\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.read_to_string(&mut answer))
        .map_err(|cause| format!("{name}: {cause}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.contains(" 200 ") { Ok(body.to_owned()) } else { Err(body.to_owned()) }
}

fn local_root(file: &Path) -> Result<String, String> {
    let config = config::load(file).map_err(|report| report.to_string())?.config;
    let how = gateway::opening(&config.sharing).map_err(|cause| describe(&cause))?;
    // The root is only read when it is there, so that this works beside a running gateway.
    let store = Store::look(&config.store, how.passphrase.as_deref());
    let known = store.and_then(|store| store.read("local/root.pem"));
    match known.map_err(|cause| describe(&cause))? {
        Some(pem) => Ok(certificate_part(&String::from_utf8_lossy(&pem))),
        None => {
            let store = Store::open_as(&config.store, &how).map_err(|cause| describe(&cause))?;
            let local: Arc<LocalCa> = LocalCa::open(&store, &config.certificates.local_domains)
                .map_err(|cause| describe(&cause))?;
            Ok(local.root_pem())
        }
    }
}

/// Builds a generation beside any that runs, and looks at it.
fn with_generation<T>(config: Config, look: impl FnOnce(&Generation) -> T) -> Result<T, String> {
    let cache = tempfile_folder()?;
    let looked = runtime()?.block_on(async {
        let engine = Engine::start(cache.clone()).map_err(|cause| describe(&cause))?;
        let sticky = StickyKey::new(&[]);
        match Generation::build(config, &engine, None, &sticky, &Arc::default()).await {
            Ok(generation) => Ok(look(&generation)),
            Err(errors) => Err(errors.iter().map(describe).collect::<Vec<_>>().join("\n")),
        }
    });
    let _ = std::fs::remove_dir_all(&cache);
    looked
}

/// The root without its key, which shares the file.
fn certificate_part(pem: &str) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let start = pem.find("-----BEGIN CERTIFICATE-----").unwrap_or(0);
    let end = pem.find(END).map_or(pem.len(), |at| at + END.len());
    format!("{}\n", pem.get(start..end).unwrap_or_default())
}

fn summary(config: &Config) -> String {
    format!(
        "{} sites, {} upstreams, {} plugins",
        config.sites.len(),
        config.upstreams.len(),
        config.plugins.len()
    )
}

fn tempfile_folder() -> Result<std::path::PathBuf, String> {
    let name = format!("witgate-{}", uuid::Uuid::now_v7().simple());
    let folder = std::env::temp_dir().join(name);
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
        .create(&folder)
        .map_err(|cause| format!("{}: {cause}", folder.display()))?;
    Ok(folder)
}
