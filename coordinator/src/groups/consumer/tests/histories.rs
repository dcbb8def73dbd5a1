//! Random histories: members join, change their minds, crash and leave, messages are lost, topics come, grow and go, the coordinator restarts. At no moment
//! do two members own one partition, as they themselves see it; and once things calm down everybody owns what it should.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ringlog_net::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use ringlog_net::{ErrorCode, Str, Uuid};

use super::cluster::{Cluster, assigned, owning};
use crate::groups::consumer::assignment::Partitions;
use crate::groups::consumer::member::{LEAVE_EPOCH, LEAVE_STATIC_EPOCH};
use crate::groups::consumer::{Assignor, ConsumerGroupState};

const TOPICS: [&str; 4] = ["red", "green", "blue", "blank"];
const EXPRESSIONS: [&str; 4] = ["", "b.*", "[rg].*", ".*e.*"];
const CLIENTS: usize = 5;

#[derive(Clone, Debug)]
enum Action {
    /// A heartbeat; the request or the answer may be lost, and it may say everything or as little as it can.
    Beat {
        client: usize,
        request_lost: bool,
        answer_lost: bool,
        full: bool,
    },
    /// The client is done with what it had to give up.
    Revoke(usize),
    Subscribe {
        client: usize,
        topics: BTreeSet<usize>,
        expression: usize,
    },
    Leave {
        client: usize,
        for_a_while: bool,
        answer_lost: bool,
    },
    /// The process dies, and a new one starts.
    Crash(usize),
    SetTopic(usize, i32),
    DeleteTopic(usize),
    Advance(u32),
    Restart,
}

fn any_action() -> impl Strategy<Value = Action> {
    let client = 0..CLIENTS;
    let rarely = || prop::bool::weighted(0.15);
    prop_oneof![
        12 => (client.clone(), rarely(), rarely(), any::<bool>()).prop_map(
            |(client, request_lost, answer_lost, full)| Action::Beat {
                client,
                request_lost,
                answer_lost,
                full,
            }
        ),
        5 => client.clone().prop_map(Action::Revoke),
        2 => (
            client.clone(),
            prop::collection::btree_set(0..TOPICS.len(), 0..=TOPICS.len()),
            0..EXPRESSIONS.len(),
        )
            .prop_map(|(client, topics, expression)| Action::Subscribe {
                client,
                topics,
                expression,
            }),
        1 => (client.clone(), any::<bool>(), rarely()).prop_map(
            |(client, for_a_while, answer_lost)| Action::Leave {
                client,
                for_a_while,
                answer_lost,
            }
        ),
        1 => client.prop_map(Action::Crash),
        1 => (0..TOPICS.len(), 1..7_i32).prop_map(|(topic, count)| Action::SetTopic(topic, count)),
        1 => (0..TOPICS.len()).prop_map(Action::DeleteTopic),
        2 => prop_oneof![0..6_000_u32, 10_000..50_000_u32].prop_map(Action::Advance),
        1 => Just(Action::Restart),
    ]
}

/// A consumer, as far as the group is concerned.
#[derive(Clone, Debug, Default)]
struct Client {
    process: usize,
    member_id: Str,
    instance_id: Option<Str>,
    epoch: i32,
    topics: BTreeSet<Str>,
    expression: Str,
    assignor: Option<Str>,
    /// What it reads from.
    owned: Partitions,
    /// What it was last told to read from, while it still has to give up something.
    told: Option<Partitions>,
    /// It cannot know what has become of its last heartbeat.
    unsure: bool,
    subscription_unsaid: bool,
}

impl Client {
    fn restart(&mut self, number: usize) {
        self.process += 1;
        self.member_id = format!("c{number}-{}", self.process).into();
        self.forget();
    }

    /// Gives up everything, to join anew.
    fn forget(&mut self) {
        self.epoch = 0;
        self.owned.clear();
        self.told = None;
    }

