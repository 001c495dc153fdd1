//! What a failed call means: traps, broken rules and overrun limits become a [`PluginError`], and
//! one line in the log.

use std::fmt;
use std::time::Duration;

use wasmtime::{Trap, WasmBacktrace};

use super::error::PluginError;
use super::facts::Facts;

/// A rule of the contract that the guest broke; the text says which.
pub(super) fn rule(text: String) -> wasmtime::Error {
    wasmtime::Error::new(Broken(text))
}

/// See [`rule`].
#[derive(Debug)]
pub(super) struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// A limit that the guest went over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overrun {
    /// Wall time of a call into a router or filter.
    Deadline,
    /// Wall time of a call into a solver.
    SolverDeadline,
    /// Linear memory.
    Memory,
    /// What a call hands to the host.
    Output,
    /// How much longer a body becomes.
    BodyGrowth,
}

impl Overrun {
    /// The key in the plugin's stanza.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Deadline => "limits.deadline",
            Self::SolverDeadline => "limits.solver-deadline",
            Self::Memory => "limits.memory",
            Self::Output => "limits.output",
            Self::BodyGrowth => "limits.body-growth",
        }
    }
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "over {}", self.key())
    }
}

impl std::error::Error for Overrun {}

/// What a guest's failure was, and its panic text when it had one.
pub(super) fn failure(
    facts: &Facts,
    hook: &'static str,
    deadline: Overrun,
    allowed: Duration,
    stderr: &str,
    cause: wasmtime::Error,
) -> PluginError {
    let of = facts.subject.clone();
    let overrun = match (cause.downcast_ref::<Overrun>(), cause.downcast_ref::<Trap>()) {
        (Some(overrun), _) => Some(*overrun),
        (None, Some(Trap::Interrupt)) => Some(deadline),
        _ => None,
    };
    match overrun {
        Some(overrun) => PluginError::Overrun {
            of,
            hook,
            key: overrun.key(),
            limit: match overrun {
                Overrun::Deadline | Overrun::SolverDeadline => format!("{allowed:?}"),
                Overrun::Memory => format!("{} KiB of memory", facts.limits.memory_bytes_max >> 10),
                Overrun::Output => {
                    format!("{} KiB of output", facts.limits.output_bytes_max >> 10)
                }
                Overrun::BodyGrowth => {
                    format!("{} KiB more than came in", facts.limits.body_growth_bytes_max >> 10)
                }
            },
        },
        None => PluginError::Trap { of, hook, message: message(stderr, &cause), cause },
    }
}

/// As [`failure`], for an instance that did not start.
pub(super) fn start_failure(
    facts: &Facts,
    deadline: Overrun,
    allowed: Duration,
    stderr: &str,
    cause: wasmtime::Error,
) -> PluginError {
    let is_guest = cause.is::<Trap>() || cause.is::<Overrun>() || cause.is::<Broken>();
    if is_guest {
        return failure(facts, "plugin.configure", deadline, allowed, stderr, cause);
    }
    PluginError::Start(facts.subject.clone(), cause)
}

/// Logs a failed call: plugin, digest, request, what happened and where, in one event.
pub(super) fn log(error: &PluginError, facts: &Facts, request: &str, stderr: &str) {
    let (plugin, digest) = (&*facts.subject.name, facts.subject.short_digest());
    let cause = match error {
        PluginError::Trap { cause, .. } | PluginError::Start(_, cause) => Some(cause),
        _ => None,
    };
    let trace = cause.and_then(|cause| cause.downcast_ref::<WasmBacktrace>());
    let trace = trace.map(|trace| one_line(&trace.to_string())).unwrap_or_default();
    let error = facts.secrets.mask_text(&error.to_string()).into_owned();
    let stderr = facts.secrets.mask_text(stderr);
    let stderr = stderr.lines().map(str::trim).collect::<Vec<_>>().join(" | ");
    tracing::error!(plugin, digest, request, %stderr, backtrace = %trace, "{error}");
}

/// The functions of a backtrace, the innermost first. Its lines are `N: 0xADDRESS - NAME` and,
/// below them, places in source files.
fn one_line(trace: &str) -> String {
    let names = trace.lines().filter_map(|line| line.split_once(" - ").map(|(_, name)| name));
    names.take(FRAMES_MAX).collect::<Vec<_>>().join(" < ")
}

/// What went wrong in a line: the panic text when there is one, else the trap.
fn message(stderr: &str, cause: &wasmtime::Error) -> String {
    let stderr = stderr.trim();
    if stderr.is_empty() || cause.downcast_ref::<Broken>().is_some() {
        return cause.root_cause().to_string();
    }
    let lines: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("note: "))
        .collect();
    // Rust: "thread … panicked at FILE:LINE:COLUMN:", then the text. Python: a traceback whose last
    // line is the reason, then the panic of its runtime. Others mostly put the reason last too.
    let panic = lines.iter().position(|line| line.contains("panicked at"));
    let text = match (panic, lines.split_last()) {
        (Some(panic), _) if lines.first().is_some_and(|line| line.starts_with("Traceback")) => {
            panic
                .checked_sub(1)
                .and_then(|at| lines.get(at))
                .copied()
                .unwrap_or_default()
                .to_owned()
        }
        (Some(panic), _) => lines.get(panic..).unwrap_or_default().join(" "),
        (None, Some((last, _))) => (*last).to_owned(),
        (None, None) => String::new(),
    };
    super::host::log::cut(&text).to_owned()
}

/// Functions of a backtrace that the log shows, inclusive.
const FRAMES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_in_what_a_guest_wrote() {
        let trap = || wasmtime::Error::new(Trap::UnreachableCodeReached);
        for (stderr, wanted) in [
            ("", "wasm trap: wasm `unreachable` instruction executed"),
            (
                "\nthread 'main' (1) panicked at src/lib.rs:1:2:\nwords\nnote: run with X\n",
                "thread 'main' (1) panicked at src/lib.rs:1:2: words",
            ),
            (
                "Traceback (most recent call last):\n  File \"a.py\", line 1\nValueError: words\n\n\
                 thread '<unnamed>' (1) panicked at runtime/src/lib.rs:1:2:\nunexpected\n",
                "ValueError: words",
            ),
            ("starting\nfatal error: words\n", "fatal error: words"),
        ] {
            assert_eq!(message(stderr, &trap()), wanted);
        }
        // A broken rule is the reason, whatever else was written.
        assert_eq!(message("noise", &rule("a rule".to_owned())), "a rule");
    }

    #[test]
    fn a_backtrace_fits_a_line() {
        let trace = "error while executing at wasm backtrace:\n    0: 0x1a - a.wasm!inner\n\
                     \t\tat src/lib.rs:1:2\n    1: 0x2b - a.wasm!outer\n";
        assert_eq!(one_line(trace), "a.wasm!inner < a.wasm!outer");
    }
}
