//! The configuration of one process: typed, checked, with where each value came from.

use crate::document::{self, unknown};
use crate::environment;
use crate::keys::{KEYS, Key, Scope};
use crate::locate::Places;
use crate::value::{Share, Value};
use dspm_proto::Error;
use dspm_proto::auth::ClusterKey;
use dspm_proto::control::Durability;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The configuration. In JSON times are whole milliseconds (`…_ms`) and sizes bytes (`…_bytes`).
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// The file it was read from; none when variables and arguments said enough.
    pub path: Option<PathBuf>,
    /// Name of the cluster; empty: any.
    pub cluster: String,
    /// Addresses of some nodes.
    pub nodes: Vec<String>,
    /// URL of the registry's HTTP API; empty if unknown.
    pub registry: String,
    /// File that holds the cluster's key.
    pub key_file: Option<PathBuf>,
    /// Prefix of dataset names.
    pub namespace: String,
    /// For datasets that this process creates.
    pub durability: Durability,
    /// For datasets that this process creates.
    pub copies: u32,
    /// For datasets that this process creates.
    pub min_copies: u32,
    /// Longest wait of one commit or new snapshot.
    #[serde(rename = "commit_timeout_ms", serialize_with = "millis")]
    pub commit_timeout: Duration,
    /// A record is flushed at the latest this long after its commit.
    #[serde(rename = "flush_interval_ms", serialize_with = "millis")]
    pub flush_interval: Duration,
    /// Most bytes of commits that are not on disk.
    pub dirty_max_bytes: u64,
    /// Key `join_rate`; 0: no limit.
    pub join_rate_bytes: u64,
    /// How long old versions are kept.
    #[serde(rename = "history_ms", serialize_with = "millis")]
    pub history: Duration,
    /// Most bytes that one reader may pin.
    pub history_max_bytes: u64,
    /// What a node gives.
    pub memory_bytes: u64,
    /// Page cache of a process.
    pub cache_size_bytes: u64,
    /// Fetch sequential runs ahead.
    pub cache_prefetch: bool,
    /// L.
    #[serde(rename = "lease_ms", serialize_with = "millis")]
    pub lease: Duration,
    /// Answer reads under a lease.
    pub lease_reads: bool,
    /// The registry changes the members of replica sets by itself.
    pub failover: bool,
    /// Silence after which the registry replaces a node.
    #[serde(rename = "suspect_after_ms", serialize_with = "millis")]
    pub suspect_after: Duration,
    /// How long outcomes can be asked.
    #[serde(rename = "outcome_retention_ms", serialize_with = "millis")]
    pub outcome_retention: Duration,
    /// Bytes a second that a node looks at for damage; 0: only when asked.
    pub scrub_rate_bytes: u64,
    /// From one look at everything to the next.
    #[serde(rename = "scrub_interval_ms", serialize_with = "millis")]
    pub scrub_interval: Duration,
    /// Every key with its value in words and where it came from.
    pub settings: Vec<Setting>,
}

/// One key as it was decided.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// Its name.
    pub key: &'static str,
    /// Its value in the words of whoever set it.
    pub value: String,
    /// Who set it.
    pub origin: Origin,
    /// Whom it concerns.
    pub scope: Scope,
    /// What it does.
    pub meaning: &'static str,
}

/// Who set a key. Later ones win.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Nobody.
    Default,
    /// The file, in this line.
    File(usize),
    /// This variable.
    Variable(String),
    /// An argument or a URI parameter.
    Argument,
}

fn millis<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64(d.as_millis() as u64)
}

impl Config {
    /// Reads the configuration of this process: `explicit` or the file that is found, then variables, then `overrides`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a file, variable or override that cannot be used; [`Error::Unavailable`] when nothing at all
    /// says which cluster is meant.
    pub fn load(explicit: Option<&Path>, overrides: &[(String, String)]) -> Result<Config, Error> {
        environment::warn_of_unknown();
        Config::load_from(&Places::of_process(), environment::assignments(), explicit, overrides)
    }

