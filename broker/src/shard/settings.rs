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

/// Rules by topic, valid for one image.
#[derive(Default)]
pub struct SettingsCache {
    image_offset: Cell<i64>,
    rules: RefCell<HashMap<Uuid, Rc<ProduceRules>>>,
}

impl Shard {
    /// The rules for batches produced to a topic; none if the image does not know it. Time and version are for the caller to fill in.
    pub fn produce_rules(&self, topic_id: Uuid) -> Option<Rc<ProduceRules>> {
        let cache = &self.settings;
        let offset = self.with_image(|image| image.offset);
        if cache.image_offset.replace(offset) != offset
            || cache.rules.borrow().len() > CACHED_TOPICS_MAX
        {
            cache.rules.borrow_mut().clear();
        }
        if let Some(rules) = cache.rules.borrow().get(&topic_id) {
            return Some(rules.clone());
        }
        let image = self.image();
        let topic = image.topic_by_id(topic_id)?;
        let rules = Rc::new(config::topic::produce_rules(
            &self.config,
            &image,
            &topic.name,
        ));
        cache.rules.borrow_mut().insert(topic_id, rules.clone());
        Some(rules)
    }
}
