//! compat-audit: may the new embedding model search the gallery that the old one built?
//!
//! The modules stand in pipeline order: probe -> embed -> structure -> retrieve -> judge -> report.

pub mod config;
pub mod domain;
pub mod embed;
pub mod judge;
pub mod report;
