//! Making, growing and removing topics: each rule, and the limits that hostile requests meet.

use ringlog_net::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use ringlog_net::messages::create_topics::CreatableReplicaAssignment;
use ringlog_net::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};

use super::*;

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments =
        assignments
            .iter()
            .map(|(partition_index, brokers)| CreatableReplicaAssignment {
                partition_index: *partition_index,
                broker_ids: brokers.to_vec(),
            });
    CreatableTopic {
        assignments: assignments.collect(),
        ..topic(name, -1, -1)
    }
}

fn grow(
    cluster: &mut Cluster,
    name: &str,
    count: i32,
    assignments: Option<&[&[i32]]>,
) -> ErrorCode {
    let assignments = assignments.map(|all| {
        all.iter()
            .map(|brokers| CreatePartitionsAssignment {
                broker_ids: brokers.to_vec(),
            })
            .collect()
    });
    let topics = vec![CreatePartitionsTopic {
        name: Str::from(name),
        count,
        assignments,
    }];
    let request = CreatePartitionsRequest {
        topics,
        ..CreatePartitionsRequest::default()
    };
    let decision = cluster.controller.create_partitions(&request);
    cluster.carry_out(decision).results[0].error_code
}

fn delete(cluster: &mut Cluster, topics: &[(Option<&str>, Uuid)]) -> Vec<ErrorCode> {
    let topics = topics.iter().map(|(name, topic_id)| DeleteTopicState {
        name: name.map(Str::from),
        topic_id: *topic_id,
    });
    let request = DeleteTopicsRequest {
        topics: topics.collect(),
        ..DeleteTopicsRequest::default()
    };
    let decision = cluster.controller.delete_topics(&request);
    cluster
        .carry_out(decision)
        .responses
        .iter()
        .map(|topic| topic.error_code)
        .collect()
}

#[test]
fn defaults_stand_in_for_minus_one() {
    let mut cluster = Cluster::new(
        3,
        &[("num.partitions", "4"), ("default.replication.factor", "2")],
    );
    let request = CreateTopicsRequest {
        topics: vec![topic("t", -1, -1)],
        ..CreateTopicsRequest::default()
    };
    let decision = cluster.controller.create_topics(&request);
    let response = cluster.carry_out(decision);
    let made = &response.topics[0];
    assert_eq!(
        (
            made.error_code,
            made.num_partitions,
            made.replication_factor
        ),
        (ErrorCode::NONE, 4, 2)
    );
    let image = cluster.image().topic("t").unwrap();
    assert_eq!(image.id, made.topic_id);
    assert_eq!(image.partitions.len(), 4);
    for partition in &image.partitions {
        assert_eq!(partition.replicas.len(), 2);
        assert_ne!(partition.replicas[0], partition.replicas[1]);
        assert_eq!(
            (partition.leader, partition.leader_epoch),
            (partition.replicas[0], 0)
        );
        assert_eq!(partition.isr, partition.replicas);
        assert_eq!(
            partition.directories[0],
            Uuid([partition.replicas[0] as u8; 16])
        );
    }
    let leaders: std::collections::BTreeSet<i32> = image
        .partitions
        .iter()
        .map(|partition| partition.leader)
        .collect();
    assert_eq!(leaders.len(), 3, "leaders are spread over the brokers");
}

#[test]
fn numbers_out_of_range() {
    let mut cluster = Cluster::new(2, &[]);
    assert_eq!(
        cluster.create(topic("t", 0, 1)),
        ErrorCode::INVALID_PARTITIONS
    );
    assert_eq!(
        cluster.create(topic("t", -2, 1)),
        ErrorCode::INVALID_PARTITIONS
    );
    assert_eq!(
        cluster.create(topic("t", 1, 0)),
        ErrorCode::INVALID_REPLICATION_FACTOR
    );
    assert_eq!(
        cluster.create(topic("t", 1, -2)),
        ErrorCode::INVALID_REPLICATION_FACTOR
    );
    assert_eq!(
        cluster.create(topic("t", 1, 3)),
        ErrorCode::INVALID_REPLICATION_FACTOR
    );
    assert_eq!(
        cluster.create(topic("t", 1, i16::MAX)),
        ErrorCode::INVALID_REPLICATION_FACTOR
    );
    assert_eq!(
        cluster.create(topic("t", i32::MAX, 1)),
        ErrorCode::POLICY_VIOLATION
    );
    assert_eq!(cluster.image().topic_count(), 0);
    assert_eq!(cluster.create(topic("t", 1, 2)), ErrorCode::NONE);
}

