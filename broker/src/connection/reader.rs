//! Reads a connection's frames, no faster than they are answered.
//!
//! An idle connection holds one small buffer. A large frame's buffer grows with what has arrived, never with what its size claims; its bytes are
//! taken from the shard's request budget first. Frames are slices of what was read.

use bytes::BytesMut;
use compio::buf::{IntoInner, IoBuf};
use compio::io::AsyncRead;
use ringlog_net::frame::FrameSplitter;

use super::{Closing, Frame, Pipe};

/// The buffer of a connection that has been quiet.
const QUIET_BYTES: usize = 2 << 10;
/// The most room made ahead for small pipelined frames.
const AHEAD_BYTES_MAX: usize = 256 << 10;
/// Frames up to this size are not taken from the budget: their number is bounded by the in-flight limit.
const SMALL_FRAME_BYTES: usize = 32 << 10;

pub(super) async fn run(pipe: &Pipe) -> Result<(), Closing> {
    let config = &pipe.shard.config;
    let budget = &pipe.shard.request_budget;
    let mut splitter = FrameSplitter::new(config.request_bytes_max);
    let mut permit = budget.permit();
    let mut ahead = QUIET_BYTES;
    loop {
        while let Some(content) = splitter
            .next_frame()
            .map_err(|e| Closing::Protocol(e.to_string()))?
        {
            let in_flight_max = config.in_flight_max;
            pipe.changed
                .until(|| (pipe.in_work() < in_flight_max).then_some(()))
                .await;
            let held = permit.bytes();
            let permit = permit.split(held);
            pipe.inbox.borrow_mut().push_back(Frame { content, permit });
            pipe.changed.notify();
        }
        let missing = splitter
            .missing()
            .map_err(|e| Closing::Protocol(e.to_string()))?;
        let size = missing + splitter.buffered();
        if size > SMALL_FRAME_BYTES {
            permit.grow_to(size).await;
        }
        // As much as is missing, but no more than what has arrived of this frame earns; small frames may share one read.
        let earned = splitter.buffered().max(ahead);
        let room = if missing > ahead {
            missing.min(earned)
        } else {
            ahead
        };
        let mut buffer = splitter.replace_buffer(BytesMut::new());
        buffer.reserve(room);
        let start = buffer.len();
        let capacity = buffer.capacity() - start;
        let (count, slice) = match (&pipe.stream).read(buffer.slice(start..)).await {
            compio::BufResult(Ok(count), slice) => (count, slice),
            compio::BufResult(Err(error), _) => return Err(error.into()),
        };
        splitter.replace_buffer(slice.into_inner());
        if count == 0 {
            pipe.read_ended.set(true);
            pipe.context.closed.raise();
            pipe.changed.notify();
            return Ok(());
        }
        pipe.touch();
        pipe.shard.metrics.bytes_received.add(count as u64);
        if count == capacity {
            ahead = (ahead * 2).min(AHEAD_BYTES_MAX);
        } else if count < ahead / 4 {
            ahead = (ahead / 2).max(QUIET_BYTES);
        }
    }
}
