//! A running agent whose metrics port strangers hold on to.

mod kernel_support;

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use kernel_support::Node;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n";

fn connect(node: &Node, count: usize, request: &[u8]) -> Vec<TcpStream> {
    node.inside(|| {
        let one = |_| {
            let mut stream = TcpStream::connect("127.0.0.1:9464").unwrap();
            // The agent may have closed it in favour of a newer one.
            let _closed = stream.write_all(request);
            stream
        };
        (0..count).map(one).collect()
    })
}

fn open_files_limit(pid: u32) -> (String, String) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let mut values = line.split_whitespace().skip(3).map(str::to_owned);
    (values.next().unwrap(), values.next().unwrap())
}

/// Prometheus gives up after ten seconds.
fn scrape_soon(node: &Node, beside: &str) {
    let start = Instant::now();
    let page = node.get("/metrics");
    let needed = start.elapsed();
    assert!(
        page.contains("sliceplane_ready 1\n"),
        "beside {beside}: {page}"
    );
    assert!(
        needed < Duration::from_secs(3),
        "beside {beside}: {needed:?}"
    );
}

#[test]
fn strangers_who_hold_thousands_of_connections_keep_no_scrape_out() {
    let Some(mut node) = Node::build() else {
        return;
    };
    // The agent starts with as few as 1024, and its strangers need more.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 1024, hard).unwrap();
    node.start();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let (agents_soft, agents_hard) = open_files_limit(node.agent_id());
    assert_eq!(agents_soft, agents_hard);

    let _idle = connect(&node, 2000, b"");
    scrape_soon(&node, "idle connections");
    let _never_reading = connect(&node, 500, SCRAPE);
    scrape_soon(&node, "scrapes by strangers");
    assert_eq!(node.get("/healthz"), "alive\n");
    let files = fs::read_dir(format!("/proc/{}/fd", node.agent_id())).unwrap();
    let open = files.count();
    assert!(open < 400, "the agent has {open} open files");
    assert_eq!(node.stop(Signal::SIGTERM), Some(0));
}
