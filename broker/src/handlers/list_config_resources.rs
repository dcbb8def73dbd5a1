//! ListConfigResources (74), versions 0 and 1: the resources that can have a configuration. Version 0 knows only client metrics
//! subscriptions (KIP-1000), of which there are none.

use ringlog_net::messages::list_config_resources::{
    ConfigResource, ListConfigResourcesRequest, ListConfigResourcesResponse,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use crate::authorizer::{Operation, ResourceType};
use crate::controller::configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};

/// What may be asked for; of the last three kinds there are never any here.
const KINDS: &[i8] = &[TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let refuse = |error_code| ListConfigResourcesResponse {
        error_code,
        ..ListConfigResourcesResponse::default()
    };
    if !context.authorize(
        Operation::DescribeConfigs,
        ResourceType::Cluster,
        super::metadata::CLUSTER,
    ) {
        return refuse(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
    }
    let kinds = match context.version {
        0 => &[CLIENT_METRICS],
        _ if request.resource_types.is_empty() => KINDS,
        _ => request.resource_types.as_slice(),
    };
    if kinds.iter().any(|kind| !KINDS.contains(kind)) {
        return refuse(ErrorCode::UNSUPPORTED_VERSION);
    }
    let image = context.shard.image();
    let mut config_resources = Vec::new();
    if kinds.contains(&TOPIC) {
        let topics = image.topics().map(|topic| ConfigResource {
            resource_name: topic.name.clone(),
            resource_type: TOPIC,
        });
        config_resources.extend(topics);
    }
    if kinds.contains(&BROKER) {
        config_resources.extend(image.brokers().map(|broker| ConfigResource {
            resource_name: Str::from(broker.id.to_string()),
            resource_type: BROKER,
        }));
    }
    ListConfigResourcesResponse {
        config_resources,
        ..ListConfigResourcesResponse::default()
    }
}
