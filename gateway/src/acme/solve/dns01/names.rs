//! Where a challenge's record has to be: its name (RFC 8555, section 8.4), behind CNAMEs when the
//! owner delegated it, and the zones that may hold it.

use aws_lc_rs::digest::{SHA256, digest};

use super::Dns01Error;
use crate::acme::dns::Resolvers;
use crate::config::Hostname;

/// The name of a domain's challenge record; of an account's own when its URL is given.
///
/// # Errors
/// When the domain is an address or too long.
pub fn challenge_name(domain: &Hostname, account: Option<&str>) -> Result<String, Dns01Error> {
    let failed = |why| Dns01Error::Name { name: domain.to_string(), why };
    if domain.ip().is_some() {
        return Err(failed("DNS-01 cannot prove an IP address; use http-01 or tls-alpn-01"));
    }
    let name = match account {
        Some(url) => format!("{}._acme-challenge.{domain}", account_label(url)),
        None => format!("_acme-challenge.{domain}"),
    };
    match name.len() <= NAME_BYTES_MAX {
        true => Ok(name),
        false => Err(failed("with `_acme-challenge.` before it the name is too long for the DNS")),
    }
}

/// The label of an account, by its URL: ten bytes of its digest in Base32
/// (draft-ietf-acme-dns-account-label, section 3.1; RFC 4648, section 6, in lower case).
fn account_label(url: &str) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digest = digest(&SHA256, url.as_bytes());
    let bits =
        digest.as_ref().iter().take(10).flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1));
    let bits: Vec<u8> = bits.collect();
    let digits = bits.chunks(5).filter_map(|five| {
        let value = five.iter().fold(0, |value, bit| value << 1 | usize::from(*bit));
        DIGITS.get(value).map(|digit| char::from(*digit))
    });
    format!("_{}", digits.collect::<String>())
}

/// The zones that may hold a name: the name and all that is above it, longest first.
pub fn candidates(name: &str) -> Vec<String> {
    let mut all = vec![name.to_owned()];
    let mut rest = name;
    while let Some((_, above)) = rest.split_once('.') {
        all.push(above.to_owned());
        rest = above;
    }
    all
}

/// The names at which a record for `name` can be, best first: the end of its chain of CNAMEs, or
/// the name itself. It is both when the CNAME comes from a wildcard that was made for something
/// else: a record at the name itself then takes precedence, and is what the owner means.
///
/// A resolver that fails does not stop it: the name reached so far is used.
///
/// # Errors
/// When the chain is a loop, too long, or leads to what is no host name.
pub async fn follow(resolvers: &Resolvers, name: &str) -> Result<Vec<String>, Dns01Error> {
    let mut chain = vec![name.to_owned()];
    let mut current = name.to_owned();
    loop {
        let target = match resolvers.alias(&current).await {
            Ok(Some(target)) => target,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(
                    name = current,
                    %error,
                    "cannot find out whether the challenge name is a CNAME; going on as if it were \
                     none"
                );
                break;
            }
        };
        let refused = |why| Dns01Error::Chain { chain: chain.join(" -> "), why };
        if !is_plain(&target) {
            return Err(refused("it leads to a name with unusual characters"));
        }
        if chain.contains(&target) {
            return Err(refused("it is a loop"));
        }
        if chain.len() > CHAIN_MAX {
            return Err(refused("it is too long"));
        }
        chain.push(target.clone());
        current = target;
    }
    let Some(first) = chain.get(1) else { return Ok(vec![name.to_owned()]) };
    let is_wildcard = is_from_wildcard(resolvers, name, first).await;
    tracing::info!(
        name,
        chain = chain.join(" -> "),
        is_wildcard,
        "challenge name is a CNAME; its record goes to the end of the chain"
    );
    match is_wildcard {
        true => Ok(vec![name.to_owned(), current]),
        false => Ok(vec![current]),
    }
}

