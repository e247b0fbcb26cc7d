//! What happens in a world, a line each, for people.

use crate::protocol::types::Instant;

/// Whoever wants to read along. Two runs of one seed give the same lines, byte for byte.
#[derive(Debug, Default)]
pub struct Trace {
    lines: Option<Vec<String>>,
    digest: u64,
}

impl Trace {
    /// Nobody reads along.
    pub fn off() -> Trace {
        Trace::default()
    }

    /// All lines are kept.
    pub fn on() -> Trace {
        Trace { lines: Some(Vec::new()), digest: 0 }
    }

    /// Whether anybody reads along.
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// A line.
    pub fn put(&mut self, now: Instant, line: &str) {
        let Some(lines) = &mut self.lines else { return };
        let line = format!("{:>4}.{:06} {line}", now.0 / 1_000_000, now.0 % 1_000_000);
        self.digest = seahash::hash_seeded(line.as_bytes(), self.digest, 1, 2, 3);
        lines.push(line);
    }

    /// All lines so far.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// A digest of all lines so far.
    pub fn digest(&self) -> u64 {
        self.digest
    }
}
