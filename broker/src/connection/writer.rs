//! Sends a connection's responses in request order, several in one vectored send when they are ready together.

use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use compio::BufResult;
use compio::io::AsyncWrite;
use futures_util::FutureExt;

use super::{Answer, Closing, Pipe, Slot};

/// Most bytes gathered into one send beyond its first response.
const GATHER_BYTES: usize = 256 << 10;
/// Most pieces in one send (IOV_MAX).
const GATHER_PIECES: usize = 1024;

pub(super) async fn run(pipe: &Pipe) -> Result<(), Closing> {
    loop {
        let ended = || pipe.dispatch_ended.get() && pipe.slots.borrow().is_empty();
        let first = pipe
            .changed
            .until(|| {
                if ended() {
                    return Some(None);
                }
                pipe.slots.borrow_mut().pop_front().map(Some)
            })
            .await;
        let Some(first) = first else {
            return Ok(());
        };
        let mut answered = vec![];
        let mut pieces = Vec::new();
        let mut bytes = 0;
        let Slot { answer, _permits } = first;
        let response = match answer {
            Answer::Ready(response) => {
                settle(pipe, &response);
                Some(response)
            }
            Answer::Coming(future) => future.await?,
        };
        answered.push(_permits);
        gather(&mut pieces, &mut bytes, response);
        let mut failed = None;
        while bytes < GATHER_BYTES
            && pieces.len() < GATHER_PIECES
            && let Some(result) = next_ready(pipe)
        {
            match result {
                Ok((response, permits)) => {
                    answered.push(permits);
                    gather(&mut pieces, &mut bytes, response);
                }
                // What came before it is sent first.
                Err(closing) => {
                    failed = Some(closing);
                    break;
                }
            }
        }
        if !pieces.is_empty() {
            pipe.sending.set(true);
            send(pipe, pieces).await?;
            pipe.sending.set(false);
        }
        if let Some(closing) = failed {
            return Err(closing);
        }
        pipe.unanswered.set(pipe.unanswered.get() - answered.len());
        drop(answered);
        pipe.changed.notify();
    }
}

fn settle(pipe: &Pipe, response: &[Bytes]) {
    let bytes: usize = response.iter().map(Bytes::len).sum();
    pipe.unsent_bytes.set(pipe.unsent_bytes.get() - bytes);
}

fn gather(pieces: &mut Vec<Bytes>, bytes: &mut usize, response: Option<Vec<Bytes>>) {
    let Some(response) = response else { return };
    *bytes += response.iter().map(Bytes::len).sum::<usize>();
    if pieces.is_empty() {
        *pieces = response;
    } else {
        pieces.extend(response);
    }
}

type Gathered = Result<(Option<Vec<Bytes>>, Vec<super::Permit>), Closing>;

/// The next slot's response if it is there already.
fn next_ready(pipe: &Pipe) -> Option<Gathered> {
    let mut slots = pipe.slots.borrow_mut();
    let mut slot = slots.pop_front()?;
    match slot.answer {
        Answer::Ready(response) => {
            settle(pipe, &response);
            Some(Ok((Some(response), slot._permits)))
        }
        Answer::Coming(ref mut future) => {
            // It is polled again with a real waker when it reaches the front.
            match future.poll_unpin(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(response)) => Some(Ok((response, slot._permits))),
                Poll::Ready(Err(closing)) => Some(Err(closing)),
                Poll::Pending => {
                    slots.push_front(slot);
                    None
                }
            }
        }
    }
}

/// Hands all pieces to the kernel.
async fn send(pipe: &Pipe, mut pieces: Vec<Bytes>) -> Result<(), Closing> {
    pieces.retain(|piece| !piece.is_empty());
    while !pieces.is_empty() {
        let (mut sent, rest) = if let [_] = pieces[..] {
            let piece = pieces.swap_remove(0);
            let BufResult(result, piece) = (&pipe.stream).write(piece).await;
            (result?, vec![piece])
        } else {
            let later = pieces.split_off(pieces.len().min(GATHER_PIECES));
            let BufResult(result, mut pieces) = (&pipe.stream).write_vectored(pieces).await;
            let sent = result?;
            pieces.extend(later);
            (sent, pieces)
        };
        if sent == 0 {
            return Err(Closing::Socket(std::io::ErrorKind::WriteZero.into()));
        }
        pipe.touch();
        pipe.context.responses.note_progress();
        pipe.shard.metrics.bytes_sent.add(sent as u64);
        pieces = rest;
        let mut whole = 0;
        for piece in &mut pieces {
            if sent < piece.len() {
                piece.advance(sent);
                break;
            }
            sent -= piece.len();
            whole += 1;
        }
        pieces.drain(..whole);
    }
    Ok(())
}
