//! One file per verb: parse and print side by side.

mod batch;
mod config;
mod delete;
mod delivery;
mod enroll;
mod from;
mod keys;
mod lookup;
mod monitor;
mod notifications;
mod notify;
mod otp;
mod proof;
mod scan;
mod small;
mod stats;
mod sync;
mod update;

#[cfg(test)]
mod tests;

pub use batch::{BatchCommand, BatchRequest, MAX_BATCH};
pub use config::ConfigRequest;
pub use delete::Delete;
pub use delivery::Delivery;
pub use enroll::{Enroll, EnrollOperation, EnrollParams};
pub use from::{ClientConfig, From};
pub use keys::{KeyGroup, KeyPut, Keys};
pub use lookup::{Llookup, Lookup};
pub use monitor::Monitor;
pub use notifications::{NotifyFetch, NotifyList, NotifyRemove, NotifyStatus};
pub use notify::{MAX_RECIPIENTS, Notify, NotifyAll, Target};
pub use otp::Otp;
pub use proof::{Cram, HashingAlgo, Pkam};
pub use scan::Scan;
pub use small::{Info, Noop};
pub use stats::{Metric, Stats};
pub use sync::Sync;
pub use update::{Update, UpdateMeta};
