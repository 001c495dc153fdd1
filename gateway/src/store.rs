//! What must survive: accounts, keys, certificates, the order journal, compiled plugins. Every write
//! replaces an item atomically and durably, so that a kill at any instant leaves the old or the new
//! content. Several gateways may share one store; private keys may be sealed.

mod lease;
mod seal;
mod shelf;

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use lease::{LEASE_TIME, Lease};
pub use shelf::Shelf;

use crate::clock::Timestamp;
use crate::fault::Fault;
use lease::Member;
use seal::Seal;
use shelf::{Folder, make_folder, sweep};

/// The store, opened for this process.
#[derive(Debug)]
pub struct Store {
    shelf: Box<dyn Shelf>,
    /// For caches, which stay on this machine.
    root: PathBuf,
    seal: Option<Seal>,
    /// Who we are among those that share it; none when nobody does.
    member: Option<Member>,
    /// Held as long as the store is open; the system drops it with the process, however that ends.
    /// None when it is only looked at, and at an upgrade while the other process has it.
    lock: Mutex<Option<File>>,
}

/// How a store is opened.
#[derive(Debug, Default)]
pub struct Opening {
    /// Whether other gateways may have it open too.
    pub is_shared: bool,
    /// The passphrase that private keys are sealed with.
    pub passphrase: Option<Vec<u8>>,
    /// Whether the process that has it now is about to release it: then the lock is taken by
    /// [`Store::take`], and nothing is written before.
    pub is_beside: bool,
}

/// Why the store did not do what was asked.
#[derive(Debug)]
pub enum StoreError {
    /// Another process has the store: its id, when it is known.
    Locked(PathBuf, Option<u32>),
    /// The item's name would leave the store.
    Name(String),
    /// The file system refused.
    Io(&'static str, PathBuf, io::Error),
    /// The seal cannot be used, and why.
    Seal(String),
    /// Another gateway has taken over what this one was doing: the lease.
    Lost(String),
}

impl Store {
    /// Opens the folder for this process alone, unsealed.
    ///
    /// # Errors
    /// As [`Store::open_as`].
    pub fn open(root: &Path) -> Result<Arc<Self>, StoreError> {
        Self::open_as(root, &Opening::default())
    }

    /// Opens the folder, makes it when absent, and takes its lock. Files that a kill left half-written
    /// are removed; they were never part of the store.
    ///
    /// # Errors
    /// When it cannot be made, is not a folder, another process holds its lock, or it is sealed by
    /// another passphrase.
    pub fn open_as(root: &Path, how: &Opening) -> Result<Arc<Self>, StoreError> {
        let fail = |what: &'static str, cause| StoreError::Io(what, root.to_owned(), cause);
        make_folder(root).map_err(|cause| fail("make", cause))?;
        let is_beside = how.is_beside && !how.is_shared;
        let lock = if is_beside { None } else { Some(take_lock(root, how.is_shared)?) };
        match sweep(root, how.is_shared || is_beside) {
            Err(cause) if cause.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
            swept => swept.map_err(|cause| fail("clean up", cause))?,
        }
        Self::over(Box::new(Folder::new(root)), root, how, lock)
    }

    /// A store over a place for items, with caches in the folder `root`. `lock` is held as long as it
    /// is open.
    fn over(
        shelf: Box<dyn Shelf>,
        root: &Path,
        how: &Opening,
        lock: Option<File>,
    ) -> Result<Arc<Self>, StoreError> {
        let member = match how.is_shared {
            true => Some(Member::sign_on(&*shelf)?),
            false => None,
        };
        let seal = open_seal(&*shelf, how.passphrase.as_deref())?;
        // Nothing is written beside the process that has it now.
        let is_beside = how.is_beside && !how.is_shared;
        let lock = Mutex::new(lock);
        let store = Self { shelf, root: root.to_owned(), seal, member, lock };
        if !is_beside {
            store.seal_what_is_not()?;
        }
        Ok(Arc::new(store))
    }

