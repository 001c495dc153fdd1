//! Where solvers come from: a folder, a URL, or an OCI registry. What is not on this machine is pinned
//! by its digest, fetched when it is asked for and at no other time, and never used before it has
//! been found to be what was pinned.
//!
//! Called by the command line alone.

mod fetch;
mod oci;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Manifest;
use crate::hex;
pub use fetch::Fetcher;

/// A catalogue, or a single component, as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder with components.
    Folder(PathBuf),
    /// `https://HOST/PATH@sha256:HEX`: a component, or an [`Index`].
    Url {
        /// Without the digest.
        url: String,
        /// SHA-256 in hex.
        digest: String,
    },
    /// `oci://REGISTRY/REPOSITORY@sha256:HEX`: an artifact, each layer a component.
    Oci {
        /// Host and port.
        registry: String,
        /// The repository.
        repository: String,
        /// SHA-256 of the manifest, in hex.
        digest: String,
    },
}

/// A catalogue as a file (`catalogue.json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Its solvers.
    pub solvers: Vec<Listed>,
}

/// One solver of an [`Index`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// One line about it.
    #[serde(default)]
    pub description: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Where it is: a URL, or a path beside the catalogue.
    pub component: String,
    /// `sha256:` and hex.
    pub digest: String,
}

/// A solver of a catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// One line about it; empty where the catalogue has none.
    pub about: String,
    from: From,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    File(PathBuf),
    Url {
        url: String,
        digest: String,
    },
    Blob {
        registry: String,
        repository: String,
        digest: String,
    },
    /// Fetched already, since it had to be looked at.
    Bytes(Vec<u8>),
}

impl Place {
    /// Reads what the command line has; what has no scheme is a folder.
    ///
    /// # Errors
    /// When something is not pinned, or is of no known kind.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Folder(PathBuf::from(text)));
        };
        let (rest, digest) = rest.rsplit_once('@').ok_or_else(|| {
            format!(
                "{text} is not pinned: add its digest, as in {text}@sha256:… (`sha256sum` of the file, or the \
                 digest that the registry shows)"
            )
        })?;
        let digest = sha256_of(digest)
            .ok_or_else(|| format!("{digest:?} is no digest: expected sha256: and 64 digits"))?;
        match scheme {
            "https" | "http" => Ok(Self::Url { url: format!("{scheme}://{rest}"), digest }),
            "oci" => {
                let (registry, repository) = rest
                    .split_once('/')
                    .ok_or_else(|| format!("{text} has no repository: oci://HOST/REPOSITORY@…"))?;
                // A tag beside a digest says nothing more.
                let repository = repository.split_once(':').map_or(repository, |it| it.0);
                let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
                if repository.is_empty()
                    || repository.contains("..")
                    || !repository.chars().all(is_fine)
                {
                    return Err(format!("{repository:?} is no repository"));
                }
                let (registry, repository) = (registry.to_owned(), repository.to_owned());
                Ok(Self::Oci { registry, repository, digest })
            }
            _ => Err(format!("{scheme}:// is none of https://, oci:// and a folder")),
        }
    }

    /// The solvers that are there.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was pinned.
    pub async fn solvers(&self, fetcher: &Fetcher) -> Result<Vec<Found>, String> {
        let mut found = match self {
            Self::Folder(folder) => in_folder(folder)?,
            Self::Url { url, digest } => {
                let bytes = fetcher.pinned(url, digest).await?;
                match bytes.starts_with(b"\0asm") {
                    true => vec![component(url, bytes)?],
                    false => indexed(url, &bytes)?,
                }
            }
            Self::Oci { registry, repository, digest } => {
                oci::layers(fetcher, registry, repository, digest).await?
            }
        };
        found.sort_by(|a, b| a.short().cmp(b.short()));
        Ok(found)
    }
}

impl Found {
    /// What people call it: without the `dns-` of its file.
    pub fn short(&self) -> &str {
        self.name.strip_prefix("dns-").unwrap_or(&self.name)
    }

    /// The file, when it is on this machine already.
    pub fn file(&self) -> Option<&Path> {
        match &self.from {
            From::File(file) => Some(file),
            _ => None,
        }
    }

    /// The component.
    ///
    /// # Errors
    /// When it cannot be had, or is not what was pinned.
    pub async fn bytes(&self, fetcher: &Fetcher) -> Result<Vec<u8>, String> {
        match &self.from {
            From::File(file) => std::fs::read(file)
                .map_err(|cause| format!("cannot read {}: {cause}", file.display())),
            From::Url { url, digest } => fetcher.pinned(url, digest).await,
            From::Blob { registry, repository, digest } => {
                oci::blob(fetcher, registry, repository, digest).await
            }
            From::Bytes(bytes) => Ok(bytes.clone()),
        }
    }
}

