//! The examples, built by `witgate plugin build` when their sources have changed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::guests::digest;
use super::{Process, project, within};

/// Builds an example, runs its own tests, and returns its component. Nothing is done again while
/// its sources, the SDKs and the contract are the same.
pub async fn built(example: &str) -> PathBuf {
    // The tools of a language share caches and both cores: one after another.
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = TURN.lock().await;
    let folder = project().join("examples").join(example);
    let language = example.rsplit('-').next().expect("a language at the end of the name");
    let sources = [
        folder.clone(),
        project().join("wit"),
        project().join("plugins").join(sdk(language)),
        project().join("gateway/src/workshop"),
    ];
    let now = digest(sources.map(|source| hash(&source)).concat().as_bytes());
    let kept = project().join("target/examples");
    let (stamp, component) = (kept.join(format!("{example}.digest")), component(&folder));
    if component.exists() && std::fs::read_to_string(&stamp).is_ok_and(|before| before == now) {
        return component;
    }
    std::fs::create_dir_all(&kept).expect("target/examples");
    let mut build = Command::new(env!("CARGO_BIN_EXE_witgate"));
    build.args(["plugin", "build"]).arg(&folder);
    run("witgate plugin build", prepared(build)).await;
    let (program, arguments): (&str, &[&str]) = match language {
        "rust" => ("cargo", &["test", "--locked"]),
        "python" => ("python3", &["-m", "unittest"]),
        "javascript" => ("node", &["--test"]),
        other => panic!("no way to test {other} is known"),
    };
    let mut test = Command::new(program);
    test.args(arguments).env("PYTHONPATH", "build");
    test.current_dir(&folder);
    run(&format!("the tests of {example}"), prepared(test)).await;
    std::fs::write(&stamp, now).expect("a file in target/examples");
    component
}

/// The one `.wasm` of an example's folder, by the name in its `plugin.yaml`.
fn component(folder: &Path) -> PathBuf {
    let path = folder.join("plugin.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let name = text.lines().find_map(|line| line.strip_prefix("name: ")).expect("a name");
    folder.join(format!("{name}.wasm"))
}

/// The folder of a language's SDK.
fn sdk(language: &str) -> &str {
    match language {
        "rust" => "sdk",
        "python" => "sdk-py",
        "javascript" => "sdk-js",
        other => panic!("no SDK for {other} is known"),
    }
}

/// With the tools that `tests/setup` installs, and without what cargo tells its tests.
fn prepared(mut command: Command) -> Command {
    let target = project().join("target/examples");
    command.env("CARGO_TARGET_DIR", target).env("PYTHONDONTWRITEBYTECODE", "1");
    let tools = project().join("tests/.tools");
    let mut path = vec![tools.join("languages/bin")];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    command.env("PATH", std::env::join_paths(path).expect("a PATH"));
    for (name, _) in std::env::vars() {
        if name.starts_with("CARGO_") && name != "CARGO_HOME" && name != "CARGO_TARGET_DIR" {
            command.env_remove(name);
        }
    }
    command
}

async fn run(what: &str, command: Command) {
    let mut process = Process::start(what, &command);
    let limit = Duration::from_secs(600);
    let ended = within(what, limit, async {
        loop {
            if let Some(status) = process.ended() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(ended.success(), "{what} failed\n{}\n{}", process.out.text(), process.err.text());
}

/// A digest over all files below a folder that a build does not make.
fn hash(folder: &Path) -> String {
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            !BUILT.contains(&name.as_str()) && !name.ends_with(".wasm")
        })
        .collect();
    names.sort();
    let mut all = String::new();
    for path in names {
        all += &path.display().to_string();
        all += &if path.is_dir() {
            hash(&path)
        } else {
            digest(&std::fs::read(&path).expect("a source can be read"))
        };
    }
    digest(all.as_bytes())
}

/// What builds leave in a folder.
const BUILT: [&str; 6] = ["target", "build", "node_modules", "__pycache__", "state", ".venv"];
