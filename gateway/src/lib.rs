//! Witgate: a TLS gateway whose behaviour is extended by sandboxed WebAssembly components.
//!
//! The rooms and who may name what are described in `docs/ARCHITECTURE.md` and kept by tests.

pub mod acme;
pub mod admin;
pub mod bounds;
pub mod cases;
pub mod catalogue;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod conformance;
pub mod explain;
pub mod fault;
pub mod feed;
pub mod fuzz;
pub mod gateway;
pub mod generation;
pub mod h1;
pub mod h2;
pub mod handover;
pub mod hex;
pub mod http;
pub mod listen;
pub mod local_acme;
pub mod migrate;
pub mod otlp;
pub mod plugin;
pub mod policy;
pub mod proxy;
pub mod route;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod trust;
pub mod upstream;
pub mod watch;
pub mod worker;
pub mod workshop;
