//! What is wrong with a configuration: the key, the line, the cause and the remedy.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::consistency::Contradiction;

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{}: {source}; check the path given with `--config` and the file's permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file can't be understood.
    #[error("{}: line {line}: {}{message}", path.display(), key.as_ref().map(|k| format!("`{k}`: ")).unwrap_or_default())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key with its sections, as `guest.interface`, where the trouble is with one.
        key: Option<String>,
        /// The cause and the remedy.
        message: String,
    },
}

/// Turns the parser's error into one for a person.
pub(super) fn explain(error: &toml::de::Error, text: &str, path: &Path) -> ConfigError {
    // Without a span the trouble is with the whole document.
    let span = error.span().unwrap_or(0..0);
    let line = line_of(span.start, text);
    let key = DeTable::parse(text).ok().and_then(|document| key_at(document.get_ref(), &span));
    let (key, message) = reword(error.message(), key);
    ConfigError::Invalid { path: path.into(), line, key, message }
}

/// Finds the place of what only shows when the networks are looked at together.
pub(super) fn contradiction(found: Contradiction, text: &str, path: &Path) -> ConfigError {
    let Contradiction { zone, key, message } = found;
    let document = DeTable::parse(text).ok();
    let section = document.as_ref().and_then(|document| {
        let document = document.get_ref();
        match zone.checked_sub(1) {
            None => document.get("guest"),
            Some(further) => document.get("zone")?.get_ref().as_array()?.get(further),
        }
    });
    // A key that is not written has its section's place.
    let written = section.and_then(|s| s.get_ref().as_table()?.get_key_value(key)).map(|(key, _)| key.span());
    let start = written.or_else(|| section.map(Spanned::span)).map_or(0, |span| span.start);
    let name = if zone == 0 { "guest" } else { "zone" };
    ConfigError::Invalid { path: path.into(), line: line_of(start, text), key: Some(format!("{name}.{key}")), message }
}

/// The line, counted from 1, of the byte at this place.
fn line_of(start: usize, text: &str) -> usize {
    text.get(..start).map_or(1, |before| before.matches('\n').count() + 1)
}

/// The dotted path of the innermost key that this span lies in.
fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let inside = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref().to_string();
        if let Some(inner) = tables(value).find_map(|table| key_at(table, span)) {
            return Some(format!("{name}.{inner}"));
        }
        (inside(key.span()) || inside(value.span())).then_some(name)
    })
}

/// The tables in this value: itself, or its elements.
fn tables<'v, 'i>(value: &'v Spanned<DeValue<'i>>) -> impl Iterator<Item = &'v DeTable<'i>> {
    let (table, array) = match value.get_ref() {
        DeValue::Table(table) => (Some(table), None),
        DeValue::Array(array) => (None, Some(array)),
        _ => (None, None),
    };
    table.into_iter().chain(array.into_iter().flat_map(|a| a.iter().filter_map(|v| v.get_ref().as_table())))
}

/// Adds the remedy to serde's messages; ours already have it.
fn reword(message: &str, key: Option<String>) -> (Option<String>, String) {
    // serde quotes names in backticks: "unknown field `a`, expected one of `b`, `c`".
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    match quoted.as_slice() {
        [field, ..] if message.starts_with("missing field") => {
            // The document's own span is empty, and so lies in whichever section is first.
            let section = key.filter(|_| *field != "guest");
            let key = section.map_or_else(|| (*field).to_owned(), |k| format!("{k}.{field}"));
            let example = match key.as_str() {
                "guest" | "guest.interface" => "name the interface that guests are on: [guest] interface = \"eth1\"",
                "zone.interface" => "name the interface that these guests are on: interface = \"eth1\"",
                "zone.name" => "give the network a name of its own: name = \"staff\"",
                _ => "add it",
            };
            (Some(key), format!("missing: {example}"))
        }
        [wrong, known @ ..] if unknown && !known.is_empty() => {
            let what = if message.starts_with("unknown field") { "unknown key" } else { "unknown value" };
            let nearest = known
                .iter()
                .map(|name| (strsim::damerau_levenshtein(wrong, name), *name))
                .min()
                // Beyond half the name it is another word, not a slip.
                .filter(|(distance, name)| *distance <= name.len().max(4) / 2);
            let hint = nearest.map(|(_, name)| format!("did you mean `{name}`? ")).unwrap_or_default();
            (key, format!("{what} `{wrong}`: {hint}Known here: {}", known.join(", ")))
        }
        _ => (key, message.trim_end().to_owned()),
    }
}
