//! Reads a connection's frames, no faster than they are answered.
//!
//! An idle connection holds one small buffer. A large frame's buffer grows with what has arrived, not with what its size claims, until the client has
//! shown that it sends such frames; its bytes are taken from the shard's request budget first. Frames are slices of what was read.

use bytes::BytesMut;
use compio::BufResult;
use compio::buf::{IntoInner, IoBuf};
use compio::io::AsyncRead;
use ringlog_net::frame::{FrameError, FrameSplitter};

use super::{Closing, Frame, Pipe};

/// The buffer of a connection that has been quiet.
const QUIET_BYTES: usize = 2 << 10;
/// The most room made ahead for small pipelined frames. Larger frames then move at most this much when they get a buffer of their own.
const AHEAD_BYTES_MAX: usize = 64 << 10;
/// Frames up to this size are not taken from the budget: their number is bounded by the in-flight limit.
const SMALL_FRAME_BYTES: usize = 32 << 10;

pub(super) async fn run(pipe: &Pipe) -> Result<(), Closing> {
    let config = &pipe.shard.config;
    let mut splitter = FrameSplitter::new(config.request_bytes_max);
    let mut permit = pipe.shard.request_budget.permit();
    let mut ahead = QUIET_BYTES;
    let mut largest = 0;
    loop {
        while let Some(content) = splitter.next_frame().map_err(unreadable)? {
            let room = || (pipe.in_work() < config.in_flight_max).then_some(());
            pipe.changed.until(room).await;
            largest = largest.max(content.len());
            let permit = permit.split(permit.bytes());
            pipe.inbox.borrow_mut().push_back(Frame { content, permit });
            pipe.changed.notify();
        }
        let missing = splitter.missing().map_err(unreadable)?;
        let arrived = splitter.buffered();
        let size = missing + arrived;
        if size > SMALL_FRAME_BYTES {
            permit.grow_to(size).await;
        }
        pipe.awaits_rest.set(permit.bytes() > 0);
        // A frame gets room for all of it where the client has sent one of that order before, else as much as has arrived.
        let earned = if size <= largest.saturating_mul(2) {
            missing
        } else {
            arrived
        };
        let room = missing.min(earned).max(ahead);
        let count = receive(pipe, &mut splitter, room).await?;
        let Some(count) = count else {
            pipe.read_ended.set(true);
            pipe.context.closed.raise();
            pipe.changed.notify();
            return Ok(());
        };
        if count >= ahead {
            ahead = (ahead * 2).min(AHEAD_BYTES_MAX);
        } else if count < ahead / 4 {
            ahead = (ahead / 2).max(QUIET_BYTES);
        }
    }
}

fn unreadable(error: FrameError) -> Closing {
    Closing::Protocol(error.to_string())
}

/// Receives once into the splitter's buffer, with room for `room` bytes; none when there is no more to come.
async fn receive(
    pipe: &Pipe,
    splitter: &mut FrameSplitter,
    room: usize,
) -> Result<Option<usize>, Closing> {
    let mut buffer = splitter.replace_buffer(BytesMut::new());
    if buffer.is_empty() && buffer.capacity() > 2 * room {
        // What a large frame has left behind is not kept for small ones.
        buffer = BytesMut::with_capacity(room);
    }
    buffer.reserve(room);
    let start = buffer.len();
    let BufResult(result, slice) = (&pipe.stream).read(buffer.slice(start..)).await;
    splitter.replace_buffer(slice.into_inner());
    let count = result?;
    if count == 0 || pipe.shut.get() {
        return Ok(None);
    }
    pipe.touch();
    pipe.shard.metrics.bytes_received.add(count as u64);
    Ok(Some(count))
}
