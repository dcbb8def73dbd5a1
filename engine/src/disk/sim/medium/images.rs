//! The disk as others find it: after a power loss, after a kill, and as plain lists of files and directories.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{DirNode, Medium, Name, NameChange, Node, NodeId, ROOT};
use crate::disk::sim::file_node::FileNode;
use crate::random::Random;

impl Medium {
    /// The disk as it may be found after losing power now.
    pub(crate) fn after_power_loss(&self, random: &mut Random) -> Self {
        let mut names: BTreeMap<NodeId, BTreeMap<String, NodeId>> = self
            .nodes
            .iter()
            .filter_map(|(id, node)| match node {
                Node::Dir(dir) => Some((*id, dir.durable.clone())),
                Node::File(_) => None,
            })
            .collect();
        let happens = [0.0, 0.5, 0.9, 1.0][random.below(4) as usize];
        let mut blocked: BTreeSet<&Name> = BTreeSet::new();
        for (_, change) in &self.pending_names {
            if change.names().any(|name| blocked.contains(name)) || !random.chance(happens) {
                blocked.extend(change.names());
                continue;
            }
            match change {
                NameChange::Link { at, node } => {
                    names.entry(at.0).or_default().insert(at.1.clone(), *node);
                }
                NameChange::Unlink { at } => {
                    names.entry(at.0).or_default().remove(&at.1);
                }
                NameChange::Rename { from, to } => {
                    if let Some(node) = names.entry(from.0).or_default().remove(&from.1) {
                        names.entry(to.0).or_default().insert(to.1.clone(), node);
                    }
                }
            }
        }
        self.rebuild(&names, |file| file.after_power_loss(random))
    }

    /// The disk as the next process finds it when this one is killed now.
    pub(crate) fn after_kill(&self, random: &mut Random) -> Self {
        let mut medium = self.clone();
        for node in medium.nodes.values_mut() {
            if let Node::File(file) = node {
                *file = file.after_kill(random);
            }
        }
        medium.forget_removed();
        medium.count_used();
        medium
    }

    /// A settled file system of what `names` reach from the root.
    fn rebuild(
        &self,
        names: &BTreeMap<NodeId, BTreeMap<String, NodeId>>,
        mut convert: impl FnMut(&FileNode) -> FileNode,
    ) -> Self {
        let mut medium = Self {
            next_node: self.next_node,
            name_changes: self.name_changes,
            ..Self::new(self.capacity_bytes)
        };
        medium.extension_is_durable = self.extension_is_durable;
        let mut to_visit = vec![ROOT];
        while let Some(id) = to_visit.pop() {
            let mut dir = DirNode::default();
            for (name, child) in names.get(&id).into_iter().flatten() {
                match self.nodes.get(child) {
                    Some(Node::Dir(_)) => to_visit.push(*child),
                    Some(Node::File(file)) => {
                        let file = convert(file).linked(1, 1);
                        medium.nodes.insert(*child, Node::File(file));
                    }
                    None => continue,
                }
                dir.live.insert(name.clone(), *child);
            }
            dir.durable = dir.live.clone();
            medium.nodes.insert(id, Node::Dir(dir));
        }
        medium.count_used();
        medium
    }

    fn count_used(&mut self) {
        self.used_bytes = self
            .nodes
            .values()
            .map(|node| match node {
                Node::File(file) if file.live_links > 0 || file.open_handles > 0 => {
                    file.allocated_bytes()
                }
                _ => 0,
            })
            .sum();
    }

    /// Every file and its content as a reader sees it, by path from the root.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        self.walk(|path, node| {
            if let Node::File(file) = node {
                found.push((path, file.read(0, file.len() as usize)));
            }
        });
        found.sort();
        found
    }

    /// Every directory, by path from the root.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        self.walk(|path, node| {
            if let Node::Dir(_) = node {
                found.push(path);
            }
        });
        found.sort();
        found
    }

    fn walk(&self, mut visit: impl FnMut(PathBuf, &Node)) {
        let mut to_visit = vec![(PathBuf::new(), ROOT)];
        while let Some((path, id)) = to_visit.pop() {
            let Some(node) = self.nodes.get(&id) else {
                continue;
            };
            if let Node::Dir(dir) = node {
                to_visit.extend(
                    dir.live
                        .iter()
                        .map(|(name, child)| (path.join(name), *child)),
                );
            }
            visit(path, node);
        }
    }
}
