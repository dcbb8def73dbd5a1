//! What must hold of a coordinator at any time, checked by tests after each event.

use super::GroupCoordinator;
use super::classic::ClassicGroup;

impl GroupCoordinator {
    /// Panics when what is counted is not what is there.
    pub(super) fn check(&self) {
        let classic = || self.groups.values().filter_map(|group| group.as_classic());
        let groups = self.groups.values();
        let bytes: usize = groups.map(|group| group.member_bytes()).sum();
        assert_eq!(self.member_bytes, bytes);
        let timers: usize = classic().map(ClassicGroup::check).sum();
        let work = usize::from(self.work_timer.is_some());
        let consumers = self
            .groups
            .values()
            .filter_map(|group| group.consumer_timer());
        let timers = timers + consumers.filter(|(runs, _)| *runs).count();
        assert_eq!(self.timers.len(), timers + work, "no timer is left behind");
        let consumers = self
            .groups
            .values()
            .filter_map(|group| group.consumer_timer());
        for (runs, group) in consumers {
            assert_eq!(runs, group.next_deadline().is_some());
            assert_eq!(runs, !group.is_empty());
        }
        assert_eq!(self.work_timer.is_some(), !self.work.is_empty());
        let groups = self.groups.values();
        let offsets: usize = groups.map(|group| group.offsets.len()).sum();
        assert_eq!(self.offsets_count, offsets);
        let groups = self.groups.values();
        let unstable: usize = groups
            .flat_map(|group| group.unstable.iter().map(|(_, producers)| producers.len()))
            .sum();
        assert_eq!(self.pending.len(), unstable);
        for (id, group) in &self.groups {
            assert!(
                group
                    .unstable
                    .iter()
                    .all(|(_, producers)| !producers.is_empty())
            );
            if let Some(group) = group.as_classic() {
                assert_eq!(id, group.id());
            }
            if let Some(group) = group.as_consumer() {
                assert_eq!(id, group.id());
            }
        }
    }
}
