//! `witgate plugin new`: a project that builds, passes its tests and runs at once. The templates are
//! the folders of `examples/`, which the tests hold to `tests/conformance`, so there is no second
//! copy of anything.

use std::path::Path;

use super::{Language, Project, WorkshopError, embedded};

/// What a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum World {
    /// Chooses where a request goes.
    Router,
    /// Reads and changes requests and responses.
    Filter,
    /// Writes the records of ACME's DNS-01 challenges.
    DnsSolver,
    /// Decides about handshakes by their ClientHello.
    ClientHello,
    /// Says which names may have a certificate.
    IssuancePolicy,
    /// Takes exchanges that have ended, and events.
    AccessLog,
}

/// Makes a project called `name` in `folder`, with everything that an editor needs.
///
/// # Errors
/// When the name is none, the folder has something in it already, or a file cannot be written.
pub fn create(
    folder: &Path,
    name: &str,
    language: Language,
    world: World,
) -> Result<Project, WorkshopError> {
    let is_name = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= NAME_BYTES_MAX
        && name.chars().all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '-'));
    if !is_name {
        return Err(WorkshopError::Name(name.to_owned()));
    }
    let failed = |cause| WorkshopError::File(folder.to_owned(), cause);
    if folder.exists() && std::fs::read_dir(folder).map_err(failed)?.next().is_some() {
        return Err(WorkshopError::Occupied(folder.to_owned()));
    }
    let template = template(language, world).ok_or(WorkshopError::NoTemplate(language, world))?;
    for (path, text) in template.files {
        let text = text.replace(template.name, name).replace("../provider.py", "provider.py");
        let text = text.replace("\"../../plugins/sdk\"", "\"build/plugins/sdk\"");
        embedded::file(&folder.join(path), text.as_bytes())?;
    }
    if world == World::DnsSolver {
        embedded::file(&folder.join("provider.py"), PROVIDER.as_bytes())?;
    }
    embedded::file(&folder.join(".gitignore"), IGNORED.as_bytes())?;
    embedded::write(language, folder)?;
    Project::open(folder)
}

/// One of the examples.
struct Template {
    #[cfg_attr(not(test), expect(dead_code, reason = "for the test that compares the files"))]
    folder: &'static str,
    /// What the plugin is called there.
    name: &'static str,
    /// Paths and texts.
    files: &'static [(&'static str, &'static str)],
}

/// The files of one of the examples.
macro_rules! example {
    ($folder:literal, $name:literal: $($file:literal)*) => {
        Template {
            folder: $folder,
            name: $name,
            files: &[$(($file, include_str!(concat!("../../../examples/", $folder, "/", $file)))),*],
        }
    };
}

