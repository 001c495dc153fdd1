//! Files that must survive: accounts, keys, certificates, the order journal, compiled plugins.
//! Every write is a new file, synced, then renamed over the old one and the folder synced, so that a
//! kill at any instant leaves the old or the new content. Folders are 0700, files 0600.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The store, opened and locked for this process.
#[derive(Debug)]
pub struct Store {}

/// Why the store did not do what was asked.
#[derive(Debug)]
pub struct StoreError {}

impl Store {
    /// Opens the folder, makes it when absent, and takes its lock.
    ///
    /// # Errors
    /// When it cannot be made, is not a folder, or another process holds its lock.
    pub fn open(_root: &Path) -> Result<Arc<Self>, StoreError> {
        unimplemented!("owner: acme")
    }

    /// The content of an item such as `acme/letsencrypt/account.json`; none when it is absent.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn read(&self, _item: &str) -> Result<Option<Vec<u8>>, StoreError> {
        unimplemented!("owner: acme")
    }

    /// Replaces an item, atomically and durably.
    ///
    /// # Errors
    /// When it cannot be written; the old content is then still there.
    pub fn write(&self, _item: &str, _content: &[u8]) -> Result<(), StoreError> {
        unimplemented!("owner: acme")
    }

    /// Removes an item; nothing when it is absent.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove(&self, _item: &str) -> Result<(), StoreError> {
        unimplemented!("owner: acme")
    }

    /// The items below a folder, sorted; empty when there is no such folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self, _folder: &str) -> Result<Vec<String>, StoreError> {
        unimplemented!("owner: acme")
    }

    /// Moves a corrupt item to `set-aside/`, with a log line that says why, so that it is neither
    /// served nor lost.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn set_aside(&self, _item: &str, _why: &str) -> Result<(), StoreError> {
        unimplemented!("owner: acme")
    }

    /// The path of a folder for files that are only a cache, made when absent.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn cache_folder(&self, _name: &str) -> Result<PathBuf, StoreError> {
        unimplemented!("owner: acme")
    }
}
