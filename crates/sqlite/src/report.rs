//! Telling people what failed: SQLite's result codes carry no text.
//!
//! Each failure goes to stderr (`dspm: error: …`, then `hint: …`; `DSPM_LOG=off` silences), to SQLite's own log, and is
//! remembered for `PRAGMA dspm_error`. A message that repeats within a second is counted instead of printed.

use crate::api::Api;
use crate::errors::Code;
use crate::fork::{print_error, process};
use crate::process::locked;
use dspm_proto::Error;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long the same message stays quiet.
const QUIET: Duration = Duration::from_secs(1);

/// What was reported last in this process.
#[derive(Default)]
pub struct Reporter {
    last: Mutex<String>,
    printed: Mutex<Option<Printed>>,
}

struct Printed {
    text: String,
    at: Instant,
    repeats: u64,
}

impl Reporter {
    /// The last failure of any handle of the process, empty if there was none.
    pub fn last(&self) -> String {
        locked(&self.last).clone()
    }

    /// What to print now for that message; nothing if it was printed just now.
    fn admit(&self, text: &str, now: Instant) -> Option<String> {
        let mut printed = locked(&self.printed);
        if let Some(before) = printed.as_mut() {
            if before.text == text && now.duration_since(before.at) < QUIET {
                before.repeats += 1;
                return None;
            }
        }
        let before = printed.replace(Printed { text: text.into(), at: now, repeats: 0 });
        let mut lines = String::new();
        if let Some(Printed { repeats: n @ 1.., .. }) = before {
            let _ = writeln!(lines, "dspm: error: the last message came {n} more times");
        }
        let _ = writeln!(lines, "dspm: error: {text}");
        Some(lines)
    }
}

/// The text for a failure of `name`, with its hint on a second line.
pub fn text(name: &str, error: &Error) -> String {
    let name = shortened(name);
    match error.hint() {
        "" => format!("{name}: {error}"),
        hint => format!("{name}: {error}\nhint: {hint}"),
    }
}

/// A name that fits into a line.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.into(),
    }
}

/// Reports a failure and answers its text.
pub fn failure(api: &Api, name: &str, error: &Error, code: Code) -> String {
    let text = quietly(name, error);
    print(&text);
    api.log(code.0, &format!("dspm: {}", text.replace('\n', "; ")));
    text
}

/// Remembers what a program meets in daily work, and answers its text.
pub fn quietly(name: &str, error: &Error) -> String {
    let text = text(name, error);
    *locked(&process().reporter.last) = text.clone();
    text
}

/// Reports a panic, whose message the panic hook has printed.
pub fn bug(entry: &str) {
    let text = format!("internal error in {entry} (a bug in dspm); the call failed and nothing was committed by it");
    *locked(&process().reporter.last) = text.clone();
    print(&text);
}

fn print(text: &str) {
    if std::env::var_os("DSPM_LOG").is_some_and(|v| v == "off") {
        return;
    }
    if let Some(lines) = process().reporter.admit(text, Instant::now()) {
        print_error(&lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_counted() {
        let reporter = Reporter::default();
        let t = Instant::now();
        assert_eq!(reporter.admit("a", t).as_deref(), Some("dspm: error: a\n"));
        assert_eq!(reporter.admit("a", t), None);
        assert_eq!(reporter.admit("a", t), None);
        let lines = reporter.admit("b", t).unwrap();
        assert_eq!(lines, "dspm: error: the last message came 2 more times\ndspm: error: b\n");
        assert!(reporter.admit("b", t + QUIET).is_some());
    }

    #[test]
    fn hints_are_a_line_of_their_own() {
        assert_eq!(text("a.db", &Error::Failed("x".into())), "a.db: x");
        assert!(text("a.db", &Error::Full("x".into())).starts_with("a.db: x\nhint: "));
    }
}
