//! The four codecs: anything in, never more out than the cap; and what is compressed comes out again.

use ringlog_engine::batch::{BatchError, Compression, compress, decompress};
use ringlog_net::arbitrary::Numbers;

use crate::{Choices, memory};

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];
/// What a codec may take for itself: an lz4 frame of linked blocks holds three of 4 MiB, whatever arrived.
const CODEC_BYTES: usize = 13 << 20;
/// In an input's first byte: the rest is plain, not packed.
const PLAIN: u8 = 0x80;

/// See the module.
pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let choice = choices.byte();
    let codec = CODECS[usize::from(choice & !PLAIN) % CODECS.len()];
    let cap = usize::from(u16::from_be_bytes(choices.take())) * 4;
    let bytes = choices.rest();
    if choice & PLAIN != 0 {
        returns(codec, bytes);
        return;
    }
    // The output grows by doubling: three times its size are held at the last step.
    let Ok(plain) = memory::within(CODEC_BYTES + 4 * cap, || decompress(codec, bytes, cap)) else {
        return;
    };
    assert!(plain.len() <= cap);
    assert_eq!(
        decompress(codec, bytes, plain.len()).as_ref(),
        Ok(&plain),
        "a cap that just fits"
    );
    if let Some(cap) = plain.len().checked_sub(1) {
        assert_eq!(
            decompress(codec, bytes, cap),
            Err(BatchError::DecompressionCap { cap })
        );
    }
    if plain.len() <= 4096 {
        returns(codec, &plain);
    }
}

fn returns(codec: Compression, plain: &[u8]) {
    let mut packed = Vec::new();
    compress(codec, plain, &mut packed).expect("codecs take anything");
    assert_eq!(
        decompress(codec, &packed, plain.len()).as_deref(),
        Ok(plain)
    );
}

/// Packed and plain bytes for every codec; snappy also without framing, as librdkafka sends it.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(6);
    let mut seeds = Vec::new();
    for (number, codec) in CODECS.iter().enumerate() {
        for length in [0, 1, 30, 700, 5000] {
            let mut plain = numbers.bytes(length / 2);
            plain.resize(length, b'a');
            let mut packed = vec![number as u8, 0x20, 0];
            compress(*codec, &plain, &mut packed).expect("codecs take anything");
            if *codec == Compression::Snappy && length > 0 {
                // Behind 16 bytes of framing and 4 of length.
                seeds.push([&packed[..3], &packed[23..]].concat());
            }
            seeds.push(packed);
            seeds.push([&[number as u8 | PLAIN, 0, 0], &plain[..]].concat());
        }
    }
    seeds
}
