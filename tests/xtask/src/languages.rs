//! Writes the table of docs/PLUGINS.md: what a plugin costs in each language. A new router and a new
//! filter are made, built, built again after a change, and measured by `witgate plugin bench`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::plugins;

/// Measures all languages with this gateway and writes the table. `--release` builds the one to measure
/// with: times of any other build say nothing about what is in use.
pub(crate) fn write(witgate: Option<&str>) -> Result<(), String> {
    let root = plugins::root()?;
    let witgate = match witgate {
        Some("--release") => {
            let build = ["build", "--release", "--locked", "--package", "witgate"];
            run(Command::new("cargo").args(build).current_dir(&root))?;
            root.join(RELEASE)
        }
        other => root.join(other.unwrap_or(RELEASE)),
    };
    if !witgate.is_file() {
        return Err(format!("{} is not there: give --release to build it", witgate.display()));
    }
    warn_if_busy();
    let mut table = HEAD.to_owned();
    for (name, language, source) in LANGUAGES {
        let at = Place { root: &root, witgate: &witgate, language, source };
        let (seconds, filter) = measured(&at, "filter")?;
        let (_, router) = measured(&at, "router")?;
        let cell = |key: &str| filter.get(key);
        let row = format!(
            "| {name} | {seconds:.1} s | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            cell("component")?,
            cell("compiled")?,
            cell("compiling")?,
            cell("loading")?,
            cell("instance")?,
            cell("memory")?,
            router.get(CASE)?,
            cell(CASE)?,
        );
        print!("{row}");
        table += &row;
    }
    let page = root.join("docs/PLUGINS.md");
    let text = fs::read_to_string(&page).map_err(|cause| shown(&page, &cause))?;
    let (before, rest) = text.split_once(BEGIN).ok_or("the page has lost the table's beginning")?;
    let (_, after) = rest.split_once(END).ok_or("the page has lost the table's end")?;
    fs::write(&page, format!("{before}{BEGIN}\n{table}{END}{after}"))
        .map_err(|cause| shown(&page, &cause))
}

/// Others' work shows in the times.
fn warn_if_busy() {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|load| load.parse::<f64>().ok());
    if let Some(load) = load.filter(|load| *load > LOAD_MAX) {
        eprintln!("xtask: the machine is busy (load {load}): measure again when it is quiet");
    }
}

struct Place<'a> {
    root: &'a Path,
    witgate: &'a Path,
    language: &'a str,
    source: &'a str,
}

/// What `witgate plugin bench` says: values and their names.
struct Measured(Vec<(String, String)>);

impl Measured {
    fn get(&self, key: &str) -> Result<&str, String> {
        let found = self.0.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str()).ok_or(format!("bench says nothing of {key}"))
    }
}

/// Builds a new plugin of this world twice; the seconds of the second time, and what it costs.
fn measured(at: &Place<'_>, world: &str) -> Result<(f64, Measured), String> {
    let folder = at.root.join("target/languages").join(format!("{}-{world}", at.language));
    let _ = fs::remove_dir_all(&folder);
    let new = ["plugin", "new", "measured", "--lang", at.language, "--world", world, "--folder"];
    run(Command::new(at.witgate).args(new).arg(&folder))?;
    link_types(at, &folder)?;
    let build = || {
        run(with_tools(at.root, Command::new(at.witgate).arg("plugin").arg("build")).arg(&folder))
    };
    build()?;
    let source = folder.join(at.source);
    let text = fs::read_to_string(&source).map_err(|cause| shown(&source, &cause))?;
    let comment = if at.language == "python" { "# changed" } else { "// changed" };
    fs::write(&source, format!("{text}\n{comment}\n")).map_err(|cause| shown(&source, &cause))?;
    let began = Instant::now();
    build()?;
    let seconds = began.elapsed().as_secs_f64();
    let cases = at.root.join("tests/xtask/cases").join(format!("{world}.yaml"));
    let component = folder.join("measured.wasm");
    let bench = ["plugin", "bench", "--rounds", "5"];
    let said = run(Command::new(at.witgate).args(bench).arg(component).arg(cases))?;
    Ok((seconds, Measured(said.lines().filter_map(line).collect())))
}

/// `3372 KiB  component` or `10.3µs  12.7µs  a case`, of which the first value counts. Times and
/// sizes are rounded to what two measurements share.
fn line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let (values, name) = line.rsplit_once("  ").filter(|(_, name)| !name.is_empty())?;
    let value = values.split("  ").next()?.trim();
    Some((name.trim().to_owned(), rounded(value)))
}

fn rounded(value: &str) -> String {
    let digits = value.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let Ok(number) = number.parse::<f64>() else { return value.to_owned() };
    match unit.trim() {
        "KiB" if number >= 1024.0 => format!("{:.1} MiB", number / 1024.0),
        unit if number >= 10.0 => format!("{number:.0} {unit}"),
        unit => format!("{number:.1} {unit}"),
    }
}

/// Where `npm install` would put Node's types.
fn link_types(at: &Place<'_>, folder: &Path) -> Result<(), String> {
    if at.language != "typescript" {
        return Ok(());
    }
    let types = at.root.join("tests/.tools/languages/node_modules/@types");
    let link = folder.join("node_modules/@types");
    std::os::unix::fs::symlink(types, &link).map_err(|cause| shown(&link, &cause))
}

/// The tools that `tests/setup` installs come first.
fn with_tools<'c>(root: &Path, command: &'c mut Command) -> &'c mut Command {
    let mut path: Vec<PathBuf> = vec![root.join("tests/.tools/languages/bin")];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    if let Ok(path) = std::env::join_paths(path) {
        command.env("PATH", path);
    }
    command.env("CARGO_TARGET_DIR", root.join("target/examples"))
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|cause| format!("{command:?}: {cause}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{command:?}\n{}", text(&output.stderr))),
    }
}

fn shown(path: &Path, cause: &std::io::Error) -> String {
    format!("{}: {cause}", path.display())
}

/// How it is called, on the command line, and the file that is changed.
const LANGUAGES: [(&str, &str, &str); 8] = [
    ("Rust", "rust", "src/lib.rs"),
    ("C", "c", "plugin.c"),
    ("C++", "cpp", "plugin.cpp"),
    ("Zig", "zig", "plugin.zig"),
    ("Go", "go", "plugin.go"),
    ("JavaScript", "javascript", "plugin.js"),
    ("TypeScript", "typescript", "plugin.ts"),
    ("Python", "python", "plugin.py"),
];
const RELEASE: &str = "target/release/witgate";
/// A load average that a build a minute ago does not leave.
const LOAD_MAX: f64 = 1.5;
/// The one case of tests/xtask/cases.
const CASE: &str = "the case";
const BEGIN: &str = "<!-- languages: written by `cargo xtask languages` -->";
const END: &str = "<!-- end of languages -->";
const HEAD: &str = "
| language | build after a change | component | compiled | compiled once in | loaded in | instance starts in | memory of one | a router's call | a filter's call |
|---|---|---|---|---|---|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_bench_are_read() {
        let read = |text: &str| line(text);
        let found = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(read("    3372 KiB  component"), found("component", "3.3 MiB"));
        assert_eq!(read("   615.64µs  instance"), found("instance", "616 µs"));
        assert_eq!(read("    10.371µs     12.79µs  a tenant"), found("a tenant", "10 µs"));
        assert_eq!(read("       6.74s  compiling"), found("compiling", "6.7 s"));
    }
}
