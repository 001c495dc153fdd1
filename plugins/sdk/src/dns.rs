//! What a DNS-01 solver implements, and what most of them need.
//!
//! The host computes names and values, finds candidate zones, serialises calls, waits for
//! propagation, retries and cleans up; a solver speaks its provider's API. Names are absolute, in
//! lower case and without the final dot. Every function must be safe to repeat.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{borrow::ToOwned, format};

use crate::Plugin;
use crate::http;

/// A DNS-01 solver.
pub trait DnsSolver: Plugin {
    /// Facts about the provider.
    fn traits(&self) -> Traits {
        Traits::default()
    }

    /// Picks the zone that holds a record; `candidates` are the name's suffixes, longest first.
    ///
    /// # Errors
    /// [`Failure::zone_not_found`] when the account has none of them, or what the provider says.
    fn find_zone(&self, candidates: &[String]) -> Result<Zone, Failure>;

    /// Makes sure that the TXT record set `name` has all of `values`, beside what else it holds.
    /// Returns a handle, any text, for [`poll`](Self::poll) and [`cleanup`](Self::cleanup).
    ///
    /// # Errors
    /// What the provider says.
    fn present(
        &self,
        zone: &Zone,
        name: &str,
        values: &[String],
        ttl_seconds: u32,
    ) -> Result<String, Failure>;

    /// Whether a change is live on the provider's servers: none when it is or when the provider
    /// cannot tell, else the seconds after which to ask again.
    ///
    /// # Errors
    /// What the provider says.
    fn poll(&self, zone: &Zone, handle: &str) -> Result<Option<u32>, Failure> {
        let _ = (zone, handle);
        Ok(None)
    }

    /// Removes exactly `values` from the TXT record set `name`. Absent values count as removed.
    /// `handle` is empty when the host does not know whether `present` came through.
    ///
    /// # Errors
    /// What the provider says.
    fn cleanup(
        &self,
        zone: &Zone,
        name: &str,
        values: &[String],
        handle: &str,
    ) -> Result<(), Failure>;
}

/// A zone at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Its name: one of the candidates.
    pub name: String,
    /// The provider's id of it, or an empty text.
    pub handle: String,
}

/// Facts about a provider. What is not set is left to the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traits(Vec<(String, String)>);

impl Traits {
    /// One call at a time for each zone: for APIs that rewrite a whole record set.
    #[must_use]
    pub fn per_zone(self) -> Self {
        self.with("parallelism", "per-zone")
    }

    /// One call at a time for each credential.
    #[must_use]
    pub fn per_credential(self) -> Self {
        self.with("parallelism", "per-credential")
    }

    /// How many TXT values one name can hold.
    #[must_use]
    pub fn values_per_name_max(self, count: u32) -> Self {
        self.with("max-values-per-name", &count.to_string())
    }

    /// The smallest TTL that the provider takes.
    #[must_use]
    pub fn ttl_seconds_min(self, seconds: u32) -> Self {
        self.with("ttl-min", &seconds.to_string())
    }

    /// How long the provider says that a change may take.
    #[must_use]
    pub fn propagation_seconds_max(self, seconds: u32) -> Self {
        self.with("propagation-max", &seconds.to_string())
    }

    /// Names and values as in `wit/dns-solver.wit`.
    pub fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Why a call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A code of `wit/dns-solver.wit`.
    pub code: &'static str,
    /// For the operator, with the provider's own words; without secrets.
    pub message: String,
    /// How long the provider asked to wait.
    pub retry_after_seconds: Option<u32>,
}

