//! DOES. Cores, their mail, and what the control thread may see of them.

pub mod door;
pub mod heartbeat;
pub mod mail;
pub mod metrics;
pub mod pages;
pub mod slots;
