//! Bits flip in memory and on the disk while the process runs. Faults guarded against: damage that nobody looks for until
//! the last good copy is gone; a repair with the wrong content, or one that a crash leaves worse than what it found; a
//! group that stands still because one of its pages is lost.

use dspm_proto::*;

use super::simdisk::{SimDisk, Unsynced};
use super::support::*;
use crate::disk::Disk;
use crate::layout::FrameNo;
use crate::mend::Loss;
use crate::{Lookup, Step};

const MEMORY: u64 = 1 << 20;
const D: DatasetId = DatasetId(1);
const PAGES: u64 = 10;

/// A group with a few commits; `settled` ones are in the base file.
fn world(settled: u64, dirty: u64) -> World {
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    for n in 1..=settled + dirty {
        let fill = n as u8;
        w.append(&[(D, PAGES * 4096)], &[(D, n % PAGES, Some(fill)), (D, (n * 3 + 1) % PAGES, Some(fill + 100))])
            .unwrap();
        if n == settled {
            settle(&w);
        }
    }
    w.with(|g| g.set_committed(g.tail().lsn));
    w
}

fn settle(w: &World) {
    w.with(|g| g.set_committed(g.tail().lsn));
    w.flush();
    w.with(|g| g.set_horizon(g.tail().lsn));
    w.store.checkpoint_all(&*w.source).unwrap();
}

fn frame_of(w: &World, page: u64) -> (FrameNo, Lsn, u64) {
    w.with(|g| match g.lookup(D, PageNo(page), g.tail().lsn) {
        Lookup::Frame { frame, lsn, checksum } => (frame, lsn, checksum),
        other => panic!("page {page}: {other:?}"),
    })
}

fn flip_memory(w: &World, at: usize) {
    let mut byte = [0];
    w.store.arena.map.read(at, &mut byte);
    w.store.arena.map.write(at, &[byte[0] ^ 4]);
}

fn flip_disk(w: &World, part: &str, at: u64) {
    let path = w.disk.files(part).pop().unwrap().0;
    let file = w.disk.open(&path, false).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, at).unwrap();
    file.write_at(&[byte[0] ^ 4], at).unwrap();
}

/// A whole pass over frames, ring and base files: what does not check.
fn pass(w: &World) -> Step {
    let (mut all, mut next) = (Step::default(), Some(0));
    let mut add = |step: Step| {
        all.items += step.items;
        all.pages.extend(step.pages);
        all.entries.extend(step.entries);
        step.next
    };
    while let Some(from) = next {
        next = add(w.store.scrub_frames(&*w.source, from, &|_| true));
    }
    next = Some(0);
    while let Some(from) = next {
        next = add(w.store.scrub_ring(&*w.source, GROUP, from));
    }
    next = Some(0);
    while let Some(from) = next {
        next = add(w.store.scrub_base(&*w.source, GROUP, D, from).unwrap());
    }
    all
}

fn check(w: &World, page: u64) -> crate::PageCheck {
    w.store.check_page(&*w.source, GROUP, D, PageNo(page))
}

fn check_and_log(w: &World, page: u64) -> crate::PageCheck {
    let mut found = check(w, page);
    let before = found.losses.len();
    found.losses.retain(|loss| !w.store.mend_from_log(&*w.source, GROUP, loss));
    found.mended += (before - found.losses.len()) as u64;
    found
}

/// What another member would answer.
fn from_peer(w: &World, loss: &Loss) -> (Lsn, [u8; PAGE_SIZE]) {
    let (lsn, fill) = w.model.page(D, loss.page.0, loss.at);
    (lsn, [fill; PAGE_SIZE])
}

fn mend(w: &World, loss: &Loss) {
    let (lsn, content) = from_peer(w, loss);
    w.store.mend(&*w.source, GROUP, loss, lsn, &content).unwrap();
}

#[test]
fn what_is_sound_is_found_sound_and_all_of_it_is_looked_at() {
    let w = world(12, 5);
    let step = pass(&w);
    assert_eq!((step.pages, step.entries), (vec![], vec![]));
    assert!(step.items > PAGES * 2, "{} items", step.items);
    assert_eq!(w.store.scrub_log(&mut |_| true), [] as [u64; 0]);
    assert_eq!(w.store.usage().checksum_errors, 0);
}

