//! `dspm-node`: one node in the foreground. It prints one line of JSON when it serves, and goes on until SIGTERM.
//!
//! People start nodes with `dspm up` or `dspm node`, which give the arguments below.

use dspm_netram::server::{Node, NodeOptions};
use dspm_proto::Error;
use dspm_proto::auth::ClusterKey;
use lexopt::prelude::*;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "\
usage: dspm-node --name N --listen HOST:PORT --data-dir D --arena FILE --memory BYTES --key-file FILE [OPTION VALUE]...

One node in the foreground, until SIGTERM. It prints one line of JSON when it serves. People use `dspm up --dir D`, which
starts a whole cluster on this machine, or `dspm node`, which reads the configuration and registers the node.

  --name N                  its name, unique in the cluster
  --listen HOST:PORT        where clients, other nodes and the registry reach it; port 0: any that is free
  --data-dir D              directory of its log and base files
  --arena FILE              file of its memory, on tmpfs: /dev/shm/...
  --memory BYTES            size of that memory
  --key-file FILE           the cluster's key
  --cluster C               name of the cluster; peers of another one are refused
  --machine M               what fails at once with it; two copies are not put there together
  --metrics HOST:PORT       where http://HOST:PORT/metrics answers; none without it
  --lease-ms N              length of a session's lease (300)
  --flush-interval-ms N     a commit is on disk at the latest so long after it (100)
  --dirty-max-bytes N       memory that commits not yet on disk may take (half of --memory)
  --history-max-bytes N     memory that one reader's old snapshot may pin (a quarter of --memory)
  --outcome-retention-ms N  how long the outcome of a commit can be asked (3600000)
  --join-rate-bytes N       pages a second that it copies when it joins a set, in bytes; 0: no limit (0)
  --scrub-rate-bytes N      bytes a second that are looked at for damage; 0: only what is asked for (16777216)
  --scrub-interval-ms N     from one look at everything to the next (86400000)
  --workers N               threads that serve connections (1)
  --insecure                listen off loopback although nothing is encrypted
  --help                    this text

Exit status: 0 ended by a signal, 1 failed, 2 usage, 4 damaged data.";

fn main() -> ExitCode {
    // A node with a dead thread would answer some and hang others: peers know how to survive a dead member.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
    let options = match parse() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(e) => return fail(&e, None),
    };
    let ports = [("--metrics", options.metrics.clone().unwrap_or_default()), ("--listen", options.listen.clone())];
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e, port_hint(&e, &ports).or_else(|| foreign_hint(&e))),
    }
}

fn fail(e: &Error, hint: Option<String>) -> ExitCode {
    let other = if e.hint().is_empty() { "dspm-node --help shows the arguments" } else { e.hint() };
    eprintln!("dspm: error: {e}");
    eprintln!("hint: {}", hint.as_deref().unwrap_or(other));
    ExitCode::from(match e {
        Error::Usage(_) => 2,
        Error::Corrupt(_) => 4,
        _ => 1,
    })
}

/// What to do about a directory that another cluster's node used.
fn foreign_hint(e: &Error) -> Option<String> {
    let foreign = e.to_string().contains(" is of a node of the cluster ");
    foreign.then(|| "give the node a --data-dir of its own, or start it with the config of that cluster".into())
}

/// What to do about an address that cannot be listened on; `ports` are what was asked for, and by which argument.
fn port_hint(e: &Error, ports: &[(&str, String)]) -> Option<String> {
    let text = e.to_string();
    let rest = text.strip_prefix("cannot listen on ")?;
    let named = |(option, address): &&(&str, String)| {
        rest.starts_with(address) && (*option == "--metrics") == rest.contains(" for metrics: ")
    };
    let (option, address) = ports.iter().find(named)?;
    let port = address.rsplit_once(':')?.1;
    Some(format!(
        "`ss -ltnp 'sport = :{port}'` names who has it: end that (`dspm down --dir D`, if it is a cluster's); `dspm node \
         {option}` takes another address"
    ))
}

