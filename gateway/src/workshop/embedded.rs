//! What travels in the binary: the contract and the SDKs of languages whose packages are not in a
//! registry. A build writes them into the project's `build/`, so that they always fit this gateway.

use std::path::Path;

use include_dir::{Dir, include_dir};

use super::WorkshopError;

/// The contract, `wit/`.
static WIT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../wit");
/// The Python package `witgate`.
static PYTHON: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk-py/witgate");

/// The JavaScript package `witgate`.
static JAVASCRIPT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../plugins/sdk-js");

/// Writes the contract into `folder`.
pub(super) fn wit(folder: &Path) -> Result<(), WorkshopError> {
    write(&WIT, folder, "wit")
}

/// Writes the Python SDK into `folder`.
pub(super) fn python(folder: &Path) -> Result<(), WorkshopError> {
    write(&PYTHON, folder, "py")
}

/// Writes the JavaScript SDK into `folder`.
pub(super) fn javascript(folder: &Path) -> Result<(), WorkshopError> {
    ["js", "ts", "json"].into_iter().try_for_each(|ending| write(&JAVASCRIPT, folder, ending))
}

/// Writes the files of a folder with this ending; those of its own folders are left out.
fn write(from: &Dir<'_>, folder: &Path, ending: &str) -> Result<(), WorkshopError> {
    let failed = |path: &Path, cause| WorkshopError::File(path.to_owned(), cause);
    std::fs::create_dir_all(folder).map_err(|cause| failed(folder, cause))?;
    for file in from.files() {
        let Some(name) = file.path().file_name() else { continue };
        if file.path().extension().is_none_or(|found| found != ending) {
            continue;
        }
        let path = folder.join(name);
        // Tools that look at times need not work again when nothing has changed.
        if std::fs::read(&path).is_ok_and(|present| present == file.contents()) {
            continue;
        }
        std::fs::write(&path, file.contents()).map_err(|cause| failed(&path, cause))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_and_the_sdks_are_inside() {
        let folder = tempfile::tempdir().unwrap();
        wit(folder.path()).unwrap();
        python(folder.path()).unwrap();
        javascript(folder.path()).unwrap();
        for name in ["plugin.wit", "dns-solver.wit", "__init__.py", "_router.py", "index.d.ts"] {
            assert!(folder.path().join(name).is_file(), "{name}");
        }
    }
}
