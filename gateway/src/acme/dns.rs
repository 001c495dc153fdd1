//! A small DNS client: one question to one server over UDP, over TCP when the answer was cut
//! (RFC 1035, section 4.2; RFC 7766); and the resolvers that the gateway asks when it needs somebody
//! to find things out for it.
//!
//! Called by [`super::propagation`] and [`super::solve::dns01`]. It keeps no cache on purpose: what
//! it is used for is whether a change can be seen *now*. It never follows a referral by itself.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::encrypted;
use crate::config::{DnsOver, Resolver};

/// How long a server is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The wait for one answer; over TCP for connection and answer together.
    pub per_try: Duration,
    /// How often the question is sent over UDP, at least 1: datagrams get lost.
    pub tries: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { per_try: Duration::from_secs(3), tries: 2 }
    }
}

/// One question.
#[derive(Debug, Clone)]
pub struct Question {
    /// The name asked about.
    pub name: Name,
    /// The type of record asked for.
    pub kind: RecordType,
    /// Whether the server shall find the answer out for us (the RD bit): yes for resolvers, no for
    /// authoritative servers.
    pub is_recursive: bool,
}

impl Question {
    /// A question about an absolute name in text form, with or without a final dot.
    ///
    /// # Errors
    /// When the text is no DNS name.
    pub fn new(name: &str, kind: RecordType, is_recursive: bool) -> Result<Self, DnsError> {
        let mut name = Name::from_ascii(name).map_err(|_| DnsError::Name)?;
        name.set_fqdn(true);
        Ok(Self { name, kind, is_recursive })
    }
}

/// Why there is no answer. Reads after the server's name and a colon: `192.0.2.1: no answer`.
#[derive(Debug)]
pub enum DnsError {
    /// The name cannot be asked for.
    Name,
    /// Nothing came in time.
    NoAnswer,
    /// The machine or the network refused.
    Unreachable(io::Error),
    /// The server answered with an error of RFC 1035, section 4.1.1.
    Code(ResponseCode),
    /// What came is not a DNS message that answers the question.
    Malformed,
    /// Its certificate, or the way it speaks TLS or HTTP, is not what was expected.
    Encrypted(String),
    /// There is no server to ask.
    NoServer,
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("not a DNS name"),
            Self::NoAnswer => f.write_str("no answer"),
            // The reason is short and belongs on the one line that an operator reads.
            Self::Unreachable(cause) => write!(f, "cannot be reached ({})", cause.kind()),
            Self::Code(code) => write!(f, "answers with {code}"),
            Self::Malformed => f.write_str("answers with something that is not DNS"),
            Self::Encrypted(why) => write!(f, "cannot be asked in private ({why})"),
            Self::NoServer => f.write_str("no server to ask"),
        }
    }
}

impl std::error::Error for DnsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable(cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<io::Error> for DnsError {
    fn from(cause: io::Error) -> Self {
        Self::Unreachable(cause)
    }
}

/// Asks one server. The result is its answer to exactly this question with the code NOERROR or
/// NXDOMAIN. Takes at most `tries + 2` times `per_try`.
///
/// # Errors
/// When there is no such answer.
pub async fn ask(
    server: impl Into<Resolver>,
    question: &Question,
    patience: Patience,
) -> Result<Message, DnsError> {
    let server = &server.into();
    let answer = match ask_once(server, question, true, patience).await {
        // Servers older than EDNS (RFC 6891, section 7) want the question without it.
        Err(DnsError::Code(
            ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS,
        )) => ask_once(server, question, false, patience).await?,
        other => other?,
    };
    Ok(answer)
}

async fn ask_once(
    server: &Resolver,
    question: &Question,
    has_edns: bool,
    patience: Patience,
) -> Result<Message, DnsError> {
    for _ in 0..patience.tries.max(1) {
        // A new id and a new port for every try, so that an answer cannot be guessed (RFC 5452).
        let query = query_for(question, has_edns);
        let asked = async {
            let address = server.address;
            match &server.over {
                DnsOver::Udp => over_udp(address, &query).await,
                DnsOver::Tls { name, roots } => {
                    let roots = roots.as_deref();
                    encrypted::over_tls(address, name, roots, &query).await.map(Received::whole)
                }
                DnsOver::Https { name, path, roots } => {
                    let roots = roots.as_deref();
                    let asked = encrypted::over_https(address, name, path, roots, &query);
                    asked.await.map(Received::whole)
                }
            }
        };
        let received = match timeout(patience.per_try, asked).await {
            Ok(received) => received?,
            Err(_) => continue,
        };
        let message = match received {
            Received::Whole(message) => *message,
            Received::Cut => timeout(patience.per_try, over_tcp(server.address, &query))
                .await
                .map_err(|_| DnsError::NoAnswer)??,
        };
        return match message.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(message),
            code => Err(DnsError::Code(code)),
        };
    }
    Err(DnsError::NoAnswer)
}

fn query_for(question: &Question, has_edns: bool) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = question.is_recursive;
    query.add_query(Query::query(question.name.clone(), question.kind));
    if has_edns {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM_BYTES_MAX);
        query.set_edns(edns);
    }
    query
}

