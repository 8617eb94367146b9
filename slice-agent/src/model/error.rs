//! What can be wrong with a configuration, each with the object, the value and the remedy.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::qos::QosProblem;

/// One mistake and its place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", on_one_line(.place, .problem))]
pub struct ConfigError {
    pub place: Place,
    pub problem: Box<Problem>,
}

/// Where in the configuration something stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    /// Counts from 1 within the file; 0 means the file as a whole.
    pub document: usize,
    /// Counts from 1; 0 where the line is not known.
    pub line: usize,
    /// `Node east/east-1`, `Slice kafka`; empty where it is not known.
    pub object: Arc<str>,
    /// `peers[0].underlay`; empty for the object as a whole.
    pub field: String,
}

/// Prints all mistakes, one a line, for a person.
pub fn render(errors: &[ConfigError]) -> String {
    errors.iter().map(|error| format!("{error}\n")).collect()
}

/// Names and values come from files: what moves a terminal's cursor, turns its text round or starts a log line of its
/// own is written as an escape, and of what is too long for anybody only both ends.
fn on_one_line(place: &Place, problem: &Problem) -> String {
    let letters: Vec<char> = format!("{place}: {problem}").chars().collect();
    let mut line = String::new();
    for (at, letter) in letters.iter().enumerate() {
        if at >= LINE_HEAD && at + LINE_TAIL < letters.len() {
            continue;
        }
        if at + LINE_TAIL == letters.len() && at > LINE_HEAD {
            line.push_str(" [...] ");
        }
        match letter.is_control() || is_unseen(*letter) {
            true => line.extend(letter.escape_default()),
            false => line.push(*letter),
        }
    }
    line
}

/// Letters of a line that are shown in any case: of its beginning, and of its end, where the remedy is.
const LINE_HEAD: usize = 2000;
const LINE_TAIL: usize = 500;