    fn load_from(
        places: &Places,
        variables: Vec<(&'static Key, String)>,
        explicit: Option<&Path>,
        overrides: &[(String, String)],
    ) -> Result<Config, Error> {
        let path = places.find(explicit)?;
        let mut chosen = Chosen::new(path.as_deref().and_then(Path::parent).map(Path::to_path_buf))?;
        if let Some(path) = &path {
            for a in document::read(path)? {
                chosen
                    .set(a.key, a.text, Origin::File(a.line), &|found| document::wrong(path, a.line, a.key, found))?;
            }
        }
        for (key, text) in variables {
            let variable = key.variable();
            let wrong = |found: &str| {
                Error::Usage(format!("the variable {variable}: expected {}, found {found}", key.kind.expected()))
            };
            chosen.set(key, text, Origin::Variable(variable.clone()), &wrong)?;
        }
        for (name, text) in overrides {
            let key = Key::find(name).ok_or_else(|| Error::Usage(unknown(name)))?;
            let wrong = |found: &str| Error::Usage(format!("{name}: expected {}, found {found}", key.kind.expected()));
            chosen.set(key, text.clone(), Origin::Argument, &wrong)?;
        }
        let config = chosen.finish(path);
        if config.path.is_none() && config.nodes.is_empty() {
            return Err(places.none());
        }
        config.check()?;
        Ok(config)
    }

    /// What must hold between keys.
    fn check(&self) -> Result<(), Error> {
        let clash = |first: &str, second: &str, rule: &str| {
            let at = |key: &str| self.place(key);
            Err(Error::Usage(format!("{} and {}: {rule}", at(first), at(second))))
        };
        if self.min_copies > self.copies {
            return clash("min_copies", "copies", "min_copies may not be more than copies");
        }
        if self.dirty_max_bytes > self.memory_bytes {
            return clash("dirty_max", "memory", "dirty_max may not be more than memory");
        }
        if self.history_max_bytes > self.memory_bytes {
            return clash("history_max", "memory", "history_max may not be more than memory");
        }
        if self.commit_timeout < self.lease {
            return clash("commit_timeout", "lease", "commit_timeout may not be shorter than lease");
        }
        Ok(())
    }

    /// "dspm.toml, line 3: copies = 2", "copies = 2 (default)".
    fn place(&self, key: &str) -> String {
        let Some(s) = self.settings.iter().find(|s| s.key == key) else { return key.to_string() };
        let path = self.path.as_deref().unwrap_or(Path::new("")).display();
        match &s.origin {
            Origin::Default => format!("{key} = {} (default)", s.value),
            Origin::File(line) => format!("{path}, line {line}: {key} = {}", s.value),
            Origin::Variable(v) => format!("{v}={}", s.value),
            Origin::Argument => format!("{key}={}", s.value),
        }
    }

    /// The cluster's key.
    ///
    /// # Errors
    /// [`Error::Usage`] when no key file is configured, or that of [`ClusterKey::read`].
    pub fn key(&self) -> Result<ClusterKey, Error> {
        let path = self.key_file.as_ref().ok_or_else(|| {
            Error::Usage("no key_file is configured: it names the file that holds the cluster's key".into())
        })?;
        ClusterKey::read(path)
    }

    /// The cluster-wide name of what a program opened ([`crate::dataset_name`]).
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that is not allowed.
    pub fn dataset_name(&self, opened: &str) -> Result<String, Error> {
        crate::dataset_name(&self.namespace, opened)
    }

    /// The configuration as JSON, settings included. It holds no secret: the key is in its own file.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|e| format!("{{\"error\":{:?}}}", e.to_string()))
    }
}

/// Values while they are gathered.
struct Chosen {
    base: Option<PathBuf>,
    values: BTreeMap<&'static str, (Value, String, Origin)>,
}

