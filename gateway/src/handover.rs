//! A new binary takes over from a running gateway without a connection that is refused or reset.
//!
//! The running process starts the new one and gives it, over a socket that is its standard input,
//! copies of all sockets that listen, and the secrets that tickets and QUIC go by. Both have the same
//! sockets from then on, so no connection in their queues is lost whoever ends. The new one prepares
//! everything and says `ready`; then the running one stops to keep certificates, gives the store away
//! and says `go`; the new one begins to accept and says `serving`; and the old one drains. Until then
//! whatever goes wrong leaves the running one serving.
//!
//! ```text
//! running                                    new
//!   starts it, sends what goes along  ───▶     reads its configuration, loads plugins, binds
//!                                     ◀───   ready, or why not
//!   releases the store, go            ───▶     takes the store, accepts
//!                                     ◀───   serving
//!   drains, ends
//! ```

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::{AncillaryMessageWriter, OwnedAncillaryMessage};

use crate::fault::Fault;
use crate::hex;
use crate::listen::{Inherited, Listening};
use crate::tls::tickets::Secret;

/// What a process that begins to serve finds: nothing, or what another one gave it.
#[derive(Default)]
pub struct Inheritance {
    /// Sockets that listen already.
    pub sockets: Inherited,
    /// Sockets that may be the control socket.
    pub admin: Vec<UnixListener>,
    /// What only a running gateway gives.
    pub legacy: Option<Legacy>,
}

/// The secrets of the process before, and where it ended.
pub struct Legacy {
    /// The secret of the process.
    pub secret: Secret,
    /// What its tickets are made with, and the stretch of time that it belongs to.
    pub tickets: (Secret, u64),
    /// The first seat of QUIC that is free.
    pub first_seat: u16,
    /// Where what belongs to the process before is handed back to it.
    pub before: UnixDatagram,
}

/// Why another process did not take over. The running one serves on.
#[derive(Debug)]
pub enum HandoverError {
    /// Something else is under way, or cannot be.
    Refused(&'static str),
    /// The new process could not be started.
    Start(PathBuf, io::Error),
    /// It said what keeps it from serving.
    Failed(String),
    /// It ended without a word: how.
    Ended(String),
    /// It took too long.
    Slow,
    /// The two did not understand each other.
    Protocol(io::Error),
}

/// How this process is started again.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    file: PathBuf,
}

/// What the two say to each other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Begin(Contents),
    Ready,
    Failed(String),
    Go,
    Serving,
}

/// What goes along, and in which order the sockets come.
#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    version: String,
    secret: String,
    tickets: String,
    tickets_epoch: u64,
    first_seat: u16,
    sockets: Vec<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Tcp,
    Udp,
    Admin,
    Before,
}

impl Program {
    /// As it was started: found again by the same name, so that a link or a file that was replaced is
    /// what runs next. To be asked for before the working folder changes.
    pub fn of_this_process(file: &Path) -> Self {
        let path = std::env::args_os().next().unwrap_or_else(|| OsString::from("witgate"));
        let path = PathBuf::from(path);
        let has_folder = path.components().count() > 1;
        let path = match has_folder {
            true => std::path::absolute(&path).unwrap_or(path),
            false => path,
        };
        Self { path, file: file.to_owned() }
    }
}

/// The new process, as the running one sees it. Killed when dropped before it serves.
pub struct Successor {
    child: Child,
    line: UnixSeqpacket,
    serves: bool,
}

/// What the running process gives.
pub struct Estate {
    /// The sockets of all doors.
    pub sockets: Vec<Listening>,
    /// The control socket.
    pub admin: Option<OwnedFd>,
    /// Where datagrams come back.
    pub before: UnixDatagram,
    /// The secret of the process.
    pub secret: Secret,
    /// What tickets are made with, and its stretch of time.
    pub tickets: (Secret, u64),
    /// The first seat of QUIC that is free.
    pub first_seat: u16,
}

