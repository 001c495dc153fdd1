//! Ships exchanges that have ended, and what happens to certificates, to an HTTP endpoint as lines of JSON.

use serde::Deserialize;
use serde_json::{Map, Value};
use witgate_sdk::http::{Request, detail};
use witgate_sdk::{AccessLog, Events, Plugin, report};

struct LogShipper {
    config: Config,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    endpoint: String,
    #[serde(default)]
    authorization: bool,
    #[serde(default)]
    leave_out: Vec<String>,
    #[serde(default)]
    only_errors: bool,
}

impl Plugin for LogShipper {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        Ok(Self { config })
    }
}

impl AccessLog for LogShipper {
    fn write(&self, records: &[String]) -> Result<(), String> {
        let lines: Vec<String> = records.iter().filter_map(|record| self.line(record)).collect();
        if lines.is_empty() {
            return Ok(());
        }
        self.ship(lines.join("\n"))
    }
}

impl Events for LogShipper {
    fn on_event(&self, event: &str) -> Result<(), String> {
        self.ship(event.to_owned())
    }
}

impl LogShipper {
    /// A record as it is shipped; none when it is not.
    fn line(&self, record: &str) -> Option<String> {
        let mut record: Map<String, Value> = serde_json::from_str(record).ok()?;
        let status = record.get("status").and_then(Value::as_u64).unwrap_or_default();
        if self.config.only_errors && status < 500 {
            return None;
        }
        for key in &self.config.leave_out {
            record.remove(key);
        }
        serde_json::to_string(&record).ok()
    }

    fn ship(&self, lines: String) -> Result<(), String> {
        let mut request = Request::post(&self.config.endpoint).body("application/x-ndjson", lines);
        if self.config.authorization {
            request = request.bearer_secret("token");
        }
        let answer = request.send().map_err(|error| error.to_string())?;
        if answer.is_success() {
            return Ok(());
        }
        if let Some(address) = detail("address") {
            report::note("address", &address);
        }
        Err(format!("the endpoint answers {}: {}", answer.status, answer.excerpt()))
    }
}

witgate_sdk::export!(LogShipper: access_log, events);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use serde_json::json;
    use witgate_sdk::testing::{Sent, answer, configure, with_server};

    use super::*;

    fn shipped(config: Value, status: u16, records: &[&str]) -> (Result<(), String>, Vec<Sent>) {
        let shipper: LogShipper = configure(config).unwrap();
        let seen: Rc<RefCell<Vec<Sent>>> = Rc::default();
        let kept = Rc::clone(&seen);
        let server = move |sent: &Sent| {
            kept.borrow_mut().push(sent.clone());
            Ok(answer(status, json!("words")))
        };
        let records: Vec<String> = records.iter().map(|record| (*record).to_owned()).collect();
        let result = with_server(server, || shipper.write(&records));
        (result, seen.take())
    }

    #[test]
    fn records_leave_as_lines() {
        let config = json!({"endpoint": "https://a.example/in", "authorization": true,
                            "leave-out": ["client"]});
        let records = [r#"{"status":200,"client":"192.0.2.1"}"#, r#"{"status":503}"#];
        let (result, sent) = shipped(config, 202, &records);
        assert_eq!(result, Ok(()));
        assert_eq!(sent[0].body, b"{\"status\":200}\n{\"status\":503}");
        assert_eq!(sent[0].header("authorization"), Some("Bearer {{secret:token}}"));
    }

    #[test]
    fn only_errors_are_worth_a_request() {
        let config = || json!({"endpoint": "https://a.example/in", "only-errors": true});
        let (result, sent) = shipped(config(), 202, &[r#"{"status":200}"#]);
        assert_eq!((result, sent.len()), (Ok(()), 0));
        let (_, sent) = shipped(config(), 202, &[r#"{"status":200}"#, r#"{"status":500}"#]);
        assert_eq!(sent[0].body, b"{\"status\":500}");
    }

    #[test]
    fn what_is_not_taken_is_an_error() {
        let (result, _) = shipped(json!({"endpoint": "https://a.example/in"}), 500, &["{}"]);
        assert_eq!(result, Err("the endpoint answers 500: \"words\"".to_owned()));
    }
}
