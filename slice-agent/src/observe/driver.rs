//! What a network card's driver can, by the kernel's generic netlink families `netdev` and `ethtool`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use rtnetlink::packet_core::NlasIterator;
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use rtnetlink::sys::{Socket, SocketAddr};

use crate::image::Interface;

/// `struct nlmsghdr` and `struct genlmsghdr` (include/uapi/linux/netlink.h, genetlink.h).
const HEADER_BYTES: usize = 16;
const GENERIC_HEADER_BYTES: usize = 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;

/// The family of families (include/uapi/linux/genetlink.h).
const CONTROL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

// include/uapi/linux/netdev.h
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_BASIC: u64 = 1;

// include/uapi/linux/ethtool_netlink.h
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
/// NETIF_F_LRO and NETIF_F_GRO_HW, as `ethtool -k` names them.
const MERGING: [&[u8]; 2] = [b"rx-lro\0", b"rx-gro-hw\0"];

const NLA_TYPE_MASK: u16 = 0x3fff;
const NLA_F_NESTED: u16 = 0x8000;

/// Asks about all interfaces of the calling thread's network namespace.
pub(super) fn ask_all(interfaces: &mut BTreeMap<String, Interface>) -> Result<()> {
    let mut drivers = Drivers::connect()?;
    let native_xdp = drivers.native_xdp()?;
    for interface in interfaces.values_mut() {
        interface.native_xdp = native_xdp.get(&interface.ifindex).copied();
        if interface.kind.is_empty() {
            interface.merges = drivers.merges(interface.ifindex)?;
        }
    }
    Ok(())
}

/// A connection to the kernel, in the calling thread's network namespace; for one question after the
/// other.
struct Drivers(Socket);

impl Drivers {
    fn connect() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC).context("cannot open a netlink socket")?;
        socket.bind_auto().context("cannot bind a netlink socket")?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .context("cannot connect a netlink socket")?;
        Ok(Self(socket))
    }

    /// Whether XDP programs run natively, by interface number; nothing where the kernel does not tell.
    fn native_xdp(&mut self) -> Result<BTreeMap<u32, bool>> {
        let answers = self.ask_family(b"netdev\0", NETDEV_CMD_DEV_GET, NLM_F_DUMP, &[])?;
        let of_device = |answer: &Vec<u8>| {
            let ifindex = value(answer, NETDEV_A_DEV_IFINDEX)?.try_into().ok()?;
            let features = value(answer, NETDEV_A_DEV_XDP_FEATURES)?.try_into().ok()?;
            let is_basic = u64::from_ne_bytes(features) & NETDEV_XDP_ACT_BASIC != 0;
            Some((u32::from_ne_bytes(ifindex), is_basic))
        };
        Ok(answers.iter().filter_map(of_device).collect())
    }

    /// Whether the driver merges received segments.
    fn merges(&mut self, ifindex: u32) -> Result<bool> {
        let device = attribute(ETHTOOL_A_HEADER_DEV_INDEX, &ifindex.to_ne_bytes());
        let question = attribute(ETHTOOL_A_FEATURES_HEADER | NLA_F_NESTED, &device);
        let answers = self.ask_family(b"ethtool\0", ETHTOOL_MSG_FEATURES_GET, 0, &question)?;
        let is_active = |answer: &Vec<u8>| {
            let active = value(answer, ETHTOOL_A_FEATURES_ACTIVE).unwrap_or_default();
            let bits = value(&active, ETHTOOL_A_BITSET_BITS).unwrap_or_default();
            // Only bits that are set are listed, each with its name.
            let mut names = NlasIterator::new(&bits)
                .flatten()
                .filter_map(|bit| value(bit.value(), ETHTOOL_A_BITSET_BIT_NAME));
            names.any(|name| MERGING.contains(&name.as_slice()))
        };
        Ok(answers.iter().any(is_active))
    }

    /// The attributes of each answer; none where the kernel has no such family or nothing to say.
    fn ask_family(
        &mut self,
        name: &[u8],
        command: u8,
        flags: u16,
        attributes: &[u8],
    ) -> Result<Vec<Vec<u8>>> {
        let question = attribute(CTRL_ATTR_FAMILY_NAME, name);
        let families = self.ask(CONTROL, CTRL_CMD_GETFAMILY, 0, &question)?;
        let id = families
            .first()
            .and_then(|family| value(family, CTRL_ATTR_FAMILY_ID));
        let Some(id) = id.and_then(|bytes| bytes.try_into().ok()) else {
            return Ok(Vec::new());
        };
        self.ask(u16::from_ne_bytes(id), command, flags, attributes)
    }

    fn ask(
        &mut self,
        family: u16,
        command: u8,
        flags: u16,
        attributes: &[u8],
    ) -> Result<Vec<Vec<u8>>> {
        self.0
            .send(&message(family, command, flags, attributes), 0)
            .context("cannot ask by generic netlink")?;
        let mut answers = Vec::new();
        loop {
            let (bytes, _) = self
                .0
                .recv_from_full()
                .context("no answer by generic netlink")?;
            for (kind, payload) in messages(&bytes) {
                match kind {
                    // No such family, device or command; or the end of a list.
                    NLMSG_ERROR | NLMSG_DONE => return Ok(answers),
                    _ => answers.push(payload.to_vec()),
                }
            }
            if flags & NLM_F_DUMP == 0 {
                return Ok(answers);
            }
        }
    }
}

