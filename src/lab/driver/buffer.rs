//! What one connection has received and not read, or written and not sent. Both grow to the largest need and stay.

use std::io::{self, Read, Write};

/// Room for one read at the beginning.
const INPUT_BYTES: usize = 16 * 1024;

/// Received bytes.
#[derive(Debug)]
pub(super) struct Input {
    bytes: Vec<u8>,
    read: usize,
    filled: usize,
}

/// How much a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Nothing, for now.
    Nothing,
    /// All that was there.
    All,
    /// There may be more.
    Part,
    /// The other side has ended.
    End,
}

impl Input {
    pub(super) fn new() -> Input {
        Input { bytes: vec![0; INPUT_BYTES], read: 0, filled: 0 }
    }

    /// Reads once, into whatever room there is; where a message takes all of it, into twice that.
    pub(super) fn receive(&mut self, from: &mut impl Read) -> io::Result<Received> {
        if self.filled == self.bytes.len() {
            self.make_room();
        }
        match from.read(&mut self.bytes[self.filled..]) {
            Ok(0) => Ok(Received::End),
            Ok(count) => {
                self.filled += count;
                Ok(if self.filled == self.bytes.len() { Received::Part } else { Received::All })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Received::Part),
            Err(error) => Err(error),
        }
    }

    fn make_room(&mut self) {
        if self.read == 0 {
            self.bytes.resize(2 * self.bytes.len(), 0);
        } else {
            self.bytes.copy_within(self.read..self.filled, 0);
            self.filled -= self.read;
            self.read = 0;
        }
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.read..self.filled]
    }

    pub(super) fn take(&mut self, count: usize) {
        self.read += count;
        if self.read == self.filled {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        (self.read, self.filled) = (0, 0);
    }
}

/// Bytes to send.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Dialects write behind what is there.
    pub(super) bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    pub(super) fn unsent(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Sends what the socket takes.
    pub(super) fn send(&mut self, to: &mut impl Write) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            match to.write(&self.bytes[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.clear();
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_any_size_finds_room() {
        let sent: Vec<u8> = (0..5 * INPUT_BYTES).map(|at| at as u8).collect();
        let (mut from, mut input, mut rounds) = (&sent[..], Input::new(), 0);
        while input.receive(&mut from).unwrap() != Received::End {
            rounds += 1;
        }
        assert_eq!(input.unread(), &sent[..]);
        assert!(rounds <= 5, "it doubles: {rounds}");

        input.take(INPUT_BYTES);
        assert_eq!(input.unread(), &sent[INPUT_BYTES..]);
        input.take(4 * INPUT_BYTES);
        assert!(input.unread().is_empty());
    }

    #[test]
    fn what_was_read_makes_room_for_what_comes() {
        let mut input = Input::new();
        assert_eq!(input.receive(&mut &[1; INPUT_BYTES][..]).unwrap(), Received::Part);
        input.take(INPUT_BYTES - 1);
        assert_eq!(input.receive(&mut &[2; 2][..]).unwrap(), Received::All);
        assert_eq!((input.unread(), input.bytes.len()), (&[1, 2, 2][..], INPUT_BYTES));
    }

    /// Takes two bytes at a time, and then no more for now.
    struct Slow(Vec<u8>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.len() % 4 == 2 {
                self.0.push(b'.');
                self.0.push(b'.');
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(2);
            self.0.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_socket_does_not_take_stays_in_order() {
        let (mut output, mut slow) = (Output { bytes: b"abcd".to_vec(), sent: 0 }, Slow(vec![]));
        output.send(&mut slow).unwrap();
        assert_eq!(output.unsent(), 2);
        output.bytes.extend_from_slice(b"ef");
        while output.unsent() > 0 {
            output.send(&mut slow).unwrap();
        }
        assert_eq!(slow.0, b"ab..cd..ef");
        assert!(output.bytes.is_empty());
    }
}
