//! The Huffman code of HPACK (RFC 7541, section 5.2 and appendix B). The code is canonical: the lengths
//! of its words are enough to tell them all.

/// Appends the code of a text, filled up with ones.
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut held, mut bits) = (0u64, 0u32);
    for byte in text {
        let length = u32::from(LENGTHS.get(usize::from(*byte)).copied().unwrap_or_default());
        let code = TABLES.codes.get(usize::from(*byte)).copied().unwrap_or_default();
        held = held << length | u64::from(code);
        bits += length;
        while bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
    }
    if bits > 0 {
        out.push((held << (8 - bits)) as u8 | 0xff >> bits);
    }
}

/// Appends the text of a code. `None`: it ends in the middle of a word, is filled up with anything but
/// ones or by more than 7 of them, or has the word for its end in it (RFC 7541, section 5.2).
pub fn decode(code: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // The bits that are held begin at the highest.
    let (mut held, mut bits) = (0u64, 0u32);
    let mut rest = code.iter();
    loop {
        while bits <= 56 {
            let Some(byte) = rest.next() else { break };
            held |= u64::from(*byte) << (56 - bits);
            bits += 8;
        }
        let word = TABLES.short.get((held >> (64 - SHORT_BITS)) as usize).copied();
        let (symbol, length) = match word {
            Some(word) if word != 0 => (usize::from(word & 0xff), u32::from(word >> 8)),
            _ => long((held >> 32) as u32)?,
        };
        if length > bits {
            break;
        }
        // The word for the end is not part of any text.
        out.push(u8::try_from(symbol).ok()?);
        held <<= length;
        bits -= length;
    }
    let filling = !(u64::MAX.checked_shr(bits).unwrap_or_default());
    (bits < 8 && held & filling == filling).then_some(())
}

/// The symbol of a word of more than [`SHORT_BITS`] bits at the beginning of `window`, and its length.
fn long(window: u32) -> Option<(usize, u32)> {
    for length in SHORT_BITS + 1..=LONGEST_BITS {
        let index = length as usize;
        let (first, count) = (*TABLES.first.get(index)?, *TABLES.count.get(index)?);
        let at = (window >> (32 - length)).wrapping_sub(first);
        if at < count {
            let symbol = TABLES.sorted.get((TABLES.offset.get(index)? + at) as usize)?;
            return Some((usize::from(*symbol), length));
        }
    }
    None
}

/// What follows from the lengths.
struct Tables {
    /// The word of each symbol.
    codes: [u32; 257],
    /// Symbols in the order of their words.
    sorted: [u16; 257],
    /// By length: its first word, the number of its words, and where they are in `sorted`.
    first: [u32; LONGEST_BITS as usize + 1],
    count: [u32; LONGEST_BITS as usize + 1],
    offset: [u32; LONGEST_BITS as usize + 1],
    /// By the next bits: the length in the high byte, the symbol in the low; 0 for longer words.
    short: [u16; 1 << SHORT_BITS],
}

static TABLES: Tables = tables();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, where it cannot fail later"
)]
const fn tables() -> Tables {
    let mut tables = Tables {
        codes: [0; 257],
        sorted: [0; 257],
        first: [0; LONGEST_BITS as usize + 1],
        count: [0; LONGEST_BITS as usize + 1],
        offset: [0; LONGEST_BITS as usize + 1],
        short: [0; 1 << SHORT_BITS],
    };
    let (mut code, mut at, mut length) = (0u32, 0u32, 1u32);
    while length <= LONGEST_BITS {
        code <<= 1;
        tables.first[length as usize] = code;
        tables.offset[length as usize] = at;
        let mut symbol = 0;
        while symbol < 257 {
            let own = if symbol == 256 { LONGEST_BITS } else { LENGTHS[symbol] as u32 };
            if own == length {
                tables.codes[symbol] = code;
                tables.sorted[at as usize] = symbol as u16;
                if length <= SHORT_BITS {
                    let mut rest = 0;
                    while rest < 1 << (SHORT_BITS - length) {
                        let index = (code << (SHORT_BITS - length) | rest) as usize;
                        tables.short[index] = (length as u16) << 8 | symbol as u16;
                        rest += 1;
                    }
                }
                code += 1;
                at += 1;
            }
            symbol += 1;
        }
        tables.count[length as usize] = code - tables.first[length as usize];
        length += 1;
    }
    tables
}

/// Words of up to so many bits are found by one look.
const SHORT_BITS: u32 = 9;
const LONGEST_BITS: u32 = 30;
/// The length in bits of the word of each byte (RFC 7541, appendix B); that of the end has 30.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(code: &[u8]) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        decode(code, &mut text).map(|()| text)
    }

    #[test]
    fn every_byte_comes_back() {
        for byte in 0..=255 {
            for count in [1, 2, 7, 100] {
                let text = vec![byte; count];
                let mut code = Vec::new();
                encode(&text, &mut code);
                assert_eq!(decoded(&code), Some(text), "{byte}");
            }
        }
        let all: Vec<u8> = (0..=255).collect();
        let mut code = Vec::new();
        encode(&all, &mut code);
        assert_eq!(decoded(&code), Some(all));
        assert_eq!(decoded(&[]), Some(Vec::new()));
    }

    #[test]
    fn only_up_to_seven_ones_fill_up() {
        // `0` is 00000.
        assert_eq!(decoded(&[0b0000_0111]), Some(b"0".to_vec()));
        for bad in [
            &[0b0000_0110][..],
            &[0b0000_0111, 0xff],
            &[0xff],
            // The word for the end.
            &[0xff, 0xff, 0xff, 0xff],
            &[0b0000_0111, 0xff, 0xff, 0xff, 0xff],
            &[0xff, 0xff, 0xff, 0xfc],
        ] {
            assert_eq!(decoded(bad), None, "{bad:x?}");
        }
    }
}
