//! `/init` of a virtual machine: loads every program and runs every test-run scene, or runs a command of the lab,
//! writes one JSON line per finding to the second serial line, and switches the machine off.

mod lab;

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use serde_json::{Value, json};
use slice_tests::testrun::{
    World, attach, card, cost, in_own_network, play_on_fq, play_on_queues, play_with_agent,
    run_scene, scenes, vlan,
};

const OBJECT: &str = "/slice-ebpf.o";
const AGENT: &str = "/bin/slice-agent";
const MODULES: &str = "/modules";
/// Not the console: what the kernel says there would get between the results.
const RESULTS: &str = "/dev/ttyS1";

fn main() {
    if std::process::id() != 1 {
        eprintln!("slice-guest is the first process of a virtual machine: run `cargo xtask vm`");
        std::process::exit(2);
    }
    if let Err(error) = work() {
        eprintln!("slice-guest: {error:#}");
    }
    // Without a result line the run counts as failed, so nothing is lost if this does not work.
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("slice-guest: cannot switch off: {error}");
}

fn work() -> Result<()> {
    mount_file_systems()?;
    let results = File::options()
        .write(true)
        .open(RESULTS)
        .with_context(|| format!("cannot open {RESULTS} for the results"))?;
    let mut results = Results {
        line: results,
        failures: 0,
    };
    let found = match lab::command() {
        Some(arguments) => run_lab(&arguments, &mut results),
        None => examine(&mut results),
    };
    if let Err(error) = found {
        results.failures += 1;
        results.write(json!({"event": "error", "message": format!("{error:#}")}))?;
    }
    results.end()
}

/// Where findings go.
struct Results {
    line: File,
    failures: usize,
}

impl Results {
    fn write(&mut self, finding: Value) -> Result<()> {
        writeln!(self.line, "{finding}").context("cannot write a result")
    }

    /// What came of a test.
    fn tell(&mut self, name: &str, played: Result<()>) -> Result<()> {
        let failure = played.err().map(|error| format!("{error:#}"));
        self.failures += usize::from(failure.is_some());
        self.write(json!({"event": "test", "name": name, "failure": failure}))
    }

    fn end(&mut self) -> Result<()> {
        let word = if self.failures == 0 {
            "SUCCESS"
        } else {
            "FAILURE"
        };
        writeln!(self.line, "RESULT: {word}").context("cannot write the result")
    }
}

fn run_lab(arguments: &[String], results: &mut Results) -> Result<()> {
    begin(results)?;
    lab::run(arguments, results)
}

fn begin(results: &mut Results) -> Result<()> {
    let kernel = nix::sys::utsname::uname()?;
    results.write(json!({"event": "kernel", "release": kernel.release().to_string_lossy()}))?;
    load_modules()
}

fn examine(results: &mut Results) -> Result<()> {
    begin(results)?;
    let object = fs::read(OBJECT).with_context(|| format!("cannot read {OBJECT}"))?;
    in_own_network(|| {
        let mut world = World::new(&object)?;
        for program in world.programs() {
            results.write(json!({
                "event": "program",
                "name": program.name,
                "verified_instructions": program.verified_instructions,
            }))?;
        }
        for scene in scenes() {
            let played = run_scene(&mut world, &scene);
            results.tell(scene.name, played)?;
        }
        for case in cost::CASES {
            let shortest = cost::shortest(&mut world, &case)?;
            let ns = u64::try_from(shortest.as_nanos())?;
            results.write(json!({"event": "time", "name": case.name, "ns": ns}))?;
        }
        let attachment = attach(&mut world)?;
        results.write(json!({"event": "attach", "by": attachment.name()}))
    })?;
    let played = card::play_on_cards(&object);
    if let Ok(cost) = &played {
        for (by, ns) in [
            ("underlay_filter", cost.by_filter_ns),
            ("underlay_ingress", cost.by_ingress_ns),
        ] {
            results.write(json!({"event": "flood", "dropped_by": by, "packet_ns": ns}))?;
        }
    }
    results.tell("underlay_filter_on_a_network_card", played.map(drop))?;
    let queues = in_own_network(|| play_on_queues(true));
    results.tell("uplinks_get_fq_and_lose_it", queues)?;
    results.tell("departures_are_kept_by_fq", play_on_fq(&object))?;
    results.tell("underlay_on_a_vlan_device", vlan::play_on_vlan(&object))?;
    let with_agent = play_with_agent(Path::new(AGENT), true);
    results.tell(
        "an_agent_puts_a_queue_on_an_uplink_changes_it_and_takes_it_off",
        with_agent,
    )
}

fn mount_file_systems() -> Result<()> {
    let none = None::<&str>;
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("bpf", "/sys/fs/bpf"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
    ] {
        mount(Some(kind), target, Some(kind), MsFlags::empty(), none)
            .with_context(|| format!("cannot mount {kind} on {target}"))?;
    }
    Ok(())
}

/// Loads the modules in the order that was worked out when the image was built.
fn load_modules() -> Result<()> {
    const NO_PARAMETERS: &CStr = c"";
    let folder = Path::new(MODULES);
    let order =
        fs::read_to_string(folder.join("order")).context("cannot read the order of modules")?;
    for name in order.lines() {
        let file = File::open(folder.join(name)).with_context(|| format!("no module {name}"))?;
        if let Err(error) = finit_module(&file, NO_PARAMETERS, ModuleInitFlags::empty()) {
            bail!("cannot load module {name}: {error}");
        }
    }
    Ok(())
}
