//! What the checker found, as people read it: place, excerpt, suggestion.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::node::{Place, Unreadable};
use crate::fault::Fault;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but probably does not do what was meant.
    Warning,
}

/// One finding in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file as it was named.
    pub file: PathBuf,
    /// From 1; 0 when the finding is about the file as a whole.
    pub line: u64,
    /// In characters, from 1; 0 when the finding is about the file as a whole.
    pub column: u64,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// The line of the file (long lines cut, secrets and control characters replaced).
    pub excerpt: Option<Excerpt>,
    /// What to write instead.
    pub suggestion: Option<String>,
}

/// A line of the file and the part of it that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The line's text, as far as it is shown.
    pub text: String,
    /// Characters of `text` before the marked part.
    pub before: usize,
    /// Characters that are marked, at least one.
    pub width: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        match self.line {
            0 => write!(f, "{}: {severity}: {}", self.file.display(), self.message)?,
            line => {
                let (file, column) = (self.file.display(), self.column);
                write!(f, "{file}:{line}:{column}: {severity}: {}", self.message)?;
            }
        }
        if let Some(excerpt) = &self.excerpt {
            let number = self.line.to_string();
            write!(f, "\n{number:>5} | {}", excerpt.text)?;
            let (before, width) = (excerpt.before, excerpt.width);
            write!(f, "\n      | {:before$}{}", "", "^".repeat(width))?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(f, "\nhelp: {suggestion}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a file, and its warnings, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The findings, at least one of them an error.
    pub diagnostics: Vec<Diagnostic>,
    /// Findings beyond those that are listed.
    pub omitted: usize,
}

impl Report {
    /// A report about a file as a whole.
    pub(super) fn whole(file: &Path, message: String, suggestion: Option<String>) -> Self {
        let diagnostic = Diagnostic {
            file: file.to_owned(),
            line: 0,
            column: 0,
            severity: Severity::Error,
            message,
            excerpt: None,
            suggestion,
        };
        Self { diagnostics: vec![diagnostic], omitted: 0 }
    }

    /// Always the operator's: the file is wrong.
    pub fn fault(&self) -> Fault {
        Fault::Operator
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            write!(f, "{diagnostic}\n\n")?;
        }
        let count = |s| self.diagnostics.iter().filter(|d| d.severity == s).count();
        let plural = |n: usize, what: &str| match n {
            1 => format!("1 {what}"),
            _ => format!("{n} {what}s"),
        };
        write!(f, "{}", plural(count(Severity::Error), "error"))?;
        if count(Severity::Warning) > 0 {
            write!(f, ", {}", plural(count(Severity::Warning), "warning"))?;
        }
        match self.omitted {
            0 => Ok(()),
            n => write!(f, ", and {n} more"),
        }
    }
}

impl std::error::Error for Report {}

/// A finding before its excerpt is cut from the text.
#[derive(Debug)]
pub(super) struct Finding {
    /// Where.
    pub(super) at: Place,
    /// How bad.
    pub(super) severity: Severity,
    /// What.
    pub(super) message: String,
    /// What to write instead.
    pub(super) suggestion: Option<String>,
}

/// The text under the findings.
pub(super) struct Source<'a> {
    /// The file as it was named.
    pub(super) file: &'a Path,
    /// Its text.
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// The report of a text that is no YAML. Without a tree nobody knows where secrets are, so a
    /// line that may hold one is not shown.
    pub(super) fn unreadable(&self, error: Unreadable) -> Report {
        let hidden_bytes = match may_hold_secret(self.text, error.at.line) {
            true => self.text.len(),
            false => 0,
        };
        let finding = Finding {
            at: error.at,
            severity: Severity::Error,
            message: error.why,
            suggestion: error.help,
        };
        Report {
            diagnostics: self.diagnostics(vec![finding], std::slice::from_ref(&(0..hidden_bytes))),
            omitted: 0,
        }
    }

    /// Puts findings in the order of the file and cuts their excerpts. `hidden` are the byte ranges
    /// of secrets, which no excerpt shows.
    pub(super) fn diagnostics(
        &self,
        mut findings: Vec<Finding>,
        hidden: &[Range<usize>],
    ) -> Vec<Diagnostic> {
        findings.sort_by_key(|f| (f.at.line, f.at.column, f.severity));
        let lines = LineIndex::new(self.text);
        let cut = |f: Finding| Diagnostic {
            file: self.file.to_owned(),
            line: f.at.line,
            column: f.at.column,
            severity: f.severity,
            message: f.message,
            excerpt: lines.excerpt(self.text, f.at, hidden),
            suggestion: f.suggestion,
        };
        findings.into_iter().map(cut).collect()
    }
}

/// Where each line starts.
struct LineIndex(Vec<Range<usize>>);

