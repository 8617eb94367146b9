//! The interfaces of the node under test, in a network namespace of their own.
//!
//! The kernel refuses a test run on a device that does not exist, and takes a frame for "overheard"
//! when its destination is not the device's address; so the devices are real.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use rtnetlink::{LinkUnspec, LinkVeth};

use super::actors::{NIC, NIC_MAC, PODS, PORT_OWNER, STRANGER_DEVICE};
use crate::packet::Mac;

/// Interface numbers by name.
#[derive(Debug)]
pub(super) struct Devices(BTreeMap<&'static str, u32>);

impl Devices {
    /// Creates them in the network namespace of the calling thread.
    pub(super) fn create() -> Result<Self> {
        let names = [NIC, PORT_OWNER, STRANGER_DEVICE]
            .into_iter()
            .chain(PODS.map(|pod| pod.device));
        let names: Vec<_> = names.collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime for netlink")?;
        runtime
            .block_on(create_all(&names))
            .context("cannot create the interfaces")?;
        let indexed = names.into_iter().map(|name| {
            let index = if_nametoindex(name).with_context(|| format!("interface {name}"))?;
            Ok((name, index))
        });
        Ok(Self(indexed.collect::<Result<_>>()?))
    }

    pub(super) fn index(&self, name: &str) -> Result<u32> {
        self.0
            .get(name)
            .copied()
            .with_context(|| format!("the world has no interface {name}"))
    }
}

async fn create_all(names: &[&'static str]) -> Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection().context("netlink")?;
    let connection = tokio::spawn(connection);
    for (number, name) in names.iter().enumerate() {
        let far_end = format!("far-{number}");
        let add = handle.link().add(LinkVeth::new(name, &far_end).build());
        add.execute()
            .await
            .with_context(|| format!("veth {name}"))?;
        let up = LinkUnspec::new_with_name(name)
            .address(mac(name, number).to_vec())
            .up()
            .build();
        handle
            .link()
            .set(up)
            .execute()
            .await
            .with_context(|| format!("{name} up"))?;
        let far_up = LinkUnspec::new_with_name(&far_end).up().build();
        handle
            .link()
            .set(far_up)
            .execute()
            .await
            .with_context(|| format!("{far_end} up"))?;
    }
    connection.abort();
    Ok(())
}

fn mac(name: &str, number: usize) -> Mac {
    if name == NIC {
        NIC_MAC
    } else {
        [0x0a, 0, 0, 0xff, 0, number as u8]
    }
}
