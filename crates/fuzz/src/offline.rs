//! The decoders alone: every input is decoded as its receiver would. A broken promise is a panic, and names its input.

use crate::catalog::{MESSAGES, Message};
use crate::generate::{About, Parts, any};
use crate::mutate::{garble, harm};
use crate::rng::Rng;
use dspm_proto::header::HEADER_SIZE;
use dspm_proto::record::{apply_delta, delta};
use dspm_proto::{Error, Header, PAGE_SIZE};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What was met.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Inputs.
    pub inputs: u64,
    /// Whose header and checksums were right.
    pub reached: u64,
    /// That could be decoded although something was changed.
    pub taken: u64,
    /// By place in the catalog: inputs that reached its decoder.
    pub by_message: Vec<u64>,
}

/// Runs the inputs of a seed.
///
/// # Errors
/// The first input that broke a promise.
pub fn run(seed: u64, inputs: u64) -> Result<Counts, Error> {
    let mut counts = Counts { by_message: vec![0; MESSAGES.len()], ..Counts::default() };
    for n in 0..inputs {
        let mut rng = Rng::new(seed.wrapping_add(n).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let done = catch_unwind(AssertUnwindSafe(|| one(&mut rng, &mut counts)));
        if done.is_err() {
            return Err(Error::Failed(format!(
                "a decoder broke its promise; again with --seed {} --inputs 1",
                seed + n
            )));
        }
    }
    Ok(counts)
}

fn one(rng: &mut Rng, counts: &mut Counts) {
    counts.inputs += 1;
    let (message, mut parts) = any(&About::default(), rng);
    let mut bytes = if rng.one_in(64) {
        let bytes = parts.bytes(true);
        assert!(decode(message, &bytes, counts), "a valid {:?} is not taken: {parts:?}", message.kind);
        bytes
    } else {
        let seal = harm(&mut parts, rng);
        parts.bytes(seal)
    };
    if rng.one_in(8) {
        garble(&mut bytes, rng);
    }
    counts.taken += u64::from(decode(message, &bytes, counts));
    deltas(&parts, rng);
}

/// As the receiver of a message does.
fn decode(message: &Message, bytes: &[u8], counts: &mut Counts) -> bool {
    let Some(head) = bytes.first_chunk::<HEADER_SIZE>() else { return false };
    let Ok(header) = Header::decode(head) else { return false };
    let end = HEADER_SIZE + header.meta_len as usize;
    let Some(meta) = bytes.get(HEADER_SIZE..end) else { return false };
    if header.verify_meta(meta).is_err() {
        return false;
    }
    counts.reached += 1;
    let place = MESSAGES.iter().position(|m| std::ptr::eq(m, message)).unwrap_or_default();
    counts.by_message[place] += 1;
    (message.check)(&header, meta)
}

/// A page delta is taken whole or refused, and never leaves its page.
fn deltas(parts: &Parts, rng: &mut Rng) {
    let mut page = [0u8; PAGE_SIZE];
    let hostile: Vec<u8> = parts.data.iter().rev().take(rng.below(200)).copied().collect();
    let _ = apply_delta(&mut page, &hostile);
    let (old, mut new) = (page, page);
    for _ in 0..rng.below(4) {
        new[rng.below(PAGE_SIZE)] = rng.bits() as u8;
    }
    if let Some(d) = delta(&old, &new) {
        assert_eq!(apply_delta(&mut page, &d), Ok(()));
        assert!(page == new, "a delta gives what it was made of");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_decoder_breaks_its_promise() {
        let counts = run(1, 300_000).unwrap();
        assert_eq!(counts.inputs, 300_000);
        assert!(counts.reached * 2 > counts.inputs, "most pass the checksums: {counts:?}");
        assert!(counts.taken * 20 > counts.inputs, "many are decoded: {counts:?}");
        assert!(counts.by_message.iter().all(|n| *n > 1000), "every message: {counts:?}");
    }
}
