use serde::Deserialize;
use witgate_sdk::{Plugin, Router, decision, request};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    cookie: String,
    percent: u32,
    upstream: String,
}

pub struct Canary {
    config: Config,
}

impl Plugin for Canary {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        if config.percent > 100 {
            return Err("config.percent: at most 100".into());
        }
        Ok(Self { config })
    }
}

impl Router for Canary {
    fn route(&self) {
        request::remove_header("x-canary");
        let cookies = request::header("cookie").unwrap_or_default();
        let user = cookies.split("; ").find_map(|one| {
            let (name, value) = one.split_once('=')?;
            (name == self.config.cookie).then_some(value)
        });
        if user.is_some_and(|user| share(user) < self.config.percent) {
            request::set_header("x-canary", "1");
            decision::to_upstream(&self.config.upstream);
        }
    }
}

/// Where a user stands among 100 (FNV-1a): the same user at the same place each time.
fn share(user: &str) -> u32 {
    let step = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
    user.bytes().fold(2_166_136_261, step) % 100
}

witgate_sdk::export!(Canary: router);

#[cfg(test)]
mod tests {
    use witgate_sdk::testing::{Decision, Exchange, configure};

    use super::*;

    #[test]
    fn a_share_of_the_users_goes_to_the_new_version() {
        let config = serde_json::json!({"cookie": "id", "percent": 30, "upstream": "next"});
        let canary = configure::<Canary>(config).unwrap();
        let new = (0..1000).filter(|user| {
            let cookie = format!("a=b; id=user-{user}");
            let mut exchange = Exchange::get("https://example.com/").header("cookie", &cookie);
            exchange.route(&canary) == Some(Decision::Upstream("next".into()))
        });
        let count = new.count();
        assert!((200..400).contains(&count), "{count}");
        let mut exchange = Exchange::get("https://example.com/").header("x-canary", "forged");
        assert_eq!(exchange.route(&canary), None);
        assert_eq!(exchange.request_header("x-canary"), None);
    }
}
