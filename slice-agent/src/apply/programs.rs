//! The programs in the kernel: loaded once per start, then put on hooks.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow, bail};
use aya::maps::{Map, MapData, ProgramArray};
use aya::programs::{SchedClassifier, TcAttachType, Xdp, loaded_programs};
use aya::{Ebpf, EbpfLoader};
use rtnetlink::Handle;
use slice_common::layout::{CalledProgram, MAPS};

use super::maps::{Layout, Maps, check_layout, pinned_info};
use super::pins::Pins;
use super::{clsact, tcx};
use crate::capability;
use crate::image::{Attachment, Hook, Program};

/// Who comes back before us after this many moves wants to be there: no fight.
const MOVES_MAX: u32 = 2;

/// How programs get onto hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Links (Linux 6.6 and later, if configured).
    Tcx,
    /// Netlink filters.
    Clsact,
}

impl Mechanism {
    /// Asks the kernel by a query that changes nothing: without TCX it does not know the attach
    /// type. The loopback device is in every network namespace.
    pub fn probe() -> Self {
        match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
            Ok(_) => Self::Tcx,
            Err(_) => Self::Clsact,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// The levels of `aya-log` that the object is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BpfLog {
    /// The verifier removes every log call: no cost.
    Off,
    Debug,
}

impl BpfLog {
    const fn level(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Debug => 4,
        }
    }
}

/// The loaded programs. Dropping this detaches nothing: attachments belong to pins and filters.
pub struct Programs {
    ebpf: Ebpf,
    mechanism: Mechanism,
    /// The kernel's numbers of the maps that the programs use, by name.
    map_ids: BTreeMap<&'static str, u32>,
    /// How often each program was moved to the front of its hook.
    moves: BTreeMap<Attachment, u32>,
    /// Why the kernel does not take `underlay_filter`, without which everything else works.
    no_filter: Option<String>,
}

impl Programs {
    /// Loads the object; maps that are pinned (and right) are used, the others created and pinned.
    pub fn load(object: &[u8], pins: &Pins, mechanism: Mechanism, log: BpfLog) -> Result<Self> {
        let level = log.level();
        let mut loader = EbpfLoader::new();
        // Absent from an object without log calls.
        loader.override_global("AYA_LOG_LEVEL", &level, false);
        for spec in MAPS {
            loader.map_pin_path(spec.name, pins.map(spec.name));
        }
        let mut ebpf = loader.load(object).map_err(|error| {
            anyhow!(error).context("cannot load the maps of the kernel programs")
        })?;
        if let Layout::Wrong(wrong) = check_layout(pins)? {
            bail!(
                "the object with the kernel programs was built for another map layout ({}); build \
                 it together with the agent: `cargo xtask build`",
                wrong.join("; ")
            );
        }
        for program in Program::ALL {
            if program.hook() != Hook::Driver {
                load_one(&mut ebpf, program.name())?;
            }
        }
        let mut called: ProgramArray<_> =
            Map::ProgramArray(MapData::from_pin(pins.map("PROGRAMS"))?).try_into()?;
        for program in CalledProgram::ALL {
            load_one(&mut ebpf, program.name())?;
            let fd = classifier(&mut ebpf, program.name())?.fd()?;
            called
                .set(program.number(), fd, 0)
                .with_context(|| format!("cannot make {} callable", program.name()))?;
        }
        let filter = filter(&mut ebpf)?.load();
        let no_filter = filter.err().map(|error| format!("{:#}", anyhow!(error)));
        let mut map_ids = BTreeMap::new();
        for spec in MAPS {
            let info = pinned_info(&pins.map(spec.name))?;
            map_ids.extend(info.map(|info| (spec.name, info.id())));
        }
        Ok(Self {
            ebpf,
            mechanism,
            map_ids,
            moves: BTreeMap::new(),
            no_filter,
        })
    }

