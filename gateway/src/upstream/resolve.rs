//! Where the names of servers lead now: looked up again and again while the gateway runs, so that a
//! server that moves is followed and one that is gone is let go. One task per name and generation, on
//! the control runtime; workers read what it found.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::rr::RecordType;
use tokio::task::JoinHandle;

use crate::acme::dns::{DnsError, Patience, Resolvers, ip_of};
use crate::config;

/// The names of one upstream's servers. Ends its look-ups when the last owner lets go.
#[derive(Debug, Default)]
pub struct Names {
    /// By the servers that have them.
    known: BTreeMap<String, Arc<Resolved>>,
    tasks: Vec<JoinHandle<()>>,
}

/// Where the name of one server leads.
#[derive(Debug, Default)]
pub struct Resolved {
    seats: ArcSwap<Vec<Arc<Seat>>>,
}

/// One address of a server, and what all workers share of it.
#[derive(Debug)]
pub struct Seat {
    /// The address.
    pub ip: IpAddr,
    /// Those of the other family that the name has, for connections that this one refuses.
    others: Arc<[IpAddr]>,
    up: AtomicBool,
    /// Requests under way there, for `circuit`.
    pub open: Arc<AtomicU32>,
}

impl Seat {
    fn new(ip: IpAddr, others: &Arc<[IpAddr]>, is_up: bool) -> Arc<Self> {
        let (others, up) = (Arc::clone(others), AtomicBool::new(is_up));
        Arc::new(Self { ip, others, up, open: Arc::default() })
    }

    /// Where to connect, in this order.
    pub fn addresses(&self) -> Vec<IpAddr> {
        [&[self.ip], &*self.others].concat()
    }

    /// Whether health checks find it well.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Takes note of what health checks say.
    pub fn set_up(&self, is_up: bool) {
        self.up.store(is_up, Ordering::Relaxed);
    }
}

impl Resolved {
    /// The addresses; none before the first answer.
    pub fn seats(&self) -> Arc<Vec<Arc<Seat>>> {
        self.seats.load_full()
    }

    /// Puts other addresses in their place. What is known of one that stays is kept. A name with
    /// addresses of both families has them for the same servers: those of IPv6 count where there are no
    /// others.
    fn store(&self, addresses: &[IpAddr]) {
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|ip| ip.is_ipv4());
        let (mine, others) = if v4.is_empty() { (v6, v4) } else { (v4, v6) };
        let others: Arc<[IpAddr]> = others.into();
        let known = self.seats();
        let same = |ip: &IpAddr| known.iter().find(|s| s.ip == *ip && s.others == others);
        let seat = |ip: &IpAddr| same(ip).map_or_else(|| Seat::new(*ip, &others, true), Arc::clone);
        self.seats.store(Arc::new(mine.iter().map(seat).collect()));
    }

    /// All addresses that were found.
    fn found(&self) -> Vec<IpAddr> {
        let seats = self.seats();
        let others = seats.first().map(|seat| seat.others.to_vec()).unwrap_or_default();
        let mut found: Vec<IpAddr> = seats.iter().map(|seat| seat.ip).chain(others).collect();
        found.sort_unstable();
        found
    }
}

impl Names {
    /// Begins to look up the names of `upstream`, on the current runtime. `known` is what an earlier
    /// generation found, so that nothing is forgotten.
    pub fn start(name: &str, upstream: &config::Upstream, known: Option<&Self>) -> Arc<Self> {
        let mut names = Self::default();
        let Some(rules) = &upstream.resolve else { return Arc::new(names) };
        for server in &upstream.servers {
            let Some(host) = server.host() else { continue };
            let key = server.to_string();
            if host.parse::<IpAddr>().is_ok() || names.known.contains_key(&key) {
                continue;
            }
            let found = known.and_then(|known| known.known.get(&key)).map(|found| found.seats());
            let is_checked = upstream.health.is_some();
            let again =
                |seat: &Arc<Seat>| Seat::new(seat.ip, &seat.others, !is_checked || seat.is_up());
            let seats = found.iter().flat_map(|seats| seats.iter()).map(again).collect();
            let resolved = Arc::new(Resolved { seats: ArcSwap::from_pointee(seats) });
            let task =
                follow(name.to_owned(), host.to_owned(), rules.clone(), Arc::clone(&resolved));
            names.tasks.push(tokio::spawn(task));
            names.known.insert(key, resolved);
        }
        Arc::new(names)
    }

