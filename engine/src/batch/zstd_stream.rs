//! Zstd decompression that keeps its context from batch to batch.
//!
//! Making a context costs some 10 µs, more than a small batch takes to check, so each thread keeps one while it is small. A window larger than producers use is refused
//! before memory is set aside for it.

use std::{cell::Cell, io};

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

/// Largest window accepted, as a power of two: what level 22 uses. Its memory is touched only as output is produced.
const WINDOW_LOG_MAX: u32 = 27;
/// A context larger than this is not kept: level 3 needs some 2 MiB, the largest window 128 MiB.
const KEPT_BYTES_MAX: usize = 4 << 20;

thread_local! {
    static KEPT: Cell<Option<DCtx<'static>>> = const { Cell::new(None) };
}

/// Decompresses the frames of a slice.
pub(super) struct ZstdStream<'a> {
    // Always there until dropped.
    context: Option<DCtx<'static>>,
    input: &'a [u8],
    inside_frame: bool,
}

impl<'a> ZstdStream<'a> {
    pub fn new(input: &'a [u8]) -> io::Result<Self> {
        let mut context = KEPT
            .take()
            .map_or_else(|| DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory), Ok)?;
        context
            .reset(ResetDirective::SessionAndParameters)
            .map_err(|_| io::ErrorKind::InvalidData)?;
        context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Self {
            context: Some(context),
            input,
            inside_frame: false,
        })
    }
}

impl io::Read for ZstdStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(context) = &mut self.context else {
            return Ok(0);
        };
        let mut out = OutBuffer::around(buffer);
        while out.pos() == 0 && (self.inside_frame || !self.input.is_empty()) {
            let before = self.input.len();
            let mut input = InBuffer::around(self.input);
            let hint = context
                .decompress_stream(&mut out, &mut input)
                .map_err(|_| io::ErrorKind::InvalidData)?;
            self.input = &self.input[input.pos()..];
            self.inside_frame = hint != 0;
            if out.pos() == 0 && self.input.len() == before {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(out.pos())
    }
}

impl Drop for ZstdStream<'_> {
    fn drop(&mut self) {
        if let Some(context) = self.context.take()
            && context.sizeof() <= KEPT_BYTES_MAX
        {
            KEPT.set(Some(context));
        }
    }
}
