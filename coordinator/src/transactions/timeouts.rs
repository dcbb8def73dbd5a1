//! What happens without a request: transactions that take too long, requests that have waited too long, ids that nobody uses any more.

use ringlog_net::Str;

use super::transaction::{EPOCH_BUMP_VERSION, Transaction};
use super::{Phase, TransactionCoordinator, log, record_bytes};
use crate::command::Now;
use crate::record::Record;
use crate::transactions::reply::TransactionCommands;

/// How long to wait for a producer id before an overdue abort that takes one is tried again.
const RETRY_MS: u64 = 100;

impl TransactionCoordinator {
    /// The time has come that [`TransactionCoordinator::next_deadline`] told, or may have. Aborts transactions that are overdue, fencing their producer's epoch.
    /// What does not fit into one event is left, with a deadline that has passed already.
    pub fn on_timeout(&mut self, now: Now, out: &mut TransactionCommands) {
        while record_bytes(out) < self.config.event_bytes {
            let first = self.deadlines.first();
            let Some(due) = first.filter(|(deadline, _)| *deadline <= now.monotonic_ms) else {
                break;
            };
            let due = due.clone();
            self.deadlines.remove(&due);
            let (_, id) = due;
            let prepared = self
                .transactions
                .get(&id)
                .is_some_and(|transaction| transaction.state.is_prepared());
            if prepared {
                self.complete(&id, now, out);
            } else {
                // An error is the want of a producer id, which has been asked for.
                let _ = self.decide(&id, false, EPOCH_BUMP_VERSION, now, out);
            }
            self.put_off(&id, now);
        }
        self.expire_held(now, out);
    }

    /// Moves a deadline that has passed and could not be kept.
    fn put_off(&mut self, id: &Str, now: Now) {
        let Some(transaction) = self.transactions.get(id) else {
            return;
        };
        let overdue = transaction.deadline_ms;
        if overdue.is_some_and(|deadline| deadline <= now.monotonic_ms) {
            let later = Transaction {
                deadline_ms: Some(now.monotonic_ms.saturating_add(RETRY_MS)),
                ..transaction.clone()
            };
            self.replace(id, Some(later));
        }
    }

    /// Forgets ids that have not been used for `transactional.id.expiration.ms` and have no transaction. Kafka looks once an hour
    /// (`transaction.remove.expired.transaction.cleanup.interval.ms`). Returns whether there may be more than this event could take: call again.
    pub fn expire(&mut self, now: Now, out: &mut TransactionCommands) -> bool {
        if self.phase != Phase::Active {
            return false;
        }
        let mut more = false;
        let mut bytes = record_bytes(out);
        let mut expired = Vec::new();
        for (id, transaction) in &self.transactions {
            if !self.is_expired(transaction, now) {
                continue;
            }
            if bytes >= self.config.event_bytes {
                more = true;
                break;
            }
            if let Ok(key) = log::key(id) {
                bytes += key.len();
                expired.push((id.clone(), key));
            }
        }
        for (id, key) in expired {
            out.commands.records.push(Record { key, value: None });
            self.replace(&id, None);
        }
        more
    }

    /// Unused for long enough by the wall clock, and also by the monotonic one if its last use was in this coordinator's life: a wall clock that jumps forgets nobody
    /// who has just been here.
    fn is_expired(&self, transaction: &Transaction, now: Now) -> bool {
        let expiration_ms = self.config.id_expiration_ms;
        let age_ms = now.wall_ms.saturating_sub(transaction.update_ms);
        let old = u64::try_from(age_ms).is_ok_and(|age_ms| age_ms >= expiration_ms);
        let seen = transaction.updated_monotonic_ms;
        let unseen = seen.is_none_or(|at| now.monotonic_ms.saturating_sub(at) >= expiration_ms);
        transaction.state.is_at_rest() && old && unseen
    }
}
