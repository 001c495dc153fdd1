//! Says which step of a build goes on and for how long, since some take half a minute.

use std::io::{IsTerminal as _, Write};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A step under way. On a terminal its line is drawn anew while it lasts; elsewhere there is a line at
/// its beginning and one at its end.
pub struct Step<'w> {
    what: String,
    began: Instant,
    is_terminal: bool,
    out: Mutex<Box<dyn Write + Send + 'w>>,
}

/// Does `work` and shows on standard error that it goes on.
///
/// # Errors
/// Those of `work`.
pub fn step<T, E>(what: &str, work: impl FnOnce(&Step<'_>) -> Result<T, E>) -> Result<T, E> {
    let error = std::io::stderr();
    let is_terminal = error.is_terminal();
    shown(what, is_terminal, Box::new(error), work)
}

fn shown<T, E>(
    what: &str,
    is_terminal: bool,
    out: Box<dyn Write + Send + '_>,
    work: impl FnOnce(&Step<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let step =
        Step { what: what.to_owned(), began: Instant::now(), is_terminal, out: Mutex::new(out) };
    if !is_terminal {
        step.write(&format!("  {what}\n"));
    }
    let result = std::thread::scope(|scope| {
        // The other end is dropped when the work is done, or panics.
        let (_end, ended) = channel::<()>();
        let step = &step;
        if is_terminal {
            scope.spawn(move || {
                for turn in SIGNS.iter().cycle() {
                    step.write(&format!("{CLEAR}{turn} {} {} s", step.what, step.seconds()));
                    if ended.recv_timeout(TURN) != Err(RecvTimeoutError::Timeout) {
                        break;
                    }
                }
            });
        }
        work(step)
    });
    let took = step.began.elapsed().as_secs_f32();
    let clear = if is_terminal { CLEAR } else { "" };
    match &result {
        Ok(_) if is_terminal => step.write(&format!("{clear}  {what}: {took:.1} s\n")),
        Ok(_) => step.write(&format!("  done in {took:.1} s\n")),
        Err(_) => step.write(&format!("{clear}  {what}: failed after {took:.1} s\n")),
    }
    result
}

impl Step<'_> {
    /// Shows what a tool says, above the step's line.
    pub fn say(&self, text: &str) {
        let clear = if self.is_terminal { CLEAR } else { "" };
        self.write(&format!("{clear}{text}\n"));
    }

    fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Whoever cannot read it misses nothing that counts.
    fn write(&self, text: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// To the beginning of the line, and nothing in it.
const CLEAR: &str = "\r\x1b[K";
const SIGNS: [char; 4] = ['-', '\\', '|', '/'];
const TURN: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(is_terminal: bool, work: impl FnOnce(&Step<'_>) -> Result<(), ()>) -> String {
        let mut text = Vec::new();
        let _ = shown("compiles", is_terminal, Box::new(&mut text), work);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_terminal_sees_that_it_goes_on() {
        let text = seen(true, |step| {
            std::thread::sleep(3 * TURN);
            step.say("a warning");
            Ok(())
        });
        assert!(text.starts_with("\r\x1b[K- compiles 0 s\r\x1b[K\\ compiles 0 s"), "{text:?}");
        assert!(text.contains("\r\x1b[Ka warning\n"), "{text:?}");
        assert!(text.contains("\r\x1b[K  compiles: 0.") && text.ends_with(" s\n"), "{text:?}");
    }

    #[test]
    fn a_file_has_its_beginning_and_its_end() {
        let text = seen(false, |step| {
            step.say("a warning");
            Ok(())
        });
        assert!(text.starts_with("  compiles\na warning\n  done in 0."), "{text:?}");
        assert!(seen(false, |_| Err(())).contains("\n  compiles: failed after 0."));
    }
}
