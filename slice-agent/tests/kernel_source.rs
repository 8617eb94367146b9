//! A running agent whose configuration folder somebody tampers with.

mod kernel_support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kernel_support::Node;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

fn config_dir(node: &Node) -> PathBuf {
    node.state_dir().with_file_name("config")
}

#[test]
fn a_fifo_among_the_files_is_named_and_keeps_nothing_waiting() {
    let Some(mut node) = Node::build() else {
        return;
    };
    node.start();
    let fifo = config_dir(&node).join("slices.yaml");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    node.until("the FIFO is noticed", |node| {
        node.get("/metrics").contains("sliceplane_config_valid 0\n")
    });
    let expected = "slices.yaml: is a FIFO; a regular file with YAML in it is expected";
    assert!(node.log().contains(expected), "{}", node.log());
    assert!(
        node.get("/readyz").starts_with("ready"),
        "the last good one stays in force"
    );
    assert_eq!(node.get("/healthz"), "alive\n");

    let start = Instant::now();
    assert_eq!(node.stop(Signal::SIGTERM), Some(0));
    let needed = start.elapsed();
    assert!(needed < Duration::from_secs(2), "ended after {needed:?}");
}

#[test]
fn an_agent_that_starts_on_a_fifo_waits_for_a_file_and_takes_it() {
    let Some(mut node) = Node::build() else {
        return;
    };
    let file = config_dir(&node).join("node.yaml");
    let kept = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, Mode::S_IRWXU).unwrap();
    node.spawn();
    node.until("the FIFO is noticed", |node| {
        node.log().contains("node.yaml: is a FIFO")
    });
    assert!(
        node.get("/readyz")
            .starts_with("not ready: no valid configuration yet")
    );

    node.configure_with(&kept);
    node.until("the agent is ready", |node| {
        node.get("/readyz").starts_with("ready")
    });
    assert_eq!(node.stop(Signal::SIGTERM), Some(0));
}
