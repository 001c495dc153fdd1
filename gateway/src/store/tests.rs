use std::fs;

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

fn shared() -> Opening {
    Opening { is_shared: true, ..Opening::default() }
}

#[test]
fn several_share_it_or_one_has_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open_as(folder.path(), &shared()).unwrap();
    let second = Store::open_as(folder.path(), &shared()).unwrap();
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Locked(..))));
    let held = first.lease("acme/a.example").unwrap().expect("the lease");
    assert!(second.lease("acme/a.example").unwrap().is_none());
    assert!(second.lease("acme/b.example").unwrap().is_some());
    held.renew().unwrap();
    drop(held);
    let held = second.lease("acme/a.example").unwrap().expect("the lease");
    // As after a kill: the lease stays, its holder is gone.
    std::mem::forget(held);
    drop(second);
    // The forgotten lease keeps the second one's store open, and so its holder alive.
    assert!(first.lease("acme/a.example").unwrap().is_none());
}

#[test]
fn a_lease_of_the_dead_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_as(folder.path(), &shared()).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let now = Timestamp::now();
    let write = |machine: &str, until: Timestamp| {
        let text =
            format!(r#"{{"holder":"dead","machine":"{}","until":{}}}"#, machine.trim(), until.0);
        store.write("leases/x.json", text.as_bytes()).unwrap();
    };
    // Of this machine: its process is gone, whatever the time.
    write(&boot, now + LEASE_TIME);
    assert!(store.lease("x").unwrap().is_some());
    // Of another machine: only the time tells.
    write("another", now + LEASE_TIME / 2);
    assert!(store.lease("x").unwrap().is_none());
    write("another", Timestamp(now.0 - 31));
    assert!(store.lease("x").unwrap().is_some());
    // By a clock that ran ahead.
    write("another", Timestamp(now.0 + 100_000));
    assert!(store.lease("x").unwrap().is_some());
    store.write("leases/x.json", b"nonsense").unwrap();
    let lease = store.lease("x").unwrap().expect("the lease");
    write("another", now + LEASE_TIME);
    assert!(matches!(lease.renew(), Err(StoreError::Lost(_))));
    drop(lease);
    assert!(store.read("leases/x.json").unwrap().is_some(), "another's lease was given back");
}

#[test]
fn one_of_many_makes_an_item_for_all_and_changes_are_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let made = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open_as(folder.path(), &shared()).unwrap();
                let got = store.read_or("sticky.key", || {
                    let number = made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    Ok::<_, StoreError>(number.to_string().into_bytes())
                });
                assert_eq!(got.unwrap(), b"0");
                for _ in 0..25 {
                    let add = &mut |known: Option<Vec<u8>>| {
                        let text = String::from_utf8(known.unwrap_or_default()).unwrap();
                        (text.parse().unwrap_or(0) + 1).to_string().into_bytes()
                    };
                    store.change("count", add).unwrap();
                }
            });
        }
    });
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.read("count").unwrap().unwrap(), b"100");
}

#[test]
fn keys_are_sealed_and_open_to_the_passphrase_alone() {
    let folder = tempfile::tempdir().unwrap();
    let sealed = |text: &str| Opening { passphrase: Some(text.into()), ..Opening::default() };
    let account = "acme/issuers/ca.example_dir/account.key";
    {
        // Written before there was a seal.
        let store = Store::open(folder.path()).unwrap();
        store.write(account, b"SECRET-1").unwrap();
        store.write("acme/certificates/a.example.pem", b"SECRET-2").unwrap();
    }
    {
        let store = Store::open_as(folder.path(), &sealed("right")).unwrap();
        store.write("local/root.pem", b"SECRET-3").unwrap();
        store.write("acme/state/a.example.json", b"open").unwrap();
        assert_eq!(store.read(account).unwrap().unwrap(), b"SECRET-1");
        assert_eq!(store.read("local/root.pem").unwrap().unwrap(), b"SECRET-3");
    }
    let mut seen = 0;
    let mut folders = vec![folder.path().to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    seen += 1;
                    let content = fs::read(&path).unwrap();
                    let is_bare = content.windows(6).any(|six| six == b"SECRET");
                    assert!(!is_bare, "{} is not sealed", path.display());
                }
            }
        }
    }
    assert!(seen >= 5);
    let wrong = Store::open_as(folder.path(), &sealed("wrong")).unwrap_err().to_string();
    assert!(wrong.contains("not the one"), "{wrong}");
    let without = Store::open(folder.path()).unwrap_err().to_string();
    assert!(without.contains("store.seal"), "{without}");
    // One item in the place of another, and a changed one, are noticed.
    let store = Store::open_as(folder.path(), &sealed("right")).unwrap();
    let path = |item: &str| folder.path().join(item);
    fs::copy(path(account), path("local/root.pem")).unwrap();
    assert!(matches!(store.read("local/root.pem"), Err(StoreError::Seal(_))));
    let mut content = fs::read(path(account)).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(path(account), content).unwrap();
    assert!(matches!(store.read(account), Err(StoreError::Seal(_))));
}

#[test]
fn the_lock_goes_to_the_process_that_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let before = Store::open(folder.path()).unwrap();
    before.write("a", b"1").unwrap();
    let beside = Opening { is_beside: true, ..Opening::default() };
    let next = Store::open_as(folder.path(), &beside).unwrap();
    assert_eq!(next.read("a").unwrap().unwrap(), b"1");
    assert!(matches!(next.take(), Err(StoreError::Locked(..))), "not before it is released");
    before.release();
    next.take().unwrap();
    assert!(matches!(before.take(), Err(StoreError::Locked(..))));
    drop(next);
    before.take().unwrap();
}
