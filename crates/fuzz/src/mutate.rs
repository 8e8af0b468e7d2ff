//! Small harm to valid messages, of the kinds that find what a decoder forgot.

use crate::generate::Parts;
use crate::rng::Rng;
use dspm_proto::header::HEADER_SIZE;
use dspm_proto::{Generation, GroupId, Lsn, StoreId};

const MOST: usize = 1 << 16;

/// Words that mean something in some field of JSON.
const WORDS: [&str; 10] = ["null", "-1", "1e999", "\"\"", "[", "{", "}", "18446744073709551616", "\\u0000", "true"];

/// Harms one to four places. True: the checksums are to be set right again, so that what lies behind them is reached.
pub fn harm(parts: &mut Parts, rng: &mut Rng) -> bool {
    for _ in 0..=rng.below(4) {
        match rng.below(8) {
            0 => field(parts, rng),
            1 => bytes(&mut parts.data, rng),
            _ => bytes(&mut parts.meta, rng),
        }
    }
    !rng.one_in(8)
}

/// Harms bytes that are on their way: whatever they are.
pub fn garble(bytes_on_wire: &mut Vec<u8>, rng: &mut Rng) {
    bytes(bytes_on_wire, rng);
}

fn field(parts: &mut Parts, rng: &mut Rng) {
    let (h, n) = (&mut parts.header, rng.number());
    match rng.below(7) {
        0 => h.flags = n as u16,
        1 => h.request = n,
        2 => h.group = GroupId(n),
        3 => h.generation = Generation(n),
        4 => h.lsn = Lsn(n),
        5 => h.store = StoreId(n),
        _ => h.data_len = n as u32,
    }
}

fn bytes(b: &mut Vec<u8>, rng: &mut Rng) {
    if b.is_empty() {
        b.extend((0..rng.below(HEADER_SIZE)).map(|_| rng.bits() as u8));
        return;
    }
    let at = rng.below(b.len());
    match rng.below(9) {
        0 => b[at] ^= 1 << rng.below(8),
        1 => b[at] = rng.bits() as u8,
        2 => overwrite(b, at & !3, &(rng.number() as u32).to_le_bytes()),
        3 => overwrite(b, at & !7, &rng.number().to_le_bytes()),
        4 => b.truncate(at),
        5 => b.extend((0..rng.below(40)).map(|_| rng.bits() as u8)),
        6 => drop(b.drain(at..b.len().min(at + 1 + rng.below(40)))),
        7 => {
            let again = b[at..b.len().min(at + 1 + rng.below(64))].to_vec();
            b.splice(at..at, again);
        }
        _ => drop(b.splice(at..at, WORDS[rng.below(WORDS.len())].bytes())),
    }
    b.truncate(MOST);
}

fn overwrite(b: &mut [u8], at: usize, with: &[u8]) {
    b[at..].iter_mut().zip(with).for_each(|(b, w)| *b = *w);
}