#[test]
fn limits_on_partitions() {
    let mut cluster = Cluster::new(
        1,
        &[
            ("max.partitions.per.request", "10"),
            ("max.partitions.per.broker", "25"),
        ],
    );
    assert_eq!(
        cluster.create(topic("a", 11, 1)),
        ErrorCode::POLICY_VIOLATION
    );
    assert_eq!(cluster.create(topic("b", 10, 1)), ErrorCode::NONE);
    assert_eq!(
        grow(&mut cluster, "b", 21, None),
        ErrorCode::POLICY_VIOLATION
    );
    assert_eq!(grow(&mut cluster, "b", 20, None), ErrorCode::NONE);
    assert_eq!(
        cluster.create(topic("c", 6, 1)),
        ErrorCode::POLICY_VIOLATION
    );
    assert_eq!(cluster.create(topic("c", 5, 1)), ErrorCode::NONE);
    // One request's topics count together.
    let mut cluster = Cluster::new(1, &[("max.partitions.per.request", "10")]);
    let topics = vec![topic("a", 6, 1), topic("b", 6, 1), topic("c", 4, 1)];
    let decision = cluster.controller.create_topics(&CreateTopicsRequest {
        topics,
        ..CreateTopicsRequest::default()
    });
    let codes: Vec<ErrorCode> = cluster
        .carry_out(decision)
        .topics
        .iter()
        .map(|topic| topic.error_code)
        .collect();
    assert_eq!(
        codes,
        [
            ErrorCode::NONE,
            ErrorCode::POLICY_VIOLATION,
            ErrorCode::NONE
        ]
    );
}

#[test]
fn names_that_exist_or_collide() {
    let mut cluster = Cluster::new(1, &[]);
    assert_eq!(cluster.create(topic("a.b", 1, 1)), ErrorCode::NONE);
    assert_eq!(
        cluster.create(topic("a.b", 1, 1)),
        ErrorCode::TOPIC_ALREADY_EXISTS
    );
    assert_eq!(
        cluster.create(topic("a_b", 1, 1)),
        ErrorCode::INVALID_TOPIC_EXCEPTION
    );
    assert_eq!(
        cluster.create(topic("a/b", 1, 1)),
        ErrorCode::INVALID_TOPIC_EXCEPTION
    );
    assert_eq!(
        cluster.create(topic(&"x".repeat(250), 1, 1)),
        ErrorCode::INVALID_TOPIC_EXCEPTION
    );
    assert_eq!(
        cluster.create(topic("__cluster_metadata", 1, 1)),
        ErrorCode::TOPIC_AUTHORIZATION_FAILED
    );
    let id = cluster.image().topic("a.b").unwrap().id;
    assert_eq!(delete(&mut cluster, &[(None, id)]), [ErrorCode::NONE]);
    assert_eq!(cluster.create(topic("a_b", 1, 1)), ErrorCode::NONE);
    assert_ne!(cluster.image().topic("a_b").unwrap().id, id);
}

#[test]
fn topics_of_one_request_collide_and_repeat() {
    let mut cluster = Cluster::new(1, &[]);
    let topics = ["a.b", "a_b", "c", "d", "c", "c"]
        .map(|name| topic(name, 1, 1))
        .to_vec();
    let decision = cluster.controller.create_topics(&CreateTopicsRequest {
        topics,
        ..CreateTopicsRequest::default()
    });
    let response = cluster.carry_out(decision);
    let codes: Vec<(&str, ErrorCode)> = response
        .topics
        .iter()
        .map(|topic| (topic.name.as_str(), topic.error_code))
        .collect();
    let expected = [
        ("a.b", ErrorCode::NONE),
        ("a_b", ErrorCode::INVALID_TOPIC_EXCEPTION),
        ("c", ErrorCode::INVALID_REQUEST),
        ("d", ErrorCode::NONE),
    ];
    assert_eq!(codes, expected);
    assert_eq!(cluster.last_delta.created.len(), 2);
}

