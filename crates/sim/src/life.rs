//! Processes die, are stopped and start again.

use crate::ctx::Ctx;
use crate::disk::Credulous;
use crate::mutant::Mutant;
use crate::node::{Loss, Node};
use crate::records::SimRecords;
use crate::rng::Rng;
use crate::sabotage::Sabotage;
use crate::set::SetConfig;
use crate::wire::Who;
use crate::world::{Event, World};
use dspm_proto::{Lsn, StoreId};
use dspm_txn::Member;
use std::collections::BTreeSet;
use std::rc::Rc;

impl World {
    /// Groups whose members all have their memory; one of them, where membership changes.
    pub fn live_groups(&self) -> Vec<usize> {
        let whole = |m: &Member| self.nodes[m.node as usize].has_all_of(m.store);
        let live = |c: &Rc<SetConfig>| match c.changes {
            true => c.last_active.iter().any(whole),
            false => c.members.iter().all(whole),
        };
        (0..self.groups()).filter(|g| live(self.set_of(*g))).collect()
    }

    /// Starts what crashed.
    pub fn restart(&mut self, who: Who) {
        if !self.dead.remove(&who) {
            return;
        }
        self.trace.say(|| format!("{who} starts again"));
        match who {
            Who::Node(_) | Who::Registry => self.act(who, |actor, ctx| actor.start(ctx)),
            Who::Client(c) => self.new_client(c, self.clients[c as usize].threads.len()),
        }
    }

    /// A process dies.
    pub fn crash(&mut self, who: Who, loss: Loss) {
        self.paused.remove(&who);
        self.dead.insert(who);
        self.trace.say(|| format!("{who} crashes, loses {loss:?}"));
        if let Who::Node(n) = who {
            let store = StoreId(self.rng.bits() | 1);
            self.nodes[n as usize].crash(loss, store, self.mutant, &mut self.rng);
            if self.mutant == Some(Mutant::GenerationNotDurable) {
                self.nodes[n as usize].forget_generation(&self.first);
            }
            if loss != Loss::Nothing {
                self.set_clock(who);
                self.horizons.iter_mut().for_each(|h| h[n as usize] = Lsn(0));
            }
        }
    }

    /// A process is stopped.
    pub fn pause(&mut self, who: Who) {
        self.trace.say(|| format!("{who} is stopped"));
        self.paused.entry(who).or_default();
    }

    /// A node whose log could not be synced is another store from then on.
    pub(crate) fn give_up(&mut self, who: Who) {
        let Who::Node(n) = who else { return };
        if self.nodes[n as usize].gave_up {
            self.crash(who, Loss::Memory);
            let back = self.time + self.rng.below(300_000_000);
            self.push(back, Event::Restart(who));
        }
    }
}

impl Node {
    /// The process starts.
    pub fn start(&mut self, ctx: &mut Ctx<'_>) {
        if self.boot == 0 || !ctx.broken(Mutant::BootKept) {
            self.boot += 1;
        }
        self.read_at = (ctx.now, ctx.now);
        (self.running, self.started, self.beat_due) = (true, ctx.now, ctx.now);
        for g in 0..self.slots.len() {
            self.take_part(self.slots[g].config.no, ctx);
            if self.slots[g].config.store_of(self.no) != self.store {
                continue; // what it remembers is opened when it is in the set again
            }
            let mut records = self.slots[g].kept.take().unwrap_or_default();
            if ctx.broken(Mutant::FenceVolatile) {
                records.forget_fence();
            }
            records.lies.fresh = ctx.broken(Mutant::RestartNoWait);
            self.open(g, records, ctx);
        }
    }

    /// The process dies.
    pub fn crash(&mut self, loss: Loss, new_store: StoreId, mutant: Option<Mutant>, rng: &mut Rng) {
        let credulous =
            Credulous { torn: mutant == Some(Mutant::TornReplayed), damage: mutant == Some(Mutant::DamageIsEnd) };
        let mut left = loss != Loss::Memory;
        for slot in &mut self.slots {
            let was = slot.replica.take().map(|r| r.records).or(slot.kept.take());
            let mut records = was.unwrap_or_default();
            slot.copy = None;
            if loss == Loss::Flip {
                let lsn = Lsn(rng.below(records.synced().0 + 1));
                // With the end of the log gone it is a member like any other: no set may go on with it alone.
                let told = !slot.config.changes || records.is_before_end(lsn);
                self.flipped |= told && records.flip_at(lsn);
            }
            if matches!(loss, Loss::Power | Loss::Flip) {
                left &= records.power_cut(self.tears.then_some(&mut *rng), credulous);
            }
            slot.kept = Some(records);
        }
        if !left {
            self.slots.iter_mut().for_each(|s| s.kept = Some(SimRecords::default()));
            self.lost.push(self.store);
            self.flipped = false;
            if mutant != Some(Mutant::StoreKept) {
                self.store = new_store;
            }
        }
        self.parts.iter_mut().for_each(|p| (p.grants, p.settled) = (None, BTreeSet::new()));
        (self.sync_fails, self.gave_up) = (false, false);
        (self.running, self.flushing, self.sabotage) = (false, None, Sabotage::default());
        self.links.clear();
        self.homes.clear();
    }
}
