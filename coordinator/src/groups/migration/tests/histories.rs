//! Random histories: consumers of both protocols join, change from one to the other, crash and leave, messages are lost, a topic grows, the coordinator restarts.
//! At no moment do two members own one partition, as they themselves see it; a coordinator that reads the log has the group that was; and once things calm
//! down every partition is read by one member, and the group is of the protocol it should be.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ringlog_net::{ErrorCode, Str};

use super::client::{Client, Phase};
use super::world::{JOIN_VERSION, Owned, World};
use crate::groups::GroupReply;
use crate::groups::consumer::MigrationPolicy;
use crate::groups::consumer::member::{LEAVE_EPOCH, LEAVE_STATIC_EPOCH};

const CLIENTS: usize = 4;

#[derive(Clone, Debug)]
enum Action {
    /// A client does what it has to do next; what it is answered may be lost.
    Step {
        client: usize,
        answer_lost: bool,
        full: bool,
    },
    /// A client of the consumer protocol is done with what it had to give up.
    Revoke(usize),
    /// A client stops, and starts again with one of the protocols.
    Restart {
        client: usize,
        is_classic: bool,
        leaves: bool,
    },
    /// Everybody does what comes next, some times.
    Settle(usize),
    Grow,
    Advance(u32),
    Failover,
}

fn any_action() -> impl Strategy<Value = Action> {
    let client = 0..CLIENTS;
    prop_oneof![
        16 => (client.clone(), prop::bool::weighted(0.1), any::<bool>()).prop_map(
            |(client, answer_lost, full)| Action::Step { client, answer_lost, full }
        ),
        5 => client.clone().prop_map(Action::Revoke),
        4 => (client, any::<bool>(), prop::bool::weighted(0.7)).prop_map(
            |(client, is_classic, leaves)| Action::Restart { client, is_classic, leaves }
        ),
        3 => (1..6_usize).prop_map(Action::Settle),
        1 => Just(Action::Grow),
        3 => prop_oneof![0..4_000_u32, 8_000..50_000_u32].prop_map(Action::Advance),
        2 => Just(Action::Failover),
    ]
}

struct Model {
    world: World,
    clients: Vec<Client>,
    /// Whether the group was classic after the last event, and in which generation.
    before: Option<i32>,
    /// Of how many partitions of red a classic group's assignment knows.
    assigned_red: i32,
}

impl Model {
    fn new(policy: MigrationPolicy, cooperates: bool, interval_ms: i32) -> Model {
        let mut world = World::new(policy);
        world.config.consumer.assignment_interval_ms = interval_ms;
        world.coordinator = crate::groups::GroupCoordinator::new(world.config.clone());
        let clients = (0..CLIENTS).map(|number| {
            let mut client = Client {
                number,
                is_classic: true,
                cooperates,
                instance_id: (number < 2).then(|| format!("i{number}").into()),
                topics: if number == 3 {
                    vec!["red".into()]
                } else {
                    vec!["blue".into(), "red".into()]
                },
                ..Client::default()
            };
            client.restart();
            client
        });
        Model {
            clients: clients.collect(),
            assigned_red: world.topics.red,
            world,
            before: None,
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Step {
                client,
                answer_lost,
                full,
            } => self.step(*client, *answer_lost, *full),
            Action::Revoke(client) => self.clients[*client].revoke(),
            Action::Restart {
                client,
                is_classic,
                leaves,
            } => self.restart(*client, *is_classic, *leaves),
            Action::Settle(times) => {
                for _ in 0..*times {
                    self.everybody();
                }
            }
            Action::Grow if self.world.topics.red < 6 => self.world.grow_red(),
            Action::Grow => {}
            Action::Advance(ms) => self.world.advance(*ms),
            Action::Failover => self.world.restart(),
        }
        self.check();
    }

    fn step(&mut self, number: usize, answer_lost: bool, full: bool) {
        if self.clients[number].is_classic {
            self.step_classic(number, answer_lost);
            return;
        }
        let client = &mut self.clients[number];
        let request = client.beat_request(&self.world.topics, full);
        let response = self.world.beat(&request);
        if answer_lost {
            client.unsure = true;
        } else {
            client.on_beaten(&response, &self.world.topics);
        }
    }

