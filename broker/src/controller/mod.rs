//! The controller: decides what becomes of the cluster's metadata.
//!
//! Pure: a [`Controller`] looks at an [`Image`], validates a request against it and answers with the records that would carry it out and
//! the response that may be given once they are committed. It does no I/O, reads no clock, and is handed its randomness.
//! [`crate::metadata`] writes the records, commits them and publishes the image they make.

pub mod apply;
mod cluster;
pub mod configs;
mod deletion;
mod export;
pub mod image;
pub mod names;
mod placement;
#[cfg(test)]
pub(crate) mod tests;
mod topics;

use std::sync::Arc;

use ringlog_net::metadata::MetadataRecord;
use ringlog_net::{ErrorCode, Str, Uuid};

pub use self::apply::{ApplyError, Delta, ImageBuilder};
pub use self::cluster::{FEATURES, Registration};
pub use self::image::Image;
use crate::config::BrokerConfig;

/// Records to commit, and what to answer once they are.
#[derive(Clone, Debug)]
pub struct Decision<R> {
    /// One atomic batch; empty when nothing changes.
    pub records: Vec<MetadataRecord>,
    /// The response.
    pub response: R,
}

/// Why (a part of) a request is refused: Kafka's code, and words that tell a user what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The protocol's code.
    pub code: ErrorCode,
    /// The reason.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    fn text(&self) -> Option<Str> {
        Some(Str::from(self.message.as_str()))
    }
}

/// The controller's state: the newest image, committed or not, and what it needs to decide.
pub struct Controller {
    image: Arc<Image>,
    config: Arc<BrokerConfig>,
    random: Box<dyn FnMut() -> u64>,
}

impl Controller {
    /// A controller that goes on from `image`. `random` gives 64 random bits at a time.
    pub fn new(
        image: Arc<Image>,
        config: Arc<BrokerConfig>,
        random: Box<dyn FnMut() -> u64>,
    ) -> Self {
        Self {
            image,
            config,
            random,
        }
    }

    /// The node this controller runs on.
    pub fn node_id(&self) -> i32 {
        self.config.node_id
    }

    /// The newest image: everything that was decided, committed or not.
    pub fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Goes on from another image: the one that a decision's records make, or an older one when they were lost.
    pub fn set_image(&mut self, image: Arc<Image>) {
        self.image = image;
    }

    /// An id for a new topic: random (version 4), neither reserved nor one that looks like an option on a command line.
    fn new_topic_id(&mut self) -> Uuid {
        loop {
            let bits = u128::from((self.random)()) << 64 | u128::from((self.random)());
            let mut bytes = bits.to_be_bytes();
            bytes[6] = bytes[6] & 0x0f | 0x40;
            bytes[8] = bytes[8] & 0x3f | 0x80;
            let id = Uuid(bytes);
            if !id.to_string().starts_with('-') && self.image.topic_by_id(id).is_none() {
                return id;
            }
        }
    }
}
