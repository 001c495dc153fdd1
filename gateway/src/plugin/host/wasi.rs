//! What language runtimes drag in: WASI 0.2 with nothing behind it. The environment is empty, there
//! are no files and no sockets, standard output and error become log lines, and only clocks and
//! random numbers are real. Anything else traps when it is called, not when the plugin is loaded.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::Level;
use wasmtime::StoreContextMut;
use wasmtime::component::{
    ComponentType, LinkerInstance, Lower, Resource, ResourceType, Val, WasmList,
};

use super::super::call::{Overrun, rule};
use super::super::facts::Facts;
use super::{Host, log};

/// Links a function of a `wasi:` interface, `interface` without its version. `is_async` says that
/// the store's calls may wait.
pub(in super::super) fn link_function(
    at: &mut LinkerInstance<'_, Host>,
    interface: &str,
    function: &str,
    is_async: bool,
) -> wasmtime::Result<()> {
    let is_linked = match interface {
        "wasi:cli/environment" => environment(at, function)?,
        "wasi:cli/exit" => exit(at, function)?,
        "wasi:cli/stdin" | "wasi:cli/stdout" | "wasi:cli/stderr" => standard(at, function)?,
        "wasi:cli/terminal-stdin" | "wasi:cli/terminal-stdout" | "wasi:cli/terminal-stderr" => {
            at.func_wrap(function, |_, (): ()| Ok((None::<Resource<Terminal>>,)))?;
            true
        }
        "wasi:io/streams" => output_stream(at, function)? || input_stream(at, function)?,
        "wasi:io/poll" => poll(at, function, is_async)?,
        "wasi:io/error" => io_error(at, function)?,
        "wasi:clocks/monotonic-clock" => monotonic(at, function)?,
        "wasi:clocks/wall-clock" => wall(at, function)?,
        "wasi:random/random" | "wasi:random/insecure" | "wasi:random/insecure-seed" => {
            random(at, function)?
        }
        "wasi:filesystem/preopens" if function == "get-directories" => {
            at.func_new(function, |_, _, _, results| {
                if let Some(result) = results.first_mut() {
                    *result = Val::List(Vec::new());
                }
                Ok(())
            })?;
            true
        }
        "wasi:filesystem/types" if function == "filesystem-error-code" => {
            at.func_new(function, |_, _, _, results| {
                if let Some(result) = results.first_mut() {
                    *result = Val::Option(None);
                }
                Ok(())
            })?;
            true
        }
        _ => false,
    };
    if !is_linked {
        let name = format!("{interface}#{function}");
        at.func_new(function, move |_, _, _, _| {
            Err(rule(format!("{name} is not there for plugins")))
        })?;
    }
    Ok(())
}

/// Links a resource of a `wasi:` interface, where it is defined; where it is only used, its own
/// definition counts.
pub(in super::super) fn link_resource(
    at: &mut LinkerInstance<'_, Host>,
    interface: &str,
    resource: &str,
) -> wasmtime::Result<()> {
    let (home, of) = match resource {
        "error" => ("wasi:io/error", ResourceType::host::<IoError>()),
        "pollable" => ("wasi:io/poll", ResourceType::host::<Pollable>()),
        "input-stream" => ("wasi:io/streams", ResourceType::host::<InputStream>()),
        "output-stream" => ("wasi:io/streams", ResourceType::host::<OutputStream>()),
        "terminal-input" => ("wasi:cli/terminal-input", ResourceType::host::<Terminal>()),
        "terminal-output" => ("wasi:cli/terminal-output", ResourceType::host::<Terminal>()),
        "descriptor" => ("wasi:filesystem/types", ResourceType::host::<Absent>()),
        "network" => ("wasi:sockets/network", ResourceType::host::<Absent>()),
        "tcp-socket" => ("wasi:sockets/tcp", ResourceType::host::<Absent>()),
        "udp-socket" => ("wasi:sockets/udp", ResourceType::host::<Absent>()),
        "io-error" => ("wasi:io/error", ResourceType::host::<IoError>()),
        _ if interface.starts_with("wasi:http/") => {
            ("wasi:http/types", ResourceType::host::<Absent>())
        }
        _ => (interface, ResourceType::host::<Absent>()),
    };
    if home != interface {
        return Ok(());
    }
    let is_pollable = resource == "pollable";
    at.resource(resource, of, move |mut store, rep| {
        let output = &mut store.data_mut().output;
        output.handles = output.handles.saturating_sub(1);
        if is_pollable {
            output.pollables.remove(rep);
        }
        Ok(())
    })
}

