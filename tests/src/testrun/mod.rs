//! The kernel programs, one packet at a time: `BPF_PROG_TEST_RUN` on a small fixed world.
//!
//! A scene is a function of the [`World`]: it sends packets into programs and says all that may come
//! of each: return code, bytes, and what changed in the maps that the programs write. Whatever is
//! not said must not have happened. The same scenes run on this machine's kernel
//! (`tests/tests/testrun.rs`) and on each kernel of the matrix (`src/bin/slice-guest.rs`).

pub mod actors;
mod attach;
pub mod card;
pub mod cost;
mod devices;
pub(crate) mod early;
pub(crate) mod exchange;
mod installed;
mod queue;
mod scenes;
pub(crate) mod shaping;
pub(crate) mod state;
mod suite;
pub mod vlan;
mod world;

pub use attach::{Attachment, attach};
pub use exchange::{Expected, Program, Sent};
pub use installed::play_with_agent;
pub use queue::play_on_queues;
pub use scenes::{Scene, play_on_fq, play_on_htb, scenes};
pub use state::{Change, State};
pub use suite::{in_own_network, run_scene};
pub use world::{
    LoadedProgram, World, standard_classes, standard_outside, standard_path, standard_policy,
    standard_routes, standard_settings,
};
