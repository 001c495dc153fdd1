//! Keys of session tickets (RFC 8446, section 4.6.1; RFC 5077): one secret, from which the keys of
//! each stretch of time follow. With a secret of its own a gateway steps it forward and forgets what
//! was before, so that old tickets cannot be opened even by who learns its memory; with one that a
//! fleet shares (`tls.tickets.secret`) each machine computes the same keys and resumes what another
//! began, without a store or a word between them.
//!
//! The process that takes over at an upgrade gets the secret from the one before.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::{error, rand};
use rustls::server::ProducesTickets;

use crate::clock::Timestamp;

/// A secret from which others are derived. Never printed.
#[derive(Clone, PartialEq)]
pub struct Secret([u8; SECRET_BYTES]);

/// Where all ticket keys of this process come from.
pub struct TicketKeys {
    source: Mutex<Source>,
    /// Changes with the source, so that ticketers notice without the lock.
    version: std::sync::atomic::AtomicU64,
}

/// A fleet's secret and how often keys change.
#[derive(Clone, PartialEq)]
pub struct FleetTickets {
    /// Shared by all machines.
    pub secret: Secret,
    /// How long a key makes new tickets. It opens them for twice as long.
    pub rotation: Duration,
}

struct Source {
    /// Our own secret of the stretch before the present one; later ones follow from it.
    own: Secret,
    /// The stretch that `own` belongs to.
    own_epoch: u64,
    fleet: Option<FleetTickets>,
}

impl Secret {
    /// One of chance.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn random() -> Result<Self, rustls::Error> {
        let mut bytes = [0; SECRET_BYTES];
        rand::fill(&mut bytes).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
        Ok(Self(bytes))
    }

    /// One that follows from a text of any length.
    pub fn from_text(text: &str) -> Self {
        let salt = Salt::new(HKDF_SHA256, b"witgate secret text");
        Self(expand(&salt.extract(text.as_bytes()), &[]))
    }

    /// Another secret for `purpose`, from which this one cannot be told.
    pub fn derive(&self, purpose: &[&[u8]]) -> Self {
        Self(expand(&Prk::new_less_safe(HKDF_SHA256, &self.0), purpose))
    }

    /// Its bytes, for the process that takes over.
    pub fn bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// The secret of these bytes; none when there are not as many.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl TicketKeys {
    /// Keys from `secret`, which nobody else has, or had in the stretch `epoch`.
    pub fn new(secret: Secret, epoch: Option<u64>) -> Arc<Self> {
        let own_epoch = epoch.unwrap_or_else(|| epoch_of(OWN_ROTATION).saturating_sub(1));
        let source = Source { own: secret, own_epoch, fleet: None };
        Arc::new(Self { source: Mutex::new(source), version: 1.into() })
    }

    /// Takes the keys of a fleet from now on, or our own.
    pub fn share(&self, fleet: Option<FleetTickets>) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if source.fleet != fleet {
            source.fleet = fleet;
            self.version.fetch_add(1, std::sync::atomic::Ordering::Release);
        }
    }

    /// Our own secret and its stretch, for the process that takes over.
    pub fn own(&self) -> (Secret, u64) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        source.step(epoch_of(OWN_ROTATION));
        (source.own.clone(), source.own_epoch)
    }

    /// Makes and opens tickets of one kind; those of another kind are none of it.
    pub fn ticketer(self: &Arc<Self>, purpose: &[&[u8]]) -> Arc<dyn ProducesTickets> {
        let purpose = purpose.concat();
        Arc::new(Ticketer { keys: Arc::clone(self), purpose, ring: ArcSwap::default() })
    }

    /// The keys of the present stretch for `purpose`, and of those beside it.
    fn ring(&self, purpose: &[u8], rotation: Duration, epoch: u64, version: u64) -> Ring {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let secrets: Vec<Secret> = match &source.fleet {
            // Another's clock may be ahead, so what it makes already is opened, too.
            Some(fleet) => [epoch, epoch.saturating_sub(1), epoch + 1]
                .map(|epoch| fleet.secret.derive(&[b"epoch", &epoch.to_be_bytes()]))
                .into(),
            None => {
                source.step(epoch);
                let before = source.own.clone();
                vec![next(&before), before]
            }
        };
        let keys = secrets.iter().filter_map(|secret| Key::new(secret, purpose).ok()).collect();
        Ring { version, epoch, rotation, keys }
    }

    fn rotation(&self) -> Duration {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        source.fleet.as_ref().map_or(OWN_ROTATION, |fleet| fleet.rotation)
    }
}

