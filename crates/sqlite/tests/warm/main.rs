//! The hot path: a warm read transaction allocates nothing in the VFS.
//!
//! A program of its own, since its allocator counts. SQLite allocates elsewhere: with C's.
#![allow(clippy::unwrap_used, missing_docs, dead_code)]

#[path = "../vfs/harness.rs"]
mod harness;

use harness::{Db, group};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_warm_read_transaction_allocates_nothing() {
    for mode in ["delete", "truncate", "persist"] {
        let name = format!("warm-{mode}");
        let db = Db::dspm(&name);
        db.exec(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t(a); INSERT INTO t VALUES(1)"));
        // Another database's journal is there meanwhile, so that the table of journals is really asked.
        let writer = Db::dspm("warm-writer");
        writer.exec("CREATE TABLE IF NOT EXISTS t(a); BEGIN IMMEDIATE; INSERT INTO t VALUES(2)");
        let mut cursor = db.cursor("SELECT count(*) FROM t");
        cursor.reset();
        let group = group(&name);
        let (allocated, reads) = (ALLOCATED.get(), group.reads());
        for _ in 0..100 {
            assert_eq!(cursor.step(), 100);
            cursor.reset();
        }
        let after = (ALLOCATED.get(), group.reads());
        assert_eq!(after, (allocated, reads + 100), "{mode}: sixteen bytes each, and nothing allocated");
        drop(cursor);
        writer.exec("COMMIT");
    }
}
