//! Conditional and range requests (RFC 9110, sections 13 and 14) about one representation. Pure.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    HeaderMap, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};

/// What is asked about.
#[derive(Debug, Clone)]
pub(super) struct Representation {
    /// Its strong tag, quotes included.
    pub(super) tag: String,
    /// When it was changed.
    pub(super) modified: SystemTime,
    /// Its length in bytes.
    pub(super) length: u64,
}

/// What the answer is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 200: the whole.
    Whole,
    /// 206: these bytes of it.
    Part(Range<u64>),
    /// 304: what the client has is good.
    NotModified,
    /// 412: what the client demands does not hold.
    Failed,
    /// 416: no such bytes.
    Unsatisfiable,
}

/// Decides in the order of RFC 9110, section 13.2.2, for a GET or HEAD.
pub(super) fn decide(fields: &HeaderMap, is_get: bool, what: &Representation) -> Answer {
    if fields.contains_key(IF_MATCH) {
        if !matches(fields, IF_MATCH, &what.tag, true) {
            return Answer::Failed;
        }
    } else if let Some(date) = date(fields.get(IF_UNMODIFIED_SINCE))
        && seconds(what.modified) > seconds(date)
    {
        return Answer::Failed;
    }
    if fields.contains_key(IF_NONE_MATCH) {
        if matches(fields, IF_NONE_MATCH, &what.tag, false) {
            return Answer::NotModified;
        }
    } else if let Some(date) = date(fields.get(IF_MODIFIED_SINCE))
        && seconds(what.modified) <= seconds(date)
    {
        return Answer::NotModified;
    }
    if !is_get || !may_range(fields, what) {
        return Answer::Whole;
    }
    let mut ranges = fields.get_all(RANGE).iter();
    match (ranges.next().and_then(|value| value.to_str().ok()), ranges.next()) {
        (Some(text), None) => range(text, what.length),
        _ => Answer::Whole,
    }
}

/// Whether `if-range` lets the range be: the client's parts are of this representation.
fn may_range(fields: &HeaderMap, what: &Representation) -> bool {
    let Some(value) = fields.get(IF_RANGE) else { return true };
    let text = value.as_bytes();
    if text.starts_with(b"\"") || text.starts_with(b"W/") {
        // A weak tag is never good enough for parts.
        return text == what.tag.as_bytes();
    }
    date(Some(value)).is_some_and(|date| seconds(date) == seconds(what.modified))
}

/// One range of bytes. What is no range, or more than one, gives the whole (section 14.2).
fn range(text: &str, length: u64) -> Answer {
    let Some(spec) = text.trim().strip_prefix("bytes=") else { return Answer::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Answer::Whole };
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| -> Option<u64> {
        let is_number = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        // More digits than a number has are a very large number.
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let part = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Some(first), None) if last.is_empty() => first..length,
        (None, Some(count)) if first.is_empty() => length.saturating_sub(count)..length,
        _ => return Answer::Whole,
    };
    match part.is_empty() {
        true => Answer::Unsatisfiable,
        false => Answer::Part(part),
    }
}

/// Whether a list of tags holds `tag`, or everything.
fn matches(fields: &HeaderMap, name: http::HeaderName, tag: &str, is_strong: bool) -> bool {
    fields.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|list| {
        list.trim() == "*"
            || list.split(',').map(str::trim).any(|one| match one.strip_prefix("W/") {
                Some(weak) => !is_strong && weak == tag,
                None => one == tag,
            })
    })
}

fn date(value: Option<&HeaderValue>) -> Option<SystemTime> {
    httpdate::parse_http_date(value?.to_str().ok()?).ok()
}

/// Dates in fields have no parts of a second.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what() -> Representation {
        let modified = UNIX_EPOCH + Duration::from_millis(784_111_777_500);
        Representation { tag: "\"a\"".into(), modified, length: 100 }
    }

    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn asked(pairs: &[(&'static str, &'static str)]) -> Answer {
        let fields = pairs
            .iter()
            .map(|(n, v)| (http::HeaderName::from_static(n), HeaderValue::from_static(v)));
        decide(&fields.collect(), true, &what())
    }

    #[test]
    fn conditions_are_met_in_order() {
        for (pairs, want) in [
            (vec![], Answer::Whole),
            (vec![("if-none-match", "\"a\"")], Answer::NotModified),
            (vec![("if-none-match", "\"b\", W/\"a\"")], Answer::NotModified),
            (vec![("if-none-match", "*")], Answer::NotModified),
            (vec![("if-none-match", "\"b\""), ("if-modified-since", THEN)], Answer::Whole),
            (vec![("if-modified-since", THEN)], Answer::NotModified),
            (vec![("if-modified-since", BEFORE)], Answer::Whole),
            (vec![("if-modified-since", "nonsense")], Answer::Whole),
            (vec![("if-match", "\"a\"")], Answer::Whole),
            (vec![("if-match", "W/\"a\"")], Answer::Failed),
            (vec![("if-match", "\"b\"")], Answer::Failed),
            (vec![("if-match", "*"), ("if-unmodified-since", BEFORE)], Answer::Whole),
            (vec![("if-unmodified-since", BEFORE)], Answer::Failed),
            (vec![("if-unmodified-since", THEN)], Answer::Whole),
            (vec![("if-match", "\"b\""), ("range", "bytes=0-1")], Answer::Failed),
        ] {
            assert_eq!(asked(&pairs), want, "{pairs:?}");
        }
    }

    #[test]
    fn one_range_is_a_part_and_nonsense_is_the_whole() {
        for (text, want) in [
            ("bytes=0-0", Answer::Part(0..1)),
            ("bytes=10-19", Answer::Part(10..20)),
            ("bytes=90-", Answer::Part(90..100)),
            ("bytes=90-1000", Answer::Part(90..100)),
            ("bytes=-10", Answer::Part(90..100)),
            ("bytes=-1000", Answer::Part(0..100)),
            ("bytes=0-99999999999999999999999", Answer::Part(0..100)),
            ("bytes=100-", Answer::Unsatisfiable),
            ("bytes=-0", Answer::Unsatisfiable),
            ("bytes=99999999999999999999999-", Answer::Unsatisfiable),
            ("bytes=5-4", Answer::Whole),
            ("bytes=0-1,5-6", Answer::Whole),
            ("bytes=-", Answer::Whole),
            ("bytes=a-b", Answer::Whole),
            ("bytes=+1-2", Answer::Whole),
            ("lines=1-2", Answer::Whole),
        ] {
            assert_eq!(range(text, 100), want, "{text}");
        }
        assert_eq!(range("bytes=0-", 0), Answer::Unsatisfiable);
    }

    #[test]
    fn a_part_only_of_what_the_client_knows() {
        let part = ("range", "bytes=0-1");
        for (condition, is_part) in [
            ("\"a\"", true),
            ("\"b\"", false),
            ("W/\"a\"", false),
            (THEN, true),
            (BEFORE, false),
            ("nonsense", false),
        ] {
            let is = asked(&[part, ("if-range", condition)]) == Answer::Part(0..2);
            assert_eq!(is, is_part, "{condition}");
        }
    }
}
