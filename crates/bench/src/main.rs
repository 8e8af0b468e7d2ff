//! `dspm-bench`: measures one thing and prints one JSON object. Times are in µs, rates per second.
//!
//! A *floor* is what blocking sockets reach on the same machine with the same bytes to the same number of processes,
//! and nothing else. Every measurement takes turns with its floor, round by round, so that a change of the machine's
//! mood strikes both; what is printed is the median of the rounds with the lowest and the highest.
//!
//! People run `dspm bench`, which calls this program.

mod cluster;
mod commit;
mod floor;
mod node;
mod page;
mod place;
mod scan;
mod stats;
mod stop;

use dspm_proto::Error;
use lexopt::prelude::*;
use std::collections::HashMap;
use std::process::ExitCode;

const USAGE: &str = "usage: dspm-bench floor  [--peers 2] [--size 4096] [--rounds 11] [--samples 500]
       dspm-bench page   [--rounds 11] [--samples 500] [--pages 4096]
       dspm-bench commit [--rounds 11] [--samples 500]
       dspm-bench scan   [--rounds 5] [--pages 32768]
       dspm-bench node   [--rounds 3] [--pages 4096] [--connections 32] [--millis 1000]
The cluster is the one that DSPM_CONFIG or a config file names; floor needs none.";

/// As a shell says it of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match run() {
        Ok(()) if stop::asked() => {
            eprintln!("dspm-bench: interrupted; these are the rounds that were done");
            ExitCode::from(INTERRUPTED)
        }
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("dspm: error: {e}");
            eprintln!("hint: {}", if e.hint().is_empty() { "dspm-bench --help shows the arguments" } else { e.hint() });
            ExitCode::from(match e {
                _ if stop::asked() => INTERRUPTED,
                Error::Usage(_) => 2,
                Error::Unavailable(_) => 3,
                Error::Corrupt(_) => 4,
                _ => 1,
            })
        }
    }
}

fn run() -> Result<(), Error> {
    let Some((command, o)) = Options::parse()? else {
        println!("{USAGE}");
        return Ok(());
    };
    if command == "peer" {
        return floor::peer(o.number("port", 0)? as u16, o.number("take", 32)?, o.number("give", 32)?);
    }
    stop::watch();
    let samples = o.at_least("samples", 500, 10)?;
    let found = match command.as_str() {
        "floor" => floor::measure(o.at_least("peers", 2, 1)?, o.at_least("size", 4096, 1)?, o.rounds(11)?, samples)?,
        "page" => page::measure(o.rounds(11)?, samples, o.at_least("pages", 4096, 64)?)?,
        "commit" => commit::measure(o.rounds(11)?, samples)?,
        "scan" => scan::measure(o.rounds(5)?, o.at_least("pages", 32_768, 64)?)?,
        "node" => {
            let connections = o.at_least("connections", 32, 1)?;
            node::measure(o.rounds(3)?, o.at_least("pages", 4096, 64)?, connections, o.at_least("millis", 1000, 10)?)?
        }
        other => return Err(Error::Usage(format!("unknown command {other}"))),
    };
    println!("{found}");
    Ok(())
}

/// What follows the command: flags with numbers.
struct Options(HashMap<String, usize>);

const KNOWN: [&str; 10] =
    ["peers", "size", "rounds", "samples", "pages", "connections", "millis", "port", "take", "give"];
/// More of anything is a slip of the keyboard.
const MOST: usize = 100_000_000;

impl Options {
    /// None when help is asked for.
    fn parse() -> Result<Option<(String, Options)>, Error> {
        let usage = |e: lexopt::Error| Error::Usage(e.to_string());
        let (mut command, mut numbers) = (String::new(), HashMap::new());
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next().map_err(usage)? {
            match arg {
                Value(v) if command.is_empty() => command = v.string().map_err(usage)?,
                Long("help") => return Ok(None),
                Long(flag) if KNOWN.contains(&flag) => {
                    let flag = flag.to_owned();
                    let number: usize = parser.value().and_then(|v| v.parse()).map_err(usage)?;
                    if number > MOST {
                        return Err(Error::Usage(format!("--{flag} {number}: at most {MOST}")));
                    }
                    numbers.insert(flag, number);
                }
                other => return Err(usage(other.unexpected())),
            }
        }
        Ok(if command.is_empty() { None } else { Some((command, Options(numbers))) })
    }

    fn number(&self, flag: &str, default: usize) -> Result<usize, Error> {
        self.at_least(flag, default, 0)
    }

    fn at_least(&self, flag: &str, default: usize, least: usize) -> Result<usize, Error> {
        let number = self.0.get(flag).copied().unwrap_or(default);
        if number < least {
            return Err(Error::Usage(format!("--{flag} {number}: at least {least}")));
        }
        Ok(number)
    }

    fn rounds(&self, default: usize) -> Result<usize, Error> {
        self.at_least("rounds", default, 1)
    }
}
