//! DNS-01 at a server that takes DNS UPDATE (RFC 2136), signed with TSIG (RFC 8945): BIND, Knot,
//! PowerDNS, NSD's hidden primaries, Active Directory without secure-only updates.
//!
//! Not a plugin, since a plugin has no sockets; it is used as one, through [`DnsSolver`]. The updates
//! name single TXT values, so that nothing has to be read and merged, and others' values stay.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::dns01::{DnsSolver, RecordSet, SolverFailure, SolverFuture, Zone};
use crate::acme::dns::{self, Patience, Question};
use crate::acme::tsig::{self, Change, Key, Signed};
use crate::config::Rfc2136;

/// A server that takes updates.
pub struct UpdateServer {
    name: String,
    config: Rfc2136,
}

impl UpdateServer {
    /// The server called `name` in `gateway.yaml`.
    pub fn new(name: &str, config: &Rfc2136) -> Self {
        Self { name: name.to_owned(), config: config.clone() }
    }

    /// The first of `candidates` that the server has a zone of.
    async fn zone(&self, candidates: &[String]) -> Result<(String, String), SolverFailure> {
        let server = self.address().await?;
        let zones = &self.config.zones;
        let may_be = |name: &&String| zones.is_empty() || zones.contains(name);
        for name in candidates.iter().filter(may_be) {
            let question = Question::new(name, RecordType::SOA, false)
                .map_err(|_| failed("invalid", format!("{name} is no name of the DNS")))?;
            let answer = match dns::ask(server, &question, Patience::default()).await {
                Ok(answer) => answer,
                // A server that does not have it says so in several ways.
                Err(dns::DnsError::Code(_)) => continue,
                Err(cause) => {
                    return Err(failed("unavailable", format!("{}: {cause}", self.config.server)));
                }
            };
            let is_own = answer.answers.iter().any(|record| {
                let owner = record.name.to_ascii().to_ascii_lowercase();
                record.record_type() == RecordType::SOA && owner.trim_end_matches('.') == name
            });
            if is_own && answer.metadata.authoritative {
                return Ok((name.clone(), String::new()));
            }
        }
        let names = candidates.join(", ");
        let text = format!("{} is authoritative for none of: {names}", self.config.server);
        Err(failed("zone-not-found", text))
    }

    async fn address(&self) -> Result<SocketAddr, SolverFailure> {
        let (host, port) = (&self.config.host, self.config.port);
        let mut found = tokio::net::lookup_host((host.as_str(), port))
            .await
            .map_err(|cause| failed("unavailable", format!("cannot resolve {host}: {cause}")))?;
        found.next().ok_or_else(|| failed("unavailable", format!("{host} has no address")))
    }