impl Source {
    /// Steps our own secret on to the stretch before `epoch`; what was before is forgotten.
    fn step(&mut self, epoch: u64) {
        let wanted = epoch.saturating_sub(1);
        // A gateway that slept for a year has nothing to remember.
        if wanted.saturating_sub(self.own_epoch) > STEPS_MAX {
            self.own_epoch = wanted - STEPS_MAX;
        }
        while self.own_epoch < wanted {
            self.own = next(&self.own);
            self.own_epoch += 1;
        }
    }
}

fn next(secret: &Secret) -> Secret {
    secret.derive(&[b"next"])
}

/// Tickets of one kind.
struct Ticketer {
    keys: Arc<TicketKeys>,
    purpose: Vec<u8>,
    ring: ArcSwap<Ring>,
}

/// The keys of the present time, the one that makes tickets first.
#[derive(Default)]
struct Ring {
    version: u64,
    epoch: u64,
    rotation: Duration,
    keys: Vec<Key>,
}

struct Key {
    /// Tells which key a ticket was made with.
    name: [u8; NAME_BYTES],
    /// Stands many tickets with nonces of chance (RFC 8452).
    key: LessSafeKey,
}

impl Key {
    fn new(secret: &Secret, purpose: &[u8]) -> Result<Self, error::Unspecified> {
        let name = secret.derive(&[b"ticket name", purpose]);
        let key = secret.derive(&[b"ticket key", purpose]);
        let (name, _) = name.0.split_first_chunk().ok_or(error::Unspecified)?;
        let key = UnboundKey::new(&AES_256_GCM_SIV, &key.0)?;
        Ok(Self { name: *name, key: LessSafeKey::new(key) })
    }
}

