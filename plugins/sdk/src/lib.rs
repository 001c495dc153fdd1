//! Write Witgate plugins in Rust.
//!
//! A plugin is a type with a configuration ([`Plugin`]) that implements one or more of [`Router`],
//! [`Filter`] and [`ClientHello`], which run inline, or of [`DnsSolver`], [`IssuancePolicy`],
//! [`AccessLog`] and [`Events`], which may wait, and is exported with [`export!`]:
//!
//! ```ignore
//! use witgate_sdk::{Filter, Plugin, request};
//!
//! struct Greeter {
//!     name: String,
//! }
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     name: String,
//! }
//!
//! impl Plugin for Greeter {
//!     type Config = Config;
//!
//!     fn configure(config: Config) -> Result<Self, String> {
//!         Ok(Self { name: config.name })
//!     }
//! }
//!
//! impl Filter for Greeter {
//!     fn on_request(&self) {
//!         request::set_header("x-greeting-from", &self.name);
//!     }
//! }
//!
//! witgate_sdk::export!(Greeter: filter);
//! ```
//!
//! The modules [`body`], [`connection`], [`request`], [`response`], [`decision`], [`log`], [`state`],
//! [`crypto`], [`http`], [`hello`], [`issuance`] and [`report`] are the interfaces of the same names in `wit/`. On the host, under `cargo test`, they
//! speak to the doubles of [`testing`] instead of the gateway.

#![cfg_attr(target_family = "wasm", no_std)]

extern crate alloc;

pub mod body;
pub mod config;
pub mod connection;
pub mod crypto;
pub mod decision;
pub mod dns;
pub mod export;
pub mod field;
pub mod hello;
pub mod http;
pub mod issuance;
pub mod log;
pub mod report;
pub mod request;
pub mod response;
pub mod state;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod xml;

#[cfg(target_family = "wasm")]
#[doc(hidden)]
#[allow(clippy::all, reason = "generated")]
pub mod bindings;

/// The host's functions: the gateway's in a component, the test double's on the host.
mod host {
    #[cfg(target_family = "wasm")]
    pub(crate) use crate::bindings::imports::witgate::plugin::*;
    #[cfg(not(target_family = "wasm"))]
    pub(crate) use crate::testing::host::*;
}

use alloc::string::String;
use alloc::vec::Vec;

use serde::de::DeserializeOwned;

pub use dns::DnsSolver;

/// A `config:` that has no keys: absent or an empty map, and any key is an error.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoKeys {}

/// What every plugin is: something made from its configuration.
///
/// The gateway keeps one value per instance for as long as the instance lives and may keep many
/// instances, so what must be remembered goes to [`state`].
pub trait Plugin: Sized + Send + Sync + 'static {
    /// What `config:` of the plugin's stanza holds. Use `#[serde(deny_unknown_fields)]`, so that a
    /// misspelt key is an error, and `#[serde(default)]` for what may be left out; an absent
    /// `config:` reads like an empty map. `()` is for plugins that take none.
    type Config: DeserializeOwned;

    /// Makes the plugin. Prepare here all that the hooks need: they run for every request.
    ///
    /// # Errors
    /// A text for the operator: what is wrong with which key, and what to write instead.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// The hooks of [`Filter`] that this configuration needs; those left out cost nothing. Empty,
    /// the default, means [`Hook::Request`] and [`Hook::Response`].
    fn hooks(&self) -> Vec<Hook> {
        Vec::new()
    }
}

/// A hook that a filter asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// [`Filter::on_request`].
    Request,
    /// [`Filter::on_request_body`] with at most this many bytes.
    RequestBody(usize),
    /// [`Filter::on_response`].
    Response,
    /// No hook at all, for a configuration with nothing to do.
    None,
}

/// Chooses where a request goes, through [`decision`].
pub trait Router: Plugin {
    /// Decides about the request in hand. Deciding nothing leaves it to the site's own routes.
    fn route(&self);
}

/// Reads and changes the head of a request and of its response.
pub trait Filter: Plugin {
    /// The request's head is there and nothing has been sent upstream.
    fn on_request(&self) {}

    /// The beginning of the request's body is there; called when [`Plugin::hooks`] has
    /// [`Hook::RequestBody`]. `is_complete` says that `prefix` is the whole body.
    fn on_request_body(&self, prefix: &[u8], is_complete: bool) {
        let _ = (prefix, is_complete);
    }

    /// The response's head is there and has not been sent to the client.
    fn on_response(&self) {}
}

/// Looks at each ClientHello before any key is touched, through [`hello`].
pub trait ClientHello: Plugin {
    /// Decides about the ClientHello in hand. Deciding nothing leaves it to go on.
    fn on_client_hello(&self);
}

/// Says which names may have a certificate, through [`issuance`].
pub trait IssuancePolicy: Plugin {
    /// Decides about the certificate in question. Deciding nothing denies it.
    fn decide(&self);
}

/// Takes exchanges that have ended.
pub trait AccessLog: Plugin {
    /// Takes a batch; each record is one JSON object, as `log: {access: json}` writes it.
    ///
    /// # Errors
    /// A text for the operator. The same batch comes once more after a pause.
    fn write(&self, records: &[String]) -> Result<(), String>;
}

/// Takes what happens to certificates.
pub trait Events: Plugin {
    /// Takes an event, a JSON object.
    ///
    /// # Errors
    /// A text for the operator. The same event comes again after a pause.
    fn on_event(&self, event: &str) -> Result<(), String>;
}

/// A router, filter or client-hello plugin whose instances hand what they remember to the version that
/// takes their place. What must not get lost belongs into [`state`].
pub trait Remembering: Plugin {
    /// What the next version shall get, in a form that versions before and after understand.
    fn save(&self) -> Vec<u8>;

    /// Takes what the instance before this one saved; called right after [`Plugin::configure`].
    fn restore(&self, saved: &[u8]);
}

/// Looks at bodies or changes them as they pass: those that the filter asked for with
/// [`body::transform`] or [`body::observe`]. Exported as `export!(MyPlugin: filter, body);`. Calls for
/// different bodies alternate, so what belongs to one is kept in [`body::Bodies`].
pub trait BodyFilter: Filter {
    /// The next piece of a body, at most 64 KiB. What is not passed or written in a body that is
    /// transformed is swallowed.
    fn on_chunk(&self, body: body::Body, chunk: &[u8]);

    /// The body has come to its end; what is written now is its last.
    fn on_finish(&self, body: body::Body) {
        let _ = body;
    }

    /// The body will not come to its end.
    fn on_abandon(&self, body: body::Body) {
        let _ = body;
    }
}
