//! What can be set about groups: Kafka's keys with Kafka's defaults, and limits of our own where Kafka has none.

use super::consumer::ConsumerGroupConfig;

/// The limits and times that a [`GroupCoordinator`](super::GroupCoordinator) holds to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members before its first rebalance ends.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members of one group.
    pub max_size: i32,
    /// `offset.metadata.max.bytes`, which Kafka counts in UTF-16 units.
    pub offset_metadata_max_bytes: i32,
    /// `offsets.retention.minutes`.
    pub offsets_retention_minutes: i32,
    /// How long a JoinGroup of a member that was never told its id is held; a constant of Kafka's.
    pub new_member_join_timeout_ms: i32,
    /// The `group.consumer.*` settings.
    pub consumer: ConsumerGroupConfig,
    /// Ours: groups that one coordinator holds.
    pub groups_max: usize,
    /// Ours: members of one group that were given an id and have not come back with it.
    pub pending_members_max: usize,
    /// Ours: protocols that one member offers.
    pub member_protocols_max: usize,
    /// Ours: bytes of ids, metadata and assignment that one member may bring.
    pub member_bytes_max: usize,
    /// Ours: bytes of all members of one coordinator.
    pub members_bytes_max: usize,
    /// Ours: offsets, committed or pending, that one coordinator holds.
    pub offsets_max: usize,
    /// Ours: bytes of records that one event may append; below `max.message.bytes` of the topic.
    pub batch_bytes_max: usize,
    /// Ours: groups that one call looks at, of work that goes over all of them.
    pub groups_per_call_max: usize,
}

impl GroupConfig {
    /// `offsets.retention.minutes` in milliseconds.
    pub(crate) fn offsets_retention_ms(&self) -> i64 {
        i64::from(self.offsets_retention_minutes) * 60_000
    }
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: i32::MAX,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_minutes: 7 * 24 * 60,
            new_member_join_timeout_ms: 5 * 60 * 1_000,
            consumer: ConsumerGroupConfig::default(),
            groups_max: 100_000,
            pending_members_max: 10_000,
            member_protocols_max: 32,
            member_bytes_max: 512 << 10,
            members_bytes_max: 256 << 20,
            offsets_max: 4_000_000,
            batch_bytes_max: 1_000_000,
            groups_per_call_max: 1_000,
        }
    }
}
