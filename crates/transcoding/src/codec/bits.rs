//! A set of small numbers: which fields of a message have been seen.

/// Holds numbers below a bound without allocating, for messages of usual size.
pub(super) struct BitSet {
    first: [u64; 2],
    rest: Vec<u64>,
}

impl BitSet {
    /// A set of numbers below `bound`.
    #[inline]
    pub(super) fn new(bound: usize) -> Self {
        Self {
            first: [0; 2],
            rest: vec![0; bound.saturating_sub(128).div_ceil(64)],
        }
    }

    /// Puts a number below the bound; tells if it was not there yet.
    #[inline]
    pub(super) fn insert(&mut self, number: usize) -> bool {
        let word = match number / 64 {
            at @ (0 | 1) => &mut self.first[at],
            at => &mut self.rest[at - 2],
        };
        let bit = 1 << (number % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_new_once() {
        let mut set = BitSet::new(400);
        for number in (0..400).rev() {
            assert!(set.insert(number));
        }
        assert!((0..400).all(|number| !set.insert(number)));
    }
}
