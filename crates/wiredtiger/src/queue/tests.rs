use super::*;
use crate::directory::Directory;
use crate::memory::MemoryVolume;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// A thread that gathered a file to write back may come behind the one that removes it.
#[test]
fn what_a_removed_file_had_is_not_committed_later() {
    let volume = Arc::new(MemoryVolume::default());
    volume.claim(Duration::ZERO).unwrap();
    let queue = Queue::new(volume.clone());
    let mut directory = Directory::default();
    let (edit, dataset) = directory.create("a", DatasetId(7));
    directory.apply(&edit);
    queue.commit(Work::Edit(Arc::new(edit), None, Vec::new())).unwrap();
    let file = Arc::new(File::new(dataset, 0, Arc::new(AtomicUsize::new(0))));
    file.write(&*volume, 0, b"of no interest").unwrap();
    let edit = Arc::new(directory.remove("a").unwrap());
    queue.commit(Work::Edit(edit, None, vec![file.clone()])).unwrap();
    queue.commit(Work::Sync(vec![file])).unwrap();
    let size = volume.sizes().unwrap().into_iter().find(|s| s.0 == dataset).unwrap().1;
    assert_eq!(size, 0, "the next file of this dataset begins with nothing");
}
