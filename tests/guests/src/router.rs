//! Chooses by the first path segment: `/web`, `/api`, `/redirect`, `/respond`, `/rewrite`; decides
//! nothing for any other.

#[macro_use]
#[path = "router_body.rs"]
mod body;

router!("one");