#[test]
fn replicas_assigned_by_hand() {
    let mut cluster = Cluster::new(3, &[]);
    let refused = ErrorCode::INVALID_REPLICA_ASSIGNMENT;
    assert_eq!(
        cluster.create(assigned("t", &[(0, &[1]), (0, &[2])])),
        refused
    );
    assert_eq!(cluster.create(assigned("t", &[(1, &[1])])), refused);
    assert_eq!(
        cluster.create(assigned("t", &[(-1, &[1]), (0, &[1])])),
        refused
    );
    assert_eq!(cluster.create(assigned("t", &[(0, &[])])), refused);
    assert_eq!(cluster.create(assigned("t", &[(0, &[1, 1])])), refused);
    assert_eq!(cluster.create(assigned("t", &[(0, &[4])])), refused);
    assert_eq!(
        cluster.create(assigned("t", &[(0, &[1]), (1, &[1, 2])])),
        refused
    );
    let both = CreatableTopic {
        num_partitions: 1,
        ..assigned("t", &[(0, &[1])])
    };
    assert_eq!(cluster.create(both), ErrorCode::INVALID_REQUEST);
    let both = CreatableTopic {
        replication_factor: 1,
        ..assigned("t", &[(0, &[1])])
    };
    assert_eq!(cluster.create(both), ErrorCode::INVALID_REQUEST);
    assert_eq!(
        cluster.create(assigned("t", &[(1, &[3, 1]), (0, &[2, 3])])),
        ErrorCode::NONE
    );
    let partitions = &cluster.image().topic("t").unwrap().partitions;
    assert_eq!(
        (&partitions[0].replicas[..], &partitions[1].replicas[..]),
        (&[2, 3][..], &[3, 1][..])
    );
    assert_eq!(partitions[1].leader, 3);
}

#[test]
fn configuration_of_a_new_topic() {
    let mut cluster = Cluster::new(1, &[]);
    let with = |configs: &[(&str, Option<&str>)]| CreatableTopic {
        configs: configs
            .iter()
            .map(|(name, value)| config(name, *value))
            .collect(),
        ..topic("t", 1, 1)
    };
    assert_eq!(
        cluster.create(with(&[("no.such.key", Some("1"))])),
        ErrorCode::INVALID_CONFIG
    );
    assert_eq!(
        cluster.create(with(&[("retention.ms", Some("soon"))])),
        ErrorCode::INVALID_CONFIG
    );
    assert_eq!(
        cluster.create(with(&[("retention.ms", None)])),
        ErrorCode::INVALID_CONFIG
    );
    let twice = [("retention.ms", Some("1")), ("retention.ms", Some("2"))];
    assert_eq!(cluster.create(with(&twice)), ErrorCode::INVALID_CONFIG);
    let topics = vec![with(&[("retention.ms", Some("1000"))])];
    let decision = cluster.controller.create_topics(&CreateTopicsRequest {
        topics,
        ..CreateTopicsRequest::default()
    });
    let response = cluster.carry_out(decision);
    let described = response.topics[0].configs.as_ref().unwrap();
    let entry = described
        .iter()
        .find(|entry| entry.name == *"retention.ms")
        .unwrap();
    assert_eq!(
        (entry.value.as_deref(), entry.config_source),
        (Some("1000"), 1)
    );
    let entry = described
        .iter()
        .find(|entry| entry.name == *"cleanup.policy")
        .unwrap();
    assert_eq!(
        (entry.value.as_deref(), entry.config_source),
        (Some("delete"), 5)
    );
    assert_eq!(
        cluster
            .image()
            .topic_configs("t")
            .get("retention.ms")
            .map(String::as_str),
        Some("1000")
    );
}

