//! A solver whose provider is whatever listens at `{"url":"…"}`; `zone-handle` there is the handle
//! that `find-zone` gives. `present` sends the secret `token`
//! in every place where a placeholder may stand and returns what came back. The zone handle tells
//! it to misbehave instead: `loop`, `panic`, `sleep`, `many` (requests without end), `elsewhere` (a
//! host that is not granted), `thief` (looks for the secret everywhere and logs what it finds).

use std::cell::RefCell;

use exports::witgate::plugin::{dns_solver_hooks, plugin};
use witgate::plugin::{http, log};

wit_bindgen::generate!({ world: "dns-solver", path: "../../wit" });

struct Guest;

thread_local! {
    static URL: RefCell<String> = const { RefCell::new(String::new()) };
    static ZONE_HANDLE: RefCell<String> = const { RefCell::new(String::new()) };
}

impl plugin::Guest for Guest {
    fn configure(config: String) -> Result<Vec<String>, String> {
        if let Some(text) = guests::member(&config, "fail") {
            return Err(text.to_owned());
        }
        if let Some(url) = guests::member(&config, "url") {
            URL.set(url.to_owned());
        }
        if let Some(handle) = guests::member(&config, "zone-handle") {
            ZONE_HANDLE.set(handle.to_owned());
        }
        Ok(Vec::new())
    }
}

impl dns_solver_hooks::Guest for Guest {
    fn traits() -> Vec<(String, String)> {
        vec![("parallelism".to_owned(), "per-zone".to_owned())]
    }

    fn find_zone(candidates: Vec<String>) -> Result<(String, String), dns_solver_hooks::Failure> {
        match candidates.into_iter().last() {
            Some(zone) => Ok((zone, ZONE_HANDLE.with_borrow(Clone::clone))),
            None => Err(failure("zone-not-found", "no candidate")),
        }
    }

    fn present(
        _zone: String,
        handle: String,
        name: String,
        values: Vec<String>,
        ttl: u32,
    ) -> Result<String, dns_solver_hooks::Failure> {
        let base = URL.with_borrow(Clone::clone);
        match handle.as_str() {
            "loop" => loop {
                std::hint::black_box(());
            },
            "panic" => panic!("the solver's own words"),
            "sleep" => std::thread::sleep(std::time::Duration::from_secs(60)),
            "nap" => std::thread::sleep(std::time::Duration::from_millis(50)),
            "many" => loop {
                send("GET", &format!("{base}/many"), &[], "")?;
            },
            "elsewhere" => {
                send("GET", "https://elsewhere.example/v1/zones?x=1", &[], "")?;
            }
            "thief" => return thief(&base),
            "unknown" => {
                send("GET", &format!("{base}/x?{{{{secret:nobody}}}}"), &[], "")?;
            }
            "host-field" => {
                send("GET", &format!("{base}/x"), &[("host", "evil.example")], "")?;
            }
            _ => {}
        }
        let body = format!(
            "{{\"name\":\"{name}\",\"values\":\"{}\",\"ttl\":{ttl},\"t\":\"{{{{secret:token}}}}\"}}",
            values.join(",")
        );
        send(
            "POST",
            &format!("{base}/records?key={{{{secret:token}}}}"),
            &[
                ("content-type", "application/json"),
                ("x-api-key", "{{secret:token}}"),
                ("authorization", "{{basic:me:token}}"),
            ],
            &body,
        )
    }

    fn poll(
        _zone: String,
        _zone_handle: String,
        handle: String,
    ) -> Result<Option<u32>, dns_solver_hooks::Failure> {
        Ok(handle.parse().ok())
    }

    fn cleanup(
        _zone: String,
        _zone_handle: String,
        _name: String,
        _values: Vec<String>,
        _handle: String,
    ) -> Result<(), dns_solver_hooks::Failure> {
        Err(dns_solver_hooks::Failure {
            code: "rate-limited".to_owned(),
            message: "slow down".to_owned(),
            retry_after_seconds: Some(7),
        })
    }
}

/// Sends, and returns status, fields and body in one text.
fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<String, dns_solver_hooks::Failure> {
    let headers: Vec<(String, String)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    match http::send(method, url, &headers, body.as_bytes()) {
        Ok(answer) => {
            Ok(format!(
                "{} {:?} {}",
                answer.status,
                answer.headers,
                String::from_utf8_lossy(&answer.body)
            ))
        }
        Err(no) => Err(failure(&no.code, &no.message)),
    }
}

/// Everything that this sandbox lets anybody see.
fn thief(base: &str) -> Result<String, dns_solver_hooks::Failure> {
    let mut loot = format!(
        "environment {:?}, arguments {:?}, root {:?}, own {:?}",
        std::env::vars().collect::<Vec<_>>(),
        std::env::args().collect::<Vec<_>>(),
        std::fs::read_dir("/").map(|entries| entries.count()).ok(),
        std::fs::read("/proc/self/environ").ok(),
    );
    for path in ["/echo", "/echo-base64", "/echo-percent", "/echo-header"] {
        let url = format!("{base}{path}?k={{{{secret:token}}}}");
        let auth = [("authorization", "Bearer {{secret:token}}")];
        loot.push_str(&send("POST", &url, &auth, "{{secret:token}}").unwrap_or_else(|no| no.message));
    }
    log::write("error", &loot);
    println!("{loot}");
    eprintln!("{loot}");
    Ok(loot)
}

fn failure(code: &str, message: &str) -> dns_solver_hooks::Failure {
    dns_solver_hooks::Failure {
        code: code.to_owned(),
        message: message.to_owned(),
        retry_after_seconds: None,
    }
}

export!(Guest);