/// The catalogue file of a folder.
///
/// # Errors
/// When the folder cannot be read.
pub fn index(folder: &Path) -> Result<Index, String> {
    let mut solvers = Vec::new();
    for found in in_folder(folder)? {
        let From::File(file) = &found.from else { continue };
        let bytes = std::fs::read(file).map_err(|cause| format!("{}: {cause}", file.display()))?;
        let manifest = manifest(&bytes, file)?;
        let component = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        solvers.push(Listed {
            name: found.name,
            description: found.about,
            version: manifest.version,
            component,
            digest: format!("sha256:{}", sha256(&bytes)),
        });
    }
    Ok(Index { solvers })
}

/// What a component says about itself, which has to be a solver.
///
/// # Errors
/// When it is none, or says nothing.
pub fn manifest(component: &[u8], file: &Path) -> Result<Manifest, String> {
    let found = Manifest::of_component(component, file).map_err(|report| report.to_string())?;
    match found {
        Some(manifest) if is_solver(&manifest) => Ok(manifest),
        Some(_) => Err(format!("{} is no dns-solver", file.display())),
        None => Err(format!("{} carries no plugin.yaml", file.display())),
    }
}

/// SHA-256 in hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex::lower(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

fn is_solver(manifest: &Manifest) -> bool {
    manifest.worlds.iter().any(|world| world == "dns-solver")
}

fn in_folder(folder: &Path) -> Result<Vec<Found>, String> {
    let cannot = |cause: std::io::Error| format!("cannot read {}: {cause}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let file = entry.map_err(cannot)?.path();
        if file.extension().is_none_or(|ending| ending != "wasm") {
            continue;
        }
        let manifest = Manifest::of_file(&file).map_err(|report| report.to_string())?;
        if let Some(manifest) = manifest.filter(is_solver) {
            let about = about(&manifest);
            found.push(Found { name: manifest.name, about, from: From::File(file) });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// One line for a list.
fn about(manifest: &Manifest) -> String {
    let guard = if manifest.guard.is_some() { "" } else { " [no guard]" };
    format!("{}{guard}", manifest.description.clone().unwrap_or_default())
}

fn component(url: &str, bytes: Vec<u8>) -> Result<Found, String> {
    let manifest = manifest(&bytes, Path::new(url))?;
    let about = about(&manifest);
    Ok(Found { name: manifest.name, about, from: From::Bytes(bytes) })
}

fn indexed(url: &str, bytes: &[u8]) -> Result<Vec<Found>, String> {
    let index: Index = serde_json::from_slice(bytes)
        .map_err(|cause| format!("{url} is neither a component nor a catalogue: {cause}"))?;
    let folder = url.rsplit_once('/').map_or(url, |it| it.0);
    let found = |listed: Listed| {
        let digest = sha256_of(&listed.digest)
            .ok_or_else(|| format!("{url}: {} has no digest of SHA-256", listed.name))?;
        let url = match listed.component.contains("://") {
            true => listed.component,
            false => format!("{folder}/{}", listed.component),
        };
        let from = From::Url { url, digest };
        Ok(Found { name: listed.name, about: listed.description, from })
    };
    index.solvers.into_iter().map(found).collect()
}

/// The hex of `sha256:HEX`.
fn sha256_of(digest: &str) -> Option<String> {
    let hex = digest.strip_prefix("sha256:")?.to_ascii_lowercase();
    (hex.len() == 64 && hex.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_elsewhere_has_to_be_pinned() {
        let hex = "ab".repeat(32);
        assert_eq!(Place::parse("target/plugins"), Ok(Place::Folder("target/plugins".into())));
        assert_eq!(
            Place::parse(&format!("https://a.example/x.wasm@sha256:{hex}")),
            Ok(Place::Url { url: "https://a.example/x.wasm".to_owned(), digest: hex.clone() })
        );
        let oci = Place::Oci {
            registry: "a.example:5000".to_owned(),
            repository: "witgate/solvers".to_owned(),
            digest: hex.clone(),
        };
        for tag in ["", ":v1"] {
            let text = format!("oci://a.example:5000/witgate/solvers{tag}@sha256:{hex}");
            assert_eq!(Place::parse(&text).as_ref(), Ok(&oci));
        }
        for (text, why) in [
            ("https://a.example/x.wasm", "is not pinned"),
            ("https://a.example/x.wasm@sha256:ab", "is no digest"),
            ("ftp://a.example/x@sha256:{hex}", "none of https"),
            ("oci://a.example@sha256:{hex}", "no repository"),
            ("oci://a.example/../x@sha256:{hex}", "is no repository"),
        ] {
            let refused = Place::parse(&text.replace("{hex}", &hex)).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
