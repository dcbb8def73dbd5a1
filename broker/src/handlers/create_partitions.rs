//! CreatePartitions (37), versions 0 to 3: topics grow, never shrink. The answer waits until every shard has the new logs.

use ringlog_net::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopicResult,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use crate::authorizer::{Operation, ResourceType};
use crate::metadata::decide;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    mut request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut forbidden = Vec::new();
    request.topics.retain(|topic| {
        let allowed = context.authorize(Operation::Alter, ResourceType::Topic, &topic.name);
        if !allowed {
            let reason = Some(Str::from_static("changing this topic is not allowed"));
            forbidden.push(result(
                topic.name.clone(),
                ErrorCode::TOPIC_AUTHORIZATION_FAILED,
                reason,
            ));
        }
        allowed
    });
    let names: Vec<Str> = request
        .topics
        .iter()
        .map(|topic| topic.name.clone())
        .collect();
    let timeout_ms = request.timeout_ms;
    let decided = decide(&context.shard, timeout_ms, move |controller| {
        controller.create_partitions(&request)
    })
    .await;
    let mut response = decided.unwrap_or_else(|refusal| CreatePartitionsResponse {
        results: names
            .into_iter()
            .map(|name| {
                result(
                    name,
                    refusal.code,
                    Some(Str::from(refusal.message.as_str())),
                )
            })
            .collect(),
        ..CreatePartitionsResponse::default()
    });
    response.results.extend(forbidden);
    response
}

fn result(
    name: Str,
    error_code: ErrorCode,
    error_message: Option<Str>,
) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult {
        name,
        error_code,
        error_message,
    }
}
