//! ListTransactions (versions 0 to 2): the transactional ids that this broker coordinates, filtered by state, producer, age and pattern (KIP-664, 994, 1152).

use std::rc::Rc;

use futures_util::future::join_all;
use regex::{Regex, RegexBuilder};
use ringlog_coordinator::transactions::{TransactionFilter, TransactionState as State};
use ringlog_net::ErrorCode;
use ringlog_net::messages::list_transactions::{
    ListTransactionsRequest, ListTransactionsResponse, TransactionState,
};

use super::RequestContext;
use super::transactions::may;
use crate::authorizer::Operation;
use crate::shard::Shard;

/// Most memory that a pattern's automaton may take, in bytes.
const PATTERN_BYTES_MAX: usize = 256 << 10;

/// What is asked for, as it travels to the shards.
#[derive(Clone)]
struct Wanted {
    states: Option<Vec<State>>,
    producer_ids: Vec<i64>,
    duration_ms: Option<i64>,
    pattern: Option<Regex>,
}

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let mut response = ListTransactionsResponse::default();
    let mut states = Vec::new();
    for name in &request.state_filters {
        match State::from_name(name) {
            Some(state) => states.push(state),
            None => response.unknown_state_filters.push(name.clone()),
        }
    }
    let pattern = match request.transactional_id_pattern.as_deref() {
        None | Some("") => None,
        Some(pattern) => match whole(pattern) {
            Ok(pattern) => Some(pattern),
            Err(_) => {
                response.error_code = ErrorCode::INVALID_REGULAR_EXPRESSION;
                return response;
            }
        },
    };
    let wanted = Wanted {
        states: (!request.state_filters.is_empty()).then_some(states),
        producer_ids: request.producer_id_filters,
        duration_ms: (request.duration_filter >= 0).then_some(request.duration_filter),
        pattern,
    };
    let shard = &context.shard;
    let each = (0..shard.shards).map(|index| {
        let wanted = wanted.clone();
        shard.on_shard(index, move |shard| async move { list(&shard, &wanted) })
    });
    for listed in join_all(each).await {
        match listed.unwrap_or(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE)) {
            Ok(states) => response.transaction_states.extend(states),
            Err(error) => response.error_code = error,
        }
    }
    response
        .transaction_states
        .retain(|state| may(context, Operation::Describe, &state.transactional_id).is_ok());
    response
}

/// A pattern that must match all of an id.
fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(PATTERN_BYTES_MAX)
        .build()
}

fn list(shard: &Rc<Shard>, wanted: &Wanted) -> Result<Vec<TransactionState>, ErrorCode> {
    let matches = |id: &str| {
        wanted
            .pattern
            .as_ref()
            .is_none_or(|pattern| pattern.is_match(id))
    };
    let filter = TransactionFilter {
        states: wanted.states.as_deref(),
        producer_ids: &wanted.producer_ids,
        duration_ms: wanted.duration_ms,
        matches: wanted
            .pattern
            .is_some()
            .then_some(&matches as &dyn Fn(&str) -> bool),
    };
    let now = crate::coordinator::host::now(shard);
    let mut states = Vec::new();
    for host in shard.coordinators.transactions() {
        states.extend(host.look(|machine| machine.list(now, &filter))??);
    }
    Ok(states)
}
