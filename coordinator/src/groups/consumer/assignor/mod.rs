//! Server-side assignors (KIP-848): which member should own which partition. Pure arithmetic over a [`GroupSpec`], the same result for the same input.
//!
//! Every partition of a topic with subscribers goes to exactly one of them. What a member held and no longer may hold (unsubscribed, gone, or claimed by
//! another member too) is taken from it first, so whatever stands in an old target, the new one is sound.

mod balanced;
mod even;
mod range;
#[cfg(test)]
mod tests;

use ringlog_net::Uuid;

use super::assignment::Partitions;

/// An assignor, as `group.consumer.assignors` and members name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignor {
    /// Balanced over all topics together, and sticky.
    Uniform,
    /// Ranges of each topic, so that topics of equal size are co-partitioned.
    Range,
}

/// What an assignor is told of a group.
#[derive(Clone, Debug, Default)]
pub struct GroupSpec<'a> {
    /// The topics that exist and have subscribers, ascending by id.
    pub topics: Vec<TopicSpec>,
    /// The different subscriptions that occur, as ascending indices of `topics`.
    pub subscriptions: Vec<Vec<usize>>,
    /// Ascending by member id.
    pub members: Vec<MemberSpec<'a>>,
}

/// A topic as an assignor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// The topic's id.
    pub id: Uuid,
    /// How many partitions it has.
    pub partitions: i32,
}

/// A member as an assignor sees it.
#[derive(Clone, Copy, Debug)]
pub struct MemberSpec<'a> {
    /// The member's id.
    pub member_id: &'a str,
    /// The static member's name, if it has one.
    pub instance_id: Option<&'a str>,
    /// Its subscription, an index of [`GroupSpec::subscriptions`].
    pub subscription: usize,
    /// What it was to own until now.
    pub current: &'a Partitions,
}

impl Assignor {
    /// All, the default first.
    pub const ALL: [Assignor; 2] = [Assignor::Uniform, Assignor::Range];

    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// The assignor of a name.
    pub fn named(name: &str) -> Option<Assignor> {
        Assignor::ALL
            .into_iter()
            .find(|assignor| assignor.name() == name)
    }

    /// What each member should own, in the order of `group.members`.
    pub fn assign(self, group: &GroupSpec<'_>) -> Vec<Partitions> {
        match self {
            _ if group.members.is_empty() => Vec::new(),
            Assignor::Range => range::assign(group),
            Assignor::Uniform if group.subscriptions.len() <= 1 => even::assign(group),
            Assignor::Uniform => balanced::assign(group),
        }
    }
}

impl GroupSpec<'_> {
    /// The indices of the topics that a member subscribes to.
    fn subscribed(&self, member: &MemberSpec<'_>) -> &[usize] {
        self.subscriptions
            .get(member.subscription)
            .map_or(&[], Vec::as_slice)
    }

    /// Gives back to each member what it held and may still hold: the owner of each partition, by topic.
    fn claims(&self) -> Vec<Vec<Option<usize>>> {
        let mut owners: Vec<Vec<Option<usize>>> = self
            .topics
            .iter()
            .map(|topic| vec![None; usize::try_from(topic.partitions).unwrap_or(0)])
            .collect();
        for (index, member) in self.members.iter().enumerate() {
            let subscribed = self.subscribed(member);
            for (id, partitions) in member.current {
                let Ok(topic) = self.topics.binary_search_by(|topic| topic.id.cmp(id)) else {
                    continue;
                };
                if subscribed.binary_search(&topic).is_err() {
                    continue;
                }
                for partition in partitions {
                    let slot = usize::try_from(*partition)
                        .ok()
                        .and_then(|partition| owners[topic].get_mut(partition));
                    if let Some(slot @ None) = slot {
                        *slot = Some(index);
                    }
                }
            }
        }
        owners
    }

    /// The other form of [`GroupSpec::claims`]: what each member owns.
    fn by_member(&self, owners: &[Vec<Option<usize>>]) -> Vec<Partitions> {
        let mut assignment = vec![Partitions::new(); self.members.len()];
        for (topic, owners) in self.topics.iter().zip(owners) {
            for (partition, owner) in (0..).zip(owners) {
                if let Some(owner) = owner {
                    assignment[*owner]
                        .entry(topic.id)
                        .or_default()
                        .insert(partition);
                }
            }
        }
        assignment
    }
}
