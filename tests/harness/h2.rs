//! HTTP/2 as frames (RFC 9113), so that a test can send what no library would.

use std::io;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::client::Client;

/// Types of frames.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;

    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub mod flag {
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
}

/// A connection whose frames are written and read one by one.
pub struct RawH2 {
    reader: ReadHalf<TlsStream<TcpStream>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
}

/// A frame of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// How a stream ended, as far as a test wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A response's head came.
    Status(u16),
    /// The stream was reset, with this error code.
    Reset(u32),
    /// The connection was ended, with this error code.
    GoAway(u32),
    /// The connection is gone without a word.
    Closed,
}

impl RawH2 {
    /// Connects to `name` and sends the preface with empty settings.
    pub async fn connect(client: &Client, name: &str) -> io::Result<Self> {
        ServerName::try_from(name.to_owned()).expect("a server name");
        let stream = client.tls(name, &[b"h2"]).await?;
        let (reader, writer) = tokio::io::split(stream);
        let mut connection = Self { reader, writer };
        connection.writer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        connection.send(kind::SETTINGS, 0, 0, &[]).await?;
        Ok(connection)
    }

    /// Sends one frame.
    pub async fn send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> io::Result<()> {
        self.send_all(&frame(kind, flags, stream, payload)).await
    }

    /// Sends bytes that are frames already.
    pub async fn send_all(&mut self, frames: &[u8]) -> io::Result<()> {
        self.writer.write_all(frames).await?;
        self.writer.flush().await
    }

    /// Parts it, so that one task can write while another reads.
    pub fn split(self) -> (ReadHalf<TlsStream<TcpStream>>, WriteHalf<TlsStream<TcpStream>>) {
        (self.reader, self.writer)
    }

    /// The bare connection, for what must not end in order.
    pub fn into_tcp(self) -> TcpStream {
        self.reader.unsplit(self.writer).into_inner().0
    }

    /// The next frame of the server; none when the connection has ended.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.reader.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.reader.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until something has become of a stream.
    pub async fn ending(&mut self, stream: u32) -> Ending {
        while let Some(frame) = self.next().await {
            let code = |at: usize| {
                let bytes = frame.payload.get(at..at + 4).expect("an error code");
                u32::from_be_bytes(bytes.try_into().expect("four bytes"))
            };
            match frame.kind {
                kind::HEADERS if frame.stream == stream => {
                    return Ending::Status(status(&frame.payload));
                }
                kind::RST_STREAM if frame.stream == stream => return Ending::Reset(code(0)),
                kind::GOAWAY => return Ending::GoAway(code(4)),
                _ => {}
            }
        }
        Ending::Closed
    }
}

/// The bytes of one frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A block of fields (RFC 7541): all literal, none indexed, nothing cleaned.
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        text(&mut bytes, name.as_ref());
        text(&mut bytes, value.as_ref());
    }
    bytes
}

/// The fields of a GET.
pub fn get(host: &str, path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", path)];
    block(&fields)
}

fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    if text.len() < 127 {
        bytes.push(text.len() as u8);
    } else {
        bytes.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            bytes.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        bytes.push(rest as u8);
    }
    bytes.extend_from_slice(text);
}

/// The status at the beginning of a response's block; 0 where it is written in a way that no first
/// response of a connection needs.
fn status(block: &[u8]) -> u16 {
    // Updates of the table's size may come first.
    let start = block.iter().position(|b| b & 0xe0 != 0x20).unwrap_or(0);
    let block = &block[start..];
    match block {
        [indexed @ 0x88..=0x8e, ..] => {
            [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]
        }
        [0x08 | 0x18 | 0x48, 3, a, b, c, ..] => digits([*a, *b, *c]),
        [0x08 | 0x18 | 0x48, length @ (0x82 | 0x83), rest @ ..] => {
            huffman(&rest[..usize::from(length & 0x7f)])
        }
        _ => 0,
    }
}

fn digits(text: [u8; 3]) -> u16 {
    text.iter().fold(0, |n, digit| n * 10 + u16::from(digit.wrapping_sub(b'0')))
}

/// Three digits in the code of RFC 7541, appendix B: 0 to 2 have five bits, the others six.
fn huffman(text: &[u8]) -> u16 {
    let bits: Vec<u8> = text.iter().flat_map(|b| (0..8).rev().map(move |i| b >> i & 1)).collect();
    let value = |bits: &[u8]| bits.iter().fold(0u16, |n, bit| n << 1 | u16::from(*bit));
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let five = value(&bits[at..at + 5]);
        let digit = if five < 3 { five } else { value(&bits[at..at + 6]) - 0x19 + 3 };
        at += if five < 3 { 5 } else { 6 };
        number = number * 10 + digit;
    }
    number
}
