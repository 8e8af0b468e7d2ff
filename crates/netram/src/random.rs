//! Random ids and nonces, from the kernel.

use std::io::Read;

/// A random number that is not zero (zero means "none" on the wire).
pub fn id() -> u64 {
    loop {
        let mut b = [0u8; 8];
        fill(&mut b);
        let v = u64::from_le_bytes(b);
        if v != 0 {
            return v;
        }
    }
}

/// 16 random bytes in hexadecimal.
pub fn nonce() -> String {
    let mut b = [0u8; 16];
    fill(&mut b);
    b.iter().map(|x| format!("{x:02x}")).collect()
}

fn fill(b: &mut [u8]) {
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(b));
    if read.is_err() {
        // Without the kernel's randomness two processes could take one id, and each other's commits.
        eprintln!("dspm: error: /dev/urandom cannot be read\nhint: mount /dev in this environment");
        std::process::abort();
    }
}
