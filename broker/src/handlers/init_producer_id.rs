//! InitProducerId (versions 0 to 5): a producer id for idempotent writes.
//!
//! Ids come from blocks reserved in the metadata log, so none is given out twice, not even after a crash. Without a transactional id every
//! request gets a fresh id, whatever it brings. Transactional ids are refused until transactions exist.

use ringlog_net::ErrorCode;
use ringlog_net::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

use super::RequestContext;
use crate::authorizer::{Operation, ResourceType};

/// Answers with an id and an epoch.
pub async fn handle(
    context: &RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    if let Some(transactional_id) = &request.transactional_id {
        let error = match transactional_id.is_empty() {
            true => ErrorCode::INVALID_REQUEST,
            false => ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        };
        return refused(error);
    }
    if !context.authorize(
        Operation::IdempotentWrite,
        ResourceType::Cluster,
        "kafka-cluster",
    ) {
        return refused(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
    }
    match context.shard.next_producer_id().await {
        Ok(producer_id) => InitProducerIdResponse {
            producer_id,
            producer_epoch: 0,
            ..Default::default()
        },
        Err(error) => {
            tracing::warn!(%error, "no producer id could be reserved");
            refused(ErrorCode::COORDINATOR_NOT_AVAILABLE)
        }
    }
}

fn refused(error_code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code,
        producer_id: -1,
        producer_epoch: -1,
        ..Default::default()
    }
}
