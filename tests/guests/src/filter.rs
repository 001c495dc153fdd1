//! Reads three things and sets three fields on a request, marks a response, counts in the state,
//! and asks for ten bytes of the body with the configuration `{"body":"yes"}`. `{"noop":"yes"}`
//! makes every hook return at once.

use std::cell::Cell;

use exports::witgate::plugin::{filter_hooks, plugin};
use witgate::plugin::{connection, decision, log, request, response, state};

wit_bindgen::generate!({ world: "filter", path: "../../wit" });

struct Guest;

thread_local! {
    static IS_NOOP: Cell<bool> = const { Cell::new(false) };
}

impl plugin::Guest for Guest {
    fn configure(config: String) -> Result<Vec<String>, String> {
        IS_NOOP.set(guests::member(&config, "noop").is_some());
        if guests::member(&config, "body").is_some() {
            return Ok(vec!["request".to_owned(), "request-body:10".to_owned()]);
        }
        match guests::member(&config, "hooks") {
            Some(hooks) => Ok(hooks.split(',').map(str::to_owned).collect()),
            None => Ok(Vec::new()),
        }
    }
}

impl filter_hooks::Guest for Guest {
    fn on_request() {
        if IS_NOOP.get() {
            return;
        }
        let path = request::path();
        let agent = request::header("user-agent");
        let accept = request::header("accept");
        request::set_header("x-path", &path);
        request::set_header("x-agent", agent.as_deref().unwrap_or("none"));
        request::set_header("accept", accept.as_deref().unwrap_or("*/*"));
        if path == "/all" {
            everything();
        }
    }

    fn on_request_body(prefix: Vec<u8>, complete: bool) {
        request::set_header_bytes("x-prefix", &prefix);
        request::set_header("x-complete", if complete { "yes" } else { "no" });
        if prefix.starts_with(b"bad") {
            decision::respond(400, &[], b"no");
        }
    }

    fn on_response() {
        if IS_NOOP.get() {
            return;
        }
        response::set_header("x-filter", &response::source());
        response::append_header("vary", "x-filter");
        response::remove_header("server");
        if response::status() == 404 {
            response::set_status(410);
        }
        if request::path() == "/edit-late" {
            request::set_header("x-late", "yes");
        }
    }
}

/// Touches every function that has no other test.
fn everything() {
    let facts = [
        request::id(),
        request::method(),
        request::scheme(),
        request::authority(),
        request::query().unwrap_or_default(),
        connection::client_address(),
        connection::client_port().to_string(),
        connection::http_version(),
        connection::tls_server_name().unwrap_or_default(),
        connection::tls_version().unwrap_or_default(),
        connection::tls_cipher_suite().unwrap_or_default(),
        connection::tls_group().unwrap_or_default(),
        connection::tls_alpn().unwrap_or_default(),
        connection::tls_is_resumed().to_string(),
        request::header("host").unwrap_or_default(),
        request::header_values("x-many").join("+"),
        format!("{:?}", request::header("x-bytes")),
        format!("{:?}", request::header_bytes("x-bytes")),
        request::header_names().len().to_string(),
    ];
    request::set_header("x-facts", &facts.join("|"));
    let client = [
        connection::tls_client_subject().unwrap_or_default(),
        connection::tls_client_issuer().unwrap_or_default(),
        connection::tls_client_serial().unwrap_or_default(),
        connection::tls_client_sha256().unwrap_or_default(),
        connection::tls_client_names().join("+"),
    ];
    request::set_header("x-client", &client.join("|"));
    request::append_header("x-many", "3");
    request::remove_header("x-gone");
    let count = state::increment("requests", 1, None);
    state::set("key", b"value", Some(60)).expect("there is room");
    let value = state::get("key").unwrap_or_default();
    state::remove("key");
    request::set_header(
        "x-state",
        &format!("{count:?} {} {:?}", String::from_utf8_lossy(&value), state::get("key")),
    );
    log::write("warn", "everything was touched");
    println!("said on stdout");
    eprintln!("said on stderr");
    println!(
        "environment {:?} arguments {:?} file {}",
        std::env::vars().count(),
        std::env::args().count(),
        std::fs::read("/etc/passwd").is_ok(),
    );
}

export!(Guest);
