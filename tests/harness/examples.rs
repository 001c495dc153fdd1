//! The examples, built by `witgate plugin build` when their sources have changed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::guests::digest;
use super::{Process, project, within};

/// Builds an example, runs its own tests, and returns its component. Nothing is done again while
/// its sources, the SDKs and the contract are the same.
pub async fn built(example: &str) -> PathBuf {
    let folder = project().join("examples").join(example);
    let component = component(&folder);
    once(example, &folder, &component, async {
        build(&folder).await;
        run(&format!("the tests of {example}"), prepared(tests_of(example, &folder))).await;
    })
    .await;
    component
}

/// Builds the probe of a language and returns its component.
pub async fn probe(language: &str) -> PathBuf {
    let folder = project().join("tests/probes").join(format!("in-{language}"));
    let component = component(&folder);
    once(&format!("probe-in-{language}"), &folder, &component, build(&folder)).await;
    component
}

/// Makes a new plugin of the kind of an example with `witgate plugin new`, builds it, runs its own
/// tests, and lets a gateway load it with the `gateway.yaml` it came with.
pub async fn made(example: &str, world: &str) {
    let folder = project().join("target/examples/new").join(example);
    let component = folder.join("my-plugin.wasm");
    once(&format!("new-{example}"), &project().join("examples").join(example), &component, async {
        let _ = std::fs::remove_dir_all(&folder);
        let mut new = Command::new(env!("CARGO_BIN_EXE_witgate"));
        new.args(["plugin", "new", "my-plugin", "--lang", language(example), "--world", world]);
        new.arg("--folder").arg(&folder);
        run("witgate plugin new", prepared(new)).await;
        build(&folder).await;
        run(&format!("the tests of a new {example}"), prepared(tests_of(example, &folder))).await;
        check(&folder).await;
    })
    .await;
}

/// Lets a gateway load an example with its `gateway.yaml`.
pub async fn loads(example: &str) {
    check(&project().join("examples").join(example)).await;
}

/// Looks whether a page shows these files of an example, without their tests.
pub fn is_shown_in(page: &str, example: &str, files: &[&str]) {
    let shown = std::fs::read_to_string(project().join(page)).expect("a page");
    for file in files {
        let path = project().join("examples").join(example).join(file);
        let text = std::fs::read_to_string(&path).expect("a file of the example");
        let text = text.split("\n#[cfg(test)]").next().unwrap_or_default().trim_end();
        assert!(shown.contains(text), "{page} does not show {}", path.display());
    }
}

async fn check(folder: &Path) {
    let mut check = Command::new(env!("CARGO_BIN_EXE_witgate"));
    check.args(["check", "--plugins"]).current_dir(folder).env("PROVIDER_TOKEN", "any");
    run("witgate check --plugins", prepared(check)).await;
}

/// Does something with an example unless it has been done with these sources.
async fn once(name: &str, source: &Path, component: &Path, doing: impl Future<Output = ()>) {
    // The tools of a language share caches and both cores: one after another.
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = TURN.lock().await;
    let mut sources =
        vec![source.to_owned(), project().join("wit"), project().join("gateway/src/workshop")];
    let sdks = sdks(language(&source.display().to_string()));
    sources.extend(sdks.iter().map(|sdk| project().join("plugins").join(sdk)));
    let now: String = sources.iter().map(|source| hash(source)).collect();
    let now = digest(now.as_bytes());
    let kept = project().join("target/examples");
    let stamp = kept.join(format!("{name}.digest"));
    if component.exists() && std::fs::read_to_string(&stamp).is_ok_and(|before| before == now) {
        return;
    }
    std::fs::create_dir_all(&kept).expect("target/examples");
    doing.await;
    std::fs::write(&stamp, now).expect("a file in target/examples");
}

/// The language of an example, the last word of its name.
fn language(example: &str) -> &str {
    example.rsplit('-').next().expect("a language at the end of the name")
}

/// Runs `witgate plugin build` with the tools that `tests/setup` installs.
pub async fn build(folder: &Path) {
    // Where `npm install` would put them.
    let types = project().join("tests/.tools/languages/node_modules/@types");
    if folder.join("tsconfig.json").exists() && !folder.join("node_modules/@types").exists() {
        std::fs::create_dir_all(folder.join("node_modules")).expect("node_modules");
        std::os::unix::fs::symlink(types, folder.join("node_modules/@types")).expect("a link");
    }
    let mut build = Command::new(env!("CARGO_BIN_EXE_witgate"));
    build.args(["plugin", "build"]).arg(folder);
    run("witgate plugin build", prepared(build)).await;
}

/// What runs a plugin's own tests, as its README says.
fn tests_of(example: &str, folder: &Path) -> Command {
    let (program, arguments): (&str, &[&str]) = match language(example) {
        "rust" => ("cargo", &["test"]),
        "go" => ("go", &["test", "."]),
        "python" => ("python3", &["-m", "unittest"]),
        "javascript" => ("node", &["--test"]),
        "typescript" => ("node", &["--test", "build/js/"]),
        "c" => ("sh", &["-c", C_TESTS]),
        "cpp" => ("sh", &["-c", CPP_TESTS]),
        "zig" => ("sh", &["-c", ZIG_TESTS]),
        other => panic!("no way to test {other} is known"),
    };
    let mut test = Command::new(program);
    test.args(arguments).env("PYTHONPATH", "build").current_dir(folder);
    test
}

/// As in the README.
const C_TESTS: &str =
    "cc -std=gnu11 -I. -Ibuild/witgate -o build/test *.c build/witgate/*.c && build/test";

/// As in the README.
const CPP_TESTS: &str = "set -e; (cd build && cc -std=gnu11 -c witgate/*.c); \
    c++ -std=c++23 -I. -Ibuild/witgate -o build/test *.cpp build/*.o; build/test";
/// As in the README.
const ZIG_TESTS: &str =
    "zig test -lc -Ibuild/witgate plugin.zig -cflags -std=gnu11 -- build/witgate/*.c";

/// The one `.wasm` of an example's folder, by the name in its `plugin.yaml`.
fn component(folder: &Path) -> PathBuf {
    let path = folder.join("plugin.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let name = text.lines().find_map(|line| line.strip_prefix("name: ")).expect("a name");
    folder.join(format!("{name}.wasm"))
}

/// The folders of a language's SDK.
fn sdks(language: &str) -> &'static [&'static str] {
    match language {
        "rust" => &["sdk"],
        "go" => &["sdk-go"],
        "python" => &["sdk-py"],
        "javascript" | "typescript" => &["sdk-js"],
        "c" => &["sdk-c"],
        "cpp" => &["sdk-c", "sdk-cpp"],
        "zig" => &["sdk-c", "sdk-zig"],
        other => panic!("no SDK for {other} is known"),
    }
}

/// With the tools that `tests/setup` installs, and without what cargo tells its tests.
fn prepared(mut command: Command) -> Command {
    let target = project().join("target/examples");
    // zig compiles its libc once.
    command.env("ZIG_GLOBAL_CACHE_DIR", target.join("zig"));
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
const BUILT: [&str; 7] =
    ["target", "build", "node_modules", "__pycache__", "state", ".venv", ".zig-cache"];
