//! Loading: the records of the log, from its beginning, make the state that the coordinator before this one left.

use ringlog_net::{Bytes, Str};

use super::GroupCoordinator;
use super::classic::ClassicGroup;
use super::consumer::Change;
use super::group::{Group, GroupKind};
use super::reply::GroupReply;
use super::stored::{self, ReplayError, Stored};
use crate::{Commands, Now};

impl GroupCoordinator {
    /// Takes in one record of the log. One of a transaction, whose producer's id and epoch are given, waits for its marker. Records of unknown type are
    /// counted and otherwise left alone.
    ///
    /// # Errors
    /// [`ReplayError`] when the record cannot have been written by a coordinator. The state is as it was before.
    pub fn replay(
        &mut self,
        producer: Option<(i64, i16)>,
        key: Bytes,
        value: Option<Bytes>,
    ) -> Result<(), ReplayError> {
        if let Some((group, change)) = Change::read(&key, value.as_ref())? {
            return self.replay_change(&group, change);
        }
        match stored::read(key, value)? {
            Stored::Offset {
                group,
                topic,
                partition,
                offset: Some(offset),
            } => {
                let producer_id = producer.map(|(id, _)| id);
                self.put_offset(&group, None, producer_id, &topic, partition, offset);
            }
            Stored::Offset {
                group,
                topic,
                partition,
                offset: None,
            } => {
                self.remove_offset(&group, &(topic, partition));
                self.forget_simple_group(&group);
            }
            Stored::Group { group, value } => {
                let loaded = match value {
                    Some(value) => Some(ClassicGroup::from_value(&group, &value)?),
                    None => None,
                };
                self.replace_group(&group, loaded);
            }
            Stored::Unknown => self.skipped_records += 1,
        }
        Ok(())
    }

    /// Puts what was loaded in the place of a group, whose offsets stay.
    fn replace_group(&mut self, group_id: &Str, loaded: Option<ClassicGroup>) {
        let bytes = loaded.as_ref().map_or(0, ClassicGroup::bytes);
        match (self.groups.get_mut(group_id), loaded) {
            // It is in the place of the group that this tombstone is of.
            (Some(group), None) if group.as_consumer().is_some() => {}
            (Some(group), loaded) => {
                let bytes_before = group.member_bytes();
                let has_offsets = !group.offsets.is_empty() || !group.unstable.is_empty();
                match loaded {
                    Some(loaded) => group.kind = GroupKind::Classic(loaded),
                    // Its offsets have tombstones of their own.
                    None if has_offsets => {
                        let simple = ClassicGroup::new(group_id, None);
                        group.kind = GroupKind::Classic(simple);
                    }
                    None => {
                        self.groups.remove(group_id);
                    }
                }
                self.member_bytes = self.member_bytes + bytes - bytes_before;
            }
            (None, Some(loaded)) => {
                self.member_bytes += bytes;
                self.groups
                    .insert(loaded.id().clone(), Group::classic(loaded));
            }
            (None, None) => {}
        }
    }

    /// Drops a group that is nothing but its offsets when the last is gone: only they tell of it.
    fn forget_simple_group(&mut self, group_id: &Str) {
        let is_nothing = self.groups.get(group_id).is_some_and(|group| {
            group.offsets.is_empty()
                && group.unstable.is_empty()
                && group.as_classic().is_some_and(|group| {
                    group.is_deserted()
                        && group.protocol_type().is_none()
                        && group.state_timestamp_ms().is_none()
                })
        });
        if is_nothing {
            self.groups.remove(group_id);
        }
    }

    /// The last record was taken in: members get a whole session timeout from now.
    pub fn loaded(&mut self, now: Now, out: &mut Commands<GroupReply>) {
        let ids: Vec<Str> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with_classic(&id, now, out, |group, context| group.on_loaded(context));
            self.load_consumer_group(&id, now);
        }
    }
}
