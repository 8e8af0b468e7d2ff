//! Frames in the hands of threads: one to fill, one to read. The other module with `unsafe`.
//!
//! Invariants: a [`FrameBuf`] is its frame's only user. A page's frame is never written after it was published, and
//! does not return to the pool while pinned or while its group's lock is held.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use dspm_proto::{GroupId, PAGE_SIZE};

use crate::arena::Arena;
use crate::group::GroupStore;
use crate::layout::FrameNo;
use crate::room::Draw;

/// A free frame that the holder fills: a socket reads into it, then it becomes a page of a record. Its bytes are
/// those of its last use, not zeros. Dropped, it is free again.
pub struct FrameBuf {
    arena: Arc<Arena>,
    frame: FrameNo,
}

impl FrameBuf {
    pub(crate) fn new(arena: &Arc<Arena>, draw: Draw) -> Option<FrameBuf> {
        let frame = arena.take(draw)?;
        Some(FrameBuf { arena: arena.clone(), frame })
    }

    /// True when it is a frame of that arena.
    pub(crate) fn is_of(&self, arena: &Arc<Arena>) -> bool {
        Arc::ptr_eq(&self.arena, arena)
    }

    /// The frame is a page now and no longer this buffer's to free.
    pub(crate) fn into_page(mut self) -> FrameNo {
        std::mem::replace(&mut self.frame, FrameNo::NONE)
    }
}

impl Deref for FrameBuf {
    type Target = [u8; PAGE_SIZE];
    fn deref(&self) -> &Self::Target {
        // SAFETY: the frame was popped from the pool, so this buffer is its only user until drop.
        unsafe { &*self.arena.map.page_ptr(self.arena.layout.page_at(self.frame)) }
    }
}

impl DerefMut for FrameBuf {
    fn deref_mut(&mut self) -> &mut Self::Target {
        // SAFETY: as in deref, and &mut self is unique.
        unsafe { &mut *self.arena.map.page_ptr(self.arena.layout.page_at(self.frame)) }
    }
}

impl Drop for FrameBuf {
    fn drop(&mut self) {
        if self.frame != FrameNo::NONE {
            self.arena.release(self.frame);
        }
    }
}

/// A published page that can be read without its group's lock, whatever is freed meanwhile.
pub struct PinnedFrame {
    arena: Arc<Arena>,
    frame: FrameNo,
}

impl PinnedFrame {
    /// Pins a page of a group whose lock is held.
    pub(crate) fn new(arena: &Arc<Arena>, group: GroupId, frame: FrameNo) -> PinnedFrame {
        assert!(arena.is_page_of(frame, group), "frame {} is no page of group {group}", frame.0);
        arena.pin(frame);
        PinnedFrame { arena: arena.clone(), frame }
    }
}

impl Deref for PinnedFrame {
    type Target = [u8; PAGE_SIZE];
    fn deref(&self) -> &Self::Target {
        // SAFETY: published pages are immutable, and the pin keeps the frame from being used again.
        unsafe { &*self.arena.map.page_ptr(self.arena.layout.page_at(self.frame)) }
    }
}

impl Drop for PinnedFrame {
    fn drop(&mut self) {
        self.arena.unpin(self.frame);
    }
}

/// A page of a group whose lock is held: `group` borrows it, so nothing frees the frame meanwhile.
pub(crate) fn page_of(group: &GroupStore, frame: FrameNo) -> &[u8; PAGE_SIZE] {
    let arena = &*group.arena;
    assert!(arena.is_page_of(frame, group.id()), "frame {} is no page of group {}", frame.0, group.id());
    // SAFETY: it is a published page of the borrowed group, hence immutable, and freeing it needs `&mut` of the group.
    unsafe { &*arena.map.page_ptr(arena.layout.page_at(frame)) }
}
