//! The secrets of connections, written out for whoever has to see inside them (Wireshark): in the format
//! of `SSLKEYLOGFILE`, for one server name or one client, and for minutes. No configuration switches it
//! on, only somebody at the control socket who stays there; and the log says so.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rustls::{KeyLog, ServerConfig};
use tokio::sync::mpsc;

use crate::hex;

/// Who looks at secrets at present. One for all workers; nobody, nearly always.
#[derive(Debug, Default)]
pub struct Taps {
    open: ArcSwapOption<Tap>,
}

/// Whose secrets are meant: at least one of the two is said.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The server name, in lower case.
    pub server_name: Option<String>,
    /// The client's address.
    pub client: Option<IpAddr>,
}

/// What goes to the one who looks.
struct Tap {
    wanted: Wanted,
    until: Instant,
    lines: mpsc::Sender<String>,
    sent: AtomicU64,
}

/// The end that gets the lines; closes the tap when dropped.
pub struct Lines {
    /// Lines with their line feed.
    pub lines: mpsc::Receiver<String>,
    /// When it ends by itself.
    pub until: Instant,
    taps: Arc<Taps>,
    tap: Arc<Tap>,
}

impl Taps {
    /// Opens a tap for this long.
    ///
    /// # Errors
    /// When nobody is named, it is too long, or another one is open.
    pub fn open(self: &Arc<Self>, wanted: Wanted, time: Duration) -> Result<Lines, String> {
        if wanted.server_name.is_none() && wanted.client.is_none() {
            return Err(
                "say whose secrets: a server name (sni), a client's address (from), or both"
                    .to_owned(),
            );
        }
        if time.is_zero() || time > TIME_MAX {
            return Err(format!(
                "a key log lasts for a second to {} minutes",
                TIME_MAX.as_secs() / 60
            ));
        }
        let (sender, lines) = mpsc::channel(LINES_WAITING);
        let until = Instant::now() + time;
        let tap = Arc::new(Tap { wanted, until, lines: sender, sent: AtomicU64::new(0) });
        let known = self.open.compare_and_swap(&None::<Arc<Tap>>, Some(Arc::clone(&tap)));
        if known.is_some() {
            return Err("a key log is being written already; wait for its end".to_owned());
        }
        tracing::warn!(
            whose = %tap.wanted,
            seconds = time.as_secs(),
            "KEY LOG: the secrets of these TLS connections are written out at the control socket"
        );
        Ok(Lines { lines, until, taps: Arc::clone(self), tap })
    }

    /// Where the secrets of a handshake go, when somebody looks at them.
    pub fn find(&self, server_name: Option<&str>, client: IpAddr) -> Option<Arc<dyn KeyLog>> {
        let tap = self.open.load();
        let tap = tap.as_ref().filter(|tap| tap.is_open())?;
        let Wanted { server_name: name, client: address } = &tap.wanted;
        let is_meant = name.as_deref().is_none_or(|name| server_name == Some(name))
            && address.is_none_or(|address| client.to_canonical() == address.to_canonical());
        is_meant.then(|| Arc::clone(tap) as Arc<dyn KeyLog>)
    }
}

impl Tap {
    fn is_open(&self) -> bool {
        Instant::now() < self.until
    }
}

impl KeyLog for Tap {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if !self.is_open() {
            return;
        }
        let line = format!("{label} {} {}\n", hex::lower(client_random), hex::lower(secret));
        // Whoever reads too slowly loses lines; handshakes wait for nobody.
        if self.lines.try_send(line).is_ok() {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn will_log(&self, _: &str) -> bool {
        self.is_open()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.taps.open.store(None);
        let lines = self.tap.sent.load(Ordering::Relaxed);
        tracing::warn!(whose = %self.tap.wanted, lines, "KEY LOG: ended");
    }
}

/// The same configuration, with the secrets going out.
pub(super) fn logged(config: &ServerConfig, log: Arc<dyn KeyLog>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::clone(config);
    config.key_log = log;
    Arc::new(config)
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.server_name, self.client) {
            (Some(name), Some(client)) => {
                write!(f, "server name {}, client {client}", name.escape_debug())
            }
            (Some(name), None) => write!(f, "server name {}", name.escape_debug()),
            (None, Some(client)) => write!(f, "client {client}"),
            (None, None) => f.write_str("nobody"),
        }
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

const TIME_MAX: Duration = Duration::from_secs(3600);
const LINES_WAITING: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: Option<&str>, client: Option<&str>) -> Wanted {
        let client = client.map(|client| client.parse().unwrap());
        Wanted { server_name: name.map(str::to_owned), client }
    }

    #[tokio::test]
    async fn only_who_is_named_is_logged_and_only_as_long_as_somebody_looks() {
        let taps = Arc::new(Taps::default());
        let here: IpAddr = "192.0.2.7".parse().unwrap();
        let there: IpAddr = "192.0.2.8".parse().unwrap();
        assert!(taps.find(Some("a.example"), here).is_none());
        assert!(taps.open(wanted(None, None), Duration::from_secs(5)).is_err());
        let both = wanted(Some("a.example"), Some("192.0.2.7"));
        assert!(taps.open(both.clone(), Duration::from_secs(7200)).is_err());
        let mut lines = taps.open(both, Duration::from_secs(60)).unwrap();
        assert!(taps.open(wanted(Some("b"), None), Duration::from_secs(5)).is_err(), "one alone");
        for (name, client, is_meant) in [
            (Some("a.example"), here, true),
            (Some("a.example"), there, false),
            (Some("b.example"), here, false),
            (None, here, false),
        ] {
            assert_eq!(taps.find(name, client).is_some(), is_meant, "{name:?} {client}");
        }
        let log = taps.find(Some("a.example"), here).unwrap();
        log.log("CLIENT_RANDOM", &[1, 2], &[0xab]);
        assert_eq!(lines.lines.recv().await.unwrap(), "CLIENT_RANDOM 0102 ab\n");
        drop(lines);
        assert!(taps.find(Some("a.example"), here).is_none());
        let by_address = taps.open(wanted(None, Some("192.0.2.7")), Duration::from_secs(60));
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        assert!(taps.find(None, mapped).is_some() && taps.find(None, there).is_none());
        drop(by_address);
        let mut brief = taps.open(wanted(Some("a"), None), Duration::from_nanos(1)).unwrap();
        assert!(taps.find(Some("a"), here).is_none(), "its time is over");
        log.log("CLIENT_RANDOM", &[1], &[2]);
        assert!(brief.lines.try_recv().is_err());
    }
}
