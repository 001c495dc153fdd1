//! DNS servers for tests: real sockets on loopback addresses, records in memory, and a mood that
//! says how each of them misbehaves.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::dns::{Patience, text_of};

/// A patience that keeps tests short.
pub fn quick() -> Patience {
    Patience { per_try: Duration::from_millis(150), tries: 2 }
}

/// What servers serve; shared between those that are given clones of one.
#[derive(Debug, Clone, Default)]
pub struct Records(Arc<Mutex<All>>);

type All = BTreeMap<(String, RecordType), Vec<RData>>;

impl Records {
    fn set(&self, name: &str, kind: RecordType, data: Vec<RData>) {
        self.0.lock().unwrap().insert((name.to_owned(), kind), data);
    }

    pub fn set_txt<T: AsRef<str>>(&self, name: &str, values: &[T]) {
        let data =
            values.iter().map(|v| RData::TXT(TXT::new(vec![v.as_ref().to_owned()]))).collect();
        self.set(name, RecordType::TXT, data);
    }

    /// A value in several strings, as providers store long ones.
    pub fn set_txt_strings(&self, name: &str, strings: &[&str]) {
        let strings = strings.iter().map(|s| (*s).to_owned()).collect();
        self.set(name, RecordType::TXT, vec![RData::TXT(TXT::new(strings))]);
    }

    pub fn add_txt(&self, name: &str, value: &str) {
        let mut all = self.0.lock().unwrap();
        let values = all.entry((name.to_owned(), RecordType::TXT)).or_default();
        let data = RData::TXT(TXT::new(vec![value.to_owned()]));
        if !values.contains(&data) {
            values.push(data);
        }
    }

    pub fn remove_txt(&self, name: &str, value: &str) {
        let mut all = self.0.lock().unwrap();
        let data = RData::TXT(TXT::new(vec![value.to_owned()]));
        if let Some(values) = all.get_mut(&(name.to_owned(), RecordType::TXT)) {
            values.retain(|v| *v != data);
        }
        all.retain(|_, values| !values.is_empty());
    }

    pub fn txt(&self, name: &str) -> Vec<String> {
        let all = self.0.lock().unwrap();
        let values = all.get(&(name.to_owned(), RecordType::TXT)).into_iter().flatten();
        values
            .map(|data| match data {
                RData::TXT(txt) => String::from_utf8(txt.txt_data.concat()).unwrap(),
                _ => unreachable!(),
            })
            .collect()
    }

    pub fn set_address(&self, name: &str, ip: std::net::Ipv4Addr) {
        self.set(name, RecordType::A, vec![RData::A(ip.into())]);
    }

    pub fn set_cname(&self, name: &str, target: &str) {
        self.set(name, RecordType::CNAME, vec![RData::CNAME(CNAME(absolute(target)))]);
    }

    /// A zone with its servers and their addresses.
    pub fn set_zone(&self, zone: &str, servers: &[(&str, IpAddr)]) {
        let soa = SOA::new(absolute(zone), absolute(zone), 1, 1, 1, 1, 1);
        self.set(zone, RecordType::SOA, vec![RData::SOA(soa)]);
        let names = servers.iter().map(|(host, _)| RData::NS(NS(absolute(host)))).collect();
        self.set(zone, RecordType::NS, names);
        for (host, ip) in servers {
            let IpAddr::V4(ip) = ip else { panic!("IPv4 only") };
            self.set(host, RecordType::A, vec![RData::A(A(*ip))]);
        }
    }

    fn answer(&self, name: &str, kind: RecordType, response: &mut Message) {
        let all = self.0.lock().unwrap();
        let labels: Vec<&str> = name.split('.').collect();
        // The name itself, else a wildcard in its place (RFC 4592).
        let exists = all.keys().any(|(n, _)| n == name || n.ends_with(&format!(".{name}")));
        let wildcard = format!("*.{}", labels[1..].join("."));
        let source = if exists { name } else { &wildcard };
        let is_there = exists || all.keys().any(|(n, _)| n == source);
        for kind in [kind, RecordType::CNAME] {
            if let Some(data) = all.get(&(source.to_owned(), kind)) {
                let records =
                    data.iter().map(|d| Record::from_rdata(absolute(name), 60, d.clone()));
                response.add_answers(records);
                return;
            }
        }
        if !is_there {
            response.metadata.response_code = ResponseCode::NXDomain;
        }
        for at in 0..labels.len() {
            let zone = labels[at..].join(".");
            if let Some(soa) = all.get(&(zone.clone(), RecordType::SOA)) {
                response.add_authority(Record::from_rdata(absolute(&zone), 60, soa[0].clone()));
                return;
            }
        }
    }
}

fn absolute(name: &str) -> Name {
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    name
}

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    Honest,
    /// Answers nothing.
    Mute,
    /// REFUSED to all.
    Refusing,
    /// Serves nothing until this long after its start.
    Slow(Duration),
    /// Truncated over UDP, whole over TCP.
    Cutting,
    /// The same, with the datagram ending inside a record.
    CuttingMidRecord,
    /// Sends a wrong id, then a wrong question, then the answer.
    Forging,
    /// FORMERR to EDNS.
    WithoutEdns,
    /// The right id, then rubbish.
    Babbling,
    /// Points elsewhere: neither an answer nor authority.
    Lame,
}

