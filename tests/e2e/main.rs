//! The real binary against real peers. One file, one promise of the README; what they stand on is in
//! `tests/harness`. `tests/setup` installs the peers, `make test` runs everything.

// A test that cannot go on has to fail at once and say where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../harness/mod.rs"]
mod harness;

mod access_log;
mod acme_http01;
mod acme_tls_alpn01;
mod balance;
mod bodies;
mod bounds;
mod ca_faults;
mod certs_cli;
mod certs_import;
mod certs_life;
mod cli;
mod client_failures;
mod clock;
mod dns01_pebble;
mod drain;
mod endurance;
mod errors;
mod explain;
mod fastapi;
mod forward_auth;
mod grpc;
mod headers;
mod house;
mod http2;
mod http2_rules;
mod http3;
mod interim;
mod keylog;
mod kill9;
mod languages;
mod local_acme;
mod mutual_tls;
mod on_demand;
mod otlp;
mod passthrough;
mod pebble_accounts;
mod peers;
mod plugin_grants;
mod plugin_swap;
mod plugin_trap;
mod plugin_trials;
mod plugins;
mod policies;
mod proxy_protocol;
mod redirect;
mod reload;
mod renewal_under_load;
mod resolve;
mod responses;
mod rfc2136;
mod routes;
mod smuggling;
mod sni;
mod solvers;
mod split_mirror;
mod store_disk;
mod store_shared;
mod tickets;
mod upgrade;
mod upstream_failures;
mod upstream_tls;
mod worlds;
