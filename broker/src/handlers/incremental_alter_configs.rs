//! IncrementalAlterConfigs (44), versions 0 to 1: set, delete, append and subtract (KIP-339). On topics and brokers; the controller decides.

use ringlog_net::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use crate::authorizer::{Operation, ResourceType};
use crate::controller::configs::TOPIC;
use crate::metadata::decide;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    mut request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut forbidden = Vec::new();
    request.resources.retain(|resource| {
        let refusal = forbids(context, resource);
        if let Some((code, reason)) = refusal {
            forbidden.push(result(
                resource.resource_type,
                &resource.resource_name,
                code,
                reason,
            ));
        }
        refusal.is_none()
    });
    let asked: Vec<(i8, Str)> = request
        .resources
        .iter()
        .map(|resource| (resource.resource_type, resource.resource_name.clone()))
        .collect();
    let decided = decide(&context.shard, 0, move |controller| {
        controller.incremental_alter_configs(&request)
    })
    .await;
    let mut response = decided.unwrap_or_else(|refusal| IncrementalAlterConfigsResponse {
        responses: asked
            .iter()
            .map(|(kind, name)| result(*kind, name, refusal.code, &refusal.message))
            .collect(),
        ..IncrementalAlterConfigsResponse::default()
    });
    response.responses.extend(forbidden);
    response
}

fn forbids(
    context: &RequestContext,
    resource: &AlterConfigsResource,
) -> Option<(ErrorCode, &'static str)> {
    let (kind, name, code) = match resource.resource_type {
        TOPIC => (
            ResourceType::Topic,
            resource.resource_name.as_str(),
            ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        ),
        _ => (
            ResourceType::Cluster,
            super::metadata::CLUSTER,
            ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
        ),
    };
    let allowed = context.authorize(Operation::AlterConfigs, kind, name);
    (!allowed).then_some((code, "changing this configuration is not allowed"))
}

fn result(
    resource_type: i8,
    name: &Str,
    error_code: ErrorCode,
    reason: &str,
) -> AlterConfigsResourceResponse {
    let error_message = Some(Str::from(reason));
    AlterConfigsResourceResponse {
        error_code,
        error_message,
        resource_type,
        resource_name: name.clone(),
    }
}