impl Successor {
    /// Starts it and waits until it is ready to serve.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn prepare(program: &Program, estate: Estate) -> Result<Self, HandoverError> {
        if std::process::id() == 1 {
            return Err(HandoverError::Refused(
                "this is process 1, and what it started would end with it: run the gateway below an \
                 init, such as `docker run --init`, or replace the container",
            ));
        }
        let (line, theirs) = UnixSeqpacket::pair().map_err(HandoverError::Protocol)?;
        let theirs = OwnedFd::from(theirs);
        let mut command = Command::new(&program.path);
        command.arg("run").arg("--config").arg(&program.file).arg("--take-over");
        command.stdin(Stdio::from(theirs));
        let started = command.spawn();
        let child = started.map_err(|cause| HandoverError::Start(program.path.clone(), cause))?;
        // Its end of the line is closed here with the command, so that its death is heard.
        drop(command);
        let mut next = Self { child, line, serves: false };
        let prepared = tokio::time::timeout(READY_TIME, next.hand_over(estate)).await;
        prepared.map_err(|_| HandoverError::Slow)??;
        Ok(next)
    }

    async fn hand_over(&mut self, estate: Estate) -> Result<(), HandoverError> {
        let (contents, sockets) = estate.contents();
        let sent = send(&self.line, &Word::Begin(contents)).await;
        let sent = match sent {
            Ok(()) => send_sockets(&self.line, &sockets).await,
            Err(cause) => Err(cause),
        };
        // Where it ended at once, what it came to says more than that nothing could be sent.
        if let Err(cause) = sent
            && cause.kind() != io::ErrorKind::BrokenPipe
            && cause.kind() != io::ErrorKind::ConnectionReset
        {
            return Err(HandoverError::Protocol(cause));
        }
        self.expect(|word| matches!(word, Word::Ready)).await
    }

    /// Lets it serve, and waits until it does.
    ///
    /// # Errors
    /// Why it does not after all.
    pub async fn go(&mut self) -> Result<(), HandoverError> {
        let going = async {
            send(&self.line, &Word::Go).await.map_err(HandoverError::Protocol)?;
            self.expect(|word| matches!(word, Word::Serving)).await
        };
        tokio::time::timeout(SERVE_TIME, going).await.map_err(|_| HandoverError::Slow)??;
        self.serves = true;
        Ok(())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    async fn expect(&mut self, wanted: impl Fn(&Word) -> bool) -> Result<(), HandoverError> {
        match receive(&self.line).await {
            Ok(Some(word)) if wanted(&word) => Ok(()),
            Ok(Some(Word::Failed(text))) => Err(HandoverError::Failed(text)),
            Ok(Some(_)) => {
                Err(HandoverError::Protocol(io::Error::other("it said what it should not now")))
            }
            Ok(None) | Err(_) => {
                let status = self.child.wait().map(|status| status.to_string());
                Err(HandoverError::Ended(status.unwrap_or_else(|cause| cause.to_string())))
            }
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if !self.serves {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Estate {
    fn contents(self) -> (Contents, Vec<OwnedFd>) {
        let mut all: Vec<(Kind, OwnedFd)> = Vec::new();
        all.extend(self.sockets.into_iter().map(|socket| match socket {
            Listening::Tcp(fd) => (Kind::Tcp, fd),
            Listening::Udp(fd) => (Kind::Udp, fd),
        }));
        all.extend(self.admin.map(|fd| (Kind::Admin, fd)));
        all.push((Kind::Before, OwnedFd::from(self.before)));
        let (kinds, sockets): (Vec<Kind>, Vec<OwnedFd>) = all.into_iter().unzip();
        let contents = Contents {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            secret: hex::lower(self.secret.bytes()),
            tickets: hex::lower(self.tickets.0.bytes()),
            tickets_epoch: self.tickets.1,
            first_seat: self.first_seat,
            sockets: kinds,
        };
        (contents, sockets)
    }
}

/// The running process, as the new one sees it.
pub struct Predecessor {
    line: UnixSeqpacket,
}

impl Predecessor {
    /// Takes what the process gives that started this one with `--take-over`: its end of the line is
    /// standard input.
    ///
    /// # Errors
    /// When nobody is there, or says what is not understood.
    pub async fn meet() -> Result<(Self, Inheritance), HandoverError> {
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(HandoverError::Protocol)?;
        let line = UnixSeqpacket::try_from(input).map_err(HandoverError::Protocol)?;
        let before = Self { line };
        let met = tokio::time::timeout(SERVE_TIME, before.inherit()).await;
        let inheritance = met.map_err(|_| HandoverError::Slow)?;
        inheritance.map(|inheritance| (before, inheritance)).map_err(HandoverError::Protocol)
    }

    async fn inherit(&self) -> io::Result<Inheritance> {
        let Some(Word::Begin(contents)) = receive(&self.line).await? else {
            return Err(io::Error::other("`--take-over` is for the gateway's own upgrades"));
        };
        let sockets = receive_sockets(&self.line, contents.sockets.len()).await?;
        let mut inheritance = Inheritance::default();
        let mut before = None;
        for (kind, fd) in contents.sockets.iter().zip(sockets) {
            match kind {
                Kind::Tcp => inheritance.sockets.tcp.push(TcpListener::from(fd)),
                Kind::Udp => inheritance.sockets.udp.push(UdpSocket::from(fd)),
                Kind::Admin => inheritance.admin.push(UnixListener::from(fd)),
                Kind::Before => before = Some(UnixDatagram::from(fd)),
            }
        }
        let secret = |text: &str| Secret::from_bytes(&unhex(text)?);
        let whole = || io::Error::other("what came is not whole");
        tracing::debug!(version = contents.version, "taking over");
        inheritance.legacy = Some(Legacy {
            secret: secret(&contents.secret).ok_or_else(whole)?,
            tickets: (secret(&contents.tickets).ok_or_else(whole)?, contents.tickets_epoch),
            first_seat: contents.first_seat,
            before: before.ok_or_else(whole)?,
        });
        Ok(inheritance)
    }

    /// Says that everything is prepared, and waits until it is our turn.
    ///
    /// # Errors
    /// When it ended, or does not want us any more.
    pub async fn ready(&self) -> Result<(), HandoverError> {
        send(&self.line, &Word::Ready).await.map_err(HandoverError::Protocol)?;
        match receive(&self.line).await.map_err(HandoverError::Protocol)? {
            Some(Word::Go) => Ok(()),
            _ => Err(HandoverError::Ended("it does not say why".to_owned())),
        }
    }

    /// Says that connections are accepted.
    ///
    /// # Errors
    /// When it has ended meanwhile.
    pub async fn serving(&self) -> Result<(), HandoverError> {
        send(&self.line, &Word::Serving).await.map_err(HandoverError::Protocol)
    }

    /// Says why it will never be.
    pub async fn fail(&self, why: &str) {
        let why = why.chars().take(FAILED_LETTERS_MAX).collect();
        let _ = send(&self.line, &Word::Failed(why)).await;
    }
}

/// What systemd (or another that speaks its protocol of `LISTEN_FDS`) listens on for us. To be called
/// before there is a second thread.
pub fn activated() -> Inheritance {
    let mut found = listenfd::ListenFd::from_env();
    let mut inheritance = Inheritance::default();
    for index in 0..found.len() {
        if let Ok(Some(socket)) = found.take_tcp_listener(index) {
            inheritance.sockets.tcp.push(socket);
        } else if let Ok(Some(socket)) = found.take_udp_socket(index) {
            inheritance.sockets.udp.push(socket);
        } else if let Ok(Some(socket)) = found.take_unix_listener(index) {
            inheritance.admin.push(socket);
        }
    }
    inheritance
}

/// Tells systemd (`Type=notify`) what becomes of this process, as `sd_notify(3)` does: lines such as
/// `READY=1`. Nothing where nobody wants to know.
pub fn tell_system(lines: &str) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = UnixDatagram::unbound().and_then(|socket| {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::ffi::OsStrExt as _;
        match address.as_bytes().strip_prefix(b"@") {
            Some(name) => {
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                socket.send_to_addr(lines.as_bytes(), &address)
            }
            None => socket.send_to(lines.as_bytes(), &address),
        }
    });
    if let Err(cause) = told {
        tracing::warn!(%cause, "cannot tell the system through NOTIFY_SOCKET");
    }
}

async fn send(line: &UnixSeqpacket, word: &Word) -> io::Result<()> {
    let text = serde_json::to_vec(word).map_err(io::Error::other)?;
    line.send(&text).await.map(drop)
}

/// The next word; none when the other has ended.
async fn receive(line: &UnixSeqpacket) -> io::Result<Option<Word>> {
    let mut buffer = vec![0; WORD_BYTES_MAX];
    let length = line.recv(&mut buffer).await?;
    let text = buffer.get(..length).unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(text).map(Some).map_err(io::Error::other)
}

/// Sends copies of sockets, as many at a time as the system takes (`SCM_RIGHTS`, unix(7)).
async fn send_sockets(line: &UnixSeqpacket, sockets: &[OwnedFd]) -> io::Result<()> {
    for some in sockets.chunks(SOCKETS_AT_A_TIME) {
        let some: Vec<BorrowedFd<'_>> = some.iter().map(|socket| socket.as_fd()).collect();
        let mut room = vec![0; ANCILLARY_BYTES];
        let mut message = AncillaryMessageWriter::new(&mut room);
        message.add_fds(&some).map_err(io::Error::from)?;
        line.send_vectored_with_ancillary(&[IoSlice::new(b"s")], &mut message).await?;
    }
    Ok(())
}

async fn receive_sockets(line: &UnixSeqpacket, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::new();
    while sockets.len() < count {
        let (mut byte, mut room) = ([0; 1], vec![0; ANCILLARY_BYTES]);
        let mut parts = [IoSliceMut::new(&mut byte)];
        let (length, message) = line.recv_vectored_with_ancillary(&mut parts, &mut room).await?;
        let before = sockets.len();
        for part in message.into_messages() {
            if let OwnedAncillaryMessage::FileDescriptors(some) = part {
                sockets.extend(some);
            }
        }
        if length == 0 || sockets.len() == before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(sockets)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}

impl HandoverError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Protocol(_) => Fault::Internal,
            _ => Fault::Operator,
        }
    }
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "no upgrade: {why}"),
            Self::Start(path, _) => {
                write!(f, "the new process could not be started from {}", path.display())
            }
            Self::Failed(text) => write!(f, "the new process cannot serve: {text}"),
            Self::Ended(how) => write!(
                f,
                "the process at the other end ended before it was ready ({how}); its own log may say \
                 more"
            ),
            Self::Slow => f.write_str("the process at the other end was not ready in time"),
            Self::Protocol(_) => f.write_str(
                "the process at the other end is not understood; is it a witgate that \
                             knows upgrades?",
            ),
        }
    }
}

