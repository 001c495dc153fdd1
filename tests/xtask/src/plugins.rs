//! Builds every folder of `plugins/` that has a `plugin.yaml` as a component that carries it, and puts
//! it where the examples look for it: `target/plugins/NAME.wasm`, by the folder's name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{component, section};

/// Builds all plugins and prints their sizes.
pub(crate) fn build() -> Result<(), String> {
    let root = root()?;
    let names = names(&root.join("plugins"))?;
    require_target(&root)?;
    compile(&root.join("plugins"))?;

    let built = root.join("plugins/target").join(TARGET).join("release");
    let kept = root.join("target/plugins");
    fs::create_dir_all(&kept).map_err(|error| format!("cannot create {}: {error}", show(&kept)))?;
    let mut too_large = Vec::new();
    for name in &names {
        let from = built.join(format!("{}.wasm", name.replace('-', "_")));
        let component =
            fs::read(&from).map_err(|error| format!("cannot read {}: {error}", show(&from)))?;
        check_outside(name, &component)?;
        let manifest = root.join("plugins").join(name).join("plugin.yaml");
        let text = fs::read(&manifest)
            .map_err(|error| format!("cannot read {}: {error}", show(&manifest)))?;
        let component = section::put(&component, section::MANIFEST, &text)
            .map_err(|error| format!("{name}: {error}"))?;
        publish(&component, &kept.join(format!("{name}.wasm")))?;
        let bytes = component.len() as u64;
        println!("{name:<20} {:>6.1} KiB   target/plugins/{name}.wasm", in_kib(bytes));
        if bytes > BYTES_MAX {
            too_large.push(name.as_str());
        }
    }
    match too_large.as_slice() {
        [] => Ok(()),
        names => {
            Err(format!("larger than the budget of {} KiB: {}", BYTES_MAX / 1024, names.join(", ")))
        }
    }
}

/// The repository, from wherever cargo was called inside it.
pub(crate) fn root() -> Result<PathBuf, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).ok_or("xtask is not at tests/xtask any more")?;
    Ok(root.to_path_buf())
}

fn names(folder: &Path) -> Result<Vec<String>, String> {
    let entries =
        fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", show(folder)))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("plugin.yaml").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// Asks rustc where the target's libraries are, since rustup is not the only way to install them.
fn require_target(root: &Path) -> Result<(), String> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]).current_dir(root);
    let output = rustc.output().map_err(|error| format!("cannot run rustc: {error}"))?;
    let libraries = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && Path::new(libraries.trim()).is_dir() {
        return Ok(());
    }
    Err(format!(
        "plugins are built for {TARGET}, which this Rust does not have; add it with\n\n    rustup \
         target add {TARGET}\n"
    ))
}

fn compile(workspace: &Path) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--locked", "--target", TARGET]).current_dir(workspace);
    // The plugins have a lockfile and a target folder of their own, whatever is inherited.
    build.env_remove("CARGO_TARGET_DIR").env_remove("CARGO_BUILD_TARGET");
    build.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    match build.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("the plugins did not build; see above".to_owned()),
        Err(error) => Err(format!("cannot run cargo: {error}")),
    }
}

/// A first-party plugin speaks the contract and nothing else: what a language runtime drags in from
/// WASI would be paid for by every instance.
fn check_outside(name: &str, component: &[u8]) -> Result<(), String> {
    let outside = component::outside(component).map_err(|error| format!("{name}: {error}"))?;
    if let Some(import) = outside.imports.iter().find(|import| !import.starts_with(PACKAGE)) {
        return Err(format!(
            "{name} imports {import}, which is not of the contract: does it use std (see \
             `witgate_sdk::lean`)?"
        ));
    }
    let is_hooks = |export: &&String| export.ends_with("-hooks@0.1.0");
    let hooks = outside.exports.iter().filter(is_hooks).count();
    let has_start = outside.exports.iter().any(|export| export == "witgate:plugin/plugin@0.1.0");
    if !has_start || hooks == 0 || outside.exports.len() != hooks + 1 {
        return Err(format!("{name} fits no world: it exports {}", outside.exports.join(", ")));
    }
    Ok(())
}

/// Writes a component in one step, since a running gateway watches the place; leaves one that has
/// not changed alone, so that nothing is swapped in vain.
fn publish(component: &[u8], to: &Path) -> Result<(), String> {
    if fs::read(to).is_ok_and(|present| present == component) {
        return Ok(());
    }
    let beside = to.with_extension("wasm.new");
    fs::write(&beside, component)
        .and_then(|()| fs::rename(&beside, to))
        .map_err(|error| format!("cannot write {}: {error}", show(to)))
}

#[expect(clippy::cast_precision_loss, reason = "sizes of files, for people")]
fn in_kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}

fn show(path: &Path) -> std::path::Display<'_> {
    path.display()
}

/// The contract that plugins speak.
const PACKAGE: &str = "witgate:plugin/";

const TARGET: &str = "wasm32-wasip2";

/// A plugin larger than this has pulled something in that it does not need.
const BYTES_MAX: u64 = 300 * 1024;
