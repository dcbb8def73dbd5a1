//! From the decision to the end: markers asked for, reported, and taken up again by the next coordinator.

use ringlog_net::Str;

use super::reply::{Decision, MarkersToWrite, TransactionCommands};
use super::state::TransactionState;
use super::{Phase, TransactionCoordinator};
use crate::command::Now;

impl TransactionCoordinator {
    /// All records have been replayed: requests are taken from now on, and what was found decided is carried out.
    pub fn loaded(&mut self, now: Now, out: &mut TransactionCommands) {
        if self.phase != Phase::Loading {
            return;
        }
        self.phase = Phase::Active;
        let transactions = std::mem::take(&mut self.transactions);
        let mut prepared = Vec::new();
        for (id, mut transaction) in transactions {
            transaction.deadline_ms = match transaction.state {
                TransactionState::Ongoing => {
                    // A clock that went back makes it young, not its deadline far.
                    let age_ms = now.wall_ms.saturating_sub(transaction.start_ms);
                    let age_ms = u64::try_from(age_ms).unwrap_or(0);
                    transaction.deadline_from(now.monotonic_ms, age_ms)
                }
                // Kafka writes the abort of nothing down before its end. It is ended with the timeouts, which write a bounded amount at once.
                state if state.is_prepared() && transaction.partitions.is_empty() => {
                    Some(now.monotonic_ms)
                }
                state => {
                    if state.is_prepared() {
                        prepared.push(id.clone());
                    }
                    None
                }
            };
            self.replace(&id, Some(transaction));
        }
        for id in prepared {
            self.ask_for_markers(&id, out);
        }
    }

    /// Partitions of a decided transaction are done: see the module. `transactional_id` and `decision` are those of its [`MarkersToWrite`]; a report of an
    /// earlier decision, or an earlier coordinator's, is passed over. With the last partition the transaction is complete, and who waits for that is answered.
    pub fn on_markers_written(
        &mut self,
        now: Now,
        transactional_id: &Str,
        decision: Decision,
        done: &[(Str, i32)],
        out: &mut TransactionCommands,
    ) {
        if self.decisions.get(transactional_id) != Some(&decision) {
            return;
        }
        let Some(transaction) = self.transactions.get_mut(transactional_id) else {
            return;
        };
        for (topic, partition) in done {
            transaction.partitions.remove(topic, *partition);
        }
        if transaction.partitions.is_empty() {
            self.complete(transactional_id, now, out);
        }
    }

    /// Ends a decided transaction all of whose partitions know.
    pub(super) fn complete(&mut self, id: &Str, now: Now, out: &mut TransactionCommands) {
        let Some(transaction) = self.transactions.get(id) else {
            return;
        };
        let completed = transaction.completed(now);
        // What could be written down as decided can be as complete, which is shorter.
        if self.store(id, completed, out).is_ok() {
            self.decisions.remove(id);
            self.release(id, now, out);
        }
    }

    /// Asks for the markers of a transaction that is decided.
    pub(super) fn ask_for_markers(&mut self, id: &Str, out: &mut TransactionCommands) {
        let Some((id, transaction)) = self.transactions.get_key_value(id) else {
            return;
        };
        let decision = Decision {
            coordinator_epoch: self.coordinator_epoch,
            number: self.decisions_made,
        };
        self.decisions_made += 1;
        self.decisions.insert(id.clone(), decision);
        out.markers.push(MarkersToWrite {
            decision,
            transactional_id: id.clone(),
            producer_id: transaction.producer_id,
            producer_epoch: transaction.producer_epoch,
            committed: transaction.state == TransactionState::PrepareCommit,
            partitions: transaction
                .partitions
                .iter()
                .map(|(topic, partition)| (topic.clone(), partition))
                .collect(),
            transaction_version: transaction.client_version,
        });
    }
}
