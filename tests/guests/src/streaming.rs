//! A filter that does with bodies what the request says: `x-on-request` for its own body and
//! `x-on-response` for that of the response. It tells what became of its wish in `x-request-body` and
//! `x-response-body`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;

use exports::witgate::plugin::{body_hooks, filter_hooks, plugin};
use witgate::plugin::{body, log, request, response};

wit_bindgen::generate!({
    inline: "
        package test:streaming;
        world streaming {
            include witgate:plugin/filter@0.1.0;
            include witgate:plugin/streaming@0.1.0;
        }
    ",
    path: "../../wit",
    world: "test:streaming/streaming",
    generate_all,
});

struct Guest;

/// What is kept for one body.
struct Seen {
    what: String,
    id: String,
    chunks: u64,
    bytes: u64,
}

thread_local! {
    static BODIES: RefCell<BTreeMap<u64, Seen>> = const { RefCell::new(BTreeMap::new()) };
}

impl plugin::Guest for Guest {
    fn configure(_config: String) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}

/// Asks for the body, when `what` says so; what came of it.
fn ask(what: Option<String>) -> Option<String> {
    let what = what?;
    let asked = match what.as_str() {
        "observe" => body::observe(),
        "twice" => body::observe().and_then(|_| body::transform()),
        _ => body::transform(),
    };
    Some(match asked {
        Ok(number) => {
            let seen = Seen { what, id: request::id(), chunks: 0, bytes: 0 };
            BODIES.with_borrow_mut(|bodies| bodies.insert(number, seen));
            "asked".to_owned()
        }
        Err(code) => code,
    })
}

impl filter_hooks::Guest for Guest {
    fn on_request() {
        if request::header("x-expect").is_some() {
            let said = match body::expect_response() {
                Ok(()) => "expected".to_owned(),
                Err(code) => code,
            };
            request::set_header("x-expected", &said);
        }
        match request::header("x-head").as_deref() {
            Some("write") => body::write(b"nowhere"),
            Some("trap-after") => {
                let _ = body::transform();
                panic!("after it asked");
            }
            _ => {}
        }
        if let Some(said) = ask(request::header("x-on-request")) {
            request::set_header("x-request-body", &said);
        }
    }

    fn on_request_body(_prefix: Vec<u8>, _complete: bool) {}

    fn on_response() {
        if let Some(said) = ask(request::header("x-on-response")) {
            response::set_header("x-response-body", &said);
        }
    }
}

impl body_hooks::Guest for Guest {
    fn on_chunk(number: u64, chunk: Vec<u8>) {
        let (what, chunks) = BODIES.with_borrow_mut(|bodies| {
            let seen = bodies.get_mut(&number).expect("a body that was asked for");
            seen.chunks += 1;
            seen.bytes += chunk.len() as u64;
            (seen.what.clone(), seen.chunks)
        });
        match what.as_str() {
            "upper" => body::write(&chunk.to_ascii_uppercase()),
            "pass" | "append" | "trap-finish" => body::pass(),
            "double" => {
                body::pass();
                body::pass();
            }
            "mark" => {
                body::write(b"<");
                body::pass();
                body::write(b">");
            }
            "swallow" => {}
            "trap" => panic!("at the first chunk"),
            "trap-second" if chunks > 1 => panic!("at the second chunk"),
            "trap-second" => body::pass(),
            "observe" => assert!(!chunk.starts_with(b"trap"), "it observed enough"),
            "loop" => loop {
                black_box(());
            },
            "grow" => (0..512).for_each(|_| body::write(&[b'x'; 1000])),
            "output" => loop {
                body::write(&[b'x'; 1000]);
            },
            "head" => drop(request::path()),
            "ask" => drop(body::transform()),
            "leak" => {
                let all = BODIES.with_borrow(|bodies| bodies.len());
                body::write(format!("{all};").as_bytes());
            }
            _ => {}
        }
    }

    fn on_finish(number: u64) {
        let seen = BODIES.with_borrow_mut(|bodies| bodies.remove(&number)).expect("a body");
        let Seen { what, id, chunks, bytes } = seen;
        log::write("info", &format!("finished {what} {id} {bytes} bytes"));
        match what.as_str() {
            "append" => body::write(format!("[{bytes} bytes of {id}]").as_bytes()),
            "swallow" => body::write(format!("{bytes}").as_bytes()),
            "trap-finish" => panic!("at the end, after {chunks} chunks"),
            "pass-finish" => body::pass(),
            _ => {}
        }
    }

    fn on_abandon(number: u64) {
        let seen = BODIES.with_borrow_mut(|bodies| bodies.remove(&number));
        // `twice` has one of which nothing is kept.
        let Some(seen) = seen else { return };
        log::write("info", &format!("abandoned {} after {} bytes", seen.what, seen.bytes));
    }
}

export!(Guest);
