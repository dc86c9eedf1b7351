//! A JSON text as it is written.
//!
//! A text is made of many short pieces. A vector asks for room and calls for a copy at each, which
//! costs more than the bytes themselves; here room lies ready behind the text, and what is short is
//! copied in blocks of a fixed size, a few bytes too many where that is quicker.

/// What pieces are copied by.
const BLOCK: usize = 16;
/// Room is made by multiples of this.
const STEP: usize = 1024;

/// A piece known beforehand, in whole blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    blocks: Box<[[u8; BLOCK]]>,
    length: usize,
}

impl Piece {
    pub fn new(text: &[u8]) -> Self {
        let mut padded = text.to_vec();
        padded.resize(text.len().next_multiple_of(BLOCK), 0);
        Self {
            blocks: padded.as_chunks().0.into(),
            length: text.len(),
        }
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.blocks.as_flattened()[..self.length]
    }
}

/// A text that grows at its end.
#[derive(Default)]
pub struct JsonText {
    /// The text, and behind it bytes that mean nothing.
    bytes: Vec<u8>,
    length: usize,
}

impl JsonText {
    /// Goes on behind `bytes`.
    pub fn behind(bytes: Vec<u8>) -> Self {
        Self {
            length: bytes.len(),
            bytes,
        }
    }

    pub fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.truncate(self.length);
        self.bytes
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Takes back everything from `length` on.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        self.length = length.min(self.length);
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The byte at `at`, if the text has one there.
    #[inline]
    pub fn get_mut(&mut self, at: usize) -> Option<&mut u8> {
        self.bytes[..self.length].get_mut(at)
    }

    /// What lies behind the text: at least `count` bytes.
    #[inline]
    fn room(&mut self, count: usize) -> &mut [u8] {
        if self.bytes.len() - self.length < count {
            self.make_room(count);
        }
        &mut self.bytes[self.length..]
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, count: usize) {
        let wanted = (self.length + count).next_multiple_of(STEP);
        // No further than what is set aside already, if that is enough.
        let capacity = self.bytes.capacity();
        let enough = (self.length + count..=wanted).contains(&capacity);
        self.bytes.resize(if enough { capacity } else { wanted }, 0);
    }

    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.room(1)[0] = byte;
        self.length += 1;
    }

    /// Puts bytes of which there are few, or always as many.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    #[inline]
    pub fn put_piece(&mut self, piece: &Piece) {
        let room = self.room(piece.blocks.len() * BLOCK);
        for (block, room) in piece.blocks.iter().zip(room.as_chunks_mut().0) {
            *room = *block;
        }
        self.length += piece.length;
    }

    /// Puts the front of a block.
    #[inline]
    pub fn put_front<const N: usize>(&mut self, block: &[u8; N], length: usize) {
        self.room(N)[..N].copy_from_slice(block);
        self.length += length.min(N);
    }

    /// Puts what `write` fills of `count` bytes: it tells how many.
    #[inline]
    pub fn put_by(&mut self, count: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        let written = write(&mut self.room(count)[..count]);
        self.length += written.min(count);
    }

    /// Puts bytes in quotes, if there is nothing among them but ASCII without anything to escape;
    /// tells if that is so.
    #[inline]
    #[must_use]
    pub fn put_plain_string(&mut self, bytes: &[u8]) -> bool {
        let length = bytes.len();
        let Some((quote, room)) = self.room(length + 2).split_first_mut() else {
            return false;
        };
        *quote = b'"';
        let (words, rest) = bytes.as_chunks::<8>();
        let mut special = 0;
        for (word, room) in words.iter().zip(room.as_chunks_mut::<8>().0) {
            special |= not_plain(u64::from_le_bytes(*word));
            *room = *word;
        }
        // The rest by a word that overlaps what is there already, where there is one.
        if let Some(last) = bytes.last_chunk::<8>() {
            special |= not_plain(u64::from_le_bytes(*last));
            room[length - 8..length].copy_from_slice(last);
        } else {
            let mut word = [b' '; 8];
            for (byte, (place, room)) in rest.iter().zip(word.iter_mut().zip(&mut *room)) {
                (*place, *room) = (*byte, *byte);
            }
            special |= not_plain(u64::from_le_bytes(word));
        }
        if special != 0 {
            return false;
        }
        room[length] = b'"';
        self.length += length + 2;
        true
    }
}

/// Not 0 if one of eight bytes is to be escaped or no ASCII.
#[inline]
fn not_plain(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // A byte below what is taken off it borrows, which sets its high bit, and at the most makes those
    // above it be found too. One that has its high bit set before is no ASCII.
    let control = word.wrapping_sub(ONES * 0x20);
    let quote = (word ^ (ONES * u64::from(b'"'))).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
    (word | control | quote | backslash) & HIGH
}
