//! What happened in a run: a hash of every event, and readable lines where they are wanted.

/// A run's history.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    /// Virtual time of the event that is being handled.
    pub time: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// An empty history; `lines` says whether it is to be readable.
    pub fn new(lines: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, time: 0, lines: lines.then(Vec::new) }
    }

    /// Adds numbers to the hash.
    pub fn mix(&mut self, numbers: &[u64]) {
        for n in numbers {
            self.hash = (self.hash ^ n).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(29);
        }
    }

    /// Adds a line.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>13.6} ms  {}", self.time as f64 / 1e6, line()));
        }
    }

    /// Hash of all events.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
