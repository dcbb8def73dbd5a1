//! Reads a connection's frames, no faster than they are answered.
//!
//! An idle connection holds one small buffer. A large frame's buffer grows with what has arrived, not with what its size claims, until the client has
//! shown that it sends such frames; its bytes are taken from the shard's request budget as they come. Frames are slices of what was read.

use std::time::Instant;

use bytes::BytesMut;
use compio::BufResult;
use compio::buf::{IntoInner, IoBuf};
use compio::io::AsyncRead;
use ringlog_net::frame::{FrameError, FrameSplitter};

use super::budget::Permit;
use super::{Closing, Frame, Partial, Pipe};

/// The buffer of a connection that has been quiet.
const QUIET_BYTES: usize = 2 << 10;
/// The most room made ahead for small pipelined frames. Larger frames then move at most this much when they get a buffer of their own.
const AHEAD_BYTES_MAX: usize = 64 << 10;
/// The most that is received of a frame at once, and so taken from the budget ahead of its arrival: so many times what has arrived, up to a limit.
const RECEIVE_TIMES: usize = 4;
const RECEIVE_BYTES_MAX: usize = 1 << 20;
/// Frames up to this size are taken from the budget only when they are whole.
pub(super) const SMALL_FRAME_BYTES: usize = 32 << 10;
/// What a connection may hold without asking, so that small requests are served however little is left.
pub(super) const UNASKED_BYTES: usize = 64 << 10;

pub(super) async fn run(pipe: &Pipe) -> Result<(), Closing> {
    let result = read(pipe).await;
    if matches!(result, Err(Closing::Protocol(_))) {
        // What came before it is answered first.
        pipe.context.closed.raise();
        pipe.changed
            .until(|| (pipe.in_work() == 0).then_some(()))
            .await;
    }
    result
}

async fn read(pipe: &Pipe) -> Result<(), Closing> {
    let config = &pipe.shard.config;
    let mut splitter = FrameSplitter::new(config.request_bytes_max);
    let mut permit = pipe.requests.permit();
    let mut ahead = QUIET_BYTES;
    let mut largest = 0;
    loop {
        while let Some(content) = splitter.next_frame().map_err(unreadable)? {
            pipe.partial.set(None);
            let room = || (pipe.in_work() < config.in_flight_max).then_some(());
            pipe.changed.until(room).await;
            largest = largest.max(content.len());
            charge(pipe, &mut permit, content.len().max(QUIET_BYTES)).await;
            let permit = permit.take();
            pipe.inbox.borrow_mut().push_back(Frame { content, permit });
            pipe.changed.notify();
        }
        let missing = splitter.missing().map_err(unreadable)?;
        let arrived = splitter.buffered();
        let size = missing + arrived;
        // A frame gets room for all of it where the client has sent one of that order before, else as much as has arrived.
        let earned = if size <= largest.saturating_mul(2) {
            missing
        } else {
            arrived
        };
        let room = missing.min(earned).max(ahead);
        let most = (RECEIVE_TIMES * arrived).clamp(AHEAD_BYTES_MAX, RECEIVE_BYTES_MAX);
        if size > SMALL_FRAME_BYTES {
            charge(pipe, &mut permit, size.min(arrived + room.min(most))).await;
            if pipe.partial.get().is_none() {
                pipe.partial.set(Some(Partial {
                    since: Instant::now(),
                    arrived: 0,
                }));
            }
        }
        let count = receive(pipe, &mut splitter, room, most).await?;
        let Some(count) = count else {
            pipe.read_ended.set(true);
            pipe.context.closed.raise();
            pipe.changed.notify();
            return Ok(());
        };
        if let Some(Partial { since, arrived }) = pipe.partial.get() {
            let arrived = arrived + count;
            pipe.partial.set(Some(Partial { since, arrived }));
        }
        if count >= ahead {
            ahead = (ahead * 2).min(AHEAD_BYTES_MAX);
        } else if count < ahead / 4 {
            ahead = (ahead / 2).max(QUIET_BYTES);
        }
    }
}

/// Makes sure that `permit`, which is for the frame at the front, holds at least `bytes`.
async fn charge(pipe: &Pipe, permit: &mut Permit, bytes: usize) {
    let account = &pipe.requests;
    let own = permit.bytes();
    let others = || account.held() - own;
    if others() + bytes <= UNASKED_BYTES {
        permit.charge_to(bytes);
        return;
    }
    let share = account.budget().share();
    let fits = || others() == 0 || others() + bytes <= share;
    if fits() && permit.try_grow_to(bytes) {
        return;
    }
    // It is not for its client that the frame waits now.
    pipe.partial.set(None);
    pipe.changed.until(|| fits().then_some(())).await;
    permit.grow_to(bytes).await;
}

fn unreadable(error: FrameError) -> Closing {
    Closing::Protocol(error.to_string())
}

/// Receives once, at most `most` bytes, into the splitter's buffer, with room for `room`; none when there is no more to come.
async fn receive(
    pipe: &Pipe,
    splitter: &mut FrameSplitter,
    room: usize,
    most: usize,
) -> Result<Option<usize>, Closing> {
    let mut buffer = splitter.replace_buffer(BytesMut::new());
    if buffer.is_empty() && buffer.capacity() > 2 * room {
        // What a large frame has left behind is not kept for small ones.
        buffer = BytesMut::with_capacity(room);
    }
    buffer.reserve(room);
    let start = buffer.len();
    let end = buffer.capacity().min(start + most);
    let BufResult(result, slice) = (&pipe.stream).read(buffer.slice(start..end)).await;
    splitter.replace_buffer(slice.into_inner());
    let count = result?;
    if count == 0 || pipe.shut.get() {
        return Ok(None);
    }
    pipe.touch();
    pipe.shard.metrics.bytes_received.add(count as u64);
    Ok(Some(count))
}
