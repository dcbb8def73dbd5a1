//! Random histories of requests: the image agrees with a simple model, with its own replay, and with whoever only follows the deltas.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ringlog_net::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use ringlog_net::messages::delete_topics::DeleteTopicsRequest;
use ringlog_net::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use ringlog_net::metadata::MetadataRecord;

use super::super::configs::TOPIC;
use super::*;

/// Few names, some of which collide, so that histories meet themselves.
const NAMES: &[&str] = &["a", "b", "a.b", "a_b", "c.d_e", "c_d.e", "bad name", ""];

#[derive(Clone, Debug)]
enum Step {
    Create(Vec<(usize, i32)>),
    Delete(Vec<usize>),
    Grow(usize, i32),
    Configure(usize, Option<u16>),
    ElectAnew,
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..NAMES.len();
    prop_oneof![
        4 => prop::collection::vec((name(), -2..5i32), 1..4).prop_map(Step::Create),
        3 => prop::collection::vec(name(), 1..3).prop_map(Step::Delete),
        2 => (name(), 0..8i32).prop_map(|(name, count)| Step::Grow(name, count)),
        3 => (name(), any::<Option<u16>>()).prop_map(|(name, value)| Step::Configure(name, value)),
        1 => Just(Step::ElectAnew),
    ]
}

fn records(controller: &mut Controller, step: &Step) -> Vec<MetadataRecord> {
    match step {
        Step::Create(topics) => {
            let topics = topics
                .iter()
                .map(|(name, partitions)| topic(NAMES[*name], *partitions, -1))
                .collect();
            controller
                .create_topics(&CreateTopicsRequest {
                    topics,
                    ..Default::default()
                })
                .records
        }
        Step::Delete(names) => {
            let topic_names = names.iter().map(|name| Str::from(NAMES[*name])).collect();
            controller
                .delete_topics(&DeleteTopicsRequest {
                    topic_names,
                    ..Default::default()
                })
                .records
        }
        Step::Grow(name, count) => {
            let topics = vec![CreatePartitionsTopic {
                name: Str::from(NAMES[*name]),
                count: *count,
                assignments: None,
            }];
            controller
                .create_partitions(&CreatePartitionsRequest {
                    topics,
                    ..Default::default()
                })
                .records
        }
        Step::Configure(name, value) => {
            let configs = vec![AlterableConfig {
                name: Str::from("retention.ms"),
                config_operation: i8::from(value.is_none()),
                value: value.map(|value| Str::from(value.to_string())),
            }];
            let resource = AlterConfigsResource {
                resource_type: TOPIC,
                resource_name: Str::from(NAMES[*name]),
                configs,
            };
            let request = IncrementalAlterConfigsRequest {
                resources: vec![resource],
                ..Default::default()
            };
            controller.incremental_alter_configs(&request).records
        }
        Step::ElectAnew => controller.elect_anew(1).concat(),
    }
}

/// Topics as a history should leave them: partitions and retention, by name.
#[derive(Default)]
struct Model(BTreeMap<&'static str, (i32, Option<u16>)>);

impl Model {
    fn is_free(&self, name: &str) -> bool {
        super::super::names::check(name).is_ok()
            && !self
                .0
                .keys()
                .any(|other| other.replace('.', "_") == name.replace('.', "_"))
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Create(topics) => {
                for (name, count) in topics {
                    let times = topics.iter().filter(|(other, _)| other == name).count();
                    let count = if *count == -1 { 1 } else { *count };
                    if times == 1 && count > 0 && self.is_free(NAMES[*name]) {
                        self.0.insert(NAMES[*name], (count, None));
                    }
                }
            }
            Step::Delete(names) => {
                for name in names {
                    if names.iter().filter(|other| *other == name).count() == 1 {
                        self.0.remove(NAMES[*name]);
                    }
                }
            }
            Step::Grow(name, count) => {
                if let Some((have, _)) = self.0.get_mut(NAMES[*name]) {
                    *have = (*have).max(*count);
                }
            }
            Step::Configure(name, value) => {
                if let Some((_, retention)) = self.0.get_mut(NAMES[*name]) {
                    *retention = *value;
                }
            }
            Step::ElectAnew => {}
        }
    }
}

