//! `wit/state.wit`: the key-value store that the host keeps for each plugin.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::component::{LinkerInstance, WasmList, WasmStr};

use super::Host;

/// The state of one plugin: shared by all its instances, kept over swaps and reloads. One short
/// lock per operation.
#[derive(Default)]
pub(in super::super) struct State(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    entries: HashMap<Box<str>, Entry>,
    /// Keys, values and [`ENTRY_BYTES`] each.
    bytes: usize,
}

struct Entry {
    value: Value,
    expires: Option<Instant>,
}

enum Value {
    Bytes(Box<[u8]>),
    Counter(i64),
}

impl Entry {
    fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn bytes(&self, key: &str) -> usize {
        let value = match &self.value {
            Value::Bytes(bytes) => bytes.len(),
            Value::Counter(_) => 8,
        };
        key.len().saturating_add(value).saturating_add(ENTRY_BYTES)
    }
}

impl State {
    /// The value of `key`; a counter reads as its decimal text.
    pub(in super::super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &inner.present(key)?.value {
            Value::Bytes(bytes) => Some(bytes.to_vec()),
            Value::Counter(count) => Some(count.to_string().into_bytes()),
        }
    }

    /// Sets `key`, within `bytes_max` for everything.
    pub(in super::super) fn set(
        &self,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
        bytes_max: usize,
    ) -> Result<(), &'static str> {
        if value.len() > VALUE_BYTES_MAX {
            return Err("value-too-long");
        }
        let entry = Entry { value: Value::Bytes(value.into()), expires: expiry(ttl) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key, entry, bytes_max)
    }

    /// Removes `key`.
    pub(in super::super) fn remove(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(key);
    }

    /// Adds to a counter; a text that is a decimal number counts as one.
    pub(in super::super) fn increment(
        &self,
        key: &str,
        by: i64,
        ttl: Option<Duration>,
        bytes_max: usize,
    ) -> Result<i64, &'static str> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = inner.present(key) {
            if let Value::Counter(count) = &mut entry.value {
                *count = count.saturating_add(by);
                return Ok(*count);
            }
            let Value::Bytes(bytes) = &entry.value else { return Err("not-a-counter") };
            let text = std::str::from_utf8(bytes).map_err(|_| "not-a-counter")?;
            let count: i64 = text.parse().map_err(|_| "not-a-counter")?;
            let count = count.saturating_add(by);
            let entry = Entry { value: Value::Counter(count), expires: entry.expires };
            inner.put(key, entry, bytes_max)?;
            return Ok(count);
        }
        let entry = Entry { value: Value::Counter(by), expires: expiry(ttl) };
        inner.put(key, entry, bytes_max)?;
        Ok(by)
    }
}

impl Entries {
    fn present(&mut self, key: &str) -> Option<&mut Entry> {
        let is_expired = match self.entries.get(key) {
            // The clock is only asked when it matters.
            Some(entry) => entry.expires.is_some() && entry.is_expired(Instant::now()),
            None => return None,
        };
        if is_expired {
            self.take(key);
            return None;
        }
        self.entries.get_mut(key)
    }

    fn put(&mut self, key: &str, entry: Entry, bytes_max: usize) -> Result<(), &'static str> {
        if key.len() > KEY_BYTES_MAX {
            return Err("key-too-long");
        }
        let new = entry.bytes(key);
        let old = self.entries.get(key).map_or(0, |old| old.bytes(key));
        if self.bytes.saturating_sub(old).saturating_add(new) > bytes_max {
            self.sweep();
            let old = self.entries.get(key).map_or(0, |old| old.bytes(key));
            if self.bytes.saturating_sub(old).saturating_add(new) > bytes_max {
                return Err("quota");
            }
        }
        self.take(key);
        self.bytes = self.bytes.saturating_add(new);
        self.entries.insert(key.into(), entry);
        Ok(())
    }

    fn take(&mut self, key: &str) {
        if let Some(old) = self.entries.remove(key) {
            self.bytes = self.bytes.saturating_sub(old.bytes(key));
        }
    }

    /// Drops what has expired; only when room is wanted.
    fn sweep(&mut self) {
        let now = Instant::now();
        self.entries.retain(|_, entry| !entry.is_expired(now));
        self.bytes = self.entries.iter().map(|(key, entry)| entry.bytes(key)).sum();
    }
}

