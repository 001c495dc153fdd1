/// The router, with a version that can be seen from outside.
macro_rules! router {
    ($version:literal) => {
        wit_bindgen::generate!({ world: "router", path: "../../wit" });

        use exports::witgate::plugin::{plugin, router_hooks};
        use witgate::plugin::{decision, request};

        struct Guest;

        impl plugin::Guest for Guest {
            fn configure(config: String) -> Result<Vec<String>, String> {
                match guests::member(&config, "fail") {
                    Some(text) => Err(text.to_owned()),
                    None => Ok(Vec::new()),
                }
            }
        }

        impl router_hooks::Guest for Guest {
            fn route() {
                request::set_header("x-router", $version);
                let path = request::path();
                match path.split('/').nth(1).unwrap_or_default() {
                    "web" => decision::to_upstream("web"),
                    "api" => decision::to_upstream("api"),
                    "redirect" => decision::redirect(308, "https://other.example/"),
                    "respond" => decision::respond(
                        418,
                        &[("x-pot".to_owned(), "tea".to_owned())],
                        b"short and stout",
                    ),
                    "rewrite" => {
                        request::set_path("/new");
                        request::set_query(Some("from=router"));
                        request::set_authority("Inner.Example:8000");
                        request::set_method("PUT");
                        decision::to_upstream("web");
                    }
                    _ => {}
                }
            }
        }

        export!(Guest);
    };
}
