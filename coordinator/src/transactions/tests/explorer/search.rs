//! Breadth-first search over all worlds that a scenario leads to.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::model::{Kind, Scenario, World};
use super::steps::Step;

/// Where a search has been.
#[derive(Debug, Default)]
pub struct Explored {
    pub states: usize,
    pub steps: usize,
    pub depth: usize,
    /// What has been answered with success.
    pub succeeded: BTreeSet<Kind>,
    /// States with a request held.
    pub held: usize,
    /// States with a producer that has been told it is done for.
    pub fenced: usize,
}

/// Visits every world.
///
/// # Panics
/// If a rule does not hold somewhere, with a shortest history that leads there.
pub fn explore(scenario: &Scenario) -> Explored {
    let mut explored = Explored::default();
    let first = World::new(scenario);
    let mut before: HashMap<u64, Option<(u64, usize)>> = HashMap::new();
    let name = first.fingerprint();
    before.insert(name, None);
    let mut next = VecDeque::from([(first, name, 0)]);
    while let Some((world, from, depth)) = next.pop_front() {
        explored.states += 1;
        explored.depth = explored.depth.max(depth);
        explored.held += usize::from(world.coordinator.held_requests() > 0);
        explored.fenced += usize::from(world.producers.iter().any(|producer| producer.dead));
        for (token, answer) in &world.answers {
            if answer.outcome.is_ok() {
                explored.succeeded.insert(world.sent[token].kind);
            }
        }
        for (index, step) in world.steps().iter().enumerate() {
            explored.steps += 1;
            let after = world.after(step);
            let name = after.fingerprint();
            if let Some(violation) = &after.violation {
                let mut history = history(scenario, &before, from);
                history.push(step.clone());
                let lines: Vec<String> = history.iter().map(|step| format!("{step:?}")).collect();
                panic!("{violation}, after\n{}\n{after:#?}", lines.join("\n"));
            }
            if let std::collections::hash_map::Entry::Vacant(vacant) = before.entry(name) {
                vacant.insert(Some((from, index)));
                next.push_back((after, name, depth + 1));
            }
        }
    }
    explored
}

/// The steps from the first world to one.
fn history(
    scenario: &Scenario,
    before: &HashMap<u64, Option<(u64, usize)>>,
    mut name: u64,
) -> Vec<Step> {
    let mut indexes = Vec::new();
    while let Some(Some((from, index))) = before.get(&name) {
        indexes.push(*index);
        name = *from;
    }
    let mut world = World::new(scenario);
    let mut steps = Vec::new();
    for index in indexes.into_iter().rev() {
        let step = world.steps()[index].clone();
        world = world.after(&step);
        steps.push(step);
    }
    steps
}
