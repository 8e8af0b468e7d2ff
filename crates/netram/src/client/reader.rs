//! Pages of a snapshot: from the cache, else from a member, with what will be read next.
//!
//! Invariant: nothing is handed out that does not match its checksum, and nothing is cached beyond the commits for which
//! it is known to be the page's content.

use super::ask::is_outage;
use super::cache::OPEN;
use super::core::Client;
use super::group::{GroupClient, Peer};
use super::link::Link;
use super::send::SLOWEST_NS_PER_BYTE;
use crate::wire::{Answer, json};
use dspm_proto::control::Control;
use dspm_proto::message::{self, PageVersion, Read, ReadReply};
use dspm_proto::record::verify_page;
use dspm_proto::{DatasetId, Error, Header, Kind, Lsn, PAGE_SIZE, PageNo, limits};
use dspm_txn::dataset::{PageBuf, Snapshot};
use dspm_txn::volume::ReadAhead;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a page that is damaged on all members is asked for: one of them may be putting it right.
const MENDING: Duration = Duration::from_millis(500);

/// Reads one dataset of a group.
pub(super) struct Reader<'a> {
    pub(super) group: &'a GroupClient,
    pub(super) dataset: DatasetId,
    pub(super) ahead: &'a ReadAhead,
}

impl Reader<'_> {
    /// Copies bytes `at..` of a page; what lies beyond the snapshot's size is zeros.
    pub(super) fn read_page(&self, snapshot: &Snapshot, page: PageNo, at: usize, buf: &mut [u8]) -> Result<(), Error> {
        self.read(snapshot, page.0 * PAGE_SIZE as u64 + at as u64, buf)
    }

    /// Fills the buffer from that byte on; what lies beyond the snapshot's size is zeros.
    pub(super) fn read(&self, snapshot: &Snapshot, start: u64, buf: &mut [u8]) -> Result<(), Error> {
        let inside = snapshot.size.saturating_sub(start).min(buf.len() as u64) as usize;
        let (mut rest, beyond) = buf.split_at_mut(inside);
        beyond.fill(0);
        let mut offset = start;
        while !rest.is_empty() {
            let (page, at) = (PageNo(offset / PAGE_SIZE as u64), (offset % PAGE_SIZE as u64) as usize);
            let here = rest.len().min(PAGE_SIZE - at);
            let cached = self.group.client.cache.read(self.dataset, page, snapshot.lsn, at, &mut rest[..here]);
            let copied = match cached {
                true => here,
                false => self.fetch(snapshot, page, at, rest)?,
            };
            rest = &mut rest[copied..];
            offset += copied as u64;
        }
        self.group.check_epoch(snapshot) // after the copy: see GroupClient::epoch
    }

    /// Fetches a page, and with it what is wanted behind it, and more when pages are read in order. Copies what the buffer
    /// wants of them; answers how many bytes.
    fn fetch(&self, snapshot: &Snapshot, page: PageNo, at: usize, buf: &mut [u8]) -> Result<usize, Error> {
        let mut pages = self.run(snapshot, page, (at + buf.len()).div_ceil(PAGE_SIZE) as u64);
        let mut answer = self.ask_members(snapshot, &pages);
        if pages.len() > 1 && matches!(answer, Err(Error::Corrupt(_) | Error::TooOld(_))) {
            pages.truncate(1); // a bad page that nobody asked for does not fail the one that somebody did
            answer = self.ask_members(snapshot, &pages);
        }
        let (reply, data) = answer?;
        let checked = contents(&reply, &data)?;
        self.keep(snapshot, &pages, &reply, &checked)?;
        let mut copied = 0;
        for (i, content) in checked.iter().enumerate() {
            if pages[i].0 != page.0 + i as u64 || copied == buf.len() {
                break;
            }
            let from = if i == 0 { at } else { 0 };
            let n = (PAGE_SIZE - from).min(buf.len() - copied);
            buf[copied..copied + n].copy_from_slice(&content[from..from + n]);
            copied += n;
        }
        match copied {
            0 => Err(Error::Protocol("the wanted page is missing in the answer".into())),
            n => Ok(n),
        }
    }

    /// Caches pages of an answer, for the commits in which nothing changed them.
    fn keep(&self, snapshot: &Snapshot, pages: &[PageNo], reply: &ReadReply, all: &[&PageBuf]) -> Result<(), Error> {
        // Under the lock, so that no newer state is learned between the look at what is known and the caching.
        let state = self.group.lock();
        self.group.check_epoch(snapshot)?;
        let until = if state.last_change(self.dataset) > snapshot.lsn { snapshot.lsn.next() } else { OPEN };
        for ((no, version), content) in pages.iter().zip(&reply.pages).zip(all) {
            self.group.client.cache.put(self.dataset, *no, version.lsn, until, content);
        }
        Ok(())
    }

    /// The pages to ask for: the missing one first, those that are wanted behind it, and more while a run goes on.
    fn run(&self, snapshot: &Snapshot, page: PageNo, wanted: u64) -> Vec<PageNo> {
        let group = self.group;
        let prefetch = group.client.options.prefetch;
        let behind = if prefetch { self.ahead.behind(page.0, wanted) } else { wanted - 1 };
        let behind = behind.min(limits::READ_PAGES_MAX as u64 - 1);
        let end = PageNo::count(snapshot.size).min(page.0 + 1 + behind);
        let cache = &group.client.cache;
        let missing = |p: &PageNo| !cache.has(self.dataset, *p, snapshot.lsn);
        let mut pages = vec![page];
        pages.extend((page.0 + 1..end).map(PageNo).take_while(missing));
        self.ahead.reached(page.0 + pages.len() as u64);
        if behind == 0 && prefetch {
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

impl Reader<'_> {
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
