//! A group's slot: the few words that must be in the arena before an answer is given. 256 bytes, 16 in a frame.
//!
//! Invariants: two copies, written in turn; a copy's sequence word is zero while it is written and stored last, so a
//! crash leaves the older copy. A copy with a sequence and a wrong checksum is damage, never a crash.

use dspm_proto::codec::{get_u32, get_u64};
use dspm_proto::{Error, Generation, GroupId, Lsn, PAGE_SIZE, RecordId, Token, checksum};

use crate::arena::{Arena, lock};
use crate::layout::FrameNo;
use crate::meta::{FrameMeta, Use};
use crate::room::Draw;
use crate::step::step;

const COPY: usize = 128;
const SLOT: usize = 2 * COPY;
const SUMMED: usize = 104;
/// Slots in a frame.
pub(crate) const SLOTS: usize = PAGE_SIZE / SLOT;

/// Which slot: the frame and the place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotNo {
    pub(crate) frame: FrameNo,
    pub(crate) place: usize,
}

/// A fence: who may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// The group's generation.
    pub generation: Generation,
    /// The current writer's token.
    pub token: Token,
}

/// Whether the group was told to forget what it held, and has its pages again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rebased {
    /// It holds all since its beginning.
    #[default]
    Never,
    /// It begins behind this record, and the pages of before are still to come.
    Lacks(RecordId),
    /// They came.
    Whole(RecordId),
}

impl Rebased {
    fn words(self) -> [u64; 4] {
        let (code, id) = match self {
            Rebased::Never => (0, RecordId::default()),
            Rebased::Lacks(id) => (1, id),
            Rebased::Whole(id) => (2, id),
        };
        [code, id.generation.0, id.lsn.0, id.hash]
    }

    fn decode(b: &[u8]) -> Result<Rebased, Error> {
        let id = RecordId { generation: Generation(get_u64(b, 8)), lsn: Lsn(get_u64(b, 16)), hash: get_u64(b, 24) };
        match get_u64(b, 0) {
            0 => Ok(Rebased::Never),
            1 => Ok(Rebased::Lacks(id)),
            2 => Ok(Rebased::Whole(id)),
            _ => Err(Error::Corrupt("a group's slot".into())),
        }
    }
}

/// A slot's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) sequence: u64,
    pub(crate) group: GroupId,
    pub(crate) fence: Fence,
    pub(crate) committed: Lsn,
    pub(crate) flushed: Lsn,
    /// Versions that only snapshots below this see may be gone.
    pub(crate) horizon: Lsn,
    /// Position of the ring's first entry.
    pub(crate) head: u64,
    pub(crate) rebased: Rebased,
}

impl Slot {
    fn encode(&self) -> [u8; SUMMED + 8] {
        let mut b = [0u8; SUMMED + 8];
        let t = self.fence.token;
        let boot_n = u64::from(t.boot) | u64::from(t.n) << 32;
        let words = [
            self.sequence,
            self.group.0,
            self.fence.generation.0,
            t.generation.0,
            boot_n,
            self.committed.0,
            self.flushed.0,
            self.horizon.0,
            self.head,
        ];
        for (i, w) in words.iter().chain(&self.rebased.words()).enumerate() {
            b[i * 8..i * 8 + 8].copy_from_slice(&w.to_le_bytes());
        }
        let sum = checksum(&b[..SUMMED]);
        b[SUMMED..].copy_from_slice(&sum.to_le_bytes());
        b
    }

    fn decode(b: &[u8; COPY]) -> Result<Option<Slot>, Error> {
        let sequence = get_u64(b, 0);
        if sequence == 0 {
            return Ok(None);
        }
        if get_u64(b, SUMMED) != checksum(&b[..SUMMED]) {
            return Err(Error::Corrupt("a group's slot".into()));
        }
        let token = Token { generation: Generation(get_u64(b, 24)), boot: get_u32(b, 32), n: get_u32(b, 36) };
        Ok(Some(Slot {
            sequence,
            group: GroupId(get_u64(b, 8)),
            fence: Fence { generation: Generation(get_u64(b, 16)), token },
            committed: Lsn(get_u64(b, 40)),
            flushed: Lsn(get_u64(b, 48)),
            horizon: Lsn(get_u64(b, 56)),
            head: get_u64(b, 64),
            rebased: Rebased::decode(&b[72..SUMMED])?,
        }))
    }
}

impl SlotNo {
    fn at(self, arena: &Arena) -> usize {
        arena.layout.page_at(self.frame) + self.place * SLOT
    }

    /// Takes a free slot, with a new frame of them when none is left.
    pub(crate) fn take(arena: &Arena) -> Result<SlotNo, Error> {
        let mut slots = lock(&arena.slots);
        if slots.is_empty() {
            let full = || Error::Full("the arena has no room for another group".into());
            let frame = arena.take(Draw::Keep).ok_or_else(full)?;
            arena.map.write(arena.layout.page_at(frame), &[0; PAGE_SIZE]);
            arena.publish(frame, &FrameMeta::plain(Use::Slots, GroupId(0), 0));
            slots.extend((0..SLOTS).rev().map(|place| SlotNo { frame, place }));
        }
        slots.pop().ok_or_else(|| Error::Failed("slot table".into()))
    }

    /// Makes a slot free: both copies say "none".
    pub(crate) fn clear(self, arena: &Arena, newest: &Slot) {
        let at = self.at(arena);
        // The older copy first: a crash in between leaves the newest.
        arena.map.store(at + copy_of(newest.sequence + 1) * COPY, 0);
        step("slot half cleared");
        arena.map.store(at + copy_of(newest.sequence) * COPY, 0);
    }

    /// Gives a cleared slot back.
    pub(crate) fn release(self, arena: &Arena) {
        lock(&arena.slots).push(self);
    }

    /// Writes the next copy.
    #[inline]
    pub(crate) fn write(self, arena: &Arena, slot: &mut Slot) {
        slot.sequence += 1;
        let at = self.at(arena) + copy_of(slot.sequence) * COPY;
        let bytes = slot.encode();
        arena.map.store(at, 0);
        step("slot copy opened");
        arena.map.write(at + 8, &bytes[8..]);
        step("slot copy written");
        arena.map.store(at, slot.sequence);
        step("slot published");
    }

    /// The newest copy; None when the slot is free.
    pub(crate) fn read(self, arena: &Arena) -> Result<Option<Slot>, Error> {
        let mut best: Option<Slot> = None;
        for copy in 0..2 {
            let mut b = [0u8; COPY];
            arena.map.read(self.at(arena) + copy * COPY, &mut b);
            if let Some(s) = Slot::decode(&b)? {
                best = Some(best.filter(|o| o.sequence > s.sequence).unwrap_or(s));
            }
        }
        Ok(best)
    }
}

fn copy_of(sequence: u64) -> usize {
    (sequence % 2) as usize
}
