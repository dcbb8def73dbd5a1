//! What the handlers of group requests share.

use std::collections::HashSet;

use futures_util::future::join_all;
use ringlog_net::messages::{consumer_group_describe, delete_groups, describe_groups};
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

/// What one group of a request that names several is answered with.
pub(super) trait OfGroup: Default {
    /// The group's id and the error, to be filled in.
    fn head(&mut self) -> (&mut Str, &mut ErrorCode);
}

macro_rules! of_group {
    ($($answer:path),* $(,)?) => {
        $(impl OfGroup for $answer {
            fn head(&mut self) -> (&mut Str, &mut ErrorCode) {
                (&mut self.group_id, &mut self.error_code)
            }
        })*
    };
}

of_group!(
    consumer_group_describe::DescribedGroup,
    delete_groups::DeletableGroupResult,
    describe_groups::DescribedGroup,
);

/// Answers for each group that is named once and may be operated on, in their order.
pub(super) async fn for_each_group<Answer: OfGroup>(
    context: &RequestContext,
    operation: Operation,
    groups: Vec<Str>,
    ask: impl AsyncFn(Str) -> Result<Answer, ErrorCode>,
) -> Vec<Answer> {
    let mut named = Named::default();
    let ask = &ask;
    let each = groups.into_iter().map(|group_id| {
        let allowed = named.admit(&group_id);
        let allowed = allowed.and_then(|()| may(context, operation, &group_id));
        async move {
            let answer = match allowed {
                Ok(()) => ask(group_id.clone()).await,
                Err(error) => Err(error),
            };
            answer.unwrap_or_else(|error| {
                let mut refused = Answer::default();
                let (id, error_code) = refused.head();
                (*id, *error_code) = (group_id, error);
                refused
            })
        }
    });
    join_all(each).await
}

/// What can be done to a group (KIP-430).
const GROUP_OPERATIONS: &[Operation] = &[Operation::Read, Operation::Delete, Operation::Describe];

/// What this request's principal may do to a group, as a bit field (KIP-430).
pub(super) fn group_operations(context: &RequestContext, group_id: &str) -> i32 {
    super::metadata::operations(context, ResourceType::Group, group_id, GROUP_OPERATIONS)
}
