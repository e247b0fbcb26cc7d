//! Things by number, in pages of fixed size: growing copies nothing, and a number holds until its thing is removed.

const PAGE: usize = 1_024;

/// Things by number.
#[derive(Debug)]
pub(super) struct Pages<T> {
    pages: Vec<Vec<Option<T>>>,
    /// Numbers below `len` that have no thing.
    free: Vec<u32>,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Pages { pages: Vec::new(), free: Vec::new() }
    }
}

impl<T> Pages<T> {
    /// Numbers up to this were given out.
    pub(super) fn len(&self) -> u32 {
        let full = self.pages.len().saturating_sub(1) * PAGE;
        u32::try_from(full + self.pages.last().map_or(0, Vec::len)).expect("checked when a thing was taken in")
    }

    /// Takes a thing in, and gives it a number that none has.
    pub(super) fn insert(&mut self, thing: T) -> u32 {
        if let Some(number) = self.free.pop() {
            *self.slot(number) = Some(thing);
            return number;
        }
        let number = self.len();
        assert!(number < u32::MAX, "more things than numbers");
        if (number as usize).is_multiple_of(PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        self.pages.last_mut().expect("one was just there").push(Some(thing));
        number
    }

    /// # Panics
    /// When no thing has the number.
    pub(super) fn remove(&mut self, number: u32) -> T {
        let thing = self.slot(number).take().expect("its number was given to a thing");
        self.free.push(number);
        thing
    }

    /// # Panics
    /// When no thing has the number.
    pub(super) fn get(&self, number: u32) -> &T {
        let slot = &self.pages[number as usize / PAGE][number as usize % PAGE];
        slot.as_ref().expect("its number was given to a thing")
    }

    /// # Panics
    /// When no thing has the number.
    pub(super) fn get_mut(&mut self, number: u32) -> &mut T {
        self.slot(number).as_mut().expect("its number was given to a thing")
    }

    /// The thing with this number, which is below [`Pages::len`].
    pub(super) fn try_get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.slot(number).as_mut()
    }

    fn slot(&mut self, number: u32) -> &mut Option<T> {
        &mut self.pages[number as usize / PAGE][number as usize % PAGE]
    }
}
