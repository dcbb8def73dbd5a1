//! What the handlers of group requests share.

use std::collections::HashSet;

use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use crate::authorizer::{Operation, ResourceType};

/// Most groups or transactional ids that one request may name; those beyond it are refused.
const NAMES_MAX: usize = 10_000;

/// What a request has named so far: each once, for a few bytes that name a group ask for all that it holds.
#[derive(Default)]
pub(super) struct Named(HashSet<Str>);

impl Named {
    /// Takes a name in.
    ///
    /// # Errors
    /// INVALID_REQUEST when it was named before, or is one too many.
    pub(super) fn admit(&mut self, name: &Str) -> Result<(), ErrorCode> {
        let new = self.0.len() < NAMES_MAX && self.0.insert(name.clone());
        new.then_some(()).ok_or(ErrorCode::INVALID_REQUEST)
    }
}

/// Whether who asks may take part in a group.
///
/// # Errors
/// GROUP_AUTHORIZATION_FAILED.
pub(super) fn may_read(context: &RequestContext, group_id: &str) -> Result<(), ErrorCode> {
    may(context, Operation::Read, group_id)
}

/// Whether a group may be looked at or changed.
///
/// # Errors
/// GROUP_AUTHORIZATION_FAILED.
pub(super) fn may(
    context: &RequestContext,
    operation: Operation,
    group_id: &str,
) -> Result<(), ErrorCode> {
    match context.authorize(operation, ResourceType::Group, group_id) {
        true => Ok(()),
        false => Err(ErrorCode::GROUP_AUTHORIZATION_FAILED),
    }
}

/// What can be done to a group (KIP-430).
const GROUP_OPERATIONS: &[Operation] = &[Operation::Read, Operation::Delete, Operation::Describe];

/// What this request's principal may do to a group, as a bit field (KIP-430).
pub(super) fn group_operations(context: &RequestContext, group_id: &str) -> i32 {
    super::metadata::operations(context, ResourceType::Group, group_id, GROUP_OPERATIONS)
}
