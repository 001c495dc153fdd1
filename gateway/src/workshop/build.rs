//! From a plugin's source to a component: which tool does what in which language.

use std::path::{Path, PathBuf};

use super::tool::{self, Tool};
use super::{Language, Project, WorkshopError, component, embedded};
use crate::config::{self, BodyGrant};

/// Builds the plugin of a folder and returns where its component is.
///
/// # Errors
/// When a tool is missing (the message has the command that installs it) or fails.
pub fn build(project: &Project) -> Result<PathBuf, WorkshopError> {
    embedded::write(project.language, &project.folder)?;
    let component = match project.language {
        Language::Rust => rust(project)?,
        Language::Go => go(project)?,
        Language::Python => python(project)?,
        Language::JavaScript => javascript(project, "../plugin.js")?,
        Language::TypeScript => typescript(project)?,
        Language::C => c(project)?,
        Language::Cpp => cpp(project)?,
        Language::Zig => zig_program(project)?,
    };
    let (component, _) = config::embed(&component, &project.text, &project.manifest_path())
        .map_err(WorkshopError::Manifest)?;
    let to = project.component();
    publish(&component, &to).map_err(|cause| WorkshopError::File(to.clone(), cause))?;
    Ok(to)
}

/// cargo knows how: the target's linker makes the component.
fn rust(project: &Project) -> Result<Vec<u8>, WorkshopError> {
    const TARGET: &str = "wasm32-wasip2";
    let folder = &project.folder;
    if Tool::new("cargo", folder).args(["--version"]).ask().is_none() {
        return Err(WorkshopError::Missing {
            tool: "cargo",
            purpose: "builds Rust",
            command: "apt-get install rustup && rustup default stable".to_owned(),
        });
    }
    let libraries =
        Tool::new("rustc", folder).args(["--print", "target-libdir", "--target", TARGET]);
    if !libraries.ask().is_some_and(|path| Path::new(path.trim()).is_dir()) {
        return Err(WorkshopError::Missing {
            tool: "the Rust target wasm32-wasip2",
            purpose: "makes components",
            command: format!("rustup target add {TARGET}"),
        });
    }
    let said = Tool::new("cargo", folder)
        .args(["build", "--release", "--target", TARGET])
        .args(["--message-format", "json-render-diagnostics"])
        .shows_progress()
        .run()?;
    let made = String::from_utf8_lossy(&said)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message.get("reason").is_some_and(|reason| reason == "compiler-artifact"))
        .filter_map(|message| {
            let files = message.get("filenames")?.as_array()?;
            let mut names = files.iter().filter_map(serde_json::Value::as_str);
            names.find(|name| name.ends_with(".wasm")).map(PathBuf::from)
        })
        .next_back();
    let made = made.ok_or_else(|| {
        let what = "cargo made no .wasm: Cargo.toml needs `[lib]` with `crate-type = [\"cdylib\"]`";
        WorkshopError::NothingMade(what.to_owned())
    })?;
    read(&made)
}

/// The standard compiler makes a core module for wasip1, a library that is started once.
fn go(project: &Project) -> Result<Vec<u8>, WorkshopError> {
    let world = only_world(project)?;
    let version = Tool::new("go", &project.folder).args(["env", "GOVERSION"]).ask();
    if !version.is_some_and(|version| has_wasm_exports(&version)) {
        return Err(WorkshopError::Missing {
            tool: "Go 1.24 or newer",
            purpose: "compiles Go for WebAssembly",
            command: "apt-get install golang     # or https://go.dev/dl".to_owned(),
        });
    }
    let core = project.folder.join("build/core.wasm");
    Tool::new("go", &project.folder)
        .env("GOOS", "wasip1")
        .env("GOARCH", "wasm")
        .args(["build", "-buildmode=c-shared", "-trimpath"])
        // The SDK takes memory from the runtime before that has a heap.
        .args(["-ldflags=-s -w -checklinkname=0", "-o", "build/core.wasm", "."])
        .run()?;
    component::of_core(read(&core)?, world)
}

/// Whether this is the version in which Go functions can be exported, or a later one.
fn has_wasm_exports(version: &str) -> bool {
    let minor = version.trim().strip_prefix("go1.").and_then(|rest| rest.split('.').next());
    minor.and_then(|minor| minor.parse::<u32>().ok()).is_some_and(|minor| minor >= 24)
}

/// componentize-py puts CPython, the SDK and the plugin into one component, and starts it once so that
/// instances need not.
fn python(project: &Project) -> Result<Vec<u8>, WorkshopError> {
    let world = only_world(project)?;
    let build = project.folder.join("build");
    let streams = match streams(project) {
        true => "from witgate._bodies import *\n",
        false => "",
    };
    let wit_world = wit_world(project, world)?;
    let glue = format!(
        "# Written by `witgate plugin build`: the exports of the world.\nimport plugin\nfrom \
         witgate._{} import *\n{streams}",
        world.replace('-', "_")
    );
    embedded::file(&build.join("witgate_app.py"), glue.as_bytes())?;
    let tool = tool::find("componentize-py", &project.folder, ".venv/bin").ok_or_else(|| {
        WorkshopError::Missing {
            tool: "componentize-py",
            purpose: "makes components of Python",
            command: "python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1"
                .to_owned(),
        }
    })?;
    let made = build.join("component.wasm");
    Tool::new(tool, &project.folder)
        .args(["-d", "build/wit", "-w", wit_world, "componentize"])
        .args(["-p", "build", "-p", ".", "-o", "build/component.wasm", "witgate_app"])
        .run()?;
    read(&made)
}

