//! The field functions that `request` and `response` have in common.

use http::header::{Entry, ValueDrain};
use http::{HeaderMap, HeaderName, HeaderValue};
use wasmtime::StoreContextMut;
use wasmtime::component::{LinkerInstance, WasmList, WasmStr};

use super::super::call::rule;
use super::super::facts::Facts;
use super::{Host, Undo};
use crate::config::HeadGrant;

/// Whose fields.
pub(in super::super) trait Side: 'static {
    fn headers(host: &Host) -> wasmtime::Result<&HeaderMap>;
    fn headers_mut(host: &mut Host) -> wasmtime::Result<(&mut HeaderMap, &mut Vec<Undo>)>;
    /// The value of a field that the gateway keeps elsewhere.
    fn elsewhere<'h>(host: &'h Host, name: &str) -> Option<&'h str>;
    /// What the plugin may do with these fields.
    fn grant(facts: &Facts) -> &HeadGrant;
    /// `request` or `response`.
    const NAME: &'static str;
}

/// Whether the plugin may read a field; the log is told when not.
fn may_read<S: Side>(host: &Host, name: &str) -> bool {
    let may = S::grant(&host.facts).read.covers(name);
    if !may {
        host.facts.refuse_read(S::NAME, cut(name));
    }
    may
}

/// Fails unless the plugin may change `part`: a field, or another part of the head by its name
/// with a colon.
pub(in super::super) fn may_set<S: Side>(host: &Host, part: &str) -> wasmtime::Result<()> {
    if S::grant(&host.facts).set.covers(part) {
        return Ok(());
    }
    let (plugin, side) = (&host.facts.subject.name, S::NAME);
    Err(rule(format!(
        "the plugin may not change {part} of a {side}; to allow it, name it in \
         plugins.{plugin}.grants.{side}.set"
    )))
}

/// Links `function` when it is one of the field functions.
pub(in super::super) fn link<S: Side>(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
) -> wasmtime::Result<bool> {
    match function {
        "header" => at.func_wrap(function, |store, (name,): (WasmStr,)| {
            let store = &store;
            let name = name.to_str(store)?;
            let host = store.data();
            let value = match S::headers(host)?.get(&*name) {
                _ if !may_read::<S>(host, &name) => None,
                Some(value) => std::str::from_utf8(value.as_bytes()).ok(),
                None => S::elsewhere(host, &name),
            };
            Ok((value.map(str::to_owned),))
        })?,
        "header-bytes" => at.func_wrap(function, |store, (name,): (WasmStr,)| {
            let store = &store;
            let name = name.to_str(store)?;
            let host = store.data();
            let value = match S::headers(host)?.get(&*name) {
                _ if !may_read::<S>(host, &name) => None,
                Some(value) => Some(value.as_bytes()),
                None => S::elsewhere(host, &name).map(str::as_bytes),
            };
            Ok((value.map(<[u8]>::to_vec),))
        })?,
        "header-values" => at.func_wrap(function, |store, (name,): (WasmStr,)| {
            let store = &store;
            let name = name.to_str(store)?;
            let host = store.data();
            let all = S::headers(host)?.get_all(&*name);
            if !may_read::<S>(host, &name) {
                return Ok((Vec::new(),));
            }
            let mut values: Vec<String> = all
                .iter()
                .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
                .map(str::to_owned)
                .collect();
            if values.is_empty() {
                values.extend(S::elsewhere(host, &name).map(str::to_owned));
            }
            Ok((values,))
        })?,
        "header-names" => at.func_wrap(function, |store, (): ()| {
            let headers = S::headers(store.data())?;
            let read = &S::grant(&store.data().facts).read;
            let names = headers.keys().map(http::HeaderName::as_str);
            let names: Vec<String> =
                names.filter(|name| read.covers(name)).map(str::to_owned).collect();
            Ok((names,))
        })?,
        "set-header" => {
            at.func_wrap(function, |mut store, (name, value): (WasmStr, WasmStr)| {
                let (name, value) = field(&store, name, value)?;
                set::<S>(store.data_mut(), name, value)
            })?;
        }
        "set-header-bytes" => {
            at.func_wrap(function, |mut store, (name, value): (WasmStr, WasmList<u8>)| {
                let name = name_of(&name.to_str(&store)?)?;
                let value = value_of(&name, value.as_le_slice(&store))?;
                set::<S>(store.data_mut(), name, value)
            })?;
        }
        "append-header" => {
            at.func_wrap(function, |mut store, (name, value): (WasmStr, WasmStr)| {
                let (name, value) = field(&store, name, value)?;
                append::<S>(store.data_mut(), name, value)
            })?;
        }
        "remove-header" => at.func_wrap(function, |mut store, (name,): (WasmStr,)| {
            let name = name_of(&name.to_str(&store)?)?;
            let host = store.data_mut();
            may_set::<S>(host, name.as_str())?;
            host.charge(name.as_str().len())?;
            let (headers, journal) = S::headers_mut(host)?;
            if let Entry::Occupied(entry) = headers.try_entry(&name).map_err(|_| too_many())? {
                let (_, values) = entry.remove_entry_mult();
                journal.extend(values_before(name, values));
            }
            Ok(())
        })?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Puts a field back to `values`, in the place it has.
pub(in super::super) fn restore(
    headers: &mut HeaderMap,
    name: &HeaderName,
    mut values: impl Iterator<Item = HeaderValue>,
) {
    match values.next() {
        // The map had room for these before the edits being undone.
        Some(first) => {
            let _ = headers.try_insert(name.clone(), first);
        }
        None => {
            headers.remove(name);
        }
    }
    for value in values {
        let _ = headers.try_append(name.clone(), value);
    }
}

/// A field name that a plugin may change.
pub(in super::super) fn name_of(name: &str) -> wasmtime::Result<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
        return Err(rule(format!("{:?} is not a field name", cut(name))));
    };
    if is_owned(name.as_str()) {
        return Err(rule(format!("the gateway owns the field {name}; a plugin cannot change it")));
    }
    Ok(name)
}