    /// Pins the maps of the programs again where a pin vanished or leads elsewhere; returns which.
    pub fn restore_pins(&self, pins: &Pins) -> Result<Vec<&'static str>> {
        pins.create()?;
        let mut restored = Vec::new();
        for (name, id) in &self.map_ids {
            let pin = pins.map(name);
            if pinned_info(&pin)?.is_some_and(|info| info.id() == *id) {
                continue;
            }
            let Some(map) = self.ebpf.map(name) else {
                bail!("the pin of the map {name} is gone, and the map as well; restart the agent");
            };
            tcx::remove(&pin)?;
            map.pin(&pin)
                .with_context(|| format!("cannot pin the map {name} as {}", pin.display()))?;
            restored.push(*name);
        }
        Ok(restored)
    }

    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// For the reader of the programs' log, which is a map of the object.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Gives every pinned link or filter that uses our maps the program loaded now.
    pub async fn adopt(&mut self, netlink: &Handle, pins: &Pins) -> Result<usize> {
        let mut adopted = 0;
        for at in attachments(self.mechanism, netlink, pins, &interfaces()?).await? {
            let done = self.attach(netlink, pins, &at).await;
            match (at.program.hook(), done) {
                // It goes on with the program that it has, on the same maps.
                (Hook::Driver, Err(error)) => tracing::warn!("{error:#}"),
                (_, done) => done?,
            }
            adopted += 1;
        }
        Ok(adopted)
    }

    /// Puts a program on its hook, in place of an older one.
    pub async fn attach(&mut self, netlink: &Handle, pins: &Pins, at: &Attachment) -> Result<()> {
        let (mechanism, ebpf) = (self.mechanism, &mut self.ebpf);
        let done = match (at.program.hook(), mechanism) {
            (Hook::Driver, _) => match &self.no_filter {
                None => tcx::attach(filter(ebpf)?, pins, at),
                Some(why) => Err(anyhow!("{why}").context("this kernel does not take the program")),
            },
            (_, Mechanism::Tcx) => tcx::attach(classifier(ebpf, at.program.name())?, pins, at),
            (_, Mechanism::Clsact) => {
                clsact::attach(netlink, pins, classifier(ebpf, at.program.name())?, at).await
            }
        };
        done.with_context(|| {
            format!(
                "cannot attach {} to {} (#{})",
                at.program.name(),
                at.interface,
                at.ifindex
            )
        })
    }

    /// Puts our programs before those of others where that can be done without a gap; a sentence for
    /// each hook where others stay in front, from where they may take or change slice packets.
    pub async fn stand_first(
        &mut self,
        netlink: &Handle,
        pins: &Pins,
        attached: &BTreeSet<Attachment>,
    ) -> Vec<String> {
        self.moves.retain(|at, _| attached.contains(at));
        let mut preceded = Vec::new();
        let shared = |at: &&Attachment| at.program.hook() != Hook::Driver;
        for at in attached.iter().filter(shared) {
            match self.stand_first_at(netlink, pins, at).await {
                Ok(before) if before.is_empty() => {}
                Ok(before) => preceded.push(format!("{} by {}", shown(at), before.join(", "))),
                // The device may be gone by now; if not, the next look tries again.
                Err(error) => {
                    tracing::warn!("cannot see who comes first for {}: {error:#}", shown(at));
                }
            }
        }
        preceded
    }

    /// Who is before us in the end.
    async fn stand_first_at(
        &mut self,
        netlink: &Handle,
        pins: &Pins,
        at: &Attachment,
    ) -> Result<Vec<String>> {
        if self.mechanism == Mechanism::Clsact {
            return clsact::before(netlink, at).await;
        }
        let before = tcx::before(pins, at)?;
        let moves = self.moves.entry(at.clone()).or_default();
        if before.is_empty() || *moves >= MOVES_MAX {
            return Ok(before);
        }
        *moves += 1;
        let loaded = classifier(&mut self.ebpf, at.program.name())?;
        if loaded.fd().is_ok() {
            loaded.unload()?;
        }
        load_one(&mut self.ebpf, at.program.name())?;
        tcx::move_first(classifier(&mut self.ebpf, at.program.name())?, pins, at)?;
        let before = before.join(", ");
        tracing::warn!("{} came after {before}; it is first again", shown(at));
        tcx::before(pins, at)
    }

    pub async fn detach(&self, netlink: &Handle, pins: &Pins, at: &Attachment) -> Result<()> {
        let done = match (at.program.hook(), self.mechanism) {
            (Hook::Driver, _) | (_, Mechanism::Tcx) => tcx::remove(&pins.link(at)),
            (_, Mechanism::Clsact) => clsact::detach(netlink, pins, at).await,
        };
        done.with_context(|| {
            format!(
                "cannot detach {} from {} (#{})",
                at.program.name(),
                at.interface,
                at.ifindex
            )
        })
    }
}

