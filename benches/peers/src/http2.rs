//! As much of HTTP/2 (RFC 9113) and of HPACK (RFC 7541) as a client of gRPC needs: frames are written and read, header
//! fields are written. Header fields of the server are not read: whether a call came to something shows in its frames.

/// What opens a connection, before the first frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Of any frame, before its payload: length, kind, flags, stream.
pub const HEAD_BYTES: usize = 9;

/// Longest payload while nobody has agreed on more, which we never do.
pub const PAYLOAD_BYTES_MAX: usize = 16_384;

/// Bytes that either side may send, over a connection and over each of its streams, before it is given more.
pub const WINDOW_BYTES: u32 = 65_535;

/// Room for header fields that each side keeps of the other unless told otherwise.
pub const FIELDS_BYTES: u32 = 4_096;

/// Kinds of frames.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
}

/// Flags of frames.
pub mod flag {
    /// Of a ping and of settings.
    pub const ACK: u8 = 0x1;
    /// Of data and of headers.
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
}

/// Settings.
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// One of [`kind`], or one that we do not know.
    pub kind: u8,
    /// Of [`flag`].
    pub flags: u8,
    /// Whose; 0 for the connection's own.
    pub stream: u32,
    /// The rest.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The frame at the front; none while it is not whole.
    ///
    /// # Errors
    /// A sentence, when it is longer than allowed.
    pub fn read(from: &[u8]) -> Result<Option<Frame<'_>>, String> {
        let Some((&[high, middle, low, kind, flags, a, b, c, d], behind)) = from.split_first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if PAYLOAD_BYTES_MAX < length {
            return Err(format!("a frame of {length} bytes"));
        }
        let stream = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
        Ok(behind.get(..length).map(|payload| Frame { kind, flags, stream, payload }))
    }

    /// Its bytes.
    pub fn bytes(&self) -> usize {
        HEAD_BYTES + self.payload.len()
    }

    /// Whether it has this one of [`flag`].
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Its payload as a number.
    pub fn number(&self) -> Option<u32> {
        self.payload.first_chunk().map(|&bytes| u32::from_be_bytes(bytes))
    }

    /// Its payload as settings.
    pub fn settings(&self) -> impl Iterator<Item = (u16, u32)> {
        let (settings, _) = self.payload.as_chunks();
        settings.iter().map(|&[a, b, c, d, e, f]| (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])))
    }

    /// Of data: what is in it, without padding. None when it is all padding and more.
    pub fn data(&self) -> Option<&[u8]> {
        if !self.has(flag::PADDED) {
            return Some(self.payload);
        }
        let (&padding, data) = self.payload.split_first()?;
        data.get(..data.len().checked_sub(padding.into())?)
    }

    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let at = begin(out, self.kind, self.flags, self.stream);
        out.extend_from_slice(self.payload);
        end(out, at);
    }
}

/// Begins a frame, whose payload is then written behind it. What is given back is for [`end`].
pub fn begin(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0, 0, 0, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    at
}

/// Ends a frame: its length is known.
pub fn end(out: &mut [u8], at: usize) {
    let length = out.len() - at - HEAD_BYTES;
    assert!(length <= PAYLOAD_BYTES_MAX, "a frame of {length} bytes");
    out[at..at + 3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
}

/// Lets the server send more: over the connection as stream 0.
pub fn widen(out: &mut Vec<u8>, stream: u32, by: u32) {
    Frame { kind: kind::WINDOW_UPDATE, flags: 0, stream, payload: &by.to_be_bytes() }.write(out);
}

/// A header field: its name's number in the static table, or its name, and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// All of it is in the static table, with this number.
    Static(u8),
    /// The name is.
    Named(u8, &'static str),
    /// Nothing is.
    Own(&'static str, &'static str),
}

/// The header fields that the server keeps for this connection: what was sent once is a byte from then on.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    kept: Vec<Field>,
}

/// Entries of the static table.
const STATIC: usize = 61;

/// Numbers and lengths below this are one byte.
const SHORT: usize = 127;

impl Fields {
    /// Writes one. All that differ must fit in [`FIELDS_BYTES`] together.
    pub fn write(&mut self, field: Field, out: &mut Vec<u8>) {
        const INDEXED: u8 = 0x80;
        const KEEP: u8 = 0x40;
        if let Some(at) = self.kept.iter().position(|kept| *kept == field) {
            // The latest has the first number.
            return out.push(INDEXED | (STATIC + self.kept.len() - at) as u8);
        }
        let value = match field {
            Field::Static(number) => return out.push(INDEXED | number),
            Field::Named(number, value) => {
                out.push(KEEP | number);
                value
            }
            Field::Own(name, value) => {
                out.push(KEEP);
                write_text(name, out);
                value
            }
        };
        write_text(value, out);
        self.kept.push(field);
        assert!(STATIC + self.kept.len() < SHORT, "there are few kinds of requests");
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    assert!(text.len() < SHORT, "{text}");
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_and_waits_for_the_rest() {
        let frame = Frame { kind: kind::PING, flags: flag::ACK, stream: 7, payload: b"12345678" };
        let mut out = vec![];
        frame.write(&mut out);
        assert_eq!(out, b"\x00\x00\x08\x06\x01\x00\x00\x00\x0712345678");
        assert_eq!(frame.bytes(), out.len());
        for cut in 0..out.len() {
            assert_eq!(Frame::read(&out[..cut]), Ok(None));
        }
        out.push(1);
        assert_eq!(Frame::read(&out), Ok(Some(frame)));
        assert!(Frame::read(b"\x00\x40\x01\x00\x00\x00\x00\x00\x01").is_err(), "longer than allowed");
    }

    #[test]
    fn padding_is_no_data() {
        let padded = |payload| Frame { kind: kind::DATA, flags: flag::PADDED, stream: 1, payload };
        assert_eq!(padded(b"\x02ab..").data(), Some(&b"ab"[..]));
        assert_eq!(padded(b"\x02..").data(), Some(&b""[..]));
        assert_eq!(padded(b"\x03..").data(), None);
        assert_eq!(padded(b"").data(), None);
    }

    #[test]
    fn a_field_is_spelled_once_and_then_is_a_number() {
        let (mut fields, mut out) = (Fields::default(), vec![]);
        let all = [Field::Static(3), Field::Named(4, "/a"), Field::Own("te", "trailers")];
        all.iter().for_each(|&field| fields.write(field, &mut out));
        assert_eq!(out, b"\x83\x44\x02/a\x40\x02te\x08trailers");
        out.clear();
        all.iter().for_each(|&field| fields.write(field, &mut out));
        assert_eq!(out, b"\x83\xbf\xbe");
        fields.write(Field::Named(4, "/b"), &mut out);
        out.clear();
        all.iter().for_each(|&field| fields.write(field, &mut out));
        assert_eq!(out, b"\x83\xc0\xbf", "a later one moves them on");
    }
}
