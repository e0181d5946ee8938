//! Compressing and decompressing frames. What would not shrink by a twentieth is stored as it is.

use crate::error::{Error, ErrorKind, Result};
use crate::format::repository_config::{Codec, Compression};

/// Compresses frames; holds its context, so one per thread.
pub struct Compressor {
    codec: Codec,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Compressor {
    /// For this choice.
    pub fn new(compression: Compression) -> Result<Self> {
        let (codec, zstd) = match compression {
            Compression::None => (Codec::None, None),
            Compression::Lz4 => (Codec::Lz4, None),
            Compression::Zstd(level) => {
                let context = zstd::bulk::Compressor::new(level);
                (Codec::Zstd, Some(context.map_err(|source| Error::new(ErrorKind::Io, "starting zstd").because(source))?))
            }
        };
        Ok(Self { codec, zstd })
    }

    /// The payload for `raw`, and how it is coded.
    pub fn compress(&mut self, raw: Vec<u8>) -> Result<(Codec, Vec<u8>)> {
        let smaller = match &mut self.zstd {
            Some(zstd) => {
                let packed = zstd.compress(&raw);
                packed.map_err(|source| Error::new(ErrorKind::Io, "compressing").because(source))?
            }
            None if self.codec == Codec::Lz4 => lz4_flex::block::compress(&raw),
            None => return Ok((Codec::None, raw)),
        };
        let worth_it = smaller.len() < raw.len() - raw.len() / 20;
        Ok(if worth_it { (self.codec, smaller) } else { (Codec::None, raw) })
    }
}

/// The raw bytes of a payload; `raw_len` was checked against the format's limit. Anything else than exactly that many
/// bytes is damage.
pub fn decompress(codec: Codec, payload: Vec<u8>, raw_len: usize) -> Result<Vec<u8>> {
    let wrong = || Error::damaged("a frame does not decompress to its length");
    let raw = match codec {
        Codec::None => payload,
        Codec::Lz4 => lz4_flex::block::decompress(&payload, raw_len).map_err(|source| wrong().because(source))?,
        Codec::Zstd => zstd::bulk::decompress(&payload, raw_len).map_err(|source| wrong().because(source))?,
    };
    if raw.len() == raw_len { Ok(raw) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_gives_the_bytes_back() {
        let text: Vec<u8> = b"abcabcabd".repeat(10_000);
        let noise: Vec<u8> = blake3::Hasher::new().finalize_xof().into_iter_bytes(100_000);
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd(1), Compression::Zstd(9)] {
            let mut compressor = Compressor::new(compression).unwrap();
            for raw in [&text, &noise] {
                let (codec, payload) = compressor.compress(raw.clone()).unwrap();
                assert!(payload.len() <= raw.len());
                assert_eq!(&decompress(codec, payload.clone(), raw.len()).unwrap(), raw);
                assert!(decompress(codec, payload, raw.len() + 1).is_err());
            }
        }
    }

    trait IntoBytes {
        fn into_iter_bytes(self, count: usize) -> Vec<u8>;
    }

    impl IntoBytes for blake3::OutputReader {
        fn into_iter_bytes(mut self, count: usize) -> Vec<u8> {
            let mut bytes = vec![0; count];
            self.fill(&mut bytes);
            bytes
        }
    }
}
