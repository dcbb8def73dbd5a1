//! Changing configuration: what each operation does, and what is refused.

use ringlog_net::messages::{alter_configs, incremental_alter_configs};
use ringlog_net::metadata::{ConfigRecord, MetadataRecord};

use super::super::ApplyError;
use super::super::configs::{BROKER, BROKER_LOGGER, TOPIC};
use super::*;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn change(
    cluster: &mut Cluster,
    kind: i8,
    name: &str,
    changes: &[(&str, i8, Option<&str>)],
) -> ErrorCode {
    use incremental_alter_configs::{
        AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
    };
    let configs = changes
        .iter()
        .map(|(name, config_operation, value)| AlterableConfig {
            name: Str::from(*name),
            config_operation: *config_operation,
            value: value.map(Str::from),
        });
    let resource = AlterConfigsResource {
        resource_type: kind,
        resource_name: Str::from(name),
        configs: configs.collect(),
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource],
        ..Default::default()
    };
    let decision = cluster.controller.incremental_alter_configs(&request);
    cluster.carry_out(decision).responses[0].error_code
}

fn replace(
    cluster: &mut Cluster,
    kind: i8,
    name: &str,
    values: &[(&str, Option<&str>)],
) -> ErrorCode {
    use alter_configs::{AlterConfigsRequest, AlterConfigsResource, AlterableConfig};
    let configs = values.iter().map(|(name, value)| AlterableConfig {
        name: Str::from(*name),
        value: value.map(Str::from),
    });
    let resource = AlterConfigsResource {
        resource_type: kind,
        resource_name: Str::from(name),
        configs: configs.collect(),
    };
    let request = AlterConfigsRequest {
        resources: vec![resource],
        ..Default::default()
    };
    let decision = cluster.controller.alter_configs(&request);
    cluster.carry_out(decision).responses[0].error_code
}

