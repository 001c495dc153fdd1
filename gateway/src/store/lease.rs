//! Leases: who, of several gateways on one store, does a thing now. A lease ends with its holder: at
//! once when a process of this machine has died, after its time when that cannot be seen.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::clock::Timestamp;

/// Who has the store open, when several may.
pub struct Member {
    /// A name of its own.
    holder: String,
    /// Which machine, and since which start of it.
    machine: String,
    /// Alive as long as this is.
    _signed: Box<dyn Send + Sync>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("holder", &self.holder).finish_non_exhaustive()
    }
}

/// A lease as the store has it.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    holder: String,
    machine: String,
    until: Timestamp,
}

/// A thing that nobody else does while this lives. Given back when dropped.
#[derive(Debug)]
pub struct Lease {
    store: Arc<Store>,
    /// None where nobody shares the store.
    item: Option<String>,
}

impl Member {
    /// Takes a name of its own.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn sign_on(shelf: &dyn super::Shelf) -> Result<Self, StoreError> {
        let holder = uuid::Uuid::now_v7().to_string();
        let signed = shelf.sign_on(&holder)?;
        Ok(Self { holder, machine: machine(), _signed: signed })
    }
}

impl Store {
    /// Takes the lease of a name; none when another gateway has it.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn lease(self: &Arc<Self>, name: &str) -> Result<Option<Lease>, StoreError> {
        let Some(member) = &self.member else {
            return Ok(Some(Lease { store: Arc::clone(self), item: None }));
        };
        let item = format!("leases/{name}.json");
        let mut is_mine = false;
        self.shelf.alone(&mut || {
            let known = self.shelf.read(&item)?;
            let known = known.and_then(|text| serde_json::from_slice::<Written>(&text).ok());
            is_mine = known.is_none_or(|known| !self.holds(&known));
            if is_mine { self.write_lease(&item, member) } else { Ok(()) }
        })?;
        Ok(is_mine.then(|| Lease { store: Arc::clone(self), item: Some(item) }))
    }

    /// This process's name among those that share the store; none where nobody does.
    pub fn holder(&self) -> Option<String> {
        self.member.as_ref().map(|member| format!("{} {}", member.machine, member.holder))
    }

    /// Whether somebody else who shares the store, named by [`Store::holder`], may still be at work
    /// since a time.
    pub fn is_at_work(&self, holder: &str, since: Timestamp) -> bool {
        let Some(own) = &self.member else { return false };
        match holder.split_once(' ') {
            Some((machine, holder)) if machine == own.machine => self.shelf.is_alive(holder),
            _ => Timestamp::now() < since + WORK_TIME_MAX,
        }
    }

    fn write_lease(&self, item: &str, member: &Member) -> Result<(), StoreError> {
        let written = Written {
            holder: member.holder.clone(),
            machine: member.machine.clone(),
            until: Timestamp::now() + LEASE_TIME,
        };
        self.shelf.write(item, &serde_json::to_vec(&written).unwrap_or_default())
    }

    /// Whether the holder of a lease still holds it.
    fn holds(&self, written: &Written) -> bool {
        let now = Timestamp::now();
        let is_here = self.member.as_ref().is_some_and(|own| own.machine == written.machine);
        match is_here {
            true => self.shelf.is_alive(&written.holder),
            // Never set further ahead, so more means that a clock is wrong.
            false => written.until + SKEW > now && written.until <= now + LEASE_TIME + SKEW,
        }
    }
}

impl Lease {
    /// Holds on for another [`LEASE_TIME`].
    ///
    /// # Errors
    /// When the store refuses, or another gateway has taken over meanwhile.
    pub fn renew(&self) -> Result<(), StoreError> {
        let (Some(item), Some(member)) = (&self.item, &self.store.member) else { return Ok(()) };
        self.store.shelf.alone(&mut || {
            let known = self.store.shelf.read(item)?;
            let known = known.and_then(|text| serde_json::from_slice::<Written>(&text).ok());
            match known.is_some_and(|known| known.holder == member.holder) {
                true => self.store.write_lease(item, member),
                false => Err(StoreError::Lost(item.clone())),
            }
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some(item), Some(member)) = (&self.item, &self.store.member) else { return };
        let given_back = self.store.shelf.alone(&mut || {
            let known = self.store.shelf.read(item)?;
            let known = known.and_then(|text| serde_json::from_slice::<Written>(&text).ok());
            match known.is_some_and(|known| known.holder == member.holder) {
                true => self.store.shelf.remove(item),
                false => Ok(()),
            }
        });
        if let Err(cause) = given_back {
            tracing::warn!("a lease is left to end by itself: {cause}");
        }
    }
}

/// The running system, so that no other machine is taken for this one.
fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map_or_else(|_| uuid::Uuid::now_v7().to_string(), |boot| boot.trim().to_owned())
}

/// A lease ends after this time unless it is renewed.
pub const LEASE_TIME: Duration = Duration::from_secs(120);
/// Between the clocks of two machines, at most.
const SKEW: Duration = Duration::from_secs(30);
/// What another machine began longer ago is not under way any more.
const WORK_TIME_MAX: Duration = Duration::from_secs(3600);
