//! What the end-to-end tests stand on: real processes that die with their scope, and clients that
//! tell exactly what they saw. Nothing here names the library: the tests talk to the process.
//!
//! Ports come from [`port`], waits from [`until`]; no test sleeps for a fixed time to let something
//! happen.

pub mod client;
pub mod collector;
pub mod conformance;
pub mod examples;
pub mod gateway;
pub mod guests;
pub mod h2;
pub mod load;
pub mod origin;
pub mod pebble;
pub mod pki;
pub mod powerdns;
pub mod process;
pub mod quic;
pub mod recorder;
pub mod relay;
pub mod updates;
pub mod websocket;

use std::collections::HashSet;
use std::future::Future;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use client::Http;
pub use gateway::Gateway;
pub use origin::{Origin, RustOrigin};
pub use process::Process;

/// How long a condition may take that is a matter of milliseconds on an idle machine. Generous,
/// since the tests share two cores with compilers.
pub const SOON: Duration = Duration::from_secs(20);

/// As [`SOON`], for what an ACME order or a compilation stands in front of.
pub const LATER: Duration = Duration::from_secs(90);

/// The top folder of the project.
pub fn project() -> PathBuf {
    let gateway = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    gateway.parent().expect("the package has a parent folder").to_path_buf()
}

/// A port of 127.0.0.1 that nothing listens on, over TCP and UDP. Below the range from which the
/// kernel takes the ports of outgoing connections, so that no client of a test takes it in between
/// and a gateway can come back to it after a restart. Never given twice by one test run.
pub fn port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut guard = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = guard.get_or_insert_with(HashSet::new);
    let start = 10_000 + (std::process::id() % 200) as u16 * 100;
    let mut candidates = (start..32_000).chain(10_000..start);
    let free = candidates.find(|port| {
        !given.contains(port)
            && TcpListener::bind(("127.0.0.1", *port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", *port)).is_ok()
    });
    let port = free.expect("there is a free port below 32000");
    given.insert(port);
    port
}

/// Waits until `condition` gives something, asking every few milliseconds.
///
/// # Panics
/// When it gives nothing within `limit`; the message says `what` was awaited.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Bounds a future in time.
///
/// # Panics
/// When it has not ended within `limit`.
pub async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {limit:?}"),
    }
}

/// Held by tests that need the machine for themselves: those that measure memory or time, and those
/// that keep both cores busy for long. The others go on beside them.
pub async fn heavy() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}

/// A tool that `tests/setup` puts into `tests/.tools`.
///
/// # Panics
/// When it is not there, saying how to get it.
pub fn tool(name: &str) -> PathBuf {
    let path = project().join("tests/.tools").join(name);
    assert!(path.exists(), "{} is missing: run tests/setup", path.display());
    path
}

/// Runs a program to its end.
///
/// # Panics
/// When it cannot be started or takes longer than `limit`.
pub async fn output(
    program: impl AsRef<std::ffi::OsStr>,
    arguments: &[&str],
    limit: Duration,
) -> std::process::Output {
    let program = program.as_ref();
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let what = format!("{} {}", program.display(), arguments.join(" "));
    match within(&what, limit, command.output()).await {
        Ok(output) => output,
        Err(e) => panic!("{what}: {e}"),
    }
}
