//! The uniform assignor where all members subscribe to the same topics: everyone gets the same number, give or take one, and keeps what it can.
//! Linear in partitions and members.

use super::GroupSpec;
use crate::groups::consumer::assignment::Partitions;

/// What each member should own.
pub fn assign(group: &GroupSpec<'_>) -> Vec<Partitions> {
    let mut owners = group.claims();
    let total: usize = owners.iter().map(Vec::len).sum();
    let share = total / group.members.len();
    // So many members own one more than their share.
    let mut extra = total % group.members.len();
    let mut held = vec![0_usize; group.members.len()];
    for owner in owners.iter().flatten().flatten() {
        held[*owner] += 1;
    }
    // Who has more than its share already keeps the extra one: it would have to move otherwise.
    let mut quota = vec![share; group.members.len()];
    for (quota, held) in quota.iter_mut().zip(&held) {
        if *held > share && extra > 0 {
            *quota += 1;
            extra -= 1;
        }
    }
    for (quota, held) in quota.iter_mut().zip(&held) {
        if *held <= share && extra > 0 {
            *quota += 1;
            extra -= 1;
        }
    }
    let mut kept = vec![0_usize; group.members.len()];
    for slot in owners.iter_mut().flatten() {
        if let Some(owner) = *slot {
            if kept[owner] < quota[owner] {
                kept[owner] += 1;
            } else {
                *slot = None;
            }
        }
    }
    let mut receiver = 0;
    for slot in owners.iter_mut().flatten().filter(|owner| owner.is_none()) {
        // The quotas add up to the total, so somebody has room as long as a partition is free.
        while kept
            .get(receiver)
            .is_some_and(|kept| *kept >= quota[receiver])
        {
            receiver += 1;
        }
        if let Some(kept) = kept.get_mut(receiver) {
            *kept += 1;
            *slot = Some(receiver);
        }
    }
    group.by_member(&owners)
}