enum Received {
    Whole(Box<Message>),
    Cut,
}

impl Received {
    fn whole(message: Message) -> Self {
        Self::Whole(Box::new(message))
    }
}

async fn over_udp(server: SocketAddr, query: &Message) -> Result<Received, DnsError> {
    let local: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local, 0)).await?;
    socket.connect(server).await?;
    let bytes = query.to_vec().map_err(|_| DnsError::Name)?;
    socket.send(&bytes).await?;
    let mut buffer = [0_u8; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let datagram = buffer.get(..length).unwrap_or_default();
        match read(datagram, query) {
            Some(Ok(message)) if message.metadata.truncation => return Ok(Received::Cut),
            Some(Ok(message)) => return Ok(Received::Whole(Box::new(message))),
            // Cut in the middle of a record: readable no further than its header.
            Some(Err(_)) if datagram.get(2).is_some_and(|flags| flags & 0x02 != 0) => {
                return Ok(Received::Cut);
            }
            Some(Err(error)) => return Err(error),
            // Not ours: late, or somebody's guess. The true answer may still come.
            None => {}
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &Message) -> Result<Message, DnsError> {
    framed(TcpStream::connect(server).await?, query).await
}

/// A question and its answer on a stream (RFC 1035, section 4.2.2).
pub(super) async fn framed(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    query: &Message,
) -> Result<Message, DnsError> {
    let bytes = query.to_vec().map_err(|_| DnsError::Name)?;
    let length = u16::try_from(bytes.len()).map_err(|_| DnsError::Name)?;
    let mut framed = Vec::with_capacity(bytes.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&bytes);
    stream.write_all(&framed).await?;
    let mut answer = vec![0_u8; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    match read(&answer, query) {
        Some(read) => read,
        None => Err(DnsError::Malformed),
    }
}

/// Reads an answer: none when it has another id or answers another question.
pub(super) fn read(bytes: &[u8], query: &Message) -> Option<Result<Message, DnsError>> {
    if bytes.get(..2)? != query.metadata.id.to_be_bytes() {
        return None;
    }
    let Ok(message) = Message::from_vec(bytes) else {
        return Some(Err(DnsError::Malformed));
    };
    // Some servers leave the question out of an error; never out of an answer.
    let is_same = message.queries == query.queries
        || (message.queries.is_empty()
            && message.metadata.response_code != ResponseCode::NoError
            && message.metadata.response_code != ResponseCode::NXDomain);
    (message.metadata.message_type == MessageType::Response && is_same).then_some(Ok(message))
}

/// The DNS servers that resolve for the gateway: those of `certificates.resolvers`, else those of
/// the system.
#[derive(Debug, Clone)]
pub struct Resolvers {
    configured: Vec<Resolver>,
    patience: Patience,
}

impl Resolvers {
    /// Servers from the configuration; none means those of `/etc/resolv.conf`, read anew for each
    /// question because networks change under a running gateway.
    pub fn new(
        configured: impl IntoIterator<Item = impl Into<Resolver>>,
        patience: Patience,
    ) -> Self {
        Self { configured: configured.into_iter().map(Into::into).collect(), patience }
    }

    /// The servers, at least one.
    pub async fn servers(&self) -> Vec<Resolver> {
        if !self.configured.is_empty() {
            return self.configured.clone();
        }
        let text = tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default();
        name_servers(&text).into_iter().map(Resolver::from).collect()
    }

    /// How long each of them is waited for.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// The first answer, asking one after another.
    ///
    /// # Errors
    /// The last server's error when none answers.
    pub async fn ask(&self, name: &str, kind: RecordType) -> Result<Message, DnsError> {
        let question = Question::new(name, kind, true)?;
        let mut last = DnsError::NoServer;
        for server in self.servers().await {
            match ask(server.clone(), &question, self.patience).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    tracing::debug!(%server, name, %kind, %error, "resolver failed");
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// What the name is an alias of, if it is one: one step, in normal form.
    ///
    /// # Errors
    /// When no resolver answers.
    pub async fn alias(&self, name: &str) -> Result<Option<String>, DnsError> {
        let answer = self.ask(name, RecordType::CNAME).await?;
        Ok(alias_in(&answer, name))
    }

    /// The zone of a name, by its SOA record (RFC 1035, section 3.3.13) or the one that an answer
    /// without records comes with (RFC 2308, section 3). Never a top-level domain.
    ///
    /// # Errors
    /// When no resolver answers, or none knows a zone.
    pub async fn zone_of(&self, name: &str) -> Result<String, DnsError> {
        let mut rest = name;
        while rest.contains('.') {
            let answer = self.ask(rest, RecordType::SOA).await?;
            let found = answer.answers.iter().chain(&answer.authorities).find_map(|record| {
                let zone = text_of(&record.name);
                let is_around = name
                    .strip_suffix(zone.as_str())
                    .is_some_and(|before| before.is_empty() || before.ends_with('.'));
                let is_soa = matches!(record.data, RData::SOA(_));
                (is_soa && is_around && zone.contains('.')).then_some(zone)
            });
            if let Some(zone) = found {
                return Ok(zone);
            }
            rest = rest.split_once('.').map_or("", |it| it.1);
        }
        Err(DnsError::Malformed)
    }

    /// The addresses of a host, IPv4 first; empty when it has none or nobody answers.
    pub async fn addresses(&self, host: &str) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            if let Ok(answer) = self.ask(host, kind).await {
                found.extend(answer.answers.iter().filter_map(|record| ip_of(&record.data)));
            }
        }
        found
    }
}

/// The address in a record, when it holds one.
pub fn ip_of(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(a.0.into()),
        RData::AAAA(aaaa) => Some(aaaa.0.into()),
        _ => None,
    }
}

/// What an answer says `name` is an alias of.
pub fn alias_in(answer: &Message, name: &str) -> Option<String> {
    answer.answers.iter().find_map(|record| match &record.data {
        RData::CNAME(target) if text_of(&record.name) == name => Some(text_of(&target.0)),
        _ => None,
    })
}

/// A name in the form that the whole gateway uses: lower case, no final dot.
pub fn text_of(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

/// The servers of a `resolv.conf(5)`; the one of this machine when it names none, as the C library
/// does.
fn name_servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => words.next()?.parse::<IpAddr>().ok(),
                _ => None,
            }
        })
        .map(|ip| SocketAddr::new(ip, 53))
        .take(RESOLVERS_MAX)
        .collect();
    if servers.is_empty() {
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
    }
    servers
}

