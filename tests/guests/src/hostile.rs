//! A router and filter that does what the request's path says, after changing a field that must be
//! changed back; `{"at-start":"loop"}` does it in `configure` already.

use std::hint::black_box;

use exports::witgate::plugin::{filter_hooks, plugin, router_hooks};
use witgate::plugin::{decision, log, request, response, state};

wit_bindgen::generate!({
    inline: "
        package test:hostile;
        world hostile {
            include witgate:plugin/router@0.1.0;
            include witgate:plugin/filter@0.1.0;
        }
    ",
    path: "../../wit",
    world: "test:hostile/hostile",
    generate_all,
});

struct Guest;

impl plugin::Guest for Guest {
    fn configure(config: String) -> Result<Vec<String>, String> {
        if let Some(what) = guests::member(&config, "at-start") {
            if what == "request" {
                request::path();
            }
            misbehave(what);
        }
        Ok(Vec::new())
    }
}

impl router_hooks::Guest for Guest {
    fn route() {
        act();
    }
}

impl filter_hooks::Guest for Guest {
    fn on_request() {
        act();
    }

    fn on_request_body(_prefix: Vec<u8>, _complete: bool) {
        act();
    }

    fn on_response() {
        response::set_header("x-touched", "yes");
        response::remove_header("server");
        response::set_status(201);
        let path = request::path();
        misbehave(path.trim_start_matches('/'));
        match path.as_str() {
            "/response-status" => response::set_status(101),
            "/response-owned" => response::set_header("content-length", "3"),
            _ => {}
        }
    }
}

fn act() {
    request::set_header("x-touched", "yes");
    request::set_header("accept", "nothing");
    request::append_header("x-many", "3");
    request::append_header("x-new", "1");
    request::remove_header("user-agent");
    request::set_method("PUT");
    let path = request::path();
    request::set_path("/changed");
    request::set_query(None);
    request::set_authority("changed.example");
    decision::redirect(307, "/changed");
    misbehave(path.trim_start_matches('/'));
}

fn misbehave(what: &str) {
    match what {
        "loop" => loop {
            black_box(());
        },
        "memory" => {
            let mut all = Vec::new();
            loop {
                all.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
        "output" => loop {
            request::append_header("x-much", &"y".repeat(1000));
        },
        "body" => decision::respond(200, &[], &vec![b'x'; 8 << 20]),
        "log" => loop {
            log::write("info", &"z".repeat(10_000));
        },
        "stdout" => loop {
            println!("{}", "z".repeat(1000));
        },
        "recursion" => {
            black_box(recurse(1));
        }
        "panic" => panic!("the guest's own words"),
        "exit" => std::process::exit(7),
        "sleep" => std::thread::sleep(std::time::Duration::from_secs(60)),
        "handles" => loop {
            // Each call makes a handle, which is never dropped.
            // SAFETY: the import takes nothing and returns a number.
            black_box(unsafe { get_stderr() });
        },
        "name" => request::set_header("bad name\r\n", "x"),
        "value" => request::set_header("x-bad", "a\r\nset-cookie: b"),
        "owned" => request::set_header("Content-Length", "3"),
        "host" => request::set_header("host", "evil.example"),
        "path" => request::set_path("/a b"),
        "method" => request::set_method("CONNECT"),
        "authority" => request::set_authority("user@host"),
        "status" => decision::respond(99, &[], b""),
        "respond-owned" => {
            decision::respond(200, &[("transfer-encoding".into(), "chunked".into())], b"");
        }
        "redirect" => decision::redirect(200, "/"),
        "upstream" => decision::to_upstream("nowhere"),
        "state" => {
            let mut key = 0_u64;
            while state::set(&key.to_string(), &[0; 60_000], None).is_ok() {
                key += 1;
            }
        }
        _ => {}
    }
}

#[link(wasm_import_module = "wasi:cli/stderr@0.2.6")]
unsafe extern "C" {
    #[link_name = "get-stderr"]
    fn get_stderr() -> i32;
}

#[inline(never)]
#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1))) + 1
}

export!(Guest);
