//! How messages become the bytes of gRPC.

use std::marker::PhantomData;

use bytes::BufMut;
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder};

/// What a call sets aside for its request and for its reply. Nearly all fit, a longer one makes it grow.
/// With tonic's 8 KiB each, a call takes more memory for what it does not use than for the rest of it.
const BUFFER: usize = 1024;
/// How many bytes of a stream of replies are collected before they leave: as in tonic.
const YIELD_THRESHOLD: usize = 32 * 1024;

/// The codec of all generated services; `build.rs` names it.
pub struct MessageCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for MessageCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for MessageCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(buffer_settings())
    }
}

/// Encodes messages in one go each.
pub struct MessageEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for MessageEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // prost puts every number byte by byte, and this buffer asks for room at each. A vector is
        // quicker, with the copy; and quicker to grow than to find out how long it will be.
        let mut bytes = Vec::with_capacity(BUFFER);
        message.encode_raw(&mut bytes);
        out.reserve(bytes.len());
        out.put_slice(&bytes);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

fn buffer_settings() -> BufferSettings {
    BufferSettings::new(BUFFER, YIELD_THRESHOLD)
}
