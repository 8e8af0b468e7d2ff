//! The network: a bag of messages with loss, delay, reordering, repeats and cuts, one way or both.
//!
//! A message that meets a cut is lost, or waits until the cut heals and arrives then, late and out of order. Messages
//! of connections that were given up stay in the bag like any other.

use crate::rng::Rng;
use crate::wire::{Envelope, Who};
use std::collections::BTreeSet;

/// A cut between a side and the rest.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Names it when it heals.
    pub id: u64,
    /// One side.
    pub side: BTreeSet<Who>,
    /// Messages out of the side do not pass.
    pub out: bool,
    /// Messages into the side do not pass.
    pub into: bool,
}

/// How often what goes wrong, per mille, and how slow is slow (ns).
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Lost.
    pub loss: u64,
    /// Arrive twice.
    pub repeat: u64,
    /// Arrive late.
    pub slow: u64,
    /// How late.
    pub slow_max: u64,
    /// Messages that meet a cut are all kept, none lost.
    pub keep: bool,
}

impl Weather {
    /// Nothing goes wrong.
    pub const FAIR: Weather = Weather { loss: 0, repeat: 0, slow: 0, slow_max: 0, keep: true };
}

type Filter = Box<dyn Fn(&Envelope) -> bool>;

/// The network.
pub struct Network {
    /// Its mood.
    pub weather: Weather,
    cuts: Vec<Cut>,
    waiting: Vec<Envelope>,
    filter: Option<(Filter, bool)>,
    /// What a filter caught.
    pub caught: Vec<Envelope>,
}

impl Network {
    /// A network without cuts.
    pub fn new(weather: Weather) -> Network {
        Network { weather, cuts: Vec::new(), waiting: Vec::new(), filter: None, caught: Vec::new() }
    }

    /// Copies the messages that the filter picks, or takes them away.
    pub fn catch(&mut self, take: bool, filter: impl Fn(&Envelope) -> bool + 'static) {
        self.filter = Some((Box::new(filter), take));
    }

    /// Catches no more; answers what was caught.
    pub fn caught(&mut self) -> Vec<Envelope> {
        self.filter = None;
        std::mem::take(&mut self.caught)
    }

    /// True when a filter took the message.
    pub(crate) fn takes(&mut self, e: &Envelope) -> bool {
        let Some((filter, take)) = &self.filter else { return false };
        if !filter(e) {
            return false;
        }
        self.caught.push(e.clone());
        *take
    }

    /// When copies of a message arrive, in ns from now.
    pub(crate) fn delays(&self, rng: &mut Rng) -> Vec<u64> {
        let w = self.weather;
        let copies = if rng.chance(w.loss) { 0 } else { 1 + u64::from(rng.chance(w.repeat)) };
        let delay = |rng: &mut Rng| {
            let usual = rng.range(20_000, 200_000);
            if rng.chance(w.slow) { usual + rng.below(w.slow_max) } else { usual }
        };
        (0..copies).map(|n| delay(rng) + n * rng.below(w.slow_max + 1)).collect()
    }

    /// Cuts a side off.
    pub fn cut(&mut self, cut: Cut) {
        self.cuts.push(cut);
    }

    /// A message that arrives: passes, is lost, or waits.
    pub(crate) fn pass(&mut self, e: Envelope, rng: &mut Rng) -> Option<Envelope> {
        let (from, to) = (e.from, e.to);
        let meets = |c: &Cut| {
            let (out, into) = (c.side.contains(&from), c.side.contains(&to));
            out != into && ((out && c.out) || (into && c.into))
        };
        if !self.cuts.iter().any(meets) {
            return Some(e);
        }
        if self.weather.keep || rng.chance(500) {
            self.waiting.push(e);
        }
        None
    }

    /// A cut heals, or all do: what waited goes on.
    pub(crate) fn heal(&mut self, id: Option<u64>) -> Vec<Envelope> {
        self.cuts.retain(|c| id.is_some_and(|id| c.id != id));
        std::mem::take(&mut self.waiting)
    }
}
