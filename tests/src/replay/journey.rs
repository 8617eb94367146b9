//! What should become of a frame on its way over the nodes.

use anyhow::{Context, Result, bail};
use slice_common::layout::DropKey;

use super::stage::{Stage, StageNode};
use crate::fuzz::coverage::Coverage;
use crate::fuzz::input::{Ending, Input};
use crate::fuzz::model::Model;
use crate::testrun::Program;
use crate::testrun::actors::NIC_MAC;

const ETHERNET_BYTES: usize = 14;

/// What becomes of one frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// Which pods get what.
    pub(super) delivered: Vec<(&'static str, Vec<u8>)>,
    /// Which nodes count it, and why.
    pub(super) dropped: Vec<(&'static str, DropKey)>,
    /// No program took it; it is the host's, which has no use for it.
    pub(super) is_left_to_host: bool,
}

/// One model for each node.
pub(super) struct Journey<'t> {
    nodes: Vec<(&'t StageNode, Model<'t>)>,
}

impl<'t> Journey<'t> {
    pub(super) fn over(stage: &'t Stage) -> Self {
        let with_model =
            |node: &'t StageNode| (node, Model::new(&node.tables, Coverage::default()));
        Self {
            nodes: stage.nodes.iter().map(with_model).collect(),
        }
    }

    /// Begins with no records.
    pub(super) fn restart(&mut self, now_ns: u64) {
        for (_, model) in &mut self.nodes {
            model.restart(now_ns, &[]);
        }
    }

    /// What becomes of a frame that gets to a program of the node.
    /// # Errors  when the model sends it where there is nobody.
    pub(super) fn fate(&mut self, node: &str, input: &Input) -> Result<Fate> {
        let mut fate = Fate::default();
        let at = self.nodes.iter().position(|(it, _)| it.name == node);
        self.follow(at.context("a node of the lab")?, input, &mut fate)?;
        Ok(fate)
    }

    fn follow(&mut self, at: usize, input: &Input, fate: &mut Fate) -> Result<()> {
        let (node, model) = &mut self.nodes[at];
        let forecast = model.forecast(input);
        let name = node.name;
        fate.dropped.extend(forecast.dropped.map(|key| (name, key)));
        let frame = match forecast.ending {
            Ending::Dropped => return Ok(()),
            Ending::Untouched if input.program == Program::PodIngress => {
                fate.delivered
                    .push((input.device, as_captured(&input.frame)));
                return Ok(());
            }
            Ending::Untouched if node.has_bridge && input.program == Program::PodEgress => {
                return self.cross_bridge(at, input, fate);
            }
            Ending::Untouched => {
                fate.is_left_to_host = true;
                return Ok(());
            }
            Ending::LeftToHost(_) => bail!("{name}: only datagrams in segments go that way"),
            Ending::Redirected(frame) => frame,
        };
        if forecast.mark == node.tables.settings.tunnel_mark {
            return self.cross_underlay(frame, fate);
        }
        let pod = node.pod_with(&frame[..6]);
        let pod = pod.with_context(|| format!("{name}: nobody has {:02x?}", &frame[..6]))?;
        let mut frame = frame;
        cut_padding(&mut frame);
        fate.delivered.push((pod, frame));
        Ok(())
    }

    fn cross_underlay(&mut self, mut frame: Vec<u8>, fate: &mut Fate) -> Result<()> {
        cut_padding(&mut frame);
        let to = self
            .nodes
            .iter()
            .position(|(it, _)| it.underlay[..] == frame[30..34]);
        let to = to.context("the model sends a tunnel packet to no node")?;
        frame[..6].copy_from_slice(&NIC_MAC);
        let input = Input {
            program: Program::UnderlayIngress,
            device: "nic0",
            came_in_by: None,
            gso_bytes: 0,
            mark: 0,
            frame,
        };
        self.follow(to, &input, fate)
    }

    /// To the pod with the frame's address, or to all but the sender.
    fn cross_bridge(&mut self, at: usize, sent: &Input, fate: &mut Fate) -> Result<()> {
        let pods = self.nodes[at].0.pods.clone();
        let is_for_a_group = sent.frame[0] & 1 == 1;
        for (device, mac) in pods {
            let is_for_pod = sent.frame[..6] == mac;
            if device == sent.device || !is_for_pod && !is_for_a_group {
                continue;
            }
            let input = Input {
                program: Program::PodIngress,
                device,
                came_in_by: Some(sent.device),
                ..sent.clone()
            };
            self.follow(at, &input, fate)?;
        }
        Ok(())
    }
}

/// Takes off what pads a packet behind its length: routers on the way do, bridges may.
pub(super) fn cut_padding(frame: &mut Vec<u8>) {
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    frame.truncate(ETHERNET_BYTES + total);
}

/// The kernel takes a VLAN tag off before a packet socket sees the frame.
fn as_captured(frame: &[u8]) -> Vec<u8> {
    match frame.get(12..14) {
        Some([0x81, 0x00] | [0x88, 0xa8]) => [&frame[..12], &frame[16..]].concat(),
        _ => frame.to_vec(),
    }
}
