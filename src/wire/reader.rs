//! Taking bytes apart, with every bound checked first; and the few ways in which bytes are put together.

use bytes::{BufMut, Bytes};

use crate::protocol::types::LengthError;

/// Bytes that cannot be read. Nothing was taken from them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end too early.
    #[error("{what}: {needed} bytes are needed, {left} are left")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Bytes that it needs.
        needed: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// Bytes are left over.
    #[error("{left} bytes are left over")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// A length or a count beyond its bound.
    #[error("{what}: {found} is more than the allowed {max}")]
    TooLong {
        /// What was being read.
        what: &'static str,
        /// The length found.
        found: usize,
        /// Its bound.
        max: usize,
    },
    /// A tag that this version does not know.
    #[error("{what}: unknown tag {tag}")]
    Unknown {
        /// What was being read.
        what: &'static str,
        /// The tag found.
        tag: u64,
    },
    /// Not the bytes of a sloop at all.
    #[error("not a sloop handshake: it begins with \"{}\" where \"SLOP\" was expected", found.escape_ascii())]
    Foreign {
        /// What stands where the magic should be; zeros for what has not come yet.
        found: [u8; 4],
    },
    /// A key, value or id out of its bounds.
    #[error(transparent)]
    Length(#[from] LengthError),
    /// Text that is not UTF-8.
    #[error("{what} is not UTF-8")]
    NotText {
        /// What was being read.
        what: &'static str,
    },
    /// A sibling set that breaks its own invariants.
    #[error("sibling set: {0}")]
    Unsound(#[from] crate::protocol::causality::Unsound),
    /// A layout that breaks its rules.
    #[error("layout: {0}")]
    Unruly(#[from] crate::protocol::ring::Unruly),
}

/// What a decoder returns.
pub type Result<T> = std::result::Result<T, WireError>;

/// What is kept of bytes that were read gets memory of its own up to this size: copying it costs less than sharing it.
pub(super) const COPIED_BYTES_MAX: usize = 16 * 1024;

/// Reads from the front of bytes that stay where they are; only what is kept of them ([`Reader::kept`]) is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// The memory of the bytes, where it may be kept for a large part of them.
    owner: Option<&'a Bytes>,
}

impl<'a> Reader<'a> {
    /// Starts at the front of bytes whose memory is another's: whatever is kept of them is copied.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, owner: None }
    }

    /// Starts at the front of bytes whose memory a large part of them may go on holding.
    pub fn shared(bytes: &'a Bytes) -> Reader<'a> {
        Reader { rest: bytes, owner: Some(bytes) }
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u8(&mut self, what: &'static str) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u16(&mut self, what: &'static str) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u32(&mut self, what: &'static str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u64(&mut self, what: &'static str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u128(&mut self, what: &'static str) -> Result<u128> {
        Ok(u128::from_le_bytes(self.array(what)?))
    }

    /// Exactly `length` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn take(&mut self, what: &'static str, length: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.truncated(what, length));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// A u16 length and as many bytes, at most `max`.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::TooLong`].
    pub fn bytes16(&mut self, what: &'static str, max: usize) -> Result<&'a [u8]> {
        let length = usize::from(self.u16(what)?);
        self.bounded(what, length, max)
    }

    /// A u32 length and as many bytes, at most `max`.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::TooLong`].
    pub fn bytes32(&mut self, what: &'static str, max: usize) -> Result<&'a [u8]> {
        let length = self.u32(what)? as usize;
        self.bounded(what, length, max)
    }

    /// A u16 length and as many bytes of UTF-8, at most `max`.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::TooLong`], [`WireError::NotText`].
    pub fn text(&mut self, what: &'static str, max: usize) -> Result<String> {
        let bytes = self.bytes16(what, max)?;
        Ok(str::from_utf8(bytes).map_err(|_| WireError::NotText { what })?.to_owned())
    }

    /// A part that was read here, to be kept. It never holds more than twice its own size in memory: it is copied,
    /// unless it is large, makes up half of what was read, and that may be shared.
    pub fn kept(&self, part: &'a [u8]) -> Bytes {
        match self.owner {
            Some(owner) if COPIED_BYTES_MAX < part.len() && owner.len() / 2 <= part.len() => owner.slice_ref(part),
            _ => Bytes::copy_from_slice(part),
        }
    }

    /// A u32 count of things that take at least `least` bytes each, at most `max` of them.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::TooLong`].
    pub fn count(&mut self, what: &'static str, max: usize, least: usize) -> Result<usize> {
        let found = self.u32(what)? as usize;
        if found > max {
            return Err(WireError::TooLong { what, found, max });
        }
        let needed = found.saturating_mul(least);
        if needed <= self.rest.len() { Ok(found) } else { Err(self.truncated(what, needed)) }
    }

    /// That nothing is left over.
    ///
    /// # Errors
    /// [`WireError::Trailing`].
    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing { left: self.rest.len() }) }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return Err(self.truncated(what, N));
        };
        self.rest = rest;
        Ok(*taken)
    }

    fn bounded(&mut self, what: &'static str, length: usize, max: usize) -> Result<&'a [u8]> {
        if length > max {
            return Err(WireError::TooLong { what, found: length, max });
        }
        self.take(what, length)
    }

    fn truncated(&self, what: &'static str, needed: usize) -> WireError {
        WireError::Truncated { what, needed, left: self.rest.len() }
    }
}

/// Writes a u16 length and the bytes. The caller's types bound the length.
pub fn put_bytes16(out: &mut impl BufMut, bytes: &[u8]) {
    out.put_u16_le(u16::try_from(bytes.len()).expect("bounded by its type below 65,536 bytes"));
    out.put_slice(bytes);
}

/// Writes a u16 length and the text, cut to at most `max` bytes: what is for people may lose its end.
pub fn put_text(out: &mut impl BufMut, text: &str, max: usize) {
    put_bytes16(out, &text.as_bytes()[..text.floor_char_boundary(max)]);
}

/// Writes a u32 length and the bytes. The caller's types bound the length.
pub fn put_bytes32(out: &mut impl BufMut, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.put_slice(bytes);
}

/// Writes a u32 count.
pub fn put_count(out: &mut impl BufMut, count: usize) {
    out.put_u32_le(u32::try_from(count).expect("nothing here holds 2^32 things"));
}