/// componentize-qjs puts QuickJS, the SDK and the plugin into one component, with all modules loaded.
/// `plugin` is where the plugin's module is, seen from `build/`.
fn javascript(project: &Project, plugin: &str) -> Result<Vec<u8>, WorkshopError> {
    let world = only_world(project)?;
    let build = project.folder.join("build");
    let hooks = match world {
        "router" => "routerHooks",
        "filter" => "filterHooks",
        _ => "dnsSolverHooks",
    };
    let streams = match streams(project) {
        true => "export { bodyHooks } from \"witgate/streaming.js\";\n",
        false => "",
    };
    let wit_world = wit_world(project, world)?;
    let glue = format!(
        "// Written by `witgate plugin build`: the exports of the world.\nimport make from \
         \"{plugin}\";\nimport {{ begin, {hooks}, plugin }} from \"witgate/{world}.js\";\n\n\
         begin(make);\nexport {{ {hooks}, plugin }};\n{streams}",
    );
    embedded::file(&build.join("witgate-app.js"), glue.as_bytes())?;
    let tool = tool::find("componentize-qjs", &project.folder, "node_modules/.bin");
    let tool = tool.ok_or_else(|| WorkshopError::Missing {
        tool: "componentize-qjs",
        purpose: "makes components of JavaScript",
        command: "npm install --save-dev componentize-qjs@0.4.5".to_owned(),
    })?;
    let made = build.join("component.wasm");
    Tool::new(tool, &project.folder)
        .args(["--sync", "--module-root", ".", "--wit", "build/wit", "--world", wit_world])
        .args(["--js", "build/witgate-app.js", "--output", "build/component.wasm"])
        .run()?;
    read(&made)
}

/// Whether a filter asks for bodies.
fn streams(project: &Project) -> bool {
    let grants = &project.manifest.grants;
    let is_asked = |body: Option<BodyGrant>| body.is_some_and(|body| body > BodyGrant::None);
    project.manifest.worlds.iter().any(|world| world == "filter")
        && (is_asked(grants.request.body) || is_asked(grants.response.body))
}

/// The world to make a component for: one for each choice that the languages cannot make by
/// themselves. It is written beside the contract, in its package.
fn wit_world<'w>(project: &Project, world: &'w str) -> Result<&'w str, WorkshopError> {
    let path = project.folder.join("build/wit/streaming-filter.wit");
    if !streams(project) {
        // Of a build before plugin.yaml was changed.
        return match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(WorkshopError::File(path, cause))
            }
            _ => Ok(world),
        };
    }
    let text = "package witgate:plugin@0.1.0;\n\nworld streaming-filter {\n    include filter;\n    \
                include streaming;\n}\n";
    embedded::file(&path, text.as_bytes())?;
    Ok("streaming-filter")
}

/// tsc checks the types and makes `build/js` of the folder, as tsconfig.json says.
fn typescript(project: &Project) -> Result<Vec<u8>, WorkshopError> {
    let tool = tool::find("tsc", &project.folder, "node_modules/.bin");
    let tool = tool.ok_or_else(|| WorkshopError::Missing {
        tool: "tsc",
        purpose: "compiles TypeScript",
        command: "npm install --save-dev typescript@5.9.3 componentize-qjs@0.4.5".to_owned(),
    })?;
    Tool::new(tool, &project.folder).args(["--outDir", "build/js"]).run()?;
    let made = project.folder.join("build/js/plugin.js");
    if !made.is_file() {
        let what = "tsc made no build/js/plugin.js: tsconfig.json has to include plugin.ts, with \
                    `\"rootDir\": \".\"` and without `noEmit`";
        return Err(WorkshopError::NothingMade(what.to_owned()));
    }
    javascript(project, "./js/plugin.js")
}

/// clang, of zig or of a WASI SDK, makes a core module that is started once.
fn c(project: &Project) -> Result<Vec<u8>, WorkshopError> {
    let world = only_world(project)?;
    let folder = &project.folder;
    let mut sources = sources(folder, ".c")?;
    sources.extend(sdk_of_c(world));
    compiler(folder)?
        .args(["-mexec-model=reactor", "-Oz", "-std=gnu11", "-Wall", "-Wextra", "-I."])
        // zig's 16 MiB would count against `limits.memory` in every instance.
        .args(["-Wl,-z,stack-size=131072"])
        .args(["-Ibuild/witgate", "-o", "build/core.wasm"])
        .args(sources)
        .run()?;
    component::of_core(read(&folder.join("build/core.wasm"))?, world)
}