impl LineIndex {
    fn new(text: &str) -> Self {
        let mut start = 0;
        let mut lines = Vec::new();
        for line in text.split_inclusive('\n') {
            lines.push(start..start + line.trim_end_matches(['\n', '\r']).len());
            start += line.len();
        }
        Self(lines)
    }

    fn excerpt(&self, text: &str, at: Place, hidden: &[Range<usize>]) -> Option<Excerpt> {
        let index = usize::try_from(at.line).ok()?.checked_sub(1)?;
        let range = self.0.get(index)?.clone();
        let column = usize::try_from(at.column).ok()?.checked_sub(1)?;
        let line = text.get(range.clone())?;
        // Characters to show, with the number of the character in the file each one stands for.
        let mut shown: Vec<(usize, char)> = Vec::new();
        let mut is_hidden_before = false;
        for (number, (offset, c)) in line.char_indices().enumerate() {
            let byte = range.start + offset;
            let is_hidden = hidden.iter().any(|h| h.contains(&byte));
            match is_hidden {
                true if !is_hidden_before => shown.extend("[secret]".chars().map(|c| (number, c))),
                true => {}
                false => shown.push((number, printable(c))),
            }
            is_hidden_before = is_hidden;
            // One line of megabytes is cut anyway.
            if number > column + COLUMNS_MAX {
                break;
            }
        }
        let before = shown.partition_point(|(number, _)| *number < column);
        let marked = text.get(at.start..at.start + at.length).filter(|_| at.length > 0);
        let marked =
            marked.and_then(|m| m.lines().next()).map_or(1, |m| m.trim_end().chars().count());
        let end = shown.partition_point(|(number, _)| *number < column + marked.max(1));
        let skip = if before > COLUMNS_MAX / 2 { before - COLUMNS_MAX / 3 } else { 0 };
        let mut kept: String = shown.iter().skip(skip).take(COLUMNS_MAX).map(|(_, c)| c).collect();
        let mut before = before - skip;
        if skip > 0 {
            kept.insert(0, '…');
            before += 1;
        }
        let kept_chars = kept.chars().count();
        if shown.len() > skip + COLUMNS_MAX || line.chars().nth(column + COLUMNS_MAX + 2).is_some()
        {
            kept.push('…');
        }
        let width = (end.saturating_sub(skip) + usize::from(skip > 0)).min(kept_chars);
        let width = width.saturating_sub(before).max(1);
        Some(Excerpt { text: kept.trim_end().to_owned(), before, width })
    }
}

/// Whether a line is in or below a key that holds secrets.
fn may_hold_secret(text: &str, line: u64) -> bool {
    let mut below: Option<usize> = None;
    for (number, text) in (1..=line).zip(text.lines()) {
        let content = text.trim_start();
        if content.is_empty() {
            continue;
        }
        let indent = text.len() - content.len();
        if below.is_some_and(|start| indent <= start) && number < line {
            below = None;
        }
        if below.is_none() && ["secrets", "eab"].iter().any(|key| content.contains(key)) {
            below = Some(indent);
        }
    }
    below.is_some()
}

/// Keeps carets aligned and terminals unharmed.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        // Bidirectional controls can make a line read as another one.
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    }
}

/// A value of the file inside a message: short, printable, in backticks.
pub(super) fn quoted(text: &str) -> String {
    if has_password(text) {
        return "`[secret]`".to_owned();
    }
    let mut short: String = text.chars().take(QUOTED_CHARS_MAX).map(printable).collect();
    if text.chars().nth(QUOTED_CHARS_MAX).is_some() {
        short.push('…');
    }
    format!("`{short}`")
}

/// Whether a text is a URL with a user or password in it.
pub(super) fn has_password(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| {
        rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
    })
}

/// The candidate that was probably meant by `text`, if one is near enough.
pub(super) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if text.chars().nth(QUOTED_CHARS_MAX).is_some() {
        return None;
    }
    // `serverName` and `server_name` are `server-name`.
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '_' | ' ' => plain.push('-'),
            c if c.is_ascii_uppercase() && !plain.is_empty() && !plain.ends_with('-') => {
                plain.push('-');
                plain.push(c.to_ascii_lowercase());
            }
            c => plain.push(c.to_ascii_lowercase()),
        }
    }
    let lower = text.to_lowercase();
    let distance = |c: &str| {
        strsim::damerau_levenshtein(&lower, c).min(strsim::damerau_levenshtein(&plain, c))
    };
    let near = (text.chars().count() / 3).max(1);
    let scored = candidates.into_iter().map(|c| (distance(&c.to_lowercase()), c));
    scored.filter(|(d, _)| *d <= near).min_by_key(|(d, _)| *d).map(|(_, c)| c)
}

/// Characters of an excerpt.
const COLUMNS_MAX: usize = 100;
/// Characters of a value in a message.
const QUOTED_CHARS_MAX: usize = 60;
