//! The range assignor: each topic cut into ranges, one for each subscriber, in the order of static members by name, then the others by id. Members with equal
//! subscriptions get the same partition numbers of topics of equal size, so that these can be joined. Sticky only as far as the order of members is.

use super::GroupSpec;
use crate::groups::consumer::assignment::Partitions;

/// What each member should own.
pub fn assign(group: &GroupSpec<'_>) -> Vec<Partitions> {
    let mut order: Vec<usize> = (0..group.members.len()).collect();
    order.sort_by_key(|index| {
        let member = &group.members[*index];
        (
            member.instance_id.is_none(),
            member.instance_id,
            member.member_id,
        )
    });
    let mut subscribers = vec![Vec::new(); group.topics.len()];
    for index in order {
        for topic in group.subscribed(&group.members[index]) {
            subscribers[*topic].push(index);
        }
    }
    let mut assignment = vec![Partitions::new(); group.members.len()];
    for (topic, subscribers) in group.topics.iter().zip(&subscribers) {
        let mut left = topic.partitions;
        let mut start = 0;
        for (position, member) in subscribers.iter().enumerate() {
            // What is left, divided among those who are left, rounded up: the first ones get one more.
            let among = i32::try_from(subscribers.len() - position).unwrap_or(i32::MAX);
            let take = left / among + i32::from(left % among > 0);
            if take > 0 {
                assignment[*member].insert(topic.id, (start..start + take).collect());
            }
            start += take;
            left -= take;
        }
    }
    assignment
}
