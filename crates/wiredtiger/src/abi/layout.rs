//! Which of WiredTiger's binary interfaces there are, and which one a program has.
//!
//! WiredTiger promises no stable binary interface: `WT_CONNECTION` gains and loses methods, and the bits of
//! `fs_open_file` move. A version number alone does not tell them apart (11.3.0 was shipped with two tables), nor does
//! the number of methods (3.2 and 10.0 both have 20); the two together do, but for 10.0.0, which is refused. In every
//! version `get_extension_api` is the last method of the table, which is how the methods are counted.

use crate::OpenFlags;
use std::fmt;

/// WiredTiger's version: major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub i32, pub i32, pub i32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    /// "11.3.1".
    pub fn parse(text: &str) -> Option<Version> {
        let mut parts = text.split('.').map(|p| p.parse().ok());
        let version = Version(parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(version)
    }
}

/// One binary interface. Slots are counted from 1, as the members of the structure.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// The symbol that a program names as `entry=`.
    pub entry: &'static str,
    /// First version that has it, and the first that does not any more.
    from: Version,
    until: Version,
    pub get_home: usize,
    pub set_file_system: usize,
    pub get_extension_api: usize,
    durable: u32,
    exclusive: u32,
    read_only: u32,
}

/// `WT_FS_OPEN_CREATE`, in every version.
const CREATE: u32 = 0x04;

pub static LAYOUTS: [Layout; 5] = [
    Layout {
        entry: "dspm_wiredtiger_4_0",
        from: Version(3, 1, 0),
        until: Version(3, 4, 0),
        get_home: 6,
        set_file_system: 19,
        get_extension_api: 20,
        durable: 0x10,
        exclusive: 0x20,
        read_only: 0x80,
    },
    Layout {
        entry: "dspm_wiredtiger_5_0",
        from: Version(10, 0, 1),
        until: Version(11, 2, 0),
        get_home: 4,
        set_file_system: 17,
        get_extension_api: 20,
        durable: 0x10,
        exclusive: 0x20,
        read_only: 0x80,
    },
    // MongoDB 7.0 calls its WiredTiger 11.2.0 and has READONLY at 0x80; the release 11.2.0 has it at 0x100, and at 0x80
    // FORCE_MMAP, with which files are written. So 0x80 means nothing here: a file too many can be written.
    Layout {
        entry: "dspm_wiredtiger_5_0",
        from: Version(11, 2, 0),
        until: Version(11, 3, 0),
        get_home: 4,
        set_file_system: 17,
        get_extension_api: 20,
        durable: 0x10,
        exclusive: 0x20,
        read_only: 0x100,
    },
    Layout {
        entry: "dspm_wiredtiger_8_0",
        from: Version(11, 3, 0),
        until: Version(11, 4, 0),
        get_home: 4,
        set_file_system: 18,
        get_extension_api: 21,
        durable: 0x10,
        exclusive: 0x20,
        read_only: 0x100,
    },
    Layout {
        entry: "dspm_wiredtiger_8_1",
        from: Version(12, 0, 0),
        until: Version(12, 1, 0),
        get_home: 4,
        set_file_system: 17,
        get_extension_api: 20,
        durable: 0x08,
        exclusive: 0x10,
        read_only: 0x80,
    },
];