#[test]
fn a_dirty_frame_is_kept_from_readers_and_comes_back_from_another_member() {
    let w = world(4, 9);
    let (frame, lsn, sum) = frame_of(&w, 3);
    flip_memory(&w, frame.0 as usize * 4096 + 77);
    assert_eq!(pass(&w).pages, [(GROUP, D, PageNo(3))]);
    let found = check(&w, 3);
    assert_eq!((found.found, found.mended, found.losses.len()), (1, 0, 1));
    assert_eq!(w.with(|g| g.lookup(D, PageNo(3), g.tail().lsn)), Lookup::Lost { lsn, checksum: sum });
    assert_eq!(pass(&w).pages, [], "it is known");
    let loss = found.losses[0];
    assert_eq!(loss.checksum, Some(sum));
    let wrong = w.store.mend(&*w.source, GROUP, &loss, lsn, &[9; PAGE_SIZE]);
    assert!(matches!(wrong, Err(Error::Corrupt(_))), "{wrong:?}");
    w.flush();
    assert!(w.flushed() < lsn, "the log waits for a good copy");
    mend(&w, &loss);
    w.flush();
    assert_eq!(w.flushed(), w.model.tail());
    w.check(1, PAGES);
    assert_eq!(w.store.usage().checksum_errors, 1);
    World::open(w.disk.copy(), MEMORY, w.model.clone()).check(1, PAGES);
}

#[test]
fn a_clean_frame_comes_back_from_the_log_or_the_base_file() {
    for (settled, dirty) in [(0, 12), (12, 0)] {
        let w = world(settled, dirty);
        w.flush();
        for page in 0..PAGES {
            let Lookup::Frame { frame, .. } = w.with(|g| g.lookup(D, PageNo(page), g.tail().lsn)) else { continue };
            flip_memory(&w, frame.0 as usize * 4096);
            let found = check_and_log(&w, page);
            assert_eq!((found.found, found.mended, found.losses.len()), (1, 1, 0), "page {page}");
        }
        w.check(1, PAGES);
        assert_eq!(pass(&w).pages, []);
    }
}

/// Versions behind and in front of the damaged one are what they were, whatever is appended and given back meanwhile.
#[test]
fn versions_around_a_damaged_one_stay_in_order() {
    for (behind, before) in [(0, 0), (2, 0), (0, 2), (2, 2)] {
        let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
        let write = |w: &mut World, n: u8| w.append(&[(D, 4096)], &[(D, 0, Some(n))]).unwrap();
        (1..=behind + 1).for_each(|n| write(&mut w, n));
        let (frame, ..) = frame_of(&w, 0);
        flip_memory(&w, frame.0 as usize * 4096 + 4000);
        let loss = check(&w, 0).losses[0];
        (0..before).for_each(|n| write(&mut w, 20 + n));
        w.with(|g| g.set_committed(g.tail().lsn));
        let free = w.store.usage().free;
        for at in (1..=w.model.tail().0).map(Lsn).filter(|at| *at != loss.lsn) {
            assert_eq!(w.with(|g| read(g, D, 0, at)), Some(w.model.page(D, 0, at)), "at {at}");
        }
        mend(&w, &loss);
        w.check(1, 1);
        assert_eq!(w.store.usage().free, free);
        settle(&w);
        w.check(1, 1);
        assert!(w.store.usage().free >= free + u64::from(behind) + before as u64, "old versions were given back");
    }
}

#[test]
fn a_version_that_nobody_sees_any_more_is_not_looked_for() {
    let mut w = world(0, 3);
    let (frame, ..) = frame_of(&w, 3);
    flip_memory(&w, frame.0 as usize * 4096);
    assert_eq!(check(&w, 3).losses.len(), 1);
    w.append(&[(D, PAGES * 4096)], &[(D, 3, Some(50))]).unwrap();
    w.store.give_up(&*w.source, GROUP, &w.with(|g| g.losses(D, PageNo(3)))[0]);
    let used = w.store.usage().used;
    settle(&w);
    assert_eq!(w.with(|g| g.damaged_pages()), []);
    assert!(w.store.usage().used < used, "its frame is free");
    w.check(1, PAGES);
}

