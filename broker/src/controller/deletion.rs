//! Removing topics: DeleteTopics by name or, from version 6, by id (KIP-516).

use std::collections::HashMap;

use ringlog_net::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use ringlog_net::metadata::{MetadataRecord, RemoveTopicRecord};
use ringlog_net::{ErrorCode, Uuid};

use super::topics::printable;
use super::{Controller, Decision, Refusal};

impl Controller {
    /// Validates and plans the removals of a request. Names of version 1 to 5 and entries of version 6 are treated alike.
    pub fn delete_topics(
        &mut self,
        request: &DeleteTopicsRequest,
    ) -> Decision<DeleteTopicsResponse> {
        let named = request.topic_names.iter();
        let named = named.map(|name| DeleteTopicState {
            name: Some(name.clone()),
            topic_id: Uuid::ZERO,
        });
        let wanted: Vec<DeleteTopicState> = request.topics.iter().cloned().chain(named).collect();
        let resolved: Vec<Result<Uuid, Refusal>> =
            wanted.iter().map(|topic| self.resolve(topic)).collect();
        let mut counts: HashMap<Uuid, usize> = HashMap::new();
        for id in resolved.iter().flatten() {
            *counts.entry(*id).or_default() += 1;
        }
        let mut records = Vec::new();
        let mut responses = Vec::with_capacity(wanted.len());
        for (topic, resolved) in wanted.into_iter().zip(resolved) {
            let resolved = resolved.and_then(|id| match counts[&id] {
                1 => Ok(id),
                _ => Err(Refusal::new(
                    ErrorCode::INVALID_REQUEST,
                    "the topic is in the request more than once",
                )),
            });
            responses.push(match resolved {
                Ok(id) => {
                    records.push(MetadataRecord::RemoveTopic(RemoveTopicRecord {
                        topic_id: id,
                    }));
                    let name = self.image.topic_by_id(id).map(|topic| topic.name.clone());
                    DeletableTopicResult {
                        name,
                        topic_id: id,
                        ..DeletableTopicResult::default()
                    }
                }
                Err(refusal) => DeletableTopicResult {
                    name: topic.name,
                    topic_id: topic.topic_id,
                    error_code: refusal.code,
                    error_message: refusal.text(),
                },
            });
        }
        Decision {
            records,
            response: DeleteTopicsResponse {
                responses,
                ..DeleteTopicsResponse::default()
            },
        }
    }

    fn resolve(&self, topic: &DeleteTopicState) -> Result<Uuid, Refusal> {
        if !self.config.delete_topics {
            let reason = "topics cannot be deleted while delete.topic.enable is false";
            return Err(Refusal::new(ErrorCode::TOPIC_DELETION_DISABLED, reason));
        }
        match (&topic.name, topic.topic_id.is_zero()) {
            (Some(name), true) => self.image.topic(name).map(|topic| topic.id).ok_or_else(|| {
                let reason = format!("there is no topic `{}`", printable(name));
                Refusal::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, reason)
            }),
            (None, false) => self
                .image
                .topic_by_id(topic.topic_id)
                .map(|topic| topic.id)
                .ok_or_else(|| {
                    let reason = format!("there is no topic with id {}", topic.topic_id);
                    Refusal::new(ErrorCode::UNKNOWN_TOPIC_ID, reason)
                }),
            (Some(_), false) => Err(Refusal::new(
                ErrorCode::INVALID_REQUEST,
                "give a topic's name or its id, not both",
            )),
            (None, true) => Err(Refusal::new(
                ErrorCode::INVALID_REQUEST,
                "give a topic's name or its id",
            )),
        }
    }
}
