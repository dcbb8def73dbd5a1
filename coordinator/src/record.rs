//! A record as the coordinators store it: the key begins with the record's type, the value with its version, two bytes each.

use bytes::Bytes;

/// A record's key, and its value or a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Type and key.
    pub key: Bytes,
    /// Version and value; none deletes the key.
    pub value: Option<Bytes>,
}
