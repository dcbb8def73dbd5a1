//! Configuration in every version that is offered: set, laid over each other, described and kept, or refused with a reason.

use ringlog_net::messages::alter_configs::{self, AlterConfigsRequest};
use ringlog_net::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ringlog_net::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
};
use ringlog_net::messages::incremental_alter_configs::{self, IncrementalAlterConfigsRequest};
use ringlog_net::messages::list_config_resources::ListConfigResourcesRequest;
use ringlog_net::{ErrorCode, Str};

use crate::support::{Broker, Client, ask};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn set(
    client: &mut Client,
    kind: i8,
    name: &str,
    key: &str,
    operation: i8,
    value: Option<&str>,
    version: i16,
) -> ErrorCode {
    let config = incremental_alter_configs::AlterableConfig {
        name: Str::from(key),
        config_operation: operation,
        value: value.map(Str::from),
    };
    let resource = incremental_alter_configs::AlterConfigsResource {
        resource_type: kind,
        resource_name: Str::from(name),
        configs: vec![config],
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource],
        ..Default::default()
    };
    ask!(client, IncrementalAlterConfigs, request, version).responses[0].error_code
}

fn configs(
    client: &mut Client,
    kind: i8,
    name: &str,
    keys: &[&str],
    version: i16,
) -> DescribeConfigsResponse {
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: Str::from(name),
        configuration_keys: (!keys.is_empty())
            .then(|| keys.iter().map(|key| Str::from(*key)).collect()),
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: version >= 3,
    };
    ask!(client, DescribeConfigs, request, version)
}

