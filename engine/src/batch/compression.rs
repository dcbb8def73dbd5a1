//! The four codecs of compressed batches: gzip, snappy, lz4 and zstd.
//!
//! Decompression is always under a cap on its output and streams through one small buffer ([`Inflater`]); what a length field claims is never allocated before it is known to be possible for
//! the bytes that arrived. Snappy comes in two shapes: raw (librdkafka, franz-go) and the xerial block framing (Java, sarama). Compression serves builders, and compaction where a stored batch loses records: no other batch is ever recompressed.

use std::io::{Read, Write};

use super::{error::BatchError, header::Compression, zstd_stream::ZstdStream};

/// Magic and version fields of the xerial framing: then each block is a u32 length (big endian) and a raw snappy block.
const XERIAL_HEADER: [u8; 16] = [
    0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1,
];
const XERIAL_MAGIC_BYTES: usize = 8;
/// Uncompressed bytes per xerial block, as Java writes them.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// Begins an LZ4 frame. Its legacy format, with blocks of 8 MiB, was never Kafka's: no consumer could read it.
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// A snappy element of 3 bytes gives at most 64: no block grows by more than this.
const SNAPPY_GROWTH_MAX: usize = 22;
/// Output buffer of the streaming codecs.
const CHUNK_BYTES: usize = 16 * 1024;
/// Bytes that are compressed in one step: whole xerial blocks, and little enough for the slowest codec.
const DEFLATED_BYTES: usize = XERIAL_BLOCK_BYTES;
/// Compresses `records` and appends them to `out`.
///
/// Fails only where a codec does. Snappy is written in the xerial framing, lz4 as one frame.
pub fn compress(
    compression: Compression,
    records: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let mut deflater = Deflater::new(compression, std::mem::take(out))?;
    deflater.push(records)?;
    *out = deflater.finish()?;
    Ok(())
}

/// The same in steps, after each of which `turn` is awaited with the bytes that it took.
pub(crate) async fn compress_in_steps(
    compression: Compression,
    records: &[u8],
    out: &mut Vec<u8>,
    turn: &impl AsyncFn(usize),
) -> Result<(), BatchError> {
    let mut deflater = Deflater::new(compression, std::mem::take(out))?;
    for step in records.chunks(DEFLATED_BYTES) {
        deflater.push(step)?;
        if step.len() == DEFLATED_BYTES {
            turn(step.len()).await;
        }
    }
    *out = deflater.finish()?;
    Ok(())
}

/// Compresses behind what is already there.
struct Deflater {
    compression: Compression,
    codec: Deflating,
}

