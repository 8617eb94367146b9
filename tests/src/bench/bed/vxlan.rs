//! The kernel's own tunnel, as CNIs use it at its best: one flow-based device, tunnel by route.

use anyhow::Result;

use super::{Bed, MTU_BYTES, NODE_ADDRESSES, POD_ADDRESSES};
use crate::lab::network::ip;

const OVERHEAD_BYTES: u32 = 50;
const VNI: u32 = 7;
const TUNNEL_ADDRESSES: [&str; 2] = ["10.93.0.1", "10.93.0.2"];
const TUNNEL_MACS: [&str; 2] = ["02:00:00:00:91:01", "02:00:00:00:91:02"];

pub(super) fn set_up(bed: &Bed) -> Result<()> {
    for (index, node) in bed.nodes.iter().enumerate() {
        ip(Some(node), &script(index))?;
    }
    Ok(())
}

fn script(index: usize) -> String {
    let other = 1 - index;
    let mtu_bytes = MTU_BYTES - OVERHEAD_BYTES;
    let (mac, own) = (TUNNEL_MACS[index], TUNNEL_ADDRESSES[index]);
    let (far_mac, far) = (TUNNEL_MACS[other], TUNNEL_ADDRESSES[other]);
    let (far_pod, far_node) = (POD_ADDRESSES[other], NODE_ADDRESSES[other]);
    format!(
        "link add vxlan0 address {mac} mtu {mtu_bytes} type vxlan external dstport 4789 nolearning\n\
         link set vxlan0 up\naddress add {own}/24 dev vxlan0\n\
         neigh add {far} lladdr {far_mac} dev vxlan0 nud permanent\n\
         route replace {far_pod}/32 encap ip id {VNI} dst {far_node} via {far} dev vxlan0\n"
    )
}
