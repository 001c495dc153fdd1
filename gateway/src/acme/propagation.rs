//! Waiting until TXT records are served everywhere, before a CA is told to look. A failed validation
//! counts against the account's limits; a wait costs nothing.
//!
//! Called by [`super::solve::dns01`]. It asks every authoritative server of the zone directly, as
//! the CA will, so that no cache can answer for them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dns::{DnsError, Patience, Question, Resolvers, alias_in, ask, ip_of, text_of};
use crate::config::Resolver;

/// The records to wait for and where.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The zone that holds them.
    pub zone: String,
    /// Their name, absolute, no alias.
    pub name: String,
    /// The values; others at the same name do not matter.
    pub values: Vec<String>,
}

/// How to look.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// The port of authoritative servers.
    pub port: u16,
    /// How long to go on looking.
    pub timeout: Duration,
    /// The wait after the first look; it grows to `interval_max`.
    pub interval: Duration,
    /// The longest wait between two looks.
    pub interval_max: Duration,
}

/// The records did not become visible in time.
#[derive(Debug)]
pub struct NotPropagated {
    /// Their name.
    pub name: String,
    /// Their zone.
    pub zone: String,
    /// How long it was looked for.
    pub waited: Duration,
    /// What each server said last, a line each: `ns1.example.net 192.0.2.1: has 1 of 2 values`.
    pub report: Vec<String>,
}

impl fmt::Display for NotPropagated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TXT {} is not served by the DNS servers of {} after {} s ({}); if this gateway cannot \
             reach them, set certificates.propagation.check to false and give a delay; if they are \
             slow, raise certificates.propagation.timeout",
            self.name,
            self.zone,
            self.waited.as_secs(),
            self.report.join("; ")
        )
    }
}

impl std::error::Error for NotPropagated {}

/// Looks until the records are there: every authoritative server that answers has all values, and
/// for each one that does not answer, a majority of the others does. Where nobody knows authoritative
/// servers for the zone (private setups), the resolvers themselves are asked.
///
/// # Errors
/// When `watch.timeout` is over.
pub async fn wait(
    resolvers: &Resolvers,
    expected: &Expected,
    watch: Watch,
) -> Result<(), NotPropagated> {
    let started = Instant::now();
    let mut interval = watch.interval;
    let mut servers = Vec::new();
    let mut said = Vec::new();
    loop {
        let report = match look(resolvers, expected, watch.port, &mut servers).await {
            Look::Everywhere(report) => {
                tracing::info!(
                    name = expected.name,
                    zone = expected.zone,
                    waited_ms = started.elapsed().as_millis(),
                    servers = report.join("; "),
                    "TXT record is served everywhere"
                );
                return Ok(());
            }
            Look::NotYet(report) => report,
        };
        // A line for each change, not for each look.
        if report != said {
            tracing::info!(
                name = expected.name,
                zone = expected.zone,
                servers = report.join("; "),
                "waiting for TXT record"
            );
            said = report;
        }
        let left = watch.timeout.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(NotPropagated {
                name: expected.name.clone(),
                zone: expected.zone.clone(),
                waited: started.elapsed(),
                report: said,
            });
        }
        // The last look is at the very end of the wait.
        tokio::time::sleep(interval.min(left)).await;
        interval = (interval * 3 / 2).min(watch.interval_max);
    }
}

