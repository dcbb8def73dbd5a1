//! Transactions as a pass over the log meets them: which batches belong to an aborted one, and which markers nobody needs any more.
//!
//! A marker stays as long as any record of its transaction does, then until its delete horizon. What an aborted transaction wrote goes at once: it lies below the last stable offset, so
//! no reader is still to be told of it that could not be told by its absence.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use crate::batch::{BatchHeader, Record};
use crate::index::AbortedTransaction;

/// What a control batch of a transaction says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    /// The transaction is aborted.
    Abort,
    /// The transaction is committed.
    Commit,
    /// Something that is not about transactions.
    Other,
}

impl Marker {
    /// From a control record: its key is a version and a type, two bytes each.
    pub fn of(record: &Record<'_>) -> Self {
        match record.key {
            Some([_, _, 0, 0, ..]) => Self::Abort,
            Some([_, _, 0, 1, ..]) => Self::Commit,
            _ => Self::Other,
        }
    }
}

/// What becomes of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkerFate {
    /// Records of its transaction are still there; an aborted one stays in the transaction index.
    Needed(Option<AbortedTransaction>),
    /// It may go, once its delete horizon has passed.
    Idle,
}

struct Aborted {
    transaction: AbortedTransaction,
    /// A batch of it has been met.
    seen: bool,
}

/// See the module. Fed with all batches of a log in order.
#[derive(Default)]
pub(crate) struct CleanedTransactions {
    committed: HashSet<i64>,
    aborted: HashMap<i64, Aborted>,
    /// Aborted transactions that have not begun yet, by first offset; their numbers index `known`.
    waiting: BinaryHeap<Reverse<(i64, usize)>>,
    known: Vec<AbortedTransaction>,
    told: HashSet<(i64, i64)>,
}

impl CleanedTransactions {
    /// These transactions of the part of the log that comes next are aborted. Saying it again changes nothing.
    pub fn add(&mut self, aborted: impl IntoIterator<Item = AbortedTransaction>) {
        for transaction in aborted {
            // One that reaches into several segments comes with each of them.
            if !self
                .told
                .insert((transaction.producer_id, transaction.last_offset))
            {
                continue;
            }
            self.waiting
                .push(Reverse((transaction.first_offset, self.known.len())));
            self.known.push(transaction);
        }
    }

    /// A batch of records; whether it belongs to an aborted transaction.
    pub fn batch(&mut self, header: &BatchHeader) -> bool {
        self.begin_until(header);
        if !header.attributes.is_transactional() {
            return false;
        }
        match self.aborted.get_mut(&header.producer_id) {
            // A transaction whose marker was not met is over all the same.
            Some(aborted) if aborted.transaction.last_offset >= header.base_offset => {
                aborted.seen = true;
                true
            }
            _ => {
                self.committed.insert(header.producer_id);
                false
            }
        }
    }

    /// A control batch and what it says; `None` for one without records, which an earlier pass has emptied.
    pub fn marker(&mut self, header: &BatchHeader, marker: Option<Marker>) -> MarkerFate {
        self.begin_until(header);
        let producer = header.producer_id;
        match marker {
            None => MarkerFate::Idle,
            Some(Marker::Other) => MarkerFate::Needed(None),
            Some(Marker::Commit) if self.committed.remove(&producer) => MarkerFate::Needed(None),
            Some(Marker::Commit) => MarkerFate::Idle,
            Some(Marker::Abort) => match self.aborted.remove(&producer) {
                Some(aborted) if aborted.seen => MarkerFate::Needed(Some(aborted.transaction)),
                _ => MarkerFate::Idle,
            },
        }
    }

