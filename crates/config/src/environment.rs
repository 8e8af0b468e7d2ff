//! `DSPM_*` variables. An unknown one is a warning, once a process: it may belong to a newer or older dspm, but it is
//! more often a slip that would otherwise go unseen.

use crate::keys::{KEYS, Key};
use std::sync::Once;

/// Variables that are no keys.
const OTHERS: &[&str] = &["DSPM_CONFIG", "DSPM_LOG", "DSPM_MONGOD"];

/// Keys that the environment sets. Values that are not UTF-8 count as given and fail to parse.
pub(crate) fn assignments() -> Vec<(&'static Key, String)> {
    KEYS.iter().filter_map(|k| Some((k, std::env::var_os(k.variable())?.to_string_lossy().into_owned()))).collect()
}

/// Names of `DSPM_*` variables that mean nothing.
fn unknown(names: impl Iterator<Item = String>) -> Vec<String> {
    let known: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let mut all: Vec<String> =
        names.filter(|n| n.starts_with("DSPM_") && !OTHERS.contains(&n.as_str()) && !known.contains(n)).collect();
    all.sort();
    all
}

/// One line on stderr for all unknown variables, once a process.
pub(crate) fn warn_of_unknown() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let all = unknown(std::env::vars_os().map(|(k, _)| k.to_string_lossy().into_owned()));
        if !all.is_empty() && std::env::var_os("DSPM_LOG").is_none_or(|v| v != "off") {
            eprintln!(
                "dspm: warning: unknown environment variable{}: {}",
                if all.len() > 1 { "s" } else { "" },
                all.join(", ")
            );
        }
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_strangers_are_unknown() {
        let names = ["DSPM_CONFIG", "DSPM_CACHE_SIZE", "DSPM_CASH", "PATH", "DSPM_LOG"].map(String::from);
        assert_eq!(super::unknown(names.into_iter()), ["DSPM_CASH"]);
    }
}
