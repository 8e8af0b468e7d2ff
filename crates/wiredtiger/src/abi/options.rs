//! What stands in the extension's `config=[...]`.

use super::layout::Version;
use crate::Failure;

/// The extension's configuration. What a value means is the opener's business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The database path's name in the cluster.
    pub dataset: String,
    /// dspm's configuration file.
    pub config: Option<String>,
    /// How long an owner that is going away is waited for.
    pub wait: Option<String>,
    /// The home that WiredTiger's paths begin with, where the connection does not know it.
    pub home: Option<String>,
    /// WiredTiger's version, for programs that do not export `wiredtiger_version`.
    pub version: Option<Version>,
}

impl Options {
    /// From key and value.
    ///
    /// # Errors
    /// Unknown or empty keys, and no `dataset`.
    pub fn new(pairs: &[(String, String)]) -> Result<Options, Failure> {
        let mut options = Options::default();
        for (key, value) in pairs {
            if value.is_empty() {
                return Err(wrong(format!("config=[{key}=] of the dspm extension has no value")));
            }
            match key.as_str() {
                "dataset" => options.dataset = value.clone(),
                "config" => options.config = Some(value.clone()),
                "wait" => options.wait = Some(value.clone()),
                "home" => options.home = Some(value.clone()),
                "version" => options.version = Some(version(value)?),
                _ => {
                    return Err(wrong(format!(
                        "config=[{key}={value}]: the dspm extension knows dataset, config, wait, home and version"
                    )));
                }
            }
        }
        if options.dataset.is_empty() {
            return Err(wrong(
                "the dspm extension is not told which database of the cluster this is; \
                 add config=[dataset=NAME] to it in the extensions=[...] of WiredTiger's configuration",
            ));
        }
        Ok(options)
    }
}

fn version(text: &str) -> Result<Version, Failure> {
    let expected =
        || wrong(format!("config=[version={text}] of the dspm extension: expected WiredTiger's, like 11.3.1"));
    Version::parse(text).ok_or_else(expected)
}

fn wrong(text: impl Into<String>) -> Failure {
    Failure { errno: libc::EINVAL, text: text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Result<Options, Failure> {
        Options::new(&pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>())
    }

    #[test]
    fn all_keys() {
        let made =
            options(&[("dataset", "shop"), ("config", "/c.toml"), ("wait", "2s"), ("version", "8.1.2")]).unwrap();
        assert_eq!(made.dataset, "shop");
        assert_eq!((made.config.as_deref(), made.wait.as_deref()), (Some("/c.toml"), Some("2s")));
        assert_eq!((made.home, made.version), (None, Some(Version(8, 1, 2))));
    }

    #[test]
    fn wrong_ones_say_what_to_do() {
        for (pairs, text) in [
            (&[][..], "config=[dataset=NAME]"),
            (&[("config", "/c.toml")], "config=[dataset=NAME]"),
            (&[("dataset", "")], "has no value"),
            (&[("dataset", "a"), ("databse", "b")], "knows dataset, config"),
            (&[("dataset", "a"), ("version", "new")], "like 11.3.1"),
        ] {
            let failure = options(pairs).unwrap_err();
            assert_eq!(failure.errno, libc::EINVAL);
            assert!(failure.text.contains(text), "{}", failure.text);
        }
    }
}