/// What an instance has written but not yet logged, and its handles.
#[derive(Default)]
pub(in super::super) struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    handles: usize,
    pollables: Pollables,
}

impl Output {
    /// Whether the end of a call has something to do.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.stdout.is_empty() && self.stderr.is_empty()
    }

    /// Logs what is left, at the end of a call that went well.
    pub(in super::super) fn flush(&mut self, facts: &Facts, request: &str) {
        lines(facts, request, Level::INFO, &mut self.stdout, true);
        lines(facts, request, Level::WARN, &mut self.stderr, true);
    }

    /// Takes the standard error of a call that failed: its reason is there.
    pub(in super::super) fn take_stderr(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.stderr)).into_owned()
    }
}

/// Times to wait for, by representation; 0 stands for "ready".
#[derive(Default)]
struct Pollables {
    until: Vec<Option<Instant>>,
}

impl Pollables {
    fn add(&mut self, until: Instant) -> u32 {
        let free = self.until.iter().position(Option::is_none).unwrap_or(self.until.len());
        match self.until.get_mut(free) {
            Some(place) => *place = Some(until),
            None => self.until.push(Some(until)),
        }
        u32::try_from(free.saturating_add(1)).unwrap_or(0)
    }

    fn remove(&mut self, rep: u32) {
        if let Some(place) = index(rep).and_then(|index| self.until.get_mut(index)) {
            *place = None;
        }
    }