fn overrides(cluster: &Cluster) -> Vec<(&str, &str)> {
    cluster
        .image()
        .topic_configs("t")
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

fn with_topic() -> Cluster {
    let mut cluster = Cluster::new(1, &[]);
    cluster.create(topic("t", 1, 1));
    cluster
}

#[test]
fn incremental_changes_leave_the_rest_alone() {
    let mut cluster = with_topic();
    let id = cluster.image().topic("t").unwrap().id;
    assert_eq!(
        change(
            &mut cluster,
            TOPIC,
            "t",
            &[("retention.ms", SET, Some("5"))]
        ),
        ErrorCode::NONE
    );
    assert_eq!(cluster.last_delta.configs_changed, [id]);
    assert_eq!(
        change(&mut cluster, TOPIC, "t", &[("segment.ms", SET, Some("7"))]),
        ErrorCode::NONE
    );
    assert_eq!(
        overrides(&cluster),
        [("retention.ms", "5"), ("segment.ms", "7")]
    );
    assert_eq!(
        change(&mut cluster, TOPIC, "t", &[("retention.ms", DELETE, None)]),
        ErrorCode::NONE
    );
    assert_eq!(overrides(&cluster), [("segment.ms", "7")]);
    // What is set already needs no record.
    assert_eq!(
        change(&mut cluster, TOPIC, "t", &[("segment.ms", SET, Some("7"))]),
        ErrorCode::NONE
    );
    assert!(cluster.last_delta.configs_changed.is_empty());
}

#[test]
fn lists_are_appended_to_and_subtracted_from() {
    let mut cluster = with_topic();
    assert_eq!(
        change(
            &mut cluster,
            TOPIC,
            "t",
            &[("cleanup.policy", APPEND, Some("compact"))]
        ),
        ErrorCode::NONE
    );
    assert_eq!(overrides(&cluster), [("cleanup.policy", "delete,compact")]);
    assert_eq!(
        change(
            &mut cluster,
            TOPIC,
            "t",
            &[("cleanup.policy", APPEND, Some("compact"))]
        ),
        ErrorCode::NONE
    );
    assert_eq!(
        change(
            &mut cluster,
            TOPIC,
            "t",
            &[("cleanup.policy", SUBTRACT, Some("delete"))]
        ),
        ErrorCode::NONE
    );
    assert_eq!(overrides(&cluster), [("cleanup.policy", "compact")]);
    assert_eq!(
        change(
            &mut cluster,
            TOPIC,
            "t",
            &[("cleanup.policy", APPEND, Some("nonsense"))]
        ),
        ErrorCode::INVALID_CONFIG
    );
    assert_eq!(
        change(
            &mut cluster,
            TOPIC,
            "t",
            &[("retention.ms", APPEND, Some("5"))]
        ),
        ErrorCode::INVALID_CONFIG
    );
}

/// A key, an operation, and its value.
type Change<'a> = (&'a str, i8, Option<&'a str>);

#[test]
fn refused_changes_change_nothing() {
    let mut cluster = with_topic();
    let cases: &[(&[Change], ErrorCode)] = &[
        (
            &[("retention.ms", SET, Some("9")), ("nope", SET, Some("1"))],
            ErrorCode::INVALID_CONFIG,
        ),
        (
            &[
                ("retention.ms", SET, Some("9")),
                ("segment.ms", SET, Some("x")),
            ],
            ErrorCode::INVALID_CONFIG,
        ),
        (&[("retention.ms", SET, None)], ErrorCode::INVALID_REQUEST),
        (
            &[("retention.ms", 4, Some("1"))],
            ErrorCode::INVALID_REQUEST,
        ),
        (
            &[("retention.ms", -1, Some("1"))],
            ErrorCode::INVALID_REQUEST,
        ),
        (
            &[
                ("retention.ms", SET, Some("1")),
                ("retention.ms", DELETE, None),
            ],
            ErrorCode::INVALID_REQUEST,
        ),
    ];
    for (changes, code) in cases {
        assert_eq!(
            change(&mut cluster, TOPIC, "t", changes),
            *code,
            "{changes:?}"
        );
        assert!(overrides(&cluster).is_empty());
    }
    let set = [("retention.ms", SET, Some("9"))];
    assert_eq!(
        change(&mut cluster, TOPIC, "none", &set),
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    );
    assert_eq!(
        change(&mut cluster, BROKER_LOGGER, "1", &set),
        ErrorCode::INVALID_REQUEST
    );
    assert_eq!(
        change(&mut cluster, 99, "t", &set),
        ErrorCode::INVALID_REQUEST
    );
}

#[test]
fn what_no_snapshot_would_hold_is_not_applied() {
    let cluster = with_topic();
    let record = |name: &str, value: Option<&str>| {
        MetadataRecord::Config(ConfigRecord {
            resource_type: TOPIC,
            resource_name: Str::from(name),
            name: Str::from("retention.ms"),
            value: value.map(Str::from),
        })
    };
    for value in [Some("5"), None] {
        let mut builder = ImageBuilder::new(cluster.image());
        assert_eq!(builder.batch(7, 1, &[record("t", value)]), Ok(()));
        let refused = builder.batch(8, 1, &[record("gone", value)]);
        let name = Str::from("gone");
        assert_eq!(
            refused,
            Err(ApplyError::UnknownTopicName { offset: 8, name })
        );
    }
}

#[test]
fn blanks_around_a_value_are_none_of_it() {
    let mut cluster = with_topic();
    let set = [("message.timestamp.type", SET, Some(" LogAppendTime "))];
    assert_eq!(change(&mut cluster, TOPIC, "t", &set), ErrorCode::NONE);
    let stored = [("message.timestamp.type", "LogAppendTime")];
    assert_eq!(overrides(&cluster), stored);
}

#[test]
fn the_default_of_all_brokers_may_bound_connections() {
    let mut cluster = with_topic();
    let set = [("max.connections", SET, Some("9"))];
    assert_eq!(change(&mut cluster, BROKER, "", &set), ErrorCode::NONE);
    assert_eq!(change(&mut cluster, BROKER, "1", &set), ErrorCode::NONE);
}

#[test]
fn the_legacy_form_replaces_everything() {
    let mut cluster = with_topic();
    assert_eq!(
        replace(
            &mut cluster,
            TOPIC,
            "t",
            &[("retention.ms", Some("5")), ("segment.ms", Some("7"))]
        ),
        ErrorCode::NONE
    );
    assert_eq!(
        replace(&mut cluster, TOPIC, "t", &[("segment.ms", Some("8"))]),
        ErrorCode::NONE
    );
    assert_eq!(overrides(&cluster), [("segment.ms", "8")]);
    assert_eq!(
        replace(&mut cluster, TOPIC, "t", &[("segment.ms", None)]),
        ErrorCode::INVALID_REQUEST
    );
    assert_eq!(replace(&mut cluster, TOPIC, "t", &[]), ErrorCode::NONE);
    assert!(overrides(&cluster).is_empty());
}

#[test]
fn brokers_change_what_can_change_while_they_run() {
    let mut cluster = with_topic();
    let set = [("log.retention.ms", SET, Some("60000"))];
    assert_eq!(change(&mut cluster, BROKER, "", &set), ErrorCode::NONE);
    assert!(cluster.last_delta.broker_configs_changed);
    assert_eq!(
        change(
            &mut cluster,
            BROKER,
            "1",
            &[("log.retention.ms", SET, Some("70000"))]
        ),
        ErrorCode::NONE
    );
    assert_eq!(
        cluster
            .image()
            .broker_configs(None)
            .get("log.retention.ms")
            .map(String::as_str),
        Some("60000")
    );
    assert_eq!(
        cluster
            .image()
            .broker_configs(Some(1))
            .get("log.retention.ms")
            .map(String::as_str),
        Some("70000")
    );
    assert_eq!(
        change(
            &mut cluster,
            BROKER,
            "1",
            &[("log.retention.ms", DELETE, None)]
        ),
        ErrorCode::NONE
    );
    assert!(cluster.image().broker_configs(Some(1)).is_empty());
    assert_eq!(
        change(
            &mut cluster,
            BROKER,
            "1",
            &[("log.retention.ms", SET, Some("x"))]
        ),
        ErrorCode::INVALID_CONFIG
    );
    assert_eq!(
        change(
            &mut cluster,
            BROKER,
            "1",
            &[("no.such.key", SET, Some("x"))]
        ),
        ErrorCode::INVALID_CONFIG
    );
    assert_eq!(
        change(&mut cluster, BROKER, "1", &[("node.id", SET, Some("2"))]),
        ErrorCode::INVALID_REQUEST
    );
    assert_eq!(
        change(&mut cluster, BROKER, "2", &set),
        ErrorCode::INVALID_REQUEST
    );
    assert_eq!(
        change(&mut cluster, BROKER, "one", &set),
        ErrorCode::INVALID_REQUEST
    );
    assert_eq!(
        change(&mut cluster, BROKER, "-1", &set),
        ErrorCode::INVALID_REQUEST
    );
}

#[test]
fn a_resource_twice_in_a_request_is_refused_once() {
    use incremental_alter_configs::{AlterConfigsResource, IncrementalAlterConfigsRequest};
    let mut cluster = with_topic();
    let resource = AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: Str::from("t"),
        configs: Vec::new(),
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource; 3],
        ..Default::default()
    };
    let decision = cluster.controller.incremental_alter_configs(&request);
    assert_eq!(decision.response.responses.len(), 1);
    assert_eq!(
        decision.response.responses[0].error_code,
        ErrorCode::INVALID_REQUEST
    );
}
