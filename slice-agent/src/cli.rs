//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The node agent of Sliceplane: makes this host a part of slices.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "slice-agent", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Applies the configuration, follows its changes, and serves metrics and health.
    Agent(AgentArguments),
    /// Checks the configuration and changes nothing.
    ///
    /// Works offline and as any user, on any machine: what depends on the host (interfaces, its
    /// addresses and networks) is checked by `plan` and `agent`. Exit code 0 when all is well.
    Check(CheckArguments),
    /// Prints what `agent` would change on this host, and changes nothing. Exit code 3 when a pod is
    /// not served because its interface is missing.
    Plan(PlanArguments),
    /// Prints how the agent of this host is, and how much slices use of what they may send.
    Status(StatusArguments),
    /// Removes every program, map, device, rule and route of ours from this host.
    Uninstall(UninstallArguments),
    /// Prints a reference page in Markdown.
    #[command(hide = true)]
    Reference(ReferenceArguments),
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct AgentArguments {
    #[command(flatten)]
    pub config: ConfigArgument,
    #[command(flatten)]
    pub bpffs: BpffsArgument,
    #[command(flatten)]
    pub state_dir: StateDirArgument,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:9464")]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub ebpf_object: EbpfObjectArgument,
    /// How log lines look.
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Messages of the kernel programs in the log, for debugging; `off` costs nothing.
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "off")]
    pub bpf_log: BpfLog,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CheckArguments {
    #[command(flatten)]
    pub config: ConfigArgument,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct PlanArguments {
    #[command(flatten)]
    pub config: ConfigArgument,
    #[command(flatten)]
    pub bpffs: BpffsArgument,
    #[command(flatten)]
    pub ebpf_object: EbpfObjectArgument,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct StatusArguments {
    /// Where the agent serves /metrics.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9464")]
    pub address: SocketAddr,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct UninstallArguments {
    #[command(flatten)]
    pub bpffs: BpffsArgument,
    #[command(flatten)]
    pub state_dir: StateDirArgument,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ReferenceArguments {
    #[arg(value_enum)]
    pub page: ReferencePage,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ConfigArgument {
    /// The configuration: a YAML file, or a folder of *.yaml files.
    #[arg(id = "config", long = "config", value_name = "FILE|DIR")]
    pub path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct BpffsArgument {
    /// The mounted BPF file system that keeps maps and programs while the agent is away.
    #[arg(
        id = "bpffs",
        long = "bpffs",
        value_name = "DIR",
        default_value = "/sys/fs/bpf"
    )]
    pub path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct StateDirArgument {
    /// Where the lock lies that keeps a second agent away.
    #[arg(
        long = "state-dir",
        value_name = "DIR",
        default_value = "/run/sliceplane"
    )]
    pub path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct EbpfObjectArgument {
    /// The kernel programs, where they are not built into this binary or others are wanted.
    #[arg(id = "ebpf-object", long = "ebpf-object", value_name = "FILE")]
    pub path: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BpfLog {
    Off,
    Debug,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReferencePage {
    DropReasons,
    Configuration,
    Metrics,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_agent_needs_a_configuration_and_nothing_else() {
        let error = Cli::try_parse_from(["slice-agent", "agent"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("--config <FILE|DIR>"), "{error}");

        let error = Cli::try_parse_from(["slice-agent", "agent", "--config", ""])
            .unwrap_err()
            .to_string();
        assert!(error.contains("a value is required"), "{error}");

        let cli = Cli::try_parse_from(["slice-agent", "agent", "--config", "/etc/slices"]).unwrap();
        let Command::Agent(arguments) = cli.command else {
            panic!("another command: {cli:?}");
        };
        assert_eq!(arguments.config.path, PathBuf::from("/etc/slices"));
        assert_eq!(arguments.bpffs.path, PathBuf::from("/sys/fs/bpf"));
        assert_eq!(arguments.state_dir.path, PathBuf::from("/run/sliceplane"));
        assert_eq!(arguments.listen.to_string(), "0.0.0.0:9464");
        assert_eq!(arguments.ebpf_object.path, None);
        assert_eq!(
            (arguments.log_format, arguments.bpf_log),
            (LogFormat::Text, BpfLog::Off)
        );
    }

    #[test]
    fn the_help_tells_what_check_does_not_check_and_hides_the_reference() {
        let mut command = Cli::command();
        let check = command
            .find_subcommand_mut("check")
            .unwrap()
            .render_long_help()
            .to_string();
        assert!(check.contains("what depends on the host"), "{check}");
        let help = command.render_long_help().to_string();
        assert!(
            help.contains("uninstall") && !help.contains("reference"),
            "{help}"
        );
    }
}