    /// Notes the transactions that have begun before or with this batch and have not ended before it.
    fn begin_until(&mut self, header: &BatchHeader) {
        while let Some(Reverse((first, number))) = self.waiting.peek().copied()
            && first <= header.last_offset()
        {
            self.waiting.pop();
            let begun = self.known.get(number).copied();
            let Some(transaction) = begun.filter(|begun| begun.last_offset >= header.base_offset)
            else {
                continue;
            };
            let aborted = Aborted {
                transaction,
                seen: false,
            };
            let producer = transaction.producer_id;
            let before = self.aborted.get(&producer);
            if before.is_none_or(|before| before.transaction.last_offset < first) {
                self.aborted.insert(producer, aborted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Aborted batches are told from committed ones of the same producer, and markers are needed as long as a batch of theirs is met.
    use super::*;
    use crate::batch::{Attributes, BatchBuilder};

    fn batch(offset: i64, producer: i64, control: bool) -> BatchHeader {
        let bytes = BatchBuilder::new()
            .producer(producer, 0, 0)
            .attributes(
                Attributes::default()
                    .with_transactional(true)
                    .with_control(control),
            )
            .at(offset, 0)
            .record(0, Some(b"k"), None)
            .build()
            .expect("a batch");
        BatchHeader::parse(&bytes).expect("its header")
    }

    fn aborted(producer_id: i64, first_offset: i64, last_offset: i64) -> AbortedTransaction {
        AbortedTransaction {
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset: last_offset + 1,
        }
    }

    #[test]
    fn one_producer_commits_then_aborts_then_commits() {
        let mut seen = CleanedTransactions::default();
        let transaction = aborted(7, 2, 3);
        seen.add([transaction]);
        seen.add([transaction]);
        assert!(!seen.batch(&batch(0, 7, false)));
        assert_eq!(
            seen.marker(&batch(1, 7, true), Some(Marker::Commit)),
            MarkerFate::Needed(None)
        );
        assert!(seen.batch(&batch(2, 7, false)));
        assert_eq!(
            seen.marker(&batch(3, 7, true), Some(Marker::Abort)),
            MarkerFate::Needed(Some(transaction))
        );
        assert!(!seen.batch(&batch(4, 7, false)));
        assert_eq!(
            seen.marker(&batch(5, 7, true), Some(Marker::Commit)),
            MarkerFate::Needed(None)
        );
    }

    #[test]
    fn markers_without_records_are_idle() {
        let mut seen = CleanedTransactions::default();
        seen.add([aborted(7, 2, 3)]);
        assert_eq!(
            seen.marker(&batch(1, 8, true), Some(Marker::Commit)),
            MarkerFate::Idle
        );
        assert_eq!(
            seen.marker(&batch(3, 7, true), Some(Marker::Abort)),
            MarkerFate::Idle
        );
        assert_eq!(seen.marker(&batch(4, 7, true), None), MarkerFate::Idle);
        assert_eq!(
            seen.marker(&batch(5, 7, true), Some(Marker::Other)),
            MarkerFate::Needed(None)
        );
    }

    #[test]
    fn a_transaction_whose_marker_is_gone_does_not_go_on() {
        let mut seen = CleanedTransactions::default();
        seen.add([aborted(7, 2, 3), aborted(7, 12, 13), aborted(8, 2, 20)]);
        assert!(seen.batch(&batch(2, 7, false)));
        assert!(!seen.batch(&batch(10, 7, false)));
        assert!(seen.batch(&batch(12, 7, false)));
        // One that was over before the pass began.
        let mut late = CleanedTransactions::default();
        late.add([aborted(7, 2, 3)]);
        assert!(!late.batch(&batch(10, 7, false)));
    }

    #[test]
    fn other_producers_and_plain_batches_are_not_concerned() {
        let mut seen = CleanedTransactions::default();
        seen.add([aborted(7, 0, 9)]);
        assert!(!seen.batch(&batch(1, 8, false)));
        let plain = BatchHeader {
            attributes: Attributes::default(),
            ..batch(2, 7, false)
        };
        assert!(!seen.batch(&plain));
        assert!(seen.batch(&batch(3, 7, false)));
    }
}