    fn step_classic(&mut self, number: usize, answer_lost: bool) {
        let client = &mut self.clients[number];
        match client.phase {
            Phase::Outside => {
                let request = client.join_request();
                let token = self.world.join(JOIN_VERSION, request);
                // It gives up waiting, and comes again.
                if !answer_lost {
                    client.phase = Phase::Joining(token);
                }
            }
            Phase::Joining(token) => {
                if self.world.answer(token).is_some() {
                    client.on_joined(self.world.joined(token), &self.world.topics);
                } else if answer_lost {
                    client.phase = Phase::Outside;
                }
            }
            Phase::Joined => {
                let request = client.sync_request(&self.world.topics);
                let assigns =
                    !client.led.is_empty() && self.world.listed().1 == "CompletingRebalance";
                let token = self.world.sync(request);
                if assigns && self.world.listed().1 == "Stable" {
                    self.assigned_red = self.world.topics.red;
                }
                if !answer_lost {
                    client.phase = Phase::Syncing(token);
                }
            }
            Phase::Syncing(token) => {
                if self.world.answer(token).is_some() {
                    let response = self.world.synced(token);
                    client.on_synced(response.error_code, &response.assignment);
                } else if answer_lost {
                    client.phase = Phase::Joined;
                }
            }
            // A leader sees that its assignment is out of date.
            Phase::Stable
                if client
                    .leads
                    .is_some_and(|seen| seen != self.world.topics.red) =>
            {
                client.phase = Phase::Outside;
            }
            Phase::Stable => {
                let (id, instance_id) = (client.member_id.clone(), client.instance_id.clone());
                let error = self.world.heartbeat(&id, instance_id, client.generation);
                if !answer_lost {
                    client.on_error(error);
                }
            }
        }
    }

    fn restart(&mut self, number: usize, is_classic: bool, leaves: bool) {
        let client = &mut self.clients[number];
        let was_in =
            client.phase != Phase::Outside || (!client.is_classic && client.generation > 0);
        if leaves && was_in && client.is_classic && client.instance_id.is_none() {
            let id = client.member_id.clone();
            self.world.leave(&id, None);
        } else if leaves && was_in && !client.is_classic {
            let mut request = client.beat_request(&self.world.topics, false);
            request.member_epoch = match client.instance_id {
                Some(_) => LEAVE_STATIC_EPOCH,
                None => LEAVE_EPOCH,
            };
            self.world.beat(&request);
        }
        let client = &mut self.clients[number];
        client.is_classic = is_classic;
        client.restart();
    }

    fn everybody(&mut self) {
        for number in 0..CLIENTS {
            self.step(number, false, false);
            self.check();
            self.clients[number].revoke();
        }
        self.world.advance(500);
        self.check();
    }

    /// No partition has two owners. Who was removed and has not heard of it does not count, nor does whom a classic group has gone on without.
    fn check(&mut self) {
        let now = self.world.classic().map(|group| group.generation());
        if let (Some(before), Some(now)) = (self.before, now)
            && now > before
        {
            for client in self.clients.iter_mut().filter(|client| client.is_classic) {
                client.passed_by |= client.generation < now && !is_told(&self.world, client, now);
            }
        }
        // A group that becomes classic without a rebalance has assigned all there is.
        if self.before.is_none() && now.is_some() && self.world.listed().1 == "Stable" {
            self.assigned_red = self.world.topics.red;
        }
        self.before = now;
        let mut owners: BTreeMap<&(Str, i32), &Str> = BTreeMap::new();
        for client in self.clients.iter().filter(|client| self.counts(client)) {
            for partition in &client.owned {
                let other = owners.insert(partition, &client.member_id);
                assert_eq!(other, None, "two own {partition:?}: {client:?}");
            }
        }
    }

    fn counts(&self, client: &Client) -> bool {
        let id = client.member_id.as_str();
        let is_in = match (self.world.classic(), self.world.consumer()) {
            (Some(group), _) => group.members().contains(id),
            (_, Some(group)) => group
                .member(id)
                .is_some_and(|member| member.is_classic() == client.is_classic),
            _ => false,
        };
        is_in && !client.passed_by
    }

    /// Everybody does what comes next, nothing is lost, nothing changes.
    fn calm_down(&mut self) {
        for _ in 0..150 {
            self.everybody();
        }
    }

