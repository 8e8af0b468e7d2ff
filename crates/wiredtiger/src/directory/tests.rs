use super::*;

/// The main dataset as commits leave it.
struct Disk(Vec<u8>, Directory, u64);

impl Disk {
    fn new() -> Disk {
        Disk(Directory::header().to_vec(), Directory::default(), 100)
    }

    fn apply(&mut self, edit: Edit) {
        self.0.resize(edit.size as usize, 0);
        for (page, content) in &edit.pages {
            self.0[page.0 as usize * PAGE_SIZE..][..PAGE_SIZE].copy_from_slice(&content[..]);
        }
        self.1.apply(&edit);
    }

    fn create(&mut self, name: &str) -> DatasetId {
        self.2 += 1;
        let (edit, dataset) = self.1.create(name, DatasetId(self.2));
        self.apply(edit);
        dataset
    }

    /// What is read back is what is known.
    fn check(&self) -> Vec<(String, DatasetId)> {
        let files = |d: &Directory| d.files().map(|(n, d)| (n.to_string(), d)).collect::<Vec<_>>();
        let read = Directory::decode(&self.0).unwrap();
        assert_eq!(files(&read), files(&self.1));
        files(&read)
    }
}

#[test]
fn what_is_written_is_read_back_and_datasets_are_used_again() {
    let mut disk = Disk::new();
    for i in 0..20 {
        disk.create(&format!("f{i:02}"));
    }
    let seventh = disk.1.find("f07").unwrap();
    let edit = disk.1.remove("f07").unwrap();
    assert_eq!((edit.pages.len(), &edit.emptied[..]), (1, &[seventh][..]));
    disk.apply(edit);
    assert_eq!(disk.check().len(), 19);
    assert_eq!(disk.create("journal/new"), seventh);
    assert_eq!(disk.create("one more"), DatasetId(122), "no free slot: a new dataset");
    assert_eq!(disk.check().len(), 21);
    assert_eq!(disk.0.len(), 4 * PAGE_SIZE);
}

#[test]
fn a_rename_takes_the_place_of_what_had_the_name() {
    let mut disk = Disk::new();
    for i in 0..9 {
        disk.create(&format!("f{i}"));
    }
    let (turtle, set) = (disk.create("turtle"), disk.create("turtle.set"));
    let edit = disk.1.rename("turtle.set", "turtle").unwrap();
    assert_eq!(edit.emptied, [turtle]);
    disk.apply(edit);
    assert_eq!((disk.1.find("turtle"), disk.1.find("turtle.set")), (Some(set), None));
    disk.check();
    let edit = disk.1.rename("f0", "g").unwrap();
    assert_eq!(edit.emptied, []);
    disk.apply(edit);
    assert_eq!(disk.create("turtle.set"), turtle);
    disk.check();
    assert!(disk.1.rename("f0", "x").is_none() && disk.1.remove("f0").is_none());
}

#[test]
fn directories_are_where_files_are() {
    let mut disk = Disk::new();
    assert!(disk.1.has_directory("") && disk.1.has_directory("journal") && !disk.1.has_directory("db"));
    for name in ["db/collection-1.wt", "db/index/2.wt", "db", "dbx/3.wt", "WiredTiger.wt"] {
        disk.create(name);
    }
    for (path, there) in [("db", true), ("db/index", true), ("dbx", true), ("d", false), ("WiredTiger.wt", false)] {
        assert_eq!(disk.1.has_directory(path), there, "{path}");
    }
    assert_eq!(disk.1.list("", ""), ["WiredTiger.wt", "db", "dbx"]);
    assert_eq!(disk.1.list("db", ""), ["collection-1.wt", "index"]);
    assert_eq!(disk.1.list("db", "c"), ["collection-1.wt"]);
    assert_eq!(disk.1.list("journal", ""), Vec::<String>::new());
}

#[test]
fn foreign_and_damaged_bytes_are_refused() {
    let mut disk = Disk::new();
    disk.create("a");
    disk.create("b");
    let errno = |bytes: &[u8]| Directory::decode(bytes).unwrap_err().errno;
    assert_eq!(errno(b"SQLite format 3\0"), libc::EINVAL);
    assert_eq!(errno(&[0; 2 * PAGE_SIZE]), libc::EINVAL);
    let harm = |at: usize, byte: u8| {
        let mut bytes = disk.0.clone();
        bytes[at] = byte;
        errno(&bytes)
    };
    assert_eq!(harm(8, 2), libc::EINVAL, "another version");
    assert_eq!(harm(PAGE_SIZE + 9, 2), libc::EIO, "a name longer than its slot");
    assert_eq!(harm(PAGE_SIZE + NAME_AT, b'/'), libc::EIO, "no name");
    assert_eq!(harm(PAGE_SIZE + NAME_AT, b'b'), libc::EIO, "twice");
    assert_eq!(harm(PAGE_SIZE, 0), libc::EIO, "a file without a dataset");
}
