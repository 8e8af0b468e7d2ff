//! What the store costs: append of 1 and 2 pages, lookup, alloc, opening an arena. `cargo bench -p dspm-store`.

use std::time::{Duration, Instant};

use dspm_proto::record::{DatasetChange, PageChange, Payload, Record};
use dspm_proto::*;
use dspm_store::{GroupStore, Store, StoreOptions};

const MEMORY: u64 = 256 << 20;
const SPAN: u64 = 60_000;

fn record(g: &GroupStore, pages: &[u64], sum: u64) -> (Record, Vec<u8>) {
    let page = |p: &u64| PageChange {
        dataset: 0,
        page: PageNo(*p),
        payload: Payload::Full,
        bytes: 4096,
        checksum: sum,
        base: Lsn(0),
    };
    let mut r = Record {
        group: g.id(),
        id: RecordId { generation: Generation(1), lsn: g.tail().lsn.next(), hash: 0 },
        token: Token::default(),
        session: Session::default(),
        transaction: 0,
        predecessor: g.tail().hash,
        floor: Lsn(0),
        part: Part::Alone,
        datasets: vec![DatasetChange { dataset: DatasetId(1), size: SPAN * 4096 }],
        links: Vec::new(),
        pages: pages.iter().map(page).collect(),
    };
    let meta = r.seal();
    (r, meta)
}

/// Nanoseconds of append, alone, of records of `n` pages; frames and record are made outside the clock.
fn append(store: &Store, g: &mut GroupStore, n: u64, rounds: u64) -> f64 {
    let content = [7u8; PAGE_SIZE];
    let sum = checksum(&content);
    let mut spent = Duration::ZERO;
    for i in 0..rounds {
        let first = (i * 7919 * n) % (SPAN - n);
        let pages: Vec<u64> = (first..first + n).collect();
        let (r, meta) = record(g, &pages, sum);
        let mut frames = Vec::new();
        for _ in 0..n {
            let mut f = store.alloc().expect("a frame");
            f.copy_from_slice(&content);
            frames.push(Some(f));
        }
        let start = Instant::now();
        g.append(&r, &meta, frames).expect("append");
        spent += start.elapsed();
        g.set_committed(r.id.lsn);
        g.set_horizon(r.id.lsn);
    }
    spent.as_nanos() as f64 / rounds as f64
}

fn per_op(rounds: u64, mut f: impl FnMut(u64)) -> f64 {
    let start = Instant::now();
    (0..rounds).for_each(&mut f);
    start.elapsed().as_nanos() as f64 / rounds as f64
}

fn main() {
    let dir = std::path::PathBuf::from(format!("/dev/shm/dspm-store-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let options = StoreOptions {
        arena: dir.join("arena"),
        memory: MEMORY,
        data_dir: dir.join("data"),
        flush_interval: Duration::from_millis(100),
        dirty_max: MEMORY / 2,
        history_max: MEMORY / 4,
        outcome_retention: Duration::from_secs(3600),
    };
    let start = Instant::now();
    let (store, _) = Store::open(options.clone()).expect("open");
    println!("open, new arena of 256 MiB      {:>9.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let mut g = store.open_group(GroupId(1)).expect("a group");
    append(&store, &mut g, 2, 200_000);
    println!("append, 1 page                  {:>9.0} ns", append(&store, &mut g, 1, 200_000));
    println!("append, 2 pages                 {:>9.0} ns", append(&store, &mut g, 2, 200_000));
    let (at, mut seen) = (g.tail().lsn, 0u64);
    let lookup = per_op(2_000_000, |i| {
        if let dspm_store::Lookup::Frame { lsn, .. } = g.lookup(DatasetId(1), PageNo((i * 7919) % SPAN), at) {
            seen += lsn.0;
        }
    });
    println!("lookup, random page             {lookup:>9.0} ns   ({seen})");
    println!("alloc and free                  {:>9.0} ns", per_op(2_000_000, |_| drop(store.alloc())));
    println!("set_committed                   {:>9.0} ns", {
        let last = g.tail().lsn.0;
        let content = [7u8; PAGE_SIZE];
        let mut ns = 0.0;
        for lsn in last..last + 1000 {
            let (r, meta) = record(&g, &[1], checksum(&content));
            let mut f = store.alloc().expect("a frame");
            f.copy_from_slice(&content);
            g.append(&r, &meta, vec![Some(f)]).expect("append");
            ns += per_op(1, |_| g.set_committed(Lsn(lsn + 1))) / 1000.0;
        }
        ns
    });
    println!("changes of one record           {:>9.0} ns", {
        let tail = g.tail().lsn;
        per_op(100_000, |_| drop(g.changes(Lsn(tail.0 - 1), tail)))
    });
    let usage = store.usage();
    drop((g, store));
    let start = Instant::now();
    let (_, opened) = Store::open(options).expect("open");
    let ms = start.elapsed().as_secs_f64() * 1e3;
    println!("open, kept {:<5} {:>6} frames used {ms:>9.1} ms", opened.memory_kept, usage.used);
    std::fs::remove_dir_all(&dir).expect("removed");
}