/// A C compiler for WASI: that of a WASI SDK when `WASI_SDK_PATH` names one, else zig's.
fn compiler(folder: &Path) -> Result<Tool, WorkshopError> {
    if let Some(sdk) = std::env::var_os("WASI_SDK_PATH") {
        let clang = Path::new(&sdk).join("bin/clang");
        return Ok(Tool::new(clang, folder).args(["--target=wasm32-wasip1"]));
    }
    Ok(zig(folder, "compiles C for WebAssembly")?.args(["cc", "-target", "wasm32-wasi"]))
}

/// zig compiles C++ with its libc++, and the SDK, which is C.
fn cpp(project: &Project) -> Result<Vec<u8>, WorkshopError> {
    let own = sources(&project.folder, ".cpp")?;
    let flags = ["-cflags", "-std=c++23", "-fno-exceptions", "-fno-rtti", "-Wall", "-Wextra", "--"];
    let inputs = ["-lc++"].into_iter().chain(flags).map(str::to_owned).chain(own).collect();
    zig_build(project, "compiles C++ for WebAssembly", inputs)
}

/// zig compiles the plugin, and the SDK, which is C.
fn zig_program(project: &Project) -> Result<Vec<u8>, WorkshopError> {
    zig_build(project, "compiles Zig for WebAssembly", vec!["plugin.zig".to_owned()])
}

fn zig_build(
    project: &Project,
    purpose: &'static str,
    inputs: Vec<String>,
) -> Result<Vec<u8>, WorkshopError> {
    let world = only_world(project)?;
    let folder = &project.folder;
    zig(folder, purpose)?
        .args(["build-exe", "-target", "wasm32-wasi", "-mexec-model=reactor"])
        .args(["-O", "ReleaseSmall", "-fstrip", "-lc", "-I.", "-Ibuild/witgate"])
        // As for C.
        .args(["--stack", "131072", "-femit-bin=build/core.wasm"])
        .args(inputs)
        .args(["-cflags", "-std=gnu11", "--"])
        .args(sdk_of_c(world))
        .run()?;
    component::of_core(read(&folder.join("build/core.wasm"))?, world)
}

/// The SDK's sources of C for this world.
fn sdk_of_c(world: &str) -> impl Iterator<Item = String> {
    const SDK: [&str; 4] = ["memory.c", "json.c", "host.c", "configure.c"];
    let world = format!("{world}.c");
    let names = SDK.into_iter().map(str::to_owned).chain([world]);
    names.map(|name| format!("build/witgate/{name}"))
}

fn zig(folder: &Path, purpose: &'static str) -> Result<Tool, WorkshopError> {
    // From PyPI zig comes as a Python module, and elsewhere as a program.
    let zig = tool::find("zig", folder, ".venv/bin").map(|zig| Tool::new(zig, folder));
    let module = || {
        let python = tool::find("python3", folder, ".venv/bin")?;
        let module = ["-m", "ziglang"];
        let answer = Tool::new(&python, folder).args(module).args(["version"]).ask();
        answer.map(|_| Tool::new(python, folder).args(module))
    };
    zig.or_else(module).ok_or_else(|| WorkshopError::Missing {
        tool: "zig",
        purpose,
        command: "python3 -m venv .venv && .venv/bin/pip install ziglang==0.17.1".to_owned(),
    })
}

/// The files of a folder with this ending, but for its tests.
fn sources(folder: &Path, ending: &str) -> Result<Vec<String>, WorkshopError> {
    let failed = |cause| WorkshopError::File(folder.to_owned(), cause);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.ends_with(ending) && !name.starts_with("test_") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The one world of a project whose language makes components for one at a time.
fn only_world(project: &Project) -> Result<&str, WorkshopError> {
    match project.manifest.worlds.as_slice() {
        [world] => Ok(world),
        worlds => Err(WorkshopError::NothingMade(format!(
            "{}: this language makes components of one world, not of {}: make one plugin of each",
            project.manifest_path().display(),
            worlds.join(" and ")
        ))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, WorkshopError> {
    std::fs::read(path).map_err(|cause| WorkshopError::File(path.to_owned(), cause))
}

/// Writes a component in one step, since a running gateway watches the place; leaves one that has
/// not changed alone, so that nothing is swapped in vain.
fn publish(component: &[u8], to: &Path) -> std::io::Result<()> {
    if std::fs::read(to).is_ok_and(|present| present == component) {
        return Ok(());
    }
    let draft = to.with_extension("wasm.new");
    std::fs::write(&draft, component)?;
    std::fs::rename(draft, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_is_new_enough_or_not() {
        for (version, expected) in
            [("go1.26.8\n", true), ("go1.24", true), ("go1.23.9", false), ("devel", false)]
        {
            assert_eq!(has_wasm_exports(version), expected, "{version}");
        }
    }
}
