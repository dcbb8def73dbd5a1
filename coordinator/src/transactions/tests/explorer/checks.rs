//! What holds in every state.

use super::model::{ID, PARTITIONS, TOPIC, World};
use crate::transactions::log;
use crate::transactions::state::TransactionState;
use crate::transactions::transaction::Transaction;

impl World {
    /// Notes the first rule that does not hold.
    pub fn check(&mut self) {
        let broken = self
            .check_atomicity()
            .and_then(|()| self.check_open())
            .and_then(|()| self.check_progress())
            .and_then(|()| self.check_log());
        if let Err(what) = broken {
            self.violate(what);
        }
    }

    /// All partitions of a transaction have the same decision, and that of an answered commit is to commit.
    fn check_atomicity(&self) -> Result<(), String> {
        for ((tag, partition), committed) in &self.decided {
            for other in 0..PARTITIONS as u8 {
                let decided = self.decided.get(&(*tag, other));
                if decided.is_some_and(|decided| decided != committed) {
                    return Err(format!("{tag:?} is committed in one partition only"));
                }
            }
            if !committed && self.committed.contains(tag) {
                return Err(format!(
                    "{tag:?} was answered and is aborted in {partition}"
                ));
            }
        }
        Ok(())
    }

    /// Data that is not decided belongs to the transaction that the coordinator has open, which includes its partition. Otherwise nobody would ever decide it, and
    /// its readers would wait for good.
    fn check_open(&self) -> Result<(), String> {
        for (index, producers) in self.partitions.iter().enumerate() {
            for (producer_id, known) in producers {
                let Some(tag) = known.open else { continue };
                let found = self.transaction().filter(|transaction| {
                    let open = transaction.state == TransactionState::Ongoing
                        || transaction.state.is_prepared();
                    open && transaction.producer_id == *producer_id
                        && transaction.partitions.contains(&TOPIC, index as i32)
                });
                if found.is_none() {
                    return Err(format!("{tag:?} hangs in {index}"));
                }
            }
        }
        Ok(())
    }

    /// Whatever has to go on will: a decided transaction has a marker to be written, or a report of it, for every partition without one, and each of those steps
    /// can be taken and is not taken back; an ongoing one has a deadline; and only a decided one keeps anybody waiting.
    fn check_progress(&self) -> Result<(), String> {
        let Some(transaction) = self.transaction() else {
            return Ok(());
        };
        if transaction.state == TransactionState::Ongoing && transaction.deadline_ms.is_none() {
            return Err("an ongoing transaction has no deadline".into());
        }
        if !transaction.state.is_prepared() {
            return match self.coordinator.held_requests() {
                0 => Ok(()),
                held => Err(format!("{held} requests wait for nothing")),
            };
        }
        let Some(decision) = self.coordinator.decisions.get(&ID) else {
            return Err("a decided transaction is nobody's work".into());
        };
        for (_, partition) in transaction.partitions.iter() {
            let asked = self.in_flight.iter().flat_map(|flight| &flight.markers);
            let asked = asked
                .filter(|markers| markers.decision == *decision)
                .flat_map(|markers| &markers.partitions)
                .any(|(_, asked)| *asked == partition);
            let partition = partition as u8;
            let written = self.markers.iter();
            let written = written
                .filter(|marker| marker.decision == *decision)
                .any(|marker| marker.partition == partition);
            if !asked && !written && !self.reports.contains(&(*decision, partition)) {
                return Err(format!("nobody writes a marker to {partition}"));
            }
        }
        Ok(())
    }

    /// A coordinator that started now, with everything durable, would stand where this one stands.
    fn check_log(&self) -> Result<(), String> {
        let mut newest = self.in_flight.iter().rev();
        let newest = newest.find_map(|flight| flight.value.as_ref());
        let written = newest.or(self.log.as_ref());
        let written = written.map(|value| comparable(log::read_value(value).unwrap()));
        let mut expected = self.transaction().cloned().map(comparable);
        if let (Some(written), Some(expected)) = (&written, &mut expected)
            && expected.state.is_prepared()
        {
            // Markers that have been reported are not in the log.
            expected.partitions.clone_from(&written.partitions);
        }
        if written == expected {
            Ok(())
        } else {
            Err(format!("{expected:?} is written as {written:?}"))
        }
    }
}

/// Without what a record does not hold. The epoch before is in none, but follows from one that holds a decision of a client that bumps epochs.
fn comparable(mut transaction: Transaction) -> Transaction {
    transaction.deadline_ms = None;
    transaction.updated_monotonic_ms = None;
    if transaction.state.decision().is_none() || transaction.client_version < 2 {
        transaction.last_producer_epoch = -1;
    }
    transaction
}
