//! Random ids and nonces, from the kernel.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

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

/// By the system call: it needs no descriptor, and no `/dev`.
fn fill(mut b: &mut [u8]) {
    while !b.is_empty() {
        match getrandom(&mut *b, GetRandomFlags::empty()) {
            Ok(n) => b = &mut b[n..],
            Err(Errno::INTR) => {}
            Err(e) => {
                // Without the kernel's randomness two processes could take one id, and each other's commits.
                eprintln!("dspm: error: the kernel gives no random numbers: {e}\nhint: dspm needs getrandom(2)");
                std::process::abort();
            }
        }
    }
}
