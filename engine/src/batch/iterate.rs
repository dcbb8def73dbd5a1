//! Walks over consecutive batches in a slice of a log.
//!
//! Only structure is checked, not checksums: whoever reads from a place that may be damaged asks [`Batch::checksum_matches`]. Ends at the first batch that is not wholly
//! present, so a slice cut at any byte is fine; damage ends the walk with one error.

use super::{
    error::BatchError,
    header::{BatchHeader, HEADER_BYTES, LENGTH_OVERHEAD_BYTES},
};

/// A whole batch inside a slice.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The parsed header.
    pub header: BatchHeader,
    /// The whole batch, header included.
    pub bytes: &'a [u8],
    /// Where the batch starts in the slice that is walked, in bytes.
    pub position: usize,
}

impl<'a> Batch<'a> {
    /// Whether the stored checksum matches the bytes.
    pub fn checksum_matches(&self) -> bool {
        self.header.checksum_matches(self.bytes)
    }

    /// The bytes after the header: records, compressed as the attributes say.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }
}

/// See [`batches`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
    failed: bool,
}

/// Iterates over the whole batches at the start of `bytes`; a cut-off last one is left out.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches {
        bytes,
        position: 0,
        failed: false,
    }
}

impl Batches<'_> {
    /// Bytes walked over so far: the end of the last whole batch.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.position..];
        if self.failed || rest.len() < HEADER_BYTES {
            return None;
        }
        let header = match BatchHeader::parse(rest) {
            Ok(header) => header,
            Err(error) => {
                self.failed = true;
                return Some(Err(error));
            }
        };
        debug_assert!(header.size() >= LENGTH_OVERHEAD_BYTES);
        let bytes = rest.get(..header.size())?;
        let batch = Batch {
            header,
            bytes,
            position: self.position,
        };
        self.position += header.size();
        Some(Ok(batch))
    }
}
