//! One node in network namespaces of its own, with its own BPF file system, and a real agent on it.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod links;
pub(crate) mod stranger;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const DEADLINE: Duration = Duration::from_secs(20);
static NODES: AtomicU32 = AtomicU32::new(0);

/// A node `east-1` with the interface `nic0` and the pod `kafka-0`.
pub(crate) struct Node {
    pub(crate) netns: String,
    pods: Vec<String>,
    dir: tempfile::TempDir,
    object: PathBuf,
    agent: Option<Child>,
}

impl Node {
    /// Builds the node; `None` (said loudly) where that cannot be, unless tests are required.
    pub(crate) fn build() -> Option<Self> {
        let object = match prerequisites() {
            Ok(object) => object,
            Err(why) if std::env::var_os("SLICE_TESTS_REQUIRED").is_some_and(|v| v == "1") => {
                panic!("SLICE_TESTS_REQUIRED=1, but {why}")
            }
            Err(why) => {
                // Not eprintln: the test harness would keep it to itself when the test passes.
                let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
                return None;
            }
        };
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let netns = format!("sa-{}-{number}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let mut node = Self {
            netns,
            pods: Vec::new(),
            dir,
            object,
            agent: None,
        };
        ip(&["netns", "add", &node.netns]);
        node.ip("link set lo up");
        node.ip("link add nic0 type veth peer name nic0-peer");
        node.ip("addr add 172.20.1.11/24 dev nic0");
        node.ip("link set nic0 up");
        node.ip("link set nic0-peer up");
        node.add_pod("kafka-0", "10.1.1.10");
        for folder in [node.bpffs(), node.config_dir()] {
            fs::create_dir(folder).unwrap();
        }
        let none = None::<&str>;
        mount(
            Some("bpf"),
            &node.bpffs(),
            Some("bpf"),
            MsFlags::empty(),
            none,
        )
        .unwrap();
        node.configure(&[("kafka-0", "10.1.1.10", "10.77.0.2")]);
        Some(node)
    }

    pub(crate) fn bpffs(&self) -> PathBuf {
        self.dir.path().join("bpf")
    }

    pub(crate) fn pins(&self) -> PathBuf {
        let version = slice_common::layout::LAYOUT_VERSION;
        self.bpffs().join(format!("sliceplane/v{version}"))
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn object(&self) -> Vec<u8> {
        fs::read(&self.object).unwrap()
    }

    fn config_dir(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    /// Runs `ip` in the node's namespace.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let mut all = vec!["-n", &self.netns];
        all.extend(arguments.split(' '));
        ip(&all)
    }

    pub(crate) fn tc(&self, arguments: &str) -> String {
        let mut all = vec!["-n", &self.netns];
        all.extend(arguments.split(' '));
        run("tc", &all)
    }

    /// A pod in a namespace of its own; its interface on the node is `p-NAME`.
    pub(crate) fn add_pod(&mut self, name: &str, address: &str) {
        let netns = format!("{}-{name}", self.netns);
        if !self.pods.contains(&netns) {
            ip(&["netns", "add", &netns]);
            self.pods.push(netns.clone());
        }
        self.ip(&format!(
            "link add p-{name} type veth peer name eth0 netns {netns}"
        ));
        self.ip(&format!("link set p-{name} up"));
        self.ip(&format!("route add {address}/32 dev p-{name}"));
        for command in [
            "link set eth0 up",
            &format!("addr add {address}/32 dev eth0"),
            "route add default dev eth0",
        ] {
            let mut all = vec!["-n", &netns];
            all.extend(command.split(' '));
            ip(&all);
        }
    }

    /// Starts a program in a pod's namespace.
    pub(crate) fn spawn_in_pod(&self, name: &str, program: &str, arguments: &str) -> Child {
        let netns = format!("{}-{name}", self.netns);
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &netns, program])
            .args(arguments.split(' '));
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Lets the pod send to a slice address by its veth, whose other end nobody asks for by ARP.
    pub(crate) fn open_way(&self, name: &str, slice_address: &str) {
        let shown = self.ip(&format!("-br link show p-{name}"));
        let mac = shown.split_whitespace().nth(2).unwrap();
        let netns = format!("{}-{name}", self.netns);
        ip(&[
            "-n",
            &netns,
            "neigh",
            "add",
            slice_address,
            "lladdr",
            mac,
            "dev",
            "eth0",
        ]);
    }

    /// Writes the configuration in one step, as an editor does: (pod, address, slice address).
    pub(crate) fn configure(&self, pods: &[(&str, &str, &str)]) {
        let mut text = String::from(
            "kind: Node\ncluster: east\nname: east-1\n\
             underlay: {address: 172.20.1.11, interface: nic0}\nendpoints:\n",
        );
        for (name, address, slice_address) in pods {
            text.push_str(&format!(
                "- {{slice: kafka, namespace: kafka, name: {name}, interface: p-{name}, \
                 address: {address}, sliceAddress: {slice_address}}}\n"
            ));
        }
        text.push_str(
            "blocks:\n- {slice: kafka, namespace: kafka, prefix: 10.77.0.0/29}\npeers:\n\
             - {cluster: west, name: west-1, underlay: 172.20.2.11, blocks: \
             [{slice: kafka, namespace: analytics, prefix: 10.77.64.0/29}]}\n---\n\
             kind: Slice\nmetadata: {name: kafka}\nid: 7\nspec:\n  \
             addressing: {mode: Mapped, ranges: [10.77.0.0/16]}\n  isolation: {level: Slice}\n  \
             policy:\n    defaultAction: Deny\n    rules:\n    \
             - {name: brokers, action: Allow, from: [kafka], to: [kafka], \
             ports: [{protocol: TCP, port: 9090-9092}, {protocol: ICMP}]}\n  \
             qos:\n    classes:\n    \
             - {name: control, match: [{protocol: TCP, port: 9090}], dscp: 48}\n  \
             encryption: {mode: None}\n  acceptPlaintext: true\n",
        );
        self.configure_with(&text);
    }

