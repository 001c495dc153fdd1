//! Durations and sizes as people write them.

use std::time::Duration;

/// Reads `20ms`, `5s`, `2m`, `1h`, `1d`, or several of them in a row (`1h30m`). `None` when the
/// text is no duration or is longer than [`DURATION_MAX`].
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let tail = rest.get(digits..)?;
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let unit = tail.get(..end)?;
        let millis = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = tail.get(end..)?;
    }
    (!text.is_empty() && total <= DURATION_MAX).then_some(total)
}

/// The shortest text that [`duration`] reads as this.
pub(super) fn duration_text(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let fits = |(_, unit): &&(&str, u64)| millis.is_multiple_of(*unit);
    let (name, unit) = DURATION_UNITS.iter().find(fits).unwrap_or(&("ms", 1));
    format!("{}{name}", millis / unit)
}

/// Reads `16MiB`, `64KiB`, `1GB` or plain bytes. `None` when the text is no size.
pub(super) fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text.get(..digits)?.parse().ok()?;
    let unit = text.get(digits..)?;
    let bytes = match unit {
        "" => 1,
        _ => SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(bytes)
}

/// The shortest text that [`size`] reads as this.
pub(super) fn size_text(bytes: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| bytes > 0 && bytes.is_multiple_of(*unit);
    match SIZE_UNITS.iter().filter(fits).max_by_key(|(_, unit)| *unit) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// What was probably meant by a text that is no size: `16mb`, `16 MiB`, `16M`.
pub(super) fn size_meant(text: &str) -> Option<String> {
    let text: String = text.split_whitespace().collect();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    number.parse::<u64>().ok()?;
    let known = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let known = known.or_else(|| {
        let binary = format!("{unit}ib");
        SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(&binary))
    });
    known.map(|(name, _)| format!("{number}{name}"))
}

/// What was probably meant by a text that is no duration: `10`, `10 s`, `10sec`, `5 minutes`.
pub(super) fn duration_meant(text: &str) -> Option<String> {
    let text: String = text.split_whitespace().collect::<String>().to_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    number.parse::<u64>().ok()?;
    let unit = match unit {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => "ms",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

/// The longest wait that a file may ask for. Far below what clocks overflow at.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// In milliseconds, the longest first.
const DURATION_UNITS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// In bytes.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis) in [
            ("20ms", 20),
            ("5s", 5_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("90m", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
            assert_eq!(duration_text(Duration::from_millis(millis)), text);
        }
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5_400)));
        for text in ["", "s", "5", "5 s", "-5s", "1.5s", "5x", "367d", "99999999999999999999d"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("64KiB", 65_536),
            ("16MiB", 16 << 20),
            ("1GB", 1_000_000_000),
            ("0", 0),
            ("1500B", 1_500),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
            assert_eq!(size_text(bytes), text);
        }
        assert_eq!(size("123"), Some(123));
        for text in ["", "MiB", "1mib", "1 MiB", "-1", "99999999999TiB"] {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!(size_meant("16 mb").as_deref(), Some("16MB"));
        assert_eq!(size_meant("16m").as_deref(), Some("16MiB"));
        assert_eq!(duration_meant("10").as_deref(), Some("10s"));
        assert_eq!(duration_meant("5 minutes").as_deref(), Some("5m"));
    }
}
