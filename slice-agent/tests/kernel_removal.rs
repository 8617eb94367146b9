//! Removal, and what an agent refuses to share or to take.

mod kernel_support;

use std::fs;

use kernel_support::links::{LINKS, NOTHING, links};
use kernel_support::{Node, text};
use nix::sys::signal::Signal;

#[test]
fn uninstall_is_refused_while_an_agent_runs_and_then_leaves_nothing() {
    let Some(mut node) = Node::build() else {
        return;
    };
    let clean = [node.ip("rule show"), node.ip("-br link show")];
    let by_stack = "isolation: {level: Slice}\n  delivery: Stack";
    let text_of_all = node.configuration();
    node.configure_with(&text_of_all.replacen("isolation: {level: Slice}", by_stack, 1));
    node.start();
    // What is told the host for the stack's delivery goes as well, and comes again with its device.
    let is_told = |node: &Node| {
        node.ip("rule show").contains("from 10.1.1.10 lookup 6086")
            && node
                .ip("route show table 6086")
                .contains("10.77.0.0/16 dev sliceplane0")
    };
    assert!(is_told(&node), "{}", node.ip("rule show"));
    node.ip("link del sliceplane0");
    node.until("the device is there again", |node| {
        is_told(node) && node.plan() == NOTHING
    });
    assert_ne!([node.ip("rule show"), node.ip("-br link show")], clean);

    let refused = node.run("uninstall");
    assert!(!refused.status.success());
    let process = format!(
        "another agent runs on this node as process {};",
        node.agent_id()
    );
    assert!(text(&refused).contains(&process), "{}", text(&refused));
    assert_eq!(node.links(), LINKS);

    assert_eq!(node.stop(Signal::SIGTERM), Some(0));
    for _ in 0..2 {
        let done = node.run("uninstall");
        assert!(done.status.success(), "{}", text(&done));
        assert_eq!([node.ip("rule show"), node.ip("-br link show")], clean);
        assert_eq!(node.ip("route show table all proto 85"), "");
        assert!(!node.bpffs().join("sliceplane").exists());
        assert!(!node.state_dir().exists());
    }
}

#[test]
fn a_second_agent_is_refused_with_the_first_ones_process() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.start();
    let second = node.run("agent");
    assert_eq!(second.status.code(), Some(1));
    let process = format!("process {};", node.agent_id());
    assert!(text(&second).contains(&process), "{}", text(&second));
}

#[test]
fn agents_and_uninstalls_with_another_state_directory_are_kept_off_the_same_pins() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.start();
    let before = links(&node);
    let elsewhere = node.state_dir().with_file_name("elsewhere");
    for subcommand in ["agent", "uninstall"] {
        let refused = node.run_with_state_dir(subcommand, &elsewhere);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        let pins = node.bpffs().join("sliceplane");
        let told = format!("another agent or uninstall uses {}", pins.display());
        assert!(text(&refused).contains(&told), "{}", text(&refused));
    }
    assert_eq!(links(&node), before);
    assert!(!elsewhere.exists(), "a refused uninstall leaves nothing");
}

#[test]
fn a_missing_bpf_file_system_is_named_with_the_command_that_mounts_it() {
    let Some(node) = Node::build() else { return };
    nix::mount::umount(&node.bpffs()).unwrap();
    let command = format!("mount -t bpf bpf {}", node.bpffs().display());
    for subcommand in ["agent", "plan"] {
        let output = node.run(subcommand);
        assert_eq!(output.status.code(), Some(1), "{subcommand}");
        assert!(text(&output).contains(&command), "{}", text(&output));
    }
}

#[test]
fn uninstall_with_a_wrong_bpf_file_system_removes_nothing_and_says_so() {
    let Some(node) = Node::build() else { return };
    nix::mount::umount(&node.bpffs()).unwrap();
    let file = node.bpffs().join("sliceplane/notes.txt");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, "mine").unwrap();
    let refused = node.run("uninstall");
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    let told = text(&refused);
    assert!(
        told.contains("nothing was removed, because --bpffs must name"),
        "{told}"
    );
    assert!(told.contains("is not a BPF file system"), "{told}");
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
}

#[test]
fn a_device_of_our_name_that_is_not_ours_is_neither_removed_nor_taken() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.ip("link add sliceplane0 type vxlan external dstport 6085");
    let removal = node.run("uninstall");
    assert!(removal.status.success(), "{}", text(&removal));
    let told = "the device sliceplane0 stays, because it is not ours";
    assert!(text(&removal).contains(told), "{}", text(&removal));

    node.spawn();
    node.until("the trouble is told", |node| {
        node.get("/readyz")
            .contains("a device sliceplane0 exists that is not ours")
    });
    assert!(node.ip("link show sliceplane0").contains("state DOWN"));

    node.ip("link del sliceplane0");
    node.until("the agent tried again", |node| {
        node.get("/readyz") == "ready\n"
    });
}

#[test]
fn a_foreign_owner_of_the_port_is_named_and_the_agent_recovers_when_it_goes() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.ip("link add other0 type vxlan external dstport 6085");
    node.spawn();
    node.until("the trouble is told", |node| {
        node.get("/readyz")
            .contains("the VXLAN device other0 already owns UDP port 6085")
    });
    assert!(node.get("/metrics").contains("sliceplane_ready 0\n"));

    node.ip("link del other0");
    node.until("the agent tried again", |node| {
        node.get("/readyz") == "ready\n"
    });
    assert_eq!(node.plan(), NOTHING);
}
