//! Sessions by a small number that fits a poll token.
//!
//! A freed place is reused only after [`Slab::recycle`], at the end of a turn: so an event that was reported before the
//! session ended cannot reach the one that takes its place.

/// Boxed values by index: a place costs a pointer while it is free.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<Box<T>>>,
    free: Vec<usize>,
    freed_now: Vec<usize>,
}

impl<T> Slab<T> {
    /// Nothing in it.
    pub fn new() -> Self {
        Slab { places: Vec::new(), free: Vec::new(), freed_now: Vec::new() }
    }

    /// Puts `value` somewhere and says where.
    pub fn insert(&mut self, value: Box<T>) -> usize {
        match self.free.pop() {
            Some(key) => {
                self.put_back(key, value);
                key
            }
            None => {
                self.places.push(Some(value));
                self.places.len() - 1
            }
        }
    }

    /// Takes the value out for a while; its place stays taken.
    pub fn take(&mut self, key: usize) -> Option<Box<T>> {
        self.places.get_mut(key)?.take()
    }

    /// Puts back what [`Slab::take`] gave.
    pub fn put_back(&mut self, key: usize, value: Box<T>) {
        if let Some(place) = self.places.get_mut(key) {
            *place = Some(value);
        }
    }

    /// Frees the place of a value that was taken and is not put back.
    pub fn free(&mut self, key: usize) {
        self.freed_now.push(key);
    }

    /// Lets places that were freed in this turn be used again.
    pub fn recycle(&mut self) {
        self.free.append(&mut self.freed_now);
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len() - self.freed_now.len()
    }

    /// The keys of all values.
    pub fn keys(&self) -> Vec<usize> {
        self.places.iter().enumerate().filter(|(_, place)| place.is_some()).map(|(key, _)| key).collect()
    }

    /// The value at `key`, to change it.
    pub fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        self.places.get_mut(key)?.as_deref_mut()
    }

    /// The value at `key`.
    pub fn get(&self, key: usize) -> Option<&T> {
        self.places.get(key)?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_reused_only_in_the_next_turn() {
        let mut slab = Slab::new();
        let (a, b) = (slab.insert(Box::new('a')), slab.insert(Box::new('b')));
        assert_eq!((a, b, slab.len()), (0, 1, 2));
        assert_eq!(slab.take(a).as_deref(), Some(&'a'));
        slab.free(a);
        assert_eq!(slab.len(), 1);
        assert_eq!(slab.insert(Box::new('c')), 2);
        slab.recycle();
        assert_eq!(slab.insert(Box::new('d')), a);
        assert_eq!(slab.keys(), [0, 1, 2]);
        assert_eq!(slab.get(a), Some(&'d'));
    }
}
