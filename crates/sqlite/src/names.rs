//! Names: what a program typed → the dataset's name, and which names are journals.

use dspm_proto::limits::NAME_MAX;

/// Most bytes of a name that a database is opened by: fewer than of other datasets, because SQLite makes longer names of
/// it for its journals.
pub const THROUGH_SQLITE_MAX: usize = 504;

/// What a name is the name of, by its form. SQLite makes all but the first itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A database.
    Main,
    /// A rollback journal.
    Journal,
    /// A write-ahead log: there is none, ever.
    Wal,
    /// The super-journal of a transaction over several databases: `…-mjHHHHHH9HH`.
    Super,
}

/// Which kind of file SQLite means.
pub fn kind(name: &[u8]) -> Kind {
    if name.ends_with(b"-journal") {
        Kind::Journal
    } else if name.ends_with(b"-wal") {
        Kind::Wal
    } else if name.len() > 12 && is_super_suffix(&name[name.len() - 12..]) {
        Kind::Super
    } else {
        Kind::Main
    }
}

/// The form that SQLite's core gives to super-journals: `-mj%06X9%02X`.
fn is_super_suffix(tail: &[u8]) -> bool {
    tail.starts_with(b"-mj") && tail[9] == b'9' && tail[3..].iter().all(u8::is_ascii_hexdigit)
}

/// Removes `.`, `..` and double slashes, without asking any file system. A leading `..` of a relative name stays.
pub fn clean(typed: &str) -> String {
    let absolute = typed.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in typed.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if absolute => {}
                _ => parts.push(".."),
            },
            name => parts.push(name),
        }
    }
    let path = parts.join("/");
    if absolute { format!("/{path}") } else { path }
}

/// Why no database can be opened by that name. SQLite itself refuses long ones too, but only behind this and without a word.
pub fn refuse(name: &str) -> Option<String> {
    if name.len() > THROUGH_SQLITE_MAX {
        let (has, other) = (name.len(), NAME_MAX);
        return Some(format!(
            "the name has {has} bytes; SQLite can open databases whose name has at most {THROUGH_SQLITE_MAX} \
             (datasets that are not opened through SQLite: {other})"
        ));
    }
    if name.contains('\0') {
        return Some("the name has a NUL".into());
    }
    if name.is_empty() || name == "/" || name == ".." || name.ends_with("/..") {
        return Some(format!("'{name}' names no dataset"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_lexically() {
        for (typed, name) in [
            ("a.db", "a.db"),
            ("./a.db", "a.db"),
            ("a/../b c.db", "b c.db"),
            ("../a.db", "../a.db"),
            ("../../a", "../../a"),
            ("/x//y/./z.db", "/x/y/z.db"),
            ("/../a", "/a"),
            ("größe/ü.db", "größe/ü.db"),
            ("", ""),
            (".", ""),
            ("/", "/"),
        ] {
            assert_eq!(clean(typed), name, "{typed}");
            assert_eq!(clean(name), name, "cleaning twice");
        }
    }

    #[test]
    fn impossible_names_are_refused() {
        assert!(refuse("").is_some() && refuse("/").is_some() && refuse("../..").is_some());
        assert!(refuse(&"x".repeat(THROUGH_SQLITE_MAX)).is_none() && refuse("..a").is_none());
        for size in [THROUGH_SQLITE_MAX + 1, NAME_MAX, NAME_MAX + 1] {
            let why = refuse(&"x".repeat(size)).unwrap();
            assert!(why.contains(&size.to_string()) && why.contains("504") && why.contains("1024"), "{why}");
        }
    }

    #[test]
    fn journals_are_told_by_their_form() {
        assert_eq!(kind(b"a.db"), Kind::Main);
        assert_eq!(kind(b"a.db-journal"), Kind::Journal);
        assert_eq!(kind(b"a.db-wal"), Kind::Wal);
        assert_eq!(kind(b"a.db-mj01A2B39CD"), Kind::Super);
        assert_eq!(kind(b"a.db-mj01A2B38CD"), Kind::Main);
        assert_eq!(kind(b"-mj01A2B39CD"), Kind::Main);
        assert_eq!(kind(b""), Kind::Main);
    }
}