#[test]
fn configuration_is_changed_described_and_kept() {
    let mut broker = Broker::start(&["log.retention.ms=777000"]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[("segment.bytes", "2000000")]);
    assert_eq!(
        set(&mut client, TOPIC, "t", "retention.ms", 0, Some("5000"), 0),
        ErrorCode::NONE
    );
    assert_eq!(
        set(
            &mut client,
            TOPIC,
            "t",
            "cleanup.policy",
            2,
            Some("compact"),
            1
        ),
        ErrorCode::NONE
    );
    assert_eq!(
        set(&mut client, TOPIC, "t", "nope", 0, Some("1"), 1),
        ErrorCode::INVALID_CONFIG
    );
    assert_eq!(
        set(&mut client, TOPIC, "none", "retention.ms", 0, Some("1"), 1),
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    );
    assert_eq!(
        set(&mut client, BROKER, "1", "node.id", 0, Some("2"), 1),
        ErrorCode::INVALID_REQUEST
    );
    assert_eq!(
        set(
            &mut client,
            BROKER,
            "",
            "log.retention.bytes",
            0,
            Some("123456"),
            1
        ),
        ErrorCode::NONE
    );
    broker.crash_and_restart();
    let mut client = broker.connect();
    for version in 1..=4 {
        let described = configs(
            &mut client,
            TOPIC,
            "t",
            &["retention.ms", "retention.bytes", "unknown"],
            version,
        );
        let entries = &described.results[0].configs;
        let found: Vec<(&str, Option<&str>, i8)> = entries
            .iter()
            .map(|entry| {
                (
                    entry.name.as_str(),
                    entry.value.as_deref(),
                    entry.config_source,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("retention.bytes", Some("123456"), 3),
                ("retention.ms", Some("5000"), 1)
            ]
        );
        let sources: Vec<(&str, i8)> = entries[1]
            .synonyms
            .iter()
            .map(|synonym| (synonym.name.as_str(), synonym.source))
            .collect();
        assert_eq!(sources[..2], [("retention.ms", 1), ("log.retention.ms", 4)]);
        if version >= 3 {
            assert_eq!(entries[1].config_type, 5);
            assert!(entries.iter().all(|entry| {
                entry
                    .documentation
                    .as_ref()
                    .is_some_and(|text| !text.is_empty())
            }));
        }
        let all = &configs(&mut client, TOPIC, "t", &[], version).results[0].configs;
        assert!(all.iter().any(|entry| entry.name == *"cleanup.policy"
            && entry.value.as_deref() == Some("delete,compact")));
        let of_broker = &configs(&mut client, BROKER, "1", &[], version).results[0].configs;
        let entry = |name: &str| of_broker.iter().find(|entry| entry.name == *name).unwrap();
        assert!(entry("inter.broker.protocol.version").read_only);
        assert_eq!(
            (
                entry("log.retention.ms").value.as_deref(),
                entry("log.retention.ms").config_source
            ),
            (Some("777000"), 4)
        );
        assert_eq!(
            configs(&mut client, BROKER, "2", &[], version).results[0].error_code,
            ErrorCode::INVALID_REQUEST
        );
        assert_eq!(
            configs(&mut client, 8, "1", &[], version).results[0].error_code,
            ErrorCode::INVALID_REQUEST
        );
    }
    for version in 0..=2 {
        let config = |value: &str| alter_configs::AlterableConfig {
            name: Str::from("retention.ms"),
            value: Some(Str::from(value)),
        };
        for (value, code) in [("9000", ErrorCode::NONE), ("x", ErrorCode::INVALID_CONFIG)] {
            let resource = alter_configs::AlterConfigsResource {
                resource_type: TOPIC,
                resource_name: Str::from("t"),
                configs: vec![config(value)],
            };
            let request = AlterConfigsRequest {
                resources: vec![resource],
                validate_only: false,
            };
            assert_eq!(
                ask!(client, AlterConfigs, request, version).responses[0].error_code,
                code
            );
        }
        let described = configs(
            &mut client,
            TOPIC,
            "t",
            &["retention.ms", "cleanup.policy"],
            4,
        );
        let values: Vec<Option<&str>> = described.results[0]
            .configs
            .iter()
            .map(|entry| entry.value.as_deref())
            .collect();
        assert_eq!(
            values,
            [Some("delete"), Some("9000")],
            "what is not given is as if it were never set"
        );
    }
    for version in 0..=1 {
        let listed = ask!(
            client,
            ListConfigResources,
            ListConfigResourcesRequest::default(),
            version
        );
        let found: Vec<(&str, i8)> = listed
            .config_resources
            .iter()
            .map(|found| (found.resource_name.as_str(), found.resource_type))
            .collect();
        let expected: &[(&str, i8)] = if version == 0 {
            &[]
        } else {
            &[("t", TOPIC), ("1", BROKER)]
        };
        assert_eq!(found, expected);
    }
    let request = ListConfigResourcesRequest {
        resource_types: vec![TOPIC, 77],
    };
    assert_eq!(
        ask!(client, ListConfigResources, request, 1).error_code,
        ErrorCode::UNSUPPORTED_VERSION
    );
}

#[test]
fn a_compression_that_would_not_be_done_is_refused() {
    const KEY: &str = "compression.type";
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[(KEY, "producer")]);
    for value in ["gzip", "zstd", "uncompressed"] {
        let config = CreatableTopicConfig {
            name: Str::from(KEY),
            value: Some(Str::from(value)),
        };
        let topic = CreatableTopic {
            name: Str::from(value),
            num_partitions: 1,
            replication_factor: 1,
            configs: vec![config],
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        let created = &ask!(client, CreateTopics, request, 7).topics[0];
        assert_eq!(created.error_code, ErrorCode::INVALID_CONFIG);
        let reason = created.error_message.as_deref().unwrap_or_default();
        assert!(reason.contains("only `producer`"), "{reason}");
        for (kind, name) in [(TOPIC, "t"), (BROKER, ""), (BROKER, "1")] {
            let code = set(&mut client, kind, name, KEY, 0, Some(value), 1);
            assert_eq!(code, ErrorCode::INVALID_CONFIG, "{kind} {name} {value}");
        }
    }
    for (kind, name) in [(TOPIC, "t"), (BROKER, ""), (BROKER, "1")] {
        let code = set(&mut client, kind, name, KEY, 0, Some("producer"), 1);
        assert_eq!(code, ErrorCode::NONE);
    }
}

#[test]
fn a_value_too_long_for_old_versions_is_refused_there_and_told_in_new_ones() {
    const KEY: &str = "leader.replication.throttled.replicas";
    let broker = Broker::start(&[]);
    let mut client = broker.connect();
    client.create_topic("t", 1, &[]);
    client.create_topic("other", 1, &[]);
    let value = |len: usize| "0:1,".repeat(len / 4 + 1)[..len].to_string() + "7";
    for (len, fits) in [(32_766, true), (32_767, false), (40_000, false)] {
        let value = value(len);
        let done = set(&mut client, TOPIC, "t", KEY, 0, Some(&value), 1);
        assert_eq!(done, ErrorCode::NONE);
        for version in 1..=4 {
            let response = configs(&mut client, TOPIC, "t", &[], version);
            let result = &response.results[0];
            if !fits && version < 4 {
                assert_eq!(result.error_code, ErrorCode::UNKNOWN_SERVER_ERROR);
                let reason = result.error_message.as_deref().unwrap_or_default();
                assert!(reason.contains(KEY), "{reason}");
                assert!(result.configs.is_empty());
            } else {
                assert_eq!(result.error_code, ErrorCode::NONE, "version {version}");
                let config = result.configs.iter().find(|config| config.name == *KEY);
                let told = config.and_then(|config| config.value.as_deref());
                assert_eq!(told, Some(value.as_str()), "version {version}");
            }
            // What does not concern it is told.
            for (topic, key) in [("t", "retention.ms"), ("other", KEY)] {
                let response = configs(&mut client, TOPIC, topic, &[key], version);
                assert_eq!(response.results[0].error_code, ErrorCode::NONE);
                assert_eq!(response.results[0].configs.len(), 1);
            }
        }
    }
}