    /// Gives the lock to the process that takes over. A store that is shared has nothing to give.
    pub fn release(&self) {
        if !self.is_shared() {
            *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Takes the lock that the process before has released, or takes it back. Nothing when we have it.
    ///
    /// # Errors
    /// When another process has it.
    pub fn take(&self) -> Result<(), StoreError> {
        {
            let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            if lock.is_some() {
                return Ok(());
            }
            *lock = Some(take_lock(&self.root, false)?);
        }
        self.seal_what_is_not()
    }

    /// The folder as it is, also beside a gateway that has it, to read and to list only.
    ///
    /// # Errors
    /// When it is sealed by another passphrase.
    pub fn look(root: &Path, passphrase: Option<&[u8]>) -> Result<Arc<Self>, StoreError> {
        let shelf: Box<dyn Shelf> = Box::new(Folder::new(root));
        let is_sealed = seal::has_seal(&*shelf)?;
        let seal = open_seal(&*shelf, passphrase.filter(|_| is_sealed))?;
        Ok(Arc::new(Self {
            shelf,
            root: root.to_owned(),
            seal,
            member: None,
            lock: Mutex::default(),
        }))
    }

    /// Whether other gateways may have it open too.
    pub fn is_shared(&self) -> bool {
        self.member.is_some()
    }

    /// The content of an item such as `acme/letsencrypt/account.json`; none when it is absent.
    ///
    /// # Errors
    /// When it is there but cannot be read, or not be unsealed.
    pub fn read(&self, item: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(content) = self.shelf.read(item)? else { return Ok(None) };
        if !seal::is_sealed(&content) {
            return Ok(Some(content));
        }
        let opened = self.seal.as_ref().and_then(|seal| seal.unseal(item, &content));
        match opened {
            Some(content) => Ok(Some(content)),
            // Not ours to decide what becomes of it: it may be whole, and another's.
            None => Err(StoreError::Seal(format!("{item} cannot be opened: it was changed"))),
        }
    }

    /// Replaces an item, atomically and durably. Private keys are sealed.
    ///
    /// # Errors
    /// When it cannot be written; the old content is then still there.
    pub fn write(&self, item: &str, content: &[u8]) -> Result<(), StoreError> {
        match &self.seal {
            Some(seal) if seal::is_secret(item) => {
                self.shelf.write(item, &seal.seal(item, content)?)
            }
            _ => self.shelf.write(item, content),
        }
    }

    /// The content of an item, made by `make` when it is absent: of several gateways that come at
    /// once, one makes it for all.
    ///
    /// # Errors
    /// When it can neither be read nor written, or `make` fails.
    pub fn read_or<E: From<StoreError>>(
        &self,
        item: &str,
        make: impl Fn() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let mut result: Result<Vec<u8>, E> = Ok(Vec::new());
        self.shelf.alone(&mut || {
            let known = self.read(item)?;
            result = match known {
                Some(content) => Ok(content),
                None => make(),
            };
            match &result {
                Ok(content) => self.write(item, content),
                Err(_) => Ok(()),
            }
        })?;
        result
    }

    /// Replaces an item by what `change` makes of the present one, with nobody between the two.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn change(
        &self,
        item: &str,
        change: &mut dyn FnMut(Option<Vec<u8>>) -> Vec<u8>,
    ) -> Result<(), StoreError> {
        self.shelf.alone(&mut || {
            let next = change(self.read(item)?);
            self.write(item, &next)
        })
    }

    /// Removes an item; nothing when it is absent.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove(&self, item: &str) -> Result<(), StoreError> {
        self.shelf.remove(item)
    }

    /// The items directly in a folder, sorted, as names that [`Store::read`] takes; empty when there
    /// is no such folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.shelf.list(folder)
    }