impl Failure {
    /// A failure of any code.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_seconds: None }
    }

    /// The account has none of the candidates.
    pub fn zone_not_found(candidates: &[String]) -> Self {
        let names = candidates.join(", ");
        Self::new("zone-not-found", format!("the account has no zone for any of: {names}"))
    }

    /// The provider cannot tell which zones there are: [`DnsSolver::find_zone`] leaves it to the host,
    /// which asks the DNS.
    pub fn ask_dns() -> Self {
        Self::new("ask-dns", "the provider does not tell which zones there are")
    }

    /// The failure of an answer that is no success, in the words of `provider`.
    pub fn refused(provider: &str, answer: &http::Response) -> Self {
        let words = format!("{provider} answered {}: {}", answer.status, answer.excerpt());
        Self::from_answer(answer, words)
    }

    /// The failure that an answer's status stands for; `message` should hold the provider's words.
    pub fn from_answer(answer: &http::Response, message: impl Into<String>) -> Self {
        let code = match answer.status {
            401 => "auth",
            402 => "account-not-entitled",
            403 => "forbidden",
            404 => "zone-not-found",
            409 | 412 => "conflict",
            429 => "rate-limited",
            // A timeout or "too early" is worth a repetition; all other 4xx stay as they are.
            408 | 425 => "unavailable",
            400..500 => "invalid",
            _ => "unavailable",
        };
        let retry_after_seconds = match code {
            "rate-limited" | "unavailable" => answer.retry_after_seconds(),
            _ => None,
        };
        Self { code, message: message.into(), retry_after_seconds }
    }
}

impl From<http::Error> for Failure {
    fn from(error: http::Error) -> Self {
        let code = match error.code.as_str() {
            "denied" => "forbidden",
            "unknown-secret" | "refused-credential" => "auth",
            "bad-request" => "invalid",
            _ => "unavailable",
        };
        Self::new(code, error.message)
    }
}

#[cfg(target_family = "wasm")]
impl From<Failure>
    for crate::bindings::dns_solver::exports::witgate::plugin::dns_solver_hooks::Failure
{
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code.to_owned(),
            message: failure.message,
            retry_after_seconds: failure.retry_after_seconds,
        }
    }
}

/// Sends a request to `provider`; an answer that is no success becomes a failure with its words.
///
/// # Errors
/// When there is no answer, or it is no success.
pub fn send(request: http::Request, provider: &str) -> Result<http::Response, Failure> {
    let answer = request.send()?;
    if answer.is_success() { Ok(answer) } else { Err(Failure::refused(provider, &answer)) }
}

/// As [`send`], for something that may be absent: none when the answer is 404.
///
/// # Errors
/// When there is no answer, or it is neither a success nor 404.
pub fn send_optional(
    request: http::Request,
    provider: &str,
) -> Result<Option<http::Response>, Failure> {
    let answer = request.send()?;
    match answer.status {
        404 => Ok(None),
        _ if answer.is_success() => Ok(Some(answer)),
        _ => Err(Failure::refused(provider, &answer)),
    }
}

/// A TXT record as a provider holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The provider's id of the record.
    pub id: String,
    /// Its text, in whatever form the provider shows it.
    pub content: String,
}

impl Held {
    /// A record whose id is a number or a text.
    pub fn new(id: impl ToString, content: impl Into<String>) -> Self {
        Self { id: id.to_string(), content: content.into() }
    }
}

/// [`DnsSolver::find_zone`] of an API that is asked for one name: the first candidate for which
/// `ask` has a handle.
///
/// # Errors
/// [`Failure::zone_not_found`], or the first failure of `ask`.
pub fn first_zone(
    candidates: &[String],
    mut ask: impl FnMut(&str) -> Result<Option<String>, Failure>,
) -> Result<Zone, Failure> {
    for name in candidates {
        if let Some(handle) = ask(name)? {
            return Ok(Zone { name: name.clone(), handle });
        }
    }
    Err(Failure::zone_not_found(candidates))
}

