//! How fast a client may go: the hook that every request passes before it is started. For now nobody is slowed down.

use std::time::Duration;

use crate::handlers::RequestContext;

/// The quotas of one shard.
#[derive(Debug, Default)]
pub struct Quotas {}

impl Quotas {
    /// How long this request is to wait before it is started; zero: not at all.
    pub fn throttle(&self, context: &RequestContext) -> Duration {
        tracing::trace!(
            connection = context.connection.id,
            "not throttled: there are no quotas yet"
        );
        Duration::ZERO
    }
}
