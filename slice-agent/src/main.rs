//! `slice-agent`: reads the command line and runs what it asks for.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use slice_agent::agent::{self, config, uninstall};
use slice_agent::apply::netlink;
use slice_agent::apply::pins::Pins;
use slice_agent::apply::programs;
use slice_agent::cli::{
    AgentArguments, BpfLog, Cli, Command, LogFormat, PlanArguments, ReferencePage,
};
use slice_agent::metrics::names;
use slice_agent::model::{self, ConfigError};
use slice_agent::observe::{self, host, refusals};
use slice_agent::{capability, compile, http, lending, logging, plan, reference};

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // `eprintln!` would end in a panic when nobody reads; the exit code says it as well.
            let _unread = writeln!(std::io::stderr(), "slice-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `plan` is complete only with every pod in it.
const SOME_PODS_LEFT_OUT: u8 = 3;

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Plan(arguments) => return runtime()?.block_on(print_plan(arguments)),
        Command::Agent(arguments) => run_agent(arguments),
        Command::Status(arguments) => print(&http::ask(arguments.address, "/status")?),
        Command::Check(arguments) => check(&arguments.config.path),
        Command::Uninstall(arguments) => {
            logging::start(logging::Format::Text, false);
            let (bpffs, state_dir) = (arguments.bpffs.path, arguments.state_dir.path);
            runtime()?.block_on(uninstall::uninstall(&bpffs, &state_dir))
        }
        Command::Reference(arguments) => print(&match arguments.page {
            ReferencePage::DropReasons => reference::drop_reasons(),
            ReferencePage::Configuration => reference::configuration(),
            ReferencePage::Metrics => names::reference(),
        }),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn run_agent(arguments: AgentArguments) -> Result<()> {
    let format = match arguments.log_format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    let bpf_log = match arguments.bpf_log {
        BpfLog::Off => programs::BpfLog::Off,
        BpfLog::Debug => programs::BpfLog::Debug,
    };
    logging::start(format, bpf_log == programs::BpfLog::Debug);
    let options = agent::Options {
        config: arguments.config.path,
        bpffs: arguments.bpffs.path,
        state_dir: arguments.state_dir.path,
        listen: arguments.listen,
        ebpf_object: arguments.ebpf_object.path,
        bpf_log,
    };
    if let Err(error) = http::raise_open_files_limit() {
        tracing::warn!("{error:#}");
    }
    let runtime = runtime()?;
    let result = runtime.block_on(agent::run(options));
    // A page that is being written for somebody does not hold up the end.
    runtime.shutdown_background();
    result
}

fn check(path: &Path) -> Result<()> {
    let configuration = refuse(path, config::read(path))?;
    let node = configuration.node();
    for doubt in configuration.doubts() {
        print(&format!("warning: {doubt}\n"))?;
    }
    let mut text = format!(
        "{}: valid for node {} of cluster {}, slices: {}\n",
        path.display(),
        node.name,
        node.cluster,
        configuration.slices().len()
    );
    for uplink in &node.uplinks {
        let shares = refuse(path, compile::shares(&configuration, uplink))?;
        for (slice, share) in shares {
            text.push_str(&format!("{}\n", compile::in_words(uplink, slice, &share)));
        }
        if let Some(worst) = compile::beside_fellows(&configuration, uplink) {
            text.push_str(&format!("{worst}\n"));
        }
        if let Some(words) = compile::lending_in_words(uplink) {
            text.push_str(&format!("{words}\n"));
        }
    }
    print(&text)
}

/// Reads everything and changes nothing; works where nothing is installed yet.
async fn print_plan(arguments: PlanArguments) -> Result<ExitCode> {
    capability::check_capabilities()?;
    capability::check_bpffs(&arguments.bpffs.path)?;
    let path = &arguments.config.path;
    let configuration = refuse(path, config::read(path))?;
    let netlink = netlink::connect()?;
    let mut facts = host::facts(&netlink).await?;
    let pins = Pins::current(&arguments.bpffs.path);
    let observed = observe::node_image(&netlink, &pins, programs::Mechanism::probe()).await?;
    let known = host::known_in(&observed, &facts.interfaces);
    host::remember(&mut facts, &known);
    facts.filtered = observe::filtered(&pins)?;
    refusals::ask_for_queues(&netlink, &configuration.node().uplinks, &mut facts).await;
    let wanted = refuse(path, config::wanted(&configuration, &facts, &observed))?;
    let missing = model::unserved(&configuration, &facts);
    let changes = plan::plan(&observed, &wanted.image, &wanted.names);
    let mut text = match (changes.is_empty(), missing.is_empty()) {
        (false, _) => plan::render(&changes),
        (true, true) => {
            "Nothing to change: this host is as the configuration wants it.\n".to_owned()
        }
        (true, false) => "Nothing to change for the pods that are here.\n".to_owned(),
    };
    if let Err(obstacle) = compile::early_drop(&configuration, &facts) {
        let interface = &configuration.node().underlay.interface;
        text.push_str(&format!("NO EARLY DROP: on {interface}: {obstacle}\n"));
    }
    let queues = compile::uplink_queues(&configuration, &facts);
    for note in queues.iter().filter_map(compile::UplinkQueue::note) {
        text.push_str(&format!("{note}\n"));
    }
    for obstacle in lending::obstacles(&configuration.node().uplinks) {
        text.push_str(&format!("NO LENDING: {obstacle}\n"));
    }
    // Last, where it is read: the rest may be long.
    for doubt in configuration.doubts() {
        text.push_str(&format!("WARNING: {doubt}\n"));
    }
    for mismatch in &wanted.mismatches {
        text.push_str(&format!("DOES NOT FIT: {mismatch}\n"));
    }
    for (pod, error) in &missing {
        text.push_str(&format!("NOT SERVED: pod {}: {error}\n", pod.name));
    }
    print(&text)?;
    Ok(match missing.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(SOME_PODS_LEFT_OUT),
    })
}

fn refuse<T>(path: &Path, result: Result<T, Vec<ConfigError>>) -> Result<T> {
    match result {
        Ok(value) => Ok(value),
        Err(errors) => bail!(
            "the configuration in {} is refused:\n{}",
            path.display(),
            model::render(&errors).trim_end()
        ),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")
}

/// A reader that went away (`| head`) is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to the standard output")
        }
        _ => Ok(()),
    }
}
