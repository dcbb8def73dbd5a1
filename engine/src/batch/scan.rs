//! One pass over the records of a batch that looks at what rules need (timestamp, offset, whether there is a key) and steps over the rest.
//!
//! The same walk serves plain bytes and a decompressing stream ([`Source`]); neither is copied, and a stream is held one chunk at a time. A record must fill its length
//! exactly, and the records their batch.

use super::{
    compression::Inflater,
    error::BatchError,
    header::{BatchHeader, Compression, HEADER_BYTES},
    varint,
};

/// What a walk sees of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub has_key: bool,
}

/// Whether a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    On,
    Stop,
}

/// Walks over the records of `batch`, whose header is `header`, until `visit` stops it. Decompresses at most `cap` bytes.
///
/// Errors: a malformed record, fewer or more records than the header counts (where not stopped before), damaged compression, the cap.
pub(super) fn walk(
    batch: &[u8],
    header: &BatchHeader,
    cap: usize,
    mut visit: impl FnMut(i32, Seen) -> Walk,
) -> Result<(), BatchError> {
    let payload = batch
        .get(HEADER_BYTES..header.size())
        .ok_or(BatchError::LengthMismatch {
            claimed: header.size() as i64,
            present: batch.len(),
        })?;
    match header.attributes.compression()? {
        Compression::None => walk_source(
            &mut Plain {
                bytes: payload,
                at: 0,
            },
            header.record_count,
            &mut visit,
        ),
        compression => {
            let mut stream = Stream {
                inflater: Inflater::new(compression, payload, cap)?,
                chunk: Vec::new(),
                at: 0,
                before: 0,
                failure: None,
            };
            let outcome = walk_source(&mut stream, header.record_count, &mut visit);
            // A stream that failed looks cut off to the walk: its own error says more.
            match stream.failure {
                Some(failure) => Err(failure),
                None => outcome,
            }
        }
    }
}

fn walk_source<S: Source>(
    source: &mut S,
    count: i32,
    visit: &mut impl FnMut(i32, Seen) -> Walk,
) -> Result<(), BatchError> {
    for index in 0..count {
        let seen = read_record(source).map_err(|reason| BatchError::BadRecord { index, reason })?;
        if visit(index, seen) == Walk::Stop {
            return Ok(());
        }
    }
    if source.byte().is_some() {
        return Err(BatchError::Invalid(
            "bytes follow the last record of the batch",
        ));
    }
    Ok(())
}

#[inline]
fn read_record<S: Source>(source: &mut S) -> Result<Seen, &'static str> {
    let length = source
        .varint_i32()
        .ok_or("it is missing or its length cannot be read")?;
    let length = u64::try_from(length).map_err(|_| "its length is negative")?;
    let end = source.position() + length;
    source.byte().ok_or("it is cut off")?; // attributes: none are defined
    let timestamp_delta = source.varint().ok_or("its timestamp cannot be read")?;
    let offset_delta = source.varint_i32().ok_or("its offset cannot be read")?;
    let has_key = step_over(source, end).ok_or("its key exceeds the record")?;
    step_over(source, end).ok_or("its value exceeds the record")?;
    let header_count = source
        .varint_i32()
        .ok_or("its header count cannot be read")?;
    if header_count < 0 {
        return Err("its header count is negative");
    }
    for _ in 0..header_count {
        if !step_over(source, end).ok_or("a header's key exceeds the record")? {
            return Err("a header's key is null");
        }
        step_over(source, end).ok_or("a header's value exceeds the record")?;
    }
    if source.position() != end {
        return Err("its fields do not fill its length");
    }
    Ok(Seen {
        timestamp_delta,
        offset_delta,
        has_key,
    })
}

/// Steps over a nullable field; whether it is not null, or `None` where it leaves the record.
#[inline]
fn step_over<S: Source>(source: &mut S, end: u64) -> Option<bool> {
    let length = source.varint_i32()?;
    if length < 0 {
        return (length == -1).then_some(false);
    }
    let length = length as u64;
    (source.position() + length <= end && source.skip(length)).then_some(true)
}

/// Bytes that are read once, front to back.
trait Source {
    /// Bytes read so far.
    fn position(&self) -> u64;
    /// The next byte.
    fn byte(&mut self) -> Option<u8>;
    /// Steps over `count` bytes; false where fewer are left.
    fn skip(&mut self, count: u64) -> bool;

    /// A zigzag i64.
    fn varint(&mut self) -> Option<i64> {
        varint::read_with(|| self.byte())
    }

    /// A zigzag i32.
    fn varint_i32(&mut self) -> Option<i32> {
        self.varint().and_then(|value| i32::try_from(value).ok())
    }
}

/// Uncompressed records.
struct Plain<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Source for Plain<'_> {
    #[inline]
    fn position(&self) -> u64 {
        self.at as u64
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn skip(&mut self, count: u64) -> bool {
        let left = (self.bytes.len() - self.at) as u64;
        if count > left {
            return false;
        }
        self.at += count as usize;
        true
    }

    #[inline]
    fn varint(&mut self) -> Option<i64> {
        varint::read_i64(self.bytes, &mut self.at)
    }
}

/// Records that are decompressed chunk by chunk.
struct Stream<'a> {
    inflater: Inflater<'a>,
    chunk: Vec<u8>,
    at: usize,
    before: u64,
    failure: Option<BatchError>,
}

impl Stream<'_> {
    /// Makes the next chunk current; false at the end or on failure.
    fn advance(&mut self) -> bool {
        if self.failure.is_some() {
            return false;
        }
        self.before += self.chunk.len() as u64;
        self.at = 0;
        let outcome = self.inflater.next_chunk(&mut self.chunk);
        outcome.unwrap_or_else(|failure| {
            self.chunk.clear();
            self.failure = Some(failure);
            false
        })
    }
}

impl Source for Stream<'_> {
    fn position(&self) -> u64 {
        self.before + self.at as u64
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        if self.at == self.chunk.len() && !self.advance() {
            return None;
        }
        let byte = *self.chunk.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, mut count: u64) -> bool {
        loop {
            let left = (self.chunk.len() - self.at) as u64;
            if count <= left {
                self.at += count as usize;
                return true;
            }
            count -= left;
            self.at = self.chunk.len();
            if !self.advance() {
                return false;
            }
        }
    }

    #[inline]
    fn varint(&mut self) -> Option<i64> {
        // Within a chunk a slice is faster; across its end, byte by byte.
        let mut at = self.at;
        if let Some(value) = varint::read_i64(&self.chunk, &mut at) {
            self.at = at;
            return Some(value);
        }
        varint::read_with(|| self.byte())
    }
}