    fn check_converged(&self, policy: MigrationPolicy) {
        let has_consumers = self.clients.iter().any(|client| !client.is_classic);
        let (kind, state) = self.world.listed();
        assert_eq!(state, "Stable", "{:#?}", self.clients);
        if has_consumers {
            assert_eq!(kind, "consumer");
        } else if policy == MigrationPolicy::Bidirectional {
            assert_eq!(kind, "classic");
        }
        let mut owned: Vec<&(Str, i32)> = Vec::new();
        for client in &self.clients {
            assert!(self.counts(client), "{client:?}");
            owned.extend(&client.owned);
        }
        owned.sort();
        let topics = &self.world.topics;
        let all = |name: &str, count: i32| {
            (0..count)
                .map(move |number| (Str::from(name.to_owned()), number))
                .collect::<Owned>()
        };
        let red = if kind == "classic" && self.clients.iter().any(|client| client.excused) {
            self.assigned_red
        } else {
            topics.red
        };
        let wanted = &all("blue", topics.blue) | &all("red", red);
        assert!(
            owned.into_iter().eq(&wanted),
            "{kind}: {:#?} {:#?}",
            self.clients,
            self.world.consumer()
        );
    }

    /// Nobody says anything any more.
    fn fall_silent(&mut self) {
        self.world.advance(400_000);
        assert_eq!(self.world.waiting(), 0, "nothing waits forever");
        assert_eq!(self.world.coordinator.next_deadline(), None);
        let counts = self.world.coordinator.counts();
        assert_eq!((counts.members, counts.member_bytes), (0, 0));
        self.world.restart();
    }
}

/// Whether a client will learn that it is in a generation, or has learned it.
fn is_told(world: &World, client: &Client, generation: i32) -> bool {
    let Phase::Joining(token) = client.phase else {
        return false;
    };
    matches!(
        world.answer(token),
        Some(GroupReply::JoinGroup(response))
            if response.error_code == ErrorCode::NONE && response.generation_id == generation
    )
}

/// Lets a history happen, and then everything calm down, twice.
fn run(actions: &[Action], policy: MigrationPolicy, cooperates: bool, interval_ms: i32) {
    let mut model = Model::new(policy, cooperates, interval_ms);
    for action in actions {
        model.act(action);
    }
    model.calm_down();
    model.check_converged(policy);
    model.act(&Action::Failover);
    model.calm_down();
    model.check_converged(policy);
    model.fall_silent();
}

#[test]
fn a_consumer_that_missed_its_new_partition_is_told_again() {
    let consumer = |client| Action::Restart {
        client,
        is_classic: false,
        leaves: false,
    };
    let actions = [
        consumer(3),
        consumer(0),
        consumer(2),
        Action::Settle(2),
        Action::Grow,
        // This moves it to an epoch in which the new partition is its own, and nothing changes any more.
        Action::Step {
            client: 0,
            answer_lost: true,
            full: false,
        },
    ];
    run(&actions, MigrationPolicy::Bidirectional, false, 0);
}

/// The next rebalance, for whatever reason, finds what a static leader has missed; Kafka's coordinators and clients know no sooner.
#[test]
fn a_partition_that_came_while_a_static_leader_was_away_waits_for_a_rebalance() {
    let mut model = Model::new(MigrationPolicy::Bidirectional, false, 0);
    model.calm_down();
    let leader = model.clients.iter().find(|client| client.leads.is_some());
    let leader = leader.expect("somebody leads").number;
    assert!(model.clients[leader].instance_id.is_some());
    model.act(&Action::Restart {
        client: leader,
        is_classic: true,
        leaves: false,
    });
    model.act(&Action::Grow);
    model.calm_down();
    assert!(model.clients[leader].excused);
    assert_eq!((model.assigned_red, model.world.topics.red), (3, 4));
    model.check_converged(MigrationPolicy::Bidirectional);
    model.act(&Action::Restart {
        client: 3,
        is_classic: true,
        leaves: true,
    });
    model.calm_down();
    assert_eq!((model.assigned_red, model.world.topics.red), (4, 4));
    model.check_converged(MigrationPolicy::Bidirectional);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn partitions_have_one_owner_whatever_is_spoken(
        actions in prop::collection::vec(any_action(), 1..80),
        upgrade_only in prop::bool::weighted(0.3),
        cooperates in any::<bool>(),
        interval_ms in prop_oneof![Just(0), Just(1_000)],
    ) {
        let policy = if upgrade_only {
            MigrationPolicy::Upgrade
        } else {
            MigrationPolicy::Bidirectional
        };
        run(&actions, policy, cooperates, interval_ms);
    }
}
