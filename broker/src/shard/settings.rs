//! What produce must know of a topic, resolved once per image and kept until the next one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use ringlog_engine::batch::ProduceRules;
use ringlog_net::Uuid;

use super::Shard;
use crate::config;

/// Most topics whose rules are kept; beyond it the cache starts again.
const CACHED_TOPICS_MAX: usize = 10_000;

/// What holds for produce to a topic.
#[derive(Clone, Copy, Debug)]
pub struct TopicSettings {
    /// What batches are checked against; time and version are for the caller to fill in.
    pub rules: ProduceRules,
    /// `min.insync.replicas`.
    pub min_insync_replicas: usize,
}

/// Settings by topic, valid for one image.
#[derive(Default)]
pub struct SettingsCache {
    image_offset: Cell<i64>,
    topics: RefCell<HashMap<Uuid, Rc<TopicSettings>>>,
}

impl Shard {
    /// What holds for produce to a topic; none if the image does not know it.
    pub fn topic_settings(&self, topic_id: Uuid) -> Option<Rc<TopicSettings>> {
        let cache = &self.settings;
        let offset = self.with_image(|image| image.offset);
        if cache.image_offset.replace(offset) != offset
            || cache.topics.borrow().len() > CACHED_TOPICS_MAX
        {
            cache.topics.borrow_mut().clear();
        }
        if let Some(settings) = cache.topics.borrow().get(&topic_id) {
            return Some(settings.clone());
        }
        let image = self.local_image();
        let topic = image.topic_by_id(topic_id)?;
        let settings = Rc::new(config::topic::settings(&self.config, &image, &topic.name));
        cache.topics.borrow_mut().insert(topic_id, settings.clone());
        Some(settings)
    }
}
