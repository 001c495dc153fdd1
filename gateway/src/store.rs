//! Files that must survive: accounts, keys, certificates, the order journal, compiled plugins.
//! Every write is a new file, synced, then renamed over the old one and the folder synced, so that a
//! kill at any instant leaves the old or the new content. Folders are 0700, files 0600.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Timestamp;
use crate::fault::Fault;

/// The store, opened and locked for this process.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Held as long as the store is open; the system drops it with the process, however that ends.
    /// None when it is only looked at.
    _lock: Option<File>,
    writes: AtomicU64,
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
}

impl Store {
    /// Opens the folder, makes it when absent, and takes its lock. Files that a kill left half-written
    /// are removed; they were never part of the store.
    ///
    /// # Errors
    /// When it cannot be made, is not a folder, or another process holds its lock.
    pub fn open(root: &Path) -> Result<Arc<Self>, StoreError> {
        let fail = |what: &'static str, cause| StoreError::Io(what, root.to_owned(), cause);
        make_folder(root).map_err(|cause| fail("make", cause))?;
        let path = root.join(LOCK);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|cause| fail("open", cause))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = lock.read_to_string(&mut holder);
                return Err(StoreError::Locked(root.to_owned(), holder.trim().parse().ok()));
            }
            Err(TryLockError::Error(cause)) => return Err(fail("lock", cause)),
        }
        let _ = lock.set_len(0).and_then(|()| lock.rewind());
        let _ = writeln!(lock, "{}", std::process::id());
        sweep(root).map_err(|cause| fail("clean up", cause))?;
        Ok(Arc::new(Self { root: root.to_owned(), _lock: Some(lock), writes: AtomicU64::new(0) }))
    }

    /// The folder as it is, also beside a gateway that has it, to read and to list only.
    pub fn look(root: &Path) -> Self {
        Self { root: root.to_owned(), _lock: None, writes: AtomicU64::new(0) }
    }

    /// The content of an item such as `acme/letsencrypt/account.json`; none when it is absent.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn read(&self, item: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(item)?;
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(StoreError::Io("read", path, cause)),
        }
    }

    /// Replaces an item, atomically and durably.
    ///
    /// # Errors
    /// When it cannot be written; the old content is then still there.
    pub fn write(&self, item: &str, content: &[u8]) -> Result<(), StoreError> {
        let path = self.path(item)?;
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        let fail = |cause| StoreError::Io("write", path.clone(), cause);
        make_folder(&folder).map_err(fail)?;
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let half = folder.join(format!("{HALF}{}-{number}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&half)
            .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&half, &path))
            .and_then(|()| sync_folder(&folder));
        if written.is_err() {
            let _ = fs::remove_file(&half);
        }
        written.map_err(fail)
    }

    /// Removes an item; nothing when it is absent.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove(&self, item: &str) -> Result<(), StoreError> {
        let path = self.path(item)?;
        match fs::remove_file(&path) {
            Ok(()) => sync_folder(path.parent().unwrap_or(&self.root))
                .map_err(|cause| StoreError::Io("remove", path, cause)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(StoreError::Io("remove", path, cause)),
        }
    }

    /// The items directly in a folder, sorted, as names that [`Store::read`] takes; empty when there
    /// is no such folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let path = self.path(folder)?;
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(StoreError::Io("list", path, cause)),
        };
        let mut items = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|cause| StoreError::Io("list", path.clone(), cause))?;
            let name = entry.file_name();
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if let Some(name) = name.to_str().filter(|name| is_file && !name.starts_with(HALF)) {
                items.push(format!("{}/{}", folder.trim_end_matches('/'), unescape(name)));
            }
        }
        items.sort();
        Ok(items)
    }

    /// Moves a corrupt item to `set-aside/`, with a log line that says why, so that it is neither
    /// served nor lost.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn set_aside(&self, item: &str, why: &str) -> Result<(), StoreError> {
        let path = self.path(item)?;
        let folder = self.root.join("set-aside");
        let name = format!("{}-{}", Timestamp::now().0, item.replace('/', "-"));
        let to = folder.join(escape(&name));
        let fail = |cause| StoreError::Io("set aside", path.clone(), cause);
        make_folder(&folder).map_err(fail)?;
        fs::rename(&path, &to).map_err(fail)?;
        tracing::error!(item, to = %to.display(), "set aside, since it cannot be used: {why}");
        Ok(())
    }

    /// The path of a folder for files that are only a cache, made when absent.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn cache_folder(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = self.path(name)?;
        make_folder(&path).map_err(|cause| StoreError::Io("make", path.clone(), cause))?;
        Ok(path)
    }

    fn path(&self, item: &str) -> Result<PathBuf, StoreError> {
        let mut path = self.root.clone();
        for segment in item.split('/') {
            if segment.is_empty() || segment == "." || segment == ".." {
                return Err(StoreError::Name(item.to_owned()));
            }
            path.push(escape(segment));
        }
        Ok(path)
    }
}

