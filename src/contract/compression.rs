//! Compression of gRPC messages: gzip and zstd, both ways.

use std::io::{self, Read};

use flate2::Compression;
use flate2::bufread::{GzEncoder, MultiGzDecoder};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The compression of the messages of a request or a reply.
pub(crate) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// The compressions that the sender of a header reads.
pub(crate) const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// The value of [`ACCEPT_ENCODING`] that this server sends where it refuses a compression.
pub(crate) const ACCEPTED: HeaderValue = HeaderValue::from_static("identity,gzip,zstd");

/// Messages shorter than this leave uncompressed: they would hardly shrink, or grow.
const SMALLEST: usize = 256;
const ZSTD_LEVEL: i32 = 3;
/// The largest window of zstd that is read, as a power of two: what RFC 8878 recommends at least, and
/// twice the longest message. A window is memory that the sender asks for.
const ZSTD_WINDOW: u32 = 23;

/// A compression of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Zstd,
}

/// Why compressed bytes make no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// The bytes are not of their compression, or end too early.
    Damaged,
    /// The message is longer than the limit.
    TooLong,
}

impl Coding {
    fn of(name: &str) -> Option<Self> {
        match name {
            _ if name.eq_ignore_ascii_case("gzip") => Some(Self::Gzip),
            _ if name.eq_ignore_ascii_case("zstd") => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The compression of a request's messages; the error is the name of one that is not read here.
    pub(crate) fn of_request(headers: &HeaderMap) -> Result<Option<Self>, String> {
        let mut coding = None;
        for value in headers.get_all(ENCODING) {
            let name = value.to_str().unwrap_or("?").trim();
            if name.eq_ignore_ascii_case("identity") {
                continue;
            }
            let own = Self::of(name).filter(|own| coding.is_none_or(|other| other == *own));
            coding = Some(own.ok_or_else(|| name.to_owned())?);
        }
        Ok(coding)
    }

    /// The compression of a reply: the first one of the client's list that is known here.
    pub(crate) fn of_reply(headers: &HeaderMap) -> Option<Self> {
        let lists = headers.get_all(ACCEPT_ENCODING).iter();
        let mut names = lists
            .filter_map(|list| list.to_str().ok())
            .flat_map(|list| list.split(','));
        names.find_map(|name| Self::of(name.trim()))
    }

    /// The value of [`ENCODING`].
    pub(crate) fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }

    /// The message in compressed bytes. No more than `limit` bytes of it are ever made.
    pub(crate) fn decompress(self, bytes: &[u8], limit: usize) -> Result<Vec<u8>, Unreadable> {
        match self {
            Self::Gzip => read(MultiGzDecoder::new(bytes), limit),
            Self::Zstd => {
                let damaged = |_| Unreadable::Damaged;
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(bytes).map_err(damaged)?;
                decoder.window_log_max(ZSTD_WINDOW).map_err(damaged)?;
                read(decoder, limit)
            }
        }
    }

    /// The compressed bytes of a message; `None` where they are no shorter, or not worth the work.
    pub(crate) fn compress(self, message: &[u8]) -> Option<Vec<u8>> {
        if message.len() < SMALLEST {
            return None;
        }
        let mut compressed = Vec::with_capacity(message.len() / 2);
        let made: io::Result<()> = match self {
            Self::Gzip => GzEncoder::new(message, Compression::fast())
                .read_to_end(&mut compressed)
                .map(drop),
            Self::Zstd => zstd::bulk::compress(message, ZSTD_LEVEL).map(|made| compressed = made),
        };
        made.ok()
            .filter(|()| compressed.len() < message.len())
            .map(|()| compressed)
    }
}

fn read(decoder: impl Read, limit: usize) -> Result<Vec<u8>, Unreadable> {
    let mut message = Vec::new();
    let read = decoder
        .take(limit as u64 + 1)
        .read_to_end(&mut message)
        .map_err(|_| Unreadable::Damaged)?;
    match read > limit {
        true => Err(Unreadable::TooLong),
        false => Ok(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Coding; 2] = [Coding::Gzip, Coding::Zstd];

    #[test]
    fn messages_survive_compression_and_small_ones_are_left_alone() {
        for coding in BOTH {
            let message = b"desktop ".repeat(1000);
            let compressed = coding.compress(&message).expect("it shrinks");
            assert!(compressed.len() < message.len() / 10);
            let read = coding.decompress(&compressed, message.len());
            assert_eq!(read, Ok(message.clone()));
            assert_eq!(coding.compress(&message[..SMALLEST - 1]), None);
            // Bytes without any order do not shrink.
            let mut state = 1_u64;
            let noise: Vec<u8> = (0..4096)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                    (state >> 33) as u8
                })
                .collect();
            assert_eq!(coding.compress(&noise), None);
        }
    }

    #[test]
    fn a_message_is_read_up_to_the_limit_and_only_if_it_is_whole() {
        for coding in BOTH {
            let message = vec![0; 64 << 20];
            let bomb = coding.compress(&message).expect("it shrinks");
            assert_eq!(coding.decompress(&bomb, 4 << 20), Err(Unreadable::TooLong));
            let message = vec![b'x'; 1000];
            let compressed = coding.compress(&message).expect("it shrinks");
            assert_eq!(coding.decompress(&compressed, 1000), Ok(message));
            assert_eq!(
                coding.decompress(&compressed, 999),
                Err(Unreadable::TooLong)
            );
            let cut = &compressed[..compressed.len() - 1];
            for damaged in [&b""[..], b"garbage", cut] {
                let read = coding.decompress(damaged, 1000);
                // Of zstd, nothing at all is no frame at all.
                let is_nothing = coding == Coding::Zstd && damaged.is_empty();
                assert!(
                    read == Err(Unreadable::Damaged) || is_nothing && read == Ok(vec![]),
                    "{coding:?} {damaged:?}: {read:?}"
                );
            }
            let trailing = [&compressed[..], b"garbage"].concat();
            assert_eq!(
                coding.decompress(&trailing, 2000),
                Err(Unreadable::Damaged),
                "{coding:?}"
            );
        }
    }

    #[test]
    fn codings_are_named_by_headers() {
        let headers = |name: &HeaderName, values: &[&str]| -> HeaderMap {
            let values = values.iter();
            values
                .map(|value| (name.clone(), value.parse().expect("a value")))
                .collect()
        };
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&["identity"], Ok(None)),
            (&["gzip"], Ok(Some(Coding::Gzip))),
            (&["ZSTD"], Ok(Some(Coding::Zstd))),
            (&["gzip", "gzip"], Ok(Some(Coding::Gzip))),
            (&["gzip", "zstd"], Err("zstd".to_owned())),
            (&["deflate"], Err("deflate".to_owned())),
            (&["gzip, zstd"], Err("gzip, zstd".to_owned())),
            (&[""], Err(String::new())),
        ] {
            let headers = headers(&ENCODING, values);
            assert_eq!(Coding::of_request(&headers), expected, "{values:?}");
        }
        for (values, expected) in [
            (&[][..], None),
            (&["identity"], None),
            (&["identity, deflate, gzip"], Some(Coding::Gzip)),
            (&["br", "zstd,gzip"], Some(Coding::Zstd)),
            (&["gzip;q=1"], None),
        ] {
            let headers = headers(&ACCEPT_ENCODING, values);
            assert_eq!(Coding::of_reply(&headers), expected, "{values:?}");
        }
    }
}