    /// How long until it is ready.
    fn wait(&self, rep: u32, now: Instant) -> Duration {
        let until = index(rep).and_then(|index| self.until.get(index).copied()).flatten();
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

fn index(rep: u32) -> Option<usize> {
    usize::try_from(rep).ok()?.checked_sub(1)
}

// What handles of these types stand for follows from their type alone, or from their number.
struct IoError;
struct Pollable;
struct InputStream;
struct OutputStream;
struct Terminal;
struct Absent;

#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[expect(dead_code, reason = "the type has this case; nothing here fails that way")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

fn environment(at: &mut LinkerInstance<'_, Host>, function: &str) -> wasmtime::Result<bool> {
    match function {
        "get-environment" => {
            at.func_wrap(function, |_, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
        }
        "get-arguments" => at.func_wrap(function, |_, (): ()| Ok((Vec::<String>::new(),)))?,
        "initial-cwd" => at.func_wrap(function, |_, (): ()| Ok((None::<String>,)))?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn exit(at: &mut LinkerInstance<'_, Host>, function: &str) -> wasmtime::Result<bool> {
    match function {
        "exit" => {
            at.func_wrap(function, |_, (_status,): (Result<(), ()>,)| -> wasmtime::Result<()> {
                Err(rule("the plugin called exit".to_owned()))
            })?
        }
        "exit-with-code" => {
            at.func_wrap(function, |_, (code,): (u8,)| -> wasmtime::Result<()> {
                Err(rule(format!("the plugin called exit with code {code}")))
            })?
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn standard(at: &mut LinkerInstance<'_, Host>, function: &str) -> wasmtime::Result<bool> {
    match function {
        "get-stdin" => at.func_wrap(function, |mut store, (): ()| {
            Ok((own::<InputStream>(store.data_mut(), 0)?,))
        })?,
        "get-stdout" => at.func_wrap(function, |mut store, (): ()| {
            Ok((own::<OutputStream>(store.data_mut(), STDOUT)?,))
        })?,
        "get-stderr" => at.func_wrap(function, |mut store, (): ()| {
            Ok((own::<OutputStream>(store.data_mut(), STDERR)?,))
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn output_stream(at: &mut LinkerInstance<'_, Host>, function: &str) -> wasmtime::Result<bool> {
    let Some(method) = function.strip_prefix("[method]output-stream.") else { return Ok(false) };
    match method {
        "check-write" => at.func_wrap(function, |_, (_this,): (Resource<OutputStream>,)| {
            Ok((Ok::<u64, StreamError>(WRITE_BYTES_MAX),))
        })?,
        "write" | "blocking-write-and-flush" => at.func_wrap(
            function,
            |mut store, (this, bytes): (Resource<OutputStream>, WasmList<u8>)| {
                store.data_mut().charge(bytes.len())?;
                let bytes = bytes.as_le_slice(&store).to_vec();
                store.data_mut().write(this.rep(), &bytes);
                Ok((Ok::<(), StreamError>(()),))
            },
        )?,
        "flush" | "blocking-flush" => {
            at.func_wrap(function, |_, (_this,): (Resource<OutputStream>,)| {
                Ok((Ok::<(), StreamError>(()),))
            })?;
        }
        "subscribe" => {
            at.func_wrap(function, |mut store, (_this,): (Resource<OutputStream>,)| {
                Ok((own::<Pollable>(store.data_mut(), 0)?,))
            })?
        }
        "write-zeroes" | "blocking-write-zeroes-and-flush" => {
            at.func_wrap(function, |mut store, (_this, len): (Resource<OutputStream>, u64)| {
                store.data_mut().charge(usize::try_from(len).unwrap_or(usize::MAX))?;
                Ok((Ok::<(), StreamError>(()),))
            })?;
        }
        "splice" | "blocking-splice" => at.func_wrap(
            function,
            |_, (_this, _from, _len): (Resource<OutputStream>, Resource<InputStream>, u64)| {
                Ok((Err::<u64, _>(StreamError::Closed),))
            },
        )?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn input_stream(at: &mut LinkerInstance<'_, Host>, function: &str) -> wasmtime::Result<bool> {
    let Some(method) = function.strip_prefix("[method]input-stream.") else { return Ok(false) };
    match method {
        "read" | "blocking-read" => {
            at.func_wrap(function, |_, (_this, _len): (Resource<InputStream>, u64)| {
                Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
            })?;
        }
        "skip" | "blocking-skip" => {
            at.func_wrap(function, |_, (_this, _len): (Resource<InputStream>, u64)| {
                Ok((Err::<u64, _>(StreamError::Closed),))
            })?;
        }
        "subscribe" => {
            at.func_wrap(function, |mut store, (_this,): (Resource<InputStream>,)| {
                Ok((own::<Pollable>(store.data_mut(), 0)?,))
            })?
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn poll(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
    is_async: bool,
) -> wasmtime::Result<bool> {
    match (function, is_async) {
        ("[method]pollable.ready", _) => {
            at.func_wrap(function, |store, (this,): (Resource<Pollable>,)| {
                let wait = store.data().output.pollables.wait(this.rep(), Instant::now());
                Ok((wait.is_zero(),))
            })?;
        }
        ("[method]pollable.block", false) => {
            at.func_wrap(function, |mut store, (this,): (Resource<Pollable>,)| {
                let (wait, _) = soonest(store.data(), &[this])?;
                sleep(store.data_mut(), wait)
            })?;
        }
        ("[method]pollable.block", true) => {
            at.func_wrap_async(function, |store, (this,): (Resource<Pollable>,)| {
                Box::new(async move {
                    let (wait, _) = soonest(store.data(), &[this])?;
                    tokio::time::sleep(wait).await;
                    Ok(())
                })
            })?;
        }
        ("poll", false) => {
            at.func_wrap(function, |mut store, (all,): (Vec<Resource<Pollable>>,)| {
                let (wait, ready) = soonest(store.data(), &all)?;
                sleep(store.data_mut(), wait)?;
                Ok((ready,))
            })?;
        }
        ("poll", true) => {
            at.func_wrap_async(function, |store, (all,): (Vec<Resource<Pollable>>,)| {
                Box::new(async move {
                    let (wait, ready) = soonest(store.data(), &all)?;
                    tokio::time::sleep(wait).await;
                    Ok((ready,))
                })
            })?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// How long until the first of `all` is ready, and which are then.
fn soonest(host: &Host, all: &[Resource<Pollable>]) -> wasmtime::Result<(Duration, Vec<u32>)> {
    let now = Instant::now();
    let wait = |one: &Resource<Pollable>| host.output.pollables.wait(one.rep(), now);
    let Some(shortest) = all.iter().map(wait).min() else {
        return Err(rule("poll was called with nothing to wait for".to_owned()));
    };
    let ready = (0_u32..).zip(all).filter(|(_, one)| wait(one) <= shortest);
    Ok((shortest, ready.map(|(index, _)| index).collect()))
}

/// Sleeps on the worker, within the call's deadline: nothing else can interrupt host code.
fn sleep(host: &mut Host, wait: Duration) -> wasmtime::Result<()> {
    let Some(left) = host.sleep_left.checked_sub(wait) else {
        return Err(wasmtime::Error::new(Overrun::Deadline));
    };
    host.sleep_left = left;
    std::thread::sleep(wait);
    Ok(())
}

fn io_error(at: &mut LinkerInstance<'_, Host>, function: &str) -> wasmtime::Result<bool> {
    if function != "[method]error.to-debug-string" {
        return Ok(false);
    }
    at.func_wrap(function, |_, (_this,): (Resource<IoError>,)| Ok(("error",)))?;
    Ok(true)
}

fn monotonic(at: &mut LinkerInstance<'_, Host>, function: &str) -> wasmtime::Result<bool> {
    match function {
        "now" => at.func_wrap(function, |store, (): ()| {
            let now = || nanoseconds(start().elapsed());
            Ok((store.data().answer(|| "monotonic-clock.now".to_owned(), now),))
        })?,
        "resolution" => at.func_wrap(function, |_, (): ()| Ok((1_u64,)))?,
        "subscribe-instant" => at.func_wrap(function, |mut store, (when,): (u64,)| {
            let until = start().checked_add(Duration::from_nanos(when));
            Ok((timer(&mut store, until)?,))
        })?,
        "subscribe-duration" => at.func_wrap(function, |mut store, (after,): (u64,)| {
            let until = Instant::now().checked_add(Duration::from_nanos(after));
            Ok((timer(&mut store, until)?,))
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn timer(
    store: &mut StoreContextMut<'_, Host>,
    until: Option<Instant>,
) -> wasmtime::Result<Resource<Pollable>> {
    let until = until.ok_or_else(|| rule("a time to wait for is too far off".to_owned()))?;
    let host = store.data_mut();
    let rep = host.output.pollables.add(until);
    own(host, rep)
}

fn wall(at: &mut LinkerInstance<'_, Host>, function: &str) -> wasmtime::Result<bool> {
    match function {
        "now" => at.func_wrap(function, |store, (): ()| {
            let now = || {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                (since.as_secs(), since.subsec_nanos())
            };
            let now = store.data().answer(|| "wall-clock.now".to_owned(), now);
            Ok((Datetime { seconds: now.0, nanoseconds: now.1 },))
        })?,
        "resolution" => {
            at.func_wrap(function, |_, (): ()| Ok((Datetime { seconds: 0, nanoseconds: 1 },)))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn random(at: &mut LinkerInstance<'_, Host>, function: &str) -> wasmtime::Result<bool> {
    match function {
        "get-random-bytes" | "get-insecure-random-bytes" => {
            at.func_wrap(function, |store, (len,): (u64,)| {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                if len > RANDOM_BYTES_MAX {
                    return Err(rule(format!(
                        "at most {RANDOM_BYTES_MAX} random bytes can be had at once"
                    )));
                }
                let call = || format!("random.get-random-bytes {len}");
                let made = store.data().answer(call, || {
                    let mut bytes = vec![0; len];
                    fill(&mut bytes).map(|()| bytes).map_err(str::to_owned)
                });
                Ok((made.map_err(rule)?,))
            })?;
        }
        "get-random-u64" | "get-insecure-random-u64" => {
            at.func_wrap(function, |store, (): ()| Ok((number(store.data())?,)))?;
        }
        "insecure-seed" => at.func_wrap(function, |store, (): ()| {
            Ok(((number(store.data())?, number(store.data())?),))
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn number(host: &Host) -> wasmtime::Result<u64> {
    let number = host.answer(
        || "random.get-random-u64".to_owned(),
        || {
            let mut bytes = [0; 8];
            fill(&mut bytes).map(|()| u64::from_le_bytes(bytes)).map_err(str::to_owned)
        },
    );
    number.map_err(rule)
}

fn fill(bytes: &mut [u8]) -> Result<(), &'static str> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| "the machine has no random numbers")
}

/// A new handle for the guest, within the number it may have.
fn own<T: 'static>(host: &mut Host, rep: u32) -> wasmtime::Result<Resource<T>> {
    if host.output.handles >= HANDLES_MAX {
        return Err(rule(format!("the plugin holds {HANDLES_MAX} handles and drops none")));
    }
    host.output.handles = host.output.handles.saturating_add(1);
    Ok(Resource::new_own(rep))
}

impl Host {
    /// Takes what the guest wrote to a standard stream.
    fn write(&mut self, stream: u32, bytes: &[u8]) {
        let request = match self.exchange.phase {
            super::Phase::Idle | super::Phase::Hello => "",
            _ => &self.exchange.request.id,
        };
        if stream == STDERR {
            // Kept until the call has ended: if it fails, this is why.
            self.output.stderr.extend_from_slice(bytes);
            if self.output.stderr.len() > STDERR_BYTES_MAX {
                lines(&self.facts, request, Level::WARN, &mut self.output.stderr, false);
            }
        } else {
            self.output.stdout.extend_from_slice(bytes);
            lines(&self.facts, request, Level::INFO, &mut self.output.stdout, false);
        }
    }
}

/// Logs the whole lines of `buffer` and, at the end or when it grows too long, the last piece.
fn lines(facts: &Facts, request: &str, level: Level, buffer: &mut Vec<u8>, is_end: bool) {
    let end = match buffer.iter().rposition(|byte| *byte == b'\n') {
        _ if is_end || buffer.len() > STDERR_BYTES_MAX => buffer.len(),
        Some(newline) => newline.saturating_add(1),
        None => return,
    };
    let whole: Vec<u8> = buffer.drain(..end).collect();
    for text in String::from_utf8_lossy(&whole).lines().filter(|text| !text.trim().is_empty()) {
        log::line(facts, request, level, text);
    }
}

/// The zero of the monotonic clock.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

const STDOUT: u32 = 1;
const STDERR: u32 = 2;
/// What one write may have, as `check-write` says.
const WRITE_BYTES_MAX: u64 = 64 << 10;
/// Standard error kept back, and the longest line.
const STDERR_BYTES_MAX: usize = 16 << 10;
/// Random bytes of one call, inclusive.
const RANDOM_BYTES_MAX: usize = 1 << 20;
/// Handles of one instance, inclusive.
const HANDLES_MAX: usize = 4096;
