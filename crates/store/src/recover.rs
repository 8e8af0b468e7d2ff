//! Reading an arena back after a crash of the process.
//!
//! The rings say which records exist; frames above their group's tail, and of no group, were never published and are
//! free. Everything is verified: table, slots, rings, and the content of every page. Damage of something that is
//! nowhere else means that the memory is not intact, and the caller starts an empty one under a new name; a damaged
//! page that the log holds is counted, kept off the readers and asked for from another member.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dspm_proto::record::{Payload, Record};
use dspm_proto::{ClientId, DatasetId, Error, GroupId, Kind, Lsn, PAGE_SIZE, Part, RecordId, Session};

use crate::arena::Arena;
use crate::group::{GroupStore, Hidden, Kept};
use crate::index::{Base, Dataset, Lost};
use crate::layout::FrameNo;
use crate::meta::{FrameMeta, Use};
use crate::ring::Ring;
use crate::slot::{Rebased, SLOTS, Slot, SlotNo};

/// Frames of the table, sorted by use.
#[derive(Default)]
struct Found {
    free: Vec<u32>,
    pages: HashMap<GroupId, Vec<(FrameMeta, FrameNo)>>,
    rings: HashMap<GroupId, Vec<(u64, FrameNo)>>,
    slots: Vec<FrameNo>,
}

/// Rebuilds the groups and the pool.
///
/// # Errors
/// [`Error::Corrupt`]: the memory is not intact.
pub(crate) fn recover(
    arena: &Arc<Arena>,
    bases: &mut HashMap<DatasetId, Base>,
) -> Result<BTreeMap<GroupId, GroupStore>, Error> {
    let mut found = scan(arena)?;
    let mut groups = BTreeMap::new();
    for (place, slot) in slots(arena, &found.slots)? {
        let id = slot.group;
        let parts = found.rings.remove(&id).unwrap_or_default();
        let pages = found.pages.remove(&id).unwrap_or_default();
        let group = recover_group(arena, place, slot, parts, pages, bases, &mut found.free)?;
        if groups.insert(id, group).is_some() {
            return Err(Error::Corrupt(format!("two slots of group {id}")));
        }
    }
    // What is left belongs to groups that a crash caught being removed, or being made.
    let orphans = found.rings.into_values().flatten().map(|p| p.1);
    for frame in orphans.chain(found.pages.into_values().flatten().map(|p| p.1)).collect::<Vec<_>>() {
        discard(arena, frame, &mut found.free);
    }
    arena.groups.store(groups.len(), Ordering::Relaxed);
    let ring = groups.values().map(|g| g.ring.parts()).sum();
    arena.ring_frames.store(ring, Ordering::Relaxed);
    arena.fill(found.free);
    Ok(groups)
}

fn scan(arena: &Arena) -> Result<Found, Error> {
    let mut found = Found::default();
    for i in 0..arena.layout.frames as usize {
        let frame = arena.layout.frame(i);
        match arena.meta(frame)? {
            None => found.free.push(frame.0),
            Some(m) => match m.used {
                Use::Free => found.free.push(frame.0),
                Use::Page => found.pages.entry(m.group).or_default().push((m, frame)),
                Use::Ring => found.rings.entry(m.group).or_default().push((m.page.0, frame)),
                Use::Slots => found.slots.push(frame),
            },
        }
    }
    Ok(found)
}

fn slots(arena: &Arena, frames: &[FrameNo]) -> Result<Vec<(SlotNo, Slot)>, Error> {
    let mut used = Vec::new();
    let mut free = Vec::new();
    for frame in frames {
        for place in 0..SLOTS {
            let no = SlotNo { frame: *frame, place };
            match no.read(arena)? {
                Some(slot) => used.push((no, slot)),
                None => free.push(no),
            }
        }
    }
    *crate::arena::lock(&arena.slots) = free;
    Ok(used)
}

/// Makes the table say "free" for a frame that is not in the pool yet.
fn discard(arena: &Arena, frame: FrameNo, free: &mut Vec<u32>) {
    arena.map.store(arena.layout.meta_at(frame) + crate::meta::STATE_AT, 0);
    free.push(frame.0);
}

