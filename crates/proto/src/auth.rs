//! The handshake that opens every connection: four messages of kind Hello, JSON in the metadata. Both sides prove
//! that they know the cluster key without sending it (challenge and response, HMAC-SHA-256, RFC 2104).
//!
//! ```text
//! dialer   → Hello     {role, name, cluster, nonce, session}
//! acceptor → Challenge {name, store, boot, nonce, proof("acceptor", both nonces)}
//! dialer   → Proof     {proof("dialer", both nonces)}
//! acceptor → Welcome   {}                          or an error reply, and the connection is closed
//! ```

use crate::error::Error;
use crate::ids::{Session, StoreId};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A database process, or a tool.
    Client,
    /// Another member.
    Node,
    /// The control plane.
    Registry,
}

/// First message of the dialer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Who dials.
    pub role: Role,
    /// Name of the dialer, for messages.
    pub name: String,
    /// Name of the cluster it expects; empty: any.
    #[serde(default)]
    pub cluster: String,
    /// 16 random bytes in hexadecimal.
    pub nonce: String,
    /// The client's session; absent for nodes and registry.
    #[serde(default)]
    pub session: Option<Session>,
    /// What a dialling node remembers.
    #[serde(default)]
    pub store: StoreId,
    /// True on the one connection of a client process that takes call-backs.
    #[serde(default)]
    pub callbacks: bool,
}

/// Answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Name of the node.
    pub name: String,
    /// What it remembers.
    pub store: StoreId,
    /// Its boot number.
    pub boot: u32,
    /// 16 random bytes in hexadecimal.
    pub nonce: String,
    /// Proof of the acceptor.
    pub proof: String,
    /// Most pages of one record that it takes.
    pub record_pages_max: u64,
}

/// Answer to [`Challenge`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Proof of the dialer.
    pub proof: String,
}

/// The shared secret of a cluster. Never shown: `Debug` hides it.
#[derive(Clone)]
pub struct ClusterKey {
    secret: Vec<u8>,
    /// Where it came from, for messages to who dials with it; empty: not told.
    file: String,
}

/// What nobody but owner and group may do with a key file.
const OTHERS: u32 = 0o007;

impl PartialEq for ClusterKey {
    fn eq(&self, other: &ClusterKey) -> bool {
        self.secret == other.secret
    }
}

impl Eq for ClusterKey {}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

impl ClusterKey {
    /// A key from the text of a key file; surrounding white space does not count.
    pub fn new(text: &str) -> ClusterKey {
        ClusterKey { secret: text.trim().as_bytes().to_vec(), file: String::new() }
    }

    /// The same, and which file has it: errors name that. Not for who is dialled: a stranger would learn the path.
    pub fn of_file(text: &str, file: &Path) -> ClusterKey {
        ClusterKey { file: file.display().to_string(), ..ClusterKey::new(text) }
    }

    /// The same, of no file.
    pub fn without_file(self) -> ClusterKey {
        ClusterKey { file: String::new(), ..self }
    }

    /// The key in a file.
    ///
    /// # Errors
    /// [`Error::Usage`] when it cannot be read, is empty, or can be read by everybody: whoever has the key can read and
    /// change all data.
    pub fn read(file: &Path) -> Result<ClusterKey, Error> {
        let name = file.display();
        let unreadable = |e: std::io::Error| Error::Usage(format!("the key file {name} cannot be read: {e}"));
        let mode = std::fs::metadata(file).map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            let text =
                format!("the key file {name} is open to everybody on this machine (mode {mode:03o}): chmod 600 it");
            return Err(Error::Usage(text));
        }
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        if text.trim().is_empty() {
            return Err(Error::Usage(format!("the key file {name} is empty")));
        }
        Ok(ClusterKey::of_file(&text, file))
    }

    /// HMAC-SHA-256 over side, dialer's nonce and acceptor's nonce (each ended by a zero byte), in hexadecimal.
    ///
    /// # Errors
    /// None in practice: HMAC takes keys of any length.
    pub fn proof(&self, side: &str, dialer_nonce: &str, acceptor_nonce: &str) -> Result<String, Error> {
        let mac = self.mac(side, dialer_nonce, acceptor_nonce)?;
        Ok(mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect())
    }

    /// Checks a proof in constant time.
    ///
    /// # Errors
    /// [`Error::Auth`] when it was made with another key.
    pub fn check(&self, side: &str, dialer_nonce: &str, acceptor_nonce: &str, proof: &str) -> Result<(), Error> {
        let wrong = || Error::Auth(self.misfit());
        let bytes = unhex(proof).ok_or_else(wrong)?;
        self.mac(side, dialer_nonce, acceptor_nonce)?.verify_slice(&bytes).map_err(|_| wrong())
    }

    fn misfit(&self) -> String {
        match self.file.as_str() {
            "" => "the peer does not know this cluster's key".into(),
            file => format!("the key in {file} does not fit this cluster: its nodes have another one"),
        }
    }

    fn mac(&self, side: &str, dialer_nonce: &str, acceptor_nonce: &str) -> Result<Hmac<Sha256>, Error> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).map_err(|e| Error::Auth(e.to_string()))?;
        for part in [side, dialer_nonce, acceptor_nonce] {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        Ok(mac)
    }
}

fn unhex(s: &str) -> Option<Vec<u8>> {
    if s.len() % 2 != 0 || !s.is_ascii() {
        return None;
    }
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_side_and_nonces_pass() {
        let k = ClusterKey::new("secret\n");
        let p = k.proof("dialer", "aa", "bb").unwrap();
        assert!(k.check("dialer", "aa", "bb", &p).is_ok());
        assert!(k.check("acceptor", "aa", "bb", &p).is_err());
        assert!(k.check("dialer", "ab", "bb", &p).is_err());
        assert!(ClusterKey::new("other").check("dialer", "aa", "bb", &p).is_err());
        assert!(k.check("dialer", "aa", "bb", "xyz").is_err());
        assert_eq!(format!("{k:?}"), "ClusterKey(…)");
    }

    #[test]
    fn a_key_that_does_not_fit_is_named_by_its_file_and_never_shown() {
        let p = ClusterKey::new("secret").proof("acceptor", "aa", "bb").unwrap();
        let wrong = ClusterKey::of_file("hush\n", Path::new("/etc/other.key"));
        assert_eq!(wrong, ClusterKey::new("hush"));
        let text = wrong.check("acceptor", "aa", "bb", &p).unwrap_err().to_string();
        assert!(text.contains("/etc/other.key does not fit") && !text.contains("hush"), "{text}");
    }
}