/// Both kinds of base damage: the page, and its entry.
#[test]
fn a_base_page_is_written_again() {
    for (part, at) in [(".db", 4096 * 6 + 5), (".idx", 4096 + 16 * 6 + 3), (".idx", 4096 + 16 * 6 + 9)] {
        for own in [true, false] {
            let w = world(12, 0);
            let w = if own { w } else { World::open(w.disk.copy(), MEMORY, w.model.clone()) };
            flip_disk(&w, part, at);
            assert_eq!(pass(&w).pages, [(GROUP, D, PageNo(6))]);
            let found = check(&w, 6);
            assert_eq!((found.found, found.mended), (1, u64::from(own)));
            if let [loss] = found.losses[..] {
                assert_eq!(check(&w, 6).found, 0, "counted once");
                let newer = w.store.mend(&*w.source, GROUP, &loss, loss.lsn.next(), &[1; PAGE_SIZE]);
                assert!(matches!(newer, Err(Error::Corrupt(_))), "{newer:?}");
                mend(&w, &loss);
            }
            assert_eq!(pass(&w).pages, []);
            assert_eq!(w.store.usage().checksum_errors, 1);
            w.check(1, PAGES);
            World::open(w.disk.copy(), MEMORY, w.model.clone()).check(1, PAGES);
        }
    }
}

#[test]
fn a_last_page_that_the_file_cuts_short_is_mended_too() {
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    w.append(&[(D, 2 * 4096 + 100)], &[(D, 1, Some(1)), (D, 2, Some(7))]).unwrap();
    settle(&w);
    let w = World::open(w.disk.copy(), MEMORY, w.model.clone());
    let before = w.disk.files(".db");
    flip_disk(&w, ".db", 8192 + 50);
    let found = check(&w, 2);
    mend(&w, &found.losses[0]);
    assert!(w.disk.files(".db") == before);
    assert_eq!(pass(&w).pages, []);
}

/// A page that nobody wrote, whose hole is no hole any more.
#[test]
fn zeros_of_a_base_file_are_mended_with_zeros() {
    let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
    w.append(&[(D, 5 * 4096)], &[(D, 4, Some(1))]).unwrap();
    settle(&w);
    let before = (w.disk.files(".db"), w.disk.files(".idx"));
    flip_disk(&w, ".db", 2 * 4096);
    let found = check(&w, 2);
    w.store.mend(&*w.source, GROUP, &found.losses[0], Lsn(0), &[0; PAGE_SIZE]).unwrap();
    assert!((w.disk.files(".db"), w.disk.files(".idx")) == before);
}

/// The process, or the machine, dies between any two stores of a repair, or inside one.
#[test]
fn a_repair_cut_short_leaves_a_good_page_or_a_damaged_one() {
    let w = world(12, 0);
    for (part, at) in [(".db", 4096 * 6 + 5), (".idx", 4096 + 16 * 6 + 3)] {
        let w = World::open(w.disk.copy(), MEMORY, w.model.clone());
        flip_disk(&w, part, at);
        let loss = check(&w, 6).losses[0];
        w.disk.mark();
        mend(&w, &loss);
        let (mut damaged, mut whole) = (0, 0);
        for (op, bytes) in (0..w.disk.ops()).flat_map(|op| [0, 8, 512, 2048, 4096].map(|n| (op, n))) {
            for unsynced in [Unsynced::Kept, Unsynced::Lost, Unsynced::Mixed((op * 7 + bytes) as u64)] {
                let again = World::open(w.disk.crashed(op, bytes, unsynced), MEMORY, w.model.clone());
                match check(&again, 6).losses.first() {
                    Some(loss) => {
                        damaged += 1;
                        mend(&again, loss);
                    }
                    None => whole += 1,
                }
                again.check(1, PAGES);
            }
        }
        assert!(damaged > 0 && whole > 0, "{damaged} {whole}");
    }
}

