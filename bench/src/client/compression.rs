//! The four codecs a batch's records may be compressed with, at the level each Kafka client uses by default.
//!
//! Snappy is written in the block framing of Kafka's Java client; when reading, plain snappy is understood as well.
//! Decompression is capped: a fetched batch is foreign input.

use std::io::{Read, Write};

/// The most a batch may decompress to: far above what this generator writes.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;
/// Two to this power is the most bytes that zstd may look back: its own decoder's usual limit.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// The longest copy of snappy's format writes 64 bytes for 3.
const SNAPPY_EXPANSION_MAX: usize = 22;
const SNAPPY_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const SNAPPY_BLOCK_BYTES: usize = 32 * 1024;

/// Compression failed, or compressed bytes make no sense.
#[derive(Debug, thiserror::Error)]
#[error("{codec} failed: {reason}")]
pub struct CompressionError {
    codec: &'static str,
    reason: String,
}

/// A codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// No compression.
    None,
    /// gzip, level 6.
    Gzip,
    /// snappy.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard, level 3.
    Zstd,
}

impl Compression {
    /// Every codec.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// The batch attribute that names it.
    pub fn attribute(self) -> i16 {
        self as i16
    }

    /// The codec named by the low byte of a batch's attributes.
    pub fn of_attributes(attributes: u8) -> Option<Compression> {
        Self::ALL.get(usize::from(attributes & 0x07)).copied()
    }

    fn error(self, reason: impl std::fmt::Display) -> CompressionError {
        CompressionError {
            codec: self.name(),
            reason: reason.to_string(),
        }
    }

    /// Compresses the records of one batch.
    pub fn compress(self, records: &[u8]) -> Result<Vec<u8>, CompressionError> {
        match self {
            Compression::None => Ok(records.to_vec()),
            Compression::Gzip => {
                let mut out =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                out.write_all(records)
                    .and_then(|()| out.finish())
                    .map_err(|error| self.error(error))
            }
            Compression::Snappy => {
                let mut out = SNAPPY_MAGIC.to_vec();
                out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
                let mut encoder = snap::raw::Encoder::new();
                for block in records.chunks(SNAPPY_BLOCK_BYTES) {
                    let packed = encoder
                        .compress_vec(block)
                        .map_err(|error| self.error(error))?;
                    out.extend_from_slice(
                        &u32::try_from(packed.len())
                            .unwrap_or(u32::MAX)
                            .to_be_bytes(),
                    );
                    out.extend_from_slice(&packed);
                }
                Ok(out)
            }
            Compression::Lz4 => {
                let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
                out.write_all(records).map_err(|error| self.error(error))?;
                out.finish().map_err(|error| self.error(error))
            }
            Compression::Zstd => {
                zstd::stream::encode_all(records, 3).map_err(|error| self.error(error))
            }
        }
    }

    /// Decompresses the records of one batch; more than 256 MiB are an error, not an allocation.
    pub fn decompress(self, packed: &[u8]) -> Result<Vec<u8>, CompressionError> {
        self.decompress_within(packed, DECOMPRESSED_BYTES_MAX)
    }

    /// As [`decompress`](Self::decompress), with a cap of `cap` bytes. Memory grows with what comes out, never with what the input claims.
    fn decompress_within(self, packed: &[u8], cap: usize) -> Result<Vec<u8>, CompressionError> {
        let capped = |reader: &mut dyn Read| {
            let mut out = Vec::new();
            reader
                .take(cap as u64 + 1)
                .read_to_end(&mut out)
                .map_err(|error| self.error(error))?;
            if out.len() > cap {
                return Err(self.too_much(cap));
            }
            Ok(out)
        };
        match self {
            Compression::None if packed.len() > cap => Err(self.too_much(cap)),
            Compression::None => Ok(packed.to_vec()),
            Compression::Gzip => capped(&mut flate2::read::MultiGzDecoder::new(packed)),
            Compression::Lz4 => capped(&mut lz4_flex::frame::FrameDecoder::new(packed)),
            Compression::Zstd => {
                let mut decoder =
                    zstd::stream::Decoder::new(packed).map_err(|error| self.error(error))?;
                decoder
                    .window_log_max(ZSTD_WINDOW_LOG_MAX)
                    .map_err(|error| self.error(error))?;
                capped(&mut decoder)
            }
            Compression::Snappy => self.unsnap(packed, cap),
        }
    }

    fn too_much(self, cap: usize) -> CompressionError {
        self.error(format!("more than {cap} bytes come out"))
    }

    fn unsnap(self, packed: &[u8], cap: usize) -> Result<Vec<u8>, CompressionError> {
        let mut decoder = snap::raw::Decoder::new();
        let mut block = |block: &[u8], room: usize| {
            let length = snap::raw::decompress_len(block).map_err(|error| self.error(error))?;
            if length > room {
                return Err(self.too_much(cap));
            }
            // The decoder takes memory for the claimed length at once: a block that cannot make so much is refused before.
            if length / SNAPPY_EXPANSION_MAX > block.len() {
                return Err(self.error("a block claims more than it can hold"));
            }
            decoder
                .decompress_vec(block)
                .map_err(|error| self.error(error))
        };
        if !packed.starts_with(&SNAPPY_MAGIC) {
            return block(packed, cap);
        }
        let mut rest = packed.get(16..).unwrap_or_default();
        let mut out = Vec::new();
        while let Some((size, after)) = rest.split_first_chunk::<4>() {
            let size = u32::from_be_bytes(*size) as usize;
            let bytes = after
                .get(..size)
                .ok_or_else(|| self.error("a block is cut off"))?;
            out.extend_from_slice(&block(bytes, cap - out.len())?);
            rest = &after[size..];
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    //! No codec gives more than the cap, and none takes memory for a length that is only claimed.
    use super::*;

    #[test]
    fn what_just_fits_comes_out_and_one_byte_more_does_not() {
        for codec in Compression::ALL {
            let plain = vec![b'a'; 300_000];
            let packed = codec.compress(&plain).unwrap();
            assert_eq!(
                codec.decompress_within(&packed, plain.len()).unwrap(),
                plain
            );
            let error = codec
                .decompress_within(&packed, plain.len() - 1)
                .unwrap_err();
            assert!(
                error.to_string().contains("more than 299999 bytes"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        for codec in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
            let bomb = codec
                .compress(&vec![0; DECOMPRESSED_BYTES_MAX + 1])
                .unwrap();
            assert!(bomb.len() < DECOMPRESSED_BYTES_MAX / 100);
            assert!(codec.decompress(&bomb).is_err(), "{codec:?}");
        }
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        // 200 MiB, said by a block of ten bytes.
        let claim = [0x80, 0x80, 0x80, 0x64, 0, 0, 0, 0, 0, 0];
        assert_eq!(snap::raw::decompress_len(&claim).unwrap(), 200 << 20);
        let error = Compression::Snappy.decompress(&claim).unwrap_err();
        assert!(error.to_string().contains("claims more"), "{error}");
        let mut framed = SNAPPY_MAGIC.to_vec();
        framed.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 10]);
        framed.extend_from_slice(&claim);
        assert!(Compression::Snappy.decompress(&framed).is_err());
    }
}
