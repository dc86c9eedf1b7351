//! Partitions as areas of sectors, whichever table named them.

/// The kind of a partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartitionScheme {
    /// The master boot record, with the chain of its logical partitions.
    Mbr,
    /// The GUID partition table.
    Gpt,
}

impl std::fmt::Display for PartitionScheme {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            PartitionScheme::Mbr => "MBR",
            PartitionScheme::Gpt => "GPT",
        })
    }
}

/// One partition of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// As systems count: from 1; the logical ones of an MBR from 5.
    pub number: u32,
    /// Of its first byte, from the start of the disk.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
}

/// The partition table of a disk, found sound: no partition is cut, and none is on another, but for the logical ones
/// of an MBR, which are inside of an extended one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTable {
    /// The kind of the table.
    pub scheme: PartitionScheme,
    /// In the order of their numbers. An extended partition is among them.
    pub partitions: Vec<Partition>,
}

impl PartitionTable {
    pub(crate) fn new(
        scheme: PartitionScheme,
        mut areas: Vec<Area>,
        sector: u64,
    ) -> PartitionTable {
        areas.sort_unstable_by_key(|area| area.number);
        let partition = |area: Area| Partition {
            number: area.number,
            offset: area.first.saturating_mul(sector),
            size: (area.last - area.first)
                .saturating_add(1)
                .saturating_mul(sector),
        };
        PartitionTable {
            scheme,
            partitions: areas.into_iter().map(partition).collect(),
        }
    }
}

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
