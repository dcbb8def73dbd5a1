//! What a ConsumerGroupHeartbeat must say to be looked at, whatever group it is for.

use ringlog_net::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use ringlog_net::{ErrorCode, Str};

use super::assignor::Assignor;
use super::config::ConsumerGroupConfig;
use super::expression::EXPRESSION_BYTES_MAX;
use super::member::{JOIN_EPOCH, LEAVE_EPOCH, LEAVE_STATIC_EPOCH};
use super::refusal::Refusal;

/// The first version in which clients make up their member ids themselves (KIP-1082).
const CLIENT_MEMBER_ID_FROM: i16 = 1;
/// The longest id of a group, member, static member or rack, in bytes.
pub const ID_BYTES_MAX: usize = 1024;
/// The longest name of a topic, in bytes; as of any topic of Kafka's.
const TOPIC_BYTES_MAX: usize = 249;
/// All topic names of one subscription, in bytes: they stand in one record.
pub const SUBSCRIPTION_BYTES_MAX: usize = 512 << 10;

/// Checks a request.
///
/// # Errors
/// INVALID_REQUEST, UNSUPPORTED_ASSIGNOR, or INVALID_REGULAR_EXPRESSION when the expression is too long.
pub fn check(
    request: &ConsumerGroupHeartbeatRequest,
    version: i16,
    config: &ConsumerGroupConfig,
) -> Result<(), Refusal> {
    let valid = |holds, message: &str| Refusal::unless(holds, ErrorCode::INVALID_REQUEST, message);
    let epoch = request.member_epoch;
    if version >= CLIENT_MEMBER_ID_FROM || epoch > 0 || epoch == LEAVE_EPOCH {
        valid(!request.member_id.is_empty(), "MemberId can't be empty.")?;
    }
    valid(!request.group_id.is_empty(), "GroupId can't be empty.")?;
    let not_empty = |id: &Option<Str>| id.as_ref().is_none_or(|id| !id.is_empty());
    valid(
        not_empty(&request.instance_id),
        "InstanceId can't be empty.",
    )?;
    valid(not_empty(&request.rack_id), "RackId can't be empty.")?;
    valid(epoch >= LEAVE_STATIC_EPOCH, "MemberEpoch is invalid.")?;
    if epoch == JOIN_EPOCH {
        valid(
            request.rebalance_timeout_ms != -1,
            "RebalanceTimeoutMs must be provided in first request.",
        )?;
        valid(
            request.topic_partitions.as_ref().is_some_and(Vec::is_empty),
            "TopicPartitions must be empty when (re-)joining.",
        )?;
        valid(
            request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some(),
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
        )?;
    } else if epoch == LEAVE_STATIC_EPOCH {
        valid(request.instance_id.is_some(), "InstanceId can't be null.")?;
    }
    check_sizes(request)?;
    check_assignor(request, config)
}

fn check_sizes(request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
    let ids = [
        Some(&request.group_id),
        Some(&request.member_id),
        request.instance_id.as_ref(),
        request.rack_id.as_ref(),
    ];
    Refusal::unless(
        ids.into_iter().flatten().all(|id| id.len() <= ID_BYTES_MAX),
        ErrorCode::INVALID_REQUEST,
        format!("An id is longer than {ID_BYTES_MAX} bytes."),
    )?;
    let names = request
        .subscribed_topic_names
        .as_deref()
        .unwrap_or_default();
    Refusal::unless(
        names.iter().all(|name| name.len() <= TOPIC_BYTES_MAX),
        ErrorCode::INVALID_REQUEST,
        format!("The name of a topic is longer than {TOPIC_BYTES_MAX} bytes."),
    )?;
    Refusal::unless(
        names.iter().map(|name| name.len() + 2).sum::<usize>() <= SUBSCRIPTION_BYTES_MAX,
        ErrorCode::INVALID_REQUEST,
        format!("The subscribed topics take more than {SUBSCRIPTION_BYTES_MAX} bytes."),
    )?;
    let regex = request
        .subscribed_topic_regex
        .as_deref()
        .unwrap_or_default();
    Refusal::unless(
        regex.len() <= EXPRESSION_BYTES_MAX,
        ErrorCode::INVALID_REGULAR_EXPRESSION,
        format!("SubscribedTopicRegex is longer than {EXPRESSION_BYTES_MAX} bytes."),
    )
}

fn check_assignor(
    request: &ConsumerGroupHeartbeatRequest,
    config: &ConsumerGroupConfig,
) -> Result<(), Refusal> {
    let Some(name) = &request.server_assignor else {
        return Ok(());
    };
    let known = Assignor::named(name).is_some_and(|known| config.assignors.contains(&known));
    let supported: Vec<&str> = config.assignors.iter().map(|known| known.name()).collect();
    Refusal::unless(
        known,
        ErrorCode::UNSUPPORTED_ASSIGNOR,
        format!(
            "ServerAssignor is not supported. Supported assignors: {}.",
            supported.join(", ")
        ),
    )
}
