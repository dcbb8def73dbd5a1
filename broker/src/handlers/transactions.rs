//! What the handlers of transactional requests share.

use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use crate::authorizer::{Operation, ResourceType};

/// Whether who asks may write with a transactional id.
///
/// # Errors
/// TRANSACTIONAL_ID_AUTHORIZATION_FAILED.
pub(super) fn may_write(context: &RequestContext, transactional_id: &str) -> Result<(), ErrorCode> {
    may(context, Operation::Write, transactional_id)
}

/// Whether who asks may look at a transactional id or write with it.
///
/// # Errors
/// TRANSACTIONAL_ID_AUTHORIZATION_FAILED.
pub(super) fn may(
    context: &RequestContext,
    operation: Operation,
    transactional_id: &str,
) -> Result<(), ErrorCode> {
    match context.authorize(operation, ResourceType::TransactionalId, transactional_id) {
        true => Ok(()),
        false => Err(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
    }
}

/// Whether a partition is there and may be written to.
///
/// # Errors
/// UNKNOWN_TOPIC_OR_PARTITION or TOPIC_AUTHORIZATION_FAILED.
pub(super) fn may_write_to(
    context: &RequestContext,
    topic: &Str,
    partition: i32,
) -> Result<(), ErrorCode> {
    if !context.authorize(Operation::Write, ResourceType::Topic, topic) {
        return Err(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    }
    let shard = &context.shard;
    let known = shard.with_image(|image| image.has_partition(topic, partition));
    known
        .then_some(())
        .ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
}