enum Deflating {
    Plain(Vec<u8>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Xerial(Box<snap::raw::Encoder>, Vec<u8>),
    Lz4(lz4_flex::frame::FrameEncoder<Vec<u8>>),
    Zstd(zstd::stream::Encoder<'static, Vec<u8>>),
}

impl Deflater {
    fn new(compression: Compression, mut out: Vec<u8>) -> Result<Self, BatchError> {
        let codec = match compression {
            Compression::None => Deflating::Plain(out),
            Compression::Gzip => Deflating::Gzip(flate2::write::GzEncoder::new(
                out,
                flate2::Compression::default(),
            )),
            Compression::Snappy => {
                out.extend_from_slice(&XERIAL_HEADER);
                Deflating::Xerial(Box::new(snap::raw::Encoder::new()), out)
            }
            Compression::Lz4 => Deflating::Lz4(lz4_flex::frame::FrameEncoder::new(out)),
            Compression::Zstd => Deflating::Zstd(
                zstd::stream::Encoder::new(out, 0).map_err(|_| failed(compression))?,
            ),
        };
        Ok(Self { compression, codec })
    }

    /// Takes the next bytes; all but the last time whole xerial blocks.
    fn push(&mut self, records: &[u8]) -> Result<(), BatchError> {
        let failed = |_| failed(self.compression);
        match &mut self.codec {
            Deflating::Plain(out) => out.extend_from_slice(records),
            Deflating::Gzip(encoder) => encoder.write_all(records).map_err(failed)?,
            Deflating::Lz4(encoder) => encoder.write_all(records).map_err(failed)?,
            Deflating::Zstd(encoder) => encoder.write_all(records).map_err(failed)?,
            Deflating::Xerial(encoder, out) => {
                for block in records.chunks(XERIAL_BLOCK_BYTES) {
                    let packed = encoder.compress_vec(block);
                    let packed = packed.map_err(|_| self::failed(Compression::Snappy))?;
                    out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
                    out.extend_from_slice(&packed);
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>, BatchError> {
        let failed = |_| failed(self.compression);
        match self.codec {
            Deflating::Plain(out) | Deflating::Xerial(_, out) => Ok(out),
            Deflating::Gzip(encoder) => encoder.finish().map_err(failed),
            Deflating::Zstd(encoder) => encoder.finish().map_err(failed),
            Deflating::Lz4(encoder) => encoder.finish().map_err(|_| self::failed(self.compression)),
        }
    }
}

fn failed(compression: Compression) -> BatchError {
    bad(compression, "the codec failed to compress")
}

/// The records of a batch, decompressed; at most `cap` bytes.
///
/// Errors: damaged data, or more output than `cap`. Memory grows with the output, not with what headers claim.
pub fn decompress(
    compression: Compression,
    payload: &[u8],
    cap: usize,
) -> Result<Vec<u8>, BatchError> {
    if compression == Compression::None {
        if payload.len() > cap {
            return Err(BatchError::DecompressionCap { cap });
        }
        return Ok(payload.to_vec());
    }
    let mut inflater = Inflater::new(compression, payload, cap)?;
    let (mut out, mut chunk) = (Vec::new(), Vec::new());
    while inflater.next_chunk(&mut chunk)? {
        out.extend_from_slice(&chunk);
    }
    Ok(out)
}

/// The same in steps, after each of which `turn` is awaited with the bytes that it gave. A raw snappy block is one step, whatever its size.
pub(super) async fn decompress_in_steps(
    compression: Compression,
    payload: &[u8],
    cap: usize,
    turn: &impl AsyncFn(usize),
) -> Result<Vec<u8>, BatchError> {
    let mut inflater = Inflater::new(compression, payload, cap)?;
    let (mut out, mut chunk) = (Vec::new(), Vec::new());
    while inflater.next_chunk(&mut chunk)? {
        out.extend_from_slice(&chunk);
        turn(chunk.len()).await;
    }
    Ok(out)
}

/// Decompresses in chunks, under a cap.
pub(super) struct Inflater<'a> {
    compression: Compression,
    codec: Codec<'a>,
    given: usize,
    cap: usize,
}

enum Codec<'a> {
    Stream(Box<dyn Read + 'a>),
    /// What is left of raw snappy blocks with their lengths.
    Xerial(&'a [u8]),
    /// One raw snappy block; `None` once given.
    Snappy(Option<&'a [u8]>),
}

impl<'a> Inflater<'a> {
    /// Over the bytes after a batch's header.
    pub fn new(
        compression: Compression,
        payload: &'a [u8],
        cap: usize,
    ) -> Result<Self, BatchError> {
        let codec = match compression {
            Compression::None => Codec::Stream(Box::new(payload)),
            Compression::Gzip => {
                Codec::Stream(Box::new(flate2::bufread::MultiGzDecoder::new(payload)))
            }
            Compression::Lz4 if payload.starts_with(&LZ4_MAGIC) => {
                Codec::Stream(Box::new(lz4_flex::frame::FrameDecoder::new(payload)))
            }
            Compression::Lz4 => return Err(bad(compression, "it is no LZ4 frame")),
            Compression::Zstd => {
                let stream = ZstdStream::new(payload)
                    .map_err(|_| bad(compression, "the codec did not start"))?;
                Codec::Stream(Box::new(stream))
            }
            Compression::Snappy if payload.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_BYTES]) => {
                // The two version fields that follow have only ever been 1; readers look at the magic alone.
                let blocks = payload
                    .get(XERIAL_HEADER.len()..)
                    .ok_or_else(|| bad(compression, "the framing is cut off"))?;
                Codec::Xerial(blocks)
            }
            Compression::Snappy => Codec::Snappy(Some(payload)),
        };
        Ok(Self {
            compression,
            codec,
            given: 0,
            cap,
        })
    }

    /// Replaces `chunk` by the next bytes, at least one; false (and an empty chunk) at the end.
    pub fn next_chunk(&mut self, chunk: &mut Vec<u8>) -> Result<bool, BatchError> {
        let compression = self.compression;
        let room = self.cap - self.given;
        match &mut self.codec {
            Codec::Stream(reader) => {
                chunk.resize(CHUNK_BYTES, 0);
                let length = reader
                    .read(chunk)
                    .map_err(|_| bad(compression, "the data is damaged or cut off"))?;
                chunk.truncate(length);
            }
            Codec::Xerial(rest) => loop {
                chunk.clear();
                if rest.is_empty() {
                    break;
                }
                let (length, after) = rest
                    .split_first_chunk::<4>()
                    .ok_or_else(|| bad(compression, "a block length is cut off"))?;
                let length = u32::from_be_bytes(*length) as usize;
                let block = after
                    .get(..length)
                    .ok_or_else(|| bad(compression, "a block is cut off"))?;
                *rest = &after[length..];
                unpack_snappy(block, chunk, room, self.cap)?;
                if !chunk.is_empty() {
                    break;
                }
            },
            Codec::Snappy(block) => match block.take() {
                Some(block) => unpack_snappy(block, chunk, room, self.cap)?,
                None => chunk.clear(),
            },
        }
        if chunk.len() > room {
            return Err(BatchError::DecompressionCap { cap: self.cap });
        }
        self.given += chunk.len();
        Ok(!chunk.is_empty())
    }
}

/// Replaces `chunk` by one unpacked raw block.
fn unpack_snappy(
    block: &[u8],
    chunk: &mut Vec<u8>,
    room: usize,
    cap: usize,
) -> Result<(), BatchError> {
    let damaged = |_| bad(Compression::Snappy, "a block is damaged");
    if block.is_empty() {
        return Err(bad(Compression::Snappy, "a block is empty"));
    }
    let length = snap::raw::decompress_len(block).map_err(damaged)?;
    if length > block.len().saturating_mul(SNAPPY_GROWTH_MAX) {
        return Err(bad(
            Compression::Snappy,
            "a block claims more bytes than it can hold",
        ));
    }
    if length > room {
        return Err(BatchError::DecompressionCap { cap });
    }
    chunk.resize(length, 0);
    snap::raw::Decoder::new()
        .decompress(block, chunk)
        .map_err(damaged)?;
    Ok(())
}

fn bad(compression: Compression, reason: &'static str) -> BatchError {
    BatchError::BadCompression {
        codec: compression.name(),
        reason,
    }
}
