//! What every assignor must hold: each partition of a topic with subscribers goes to exactly one of them, the same input gives the same result, nobody moves
//! what need not move; and how well each one balances.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ringlog_net::Uuid;

use super::{Assignor, GroupSpec, MemberSpec, TopicSpec};
use crate::groups::consumer::assignment::Partitions;

/// A group that owns its strings and assignments.
#[derive(Clone, Debug)]
struct Group {
    /// Partitions of each topic.
    topics: Vec<i32>,
    /// Of each member: which topics, and what it held.
    members: Vec<(BTreeSet<usize>, Partitions)>,
}

fn topic_id(index: usize) -> Uuid {
    Uuid(u128::try_from(index + 1).unwrap().to_be_bytes())
}

impl Group {
    fn assign(&self, assignor: Assignor) -> Vec<Partitions> {
        let names: Vec<String> = (0..self.members.len())
            .map(|index| format!("m{index:03}"))
            .collect();
        let used: Vec<usize> = (0..self.topics.len())
            .filter(|topic| {
                self.members
                    .iter()
                    .any(|(topics, _)| topics.contains(topic))
            })
            .collect();
        let mut group = GroupSpec {
            topics: used
                .iter()
                .map(|topic| TopicSpec {
                    id: topic_id(*topic),
                    partitions: self.topics[*topic],
                })
                .collect(),
            ..GroupSpec::default()
        };
        for ((topics, current), name) in self.members.iter().zip(&names) {
            let subscription: Vec<usize> = used
                .iter()
                .enumerate()
                .filter(|(_, topic)| topics.contains(topic))
                .map(|(index, _)| index)
                .collect();
            let known = group
                .subscriptions
                .iter()
                .position(|known| *known == subscription);
            let index = known.unwrap_or_else(|| {
                group.subscriptions.push(subscription);
                group.subscriptions.len() - 1
            });
            group.members.push(MemberSpec {
                member_id: name,
                instance_id: None,
                subscription: index,
                current,
            });
        }
        assignor.assign(&group)
    }

    /// The same group, holding what was assigned.
    fn holding(&self, assignment: &[Partitions]) -> Group {
        let mut group = self.clone();
        for ((_, current), assigned) in group.members.iter_mut().zip(assignment) {
            *current = assigned.clone();
        }
        group
    }

    fn check_sound(&self, assignment: &[Partitions]) -> Result<(), TestCaseError> {
        prop_assert_eq!(assignment.len(), self.members.len());
        let mut owner: BTreeMap<(Uuid, i32), usize> = BTreeMap::new();
        for (index, partitions) in assignment.iter().enumerate() {
            for (id, partitions) in partitions {
                prop_assert!(!partitions.is_empty());
                let topic = (0..self.topics.len())
                    .find(|topic| topic_id(*topic) == *id)
                    .unwrap();
                prop_assert!(self.members[index].0.contains(&topic), "not subscribed");
                for partition in partitions {
                    prop_assert!((0..self.topics[topic]).contains(partition));
                    prop_assert!(
                        owner.insert((*id, *partition), index).is_none(),
                        "two owners"
                    );
                }
            }
        }
        for (topic, count) in self.topics.iter().enumerate() {
            if self
                .members
                .iter()
                .any(|(topics, _)| topics.contains(&topic))
            {
                for partition in 0..*count {
                    prop_assert!(
                        owner.contains_key(&(topic_id(topic), partition)),
                        "left out"
                    );
                }
            }
        }
        Ok(())
    }
}

fn load(partitions: &Partitions) -> usize {
    partitions.values().map(BTreeSet::len).sum()
}

fn common(before: &Partitions, after: &Partitions) -> usize {
    before
        .iter()
        .map(|(id, before)| {
            after
                .get(id)
                .map_or(0, |after| before.intersection(after).count())
        })
        .sum()
}

/// What members held before: anything, sound or not.
fn any_current(topics: usize) -> impl Strategy<Value = Partitions> {
    prop::collection::btree_map(
        (0..topics + 1).prop_map(topic_id),
        prop::collection::btree_set(-1..12_i32, 1..8),
        0..=topics,
    )
}

fn any_group(alike: bool) -> impl Strategy<Value = Group> {
    (prop::collection::vec(0..10_i32, 1..6), 1..8_usize).prop_flat_map(move |(topics, members)| {
        let count = topics.len();
        let member = (
            prop::collection::btree_set(0..count, 0..=count),
            any_current(count),
        );
        prop::collection::vec(member, members).prop_map(move |mut members| {
            if alike {
                let first = members[0].0.clone();
                for (subscription, _) in &mut members {
                    *subscription = first.clone();
                }
            }
            Group {
                topics: topics.clone(),
                members,
            }
        })
    })
}