    /// Sends changes and reads what the server made of them.
    async fn change(&self, at: &RecordSet, changes: &[Change<'_>]) -> Result<(), SolverFailure> {
        let [.., one, two] = *uuid::Uuid::now_v7().as_bytes();
        let id = u16::from_be_bytes([one, two]);
        let cannot = || {
            let text = format!("{} and its values cannot be written in an update", at.name);
            failed("invalid", text)
        };
        let mut message = tsig::update(id, &at.zone.name, &at.name, changes).ok_or_else(cannot)?;
        let secret = self.secret()?;
        let key = secret.as_ref().zip(self.config.key.as_ref()).map(|(secret, key)| Key {
            name: &key.name,
            algorithm: key.algorithm,
            secret,
        });
        let mac = match &key {
            Some(key) => key.sign(&mut message, now()).ok_or_else(cannot)?,
            None => Vec::new(),
        };
        let server = self.address().await?;
        let lost = |cause: std::io::Error| {
            failed("unavailable", format!("{}: {cause}", self.config.server))
        };
        let answer = timeout(EXCHANGE_MAX, exchange(server, &message))
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(lost)?;
        let Some(code) = tsig::code(&answer, id) else {
            let text = format!("{} answers with something that is no answer", self.config.server);
            return Err(failed("unavailable", text));
        };
        if let Some(key) = &key {
            match key.check(&answer, &mac, now()) {
                Signed::Well => {}
                Signed::Refused(why) => return Err(self.untrusted(why)),
                // An error need not be signed; a success does.
                Signed::Not if code != 0 => {}
                Signed::Not => {
                    let text = format!(
                        "the answer of {} is not signed with the key {}: it may be somebody else's",
                        self.config.server, key.name
                    );
                    return Err(failed("unavailable", text));
                }
            }
        }
        self.judge(code, &at.zone.name)
    }

    fn secret(&self) -> Result<Option<Vec<u8>>, SolverFailure> {
        let Some(key) = &self.config.key else { return Ok(None) };
        let text = key.secret.read().map_err(|why| failed("auth", why))?;
        let bytes = STANDARD.decode(text.expose().trim()).map_err(|_| {
            failed("auth", format!("{}: a TSIG key is written in Base64", key.secret))
        })?;
        Ok(Some(bytes))
    }

    fn untrusted(&self, why: u16) -> SolverFailure {
        let (server, key) = (&self.config.server, self.config.key.as_ref());
        let key = key.map(|key| key.name.as_str()).unwrap_or_default();
        let text = match why {
            16 => format!("{server} has another secret for the key {key} (BADSIG)"),
            17 => format!("{server} has no key {key} of this algorithm (BADKEY)"),
            tsig::BADTIME => {
                format!(
                    "the clocks here and at {server} are more than five minutes apart (BADTIME)"
                )
            }
            other => format!("{server} does not take the signature (TSIG error {other})"),
        };
        failed("auth", text)
    }

    /// The codes of RFC 2136, section 2.2.
    fn judge(&self, code: u16, zone: &str) -> Result<(), SolverFailure> {
        let server = &self.config.server;
        let (code, text) = match code {
            0 => return Ok(()),
            1 => ("invalid", format!("{server} cannot read the update (FORMERR)")),
            4 => ("forbidden", format!("{server} takes no updates (NOTIMP)")),
            5 => (
                "forbidden",
                format!(
                    "{server} does not allow this update of {zone} (REFUSED): let the key change \
                         TXT records there"
                ),
            ),
            9 => (
                "forbidden",
                format!(
                    "{server} is not the primary of {zone}, or does not let the \
                                        key in (NOTAUTH)"
                ),
            ),
            10 => ("zone-not-found", format!("the name is not in {zone} (NOTZONE)")),
            other => ("unavailable", format!("{server} answers with code {other}")),
        };
        Err(failed(code, text))
    }
}

impl DnsSolver for UpdateServer {
    fn label(&self) -> String {
        format!("{} (RFC 2136 at {})", self.name, self.config.server)
    }

    fn traits(&self) -> SolverFuture<'_, Vec<(String, String)>> {
        // Adding and removing single values is atomic, so that anything may run at once.
        Box::pin(async { Ok(Vec::new()) })
    }

    fn find_zone(&self, candidates: Vec<String>) -> SolverFuture<'_, (String, String)> {
        Box::pin(async move { self.zone(&candidates).await })
    }

    fn present(&self, at: RecordSet, ttl_seconds: u32) -> SolverFuture<'_, String> {
        Box::pin(async move {
            let changes: Vec<Change<'_>> =
                at.values.iter().map(|value| Change::Add(value, ttl_seconds)).collect();
            self.change(&at, &changes).await.map(|()| String::new())
        })
    }

    fn poll(&self, _zone: Zone, _handle: String) -> SolverFuture<'_, Option<u32>> {
        Box::pin(async { Ok(None) })
    }

    fn cleanup(&self, at: RecordSet, _handle: String) -> SolverFuture<'_, ()> {
        Box::pin(async move {
            let changes: Vec<Change<'_>> =
                at.values.iter().map(|value| Change::Remove(value)).collect();
            self.change(&at, &changes).await
        })
    }
}

/// Over TCP, since a signed update may be larger than a datagram (RFC 2136, section 2.1).
async fn exchange(server: SocketAddr, message: &[u8]) -> std::io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn failed(code: &str, message: String) -> SolverFailure {
    SolverFailure { code: code.to_owned(), message, retry_after: None }
}

/// From the first packet to the whole answer.
const EXCHANGE_MAX: Duration = Duration::from_secs(10);