#[test]
fn validate_only_changes_nothing() {
    let mut cluster = Cluster::new(1, &[]);
    let request = CreateTopicsRequest {
        topics: vec![topic("t", 2, 1)],
        validate_only: true,
        ..Default::default()
    };
    let decision = cluster.controller.create_topics(&request);
    assert!(decision.records.is_empty());
    let made = &decision.response.topics[0];
    assert_eq!(
        (made.error_code, made.num_partitions, made.topic_id),
        (ErrorCode::NONE, 2, Uuid::ZERO)
    );
    cluster.create(topic("t", 1, 1));
    let topics = vec![CreatePartitionsTopic {
        name: Str::from("t"),
        count: 2,
        assignments: None,
    }];
    let request = CreatePartitionsRequest {
        topics,
        validate_only: true,
        ..Default::default()
    };
    let decision = cluster.controller.create_partitions(&request);
    assert!(decision.records.is_empty() && decision.response.results[0].error_code.is_none());
}

#[test]
fn growing() {
    let mut cluster = Cluster::new(2, &[]);
    cluster.create(topic("t", 2, 2));
    let id = cluster.image().topic("t").unwrap().id;
    assert_eq!(
        grow(&mut cluster, "none", 2, None),
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    );
    assert_eq!(
        grow(&mut cluster, "t", 2, None),
        ErrorCode::INVALID_PARTITIONS
    );
    assert_eq!(
        grow(&mut cluster, "t", 1, None),
        ErrorCode::INVALID_PARTITIONS
    );
    assert_eq!(
        grow(&mut cluster, "t", i32::MIN, None),
        ErrorCode::INVALID_PARTITIONS
    );
    assert_eq!(
        grow(&mut cluster, "t", i32::MAX, None),
        ErrorCode::POLICY_VIOLATION
    );
    assert_eq!(
        grow(&mut cluster, "t", 4, Some(&[&[1, 2]])),
        ErrorCode::INVALID_REPLICA_ASSIGNMENT
    );
    assert_eq!(
        grow(&mut cluster, "t", 3, Some(&[&[1]])),
        ErrorCode::INVALID_REPLICA_ASSIGNMENT
    );
    assert_eq!(
        grow(&mut cluster, "t", 3, Some(&[&[2, 1]])),
        ErrorCode::NONE
    );
    assert_eq!(cluster.last_delta.created, [(id, 2..3)]);
    assert_eq!(grow(&mut cluster, "t", 5, None), ErrorCode::NONE);
    let partitions = &cluster.image().topic("t").unwrap().partitions;
    assert_eq!((partitions.len(), partitions[2].leader), (5, 2));
    assert!(
        partitions
            .iter()
            .all(|partition| partition.replicas.len() == 2)
    );
}

#[test]
fn deleting() {
    let mut cluster = Cluster::new(1, &[]);
    cluster.create(topic("a", 3, 1));
    cluster.create(topic("b", 1, 1));
    let (a, b) = (
        cluster.image().topic("a").unwrap().id,
        cluster.image().topic("b").unwrap().id,
    );
    let asked = [
        (Some("none"), Uuid::ZERO),
        (None, Uuid([7; 16])),
        (Some("a"), a),
        (None, Uuid::ZERO),
        (Some("b"), Uuid::ZERO),
        (None, b),
    ];
    let expected = [
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::UNKNOWN_TOPIC_ID,
        ErrorCode::INVALID_REQUEST,
        ErrorCode::INVALID_REQUEST,
        ErrorCode::INVALID_REQUEST,
        ErrorCode::INVALID_REQUEST,
    ];
    assert_eq!(delete(&mut cluster, &asked), expected);
    assert_eq!(cluster.image().topic_count(), 2);
    assert_eq!(
        delete(&mut cluster, &[(Some("a"), Uuid::ZERO), (None, b)]),
        [ErrorCode::NONE, ErrorCode::NONE]
    );
    assert_eq!(
        (
            cluster.image().topic_count(),
            cluster.image().partition_count()
        ),
        (0, 0)
    );
    assert!(cluster.last_delta.deleted.contains(&(a, Str::from("a"), 3)));
    // Nothing of the topic's configuration is left for the next of its name.
    cluster.create(CreatableTopic {
        configs: vec![config("retention.ms", Some("5"))],
        ..topic("a", 1, 1)
    });
    delete(&mut cluster, &[(Some("a"), Uuid::ZERO)]);
    cluster.create(topic("a", 1, 1));
    assert!(cluster.image().topic_configs("a").is_empty());
}

