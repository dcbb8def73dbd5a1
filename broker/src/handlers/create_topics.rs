//! CreateTopics (19), versions 2 to 7: the controller decides, and the answer waits until every shard has the new logs.

use ringlog_net::messages::create_topics::{
    CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use crate::authorizer::{Operation, ResourceType};
use crate::metadata::decide;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    mut request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let on_cluster = context.authorize(
        Operation::Create,
        ResourceType::Cluster,
        super::metadata::CLUSTER,
    );
    let mut forbidden = Vec::new();
    request.topics.retain(|topic| {
        let allowed =
            on_cluster || context.authorize(Operation::Create, ResourceType::Topic, &topic.name);
        if !allowed {
            let reason = Some(Str::from_static("creating this topic is not allowed"));
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
    let decided = decide(&context.shard, request.timeout_ms, move |controller| {
        controller.create_topics(&request)
    })
    .await;
    let mut response = decided.unwrap_or_else(|refusal| CreateTopicsResponse {
        topics: names
            .into_iter()
            .map(|name| {
                result(
                    name,
                    refusal.code,
                    Some(Str::from(refusal.message.as_str())),
                )
            })
            .collect(),
        ..CreateTopicsResponse::default()
    });
    for topic in &mut response.topics {
        if topic.error_code.is_none()
            && !context.authorize(Operation::DescribeConfigs, ResourceType::Topic, &topic.name)
        {
            topic.configs = None;
            topic.num_partitions = -1;
            topic.replication_factor = -1;
            topic.topic_config_error_code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
        }
    }
    response.topics.extend(forbidden);
    response
}

fn result(name: Str, error_code: ErrorCode, error_message: Option<Str>) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code,
        error_message,
        ..CreatableTopicResult::default()
    }
}
