//! The real binary, spoken to in raw protocol: what clients are promised on the wire, and what no input may do to the broker.
//!
//! Each test starts a broker of its own on free ports in a directory of its own.

mod admin;
mod asked;
mod configs;
mod coordinators;
mod descriptors;
mod directories;
mod durability;
mod fetch;
mod groups;
mod hostile;
mod http;
mod listeners;
mod long_poll;
mod markers;
mod memory;
mod pressure;
mod produce;
mod recreate;
mod stop;
mod support;
mod transactions;
