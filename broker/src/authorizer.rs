//! Who may do what: the hook that every request passes. For now it knows one principal and allows everything.

use std::fmt;
use std::net::SocketAddr;

use ringlog_net::Str;

use crate::handlers::RequestContext;

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Kafka's principal type, `User`.
    pub kind: &'static str,
    /// The name.
    pub name: String,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

impl Principal {
    /// A client of a listener without authentication.
    pub fn anonymous() -> Self {
        Self {
            kind: "User",
            name: "ANONYMOUS".into(),
        }
    }
}

/// What a request does to a resource; Kafka's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read records or offsets.
    Read,
    /// Append records.
    Write,
    /// Make it.
    Create,
    /// Remove it or records of it.
    Delete,
    /// Change it.
    Alter,
    /// See that it is there.
    Describe,
    /// Act on the whole cluster.
    ClusterAction,
    /// See its configuration.
    DescribeConfigs,
    /// Change its configuration.
    AlterConfigs,
    /// Take a producer id for idempotent writes.
    IdempotentWrite,
}

impl Operation {
    /// The number in the bit fields of authorized operations (KIP-430).
    pub fn code(self) -> i8 {
        match self {
            Operation::Read => 3,
            Operation::Write => 4,
            Operation::Create => 5,
            Operation::Delete => 6,
            Operation::Alter => 7,
            Operation::Describe => 8,
            Operation::ClusterAction => 9,
            Operation::DescribeConfigs => 10,
            Operation::AlterConfigs => 11,
            Operation::IdempotentWrite => 12,
        }
    }
}

/// What an operation is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceType {
    /// A topic, by name.
    Topic,
    /// A consumer group, by its id.
    Group,
    /// The cluster; its name is `kafka-cluster`.
    Cluster,
    /// A transactional id.
    TransactionalId,
}

/// Who asks and from where: all that access rules know of a request, fit to travel to another shard with it.
#[derive(Clone, Debug)]
pub struct Subject {
    principal: Principal,
    client_id: Option<Str>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Subject {
    /// Whether `operation` may be done to a resource.
    pub fn may(&self, operation: Operation, resource: ResourceType, name: &str) -> bool {
        let client = self.client_id.as_deref();
        let ends = (self.peer, self.local);
        decide(&self.principal, client, ends, (operation, resource, name))
    }
}

impl RequestContext {
    /// Whether this request's principal may do `operation` to a resource.
    pub fn authorize(&self, operation: Operation, resource: ResourceType, name: &str) -> bool {
        let connection = &self.connection;
        let client = self.client_id.as_deref();
        let ends = (connection.peer, connection.local);
        decide(
            &connection.principal.borrow(),
            client,
            ends,
            (operation, resource, name),
        )
    }

    /// Who asks, for whoever has to decide elsewhere.
    pub fn subject(&self) -> Subject {
        let connection = &self.connection;
        Subject {
            principal: connection.principal.borrow().clone(),
            client_id: self.client_id.as_ref().map(Str::detached),
            peer: connection.peer,
            local: connection.local,
        }
    }
}

fn decide(
    principal: &Principal,
    client: Option<&str>,
    (peer, local): (SocketAddr, SocketAddr),
    (operation, resource, name): (Operation, ResourceType, &str),
) -> bool {
    tracing::trace!(
        %principal,
        client,
        %peer,
        %local,
        ?operation,
        ?resource,
        name,
        "allowed: there are no access rules yet"
    );
    true
}
