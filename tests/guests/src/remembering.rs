//! A filter that counts its requests in its own memory and hands the count over to the next version.
//! `{"forget":"yes"}` traps when it is to save, `{"refuse":"yes"}` when it is to restore.

use std::cell::Cell;

use exports::witgate::plugin::{filter_hooks, handover, plugin};
use witgate::plugin::request;

wit_bindgen::generate!({
    inline: "
        package test:remembering;
        world counting {
            include witgate:plugin/filter@0.1.0;
            include witgate:plugin/remembering@0.1.0;
        }
    ",
    path: "../../wit",
    world: "test:remembering/counting",
    generate_all,
});

struct Guest;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static FORGETS: Cell<bool> = const { Cell::new(false) };
    static REFUSES: Cell<bool> = const { Cell::new(false) };
}

impl plugin::Guest for Guest {
    fn configure(config: String) -> Result<Vec<String>, String> {
        FORGETS.set(guests::member(&config, "forget").is_some());
        REFUSES.set(guests::member(&config, "refuse").is_some());
        Ok(vec!["request".to_owned()])
    }
}

impl filter_hooks::Guest for Guest {
    fn on_request() {
        COUNT.set(COUNT.get() + 1);
        request::set_header("x-count", &COUNT.get().to_string());
    }

    fn on_request_body(_prefix: Vec<u8>, _complete: bool) {}

    fn on_response() {}
}

impl handover::Guest for Guest {
    fn save() -> Vec<u8> {
        assert!(!FORGETS.get(), "it forgets");
        COUNT.get().to_string().into_bytes()
    }

    fn restore(saved: Vec<u8>) {
        let saved = String::from_utf8(saved).expect("a number");
        COUNT.set(saved.parse().expect("a number"));
        assert!(!REFUSES.get(), "it refuses");
    }
}

export!(Guest);
