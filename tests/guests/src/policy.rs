//! An issuance policy, sink and listener that does what it is told. As a policy it goes by the first label
//! of the name: `deny`, `silent` (decides nothing), `panic`, `loop`, `sleep` (60 s), `issuer` (names
//! `second`), `nobody` (names an issuer that there is not), `profile` (asks for `shortlived`), `ask` (asks
//! `url` of its config, whose status 2xx allows it), `denied` (asks a host that is not granted); any other is allowed. As a sink and as a listener it
//! posts what it gets to `url` of its config; with `{"take":"TEXT"}` it returns TEXT as an error, `panic` panics.

use std::cell::RefCell;

use exports::witgate::plugin::{
    access_log_hooks, event_hooks, issuance_policy_hooks, plugin,
};
use witgate::plugin::{http, issuance, log, report};

wit_bindgen::generate!({
    inline: "
        package test:policy;
        world all {
            include witgate:plugin/issuance-policy@0.1.0;
            include witgate:plugin/access-log@0.1.0;
            include witgate:plugin/events@0.1.0;
        }
    ",
    path: "../../wit",
    world: "test:policy/all",
    generate_all,
});

struct Guest;

thread_local! {
    static URL: RefCell<String> = const { RefCell::new(String::new()) };
    static TAKE: RefCell<String> = const { RefCell::new(String::new()) };
}

impl plugin::Guest for Guest {
    fn configure(config: String) -> Result<Vec<String>, String> {
        URL.set(guests::member(&config, "url").unwrap_or_default().to_owned());
        TAKE.set(guests::member(&config, "take").unwrap_or_default().to_owned());
        Ok(Vec::new())
    }
}

impl issuance_policy_hooks::Guest for Guest {
    fn decide() {
        let names = issuance::names();
        let name = names.first().cloned().unwrap_or_default();
        log::write(
            "info",
            &format!(
                "asked about {} ({}), issuers {:?}, by {}, until {:?}",
                names.join(" "),
                issuance::reason(),
                issuance::issuers(),
                issuance::challenge(),
                issuance::not_after(),
            ),
        );
        match name.split('.').next().unwrap_or_default() {
            "deny" => {
                report::note("help", "ask the shop");
                report::note("request-id", "r-7");
                issuance::deny("it is not for sale");
            }
            "silent" => {}
            "panic" => panic!("the policy's own words"),
            "loop" => loop {
                std::hint::black_box(());
            },
            "sleep" => std::thread::sleep(std::time::Duration::from_secs(60)),
            "issuer" => {
                issuance::allow();
                issuance::use_issuer("second");
            }
            "nobody" => issuance::use_issuer("nobody"),
            "profile" => {
                issuance::allow();
                issuance::use_profile("shortlived");
            }
            "ask" => match send("POST", &format!("{}/ask", url()), &name) {
                Ok(status) if (200..300).contains(&status) => issuance::allow(),
                Ok(status) => issuance::deny(&format!("the shop says {status}")),
                Err(why) => issuance::deny(&why),
            },
            "denied" => match send("GET", "https://elsewhere.example/", "") {
                Ok(_) => issuance::allow(),
                Err(why) => issuance::deny(&why),
            },
            _ => issuance::allow(),
        }
    }
}

impl access_log_hooks::Guest for Guest {
    fn write(records: Vec<String>) -> Result<(), String> {
        take("/records", &records.join("\n"))
    }
}

impl event_hooks::Guest for Guest {
    fn on_event(event: String) -> Result<(), String> {
        take("/event", &event)
    }
}

fn take(path: &str, text: &str) -> Result<(), String> {
    match TAKE.with_borrow(Clone::clone).as_str() {
        "" => match send("POST", &format!("{}{path}", url()), text)? {
            200..300 => Ok(()),
            status => Err(format!("it answers {status}")),
        },
        "panic" => panic!("the sink's own words"),
        other => Err(other.to_owned()),
    }
}

fn url() -> String {
    URL.with_borrow(Clone::clone)
}

fn send(method: &str, url: &str, body: &str) -> Result<u16, String> {
    let headers = [("content-type".to_owned(), "application/json".to_owned())];
    assert!(http::detail("was-sent").is_none(), "nothing was sent yet");
    let sent = http::send(method, url, &headers, body.as_bytes());
    log::write(
        "info",
        &format!(
            "was-sent={:?} version={:?} address={} took={} after={:?} other={:?}",
            http::detail("was-sent"),
            http::detail("http-version"),
            http::detail("address").is_some(),
            http::detail("duration-ms").is_some(),
            http::detail("retry-after-seconds"),
            http::detail("no such key"),
        ),
    );
    sent.map(|answer| answer.status).map_err(|failure| failure.message)
}

export!(Guest);
