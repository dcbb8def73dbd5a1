//! AddOffsetsToTxn (versions 0 to 4): the offsets of a group become part of a transaction.

use ringlog_coordinator::transactions::TransactionReply;
use ringlog_net::ErrorCode;
use ringlog_net::messages::add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use super::RequestContext;
use super::groups::may_read;
use super::transactions::may_write;
use crate::coordinator::topics::Internal;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    match add(context, request).await {
        Ok(response) => response,
        Err(error_code) => AddOffsetsToTxnResponse {
            error_code,
            ..AddOffsetsToTxnResponse::default()
        },
    }
}

async fn add(
    context: &RequestContext,
    request: AddOffsetsToTxnRequest,
) -> Result<AddOffsetsToTxnResponse, ErrorCode> {
    may_write(context, &request.transactional_id)?;
    may_read(context, &request.group_id)?;
    let shard = &context.shard;
    shard.ensure_internal(Internal::ConsumerOffsets).await?;
    let kept = shard.kept(Internal::ConsumerOffsets, &request.group_id)?;
    let transactional_id = request.transactional_id.detached();
    let asked = context.ask_transaction(
        &transactional_id,
        false,
        move |machine, caller, _, output| {
            machine.add_offsets(caller, request, kept.partition, output);
        },
    );
    match asked.await? {
        TransactionReply::AddOffsetsToTxn(response) => Ok(response),
        _ => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
    }
}
