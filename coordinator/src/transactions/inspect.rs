//! Looking at transactions: DescribeTransactions and ListTransactions (KIP-664).

use ringlog_net::messages::describe_transactions::{TopicData, TransactionState as Described};
use ringlog_net::messages::list_transactions::TransactionState as Listed;
use ringlog_net::{ErrorCode, Str};

use super::reply::{TransactionCommands, TransactionReply};
use super::state::TransactionState;
use super::{Phase, TransactionCoordinator};
use crate::command::{Caller, Now};

/// What ListTransactions asks for. A field that is none, or empty, asks for everything.
#[derive(Clone, Copy, Default)]
pub struct TransactionFilter<'a> {
    /// In one of these states; those of the names that [`TransactionState::from_name`] knows. Some and empty matches nothing: only unknown names were given.
    pub states: Option<&'a [TransactionState]>,
    /// Of one of these producers.
    pub producer_ids: &'a [i64],
    /// Begun longer ago than this, in milliseconds.
    pub duration_ms: Option<i64>,
    /// With a transactional id that the request's pattern matches as a whole.
    pub matches: Option<&'a dyn Fn(&str) -> bool>,
}

impl TransactionCoordinator {
    /// Describes one transaction. Answered by [`TransactionReply::Described`]; topics that the client may not see are the host's to leave out.
    pub fn describe(&self, caller: &Caller, transactional_id: &Str, out: &mut TransactionCommands) {
        let described = TransactionReply::Described(self.described(transactional_id));
        out.commands.reply(caller.token, described);
    }

    fn described(&self, id: &Str) -> Described {
        let refused = |error_code| Described {
            error_code,
            transactional_id: id.clone(),
            ..Default::default()
        };
        if id.is_empty() {
            return refused(ErrorCode::INVALID_REQUEST);
        }
        match self.phase {
            Phase::Loading => return refused(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
            Phase::Resigned => return refused(ErrorCode::NOT_COORDINATOR),
            Phase::Active => {}
        }
        let Some(transaction) = self.transactions.get(id) else {
            return refused(ErrorCode::TRANSACTIONAL_ID_NOT_FOUND);
        };
        Described {
            error_code: ErrorCode::NONE,
            transactional_id: id.clone(),
            transaction_state: Str::from_static(transaction.state.name()),
            transaction_timeout_ms: transaction.timeout_ms,
            transaction_start_time_ms: transaction.start_ms,
            producer_id: transaction.producer_id,
            producer_epoch: transaction.producer_epoch,
            topics: transaction
                .partitions
                .topics()
                .map(|(topic, partitions)| TopicData {
                    topic: topic.clone(),
                    partitions: partitions.iter().copied().collect(),
                })
                .collect(),
        }
    }

    /// The transactions that a filter lets through, by ascending id. It may tell of a step that is not durable yet.
    ///
    /// # Errors
    /// COORDINATOR_LOAD_IN_PROGRESS before the partition is loaded, NOT_COORDINATOR after [`TransactionCoordinator::resign`].
    pub fn list(&self, now: Now, filter: &TransactionFilter<'_>) -> Result<Vec<Listed>, ErrorCode> {
        match self.phase {
            Phase::Loading => return Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
            Phase::Resigned => return Err(ErrorCode::NOT_COORDINATOR),
            Phase::Active => {}
        }
        let listed = self
            .transactions
            .iter()
            .filter(|(id, transaction)| {
                let age_ms = now.wall_ms.saturating_sub(transaction.start_ms);
                let ids = filter.producer_ids;
                filter
                    .states
                    .is_none_or(|states| states.contains(&transaction.state))
                    && (ids.is_empty() || ids.contains(&transaction.producer_id))
                    && filter.duration_ms.is_none_or(|duration| age_ms > duration)
                    && filter.matches.is_none_or(|matches| matches(id))
            })
            .map(|(id, transaction)| Listed {
                transactional_id: id.clone(),
                producer_id: transaction.producer_id,
                transaction_state: Str::from_static(transaction.state.name()),
            });
        Ok(listed.collect())
    }
}
