//! Frames for each program.

use super::{Flow, Generator, OTHER_MARK, Speaker};
use crate::fuzz::input::Input;
use crate::fuzz::places::nonce;
use crate::packet::{Checksum, Icmp, Ipv4, Mac, Tcp, Udp, Vxlan};
use crate::testrun::Program;
use crate::testrun::actors::*;

const INNER_ETHERNET: usize = 50;
const HOST_SIDE: Mac = [0x0a, 0, 0, 0xff, 0, 0];

impl Generator {
    /// A pod sends, mostly under its own address, to slices, the outside, and the edges of both.
    pub(super) fn pod_sends(&mut self, pod: &Speaker) -> Input {
        let flow = self.flow_of_pod(pod);
        self.remember(flow);
        let mut seen = flow;
        seen.from = match self.random.below(20) {
            0 => self.any_address(),
            _ => pod.pod_address,
        };
        let frame = self.packet(seen).frame(HOST_SIDE, pod.mac);
        Input {
            program: Program::PodEgress,
            device: if self.random.percent(3) {
                self.any_device()
            } else {
                pod.device
            },
            came_in_by: None,
            gso_bytes: self.segments(),
            mark: OTHER_MARK,
            frame,
        }
    }

    /// By slice addresses, as the far end sees it.
    fn flow_of_pod(&mut self, pod: &Speaker) -> Flow {
        let own = pod.slice_address;
        if let Some(flow) = self.said_before(|flow| flow.from == own) {
            return flow;
        }
        let to = match self.random.below(20) {
            0..9 => self.any_remote(pod.slice).address,
            9..12 => self.random.pick(&self.cast.near),
            12..15 => self.random.pick(&self.cast.outside),
            15 => own,
            _ => self.any_address(),
        };
        Flow {
            from: own,
            to,
            ports: self.any_ports(),
        }
    }

    /// Somebody sends to a pod's own address.
    pub(super) fn pod_is_reached(&mut self, pod: &Speaker) -> Input {
        let answered = self.said_before(|flow| flow.to == pod.slice_address);
        let mut flow = answered.unwrap_or_else(|| Flow {
            from: self.random.pick(&self.cast.callers),
            to: pod.pod_address,
            ports: self.any_ports(),
        });
        flow.to = match self.random.below(12) {
            0 => self.any_address(),
            _ => pod.pod_address,
        };
        if self.random.percent(8) {
            flow.from = self.any_address();
        }
        let group = [0xff; 6];
        let to = match self.random.below(12) {
            0 => group,
            1 => [0x01, 0, 0x5e, 0, 0, 1],
            2 => [0x02; 6],
            _ => pod.mac,
        };
        let frame = self.packet(flow).frame(to, HOST_SIDE);
        Input {
            program: Program::PodIngress,
            device: if self.random.percent(3) {
                self.any_device()
            } else {
                pod.device
            },
            came_in_by: self.random.pick(&[
                None,
                None,
                Some(NIC),
                Some(NIC),
                Some(NIC),
                Some(PORT_OWNER),
            ]),
            gso_bytes: self.segments(),
            mark: OTHER_MARK,
            frame,
        }
    }

    /// A tunnel packet arrives, mostly from the node that owns the inner source; or word of one that did
    /// not, unless a `node` is to speak.
    pub(super) fn tunnel_arrives(&mut self, pod: &Speaker, node: Option<[u8; 4]>) -> Input {
        if node.is_none() && self.random.percent(3) {
            return self.router_complains();
        }
        if self.random.percent(3) {
            return self.probe_arrives(pod);
        }
        let remote = self.any_remote(pod.slice);
        let said_by_both =
            |flow: &Flow| flow.from == remote.address && flow.to == pod.slice_address;
        let known = self.said_before(said_by_both);
        let mut flow = known.unwrap_or_else(|| Flow {
            from: remote.address,
            to: pod.slice_address,
            ports: self.any_ports(),
        });
        if self.random.percent(30) {
            // For a gateway.
            flow.to = self.any_remote(pod.slice).address;
        }
        if self.random.percent(6) {
            flow.from = self.any_address();
        }
        if self.random.percent(10) {
            flow.to = self.any_address();
        }
        self.remember(flow);
        let from = match self.random.below(16) {
            0 => self.any_peer(),
            _ => remote.node,
        };
        let from = node.unwrap_or(from);
        let slice = match self.random.below(20) {
            0 => self.random.pick(&self.cast.slices),
            1 => self.cast.overlapping,
            _ => pod.slice,
        };
        let mut inner = self.packet(flow);
        if self.random.percent(2) {
            inner = inner.ttl(self.random.pick(&[0, 1, 1, 2]));
        }
        let tunnel = Vxlan::between(from, pod.node).slice(slice, self.random.byte() & 7);
        let tunnel = self.twist_tunnel(tunnel.carry(&inner));
        let to = match self.random.below(25) {
            0 => [0xff; 6],
            1 => [0x02; 6],
            _ => NIC_MAC,
        };
        Input {
            program: Program::UnderlayIngress,
            device: NIC,
            came_in_by: None,
            gso_bytes: self.segments(),
            mark: OTHER_MARK,
            frame: tunnel.frame(to, ROUTER_MAC),
        }
    }

