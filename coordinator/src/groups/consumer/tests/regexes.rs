//! Subscriptions by regular expression.

use ringlog_net::ErrorCode;
use ringlog_net::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;

use super::cluster::{Cluster, assigned, beat, join};
use crate::groups::consumer::expression::EXPRESSIONS_MAX;
use crate::groups::consumer::member::LEAVE_EPOCH;

fn matching(id: &str, regex: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: None,
        subscribed_topic_regex: Some(regex.into()),
        ..join(id, &[])
    }
}

#[test]
fn what_matches_is_assigned_and_what_comes_later_too() {
    let mut cluster = Cluster::new(&[("red", 1), ("rose", 1), ("blue", 1)]);
    let owned = assigned(&cluster.send(&matching("a", "r.*"))).unwrap();
    assert_eq!(owned.len(), 2);
    assert!(cluster.group.is_subscribed("rose") && !cluster.group.is_subscribed("blue"));
    cluster.restart();
    cluster.set_topic("russet", 1);
    cluster.set_topic("brown", 1);
    // The first heartbeat after loading looks at the topics anyway; later ones after a while only.
    assert_eq!(assigned(&cluster.send(&beat("a", 1))).unwrap().len(), 3);
    cluster.set_topic("rust", 1);
    assert_eq!(assigned(&cluster.send(&beat("a", 2))), None);
    cluster.advance(10_000);
    assert_eq!(assigned(&cluster.send(&beat("a", 2))).unwrap().len(), 4);
    cluster.restart();
}

#[test]
fn an_expression_lives_as_long_as_its_members() {
    let mut cluster = Cluster::new(&[("red", 1), ("blue", 1)]);
    cluster.send(&matching("a", "r.*"));
    cluster.send(&matching("b", "r.*"));
    cluster.send(&matching("c", "b.*"));
    assert_eq!(cluster.group.expressions.len(), 2);
    cluster.send(&beat("a", LEAVE_EPOCH));
    assert_eq!(cluster.group.expressions.len(), 2);
    // Changed to nothing, and to another.
    cluster.send(&matching("b", ""));
    assert_eq!(cluster.group.expressions.len(), 1);
    cluster.send(&matching("c", ".*d"));
    let known: Vec<&str> = cluster
        .group
        .expressions
        .keys()
        .map(|regex| regex.as_str())
        .collect();
    assert_eq!(known, [".*d"]);
    cluster.send(&beat("c", LEAVE_EPOCH));
    assert!(cluster.group.expressions.is_empty() && cluster.group.compiled.is_empty());
    cluster.restart();
}

#[test]
fn what_is_no_expression_is_refused_before_anything_changes() {
    let mut cluster = Cluster::new(&[("red", 1)]);
    for regex in ["(", r"(\w{100}){100}{100}", &"a".repeat(5_000)] {
        let code = cluster.send(&matching("a", regex)).error_code;
        assert_eq!(code, ErrorCode::INVALID_REGULAR_EXPRESSION);
    }
    assert!(cluster.group.is_empty() && cluster.log.is_empty());
    for number in 0..EXPRESSIONS_MAX {
        let id = format!("m{number}");
        assert_eq!(
            cluster.send(&matching(&id, &id)).error_code,
            ErrorCode::NONE
        );
    }
    let code = cluster.send(&matching("a", "new")).error_code;
    assert_eq!(code, ErrorCode::INVALID_REGULAR_EXPRESSION);
    // One that somebody has already is not one more; nor is one in place of another.
    assert_eq!(
        cluster.send(&matching("a", "m0")).error_code,
        ErrorCode::NONE
    );
    assert_eq!(
        cluster.send(&matching("m1", "new")).error_code,
        ErrorCode::NONE
    );
    cluster.restart();
}
