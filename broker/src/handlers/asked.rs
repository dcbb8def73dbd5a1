//! What a request with a list of partitions may ask for: each partition once, and not more of them than `max.partitions.per.request`.
//!
//! A few bytes of request name a partition, and what it is answered with may be long or take long.

use std::collections::HashSet;

use ringlog_net::{ErrorCode, Uuid};

use crate::config::BrokerConfig;

/// The partitions that a request has named so far.
pub struct Asked {
    seen: HashSet<(Uuid, i32)>,
    limit: usize,
}

impl Asked {
    /// Nothing yet.
    pub fn new(config: &BrokerConfig) -> Self {
        let limit = config.number("max.partitions.per.request");
        Self {
            seen: HashSet::new(),
            limit: usize::try_from(limit).unwrap_or(0),
        }
    }

    /// Takes a partition in that exists.
    ///
    /// # Errors
    /// INVALID_REQUEST when it was named before, or is one too many.
    pub fn admit(&mut self, topic_id: Uuid, partition: i32) -> Result<(), ErrorCode> {
        let new = self.seen.len() < self.limit && self.seen.insert((topic_id, partition));
        new.then_some(()).ok_or(ErrorCode::INVALID_REQUEST)
    }
}

#[cfg(test)]
mod tests {
    //! Once each, and so many.
    use super::*;

    #[test]
    fn once_each_and_not_more_than_allowed() {
        let pairs = [("max.partitions.per.request", "3")];
        let config = BrokerConfig::from_pairs(pairs.map(|(k, v)| (k.into(), v.into()))).unwrap();
        let mut asked = Asked::new(&config);
        let (a, b) = (Uuid([1; 16]), Uuid([2; 16]));
        let refused = Err(ErrorCode::INVALID_REQUEST);
        assert_eq!(asked.admit(a, 0), Ok(()));
        assert_eq!(asked.admit(a, 0), refused);
        assert_eq!(asked.admit(a, 1), Ok(()));
        assert_eq!(asked.admit(b, 0), Ok(()));
        assert_eq!(asked.admit(b, 1), refused);
    }
}