    /// Moves a corrupt item to `set-aside/`, with a log line that says why, so that it is neither
    /// served nor lost.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn set_aside(&self, item: &str, why: &str) -> Result<(), StoreError> {
        let to = format!("set-aside/{}-{}", Timestamp::now().0, item.replace('/', "-"));
        if let Some(content) = self.shelf.read(item)? {
            self.shelf.write(&to, &content)?;
        }
        self.shelf.remove(item)?;
        tracing::error!(item, to, "set aside, since it cannot be used: {why}");
        Ok(())
    }

    /// The path of a folder for files that are only a cache, made when absent.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn cache_folder(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = Folder::new(&self.root).path(name)?;
        make_folder(&path).map_err(|cause| StoreError::Io("make", path.clone(), cause))?;
        Ok(path)
    }

    /// Seals the private keys that were written before there was a seal.
    fn seal_what_is_not(&self) -> Result<(), StoreError> {
        if self.seal.is_none() {
            return Ok(());
        }
        let mut items = self.list("acme/certificates")?;
        items.extend(self.list("acme/orders")?);
        items.extend(self.list("local")?);
        items.push("sticky.key".to_owned());
        let keys = ["account.key", "account.key.next"];
        for folder in self.shelf.folders("acme/issuers")? {
            items.extend(keys.map(|key| format!("{folder}/{key}")));
        }
        for item in items.iter().filter(|item| seal::is_secret(item)) {
            if let Some(content) = self.shelf.read(item)?
                && !seal::is_sealed(&content)
            {
                self.write(item, &content)?;
            }
        }
        Ok(())
    }
}

fn open_seal(shelf: &dyn Shelf, passphrase: Option<&[u8]>) -> Result<Option<Seal>, StoreError> {
    let Some(passphrase) = passphrase else {
        let why = "it is sealed: say with `store.seal` where the passphrase is";
        return match seal::has_seal(shelf)? {
            true => Err(StoreError::Seal(why.to_owned())),
            false => Ok(None),
        };
    };
    if seal::has_seal(shelf)? {
        return Seal::open(shelf, passphrase).map(Some);
    }
    // Of several gateways that come at once, one makes it for all.
    let mut seal = None;
    shelf.alone(&mut || {
        seal = Some(Seal::open(shelf, passphrase)?);
        Ok(())
    })?;
    Ok(seal)
}

/// One process holds the lock alone, or several share it. No file stays open for writing, so that the
/// disk may become read-only.
fn take_lock(root: &Path, is_shared: bool) -> Result<File, StoreError> {
    let fail = |what: &'static str, cause| StoreError::Io(what, root.to_owned(), cause);
    let path = root.join(LOCK);
    let open_to_write = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).open(&path)
    };
    match open_to_write() {
        Ok(_) => {}
        Err(cause) if cause.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            tracing::error!(
                store = %root.display(),
                "the disk of the store is read-only: what is there is served, nothing is ordered"
            );
        }
        Err(cause) => return Err(fail("open", cause)),
    }
    let mut lock = File::open(&path).map_err(|cause| fail("open", cause))?;
    match if is_shared { lock.try_lock_shared() } else { lock.try_lock() } {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            return Err(StoreError::Locked(root.to_owned(), holder.trim().parse().ok()));
        }
        Err(TryLockError::Error(cause)) => return Err(fail("lock", cause)),
    }
    if let Ok(mut file) = open_to_write() {
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    }
    Ok(lock)
}

impl StoreError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Locked(..) | Self::Io(..) | Self::Seal(_) | Self::Lost(_) => Fault::Operator,
            Self::Name(_) => Fault::Internal,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(root, holder) => {
                write!(f, "the store {} is in use by another gateway", root.display())?;
                if let Some(pid) = holder {
                    write!(f, " (process {pid})")?;
                }
                f.write_str(
                    "; stop that one, give this one another `store:`, or let all of them share it \
                     with `store: {path: …, shared: true}`",
                )
            }
            Self::Name(item) => write!(f, "`{item}` is no name of an item in the store"),
            Self::Io(what, path, _) => write!(f, "cannot {what} {} in the store", path.display()),
            Self::Seal(why) => write!(f, "the seal of the store: {why}"),
            Self::Lost(item) => write!(f, "another gateway has taken over ({item})"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, _, cause) => Some(cause),
            Self::Locked(..) | Self::Name(_) | Self::Seal(_) | Self::Lost(_) => None,
        }
    }
}

const LOCK: &str = "lock";

#[cfg(test)]
mod memory;
#[cfg(test)]
mod tests;