/// [`DnsSolver::find_zone`] of an API that lists zones: the longest candidate among `zones`, which
/// are names (a final dot is no matter) and handles.
///
/// # Errors
/// [`Failure::zone_not_found`] when none is.
pub fn listed_zone(
    candidates: &[String],
    zones: impl IntoIterator<Item = (String, String)>,
) -> Result<Zone, Failure> {
    let mut best: Option<Zone> = None;
    for (name, handle) in zones {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let is_longer = best.as_ref().is_none_or(|best| name.len() > best.name.len());
        if is_longer && candidates.contains(&name) {
            best = Some(Zone { name, handle });
        }
    }
    best.ok_or_else(|| Failure::zone_not_found(candidates))
}

/// [`DnsSolver::present`] of an API with a record for each value: adds those that are not `there`.
///
/// # Errors
/// The first failure of `add`.
pub fn add_missing(
    values: &[String],
    there: &[Held],
    mut add: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let has = |value: &str| there.iter().any(|held| unquote_txt(&held.content) == value);
    values.iter().filter(|value| !has(value)).try_for_each(|value| add(value))
}

/// [`DnsSolver::cleanup`] of an API with a record for each value: removes those of `there` that have
/// one of `values`.
///
/// # Errors
/// The first failure of `remove`.
pub fn remove_held(
    values: &[String],
    there: Vec<Held>,
    remove: impl FnMut(&Held) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let is_ours = |held: &&Held| values.contains(&unquote_txt(&held.content));
    there.iter().filter(is_ours).try_for_each(remove)
}

/// [`DnsSolver::present`] of an API that takes whole record sets: the set with `values` beside what
/// is `there`, each as `write` writes it; none when it has them all.
pub fn set_with(
    there: &[String],
    values: &[String],
    write: impl Fn(&str) -> String,
) -> Option<Vec<String>> {
    let has = |value: &str| there.iter().any(|content| unquote_txt(content) == value);
    let missing: Vec<String> =
        values.iter().filter(|value| !has(value)).map(|value| write(value)).collect();
    (!missing.is_empty()).then(|| there.iter().cloned().chain(missing).collect())
}

/// [`DnsSolver::cleanup`] of an API that takes whole record sets: what is left without `values`, maybe
/// nothing; none when it has none of them.
pub fn set_without(there: &[String], values: &[String]) -> Option<Vec<String>> {
    let is_left = |content: &&String| !values.contains(&unquote_txt(content));
    let left: Vec<String> = there.iter().filter(is_left).cloned().collect();
    (left.len() < there.len()).then_some(left)
}

/// An API with a record for each value; [`by_record!`](crate::by_record!) makes a solver of it.
pub trait RecordApi {
    /// The TXT records of a name.
    ///
    /// # Errors
    /// What the provider says.
    fn records(&self, zone: &Zone, name: &str) -> Result<Vec<Held>, Failure>;

    /// Adds one.
    ///
    /// # Errors
    /// What the provider says.
    fn add(&self, zone: &Zone, name: &str, value: &str, ttl_seconds: u32) -> Result<(), Failure>;

    /// Removes one; one that is gone already counts as removed.
    ///
    /// # Errors
    /// What the provider says.
    fn remove(&self, zone: &Zone, name: &str, held: &Held) -> Result<(), Failure>;
}

/// A TXT record set as a provider holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordSet {
    /// Its values, in whatever form the provider shows them. Empty means that there is no set.
    pub contents: Vec<String>,
    /// Its TTL, where there is one.
    pub ttl_seconds: Option<u32>,
    /// What tells this state of it from another, where the provider has such a thing.
    pub tag: String,
}

/// An API that takes whole record sets; [`by_set!`](crate::by_set!) makes a solver of it, one call for
/// each zone at a time.
pub trait SetApi {
    /// The TXT record set of a name.
    ///
    /// # Errors
    /// What the provider says.
    fn read(&self, zone: &Zone, name: &str) -> Result<RecordSet, Failure>;

    /// Makes `after`, which has a TTL, of the set that is `before`: an empty one is removed. Returns the
    /// handle for [`DnsSolver::poll`].
    ///
    /// # Errors
    /// What the provider says.
    fn write(
        &self,
        zone: &Zone,
        name: &str,
        before: &RecordSet,
        after: &RecordSet,
    ) -> Result<String, Failure>;

