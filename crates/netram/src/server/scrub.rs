//! Looking for damage in all that the node holds, and having it put right: a thread of low priority.
//!
//! A pass reads frames, rings, base files and the log. One begins every `scrub.interval` and reads at most `scrub.rate`; one
//! that was asked for goes first, and faster. What somebody met meanwhile (this node in its base file, a client by the
//! checksum of what it got) is looked at between two steps. Repair itself: [`super::mend`].
//!
//! Invariants: no group's lock is held while the thread reads, waits or asks; nothing here is on the way of a read or a
//! commit. Fault model: that of the store; other members answer with anything, or not at all; who reports damage may lie,
//! and costs a look at that page.

use super::flush::Source;
use super::node::Node;
use dspm_proto::control::{LostPage, ScrubReport};
use dspm_proto::{DatasetId, Error, GroupId, PAGE_SIZE, PageNo};
use dspm_store::Step;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The first pass begins so long after the start, if the interval is not shorter: a start verified the memory.
const FIRST: Duration = Duration::from_secs(60);
/// Bytes a second of a pass that was asked for, unless `scrub.rate` is more.
const ASKED_RATE: u64 = 256 << 20;
/// Between two tries to put the same thing right, and how often it is tried before it counts as lost, or as waiting.
const AGAIN: Duration = Duration::from_millis(300);
const TRIES: u32 = 10;
/// How often a page that is known to be lost is looked at again because somebody reads it.
const LOST_AGAIN: Duration = Duration::from_secs(2);
/// Most pages that wait to be looked at, passes that wait, and reports that are kept.
const SUSPECTS_MAX: usize = 1024;
const PASSES_MAX: usize = 16;
/// Most lost pages that a report names.
const NAMED_MAX: usize = 1000;

/// Something damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// A page, in the arena or in its base file.
    Page(GroupId, DatasetId, PageNo),
    /// An entry of a group's ring, by its position.
    Entry(GroupId, u64),
    /// A segment of the log.
    Segment(u64),
}

/// What a try to put something right came to.
pub(crate) enum Tried {
    Done,
    /// Something is in the way that may end.
    Again,
}

/// What the thread shares with the workers.
#[derive(Default)]
pub(crate) struct Scrub {
    inner: Mutex<Inner>,
    wake: Condvar,
    pub(crate) bytes: AtomicU64,
    pub(crate) bad: AtomicU64,
    pub(crate) repaired: AtomicU64,
}

#[derive(Default)]
struct Inner {
    suspects: BTreeSet<Trouble>,
    /// What was tried in vain, and how often.
    tried: BTreeMap<Trouble, u32>,
    lost: BTreeMap<(GroupId, DatasetId, PageNo), (LostPage, Instant)>,
    asked: VecDeque<(u64, Vec<GroupId>)>,
    passes: u64,
    reports: BTreeMap<u64, ScrubReport>,
}

impl Scrub {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody met a page that does not check: it is looked at soon.
    pub(crate) fn suspect(&self, group: GroupId, dataset: DatasetId, page: PageNo) {
        let mut inner = self.lock();
        let known = inner.lost.get(&(group, dataset, page)).is_some_and(|l| l.1.elapsed() < LOST_AGAIN);
        if !known && inner.suspects.len() < SUSPECTS_MAX {
            inner.suspects.insert(Trouble::Page(group, dataset, page));
            self.wake.notify_all();
        }
    }

    /// Begins a pass, or tells how far one is.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many wait; [`Error::NotFound`] for a pass that is forgotten, or never was.
    pub(crate) fn ask(&self, pass: u64, groups: Vec<GroupId>) -> Result<ScrubReport, Error> {
        let mut inner = self.lock();
        if pass > 0 {
            let unknown = || Error::NotFound(format!("pass {pass} is not known any more: begin another"));
            return inner.reports.get(&pass).cloned().ok_or_else(unknown);
        }
        if inner.asked.len() >= PASSES_MAX {
            return Err(Error::Busy(format!("{PASSES_MAX} passes wait on this node already")));
        }
        let report = inner.new_pass("waiting");
        inner.asked.push_back((report.pass, groups));
        self.wake.notify_all();
        Ok(report)
    }