impl std::error::Error for HandoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Start(_, cause) | Self::Protocol(cause) => Some(cause),
            Self::Refused(_) | Self::Failed(_) | Self::Ended(_) | Self::Slow => None,
        }
    }
}

/// For everything up to `ready`: plugins may have to be compiled.
const READY_TIME: Duration = Duration::from_secs(180);
/// From `go` to `serving`.
const SERVE_TIME: Duration = Duration::from_secs(15);
/// The system takes 253.
const SOCKETS_AT_A_TIME: usize = 200;
const ANCILLARY_BYTES: usize = 4096;
const WORD_BYTES_MAX: usize = 128 * 1024;
const FAILED_LETTERS_MAX: usize = 8000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hundreds_of_sockets_and_all_secrets_go_along() {
        let (one, other) = UnixSeqpacket::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let mut sockets: Vec<Listening> =
            (0..450).map(|_| Listening::Tcp(copy(listener.as_fd()))).collect();
        sockets.push(Listening::Udp(copy(udp.as_fd())));
        let secret = Secret::from_text("one");
        let estate = Estate {
            sockets,
            admin: None,
            before: UnixDatagram::unbound().unwrap(),
            secret: secret.clone(),
            tickets: (Secret::from_text("two"), 77),
            first_seat: 9,
        };
        let (contents, sockets) = estate.contents();
        let giving = tokio::spawn(async move {
            send(&one, &Word::Begin(contents)).await.unwrap();
            send_sockets(&one, &sockets).await.unwrap();
        });
        let found = Predecessor { line: other }.inherit().await.unwrap();
        giving.await.unwrap();
        assert_eq!((found.sockets.tcp.len(), found.sockets.udp.len()), (450, 1));
        assert_eq!(found.sockets.udp[0].local_addr().unwrap(), udp.local_addr().unwrap());
        for socket in &found.sockets.tcp {
            assert_eq!(socket.local_addr().unwrap(), listener.local_addr().unwrap());
        }
        let legacy = found.legacy.unwrap();
        assert!(legacy.secret == secret && legacy.tickets == (Secret::from_text("two"), 77));
        assert_eq!(legacy.first_seat, 9);
    }

    #[tokio::test]
    async fn garbage_and_silence_are_no_inheritance() {
        for said in [&b"{\"go\":1}"[..], b"\"go\"", b"nonsense"] {
            let (one, other) = UnixSeqpacket::pair().unwrap();
            one.send(said).await.unwrap();
            drop(one);
            assert!(Predecessor { line: other }.inherit().await.is_err());
        }
        let (one, other) = UnixSeqpacket::pair().unwrap();
        drop(one);
        assert!(Predecessor { line: other }.inherit().await.is_err());
    }
}
