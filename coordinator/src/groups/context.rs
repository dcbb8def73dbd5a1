//! What a group is handed with an event besides the event: the time, the limits, the timers, and where to put what comes of it.

use ringlog_net::ErrorCode;
use ringlog_net::messages::join_group::JoinGroupResponse;
use ringlog_net::messages::sync_group::SyncGroupResponse;
use ringlog_net::{Bytes, Str};

use super::config::GroupConfig;
use super::reply::GroupReply;
use super::stored::batch_bytes;
use super::timers::Timers;
use crate::{Caller, Commands, Now, Record, Token};

/// The surroundings of one event.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a GroupConfig,
    pub(crate) timers: &'a mut Timers,
    pub(crate) now: Now,
    pub(crate) out: &'a mut Commands<GroupReply>,
    /// Bytes that members of this coordinator may still take.
    pub(crate) member_bytes_free: usize,
}

impl Context<'_> {
    /// The end of a time that begins now; a negative one is over at once.
    pub(crate) fn deadline(&self, after_ms: i32) -> u64 {
        let after_ms = u64::try_from(after_ms).unwrap_or(0);
        self.now.monotonic_ms.saturating_add(after_ms)
    }

    /// Appends a record if the event's batch may still grow by it.
    pub(crate) fn append(&mut self, record: Record) -> bool {
        let bytes = bytes_of(&self.out.records) + batch_bytes(&record);
        let fits = bytes <= self.config.batch_bytes_max;
        if fits {
            self.out.records.push(record);
        }
        fits
    }
}

/// What records take in a batch, at most, in bytes.
pub(crate) fn bytes_of(records: &[Record]) -> usize {
    records.iter().map(batch_bytes).sum()
}

/// A request of a member that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) token: Token,
    pub(crate) version: i16,
}

impl From<&Caller> for Waiting {
    fn from(caller: &Caller) -> Self {
        Self {
            token: caller.token,
            version: caller.version,
        }
    }
}

/// A JoinGroup that fails.
pub(crate) fn join_error(version: i16, member_id: Str, error: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: error,
        member_id,
        protocol_name: protocol_name(version, None),
        ..JoinGroupResponse::default()
    }
}

/// The protocol's name as a version of JoinGroup can say that there is none.
pub(crate) fn protocol_name(version: i16, name: Option<Str>) -> Option<Str> {
    if version < 7 {
        Some(name.unwrap_or_default())
    } else {
        name
    }
}

/// A SyncGroup that fails.
pub(crate) fn sync_error(error: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse {
        error_code: error,
        ..SyncGroupResponse::default()
    }
}

/// A copy that does not hold the frame it came in.
pub(crate) fn detached(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