    /// Nobody had a good copy of it.
    pub(crate) fn is_lost(&self, group: GroupId, page: LostPage) -> bool {
        let key = (group, page.dataset, PageNo(page.page));
        self.lock().lost.insert(key, (page, Instant::now())).is_none()
    }

    /// The page is whole.
    pub(crate) fn is_whole(&self, group: GroupId, dataset: DatasetId, page: PageNo) {
        self.lock().lost.remove(&(group, dataset, page));
    }

    /// Why a page is not answered, in addition to its being damaged; empty while a good copy is looked for.
    pub(crate) fn why_lost(&self, group: GroupId, dataset: DatasetId, page: PageNo) -> String {
        match self.lock().lost.get(&(group, dataset, page)) {
            Some((lost, _)) => format!(", and no good copy was found: {}", lost.said()),
            None => String::new(),
        }
    }

    /// Lost pages of a group, or of all.
    pub(crate) fn lost_pages(&self, group: Option<GroupId>) -> u64 {
        self.lock().lost.keys().filter(|k| group.is_none_or(|g| g == k.0)).count() as u64
    }

    /// How often that was tried in vain, this time included.
    pub(crate) fn count_try(&self, trouble: Trouble) -> u32 {
        let mut inner = self.lock();
        let tries = inner.tried.entry(trouble).or_default();
        *tries += 1;
        *tries
    }

    /// True when it is not tried again before the next pass.
    pub(crate) fn gives_up(tries: u32) -> bool {
        tries >= TRIES
    }
}

impl Inner {
    fn new_pass(&mut self, state: &str) -> ScrubReport {
        self.passes += 1;
        let report = ScrubReport { pass: self.passes, state: state.into(), ..ScrubReport::default() };
        self.reports.insert(report.pass, report.clone());
        let running = |r: &ScrubReport| r.state != "done";
        while self.reports.len() > PASSES_MAX && !self.reports.first_key_value().is_some_and(|r| running(r.1)) {
            self.reports.pop_first();
        }
        report
    }
}

/// One pass.
struct Pass {
    groups: Option<BTreeSet<GroupId>>,
    rate: u64,
    /// A pass of the schedule ends when another is asked for.
    asked: bool,
    report: ScrubReport,
    begun: Instant,
    /// Bytes that were not waited for yet, and since when they come.
    owed: u64,
    since: Instant,
    bad: u64,
    repaired: u64,
}

/// Starts the thread.
///
/// # Errors
/// Those of the operating system.
pub(crate) fn start(node: &Arc<Node>) -> Result<(), Error> {
    let weak = Arc::downgrade(node);
    std::thread::Builder::new().name("scrub".into()).spawn(move || run(&weak))?;
    Ok(())
}

fn run(weak: &Weak<Node>) {
    let _ = rustix::process::nice(19); // of this thread alone, on Linux; without it the thread is only less polite
    let mut due = None;
    while let Some(node) = weak.upgrade() {
        let interval = node.options.scrub_interval;
        let at = *due.get_or_insert_with(|| {
            node.suspect_damaged();
            Instant::now() + interval.min(FIRST)
        });
        node.heal();
        let next = {
            let mut inner = node.scrub.lock();
            let next = inner.asked.pop_front();
            if next.is_none() && inner.suspects.is_empty() {
                let pause = if inner.tried.is_empty() { Duration::from_secs(1) } else { AGAIN };
                drop(node.scrub.wake.wait_timeout(inner, pause).unwrap_or_else(PoisonError::into_inner));
            }
            next
        };
        if let Some((number, groups)) = next {
            node.pass(Some((number, groups)));
        } else if node.options.scrub_rate > 0 && Instant::now() >= at {
            node.pass(None);
            due = Some(Instant::now() + interval);
        }
    }
}

impl Node {
    /// What a start found damaged in the arena.
    fn suspect_damaged(self: &Arc<Self>) {
        for group in self.open_groups() {
            let (id, pages) = {
                let g = group.lock();
                (g.entry.group, g.replica.records.group.damaged_pages())
            };
            pages.into_iter().for_each(|(d, p)| self.scrub.suspect(id, d, p));
        }
    }

    /// Looks at everything that is suspected, and tries again what is due.
    fn heal(self: &Arc<Self>) {
        let todo: Vec<Trouble> = {
            let mut inner = self.scrub.lock();
            let due = inner.tried.iter().filter(|t| !Scrub::gives_up(*t.1)).map(|t| *t.0).collect::<Vec<_>>();
            std::mem::take(&mut inner.suspects).into_iter().chain(due).collect()
        };
        todo.into_iter().for_each(|t| self.put_right(t));
    }

