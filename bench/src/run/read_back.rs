//! Verification: what was consumed beside the load, or everything read back after it.

use super::{Offsets, PHASE_PATIENCE, RunError, Stage};
use crate::drive::Drive;
use crate::producer::ProducerLoad;
use crate::verify::{Verdict, Verifier};
use crate::workload::{Consumer, Start};

/// How everything is read back.
const FROM_THE_START: Consumer = Consumer {
    start: Start::Earliest,
    repeat: false,
    connections: 1,
    max_wait_ms: 500,
    min_bytes: 1,
    max_bytes: 50 << 20,
    partition_max_bytes: 1 << 20,
    check_crc: true,
};

impl Stage<'_> {
    /// With `--verify`: whether every record is there once, in order and whole.
    pub(super) fn verdict(
        &mut self,
        drive: &mut Drive,
        begun_at: &Offsets,
    ) -> Result<Option<Verdict>, RunError> {
        if !self.options.verify || self.workload.producer.is_none() {
            return Ok(None);
        }
        if drive.verifier.is_none() && drive.problems.is_empty() {
            self.read_back(drive, begun_at)?;
        }
        let Some(verifier) = drive.verifier.take() else {
            return Ok(None);
        };
        let acknowledged = drive.producer.iter().flat_map(ProducerLoad::acknowledged);
        Ok(Some(verifier.finish(acknowledged)))
    }

    /// Reads everything once, with a consumer of its own.
    fn read_back(&mut self, drive: &mut Drive, begun_at: &Offsets) -> Result<(), RunError> {
        let ends = self.offsets(-1)?;
        let mut beside = drive.consumer.take();
        if let Some(load) = &mut beside {
            // Its sockets would be taken for those of the load that reads back.
            load.close(&drive.poller);
        }
        let window = (0, 0);
        let reader = self.consumer(&FROM_THE_START, window, true, begun_at, None, &drive.poller)?;
        drive.consumer = Some(reader);
        drive.verifier = Some(Verifier::new());
        drive.read_to(&ends, PHASE_PATIENCE);
        let damaged = drive
            .consumer
            .as_ref()
            .map_or(0, |load| load.counts.damaged);
        if damaged > 0 {
            drive
                .problems
                .push(format!("{damaged} batches came back damaged"));
        }
        drive.consumer = beside;
        Ok(())
    }
}
