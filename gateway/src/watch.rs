//! Files that decide what is served, watched for changes. A change is only told once the files have
//! been quiet for a moment, so that a copy in progress is not read half-way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Watches files by their folders, so that a file that is replaced by a rename is still seen.
pub struct Watcher {
    inner: Option<RecommendedWatcher>,
    events: mpsc::Receiver<()>,
    folders: BTreeSet<PathBuf>,
    known: BTreeMap<PathBuf, Signature>,
    /// Changes that have not been told yet.
    seen: BTreeSet<PathBuf>,
    /// When to look even without a notification.
    look_anyway: Instant,
}

/// What tells two versions of a file apart without reading it.
type Signature = Option<(SystemTime, u64, u64)>;

impl Watcher {
    /// Starts without any file. Where the system has no notifications, files are looked at every
    /// second instead.
    pub fn new() -> Self {
        let (sender, events) = mpsc::channel(1);
        let inner = notify::recommended_watcher(move |_: notify::Result<notify::Event>| {
            // A full channel means that a look is due already.
            let _ = sender.try_send(());
        });
        let inner = inner
            .inspect_err(|cause| tracing::warn!(%cause, "no file notifications, polling instead"))
            .ok();
        Self {
            inner,
            events,
            folders: BTreeSet::new(),
            known: BTreeMap::new(),
            seen: BTreeSet::new(),
            look_anyway: Instant::now(),
        }
    }

    /// Sets the files to watch from now on; their present state counts as known.
    pub fn watch(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let known = files.into_iter().map(|file| {
            let signature = self.known.get(&file).copied().unwrap_or_else(|| signature(&file));
            (file, signature)
        });
        self.known = known.collect();
        let folders: BTreeSet<PathBuf> = self.known.keys().map(|file| folder(file)).collect();
        if let Some(inner) = &mut self.inner {
            for folder in self.folders.difference(&folders) {
                let _ = inner.unwatch(folder);
            }
            for folder in folders.difference(&self.folders) {
                if let Err(cause) = inner.watch(folder, RecursiveMode::NonRecursive) {
                    tracing::warn!(folder = %folder.display(), %cause, "cannot watch");
                }
            }
        }
        self.folders = folders;
    }

    /// Waits until watched files have changed and been quiet since; returns which, sorted. Whoever
    /// stops waiting misses nothing: the next call goes on.
    pub async fn changed(&mut self) -> Vec<PathBuf> {
        loop {
            // The timer also covers what notifications miss: network file systems, mounts.
            if self.seen.is_empty() {
                let _ = tokio::time::timeout_at(self.look_anyway, self.events.recv()).await;
                self.look();
            }
            while !self.seen.is_empty() {
                tokio::time::sleep(QUIET).await;
                if !self.look() {
                    return std::mem::take(&mut self.seen).into_iter().collect();
                }
            }
        }
    }

    /// Notes what has changed since the last look; whether anything has.
    fn look(&mut self) -> bool {
        let pause = if self.inner.is_some() { LOOK_ANYWAY } else { POLL };
        self.look_anyway = Instant::now() + pause;
        let mut is_changed = false;
        for (file, known) in &mut self.known {
            let now = signature(file);
            if now != *known {
                *known = now;
                self.seen.insert(file.clone());
                is_changed = true;
            }
        }
        is_changed
    }
}

impl Default for Watcher {
    fn default() -> Self {
        Self::new()
    }
}

fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn signature(file: &Path) -> Signature {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

const QUIET: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_secs(1);
const LOOK_ANYWAY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_and_a_replacement_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "1").unwrap();
        let mut watcher = Watcher::new();
        watcher.watch(std::iter::once(file.clone()));
        std::fs::write(folder.path().join("other"), "x").unwrap();
        std::fs::write(&file, "22").unwrap();
        let seen = tokio::time::timeout(Duration::from_secs(20), watcher.changed()).await.unwrap();
        assert_eq!(seen, std::slice::from_ref(&file));
        std::fs::write(folder.path().join("new"), "333").unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
        let seen = tokio::time::timeout(Duration::from_secs(20), watcher.changed()).await.unwrap();
        assert_eq!(seen, std::slice::from_ref(&file));
        // Somebody who stops waiting again and again misses nothing.
        std::fs::write(&file, "4444").unwrap();
        let impatient = async {
            loop {
                let moment = Duration::from_millis(120);
                if let Ok(seen) = tokio::time::timeout(moment, watcher.changed()).await {
                    return seen;
                }
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(20), impatient).await.unwrap();
        assert_eq!(seen, [file]);
    }
}
