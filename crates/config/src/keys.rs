//! The table of keys: name, default, type, who it concerns and what it means. Documentation, parser and
//! `dspm config show` all read this table.

use serde::Serialize;

/// Type of a key's value and its limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path; relative to the directory of the file that names it.
    Path,
    /// A list of host:port.
    Addresses,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number within these limits.
    Count(u64, u64),
    /// As [`Kind::Count`], or empty: derived from other keys.
    OptionalCount(u64, u64),
    /// A size in bytes, at least this.
    Size(u64),
    /// A size, or a percentage of `memory`.
    Share,
    /// A time, within these limits in milliseconds.
    Time(u64, u64),
    /// on or off, true or false.
    Switch,
}

impl Kind {
    /// What a message tells that was expected.
    pub fn expected(self) -> String {
        match self {
            Kind::Text => "text".into(),
            Kind::Path => "a path".into(),
            Kind::Addresses => "a list of addresses such as [\"127.0.0.1:7401\"]".into(),
            Kind::Word(words) => format!("one of {}", words.join(", ")),
            Kind::Count(min, max) | Kind::OptionalCount(min, max) => format!("a whole number from {min} to {max}"),
            Kind::Size(0) => "a size such as 16MiB (KiB, MiB, GiB, TiB, or bytes)".into(),
            Kind::Size(min) => format!("a size such as 16MiB (KiB, MiB, GiB, TiB, or bytes), at least {}", size(min)),
            Kind::Share => "a size such as 16MiB, or a percentage such as 50% (at most 100%)".into(),
            Kind::Time(0, max) => format!("a time such as 100ms (ms, s, m, h), at most {}", time(max)),
            Kind::Time(min, max) => {
                format!("a time such as 100ms (ms, s, m, h) from {} to {}", time(min), time(max))
            }
            Kind::Switch => "on or off (true and false are the same)".into(),
        }
    }
}

/// Whom a key concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The same for all processes of the cluster.
    Cluster,
    /// Fixed when a dataset is created.
    Dataset,
    /// Each node.
    Node,
    /// Each process that opens databases.
    Client,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As in the file; a dot opens a table.
    pub name: &'static str,
    /// Its value where nobody sets it, in the words of the file.
    pub default: &'static str,
    /// Type and limits.
    pub kind: Kind,
    /// Whom it concerns.
    pub scope: Scope,
    /// What it does, in one sentence.
    pub meaning: &'static str,
}

impl Key {
    /// The key of that name.
    pub fn find(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|k| k.name == name)
    }

    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("DSPM_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// The known name that a mistyped one is nearest to, if any is near.
    pub fn nearest(wrong: &str) -> Option<&'static str> {
        nearest(wrong, KEYS.iter().map(|k| k.name))
    }
}

