//! From the path of a request to a name below a folder. Pure.

/// The name below the root, relative and without a final `/`, and whether the path ended with one.
/// `None` where no file can be meant: a segment that steps out, hides, or is ambiguous.
pub(crate) fn name(path: &str, shows_hidden: bool) -> Option<(String, bool)> {
    let rest = path.strip_prefix('/')?;
    let mut name = String::with_capacity(rest.len());
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() {
            // A final slash; two in a row are no file's name.
            return segments.peek().is_none().then_some((name, true));
        }
        let segment = decoded(segment)?;
        let is_hidden = segment.starts_with('.') && segment != ".well-known";
        if matches!(segment.as_str(), "." | "..") || is_hidden && !shows_hidden {
            return None;
        }
        if !name.is_empty() {
            name.push('/');
        }
        name.push_str(&segment);
    }
    Some((name, false))
}

/// A segment without its percent signs. A separator that is hidden in one, a NUL or another control
/// character, or what is not UTF-8, is no file's name here.
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let digit = |c: Option<u8>| char::from(c?).to_digit(16);
                let value = digit(rest.next())? * 16 + digit(rest.next())?;
                u8::try_from(value).ok()?
            }
            byte => byte,
        };
        if byte < 0x20 || matches!(byte, b'/' | b'\\' | 0x7f) {
            return None;
        }
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_steps_out() {
        for (path, want) in [
            ("/", Some(("", true))),
            ("/a.txt", Some(("a.txt", false))),
            ("/a/b.txt", Some(("a/b.txt", false))),
            ("/a/", Some(("a", true))),
            ("/a%20b%C3%A9.txt", Some(("a bé.txt", false))),
            ("/...x", None),
            ("/a..b", Some(("a..b", false))),
            ("/.well-known/x", Some((".well-known/x", false))),
            ("/..", None),
            ("/a/../b", None),
            ("/./a", None),
            ("/%2e%2e/a", None),
            ("/%2E./a", None),
            ("/a%2fb", None),
            ("/a%5cb", None),
            ("/a\\b", None),
            ("/a%00", None),
            ("/a%0a", None),
            ("/a%", None),
            ("/a%2", None),
            ("/a%zz", None),
            ("/a%+1", None),
            ("/%ff", None),
            ("//a", None),
            ("/a//b", None),
            ("/.git/config", None),
            ("/a/.env", None),
            ("*", None),
        ] {
            let found = name(path, false);
            let want = want.map(|(name, ends)| (name.to_owned(), ends));
            assert_eq!(found, want, "{path}");
        }
        assert_eq!(name("/.env", true), Some((".env".to_owned(), false)));
        assert_eq!(name("/..", true), None);
    }
}
