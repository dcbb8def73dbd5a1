//! Groups that change their protocol while they have members.

mod client;
mod histories;
mod rules;
mod world;
