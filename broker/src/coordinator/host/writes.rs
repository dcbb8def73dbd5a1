//! What of a coordinator is written next, and what follows once it is durable.
//!
//! One task a host and only while something waits. The first write that fails ends it, and the state with it.

use std::rc::Rc;

use bytes::Bytes;
use ringlog_coordinator::{Record, Token};
use ringlog_engine::batch::{Attributes, BatchBuilder, EndTransactionMarker, NO_SEQUENCE};
use ringlog_engine::environment::Environment as _;
use ringlog_engine::producer_state::VerificationGuard;
use ringlog_net::ErrorCode;
use tokio::sync::oneshot;

use super::{Host, Phase};
use crate::coordinator::machine::{Machine, Output, Replayed};
use crate::coordinator::queue::{Act, Event, Turn, size};
use crate::shard::append::outcome_of;

/// What a record takes in a batch besides its key and value, as a rule at most.
const RECORD_OVERHEAD_BYTES: usize = 16;

/// Id and epoch of the producer in whose transaction records are written, and the proof that it is one.
type Producer = (i64, i16, Option<VerificationGuard>);

impl<M: Machine> Host<M> {
    /// Writes what waits, in its order, and lets answers go; ends when nothing waits any more.
    pub(super) async fn write(self: Rc<Self>) {
        while let Some(turn) = self.next_turn() {
            let done = match turn {
                Turn::Batch(outputs, records) => self.write_batch(outputs, records).await,
                // What is rare has its state elsewhere.
                Turn::Alone(event) => Box::pin(self.write_alone(event)).await,
            };
            if let Err(reason) = done {
                self.writing.set(false);
                return self.lost(&reason);
            }
        }
        self.writing.set(false);
    }

    fn next_turn(&self) -> Option<Turn<M>> {
        self.queue.borrow_mut().next_turn()
    }

    async fn write_batch(
        self: &Rc<Self>,
        outputs: Vec<Output<M>>,
        records: Vec<Record>,
    ) -> Result<(), String> {
        if !records.is_empty() {
            self.append(records, None).await?;
        }
        for output in outputs {
            self.release(output);
        }
        Ok(())
    }

    async fn write_alone(self: &Rc<Self>, event: Event<M>) -> Result<(), String> {
        match event {
            Event::Marker {
                marker,
                transaction_version,
                done,
            } => self.write_marker(&marker, transaction_version, done).await,
            Event::InTransaction {
                token,
                producer,
                guard,
                act,
            } => self.write_in_transaction(token, producer, guard, act).await,
            Event::Deferred { act, .. } => self.change_and_write(act, None).await,
            Event::Changed(output) => self.write_batch(vec![output], Vec::new()).await,
        }
    }

    async fn write_in_transaction(
        self: &Rc<Self>,
        token: Token,
        (producer_id, producer_epoch): (i64, i16),
        guard: Option<VerificationGuard>,
        act: Act<M>,
    ) -> Result<(), String> {
        let allowed = self
            .log
            .check_from_coordinator(producer_id, producer_epoch, guard);
        if let Err(error) = allowed {
            self.answer(token, Err(ErrorCode(error.code())));
            return Ok(());
        }
        let producer = (producer_id, producer_epoch, guard);
        self.change_and_write(act, Some(producer)).await
    }

    async fn change_and_write(
        self: &Rc<Self>,
        act: Act<M>,
        producer: Option<Producer>,
    ) -> Result<(), String> {
        let mut output = self.change(act).map_err(|_| "the state is gone")?;
        let records = std::mem::take(&mut output.commands.records);
        if !records.is_empty() {
            self.append(records, producer).await?;
        }
        self.release(output);
        M::after_event(self);
        Ok(())
    }

    async fn write_marker(
        self: &Rc<Self>,
        marker: &EndTransactionMarker,
        transaction_version: i8,
        done: oneshot::Sender<ErrorCode>,
    ) -> Result<(), String> {
        let code = match self
            .log
            .append_marker(marker, self.place.leader_epoch, transaction_version)
            .await
        {
            Ok(appended) => {
                let flushed = self.log.flushed(appended.last_offset + 1).await;
                flushed.map_err(|error| error.to_string())?;
                if let Phase::Active(machine) = &mut *self.phase.borrow_mut() {
                    let marker = Replayed::Marker {
                        producer_id: marker.producer_id,
                        committed: marker.committed,
                    };
                    let replayed = machine.replay(marker);
                    replayed.map_err(|problem| format!("{problem:?}"))?;
                }
                ErrorCode::NONE
            }
            // The state has not changed, so the log is not behind it.
            Err(error) => outcome_of(&error).error,
        };
        // Whoever wanted it may have stopped.
        let _ = done.send(code);
        Ok(())
    }

    async fn append(&self, records: Vec<Record>, producer: Option<Producer>) -> Result<(), String> {
        let guard = producer.and_then(|(_, _, guard)| guard);
        let batch = self.batch(records, producer)?;
        let appended = self
            .log
            .append_from_coordinator(batch, self.place.leader_epoch, guard)
            .await
            .map_err(|error| error.to_string())?;
        let flushed = self.log.flushed(appended.last_offset + 1).await;
        flushed.map_err(|error| error.to_string())
    }

    fn batch(&self, records: Vec<Record>, producer: Option<Producer>) -> Result<Bytes, String> {
        let shard = self.shard.upgrade().ok_or("the broker stops")?;
        let now_ms = shard.environment.wall_clock_ms();
        let mut builder = BatchBuilder::with_capacity(
            records
                .iter()
                .map(|record| size(record) + RECORD_OVERHEAD_BYTES)
                .sum(),
        );
        if let Some((id, epoch, _)) = producer {
            builder = builder
                .producer(id, epoch, NO_SEQUENCE)
                .attributes(Attributes::default().with_transactional(true));
        }
        for record in &records {
            builder.push(now_ms, Some(&record.key), record.value.as_deref(), &[]);
        }
        let batch = builder.build().map_err(|error| error.to_string())?;
        Ok(batch.into())
    }
}
