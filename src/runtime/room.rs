//! Room for large calls while they come in: a core's memory for what no request counts yet.
//!
//! A large call takes room for all of it before it is read on. Where there is none it waits, in the order in which they
//! asked, and nothing is read of it: so two that came in half never wait for each other, and nobody is overtaken.

use std::collections::VecDeque;

/// The room of one core. Who takes it is known by a token.
#[derive(Debug)]
pub struct Room {
    bytes_max: usize,
    taken: usize,
    waiting: VecDeque<u64>,
}

impl Room {
    /// Room for calls of so many bytes together, or for one that is larger.
    pub fn new(bytes_max: usize) -> Room {
        Room { bytes_max, taken: 0, waiting: VecDeque::new() }
    }

    /// Takes room, or waits for it behind the others. Who waits asks again when it is the [`next`](Room::next).
    pub fn take(&mut self, token: u64, bytes: usize) -> bool {
        let is_next = self.next().is_none_or(|next| next == token);
        let fits = self.taken == 0 || self.taken + bytes <= self.bytes_max;
        if is_next && fits {
            self.waiting.pop_front();
            self.taken += bytes;
        } else if !self.waiting.contains(&token) {
            self.waiting.push_back(token);
        }
        is_next && fits
    }

    /// Gives back what was taken.
    pub fn give_back(&mut self, bytes: usize) {
        self.taken -= bytes;
    }

    /// Waits no more.
    pub fn leave(&mut self, token: u64) {
        self.waiting.retain(|waiting| *waiting != token);
    }

    /// Who has waited longest.
    pub fn next(&self) -> Option<u64> {
        self.waiting.front().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_taken_in_the_order_of_asking() {
        let mut room = Room::new(100);
        assert!(room.take(1, 60));
        assert!(!room.take(2, 60));
        assert!(!room.take(3, 10), "it would fit, and overtake");
        assert!(!room.take(3, 10), "asking again is no second place");
        assert_eq!(room.next(), Some(2));

        room.give_back(60);
        assert!(!room.take(1, 60), "who had it stands behind those that wait");
        assert!(room.take(2, 60) && room.take(3, 10));
        assert_eq!(room.next(), Some(1));
    }

    #[test]
    fn what_is_larger_than_all_room_has_it_alone() {
        let mut room = Room::new(100);
        assert!(room.take(1, 500));
        assert!(!room.take(2, 1));
        room.give_back(500);
        assert!(room.take(2, 1));
        assert!(!room.take(1, 500));
    }

    #[test]
    fn who_leaves_is_not_waited_for() {
        let mut room = Room::new(100);
        assert!(room.take(1, 100) && !room.take(2, 50) && !room.take(3, 50));
        room.leave(2);
        room.give_back(100);
        assert!(room.take(3, 50));
        assert_eq!(room.next(), None);
    }
}
