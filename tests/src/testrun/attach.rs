//! Whether a program can be put on an interface, and by which means.

use anyhow::{Context, Result};
use aya::programs::tc::{NlOptions, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};

use super::actors::KAFKA_0;
use super::exchange::Program;
use super::world::World;

/// How a program was attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// By a link of the kernel's own (6.6 and later).
    Tcx,
    /// By a filter on the clsact qdisc.
    Clsact,
}

impl Attachment {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// Attaches `pod_egress` to a pod's interface, by TCX where the kernel has it and by clsact below.
/// # Errors  when neither way works.
pub fn attach(world: &mut World) -> Result<Attachment> {
    let program: &mut SchedClassifier = world
        .object_mut()
        .program_mut(Program::PodEgress.name())
        .context("the object has no pod_egress")?
        .try_into()?;
    let (device, ingress) = (KAFKA_0.device, TcAttachType::Ingress);
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    if program.attach_with_options(device, ingress, first).is_ok() {
        return Ok(Attachment::Tcx);
    }
    qdisc_add_clsact(device).context("cannot add clsact")?;
    let filter = TcAttachOptions::Netlink(NlOptions {
        priority: 1,
        ..NlOptions::default()
    });
    program
        .attach_with_options(device, ingress, filter)
        .context("cannot attach by clsact")?;
    Ok(Attachment::Clsact)
}
