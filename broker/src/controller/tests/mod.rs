//! What the controller decides: Kafka's rules one by one, and random histories against a model.

mod configs;
mod histories;
mod topics;

use std::sync::Arc;

use ringlog_net::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::image::Endpoint;
use super::{Controller, Decision, Delta, Image, ImageBuilder, Registration};
use crate::config::BrokerConfig;

/// A controller with brokers 1 to `brokers` registered, and what its records made of it.
pub(crate) struct Cluster {
    pub controller: Controller,
    pub last_delta: Delta,
}

impl Cluster {
    pub fn new(brokers: i32, config: &[(&str, &str)]) -> Self {
        let pairs = config
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()));
        let config = Arc::new(BrokerConfig::from_pairs(pairs).unwrap());
        let mut state = 1u64;
        let random = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state ^ (state >> 29)
        };
        let controller = Controller::new(Arc::new(Image::empty()), config, Box::new(random));
        let mut cluster = Self {
            controller,
            last_delta: Delta::default(),
        };
        for node_id in 1..=brokers {
            let records = cluster.controller.register(&registration(node_id));
            cluster.carry_out(Decision {
                records,
                response: (),
            });
        }
        let records = cluster.controller.bootstrap();
        cluster.carry_out(Decision {
            records,
            response: (),
        });
        cluster
    }

    pub fn image(&self) -> &Image {
        self.controller.image()
    }

    /// Applies what was decided.
    pub fn carry_out<R>(&mut self, decision: Decision<R>) -> R {
        let mut builder = ImageBuilder::new(self.controller.image());
        builder
            .batch(self.image().offset + 1, 1, &decision.records)
            .unwrap();
        let (image, delta) = builder.finish();
        self.controller.set_image(Arc::new(image));
        self.last_delta = delta;
        decision.response
    }

    /// Makes one topic; the code it is answered with.
    pub fn create(&mut self, topic: CreatableTopic) -> ErrorCode {
        let request = CreateTopicsRequest {
            topics: vec![topic],
            ..CreateTopicsRequest::default()
        };
        let decision = self.controller.create_topics(&request);
        let response = self.carry_out(decision);
        assert_eq!(response.topics.len(), 1);
        response.topics[0].error_code
    }
}

pub(crate) fn registration(node_id: i32) -> Registration {
    let endpoint = Endpoint {
        listener: Str::from("PLAINTEXT"),
        host: Str::from("127.0.0.1"),
        port: 9092,
    };
    Registration {
        node_id,
        incarnation: Uuid([9; 16]),
        endpoints: vec![endpoint],
        rack: None,
        directories: vec![Uuid([node_id as u8; 16])],
    }
}

pub(crate) fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic {
        name: Str::from(name),
        num_partitions,
        replication_factor,
        ..CreatableTopic::default()
    }
}

pub(crate) fn config(name: &str, value: Option<&str>) -> CreatableTopicConfig {
    CreatableTopicConfig {
        name: Str::from(name),
        value: value.map(Str::from),
    }
}
