//! One binary of modules, so one link.

#[cfg(feature = "adapt")]
mod adapt;
mod architecture;
mod cases;
mod ci;
mod cli;
mod embedding;
mod golden;
mod label_free;
mod numbers;
mod properties;
mod qrels;
mod run;
mod schema;
mod simulations;
mod synthetic;
mod verification;
