//! A solver that does whatever it is told: its zone handle is a list of lines, each `METHOD URL BODY`,
//! where `@` in the URL stands for `url` of its config. It sends them one after the other in whatever
//! function it is called, and returns what came back. `find-zone` takes its lines from `lines` of its
//! config. The line `scan TEXT` looks for TEXT, written backwards, in all of its own memory; `return
//! TEXT` is the handle that it returns.

use std::cell::RefCell;

use exports::witgate::plugin::{dns_solver_hooks, plugin};
use witgate::plugin::http;

wit_bindgen::generate!({ world: "dns-solver", path: "../../wit" });

struct Guest;

thread_local! {
    static URL: RefCell<String> = const { RefCell::new(String::new()) };
    static LINES: RefCell<String> = const { RefCell::new(String::new()) };
}

impl plugin::Guest for Guest {
    fn configure(config: String) -> Result<Vec<String>, String> {
        URL.set(guests::member(&config, "url").unwrap_or_default().to_owned());
        LINES.set(guests::member(&config, "lines").unwrap_or_default().to_owned());
        Ok(Vec::new())
    }
}

impl dns_solver_hooks::Guest for Guest {
    fn traits() -> Vec<(String, String)> {
        Vec::new()
    }

    fn find_zone(candidates: Vec<String>) -> Result<(String, String), dns_solver_hooks::Failure> {
        let said = run(&LINES.with_borrow(Clone::clone));
        match candidates.into_iter().last() {
            Some(zone) => Ok((zone, said)),
            None => Ok((String::new(), said)),
        }
    }

    fn present(
        _zone: String,
        handle: String,
        _name: String,
        _values: Vec<String>,
        _ttl: u32,
    ) -> Result<String, dns_solver_hooks::Failure> {
        Ok(run(&handle))
    }

    fn poll(
        _zone: String,
        zone_handle: String,
        _handle: String,
    ) -> Result<Option<u32>, dns_solver_hooks::Failure> {
        Err(failure(run(&zone_handle)))
    }

    fn cleanup(
        _zone: String,
        zone_handle: String,
        _name: String,
        _values: Vec<String>,
        handle: String,
    ) -> Result<(), dns_solver_hooks::Failure> {
        Err(failure(format!("{} handle {handle}", run(&zone_handle))))
    }
}

fn failure(message: String) -> dns_solver_hooks::Failure {
    dns_solver_hooks::Failure { code: "invalid".to_owned(), message, retry_after_seconds: None }
}

fn run(lines: &str) -> String {
    let mut said = Vec::new();
    for line in lines.split('\n').filter(|line| !line.is_empty()) {
        let (method, rest) = line.split_once(' ').unwrap_or((line, ""));
        match method {
            "return" => return rest.to_owned(),
            "scan" => said.push(format!("found {}", scan(rest))),
            method => said.push(send(method, rest)),
        }
    }
    said.join("\n")
}

fn send(method: &str, rest: &str) -> String {
    let (url, body) = rest.split_once(' ').unwrap_or((rest, ""));
    let (url, fields) = url.split_once('^').unwrap_or((url, ""));
    let url = url.replace('@', &URL.with_borrow(Clone::clone));
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    headers.extend(fields.split('^').filter_map(|field| {
        let (name, value) = field.split_once('=')?;
        Some((name.to_owned(), value.replace('~', " ")))
    }));
    match http::send(method, &url, &headers, body.as_bytes()) {
        Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
        Err(no) => format!("{}: {}", no.code, no.message),
    }
}

/// How often the memory of this instance holds a text, which is given backwards so that the text
/// itself is not put there by asking.
#[cfg(target_family = "wasm")]
fn scan(backwards: &str) -> usize {
    let backwards = backwards.as_bytes();
    let bytes = core::arch::wasm32::memory_size(0) << 16;
    let mut found = 0;
    for start in 1..bytes.saturating_sub(backwards.len()) {
        // Reading behind the optimiser's back: any address of the own memory is readable.
        let at = |offset: usize| unsafe { core::ptr::read_volatile((start + offset) as *const u8) };
        let length = backwards.len();
        if (0..length).all(|offset| at(offset) == backwards[length - 1 - offset]) {
            found += 1;
        }
    }
    found
}

#[cfg(not(target_family = "wasm"))]
fn scan(_backwards: &str) -> usize {
    0
}

export!(Guest);
