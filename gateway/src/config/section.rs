//! Custom sections at the top level of a component: how `plugin.yaml` travels inside the file it
//! describes. Std alone, and shared with `cargo xtask`, which builds plugins before there is a
//! gateway. Source: component model, "Binary Format Explainer"; WebAssembly core, section 5.5.3.

use std::io::{self, Read, Seek, SeekFrom};

/// The section that holds the text of `plugin.yaml`.
pub const MANIFEST: &str = "witgate:plugin.yaml";

/// The section that holds Ed25519 signatures, one after the other.
pub const SIGNATURES: &str = "witgate:signatures";

/// The content of the first custom section called `name`; none when there is none. Reads only
/// headers and that section, so that a component of any size costs little.
///
/// # Errors
/// When `component` is no component, ends early, or the section is larger than [`BYTES_MAX`].
pub fn find(component: &mut (impl Read + Seek), name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut preamble = [0; PREAMBLE.len()];
    component.read_exact(&mut preamble)?;
    if preamble != PREAMBLE {
        return Err(invalid("not a component"));
    }
    loop {
        let mut id = [0];
        if component.read(&mut id)? == 0 {
            return Ok(None);
        }
        let length = number(component)?;
        let end = component.stream_position()?.saturating_add(length);
        if id == [CUSTOM] {
            let name_length = number(component)?;
            // A name of another length is another name, however long it claims to be.
            if name_length == name.len() as u64 {
                let mut found = vec![0; name.len()];
                component.read_exact(&mut found)?;
                if found == name.as_bytes() {
                    let here = component.stream_position()?;
                    let left = end.checked_sub(here).ok_or_else(|| invalid("a section is cut"))?;
                    if left > BYTES_MAX {
                        return Err(invalid("a section is larger than 1 MiB"));
                    }
                    let mut content = Vec::new();
                    component.take(left).read_to_end(&mut content)?;
                    return match content.len() as u64 == left {
                        true => Ok(Some(content)),
                        false => Err(invalid("the file ends early")),
                    };
                }
            }
        }
        component.seek(SeekFrom::Start(end))?;
    }
}

/// The component with `content` as its only custom section called `name`, at the end.
///
/// # Errors
/// When `component` is no component or ends early.
pub fn put(component: &[u8], name: &str, content: &[u8]) -> io::Result<Vec<u8>> {
    let mut with = without(component, name)?;
    let mut section = Vec::new();
    push_number(&mut section, name.len() as u64);
    section.extend_from_slice(name.as_bytes());
    section.extend_from_slice(content);
    with.push(CUSTOM);
    push_number(&mut with, section.len() as u64);
    with.extend_from_slice(&section);
    Ok(with)
}

/// The component without any custom section called `name`.
///
/// # Errors
/// When `component` is no component or ends early.
pub fn without(component: &[u8], name: &str) -> io::Result<Vec<u8>> {
    if !component.starts_with(PREAMBLE) {
        return Err(invalid("not a component"));
    }
    let mut kept = Vec::with_capacity(component.len());
    kept.extend_from_slice(PREAMBLE);
    let mut rest = component.get(PREAMBLE.len()..).unwrap_or_default();
    while let Some((&id, after)) = rest.split_first() {
        let mut cursor = after;
        let length = number(&mut cursor)?;
        let length = usize::try_from(length).map_err(|_| invalid("a section is too long"))?;
        let body = cursor.get(..length).ok_or_else(|| invalid("the file ends early"))?;
        let section_bytes = 1 + (after.len() - cursor.len()) + length;
        let (section, next) =
            rest.split_at_checked(section_bytes).ok_or_else(|| invalid("the file ends early"))?;
        if id != CUSTOM || !is_named(body, name) {
            kept.extend_from_slice(section);
        }
        rest = next;
    }
    Ok(kept)
}

fn is_named(mut body: &[u8], name: &str) -> bool {
    let length = number(&mut body);
    length.is_ok_and(|length| length == name.len() as u64) && body.starts_with(name.as_bytes())
}

/// An unsigned number of at most 32 bits (LEB128).
fn number(bytes: &mut impl Read) -> io::Result<u64> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        let mut byte = [0];
        bytes.read_exact(&mut byte)?;
        let [byte] = byte;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(invalid("a number is too long"))
}

fn push_number(to: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            to.push(low);
            return;
        }
        to.push(low | 0x80);
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// Magic, version 13, layer 1.
const PREAMBLE: &[u8] = b"\0asm\x0d\0\x01\0";
const CUSTOM: u8 = 0;
/// The largest section that is read, inclusive.
const BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn read(component: &[u8], name: &str) -> Option<Vec<u8>> {
        find(&mut Cursor::new(component), name).unwrap()
    }

    #[test]
    fn a_section_is_put_replaced_and_taken_out() {
        let mut component = PREAMBLE.to_vec();
        component.extend(b"\x00\x06\x04nameX");
        component.extend(b"\x0a\x01\x00");
        assert_eq!(read(&component, MANIFEST), None);

        let long = vec![b'y'; 300];
        let first = put(&component, MANIFEST, &long).unwrap();
        assert_eq!(read(&first, MANIFEST), Some(long));
        let second = put(&first, MANIFEST, b"name: a\n").unwrap();
        assert_eq!(read(&second, MANIFEST), Some(b"name: a\n".to_vec()));
        assert_eq!(read(&second, "name"), Some(b"X".to_vec()));
        assert_eq!(without(&second, MANIFEST).unwrap(), component);
    }

    #[test]
    fn nonsense_is_refused_wherever_it_is_cut() {
        let whole = put(PREAMBLE, MANIFEST, b"name: a\n").unwrap();
        for length in 0..whole.len() {
            let cut = &whole[..length];
            // Before its section there is nothing to miss.
            let is_whole = length == PREAMBLE.len();
            assert_eq!(find(&mut Cursor::new(cut), MANIFEST).is_ok(), is_whole, "{length}");
            assert_eq!(put(cut, MANIFEST, b"x").is_ok(), is_whole, "{length}");
        }
        assert!(find(&mut Cursor::new(b"\0asm\x01\0\0\0"), MANIFEST).is_err());
        assert!(find(&mut Cursor::new([PREAMBLE, &[0, 0xff]].concat()), MANIFEST).is_err());
    }
}
