//! Attaching by netlink filters, as on kernels without TCX.

mod kernel_support;

use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{Link as _, TcAttachType};
use kernel_support::Node;
use kernel_support::stranger::Stranger;
use slice_agent::apply::programs::{BpfLog, Mechanism, attachments, interfaces};
use slice_agent::apply::{Dataplane, clsact, netlink, pins::Pins};
use slice_agent::image::{Attachment, Program};
use slice_agent::plan::Change;

/// Runs `f` with a runtime in the node's namespace.
fn inside<T: Send>(node: &Node, f: impl AsyncFnOnce() -> T + Send) -> T {
    node.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(f())
    })
}

async fn start(node: &Node) -> Dataplane {
    let netlink = netlink::connect().unwrap();
    let (bpffs, object) = (node.bpffs(), node.object());
    Dataplane::start(netlink, &bpffs, &object, Mechanism::Clsact, BpfLog::Off)
        .await
        .unwrap()
}

fn egress_of_kafka_0() -> Attachment {
    let interface = "p-kafka-0".to_owned();
    let ifindex = nix::net::if_::if_nametoindex(interface.as_str()).unwrap();
    Attachment {
        interface,
        ifindex,
        program: Program::PodEgress,
    }
}

async fn program_id(at: &Attachment) -> Option<u32> {
    let filters = clsact::filters(&netlink::connect().unwrap(), at.ifindex)
        .await
        .unwrap();
    assert!(filters.len() <= 1, "{filters:?}");
    filters.first().map(|filter| filter.program_id)
}

#[test]
fn a_filter_outlives_its_agent_and_the_next_one_replaces_its_program_in_place() {
    let Some(node) = Node::build() else { return };
    inside(&node, async || {
        let at = egress_of_kafka_0();
        let mut first = start(&node).await;
        first.apply(&Change::Attach(at.clone())).await.unwrap();
        let before = program_id(&at).await;
        assert!(before.is_some());
        drop(first);
        assert_eq!(
            program_id(&at).await,
            before,
            "the end of an agent detaches nothing"
        );

        let second = start(&node).await;
        let after = program_id(&at).await;
        assert!(after.is_some() && after != before, "{before:?} {after:?}");
        let pins = Pins::current(&node.bpffs());
        let found = attachments(
            Mechanism::Clsact,
            second.netlink(),
            &pins,
            &interfaces().unwrap(),
        )
        .await;
        assert_eq!(found.unwrap(), [at].into());
    });
}

#[test]
fn the_qdisc_is_removed_with_our_last_filter_if_it_came_from_us() {
    let Some(node) = Node::build() else { return };
    inside(&node, async || {
        let at = egress_of_kafka_0();
        let mut dataplane = start(&node).await;
        dataplane.apply(&Change::Attach(at.clone())).await.unwrap();
        assert!(node.tc("qdisc show dev p-kafka-0").contains("clsact"));
        dataplane.apply(&Change::Detach(at.clone())).await.unwrap();
        assert!(!node.tc("qdisc show dev p-kafka-0").contains("clsact"));

        // Somebody else's qdisc stays.
        node.tc("qdisc add dev p-kafka-0 clsact");
        dataplane.apply(&Change::Attach(at.clone())).await.unwrap();
        dataplane.apply(&Change::Detach(at.clone())).await.unwrap();
        assert_eq!(program_id(&at).await, None);
        assert!(node.tc("qdisc show dev p-kafka-0").contains("clsact"));
    });
}

#[test]
fn a_filter_of_somebody_else_before_ours_is_told_and_one_after_it_is_not() {
    let Some(node) = Node::build() else { return };
    inside(&node, async || {
        let at = egress_of_kafka_0();
        let mut dataplane = start(&node).await;
        dataplane.apply(&Change::Attach(at.clone())).await.unwrap();
        let ours = [at].into();
        let mut stranger = Stranger::load(&node);
        let mut filter = |priority| {
            let options = TcAttachOptions::Netlink(NlOptions {
                priority,
                handle: 2.into(),
                classid: None,
            });
            stranger.attach(&node, "p-kafka-0", TcAttachType::Ingress, options)
        };
        let _after = filter(2);
        assert_eq!(dataplane.stand_first(&ours).await, [""; 0]);
        let before = filter(1);
        let told =
            ["pod_egress on the ingress of p-kafka-0 by bpf filter tunnel_ingress of priority 1"];
        assert_eq!(dataplane.stand_first(&ours).await, told);
        before.detach().unwrap();
        assert_eq!(dataplane.stand_first(&ours).await, [""; 0]);
    });
}

#[test]
fn uninstall_removes_filters_and_our_qdisc() {
    let Some(node) = Node::build() else { return };
    inside(&node, async || {
        let at = egress_of_kafka_0();
        let mut dataplane = start(&node).await;
        dataplane.apply(&Change::Attach(at.clone())).await.unwrap();
    });
    assert!(node.run("uninstall").status.success());
    assert!(!node.tc("qdisc show dev p-kafka-0").contains("clsact"));
    assert!(!node.bpffs().join("sliceplane").exists());
}
