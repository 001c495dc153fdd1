//! What `plugin.yaml` says about a plugin, as far as building it needs to know.

use serde::Deserialize;

/// The beginning of a `plugin.yaml`.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    /// The plugin's name.
    pub name: String,
    /// The worlds it is for.
    pub worlds: Vec<String>,
}

/// Reads the text of a `plugin.yaml`.
///
/// # Errors
/// What is wrong with it, with its line.
pub fn read(text: &str) -> Result<Manifest, String> {
    let manifest: Manifest = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    if let Some(world) = manifest.worlds.iter().find(|world| !WORLDS.contains(&world.as_str())) {
        return Err(format!("worlds: `{world}` is none of {}", WORLDS.join(", ")));
    }
    if manifest.worlds.is_empty() {
        return Err(format!("worlds: at least one of {}", WORLDS.join(", ")));
    }
    Ok(manifest)
}

const WORLDS: [&str; 3] = ["router", "filter", "dns-solver"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_known_worlds() {
        let manifest = read("name: a\nversion: 1.0.0\nworlds: [filter, router]\n").unwrap();
        assert_eq!((manifest.name.as_str(), manifest.worlds.len()), ("a", 2));
        let error = read("name: a\nworlds: [filtre]\n").unwrap_err();
        assert_eq!(error, "worlds: `filtre` is none of router, filter, dns-solver");
        assert!(read("name: a\n").unwrap_err().contains("worlds"));
        assert!(read("name: a\nworlds: []\n").is_err());
    }
}
