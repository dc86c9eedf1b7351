//! Encodes replies from their last byte to their first, by code that the build generates.
//!
//! The length of a message stands before it. Whoever begins at the front has to find out how long
//! each inner message will be, at each level once more; whoever begins at the end has just written it.
//! A reply is put together in a buffer that its thread keeps, and copied out: a call keeps no byte more
//! than its reply has.

use std::cell::RefCell;

use bytes::Bytes;
use prost::Message;

/// The most that a thread keeps to write in, in bytes. Longer replies are rare.
const KEPT: usize = 64 << 10;
/// The least that is set aside.
const FIRST: usize = 1 << 10;

const LENGTH_DELIMITED: u32 = 2;

/// A message of a reply.
pub trait Encode {
    /// Puts the message before what is there. Equal to the bytes by prost.
    fn encode_backward(&self, to: &mut Backward);
}

/// A message as gRPC frames it: a flag, the length, the message. `None` where the length does not fit.
pub fn frame(message: &impl Encode) -> Option<Bytes> {
    written(|to| {
        message.encode_backward(to);
        let length = u32::try_from(to.len()).ok()?;
        to.put(&length.to_be_bytes());
        to.put(&[0]);
        Some(())
    })
}

/// What `write` puts.
fn written(write: impl FnOnce(&mut Backward) -> Option<()>) -> Option<Bytes> {
    thread_local! {
        static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let mut to = Backward {
        room: ROOM.take(),
        start: 0,
    };
    to.start = to.room.len();
    let bytes = write(&mut to).map(|()| Bytes::copy_from_slice(&to.room[to.start..]));
    if to.room.len() <= KEPT {
        ROOM.set(to.room);
    }
    bytes
}

/// Bytes that grow at their front.
pub struct Backward {
    /// What is there, and before it bytes that mean nothing.
    room: Vec<u8>,
    start: usize,
}

impl Backward {
    /// How many bytes are there.
    #[inline]
    fn len(&self) -> usize {
        self.room.len() - self.start
    }

    /// The next bytes to the front.
    #[inline(always)]
    fn before(&mut self, count: usize) -> &mut [u8] {
        let mut end = self.start;
        // Where there is no room for it, this wraps, and is no range.
        if self.room.get(end.wrapping_sub(count)..end).is_none() {
            end = self.grow(count);
        }
        self.start = end - count;
        &mut self.room[self.start..end]
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, count: usize) -> usize {
        let length = self.len();
        let mut room = vec![0; (length + count).next_power_of_two().max(FIRST)];
        self.start = room.len() - length;
        room[self.start..].copy_from_slice(&self.room[self.room.len() - length..]);
        self.room = room;
        self.start
    }

    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        self.before(bytes.len()).copy_from_slice(bytes);
    }

    /// A number, or what is encoded like one, behind its key: the field's number and wire type.
    #[inline(always)]
    pub fn number(&mut self, key: u32, value: u64) {
        // Nearly all are like that.
        match (key, value) {
            (0..0x80, 0..0x80) => self.put(&[key as u8, value as u8]),
            (0x80..0x4000, 0..0x80) => {
                self.put(&[key as u8 | 0x80, (key >> 7) as u8, value as u8]);
            }
            _ => {
                self.long_varint(value);
                match key {
                    0..0x80 => self.put(&[key as u8]),
                    _ => self.long_varint(key.into()),
                }
            }
        }
    }

    #[inline(never)]
    fn long_varint(&mut self, mut value: u64) {
        let length = (64 - value.leading_zeros()).div_ceil(7).max(1) as usize;
        let room = self.before(length);
        for byte in &mut room[..length - 1] {
            *byte = value as u8 | 0x80;
            value >>= 7;
        }
        room[length - 1] = value as u8;
    }

    /// A text or bytes. Not in line: the code of a message would be several times as long, and each
    /// reply would have to bring it into the processor's cache.
    #[inline(never)]
    pub fn bytes(&mut self, key: u32, value: &[u8]) {
        self.put(value);
        self.number(key, value.len() as u64);
    }

    /// An entry of a map from texts to texts.
    #[inline]
    pub fn pair(&mut self, key: u32, name: &str, value: &str) {
        self.within(key, |to| {
            for (number, text) in [(2, value), (1, name)] {
                if !text.is_empty() {
                    to.bytes(number << 3 | LENGTH_DELIMITED, text.as_bytes());
                }
            }
        });
    }

    /// A message that is generated.
    #[inline]
    pub fn message(&mut self, key: u32, value: &impl Encode) {
        self.within(key, |to| value.encode_backward(to));
    }

    /// A `google.protobuf.Timestamp`.
    #[inline]
    pub fn time(&mut self, key: u32, seconds: i64, nanos: i32) {
        self.within(key, |to| {
            for (number, value) in [(2, i64::from(nanos)), (1, seconds)] {
                if value != 0 {
                    to.number(number << 3, value as u64);
                }
            }
        });
    }

    /// Any other message.
    pub fn other(&mut self, key: u32, value: &impl Message) {
        self.within(key, |to| {
            value.encode_raw(&mut to.before(value.encoded_len()));
        });
    }

    #[inline]
    fn within(&mut self, key: u32, write: impl FnOnce(&mut Self)) {
        let behind = self.len();
        write(self);
        self.number(key, (self.len() - behind) as u64);
    }
}

