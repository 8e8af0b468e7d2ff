//! Names of files: WiredTiger joins them to the database's home, the file system wants them relative to it.

use crate::Failure;

/// The home's part in front of every path.
#[derive(Debug)]
pub struct Home {
    absolute: bool,
    parts: Vec<String>,
}

impl Home {
    /// As `WT_CONNECTION::get_home` answers it.
    pub fn new(path: &str) -> Home {
        Home { absolute: path.starts_with('/'), parts: parts(path).map(str::to_string).collect() }
    }

    /// The same path, from the home on; "" is the home.
    pub fn relative(&self, path: &str) -> Result<String, Failure> {
        let all: Vec<&str> = parts(path).collect();
        let below = all.get(self.parts.len()..).filter(|_| all.iter().zip(&self.parts).all(|(a, b)| a == b));
        match below {
            Some(below) if path.starts_with('/') == self.absolute && !all.contains(&"..") => Ok(below.join("/")),
            _ => Err(Failure {
                errno: libc::EINVAL,
                text: format!(
                    "{path} is not below the database's home; leave WiredTiger's paths (log=(path=...), backups) below it"
                ),
            }),
        }
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|p| !p.is_empty() && *p != ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_taken_off() {
        for (home, path, want) in [
            ("/data/db", "/data/db/journal/WiredTigerLog.0000000001", "journal/WiredTigerLog.0000000001"),
            ("/data/db/", "/data/db//WiredTiger.wt", "WiredTiger.wt"),
            ("/data/db", "/data/db", ""),
            (".", "./WiredTiger", "WiredTiger"),
            ("", "WiredTiger", "WiredTiger"),
            ("WT_HOME", "WT_HOME/a.wt", "a.wt"),
            ("./WT_HOME", "WT_HOME/./a.wt", "a.wt"),
        ] {
            assert_eq!(Home::new(home).relative(path).as_deref(), Ok(want), "{home} {path}");
        }
    }

    #[test]
    fn what_is_elsewhere_is_refused() {
        for (home, path) in [
            ("/data/db", "/data/other/a.wt"),
            ("/data/db", "/data/dbx/a.wt"),
            ("/data/db", "data/db/a.wt"),
            ("/data/db", "/data/db/../a.wt"),
            ("/data/db", "/data"),
            ("WT_HOME", "a.wt"),
            (".", "/elsewhere/log"),
        ] {
            let failure = Home::new(home).relative(path).unwrap_err();
            assert_eq!(failure.errno, libc::EINVAL, "{home} {path}");
            assert!(failure.text.starts_with(path), "{}", failure.text);
        }
    }
}
