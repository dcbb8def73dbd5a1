//! Cutting a stream of bytes into frames: four bytes of size, big-endian, and so many bytes of content.
//!
//! [`FrameSplitter`] does no I/O. Its owner appends what the socket gave to [`FrameSplitter::buffer`] and takes out frames;
//! a frame is a slice of that buffer, not a copy. The splitter itself never makes room: its owner does, knowing from
//! [`FrameSplitter::missing`] how much the next frame still needs, and giving no more than what has arrived deserves.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// The size in front of a frame.
const SIZE_BYTES: usize = 4;

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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splitter(bytes: &[u8]) -> FrameSplitter {
        let mut splitter = FrameSplitter::new(100);
        splitter.buffer().extend_from_slice(bytes);
        splitter
    }

    #[test]
    fn frames_come_out_whole_and_in_order() {
        let stream = [0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 3];
        let mut splitter = FrameSplitter::new(2);
        let mut frames = Vec::new();
        for byte in stream {
            splitter.buffer().extend_from_slice(&[byte]);
            frames.extend(splitter.next_frame().expect("sizes within the limit"));
        }
        assert_eq!(frames, [&[1, 2][..], &[], &[3]]);
        assert_eq!((splitter.buffered(), splitter.missing()), (0, Ok(4)));
    }

    #[test]
    fn a_bad_size_is_an_error_that_stays() {
        let negative = FrameError::Negative { size: -1 };
        let mut splitter = splitter(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(splitter.next_frame(), Ok(Some(Bytes::new())));
        assert_eq!(splitter.next_frame(), Err(negative.clone()));
        assert_eq!(splitter.next_frame(), Err(negative.clone()));
        assert_eq!(splitter.missing(), Err(negative));
    }

    #[test]
    fn the_limit_is_the_largest_size_allowed() {
        assert_eq!(splitter(&[0, 0, 0, 100]).next_frame(), Ok(None));
        let error = splitter(&[0, 0, 0, 101]).next_frame();
        assert_eq!(
            error,
            Err(FrameError::TooLarge {
                size: 101,
                limit: 100
            })
        );
    }

    #[test]
    fn what_is_missing_is_known_as_soon_as_the_size_is() {
        let mut splitter = FrameSplitter::new(1 << 20);
        splitter.buffer().extend_from_slice(&[0, 1]);
        assert_eq!(splitter.missing(), Ok(2));
        splitter.buffer().extend_from_slice(&[0, 0]);
        assert_eq!(splitter.missing(), Ok(1 << 16));
        // Knowing it makes no room for it: that is for the owner to do, as bytes arrive.
        assert!(splitter.buffer().capacity() < 1 << 10);
        splitter.buffer().extend_from_slice(&[7; 60_000]);
        assert_eq!(splitter.missing(), Ok((1 << 16) - 60_000));
        assert_eq!(splitter.next_frame(), Ok(None));
        splitter.buffer().extend_from_slice(&[7; 10_000]);
        assert_eq!(splitter.missing(), Ok(0));
        let frame = splitter.next_frame().expect("a good size");
        assert_eq!(frame.map(|frame| frame.len()), Some(1 << 16));
    }
}
