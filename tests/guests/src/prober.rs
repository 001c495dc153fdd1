//! A filter that tries one thing with one field, as the request's path says: `/VERB/NAME`. What it
//! could read goes into `x-saw` of the head it read from, which it must be allowed to set.

use std::cell::RefCell;

use exports::witgate::plugin::{filter_hooks, plugin};
use guests::member;
use witgate::plugin::{connection, crypto, decision, request, response};

wit_bindgen::generate!({ world: "filter", path: "../../wit" });

struct Guest;

thread_local! {
    static LAST: RefCell<String> = RefCell::new("nothing".to_owned());
}

impl plugin::Guest for Guest {
    fn configure(config: String) -> Result<Vec<String>, String> {
        spin(member(&config, "start-turns").and_then(|turns| turns.parse().ok()).unwrap_or(0));
        Ok(Vec::new())
    }
}

impl filter_hooks::Guest for Guest {
    fn on_request() {
        let path = request::path();
        let (verb, name) = words(&path);
        let saw = match verb {
            "header" => request::header(name),
            "header-bytes" => {
                request::header_bytes(name).map(|value| String::from_utf8_lossy(&value).into())
            }
            "header-values" => Some(request::header_values(name).join("+")),
            "header-names" => Some(request::header_names().join(" ")),
            "tls" => Some(format!(
                "{} {} {} {}",
                connection::tls_cipher_suite().unwrap_or_default(),
                connection::tls_group().unwrap_or_default(),
                connection::tls_is_resumed(),
                connection::tls_ja4().unwrap_or_default(),
            )),
            "hmac" => Some(match crypto::hmac("sha256", name, b"data") {
                Ok(code) => format!(
                    "{} {:?} {:?}",
                    code.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
                    crypto::verify_hmac("sha256", name, b"data", &code),
                    crypto::verify_hmac("sha256", name, b"data", &code[1..]),
                ),
                Err(code) => code,
            }),
            "hmac-algorithm" => crypto::hmac(name, "key", b"").err(),
            // What an instance keeps between calls is what one request could learn of another.
            "remember" => Some(LAST.replace(name.to_owned())),
            _ => None,
        };
        match verb {
            "set" => request::set_header(name, "set"),
            "set-bytes" => request::set_header_bytes(name, b"set"),
            "append" => request::append_header(name, "set"),
            "remove" => request::remove_header(name),
            "method" => request::set_method("PUT"),
            "path" => request::set_path("/changed"),
            "query" => request::set_query(Some("changed")),
            "authority" => request::set_authority("changed.example"),
            "fail" => decision::respond(503, &[], b""),
            "spin" => spin(name.parse().unwrap_or(0)),
            "respond" => decision::respond(200, &[(name.into(), "set".into())], b""),
            _ => {}
        }
        if let Some(saw) = saw {
            request::set_header("x-saw", &saw);
        }
    }

    fn on_request_body(_prefix: Vec<u8>, _complete: bool) {}

    fn on_response() {
        let path = request::path();
        let (verb, name) = words(&path);
        let saw = match verb {
            "response-header" => response::header(name),
            "response-header-bytes" => {
                response::header_bytes(name).map(|value| String::from_utf8_lossy(&value).into())
            }
            "response-header-values" => Some(response::header_values(name).join("+")),
            "response-header-names" => Some(response::header_names().join(" ")),
            // The request can still be read.
            "late-header" => request::header(name),
            _ => None,
        };
        match verb {
            "response-set" => response::set_header(name, "set"),
            "response-set-bytes" => response::set_header_bytes(name, b"set"),
            "response-append" => response::append_header(name, "set"),
            "response-remove" => response::remove_header(name),
            "response-status" => response::set_status(201),
            _ => {}
        }
        if let Some(saw) = saw {
            response::set_header("x-saw", &saw);
        }
    }
}

/// Computes for a while.
fn spin(turns: u64) {
    let mut n = 1_u64;
    for turn in 0..turns {
        n = std::hint::black_box(n.wrapping_mul(31).wrapping_add(turn));
    }
}

fn words(path: &str) -> (&str, &str) {
    path.trim_start_matches('/').split_once('/').unwrap_or(("", ""))
}

export!(Guest);
