//! Taking bytes apart, with every bound checked first; and the few ways in which bytes are put together.

use bytes::{Buf, BufMut, Bytes};

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
    #[error("not a sloop handshake: it begins with {found:02x?} where \"SLOP\" was expected")]
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
}

/// What a decoder returns.
pub type Result<T> = std::result::Result<T, WireError>;

/// Reads from the front of shared bytes; slices share the buffer.
#[derive(Clone, Debug)]
pub struct Reader {
    rest: Bytes,
    whole: usize,
}

impl Reader {
    /// Starts at the front.
    pub fn new(bytes: Bytes) -> Reader {
        Reader { whole: bytes.len(), rest: bytes }
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u8(&mut self, what: &'static str) -> Result<u8> {
        self.need(what, 1)?;
        Ok(self.rest.get_u8())
    }

    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u16(&mut self, what: &'static str) -> Result<u16> {
        self.need(what, 2)?;
        Ok(self.rest.get_u16_le())
    }

    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u32(&mut self, what: &'static str) -> Result<u32> {
        self.need(what, 4)?;
        Ok(self.rest.get_u32_le())
    }

    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u64(&mut self, what: &'static str) -> Result<u64> {
        self.need(what, 8)?;
        Ok(self.rest.get_u64_le())
    }

    /// # Errors
    /// [`WireError::Truncated`].
    pub fn u128(&mut self, what: &'static str) -> Result<u128> {
        self.need(what, 16)?;
        Ok(self.rest.get_u128_le())
    }

    /// Exactly `length` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn take(&mut self, what: &'static str, length: usize) -> Result<Bytes> {
        self.need(what, length)?;
        Ok(self.rest.split_to(length))
    }

    /// A u16 length and as many bytes, at most `max`.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::TooLong`].
    pub fn bytes16(&mut self, what: &'static str, max: usize) -> Result<Bytes> {
        let length = usize::from(self.u16(what)?);
        self.bounded(what, length, max)
    }

    /// A u32 length and as many bytes, at most `max`.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::TooLong`].
    pub fn bytes32(&mut self, what: &'static str, max: usize) -> Result<Bytes> {
        let length = self.u32(what)? as usize;
        self.bounded(what, length, max)
    }

    /// A u16 length and as many bytes of UTF-8, at most `max`.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::TooLong`], [`WireError::NotText`].
    pub fn text(&mut self, what: &'static str, max: usize) -> Result<String> {
        let bytes = self.bytes16(what, max)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| WireError::NotText { what })
    }

    /// Gives `part`, which was read here and will be kept, a buffer of its own when it is the smaller half of the
    /// whole: a short key must not hold a long value's memory for as long as something remembers the key.
    pub fn kept(&self, part: Bytes) -> Bytes {
        if part.len() < self.whole / 2 { Bytes::copy_from_slice(&part) } else { part }
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
        self.need(what, found.saturating_mul(least))?;
        Ok(found)
    }

    /// That nothing is left over.
    ///
    /// # Errors
    /// [`WireError::Trailing`].
    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing { left: self.rest.len() }) }
    }

    fn bounded(&mut self, what: &'static str, length: usize, max: usize) -> Result<Bytes> {
        if length > max {
            return Err(WireError::TooLong { what, found: length, max });
        }
        self.take(what, length)
    }

    fn need(&self, what: &'static str, needed: usize) -> Result<()> {
        let left = self.rest.len();
        if needed <= left { Ok(()) } else { Err(WireError::Truncated { what, needed, left }) }
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
