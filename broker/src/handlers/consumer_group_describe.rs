//! ConsumerGroupDescribe (versions 0 and 1): state, members and assignments of consumer groups (KIP-848).

use std::collections::BTreeSet;

use ringlog_coordinator::groups::GroupReply;
use ringlog_net::messages::consumer_group_describe::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DescribedGroup,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use super::groups::{for_each_group, group_operations};
use crate::authorizer::{Operation, ResourceType};

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let operations = request.include_authorized_operations;
    let describe = async |group_id: Str| {
        let described = describe(context, group_id).await?;
        let mut described = unless_hidden(described, |topic| {
            context.authorize(Operation::Describe, ResourceType::Topic, topic)
        });
        if operations && described.error_code.is_none() {
            described.authorized_operations = group_operations(context, &described.group_id);
        }
        Ok(described)
    };
    ConsumerGroupDescribeResponse {
        groups: for_each_group(context, Operation::Describe, request.group_ids, describe).await,
        ..ConsumerGroupDescribeResponse::default()
    }
}

async fn describe(context: &RequestContext, group_id: Str) -> Result<DescribedGroup, ErrorCode> {
    let asked = group_id.detached();
    let asked = context.ask_group_about(&group_id, move |machine, caller, topics, output| {
        machine.consumer_group_describe(caller, asked, topics, output);
    });
    match asked.await? {
        GroupReply::DescribedConsumerGroup(described) => Ok(described),
        _ => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
    }
}

/// The group, unless its members have partitions of a topic that the client must not see; then Kafka shows nothing of it.
fn unless_hidden(group: DescribedGroup, may_describe: impl Fn(&str) -> bool) -> DescribedGroup {
    let assignments = (group.members.iter())
        .flat_map(|member| [&member.assignment, &member.target_assignment])
        .flat_map(|assignment| &assignment.topic_partitions);
    // Each topic is asked for once, however many members have partitions of it.
    let topics: BTreeSet<&Str> = assignments.map(|topic| &topic.topic_name).collect();
    if topics.into_iter().all(|topic| may_describe(topic)) {
        return group;
    }
    DescribedGroup {
        error_code: ErrorCode::TOPIC_AUTHORIZATION_FAILED,
        error_message: Some(Str::from_static(
            "a member of the group reads a topic that may not be described",
        )),
        group_id: group.group_id,
        ..DescribedGroup::default()
    }
}

#[cfg(test)]
mod tests {
    //! A topic that is not to be seen hides the group, whether a member has it or is to get it.
    use super::*;
    use ringlog_net::messages::consumer_group_describe::{Assignment, Member, TopicPartitions};

    #[test]
    fn a_topic_that_may_not_be_described_hides_the_group() {
        let of = |topic: &str| Assignment {
            topic_partitions: vec![TopicPartitions {
                topic_name: Str::from(topic),
                ..TopicPartitions::default()
            }],
        };
        for (owned, target, hidden) in [
            ("open", "open", false),
            ("secret", "open", true),
            ("open", "secret", true),
        ] {
            let group = DescribedGroup {
                group_id: Str::from_static("g"),
                members: vec![Member {
                    assignment: of(owned),
                    target_assignment: of(target),
                    ..Member::default()
                }],
                ..DescribedGroup::default()
            };
            let shown = unless_hidden(group.clone(), |topic| topic != "secret");
            if hidden {
                assert_eq!(shown.error_code, ErrorCode::TOPIC_AUTHORIZATION_FAILED);
                assert_eq!((&*shown.group_id, shown.members.len()), ("g", 0));
            } else {
                assert_eq!(shown, group);
            }
        }
    }
}
