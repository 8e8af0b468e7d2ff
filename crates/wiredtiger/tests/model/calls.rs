//! The recorded calls of a mongod (see tests/mongod-calls/README.md).

use super::both::{Both, Call};
use dspm_wiredtiger::FileKind;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

/// Bytes of a file of the starting state that are not zeros.
const FILLED: u64 = 16 << 20;

/// A recorded call.
pub struct Recorded {
    pub call: Call,
    /// What it answered, where that does not depend on calls that are left out.
    pub answer: Option<u64>,
    /// An open: bytes of the file as the mongod saw them first. A read: where it ended.
    size: Option<u64>,
}

/// Reads a log.
pub fn load(name: &str) -> Vec<Recorded> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mongod-calls").join(format!("{name}.log.gz"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Recorded> {
    let columns: Vec<&str> = line.split('\t').collect();
    let [_, _, _, _, operation, path, kind, flags, offset, length, code, extra] = columns[..] else {
        panic!("not a call: {line}");
    };
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    let noted = |key: &str| extra.split(' ').find_map(|word| word.strip_prefix(key));
    let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or(0);
    let path = if path == "." { String::new() } else { path.to_string() };
    let (mut answer, mut size) = (None, None);
    let call = match operation {
        "fs_exist" => {
            answer = noted("exist=").map(number);
            Call::Exists(path)
        }
        "fs_directory_list" => {
            answer = Some(number(length));
            Call::List(path, noted("prefix=").unwrap_or("").into())
        }
        "fs_directory_list_single" => Call::List(path, noted("prefix=").unwrap_or("").into()),
        "fs_open_file" => {
            let kind = match kind {
                "DIRECTORY" => FileKind::Directory,
                "DATA" => FileKind::Data,
                "LOG" => FileKind::Log,
                _ => FileKind::Regular,
            };
            Call::Open { path, kind, create: flags & 4 != 0, exclusive: flags & 0x20 != 0 }
        }
        "fs_remove" => Call::Remove(path),
        "fs_rename" => Call::Rename(path, noted("to=").unwrap().into()),
        "fs_size" | "fh_size" => {
            size = Some(number(length));
            Call::Size(path)
        }
        "fh_read" => {
            size = Some(number(offset) + number(length));
            Call::Read { path, offset: number(offset), length: number(length) as usize }
        }
        "fh_write" => Call::Write { path, offset: number(offset), length: number(length) as usize },
        "fh_sync" => Call::Sync(path),
        "fh_truncate" => Call::Truncate(path, number(offset)),
        "fh_close" => Call::Close(path),
        _ => return None,
    };
    assert_eq!(code, "0", "every recorded call went well: {line}");
    Some(Recorded { call, answer, size })
}

/// Files that there were before the first call, with their sizes, as far as the calls tell.
pub fn start(log: &[Recorded]) -> BTreeMap<String, u64> {
    let (mut files, mut made, mut changed) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let mut directories = BTreeSet::new();
    let mut creating = BTreeSet::new(); // opened so that it may have been there
    for Recorded { call, answer, size } in log {
        let path = match call {
            Call::List(..) => continue,
            Call::Open { path, kind: FileKind::Directory, .. } => {
                directories.insert(path);
                continue;
            }
            Call::Sync(path) | Call::Close(path) | Call::Exists(path) if directories.contains(path) => continue,
            Call::Exists(_) if *answer != Some(1) => continue,
            Call::Open { path, create: true, .. } if !files.contains_key(path) => {
                creating.insert(path);
                continue;
            }
            Call::Rename(from, to) => {
                if !made.contains(from) && !creating.contains(from) {
                    files.entry(from.clone()).or_insert(0);
                }
                made.insert(to);
                changed.insert(to);
                from
            }
            Call::Exists(path) | Call::Close(path) | Call::Sync(path) | Call::Size(path) | Call::Remove(path) => path,
            Call::Open { path, .. } | Call::Read { path, .. } => path,
            Call::Write { path, .. } | Call::Truncate(path, _) => {
                changed.insert(path);
                path
            }
        };
        let unknown = !made.contains(path) && (!creating.contains(path) || size.is_some_and(|s| s > 0));
        if unknown && !(creating.contains(path) && changed.contains(path)) {
            let known = files.entry(path.clone()).or_insert(0);
            if !changed.contains(path) {
                *known = size.unwrap_or(0).max(*known);
            }
        }
        if matches!(call, Call::Remove(_)) {
            made.insert(path); // whatever has the name later is another one
        }
    }
    files
}

/// Makes the files that there were before the first call.
pub fn prepare(both: &mut Both, log: &[Recorded]) {
    for (path, size) in start(log) {
        let create = Call::Open { path: path.clone(), kind: FileKind::Regular, create: true, exclusive: true };
        both.call(&create).unwrap();
        for offset in (0..size.min(FILLED)).step_by(1 << 20) {
            let length = (size - offset).min(1 << 20) as usize;
            both.call(&Call::Write { path: path.clone(), offset, length }).unwrap();
        }
        both.call(&Call::Truncate(path.clone(), size)).unwrap();
        both.call(&Call::Close(path)).unwrap();
    }
    both.settle();
}
