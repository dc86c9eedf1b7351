//! Partitions as areas of sectors, whichever table named them.

/// The sectors of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Area {
    pub(crate) first: u64,
    /// Included.
    pub(crate) last: u64,
    /// As administrators count: from 1.
    pub(crate) number: u32,
}

/// Two areas that share a sector, if any do. Sorts the areas.
pub(crate) fn find_overlap(areas: &mut [Area]) -> Option<(Area, Area)> {
    areas.sort_unstable();
    areas.windows(2).find_map(|pair| match pair {
        [left, right] if right.first <= left.last => Some((*left, *right)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(number: u32, first: u64, last: u64) -> Area {
        Area {
            first,
            last,
            number,
        }
    }

    #[test]
    fn overlaps_are_found_in_any_order() {
        let cases = [
            (vec![], None),
            (vec![area(1, 5, 9)], None),
            (vec![area(1, 10, 19), area(2, 1, 9)], None),
            (vec![area(1, 10, 19), area(2, 1, 10)], Some((2, 1))),
            (
                vec![area(1, 1, 100), area(2, 200, 300), area(3, 50, 60)],
                Some((1, 3)),
            ),
            (vec![area(1, 7, 7), area(2, 7, 7)], Some((1, 2))),
        ];
        for (mut areas, expected) in cases {
            let found = find_overlap(&mut areas).map(|(left, right)| (left.number, right.number));
            assert_eq!(found, expected, "{areas:?}");
        }
    }
}
