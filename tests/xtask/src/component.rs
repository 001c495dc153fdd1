//! Reads the names of what a component imports and exports: enough of the binary format to see that
//! a build is what it should be. Source: component model, "Binary Format Explainer".

/// Names of interfaces on the outside of a component.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outside {
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
}

/// Reads a component.
pub(crate) fn outside(component: &[u8]) -> Result<Outside, String> {
    let mut outside = Outside::default();
    let Some(mut sections) = component.strip_prefix(PREAMBLE) else {
        return Err("not a component".to_owned());
    };
    while let Some((&id, rest)) = sections.split_first() {
        sections = rest;
        let length = number(&mut sections)?;
        let mut section = take(&mut sections, length)?;
        match id {
            IMPORTS => {
                for _ in 0..number(&mut section)? {
                    outside.imports.push(name(&mut section)?);
                    sort_and_index(&mut section)?;
                }
            }
            EXPORTS => {
                for _ in 0..number(&mut section)? {
                    outside.exports.push(name(&mut section)?);
                    sort_and_index(&mut section)?;
                    if byte(&mut section)? == 1 {
                        sort_and_index(&mut section)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(outside)
}

fn name(bytes: &mut &[u8]) -> Result<String, String> {
    if byte(bytes)? > 1 {
        return Err("an import or export has a kind of name that is not known here".to_owned());
    }
    let length = number(bytes)?;
    String::from_utf8(take(bytes, length)?.to_vec()).map_err(|_| "a name is not UTF-8".to_owned())
}

/// An instance by its index; plugins have nothing else on their outside.
fn sort_and_index(bytes: &mut &[u8]) -> Result<(), String> {
    if byte(bytes)? != INSTANCE {
        return Err("imports or exports something that is not an interface".to_owned());
    }
    number(bytes).map(drop)
}

fn byte(bytes: &mut &[u8]) -> Result<u8, String> {
    let (&first, rest) = bytes.split_first().ok_or("the file ends early")?;
    *bytes = rest;
    Ok(first)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or("the file ends early")?;
    *bytes = rest;
    Ok(taken)
}

/// An unsigned number of at most 32 bits (LEB128).
fn number(bytes: &mut &[u8]) -> Result<usize, String> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        let byte = byte(bytes)?;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number is too long".to_owned())
}

/// Magic, version 13, layer 1.
const PREAMBLE: &[u8] = b"\0asm\x0d\0\x01\0";
const IMPORTS: u8 = 10;
const EXPORTS: u8 = 11;
const INSTANCE: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_nonsense_is_refused() {
        let mut component = PREAMBLE.to_vec();
        component.extend(b"\x00\x02\x01x\x0a\x08\x01\x00\x03a:b\x05\x00");
        component.extend(b"\x0b\x09\x01\x00\x03c:d\x05\x01\x00");
        let names = outside(&component).unwrap();
        assert_eq!(
            (names.imports, names.exports),
            (vec!["a:b".to_owned()], vec!["c:d".to_owned()])
        );
        for length in 0..component.len() {
            // Cut anywhere: an error or fewer names, never a panic.
            let _ = outside(&component[..length]);
        }
        assert!(outside(b"\0asm\x01\0\0\0").is_err());
    }
}