impl Layout {
    /// Of a program whose connections have that many methods.
    ///
    /// # Errors
    /// What is known, for people.
    pub fn of(version: Version, methods: usize) -> Result<&'static Layout, String> {
        let fits = |l: &&Layout| (l.from..l.until).contains(&version) && l.get_extension_api == methods;
        LAYOUTS.iter().find(fits).ok_or_else(|| {
            let why = match version {
                Version(10, 0, 0) => {
                    ", which was shipped with four different interfaces (MongoDB 4.4: use 4.4.10 or newer)"
                }
                _ => "",
            };
            format!(
                "WiredTiger {version} with {methods} methods of a connection is not known{why}; known are {}",
                known()
            )
        })
    }

    /// The entry for a version of which nothing else is known; the entry itself looks at the program.
    ///
    /// # Errors
    /// What is known, for people.
    pub fn entry_for(version: Version) -> Result<&'static str, String> {
        let found = LAYOUTS.iter().find(|l| (l.from..l.until).contains(&version));
        found.map(|l| l.entry).ok_or_else(|| format!("WiredTiger {version} is not known; known are {}", known()))
    }

    /// Of a program that does not say its version: what the entry and the number of methods leave. Only what all of
    /// an entry's layouts agree on may be used of it: the slots.
    ///
    /// # Errors
    /// What is known, for people.
    pub fn of_entry(entry: &str, methods: usize) -> Result<&'static Layout, String> {
        LAYOUTS.iter().find(|l| l.entry == entry && l.get_extension_api == methods).ok_or_else(|| {
            format!(
                "entry={entry} is not for a WiredTiger with {methods} methods of a connection; known are {}",
                known()
            )
        })
    }

    /// What the bits of `fs_open_file` ask for.
    pub fn open_flags(&self, bits: u32) -> OpenFlags {
        let has = |bit| bits & bit != 0;
        OpenFlags {
            create: has(CREATE),
            exclusive: has(self.exclusive),
            read_only: has(self.read_only),
            durable: has(self.durable),
        }
    }
}

fn known() -> String {
    let one = |l: &Layout| format!("{} up to below {} ({}, {} methods)", l.from, l.until, l.entry, l.get_extension_api);
    LAYOUTS.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_methods_name_one_layout_or_none() {
        let entry = |v, methods| Layout::of(v, methods).map(|l| l.entry);
        assert_eq!(entry(Version(3, 2, 1), 20), Ok("dspm_wiredtiger_4_0"));
        assert_eq!(entry(Version(10, 0, 2), 20), Ok("dspm_wiredtiger_5_0"));
        assert_eq!(entry(Version(11, 2, 0), 20), Ok("dspm_wiredtiger_5_0"));
        assert_eq!(entry(Version(11, 3, 1), 21), Ok("dspm_wiredtiger_8_0"));
        assert_eq!(entry(Version(12, 0, 0), 20), Ok("dspm_wiredtiger_8_1"));
        for (version, methods) in
            [(Version(11, 3, 0), 20), (Version(12, 0, 0), 22), (Version(3, 2, 1), 21), (Version(13, 0, 0), 20)]
        {
            let why = Layout::of(version, methods).unwrap_err();
            assert!(why.contains(&format!("{version} with {methods} methods")) && why.contains("11.3.0"), "{why}");
        }
        let why = Layout::of(Version(10, 0, 0), 20).unwrap_err();
        assert!(why.contains("4.4.10"), "{why}");
    }

    #[test]
    fn an_entry_for_each_version() {
        assert_eq!(Layout::entry_for(Version(3, 1, 1)), Ok("dspm_wiredtiger_4_0"));
        assert_eq!(Layout::entry_for(Version(11, 3, 1)), Ok("dspm_wiredtiger_8_0"));
        for unknown in [Version(3, 0, 0), Version(10, 0, 0), Version(12, 1, 0)] {
            assert!(Layout::entry_for(unknown).unwrap_err().contains("known are 3.1.0"), "{unknown}");
        }
    }

    #[test]
    fn a_bit_means_what_it_means_in_its_version() {
        let flags = |v, methods, bits| Layout::of(v, methods).unwrap().open_flags(bits);
        let old = flags(Version(3, 2, 1), 20, 0x80 | 0x20);
        assert!(old.read_only && old.exclusive && !old.durable && !old.create);
        let new = flags(Version(12, 0, 0), 20, 0x08 | 0x10 | 0x04);
        assert!(new.durable && new.exclusive && new.create && !new.read_only);
        assert!(!flags(Version(11, 3, 1), 21, 0x80).read_only, "FORCE_MMAP");
        assert!(!flags(Version(11, 2, 0), 20, 0x80).read_only, "FORCE_MMAP, or READONLY of MongoDB 7.0");
        assert!(flags(Version(11, 2, 0), 20, 0x100).read_only);
    }

    #[test]
    fn versions_are_three_numbers() {
        assert_eq!(Version::parse("11.3.1"), Some(Version(11, 3, 1)));
        for wrong in ["11.3", "11.3.1.0", "", "8.0.x"] {
            assert_eq!(Version::parse(wrong), None, "{wrong}");
        }
    }
}