/// A message from its bytes, encoded again: by [`Encode`], and by prost.
#[cfg(test)]
pub fn both_encodings<M: Message + Encode + Default>(wire: &[u8]) -> Option<[Vec<u8>; 2]> {
    let message = M::decode(wire).ok()?;
    let own = written(|to| {
        message.encode_backward(to);
        Some(())
    });
    Some([own?.to_vec(), message.encode_to_vec()])
}

#[cfg(test)]
impl Encode for String {
    fn encode_backward(&self, to: &mut Backward) {
        if !self.is_empty() {
            to.bytes(1 << 3 | LENGTH_DELIMITED, self.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost_reflect::{
        DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
    };

    use super::*;
    use crate::contract::{descriptor_pool, encoders};

    /// Every message type of a reply.
    fn types() -> Vec<MessageDescriptor> {
        let all = descriptor_pool().all_messages();
        all.filter(|message| encoders::both_encodings(message.full_name(), &[]).is_some())
            .collect()
    }

    /// A message made of the numbers of a tape, which is empty in the end.
    fn random(message: &MessageDescriptor, levels: u32, tape: &mut Vec<u64>) -> DynamicMessage {
        let mut made = DynamicMessage::new(message.clone());
        for field in message.fields() {
            let count = tape.pop().unwrap_or_default() % 4;
            if count == 0 || (levels == 0 && !field.is_map()) {
                continue;
            }
            let mut value = || one(&field.kind(), levels, tape);
            let value = if field.is_map() {
                let text = |tape: &mut Vec<u64>| text(tape.pop().unwrap_or_default());
                let mut pair = || (MapKey::String(text(tape)), Value::String(text(tape)));
                Value::Map((0..count).map(|_| pair()).collect())
            } else if field.is_list() {
                Value::List((0..count).map(|_| value()).collect())
            } else {
                value()
            };
            set(&mut made, &field, value);
        }
        made
    }

    fn set(message: &mut DynamicMessage, field: &FieldDescriptor, value: Value) {
        message.try_set_field(field, value).expect("of its type");
    }

    fn one(kind: &Kind, levels: u32, tape: &mut Vec<u64>) -> Value {
        if let Kind::Message(message) = kind {
            return Value::Message(random(message, levels.saturating_sub(1), tape));
        }
        let number = tape.pop().unwrap_or_default();
        match kind {
            Kind::Bool => Value::Bool(number % 2 == 1),
            Kind::Int32 => Value::I32(number as i32),
            Kind::Int64 => Value::I64(number as i64),
            Kind::Uint32 => Value::U32(number as u32),
            Kind::Uint64 => Value::U64(number),
            Kind::Enum(_) => Value::EnumNumber(number as i32),
            Kind::Bytes => Value::Bytes(text(number).into()),
            _ => Value::String(text(number)),
        }
    }

    /// Of 0 to 299 bytes, so that lengths take one byte or two.
    fn text(number: u64) -> String {
        let letter = char::from(b'a' + (number % 26) as u8);
        letter.to_string().repeat((number / 26 % 300) as usize)
    }

    proptest! {
        #[test]
        fn replies_are_encoded_as_prost_encodes_them(
            mut tape in prop::collection::vec(
                prop_oneof![any::<u64>(), 0..300_u64, any::<u64>().prop_map(|n| n >> 40)],
                0..400,
            ),
            which in any::<prop::sample::Index>(),
        ) {
            let types = types();
            let message = random(&types[which.index(types.len())], 5, &mut tape);
            let name = message.descriptor();
            let [own, by_prost] =
                encoders::both_encodings(name.full_name(), &message.encode_to_vec())
                    .expect("a message of this type");
            prop_assert_eq!(own, by_prost, "{}", name.full_name());
        }
    }

    #[test]
    fn numbers_and_keys_of_each_length_are_as_protobuf_has_them() {
        for key in [0x7f, 0x80, 0x3fff, 0x4000, u32::MAX] {
            for value in [0, 0x7f, 0x80, 0x3fff, 0x4000, u64::MAX >> 1, u64::MAX] {
                let written = written(|to| {
                    to.number(key, value);
                    Some(())
                });
                let mut expected = Vec::new();
                prost::encoding::encode_varint(key.into(), &mut expected);
                prost::encoding::encode_varint(value, &mut expected);
                assert_eq!(written.as_deref(), Some(&expected[..]), "{key} {value}");
            }
        }
    }

    #[test]
    fn a_reply_that_is_longer_than_what_a_thread_keeps_is_whole() {
        let lengths = [0, 1, 127, 128, KEPT - 8, KEPT, 3 * KEPT, 1];
        for length in lengths {
            let message = "x".repeat(length);
            let frame = frame(&message).expect("short enough");
            let expected = message.encode_to_vec();
            assert_eq!(frame[0], 0, "{length}");
            assert_eq!(
                frame[1..5],
                u32::to_be_bytes(expected.len() as u32),
                "{length}"
            );
            assert_eq!(frame[5..], expected, "{length}");
        }
    }
}