fn recover_group(
    arena: &Arc<Arena>,
    place: SlotNo,
    slot: Slot,
    parts: Vec<(u64, FrameNo)>,
    pages: Vec<(FrameMeta, FrameNo)>,
    bases: &mut HashMap<DatasetId, Base>,
    free: &mut Vec<u32>,
) -> Result<GroupStore, Error> {
    let mut g = GroupStore::empty(arena, place, slot);
    let (ring, stale) = Ring::from_parts(arena, slot.group, slot.head, parts)?;
    g.ring = ring;
    stale.into_iter().for_each(|f| discard(arena, f, free));
    let flushed = slot.flushed;
    let (expected, rebase) = read_ring(&mut g)?;
    // A crash came between the ring's entry and the slot. An entry at the head of a ring that has more is in the slot.
    let cut_short = rebase.filter(|r| r.0 != slot.head || slot.rebased == Rebased::Never);
    if let Some((position, id)) = cut_short {
        g.enter_rebased(position, id);
    }
    if cut_short.is_none() && g.slot.flushed < flushed && flushed <= g.tail.lsn {
        g.slot.flushed = flushed; // records behind the cut were flushed since
    }
    if g.slot.committed > g.tail.lsn || g.slot.flushed > g.tail.lsn || g.base.lsn > g.slot.committed {
        return Err(Error::Corrupt(format!("group {}: its ring ends at {}", g.id(), g.tail.lsn)));
    }
    g.slot.horizon = g.slot.horizon.min(g.tail.lsn); // directly behind a cut it may be above
    place_pages(&mut g, pages, expected, free)?;
    g.checkpointed = g.rebased_to().map_or(Lsn(0), |id| id.lsn);
    let whole = g.is_whole();
    for d in g.datasets.values_mut() {
        d.awaits = !whole;
        if let Some(base) = bases.remove(&d.id).filter(|_| whole) {
            g.checkpointed = g.checkpointed.max(base.lsn);
            d.drop_lost(arena, base.lsn);
            d.set_base(base);
        }
    }
    let raised = g.slot.horizon.max(g.base.lsn);
    if raised > g.slot.horizon {
        g.slot.horizon = raised;
        g.place.write(arena, &mut g.slot);
    }
    g.rebuild_superseded();
    Ok(g)
}

/// A page that must have a frame, and its checksum.
type Expected = HashMap<(DatasetId, u64, Lsn), u64>;

/// Walks the ring from its head; afterwards base, tail, records, sizes and sessions are as before.
/// Returns the pages that records name, and the position and record of the last rebase.
fn read_ring(g: &mut GroupStore) -> Result<(Expected, Option<(u64, RecordId)>), Error> {
    let corrupt = |what: &str| Error::Corrupt(format!("group {}: {what}", g.slot.group));
    let (no_state, gap) =
        (corrupt("its ring begins without a state"), corrupt("a record does not follow the one before"));
    let mut expected = Expected::new();
    let mut at = g.slot.head;
    let mut has_state = at == 0;
    let mut begun = at == 0;
    let mut rebase = None;
    while let Some((header, meta, end)) = g.ring.entry(at)? {
        match header.kind {
            Kind::Commit => {
                let record = Record::decode(&header, &meta)?;
                if !begun {
                    g.base = RecordId { lsn: Lsn(header.lsn.0 - 1), hash: record.predecessor, ..RecordId::default() };
                    (g.tail, begun) = (g.base, true);
                }
                if record.id.lsn != g.tail.lsn.next() || record.predecessor != g.tail.hash {
                    return Err(gap);
                }
                note_record(g, &record, &meta, at, &mut expected);
            }
            Kind::Checkpoint => {
                let (base, tail) = g.load_state(&meta)?;
                let first = at == 0; // a group that was rebuilt from disk begins with a state
                if begun && !first && (tail.lsn, tail.hash) != (g.tail.lsn, g.tail.hash) {
                    return Err(gap);
                }
                let dropped = if begun { base.lsn.0.saturating_sub(g.base.lsn.0) as usize } else { 0 };
                g.records.drain(..dropped.min(g.records.len()));
                g.tail = tail;
                // The head may have passed the base of an older state that is still in the ring.
                if !begun || base.lsn >= g.base.lsn {
                    g.base = base;
                }
                (has_state, begun) = (true, true);
            }
            Kind::Rebase => {
                (g.base, g.tail) = g.load_state(&meta)?;
                g.records.clear();
                expected.clear();
                rebase = Some((at, g.base));
                (has_state, begun) = (true, true);
            }
            Kind::Complete => cut(g, header.lsn, &mut expected)?,
            Kind::Renew if meta.len() == 16 => {
                let word = |i| dspm_proto::codec::get_u64(&meta, i);
                g.sessions.note(Session { client: ClientId(word(0)), number: word(8) });
            }
            _ => return Err(gap),
        }
        at = end;
    }
    if !has_state {
        return Err(no_state);
    }
    g.ring.set_end(at);
    g.ring.trim();
    Ok((expected, rebase))
}

