//! Routes by a table of rules: the first that fits a request decides. Everything is checked and
//! prepared in `configure`; a request costs a call to the host for each part that a rule looks at.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use witgate_sdk::{Plugin, Router, decision};

use crate::action::Action;
use crate::config::RawConfig;
use crate::facts::Facts;
use crate::matching::Matcher;

mod action;
mod config;
mod facts;
mod matching;

witgate_sdk::lean!();
witgate_sdk::export!(RouterTable: router);

/// The plugin, configured.
#[derive(Debug)]
pub struct RouterTable {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    matcher: Matcher,
    action: Action,
}

impl Plugin for RouterTable {
    type Config = RawConfig;

    fn configure(config: RawConfig) -> Result<Self, String> {
        let mut rules = Vec::with_capacity(config.rules.len());
        for (index, raw) in config.rules.iter().enumerate() {
            let at = |error| format!("config.rules[{index}]{error}");
            let matcher = Matcher::new(raw).map_err(at)?;
            rules.push(Rule { matcher, action: Action::new(raw).map_err(at)? });
        }
        Ok(Self { rules })
    }
}

impl Router for RouterTable {
    fn route(&self) {
        let facts = Facts::default();
        let Some(rule) = self.rules.iter().find(|rule| rule.matcher.fits(&facts)) else { return };
        match &rule.action {
            Action::Upstream(name) => decision::to_upstream(name),
            Action::Split(split) => decision::to_upstream(split.pick()),
            Action::Redirect { status, to } => decision::redirect(*status, &to.fill(&facts)),
            Action::Respond { status, headers, body } => {
                decision::respond(*status, headers, body.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests;
