//! Compressed clusters are decompressed while their bytes arrive, and those that could not be when all have arrived.
//!
//! A cluster can be decompressed as its bytes pass by if what leads to it stands before it in the file: the L1 table,
//! then the L2 table, then the data. QEMU writes almost all so. Whether a cluster is one of those depends on these
//! places alone, so that nothing has to be kept of which have been decompressed.

mod window;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::compressed::{Descriptor, TableSet};
use super::decompression::{Data, Decompression, Stored};
use super::entries::{COMPRESSED, OFFSET, for_each_l2_entry};
use super::header::{Header, MAGIC};
use super::tables::Tables;
use crate::{FormatError, ReadAt, Stop, bytes};
use window::{Beginning, Window};

/// A larger L1 table is not followed. In bytes.
const LARGEST_L1: u64 = 8 << 20;
/// How many clusters may be known whose bytes have not arrived: 24 MiB of them. All of an L2 table that would make
/// them more are left for the end.
const MOST_EXPECTED: usize = 1 << 20;
/// Clusters whose bytes are there are decompressed together, once they are this many bytes for the guest, or have
/// this many. Two threads have enough to do with them.
const BATCH: u64 = 16 << 20;
const BATCH_STORED: usize = 2 << 20;
/// How much of the file must have arrived until the size of a cluster is known.
const HEADER_START: u64 = 24;

/// Facts about an image of which the first bytes have arrived.
pub(crate) struct Follower {
    stop: Stop,
    largest_disk: u64,
    arrived: u64,
    window: Window,
    state: State,
    /// Damage that was found, or that it was stopped.
    failure: Option<FormatError>,
}

enum State {
    /// The cluster of the header is awaited, as far as its size is known.
    Beginning {
        needed: u64,
    },
    Following(Box<Following>),
    /// Nothing is looked at any more.
    Idle,
}

struct Following {
    header: Header,
    l1_is_read: bool,
    /// Offset and number of the L2 tables behind the L1 table, in the order of the file.
    tables: Vec<(u64, u64)>,
    /// The number of tables that have been read.
    tables_read: usize,
    /// Clusters whose bytes have not all arrived, the first in the file on top.
    expected: BinaryHeap<Reverse<Data>>,
    /// Clusters whose bytes are in the window.
    ready: Vec<Data>,
    /// L2 tables whose clusters are left for the end.
    deferred: TableSet,
    decompression: Decompression,
}

/// How many clusters were decompressed as they arrived, and afterwards.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decompressed {
    pub(super) early: u64,
    pub(super) late: u64,
}

impl Follower {
    /// Nothing is decompressed of a disk of more than `largest_disk` bytes, which the caller refuses.
    pub(crate) fn new(stop: Stop, largest_disk: u64) -> Follower {
        Follower {
            stop,
            largest_disk,
            arrived: 0,
            window: Window::default(),
            state: State::Beginning {
                needed: HEADER_START,
            },
            failure: None,
        }
    }

    /// Whether the bytes to come are of no interest.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Takes the next bytes. Decompresses, and thus blocks for some ten milliseconds, where enough are there.
    pub(crate) fn data(&mut self, mut bytes: &[u8]) {
        while let Some(awaited) = self.awaited()
            && !bytes.is_empty()
        {
            let until_end = awaited.end.saturating_sub(self.arrived).max(1);
            let length =
                usize::try_from(until_end).map_or(bytes.len(), |most| most.min(bytes.len()));
            let (part, rest) = bytes.split_at(length);
            self.window.take(self.arrived, part, self.first_wanted());
            self.arrived += part.len() as u64;
            self.advance();
            bytes = rest;
        }
        self.arrived += bytes.len() as u64;
    }

