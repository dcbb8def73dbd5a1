//! What can be set for consumer groups, with Kafka's names and defaults.

use super::assignor::Assignor;

/// The `group.consumer.*` settings. Times in ms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerGroupConfig {
    /// `group.consumer.session.timeout.ms`: a member that is silent for so long is removed.
    pub session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`: how often members are told to heartbeat.
    pub heartbeat_interval_ms: i32,
    /// `group.consumer.max.size`: how many members a group may have. Never more than [`MEMBERS_MAX`] in any case.
    pub max_size: i32,
    /// `group.consumer.assignors`, the default first.
    pub assignors: Vec<Assignor>,
    /// `group.consumer.migration.policy`.
    pub migration_policy: MigrationPolicy,
    /// `group.consumer.assignment.interval.ms`: assignments are made at most so often (KIP-1263); 0 is at once.
    pub assignment_interval_ms: i32,
    /// `group.consumer.regex.refresh.interval.ms`: regular expressions are resolved anew so often even if no topic is known to have changed.
    pub regex_refresh_interval_ms: i32,
    /// Ours: bytes of records that one event may append. [`GroupConfig`](crate::groups::GroupConfig) has it too, and its holds.
    pub batch_bytes_max: usize,
}

/// More members than this are refused whatever the configuration says: one heartbeat's work grows with the group.
pub const MEMBERS_MAX: usize = 100_000;

/// Which way a group with members may be converted between the classic and the consumer protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// Both ways.
    #[default]
    Bidirectional,
    /// From classic to consumer.
    Upgrade,
    /// From consumer to classic.
    Downgrade,
    /// Only groups without members.
    Disabled,
}

impl MigrationPolicy {
    /// The policy of a name, in any case; Kafka takes what it does not know for `disabled`.
    pub fn named(name: &str) -> MigrationPolicy {
        match name.to_ascii_lowercase().as_str() {
            "bidirectional" => MigrationPolicy::Bidirectional,
            "upgrade" => MigrationPolicy::Upgrade,
            "downgrade" => MigrationPolicy::Downgrade,
            _ => MigrationPolicy::Disabled,
        }
    }

    /// Whether a classic group with members may become a consumer group.
    pub fn upgrades(self) -> bool {
        matches!(
            self,
            MigrationPolicy::Bidirectional | MigrationPolicy::Upgrade
        )
    }

    /// Whether a consumer group with members may become a classic group.
    pub fn downgrades(self) -> bool {
        matches!(
            self,
            MigrationPolicy::Bidirectional | MigrationPolicy::Downgrade
        )
    }
}

impl Default for ConsumerGroupConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            max_size: i32::MAX,
            assignors: Assignor::ALL.to_vec(),
            migration_policy: MigrationPolicy::default(),
            assignment_interval_ms: 1_000,
            regex_refresh_interval_ms: 600_000,
            batch_bytes_max: 1_000_000,
        }
    }
}

impl ConsumerGroupConfig {
    /// The session timeout in ms.
    pub fn session_timeout(&self) -> u64 {
        u64::try_from(self.session_timeout_ms).unwrap_or(0)
    }

    /// How many members a group may have.
    pub fn members_max(&self) -> usize {
        usize::try_from(self.max_size).unwrap_or(0).min(MEMBERS_MAX)
    }

    /// The assignor of groups whose members do not name one.
    pub fn default_assignor(&self) -> Assignor {
        self.assignors.first().copied().unwrap_or(Assignor::Uniform)
    }
}
