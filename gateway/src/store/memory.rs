//! A second kind of [`Shelf`], in memory: what another place than a folder has to bring, and the proof
//! that a [`Store`] needs nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Opening, Shelf, Store, StoreError};

/// Items that all stores over clones of it share, as processes share a database.
#[derive(Debug, Clone, Default)]
struct Memory {
    items: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    holders: Arc<Mutex<BTreeSet<String>>>,
    alone: Arc<Mutex<()>>,
}

struct Signed(Memory, String);

impl Drop for Signed {
    fn drop(&mut self) {
        self.0.holders.lock().unwrap().remove(&self.1);
    }
}

impl Memory {
    fn store(&self, how: &Opening) -> Result<Arc<Store>, StoreError> {
        Store::over(Box::new(self.clone()), Path::new("/nonexistent"), how, None)
    }

    fn items(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.items.lock().unwrap()
    }

    fn below(&self, folder: &str, is_folder: bool) -> Vec<String> {
        let start = format!("{}/", folder.trim_end_matches('/'));
        let items = self.items();
        let rests = items.keys().filter_map(|item| item.strip_prefix(&start));
        let names = rests.filter_map(|rest| match rest.split_once('/') {
            Some((name, _)) => is_folder.then_some(name),
            None => (!is_folder).then_some(rest),
        });
        let names: BTreeSet<String> = names.map(|name| format!("{start}{name}")).collect();
        names.into_iter().collect()
    }
}

impl Shelf for Memory {
    fn read(&self, item: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.items().get(item).cloned())
    }

    fn write(&self, item: &str, content: &[u8]) -> Result<(), StoreError> {
        self.items().insert(item.to_owned(), content.to_vec());
        Ok(())
    }

    fn remove(&self, item: &str) -> Result<(), StoreError> {
        self.items().remove(item);
        Ok(())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.below(folder, false))
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.below(folder, true))
    }

    fn alone(&self, work: &mut dyn FnMut() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let _alone = self.alone.lock().unwrap();
        work()
    }

    fn sign_on(&self, holder: &str) -> Result<Box<dyn Send + Sync>, StoreError> {
        self.holders.lock().unwrap().insert(holder.to_owned());
        Ok(Box::new(Signed(self.clone(), holder.to_owned())))
    }

    fn is_alive(&self, holder: &str) -> bool {
        self.holders.lock().unwrap().contains(holder)
    }
}

#[test]
fn a_store_stands_on_any_shelf() {
    let memory = Memory::default();
    let shared = |passphrase: &str| Opening {
        is_shared: true,
        passphrase: Some(passphrase.as_bytes().to_vec()),
        is_beside: false,
    };
    let first = memory.store(&shared("right")).unwrap();
    let second = memory.store(&shared("right")).unwrap();
    assert!(memory.store(&shared("wrong")).is_err() && memory.store(&Opening::default()).is_err());
    // Items, folders, seals.
    let key = "acme/issuers/ca.example_dir/account.key";
    first.write(key, b"SECRET").unwrap();
    first.write("acme/state/a.example.json", b"{}").unwrap();
    assert_eq!(second.read(key).unwrap().unwrap(), b"SECRET");
    assert!(memory.items()[key].windows(6).all(|six| six != b"SECRET"));
    assert_eq!(second.list("acme/state").unwrap(), ["acme/state/a.example.json"]);
    assert_eq!(memory.folders("acme/issuers").unwrap(), ["acme/issuers/ca.example_dir"]);
    first.set_aside("acme/state/a.example.json", "it is empty").unwrap();
    assert_eq!(second.read("acme/state/a.example.json").unwrap(), None);
    assert_eq!(second.list("set-aside").unwrap().len(), 1);
    // Leases, also of the dead.
    let held = first.lease("x").unwrap().expect("the lease");
    assert!(second.lease("x").unwrap().is_none());
    drop(held);
    let held = second.lease("x").unwrap().expect("the lease");
    held.renew().unwrap();
    std::mem::forget(held);
    // As the death of a process would have it.
    memory.holders.lock().unwrap().clear();
    assert!(first.lease("x").unwrap().is_some());
    // Changes by many at once.
    std::thread::scope(|scope| {
        for store in [&first, &second] {
            scope.spawn(|| {
                for _ in 0..100 {
                    let add = &mut |known: Option<Vec<u8>>| {
                        let text = String::from_utf8(known.unwrap_or_default()).unwrap();
                        (text.parse().unwrap_or(0) + 1).to_string().into_bytes()
                    };
                    store.change("count", add).unwrap();
                }
            });
        }
    });
    assert_eq!(first.read("count").unwrap().unwrap(), b"200");
    let made = second.read_or("sticky.key", || Ok::<_, StoreError>(b"one".to_vec())).unwrap();
    assert_eq!(first.read_or("sticky.key", || Ok::<_, StoreError>(b"two".to_vec())).unwrap(), made);
}
