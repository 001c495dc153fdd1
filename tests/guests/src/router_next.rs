//! As `router`, another version: what it puts into `x-router` says so.

#[macro_use]
#[path = "router_body.rs"]
mod body;

router!("two");