/// Formats of Unicode that are not seen themselves: widths, joiners, directions, the byte order mark.
const fn is_unseen(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

impl Place {
    pub fn of_file(file: &str) -> Self {
        Self {
            file: file.into(),
            ..Self::default()
        }
    }

    /// The place of `field` inside this one.
    pub fn field(&self, field: impl fmt::Display) -> Self {
        let mut place = self.clone();
        place.field = match self.field.as_str() {
            "" => field.to_string(),
            outer => format!("{outer}.{field}"),
        };
        place
    }

    /// The place of the element `index` (from 0) of the list `field` inside this one.
    pub fn item(&self, field: &str, index: usize) -> Self {
        self.field(format_args!("{field}[{index}]"))
    }

    pub fn error(&self, problem: Problem) -> ConfigError {
        ConfigError {
            place: self.clone(),
            problem: Box::new(problem),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.document > 0 {
            write!(f, ", document {}", self.document)?;
        }
        if self.line > 0 {
            write!(f, ", line {}", self.line)?;
        }
        if !self.object.is_empty() {
            write!(f, ", {}", self.object)?;
        }
        if !self.field.is_empty() {
            write!(f, ", {}", self.field)?;
        }
        Ok(())
    }
}

/// What is wrong, what was expected, what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    // Files and YAML.
    #[error("cannot be read ({0}); check that the path exists and may be read")]
    Unreadable(String),
    #[error("has {bytes} bytes or more, the limit is {limit}; is it a configuration file?")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("is {0}; a regular file with YAML in it is expected, or a link to one")]
    NotAFile(&'static str),
    #[error(
        "the folder holds more than {limit} *.yaml and *.yml files; join files, or is it another \
         folder?"
    )]
    TooManyFiles { limit: usize },
    #[error(
        "lists and maps are nested deeper than {limit} levels, which no field needs; check brackets \
         and indentation there"
    )]
    TooDeep { limit: usize },
    #[error(
        "the configuration holds more than {limit} values here, aliases written out; use fewer \
         aliases, or split it over nodes"
    )]
    TooManyValues { limit: usize },
    #[error("the alias `*{0}` stands inside what it repeats; write the value out")]
    AliasOfItself(String),
    #[error("`%TAG` is not supported; remove it, no field needs a tag")]
    TagDirective,
    #[error("the folder holds no *.yaml or *.yml file; put a Node document and its slices there")]
    NoFiles,
    #[error("holds no document; write a document of kind Node and one of kind Slice per slice")]
    Empty,
    #[error("is not text in UTF-8 (first bad byte at offset {offset}); is it a YAML file?")]
    NotText { offset: usize },
    #[error("is text in UTF-16; save it as UTF-8")]
    Utf16,
    #[error(
        "has a zero byte at offset {offset}, which no YAML has; save it as UTF-8 text, if it is \
         text in UTF-16 or UTF-32"
    )]
    ZeroByte { offset: usize },
    #[error("is not YAML: {0}; check indentation, quotes and colons there")]
    NotYaml(String),
    #[error("the document has no `kind`; write `kind: Node` or `kind: Slice` first")]
    NoKind,
    #[error("the kind `{0}` is unknown; write `kind: Node` or `kind: Slice`")]
    UnknownKind(String),
    #[error("{0}; see the configuration reference for the fields and their types")]
    Shape(String),
    #[error("nothing would enforce this; {0}")]
    NotEnforced(&'static str),
    #[error("`{value}` is not supported yet, so nothing would enforce it; {remedy}")]
    NotYet { value: String, remedy: &'static str },
    #[error("{0}; remove one of the two")]
    KeyTwice(String),

    // Which documents there are.
    #[error("no document of kind Node; one describes this host (cluster, name, underlay, ...)")]
    NoNode,
    #[error("a second document of kind Node, the first is {first}; keep the one of this host")]
    SecondNode { first: String },
    #[error(
        "no document of kind Slice has the name `{name}`{}; add it, or correct the name",
        in_places(*.count)
    )]
    UnknownSlice { name: String, count: usize },

    // Single values.
    #[error(
        "`{value}` is not a name: 1 to {max_bytes} of a-z, 0-9, `-`{dot}, a letter or digit at \
         both ends"
    )]
    BadName {
        value: String,
        max_bytes: usize,
        dot: &'static str,
    },
    #[error(
        "`{0}` is not the key of a label: 1 to 63 of a-z, A-Z, 0-9, `-`, `_` and `.`, a letter or digit at both \
         ends; before that there may be a domain and `/`, as in example.com/role"
    )]
    BadLabelKey(String),
    #[error(
        "`{0}` is not the value of a label: up to 63 of a-z, A-Z, 0-9, `-`, `_` and `.`, a letter or digit at both \
         ends"
    )]
    BadLabelValue(String),
    #[error("`{0}` is not an interface name: 1 to 15 bytes without blanks, `/` and `:`")]
    BadInterfaceName(String),
    #[error("`{0}` is not an IPv4 address; write four numbers from 0 to 255, as in 10.77.0.2")]
    NotAnAddress(String),
    #[error("`{0}` is not the address of one host; give a unicast address, as in 192.0.2.11")]
    NotAHostAddress(String),
    #[error("`{0}` is not an IPv4 prefix; write address/length, as in 10.77.0.0/29")]
    NotAPrefix(String),
    #[error("`{value}` has bits set behind its length; write `{network}`")]
    HostBits { value: String, network: String },
    #[error("`{value}` is out of range; {what} is {min} to {max}")]
    OutOfRange {
        what: &'static str,
        value: String,
        min: u64,
        max: u64,
    },
    #[error("`{0}` is not a port; write a number (9092) or a range (9090-9092), 1 to 65535")]
    NotAPort(String),
    #[error("`{value}` runs backwards; write `{swapped}`")]
    ReversedPorts { value: String, swapped: String },
    #[error("`{value}` is unknown; {what} is {choices}")]
    UnknownValue {
        what: &'static str,
        value: String,
        choices: &'static str,
    },
    #[error("the list is empty; {0}")]
    EmptyList(&'static str),
    #[error("ICMP has no ports, but `{0}` is given; remove `port`")]
    PortOfIcmp(String),
    #[error("`*` already means every namespace; write it alone, or list the namespaces")]
    StarAndOthers,

    // Slices.
    #[error("mode Mapped needs the slice's addresses; add `ranges`, as in [10.77.0.0/16]")]
    NoRanges,
    #[error("mode Native uses the pods' own addresses; remove `ranges`")]
    RangesInNative,
    #[error(
        "`{0}` is no range for a slice: length 8 to 30, and not in 0.0.0.0/8, 127.0.0.0/8, \
         169.254.0.0/16 or 224.0.0.0/3"
    )]
    UnusableRange(String),
    #[error(
        "no encryption is built yet, so mode must be None, not `{0}`; write `encryption: \
         {{mode: None}}` and `acceptPlaintext: true` if clear text will do"
    )]
    Encryption(String),
    #[error(
        "nothing says whether traffic is encrypted; write `encryption: {{mode: None}}`, the \
         only mode yet, if clear text will do"
    )]
    NoEncryption,
    #[error("slice traffic is not encrypted; write `acceptPlaintext: true` to accept that")]
    PlaintextNotAccepted,
    #[error(transparent)]
    Qos(Box<QosProblem>),
    #[error("{count} classes, but at most 7 fit beside the default class; remove some")]
    TooManyClasses { count: usize },
    #[error("{what} is also matched at {first}; a packet is of one class, so remove one match")]
    ClassOverlap { what: String, first: String },

    // Several values.
    #[error("the {what} `{value}` is already used at {first}; each needs its own")]
    Duplicate {
        what: &'static str,
        value: String,
        first: String,
    },
    #[error(transparent)]
    Overlap(Box<Overlap>),
    #[error(
        "{prefix} lies outside the ranges of slice {slice} ({ranges}); cut it from one of them"
    )]
    BlockOutsideRanges {
        prefix: String,
        slice: String,
        ranges: String,
    },
    #[error(
        "{prefix} is a block of the Native slice {slice}, where a block is one pod's address; \
         write one /32 for each pod"
    )]
    NativeBlockLength { prefix: String, slice: String },
    #[error(
        "`{slice_address}` differs from the pod address `{address}`; in the Native slice \
         {slice} they are the same"
    )]
    NativeAddress {
        slice_address: String,
        address: String,
        slice: String,
    },
    #[error(
        "{holder} has no block of {owner}, so no address for this endpoint; add one to its `blocks`"
    )]
    NoBlock { holder: String, owner: String },
    #[error(
        "`{address}` lies outside the blocks of {owner} that {holder} has ({blocks}); take an \
         address from one of them"
    )]
    AddressOutsideBlocks {
        address: String,
        owner: String,
        holder: String,
        blocks: String,
    },
    #[error("`{address}` lies in {prefix} of {owner}; {remedy}")]
    AddressInSlice {
        address: String,
        prefix: String,
        owner: String,
        remedy: &'static str,
    },
    #[error("`{0}` is this node's own; a peer is another node")]
    PeerIsSelf(String),
    #[error(
        "`{0}` is this node's own cluster, whose nodes reach each other directly; list its nodes and \
         their blocks in `peers`"
    )]
    RemoteIsOwnCluster(String),
    #[error(
        "no peer is called `{name}`; add it to `peers`, or name one of them as cluster/name: {peers}"
    )]
    UnknownGateway { name: String, peers: String },
    #[error(
        "`{0}` is of another cluster; only a gateway of this node's own cluster takes over what this \
         node cannot send, so remove `fellow`"
    )]
    FellowOfOtherCluster(String),
    #[error(
        "this node is no gateway, so it has no fellow gateways; set `gateway: true` or remove `fellow`"
    )]
    FellowOfNoGateway,
    #[error(
        "{gateways} are fellows of this gateway, which take over what it cannot send and do not pass that on to \
         others; name gateways of another cluster"
    )]
    OnlyFellows { gateways: String },
    #[error(
        "this node has no blocks of its own and names gateways of another cluster, so it is a gateway; write \
         `gateway: true`"
    )]
    GatewayUnsaid,
    #[error(
        "this node is no gateway, so what it sends goes to gateways of cluster {gateway_cluster} itself, and must be \
         expected there (as a peer with its blocks); if cluster {gateway_cluster} expects gateways of this cluster, \
         name those, and if this node is one write `gateway: true`"
    )]
    GatewaysElsewhere { gateway_cluster: String },
    #[error(
        "no block of slice {slice} that this node knows is of namespace `{namespace}`, so the {what} is for nobody there; \
         correct the name (there are {known}), or list the blocks"
    )]
    NamespaceNowhere {
        what: &'static str,
        namespace: String,
        slice: String,
        known: String,
    },
    #[error(
        "{count} gateways and fellows, but a packet can choose among {limit} at most; remove some"
    )]
    TooManyWays { count: usize, limit: usize },
    #[error("{count} gateways, but a packet can choose among {limit} at most; remove some")]
    TooManyGateways { count: usize, limit: usize },
    #[error(
        "`{gateway}` belongs to another cluster than `{first}`; the gateways of one entry are of one \
         cluster, so make two entries with blocks of their own"
    )]
    GatewaysOfTwoClusters { gateway: String, first: String },
    #[error("`{0}` is the underlay's interface; give the host side of the pod's veth pair")]
    EndpointOnUnderlay(String),
    #[error(
        "the {what} names `{first}` and `{second}` hash to the same number {number}; rename \
         one of them"
    )]
    HashCollision {
        what: &'static str,
        first: String,
        second: String,
        number: u32,
    },

    // The host.
    #[error("this host has no interface `{name}`; it has {existing}")]
    NoInterface { name: String, existing: String },
    #[error(
        "`{name}` is {kind}, not a veth; only pods behind a veth pair can be attached, so give \
         the host side of the pod's pair"
    )]
    NotAVeth { name: String, kind: String },
    #[error(
        "packets of `{0}` have no Ethernet header, which our programs read; give an Ethernet interface"
    )]
    NotEthernet(String),
    #[error("interface {interface} does not have the address `{address}`; it has {existing}")]
    AddressNotOnInterface {
        address: String,
        interface: String,
        existing: String,
    },
    #[error(
        "the range {range} overlaps {network}, a network that this host already routes; choose \
         another range for the slice, or take that network off this host"
    )]
    RangeIsLocal { range: String, network: String },
    #[error(
        "the routing {0} of this host notices the mark of our tunnel packets, and there is no mark that no rule \
         notices: packets to peers behind a router go where it says; give the host's rules masks that leave one bit \
         free (`ip rule show`)"
    )]
    MarkNoticed(String),
    #[error(
        "this host has {count} addresses and our programs know {limit} at most; not known are {left_out}, from \
         which nobody reaches guarded pods: take addresses off interfaces that pods have nothing to do with"
    )]
    TooManyNodeAddresses {
        count: usize,
        limit: usize,
        left_out: String,
    },
    #[error(
        "interface {interface} has an MTU of {mtu_bytes} bytes; the underlay needs 576 or more"
    )]
    SmallMtu { interface: String, mtu_bytes: u32 },

    // The kernel's tables.
    #[error(
        "the policy needs {count} entries and the limit is {limit}; rule `{rule}` of slice \
         {slice} alone needs {of_rule}: name fewer namespaces or ports in it"
    )]
    PolicyTooLarge {
        rule: String,
        slice: String,
        of_rule: usize,
        count: usize,
        limit: usize,
    },
    #[error("{count} {what}, the limit is {limit}; use fewer or larger ones")]
    TooMany {
        what: &'static str,
        count: usize,
        limit: usize,
    },
}

