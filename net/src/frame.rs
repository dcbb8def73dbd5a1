//! Cutting a stream of bytes into frames: four bytes of size, big-endian, and so many bytes of content.
//!
//! [`FrameSplitter`] does no I/O. Its owner appends what the socket gave to [`FrameSplitter::buffer`] and takes out frames;
//! a frame is a slice of that buffer, not a copy. The buffer grows with what has arrived, not with what a size claims.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// The size in front of a frame.
const SIZE_BYTES: usize = 4;
/// The least room worth a read call.
const READ_BYTES_MIN: usize = 4 << 10;
/// The most room that is made ahead of what arrives.
const READ_BYTES_MAX: usize = 256 << 10;

/// A frame's size is none that will be read. Close the connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The size is negative, so the peer does not speak the Kafka protocol.
    #[error(
        "a frame claims a size of {size} bytes: the peer does not speak the Kafka protocol, or speaks TLS to a plaintext listener"
    )]
    Negative {
        /// The size as read.
        size: i32,
    },
    /// The frame is larger than allowed.
    #[error(
        "a frame of {size} bytes exceeds the {limit} that socket.request.max.bytes allows; raise it, or send less at once"
    )]
    TooLarge {
        /// The frame's size in bytes.
        size: usize,
        /// The largest size in bytes that is allowed.
        limit: usize,
    },
}

/// The bytes of one connection that are not frames yet.
#[derive(Debug)]
pub struct FrameSplitter {
    buffer: BytesMut,
    limit: usize,
}

impl FrameSplitter {
    /// For frames of at most `limit` bytes, their size field not counted.
    pub fn new(limit: usize) -> FrameSplitter {
        FrameSplitter {
            buffer: BytesMut::new(),
            limit,
        }
    }

    /// What has arrived and is not taken yet; append to it what the socket gives.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Takes over a buffer that was filled elsewhere, or gives the unfinished rest away with an empty one.
    pub fn replace_buffer(&mut self, buffer: BytesMut) -> BytesMut {
        std::mem::replace(&mut self.buffer, buffer)
    }

    /// Bytes that have arrived and are not taken.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The size of the frame that is at the front, once its size field has arrived.
    ///
    /// # Errors
    /// [`FrameError`] when the size is negative or over the limit.
    pub fn next_size(&self) -> Result<Option<usize>, FrameError> {
        let Some(size) = self.buffer.first_chunk::<SIZE_BYTES>() else {
            return Ok(None);
        };
        let size = i32::from_be_bytes(*size);
        let Ok(length) = usize::try_from(size) else {
            return Err(FrameError::Negative { size });
        };
        if length > self.limit {
            return Err(FrameError::TooLarge {
                size: length,
                limit: self.limit,
            });
        }
        Ok(Some(length))
    }

    /// Takes the next whole frame's content, if it has arrived.
    ///
    /// # Errors
    /// [`FrameError`] when the next frame's size is negative or over the limit; what came before it was handed out.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(size) = self.next_size()? else {
            return Ok(None);
        };
        if self.buffer.len() < SIZE_BYTES + size {
            return Ok(None);
        }
        self.buffer.advance(SIZE_BYTES);
        Ok(Some(self.buffer.split_to(size).freeze()))
    }

    /// How many more bytes the frame at the front needs, its size field included if that is incomplete.
    ///
    /// # Errors
    /// [`FrameError`] as [`FrameSplitter::next_size`].
    pub fn missing(&self) -> Result<usize, FrameError> {
        let whole = SIZE_BYTES + self.next_size()?.unwrap_or(0);
        Ok(whole.saturating_sub(self.buffer.len()))
    }

    /// How much room to make for the next read: enough for what is missing, but never more than has arrived of this
    /// frame so far, within 4 and 256 KiB. So a peer that claims much and sends little gets little.
    ///
    /// # Errors
    /// [`FrameError`] as [`FrameSplitter::next_size`].
    pub fn read_bytes(&self) -> Result<usize, FrameError> {
        let earned = self.buffer.len().clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        Ok(self.missing()?.clamp(READ_BYTES_MIN, earned))
    }

    /// Makes room in the buffer for [`FrameSplitter::read_bytes`] and says how much that is.
    ///
    /// # Errors
    /// [`FrameError`] as [`FrameSplitter::next_size`].
    pub fn reserve(&mut self) -> Result<usize, FrameError> {
        let bytes = self.read_bytes()?;
        self.buffer.reserve(bytes);
        Ok(bytes)
    }
}
