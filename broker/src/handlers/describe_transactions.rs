//! DescribeTransactions (version 0): how transactions stand (KIP-664). Topics that who asks may not see are left out.

use futures_util::future::join_all;
use ringlog_coordinator::transactions::TransactionReply;
use ringlog_net::messages::describe_transactions::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, TransactionState,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use super::groups::Named;
use super::transactions::may;
use crate::authorizer::{Operation, ResourceType};

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let mut named = Named::default();
    let states = request.transactional_ids.into_iter().map(|id| {
        let admitted = named.admit(&id);
        async move {
            match admitted {
                Ok(()) => describe(context, id).await,
                Err(error) => refused(id, error),
            }
        }
    });
    DescribeTransactionsResponse {
        transaction_states: join_all(states).await,
        ..DescribeTransactionsResponse::default()
    }
}

async fn describe(context: &RequestContext, transactional_id: Str) -> TransactionState {
    if let Err(error) = may(context, Operation::Describe, &transactional_id) {
        return refused(transactional_id, error);
    }
    let asked = transactional_id.detached();
    let asked = context.ask_transaction(
        &transactional_id,
        false,
        move |machine, caller, _, output| machine.describe(caller, &asked, output),
    );
    match asked.await {
        Ok(TransactionReply::Described(mut state)) => {
            state.topics.retain(|topic| {
                context.authorize(Operation::Describe, ResourceType::Topic, &topic.topic)
            });
            state
        }
        Ok(_) => refused(transactional_id, ErrorCode::UNKNOWN_SERVER_ERROR),
        Err(error) => refused(transactional_id, error),
    }
}

fn refused(transactional_id: Str, error_code: ErrorCode) -> TransactionState {
    TransactionState {
        error_code,
        transactional_id,
        ..TransactionState::default()
    }
}
