//! A JSON text as it is written.
//!
//! A text is made of many short pieces. A vector asks for room and calls for a copy at each, which
//! costs more than the bytes themselves; here room lies ready behind the text, and what is short is
//! copied in blocks of a fixed size, a few bytes too many where that is quicker.

/// The size of the copy that writes a piece.
const BLOCK: usize = 32;
/// Room is made by multiples of this.
const STEP: usize = 1024;

/// A piece known beforehand: as a rule one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    block: [u8; BLOCK],
    /// How much of the block is the piece, if there is no more than that.
    length: usize,
    /// The whole of one that is longer than a block.
    long: Option<Box<[u8]>>,
}

impl Piece {
    pub(super) fn new(text: &[u8]) -> Self {
        let mut block = [0; BLOCK];
        let length = text.len().min(BLOCK);
        block[..length].copy_from_slice(&text[..length]);
        Self {
            block,
            length,
            long: (text.len() > BLOCK).then(|| text.into()),
        }
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        match &self.long {
            None => &self.block[..self.length],
            Some(long) => long,
        }
    }
}

/// A text that grows at its end.
#[derive(Default)]
pub(super) struct JsonText {
    /// The text, and behind it bytes that mean nothing.
    bytes: Vec<u8>,
    length: usize,
}

impl JsonText {
    /// Goes on behind `bytes`.
    pub(super) fn behind(bytes: Vec<u8>) -> Self {
        Self {
            length: bytes.len(),
            bytes,
        }
    }

    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.truncate(self.length);
        self.bytes
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Takes back everything from `length` on.
    #[inline]
    pub(super) fn truncate(&mut self, length: usize) {
        self.length = length.min(self.length);
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// The byte at `at`, if the text has one there.
    #[inline]
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut u8> {
        self.bytes[..self.length].get_mut(at)
    }

    /// The bytes behind the text, at least `count`.
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
    pub(super) fn push(&mut self, byte: u8) {
        self.room(1)[0] = byte;
        self.length += 1;
    }

    /// Puts bytes of which there are few, or always as many.
    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    #[inline(always)]
    pub(super) fn put_piece(&mut self, piece: &Piece) {
        match &piece.long {
            None => self.put_front(&piece.block, piece.length),
            Some(long) => self.put(long),
        }
    }

    /// Puts the front of a block.
    #[inline]
    pub(super) fn put_front<const N: usize>(&mut self, block: &[u8; N], length: usize) {
        self.room(N)[..N].copy_from_slice(block);
        self.length += length.min(N);
    }

    /// Puts what `write` fills of `count` bytes: it tells how many.
    #[inline]
    pub(super) fn put_by(&mut self, count: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        let written = write(&mut self.room(count)[..count]);
        self.length += written.min(count);
    }

    /// Puts UTF-8 in quotes, if nothing in it is to be escaped; tells if that is so.
    #[inline]
    #[must_use]
    pub(super) fn put_plain_string(&mut self, bytes: &[u8]) -> bool {
        let count = bytes.len() + 2;
        let is_plain = quote(bytes, self.room(count));
        self.length += if is_plain { count } else { 0 };
        is_plain
    }

    /// [`Self::put_piece`] and [`Self::put_plain_string`], or neither.
    #[inline]
    #[must_use]
    pub(super) fn put_plain_member(&mut self, key: &Piece, bytes: &[u8]) -> bool {
        if key.long.is_some() {
            return false;
        }
        let room = self.room(BLOCK + bytes.len() + 2);
        room[..BLOCK].copy_from_slice(&key.block);
        let is_plain = quote(bytes, &mut room[key.length..]);
        let count = key.length + bytes.len() + 2;
        self.length += if is_plain { count } else { 0 };
        is_plain
    }
}

/// Writes bytes in quotes to where there is room for them; tells if they are UTF-8 without anything to
/// escape, for otherwise what was written is no string.
#[inline(always)]
fn quote(bytes: &[u8], room: &mut [u8]) -> bool {
    let length = bytes.len();
    let [first, room @ ..] = &mut room[..length + 2] else {
        return false;
    };
    *first = b'"';
    room[length] = b'"';
    let is_plain = match bytes.last_chunk() {
        Some(last) => copy_wide(bytes, last, room),
        None => copy_short(bytes, room),
    };
    is_plain.unwrap_or_else(|| is_utf8(bytes))
}

#[cold]
fn is_utf8(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

/// Copies bytes that end in `last` to the front of `room`. Tells what [`are_plain`] tells.
#[inline(never)]
fn copy_wide(bytes: &[u8], last: &[u8; WIDE], room: &mut [u8]) -> Option<bool> {
    let mut seen = Seen::default();
    for (block, room) in bytes.as_chunks().0.iter().zip(room.as_chunks_mut().0) {
        seen.look_at(block);
        *room = *block;
    }
    // What fills no block is covered by one that overlaps what is there already.
    seen.look_at(last);
    *room[..bytes.len()].last_chunk_mut()? = *last;
    seen.is_plain()
}

/// [`copy_wide`] of fewer bytes than it takes.
#[inline(never)]
fn copy_short(bytes: &[u8], room: &mut [u8]) -> Option<bool> {
    let length = bytes.len();
    if let (Some(front), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        room[..8].copy_from_slice(front);
        room[length - 8..length].copy_from_slice(last);
        are_plain([front, last].map(|word| u64::from_le_bytes(*word)))
    } else if let (Some(front), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        room[..4].copy_from_slice(front);
        room[length - 4..length].copy_from_slice(last);
        let halves = [front, last].map(|half| u64::from(u32::from_le_bytes(*half)));
        are_plain([halves[0] | halves[1] << 32])
    } else {
        let mut word = u64::from_le_bytes([b' '; 8]);
        for (byte, room) in bytes.iter().zip(room) {
            word = word << 8 | u64::from(*byte);
            *room = *byte;
        }
        are_plain([word])
    }
}

/// Whether words are ASCII without anything to escape; `None` where not all is ASCII.
#[inline]
fn are_plain<const N: usize>(words: [u64; N]) -> Option<bool> {
    let (mut to_escape, mut all) = (0, 0);
    for word in words {
        to_escape |= escapes(word);
        all |= word;
    }
    verdict(to_escape != 0, all & HIGH == 0)
}

/// Whether bytes are a string as they are; `None` where that takes a look at their UTF-8.
#[inline(always)]
fn verdict(has_escapes: bool, is_ascii: bool) -> Option<bool> {
    match (has_escapes, is_ascii) {
        (false, false) => None,
        (has_escapes, _) => Some(!has_escapes),
    }
}

/// How many bytes of a longer string are looked at as one: what every processor of these days does.
const WIDE: usize = 16;

/// The bytes of blocks, gathered by their place in a block: compilers make one instruction of that.
#[derive(Default)]
struct Seen {
    /// Not 0 where there was something to escape.
    to_escape: [u8; WIDE],
    all: [u8; WIDE],
}

impl Seen {
    #[inline(always)]
    fn look_at(&mut self, block: &[u8; WIDE]) {
        let lanes = self.to_escape.iter_mut().zip(&mut self.all);
        for ((to_escape, all), byte) in lanes.zip(block) {
            let is_special = *byte < 0x20 || *byte == b'"' || *byte == b'\\';
            *to_escape |= if is_special { 0xff } else { 0 };
            *all |= byte;
        }
    }

    #[inline(always)]
    fn is_plain(&self) -> Option<bool> {
        let join = |lanes: [u8; WIDE]| lanes.into_iter().fold(0, |joined, lane| joined | lane);
        verdict(join(self.to_escape) != 0, join(self.all) < 0x80)
    }
}

/// A word with the value one in each byte.
const ONES: u64 = u64::MAX / 255;
/// The high bit of each byte of a word: set in what is no ASCII.
const HIGH: u64 = ONES << 7;

/// Not 0 if one of eight bytes is to be escaped: a control character, a quote or a backslash. The high
/// bit of such a byte is set, and perhaps that of bytes above it.
#[inline]
pub(super) fn escapes(word: u64) -> u64 {
    // A byte of ASCII gets its high bit where it is below what is taken off it: it borrows.
    let control = word.wrapping_sub(ONES * 0x20);
    let quote = (word ^ (ONES * u64::from(b'"'))).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
    (control | quote | backslash) & !word & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of every short length in front of, at and behind the ends of the room.
    #[test]
    fn members_are_put_whole_wherever_the_room_ends() {
        for key_length in [0, 1, 31, 32, 33, 70] {
            let key = Piece::new(&b"k".repeat(key_length));
            assert_eq!(key.as_bytes(), b"k".repeat(key_length));
            for before in (STEP - 80..=STEP + 1).step_by(3).chain([0, 2 * STEP - 5]) {
                for length in 0..=40 {
                    let text: String = ('a'..='z').cycle().take(length).collect();
                    let quoted = serde_json::to_vec(&text).expect("a text");
                    let start = vec![b'x'; before];
                    let expected = [&start, key.as_bytes(), &quoted].concat();
                    let mut out = JsonText::behind(start);
                    if !out.put_plain_member(&key, text.as_bytes()) {
                        assert!(key_length > BLOCK, "{before} {length}");
                        assert_eq!(out.len(), before);
                        out.put_piece(&key);
                        assert!(out.put_plain_string(text.as_bytes()));
                    }
                    assert_eq!(out.into_bytes(), expected, "{key_length} {before} {length}");
                }
            }
        }
    }

    #[test]
    fn plain_is_what_needs_no_escape() {
        let special = [0, 0x1f, b'"', b'\\', 0x80, 0xff];
        for length in 1..=20 {
            for at in 0..length {
                let mut bytes = vec![b'~'; length];
                for byte in special {
                    bytes[at] = byte;
                    let mut out = JsonText::default();
                    assert!(!out.put_plain_string(&bytes), "{bytes:?}");
                    assert_eq!(out.len(), 0);
                }
                for byte in [b' ', b'!', b'#', b'[', b']', 0x7f] {
                    bytes[at] = byte;
                    assert!(JsonText::default().put_plain_string(&bytes), "{bytes:?}");
                }
            }
            let text = "я".repeat(length) + "x";
            let mut out = JsonText::default();
            assert!(out.put_plain_string(text.as_bytes()));
            assert_eq!(out.as_bytes(), format!("\"{text}\"").as_bytes());
        }
    }

    #[test]
    fn what_is_taken_back_is_no_part_of_the_text() {
        let mut out = JsonText::behind(b"ab".to_vec());
        out.put(b"cdef");
        out.truncate(3);
        out.truncate(9);
        assert_eq!(out.get_mut(3), None);
        out.put_by(4, |room| {
            room[..2].copy_from_slice(b"yz");
            2
        });
        out.put_front(b"123", 1);
        assert_eq!(out.as_bytes(), b"abcyz1");
        assert_eq!(out.into_bytes(), b"abcyz1");
    }
}
