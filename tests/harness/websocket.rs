//! A WebSocket client (RFC 6455), small enough to see every frame.

use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::client::Client;
use super::within;

/// An open WebSocket over TLS.
pub struct WebSocket {
    stream: TlsStream<TcpStream>,
}

/// A frame from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// The closing handshake: code and reason.
    Close(u16, String),
}

impl WebSocket {
    /// Opens a WebSocket, and checks the server's answer to the handshake.
    pub async fn open(client: &Client, name: &str, path: &str) -> io::Result<Self> {
        let mut stream = client.tls(name, &[b"http/1.1"]).await?;
        let key = STANDARD.encode(*b"sixteen bytes ok");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {name}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if !head.starts_with("HTTP/1.1 101") {
            return Err(io::Error::other(head));
        }
        let accept = format!("sec-websocket-accept: {}", accept(&key));
        let is_right = head.lines().any(|line| line.eq_ignore_ascii_case(&accept));
        assert!(is_right, "no `{accept}` in\n{head}");
        Ok(Self { stream })
    }

    /// Sends a text message.
    pub async fn text(&mut self, text: &str) -> io::Result<()> {
        self.frame(0x1, text.as_bytes()).await
    }

    /// Sends a binary message.
    pub async fn binary(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.frame(0x2, bytes).await
    }

    /// Sends a ping.
    pub async fn ping(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.frame(0x9, bytes).await
    }

    /// Starts or answers the closing handshake.
    pub async fn close(&mut self, code: u16, reason: &str) -> io::Result<()> {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend(reason.as_bytes());
        self.frame(0x8, &payload).await
    }

    /// The next frame that is no ping; fragments are put together and pings are answered.
    pub async fn read(&mut self) -> io::Result<Frame> {
        within("a WebSocket frame", Duration::from_secs(20), async {
            loop {
                match self.read_frame().await? {
                    Frame::Ping(payload) => self.frame(0xa, &payload).await?,
                    frame => return Ok(frame),
                }
            }
        })
        .await
    }

    /// The end of the connection, after the closing handshake.
    pub async fn ended(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        within(
            "the end of a WebSocket",
            Duration::from_secs(20),
            self.stream.read_to_end(&mut rest),
        )
        .await?;
        assert!(rest.is_empty(), "bytes after the close frame: {rest:?}");
        Ok(())
    }

    async fn read_frame(&mut self) -> io::Result<Frame> {
        let (mut message, mut kind) = (Vec::new(), 0);
        loop {
            let first = self.stream.read_u8().await?;
            let second = self.stream.read_u8().await?;
            assert_eq!(second & 0x80, 0, "a server masks nothing");
            let length = match second & 0x7f {
                126 => u64::from(self.stream.read_u16().await?),
                127 => self.stream.read_u64().await?,
                short => u64::from(short),
            };
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await?;
            let is_last = first & 0x80 != 0;
            match first & 0x0f {
                0x8 => {
                    let (code, reason) = payload.split_at(payload.len().min(2));
                    let code = code.try_into().map_or(1005, u16::from_be_bytes);
                    return Ok(Frame::Close(code, String::from_utf8_lossy(reason).into_owned()));
                }
                0x9 => return Ok(Frame::Ping(payload)),
                0xa => return Ok(Frame::Pong(payload)),
                opcode => {
                    kind = if opcode == 0 { kind } else { opcode };
                    message.extend(payload);
                }
            }
            if is_last && kind == 0x1 {
                return Ok(Frame::Text(String::from_utf8_lossy(&message).into_owned()));
            }
            if is_last {
                return Ok(Frame::Binary(message));
            }
        }
    }

    async fn frame(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mask = [7, 99, 200, 31];
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length @ 126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }
}

/// The answer to a key (RFC 6455, section 4.2.2).
fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let sha1 = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    STANDARD.encode(aws_lc_rs::digest::digest(sha1, text.as_bytes()))
}
