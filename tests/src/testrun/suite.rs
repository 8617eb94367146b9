//! Running scenes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, unshare};

use super::scenes::Scene;
use super::world::World;

/// Runs `f` on a thread of its own, in a network namespace of its own, which ends with it.
/// # Errors  when not root, and those of `f`.
pub fn in_own_network<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("a network namespace needs root")?;
            f()
        });
        thread
            .join()
            .map_err(|_| anyhow!("the thread with the network namespace panicked"))?
    })
}

/// Runs one scene in a fresh state of the world.
/// # Errors  what differed from what the scene expects.
pub fn run_scene(world: &mut World, scene: &Scene) -> Result<()> {
    world.reset().context("cannot reset the world")?;
    catch_unwind(AssertUnwindSafe(|| (scene.run)(world)))
        .unwrap_or_else(|_| Err(anyhow!("the scene panicked")))
}