fn note_record(g: &mut GroupStore, record: &Record, meta: &[u8], position: u64, expected: &mut Expected) {
    g.note_sizes(record);
    if record.part == Part::Aborts {
        g.forget_taken(Lsn(record.id.lsn.0 - 1));
        expected.retain(|k, _| k.2 != Lsn(record.id.lsn.0 - 1));
    }
    g.note_writer(record);
    g.note_open(record, meta);
    let mut pages = 0;
    for p in record.pages.iter().filter(|p| p.payload != Payload::Zero) {
        expected.insert((record.datasets[p.dataset as usize].dataset, p.page.0, record.id.lsn), p.checksum);
        pages += 1;
    }
    g.records.push_back(Kept { position, pages, part: record.part });
    g.tail = record.id;
}

fn cut(g: &mut GroupStore, to: Lsn, expected: &mut Expected) -> Result<(), Error> {
    let keep = to.0.checked_sub(g.base.lsn.0).filter(|k| *k as usize <= g.records.len());
    let keep = keep.ok_or_else(|| Error::Corrupt("a cut below the oldest record".into()))?;
    g.records.truncate(keep as usize);
    g.sessions.cut(to);
    g.tail = if keep == 0 { g.base } else { g.decoded(to)?.map_or(g.base, |r| r.0.id) };
    expected.retain(|k, _| k.2 <= to);
    let arena = g.arena.clone();
    g.datasets.values_mut().for_each(|d| d.cut_lists(&arena, to));
    g.datasets.retain(|_, d| !d.sizes.is_empty());
    g.slot.flushed = g.slot.flushed.min(to.max(g.tail.lsn));
    Ok(())
}

fn place_pages(
    g: &mut GroupStore,
    mut pages: Vec<(FrameMeta, FrameNo)>,
    mut expected: Expected,
    free: &mut Vec<u32>,
) -> Result<(), Error> {
    let arena = g.arena.clone();
    let mut buffer = Box::new([0u8; PAGE_SIZE]);
    pages.sort_unstable_by_key(|(m, _)| (m.dataset, m.page, m.lsn));
    let forgotten = match g.slot.rebased {
        Rebased::Never => Lsn(0),
        Rebased::Lacks(id) | Rebased::Whole(id) => id.lsn,
    };
    for (m, frame) in pages {
        if m.lsn > g.tail.lsn || m.lsn <= forgotten || g.is_aborted(m.lsn) {
            discard(&arena, frame, free);
            continue;
        }
        let known = expected.remove(&(m.dataset, m.page.0, m.lsn));
        if known.is_some_and(|sum| sum != m.checksum) || (known.is_none() && m.lsn > g.base.lsn) {
            return Err(Error::Corrupt(format!("frame {} is of no record of group {}", frame.0, g.id())));
        }
        let d = g.datasets.entry(m.dataset).or_insert_with(|| Dataset::new(m.dataset));
        if arena.actual_sum(frame, &mut buffer) == m.checksum {
            d.insert(&arena, m.page.0, frame);
            continue;
        }
        if m.lsn > g.slot.flushed {
            return Err(Error::Corrupt(format!("page {} of dataset {} at {}", m.page, m.dataset, m.lsn)));
        }
        arena.checksum_errors.fetch_add(1, Ordering::Relaxed);
        d.lost.insert((m.page.0, m.lsn), Lost::new(m.checksum, frame));
    }
    match expected.into_keys().find(|k| k.2 > g.slot.horizon) {
        Some(k) => Err(Error::Corrupt(format!("group {}: page {} of LSN {} has no frame", g.id(), k.1, k.2))),
        None => count_dirty(g),
    }
}

fn count_dirty(g: &mut GroupStore) -> Result<(), Error> {
    g.counted_clean = g.slot.flushed;
    let from = (g.slot.flushed.max(g.base.lsn).0 + 1)..=g.tail.lsn.0;
    let dirty: u64 = from.filter_map(|l| g.kept(Lsn(l))).map(|k| u64::from(k.pages)).sum();
    g.arena.dirty.fetch_add(dirty, Ordering::Relaxed);
    Ok(())
}

impl GroupStore {
    /// What may be freed when the horizon rises, from the chains and lists.
    fn rebuild_superseded(&mut self) {
        let mut all = Vec::new();
        for d in self.datasets.values() {
            for page in d.pages_from(0) {
                let newest = d.newest(page);
                let mut f = newest;
                while f != FrameNo::NONE && self.arena.older(f) != FrameNo::NONE {
                    all.push((self.arena.lsn(f), d.id, Hidden::Page(page)));
                    f = self.arena.older(f);
                }
            }
            all.extend(d.truncations.iter().map(|t| (t.0, d.id, Hidden::From(t.1))));
            all.extend(d.zeros.iter().map(|z| (z.1, d.id, Hidden::Page(z.0))));
        }
        all.sort_unstable();
        all.dedup();
        self.superseded = all.into();
        // Versions that the horizon of before had freed, or was about to.
        self.wanted = self.slot.horizon;
        self.prune_superseded();
    }
}
