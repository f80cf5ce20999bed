//! compat-audit: may the new embedding model search the gallery that the old one built?
//!
//! The modules stand in pipeline order: probe -> embed -> structure -> retrieve -> judge -> report.
//! [`audit`] is that line.

// What every stage may use.
pub mod config;
pub mod domain;
pub mod interrupt;
mod onnx;
pub mod stats;
pub mod topk;

// The stages, in order; blank lines keep rustfmt from sorting them.
pub mod probe;

pub mod runtime;

pub mod embed;

pub mod structure;

pub mod retrieve;

pub mod judge;

pub mod report;

// The line, and the command line on top of it.
pub mod audit;

// A second line, on the stages' outputs.
#[cfg(feature = "adapt")]
pub mod adapt;

pub mod cli;
pub mod commands;