    /// Takes zeros as the next bytes. Those that nobody waits for cost nothing.
    pub(crate) fn zeros(&mut self, count: u64) {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        let end = self.arrived.saturating_add(count);
        while self.arrived < end {
            let left = end - self.arrived;
            let first = self.first_wanted();
            let skipped = match &mut self.state {
                _ if first > self.arrived => first - self.arrived,
                State::Following(following) => following.pass_empty_table(self.arrived, left),
                _ => 0,
            };
            if skipped > 0 {
                self.window.clear();
                self.arrived += skipped.min(left);
            } else {
                let length =
                    usize::try_from(left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
                self.data(ZEROS.get(..length).unwrap_or_default());
            }
        }
    }

    /// The part of the image's structure that comes next; any range that begins later where none does.
    fn awaited(&self) -> Option<std::ops::Range<u64>> {
        match &self.state {
            State::Beginning { needed } => Some(0..*needed),
            State::Following(following) => Some(following.awaited().unwrap_or(u64::MAX..u64::MAX)),
            State::Idle => None,
        }
    }

    /// The first byte that is needed, of those that are here and those to come.
    fn first_wanted(&self) -> u64 {
        match &self.state {
            State::Beginning { .. } => 0,
            State::Following(following) => following.first_wanted(),
            State::Idle => u64::MAX,
        }
    }

    /// Looks at what has become complete.
    fn advance(&mut self) {
        match &mut self.state {
            State::Beginning { needed } if *needed == self.arrived => {
                self.state = begin(self.window.bytes(), &self.stop, self.largest_disk);
            }
            State::Following(following) => {
                if let Err(error) = following.advance(self.arrived, &self.window) {
                    self.failure = Some(error);
                    self.state = State::Idle;
                }
            }
            _ => {}
        }
        self.window.drop_before(self.first_wanted());
    }

    /// Decompresses the rest, once the structure of the image has been found sound. `with_compressed` are the
    /// L2 tables with compressed clusters.
    pub(super) fn finish<R: ReadAt + Sync + ?Sized>(
        self,
        content: &R,
        header: &Header,
        with_compressed: &TableSet,
    ) -> Result<Decompressed, FormatError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if with_compressed.is_empty() || header.virtual_size > self.largest_disk {
            return Ok(Decompressed::default());
        }
        let mut following = match self.state {
            State::Following(following) if self.arrived == content.len() => Some(*following),
            _ => None,
        };
        if let Some(following) = &mut following {
            following.decompress_ready(&self.window)?;
        }
        let mut decompression = Decompression::new(header, self.stop);
        let mut batch = Vec::new();
        let mut run = |batch: &mut Vec<Data>| {
            batch.sort_unstable();
            batch.dedup_by(|next, first| first.is_same(next));
            let ended = decompression.run(batch, &Stored(content));
            batch.clear();
            ended
        };
        let tables = Tables::new(content);
        let l1_entries = u64::from(header.l1_entries);
        tables.for_each_entry(header.l1_offset, l1_entries, |number, [entry]| {
            if !with_compressed.contains(number) {
                return Ok(());
            }
            let table = entry & OFFSET;
            for_each_l2_entry(&tables, header, table, |index, entry, _| {
                let Some(data) = compressed_cluster(header, number, index, entry) else {
                    return Ok(());
                };
                let followed = following.as_ref();
                let is_done =
                    followed.is_some_and(|following| following.has_followed(number, table, &data));
                if !is_done && data.offset + data.length <= content.len() {
                    batch.push(data);
                }
                if batch.len() as u64 * header.cluster_size() >= BATCH {
                    run(&mut batch)?;
                }
                Ok(())
            })?;
            Ok(())
        })?;
        run(&mut batch)?;
        Ok(Decompressed {
            early: following.map_or(0, |following| following.decompression.clusters()),
            late: decompression.clusters(),
        })
    }
}

/// The state that follows when the bytes so far have arrived.
fn begin(start: &[u8], stop: &Stop, largest_disk: u64) -> State {
    let cluster_bits = bytes::be_u32(start, 20);
    if !start.starts_with(MAGIC) || !(9..=21).contains(&cluster_bits) {
        return State::Idle;
    }
    let needed = 1u64 << cluster_bits;
    if (start.len() as u64) < needed {
        return State::Beginning { needed };
    }
    // Faults of the header are told when all bytes are there.
    let Ok(header) = Header::read(&Beginning(start)) else {
        return State::Idle;
    };
    let l1_bytes = u64::from(header.l1_entries) * 8;
    if header.virtual_size > largest_disk || header.l1_offset < needed || l1_bytes > LARGEST_L1 {
        return State::Idle;
    }
    let decompression = Decompression::new(&header, stop.clone());
    State::Following(Box::new(Following {
        header,
        l1_is_read: false,
        tables: Vec::new(),
        tables_read: 0,
        expected: BinaryHeap::new(),
        ready: Vec::new(),
        deferred: TableSet::default(),
        decompression,
    }))
}

impl Following {
    fn l1_end(&self) -> u64 {
        self.header.l1_offset + u64::from(self.header.l1_entries) * 8
    }

    /// The table that comes next.
    fn awaited(&self) -> Option<std::ops::Range<u64>> {
        if !self.l1_is_read {
            return Some(self.header.l1_offset..self.l1_end());
        }
        let (offset, _) = self.tables.get(self.tables_read)?;
        Some(*offset..*offset + self.header.cluster_size())
    }