/// Whether a name beside `name` that nobody would have made is the same alias.
async fn is_from_wildcard(resolvers: &Resolvers, name: &str, target: &str) -> bool {
    let Some((_, above)) = name.split_once('.') else { return false };
    let probe = format!("_{}.{above}", uuid::Uuid::now_v7().simple());
    probe.len() <= NAME_BYTES_MAX
        && matches!(resolvers.alias(&probe).await, Ok(Some(same)) if same == target)
}

/// Whether a name from the DNS may go to a plugin and from there into the URLs of an API.
fn is_plain(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label)
}

/// In text form without the final dot, inclusive (RFC 1035, section 2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// Names behind the first, inclusive. CAs stop earlier.
const CHAIN_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::fake_dns::{FakeDns, Mood, Records, quick};

    async fn followed(records: &Records, name: &str) -> Result<Vec<String>, String> {
        let server = FakeDns::start(1, records.clone(), Mood::Honest).await;
        let resolvers = Resolvers::new(vec![server.address()], quick());
        follow(&resolvers, name).await.map_err(|e| e.to_string())
    }

    #[test]
    fn names_and_candidates() {
        let name = |t| challenge_name(&Hostname::parse(t).unwrap(), None);
        let found = name("A.Bücher.example").unwrap();
        assert_eq!(found, "_acme-challenge.a.xn--bcher-kva.example");
        assert_eq!(
            candidates(&found),
            [
                "_acme-challenge.a.xn--bcher-kva.example",
                "a.xn--bcher-kva.example",
                "xn--bcher-kva.example",
                "example"
            ]
        );
        assert!(name("192.0.2.1").is_err());
        assert!(name(&["abcdefghijklmnopqrstuvwxyz"; 9].join(".")).is_err());
    }

    /// The example of draft-ietf-acme-dns-account-label, section 3.2.
    #[test]
    fn an_account_has_a_name_of_its_own() {
        let url = "https://example.com/acme/acct/ExampleAccount";
        let domain = Hostname::parse("www.example.org").unwrap();
        let found = challenge_name(&domain, Some(url)).unwrap();
        assert_eq!(found, "_ujmmovf2vn55tgye._acme-challenge.www.example.org");
    }

    #[tokio::test]
    async fn chains_are_followed_to_their_end() {
        let records = Records::default();
        records.set_cname("_acme-challenge.a.example", "A.B.example.");
        records.set_cname("a.b.example", "c.example");
        records.set_txt("_acme-challenge.plain.example", &["v"]);
        assert_eq!(followed(&records, "_acme-challenge.a.example").await.unwrap(), ["c.example"]);
        let plain = followed(&records, "_acme-challenge.plain.example").await.unwrap();
        assert_eq!(plain, ["_acme-challenge.plain.example"]);
    }

    #[tokio::test]
    async fn loops_endless_chains_and_odd_names_are_refused() {
        let records = Records::default();
        records.set_cname("_acme-challenge.a.example", "b.example");
        records.set_cname("b.example", "_acme-challenge.a.example");
        let error = followed(&records, "_acme-challenge.a.example").await.unwrap_err();
        assert!(error.contains("_acme-challenge.a.example -> b.example"), "{error}");
        assert!(error.contains("it is a loop"), "{error}");
        for n in 0..20 {
            records.set_cname(&format!("n{n}.example"), &format!("n{}.example", n + 1));
        }
        assert!(followed(&records, "n0.example").await.unwrap_err().contains("too long"));
        records.set_cname("odd.example", "a\\.b.example");
        let odd = followed(&records, "odd.example").await;
        assert!(odd.unwrap_err().contains("unusual characters"));
    }

    #[tokio::test]
    async fn a_wildcard_is_not_taken_for_a_delegation() {
        let records = Records::default();
        records.set_cname("*.a.example", "balancer.example");
        let found = followed(&records, "_acme-challenge.a.example").await.unwrap();
        assert_eq!(found, ["_acme-challenge.a.example", "balancer.example"]);
    }

    #[tokio::test]
    async fn a_broken_resolver_does_not_stop_it() {
        let server = FakeDns::start(1, Records::default(), Mood::Refusing).await;
        let resolvers = Resolvers::new(vec![server.address()], quick());
        assert_eq!(follow(&resolvers, "a.example").await.unwrap(), ["a.example"]);
    }
}
