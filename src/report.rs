//! Stage 6: the audit report (the JSON) and its renderings.
//!
//! [`AuditReport`] is data: every number with its interval, unrounded. [`view`] rounds and words it once;
//! renderers turn it into text or bytes and never recompute a verdict; one place ([`write()`]) touches files.

pub mod annotations;
pub mod assemble;
pub mod figures;
pub mod html;
pub mod json;
pub mod junit;
pub mod markdown;
pub mod prometheus;
pub mod tables;
pub mod terminal;
pub mod thumbnails;
pub mod view;
pub(crate) mod xml;

mod baseline;
mod error;
mod folder;
mod privacy;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod schema;
mod sections;
mod table_file;
mod write;

pub use baseline::{BaselineSection, MeasureThenAndNow, StateThenAndNow};
pub use error::ReportError;
pub use folder::check_out;
pub use privacy::{Privacy, statistics_only};
pub use sections::*;
pub use table_file::TableFile;
pub use write::{append, directory_seen_from, read, render_again, without_items, write};