    /// Something comes out of the kernel's tunnel device: mostly what the node's own program sent there.
    pub(super) fn detour_ends(&mut self, pod: &Speaker, node: Option<[u8; 4]>) -> Input {
        let mut input = Input {
            program: Program::TunnelIngress,
            device: PORT_OWNER,
            ..self.tunnel_arrives(pod, node)
        };
        if input.frame.len() < INNER_ETHERNET + 14 || self.random.percent(10) {
            return input;
        }
        let vni = [46, 47, 48].map(|at: usize| input.frame[at]);
        input.frame.drain(..INNER_ETHERNET);
        let secret = match self.random.below(10) {
            0 => {
                let mut wrong = DETOUR_SECRET;
                wrong[self.random.below(8)] ^= 1 << self.random.below(8);
                wrong
            }
            _ => DETOUR_SECRET,
        };
        input.frame[..8].copy_from_slice(&secret);
        input.frame[8..12].copy_from_slice(&[0, vni[0], vni[1], vni[2]]);
        input
    }

    /// A router on the way says that a tunnel packet was too big, mostly one of this node to a peer.
    pub(super) fn router_complains(&mut self) -> Input {
        let from = match self.random.below(12) {
            0 => self.any_address(),
            _ => EAST_1,
        };
        let ports = match self.random.below(10) {
            0 => self.any_ports(),
            1 => [0xbfff, 6085],
            _ => [0xc123, 6085],
        };
        let bytes = self.random.pick(&[0, 500, 1372, 1472]);
        let about = Ipv4::between(from, self.any_peer());
        let about = about.udp(Udp::new(ports[0], ports[1]).data(vec![0; bytes]));
        let about = match self.random.below(12) {
            0 => about.options(&[1; 4]),
            1 => about.fragment(0, true),
            2 => about.tcp(Tcp::new(ports[0], ports[1])),
            _ => about,
        };
        let mut quote = about.build();
        let quoted_bytes = self.random.pick(&[28, 28, 28, 23, 24, 548]);
        quote.truncate(quoted_bytes);
        let said = self.random.pick(&[
            0u16, 575, 576, 625, 626, 627, 1000, 1399, 1400, 1500, 65_535,
        ]);
        let to = match self.random.below(12) {
            0 => self.any_address(),
            _ => EAST_1,
        };
        let code = self.random.pick(&[4, 4, 4, 4, 3]);
        let [high, low] = said.to_be_bytes();
        let message = Icmp::message(3, code).word([0, 0, high, low]).data(quote);
        let packet = Ipv4::between(INTERNET, to).icmp(message);
        let packet = if self.random.percent(5) {
            packet.options(&[1; 8])
        } else {
            packet
        };
        Input {
            program: Program::UnderlayIngress,
            device: NIC,
            came_in_by: None,
            gso_bytes: 0,
            mark: OTHER_MARK,
            frame: packet.frame(
                self.random.pick(&[NIC_MAC, NIC_MAC, NIC_MAC, [0x02; 6]]),
                ROUTER_MAC,
            ),
        }
    }

    /// A probe or an answer, mostly from a peer.
    fn probe_arrives(&mut self, pod: &Speaker) -> Input {
        let from = self.any_peer();
        let tunnel = self.probe(from, pod.node, from);
        Input {
            program: Program::UnderlayIngress,
            device: NIC,
            came_in_by: None,
            gso_bytes: self.segments(),
            mark: OTHER_MARK,
            frame: tunnel.frame(NIC_MAC, ROUTER_MAC),
        }
    }

