//! The states a transactional id goes through, as Kafka numbers and names them.

/// Where a transactional id stands.
///
/// ```text
/// Empty ─add─▶ Ongoing ─end─▶ PrepareCommit / PrepareAbort ─markers written─▶ CompleteCommit / CompleteAbort ─add─▶ Ongoing
/// ```
///
/// `Dead` and `PrepareEpochFence` are moments inside Kafka's coordinator that it never writes down. Here an id that expires is gone at once, and a producer is
/// fenced in the same step that prepares the abort of its transaction, so that neither is ever a state to rest in; they have a name so that filters of
/// ListTransactions that mention them are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TransactionState {
    /// The producer has an id and epoch, and has not yet begun a transaction with them.
    Empty,
    /// A transaction has partitions and is not decided.
    Ongoing,
    /// Decided: to be committed. The markers are being written.
    PrepareCommit,
    /// Decided: to be aborted. The markers are being written.
    PrepareAbort,
    /// Every partition has its commit marker.
    CompleteCommit,
    /// Every partition has its abort marker.
    CompleteAbort,
    /// The id has expired.
    Dead,
    /// The producer is about to be fenced.
    PrepareEpochFence,
}

impl TransactionState {
    /// All states, by ascending number.
    pub const ALL: [TransactionState; 8] = [
        TransactionState::Empty,
        TransactionState::Ongoing,
        TransactionState::PrepareCommit,
        TransactionState::PrepareAbort,
        TransactionState::CompleteCommit,
        TransactionState::CompleteAbort,
        TransactionState::Dead,
        TransactionState::PrepareEpochFence,
    ];

    /// The number that stands in a record.
    pub fn number(self) -> i8 {
        self as i8
    }

    /// The state that a record can hold under a number.
    pub fn from_number(number: i8) -> Option<TransactionState> {
        Self::ALL
            .into_iter()
            .find(|state| state.number() == number && state.is_written())
    }

    /// The name in DescribeTransactions and ListTransactions.
    pub fn name(self) -> &'static str {
        match self {
            TransactionState::Empty => "Empty",
            TransactionState::Ongoing => "Ongoing",
            TransactionState::PrepareCommit => "PrepareCommit",
            TransactionState::PrepareAbort => "PrepareAbort",
            TransactionState::CompleteCommit => "CompleteCommit",
            TransactionState::CompleteAbort => "CompleteAbort",
            TransactionState::Dead => "Dead",
            TransactionState::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    /// The state of a name.
    pub fn from_name(name: &str) -> Option<TransactionState> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether records hold this state.
    fn is_written(self) -> bool {
        !matches!(
            self,
            TransactionState::Dead | TransactionState::PrepareEpochFence
        )
    }

    /// Decided, and not every marker is written.
    pub fn is_prepared(self) -> bool {
        matches!(
            self,
            TransactionState::PrepareCommit | TransactionState::PrepareAbort
        )
    }

    /// Every marker of the last transaction is written.
    pub fn is_complete(self) -> bool {
        matches!(
            self,
            TransactionState::CompleteCommit | TransactionState::CompleteAbort
        )
    }

    /// There is no transaction.
    pub(super) fn is_at_rest(self) -> bool {
        self == TransactionState::Empty || self.is_complete()
    }

    /// The state of a decision.
    pub(super) fn prepared(committed: bool) -> TransactionState {
        if committed {
            TransactionState::PrepareCommit
        } else {
            TransactionState::PrepareAbort
        }
    }

    /// The state once a decision has been carried out.
    pub(super) fn complete(committed: bool) -> TransactionState {
        if committed {
            TransactionState::CompleteCommit
        } else {
            TransactionState::CompleteAbort
        }
    }

    /// Whether the last decision was to commit; none if there is no decision in this state.
    pub(super) fn decision(self) -> Option<bool> {
        match self {
            TransactionState::PrepareCommit | TransactionState::CompleteCommit => Some(true),
            TransactionState::PrepareAbort | TransactionState::CompleteAbort => Some(false),
            _ => None,
        }
    }
}
