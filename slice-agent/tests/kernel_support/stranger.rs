//! A program of somebody else, though it has one of our names.

use std::fs;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::XdpLink;
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use super::Node;

/// The loaded program; what it attached stays until the links that are returned are dropped.
pub(crate) struct Stranger {
    ebpf: Ebpf,
    name: &'static str,
}

impl Stranger {
    /// Loads a program that drops every packet.
    pub(crate) fn load(node: &Node) -> Self {
        Self::load_named(node, "tunnel_ingress")
    }

    /// Loads a program of our object, on maps of its own, which are empty.
    pub(crate) fn load_named(node: &Node, name: &'static str) -> Self {
        let ebpf = EbpfLoader::new().load(&node.object()).unwrap();
        let mut stranger = Self { ebpf, name };
        stranger.program().load().unwrap();
        stranger
    }

    pub(crate) fn id(&mut self) -> u32 {
        self.program().info().unwrap().id()
    }

    pub(crate) fn attach(
        &mut self,
        node: &Node,
        interface: &str,
        hook: TcAttachType,
        options: TcAttachOptions,
    ) -> SchedClassifierLink {
        node.inside(|| {
            let program = self.program();
            let id = program.attach_with_options(interface, hook, options);
            program.take_link(id.unwrap()).unwrap()
        })
    }

    /// Becomes the program of the link that is pinned there.
    pub(crate) fn take_over(&mut self, pin: &Path) {
        let link = FdLink::from(PinnedLink::from_pin(pin).unwrap());
        let program = self.program();
        let id = program.attach_to_link(link.try_into().unwrap()).unwrap();
        drop(program.take_link(id).unwrap());
    }

    /// Loads an XDP program, on maps of its own, so that it lets everything pass.
    pub(crate) fn load_early(node: &Node) -> Self {
        let ebpf = EbpfLoader::new().load(&node.object()).unwrap();
        let mut stranger = Self {
            ebpf,
            name: "underlay_filter",
        };
        stranger.early().load().unwrap();
        stranger
    }

    pub(crate) fn early_id(&mut self) -> u32 {
        self.early().info().unwrap().id()
    }

    pub(crate) fn attach_early(&mut self, node: &Node, interface: &str) -> XdpLink {
        node.inside(|| {
            let program = self.early();
            let id = program.attach(interface, XdpMode::Driver);
            program.take_link(id.unwrap()).unwrap()
        })
    }

    fn early(&mut self) -> &mut Xdp {
        self.ebpf
            .program_mut(self.name)
            .unwrap()
            .try_into()
            .unwrap()
    }

    fn program(&mut self) -> &mut SchedClassifier {
        self.ebpf
            .program_mut(self.name)
            .unwrap()
            .try_into()
            .unwrap()
    }
}

/// Pins the link in the place of another one.
pub(crate) fn pin_over(link: SchedClassifierLink, pin: &Path) {
    fs::remove_file(pin).unwrap();
    FdLink::try_from(link).unwrap().pin(pin).unwrap();
}
