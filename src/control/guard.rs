//! The token, compared so that the time it takes tells nothing about it.

use std::fmt;
use std::hint::black_box;

/// What a stranger must show; nothing, where no token is configured.
#[derive(Clone)]
pub struct Guard(Option<Box<[u8]>>);

impl Guard {
    /// Lets in whoever shows `token`, or everybody.
    pub fn new(token: Option<&str>) -> Guard {
        Guard(token.map(|token| token.as_bytes().into()))
    }

    /// Whether a token is asked for.
    pub fn asks(&self) -> bool {
        self.0.is_some()
    }

    /// The token, to be shown to another node of the cluster, which asks for the same.
    pub fn token(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }

    /// Whether who shows this is let in. Looks at every byte, whichever differs.
    pub fn admits(&self, shown: &[u8]) -> bool {
        let Some(token) = &self.0 else {
            return true;
        };
        let mut differs = token.len() ^ shown.len();
        for (at, byte) in token.iter().enumerate() {
            differs |= usize::from(byte ^ shown.get(at).copied().unwrap_or(0));
        }
        black_box(differs) == 0
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.asks() { "Guard(a token)" } else { "Guard(open)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_let_in() {
        let guard = Guard::new(Some("secret"));
        assert!(guard.admits(b"secret"));
        let others: [&[u8]; 5] = [b"", b"secre", b"secret2", b"Secret", b"secret\0"];
        assert!(others.iter().all(|other| !guard.admits(other)));
    }

    #[test]
    fn without_a_token_everybody_is_let_in() {
        assert!(Guard::new(None).admits(b"anything"));
    }
}