#[test]
fn a_frame_is_healed_at_any_crash_point() {
    let w = world(0, 12);
    w.flush();
    let (frame, ..) = frame_of(&w, 4);
    flip_memory(&w, frame.0 as usize * 4096 + 9);
    let image = std::fs::read(w.dir.0.join("arena")).unwrap();
    let again = || World::open_in(Dir::new(), w.disk.copy(), MEMORY, w.model.clone());
    // Half of the new content is there: the frame is still one that does not check.
    for upto in [0, 8, 9, 10, 4096] {
        let copy = Dir::new();
        let mut bytes = image.clone();
        bytes[frame.0 as usize * 4096..][..upto].fill(w.model.page(D, 4, w.model.tail()).1);
        std::fs::write(copy.0.join("arena"), bytes).unwrap();
        std::fs::create_dir_all(copy.0.join("data")).unwrap();
        let found = World::open_in(copy, w.disk.copy(), MEMORY, w.model.clone());
        assert!(found.opened.memory_kept, "{:?}", found.opened.reason);
        assert_eq!(found.with(|g| g.damaged_pages().len()), usize::from(upto < 10));
        check_and_log(&found, 4);
        found.check(1, PAGES);
    }
    again().check(1, PAGES);
}

/// Somebody sends, or writes, the damaged copy while the good one is there: it is not changed under them.
#[test]
fn a_pinned_frame_is_not_written() {
    let w = world(0, 5);
    let (frame, lsn, _) = frame_of(&w, 4);
    let pinned = w.with(|g| g.pin(frame));
    flip_memory(&w, frame.0 as usize * 4096);
    let loss = check(&w, 4).losses[0];
    let (_, content) = from_peer(&w, &loss);
    let busy = w.store.mend(&*w.source, GROUP, &loss, lsn, &content);
    assert!(matches!(busy, Err(Error::Busy(_))), "{busy:?}");
    drop(pinned);
    mend(&w, &loss);
    w.check(1, PAGES);
}

#[test]
fn a_checkpoint_under_way_is_waited_for() {
    let w = world(0, 5);
    let (frame, ..) = frame_of(&w, 4);
    flip_memory(&w, frame.0 as usize * 4096);
    w.with(|g| g.checkpoint_at = Some(g.tail().lsn));
    let found = check(&w, 4);
    assert!(found.later && found.losses.is_empty());
    w.with(|g| g.checkpoint_given_up());
    assert_eq!(check(&w, 4).losses.len(), 1);
}

/// No good copy anywhere: the group goes on, and wherever the page goes it stays known to be damaged.
#[test]
fn what_is_lost_stops_nothing_and_is_never_taken_for_good() {
    let mut w = world(0, 5);
    let (frame, lsn, sum) = frame_of(&w, 4);
    flip_memory(&w, frame.0 as usize * 4096);
    let loss = check(&w, 4).losses[0];
    w.store.give_up(&*w.source, GROUP, &loss);
    w.append(&[(D, PAGES * 4096)], &[(D, 9, Some(90))]).unwrap();
    w.with(|g| g.set_committed(g.tail().lsn));
    w.flush();
    assert_eq!(w.flushed(), w.model.tail(), "the log goes on");
    let is_lost = |w: &World| {
        assert_eq!(w.with(|g| g.lookup(D, PageNo(4), g.tail().lsn)), Lookup::Lost { lsn, checksum: sum });
        for page in (0..PAGES).filter(|p| *p != 4) {
            assert_eq!(w.with(|g| read(g, D, page, g.tail().lsn)).unwrap().1, w.model.page(D, page, w.model.tail()).1);
        }
    };
    is_lost(&w);
    // From the log, without the memory; there somebody has a copy after all.
    let again = World::open(w.disk.copy(), MEMORY, w.model.clone());
    is_lost(&again);
    mend(&again, &again.with(|g| g.losses(D, PageNo(4)))[0]);
    again.check(1, PAGES);
    // And from the base file.
    settle(&w);
    assert!(w.with(|g| g.checkpointed()) == w.model.tail(), "checkpoints go on");
    let read_base = |w: &World| {
        let reader = w.with(|g| g.base_reader(D)).unwrap();
        reader.read(PageNo(4), w.model.tail(), &mut [0; PAGE_SIZE])
    };
    assert!(matches!(read_base(&w), Err(Error::Corrupt(_))));
    let again = World::open(w.disk.copy(), MEMORY, w.model.clone());
    assert!(matches!(read_base(&again), Err(Error::Corrupt(_))));
    mend(&again, &check(&again, 4).losses[0]);
    again.check(1, PAGES);
}

