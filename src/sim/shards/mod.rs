//! The shards of a cluster alone, told as stories: every node has one core, disks lose nothing that was synced, and a
//! small model says who belongs to the cluster. What a line of a story does can be followed by hand; whole clusters
//! under everything at once are the business of [`run`](super::run()).

mod known;
mod world;
mod story;
mod tests;

use world::{Cluster, World};