/// What fits through every path without fragments (the DNS flag day of 2020).
const DATAGRAM_BYTES_MAX: u16 = 1232;

/// Inclusive; the C library stops at 3.
const RESOLVERS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::fake_dns::{FakeDns, Mood, Records, quick};

    #[test]
    fn resolv_conf_is_read() {
        let text = "# by hand\nsearch example.com\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n\
                    nameserver fe80::1%eth0\nnameserverx 192.0.2.9\noptions edns0\n";
        let expected: Vec<SocketAddr> =
            vec!["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()];
        assert_eq!(name_servers(text), expected);
        assert_eq!(name_servers(""), vec!["127.0.0.1:53".parse().unwrap()]);
    }

    #[tokio::test]
    async fn an_answer_cut_on_udp_is_fetched_whole_over_tcp() {
        let records = Records::default();
        let values: Vec<String> = (0..60).map(|n| format!("{n:0>43}")).collect();
        records.set_txt("_acme-challenge.a.example", &values);
        for mood in [Mood::Cutting, Mood::CuttingMidRecord] {
            let server = FakeDns::start(1, records.clone(), mood).await;
            let question =
                Question::new("_acme-challenge.a.example", RecordType::TXT, false).unwrap();
            let answer = ask(server.address(), &question, quick()).await.unwrap();
            assert_eq!(answer.answers.len(), 60);
            assert!(server.tcp_questions() >= 1);
        }
    }

    #[tokio::test]
    async fn forged_answers_are_not_taken() {
        let records = Records::default();
        records.set_txt("a.example", &["true"]);
        let server = FakeDns::start(1, records, Mood::Forging).await;
        let question = Question::new("a.example", RecordType::TXT, false).unwrap();
        let answer = ask(server.address(), &question, quick()).await.unwrap();
        assert!(answer.answers.iter().all(|r| matches!(&r.data,
            RData::TXT(txt) if txt.txt_data[0].as_ref() == b"true")));
    }

    #[tokio::test]
    async fn a_server_without_edns_is_asked_without_it() {
        let records = Records::default();
        records.set_txt("a.example", &["v"]);
        let server = FakeDns::start(1, records, Mood::WithoutEdns).await;
        let question = Question::new("a.example", RecordType::TXT, false).unwrap();
        assert_eq!(ask(server.address(), &question, quick()).await.unwrap().answers.len(), 1);
    }

    #[tokio::test]
    async fn failures_have_names() {
        let question = Question::new("a.example", RecordType::TXT, false).unwrap();
        for (mood, text) in [
            (Mood::Mute, "no answer"),
            (Mood::Refusing, "answers with Query Refused"),
            (Mood::Babbling, "answers with something that is not DNS"),
        ] {
            let server = FakeDns::start(1, Records::default(), mood).await;
            let error = ask(server.address(), &question, quick()).await.unwrap_err();
            assert_eq!(error.to_string(), text, "{mood:?}");
        }
    }

    #[tokio::test]
    async fn the_next_resolver_is_asked_when_one_fails() {
        let records = Records::default();
        records.set_cname("a.example", "b.example");
        let broken = FakeDns::start(1, Records::default(), Mood::Refusing).await;
        let good = FakeDns::start(2, records, Mood::Honest).await;
        let resolvers = Resolvers::new(vec![broken.address(), good.address()], quick());
        assert_eq!(resolvers.alias("a.example").await.unwrap(), Some("b.example".to_owned()));
        assert_eq!(resolvers.alias("b.example").await.unwrap(), None);
        let resolvers = Resolvers::new(vec![broken.address()], quick());
        assert!(resolvers.alias("a.example").await.is_err());
    }
}