    /// A value as the API wants it.
    fn content(value: &str) -> String {
        quote_txt(value)
    }
}

/// [`DnsSolver::present`] with a [`RecordApi`].
///
/// # Errors
/// What the provider says.
pub fn present_records(
    api: &impl RecordApi,
    zone: &Zone,
    name: &str,
    values: &[String],
    ttl_seconds: u32,
) -> Result<String, Failure> {
    let there = api.records(zone, name)?;
    add_missing(values, &there, |value| api.add(zone, name, value, ttl_seconds))?;
    Ok(String::new())
}

/// [`DnsSolver::cleanup`] with a [`RecordApi`].
///
/// # Errors
/// What the provider says.
pub fn cleanup_records(
    api: &impl RecordApi,
    zone: &Zone,
    name: &str,
    values: &[String],
) -> Result<(), Failure> {
    remove_held(values, api.records(zone, name)?, |held| api.remove(zone, name, held))
}

/// [`DnsSolver::present`] with a [`SetApi`]. A set that is there keeps its TTL.
///
/// # Errors
/// What the provider says.
pub fn present_set<A: SetApi>(
    api: &A,
    zone: &Zone,
    name: &str,
    values: &[String],
    ttl_seconds: u32,
) -> Result<String, Failure> {
    let before = api.read(zone, name)?;
    let Some(contents) = set_with(&before.contents, values, A::content) else {
        return Ok(String::new());
    };
    let ttl_seconds = Some(before.ttl_seconds.unwrap_or(ttl_seconds));
    let after = RecordSet { contents, ttl_seconds, tag: before.tag.clone() };
    api.write(zone, name, &before, &after)
}

/// [`DnsSolver::cleanup`] with a [`SetApi`].
///
/// # Errors
/// What the provider says.
pub fn cleanup_set(
    api: &impl SetApi,
    zone: &Zone,
    name: &str,
    values: &[String],
) -> Result<(), Failure> {
    let before = api.read(zone, name)?;
    match set_without(&before.contents, values) {
        Some(contents) => {
            let after = RecordSet { contents, ..before.clone() };
            api.write(zone, name, &before, &after).map(drop)
        }
        None => Ok(()),
    }
}

/// `present` and `cleanup` of a [`DnsSolver`](crate::dns::DnsSolver) that is a
/// [`RecordApi`](crate::dns::RecordApi).
#[macro_export]
macro_rules! by_record {
    () => {
        $crate::__by!(present_records, cleanup_records);
    };
}

/// `present` and `cleanup` of a [`DnsSolver`](crate::dns::DnsSolver) that is a
/// [`SetApi`](crate::dns::SetApi).
#[macro_export]
macro_rules! by_set {
    () => {
        $crate::__by!(present_set, cleanup_set);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __by {
    ($present:ident, $cleanup:ident) => {
        fn present(
            &self,
            zone: &$crate::dns::Zone,
            name: &str,
            values: &[$crate::export::String],
            ttl_seconds: u32,
        ) -> Result<$crate::export::String, $crate::dns::Failure> {
            $crate::dns::$present(self, zone, name, values, ttl_seconds)
        }

        fn cleanup(
            &self,
            zone: &$crate::dns::Zone,
            name: &str,
            values: &[$crate::export::String],
            _handle: &str,
        ) -> Result<(), $crate::dns::Failure> {
            $crate::dns::$cleanup(self, zone, name, values)
        }
    };
}

/// A solver without a `config:`, lean and exported: `solver! { /// What it is. Name }` makes its type.
#[macro_export]
macro_rules! solver {
    ($(#[$about:meta])* $name:ident) => {
        $crate::lean!();
        $crate::export!($name: dns_solver);

        $(#[$about])*
        #[derive(Debug)]
        pub struct $name;

        impl $crate::Plugin for $name {
            type Config = $crate::NoKeys;

            fn configure(_config: $crate::NoKeys) -> Result<Self, $crate::export::String> {
                Ok(Self)
            }
        }
    };
}

/// The part of `name` before `zone`, without the dot between: empty for the zone itself, and the
/// whole name when it is not in the zone.
pub fn relative<'n>(name: &'n str, zone: &str) -> &'n str {
    match name.strip_suffix(zone) {
        Some("") => "",
        Some(before) => before.strip_suffix('.').unwrap_or(name),
        None => name,
    }
}

/// [`relative`], with `@` for the zone itself, as zone files and most APIs write it.
pub fn owner<'n>(name: &'n str, zone: &str) -> &'n str {
    match relative(name, zone) {
        "" => "@",
        relative => relative,
    }
}

