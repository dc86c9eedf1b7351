//! How messages become the bytes of gRPC.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What tonic sets aside to write a reply and to read a request, where either is a stream or the call is
/// left to it. Nearly all fit, a longer one makes it grow. With tonic's 8 KiB a call takes more memory for
/// what it does not use than for the rest of it.
const BUFFER: usize = 512;
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
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(buffer_settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(buffer_settings())
    }
}

fn buffer_settings() -> BufferSettings {
    BufferSettings::new(BUFFER, YIELD_THRESHOLD)
}
