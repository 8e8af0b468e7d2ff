use super::*;
use std::os::unix::fs::PermissionsExt;

/// A directory that is removed at the end of the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("dspm-config-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.0.join("dspm.toml");
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn nowhere() -> Places {
    Places { named: None, xdg: None, home: None, system: "/nonexistent/dspm.toml".into() }
}

fn load(path: &Path, variables: &[(&str, &str)], overrides: &[(&str, &str)]) -> Result<Config, Error> {
    let variables = variables.iter().map(|(k, v)| (Key::find(k).unwrap(), v.to_string())).collect();
    let overrides: Vec<_> = overrides.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Config::load_from(&nowhere(), variables, Some(path), &overrides)
}

#[test]
fn defaults_are_those_of_the_contract() {
    let dir = Dir::new("defaults");
    let c = load(&dir.file(""), &[], &[]).unwrap();
    assert_eq!((c.durability, c.copies, c.min_copies), (Durability::Memory, 2, 1));
    assert_eq!(c.commit_timeout, Duration::from_secs(10));
    assert_eq!(c.flush_interval, Duration::from_millis(100));
    assert_eq!(c.dirty_max_bytes, c.memory_bytes / 2);
    assert_eq!(c.history_max_bytes, c.memory_bytes / 4);
    assert_eq!(c.cache_size_bytes, 64 << 20);
    assert_eq!(c.lease, Duration::from_millis(300));
    assert!(c.lease_reads && c.cache_prefetch && c.failover);
    assert_eq!(c.suspect_after, Duration::from_millis(400));
    assert_eq!(c.outcome_retention, Duration::from_secs(3600));
    assert_eq!((c.scrub_rate_bytes, c.scrub_interval), (16 << 20, Duration::from_secs(24 * 3600)));
    assert_eq!(load(&dir.file(""), &[], &[("copies", "3")]).unwrap().min_copies, 2);
    assert_eq!(load(&dir.file(""), &[], &[("copies", "1")]).unwrap().min_copies, 1);
}

#[test]
fn the_file_then_variables_then_arguments() {
    let dir = Dir::new("order");
    let path =
        dir.file("lease = \"1s\"\ncopies = 3\ncache.size = \"1MiB\"\nkey_file = \"k\"\nnodes = [\"a:1\", \"b:2\"]\n");
    let c = load(&path, &[("copies", "2"), ("cache.size", "2MiB")], &[("cache.size", "3MiB")]).unwrap();
    assert_eq!((c.lease.as_millis(), c.copies, c.cache_size_bytes), (1000, 2, 3 << 20));
    assert_eq!(c.nodes, ["a:1", "b:2"]);
    assert_eq!(c.key_file, Some(dir.0.join("k")), "relative to the file");
    let origin = |k: &str| c.settings.iter().find(|s| s.key == k).unwrap().origin.clone();
    assert_eq!(origin("lease"), Origin::File(1));
    assert_eq!(origin("copies"), Origin::Variable("DSPM_COPIES".into()));
    assert_eq!(origin("cache.size"), Origin::Argument);
    assert_eq!(origin("history"), Origin::Default);
    let json: serde_json::Value = serde_json::from_str(&c.to_json()).unwrap();
    assert_eq!(json["lease_ms"], 1000);
    assert_eq!(json["settings"].as_array().unwrap().len(), KEYS.len());
}

#[test]
fn errors_say_where_and_what_was_expected() {
    let dir = Dir::new("errors");
    let text = |r: Result<Config, Error>| {
        let e = r.unwrap_err();
        assert_eq!(e.code(), 2, "{e}");
        e.to_string()
    };
    let path = dir.file("[cache]\nsize = \"many\"\n");
    let e = text(load(&path, &[], &[]));
    assert!(e.contains("dspm.toml, line 2: cache.size: expected a size such as 16MiB"), "{e}");
    assert!(e.ends_with("found \"many\""), "{e}");
    let path = dir.file("");
    assert!(text(load(&path, &[("lease", "3")], &[])).starts_with("the variable DSPM_LEASE: expected a time"));
    assert!(text(load(&path, &[], &[("leese", "3s")])).contains("unknown key \"leese\"; did you mean \"lease\"?"));
    assert!(text(load(&path, &[("suspect_after", "50ms")], &[])).contains("from 200ms to 1m"));
    assert!(text(load(&path, &[], &[("failover", "maybe")])).contains("expected on or off"));
    assert!(text(load(&path, &[], &[("durability", "maybe")])).contains("expected one of memory, pm, disk"));
    assert!(text(load(Path::new("/nonexistent.toml"), &[], &[])).contains("/nonexistent.toml does not exist"));
    assert!(text(load(&dir.0, &[], &[])).contains("is not a config file"));
}

#[test]
fn impossible_combinations_name_both_places() {
    let dir = Dir::new("clash");
    let path = dir.file("copies = 2\nmin_copies = 3\n");
    let e = load(&path, &[], &[]).unwrap_err().to_string();
    assert!(e.contains("line 2: min_copies = 3") && e.contains("line 1: copies = 2"), "{e}");
    let e = load(&path, &[], &[("min_copies", "1"), ("dirty_max", "1GiB")]).unwrap_err().to_string();
    assert!(e.contains("dirty_max=1GiB and memory = 512MiB (default)"), "{e}");
    let e = load(&path, &[], &[("min_copies", "1"), ("commit_timeout", "100ms")]).unwrap_err().to_string();
    assert!(e.contains("commit_timeout may not be shorter than lease"), "{e}");
}

#[test]
fn nothing_configured_is_unavailable_and_nodes_alone_are_enough() {
    let none = Config::load_from(&nowhere(), vec![], None, &[]);
    assert!(matches!(none, Err(Error::Unavailable(t)) if t.starts_with("no cluster is configured")));
    let c = Config::load_from(&nowhere(), vec![], None, &[("nodes".into(), "h:1".into())]).unwrap();
    assert_eq!((c.path, c.nodes), (None, vec!["h:1".to_string()]));
}

#[test]
fn keys_are_read_from_their_file() {
    let dir = Dir::new("key");
    let path = dir.file("key_file = \"cluster.key\"\n");
    assert_eq!(load(&path, &[], &[]).unwrap().key().unwrap_err().code(), 2);
    let mode = |mode| std::fs::set_permissions(dir.0.join("cluster.key"), PermissionsExt::from_mode(mode)).unwrap();
    std::fs::write(dir.0.join("cluster.key"), " \n").unwrap();
    mode(0o604);
    let open = load(&path, &[], &[]).unwrap().key().unwrap_err();
    assert!(open.code() == 2 && open.to_string().contains("open to everybody on this machine (mode 604)"), "{open}");
    mode(0o640);
    assert!(load(&path, &[], &[]).unwrap().key().unwrap_err().to_string().contains("is empty"));
    std::fs::write(dir.0.join("cluster.key"), "secret\n").unwrap();
    assert_eq!(load(&path, &[], &[]).unwrap().key().unwrap(), ClusterKey::new("secret"));
}
