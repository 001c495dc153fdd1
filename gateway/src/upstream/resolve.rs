//! Where the names of servers lead now: looked up again and again while the gateway runs, so that a
//! server that moves is followed and one that is gone is let go. One task per name and generation, on
//! the control runtime; workers read what it found.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::rr::RecordType;
use tokio::task::JoinHandle;

use crate::acme::dns::{DnsError, Patience, Resolvers, ip_of};
use crate::config;

/// The names of one upstream's servers. Ends its look-ups when the last owner lets go.
#[derive(Debug, Default)]
pub struct Names {
    known: BTreeMap<String, Arc<Resolved>>,
    tasks: Vec<JoinHandle<()>>,
}

/// Where one name leads.
#[derive(Debug, Default)]
pub struct Resolved {
    addresses: ArcSwap<Vec<IpAddr>>,
}

impl Resolved {
    /// The addresses; none before the first answer.
    pub fn addresses(&self) -> Arc<Vec<IpAddr>> {
        self.addresses.load_full()
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
            if host.parse::<IpAddr>().is_ok() || names.known.contains_key(host) {
                continue;
            }
            let found = known.and_then(|known| known.known.get(host));
            let found = found.map(|found| found.addresses()).unwrap_or_default();
            let resolved = Arc::new(Resolved { addresses: ArcSwap::new(found) });
            let task =
                follow(name.to_owned(), host.to_owned(), rules.clone(), Arc::clone(&resolved));
            names.tasks.push(tokio::spawn(task));
            names.known.insert(host.to_owned(), resolved);
        }
        Arc::new(names)
    }

    /// What is known of a host; none for addresses.
    pub fn of(&self, host: &str) -> Option<&Arc<Resolved>> {
        self.known.get(host)
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
                let before = resolved.addresses();
                if *before != addresses {
                    if !before.is_empty() {
                        let (old, new) = (text(&before), text(&addresses));
                        tracing::info!(upstream, host, old, new, "server has moved");
                    }
                    resolved.addresses.store(Arc::new(addresses));
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