/// A server; it stops with its scope.
pub struct FakeDns {
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
    tcp_questions: Arc<AtomicUsize>,
    questions: Arc<AtomicUsize>,
}

impl Drop for FakeDns {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl FakeDns {
    /// A server at `127.0.0.LAST` on a port of its own.
    pub async fn start(last: u8, records: Records, mood: Mood) -> Self {
        Self::start_all(&[(last, records, mood)]).await.remove(0)
    }

    /// Servers on different addresses that share one port.
    pub async fn start_all(wanted: &[(u8, Records, Mood)]) -> Vec<Self> {
        'ports: loop {
            let probe = UdpSocket::bind("127.0.0.250:0").await.unwrap();
            let port = probe.local_addr().unwrap().port();
            let mut sockets = Vec::new();
            for (last, _, _) in wanted {
                let address = SocketAddr::new(Ipv4Addr::new(127, 0, 0, *last).into(), port);
                let (udp, tcp) = (UdpSocket::bind(address).await, TcpListener::bind(address).await);
                match (udp, tcp) {
                    (Ok(udp), Ok(tcp)) => sockets.push((udp, tcp)),
                    _ => continue 'ports,
                }
            }
            return wanted
                .iter()
                .zip(sockets)
                .map(|((_, records, mood), (udp, tcp))| Self::serve(udp, tcp, records, *mood))
                .collect();
        }
    }

    fn serve(udp: UdpSocket, tcp: TcpListener, records: &Records, mood: Mood) -> Self {
        let address = udp.local_addr().unwrap();
        let (tcp_questions, questions) = (Arc::<AtomicUsize>::default(), Arc::default());
        let brain = Brain { records: records.clone(), mood, since: Instant::now() };
        let tasks = vec![
            tokio::spawn(serve_udp(udp, brain.clone(), Arc::clone(&questions))),
            tokio::spawn(serve_tcp(tcp, brain, Arc::clone(&tcp_questions))),
        ];
        Self { address, tasks, tcp_questions, questions }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn tcp_questions(&self) -> usize {
        self.tcp_questions.load(Ordering::Relaxed)
    }

    pub fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Brain {
    records: Records,
    mood: Mood,
    since: Instant,
}

impl Brain {
    fn answer(&self, query: &Message) -> Message {
        let question = query.queries[0].clone();
        let mut response = Message::response(query.metadata.id, query.metadata.op_code);
        response.add_query(question.clone());
        if self.mood == Mood::Refusing {
            response.metadata.response_code = ResponseCode::Refused;
            return response;
        }
        if self.mood == Mood::WithoutEdns && query.edns.is_some() {
            response.metadata.response_code = ResponseCode::FormErr;
            return response;
        }
        if self.mood == Mood::Lame {
            return response;
        }
        response.metadata.authoritative = true;
        if matches!(self.mood, Mood::Slow(wait) if self.since.elapsed() < wait) {
            response.metadata.response_code = ResponseCode::NXDomain;
            return response;
        }
        self.records.answer(&text_of(question.name()), question.query_type(), &mut response);
        response
    }
}

async fn serve_udp(socket: UdpSocket, brain: Brain, questions: Arc<AtomicUsize>) {
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        questions.fetch_add(1, Ordering::Relaxed);
        let query = Message::from_vec(&buffer[..length]).unwrap();
        let whole = brain.answer(&query);
        let datagrams = match brain.mood {
            Mood::Mute => vec![],
            Mood::Cutting => vec![whole.truncate().to_vec().unwrap()],
            Mood::CuttingMidRecord => {
                let mut bytes = whole.to_vec().unwrap();
                bytes.truncate(500);
                bytes[2] |= 0x02;
                vec![bytes]
            }
            Mood::Forging => {
                let mut wrong_id = whole.clone();
                wrong_id.metadata.id = whole.metadata.id.wrapping_add(1);
                wrong_id.answers = vec![Record::from_rdata(
                    query.queries[0].name().clone(),
                    60,
                    RData::TXT(TXT::new(vec!["forged".into()])),
                )];
                let mut wrong_question = wrong_id.clone();
                wrong_question.metadata.id = whole.metadata.id;
                wrong_question.queries[0].set_name(absolute("elsewhere.example"));
                [wrong_id, wrong_question, whole].iter().map(|m| m.to_vec().unwrap()).collect()
            }
            Mood::Babbling => vec![[&query.metadata.id.to_be_bytes()[..], b"hello"].concat()],
            _ => vec![whole.to_vec().unwrap()],
        };
        for datagram in datagrams {
            let _ = socket.send_to(&datagram, peer).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, brain: Brain, questions: Arc<AtomicUsize>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let Ok(length) = stream.read_u16().await else { continue };
        let mut bytes = vec![0; usize::from(length)];
        if stream.read_exact(&mut bytes).await.is_err() {
            continue;
        }
        questions.fetch_add(1, Ordering::Relaxed);
        let answer = brain.answer(&Message::from_vec(&bytes).unwrap()).to_vec().unwrap();
        let length = u16::try_from(answer.len()).unwrap();
        let _ = stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await;
    }
}
