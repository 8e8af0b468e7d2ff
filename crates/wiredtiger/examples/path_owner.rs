//! A process that owns a database path of a cluster and does what standard input says, a line a call, for tests that
//! kill and stop such processes and nodes. Each line is answered by `ok …` or `error ERRNO TEXT`.
//!
//! Usage: path_owner NAME, with the cluster that DSPM_CONFIG names.

#![allow(clippy::unwrap_used)]

#[path = "../tests/model/mod.rs"]
mod model;

use dspm_config::Config;
use dspm_netram::client::{Client, ClientOptions};
use dspm_proto::control::CreateOptions;
use dspm_txn::volume::Volume;
use dspm_wiredtiger::{Failure, FileKind, FileSystem, OpenFile, OpenFlags};
use model::both::Both;
use model::{calls, names, pattern};
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::Duration;

/// Calls of a replay between two lines that say how far it is.
const STEP: usize = 50;

struct Owner {
    volume: Arc<dyn Volume>,
    fs: Option<Arc<FileSystem>>,
}

fn volume(name: &str) -> Arc<dyn Volume> {
    let c = Config::load(None, &[]).unwrap();
    let create = CreateOptions {
        durability: Some(c.durability),
        copies: Some(c.copies),
        min_copies: Some(c.min_copies),
        history_ms: None,
        exclusive: false,
    };
    let client = Client::new(ClientOptions {
        config: c.path.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
        cluster: c.cluster.clone(),
        nodes: c.nodes.clone(),
        key: c.key().unwrap(),
        commit_timeout: c.commit_timeout,
        cache_size: c.cache_size_bytes,
        prefetch: c.cache_prefetch,
        lease_reads: c.lease_reads,
        create: create.clone(),
    })
    .unwrap();
    Arc::new(client.open_volume(name, Some(create)).unwrap())
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// Name and seed of one of many files.
fn one_of_many(i: u64, seed: u64) -> (String, u64) {
    (format!("db/{:02}/file-{i}.wt", i % 7), seed * 1_000_003 + i)
}

impl Owner {
    fn file(&self, name: &str, create: bool) -> Result<OpenFile, Failure> {
        let fs = self.fs.as_ref().expect("`own` comes first");
        fs.open_file(name, FileKind::Log, OpenFlags { create, ..OpenFlags::default() })
    }

    fn fill(&self, name: &str, offset: u64, length: usize, seed: u64) -> Result<(), Failure> {
        let file = self.file(name, true)?;
        file.write(offset, &pattern(seed, length))?;
        file.close()
    }

    fn check(&self, name: &str, offset: u64, length: usize, seed: u64) -> Result<(), Failure> {
        let mut bytes = vec![0; length];
        self.file(name, false)?.read(offset, &mut bytes)?;
        match bytes == pattern(seed, length) {
            true => Ok(()),
            false => Err(Failure { errno: 0, text: format!("{name} has other bytes at {offset}") }),
        }
    }

    fn replay(&self, log: &str) -> Result<(), Failure> {
        let mut both = Both::new(self.fs.clone().expect("`own` comes first"));
        let log = calls::load(log);
        calls::prepare(&mut both, &log);
        for (i, recorded) in log.iter().enumerate() {
            let _ = both.call(&recorded.call); // panics where the model answers something else
            both.settle();
            if i % STEP == 0 {
                say(&format!("at {i}"));
            }
        }
        self.volume.check()?;
        both.model.verify(&both.fs, None);
        both.fs.close()?;
        let again = FileSystem::open(self.volume.clone(), Duration::from_secs(5))?;
        both.model.verify(&again, None);
        again.close()
    }

    /// Blocks of a log, each synced before its number is said.
    fn append(&self, name: &str, first: u64, last: u64) -> Result<(), Failure> {
        let file = self.file(name, true)?;
        for n in first..last {
            file.write(n * 1024, &pattern(n, 1024))?;
            file.sync()?;
            say(&format!("synced {n}"));
        }
        Ok(())
    }

    fn run(&mut self, words: &[&str]) -> Result<String, Failure> {
        let number = |i: usize| words[i].parse::<u64>().unwrap();
        match words[0] {
            "own" => {
                self.fs = Some(FileSystem::open(self.volume.clone(), Duration::from_millis(number(1)))?);
                let count = self.fs.as_ref().map_or(0, |fs| names(fs).len());
                return Ok(count.to_string());
            }
            "fill" => self.fill(words[1], number(2), number(3) as usize, number(4))?,
            "check" => self.check(words[1], number(2), number(3) as usize, number(4))?,
            "size" => return Ok(self.file(words[1], false)?.size()?.to_string()),
            "many" => {
                for i in 0..number(1) {
                    let (name, seed) = one_of_many(i, number(3));
                    self.fill(&name, 0, number(2) as usize, seed)?;
                }
            }
            "check_many" => {
                for i in 0..number(1) {
                    let (name, seed) = one_of_many(i, number(3));
                    self.check(&name, 0, number(2) as usize, seed)?;
                }
            }
            "append" => self.append(words[1], number(2), number(3))?,
            "replay" => self.replay(words[1])?,
            "remove" => self.fs.as_ref().expect("`own` comes first").remove(words[1])?,
            "close" => self.fs.take().map_or(Ok(()), |fs| fs.close())?,
            other => panic!("no such call: {other}"),
        }
        Ok(String::new())
    }
}

fn main() {
    let name = std::env::args().nth(1).expect("usage: path_owner NAME");
    let mut owner = Owner { volume: volume(&name), fs: None };
    say("ok");
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        match owner.run(&line.split(' ').collect::<Vec<_>>()) {
            Ok(answer) => say(&format!("ok {answer}")),
            Err(e) => say(&format!("error {} {}", e.errno, e.text)),
        }
    }
}
