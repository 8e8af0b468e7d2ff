//! The database header, bytes 0–99 of SQLite's page 1: what the VFS reads and changes of it.
//!
//! Only a plain SQLite header is touched; page 1 of an encrypted database is left alone.

/// Bytes of the header.
pub const SIZE: usize = 100;
const MAGIC: &[u8] = b"SQLite format 3\0";
const PAGE_SIZE: std::ops::Range<usize> = 16..18;
/// File format versions for writing and reading; 2 means write-ahead log.
const VERSIONS: std::ops::Range<usize> = 18..20;
const COUNTER: std::ops::Range<usize> = 24..28;
const PAGE_COUNT: std::ops::Range<usize> = 28..32;
/// What a connection knows its schema by.
const SCHEMA_COOKIE: std::ops::Range<usize> = 40..44;
/// The change counter for which version and page count are valid.
const VALID_FOR: std::ops::Range<usize> = 92..96;

/// True if bytes from the start of the database show SQLite's header.
pub fn is_plain(start: &[u8]) -> bool {
    start.starts_with(MAGIC)
}

/// Shows the rollback-journal format where the write-ahead format is set: there is never a log, and SQLite cannot open
/// such a file without shared memory. True if that changed anything.
pub fn show_no_wal(start: &mut [u8]) -> bool {
    if start.len() < VERSIONS.end || !is_plain(start) {
        return false;
    }
    let versions = &mut start[VERSIONS];
    let changed = versions.contains(&2);
    versions.iter_mut().filter(|version| **version == 2).for_each(|version| *version = 1);
    changed
}

/// Turns the schema's number into the one that a handle shows in its epoch, and back. Nothing in epoch 0.
pub fn disguise(start: &mut [u8], epoch: u32) {
    if epoch == 0 || start.len() < SCHEMA_COOKIE.end || !is_plain(start) {
        return;
    }
    // Spread over all bits: numbers of schemas are small, so those of two epochs are never the same.
    let mask = epoch.wrapping_mul(0x9E37_79B1).to_be_bytes();
    start[SCHEMA_COOKIE].iter_mut().zip(mask).for_each(|(byte, m)| *byte ^= m);
}

/// The change counter.
pub fn counter(header: &[u8]) -> u32 {
    number(header, COUNTER)
}

/// Sets the change counter, and that page count and version are valid for it if they were before.
pub fn set_counter(header: &mut [u8], to: u32) {
    let valid = is_page_count_valid(header);
    header[COUNTER].copy_from_slice(&to.to_be_bytes());
    if valid {
        header[VALID_FOR].copy_from_slice(&to.to_be_bytes());
    }
}

/// The size of the database in bytes that the header tells, if it can be trusted.
pub fn database_size(header: &[u8]) -> Option<u64> {
    if !is_plain(header) || !is_page_count_valid(header) {
        return None;
    }
    let page_size = match number(header, PAGE_SIZE) {
        1 => 65536,
        size => u64::from(size),
    };
    let pages = u64::from(number(header, PAGE_COUNT));
    (pages > 0 && page_size >= 512).then_some(pages * page_size)
}

fn is_page_count_valid(header: &[u8]) -> bool {
    header[COUNTER] == header[VALID_FOR]
}

fn number(header: &[u8], at: std::ops::Range<usize>) -> u32 {
    header[at].iter().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(page_size: u16, counter: u32, pages: u32, valid_for: u32) -> [u8; SIZE] {
        let mut h = [0; SIZE];
        h[..16].copy_from_slice(MAGIC);
        h[PAGE_SIZE].copy_from_slice(&page_size.to_be_bytes());
        h[VERSIONS].copy_from_slice(&[2, 2]);
        h[COUNTER].copy_from_slice(&counter.to_be_bytes());
        h[PAGE_COUNT].copy_from_slice(&pages.to_be_bytes());
        h[VALID_FOR].copy_from_slice(&valid_for.to_be_bytes());
        h
    }

    #[test]
    fn the_write_ahead_format_is_hidden_in_plain_headers_only() {
        let mut h = header(4096, 1, 1, 1);
        assert!(show_no_wal(&mut h) && h[18..20] == [1, 1] && !show_no_wal(&mut h));
        let mut foreign = [2; SIZE];
        assert!(!show_no_wal(&mut foreign) && foreign == [2; SIZE]);
        assert!(!show_no_wal(&mut h[..19]));
    }

    #[test]
    fn a_schema_has_another_number_in_each_epoch() {
        let stored = header(4096, 1, 1, 1);
        let shown: Vec<[u8; SIZE]> = (0..100)
            .map(|epoch| {
                let mut h = stored;
                disguise(&mut h, epoch);
                h
            })
            .collect();
        assert_eq!(shown[0], stored);
        assert!((0..100).all(|a| (0..a).all(|b| shown[a][40..43] != shown[b][40..43])), "small numbers do not meet");
        let mut back = shown[7];
        disguise(&mut back, 7);
        assert_eq!(back, stored);
        assert!(shown.iter().all(|h| h[..40] == stored[..40] && h[44..] == stored[44..]));
    }

    #[test]
    fn the_size_is_told_only_when_it_is_valid() {
        assert_eq!(database_size(&header(512, 7, 9, 7)), Some(9 * 512));
        assert_eq!(database_size(&header(1, 7, 9, 7)), Some(9 * 65536));
        assert_eq!(database_size(&header(512, 7, 9, 6)), None);
        assert_eq!(database_size(&header(512, 7, 0, 7)), None);
        assert_eq!(database_size(&[0; SIZE]), None);
    }

    #[test]
    fn a_new_counter_keeps_what_was_valid() {
        let mut h = header(512, 7, 9, 7);
        set_counter(&mut h, 8);
        assert_eq!((counter(&h), database_size(&h)), (8, Some(9 * 512)));
        let mut old = header(512, 7, 9, 3);
        set_counter(&mut old, 8);
        assert_eq!((counter(&old), database_size(&old)), (8, None));
    }
}