#[test]
fn a_ring_entry_is_dropped_when_the_disk_has_what_it_says() {
    for (settled, nth, offset) in [(0, 0, 4), (0, 5, 20), (0, 11, 70), (8, 10, 100)] {
        let w = world(settled, 12 - settled);
        let position = w.with(|g| g.records[nth].position);
        let part = |g: &crate::GroupStore| g.ring.byte_at(position + offset);
        flip_memory(&w, w.with(|g| part(g)));
        assert_eq!(pass(&w).entries, [position], "byte {offset} of record {nth}");
        w.with(|g| g.set_horizon(g.tail().lsn));
        let dirty = !w.store.mend_ring(&*w.source, GROUP, position);
        assert!(dirty, "its records are nowhere else yet");
        // First what is in front of it goes to the log, then the rest to base files.
        let again = |_| {
            w.flush();
            w.store.mend_ring(&*w.source, GROUP, position)
        };
        assert!((0..4).any(again), "record {nth}");
        assert_eq!(pass(&w).entries, []);
        w.check(1, PAGES);
        assert_eq!(w.flushed().max(w.with(|g| g.checkpointed())), w.model.tail());
        let World { dir, disk, model, store, source, .. } = w;
        drop((store, source));
        let again = World::open_in(dir, disk, MEMORY, model);
        assert!(again.opened.memory_kept, "{:?}", again.opened.reason);
        again.check(1, PAGES);
    }
}

#[test]
fn a_damaged_entry_does_not_part_a_prepared_record_from_its_resolution() {
    let mut w = world(0, 3);
    w.append_of(&[(D, PAGES * 4096)], &[(D, 2, Some(77))], Part::Prepared).unwrap();
    w.flush();
    w.append_of(&[], &[], Part::Aborts).unwrap();
    w.append(&[(D, PAGES * 4096)], &[(D, 1, Some(78))]).unwrap();
    w.with(|g| g.set_committed(g.tail().lsn));
    w.flush();
    let position = w.with(|g| g.records[2].position); // the one before the prepared one
    flip_memory(&w, w.with(|g| g.ring.byte_at(position + 20)));
    assert!(w.store.mend_ring(&*w.source, GROUP, position));
    // A reader keeps what was newest when the record was prepared: the base may not stand between the two.
    w.with(|g| g.set_horizon(Lsn(4)));
    w.store.checkpoint_all(&*w.source).unwrap();
    w.check(1, PAGES);
    let again = World::open(w.disk.copy(), MEMORY, w.model.clone());
    assert!(again.opened.log_intact, "{:?}", again.opened.reason);
    again.check(1, PAGES);
}

#[test]
fn whom_the_newest_record_names_is_known_though_its_entry_is_damaged() {
    for part in [Part::Prepared, Part::Decides] {
        let mut w = world(2, 1);
        w.append_of(&[(D, PAGES * 4096)], &[(D, 2, Some(77))], part).unwrap();
        let position = w.with(|g| g.records.back().unwrap().position);
        flip_memory(&w, w.with(|g| g.ring.byte_at(position + 150)));
        assert_eq!(pass(&w).entries, [position]);
        w.check(1, PAGES);
        w.with(|g| assert_eq!((g.part(g.tail().lsn), g.links(g.tail().lsn).len()), (part, 1)));
        assert!(w.with(|g| g.keeps_from(g.tail().lsn)), "a joining member is given it");
        w.flush();
        assert_eq!(w.flushed(), w.model.tail(), "the log has it");
        assert!(w.store.mend_ring(&*w.source, GROUP, position));
        assert_eq!(pass(&w).entries, []);
        let World { dir, disk, model, store, source, .. } = w;
        drop((store, source));
        let again = World::open_in(dir, disk, MEMORY, model);
        assert!(again.opened.memory_kept, "{:?}", again.opened.reason);
        again.check(1, PAGES);
    }
}

