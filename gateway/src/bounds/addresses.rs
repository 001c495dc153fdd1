//! How many connections each address has.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::holder;

/// Connections by who holds the address (IPv6 by /64), over all workers. Not asked where
/// `limits.connections-per-address` is off.
#[derive(Debug)]
pub struct Addresses {
    shards: Vec<Mutex<HashMap<IpAddr, u32>>>,
    hasher: RandomState,
}

/// A connection's place in the count of its address, until dropped.
#[derive(Debug)]
pub struct AddressPlace {
    addresses: Arc<Addresses>,
    holder: IpAddr,
}

impl Default for Addresses {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new() }
    }
}

impl Addresses {
    /// Takes a place for a connection of `client`, unless its address has `max` (inclusive) already.
    pub fn take(self: &Arc<Self>, client: IpAddr, max: u32) -> Option<AddressPlace> {
        let holder = holder(client);
        let mut counts = self.shard(holder)?.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(holder).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(AddressPlace { addresses: Arc::clone(self), holder })
    }

    fn shard(&self, holder: IpAddr) -> Option<&Mutex<HashMap<IpAddr, u32>>> {
        let index = usize::try_from(self.hasher.hash_one(holder) % SHARDS).ok()?;
        self.shards.get(index)
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let Some(shard) = self.addresses.shard(self.holder) else { return };
        let mut counts = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = counts.entry(self.holder) {
            *entry.get_mut() = entry.get().saturating_sub(1);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

const SHARDS: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_by_holder_and_come_back() {
        let addresses = Arc::<Addresses>::default();
        let take = |address: &str| addresses.take(address.parse().unwrap(), 2);
        let (first, second) = (take("2001:db8::1"), take("2001:db8::2"));
        assert!(first.is_some() && second.is_some());
        assert!(take("2001:db8::ffff").is_none());
        assert!(take("2001:db8:0:1::1").is_some());
        assert!(take("192.0.2.1").is_some());
        drop(first);
        assert!(take("2001:db8::3").is_some());
        drop(second);
        let mapped = (take("::ffff:192.0.2.7"), take("192.0.2.7"));
        assert!(mapped.0.is_some() && mapped.1.is_some() && take("192.0.2.7").is_none());
        drop(mapped);
        let held: usize = addresses.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert_eq!(held, 0);
    }
}
