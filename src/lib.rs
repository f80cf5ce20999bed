//! compat-audit: may the new embedding model search the gallery that the old one built?
//!
//! The modules stand in pipeline order: probe -> embed -> structure -> retrieve -> judge -> report.

// What every stage may use.
pub mod config;
pub mod domain;
pub mod stats;

// The stages, in order.
pub mod probe;

pub mod retrieve;

pub mod judge;

pub mod report;
