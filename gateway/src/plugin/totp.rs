//! One-time codes by time (RFC 6238): HMAC-SHA-1, steps of 30 seconds, six digits, as everybody has
//! them. Pure.

use aws_lc_rs::hmac;

/// Seconds of a step.
pub(super) const STEP_SECONDS: u64 = 30;

/// The code of a step; none when `key` is no Base32.
pub(super) fn code(key: &str, step: u64) -> Option<String> {
    let key = base32(key)?;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    // Dynamic truncation (RFC 4226, section 5.3).
    let at = usize::from(tag.last()? & 0x0f);
    let word: [u8; 4] = tag.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(format!("{:06}", (u32::from_be_bytes(word) & 0x7fff_ffff) % 1_000_000))
}

/// Base32 (RFC 4648, section 6), as people write it: with spaces, in lower case, without padding.
fn base32(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0_u32);
    for letter in text.chars().filter(|c| !matches!(c, ' ' | '-' | '=')) {
        let value = match letter.to_ascii_uppercase() {
            letter @ 'A'..='Z' => u32::from(letter) - u32::from('A'),
            digit @ '2'..='7' => u32::from(digit) - u32::from('2') + 26,
            _ => return None,
        };
        bits = ((bits << 5) | value) & 0xfff;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    (!bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, the last six of its eight digits.
    #[test]
    fn codes_are_as_published() {
        let key = "gezd gnbv gy3t qojq gezd gnbv gy3t qojq";
        for (time, wanted) in [
            (59_u64, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(code(key, time / STEP_SECONDS).as_deref(), Some(wanted), "{time}");
        }
        assert!(code("0189", 1).is_none() && code("", 1).is_none());
    }
}