    fn request(&self, full: bool) -> ConsumerGroupHeartbeatRequest {
        let mut request = owning(&self.member_id, self.epoch, &self.owned);
        request.instance_id = self.instance_id.clone();
        if full || self.unsure || self.epoch == 0 {
            request.rebalance_timeout_ms = 20_000;
            request.server_assignor = self.assignor.clone();
        } else {
            // What it owns it says only when it has given up something; it always says it here, or nothing at all.
            request.topic_partitions = request.topic_partitions.filter(|_| self.told.is_none());
        }
        if full || self.unsure || self.epoch == 0 || self.subscription_unsaid {
            request.subscribed_topic_names = Some(self.topics.iter().cloned().collect());
            request.subscribed_topic_regex = Some(self.expression.clone());
        }
        request
    }

    fn told_to_own(&mut self, partitions: Partitions) {
        for (topic, numbers) in &partitions {
            self.owned.entry(*topic).or_default().extend(numbers);
        }
        self.told = Some(partitions);
    }

    fn revoke(&mut self) {
        if let Some(told) = self.told.take() {
            self.owned = told;
        }
    }
}

struct World {
    cluster: Cluster,
    clients: Vec<Client>,
}

impl World {
    fn new(interval_ms: i32) -> World {
        let mut cluster = Cluster::new(&[("red", 3), ("green", 2), ("blue", 4)]);
        cluster.config.assignment_interval_ms = interval_ms;
        let clients = (0..CLIENTS)
            .map(|number| {
                let mut client = Client {
                    instance_id: (number < 2).then(|| format!("i{number}").into()),
                    topics: TOPICS[..=number.min(2)]
                        .iter()
                        .map(|name| Str::from(*name))
                        .collect(),
                    assignor: (number == 3).then(|| Assignor::Range.name().into()),
                    ..Client::default()
                };
                client.restart(number);
                client
            })
            .collect();
        World { cluster, clients }
    }

    fn beat(&mut self, number: usize, request_lost: bool, answer_lost: bool, full: bool) {
        let client = &mut self.clients[number];
        let request = client.request(full);
        if request_lost {
            client.unsure = true;
            return;
        }
        let response = self.cluster.send(&request);
        if answer_lost {
            client.unsure = true;
            return;
        }
        client.unsure = false;
        match response.error_code {
            ErrorCode::NONE => {
                client.subscription_unsaid = false;
                client.epoch = response.member_epoch;
                if let Some(partitions) = assigned(&response) {
                    client.told_to_own(partitions);
                }
            }
            ErrorCode::FENCED_MEMBER_EPOCH | ErrorCode::UNKNOWN_MEMBER_ID => client.forget(),
            // Fatal to a real consumer: somebody starts it again.
            ErrorCode::FENCED_INSTANCE_ID | ErrorCode::UNRELEASED_INSTANCE_ID => {
                client.restart(number);
            }
            other => panic!("{other}: {:?}", response.error_message),
        }
    }

    fn leave(&mut self, number: usize, for_a_while: bool, answer_lost: bool) {
        let client = &mut self.clients[number];
        let epoch = if for_a_while && client.instance_id.is_some() {
            LEAVE_STATIC_EPOCH
        } else {
            LEAVE_EPOCH
        };
        let mut request = owning(&client.member_id, epoch, &Partitions::new());
        request.instance_id = client.instance_id.clone();
        client.restart(number);
        let response = self.cluster.send(&request);
        if !answer_lost && response.error_code.is_none() {
            assert_eq!(response.member_epoch, epoch);
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Beat {
                client,
                request_lost,
                answer_lost,
                full,
            } => self.beat(*client, *request_lost, *answer_lost, *full),
            Action::Revoke(client) => self.clients[*client].revoke(),
            Action::Subscribe {
                client,
                topics,
                expression,
            } => {
                let client = &mut self.clients[*client];
                client.topics = topics.iter().map(|topic| TOPICS[*topic].into()).collect();
                client.expression = EXPRESSIONS[*expression].into();
                client.subscription_unsaid = true;
            }
            Action::Leave {
                client,
                for_a_while,
                answer_lost,
            } => self.leave(*client, *for_a_while, *answer_lost),
            Action::Crash(client) => self.clients[*client].restart(*client),
            Action::SetTopic(topic, count) => {
                let name = TOPICS[*topic];
                let known = self.cluster.topics.by_name.get(name);
                let least = known.map_or(0, |(_, partitions)| *partitions);
                self.cluster.set_topic(name, least.max(*count));
            }
            Action::DeleteTopic(topic) => self.cluster.delete_topic(TOPICS[*topic]),
            Action::Advance(ms) => self.cluster.advance(*ms),
            Action::Restart => self.cluster.restart(),
        }
        self.check_ownership();
    }

