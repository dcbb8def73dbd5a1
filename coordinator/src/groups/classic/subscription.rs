//! The topics that a group of consumers reads, from the metadata of its members.
//!
//! The metadata is the clients' own affair, but its beginning is known: a version and the names of the topics. It keeps offsets from being deleted that are
//! in use. It is read anew each time, which is rare, rather than kept.

use std::collections::BTreeSet;

use ringlog_net::codec::{DecodeError, Reader};
use ringlog_net::{Bytes, Str};

use super::ClassicGroup;

/// What is known of the topics a group reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subscription {
    /// These.
    Topics(BTreeSet<Str>),
    /// They cannot be known; whether that means all or none.
    Unknown {
        /// They are consumers, so it may be any topic.
        may_be_any: bool,
    },
}

impl Subscription {
    pub(crate) fn contains(&self, topic: &str) -> bool {
        match self {
            Subscription::Topics(topics) => topics.contains(topic),
            Subscription::Unknown { may_be_any } => *may_be_any,
        }
    }

    pub(crate) fn is_known(&self) -> bool {
        matches!(self, Subscription::Topics(_))
    }
}

impl ClassicGroup {
    /// The topics that its members read.
    pub(crate) fn subscription(&self) -> Subscription {
        let may_be_any = self.is_of_consumers();
        match self.topics().filter(|_| may_be_any) {
            Some(topics) => Subscription::Topics(topics),
            None => Subscription::Unknown { may_be_any },
        }
    }

    fn topics(&self) -> Option<BTreeSet<Str>> {
        let mut topics = BTreeSet::new();
        for member in self.members.iter() {
            let metadata = member.metadata(self.protocol_name.as_ref()?)?;
            topics.extend(subscribed_topics(metadata).ok()?);
        }
        Some(topics)
    }
}

/// The part of a consumer's metadata that all versions have in common.
fn subscribed_topics(metadata: &Bytes) -> Result<Vec<Str>, DecodeError> {
    let mut reader = Reader::new(metadata.clone());
    let _version = reader.i16()?;
    let topics = reader.array(false, 2, |reader| reader.string(false))?;
    let _user_data = reader.nullable_bytes(false, true)?;
    Ok(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_from_any_version() {
        let mut metadata = vec![0, 3, 0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c'];
        metadata.extend([0xff; 4]);
        metadata.extend(b"what later versions add");
        let topics = subscribed_topics(&metadata.into()).expect("two topics");
        assert_eq!(topics, [Str::from("a"), Str::from("bc")]);
        assert!(subscribed_topics(&Bytes::from_static(b"sticky")).is_err());
        assert!(subscribed_topics(&Bytes::new()).is_err());
    }
}
