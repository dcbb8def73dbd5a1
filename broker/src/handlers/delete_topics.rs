//! DeleteTopics (20), versions 1 to 6: by name, from version 6 also by id. The answer waits until every shard has let go of the logs.

use ringlog_net::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::RequestContext;
use crate::authorizer::{Operation, ResourceType};
use crate::metadata::decide;

/// The first version that knows TOPIC_DELETION_DISABLED.
const DELETION_DISABLED_FROM: i16 = 3;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let image = context.shard.image();
    let named = request
        .topic_names
        .into_iter()
        .map(|name| DeleteTopicState {
            name: Some(name),
            topic_id: Uuid::ZERO,
        });
    let mut topics: Vec<DeleteTopicState> = request.topics.into_iter().chain(named).collect();
    let mut forbidden = Vec::new();
    topics.retain(|topic| {
        let by_id = image.topic_by_id(topic.topic_id).map(|topic| &topic.name);
        let allowed = topic
            .name
            .as_ref()
            .or(by_id)
            .is_none_or(|name| context.authorize(Operation::Delete, ResourceType::Topic, name));
        if !allowed {
            let reason = Some(Str::from_static("deleting this topic is not allowed"));
            forbidden.push(result(topic, ErrorCode::TOPIC_AUTHORIZATION_FAILED, reason));
        }
        allowed
    });
    let asked = topics.clone();
    let request = DeleteTopicsRequest {
        topics,
        topic_names: Vec::new(),
        ..request
    };
    let decided = decide(&context.shard, request.timeout_ms, move |controller| {
        controller.delete_topics(&request)
    })
    .await;
    let mut response = decided.unwrap_or_else(|refusal| DeleteTopicsResponse {
        responses: asked
            .iter()
            .map(|topic| {
                result(
                    topic,
                    refusal.code,
                    Some(Str::from(refusal.message.as_str())),
                )
            })
            .collect(),
        ..DeleteTopicsResponse::default()
    });
    if context.version < DELETION_DISABLED_FROM {
        for topic in &mut response.responses {
            if topic.error_code == ErrorCode::TOPIC_DELETION_DISABLED {
                topic.error_code = ErrorCode::INVALID_REQUEST;
            }
        }
    }
    response.responses.extend(forbidden);
    response
}

fn result(
    topic: &DeleteTopicState,
    error_code: ErrorCode,
    error_message: Option<Str>,
) -> DeletableTopicResult {
    DeletableTopicResult {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        error_code,
        error_message,
    }
}