impl Chosen {
    fn new(base: Option<PathBuf>) -> Result<Chosen, Error> {
        let mut chosen = Chosen { base, values: BTreeMap::new() };
        for key in KEYS.iter().filter(|k| !k.default.is_empty()) {
            let wrong = |_: &str| Error::Failed(format!("the default of {} does not parse", key.name));
            chosen.set(key, key.default.to_string(), Origin::Default, &wrong)?;
        }
        Ok(chosen)
    }

    fn set(
        &mut self,
        key: &'static Key,
        text: String,
        origin: Origin,
        wrong: &dyn Fn(&str) -> Error,
    ) -> Result<(), Error> {
        let short = || format!("{:?}", text.chars().take(60).collect::<String>());
        let mut value = Value::parse(key.kind, &text).map_err(|()| wrong(&short()))?;
        if let (Value::Path(p), Origin::File(_), Some(base)) = (&mut value, &origin, &self.base) {
            *p = base.join(&*p);
        }
        self.values.insert(key.name, (value, text, origin));
        Ok(())
    }

    fn text(&self, key: &str) -> String {
        if let Some((Value::Text(t), ..)) = self.values.get(key) { t.clone() } else { String::new() }
    }

    fn count(&self, key: &str) -> Option<u32> {
        if let Some((Value::Count(n), ..)) = self.values.get(key) { n.map(|n| n as u32) } else { None }
    }

    fn size(&self, key: &str) -> u64 {
        if let Some((Value::Size(n), ..)) = self.values.get(key) { *n } else { 0 }
    }

    fn share(&self, key: &str, memory: u64) -> u64 {
        if let Some((Value::Share(s), ..)) = self.values.get(key) { s.of(memory) } else { Share::Bytes(0).of(memory) }
    }

    fn time(&self, key: &str) -> Duration {
        if let Some((Value::Time(t), ..)) = self.values.get(key) { *t } else { Duration::ZERO }
    }

    fn switch(&self, key: &str) -> bool {
        matches!(self.values.get(key), Some((Value::Switch(true), ..)))
    }

    fn finish(self, path: Option<PathBuf>) -> Config {
        let copies = self.count("copies").unwrap_or(1);
        let memory = self.size("memory");
        let setting = |k: &Key| {
            let (value, origin) = match self.values.get(k.name) {
                Some((_, text, origin)) => (text.clone(), origin.clone()),
                None => (String::new(), Origin::Default),
            };
            Setting { key: k.name, value, origin, scope: k.scope, meaning: k.meaning }
        };
        Config {
            path,
            cluster: self.text("cluster"),
            nodes: if let Some((Value::Addresses(a), ..)) = self.values.get("nodes") { a.clone() } else { vec![] },
            registry: self.text("registry"),
            key_file: if let Some((Value::Path(p), ..)) = self.values.get("key_file") { Some(p.clone()) } else { None },
            namespace: self.text("namespace"),
            durability: match self.text("durability").as_str() {
                "pm" => Durability::Pm,
                "disk" => Durability::Disk,
                _ => Durability::Memory,
            },
            copies,
            min_copies: self.count("min_copies").unwrap_or((copies.saturating_sub(1)).max(1)),
            commit_timeout: self.time("commit_timeout"),
            flush_interval: self.time("flush_interval"),
            dirty_max_bytes: self.share("dirty_max", memory),
            join_rate_bytes: self.size("join_rate"),
            history: self.time("history"),
            history_max_bytes: self.share("history_max", memory),
            memory_bytes: memory,
            cache_size_bytes: self.size("cache.size"),
            cache_prefetch: self.switch("cache.prefetch"),
            lease: self.time("lease"),
            lease_reads: self.switch("lease_reads"),
            failover: self.switch("failover"),
            suspect_after: self.time("suspect_after"),
            outcome_retention: self.time("outcome_retention"),
            scrub_rate_bytes: self.size("scrub.rate"),
            scrub_interval: self.time("scrub.interval"),
            settings: KEYS.iter().map(setting).collect(),
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