/// Type of each message, and what stands behind its headers.
fn messages(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let [a, b, c, d, e, f, ..] = *bytes
        && bytes.len() >= HEADER_BYTES
    {
        let length = (u32::from_ne_bytes([a, b, c, d]) as usize).clamp(HEADER_BYTES, bytes.len());
        let payload = bytes[..length].get(HEADER_BYTES + GENERIC_HEADER_BYTES..);
        found.push((u16::from_ne_bytes([e, f]), payload.unwrap_or_default()));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    found
}

fn message(family: u16, command: u8, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let bytes = HEADER_BYTES + GENERIC_HEADER_BYTES + attributes.len();
    let mut message = Vec::with_capacity(bytes);
    message.extend((bytes as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Sequence number and port, which one question at a time has no use for.
    message.extend([0; 8]);
    // Command, version 1, reserved.
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(((4 + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of the first attribute of this kind.
fn value(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut all = NlasIterator::new(attributes).flatten();
    let found = all.find(|attribute| attribute.kind() & NLA_TYPE_MASK == kind)?;
    Some(found.value().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found_again_inside_of_each_other() {
        let inner = attribute(7, b"rx-lro\0");
        let outer = attribute(3 | NLA_F_NESTED, &inner);
        let inside = value(&outer, 3).unwrap();
        assert_eq!(value(&inside, 7).unwrap(), b"rx-lro\0");
        assert_eq!(value(&inside, 8), None);
    }

    #[test]
    fn messages_are_told_apart_and_a_length_that_lies_ends_them() {
        let first = message(7, 1, 0, &attribute(1, &[9]));
        let mut both = first.clone();
        both.extend(message(3, 1, 0, &[]));
        let kinds: Vec<_> = messages(&both).iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [7, NLMSG_DONE]);
        both[0] = 0xff;
        assert_eq!(messages(&both).len(), 1);
        assert_eq!(messages(&first[..3]), []);
    }

    /// Every kernel has the loopback device, which no driver's XDP runs on and nothing merges for.
    #[test]
    fn the_loopback_device_is_no_card() {
        let mut drivers = Drivers::connect().unwrap();
        let native_xdp = drivers.native_xdp().unwrap();
        assert_ne!(native_xdp.get(&1), Some(&true));
        assert!(!drivers.merges(1).unwrap());
    }
}