    /// A probe with a nonce that was sent to `asked`, mostly.
    fn probe(&mut self, from: [u8; 4], to: [u8; 4], asked: [u8; 4]) -> Vxlan {
        let nonce = nonce(asked, self.random.below(5));
        let mut body = vec![1, self.random.pick(&[1, 1, 2, 2, 2, 0, 3]), 0, 0];
        body.extend(nonce.to_ne_bytes());
        body.resize(self.random.pick(&[12, 12, 13, 60, 400, 11]), 0);
        let ethertype = self
            .random
            .pick(&[0x88b5, 0x88b5, 0x88b5, 0x88b5, 0x0800, 0x88b6]);
        let tunnel = Vxlan::between(from, to)
            .slice(0x1f_ffff, self.random.byte() & 7)
            .inner_ethertype(ethertype)
            .carry_bytes(body);
        self.twist_tunnel(tunnel)
    }

    /// Faults and rarities of the tunnel's headers.
    fn twist_tunnel(&mut self, tunnel: Vxlan) -> Vxlan {
        let tunnel = if self.random.percent(40) {
            let ecn = self.random.byte();
            tunnel.outer(|outer| outer.ecn(ecn))
        } else {
            tunnel
        };
        if self.random.percent(70) {
            return tunnel;
        }
        match self.random.below(12) {
            0 => tunnel.flags(self.random.byte()),
            1 => {
                let place = self.random.below(3);
                let mut reserved = [0; 3];
                reserved[place] = self.random.byte();
                tunnel.reserved(reserved)
            }
            2 => tunnel.last(self.random.byte()),
            3 => tunnel.inner_ethertype(self.random.pick(&[0x0806, 0x86dd, 0x8100, 0])),
            4 => tunnel.destination_port(self.random.pick(&[4789, 8472, 6084, 6086, 0])),
            5 => tunnel.cut_to(self.random.below(60)),
            6 => tunnel.outer(|outer| outer.options(&[1; 8])),
            7 => {
                let (offset, more) = self.random.pick(&[(0, true), (8, false), (1480, true)]);
                tunnel.outer(|outer| outer.fragment(offset, more))
            }
            8 => {
                let total = self.random.pick(&[0, 19, 20, 28, 36, 50, 77, 78, 65_535]);
                tunnel.outer(|outer| outer.total_bytes(total))
            }
            9 => tunnel.udp_checksum(self.random.pick(&[Checksum::Right, Checksum::Wrong])),
            10 => {
                let address = self.any_address();
                tunnel.outer(|outer| outer.destination(address))
            }
            _ => {
                let address = self.any_peer();
                tunnel.outer(|outer| outer.source(address))
            }
        }
    }

    /// Something leaves the node: a tunnel packet of ours or forged, or anything else.
    pub(super) fn packet_leaves(&mut self) -> Input {
        let flow = Flow {
            from: self.any_address(),
            to: self.any_address(),
            ports: self.any_ports(),
        };
        let inner = self.packet(flow);
        let frame = if self.random.percent(10) {
            let to = self.any_peer();
            self.probe(EAST_1, to, to).frame(ROUTER_MAC, NIC_MAC)
        } else if self.random.percent(50) {
            let to = self.any_peer();
            let (slice, class) = (
                self.random.pick(&[KAFKA, KAFKA, SHOP]),
                self.random.below(8),
            );
            let tunnel = Vxlan::between(EAST_1, to).slice(slice.id, class as u8);
            let tunnel = tunnel.carry(&inner);
            self.twist_tunnel(tunnel).frame(ROUTER_MAC, NIC_MAC)
        } else {
            framed(&inner)
        };
        let mark = match self.random.below(10) {
            0..3 => TUNNEL_MARK,
            3 => self
                .random
                .pick(&[0, 1, TUNNEL_MARK ^ 1, TUNNEL_MARK << 1, u32::MAX]),
            _ => OTHER_MARK,
        };
        Input {
            program: Program::UnderlayGuard,
            device: NIC,
            came_in_by: None,
            gso_bytes: self.segments(),
            mark,
            frame,
        }
    }
}

fn framed(packet: &Ipv4) -> Vec<u8> {
    packet.frame(ROUTER_MAC, NIC_MAC)
}
