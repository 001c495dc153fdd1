//! Where items are kept. A folder today; whoever brings another place implements [`Shelf`], and
//! nothing else changes.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::StoreError;

/// A place for named items: all that [`super::Store`] needs of it.
pub trait Shelf: fmt::Debug + Send + Sync {
    /// The content of an item; none when it is absent.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    fn read(&self, item: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Replaces an item: whoever reads meanwhile sees the old or the new content, and after this
    /// returns the new one survives any crash.
    ///
    /// # Errors
    /// When it cannot be written; the old content is then still there.
    fn write(&self, item: &str, content: &[u8]) -> Result<(), StoreError>;

    /// Removes an item; nothing when it is absent.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    fn remove(&self, item: &str) -> Result<(), StoreError>;

    /// The items directly in a folder, sorted, as names that [`Shelf::read`] takes.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError>;

    /// The folders directly in a folder, sorted, as names.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    fn folders(&self, folder: &str) -> Result<Vec<String>, StoreError>;

    /// Runs `work` while nobody else, in any process, is inside this. For moments only.
    ///
    /// # Errors
    /// Those of `work`, and when the others cannot be kept out.
    fn alone(&self, work: &mut dyn FnMut() -> Result<(), StoreError>) -> Result<(), StoreError>;

    /// A name that lives as long as this process, however it ends.
    ///
    /// # Errors
    /// When it cannot be taken.
    fn sign_on(&self, holder: &str) -> Result<Box<dyn Send + Sync>, StoreError>;

    /// Whether a name that a process on this machine took is still alive.
    fn is_alive(&self, holder: &str) -> bool;
}

/// Items as files below a folder. Folders are 0700, files 0600.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    writes: AtomicU64,
}

impl Folder {
    /// The folder as it is.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), writes: AtomicU64::new(0) }
    }

    /// The path of an item.
    ///
    /// # Errors
    /// When the name would leave the folder.
    pub fn path(&self, item: &str) -> Result<PathBuf, StoreError> {
        let mut path = self.root.clone();
        for segment in item.split('/') {
            if segment.is_empty() || segment == "." || segment == ".." {
                return Err(StoreError::Name(item.to_owned()));
            }
            path.push(escape(segment));
        }
        Ok(path)
    }

    fn within(
        &self,
        folder: &str,
        is_wanted: impl Fn(fs::FileType) -> bool,
    ) -> Result<Vec<String>, StoreError> {
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
            let is_one = entry.file_type().is_ok_and(&is_wanted);
            if let Some(name) = name.to_str().filter(|name| is_one && !name.starts_with(HALF)) {
                items.push(format!("{}/{}", folder.trim_end_matches('/'), unescape(name)));
            }
        }
        items.sort();
        Ok(items)
    }

    fn holder(&self, holder: &str) -> PathBuf {
        self.root.join("holders").join(escape(holder))
    }
}

impl Shelf for Folder {
    fn read(&self, item: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(item)?;
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(StoreError::Io("read", path, cause)),
        }
    }

    fn write(&self, item: &str, content: &[u8]) -> Result<(), StoreError> {
        let path = self.path(item)?;
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        let fail = |cause| StoreError::Io("write", path.clone(), cause);
        make_folder(&folder).map_err(fail)?;
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        // Processes on several machines may have the same id.
        let process = uuid::Uuid::now_v7().simple();
        let half = folder.join(format!("{HALF}{process}-{number}"));
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

    fn remove(&self, item: &str) -> Result<(), StoreError> {
        let path = self.path(item)?;
        match fs::remove_file(&path) {
            Ok(()) => sync_folder(path.parent().unwrap_or(&self.root))
                .map_err(|cause| StoreError::Io("remove", path, cause)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(StoreError::Io("remove", path, cause)),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.within(folder, |kind| kind.is_file())
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.within(folder, |kind| kind.is_dir())
    }

    fn alone(&self, work: &mut dyn FnMut() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let path = self.root.join("alone");
        let fail = |cause| StoreError::Io("lock", path.clone(), cause);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(fail)?;
        file.lock().map_err(fail)?;
        let done = work();
        let _ = file.unlock();
        done
    }

    fn sign_on(&self, holder: &str) -> Result<Box<dyn Send + Sync>, StoreError> {
        let path = self.holder(holder);
        let fail = |cause| StoreError::Io("make", path.clone(), cause);
        make_folder(&self.root.join("holders")).map_err(fail)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&path).map_err(fail)?;
        let file = File::open(&path).map_err(fail)?;
        file.lock().map_err(fail)?;
        Ok(Box::new(Signed { file, path: path.clone() }))
    }

    fn is_alive(&self, holder: &str) -> bool {
        // The system drops the lock with the process.
        match File::open(self.holder(holder)) {
            Ok(file) => file.try_lock_shared().is_err(),
            Err(_) => false,
        }
    }
}

/// A holder's name, taken.
struct Signed {
    file: File,
    path: PathBuf,
}

impl Drop for Signed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

/// Removes what kills left half-written; never part of the store. With others about, only what is
/// too old to be at work.
pub fn sweep(folder: &Path, is_shared: bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sweep(&entry.path(), is_shared)?;
        } else if kind.is_file() && entry.file_name().to_string_lossy().starts_with(HALF) {
            let written = entry.metadata().and_then(|meta| meta.modified());
            let age = written.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            if !is_shared || age.is_some_and(|age| age > HALF_TIME_MAX) {
                match fs::remove_file(entry.path()) {
                    Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// Letters, digits and `.-_` stand for themselves, all else as `%XX`, so that a wildcard or a URL can
/// be part of a name.
pub fn escape(segment: &str) -> String {
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

pub fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Begins the names of files that are not yet part of the store; no escaped name begins so.
const HALF: &str = ".half-";
const HALF_TIME_MAX: Duration = Duration::from_secs(3600);