    fn put_right(self: &Arc<Self>, trouble: Trouble) {
        if matches!(self.mend(trouble), Tried::Done) {
            self.scrub.lock().tried.remove(&trouble);
        }
    }

    fn pass(self: &Arc<Self>, asked: Option<(u64, Vec<GroupId>)>) {
        let number = asked.as_ref().map_or_else(|| self.scrub.lock().new_pass("running").pass, |a| a.0);
        let is_asked = asked.is_some();
        let groups = asked.map(|a| a.1).filter(|g| !g.is_empty()).map(|g| g.into_iter().collect());
        let rate = self.options.scrub_rate;
        let now = Instant::now();
        let mut pass = Pass {
            groups,
            rate: if is_asked { rate.max(ASKED_RATE) } else { rate },
            asked: is_asked,
            report: ScrubReport { pass: number, state: "running".into(), ..ScrubReport::default() },
            begun: now,
            owed: 0,
            since: now,
            bad: self.scrub.bad.load(Ordering::Relaxed),
            repaired: self.scrub.repaired.load(Ordering::Relaxed),
        };
        pass.report.all_bytes = self.bytes_to_scrub(&pass);
        self.tell(&mut pass);
        self.look_again_at_lost(&pass);
        self.look(&mut pass);
        // What could not be put right at once gets its time, unless something else is asked.
        while self.is_trying(&pass) && (pass.asked || self.scrub.lock().asked.is_empty()) {
            std::thread::sleep(AGAIN);
            self.heal();
            self.tell(&mut pass);
        }
        pass.report.state = "done".into();
        self.tell(&mut pass);
        // What is in the way of the rest may have ended by the next pass, which finds it again.
        self.scrub.lock().tried.retain(|_, tries| !Scrub::gives_up(*tries));
    }

    fn bytes_to_scrub(&self, pass: &Pass) -> u64 {
        let usage = self.store.usage();
        let base: u64 = self.groups_of(pass).into_iter().flat_map(|g| self.base_files(g)).map(|b| b.1).sum();
        match pass.groups {
            Some(_) => base * PAGE_SIZE as u64,
            None => (usage.used + base) * PAGE_SIZE as u64 + usage.log_bytes,
        }
    }

    fn groups_of(&self, pass: &Pass) -> Vec<GroupId> {
        let all = self.open_groups().into_iter().map(|g| g.lock().entry.group);
        all.filter(|g| pass.wants(*g)).collect()
    }

    fn base_files(&self, id: GroupId) -> Vec<(DatasetId, u64)> {
        let group = self.groups.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        group.map(|g| g.lock().replica.records.group.base_files()).unwrap_or_default()
    }

    fn look_again_at_lost(self: &Arc<Self>, pass: &Pass) {
        let mut inner = self.scrub.lock();
        let lost: Vec<_> = inner.lost.keys().filter(|k| pass.wants(k.0)).copied().collect();
        inner.suspects.extend(lost.into_iter().map(|(g, d, p)| Trouble::Page(g, d, p)));
        inner.tried.retain(|_, tries| !Scrub::gives_up(*tries));
    }

    /// Reads everything. A page that is damaged is put right before the next step.
    fn look(self: &Arc<Self>, pass: &mut Pass) {
        let source = Source(self.clone());
        let wanted: BTreeSet<GroupId> = self.groups_of(pass).into_iter().collect();
        self.steps(pass, None, |from| Ok(self.store.scrub_frames(&source, from, &|g| wanted.contains(&g))));
        for group in &wanted {
            self.steps(pass, Some(*group), |from| Ok(self.store.scrub_ring(&source, *group, from)));
            for (dataset, _) in self.base_files(*group) {
                self.steps(pass, None, |from| self.store.scrub_base(&source, *group, dataset, from));
            }
        }
        if pass.groups.is_none() && !self.is_over(pass) {
            let bad = self.store.scrub_log(&mut |bytes| {
                self.pace(pass, bytes);
                !self.is_over(pass)
            });
            for segment in bad {
                self.found(1);
                eprintln!("dspm-node: scrub: segment {segment} of the log is damaged");
                self.put_right(Trouble::Segment(segment));
            }
        }
    }

