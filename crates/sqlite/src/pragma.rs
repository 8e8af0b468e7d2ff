//! The PRAGMAs that the VFS answers. All from memory, none waits for a node, but for a new `dspm_as_of`.

use crate::fork::process;
use crate::handle::Handle;
use crate::report;
use dspm_txn::dataset::AsOf;
use serde_json::json;

/// What a PRAGMA answers: one cell, or an error's text. SQLite passes an empty answer on as no row, which is why there
/// is always a text.
pub type Answer = Result<String, String>;

/// The answer, or `None` where SQLite itself is to answer.
pub fn answer(handle: &mut Handle, name: &str, value: Option<&str>) -> Option<Answer> {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    if is("journal_mode") {
        // SQLite's documented way to refuse: answer the mode that stays. Readers never block writers here anyway.
        return value.filter(|v| v.eq_ignore_ascii_case("wal")).map(|_| Ok("delete".into()));
    }
    if is("locking_mode") {
        return Some(Ok(locking_mode(handle, value)));
    }
    if is("dspm_status") {
        return Some(Ok(status(handle)));
    }
    if is("dspm_lsn") {
        let lsn = handle.snapshot.as_ref().map_or_else(|| handle.dataset.status().lsn, |snapshot| snapshot.lsn);
        return Some(Ok(lsn.to_string()));
    }
    if is("dspm_durability") {
        return Some(durability(handle, value));
    }
    if is("dspm_error") {
        return Some(Ok(handle.last_error.clone().unwrap_or_else(|| process().reporter.last())));
    }
    if is("dspm_as_of") {
        return Some(as_of(handle, value));
    }
    None
}

/// Not passed on: SQLite's own exclusive mode would keep its locks for ever, stop raising the change counter, and
/// never look at other processes' commits again.
fn locking_mode(handle: &mut Handle, value: Option<&str>) -> String {
    match value {
        Some(v) if v.eq_ignore_ascii_case("exclusive") => handle.set_exclusive(true),
        Some(v) if v.eq_ignore_ascii_case("normal") => handle.set_exclusive(false),
        _ => {}
    }
    if handle.exclusive { "exclusive".into() } else { "normal".into() }
}

fn durability(handle: &Handle, value: Option<&str>) -> Answer {
    let durability = handle.dataset.status().durability;
    match value {
        Some(v) if !v.eq_ignore_ascii_case(&durability) => {
            Err(format!("the durability of a dataset is fixed when it is made; this one has '{durability}'"))
        }
        _ => Ok(durability),
    }
}

fn as_of(handle: &mut Handle, value: Option<&str>) -> Answer {
    if let Some(value) = value {
        AsOf::parse(value).and_then(|at| handle.set_as_of(at)).map_err(|e| report::text(&handle.name, &e))?;
    }
    Ok(handle.as_of().to_string())
}

fn status(handle: &Handle) -> String {
    let status = handle.dataset.status();
    json!({
        "mode": status.mode,
        "config": status.config,
        "dataset": status.dataset,
        "lsn": status.lsn,
        "durability": status.durability,
        "copies": status.copies,
        "copies_now": status.copies_now,
        "lease": status.lease,
        "transport": status.transport,
        "round_trips": status.round_trips,
        "cache_hits": status.cache_hits,
        "cache_misses": status.cache_misses,
    })
    .to_string()
}