    pub(crate) fn configure_with(&self, text: &str) {
        let hidden = self.config_dir().join(".node.yaml");
        fs::write(&hidden, text).unwrap();
        fs::rename(hidden, self.config_dir().join("node.yaml")).unwrap();
    }

    pub(crate) fn configuration(&self) -> String {
        fs::read_to_string(self.config_dir().join("node.yaml")).unwrap()
    }

    /// Runs `slice-agent COMMAND` with this node's folders to its end.
    pub(crate) fn run(&self, command: &str) -> Output {
        self.command(command).output().unwrap()
    }

    /// The same with another state directory.
    pub(crate) fn run_with_state_dir(&self, command: &str, state_dir: &Path) -> Output {
        let mut command = self.command_with_state_dir(command, state_dir);
        command.output().unwrap()
    }

    /// What `slice-agent plan` prints, also if it names pods that are not served.
    pub(crate) fn plan(&self) -> String {
        let output = self.run("plan");
        let is_planned = matches!(output.status.code(), Some(0 | 3));
        assert!(is_planned, "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts the agent and waits until it is ready and its pods told their link-layer addresses.
    pub(crate) fn start(&mut self) {
        self.spawn();
        self.until("the agent is ready", |node| {
            node.get("/readyz").starts_with("ready")
        });
        self.until("nothing is left to do", |node| {
            node.plan().starts_with("Nothing to change")
        });
    }

    pub(crate) fn spawn(&mut self) {
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.log_file())
            .unwrap();
        let child = self
            .command("agent")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(child);
    }

    pub(crate) fn agent_id(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// Sends the signal and waits for the end; the exit code, if it was not the signal itself.
    pub(crate) fn stop(&mut self, signal: Signal) -> Option<i32> {
        let mut agent = self.agent.take().unwrap();
        kill(Pid::from_raw(agent.id().cast_signed()), signal).unwrap();
        agent.wait().unwrap().code()
    }

    /// Makes the agent look at everything, which it does by itself once a minute.
    pub(crate) fn hang_up(&self) {
        kill(Pid::from_raw(self.agent_id().cast_signed()), Signal::SIGHUP).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn command(&self, subcommand: &str) -> Command {
        self.command_with_state_dir(subcommand, &self.state_dir())
    }

    fn command_with_state_dir(&self, subcommand: &str, state_dir: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slice-agent"));
        command.arg(subcommand).arg("--bpffs").arg(self.bpffs());
        if subcommand != "uninstall" {
            command.arg("--config").arg(self.config_dir());
            command.arg("--ebpf-object").arg(&self.object);
        }
        if subcommand != "plan" {
            command.arg("--state-dir").arg(state_dir);
        }
        let netns = File::open(Path::new("/run/netns").join(&self.netns)).unwrap();
        // SAFETY: one async-signal-safe system call.
        unsafe {
            command.pre_exec(move || Ok(setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)?));
        }
        command
    }

    /// Runs `f` on a thread inside the node's namespace.
    pub(crate) fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        inside(&self.netns, f)
    }

    /// Runs `f` on a thread inside a pod's namespace.
    pub(crate) fn inside_pod<T: Send>(&self, name: &str, f: impl FnOnce() -> T + Send) -> T {
        inside(&format!("{}-{name}", self.netns), f)
    }

    /// The body of a page of the agent, or nothing while it does not answer.
    pub(crate) fn get(&self, page: &str) -> String {
        self.inside(|| {
            let answer = TcpStream::connect("127.0.0.1:9464").and_then(|mut stream| {
                write!(stream, "GET {page} HTTP/1.0\r\n\r\n")?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                Ok(answer)
            });
            let answer = answer.unwrap_or_default();
            answer
                .split_once("\r\n\r\n")
                .map_or_else(String::new, |(_, body)| body.to_owned())
        })
    }

    /// Polls until the condition holds; fails with the agent's log after the deadline.
    pub(crate) fn until(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            if start.elapsed() > DEADLINE {
                panic!(
                    "not within {DEADLINE:?}: {what}; the agent's log:\n{}",
                    self.log()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The names of the pinned links, without interface numbers.
    pub(crate) fn links(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .link_pins()
            .iter()
            .map(|pin| pin.file_name().unwrap().to_string_lossy().into_owned())
            .map(|name| name.split_once('-').unwrap().1.to_owned())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn link_pins(&self) -> Vec<PathBuf> {
        slice_agent::apply::pins::entries(&self.pins().join("links")).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        let _ = umount2(&self.bpffs(), MntFlags::MNT_DETACH);
        for netns in self.pods.iter().chain([&self.netns]) {
            let _ = Command::new("ip").args(["netns", "del", netns]).output();
        }
    }
}

fn inside<T: Send>(netns: &str, f: impl FnOnce() -> T + Send) -> T {
    let netns = File::open(Path::new("/run/netns").join(netns)).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            f()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Both outputs of a command, for messages and for what they should contain.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn prerequisites() -> Result<PathBuf, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("this test needs root (network namespaces, BPF)".to_owned());
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/slice-ebpf.o");
    let object = std::env::var_os("SLICE_EBPF_OBJ").map_or(built, PathBuf::from);
    match object.is_file() {
        true => Ok(object),
        false => Err(format!(
            "this test needs the kernel programs at {}: cargo xtask build",
            object.display()
        )),
    }
}

fn ip(arguments: &[&str]) -> String {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        text(&output)
    );
    String::from_utf8(output.stdout).unwrap()
}
