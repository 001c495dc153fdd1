//! From a plugin's source to a component: which tool does what in which language.

use std::path::{Path, PathBuf};

use super::tool::{self, Tool};
use super::{Language, Project, WorkshopError, embedded};
use crate::config;

/// Builds the plugin of a folder and returns where its component is.
///
/// # Errors
/// When a tool is missing (the message has the command that installs it) or fails.
pub fn build(project: &Project) -> Result<PathBuf, WorkshopError> {
    let component = match project.language {
        Language::Rust => rust(project)?,
        Language::Python => python(project)?,
        Language::JavaScript => javascript(project)?,
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

/// componentize-py puts CPython, the SDK and the plugin into one component, and starts it once so that
/// instances need not.
fn python(project: &Project) -> Result<Vec<u8>, WorkshopError> {
    let world = only_world(project)?;
    let build = project.folder.join("build");
    embedded::wit(&build.join("wit"))?;
    embedded::python(&build.join("witgate"))?;
    let glue = format!(
        "# Written by `witgate plugin build`: the exports of the world.\nimport plugin\nfrom \
         witgate._{} import *\n",
        world.replace('-', "_")
    );
    let app = build.join("witgate_app.py");
    std::fs::write(&app, glue).map_err(|cause| WorkshopError::File(app, cause))?;
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
        .args(["-d", "build/wit", "-w", world, "componentize"])
        .args(["-p", "build", "-p", ".", "-o", "build/component.wasm", "witgate_app"])
        .run()?;
    read(&made)
}

/// componentize-qjs puts QuickJS, the SDK and the plugin into one component, with all modules loaded.
fn javascript(project: &Project) -> Result<Vec<u8>, WorkshopError> {
    let world = only_world(project)?;
    let build = project.folder.join("build");
    embedded::wit(&build.join("wit"))?;
    embedded::javascript(&project.folder.join("node_modules/witgate"))?;
    let tool = tool::find("componentize-qjs", &project.folder, "node_modules/.bin");
    let tool = tool.ok_or_else(|| WorkshopError::Missing {
        tool: "componentize-qjs",
        purpose: "makes components of JavaScript",
        command: "npm install --save-dev componentize-qjs@0.4.5".to_owned(),
    })?;
    let made = build.join("component.wasm");
    Tool::new(tool, &project.folder)
        .args(["--sync", "--module-root", ".", "--wit", "build/wit", "--world", world])
        .args(["--js", &format!("node_modules/witgate/{world}.js")])
        .args(["--output", "build/component.wasm"])
        .run()?;
    read(&made)
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