/// Puts the text of a TXT record into the quoted form of zone files (RFC 1035, section 5.1), in
/// strings of at most 255 bytes.
pub fn quote_txt(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for (position, byte) in text.bytes().enumerate() {
        if position > 0 && position % 255 == 0 {
            quoted.push_str("\" \"");
        }
        match byte {
            b'"' | b'\\' => {
                quoted.push('\\');
                quoted.push(char::from(byte));
            }
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => quoted.push_str(&format!("\\{byte:03}")),
        }
    }
    quoted.push('"');
    quoted
}

/// The text of a TXT record in any form that providers return: quoted in one or several strings,
/// with escapes, or plain.
pub fn unquote_txt(content: &str) -> String {
    let content = content.trim();
    if !content.starts_with('"') {
        return content.to_owned();
    }
    let mut text = Vec::with_capacity(content.len());
    let mut is_inside = false;
    let mut bytes = content.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => is_inside = !is_inside,
            b'\\' => match bytes.next() {
                Some(first @ b'0'..=b'9') => {
                    let tens = bytes.next().unwrap_or(b'0').wrapping_sub(b'0');
                    let ones = bytes.next().unwrap_or(b'0').wrapping_sub(b'0');
                    let hundreds = (first - b'0').wrapping_mul(100);
                    text.push(hundreds.wrapping_add(tens.wrapping_mul(10)).wrapping_add(ones));
                }
                Some(escaped) => text.push(escaped),
                None => {}
            },
            _ if is_inside => text.push(byte),
            _ => {}
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn txt_survives_quoting() {
        let long = "x".repeat(600);
        for text in ["abc_-9", "", "say \"hi\" \\ there", "naïve;\t", long.as_str()] {
            assert_eq!(unquote_txt(&quote_txt(text)), text);
        }
        assert_eq!(quote_txt("a\"b"), r#""a\"b""#);
        assert_eq!(unquote_txt("plain"), "plain");
        assert_eq!(unquote_txt(r#""one " "two""#), "one two");
        assert_eq!(unquote_txt(r#""\065\"#), "A");
    }

    #[test]
    fn names_are_relative_to_their_zone() {
        for (name, zone, wanted) in [
            ("_acme-challenge.a.example.com", "example.com", "_acme-challenge.a"),
            ("example.com", "example.com", ""),
            ("anexample.com", "example.com", "anexample.com"),
            ("example.org", "example.com", "example.org"),
        ] {
            assert_eq!(relative(name, zone), wanted, "{name}");
        }
    }

    #[test]
    fn a_status_has_a_code() {
        let answer = |status| http::Response {
            status,
            headers: alloc::vec![("retry-after".to_owned(), "7".to_owned())],
            body: Vec::new(),
        };
        for (status, code, wait) in [
            (401, "auth", None),
            (403, "forbidden", None),
            (404, "zone-not-found", None),
            (409, "conflict", None),
            (422, "invalid", None),
            (429, "rate-limited", Some(7)),
            (503, "unavailable", Some(7)),
        ] {
            let failure = Failure::from_answer(&answer(status), "no");
            assert_eq!((failure.code, failure.retry_after_seconds), (code, wait));
        }
    }
}
