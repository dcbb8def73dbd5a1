//! Consumer groups: the machine behind `__consumer_offsets`, and the way to it from any shard.

use std::rc::Rc;

use ringlog_coordinator::groups::{GroupConfig, GroupCoordinator, GroupReply};
use ringlog_coordinator::{Caller, Commands, Now};
use ringlog_net::{ErrorCode, Str};

use super::Coordinators;
use super::host::{Asker, Host};
use super::machine::{Machine, Output, Replayed};
use super::topics::Internal;
use crate::config::BrokerConfig;
use crate::handlers::RequestContext;
use crate::shard::Shard;

/// A group's events bring about nothing beyond records and answers.
#[derive(Debug)]
pub enum NoEffect {}

impl Machine for GroupCoordinator {
    type Reply = GroupReply;
    type Effect = NoEffect;

    fn replay(&mut self, entry: Replayed) -> Result<(), String> {
        match entry {
            Replayed::Record {
                producer,
                key,
                value,
            } => self
                .replay(producer, key, value)
                .map_err(|error| error.to_string()),
            Replayed::Marker {
                producer_id,
                committed,
            } => {
                self.on_transaction_marker(producer_id, committed);
                Ok(())
            }
        }
    }

    fn loaded(&mut self, now: Now, output: &mut Output<Self>) {
        self.loaded(now, &mut output.commands);
    }

    fn on_timeout(&mut self, now: Now, output: &mut Output<Self>) {
        self.on_timeout(now, &mut output.commands);
    }

    fn next_deadline(&self) -> Option<u64> {
        self.next_deadline()
    }

    fn resign(&mut self, output: &mut Output<Self>) {
        self.resign(&mut output.commands);
    }

    fn perform(_: &Rc<Host<Self>>, effect: NoEffect) {
        match effect {}
    }
}

/// The settings of group coordinators.
pub(super) fn config(config: &BrokerConfig) -> GroupConfig {
    let int = |name| i32::try_from(config.number(name)).unwrap_or(i32::MAX);
    GroupConfig {
        min_session_timeout_ms: int("group.min.session.timeout.ms"),
        max_session_timeout_ms: int("group.max.session.timeout.ms"),
        initial_rebalance_delay_ms: int("group.initial.rebalance.delay.ms"),
        max_size: int("group.max.size"),
        offset_metadata_max_bytes: int("offset.metadata.max.bytes"),
        offsets_retention_minutes: int("offsets.retention.minutes"),
        ..GroupConfig::default()
    }
}

impl RequestContext {
    /// Who asks, for a coordinator.
    pub fn asker(&self) -> Asker {
        Asker {
            version: self.version,
            client_id: self
                .client_id
                .as_ref()
                .map(Str::detached)
                .unwrap_or_default(),
            client_host: Str::from(format!("/{}", self.connection.peer.ip()).as_str()),
        }
    }

    /// Hands a request to the coordinator of a group and waits for its answer, or until the client has gone.
    ///
    /// # Errors
    /// Why there is no coordinator here that could answer.
    pub async fn ask_group(
        &self,
        group_id: &str,
        call: impl FnOnce(&mut GroupCoordinator, &Caller, &mut Commands<GroupReply>) + Send + 'static,
    ) -> Result<GroupReply, ErrorCode> {
        let kept = self.shard.kept(Internal::ConsumerOffsets, group_id)?;
        let asker = self.asker();
        let partition = kept.partition;
        let asked = self.shard.on_shard_while_wanted(
            kept.located.shard,
            move |shard: Rc<Shard>| async move {
                let host = shard.coordinators.group(partition)?;
                let call = move |machine: &mut GroupCoordinator,
                                 caller: &Caller,
                                 output: &mut Output<GroupCoordinator>| {
                    call(machine, caller, &mut output.commands);
                };
                host.call(asker, call).await
            },
        );
        self.until_gone(asked).await
    }
}

impl Coordinators {
    /// The coordinator of a partition of `__consumer_offsets`.
    ///
    /// # Errors
    /// NOT_COORDINATOR when it is not here.
    pub fn group(&self, partition: i32) -> Result<Rc<Host<GroupCoordinator>>, ErrorCode> {
        let groups = self.groups.borrow();
        groups
            .get(&partition)
            .cloned()
            .ok_or(ErrorCode::NOT_COORDINATOR)
    }
}
