//! EndTxn (versions 0 to 5): commits or aborts a transaction. Answered when the decision is durable; partitions learn of it right after.

use ringlog_coordinator::transactions::TransactionReply;
use ringlog_net::ErrorCode;
use ringlog_net::messages::end_txn::{EndTxnRequest, EndTxnResponse};

use super::RequestContext;
use super::transactions::may_write;

/// See the module.
pub async fn handle(context: &RequestContext, request: EndTxnRequest) -> EndTxnResponse {
    let refused = |error_code| EndTxnResponse {
        error_code,
        ..EndTxnResponse::default()
    };
    if let Err(error) = may_write(context, &request.transactional_id) {
        return refused(error);
    }
    let transactional_id = request.transactional_id.detached();
    let asked = context.ask_transaction(
        &transactional_id,
        false,
        move |machine, caller, _, output| machine.end_txn(caller, request, output),
    );
    match asked.await {
        Ok(TransactionReply::EndTxn(response)) => response,
        Ok(_) => refused(ErrorCode::UNKNOWN_SERVER_ERROR),
        Err(error) => refused(error),
    }
}
