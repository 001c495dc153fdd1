//! The journal of TXT records that the gateway wrote or was about to write. An entry is in the store
//! before a plugin is asked to write, and leaves it after the plugin has cleaned up, so that a crash
//! at any instant leaves nothing at a provider that the next start does not know of.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use super::RecordSet;
use crate::clock::Timestamp;
use crate::store::{Store, StoreError};

/// What a store said when it failed.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Where entries are kept: the store, or memory in tests.
pub trait Keep: Send + Sync {
    /// See [`Store::read`].
    fn read(&self, item: &str) -> Result<Option<Vec<u8>>, Cause>;
    /// See [`Store::write`].
    fn write(&self, item: &str, content: &[u8]) -> Result<(), Cause>;
    /// See [`Store::remove`].
    fn remove(&self, item: &str) -> Result<(), Cause>;
    /// See [`Store::list`].
    fn list(&self, folder: &str) -> Result<Vec<String>, Cause>;
    /// See [`Store::set_aside`].
    fn set_aside(&self, item: &str, why: &str) -> Result<(), Cause>;
    /// See [`Store::holder`].
    fn holder(&self) -> Option<String> {
        None
    }
    /// See [`Store::is_at_work`].
    fn is_at_work(&self, _holder: &str, _since: Timestamp) -> bool {
        false
    }
}

impl Keep for Store {
    fn read(&self, item: &str) -> Result<Option<Vec<u8>>, Cause> {
        Self::read(self, item).map_err(cause)
    }

    fn write(&self, item: &str, content: &[u8]) -> Result<(), Cause> {
        Self::write(self, item, content).map_err(cause)
    }

    fn remove(&self, item: &str) -> Result<(), Cause> {
        Self::remove(self, item).map_err(cause)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, Cause> {
        Self::list(self, folder).map_err(cause)
    }

    fn set_aside(&self, item: &str, why: &str) -> Result<(), Cause> {
        Self::set_aside(self, item, why).map_err(cause)
    }

    fn holder(&self) -> Option<String> {
        Self::holder(self)
    }

    fn is_at_work(&self, holder: &str, since: Timestamp) -> bool {
        Self::is_at_work(self, holder, since)
    }
}

fn cause(error: StoreError) -> Cause {
    Box::new(error)
}

/// One record set that may exist at a provider because of us.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// Of this format.
    pub version: u32,
    /// The name of the plugin in `gateway.yaml`.
    pub credential: String,
    /// What was to be written.
    pub record: RecordSet,
    /// What `present` returned; none when it is not known whether it came through.
    pub handle: Option<String>,
    /// Seconds since 1970.
    pub written_at: i64,
    /// Which of several gateways on one store wrote it.
    #[serde(default)]
    pub holder: Option<String>,
}

/// An entry that this process works on. While it lives, [`Journal::leftovers`] does not report it.
#[derive(Debug)]
pub struct Line {
    item: String,
    entry: Entry,
    live: Live,
}

impl Line {
    /// The record set.
    pub fn record(&self) -> &RecordSet {
        &self.entry.record
    }

    /// The plugin's name.
    pub fn credential(&self) -> &str {
        &self.entry.credential
    }

    /// The handle for `cleanup`: empty when it is not known.
    pub fn handle(&self) -> String {
        self.entry.handle.clone().unwrap_or_default()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.item);
    }
}

type Live = Arc<Mutex<BTreeSet<String>>>;

/// The journal.
pub struct Journal {
    keep: Arc<dyn Keep>,
    live: Live,
}

impl Journal {
    /// A journal in this store.
    pub fn new(keep: Arc<dyn Keep>) -> Self {
        Self { keep, live: Live::default() }
    }

    /// Writes an entry, before anything is written at the provider.
    ///
    /// # Errors
    /// When the store fails; then nothing may be written at the provider.
    pub async fn open(&self, credential: &str, record: RecordSet) -> Result<Line, Cause> {
        let entry = Entry {
            version: VERSION,
            credential: credential.to_owned(),
            record,
            handle: None,
            written_at: Timestamp::now().0,
            holder: self.keep.holder(),
        };
        let item = format!("{FOLDER}/{}.json", uuid::Uuid::now_v7());
        let line = self.claim(item, entry).ok_or("the entry's name is taken")?;
        self.write(&line).await?;
        Ok(line)
    }

    /// Adds the handle that `present` returned.
    ///
    /// # Errors
    /// When the store fails; the entry is then still there, without the handle.
    pub async fn update(&self, line: &mut Line, handle: String) -> Result<(), Cause> {
        line.entry.handle = Some(handle);
        self.write(line).await
    }

    /// Removes an entry, after the provider has nothing of it any more.
    ///
    /// # Errors
    /// When the store fails; the entry will be cleaned up once more, which does no harm.
    pub async fn close(&self, line: Line) -> Result<(), Cause> {
        let item = line.item.clone();
        self.blocking(move |keep| keep.remove(&item)).await
    }

    /// Entries that nobody in this process works on, and what is wrong with those that cannot be
    /// read.
    pub async fn leftovers(&self) -> (Vec<Line>, Vec<String>) {
        let listed = self.blocking(|keep| keep.list(FOLDER)).await;
        let items = match listed {
            Ok(items) => items,
            Err(cause) => return (vec![], vec![format!("cannot list the DNS journal: {cause}")]),
        };
        let (mut lines, mut problems) = (Vec::new(), Vec::new());
        for item in items {
            match self.leftover(item.clone()).await {
                Ok(line) => lines.extend(line),
                Err(cause) => problems.push(format!("cannot use {item} of the store: {cause}")),
            }
        }
        (lines, problems)
    }

    async fn leftover(&self, item: String) -> Result<Option<Line>, Cause> {
        let name = item.clone();
        let Some(content) = self.blocking(move |keep| keep.read(&name)).await? else {
            return Ok(None);
        };
        match serde_json::from_slice::<Entry>(&content) {
            Ok(entry) if entry.version == VERSION => {
                let since = Timestamp(entry.written_at);
                let holder = entry.holder.as_deref();
                // Another gateway's order may be under way.
                match holder.is_some_and(|holder| self.keep.is_at_work(holder, since)) {
                    true => Ok(None),
                    false => Ok(self.claim(item, entry)),
                }
            }
            Ok(entry) => {
                Err(format!("it has version {}, of a newer gateway", entry.version).into())
            }
            Err(error) => {
                let why = format!("not an entry of the DNS journal ({error})");
                self.blocking(move |keep| keep.set_aside(&item, &why)).await?;
                Err(Cause::from(error))
            }
        }
    }

    /// None when somebody in this process has it already.
    fn claim(&self, item: String, entry: Entry) -> Option<Line> {
        let is_new = self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(item.clone());
        is_new.then(|| Line { item, entry, live: Arc::clone(&self.live) })
    }

    async fn write(&self, line: &Line) -> Result<(), Cause> {
        let item = line.item.clone();
        let content = serde_json::to_vec_pretty(&line.entry)?;
        self.blocking(move |keep| keep.write(&item, &content)).await
    }

    /// The store syncs to disk, which must not hold up a worker that serves.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Keep) -> Result<T, Cause> + Send + 'static,
    ) -> Result<T, Cause> {
        let keep = Arc::clone(&self.keep);
        tokio::task::spawn_blocking(move || work(keep.as_ref())).await?
    }
}

/// Where entries are in the store.
pub const FOLDER: &str = "dns/journal";

const VERSION: u32 = 1;
