//! The route netlink connection, and its errors in words.

use std::io;

use anyhow::{Context, Result};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::mpsc;

/// Connects to the kernel in the calling thread's network namespace. Needs a tokio runtime.
pub fn connect() -> Result<Handle> {
    let (connection, handle, _messages) =
        rtnetlink::new_connection().context("cannot open a netlink socket")?;
    tokio::spawn(connection);
    Ok(handle)
}

/// The kernel's answer without netlink's decoration.
pub fn cause(error: rtnetlink::Error) -> anyhow::Error {
    match errno(&error) {
        Some(number) => io::Error::from_raw_os_error(number).into(),
        None => error.into(),
    }
}

/// The kernel's error number, if the kernel answered with one.
pub fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| code.get().abs()),
        _ => None,
    }
}

/// Whether a removal failed only because there was nothing (left) to remove.
pub fn is_absent(error: &rtnetlink::Error) -> bool {
    matches!(
        errno(error),
        Some(libc::ENOENT | libc::ESRCH | libc::ENODEV)
    )
}

/// What the kernel reports to have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something that `compile` may depend on: devices, addresses, routes, neighbours.
    Host,
    /// Something of ours may be affected (a rule), or events were lost.
    Everything,
}

/// Subscribes to changes of devices, their queueing disciplines, addresses, routes, rules and neighbours. The queue holds one
/// event of each kind at least; more of a kind while one waits say nothing new.
pub fn events() -> Result<mpsc::Receiver<Event>> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Tc,
    ];
    let (connection, _handle, mut messages) = rtnetlink::new_multicast_connection(&groups)
        .context("cannot open a netlink socket for device events")?;
    tokio::spawn(connection);
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        // The request handle keeps the connection alive.
        let _handle = _handle;
        use futures_util::StreamExt as _;
        while let Some((message, _)) = messages.next().await {
            // A full queue already says that something changed.
            if let Err(mpsc::error::TrySendError::Closed(_)) = sender.try_send(classify(&message)) {
                return;
            }
        }
    });
    Ok(receiver)
}

fn classify(message: &NetlinkMessage<RouteNetlinkMessage>) -> Event {
    use RouteNetlinkMessage::{DelRule, DelTrafficClass, NewRule, NewTrafficClass};
    match &message.payload {
        NetlinkPayload::InnerMessage(NewRule(_) | DelRule(_)) => Event::Everything,
        // Nothing else of the host tells a class of ours that somebody changed.
        NetlinkPayload::InnerMessage(NewTrafficClass(_) | DelTrafficClass(_)) => Event::Everything,
        NetlinkPayload::InnerMessage(_) => Event::Host,
        _ => Event::Everything,
    }
}
