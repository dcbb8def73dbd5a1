//! One non-blocking connection to a broker: ordered output, frames in, and the requests that wait for an answer.
//!
//! The owner decides what to send and what answers mean; this file only moves bytes. Output is a queue of reference-counted
//! pieces written by vectored writes; input is read into one buffer that is reused, so that steady traffic allocates nothing
//! that grows. A broker that answers out of order, or sends a frame that is too large, breaks the connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

/// The largest response that is accepted.
const FRAME_BYTES_MAX: usize = 512 << 20;
/// The input buffer's first size; it grows to the largest frame seen.
const INPUT_BYTES: usize = 64 << 10;
/// Pieces handed to one vectored write.
const PIECES_PER_WRITE: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A request that was sent and not yet answered.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// The correlation id its answer must carry.
    pub correlation_id: i32,
    /// Version it was encoded in, and its answer will be.
    pub version: i16,
}

/// A connection.
pub struct Connection {
    stream: TcpStream,
    output: VecDeque<Bytes>,
    output_bytes: usize,
    input: BytesMut,
    filled: usize,
    pending: VecDeque<Pending>,
    next_correlation_id: i32,
}

impl Connection {
    /// Connects, waiting at most five seconds, and switches to non-blocking.
    pub fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut input = BytesMut::with_capacity(INPUT_BYTES);
        input.resize(INPUT_BYTES, 0);
        Ok(Connection {
            stream,
            output: VecDeque::new(),
            output_bytes: 0,
            input,
            filled: 0,
            pending: VecDeque::new(),
            next_correlation_id: 1,
        })
    }

    /// The socket, for the poller.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Requests sent (or queued) and not yet answered.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// The correlation id of the next request.
    pub fn next_correlation_id(&self) -> i32 {
        self.next_correlation_id
    }

    /// Queues a complete frame that carries [`next_correlation_id`](Self::next_correlation_id). Nothing is awaited
    /// for a request that is not `answered` (acks=0).
    pub fn send(&mut self, frame: impl IntoIterator<Item = Bytes>, version: i16, answered: bool) {
        if answered {
            self.pending.push_back(Pending {
                correlation_id: self.next_correlation_id,
                version,
            });
        }
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1) & i32::MAX;
        for piece in frame {
            self.output_bytes += piece.len();
            self.output.push_back(piece);
        }
    }

    /// Whether output is stuck and room to write must be awaited.
    pub fn wants_write(&self) -> bool {
        self.output_bytes > 0
    }

    /// Writes as much as the socket takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.output_bytes > 0 {
            let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
            let mut used = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.output) {
                *slice = IoSlice::new(piece);
                used += 1;
            }
            match self.stream.write_vectored(&slices[..used]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.consume_output(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        Ok(())
    }

    fn consume_output(&mut self, written: usize) {
        self.output_bytes -= written;
        let mut left = written;
        while let Some(first) = self.output.front_mut() {
            if left < first.len() {
                first.advance(left);
                return;
            }
            left -= first.len();
            self.output.pop_front();
        }
    }

    /// Reads what has arrived and hands each whole response (without its size) and its request to `each`.
    ///
    /// A frame given to `each` borrows the input buffer: keep nothing of it. Errors, the peer closing among them, end the
    /// connection.
    pub fn receive(&mut self, mut each: impl FnMut(Pending, Bytes)) -> io::Result<()> {
        loop {
            let room = &mut self.input[self.filled..];
            let asked = room.len();
            match self.stream.read(room) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the broker closed the connection",
                    ));
                }
                Ok(read) => {
                    self.filled += read;
                    self.hand_over(&mut each)?;
                    // A short read means the socket is empty; level-triggered readiness reports what comes later.
                    if read < asked {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn hand_over(&mut self, each: &mut impl FnMut(Pending, Bytes)) -> io::Result<()> {
        let mut at = 0;
        let mut wanted = 0;
        if self.filled >= 4 {
            let whole = std::mem::take(&mut self.input).freeze();
            let outcome = loop {
                match frame_at(&whole[..self.filled], at) {
                    Ok(Some(end)) => {
                        let frame = whole.slice(at + 4..end);
                        at = end;
                        match self.match_pending(&frame) {
                            Ok(pending) => each(pending, frame),
                            Err(error) => break Err(error),
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            if let Ok(Some(size)) = frame_size(&whole[at..self.filled]) {
                wanted = size + 4;
            }
            self.input = match whole.try_into_mut() {
                Ok(buffer) => buffer,
                // Somebody kept a slice: continue in a copy rather than overwrite what they hold.
                Err(kept) => BytesMut::from(&kept[..]),
            };
            outcome?;
        }
        if at > 0 {
            self.input.copy_within(at..self.filled, 0);
            self.filled -= at;
        }
        if wanted > self.input.len() {
            // In proportion to what has arrived, not to what a size field claims.
            self.input.resize(wanted.min(self.input.len() * 2), 0);
        }
        Ok(())
    }

    fn match_pending(&mut self, frame: &[u8]) -> io::Result<Pending> {
        let got = frame
            .first_chunk::<4>()
            .map(|bytes| i32::from_be_bytes(*bytes));
        match self.pending.pop_front() {
            Some(pending) if got == Some(pending.correlation_id) => Ok(pending),
            Some(pending) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the broker answered {got:?} where {} was due",
                    pending.correlation_id
                ),
            )),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the broker sent a response nobody asked for",
            )),
        }
    }
}

fn frame_size(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(size) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    match usize::try_from(i32::from_be_bytes(*size)) {
        Ok(size) if size <= FRAME_BYTES_MAX => Ok(Some(size)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the broker announced a response of an impossible size",
        )),
    }
}

/// Where the frame that starts at `at` ends, once it is whole.
fn frame_at(bytes: &[u8], at: usize) -> io::Result<Option<usize>> {
    Ok(frame_size(&bytes[at..])?
        .map(|size| at + 4 + size)
        .filter(|&end| end <= bytes.len()))
}
