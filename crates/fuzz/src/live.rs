//! A node that runs: hostile messages on connections that are authenticated, as every role, about a dataset of ours.
//!
//! What is checked: the node goes on answering others, and its process is the same to the end (its boot number is).
//! What hostile words do to the dataset that they are about is not.

use crate::generate::{About, any};
use crate::mutate::{garble, harm};
use crate::rng::Rng;
use dspm_config::Config;
use dspm_netram::random;
use dspm_netram::wire::{Connection, Dialer, from_json, json, write_all};
use dspm_proto::auth::Role;
use dspm_proto::control::{Control, CreateOptions, Located};
use dspm_proto::{ClientId, Error, Header, Kind, Session, StoreId};
use std::io::Read;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
/// Messages of one connection, at most: the node closes it at the first that makes no sense.
const OF_A_CONNECTION: usize = 64;
const CHECK_EVERY: u64 = 2000;

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub sent: u64,
    pub connections: u64,
    pub answered_bytes: u64,
}

/// Sends `inputs` hostile messages to every node of the configuration in turns.
///
/// # Errors
/// A node that does not answer, or was started anew meanwhile.
pub fn run(seed: u64, inputs: u64) -> Result<Counts, Error> {
    let config = Config::load(None, &[])?;
    let mut rng = Rng::new(seed);
    let session = Session { client: ClientId(random::id()), number: 1 };
    let boots = serving(&config)?;
    let located = locate(&config, &config.nodes[0], "fuzz")?;
    let mut counts = Counts::default();
    while counts.sent < inputs {
        let address = &config.nodes[rng.below(config.nodes.len())];
        let member = located.nodes.iter().find(|n| n.address == *address).map(|n| &n.name);
        let store = located.set.members.iter().find(|m| Some(&m.node) == member).map_or(StoreId(1), |m| m.store);
        let about = About {
            group: located.entry.group,
            dataset: located.entry.dataset,
            generation: located.set.generation,
            store,
            session,
        };
        let role = [Role::Client, Role::Client, Role::Node][rng.below(3)];
        let name = if rng.one_in(2) { located.set.primary.clone() } else { "fuzz".into() };
        let own = located.set.members.iter().find(|m| m.node == name).map_or(StoreId(0), |m| m.store);
        let dialer = Dialer { role, name, store: own, session: Some(session), ..dialer(&config)? };
        attack(address, &dialer, &about, &mut rng, &mut counts)?;
        if counts.sent % CHECK_EVERY < OF_A_CONNECTION as u64 && serving(&config)? != boots {
            return Err(Error::Failed(format!("a node ended under --seed {seed}")));
        }
    }
    match serving(&config)? == boots {
        true => Ok(counts),
        false => Err(Error::Failed(format!("a node ended under --seed {seed}"))),
    }
}

fn dialer(config: &Config) -> Result<Dialer, Error> {
    Ok(Dialer {
        role: Role::Client,
        name: "fuzz".into(),
        cluster: config.cluster.clone(),
        key: config.key()?,
        session: None,
        store: StoreId(0),
        callbacks: false,
    })
}

/// The boot number of each node; asks the catalog of each, so that all of it is known to work.
fn serving(config: &Config) -> Result<Vec<u32>, Error> {
    let ask = |address: &String| {
        let mut c = Connection::dial(address, &dialer(config)?, PATIENCE)?;
        c.ask(
            Header::new(Kind::Control),
            &json(&Control::List { after: String::new(), limit: 0, view: 0 }),
            &[],
            Instant::now() + PATIENCE,
        )?
        .accept()?;
        Ok(c.boot)
    };
    config.nodes.iter().map(ask).collect()
}

fn locate(config: &Config, address: &str, name: &str) -> Result<Located, Error> {
    let mut c = Connection::dial(address, &dialer(config)?, PATIENCE)?;
    let question = Control::Locate { name: name.into(), create: Some(CreateOptions::default()) };
    let answer = c.ask(Header::new(Kind::Control), &json(&question), &[], Instant::now() + PATIENCE)?;
    from_json(&answer.accept()?.meta)
}

fn attack(address: &str, dialer: &Dialer, about: &About, rng: &mut Rng, counts: &mut Counts) -> Result<(), Error> {
    let mut stream = Connection::dial(address, dialer, PATIENCE)?.into_stream();
    stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    counts.connections += 1;
    for _ in 0..OF_A_CONNECTION {
        let (_, mut parts) = any(about, rng);
        let mut bytes = match rng.below(4) {
            0 => parts.bytes(true),
            _ => {
                let seal = harm(&mut parts, rng);
                parts.bytes(seal)
            }
        };
        if rng.one_in(32) {
            garble(&mut bytes, rng);
        }
        counts.sent += 1;
        if write_all(&stream, &bytes, &[]).is_err() {
            return Ok(());
        }
        let mut answer = [0; 4096];
        if rng.one_in(8) {
            match stream.read(&mut answer) {
                Ok(0) => return Ok(()),
                Ok(n) => counts.answered_bytes += n as u64,
                Err(_) => {}
            }
        }
    }
    Ok(())
}
