//! Compressing and decompressing frames. What would not shrink by a twentieth is stored as it is.

use zstd::zstd_safe::CParameter;

use crate::error::{Error, ErrorKind, Result};
use crate::format::repository_config::{Codec, Compression};

/// Shortest match that zstd looks for, 6 or 7 by its own choice at level 1. Database pages repeat 4-byte pieces (item pointers,
/// small integers): this stores a quarter less of a PostgreSQL index that is in use, at the same speed. With 4 an index takes
/// another twelfth less, and tables more.
const MIN_MATCH: u32 = 5;
/// Bytes of a block within a zstd frame, 128 KiB by its own choice. Each block has statistics of its own, and neighbouring
/// pages of a database (tables, indexes, free space) are of different kinds: this stores a seventieth less of a PostgreSQL
/// volume for a hundredth of the speed. Half of it stores a hundredth less still and costs a tenth of the speed. The
/// parameter is one of zstd's experimental ones: should it go, frames become larger and stay readable.
const BLOCK_LEN: u32 = 64 << 10;

/// Compresses frames; holds its context, so one per thread.
pub struct Compressor {
    codec: Codec,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    /// Room for the largest payload, kept: fresh memory for each frame would cost more than copying the payload out.
    packed: Vec<u8>,
}

impl Compressor {
    /// For this choice.
    pub fn new(compression: Compression) -> Result<Self> {
        let (codec, zstd) = match compression {
            Compression::None => (Codec::None, None),
            Compression::Lz4 => (Codec::Lz4, None),
            Compression::Zstd(level) => {
                let context = zstd::bulk::Compressor::new(level).and_then(|mut context| {
                    context.set_parameter(CParameter::MinMatch(MIN_MATCH))?;
                    context.set_parameter(CParameter::MaxBlockSize(BLOCK_LEN))?;
                    Ok(context)
                });
                (
                    Codec::Zstd,
                    Some(
                        context
                            .map_err(|source| Error::new(ErrorKind::Io, "starting zstd").because(source))?,
                    ),
                )
            }
        };
        Ok(Self { codec, zstd, packed: Vec::new() })
    }

    /// The payload for `raw`, and how it is coded.
    pub fn compress(&mut self, raw: &[u8]) -> Result<(Codec, Vec<u8>)> {
        let packed = match (self.codec, &mut self.zstd) {
            (Codec::None, _) => return Ok((Codec::None, raw.to_vec())),
            (_, Some(zstd)) => {
                self.packed.resize(zstd::zstd_safe::compress_bound(raw.len()), 0);
                let len = zstd.compress_to_buffer(raw, self.packed.as_mut_slice());
                len.map_err(|source| Error::new(ErrorKind::Io, "compressing").because(source))?
            }
            (_, None) => {
                self.packed.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
                let len = lz4_flex::block::compress_into(raw, &mut self.packed);
                len.map_err(|source| Error::new(ErrorKind::Io, "compressing").because(source))?
            }
        };
        let worth_it = packed < raw.len() - raw.len() / 20;
        Ok(if worth_it { (self.codec, self.packed[..packed].to_vec()) } else { (Codec::None, raw.to_vec()) })
    }
}

/// The raw bytes of a payload; `raw_len` was checked against the format's limit. Anything else than exactly that many
/// bytes is damage.
pub fn decompress(codec: Codec, payload: Vec<u8>, raw_len: usize) -> Result<Vec<u8>> {
    let wrong = || Error::damaged("a frame does not decompress to its length");
    let raw = match codec {
        Codec::None => payload,
        Codec::Lz4 => {
            lz4_flex::block::decompress(&payload, raw_len).map_err(|source| wrong().because(source))?
        }
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
                let (codec, payload) = compressor.compress(raw).unwrap();
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
