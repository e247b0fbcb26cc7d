//! Proofs of the cluster secret: HMAC-SHA-256 over what is said and to whom. The secret itself never travels.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;

/// Bytes of a challenge.
pub const CHALLENGE_BYTES: usize = 32;

/// What the nodes of one cluster share. Never shown by `Debug`.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

impl Secret {
    /// A secret of any length. Without one, nodes prove with the empty secret: that they speak the same language.
    pub fn new(secret: &[u8]) -> Secret {
        Secret(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    /// The proof of these parts, in this order. `purpose` keeps a proof for one thing from being used for another.
    pub fn prove(&self, purpose: &'static str, parts: &[&[u8]]) -> [u8; PROOF_BYTES] {
        self.over(purpose, parts).finalize().into_bytes().into()
    }

    /// Whether a proof is the one of these parts. Takes as long for a wrong one as for a right one.
    pub fn verifies(&self, purpose: &'static str, parts: &[&[u8]], proof: &[u8]) -> bool {
        self.over(purpose, parts).verify_slice(proof).is_ok()
    }

    fn over(&self, purpose: &'static str, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for part in std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()) {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_own_secret_purpose_and_parts_only() {
        let secret = Secret::new(b"cluster");
        let proof = secret.prove("gossip", &[b"ab", b"c"]);
        assert!(secret.verifies("gossip", &[b"ab", b"c"], &proof));
        assert!(!secret.verifies("gossip", &[b"a", b"bc"], &proof), "parts do not run together");
        assert!(!secret.verifies("peer", &[b"ab", b"c"], &proof));
        assert!(!secret.verifies("gossip", &[b"ab", b"c"], &proof[..31]));
        assert!(!Secret::new(b"other").verifies("gossip", &[b"ab", b"c"], &proof));
    }

    #[test]
    fn the_bytes_of_a_proof_never_change() {
        let proof = Secret::new(b"cluster").prove("gossip", &[b"ab", b"c"]);
        assert_eq!(hex::encode(proof), "f8c2b763027b9a8285d55975c0d5a222accebbc53be709ea0e0d81e8d627b06d");
    }
}
