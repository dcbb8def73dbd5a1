//! Tests of record batches: the produce rules, the codecs, agreement with an independent implementation, and hostile bytes.

mod agreement;
mod codecs;
mod hostile;
mod layout;
mod rules;

use super::{BatchBuilder, Compression, ProduceRules};

/// Wall clock of these tests, in ms.
pub(super) const NOW_MS: i64 = 1_700_000_000_000;
/// Cap that no test means to reach.
pub(super) const CAP: usize = 1 << 24;
pub(super) const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

pub(super) fn rules() -> ProduceRules {
    ProduceRules {
        now_ms: NOW_MS,
        max_message_bytes: CAP,
        decompressed_bytes_max: CAP,
        ..ProduceRules::default()
    }
}

/// Three records with rising timestamps.
pub(super) fn three_records() -> BatchBuilder {
    BatchBuilder::new()
        .record(NOW_MS - 20, Some(b"a"), Some(b"first"))
        .record(NOW_MS - 10, Some(b"b"), Some(b"second"))
        .record(NOW_MS, Some(b"c"), None)
}

pub(super) fn build(builder: BatchBuilder) -> Vec<u8> {
    builder.build().expect("a batch with records")
}