/// Links `function` of `state`; false when there is none.
pub(in super::super) fn link(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
) -> wasmtime::Result<bool> {
    match function {
        "get" => at.func_wrap(function, |store, (key,): (WasmStr,)| {
            let store = &store;
            let key = key.to_str(store)?;
            let host = store.data();
            Ok((host.answer(|| format!("state.get {key}"), || host.facts.state.get(&key)),))
        })?,
        "set" => at.func_wrap(
            function,
            |store, (key, value, ttl): (WasmStr, WasmList<u8>, Option<u32>)| {
                let store = &store;
                let (key, host) = (key.to_str(store)?, store.data());
                let (value, facts) = (value.as_le_slice(store), &host.facts);
                let bytes_max = facts.limits.state_bytes_max;
                let set = || facts.state.set(&key, value, seconds(ttl), bytes_max);
                let call = || format!("state.set {key}");
                Ok((host.answer(call, || set().map_err(str::to_owned)),))
            },
        )?,
        "remove" => at.func_wrap(function, |store, (key,): (WasmStr,)| {
            let store = &store;
            let key = key.to_str(store)?;
            store.data().facts.state.remove(&key);
            Ok(())
        })?,
        "increment" => {
            at.func_wrap(function, |store, (key, by, ttl): (WasmStr, i64, Option<u32>)| {
                let store = &store;
                let (key, host) = (key.to_str(store)?, store.data());
                let (facts, bytes_max) = (&host.facts, host.facts.limits.state_bytes_max);
                let add = || facts.state.increment(&key, by, seconds(ttl), bytes_max);
                let call = || format!("state.increment {key} {by}");
                Ok((host.answer(call, || add().map_err(str::to_owned)),))
            })?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn seconds(ttl: Option<u32>) -> Option<Duration> {
    ttl.map(|seconds| Duration::from_secs(seconds.into()))
}

fn expiry(ttl: Option<Duration>) -> Option<Instant> {
    ttl.and_then(|ttl| Instant::now().checked_add(ttl))
}

/// The longest key in bytes, inclusive.
const KEY_BYTES_MAX: usize = 256;
/// The longest value in bytes, inclusive.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// What an entry costs beside its key and value, so that many small ones count.
const ENTRY_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 10_000;

    #[test]
    fn values_come_back_until_removed_or_expired() {
        let state = State::default();
        state.set("a", b"1", None, MAX).unwrap();
        state.set("b", b"2", Some(Duration::ZERO), MAX).unwrap();
        assert_eq!(state.get("a").as_deref(), Some(&b"1"[..]));
        assert_eq!(state.get("b"), None);
        state.remove("a");
        assert_eq!(state.get("a"), None);
        assert_eq!(state.0.lock().unwrap().bytes, 0);
    }

    #[test]
    fn counters_saturate_and_refuse_text() {
        let state = State::default();
        assert_eq!(state.increment("n", 2, None, MAX), Ok(2));
        assert_eq!(state.increment("n", i64::MAX, None, MAX), Ok(i64::MAX));
        assert_eq!(state.increment("n", i64::MIN, None, MAX), Ok(-1));
        assert_eq!(state.get("n").as_deref(), Some(&b"-1"[..]));
        state.set("t", b"41", None, MAX).unwrap();
        assert_eq!(state.increment("t", 1, None, MAX), Ok(42));
        state.set("t", b"words", None, MAX).unwrap();
        assert_eq!(state.increment("t", 1, None, MAX), Err("not-a-counter"));
    }

    #[test]
    fn limits_hold_and_expired_entries_make_room() {
        let state = State::default();
        assert_eq!(state.set(&"k".repeat(257), b"", None, MAX), Err("key-too-long"));
        assert_eq!(
            state.set("k", &vec![0; VALUE_BYTES_MAX + 1], None, 1 << 20),
            Err("value-too-long")
        );
        state.set("old", &[0; 5000], Some(Duration::ZERO), MAX).unwrap();
        state.set("new", &[0; 6000], None, MAX).unwrap();
        assert_eq!(state.set("more", &[0; 6000], None, MAX), Err("quota"));
        state.set("new", &[0; 7000], None, MAX).unwrap();
        assert_eq!(state.get("new").map(|value| value.len()), Some(7000));
    }
}
