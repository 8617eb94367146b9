//! Single values: text in, sound value or a problem out.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::error::Problem;
use super::unchecked::{PortText, TrafficFields};
use super::validated::{Protocol, Traffic};

/// The longest name of a cluster, slice, namespace, rule or class (RFC 1123 label), and the longest name or value
/// of a Kubernetes label.
const LABEL_BYTES_MAX: usize = 63;
/// The longest name of a node or pod (RFC 1123 subdomain).
const SUBDOMAIN_BYTES_MAX: usize = 253;
/// `IFNAMSIZ` without the closing zero.
const INTERFACE_BYTES_MAX: usize = 15;

pub(super) fn label(value: &str) -> Result<String, Problem> {
    name(value, LABEL_BYTES_MAX, "")
}

pub(super) fn subdomain(value: &str) -> Result<String, Problem> {
    name(value, SUBDOMAIN_BYTES_MAX, " and `.`")
}

fn name(value: &str, max_bytes: usize, dot: &'static str) -> Result<String, Problem> {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = |byte: &u8| plain(byte) || *byte == b'-' || (*byte == b'.' && !dot.is_empty());
    let bytes = value.as_bytes();
    let sound = bytes.len() <= max_bytes
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes.iter().all(inner);
    if sound {
        Ok(value.to_owned())
    } else {
        Err(Problem::BadName {
            value: value.to_owned(),
            max_bytes,
            dot,
        })
    }
}

/// The key of a Kubernetes label: a name, which may stand behind a prefix and a slash.
pub(super) fn label_key(value: &str) -> Result<String, Problem> {
    let (prefix, name) = match value.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, value),
    };
    let sound = !name.is_empty() && is_label_text(name);
    if sound && prefix.is_none_or(|prefix| subdomain(prefix).is_ok()) {
        Ok(value.to_owned())
    } else {
        Err(Problem::BadLabelKey(value.to_owned()))
    }
}

/// The value of a Kubernetes label, which may be empty.
pub(super) fn label_value(value: &str) -> Result<String, Problem> {
    if is_label_text(value) {
        Ok(value.to_owned())
    } else {
        Err(Problem::BadLabelValue(value.to_owned()))
    }
}

fn is_label_text(text: &str) -> bool {
    let ends = |byte: &u8| byte.is_ascii_alphanumeric();
    let inner = |byte: &u8| ends(byte) || b"-_.".contains(byte);
    let bytes = text.as_bytes();
    bytes.len() <= LABEL_BYTES_MAX
        && bytes.first().is_none_or(ends)
        && bytes.last().is_none_or(ends)
        && bytes.iter().all(inner)
}

pub(super) fn interface(value: &str) -> Result<String, Problem> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':';
    let sound = (1..=INTERFACE_BYTES_MAX).contains(&value.len())
        && !value.contains(bad)
        && value != "."
        && value != "..";
    if sound {
        Ok(value.to_owned())
    } else {
        Err(Problem::BadInterfaceName(value.to_owned()))
    }
}

/// The address of one host: not 0.0.0.0/8, loopback, multicast or above.
pub(super) fn host_address(value: &str) -> Result<Ipv4Addr, Problem> {
    let address: Ipv4Addr = value
        .parse()
        .map_err(|_| Problem::NotAnAddress(value.to_owned()))?;
    let first = address.octets()[0];
    if first == 0 || first == 127 || first >= 224 {
        return Err(Problem::NotAHostAddress(value.to_owned()));
    }
    Ok(address)
}

pub(super) fn prefix(value: &str) -> Result<Ipv4Net, Problem> {
    let net: Ipv4Net = value
        .parse()
        .map_err(|_| Problem::NotAPrefix(value.to_owned()))?;
    if net.trunc() != net {
        return Err(Problem::HostBits {
            value: value.to_owned(),
            network: net.trunc().to_string(),
        });
    }
    Ok(net)
}

/// A slice's range becomes an `unreachable` route, so it must not take the host's own traffic away.
pub(super) fn range(value: &str) -> Result<Ipv4Net, Problem> {
    let net = prefix(value)?;
    let first = net.network().octets();
    let special =
        first[0] == 0 || first[0] == 127 || first[0] >= 224 || (first[0] == 169 && first[1] == 254);
    if special || !(8..=30).contains(&net.prefix_len()) {
        return Err(Problem::UnusableRange(value.to_owned()));
    }
    Ok(net)
}

pub(super) fn number(what: &'static str, value: u64, min: u64, max: u64) -> Result<u64, Problem> {
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(Problem::OutOfRange {
            what,
            value: value.to_string(),
            min,
            max,
        })
    }
}

/// Returns the traffic, or the problem with the name of the field that has it.
pub(super) fn traffic(fields: &TrafficFields) -> Result<Traffic, (&'static str, Problem)> {
    let protocol = Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.name() == fields.protocol)
        .ok_or_else(|| {
            let value = fields.protocol.clone();
            let (what, choices) = ("a protocol", "TCP, UDP or ICMP");
            (
                "protocol",
                Problem::UnknownValue {
                    what,
                    value,
                    choices,
                },
            )
        })?;
    let (first_port, last_port) = match &fields.port {
        None => (0, u16::MAX),
        Some(port) if protocol == Protocol::Icmp => {
            return Err(("port", Problem::PortOfIcmp(port_text(port))));
        }
        Some(port) => ports(&port_text(port)).map_err(|problem| ("port", problem))?,
    };
    Ok(Traffic {
        protocol,
        first_port,
        last_port,
    })
}

pub(super) fn port_text(port: &PortText) -> String {
    match port {
        PortText::Number(number) => number.to_string(),
        PortText::Text(text) => text.clone(),
    }
}

fn ports(text: &str) -> Result<(u16, u16), Problem> {
    let wrong = || Problem::NotAPort(text.to_owned());
    let port = |part: &str| match part.trim().parse::<u16>() {
        Ok(number) if number > 0 && !part.trim().starts_with('+') => Ok(number),
        _ => Err(wrong()),
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if first > last {
        return Err(Problem::ReversedPorts {
            value: text.to_owned(),
            swapped: format!("{last}-{first}"),
        });
    }
    Ok((first, last))
}
