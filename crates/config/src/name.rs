//! What a dataset is called: what the program opened, lexically cleaned, under the namespace. An absolute path keeps
//! its leading slash, so two programs that open the same path mean the same dataset.

use dspm_proto::{Error, limits};

/// The cluster-wide name of what a program opened.
///
/// # Errors
/// [`Error::Usage`] for an empty name, one with a NUL, or one over the limit.
pub fn dataset_name(namespace: &str, opened: &str) -> Result<String, Error> {
    let absolute = opened.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in opened.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => drop(parts.pop()),
            ".." if absolute => {}
            other => parts.push(other),
        }
    }
    if parts.is_empty() || opened.contains('\0') {
        return Err(Error::Usage(format!(
            "{:?} is no name for a dataset",
            opened.chars().take(60).collect::<String>()
        )));
    }
    let cleaned = format!("{}{}", if absolute { "/" } else { "" }, parts.join("/"));
    let name = match namespace {
        "" => cleaned,
        ns if absolute => format!("{ns}{cleaned}"),
        ns => format!("{ns}/{cleaned}"),
    };
    if name.len() > limits::NAME_MAX {
        return Err(Error::Usage(format!(
            "a dataset's name of {} bytes: at most {} are allowed",
            name.len(),
            limits::NAME_MAX
        )));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_lexically() {
        for (ns, opened, want) in [
            ("", "a.db", "a.db"),
            ("", "./x//a b.db", "x/a b.db"),
            ("", "/srv/../a.db", "/a.db"),
            ("", "/../a.db", "/a.db"),
            ("", "../a.db", "../a.db"),
            ("", "x/../../a.db", "../a.db"),
            ("", "дом/é.db", "дом/é.db"),
            ("team", "a.db", "team/a.db"),
            ("team", "/srv/a.db", "team/srv/a.db"),
        ] {
            assert_eq!(dataset_name(ns, opened).unwrap(), want);
        }
        for bad in ["", ".", "/", "a/..", "a\0b", &"n".repeat(1025)] {
            assert!(matches!(dataset_name("", bad), Err(Error::Usage(_))), "{bad}");
        }
        assert!(dataset_name("", &"n".repeat(1024)).is_ok());
    }
}
