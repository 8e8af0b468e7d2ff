//! A TOML file as a flat list of (key, value in words, line). A table `[cache]` and a dotted key are the same.

use crate::keys::{Key, Kind};
use dspm_proto::Error;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Longest file that is read: a configuration is small, and anything else was named by mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One assignment of the file.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    pub key: &'static Key,
    pub text: String,
    pub line: usize,
}

/// Reads a file.
///
/// # Errors
/// [`Error::Usage`] naming the file, and the line where there is one.
pub(crate) fn read(path: &Path) -> Result<Vec<Assignment>, Error> {
    let fail = |e: std::io::Error| {
        Error::Usage(match e.kind() {
            std::io::ErrorKind::NotFound => format!("the config file {} does not exist", path.display()),
            _ => format!("the config file {} cannot be read: {e}", path.display()),
        })
    };
    let meta = std::fs::metadata(path).map_err(fail)?;
    if meta.is_dir() || meta.len() > FILE_BYTES_MAX {
        return Err(Error::Usage(format!("{} is not a config file", path.display())));
    }
    let bytes = std::fs::read(path).map_err(fail)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::Usage(format!("the config file {} is not UTF-8 text", path.display())))?;
    parse(path, &text)
}

/// Parses the text of a file.
///
/// # Errors
/// [`Error::Usage`] with file, line, key and what was expected.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Vec<Assignment>, Error> {
    let line = |at: usize| 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count();
    let table = DeTable::parse(text).map_err(|e| {
        let at = e.span().map_or(0, |s| s.start);
        Error::Usage(format!("{}, line {}: not TOML: {}", path.display(), line(at), e.message().replace('\n', ", ")))
    })?;
    let mut found = Vec::new();
    walk(table.get_ref(), "", &mut |name, value, at| {
        let line = line(at);
        let Some(key) = Key::find(name) else {
            return Err(Error::Usage(format!("{}, line {line}: {}", path.display(), unknown(name))));
        };
        let text = in_words(key.kind, value).ok_or_else(|| wrong(path, line, key, &shown(value)))?;
        found.push(Assignment { key, text, line });
        Ok(())
    })?;
    Ok(found)
}

/// Message for a value that is not of its key's type.
pub(crate) fn wrong(path: &Path, line: usize, key: &Key, found: &str) -> Error {
    Error::Usage(format!(
        "{}, line {line}: {}: expected {}, found {found}",
        path.display(),
        key.name,
        key.kind.expected()
    ))
}

/// Message for a key that does not exist.
pub(crate) fn unknown(name: &str) -> String {
    let short: String = name.chars().take(80).collect();
    match Key::nearest(name) {
        Some(near) => format!("unknown key {short:?}; did you mean {near:?}?"),
        None => format!("unknown key {short:?}"),
    }
}

type Visit<'v> = dyn FnMut(&str, &DeValue<'_>, usize) -> Result<(), Error> + 'v;

fn walk(table: &DeTable<'_>, prefix: &str, visit: &mut Visit<'_>) -> Result<(), Error> {
    for (key, value) in table.iter() {
        let name = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        match value.get_ref() {
            DeValue::Table(inner) if Key::find(&name).is_none() => {
                // A misspelt table is named itself, not its first key.
                let known = crate::KEYS.iter().any(|k| k.name.starts_with(&format!("{name}.")));
                if !known {
                    visit(&name, value.get_ref(), key.span().start)?;
                }
                walk(inner, &name, visit)?;
            }
            other => visit(&name, other, key.span().start)?,
        }
    }
    Ok(())
}

/// The value as the words that an argument would use, if it has the TOML type that the key wants.
fn in_words(kind: Kind, value: &DeValue<'_>) -> Option<String> {
    match (kind, value) {
        (Kind::Count(..) | Kind::OptionalCount(..), DeValue::Integer(n)) => Some(n.to_string()),
        (Kind::Size(_) | Kind::Share, DeValue::Integer(n)) => Some(n.to_string()),
        (Kind::Switch, DeValue::Boolean(b)) => Some(b.to_string()),
        (Kind::Addresses, DeValue::Array(items)) => {
            let texts: Option<Vec<&str>> = items.iter().map(|i| i.get_ref().as_str()).collect();
            texts.map(|t| t.join(","))
        }
        (Kind::Addresses | Kind::Count(..) | Kind::OptionalCount(..), _) => None,
        (_, DeValue::String(s)) => Some(s.to_string()),
        _ => None,
    }
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(s) => format!("{:?}", s.chars().take(60).collect::<String>()),
        DeValue::Integer(n) => n.to_string(),
        DeValue::Float(n) => n.to_string(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(Path::new("/c/x.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn tables_and_dotted_keys_are_the_same() {
        let dotted = parse(Path::new("f"), "cache.size = \"1MiB\"\n").unwrap();
        let table = parse(Path::new("f"), "[cache]\nsize = \"1MiB\"\n").unwrap();
        assert_eq!((dotted[0].key.name, dotted[0].text.as_str(), dotted[0].line), ("cache.size", "1MiB", 1));
        assert_eq!((table[0].key.name, table[0].text.as_str(), table[0].line), ("cache.size", "1MiB", 2));
    }

    #[test]
    fn errors_name_file_line_key_and_what_was_expected() {
        assert_eq!(
            error("copies = 2\ndurabilty = \"disk\"\n"),
            "/c/x.toml, line 2: unknown key \"durabilty\"; did you mean \"durability\"?"
        );
        assert_eq!(error("[cach]\nsize = 1\n"), "/c/x.toml, line 1: unknown key \"cach\"");
        assert!(
            error("[cache]\nsise = 1\n").contains("line 2: unknown key \"cache.sise\"; did you mean \"cache.size\"?")
        );
        assert!(
            error("copies = \"two\"\n").contains("line 1: copies: expected a whole number from 1 to 16, found \"two\"")
        );
        assert!(error("lease = 300\n").contains("lease: expected a time such as 100ms"));
        assert!(error("nodes = [1]\n").contains("nodes: expected a list of addresses"));
        assert!(error("a = 1\n\n=\n").contains("line 3: not TOML"));
    }
}