fn serve(options: NodeOptions) -> Result<(), Error> {
    let name = options.name.clone();
    let (_node, serving) = Node::start(options)?;
    let line = serde_json::json!({
        "address": serving.address,
        "metrics": serving.metrics,
        "pid": std::process::id(),
        "store": serving.opened.store.0,
        "memory_kept": serving.opened.memory_kept,
    });
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    out.flush()?;
    let (address, opened) = (&serving.address, &serving.opened);
    eprintln!("dspm-node: {name} serves at {address} as store {}, start {}", opened.store, opened.boot);
    if let (Some(reason), true) = (&opened.reason, opened.previous.0 != 0) {
        eprintln!("dspm-node: {name} lost its memory ({reason}); {} groups are known from its log", opened.groups);
    }
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    signals.forever().next();
    serving.stop();
    Ok(())
}

fn parse() -> Result<Option<NodeOptions>, Error> {
    let usage = |e: lexopt::Error| Error::Usage(e.to_string());
    let mut o = Arguments::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(usage)? {
        let Long(flag) = arg else { return Err(usage(arg.unexpected())) };
        let flag = flag.to_owned();
        match flag.as_str() {
            "help" => return Ok(None),
            "insecure" => o.insecure = true,
            _ => {
                let value = parser.value().and_then(|v| v.string()).map_err(usage)?;
                o.set(&flag, value)?;
            }
        }
    }
    o.finish().map(Some)
}

#[derive(Default)]
struct Arguments {
    text: std::collections::HashMap<String, String>,
    insecure: bool,
}

const KNOWN: [&str; 17] = [
    "name",
    "listen",
    "data-dir",
    "arena",
    "memory",
    "key-file",
    "cluster",
    "machine",
    "metrics",
    "lease-ms",
    "flush-interval-ms",
    "dirty-max-bytes",
    "history-max-bytes",
    "outcome-retention-ms",
    "join-rate-bytes",
    "scrub-rate-bytes",
    "scrub-interval-ms",
];

impl Arguments {
    fn set(&mut self, flag: &str, value: String) -> Result<(), Error> {
        if !KNOWN.contains(&flag) && flag != "workers" {
            return Err(Error::Usage(format!("unknown argument --{flag}")));
        }
        self.text.insert(flag.to_owned(), value);
        Ok(())
    }

    fn need(&self, flag: &str) -> Result<String, Error> {
        self.text.get(flag).cloned().ok_or_else(|| Error::Usage(format!("--{flag} is missing")))
    }

    fn number(&self, flag: &str, default: u64) -> Result<u64, Error> {
        let Some(v) = self.text.get(flag) else { return Ok(default) };
        v.parse().map_err(|_| Error::Usage(format!("--{flag} {v}: a whole number is expected")))
    }

    fn finish(self) -> Result<NodeOptions, Error> {
        let memory = self.number("memory", 0)?;
        let listen = self.need("listen")?;
        if !self.insecure && !is_loopback(&listen) {
            return Err(Error::Usage(format!(
                "listening on {listen} without TLS lets anyone on that network read and change pages in transit; \
                 --insecure accepts that"
            )));
        }
        let key = ClusterKey::read(&PathBuf::from(self.need("key-file")?))?;
        // Not for who is dialled: a stranger would learn the path.
        let key = key.without_file();
        Ok(NodeOptions {
            name: self.need("name")?,
            cluster: self.text.get("cluster").cloned().unwrap_or_default(),
            machine: self.text.get("machine").cloned().unwrap_or_default(),
            metrics: self.text.get("metrics").cloned(),
            data_dir: self.need("data-dir")?.into(),
            arena: self.need("arena")?.into(),
            key,
            lease: Duration::from_millis(self.number("lease-ms", 300)?),
            flush_interval: Duration::from_millis(self.number("flush-interval-ms", 100)?),
            dirty_max: self.number("dirty-max-bytes", memory / 2)?,
            history_max: self.number("history-max-bytes", memory / 4)?,
            outcome_retention: Duration::from_millis(self.number("outcome-retention-ms", 3_600_000)?),
            join_rate: self.number("join-rate-bytes", 0)?,
            scrub_rate: self.number("scrub-rate-bytes", 16 << 20)?,
            scrub_interval: Duration::from_millis(self.number("scrub-interval-ms", 86_400_000)?),
            workers: self.number("workers", 1)? as usize,
            memory,
            listen,
        })
    }
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(h, _)| h).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