#[test]
fn deletion_can_be_disabled() {
    let mut cluster = Cluster::new(1, &[("delete.topic.enable", "false")]);
    cluster.create(topic("a", 1, 1));
    assert_eq!(
        delete(&mut cluster, &[(Some("a"), Uuid::ZERO)]),
        [ErrorCode::TOPIC_DELETION_DISABLED]
    );
}

#[test]
fn thousands_of_topics_in_one_request() {
    let mut cluster = Cluster::new(1, &[]);
    let topics = (0..5000)
        .map(|index| topic(&format!("topic.{index}"), 1, 1))
        .collect();
    let decision = cluster.controller.create_topics(&CreateTopicsRequest {
        topics,
        ..CreateTopicsRequest::default()
    });
    let response = cluster.carry_out(decision);
    assert!(
        response
            .topics
            .iter()
            .all(|topic| topic.error_code.is_none() && topic.configs.is_none())
    );
    assert_eq!(cluster.image().topic_count(), 5000);
    let names: Vec<&str> = cluster
        .image()
        .topics()
        .map(|topic| topic.name.as_str())
        .collect();
    assert!(names.is_sorted());
}

#[test]
fn a_start_after_a_crash_bumps_every_leader_epoch() {
    let mut cluster = Cluster::new(1, &[]);
    cluster.create(topic("a", 3, 1));
    let before = cluster.image().topic("a").unwrap().partitions[1].clone();
    let batches = cluster.controller.elect_anew(1);
    assert_eq!(batches.len(), 1);
    for records in batches {
        cluster.carry_out(Decision {
            records,
            response: (),
        });
    }
    let after = &cluster.image().topic("a").unwrap().partitions[1];
    assert_eq!(
        (after.leader_epoch, after.partition_epoch),
        (before.leader_epoch + 1, before.partition_epoch + 1)
    );
    assert_eq!((after.leader, &after.isr), (before.leader, &before.isr));
    assert_eq!(cluster.last_delta.partitions_changed.len(), 3);
    assert!(cluster.controller.elect_anew(2).is_empty());
}

#[test]
fn producer_ids_are_never_given_twice() {
    let mut cluster = Cluster::new(1, &[]);
    let mut next = 0;
    for count in [1000, 1, 5] {
        let decision = cluster.controller.allocate_producer_ids(1, count).unwrap();
        let ids = cluster.carry_out(decision);
        assert_eq!(ids, next..next + i64::from(count));
        next = ids.end;
    }
    assert!(cluster.controller.allocate_producer_ids(1, 0).is_err());
    assert!(cluster.controller.allocate_producer_ids(1, -5).is_err());
    assert!(cluster.controller.allocate_producer_ids(2, 5).is_err());
}

#[test]
fn a_broker_registers_unfenced_with_its_offset_as_epoch() {
    let mut cluster = Cluster::new(1, &[]);
    let first = cluster.image().broker(1).unwrap().epoch;
    let offset = cluster.image().offset + 1;
    let records = cluster.controller.register(&registration(1));
    cluster.carry_out(Decision {
        records,
        response: (),
    });
    let broker = cluster.image().broker(1).unwrap();
    assert!(!broker.fenced && broker.epoch == offset && offset > first);
    assert_eq!(
        cluster.image().finalized_features().get("metadata.version"),
        Some(&30)
    );
    assert!(cluster.controller.bootstrap().is_empty());
}
