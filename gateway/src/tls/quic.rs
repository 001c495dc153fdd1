//! Handshakes over QUIC: the ClientHello decides here, too, under whose demand they are made. quinn
//! wants to know the configuration before anything is read, so a session begins as the usual one and
//! is replaced before it has been given a byte.

use std::any::Any;
use std::io;
use std::sync::Arc;

use quinn::ConnectionId;
use quinn::crypto::{
    ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session,
    UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{Side, TransportError, TransportErrorCode};
use rustls::server::Acceptor;

use super::accept::Quic;
use super::certs::Certs;
use super::clients::Demand;
use super::fingerprint::{self, Agreed, Transport};
use super::hello::{Refusal, Wish};

/// Says what is asked of a handshake with this server name and this ClientHello, which came from this
/// connection. Called on the thread of the worker whose connection it is.
pub type Find = dyn Fn(Option<&str>, &[u8]) -> Wish + Send + Sync;

/// Makes sessions whose demand is found by their ClientHello.
pub struct ByHello {
    usual: Quic,
    certs: Arc<Certs>,
    find: Arc<Find>,
}

/// What [`quinn::Connection::handshake_data`] gives.
pub struct Shaken {
    /// The server name, in lower case.
    pub server_name: Option<String>,
    /// Under which demand the handshake was made.
    pub demand: Option<Demand>,
    /// The client's JA4 fingerprint.
    pub ja4: Option<String>,
    /// What the ServerHello said.
    pub agreed: Option<Agreed>,
}

impl ByHello {
    /// Sessions are as `usual`, or as `find` says.
    pub(super) fn new(usual: Quic, certs: Arc<Certs>, find: Arc<Find>) -> Arc<Self> {
        Arc::new(Self { usual, certs, find })
    }
}

impl ServerConfig for ByHello {
    fn initial_keys(
        &self,
        version: u32,
        dst_cid: &ConnectionId,
    ) -> Result<Keys, UnsupportedVersion> {
        self.usual.ready.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.usual.ready.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        params: &TransportParameters,
    ) -> Box<dyn Session> {
        let session = Arc::clone(&self.usual.ready).start_session(version, params);
        let hello = Hello {
            by: Arc::clone(&self),
            acceptor: Acceptor::default(),
            bytes: Vec::new(),
            version,
            params: *params,
        };
        Box::new(Open {
            session,
            hello: Some(Box::new(hello)),
            server_name: None,
            demand: None,
            ja4: None,
            agreed: None,
        })
    }
}

/// A ClientHello that is not yet there as a whole.
struct Hello {
    by: Arc<ByHello>,
    acceptor: Acceptor,
    bytes: Vec<u8>,
    version: u32,
    params: TransportParameters,
}

impl Hello {
    /// The server name once the hello is there as a whole. What is no hello has none: the session
    /// says so better.
    fn read(&mut self, part: &[u8]) -> Option<Option<String>> {
        self.bytes.extend_from_slice(part);
        for piece in part.chunks(RECORD_BYTES_MAX) {
            // As a record of TCP would carry it (RFC 8446, section 5.1).
            let [high, low] = u16::try_from(piece.len()).unwrap_or_default().to_be_bytes();
            let mut record = vec![22, 3, 3, high, low];
            record.extend_from_slice(piece);
            let mut record = io::Cursor::new(record);
            if self.acceptor.read_tls(&mut record).is_err() {
                return Some(None);
            }
            match self.acceptor.accept() {
                Ok(Some(accepted)) => {
                    let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                    return Some(name);
                }
                Ok(None) => {}
                Err(_) => return Some(None),
            }
        }
        None
    }
}

/// A session, and the hello that may replace it.
struct Open {
    session: Box<dyn Session>,
    hello: Option<Box<Hello>>,
    server_name: Option<String>,
    demand: Option<Demand>,
    ja4: Option<String>,
    agreed: Option<Agreed>,
}

impl Session for Open {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.session.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.session.handshake_data()?;
        let server_name = self.server_name.clone();
        let (ja4, agreed) = (self.ja4.clone(), self.agreed);
        Some(Box::new(Shaken { server_name, demand: self.demand, ja4, agreed }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.session.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.session.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.session.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        let Some(hello) = &mut self.hello else { return self.session.read_handshake(buf) };
        let Some(name) = hello.read(buf) else { return Ok(false) };
        let by = Arc::clone(&hello.by);
        let (other, front) = match (by.find)(name.as_deref(), &hello.bytes) {
            Wish::Site(front) => (None, front),
            Wish::As(other, front) => (Some(other), front),
            Wish::Refuse(refusal) => return Err(refused(refusal)),
        };
        let serve = front.clients.as_ref().map_or(&by.usual, |clients| &clients.quic);
        self.demand = front.clients.as_ref().map(|clients| clients.demand);
        let config = match &other {
            Some(other) => {
                let named = serve.named(&by.certs, other);
                Some(named.ok_or_else(|| refused(Refusal::NoCertificate))?)
            }
            None => self.demand.map(|_| Arc::clone(&serve.ready)),
        };
        if let Some(config) = config {
            self.session = config.start_session(hello.version, &hello.params);
        }
        self.server_name = name;
        let bytes = std::mem::take(&mut hello.bytes);
        self.hello = None;
        self.ja4 = fingerprint::ja4(&bytes, Transport::Quic);
        self.session.read_handshake(&bytes)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let before = buf.len();
        let keys = self.session.write_handshake(buf);
        if self.agreed.is_none() {
            self.agreed = buf.get(before..).and_then(fingerprint::agreed);
        }
        keys
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.session.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.session.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.session.export_keying_material(output, label, context)
    }
}

/// The alert as QUIC sends it (RFC 9001, section 4.8).
fn refused(refusal: Refusal) -> TransportError {
    TransportError {
        code: TransportErrorCode::crypto(refusal.alert()),
        frame: None,
        reason: "refused by its ClientHello".to_owned(),
    }
}

/// What one record may carry (RFC 8446, section 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;
