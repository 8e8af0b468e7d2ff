//! Which file: the one named (URI `config=`), then DSPM_CONFIG, then the user's, then the system's. Never one of the
//! current directory unless named.

use dspm_proto::Error;
use std::path::{Path, PathBuf};

/// The system's file.
const SYSTEM: &str = "/etc/dspm/dspm.toml";

/// The environment that the search depends on.
pub(crate) struct Places {
    /// DSPM_CONFIG.
    pub named: Option<PathBuf>,
    /// XDG_CONFIG_HOME.
    pub xdg: Option<PathBuf>,
    /// HOME.
    pub home: Option<PathBuf>,
    /// The system's file.
    pub system: PathBuf,
}

impl Places {
    /// Those of this process.
    pub(crate) fn of_process() -> Places {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        Places {
            named: var("DSPM_CONFIG"),
            xdg: var("XDG_CONFIG_HOME").filter(|p| p.is_absolute()),
            home: var("HOME"),
            system: SYSTEM.into(),
        }
    }

    fn user(&self) -> Option<PathBuf> {
        let base = self.xdg.clone().or_else(|| self.home.as_ref().map(|h| h.join(".config")))?;
        Some(base.join("dspm/dspm.toml"))
    }

    /// The file to read, if any is there.
    ///
    /// # Errors
    /// [`Error::Usage`] when DSPM_CONFIG names no file.
    pub(crate) fn find(&self, explicit: Option<&Path>) -> Result<Option<PathBuf>, Error> {
        if let Some(path) = explicit {
            return Ok(Some(path.to_path_buf()));
        }
        if let Some(path) = &self.named {
            if !path.exists() {
                return Err(Error::Usage(format!("DSPM_CONFIG names {}, which does not exist", path.display())));
            }
            return Ok(Some(path.clone()));
        }
        Ok(self.user().into_iter().chain([self.system.clone()]).find(|p| p.exists()))
    }

    /// Where was looked, for the message that nothing was found.
    pub(crate) fn none(&self) -> Error {
        let user = self.user().map(|u| format!("no {}, ", u.display())).unwrap_or_default();
        Error::Unavailable(format!(
            "no cluster is configured (DSPM_CONFIG is not set; there is {user}no {})",
            self.system.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_wins() {
        let dir = std::env::temp_dir().join(format!("dspm-locate-{}", std::process::id()));
        std::fs::create_dir_all(dir.join(".config/dspm")).unwrap();
        let (user, system, named) = (dir.join(".config/dspm/dspm.toml"), dir.join("system"), dir.join("named"));
        let mut p = Places { named: None, xdg: None, home: Some(dir.clone()), system: system.clone() };
        assert_eq!(p.find(None).unwrap(), None);
        assert!(matches!(p.none(), Error::Unavailable(_)));
        std::fs::write(&system, "").unwrap();
        assert_eq!(p.find(None).unwrap(), Some(system));
        std::fs::write(&user, "").unwrap();
        assert_eq!(p.find(None).unwrap(), Some(user));
        p.named = Some(named.clone());
        assert!(matches!(p.find(None), Err(Error::Usage(_))));
        std::fs::write(&named, "").unwrap();
        assert_eq!(p.find(None).unwrap(), Some(named));
        assert_eq!(p.find(Some(Path::new("/x"))).unwrap(), Some("/x".into()));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
