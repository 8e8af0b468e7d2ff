//! The engines' view: [`Dataset`] over a group of the cluster.

use super::ask::is_outage;
use super::cache::OPEN;
use super::core::Client;
use super::group::{GroupClient, Peer};
use super::link::Link;
use super::send::{Commit, SLOWEST_NS_PER_BYTE};
use super::together::{self, Share};
use crate::wire::{Answer, json};
use dspm_proto::control::{Control, CreateOptions};
use dspm_proto::message::{self, PageVersion, Read, ReadReply};
use dspm_proto::record::verify_page;
use dspm_proto::{DatasetId, Error, Header, Kind, Lsn, PAGE_SIZE, PageNo};
use dspm_txn::dataset::{AsOf, Change, Dataset, DatasetStatus, Intent, Other, Reserved, Snapshot, Ticket};
use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Pages of the first batch of a sequential run, and of the largest.
const AHEAD_LEAST: u64 = 8;
const AHEAD_MOST: u64 = 256;
/// How long a page that is damaged on all members is asked for: one of them may be putting it right.
const MENDING: Duration = Duration::from_millis(500);

/// A dataset of the cluster, opened by this process.
pub struct ClusterDataset {
    group: Arc<GroupClient>,
    dataset: DatasetId,
}

impl Client {
    /// Opens a dataset, created first if it is missing and `create` says how.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`].
    pub fn open(self: &Arc<Self>, name: &str, create: Option<CreateOptions>) -> Result<ClusterDataset, Error> {
        let located = self.locate(name, create)?;
        let dataset = located.entry.dataset;
        let group = self.group(located)?;
        group.lock().handles += 1;
        Ok(ClusterDataset { group, dataset })
    }
}

impl Drop for ClusterDataset {
    /// The last handle of the process gives the leases back, so that nobody has to ask for them: a process that ended
    /// does not answer, and the next commit would wait for its read lease to lapse.
    fn drop(&mut self) {
        if !self.group.client.is_own() {
            return;
        }
        let mut state = self.group.lock();
        state.handles = state.handles.saturating_sub(1);
        if state.handles == 0 {
            state.holder.keep(false);
            if let Some(token) = state.holder.give_up() {
                let tail = state.holder.tail();
                self.group.answer_recall(&mut state, token, dspm_txn::Recall::Return(tail));
            }
            if let Some(below) = state.holder.end_read(crate::clock::now()) {
                self.group.end_read_lease(&mut state, below);
            }
        }
    }
}

impl ClusterDataset {
    /// Its id, which outlives its name.
    pub fn id(&self) -> DatasetId {
        self.dataset
    }

    /// Its share of a commit over several groups.
    fn share<'a>(&'a self, snapshot: &'a mut Snapshot, change: &'a Change<'a>) -> Share<'a> {
        Share { group: &self.group, commit: Commit { dataset: self.dataset, snapshot, change } }
    }

    /// Fetches a page, and with it the ones behind it when pages are read in order.
    fn fetch(&self, snapshot: &Snapshot, page: PageNo, at: usize, buf: &mut [u8]) -> Result<(), Error> {
        let mut pages = self.run(snapshot, page);
        let mut answer = self.ask_members(snapshot, &pages);
        if pages.len() > 1 && matches!(answer, Err(Error::Corrupt(_) | Error::TooOld(_))) {
            pages.truncate(1); // a bad page that nobody asked for does not fail the one that somebody did
            answer = self.ask_members(snapshot, &pages);
        }
        let (reply, data) = answer?;
        let checked = contents(&reply, &data)?;
        // Under the lock, so that no newer state is learned between the look at what is known and the caching.
        let state = self.group.lock();
        self.group.check_epoch(snapshot)?;
        let until = if state.holder.tail().lsn > snapshot.lsn { snapshot.lsn.next() } else { OPEN };
        for ((no, version), content) in pages.iter().zip(&reply.pages).zip(&checked) {
            self.group.client.cache.put(self.dataset, *no, version.lsn, until, content);
        }
        drop(state);
        let wanted =
            checked.first().ok_or_else(|| Error::Protocol("the wanted page is missing in the answer".into()))?;
        buf.copy_from_slice(&wanted[at..at + buf.len()]);
        Ok(())
    }

    /// The pages to ask for: the wanted one first, and those behind it while a run goes on.
    fn run(&self, snapshot: &Snapshot, page: PageNo) -> Vec<PageNo> {
        let group = &self.group;
        let mut length = 0;
        if group.client.options.prefetch {
            let sequential = group.run_next.load(Ordering::Relaxed) == page.0;
            length = if sequential { group.run_length.load(Ordering::Relaxed) * 2 } else { 0 };
            length = if sequential { length.clamp(AHEAD_LEAST, AHEAD_MOST) } else { 0 };
        }
        let end = PageNo::count(snapshot.size).min(page.0 + 1 + length);
        let cache = &group.client.cache;
        let missing = |p: &PageNo| !cache.has(self.dataset, *p, snapshot.lsn);
        let mut pages = vec![page];
        pages.extend((page.0 + 1..end).map(PageNo).take_while(missing));
        group.run_next.store(page.0 + pages.len() as u64, Ordering::Relaxed);
        group.run_length.store(length, Ordering::Relaxed);
        if length == 0 && group.client.options.prefetch {
            let inside = |p: &PageNo| *p != page && p.0 < PageNo::count(snapshot.size);
            pages.extend(self.ended_with(page).into_iter().filter(inside).filter(missing));
        }
        pages
    }

