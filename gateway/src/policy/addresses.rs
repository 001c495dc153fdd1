//! Who may come, by address. Pure.

use std::net::IpAddr;

use crate::config::policies::Addresses;

/// Whether a client may come: not when it is denied, nor when others alone are allowed.
pub(super) fn may_come(addresses: &Addresses, client: IpAddr) -> bool {
    // A listener on `::` sees IPv4 clients as mapped addresses.
    let client = client.to_canonical();
    let holds = |networks: &[ipnet::IpNet]| networks.iter().any(|net| net.contains(&client));
    !holds(&addresses.deny) && (addresses.allow.is_empty() || holds(&addresses.allow))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_wins_over_allowed() {
        let networks = |list: &[&str]| list.iter().map(|n| n.parse().unwrap()).collect();
        for (allow, deny, client, may) in [
            (&[][..], &[][..], "192.0.2.1", true),
            (&["10.0.0.0/8"], &[], "10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "::ffff:10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "192.0.2.1", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", false),
            (&[], &["2001:db8::/32"], "2001:db8::7", false),
            (&[], &["2001:db8::/32"], "2001:db9::7", true),
        ] {
            let addresses = Addresses { allow: networks(allow), deny: networks(deny) };
            assert_eq!(
                may_come(&addresses, client.parse().unwrap()),
                may,
                "{client} {addresses:?}"
            );
        }
    }
}