/// A valid field value.
pub(in super::super) fn value_of(name: &HeaderName, value: &[u8]) -> wasmtime::Result<HeaderValue> {
    HeaderValue::from_bytes(value)
        .map_err(|_| rule(format!("the value for {name} has bytes that no field value may have")))
}

/// Whether the gateway owns a field (RFC 9110, section 7.6.1, and framing).
pub(in super::super) fn is_owned(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "content-length"
            | "host"
    )
}

fn field(
    store: &StoreContextMut<'_, Host>,
    name: WasmStr,
    value: WasmStr,
) -> wasmtime::Result<(HeaderName, HeaderValue)> {
    let name = name_of(&name.to_str(store)?)?;
    let value = value_of(&name, value.to_str(store)?.as_bytes())?;
    Ok((name, value))
}

fn set<S: Side>(host: &mut Host, name: HeaderName, value: HeaderValue) -> wasmtime::Result<()> {
    may_set::<S>(host, name.as_str())?;
    host.charge(name.as_str().len().saturating_add(value.len()))?;
    let (headers, journal) = S::headers_mut(host)?;
    match headers.try_entry(&name).map_err(|_| too_many())? {
        Entry::Occupied(mut entry) => {
            journal.extend(values_before(name, entry.insert_mult(value)));
        }
        Entry::Vacant(entry) => {
            entry.try_insert(value).map_err(|_| too_many())?;
            journal.push(Undo::Absent(name));
        }
    }
    Ok(())
}

/// How to put back what a field had.
pub(in super::super) fn values_before(
    name: HeaderName,
    mut values: ValueDrain<'_, HeaderValue>,
) -> Option<Undo> {
    let first = values.next()?;
    Some(Undo::Values(name, first, values.collect()))
}

fn append<S: Side>(host: &mut Host, name: HeaderName, value: HeaderValue) -> wasmtime::Result<()> {
    may_set::<S>(host, name.as_str())?;
    host.charge(name.as_str().len().saturating_add(value.len()))?;
    let (headers, journal) = S::headers_mut(host)?;
    let was_there = headers.try_append(name.clone(), value).map_err(|_| too_many())?;
    journal.push(if was_there { Undo::Appended(name) } else { Undo::Absent(name) });
    Ok(())
}

fn too_many() -> wasmtime::Error {
    rule("there are too many fields".to_owned())
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(80).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}
