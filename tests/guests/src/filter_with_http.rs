//! A filter that imports `http`: it must not load.

use exports::witgate::plugin::{filter_hooks, plugin};
use witgate::plugin::http;

wit_bindgen::generate!({
    inline: "
        package test:caller;
        world caller {
            include witgate:plugin/filter@0.1.0;
            import witgate:plugin/http@0.1.0;
        }
    ",
    path: "../../wit",
    world: "test:caller/caller",
    generate_all,
});

struct Guest;

impl plugin::Guest for Guest {
    fn configure(_config: String) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}

impl filter_hooks::Guest for Guest {
    fn on_request() {
        let _ = http::send("GET", "https://example.com/", &[], &[]);
    }

    fn on_request_body(_prefix: Vec<u8>, _complete: bool) {}

    fn on_response() {}
}

export!(Guest);