/// Letters, digits and `.-_` stand for themselves, all else as `%XX`, so that a wildcard or a URL can
/// be part of a name.
fn escape(segment: &str) -> String {
    let mut name = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'.' if name.is_empty() => name.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {
                name.push(char::from(byte));
            }
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

fn unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).filter(|_| *first == b'%').and_then(|hex| {
            std::str::from_utf8(hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok())
        });
        bytes.push(code.unwrap_or(*first));
        rest = tail.get(if code.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sweep(&entry.path())?;
        } else if kind.is_file() && entry.file_name().to_string_lossy().starts_with(HALF) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl StoreError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Locked(..) | Self::Io(..) => Fault::Operator,
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
                f.write_str("; stop that one, or give this one another `store:`")
            }
            Self::Name(item) => write!(f, "`{item}` is no name of an item in the store"),
            Self::Io(what, path, _) => write!(f, "cannot {what} {} in the store", path.display()),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, _, cause) => Some(cause),
            Self::Locked(..) | Self::Name(_) => None,
        }
    }
}

const LOCK: &str = "lock";
/// Begins the names of files that are not yet part of the store; no escaped name begins so.
const HALF: &str = ".half-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("state");
        let store = Store::open(&root).unwrap();
        store.write("acme/a/*.example.com", b"1").unwrap();
        store.write("acme/a/*.example.com", b"2").unwrap();
        assert_eq!(store.read("acme/a/*.example.com").unwrap().unwrap(), b"2");
        assert_eq!(store.read("acme/a/other").unwrap(), None);
        assert_eq!(store.list("acme/a").unwrap(), ["acme/a/*.example.com"]);
        assert_eq!(store.list("nothing").unwrap(), Vec::<String>::new());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&root.join("acme")), 0o700);
        assert_eq!(mode(&root.join("acme/a/%2A.example.com")), 0o600);
        store.remove("acme/a/*.example.com").unwrap();
        store.remove("acme/a/*.example.com").unwrap();
        assert!(store.list("acme/a").unwrap().is_empty());
    }

    #[test]
    fn names_cannot_leave_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        for name in ["../x", "a/../../x", "/x", "a//b", ".", ""] {
            assert!(matches!(store.write(name, b""), Err(StoreError::Name(_))), "{name}");
        }
    }

    #[test]
    fn a_kill_half_way_leaves_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("state");
        let store = Store::open(&root).unwrap();
        store.write("a/key", b"old").unwrap();
        drop(store);
        // What a kill between the write and the rename leaves behind.
        fs::write(root.join("a/.half-1-1"), b"ne").unwrap();
        let store = Store::open(&root).unwrap();
        assert_eq!(store.read("a/key").unwrap().unwrap(), b"old");
        assert_eq!(store.list("a").unwrap(), ["a/key"]);
        assert!(!root.join("a/.half-1-1").exists());
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Store::open(folder.path()).unwrap();
        let second = Store::open(folder.path()).unwrap_err();
        assert!(second.to_string().contains(&std::process::id().to_string()), "{second}");
        drop(first);
        Store::open(folder.path()).unwrap();
    }

    #[test]
    fn what_is_set_aside_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.write("a/cert", b"broken").unwrap();
        store.set_aside("a/cert", "not PEM").unwrap();
        assert_eq!(store.read("a/cert").unwrap(), None);
        assert_eq!(store.list("set-aside").unwrap().len(), 1);
    }
}
