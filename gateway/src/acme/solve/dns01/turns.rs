//! Who may call a provider when. Plugins have no lock of their own (their instances share nothing),
//! so the host gives turns, as the plugin's traits ask for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// `traits` of the contract, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// What may run at once.
    pub parallelism: Parallelism,
    /// How many TXT values one name can hold, inclusive; 1 also means one at a time for the whole
    /// credential.
    pub values_per_name_max: Option<u32>,
    /// The TTL to ask for, in seconds.
    pub ttl_seconds: u32,
    /// How long the provider says it may take.
    pub propagation_max: Duration,
}

/// `parallelism` of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parallelism {
    /// Anything.
    Parallel,
    /// One call for each zone.
    PerZone,
    /// One call.
    PerCredential,
}

impl Traits {
    /// Reads traits; what cannot be understood is taken in the most careful way.
    pub fn read(traits: &[(String, String)], label: &str) -> Self {
        let mut read = Self {
            parallelism: Parallelism::Parallel,
            values_per_name_max: None,
            ttl_seconds: TTL_SECONDS,
            propagation_max: Duration::ZERO,
        };
        for (name, value) in traits {
            let number = value.trim().parse::<u32>().ok().filter(|n| *n > 0);
            let is_understood = match name.as_str() {
                "parallelism" => {
                    let known = match value.trim() {
                        "parallel" => Some(Parallelism::Parallel),
                        "per-zone" => Some(Parallelism::PerZone),
                        "per-credential" => Some(Parallelism::PerCredential),
                        _ => None,
                    };
                    read.parallelism = known.unwrap_or(Parallelism::PerCredential);
                    known.is_some()
                }
                "max-values-per-name" => {
                    read.values_per_name_max = Some(number.unwrap_or(1));
                    number.is_some()
                }
                "ttl-min" => {
                    let asked = number.unwrap_or(0).min(TTL_SECONDS_MAX);
                    read.ttl_seconds = read.ttl_seconds.max(asked);
                    number.is_some()
                }
                "propagation-max" => {
                    let asked = Duration::from_secs(number.unwrap_or(0).into());
                    read.propagation_max = asked.min(PROPAGATION_MAX);
                    number.is_some()
                }
                _ => true,
            };
            if !is_understood {
                tracing::warn!(
                    plugin = label,
                    name,
                    value,
                    "trait of a DNS plugin is not understood"
                );
            }
        }
        read
    }
}

/// Gives turns. One for the whole gateway.
#[derive(Default)]
pub struct Turns {
    turns: Keyed<Turn<()>>,
    slots: Keyed<Semaphore>,
}

impl Turns {
    /// Waits for a turn to make one call; the turn ends with the guard. Without a zone (it is not
    /// known yet) only whole credentials take turns.
    pub async fn turn(
        &self,
        parallelism: Parallelism,
        credential: &str,
        zone: Option<&str>,
    ) -> Option<OwnedMutexGuard<()>> {
        let key = match (parallelism, zone) {
            (Parallelism::PerCredential, _) => (credential.to_owned(), String::new()),
            (Parallelism::PerZone, Some(zone)) => (credential.to_owned(), zone.to_owned()),
            (Parallelism::PerZone, None) | (Parallelism::Parallel, _) => return None,
        };
        Some(self.turns.at(key, || Turn::new(())).lock_owned().await)
    }

    /// Waits for room for `count` values, at most `limit`, at a name: for good as long as the permit
    /// lives. None never happens but when the semaphore is closed, which nobody does.
    pub async fn slots(
        &self,
        credential: &str,
        name: &str,
        limit: u32,
        count: u32,
    ) -> Option<OwnedSemaphorePermit> {
        // A single slot is often one for the whole account, whatever the name.
        let name = if limit == 1 { "" } else { name };
        let key = (credential.to_owned(), format!("{limit} {name}"));
        let size = usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let slots = self.slots.at(key, || Semaphore::new(size));
        slots.acquire_many_owned(count).await.ok()
    }
}

/// Things by credential and place, for as long as somebody uses them.
struct Keyed<T>(Mutex<BTreeMap<(String, String), Weak<T>>>);

impl<T> Default for Keyed<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Keyed<T> {
    fn at(&self, key: (String, String), make: impl FnOnce() -> T) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = all.get(&key).and_then(Weak::upgrade) {
            return there;
        }
        all.retain(|_, used| used.strong_count() > 0);
        let new = Arc::new(make());
        all.insert(key, Arc::downgrade(&new));
        new
    }
}

/// Short, so that what is left behind does not live long in caches.
const TTL_SECONDS: u32 = 60;

const TTL_SECONDS_MAX: u32 = 86_400;

/// The most that a plugin can ask the gateway to wait.
const PROPAGATION_MAX: Duration = Duration::from_secs(2 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(traits: &[(&str, &str)]) -> Traits {
        let traits: Vec<_> =
            traits.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Traits::read(&traits, "test")
    }

    #[test]
    fn traits_are_read_carefully() {
        let plain = read(&[]);
        assert_eq!((plain.parallelism, plain.ttl_seconds), (Parallelism::Parallel, 60));
        assert_eq!(plain.values_per_name_max, None);
        assert_eq!(read(&[("parallelism", "per-zone")]).parallelism, Parallelism::PerZone);
        assert_eq!(read(&[("parallelism", "?")]).parallelism, Parallelism::PerCredential);
        assert_eq!(read(&[("max-values-per-name", "0")]).values_per_name_max, Some(1));
        assert_eq!(read(&[("max-values-per-name", "2")]).values_per_name_max, Some(2));
        assert_eq!(read(&[("ttl-min", "3600")]).ttl_seconds, 3600);
        assert_eq!(read(&[("ttl-min", "30")]).ttl_seconds, 60);
        let long = read(&[("propagation-max", "4000000000")]).propagation_max;
        assert_eq!(long, PROPAGATION_MAX);
        assert_eq!(read(&[("new", "thing")]), plain);
    }
}