/// The group would take no writer before a restart.
#[test]
fn a_prepared_record_is_taken_back_though_its_entry_is_damaged() {
    for (flushed, offset) in [(true, 4), (true, 70), (false, 20), (false, 150)] {
        let mut w = world(2, 1);
        w.append_of(&[(D, PAGES * 4096)], &[(D, 2, Some(77)), (D, 3, None)], Part::Prepared).unwrap();
        if flushed {
            w.flush();
        }
        let position = w.with(|g| g.records.back().unwrap().position);
        flip_memory(&w, w.with(|g| g.ring.byte_at(position + offset)));
        assert_eq!(pass(&w).entries, [position]);
        w.flush();
        w.append_of(&[], &[], Part::Aborts).unwrap();
        assert_eq!(pass(&w).entries, [], "the entry is whole before the record is forgotten");
        w.append(&[(D, PAGES * 4096)], &[(D, 5, Some(78))]).unwrap();
        w.with(|g| g.set_committed(g.tail().lsn));
        w.flush();
        w.check(1, PAGES);
        let again = World::open(w.disk.copy(), MEMORY, w.model.clone());
        assert!(again.opened.log_intact, "{:?}", again.opened.reason);
        again.check(1, PAGES);
    }
}

#[test]
fn a_damaged_segment_of_the_log_is_made_useless() {
    // Its header, its first batch, one in the middle, its last; of the only segment, and of an older one.
    for older in [false, true] {
        for at in [20, 4096 + 70, 4096 * 6 + 30, 4096 * 11 + 200] {
            let mut w = World::open(SimDisk::default(), MEMORY, Model::default());
            for n in 1..=6 {
                w.append(&[(D, PAGES * 4096)], &[(D, n % PAGES, Some(n as u8))]).unwrap();
                w.flush();
            }
            if older {
                let damaged = crate::arena::lock(&w.store.log).view_ids()[0];
                crate::arena::lock(&w.store.log).leave(damaged).unwrap();
            }
            assert_eq!(w.store.scrub_log(&mut |_| true), [] as [u64; 0]);
            let path = w.disk.files(".seg").into_iter().next().unwrap().0;
            let file = w.disk.open(&path, false).unwrap();
            let mut byte = [0];
            file.read_at(&mut byte, at).unwrap();
            file.write_at(&[byte[0] ^ 8], at).unwrap();
            let bad = w.store.scrub_log(&mut |_| true);
            assert_eq!(bad.len(), 1, "byte {at}, older {older}");
            assert!(!w.store.mend_log(&*w.source, bad[0]).unwrap(), "no commit is known, so none is in base files");
            w.with(|g| g.set_committed(g.tail().lsn));
            w.with(|g| g.set_horizon(g.tail().lsn));
            assert!(w.store.mend_log(&*w.source, bad[0]).unwrap());
            assert_eq!(w.store.scrub_log(&mut |_| true), [] as [u64; 0]);
            w.append(&[(D, PAGES * 4096)], &[(D, 1, Some(77))]).unwrap();
            w.flush();
            let again = World::open(w.disk.copy(), MEMORY, w.model.clone());
            assert!(again.opened.log_intact, "{:?}", again.opened.reason);
            again.check(1, PAGES);
        }
    }
}

#[test]
fn an_image_of_the_log_is_told_from_others_by_its_checksum() {
    let w = world(0, 8);
    w.flush();
    let view = crate::arena::lock(&w.store.log).view();
    let image = |lsn, page, sum| view.image(&w.disk, (GROUP, Lsn(lsn)), (D, PageNo(page), sum));
    let sum = checksum(&[3; PAGE_SIZE]);
    assert_eq!(image(3, 3, sum), Some(vec![3; PAGE_SIZE]));
    assert_eq!(image(3, 3, sum + 1), None);
    assert_eq!(image(4, 3, sum), None);
    assert_eq!(image(3, 4, sum), None);
}

#[test]
fn a_removed_group_and_files_that_are_gone_are_no_damage() {
    let w = world(6, 0);
    let g = w.source.groups.lock().unwrap().remove(&GROUP).unwrap();
    assert_eq!(pass(&w), Step { next: None, ..Step::default() });
    w.store.drop_group(g);
    assert_eq!(check(&w, 1), crate::PageCheck::default());
}
