//! What routers say of the way to other nodes.

use slice_common::address::{Address, Port};
use slice_common::layout::{Path, PathEnds};

use super::read::{ICMP, Ip, UDP, half};
use super::{Model, Notes};
use crate::fuzz::input::Input;
use crate::testrun::actors::NIC_MAC;

/// 576 bytes and the tunnel around them.
const FLOOR: u32 = 626;

impl Model<'_> {
    /// What the path takes: what is configured, or less if a router said so.
    pub(super) fn path_bytes(&self, path: &Path) -> usize {
        let ends = PathEnds {
            local: path.local,
            remote: path.remote,
        };
        let said = self.narrow.get(&ends).copied();
        said.map_or(path.mtu, |said| said.min(path.mtu)) as usize
    }

    /// A router that quotes a tunnel packet of this node is believed, once a second for each path: the
    /// packets of a batch come faster than that.
    pub(super) fn listen_to_routers(&mut self, input: &Input, outer: Ip, notes: &mut Notes) {
        let settings = &self.tables.settings;
        let is_for_us = outer.protocol() == ICMP
            && outer.destination() == settings.underlay_address.octets()
            && input.frame[..6] == NIC_MAC
            && outer.is_whole()
            && !outer.is_fragment();
        if !is_for_us {
            return;
        }
        let message = 14 + outer.header_bytes();
        let Some([3, 4, _, _, _, _, high, low]) = input.frame.get(message..message + 8) else {
            return;
        };
        let said = u16::from_be_bytes([*high, *low]);
        let quote = message + 8;
        let Some(quoted) = Ip::at(&input.frame, quote) else {
            return;
        };
        let Some(ports) = input.frame.get(quote + 20..quote + 24) else {
            return;
        };
        let is_ours = quoted.version() == 4
            && quoted.header_bytes() == 20
            && quoted.protocol() == UDP
            && !quoted.is_fragment()
            && quoted.source() == settings.underlay_address.octets()
            && half(ports, 0) >= 0xc000
            && half(ports, 2) == Port::from_network_word(settings.tunnel_port).number()
            && self.tables.peer(quoted.destination()).is_some();
        let ends = PathEnds {
            local: settings.underlay_address,
            remote: Address::from_octets(quoted.destination()),
        };
        if is_ours && quoted.total_bytes() > usize::from(said) && !self.narrow.contains_key(&ends) {
            let bytes = u32::from(said).max(FLOOR);
            self.narrow.insert(ends, bytes);
            notes.narrowed = Some((ends, bytes));
            self.saw(input, "told of a narrow way");
        }
    }
}
