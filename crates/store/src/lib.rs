//! Arena, frame table, page index, disk log, base files and recovery.
