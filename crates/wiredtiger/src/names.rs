//! Names of files: relative to the database's home, parts divided by '/'. Directories are not kept; they are where files
//! have them in their names.

use crate::failure::Failure;

/// Longest name of a file, in bytes.
pub const NAME_MAX: usize = 496;

/// The directory of the log of a mongod, which makes it beside this file system and expects it to be there.
const JOURNAL: &str = "journal";

/// Checks a file's name.
pub(crate) fn check(path: &str) -> Result<(), Failure> {
    if path.len() > NAME_MAX {
        let text = format!("a file's name has at most {NAME_MAX} bytes, '{path}' has {}", path.len());
        return Err(Failure::new(libc::ENAMETOOLONG, text));
    }
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") || path.contains('\0') {
        let text = format!("'{path}': expected a name relative to the database's home, without '.' and '..'");
        return Err(Failure::new(libc::EINVAL, text));
    }
    Ok(())
}

/// True for a directory that is there without any file.
pub(crate) fn is_given(directory: &str) -> bool {
    directory.is_empty() || directory == JOURNAL
}

/// What a directory's listing shows of a file: its name there, or that of the directory on the way. None: it is
/// elsewhere.
pub(crate) fn child<'a>(directory: &str, path: &'a str) -> Option<&'a str> {
    let below = match directory {
        "" => path,
        _ => path.strip_prefix(directory)?.strip_prefix('/')?,
    };
    below.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_file_has() {
        let long = "x".repeat(NAME_MAX);
        for good in ["WiredTiger", "journal/WiredTigerLog.0000000001", "a/b/c d.wt", "ü", &long] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", ".", "a/../b", "a\0b"] {
            assert_eq!(check(bad).unwrap_err().errno, libc::EINVAL, "{bad}");
        }
        assert_eq!(check(&format!("{long}x")).unwrap_err().errno, libc::ENAMETOOLONG);
    }

    #[test]
    fn children() {
        assert_eq!(child("", "journal/Log.1"), Some("journal"));
        assert_eq!(child("", "WiredTiger"), Some("WiredTiger"));
        assert_eq!(child("journal", "journal/Log.1"), Some("Log.1"));
        assert_eq!(child("a/b", "a/b/c/d"), Some("c"));
        for elsewhere in ["journal", "journals/x", "WiredTiger"] {
            assert_eq!(child("journal", elsewhere), None, "{elsewhere}");
        }
    }
}
