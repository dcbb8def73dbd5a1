//! FindCoordinator (versions 0 to 6): the broker that coordinates a consumer group or a transactional id, which is the leader of its partition of
//! `__consumer_offsets` or `__transaction_state`. The topic is made when somebody first asks.

use ringlog_net::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use super::metadata::live_endpoint;
use crate::authorizer::{Operation, ResourceType};
use crate::coordinator::topics::Internal;

/// Kinds of key.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// From this version on several keys are asked for at once (KIP-699).
const BATCHED_FROM: i16 = 4;
/// Most keys that are looked for in one request; those beyond are refused, which takes no more than a few bytes for each.
const KEYS_MAX: usize = 10_000;

/// Answers with a coordinator for each key.
pub async fn handle(
    context: &RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if context.version >= BATCHED_FROM {
        let mut coordinators = Vec::new();
        for (at, key) in request.coordinator_keys.into_iter().enumerate() {
            coordinators.push(match at < KEYS_MAX {
                true => find(context, request.key_type, key).await,
                false => refused(key, ErrorCode::INVALID_REQUEST, None),
            });
        }
        return FindCoordinatorResponse {
            coordinators,
            ..FindCoordinatorResponse::default()
        };
    }
    let found = find(context, request.key_type, request.key).await;
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..FindCoordinatorResponse::default()
    }
}

async fn find(context: &RequestContext, key_type: i8, key: Str) -> Coordinator {
    let found = match check(context, key_type, &key) {
        Ok(topic) => leader(context, topic, &key).await,
        Err(refusal) => Err(refusal),
    };
    match found {
        Ok((node_id, host, port)) => Coordinator {
            key,
            node_id,
            host,
            port,
            ..Coordinator::default()
        },
        Err((error_code, reason)) => refused(key, error_code, Some(Str::from_static(reason))),
    }
}

fn refused(key: Str, error_code: ErrorCode, error_message: Option<Str>) -> Coordinator {
    Coordinator {
        key,
        node_id: -1,
        port: -1,
        error_code,
        error_message,
        ..Coordinator::default()
    }
}

type Refusal = (ErrorCode, &'static str);

fn check(context: &RequestContext, key_type: i8, key: &str) -> Result<Internal, Refusal> {
    match key_type {
        GROUP => {}
        TRANSACTION => {
            let may = context.authorize(Operation::Describe, ResourceType::TransactionalId, key);
            return may.then_some(Internal::TransactionState).ok_or((
                ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
                "the transactional id may not be described",
            ));
        }
        _ => {
            return Err((
                ErrorCode::INVALID_REQUEST,
                "key types are 0 (groups) and 1 (transactions)",
            ));
        }
    }
    match context.authorize(Operation::Describe, ResourceType::Group, key) {
        true => Ok(Internal::ConsumerOffsets),
        false => Err((
            ErrorCode::GROUP_AUTHORIZATION_FAILED,
            "the group may not be described",
        )),
    }
}

/// The leader of a key's partition, and where clients of this listener reach it.
async fn leader(
    context: &RequestContext,
    topic: Internal,
    key: &str,
) -> Result<(i32, Str, i32), Refusal> {
    let none = (
        ErrorCode::COORDINATOR_NOT_AVAILABLE,
        "the partition that the coordinator keeps its state in has no leader on this listener",
    );
    let shard = &context.shard;
    let made = shard.ensure_internal(topic).await;
    made.map_err(|error| (error, "the coordinators' topic could not be made"))?;
    let leader = shard.leader_of_kept(topic, key).ok_or(none)?;
    shard.with_image(|image| {
        let broker = image.broker(leader).ok_or(none)?;
        let endpoint = live_endpoint(broker, &context.connection.listener).ok_or(none)?;
        Ok((leader, endpoint.host.clone(), i32::from(endpoint.port)))
    })
}