    fn first_wanted(&self) -> u64 {
        let table = self.awaited().map(|table| table.start);
        let ready = self.ready.first().map(|data| data.offset);
        let expected = self.expected.peek().map(|Reverse(data)| data.offset);
        let first = [table, ready, expected].into_iter().flatten().min();
        first.unwrap_or(u64::MAX)
    }

    /// Passes over the next L2 table if all of it is in the zeros that begin here, and returns its size.
    fn pass_empty_table(&mut self, arrived: u64, zeros: u64) -> u64 {
        let Some(table) = self.awaited().filter(|_| self.l1_is_read) else {
            return 0;
        };
        let size = table.end - table.start;
        let others_wait = self
            .expected
            .peek()
            .is_some_and(|Reverse(data)| data.offset < table.end);
        if table.start != arrived || size > zeros || others_wait || !self.ready.is_empty() {
            return 0;
        }
        self.tables_read += 1;
        size
    }

    fn advance(&mut self, arrived: u64, window: &Window) -> Result<(), FormatError> {
        if let Some(table) = self.awaited().filter(|table| table.end == arrived) {
            let bytes = window.get(table.start, table.end - table.start);
            if self.l1_is_read {
                self.read_l2(bytes.unwrap_or_default());
            } else {
                self.read_l1(bytes.unwrap_or_default());
            }
        }
        let cluster_size = self.header.cluster_size();
        while let Some(Reverse(data)) = self.expected.peek().copied()
            && data.offset + data.length <= arrived
        {
            self.expected.pop();
            if !self.ready.last().is_some_and(|last| last.is_same(&data)) {
                self.ready.push(data);
            }
            if self.ready.len() as u64 * cluster_size >= BATCH {
                self.decompress_ready(window)?;
            }
        }
        if window.bytes().len() >= BATCH_STORED {
            self.decompress_ready(window)?;
        }
        Ok(())
    }

    fn decompress_ready(&mut self, window: &Window) -> Result<(), FormatError> {
        let ended = self.decompression.run(&self.ready, window);
        self.ready.clear();
        ended
    }

    /// Notes where the L2 tables are that begin at clusters behind the L1 table. Others are left for the end.
    fn read_l1(&mut self, l1: &[u8]) {
        self.l1_is_read = true;
        let l1_end = self.l1_end();
        for (index, entry) in (0..).zip(l1.chunks_exact(8)) {
            let offset = bytes::be_u64(entry, 0) & OFFSET;
            if offset >= l1_end && offset.is_multiple_of(self.header.cluster_size()) {
                self.tables.push((offset, index));
            }
        }
        self.tables.sort_unstable();
        // A sound image does not have one table twice.
        self.tables.dedup_by_key(|(offset, _)| *offset);
    }

    /// Notes the compressed clusters behind the L2 table that is next.
    fn read_l2(&mut self, l2: &[u8]) {
        let Some((table, index)) = self.tables.get(self.tables_read).copied() else {
            return;
        };
        self.tables_read += 1;
        let end = table + self.header.cluster_size();
        let header = &self.header;
        let entry_size = if header.extended_l2 { 16 } else { 8 };
        let data = (0..)
            .zip(l2.chunks_exact(entry_size))
            .filter_map(|(at, entry)| {
                compressed_cluster(header, index, at, bytes::be_u64(entry, 0))
            })
            .filter(|data| data.offset >= end);
        if self.expected.len() + data.clone().count() > MOST_EXPECTED {
            self.deferred.insert(index);
        } else {
            self.expected.extend(data.map(Reverse));
        }
    }

    /// Whether those data were decompressed when they arrived, if they are in the file.
    fn has_followed(&self, index: u64, table: u64, data: &Data) -> bool {
        table >= self.l1_end()
            && data.offset >= table + self.header.cluster_size()
            && !self.deferred.contains(index)
    }
}

/// The data of a compressed cluster that the guest can see, by the numbers of its L2 table and of its entry in there,
/// and the entry. None where that is something else.
fn compressed_cluster(header: &Header, table: u64, index: u64, entry: u64) -> Option<Data> {
    let guest_cluster = table * header.l2_entries() + index;
    let clusters = header.virtual_size.div_ceil(header.cluster_size());
    if entry & COMPRESSED == 0 || guest_cluster >= clusters {
        return None;
    }
    let descriptor = Descriptor::parse(entry, header.cluster_bits)?;
    Some(Data {
        offset: descriptor.offset,
        length: descriptor.end() - descriptor.offset,
        guest_cluster,
    })
}
