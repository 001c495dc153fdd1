//! What the guests share.

/// The text of a member of a flat JSON object; guests need no more JSON than that.
pub fn member<'j>(json: &'j str, name: &str) -> Option<&'j str> {
    let (_, after) = json.split_once(&format!("\"{name}\":"))?;
    let (value, _) = after.trim_start().strip_prefix('"')?.split_once('"')?;
    Some(value)
}
