//! InitProducerId (versions 0 to 5): a producer id for idempotent writes, or for a transactional id its newest id and epoch.
//!
//! Ids come from blocks reserved in the metadata log, so none is given out twice, not even after a crash. Without a transactional id every
//! request gets a fresh id, whatever it brings; with one, its coordinator decides, and ends what the producer before left open.

use ringlog_coordinator::transactions::TransactionReply;
use ringlog_net::ErrorCode;
use ringlog_net::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

use super::RequestContext;
use super::transactions::may_write;
use crate::authorizer::{Operation, ResourceType};

/// Answers with an id and an epoch.
pub async fn handle(
    context: &RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    if let Some(transactional_id) = request.transactional_id.clone() {
        return transactional(context, &transactional_id, request).await;
    }
    if !context.authorize(
        Operation::IdempotentWrite,
        ResourceType::Cluster,
        super::metadata::CLUSTER,
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

async fn transactional(
    context: &RequestContext,
    transactional_id: &str,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    if transactional_id.is_empty() {
        return refused(ErrorCode::INVALID_REQUEST);
    }
    if let Err(error) = may_write(context, transactional_id) {
        return refused(error);
    }
    let asked = context.ask_transaction(
        transactional_id,
        true,
        move |machine, caller, fresh, output| match fresh {
            Some(fresh) => machine.init_producer_id(caller, request, fresh, output),
            None => output.commands.reply(
                caller.token,
                TransactionReply::InitProducerId(refused(ErrorCode::COORDINATOR_NOT_AVAILABLE)),
            ),
        },
    );
    match asked.await {
        Ok(TransactionReply::InitProducerId(response)) => response,
        Ok(_) => refused(ErrorCode::UNKNOWN_SERVER_ERROR),
        Err(error) => refused(error),
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
