//! Who may commit and fetch the offsets of a consumer group: members in their epoch, and for single partitions also in the epoch in which they got them
//! (KIP-1251); anybody, as long as the group has no members.

use ringlog_net::{ErrorCode, Str, Uuid};

use super::group::ConsumerGroup;
use super::member::Member;

/// The first version of OffsetCommit that knows member epochs.
const MEMBER_EPOCH_FROM: i16 = 9;

/// A commit that is allowed, as a whole or partition by partition.
#[derive(Clone, Copy, Debug)]
pub struct CommitCheck<'a> {
    /// A member in an older epoch, and what it is told of partitions that it did not own in it.
    stale: Option<(&'a Member, i32, ErrorCode)>,
}

impl CommitCheck<'_> {
    /// Whether a partition's offset may be committed. Of a topic without an id it may not be in an older epoch.
    ///
    /// # Errors
    /// STALE_MEMBER_EPOCH or ILLEGAL_GENERATION.
    pub fn partition(&self, topic: &Uuid, partition: i32) -> Result<(), ErrorCode> {
        let Some((member, epoch, refusal)) = self.stale else {
            return Ok(());
        };
        let current = &member.current;
        let since = [&current.assigned, &current.revoking]
            .into_iter()
            .find_map(|owned| owned.get(topic)?.get(&partition));
        match since {
            Some(since) if epoch >= *since => Ok(()),
            _ => Err(refusal),
        }
    }
}

/// What a member is told that is not in its epoch.
fn wrong_epoch(member: &Member, transactional: bool) -> ErrorCode {
    // TxnOffsetCommit knows no member epochs, only generations.
    if member.is_classic() || transactional {
        ErrorCode::ILLEGAL_GENERATION
    } else {
        ErrorCode::STALE_MEMBER_EPOCH
    }
}

impl ConsumerGroup {
    /// Whether offsets may be committed, in OffsetCommit or (`transactional`) TxnOffsetCommit.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, UNSUPPORTED_VERSION, STALE_MEMBER_EPOCH or ILLEGAL_GENERATION.
    pub fn check_commit(
        &self,
        member_id: &str,
        instance_id: Option<&Str>,
        member_epoch: i32,
        transactional: bool,
        version: i16,
    ) -> Result<CommitCheck<'_>, ErrorCode> {
        let anonymous = member_id.is_empty() && instance_id.is_none() && member_epoch == -1;
        if (member_epoch < 0 && self.is_empty()) || (transactional && anonymous) {
            return Ok(CommitCheck { stale: None });
        }
        let member = self
            .members
            .get(member_id)
            .ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        if !transactional && !member.is_classic() && version < MEMBER_EPOCH_FROM {
            return Err(ErrorCode::UNSUPPORTED_VERSION);
        }
        let refusal = wrong_epoch(member, transactional);
        match member_epoch.cmp(&member.current.epoch) {
            std::cmp::Ordering::Equal => Ok(CommitCheck { stale: None }),
            std::cmp::Ordering::Greater => Err(refusal),
            std::cmp::Ordering::Less => Ok(CommitCheck {
                stale: Some((member, member_epoch, refusal)),
            }),
        }
    }

    /// Whether offsets may be fetched.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, STALE_MEMBER_EPOCH or ILLEGAL_GENERATION.
    pub fn check_fetch(&self, member_id: Option<&str>, member_epoch: i32) -> Result<(), ErrorCode> {
        if member_id.is_none() && member_epoch < 0 {
            return Ok(());
        }
        let member = member_id
            .and_then(|id| self.members.get(id))
            .ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
        if member_epoch == member.current.epoch {
            Ok(())
        } else {
            Err(wrong_epoch(member, false))
        }
    }
}
