//! What of a log is on the medium, what of it consumers may see, and who waits for either.
//!
//! Shared between a log and the journal, which advances it. The high watermark is kept apart from the flushed offset for the sake of replication and never passes
//! it. Waking costs as much as there is to wake.

use std::cell::{Cell, RefCell};
use std::fmt::Display;

use super::LogError;
use super::stable::UnstableOffsets;
use crate::wait::OffsetWaiters;

/// A place in a log: a segment and a position in it. Places compare in log order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    /// Base offset of the segment.
    pub segment: i64,
    /// Bytes from its start.
    pub position: u64,
}

/// See the module.
pub(crate) struct FlushState {
    flushed: Cell<i64>,
    high_watermark: Cell<i64>,
    place: Cell<Place>,
    flush_waiters: OffsetWaiters,
    watermark_waiters: OffsetWaiters,
    /// What keeps the last stable offset below the high watermark.
    pub unstable: RefCell<UnstableOffsets>,
    stable_waiters: OffsetWaiters,
    closed: RefCell<Option<LogError>>,
    truncations: Cell<u64>,
}

impl FlushState {
    /// Everything before `offset`, which lies at `place`, is on the medium.
    pub fn new(offset: i64, place: Place) -> Self {
        Self {
            flushed: Cell::new(offset),
            high_watermark: Cell::new(offset),
            place: Cell::new(place),
            flush_waiters: OffsetWaiters::default(),
            watermark_waiters: OffsetWaiters::default(),
            unstable: RefCell::default(),
            stable_waiters: OffsetWaiters::default(),
            closed: RefCell::new(None),
            truncations: Cell::new(0),
        }
    }

    /// The offset before which everything is on the medium.
    pub fn flushed(&self) -> i64 {
        self.flushed.get()
    }

    /// Where that is.
    pub fn place(&self) -> Place {
        self.place.get()
    }

    /// The offset before which consumers may read.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.get()
    }

    /// The offset before which every transaction is decided.
    pub fn last_stable_offset(&self) -> i64 {
        let high_watermark = self.high_watermark.get();
        let unstable = self.unstable.borrow().first();
        unstable.map_or(high_watermark, |first| first.min(high_watermark))
    }

    /// How often the log was truncated.
    pub fn truncations(&self) -> u64 {
        self.truncations.get()
    }

    /// Everything before `offset`, which lies at `place`, has reached the medium.
    pub fn advance(&self, offset: i64, place: Place) {
        if self.closed.borrow().is_some() {
            return;
        }
        debug_assert!(offset >= self.flushed.get());
        self.flushed.set(offset);
        self.place.set(place);
        self.flush_waiters.reached(offset);
        // A single replica: what is flushed is committed.
        self.high_watermark.set(offset);
        assert!(
            self.high_watermark.get() <= self.flushed.get(),
            "the high watermark never passes the flushed offset"
        );
        self.watermark_waiters.reached(offset);
        let unstable = self.unstable.borrow_mut().settle(offset);
        self.stable_waiters
            .reached(unstable.map_or(offset, |first| first.min(offset)));
    }

    /// The open transactions were read back, and everything found is on the medium.
    pub fn reset_unstable(&self, open: impl Iterator<Item = i64>, now_ms: i64) {
        self.unstable.borrow_mut().reset(open, now_ms);
        self.wake_stable();
    }

    /// Lets all who wait for the last stable offset look again.
    pub fn wake_stable(&self) {
        self.stable_waiters.reached(i64::MAX);
    }

    /// The log now ends at `offset`, which lies at `place`; those who waited for more are told.
    pub fn truncate(&self, offset: i64, place: Place) {
        self.flushed.set(offset);
        self.place.set(place);
        self.high_watermark
            .set(self.high_watermark.get().min(offset));
        self.truncations.set(self.truncations.get() + 1);
        self.flush_waiters.reached(i64::MAX);
        self.watermark_waiters.reached(i64::MAX);
        self.wake_stable();
    }

    /// The log answers no more; the first reason stays.
    pub fn close(&self, reason: LogError) {
        self.closed.borrow_mut().get_or_insert(reason);
        self.flush_waiters.reached(i64::MAX);
        self.watermark_waiters.reached(i64::MAX);
        self.wake_stable();
    }

    /// Why the log does not answer, if so.
    pub fn closed(&self) -> Option<LogError> {
        self.closed.borrow().clone()
    }

    /// Resolves when the log answers no more.
    pub async fn wait_closed(&self) -> LogError {
        self.watermark_waiters
            .wait(i64::MAX, || self.closed())
            .await
    }

    /// Resolves when everything before `offset` is on the medium.
    pub async fn wait_flushed(&self, offset: i64, log: &impl Display) -> Result<(), LogError> {
        let truncations = self.truncations.get();
        self.flush_waiters
            .wait(offset, || {
                if let Some(reason) = self.closed() {
                    return Some(Err(reason));
                }
                if self.truncations.get() != truncations {
                    return Some(Err(LogError::Truncated {
                        log: log.to_string(),
                        end_offset: self.flushed.get(),
                    }));
                }
                (self.flushed.get() >= offset).then_some(Ok(()))
            })
            .await
    }

    /// Resolves when the high watermark lies beyond `offset`, or the log was truncated.
    pub async fn wait_visible(&self, offset: i64) -> Result<(), LogError> {
        let high_watermark = || self.high_watermark.get();
        self.wait_beyond(offset, &self.watermark_waiters, high_watermark)
            .await
    }

    /// Resolves when `stable`, the last stable offset, lies beyond `offset`, or the log was truncated.
    pub async fn wait_stable(
        &self,
        offset: i64,
        stable: impl Fn() -> i64 + Unpin,
    ) -> Result<(), LogError> {
        self.wait_beyond(offset, &self.stable_waiters, stable).await
    }

    async fn wait_beyond(
        &self,
        offset: i64,
        waiters: &OffsetWaiters,
        reached: impl Fn() -> i64 + Unpin,
    ) -> Result<(), LogError> {
        let truncations = self.truncations.get();
        waiters
            .wait(offset.saturating_add(1), || {
                if let Some(reason) = self.closed() {
                    return Some(Err(reason));
                }
                (reached() > offset || self.truncations.get() != truncations).then_some(Ok(()))
            })
            .await
    }
}
