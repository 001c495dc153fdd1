//! `wit/report.wit`.

use std::fmt::Write as _;

use wasmtime::component::LinkerInstance;

use super::Host;

/// What a guest said about the failure that it is about to return, in order, each key once.
#[derive(Debug, Default)]
pub(in super::super) struct Notes(Vec<(String, String)>);

/// Links `function` of `report`; false when there is none.
pub(in super::super) fn link(
    at: &mut LinkerInstance<'_, Host>,
    function: &str,
) -> wasmtime::Result<bool> {
    if function != "note" {
        return Ok(false);
    }
    at.func_wrap(function, |mut store, (key, value): (String, String)| {
        let host = store.data_mut();
        host.charge(key.len().saturating_add(value.len()))?;
        host.notes.note(key, value);
        Ok(())
    })?;
    Ok(true)
}

impl Notes {
    fn note(&mut self, key: String, value: String) {
        if key.is_empty() || key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return;
        }
        if let Some((_, known)) = self.0.iter_mut().find(|(known, _)| *known == key) {
            *known = value;
        } else if self.0.len() < NOTES_MAX {
            self.0.push((key, value));
        }
    }

    /// A message with what was said beside it: the help as a sentence, the rest by key.
    pub(in super::super) fn added_to(&self, mut message: String) -> String {
        let rest = self.0.iter().filter(|(key, _)| key != "help");
        let rest: Vec<String> = rest.map(|(key, value)| format!("{key}: {value}")).collect();
        if !rest.is_empty() {
            let _ = write!(message, " ({})", rest.join(", "));
        }
        if let Some((_, help)) = self.0.iter().find(|(key, _)| key == "help") {
            let _ = write!(message, "; {help}");
        }
        message
    }
}

const KEY_BYTES_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 1024;
const NOTES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_bounded_and_the_last_word_counts() {
        let mut notes = Notes::default();
        for (key, value) in
            [("help", "do it"), ("permission", "a"), ("permission", "Zone:Edit"), ("", "nothing")]
        {
            notes.note(key.to_owned(), value.to_owned());
        }
        notes.note("long".to_owned(), "x".repeat(VALUE_BYTES_MAX + 1));
        notes.note("k".repeat(KEY_BYTES_MAX + 1), "x".to_owned());
        assert_eq!(notes.added_to("no".to_owned()), "no (permission: Zone:Edit); do it");
        for n in 0..100 {
            notes.note(format!("key {n}"), "v".to_owned());
        }
        assert_eq!(notes.0.len(), NOTES_MAX);
        assert_eq!(Notes::default().added_to("no".to_owned()), "no");
    }
}
