//! Records inside a batch: a borrowing parser over *decompressed* record bytes.
//!
//! A record is: length varint, attributes i8, timestamp delta varint, offset delta varint, key, value (length varint, -1 = null), header
//! count varint, headers (key length varint, key, value). Nothing is copied or allocated; every length is checked against what is left of its record.

use super::{error::BatchError, varint};

/// One record, borrowing from the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Timestamp in ms, counted from the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Offset, counted from the batch's base offset.
    pub offset_delta: i32,
    /// Key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is null (a tombstone).
    pub value: Option<&'a [u8]>,
    /// Number of headers.
    pub header_count: i32,
    headers: &'a [u8],
}

/// A header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader<'a> {
    /// Name; UTF-8 by convention, not checked.
    pub key: &'a [u8],
    /// Value; `None` is null.
    pub value: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// The headers in order. They were checked when the record was parsed.
    pub fn headers(&self) -> impl Iterator<Item = RecordHeader<'a>> + use<'a> {
        let bytes = self.headers;
        let mut at = 0;
        (0..self.header_count).map_while(move |_| read_header(bytes, &mut at).ok())
    }

    /// Appends the record to `out`, with its timestamp counted from elsewhere.
    pub fn write(&self, timestamp_delta: i64, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(
            self.key.map_or(0, <[u8]>::len)
                + self.value.map_or(0, <[u8]>::len)
                + self.headers.len()
                + 32,
        );
        body.push(0);
        varint::write_i64(&mut body, timestamp_delta);
        varint::write_i64(&mut body, i64::from(self.offset_delta));
        for field in [self.key, self.value] {
            varint::write_i64(&mut body, field.map_or(-1, |field| field.len() as i64));
            body.extend_from_slice(field.unwrap_or_default());
        }
        varint::write_i64(&mut body, i64::from(self.header_count));
        body.extend_from_slice(self.headers);
        varint::write_i64(out, body.len() as i64);
        out.extend_from_slice(&body);
    }

    /// Reads the record at `*at` and moves it past the record. The reason is given in words on failure.
    #[inline]
    pub fn read(bytes: &'a [u8], at: &mut usize) -> Result<Self, &'static str> {
        let length = varint::read_i32(bytes, at).ok_or("its length cannot be read")?;
        let length = usize::try_from(length).map_err(|_| "its length is negative")?;
        let body = bytes
            .get(*at..)
            .and_then(|rest| rest.get(..length))
            .ok_or("its length exceeds the batch")?;
        *at += length;
        Self::read_body(body)
    }

    /// Reads a record's body, which must be filled exactly.
    #[inline]
    pub(super) fn read_body(body: &'a [u8]) -> Result<Self, &'static str> {
        if body.is_empty() {
            return Err("it is empty");
        }
        let mut at = 1; // attributes: none are defined
        let timestamp_delta =
            varint::read_i64(body, &mut at).ok_or("its timestamp cannot be read")?;
        let offset_delta = varint::read_i32(body, &mut at).ok_or("its offset cannot be read")?;
        let key = read_nullable(body, &mut at).ok_or("its key exceeds the record")?;
        let value = read_nullable(body, &mut at).ok_or("its value exceeds the record")?;
        let header_count =
            varint::read_i32(body, &mut at).ok_or("its header count cannot be read")?;
        if header_count < 0 {
            return Err("its header count is negative");
        }
        let headers = &body[at..];
        for _ in 0..header_count {
            read_header(body, &mut at)?;
        }
        if at != body.len() {
            return Err("its fields do not fill its length");
        }
        Ok(Self {
            timestamp_delta,
            offset_delta,
            key,
            value,
            header_count,
            headers,
        })
    }
}

#[inline]
fn read_nullable<'a>(bytes: &'a [u8], at: &mut usize) -> Option<Option<&'a [u8]>> {
    let length = varint::read_i32(bytes, at)?;
    if length < 0 {
        return (length == -1).then_some(None);
    }
    let found = bytes.get(*at..)?.get(..length as usize)?;
    *at += length as usize;
    Some(Some(found))
}

fn read_header<'a>(bytes: &'a [u8], at: &mut usize) -> Result<RecordHeader<'a>, &'static str> {
    let key = read_nullable(bytes, at)
        .ok_or("a header's key exceeds the record")?
        .ok_or("a header's key is null")?;
    let value = read_nullable(bytes, at).ok_or("a header's value exceeds the record")?;
    Ok(RecordHeader { key, value })
}

/// Iterates over the records in decompressed record bytes. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    index: i32,
    count: i32,
}

impl<'a> Records<'a> {
    /// `bytes`: the decompressed records of one batch; `count`: what its header claims.
    pub fn new(bytes: &'a [u8], count: i32) -> Self {
        Self {
            bytes,
            at: 0,
            index: 0,
            count,
        }
    }

    /// Where the record after the last one given begins, in bytes.
    pub fn position(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            if self.at < self.bytes.len() {
                self.at = self.bytes.len();
                return Some(Err(BatchError::Invalid(
                    "bytes follow the last record of the batch",
                )));
            }
            return None;
        }
        let index = self.index;
        match Record::read(self.bytes, &mut self.at) {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(reason) => {
                self.index = self.count;
                self.at = self.bytes.len();
                Some(Err(BatchError::BadRecord { index, reason }))
            }
        }
    }
}