/// The values of a TXT record set, as the first server of the zone that answers has them now.
///
/// # Errors
/// When the zone's servers are unknown, or none answers.
pub async fn values(
    resolvers: &Resolvers,
    zone: &str,
    name: &str,
    port: u16,
) -> Result<BTreeSet<String>, DnsError> {
    let mut last = DnsError::NoServer;
    for server in find_servers(resolvers, zone, port).await? {
        let question = Question::new(name, RecordType::TXT, server.is_recursive)?;
        for address in server.addresses {
            match ask(address, &question, resolvers.patience()).await {
                Ok(answer) => {
                    let texts = texts_of(&answer).into_iter();
                    let texts = texts.map(|text| String::from_utf8_lossy(&text).into_owned());
                    return Ok(texts.collect());
                }
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

enum Look {
    Everywhere(Vec<String>),
    NotYet(Vec<String>),
}

/// One look. `servers` is found when empty, and forgotten when none of them answers.
async fn look(
    resolvers: &Resolvers,
    expected: &Expected,
    port: u16,
    servers: &mut Vec<Server>,
) -> Look {
    if servers.is_empty() {
        match find_servers(resolvers, &expected.zone, port).await {
            Ok(found) => *servers = found,
            Err(error) => {
                let line = format!("name servers of {} are unknown: {error}", expected.zone);
                return Look::NotYet(vec![line]);
            }
        }
    }
    let mut asked = JoinSet::new();
    for (index, server) in servers.iter().enumerate() {
        for address in &server.addresses {
            let (address, expected, is_recursive) =
                (address.clone(), expected.clone(), server.is_recursive);
            let patience = resolvers.patience();
            asked.spawn(async move {
                let sight = see(address.clone(), &expected, is_recursive, patience).await;
                (index, address, sight)
            });
        }
    }
    let mut seen: Vec<(usize, Resolver, Sight)> = Vec::new();
    while let Some(one) = asked.join_next().await {
        seen.extend(one.ok());
    }
    seen.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let verdict = judge(servers, &seen, expected.values.len());
    if seen.iter().all(|(_, _, sight)| matches!(sight, Sight::Nothing(_))) {
        servers.clear();
    }
    verdict
}

/// A name server: one of the zone, or a resolver where the zone's own are not known.
#[derive(Debug)]
struct Server {
    label: String,
    addresses: Vec<Resolver>,
    is_recursive: bool,
}

/// Finds the servers of the zone. What a provider calls a zone need not be one in the DNS (a
/// dynamic-DNS host name, say): then those of the zone around it.
async fn find_servers(
    resolvers: &Resolvers,
    zone: &str,
    port: u16,
) -> Result<Vec<Server>, DnsError> {
    let mut answer = resolvers.ask(zone, RecordType::NS).await?;
    let mut hosts = hosts_in(&answer);
    if hosts.is_empty()
        && answer.metadata.response_code == ResponseCode::NoError
        && let Some(around) = zone_around(&answer, zone)
    {
        tracing::debug!(zone, around, "not a zone of its own in the DNS");
        answer = resolvers.ask(&around, RecordType::NS).await?;
        hosts = hosts_in(&answer);
    }
    let mut servers = Vec::new();
    for host in hosts {
        let mut ips = resolvers.addresses(&host).await;
        if ips.is_empty() {
            ips = glue_in(&answer, &host);
        }
        ips.truncate(ADDRESSES_PER_SERVER_MAX);
        let addresses = ips.into_iter().map(|ip| SocketAddr::new(ip, port).into()).collect();
        servers.push(Server { label: host, addresses, is_recursive: false });
    }
    if servers.iter().all(|server| server.addresses.is_empty()) {
        tracing::warn!(
            zone,
            "no authoritative name servers are known for the zone; asking the resolvers instead"
        );
        servers = resolvers
            .servers()
            .await
            .into_iter()
            .map(|address| Server {
                label: "resolver".to_owned(),
                addresses: vec![address],
                is_recursive: true,
            })
            .collect();
    }
    Ok(servers)
}

fn hosts_in(answer: &Message) -> Vec<String> {
    let mut hosts: Vec<String> = answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::NS(host) => Some(text_of(&host.0)),
            _ => None,
        })
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts.truncate(SERVERS_MAX);
    hosts
}

/// The zone that an answer without records says it comes from (RFC 2308, section 2): one around
/// `zone`, and never a top-level domain.
fn zone_around(answer: &Message, zone: &str) -> Option<String> {
    answer.authorities.iter().find_map(|record| {
        let around = text_of(&record.name);
        let is_around = zone.strip_suffix(around.as_str()).is_some_and(|rest| rest.ends_with('.'));
        let is_soa = matches!(record.data, RData::SOA(_));
        (is_soa && is_around && around.contains('.')).then_some(around)
    })
}

fn glue_in(answer: &Message, host: &str) -> Vec<IpAddr> {
    let glue = answer.additionals.iter().filter(|record| text_of(&record.name) == host);
    glue.filter_map(|record| ip_of(&record.data)).collect()
}

/// What one address of a server shows.
#[derive(Debug)]
enum Sight {
    /// So many of the values; and a remark when there is something to say.
    Values(usize, Option<String>),
    /// No usable answer.
    Nothing(String),
}

async fn see(
    address: Resolver,
    expected: &Expected,
    is_recursive: bool,
    patience: Patience,
) -> Sight {
    let question = match Question::new(&expected.name, RecordType::TXT, is_recursive) {
        Ok(question) => question,
        Err(error) => return Sight::Nothing(error.to_string()),
    };
    match ask(address, &question, patience).await {
        Ok(answer) => sight_of(&answer, expected, is_recursive),
        Err(error) => Sight::Nothing(error.to_string()),
    }
}

/// The TXT values of an answer.
fn texts_of(answer: &Message) -> Vec<Vec<u8>> {
    let text = |data: &RData| match data {
        // Several strings of one record are one value (RFC 8555 follows RFC 7208, section 3.3).
        RData::TXT(txt) => Some(txt.txt_data.concat()),
        _ => None,
    };
    answer.answers.iter().filter_map(|record| text(&record.data)).collect()
}

fn sight_of(answer: &Message, expected: &Expected, is_recursive: bool) -> Sight {
    let texts = texts_of(answer);
    let is_there = |value: &str| texts.iter().any(|text| text.as_slice() == value.as_bytes());
    let found = expected.values.iter().filter(|value| is_there(value)).count();
    if found == expected.values.len() {
        return Sight::Values(found, None);
    }
    if texts.is_empty() && !answer.metadata.authoritative && !is_recursive {
        return Sight::Nothing("does not serve the zone".to_owned());
    }
    let is_quoted = |value: &String| is_there(&format!("\"{value}\""));
    let remark = if expected.values.iter().any(is_quoted) {
        Some("a value is stored with quotes around it, which the plugin must not add".to_owned())
    } else {
        alias_in(answer, &expected.name).map(|target| format!("the name is a CNAME of {target}"))
    };
    Sight::Values(found, remark)
}

/// Decides, and says per address what it decides on.
fn judge(servers: &[Server], seen: &[(usize, Resolver, Sight)], wanted: usize) -> Look {
    let mut report = Vec::new();
    let mut answering = 0_usize;
    let mut is_missing = false;
    for (index, server) in servers.iter().enumerate() {
        if server.addresses.is_empty() {
            report.push(format!("{}: has no address", server.label));
        }
        let mut is_answering = false;
        for (_, address, sight) in seen.iter().filter(|(of, _, _)| *of == index) {
            let ip = address.address.ip();
            report.push(match sight {
                Sight::Nothing(why) => format!("{} {ip}: {why}", server.label),
                Sight::Values(found, remark) => {
                    is_answering = true;
                    is_missing |= *found < wanted;
                    let remark = remark.as_ref().map(|r| format!(" ({r})")).unwrap_or_default();
                    format!("{} {ip}: has {found} of {wanted} values{remark}", server.label)
                }
            });
        }
        answering += usize::from(is_answering);
    }
    // A silent server is tolerated when most of the others answer. Counted by server, not by
    // address: half of the addresses are silent where there is no IPv6.
    let silent = servers.len() - answering;
    let is_quorum = answering > 0 && (silent == 0 || 2 * answering > servers.len() - 1);
    match is_quorum && !is_missing {
        true => Look::Everywhere(report),
        false => Look::NotYet(report),
    }
}

/// Inclusive; the root has 13.
const SERVERS_MAX: usize = 16;

/// Inclusive; more would be asked without telling more.
const ADDRESSES_PER_SERVER_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::fake_dns::{FakeDns, Mood, Records, quick};

    const NAME: &str = "_acme-challenge.a.example";

    fn expected() -> Expected {
        Expected {
            zone: "a.example".into(),
            name: NAME.into(),
            values: vec!["one".into(), "two".into()],
        }
    }

    fn watch(port: u16, timeout_ms: u64) -> Watch {
        Watch {
            port,
            timeout: Duration::from_millis(timeout_ms),
            interval: Duration::from_millis(20),
            interval_max: Duration::from_millis(100),
        }
    }

    fn served() -> Records {
        let records = Records::default();
        records.set_txt(NAME, &["foreign", "one", "two"]);
        records
    }

    fn stale() -> Records {
        let records = Records::default();
        records.set_txt(NAME, &["old", "one"]);
        records
    }

    /// Waits in front of authoritative servers 127.0.0.11, .12 … with these moods.
    async fn in_front_of(
        servers: &[(Records, Mood)],
        timeout_ms: u64,
    ) -> Result<(), NotPropagated> {
        let directory = Records::default();
        let mut all = vec![(10, directory.clone(), Mood::Honest)];
        let mut names = Vec::new();
        for ((records, mood), last) in servers.iter().zip(11_u8..) {
            all.push((last, records.clone(), *mood));
            names.push((format!("ns{}.b.example", last - 10), IpAddr::from([127, 0, 0, last])));
        }
        let names: Vec<(&str, IpAddr)> = names.iter().map(|(n, ip)| (n.as_str(), *ip)).collect();
        directory.set_zone("a.example", &names);
        let running = FakeDns::start_all(&all).await;
        let resolvers = Resolvers::new(vec![running[0].address()], quick());
        wait(&resolvers, &expected(), watch(running[0].address().port(), timeout_ms)).await
    }

    #[tokio::test]
    async fn every_server_that_answers_must_have_all_values() {
        let slow = Mood::Slow(Duration::from_millis(300));
        let started = Instant::now();
        in_front_of(&[(served(), Mood::Honest), (served(), slow)], 3000).await.unwrap();
        assert!(started.elapsed() >= Duration::from_millis(250));

        let error = in_front_of(&[(served(), Mood::Honest), (stale(), Mood::Honest)], 200)
            .await
            .unwrap_err();
        assert_eq!(
            error.report,
            [
                "ns1.b.example 127.0.0.11: has 2 of 2 values",
                "ns2.b.example 127.0.0.12: has 1 of 2 values"
            ]
        );
        assert!(error.to_string().contains("ns2.b.example 127.0.0.12: has 1 of 2 values"));
    }

    #[tokio::test]
    async fn silent_servers_are_tolerated_beside_a_majority() {
        let good = || (served(), Mood::Honest);
        let mute = || (served(), Mood::Mute);
        let refusing = || (served(), Mood::Refusing);
        let lame = || (Records::default(), Mood::Lame);
        in_front_of(&[good(), mute()], 1500).await.unwrap();
        in_front_of(&[good(), refusing(), good(), lame()], 1500).await.unwrap();
        let error = in_front_of(&[good(), mute(), refusing()], 100).await.unwrap_err();
        assert_eq!(
            error.report,
            [
                "ns1.b.example 127.0.0.11: has 2 of 2 values",
                "ns2.b.example 127.0.0.12: no answer",
                "ns3.b.example 127.0.0.13: answers with Query Refused"
            ]
        );
        in_front_of(&[mute(), mute()], 100).await.unwrap_err();
        in_front_of(&[lame()], 100).await.unwrap_err();
        // The matrix of four: slow, stale, refusing, good.
        let slow = || (served(), Mood::Slow(Duration::from_millis(200)));
        in_front_of(&[slow(), refusing(), good(), good()], 3000).await.unwrap();
        in_front_of(&[slow(), refusing(), good(), (stale(), Mood::Honest)], 500).await.unwrap_err();
    }

    #[tokio::test]
    async fn long_and_cut_answers_count() {
        let records = Records::default();
        let mut values: Vec<String> = (0..40).map(|n| format!("{n:0>43}")).collect();
        values.extend(["one".into(), "two".into()]);
        records.set_txt(NAME, &values);
        in_front_of(&[(records.clone(), Mood::Cutting)], 1000).await.unwrap();
        in_front_of(&[(records, Mood::CuttingMidRecord)], 1000).await.unwrap();
    }

    #[tokio::test]
    async fn a_value_in_quotes_is_recognised_and_one_in_pieces_taken() {
        let records = Records::default();
        records.set_txt(NAME, &["\"one\"", "two"]);
        let error = in_front_of(&[(records.clone(), Mood::Honest)], 50).await.unwrap_err();
        assert!(error.report[0].contains("stored with quotes"), "{error}");
        records.set_txt_strings(NAME, &["on", "e"]);
        records.add_txt(NAME, "two");
        in_front_of(&[(records, Mood::Honest)], 500).await.unwrap();
    }

    #[tokio::test]
    async fn a_zone_without_servers_is_asked_for_at_the_resolvers() {
        let resolver = FakeDns::start(1, served(), Mood::Honest).await;
        let resolvers = Resolvers::new(vec![resolver.address()], quick());
        wait(&resolvers, &expected(), watch(9, 500)).await.unwrap();
    }

    #[tokio::test]
    async fn a_zone_that_is_none_in_the_dns_has_the_servers_around_it() {
        let directory = Records::default();
        directory.set_zone("dyn.example", &[("ns1.dyn.example", [127, 0, 0, 11].into())]);
        directory.set_txt("mine.dyn.example", &["unrelated"]);
        let zone = Records::default();
        zone.set_txt("mine.dyn.example", &["v"]);
        let running =
            FakeDns::start_all(&[(10, directory, Mood::Honest), (11, zone, Mood::Honest)]).await;
        let resolvers = Resolvers::new(vec![running[0].address()], quick());
        let expected = Expected {
            zone: "mine.dyn.example".into(),
            name: "mine.dyn.example".into(),
            values: vec!["v".into()],
        };
        let port = running[0].address().port();
        wait(&resolvers, &expected, watch(port, 500)).await.unwrap();
        assert!(running[1].questions() >= 1);
    }

    #[tokio::test]
    async fn unreachable_resolvers_are_named() {
        let mute = FakeDns::start(1, Records::default(), Mood::Mute).await;
        let resolvers = Resolvers::new(vec![mute.address()], quick());
        let error = wait(&resolvers, &expected(), watch(9, 50)).await.unwrap_err();
        assert_eq!(error.report, ["name servers of a.example are unknown: no answer"]);
    }
}