const MIB: u64 = 1 << 20;
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// All keys. Where a default is empty the value is derived: `min_copies` is copies − 1, at least 1.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("cluster", "", Kind::Text, Scope::Cluster, "name of the cluster; a peer of another cluster is refused"),
    key("nodes", "", Kind::Addresses, Scope::Cluster, "addresses of some nodes, to begin with"),
    key("registry", "", Kind::Text, Scope::Cluster, "URL of the registry's HTTP API, for operators and joining nodes"),
    key("key_file", "", Kind::Path, Scope::Cluster, "file that holds the cluster's key"),
    key("namespace", "", Kind::Text, Scope::Client, "prefix of the names of all datasets that this process opens"),
    key("durability", "memory", Kind::Word(&["memory", "pm", "disk"]), Scope::Dataset, "what an acknowledged commit outlives: memory, all copies but one; disk and pm, a power cut too"),
    key("copies", "2", Kind::Count(1, 16), Scope::Dataset, "members that hold every commit before it returns, the primary included"),
    key("min_copies", "", Kind::OptionalCount(1, 16), Scope::Dataset, "complete members below which writes wait; copies - 1, at least 1"),
    key("commit_timeout", "10s", Kind::Time(1, HOUR), Scope::Client, "longest wait of one commit or new snapshot"),
    key("flush_interval", "100ms", Kind::Time(1, 24 * HOUR), Scope::Node, "a record is on disk at the latest this long after its commit"),
    key("dirty_max", "50%", Kind::Share, Scope::Node, "memory that commits not yet on disk may take; there commits wait"),
    key("history", "0s", Kind::Time(0, 365 * 24 * HOUR), Scope::Dataset, "how long old versions are kept for time travel"),
    key("history_max", "25%", Kind::Share, Scope::Dataset, "most memory that one reader's old snapshot may pin"),
    key("memory", "512MiB", Kind::Size(16 * MIB), Scope::Node, "memory that a node gives"),
    key("join_rate", "0", Kind::Size(0), Scope::Node, "bytes of pages a second that a node copies when it joins replica sets; 0 is no limit"),
    key("cache.size", "64MiB", Kind::Size(0), Scope::Client, "page cache of a process"),
    key("cache.prefetch", "on", Kind::Switch, Scope::Client, "fetch sequential runs ahead"),
    key("lease", "300ms", Kind::Time(50, MINUTE), Scope::Cluster, "length of a session's lease, and so of the wait for a dead process"),
    key("lease_reads", "true", Kind::Switch, Scope::Cluster, "answer reads under a lease without a round trip; false where clocks can stop unseen"),
    key("failover", "true", Kind::Switch, Scope::Cluster, "the registry changes the members of replica sets by itself; false: a member that is down is waited for"),
    key("suspect_after", "400ms", Kind::Time(200, MINUTE), Scope::Cluster, "silence after which the registry replaces a node; one whose process is gone is replaced at once"),
    key("scrub.rate", "16MiB", Kind::Size(0), Scope::Node, "bytes a second that a node looks at for damage in its memory and on its disk; 0: only when `dspm scrub` asks"),
    key("scrub.interval", "24h", Kind::Time(1000, 365 * 24 * HOUR), Scope::Node, "from the end of one such look at everything to the next; the first begins a minute after the start"),
    key("outcome_retention", "1h", Kind::Time(0, 365 * 24 * HOUR), Scope::Cluster, "how long the outcome of a commit can be asked"),
];

const fn key(name: &'static str, default: &'static str, kind: Kind, scope: Scope, meaning: &'static str) -> Key {
    Key { name, default, kind, scope, meaning }
}

fn size(bytes: u64) -> String {
    if bytes % MIB == 0 { format!("{}MiB", bytes / MIB) } else { format!("{bytes} bytes") }
}

fn time(ms: u64) -> String {
    match ms {
        _ if ms % HOUR == 0 => format!("{}h", ms / HOUR),
        _ if ms % MINUTE == 0 => format!("{}m", ms / MINUTE),
        _ => format!("{ms}ms"),
    }
}

/// The nearest of `names` to a mistyped one; none when even that is far.
fn nearest(wrong: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let limit = (wrong.chars().count() / 3).max(2);
    names.map(|n| (distance(wrong, n), n)).filter(|(d, _)| *d <= limit).min().map(|(_, n)| n)
}

/// Edits between two words (Levenshtein, two rows), letters compared without case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(256).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(!x.eq_ignore_ascii_case(y));
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_values_of_their_own_type() {
        for k in KEYS {
            if !k.default.is_empty() {
                crate::value::Value::parse(k.kind, k.default).unwrap_or_else(|()| panic!("default of {}", k.name));
            }
        }
    }

    #[test]
    fn a_slip_of_the_finger_is_named() {
        assert_eq!(Key::nearest("durabilty"), Some("durability"));
        assert_eq!(Key::nearest("cache.sise"), Some("cache.size"));
        assert_eq!(Key::nearest("Lease"), Some("lease"));
        assert_eq!(Key::nearest("x"), None);
        assert_eq!(Key::nearest("something_else_entirely"), None);
    }

    #[test]
    fn variables_are_distinct() {
        let mut all: Vec<String> = KEYS.iter().map(Key::variable).collect();
        assert!(all.contains(&"DSPM_CACHE_SIZE".to_string()));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), KEYS.len());
    }
}
