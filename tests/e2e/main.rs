//! The real binary against real peers. One file, one promise of the README; what they stand on is in
//! `tests/harness`. `tests/setup` installs the peers, `make test` runs everything.

// A test that cannot go on has to fail at once and say where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// Each promise uses a part of the harness.
#![allow(dead_code)]

#[path = "../harness/mod.rs"]
mod harness;

mod peers;
