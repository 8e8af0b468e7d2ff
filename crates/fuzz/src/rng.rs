//! Chance from a seed: splitmix64.

/// A generator.
#[derive(Clone, Debug)]
pub struct Rng(u64);

/// Numbers at which something may break.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    3,
    7,
    255,
    4095,
    4096,
    4097,
    65_535,
    65_536,
    u32::MAX as u64,
    1 << 32,
    8 << 40,
    i64::MAX as u64,
    u64::MAX,
];

impl Rng {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..n`; 0 when n is 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// True once in n times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A small number, an edge, or any.
    pub fn number(&mut self) -> u64 {
        match self.below(3) {
            0 => self.below(20) as u64,
            1 => EDGES[self.below(EDGES.len())],
            _ => self.bits(),
        }
    }
}