proptest! {
    #[test]
    fn every_partition_goes_to_one_subscriber(group in any_group(false), alike in any_group(true)) {
        for group in [&group, &alike] {
            for assignor in Assignor::ALL {
                let assignment = group.assign(assignor);
                group.check_sound(&assignment)?;
                prop_assert_eq!(&group.assign(assignor), &assignment);
                // What is in order already is left alone.
                prop_assert_eq!(&group.holding(&assignment).assign(assignor), &assignment);
            }
        }
    }

    #[test]
    fn equal_subscriptions_are_balanced_within_one(group in any_group(true)) {
        let loads: Vec<usize> = group.assign(Assignor::Uniform).iter().map(load).collect();
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        prop_assert!(most - least <= 1, "{loads:?}");
    }

    #[test]
    fn no_move_between_subscribers_would_improve_the_balance(group in any_group(false)) {
        let assignment = group.assign(Assignor::Uniform);
        let loads: Vec<usize> = assignment.iter().map(load).collect();
        for topic in 0..group.topics.len() {
            for (giver, owned) in assignment.iter().enumerate() {
                if owned.contains_key(&topic_id(topic)) {
                    for (taker, (topics, _)) in group.members.iter().enumerate() {
                        prop_assert!(!topics.contains(&topic) || loads[giver] <= loads[taker] + 1);
                    }
                }
            }
        }
    }

    #[test]
    fn a_new_member_costs_no_more_than_its_share(group in any_group(true)) {
        let before = group.assign(Assignor::Uniform);
        let mut grown = group.holding(&before);
        grown.members.push((group.members[0].0.clone(), Partitions::new()));
        let after = grown.assign(Assignor::Uniform);
        for (before, after) in before.iter().zip(&after) {
            // Nobody who was there before is given anything, so what moves goes to the new one.
            prop_assert_eq!(common(before, after), load(after));
        }
    }

    #[test]
    fn who_leaves_costs_the_others_nothing(group in any_group(true), leaving in any::<prop::sample::Index>()) {
        prop_assume!(group.members.len() > 1);
        let before = group.assign(Assignor::Uniform);
        let mut shrunk = group.holding(&before);
        let leaving = leaving.index(shrunk.members.len());
        shrunk.members.remove(leaving);
        let after = shrunk.assign(Assignor::Uniform);
        let stayed = before.iter().enumerate().filter(|(index, _)| *index != leaving);
        for ((_, before), after) in stayed.zip(&after) {
            prop_assert_eq!(common(before, after), load(before));
        }
    }

    #[test]
    fn ranges_of_equal_topics_match(count in 1..20_i32, members in 1..8_usize) {
        let group = Group {
            topics: vec![count; 3],
            members: vec![((0..3).collect(), Partitions::new()); members],
        };
        for partitions in group.assign(Assignor::Range) {
            let ranges: BTreeSet<Vec<i32>> =
                partitions.values().map(|range| range.iter().copied().collect()).collect();
            prop_assert!(ranges.len() <= 1, "{ranges:?}");
            for range in ranges {
                prop_assert!(range.windows(2).all(|pair| pair[0] + 1 == pair[1]));
                let most = usize::try_from(count).unwrap().div_ceil(members);
                prop_assert!(range.len() <= most && range.len() + 1 >= most);
            }
        }
    }
}

#[test]
fn names_are_kafkas() {
    assert_eq!(Assignor::named("uniform"), Some(Assignor::Uniform));
    assert_eq!(Assignor::named("range"), Some(Assignor::Range));
    assert_eq!(Assignor::named("Range"), None);
}

#[test]
fn static_members_keep_their_ranges_whatever_their_ids() {
    let none = Partitions::new();
    let member = |member_id, instance_id| MemberSpec {
        member_id,
        instance_id,
        subscription: 0,
        current: &none,
    };
    let group = GroupSpec {
        topics: vec![TopicSpec {
            id: topic_id(0),
            partitions: 3,
        }],
        subscriptions: vec![vec![0]],
        members: vec![
            member("a", None),
            member("b", Some("two")),
            member("c", Some("one")),
        ],
    };
    let owned: Vec<Vec<i32>> = Assignor::Range
        .assign(&group)
        .iter()
        .map(|partitions| partitions[&topic_id(0)].iter().copied().collect())
        .collect();
    assert_eq!(owned, [vec![2], vec![1], vec![0]]);
}
