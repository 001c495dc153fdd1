//! Witgate: a TLS gateway whose behaviour is extended by sandboxed WebAssembly components.
//!
//! The rooms and who may name what are described in `docs/ARCHITECTURE.md` and kept by
//! `walls.rs`.

pub mod acme;
pub mod clock;
pub mod config;
pub mod fault;
pub mod http;
pub mod plugin;
pub mod store;
pub mod tls;
