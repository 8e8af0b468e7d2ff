//! The calls of a real mongod, each against the file system and against a directory, with crashes in between.
//!
//! Fault model: the process is gone after any commit; who opens the path next sees what that commit left.

#![allow(clippy::unwrap_used)]

mod model;

use dspm_txn::volume::Volume;
use dspm_wiredtiger::FileSystem;
use dspm_wiredtiger::memory::MemoryVolume;
use model::both::Both;
use model::calls;
use std::sync::Arc;
use std::time::Duration;

/// Most commits of a log after which the whole state is looked at.
const CRASHES: usize = 12;

fn open(volume: Arc<MemoryVolume>) -> Arc<FileSystem> {
    FileSystem::open(volume as Arc<dyn Volume>, Duration::ZERO).unwrap()
}

/// Crashes come behind calls here and there, and in the middle of all that take several records.
fn replay(name: &str) -> (usize, usize) {
    let log = calls::load(name);
    let volume = Arc::new(MemoryVolume::default());
    let mut both = Both::new(open(volume.clone()));
    calls::prepare(&mut both, &log);
    let (mut crashes, step) = (0, log.len() / CRASHES);
    for (i, recorded) in log.iter().enumerate() {
        let before = volume.commits();
        let answer = both.call(&recorded.call);
        if let (Some(expected), Ok(answer)) = (recorded.answer, answer) {
            assert_eq!(answer, expected, "what the mongod was told: {:?}", recorded.call);
        }
        let after = volume.commits();
        // In the middle of a call that takes several records, before its bytes have to be there.
        if after > before + 1 {
            crashes += 1;
            both.model.verify(&open(Arc::new(volume.after(before + 1))), recorded.call.renames());
        }
        both.settle();
        if i % step == step - 1 {
            crashes += 1;
            both.model.verify(&open(Arc::new(volume.after(after))), None);
        }
    }
    both.model.verify(&open(Arc::new(volume.after(volume.commits()))), None);
    (log.len(), crashes)
}

#[test]
fn first_boot() {
    assert!(replay("first_boot_1000j").1 >= CRASHES);
}

#[test]
fn recovery() {
    assert!(replay("recovery_after_kill9").1 >= CRASHES);
}

#[test]
fn reboot() {
    assert!(replay("reboot_clean").1 >= CRASHES);
}

#[test]
fn log_rotation() {
    assert!(replay("log_rotation").1 >= CRASHES);
}