    fn steps(
        self: &Arc<Self>,
        pass: &mut Pass,
        ring: Option<GroupId>,
        mut step: impl FnMut(u64) -> Result<Step, Error>,
    ) {
        let mut next = Some(0);
        while let Some(from) = next.filter(|_| !self.is_over(pass)) {
            let found = step(from).unwrap_or_else(|e| {
                eprintln!("dspm-node: scrub: {e}");
                Step::default()
            });
            pass.report.pages += if ring.is_none() { found.items } else { 0 };
            found.pages.into_iter().for_each(|(g, d, p)| self.put_right(Trouble::Page(g, d, p)));
            for (group, position) in ring.into_iter().flat_map(|g| found.entries.iter().map(move |e| (g, *e))) {
                self.found(1);
                eprintln!("dspm-node: scrub: entry {position} of the ring of group {group} is damaged");
                self.put_right(Trouble::Entry(group, position));
            }
            self.pace(pass, found.bytes);
            next = found.next;
        }
    }

    fn is_over(&self, pass: &Pass) -> bool {
        !pass.asked && !self.scrub.lock().asked.is_empty()
    }

    fn is_trying(&self, pass: &Pass) -> bool {
        let inner = self.scrub.lock();
        let open = |t: &Trouble| pass.has(t);
        inner.suspects.iter().any(open) || inner.tried.iter().any(|(t, n)| open(t) && !Scrub::gives_up(*n))
    }

    /// Waits as long as the rate asks for, and looks at what is suspected meanwhile.
    fn pace(self: &Arc<Self>, pass: &mut Pass, bytes: u64) {
        self.scrub.bytes.fetch_add(bytes, Ordering::Relaxed);
        pass.report.done_bytes += bytes;
        pass.owed += bytes;
        let wanted = Duration::from_secs_f64(pass.owed as f64 / pass.rate.max(1) as f64);
        while let Some(left) = wanted.checked_sub(pass.since.elapsed()).filter(|l| *l > Duration::from_millis(1)) {
            let inner = self.scrub.lock();
            let inner = self.scrub.wake.wait_timeout(inner, left.min(AGAIN)).unwrap_or_else(PoisonError::into_inner).0;
            let busy = !inner.suspects.is_empty();
            drop(inner);
            if busy {
                self.heal();
            }
            if self.is_over(pass) {
                break;
            }
        }
        if pass.owed >= pass.rate / 4 {
            (pass.owed, pass.since) = (0, Instant::now());
            self.tell(pass);
        }
    }

    pub(crate) fn found(&self, bad: u64) {
        self.scrub.bad.fetch_add(bad, Ordering::Relaxed);
    }

    /// Brings the pass's report up to date.
    fn tell(&self, pass: &mut Pass) {
        let mut inner = self.scrub.lock();
        let r = &mut pass.report;
        r.bad = self.scrub.bad.load(Ordering::Relaxed) - pass.bad;
        r.repaired = self.scrub.repaired.load(Ordering::Relaxed) - pass.repaired;
        r.ms = pass.begun.elapsed().as_millis() as u64;
        let wants = |g: &GroupId| pass.groups.as_ref().is_none_or(|all| all.contains(g));
        let lost: Vec<_> = inner.lost.iter().filter(|(k, _)| wants(&k.0)).map(|(_, l)| l.0.clone()).collect();
        let is_lost = |t: &Trouble| matches!(t, Trouble::Page(g, d, p) if inner.lost.contains_key(&(*g, *d, *p)));
        r.waiting = inner.tried.keys().filter(|t| !is_lost(t)).count() as u64;
        (r.lost_pages, r.lost) = (lost.len() as u64, lost.into_iter().take(NAMED_MAX).collect());
        inner.reports.insert(r.pass, r.clone());
    }
}

impl Pass {
    fn wants(&self, group: GroupId) -> bool {
        self.groups.as_ref().is_none_or(|g| g.contains(&group))
    }

    fn has(&self, trouble: &Trouble) -> bool {
        match trouble {
            Trouble::Page(g, ..) | Trouble::Entry(g, _) => self.wants(*g),
            Trouble::Segment(_) => self.groups.is_none(),
        }
    }
}
