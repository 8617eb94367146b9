//! What stands at the root of an uplink's queues, on real devices: the agent puts `fq` where the kernel chose
//! something itself, takes it off again, and never touches what somebody configured.

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use rtnetlink::{Handle, LinkVeth};
use slice_agent::apply::queueing::{make_fair, remove, roots};
use slice_agent::image::RootQueue;

use super::card::with_netlink;

const UPLINK: &str = "q-uplink";
const WIDE_UPLINK: &str = "q-wide";
const QUEUES: u16 = 4;
/// A discipline that is in every kernel.
const SIMPLE: &str = "pfifo";

/// Plays everything in the calling thread's network namespace. Where the kernel has no `fq`, the agent must say
/// so and leave everything as it was.
/// # Errors  what was not as it should be.
pub fn play_on_queues(kernel_has_fq: bool) -> Result<()> {
    with_netlink(async |netlink| {
        add_veth(netlink, UPLINK, 1).await?;
        add_veth(netlink, WIDE_UPLINK, QUEUES.into()).await?;
        let uplink = if_nametoindex(UPLINK)?;
        let wide = if_nametoindex(WIDE_UPLINK)?;
        if kernel_has_fq {
            comes_and_goes(netlink, uplink, 1)
                .await
                .context("one queue")?;
            comes_and_goes(netlink, wide, QUEUES)
                .await
                .context("several queues")?;
        } else {
            is_refused_whole(netlink, uplink, 1)
                .await
                .context("one queue")?;
            is_refused_whole(netlink, wide, QUEUES)
                .await
                .context("several queues")?;
        }
        what_somebody_configured_stays(netlink, uplink).await
    })
}

async fn comes_and_goes(netlink: &Handle, uplink: u32, queues: u16) -> Result<()> {
    expect(netlink, uplink, &RootQueue::Default { queues: 1 }).await?;
    make_fair(netlink, uplink, queues).await?;
    expect(netlink, uplink, &RootQueue::OurFair).await?;
    // Again, as after somebody took a part of it off: no harm.
    make_fair(netlink, uplink, queues).await?;
    expect(netlink, uplink, &RootQueue::OurFair).await?;
    remove(netlink, uplink).await?;
    expect(netlink, uplink, &RootQueue::Default { queues: 1 }).await?;
    remove(netlink, uplink).await.context("nothing to remove")
}

async fn is_refused_whole(netlink: &Handle, uplink: u32, queues: u16) -> Result<()> {
    let refused = make_fair(netlink, uplink, queues).await;
    let error = refused.err().context("there is fq after all")?;
    let text = format!("{error:#}");
    ensure!(text.contains("cannot put fq"), "{text}");
    expect(netlink, uplink, &RootQueue::Default { queues: 1 }).await
}

async fn what_somebody_configured_stays(netlink: &Handle, uplink: u32) -> Result<()> {
    let handle = TcHandle {
        major: 0x7,
        minor: 0,
    };
    configure(netlink, uplink, handle).await?;
    let theirs = RootQueue::Configured {
        kind: SIMPLE.to_owned(),
        handle: 0x7,
    };
    expect(netlink, uplink, &theirs).await?;
    let error = make_fair(netlink, uplink, 1)
        .await
        .err()
        .context("it was replaced")?;
    ensure!(format!("{error:#}").contains("pfifo 7:"), "{error:#}");
    remove(netlink, uplink).await?;
    expect(netlink, uplink, &theirs).await
}

async fn expect(netlink: &Handle, uplink: u32, expected: &RootQueue) -> Result<()> {
    let found = roots(netlink).await?;
    let found = found.get(&uplink).context("the device has no root")?;
    ensure!(found == expected, "found {found:?}, not {expected:?}");
    Ok(())
}

async fn configure(netlink: &Handle, uplink: u32, handle: TcHandle) -> Result<()> {
    let mut message = TcMessage::with_index(uplink.cast_signed());
    message.header.parent = TcHandle::ROOT;
    message.header.handle = handle;
    message
        .attributes
        .push(TcAttribute::Kind(SIMPLE.to_owned()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
    use futures_util::StreamExt as _;
    let mut answers = netlink.clone().request(request)?;
    while answers.next().await.is_some() {}
    Ok(())
}

async fn add_veth(netlink: &Handle, name: &str, queues: u32) -> Result<()> {
    let mut message = LinkVeth::new(name, &format!("{name}-far")).build();
    message.attributes.push(LinkAttribute::NumTxQueues(queues));
    netlink.link().add(message).execute().await?;
    let index = if_nametoindex(name)?;
    let up = rtnetlink::LinkUnspec::new_with_index(index).up().build();
    netlink.link().set(up).execute().await?;
    Ok(())
}
