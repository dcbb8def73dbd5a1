//! The regular expressions of a group: compiled when they come, resolved when they are new or topics have changed, forgotten with their last member.

use ringlog_net::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use ringlog_net::{ErrorCode, Str};

use super::change::Change;
use super::config::ConsumerGroupConfig;
use super::expression::{EXPRESSIONS_MAX, Expression};
use super::group::ConsumerGroup;
use super::identity::Beating;
use super::refusal::Refusal;
use super::topics::TopicView;
use crate::command::Now;
use crate::record::Record;

/// Expressions are resolved at most so often because topics have changed, in ms; a constant of Kafka's.
const RESOLUTION_INTERVAL_MS: u64 = 10_000;

impl ConsumerGroup {
    /// Compiles the expression of a request if it is new to the group.
    pub(super) fn check_expression(
        &self,
        beating: &Beating,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<Option<(Str, Expression)>, Refusal> {
        let Some(regex) = request.subscribed_topic_regex.as_ref() else {
            return Ok(None);
        };
        if regex.is_empty() || self.expression_members.contains_key(regex) {
            return Ok(None);
        }
        let invalid = |reason: String| {
            let message =
                format!("SubscribedTopicRegex is not a valid regular expression: {reason}.");
            Refusal::new(ErrorCode::INVALID_REGULAR_EXPRESSION, message)
        };
        let own = self
            .members
            .get(beating.replaces.as_ref().unwrap_or(&beating.id));
        let replaced = own
            .and_then(|member| member.metadata.topic_regex.as_ref())
            .is_some_and(|regex| self.expression_members.get(regex) == Some(&1));
        if self.expression_members.len() - usize::from(replaced) >= EXPRESSIONS_MAX {
            let reason = format!("the group has {EXPRESSIONS_MAX} different ones already");
            return Err(invalid(reason));
        }
        let compiled = Expression::compile(regex).map_err(invalid)?;
        Ok(Some((regex.detached(), compiled)))
    }

    pub(super) fn is_resolution_due(&self, now: Now, config: &ConsumerGroupConfig) -> bool {
        if self.expression_members.is_empty() {
            return false;
        }
        let Some(resolved_at_ms) = self.resolved_at_ms else {
            return true;
        };
        let age = now.monotonic_ms.saturating_sub(resolved_at_ms);
        let refresh_ms = u64::try_from(config.regex_refresh_interval_ms).unwrap_or(0);
        (self.expressions_stale && age >= RESOLUTION_INTERVAL_MS) || age >= refresh_ms.max(1)
    }

    /// Forgets expressions that nobody subscribes to, resolves those that are new, and all of them when that is due. Whether any of them now matches other
    /// topics than it did.
    pub(super) fn resolve(
        &mut self,
        now: Now,
        config: &ConsumerGroupConfig,
        topics: &dyn TopicView,
        records: &mut Vec<Record>,
    ) -> bool {
        if self.expressions.is_empty() && self.expression_members.is_empty() {
            return false;
        }
        self.forget_expressions(records);
        let all = self.is_resolution_due(now, config);
        let wanted: Vec<Str> = self
            .expression_members
            .keys()
            .filter(|regex| all || !self.expressions.contains_key(*regex))
            .cloned()
            .collect();
        let mut changed = false;
        for regex in wanted {
            if !self.compiled.contains_key(&regex)
                && let Ok(compiled) = Expression::compile(&regex)
            {
                self.compiled.insert(regex.clone(), compiled);
            }
            // One that was valid to whoever wrote it down, and is not to us, matches nothing.
            let compiled = self.compiled.get(&regex);
            let resolved = compiled
                .map(|compiled| compiled.resolve(topics, now.wall_ms))
                .unwrap_or_default();
            let known = self.expressions.get(&regex);
            if known.is_none_or(|known| known.topics != resolved.topics) {
                changed |= known.is_some() || !resolved.topics.is_empty();
                self.change(Change::Expression(regex, Some(resolved)), records);
            }
        }
        if all {
            self.resolved_at_ms = Some(now.monotonic_ms);
            self.expressions_stale = topics.version() < self.noted_version;
        }
        changed
    }

    pub(super) fn forget_expressions(&mut self, records: &mut Vec<Record>) {
        let orphans: Vec<Str> = self
            .expressions
            .keys()
            .filter(|regex| !self.expression_members.contains_key(*regex))
            .cloned()
            .collect();
        for regex in orphans {
            self.change(Change::Expression(regex, None), records);
        }
    }
}
