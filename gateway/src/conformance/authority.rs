//! DNS and CA in process: a name server that is authoritative for everything the mock of a provider
//! holds, and who asks it as a CA does.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::mock::Mock;
use crate::acme::dns::{Patience, Resolvers, alias_in, text_of};

/// A name server on loopback, over UDP; it ends with this.
pub(super) struct Authority {
    address: SocketAddr,
    task: JoinHandle<()>,
}

struct Holds {
    mock: Arc<Mock>,
    zones: Vec<String>,
    aliases: BTreeMap<String, String>,
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Authority {
    /// Serves what `mock` has in `zones`, and CNAMEs from one name to another.
    pub(super) async fn start(
        mock: Arc<Mock>,
        zones: Vec<String>,
        aliases: &[(String, String)],
    ) -> Result<Self, String> {
        let cannot = |cause| format!("no name server can be started on loopback: {cause}");
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(cannot)?;
        let address = socket.local_addr().map_err(cannot)?;
        let holds = Holds { mock, zones, aliases: aliases.iter().cloned().collect() };
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                let query = Message::from_vec(buffer.get(..length).unwrap_or_default());
                let Ok(query) = query else { continue };
                let answer = holds.answer(&query).await;
                if let Some(bytes) = answer.and_then(|answer| answer.to_vec().ok()) {
                    let _ = socket.send_to(&bytes, from).await;
                }
            }
        });
        Ok(Self { address, task })
    }

    /// Where it is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether `value` proves control of `domain` to a CA: it follows CNAMEs and takes no cache's
    /// word (RFC 8555, section 8.4).
    pub(super) async fn validate(&self, domain: &str, value: &str) -> Result<(), String> {
        let resolvers = Resolvers::new(vec![self.address], Patience::default());
        let mut name = format!("_acme-challenge.{domain}");
        for _ in 0..8 {
            let answer = resolvers.ask(&name, RecordType::TXT).await;
            let answer = answer.map_err(|error| format!("the CA asks for {name}: {error}"))?;
            if let Some(next) = alias_in(&answer, &name) {
                name = next;
                continue;
            }
            let texts: Vec<String> = answer
                .answers
                .iter()
                .filter_map(|record| match &record.data {
                    RData::TXT(txt) => Some(txt.txt_data.concat()),
                    _ => None,
                })
                .map(|text| String::from_utf8_lossy(&text).into_owned())
                .collect();
            return match texts.iter().any(|text| text == value) {
                true => Ok(()),
                false => Err(format!("the CA finds {texts:?} at {name}, and not {value}")),
            };
        }
        Err(format!("the CA gives up: too many CNAMEs from {domain}"))
    }
}

impl Holds {
    async fn answer(&self, query: &Message) -> Option<Message> {
        let question = query.queries.first()?;
        let (name, kind) = (text_of(question.name()), question.query_type());
        let mut answer = Message::query();
        answer.metadata.id = query.metadata.id;
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.recursion_desired = query.metadata.recursion_desired;
        answer.metadata.authoritative = true;
        answer.add_query(question.clone());
        let add = |answer: &mut Message, data: RData| {
            answer.add_answer(Record::from_rdata(question.name().clone(), 1, data));
        };
        let zone = self.zone_of(&name);
        let is_apex = zone == name;
        if let Some(target) = self.aliases.get(&name) {
            add(&mut answer, RData::CNAME(CNAME(absolute(target)?)));
            return Some(answer);
        }
        match kind {
            RecordType::TXT => {
                for value in self.mock.values(&name, true).await.ok()? {
                    let strings = value.as_bytes().chunks(255);
                    let strings = strings.map(|part| String::from_utf8_lossy(part).into_owned());
                    add(&mut answer, RData::TXT(TXT::new(strings.collect())));
                }
            }
            RecordType::NS if is_apex => add(&mut answer, RData::NS(NS(absolute(SERVER)?))),
            RecordType::A if name == SERVER => add(&mut answer, RData::A(A(Ipv4Addr::LOCALHOST))),
            _ => {}
        }
        let soa = SOA::new(absolute(SERVER)?, absolute(&zone)?, 1, 60, 60, 60, 1);
        if kind == RecordType::SOA && is_apex {
            add(&mut answer, RData::SOA(soa));
        } else if answer.answers.is_empty() {
            answer.add_authority(Record::from_rdata(absolute(&zone)?, 1, RData::SOA(soa)));
            // Nobody has wildcards here: what holds nothing is not there.
            if kind != RecordType::TXT && !is_apex && name != SERVER {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
        }
        Some(answer)
    }

    /// The zone around a name: one of the provider's, else its last two labels.
    fn zone_of(&self, name: &str) -> String {
        let holds = |zone: &&String| {
            name.strip_suffix(zone.as_str()).is_some_and(|b| b.is_empty() || b.ends_with('.'))
        };
        if let Some(zone) = self.zones.iter().filter(holds).max_by_key(|zone| zone.len()) {
            return zone.clone();
        }
        let labels: Vec<&str> = name.split('.').collect();
        labels.get(labels.len().saturating_sub(2)..).unwrap_or_default().join(".")
    }
}

/// A challenge as a CA and an account make it: the TXT value for a token (RFC 8555, section 8.4),
/// always the same one, so that a recording knows it.
pub(super) fn challenge() -> String {
    let authorization = "token-of-the-conformance-kit.thumbprint-of-its-account";
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, authorization.as_bytes());
    URL_SAFE_NO_PAD.encode(digest)
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The one name server of all zones.
const SERVER: &str = "ns1.witgate.invalid";
