//! A client-hello plugin that does what the first label of the server name says: `pass`, `as` (as
//! `other.example`), `as-nobody` (a name without a certificate), `refuse`, `number` (refuses with alert 99),
//! `loop`, `panic`, `memory`, `upstream` (passes to one that there is not), `request` (reads a request where there
//! is none), `tell` (refuses with `user_canceled` unless the hello says all that a usual one does, and logs what it says). Any other goes on.

use exports::witgate::plugin::{client_hello_hooks, plugin};
use witgate::plugin::{hello, hello_decision, log};

wit_bindgen::generate!({
    inline: "
        package test:hello;
        world odd {
            include witgate:plugin/client-hello@0.1.0;
            import witgate:plugin/request@0.1.0;
        }
    ",
    path: "../../wit",
    world: "test:hello/odd",
    generate_all,
});

struct Guest;

impl plugin::Guest for Guest {
    fn configure(config: String) -> Result<Vec<String>, String> {
        match guests::member(&config, "fail") {
            Some(text) => Err(text.to_owned()),
            None => Ok(Vec::new()),
        }
    }
}

impl client_hello_hooks::Guest for Guest {
    fn on_client_hello() {
        let name = hello::server_name().unwrap_or_default();
        match name.split('.').next().unwrap_or_default() {
            "pass" => hello_decision::pass_through("raw"),
            "as" => hello_decision::terminate_as("Other.example"),
            "as-nobody" => hello_decision::terminate_as("nobody.example"),
            "refuse" => hello_decision::refuse("access_denied"),
            "number" => hello_decision::refuse("99"),
            "upstream" => hello_decision::pass_through("nobody"),
            "request" => drop(witgate::plugin::request::method()),
            "loop" => loop {
                std::hint::black_box(());
            },
            "panic" => panic!("the plugin's own words"),
            "memory" => {
                let mut all = Vec::new();
                loop {
                    all.push(vec![1_u8; 1 << 20]);
                }
            }
            "tell" => tell(),
            _ => {}
        }
    }
}

fn tell() {
    let message = hello::message();
    log::write(
        "info",
        &format!(
            "transport={} alpn={:?} versions={:?} suites={} groups={} schemes={} extensions={} \
             ja4={} from={} to={} peer={:?} authority={:?} unknown={:?} message={}",
            hello::transport(),
            hello::alpn(),
            hello::versions(),
            hello::cipher_suites().len(),
            hello::groups().len(),
            hello::signature_schemes().len(),
            hello::extensions().len(),
            hello::ja4(),
            hello::client_address(),
            hello::local_address(),
            hello::proxy("peer"),
            hello::proxy("authority"),
            hello::proxy("no such key"),
            message.first().copied().unwrap_or_default(),
        ),
    );
    let is_usual = hello::versions().contains(&"TLSv1.3".to_owned())
        && hello::cipher_suites().contains(&0x1301)
        && !hello::groups().is_empty()
        && !hello::signature_schemes().is_empty()
        && hello::extensions().contains(&0)
        && hello::client_port() > 0
        && hello::local_port() > 0
        && message.len() > 64;
    if !is_usual {
        hello_decision::refuse("user_canceled");
    }
}

export!(Guest);