    /// No partition has two owners, and what a member owns its coordinator knows. Who was removed and has not heard of it does not count.
    fn check_ownership(&self) {
        let mut owners: BTreeMap<(Uuid, i32), &Str> = BTreeMap::new();
        for client in &self.clients {
            let Some(member) = self.cluster.group.members.get(&client.member_id) else {
                continue;
            };
            for (topic, partitions) in &client.owned {
                for partition in partitions {
                    let other = owners.insert((*topic, *partition), &client.member_id);
                    assert_eq!(
                        other, None,
                        "two own {topic}-{partition}: {}",
                        client.member_id
                    );
                    let current = &member.current;
                    let known = [&current.assigned, &current.revoking]
                        .into_iter()
                        .any(|owned| {
                            owned
                                .get(topic)
                                .is_some_and(|owned| owned.contains_key(partition))
                        });
                    assert!(
                        known,
                        "{} owns {topic}-{partition} unknown",
                        client.member_id
                    );
                }
            }
        }
    }

    /// Everybody heartbeats, nothing is lost, nothing changes.
    fn calm_down(&mut self) {
        for _ in 0..30 {
            for number in 0..CLIENTS {
                self.beat(number, false, false, false);
                self.clients[number].revoke();
                self.check_ownership();
            }
            self.cluster.advance(5_000);
        }
    }

    fn check_converged(&self) {
        let group = &self.cluster.group;
        assert_eq!(group.state(), ConsumerGroupState::Stable, "{group:#?}");
        assert_eq!(group.member_count(), CLIENTS);
        let mut wanted: BTreeSet<(Uuid, i32)> = BTreeSet::new();
        let mut owned: BTreeSet<(Uuid, i32)> = BTreeSet::new();
        for client in &self.clients {
            assert_eq!(client.epoch, group.epoch());
            // Who subscribes to nothing may have no target at all.
            let target = group.target.get(&client.member_id).cloned();
            assert_eq!(client.owned, target.unwrap_or_default());
            let pattern = regex::Regex::new(&format!("^(?:{})$", client.expression)).unwrap();
            for (name, (id, partitions)) in &self.cluster.topics.by_name {
                let subscribed = client.topics.contains(name) || pattern.is_match(name);
                if subscribed {
                    wanted.extend((0..*partitions).map(|partition| (*id, partition)));
                } else {
                    assert!(!client.owned.contains_key(id));
                }
            }
            for (topic, partitions) in &client.owned {
                owned.extend(partitions.iter().map(|partition| (*topic, *partition)));
            }
        }
        assert_eq!(owned, wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn partitions_have_one_owner_and_groups_converge(
        actions in prop::collection::vec(any_action(), 1..80),
        interval_ms in prop_oneof![Just(0), Just(1_000), Just(10_000)],
    ) {
        let mut world = World::new(interval_ms);
        for action in &actions {
            world.act(action);
        }
        world.calm_down();
        world.check_converged();
        world.cluster.restart();
        // A restart moves nobody.
        let epoch = world.cluster.group.epoch();
        world.calm_down();
        world.check_converged();
        prop_assert_eq!(world.cluster.group.epoch(), epoch);
    }
}
