//! A filter that wants to be an issuance policy as well, so it must not load.

use exports::witgate::plugin::{filter_hooks, issuance_policy_hooks, plugin};

wit_bindgen::generate!({
    inline: "
        package test:two-kinds;
        world both {
            export witgate:plugin/plugin@0.1.0;
            export witgate:plugin/filter-hooks@0.1.0;
            export witgate:plugin/issuance-policy-hooks@0.1.0;
        }
    ",
    path: "../../wit",
    world: "test:two-kinds/both",
    generate_all,
});

struct Guest;

impl plugin::Guest for Guest {
    fn configure(_config: String) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}

impl filter_hooks::Guest for Guest {
    fn on_request() {}

    fn on_request_body(_prefix: Vec<u8>, _complete: bool) {}

    fn on_response() {}
}

impl issuance_policy_hooks::Guest for Guest {
    fn decide() {}
}

export!(Guest);