/// Where our programs are attached: those of our names that use the pinned maps.
pub async fn attachments(
    mechanism: Mechanism,
    netlink: &Handle,
    pins: &Pins,
    interfaces: &BTreeSet<(u32, String)>,
) -> Result<BTreeSet<Attachment>> {
    let ours = programs_on(&Maps::new(pins.clone()).ids()?)?;
    let mut found = linked_attachments(pins, &ours)?;
    if mechanism == Mechanism::Clsact {
        found.retain(|at| at.program.hook() == Hook::Driver);
        found.extend(clsact_attachments(netlink, &ours, interfaces).await?);
    }
    Ok(found)
}

/// A pin's name is only a claim: whoever may write it may give its link another program.
fn linked_attachments(pins: &Pins, ours: &BTreeMap<u32, String>) -> Result<BTreeSet<Attachment>> {
    let mut found = BTreeSet::new();
    for (pin, at) in pins.pinned_links()? {
        let facts = tcx::facts(&pin)?;
        if let Some((at, facts)) = at.zip(facts)
            && facts.is_at(&at)
            && ours
                .get(&facts.program_id)
                .is_some_and(|name| has_name(name, at.program))
        {
            found.insert(at);
        }
    }
    Ok(found)
}

/// The kernel keeps 15 characters of a name (BPF_OBJ_NAME_LEN in include/uapi/linux/bpf.h).
fn has_name(name: &str, program: Program) -> bool {
    name.len() == program.name().len().min(15) && program.name().starts_with(name)
}

async fn clsact_attachments(
    netlink: &Handle,
    ours: &BTreeMap<u32, String>,
    interfaces: &BTreeSet<(u32, String)>,
) -> Result<BTreeSet<Attachment>> {
    let mut found = BTreeSet::new();
    for (ifindex, interface) in interfaces {
        for filter in clsact::filters(netlink, *ifindex).await? {
            if ours.contains_key(&filter.program_id) {
                let (ifindex, interface) = (*ifindex, interface.clone());
                found.insert(Attachment {
                    interface,
                    ifindex,
                    program: filter.program,
                });
            }
        }
    }
    Ok(found)
}

/// The programs that use one of these maps: names by the kernel's numbers.
fn programs_on(maps: &[u32]) -> Result<BTreeMap<u32, String>> {
    let mut found = BTreeMap::new();
    for program in loaded_programs() {
        // A program may end while the list is read.
        let Ok(program) = program else { continue };
        let Ok(Some(used)) = program.map_ids() else {
            continue;
        };
        if used.iter().any(|id| maps.contains(id)) {
            let name = String::from_utf8_lossy(program.name()).into_owned();
            found.insert(program.id(), name);
        }
    }
    Ok(found)
}

fn shown(at: &Attachment) -> String {
    let hook = match at.program.hook() {
        Hook::Ingress => "ingress",
        Hook::Egress => "egress",
        Hook::Driver => "driver",
    };
    format!("{} on the {hook} of {}", at.program.name(), at.interface)
}

/// Number and name of every interface here.
pub fn interfaces() -> Result<BTreeSet<(u32, String)>> {
    let list = nix::net::if_::if_nameindex().context("cannot list the interfaces of this host")?;
    Ok(list
        .iter()
        .map(|interface| {
            (
                interface.index(),
                interface.name().to_string_lossy().into_owned(),
            )
        })
        .collect())
}

fn load_one(ebpf: &mut Ebpf, program: &str) -> Result<()> {
    let loaded = classifier(ebpf, program)?.load();
    loaded.map_err(|error| {
        let missing = capability::missing_features();
        let hint = match missing.as_slice() {
            [] => "the verifier refused it; its last words are below".to_owned(),
            missing => format!("this kernel lacks: {}", missing.join(", ")),
        };
        anyhow!(error).context(format!("cannot load the program {program}: {hint}"))
    })
}

fn classifier<'a>(ebpf: &'a mut Ebpf, program: &str) -> Result<&'a mut SchedClassifier> {
    found(ebpf, program)?
        .try_into()
        .with_context(|| format!("{program} is not a traffic-control program"))
}

fn filter(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = Program::UnderlayFilter.name();
    found(ebpf, program)?
        .try_into()
        .with_context(|| format!("{program} is not an XDP program"))
}

fn found<'a>(ebpf: &'a mut Ebpf, program: &str) -> Result<&'a mut aya::programs::Program> {
    let Some(found) = ebpf.program_mut(program) else {
        bail!(
            "the object with the kernel programs has no {program}; build it together with the \
             agent: `cargo xtask build`"
        );
    };
    Ok(found)
}
