//! Changing a group's protocol while it has members (KIP-848's online migration), and requests of the classic protocol to consumer groups.
//!
//! A classic group becomes a consumer group when a consumer joins it with a heartbeat ([`upgrade`]), and a consumer group becomes classic when its last member
//! goes that speaks the consumer protocol ([`downgrade`]); `group.consumer.migration.policy` says which of the two is allowed. Either is one batch of records: the
//! tombstones of what the group was, and what it is now. What a member may own stays known over both, so that nobody else is given it.

mod downgrade;
mod requests;
#[cfg(test)]
mod tests;
mod upgrade;
