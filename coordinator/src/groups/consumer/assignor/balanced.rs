//! The uniform assignor where subscriptions differ. Balance goes before stickiness: in the end no partition could move to another subscriber of its topic
//! and leave the two closer to each other.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::GroupSpec;
use crate::groups::consumer::assignment::Partitions;

/// Passes over all topics. Each move brings two members' loads closer, so it ends anyway, nearly always after two; a bound all the same.
const PASSES_MAX: usize = 64;

struct Balance {
    /// How many partitions each member owns.
    load: Vec<usize>,
    /// The members that subscribe to each topic, ascending.
    subscribers: Vec<Vec<usize>>,
    owners: Vec<Vec<Option<usize>>>,
}

/// What each member should own.
pub fn assign(group: &GroupSpec<'_>) -> Vec<Partitions> {
    let mut subscribers = vec![Vec::new(); group.topics.len()];
    for (index, member) in group.members.iter().enumerate() {
        for topic in group.subscribed(member) {
            subscribers[*topic].push(index);
        }
    }
    let owners = group.claims();
    let mut load = vec![0; group.members.len()];
    for owner in owners.iter().flatten().flatten() {
        load[*owner] += 1;
    }
    let mut balance = Balance {
        load,
        subscribers,
        owners,
    };
    let order = balance.order();
    for topic in &order {
        balance.hand_out(*topic);
    }
    for _ in 0..PASSES_MAX {
        let moved: usize = order.iter().map(|topic| balance.level(*topic)).sum();
        if moved == 0 {
            break;
        }
    }
    group.by_member(&balance.owners)
}

impl Balance {
    /// Topics with much for each subscriber first: those that come later, with little, can level out what is left.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.owners.len())
            .filter(|topic| !self.subscribers[*topic].is_empty())
            .collect();
        order.sort_by(|left, right| {
            let (left_count, right_count) = (
                self.subscribers[*left].len(),
                self.subscribers[*right].len(),
            );
            // The quotients compared without dividing.
            let left_each = self.owners[*left].len() * right_count;
            let right_each = self.owners[*right].len() * left_count;
            match right_each.cmp(&left_each) {
                Ordering::Equal => left_count.cmp(&right_count).then(left.cmp(right)),
                unequal => unequal,
            }
        });
        order
    }

    /// Gives each partition without an owner to the subscriber that has least.
    fn hand_out(&mut self, topic: usize) {
        if self.owners[topic].iter().all(Option::is_some) {
            return;
        }
        let mut by_load: BTreeSet<(usize, usize)> = self.subscribers[topic]
            .iter()
            .map(|member| (self.load[*member], *member))
            .collect();
        for slot in self.owners[topic]
            .iter_mut()
            .filter(|owner| owner.is_none())
        {
            let Some((load, member)) = by_load.pop_first() else {
                return;
            };
            *slot = Some(member);
            self.load[member] += 1;
            by_load.insert((load + 1, member));
        }
    }

    /// Moves partitions of one topic from who has most to who has least until that helps no more; how many were moved.
    fn level(&mut self, topic: usize) -> usize {
        if self.subscribers[topic].len() < 2 {
            return 0;
        }
        let mut by_load: BTreeSet<(usize, usize)> = self.subscribers[topic]
            .iter()
            .map(|member| (self.load[*member], *member))
            .collect();
        let mut owned = vec![Vec::new(); self.load.len()];
        for (partition, owner) in self.owners[topic].iter().enumerate() {
            if let Some(owner) = owner {
                owned[*owner].push(partition);
            }
        }
        // Those of the subscribers that have something to give.
        let mut givers: BTreeSet<(usize, usize)> = by_load
            .iter()
            .filter(|(_, member)| !owned[*member].is_empty())
            .copied()
            .collect();
        let mut moved = 0;
        while let (Some(&(most, giver)), Some(&(least, taker))) = (givers.last(), by_load.first()) {
            if most <= least + 1 {
                break;
            }
            let Some(partition) = owned[giver].pop() else {
                break;
            };
            owned[taker].push(partition);
            self.owners[topic][partition] = Some(taker);
            for (member, before, after) in [(giver, most, most - 1), (taker, least, least + 1)] {
                self.load[member] = after;
                by_load.remove(&(before, member));
                by_load.insert((after, member));
                givers.remove(&(before, member));
                if !owned[member].is_empty() {
                    givers.insert((after, member));
                }
            }
            moved += 1;
        }
        moved
    }
}