/// Somebody who keeps partitions and follows deltas only, as shards do.
#[derive(Default)]
struct Follower(BTreeSet<(Uuid, i32)>);

impl Follower {
    fn take(&mut self, delta: &Delta) {
        for (id, _, count) in &delta.deleted {
            for partition in 0..*count {
                assert!(
                    self.0.remove(&(*id, partition)),
                    "a partition went that was not there"
                );
            }
        }
        for (id, range) in &delta.created {
            for partition in range.clone() {
                assert!(self.0.insert((*id, partition)), "a partition came twice");
            }
        }
        for changed in &delta.partitions_changed {
            assert!(
                self.0.contains(changed),
                "a partition changed that is not there"
            );
        }
    }
}

fn check(image: &Image, model: &Model, follower: &Follower) {
    let held: BTreeSet<(Uuid, i32)> = image
        .topics()
        .flat_map(|topic| (0..topic.partitions.len() as i32).map(|partition| (topic.id, partition)))
        .collect();
    assert_eq!(follower.0, held);
    assert_eq!(image.partition_count(), held.len());
    let topics: Vec<(&str, i32, Option<&str>)> = image
        .topics()
        .map(|topic| {
            let retention = image
                .topic_configs(&topic.name)
                .get("retention.ms")
                .map(String::as_str);
            (
                topic.name.as_str(),
                topic.partitions.len() as i32,
                retention,
            )
        })
        .collect();
    let retentions: Vec<Option<String>> = model
        .0
        .values()
        .map(|(_, value)| value.map(|value| value.to_string()))
        .collect();
    let expected = model
        .0
        .iter()
        .zip(&retentions)
        .map(|((name, (count, _)), retention)| (*name, *count, retention.as_deref()));
    assert_eq!(topics, expected.collect::<Vec<_>>());
    for topic in image.topics() {
        assert!(std::ptr::eq(
            image.topic_by_id(topic.id).unwrap(),
            image.topic(&topic.name).unwrap()
        ));
        assert!(image.colliding(&topic.name).is_none());
    }
    let configured = NAMES
        .iter()
        .filter(|name| !image.topic_configs(name).is_empty());
    assert!(
        configured.clone().all(|name| image.topic(name).is_some()),
        "configuration outlives no topic"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn image_agrees_with_model_replay_and_deltas(steps in prop::collection::vec(step(), 1..40), together in 1..5usize) {
        let mut cluster = Cluster::new(1, &[]);
        let start = cluster.image().clone();
        let (mut model, mut follower) = (Model::default(), Follower::default());
        let mut log = Vec::new();
        // Commits are applied several at a time, as under load.
        let mut committed = ImageBuilder::new(&start);
        for (number, step) in steps.iter().enumerate() {
            let records = records(&mut cluster.controller, step);
            let base = cluster.image().offset + 1;
            cluster.carry_out(Decision { records: records.clone(), response: () });
            committed.batch(base, 1, &records).unwrap();
            log.push((base, records));
            model.take(step);
            if (number + 1) % together == 0 || number + 1 == steps.len() {
                let (image, delta) = committed.finish();
                follower.take(&delta);
                prop_assert_eq!(&image, cluster.image());
                check(&image, &model, &follower);
                committed = ImageBuilder::new(&image);
            }
        }
        let mut exported = ImageBuilder::new(&Image::empty());
        exported.batch(0, 1, &cluster.image().records().collect::<Vec<_>>()).unwrap();
        exported.skip_to(cluster.image().offset, 1);
        prop_assert_eq!(&exported.finish().0, cluster.image());
        let mut replayed = ImageBuilder::new(&start);
        for (base, records) in &log {
            replayed.batch(*base, 1, records).unwrap();
        }
        prop_assert_eq!(&replayed.finish().0, cluster.image());
    }
}