impl Ticketer {
    fn ring(&self) -> Arc<Ring> {
        let version = self.keys.version.load(std::sync::atomic::Ordering::Acquire);
        let ring = self.ring.load();
        if ring.version == version && ring.epoch == epoch_of(ring.rotation) {
            return Arc::clone(&ring);
        }
        let rotation = self.keys.rotation();
        let ring = self.keys.ring(&self.purpose, rotation, epoch_of(rotation), version);
        let ring = Arc::new(ring);
        self.ring.store(Arc::clone(&ring));
        ring
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        let seconds = self.ring().rotation.as_secs().saturating_mul(2);
        u32::try_from(seconds).unwrap_or(u32::MAX).min(LIFETIME_SECONDS_MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let ring = self.ring();
        let key = ring.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let aad = Aad::from(key.name);
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        key.key.seal_in_place_append_tag(nonce_of, aad, &mut sealed).ok()?;
        Some([&key.name[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let ring = self.ring();
        let key = ring.keys.iter().find(|key| key.name == *name)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key.key.open_in_place(nonce, Aad::from(key.name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

/// The stretch of time that it is now.
fn epoch_of(rotation: Duration) -> u64 {
    let now = u64::try_from(Timestamp::now().0).unwrap_or_default();
    now.checked_div(rotation.as_secs()).unwrap_or_default()
}

/// HKDF-Expand (RFC 5869, section 2.3) to as much as a secret has.
fn expand(from: &Prk, purpose: &[&[u8]]) -> [u8; SECRET_BYTES] {
    struct Length;
    impl KeyType for Length {
        fn len(&self) -> usize {
            SECRET_BYTES
        }
    }
    let mut bytes = [0; SECRET_BYTES];
    #[expect(clippy::expect_used, reason = "one block of the hash is always to be had")]
    from.expand(&[&purpose_bytes(purpose)], Length)
        .and_then(|okm| okm.fill(&mut bytes))
        .expect("32 bytes are no more than HKDF gives");
    bytes
}

/// The parts of a purpose, each with its length before it, so that no two purposes are the same text.
fn purpose_bytes(purpose: &[&[u8]]) -> Vec<u8> {
    let parts = purpose.iter().flat_map(|part| {
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes();
        length.into_iter().chain(part.iter().copied())
    });
    b"witgate 1".iter().copied().chain(parts).collect()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl fmt::Debug for FleetTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetTickets").field("rotation", &self.rotation).finish_non_exhaustive()
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys").finish_non_exhaustive()
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticketer").finish_non_exhaustive()
    }
}

/// Bytes of a secret.
pub const SECRET_BYTES: usize = 32;
const NAME_BYTES: usize = 16;
/// How often keys of our own change.
const OWN_ROTATION: Duration = Duration::from_secs(6 * 3600);
/// Seven days, the most that clients keep one (RFC 8446, section 4.6.1).
const LIFETIME_SECONDS_MAX: u32 = 7 * 24 * 3600;
/// With a certificate chain of a client in it.
const TICKET_BYTES_MAX: usize = 64 * 1024;
const STEPS_MAX: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(byte: u8) -> Arc<TicketKeys> {
        TicketKeys::new(Secret([byte; SECRET_BYTES]), None)
    }

    fn fleet(text: &str, seconds: u64) -> FleetTickets {
        let (secret, rotation) = (Secret::from_text(text), Duration::from_secs(seconds));
        FleetTickets { secret, rotation }
    }

    #[test]
    fn a_ticket_is_opened_by_its_own_kind_alone() {
        let keys = keys(1);
        let tcp = keys.ticketer(&[b"tcp"]);
        let ticket = tcp.encrypt(b"a session").unwrap();
        assert_ne!(ticket, tcp.encrypt(b"a session").unwrap());
        assert_eq!(tcp.decrypt(&ticket).unwrap(), b"a session");
        assert_eq!(keys.ticketer(&[b"tcp"]).decrypt(&ticket).unwrap(), b"a session");
        assert!(keys.ticketer(&[b"quic"]).decrypt(&ticket).is_none());
        assert!(self::keys(2).ticketer(&[b"tcp"]).decrypt(&ticket).is_none());
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert!(tcp.decrypt(&changed).is_none(), "byte {at}");
            assert!(tcp.decrypt(&ticket[..at]).is_none(), "{at} bytes");
        }
    }

    #[test]
    fn machines_with_one_secret_open_each_others_tickets() {
        let (one, other) = (keys(1), keys(2));
        let (of_one, of_other) = (one.ticketer(&[b"tcp"]), other.ticketer(&[b"tcp"]));
        let alone = of_one.encrypt(b"a session").unwrap();
        assert!(of_other.decrypt(&alone).is_none());
        one.share(Some(fleet("a long secret", 3600)));
        other.share(Some(fleet("a long secret", 3600)));
        let shared = of_one.encrypt(b"a session").unwrap();
        assert_eq!(of_other.decrypt(&shared).unwrap(), b"a session");
        assert!(of_one.decrypt(&alone).is_none(), "keys of before are not those of the fleet");
        other.share(Some(fleet("another secret", 3600)));
        assert!(of_other.decrypt(&shared).is_none());
    }

    #[test]
    fn a_fleets_keys_change_with_time_and_clocks_may_differ_a_little() {
        let keys = keys(1);
        keys.share(Some(fleet("a long secret", 3600)));
        let rotation = Duration::from_secs(3600);
        let names = |epoch| -> Vec<_> {
            keys.ring(b"tcp", rotation, epoch, 1).keys.iter().map(|key| key.name).collect()
        };
        let (before, now, later) = (names(99), names(100), names(103));
        assert!(now.contains(&before[0]), "the one before still opens");
        assert!(before.contains(&now[0]), "a clock that is behind opens what comes");
        assert!(!later.contains(&now[0]), "what is old opens nothing");
    }

    #[test]
    fn our_own_secret_steps_on_and_goes_to_the_next_process() {
        let mut source = Source { own: Secret([7; SECRET_BYTES]), own_epoch: 10, fleet: None };
        let first = source.own.clone();
        source.step(11);
        assert!(source.own == first, "the stretch before the present one is kept");
        source.step(13);
        assert!(source.own != first && source.own_epoch == 12);
        source.step(12);
        assert_eq!(source.own_epoch, 12, "there is no way back");
        let keys = keys(1);
        let ticket = keys.ticketer(&[b"tcp"]).encrypt(b"a session").unwrap();
        let (secret, epoch) = keys.own();
        let next = TicketKeys::new(secret, Some(epoch));
        assert_eq!(next.ticketer(&[b"tcp"]).decrypt(&ticket).unwrap(), b"a session");
    }

    #[test]
    fn nothing_prints_a_secret() {
        let shown = format!("{:?} {:?}", Secret([7; SECRET_BYTES]), fleet("hunter2", 1));
        assert!(!shown.contains("hunter2") && !shown.contains('7'), "{shown}");
    }
}