fn in_places(count: usize) -> String {
    match count {
        1 => String::new(),
        _ => format!(", which {count} places give, this one first"),
    }
}

impl From<QosProblem> for Problem {
    fn from(problem: QosProblem) -> Self {
        Self::Qos(Box::new(problem))
    }
}

/// Two prefixes that share addresses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{prefix} of {owner} overlaps {other_prefix} of {other} at {first}; {remedy}")]
pub struct Overlap {
    pub prefix: String,
    pub owner: String,
    pub other_prefix: String,
    pub other: String,
    pub first: String,
    pub remedy: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> String {
        let problem = Problem::UnknownKind(value.to_owned());
        Place::of_file("node.yaml").error(problem).to_string()
    }

    #[test]
    fn what_a_terminal_would_not_show_as_it_stands_is_escaped() {
        let text = shown("N\u{202e}\u{feff}\u{1b}[2J\no");
        assert_eq!(
            text,
            "node.yaml: the kind `N\\u{202e}\\u{feff}\\u{1b}[2J\\no` is unknown; write `kind: Node` or `kind: Slice`"
        );
    }

    #[test]
    fn of_what_is_too_long_both_ends_are_shown() {
        assert!(!shown(&"n".repeat(2000)).contains("[...]"));
        let text = shown(&"n".repeat(3_000_000));
        assert_eq!(
            text.chars().count(),
            LINE_HEAD + " [...] ".len() + LINE_TAIL
        );
        assert!(text.starts_with("node.yaml: the kind `nnn"), "{text}");
        assert!(
            text.ends_with("nnn` is unknown; write `kind: Node` or `kind: Slice`"),
            "{text}"
        );
    }
}
