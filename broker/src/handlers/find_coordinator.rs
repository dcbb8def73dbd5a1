//! FindCoordinator (versions 0 to 6): the broker that coordinates a consumer group. On a single broker that is this one, for every group.
//!
//! Offered ahead of the group APIs themselves because librdkafka takes it for the sign that a broker understands LZ4, and without it quietly sends
//! uncompressed. A client that wants to join a group learns from ApiVersions that it cannot, and says so. Transactional ids are refused as InitProducerId
//! refuses them, until transactions exist.

use ringlog_net::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use super::metadata::live_endpoint;
use crate::authorizer::{Operation, ResourceType};

/// Kinds of key.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// From this version on several keys are asked for at once (KIP-699).
const BATCHED_FROM: i16 = 4;
/// Most keys that are answered at once; what is beyond stays unanswered.
const KEYS_MAX: usize = 10_000;

/// Answers with a coordinator for each key.
pub async fn handle(
    context: &RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let here = this_broker(context);
    let find = |key: &Str| match check(context, request.key_type, key).and_then(|()| here.clone()) {
        Ok((host, port)) => Coordinator {
            key: key.clone(),
            node_id: context.shard.node_id(),
            host,
            port,
            ..Coordinator::default()
        },
        Err((error_code, reason)) => Coordinator {
            key: key.clone(),
            node_id: -1,
            port: -1,
            error_code,
            error_message: Some(Str::from_static(reason)),
            ..Coordinator::default()
        },
    };
    if context.version >= BATCHED_FROM {
        return FindCoordinatorResponse {
            coordinators: (request.coordinator_keys.iter().take(KEYS_MAX))
                .map(find)
                .collect(),
            ..FindCoordinatorResponse::default()
        };
    }
    let found = find(&request.key);
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..FindCoordinatorResponse::default()
    }
}

type Refusal = (ErrorCode, &'static str);

fn check(context: &RequestContext, key_type: i8, key: &str) -> Result<(), Refusal> {
    match key_type {
        GROUP => {}
        TRANSACTION => {
            return Err((
                ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
                "this broker does not serve transactions",
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
        true => Ok(()),
        false => Err((
            ErrorCode::GROUP_AUTHORIZATION_FAILED,
            "the group may not be described",
        )),
    }
}

/// Where clients of this listener reach this broker.
fn this_broker(context: &RequestContext) -> Result<(Str, i32), Refusal> {
    let image = context.shard.local_image();
    image
        .brokers()
        .find(|broker| broker.id == context.shard.node_id())
        .and_then(|broker| live_endpoint(broker, &context.connection.listener))
        .map(|endpoint| (endpoint.host.clone(), i32::from(endpoint.port)))
        .ok_or((
            ErrorCode::COORDINATOR_NOT_AVAILABLE,
            "this broker is not registered on the listener",
        ))
}