    /// What others changed together with this page since the process last looked, once.
    fn ended_with(&self, page: PageNo) -> Vec<PageNo> {
        let ended = &mut self.group.lock().ended;
        if !ended.contains(&(self.dataset, page)) {
            return Vec::new();
        }
        let (mine, others): (VecDeque<_>, VecDeque<_>) = ended.drain(..).partition(|(d, _)| *d == self.dataset);
        *ended = others;
        mine.into_iter().map(|(_, p)| p).collect()
    }

    /// Any member holds the pages of a snapshot; the primary is asked first. A copy that does not check is no answer.
    fn ask_members(&self, snapshot: &Snapshot, pages: &[PageNo]) -> Result<(ReadReply, Vec<u8>), Error> {
        let (begun, deadline) = (Instant::now(), self.group.deadline());
        let session = self.group.client.session;
        let transfer = Duration::from_nanos((pages.len() * PAGE_SIZE) as u64 * SLOWEST_NS_PER_BYTE);
        let meta = message::encode(&Read { session, dataset: self.dataset, at: snapshot.lsn, pages: pages.to_vec() });
        loop {
            self.group.check_epoch(snapshot)?;
            let mut last = Error::Unavailable("the set has no members".into());
            let (mut moved, mut damaged) = (false, Vec::new());
            let place = self.group.place();
            let mut peers: Vec<_> = place.complete().collect();
            peers.sort_by_key(|p| p.link.is_down());
            for peer in peers {
                self.group.client.count_round_trip();
                let header = self.group.header(Kind::Read, &place, peer);
                let patience = deadline.min(Instant::now() + self.group.lease * 2 + transfer);
                match ask(&self.group.client, &peer.link, header, &meta, patience) {
                    Ok(answer) => match self.verified(snapshot, pages, peer, answer)? {
                        Ok(answer) => return Ok(answer),
                        Err(text) => damaged.push(text),
                    },
                    Err(Error::Corrupt(text)) => damaged.push(text),
                    // The primary showed that state; another member may have less, after a restart or having joined.
                    Err(e @ Error::TooOld(_)) if peer.name != place.primary().name => last = e,
                    Err(e @ (Error::TooOld(_) | Error::Auth(_))) => return Err(e),
                    Err(e) => {
                        moved |= is_outage(&e);
                        last = e;
                    }
                }
            }
            // A member that can put its copy right is about to: it is given a moment.
            let all = damaged.len() == place.complete().count() && (pages.len() > 1 || begun.elapsed() >= MENDING);
            let over = Instant::now() >= deadline;
            if all || over && !damaged.is_empty() {
                return Err(self.damaged(snapshot, pages, &damaged));
            }
            if over {
                return Err(self.group.outage(place.primary(), &last));
            }
            if moved {
                self.group.look_again(deadline)?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl ClusterDataset {
    /// The answer of a member, every page checked; else which pages do not check. The member is told.
    fn verified(
        &self,
        snapshot: &Snapshot,
        pages: &[PageNo],
        peer: &Peer,
        answer: Answer,
    ) -> Result<Result<(ReadReply, Vec<u8>), String>, Error> {
        let reply: ReadReply = message::decode(&answer.meta)?;
        if reply.pages.len() != pages.len() {
            return Err(Error::Protocol(format!("{} pages where {} were asked", reply.pages.len(), pages.len())));
        }
        if let Some(v) = reply.pages.iter().find(|v| v.lsn > snapshot.lsn) {
            return Err(Error::Protocol(format!("a page of commit {} in snapshot {}", v.lsn, snapshot.lsn)));
        }
        let contents = contents(&reply, &answer.data)?;
        let bad = |((_, v), content): &((&PageNo, &PageVersion), &&[u8; PAGE_SIZE])| {
            !v.zero && verify_page(&content[..], v.checksum).is_err()
        };
        let all = pages.iter().zip(&reply.pages).zip(&contents);
        let bad: Vec<(u64, Lsn)> = all.filter(bad).map(|((page, v), _)| (page.0, v.lsn)).collect();
        let Some((page, lsn)) = bad.first() else { return Ok(Ok((reply, answer.data))) };
        let text = format!("page {page} (commit {lsn}) came from node {} with a wrong checksum", peer.name);
        let (group, dataset) = (self.group.entry.group, self.dataset);
        let report = Control::Damaged { group, dataset, pages: bad.iter().map(|b| b.0).collect() };
        let patience = Instant::now() + self.group.lease * 2;
        // Whether it hears of it or not, the page is asked of another member.
        let _ = ask(&self.group.client, &peer.link, Header::new(Kind::Control), &json(&report), patience);
        Ok(Err(text))
    }

    /// No member has a good copy.
    fn damaged(&self, snapshot: &Snapshot, pages: &[PageNo], said: &[String]) -> Error {
        let (name, at) = (&self.group.entry.name, snapshot.lsn);
        let page = pages.first().copied().unwrap_or_default();
        Error::Corrupt(format!("no good copy of page {page} of dataset {name} at commit {at}: {}", said.join("; ")))
    }
}

/// The pages of an answer.
fn contents<'a>(reply: &ReadReply, data: &'a [u8]) -> Result<Vec<&'a [u8; PAGE_SIZE]>, Error> {
    let mut contents = data.chunks_exact(PAGE_SIZE);
    let page = |version: &PageVersion| {
        if version.zero {
            return Ok(&[0; PAGE_SIZE]);
        }
        let bytes = contents.next().ok_or_else(|| Error::Protocol("a page without content".into()))?;
        bytes.try_into().map_err(|_| Error::Protocol("a page of another size".into()))
    };
    reply.pages.iter().map(page).collect()
}

fn ask(client: &Client, link: &Link, header: Header, meta: &[u8], deadline: Instant) -> Result<Answer, Error> {
    link.ask(|| client.dialer(false), header, meta, deadline)
}

impl Dataset for ClusterDataset {
    fn snapshot(&self, intent: Intent) -> Result<Snapshot, Error> {
        self.group.begin(self.dataset, intent)
    }

    fn snapshot_as_of(&self, at: AsOf) -> Result<Snapshot, Error> {
        self.group.begin_as_of(self.dataset, at)
    }

    fn release(&self, snapshot: Snapshot) {
        self.group.unpin(&snapshot);
    }

    fn read(&self, snapshot: &Snapshot, page: PageNo, at: usize, buf: &mut [u8]) -> Result<(), Error> {
        let start = page.0 * PAGE_SIZE as u64 + at as u64;
        let inside = snapshot.size.saturating_sub(start).min(buf.len() as u64) as usize;
        let (inside, beyond) = buf.split_at_mut(inside);
        beyond.fill(0);
        if inside.is_empty() {
            return Ok(());
        }
        if self.group.client.cache.read(self.dataset, page, snapshot.lsn, at, inside) {
            return self.group.check_epoch(snapshot); // after the copy: see GroupClient::epoch
        }
        self.fetch(snapshot, page, at, inside)
    }

    fn reserve(&self, snapshot: &Snapshot, ticket: Option<Ticket>) -> Result<Reserved, Error> {
        if snapshot.past {
            return Err(Error::Permission(format!("commit {} is of the past: it can only be read", snapshot.lsn)));
        }
        self.group.reserve(snapshot, ticket)
    }

    fn forget(&self, ticket: Ticket) {
        self.group.forget(ticket);
    }

    fn commit(&self, snapshot: &mut Snapshot, change: &Change<'_>) -> Result<Lsn, Error> {
        self.group.commit(self.dataset, snapshot, change)
    }

    fn commit_with(
        &self,
        snapshot: &mut Snapshot,
        change: &Change<'_>,
        others: &mut [Other<'_>],
    ) -> Result<Lsn, Error> {
        if others.is_empty() {
            return self.commit(snapshot, change);
        }
        let mut shares = vec![self.share(snapshot, change)];
        for other in others {
            let dataset = other.dataset.as_any().downcast_ref::<ClusterDataset>();
            let dataset = dataset.ok_or_else(|| Error::Usage("a dataset of another store in one commit".into()))?;
            shares.push(dataset.share(other.snapshot, other.change));
        }
        together::commit(shares)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn confirm(&self, snapshot: &Snapshot) -> Result<(), Error> {
        self.group.confirm(snapshot)
    }

    fn release_write(&self) {
        self.group.close();
    }

    fn is_reserved(&self) -> bool {
        self.group.lock().holder.is_open()
    }

    fn hold(&self, keep: bool) {
        self.group.lock().holder.keep(keep);
    }

    fn status(&self) -> DatasetStatus {
        let group = &self.group;
        let state = group.lock();
        let lease = match state.holder.token() {
            None => "none",
            Some(_) if state.holder.valid(crate::clock::now()) => "held",
            Some(_) => "lapsed",
        };
        let (cache_hits, cache_misses) = group.client.cache.counts();
        DatasetStatus {
            mode: "cluster".into(),
            config: group.client.options.config.clone(),
            dataset: group.entry.name.clone(),
            lsn: state.holder.tail().lsn,
            durability: group.entry.durability.name().into(),
            copies: group.entry.copies,
            copies_now: state.copies_now,
            lease: lease.into(),
            transport: "tcp".into(),
            round_trips: group.round_trips(),
            cache_hits,
            cache_misses,
        }
    }
}
