//! What keeps the greedy and the slow from taking the gateway from the others: how slow the other side of a
//! connection may be ([`Pace`]), how many connections an address may have ([`Addresses`]), how many
//! bytes may wait ([`Memory`]), and a count and a line in the log for each refusal ([`Notices`]). Knows
//! neither HTTP nor TLS; the worker owns one of each.

mod addresses;
mod memory;
mod notice;
mod pace;

pub use addresses::{AddressPlace, Addresses};
pub use memory::{Memory, Share};
pub use notice::{Notices, REASONS, Reason};
pub use pace::Pace;

use std::net::{IpAddr, Ipv6Addr};

/// Who holds an address: one IPv4 address, but a whole /64 of IPv6, since that is what one client has.
pub fn holder(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}
