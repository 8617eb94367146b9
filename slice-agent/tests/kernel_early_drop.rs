//! `underlay_filter` on a real kernel: put on, replaced in place, repaired, removed, and refused.

mod kernel_support;

use kernel_support::stranger::Stranger;
use kernel_support::{Node, text};
use nix::sys::signal::Signal;
use slice_agent::apply::tcx::{self, LinkFacts};
use slice_agent::image::Hook;

const NOTHING: &str = "Nothing to change: this host is as the configuration wants it.\n";
const FILTER: &str = "nic0-underlay_filter";

impl Node {
    fn ask_for_early_drop(&self, word: &str) {
        self.configure(&[("kafka-0", "10.1.1.10", "10.77.0.2")]);
        let asked = format!("interface: nic0, earlyDrop: {word}}}");
        let text = self.configuration().replace("interface: nic0}", &asked);
        self.configure_with(&text);
    }

    fn filter(&self) -> Option<LinkFacts> {
        let pins = self.link_pins();
        let mut named = pins
            .iter()
            .filter(|pin| pin.to_string_lossy().ends_with(FILTER));
        named.next().and_then(|pin| tcx::facts(pin).unwrap())
    }

    /// What `ip` says of XDP on the interface.
    fn xdp(&self) -> &'static str {
        let shown = self.ip("link show nic0");
        match (shown.contains("xdpgeneric"), shown.contains("xdp")) {
            (true, _) => "generic",
            (false, true) => "native",
            (false, false) => "none",
        }
    }
}

#[test]
fn the_filter_comes_natively_lives_on_and_goes_as_the_configuration_says() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.start();
    assert_eq!(node.xdp(), "none", "never on veth by itself");

    node.ask_for_early_drop("On");
    node.until("the filter is on", |node| node.filter().is_some());
    assert_eq!(node.xdp(), "native");
    let first = node.filter().unwrap();
    assert_eq!(first.hook, Hook::Driver);
    node.until("that is known", |node| {
        node.get("/metrics").contains("sliceplane_early_drop 1\n")
    });
    assert_eq!(node.plan(), NOTHING);

    // Killed, and another one in its place.
    node.stop(Signal::SIGKILL);
    assert_eq!(node.filter(), Some(first));
    assert_eq!(node.plan(), NOTHING);
    node.start();
    let second = node.filter().unwrap();
    assert_eq!(second.link_id, first.link_id, "the same link");
    assert_ne!(second.program_id, first.program_id, "with a new program");

    // An agent of another layout was here before.
    node.stop(Signal::SIGTERM);
    std::fs::rename(node.pins(), node.bpffs().join("sliceplane/v1")).unwrap();
    node.start();
    let third = node.filter().unwrap();
    assert_eq!(third.link_id, first.link_id, "taken over without a gap");
    assert_ne!(third.program_id, second.program_id);

    // Somebody removes it.
    let pins = node.link_pins();
    let pin = pins
        .iter()
        .find(|pin| pin.to_string_lossy().ends_with(FILTER));
    std::fs::remove_file(pin.unwrap()).unwrap();
    node.until("the kernel lets go of it", |node| node.xdp() == "none");
    node.hang_up();
    node.until("it is back", |node| node.filter().is_some());
    assert_eq!(node.xdp(), "native");

    node.ask_for_early_drop("Off");
    node.until("the filter is gone", |node| node.filter().is_none());
    assert_eq!(node.xdp(), "none");
    node.until("that is known", |node| {
        node.get("/metrics").contains("sliceplane_early_drop 0\n")
    });
    assert_eq!(node.plan(), NOTHING);

    node.ask_for_early_drop("On");
    node.until("the filter is on", |node| node.filter().is_some());
    node.stop(Signal::SIGTERM);
    assert_eq!(node.xdp(), "native");
    let output = node.run("uninstall");
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(node.xdp(), "none");
}

#[test]
fn a_program_of_somebody_else_is_left_alone_and_named() {
    let Some(mut node) = Node::build() else {
        return;
    };
    let mut stranger = Stranger::load_early(&node);
    let link = stranger.attach_early(&node, "nic0");
    node.ask_for_early_drop("On");
    let said = format!(
        "XDP program #{} of somebody else is on it;",
        stranger.early_id()
    );
    let planned = node.plan();
    assert!(
        planned.contains(&format!("NO EARLY DROP: on nic0: {said}")),
        "{planned}"
    );

    node.start();
    let page = node.get("/readyz");
    assert!(page.starts_with("ready") && page.contains(&said), "{page}");
    assert!(node.get("/metrics").contains("sliceplane_degraded 1\n"));
    assert_eq!(node.filter(), None);

    drop(link);
    node.hang_up();
    node.until("ours takes its place", |node| node.filter().is_some());
    node.until("all is well", |node| !node.get("/readyz").contains("XDP"));
    assert_eq!(node.plan(), NOTHING);
}

/// A bridge forwards in the kernel; it has no driver to run anything.
#[test]
fn a_device_that_cannot_is_no_failure_of_the_node() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.ip("addr flush dev nic0");
    node.ip("link add br-under type bridge");
    node.ip("link set nic0 master br-under");
    node.ip("addr add 172.20.1.11/24 dev br-under");
    node.ip("link set br-under up");
    node.configure(&[("kafka-0", "10.1.1.10", "10.77.0.2")]);
    let asked = "interface: br-under, earlyDrop: On}";
    node.configure_with(&node.configuration().replace("interface: nic0}", asked));

    node.start();
    let page = node.get("/readyz");
    assert!(page.starts_with("ready"), "{page}");
    assert!(page.contains("no early drop on br-under: "), "{page}");
    assert!(
        node.links()
            .contains(&"br-under-underlay_ingress".to_owned())
    );
}
