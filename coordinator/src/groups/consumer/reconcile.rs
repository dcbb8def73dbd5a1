//! A member's way from what it owns to what it should own (KIP-848): first it gives up what it must not keep, and says so; then it moves to the new epoch
//! and gets what nobody else owns any more; the rest follows as others let go.

use ringlog_net::Uuid;
use ringlog_net::messages::consumer_group_heartbeat::TopicPartitions;

use super::assignment::{Owned, Partitions, claims_any, owns};
use super::member::{Current, MemberState};

/// One step of a member.
pub struct Step<'a> {
    /// Where it stands.
    pub current: &'a Current,
    /// The epoch of the target.
    pub target_epoch: i32,
    /// Where it should get.
    pub target: &'a Partitions,
    /// It has changed its subscription just now: what it no longer subscribes to must go, whatever the target.
    pub subscription_changed: bool,
    /// Whether it subscribes to a topic.
    pub subscribes: &'a dyn Fn(&Uuid) -> bool,
    /// Whether anybody owns a partition, or has not yet said to have given it up.
    pub taken: &'a dyn Fn(&Uuid, i32) -> bool,
    /// What the member says it owns; none: as before.
    pub claimed: Option<&'a [TopicPartitions]>,
}

impl Step<'_> {
    /// Where the member stands afterwards.
    pub fn next(&self) -> Current {
        let current = self.current;
        match current.state {
            MemberState::Stable if current.epoch != self.target_epoch => {
                self.towards_target(current.epoch)
            }
            MemberState::UnrevokedPartitions if !claims_any(self.claimed, &current.revoking) => {
                self.towards_target(current.epoch)
            }
            MemberState::Stable | MemberState::UnrevokedPartitions if self.subscription_changed => {
                self.drop_unsubscribed()
            }
            MemberState::Stable | MemberState::UnrevokedPartitions => current.clone(),
            MemberState::UnreleasedPartitions => self.towards_target(current.epoch),
            // Reached only by a member that says it owns nothing: see `fence_unknown_state`.
            MemberState::Unknown => self.towards_target(self.target_epoch),
        }
    }

    /// Takes from the member what it no longer subscribes to, without looking at the target.
    fn drop_unsubscribed(&self) -> Current {
        let current = self.current;
        let mut next = current.clone();
        for (topic, partitions) in &current.assigned {
            if !(self.subscribes)(topic) {
                next.assigned.remove(topic);
                next.revoking.entry(*topic).or_default().extend(partitions);
            }
        }
        if next.assigned == current.assigned {
            return next;
        }
        next.previous_epoch = current.epoch;
        if claims_any(self.claimed, &next.revoking) {
            next.state = MemberState::UnrevokedPartitions;
        } else {
            // It has let go of them already.
            next.revoking = current.revoking.clone();
        }
        next
    }

    /// Moves the member as far towards the target as it can get now; `epoch` is its own until it gets there.
    fn towards_target(&self, epoch: i32) -> Current {
        let current = self.current;
        let mut kept = Owned::new();
        let mut revoking = Owned::new();
        for (topic, partitions) in &current.assigned {
            let target = self.target.get(topic).filter(|_| (self.subscribes)(topic));
            for (partition, since) in partitions {
                let keep = target.is_some_and(|target| target.contains(partition));
                let to = if keep { &mut kept } else { &mut revoking };
                to.entry(*topic).or_default().insert(*partition, *since);
            }
        }
        if claims_any(self.claimed, &revoking) {
            return Current {
                epoch,
                previous_epoch: current.epoch,
                state: MemberState::UnrevokedPartitions,
                assigned: kept,
                revoking,
            };
        }
        let mut unreleased = false;
        for (topic, partitions) in self.target {
            if !(self.subscribes)(topic) {
                continue;
            }
            for partition in partitions {
                if owns(&current.assigned, topic, *partition) {
                    continue;
                }
                // What the member itself was giving up is nobody else's: it may have it back.
                let own = owns(&current.revoking, topic, *partition);
                if !own && (self.taken)(topic, *partition) {
                    unreleased = true;
                } else {
                    kept.entry(*topic)
                        .or_default()
                        .insert(*partition, self.target_epoch);
                }
            }
        }
        Current {
            epoch: self.target_epoch,
            previous_epoch: current.epoch,
            state: if unreleased {
                MemberState::UnreleasedPartitions
            } else {
                MemberState::Stable
            },
            assigned: kept,
            revoking: Owned::new(),
        }
    }
}