/// The template of a world in a language; none where there is no example.
fn template(language: Language, world: World) -> Option<Template> {
    use {Language as L, World as W};
    Some(match (language, world) {
        (L::Rust, W::Router) => example!("11-router-in-rust", "tenant-router":
            "Cargo.lock" "Cargo.toml" "README.md" "gateway.yaml" "plugin.yaml" "src/lib.rs"),
        (L::Rust, W::Filter) => example!("12-filter-in-rust", "jwt-filter":
            "Cargo.lock" "Cargo.toml" "README.md" "gateway.yaml" "plugin.yaml" "src/lib.rs"
            "src/token.rs"),
        (L::Rust, W::DnsSolver) => example!("13-solver-in-rust", "dns-example":
            "Cargo.lock" "Cargo.toml" "README.md" "gateway.yaml" "plugin.yaml" "src/lib.rs"),
        (L::Rust, W::ClientHello) => example!("15-client-hello-in-rust", "hello-guard":
            "Cargo.lock" "Cargo.toml" "README.md" "gateway.yaml" "plugin.yaml" "src/lib.rs"),
        (L::Rust, W::IssuancePolicy) => example!("16-issuance-policy-in-rust", "shop-policy":
            "Cargo.lock" "Cargo.toml" "README.md" "gateway.yaml" "plugin.yaml" "src/lib.rs"),
        (L::Rust, W::AccessLog) => example!("17-access-log-in-rust", "log-shipper":
            "Cargo.lock" "Cargo.toml" "README.md" "gateway.yaml" "plugin.yaml" "src/lib.rs"),
        (_, W::ClientHello | W::IssuancePolicy | W::AccessLog) => return None,
        (L::Go, W::Router) => example!("21-router-in-go", "tenant-router":
            "README.md" "gateway.yaml" "go.mod" "plugin.go" "plugin.yaml" "plugin_test.go"),
        (L::Go, W::Filter) => example!("22-filter-in-go", "jwt-filter":
            "README.md" "gateway.yaml" "go.mod" "plugin.go" "plugin.yaml" "plugin_test.go"
            "token.go"),
        (L::Go, W::DnsSolver) => example!("23-solver-in-go", "dns-example":
            "README.md" "gateway.yaml" "go.mod" "plugin.go" "plugin.yaml" "plugin_test.go"),
        (L::Python, W::Router) => example!("31-router-in-python", "tenant-router":
            "README.md" "gateway.yaml" "plugin.py" "plugin.yaml" "pyrightconfig.json"
            "test_plugin.py"),
        (L::Python, W::Filter) => example!("32-filter-in-python", "jwt-filter":
            "README.md" "gateway.yaml" "plugin.py" "plugin.yaml" "pyrightconfig.json"
            "test_plugin.py" "token_hs256.py"),
        (L::Python, W::DnsSolver) => example!("33-solver-in-python", "dns-example":
            "README.md" "gateway.yaml" "plugin.py" "plugin.yaml" "pyrightconfig.json"
            "test_plugin.py"),
        (L::JavaScript, W::Router) => example!("41-router-in-javascript", "tenant-router":
            "README.md" "gateway.yaml" "jsconfig.json" "package.json" "plugin.js"
            "plugin.test.js" "plugin.yaml"),
        (L::JavaScript, W::Filter) => example!("42-filter-in-javascript", "jwt-filter":
            "README.md" "gateway.yaml" "jsconfig.json" "package.json" "plugin.js"
            "plugin.test.js" "plugin.yaml" "token.js"),
        (L::JavaScript, W::DnsSolver) => example!("43-solver-in-javascript", "dns-example":
            "README.md" "gateway.yaml" "jsconfig.json" "package.json" "plugin.js"
            "plugin.test.js" "plugin.yaml"),
        (L::TypeScript, W::Router) => example!("51-router-in-typescript", "tenant-router":
            "README.md" "gateway.yaml" "package.json" "plugin.test.ts" "plugin.ts"
            "plugin.yaml" "tsconfig.json"),
        (L::TypeScript, W::Filter) => example!("52-filter-in-typescript", "jwt-filter":
            "README.md" "gateway.yaml" "package.json" "plugin.test.ts" "plugin.ts"
            "plugin.yaml" "token.ts" "tsconfig.json"),
        (L::TypeScript, W::DnsSolver) => example!("53-solver-in-typescript", "dns-example":
            "README.md" "gateway.yaml" "package.json" "plugin.test.ts" "plugin.ts"
            "plugin.yaml" "tsconfig.json"),
        (L::C, W::Router) => example!("61-router-in-c", "tenant-router":
            "README.md" "compile_flags.txt" "gateway.yaml" "plugin.c" "plugin.yaml"
            "test_plugin.c"),
        (L::C, W::Filter) => example!("62-filter-in-c", "jwt-filter":
            "README.md" "compile_flags.txt" "gateway.yaml" "plugin.c" "plugin.yaml"
            "test_plugin.c" "token.c" "token.h"),
        (L::C, W::DnsSolver) => example!("63-solver-in-c", "dns-example":
            "README.md" "compile_flags.txt" "gateway.yaml" "plugin.c" "plugin.yaml"
            "test_plugin.c"),
        (L::Cpp, W::Router) => example!("81-router-in-cpp", "tenant-router":
            "README.md" "compile_flags.txt" "gateway.yaml" "plugin.cpp" "plugin.yaml"
            "test_plugin.cpp"),
        (L::Cpp, W::Filter) => example!("82-filter-in-cpp", "jwt-filter":
            "README.md" "compile_flags.txt" "gateway.yaml" "plugin.cpp" "plugin.yaml"
            "test_plugin.cpp" "token.cpp" "token.hpp"),
        (L::Cpp, W::DnsSolver) => example!("83-solver-in-cpp", "dns-example":
            "README.md" "compile_flags.txt" "gateway.yaml" "plugin.cpp" "plugin.yaml"
            "test_plugin.cpp"),
        (L::Zig, W::Router) => example!("91-router-in-zig", "tenant-router":
            "README.md" "gateway.yaml" "plugin.yaml" "plugin.zig"),
        (L::Zig, W::Filter) => example!("92-filter-in-zig", "jwt-filter":
            "README.md" "gateway.yaml" "plugin.yaml" "plugin.zig" "token.zig"),
        (L::Zig, W::DnsSolver) => example!("93-solver-in-zig", "dns-example":
            "README.md" "gateway.yaml" "plugin.yaml" "plugin.zig"),
    })
}