    /// What is known of a server's name; none for one that has an address.
    pub fn of(&self, server: &config::Server) -> Option<&Arc<Resolved>> {
        // Most upstreams have none.
        self.known.get(&(!self.known.is_empty()).then(|| server.to_string())?)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Looks a name up for ever.
async fn follow(upstream: String, host: String, rules: config::Resolve, resolved: Arc<Resolved>) {
    let servers = (!rules.servers.is_empty())
        .then(|| Resolvers::new(rules.servers.clone(), Patience::default()));
    loop {
        let looked = match &servers {
            Some(servers) => ask(servers, &host).await.map_err(|cause| cause.to_string()),
            None => look(&host).await.map_err(|cause| cause.to_string()),
        };
        let wait = match looked {
            Ok((mut addresses, ttl)) if !addresses.is_empty() => {
                addresses.sort_unstable();
                addresses.dedup();
                let before = resolved.found();
                if before != addresses {
                    if !before.is_empty() {
                        let (old, new) = (text(&before), text(&addresses));
                        tracing::info!(upstream, host, old, new, "server has moved");
                    }
                    resolved.store(&addresses);
                }
                ttl.map_or(rules.every, |ttl| ttl.clamp(SHORTEST, rules.every.max(SHORTEST)))
            }
            // What was known stays: no answer is no reason to forget a server that serves.
            Ok(_) => {
                tracing::warn!(upstream, host, "name of a server has no address");
                rules.every.min(AGAIN)
            }
            Err(cause) => {
                tracing::warn!(upstream, host, cause, "cannot look up the name of a server");
                rules.every.min(AGAIN)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

type Found = (Vec<IpAddr>, Option<Duration>);

/// By the system's resolver, which tells no time to live.
async fn look(host: &str) -> std::io::Result<Found> {
    let found = tokio::net::lookup_host((host, 0)).await?;
    Ok((found.map(|address: SocketAddr| address.ip()).collect(), None))
}

/// By DNS servers: all addresses, and the shortest time to live.
async fn ask(servers: &Resolvers, host: &str) -> Result<Found, DnsError> {
    let (v4, v6) =
        tokio::join!(servers.ask(host, RecordType::A), servers.ask(host, RecordType::AAAA));
    let mut addresses = Vec::new();
    let mut ttl: Option<u32> = None;
    // One family may be broken where the other serves.
    if let (Err(cause), Err(_)) = (&v4, &v6) {
        tracing::debug!(host, %cause, "no answer");
        return v4.map(|_| (addresses, None));
    }
    for record in [v4, v6].iter().flatten().flat_map(|answer| &answer.answers) {
        if let Some(ip) = ip_of(&record.data) {
            addresses.push(ip);
            ttl = Some(ttl.map_or(record.ttl, |known| known.min(record.ttl)));
        }
    }
    Ok((addresses, ttl.map(|seconds| Duration::from_secs(seconds.into()))))
}

fn text(addresses: &[IpAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}

/// The shortest time between two look-ups, whatever a time to live says.
const SHORTEST: Duration = Duration::from_secs(1);
/// How soon a look-up that failed is repeated.
const AGAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_stays_keeps_what_is_known_of_it() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let resolved = Resolved::default();
        resolved.store(&[ip("10.0.0.1"), ip("10.0.0.2")]);
        let before = resolved.seats();
        before[1].set_up(false);
        before[1].open.store(3, Ordering::Relaxed);
        resolved.store(&[ip("10.0.0.2"), ip("10.0.0.3")]);
        let after = resolved.seats();
        assert!(!after[0].is_up() && after[0].open.load(Ordering::Relaxed) == 3);
        assert!(after[1].is_up() && after[1].open.load(Ordering::Relaxed) == 0);
        assert_eq!(after.len(), 2);
        // Both families are the same servers.
        resolved.store(&[ip("127.0.0.1"), ip("::1")]);
        let both = resolved.seats();
        assert_eq!((both.len(), both[0].addresses()), (1, vec![ip("127.0.0.1"), ip("::1")]));
        assert_eq!(resolved.found(), [ip("127.0.0.1"), ip("::1")]);
        resolved.store(&[ip("::1")]);
        assert_eq!(resolved.seats()[0].addresses(), [ip("::1")]);
    }
}