/// The provider that the solvers of the examples speak to.
const PROVIDER: &str = include_str!("../../../examples/provider.py");
const NAME_BYTES_MAX: usize = 64;
/// What builds and gateways leave in a folder.
const IGNORED: &str = "*.wasm\n*.wasm.new\n.venv/\n.zig-cache/\n__pycache__/\nbuild/\nnode_modules/\n\
                       state/\ntarget/\n";

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn a_template_is_the_whole_example() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        for (language, world) in all() {
            let template = template(language, world).unwrap();
            let folder = examples.join(template.folder);
            let mut there = Vec::new();
            files(&folder, &mut there);
            let listed: Vec<PathBuf> =
                template.files.iter().map(|(name, _)| folder.join(name)).collect();
            there.sort();
            assert_eq!(there, listed, "{}", template.folder);
        }
    }

    #[test]
    fn every_project_is_made_under_its_own_name() {
        for (language, world) in all() {
            let parent = tempfile::tempdir().unwrap();
            let folder = parent.path().join("new/my-plugin");
            let project = create(&folder, "my-plugin", language, world).unwrap();
            assert_eq!((&*project.manifest.name, project.language), ("my-plugin", language));
            let template = template(language, world).unwrap();
            let old = template.name;
            for (name, _) in template.files {
                let text = std::fs::read_to_string(folder.join(name)).unwrap();
                assert!(!text.contains(old) && !text.contains("../"), "{}: {text}", name);
            }
            let error = create(&folder, "my-plugin", language, world).unwrap_err().to_string();
            assert!(error.contains("is not empty"), "{error}");
        }
    }

    #[test]
    fn a_name_that_no_language_takes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "My", "a b", "../a", "1a", "a_b"] {
            let error = create(folder.path(), name, Language::C, World::Router).unwrap_err();
            assert!(matches!(error, WorkshopError::Name(_)), "{name}: {error}");
        }
    }

    #[test]
    fn a_world_without_a_template_names_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let made = create(folder.path(), "mine", Language::C, World::AccessLog);
        let error = made.unwrap_err().to_string();
        assert!(error.contains("no template of the world access-log in c"), "{error}");
        assert!(error.contains("--lang rust"), "{error}");
    }

    fn all() -> impl Iterator<Item = (Language, World)> {
        let worlds =
            |language: Language| World::value_variants().iter().map(move |w| (language, *w));
        let all = Language::value_variants().iter().copied().flat_map(worlds);
        all.filter(|(language, world)| template(*language, *world).is_some())
    }

    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        let left =
            ["build", "node_modules", "target", "state", "__pycache__", ".venv", ".zig-cache"];
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !left.contains(&name) {
                files(&path, found);
            } else if path.is_file() && !name.contains(".wasm") && name != "gateway.lock" {
                found.push(path);
            }
        }
    }
}
