//! Cluster metadata and topic creation over Kafka's wire protocol.
//!
//! The client library hides in-sync replicas and cannot place leaders; the two requests that can
//! are small: Metadata version 4 (key 3) and CreateTopics version 2 (key 19).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

const METADATA: (i16, i16) = (3, 4);
const CREATE_TOPICS: (i16, i16) = (19, 2);
const CORRELATION_ID: i32 = 1;
/// The broker answers both requests at once, or after it has asked the controller.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);
const LARGEST_ANSWER_BYTES: usize = 16 << 20;

/// What a broker knows of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClusterMetadata {
    /// `(id, name, rack)` of each live broker.
    pub brokers: Vec<(i32, String, String)>,
    /// All partitions of all topics, internal ones included.
    pub partitions: Vec<PartitionState>,
}

/// One partition's replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionState {
    pub topic: String,
    pub partition: i32,
    /// -1: there is none.
    pub leader: i32,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
}

impl PartitionState {
    /// True if it has a leader and every replica is in sync.
    pub fn is_whole(&self) -> bool {
        self.leader >= 0 && self.in_sync.len() == self.replicas.len()
    }
}

/// A topic to be created.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: i32,
    pub replication_factor: i16,
    /// Brokers of each partition, the preferred leader first; replaces the two counts above.
    pub placement: Option<Vec<Vec<i32>>>,
}

impl TopicSpec {
    /// A topic with three replicas of each partition, placed by the cluster.
    pub fn replicated(name: &str, partitions: i32) -> Self {
        Self {
            name: name.to_owned(),
            partitions,
            replication_factor: 3,
            placement: None,
        }
    }
}

/// Asks the broker on this host; call it inside the broker's network namespace.
pub(super) fn metadata(port: u16) -> Result<ClusterMetadata> {
    let mut body = Vec::new();
    put_i32(&mut body, -1); // all topics
    body.push(0); // create none
    parse_metadata(&exchange(port, METADATA, &body)?).context("Kafka metadata answer")
}

/// Creates the topic; one that exists is an error.
pub(super) fn create_topic(port: u16, spec: &TopicSpec) -> Result<()> {
    let answer = exchange(port, CREATE_TOPICS, &create_topic_body(spec))?;
    let mut reader = Reader(&answer);
    let _throttle = reader.i32()?;
    ensure!(
        reader.i32()? == 1,
        "Kafka answered for another number of topics than one"
    );
    let name = reader.string()?.unwrap_or_default();
    match (reader.i16()?, reader.string()?) {
        (0, _) => Ok(()),
        (code, message) => bail!(
            "Kafka topic {name:?}: not created, error {code}: {}",
            message.as_deref().unwrap_or("no message")
        ),
    }
}

fn create_topic_body(spec: &TopicSpec) -> Vec<u8> {
    let mut body = Vec::new();
    put_i32(&mut body, 1);
    put_string(&mut body, &spec.name);
    let placement = spec.placement.as_deref().unwrap_or_default();
    // With a placement both counts must be -1.
    let (partitions, replicas) = match placement {
        [] => (spec.partitions, spec.replication_factor),
        _ => (-1, -1),
    };
    put_i32(&mut body, partitions);
    body.extend(replicas.to_be_bytes());
    put_i32(&mut body, placement.len() as i32);
    for (partition, brokers) in placement.iter().enumerate() {
        put_i32(&mut body, partition as i32);
        put_i32(&mut body, brokers.len() as i32);
        for broker in brokers {
            put_i32(&mut body, *broker);
        }
    }
    put_i32(&mut body, 0); // no settings: the brokers' defaults hold
    put_i32(&mut body, REQUEST_LIMIT.as_millis() as i32);
    body.push(0); // not only a validation
    body
}

fn parse_metadata(answer: &[u8]) -> Result<ClusterMetadata> {
    let mut reader = Reader(answer);
    let mut metadata = ClusterMetadata::default();
    let _throttle = reader.i32()?;
    for _ in 0..reader.i32()? {
        let (id, name, _port) = (reader.i32()?, reader.string()?, reader.i32()?);
        let rack = reader.string()?;
        metadata
            .brokers
            .push((id, name.unwrap_or_default(), rack.unwrap_or_default()));
    }
    let _cluster_id = reader.string()?;
    let _controller = reader.i32()?;
    for _ in 0..reader.i32()? {
        let _error = reader.i16()?;
        let topic = reader.string()?.unwrap_or_default();
        let _internal = reader.take(1)?;
        for _ in 0..reader.i32()? {
            // The error only repeats what leader and replicas say.
            let _error = reader.i16()?;
            metadata.partitions.push(PartitionState {
                topic: topic.clone(),
                partition: reader.i32()?,
                leader: reader.i32()?,
                replicas: reader.i32_list()?,
                in_sync: reader.i32_list()?,
            });
        }
    }
    Ok(metadata)
}

/// One request, one answer (without length and correlation id).
fn exchange(port: u16, (key, version): (i16, i16), body: &[u8]) -> Result<Vec<u8>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, REQUEST_LIMIT)
        .with_context(|| format!("Kafka broker at {address}"))?;
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    stream.set_write_timeout(Some(REQUEST_LIMIT))?;
    let mut request = Vec::new();
    request.extend(key.to_be_bytes());
    request.extend(version.to_be_bytes());
    put_i32(&mut request, CORRELATION_ID);
    put_string(&mut request, "slice-lab");
    request.extend(body);
    stream.write_all(&(request.len() as i32).to_be_bytes())?;
    stream.write_all(&request)?;

    let mut length = [0; 4];
    stream
        .read_exact(&mut length)
        .context("Kafka broker closed the connection")?;
    let length = u32::from_be_bytes(length) as usize;
    ensure!(
        (4..=LARGEST_ANSWER_BYTES).contains(&length),
        "Kafka answer of {length} bytes: expected 4 to {LARGEST_ANSWER_BYTES}"
    );
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer.split_off(4))
}

fn put_i32(buffer: &mut Vec<u8>, value: i32) {
    buffer.extend(value.to_be_bytes());
}

fn put_string(buffer: &mut Vec<u8>, text: &str) {
    buffer.extend((text.len() as i16).to_be_bytes());
    buffer.extend(text.as_bytes());
}

/// Reads big-endian fields; every read past the end is an error.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self
            .0
            .split_at_checked(count)
            .context("the answer ends too early")?;
        self.0 = rest;
        Ok(head)
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    /// A length of -1 is "none".
    fn string(&mut self) -> Result<Option<String>> {
        match usize::try_from(self.i16()?) {
            Ok(length) => Ok(Some(
                String::from_utf8_lossy(self.take(length)?).into_owned(),
            )),
            Err(_) => Ok(None),
        }
    }

    fn i32_list(&mut self) -> Result<Vec<i32>> {
        (0..self.i32()?).map(|_| self.i32()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_with(leader: i32, in_sync: &[i32]) -> Vec<u8> {
        let mut answer = Vec::new();
        put_i32(&mut answer, 0); // throttle
        put_i32(&mut answer, 1); // brokers
        put_i32(&mut answer, 2);
        put_string(&mut answer, "kafka-2");
        put_i32(&mut answer, 9092);
        put_string(&mut answer, "edge");
        answer.extend((-1i16).to_be_bytes()); // no cluster id
        put_i32(&mut answer, 2); // controller
        put_i32(&mut answer, 1); // topics
        answer.extend(0i16.to_be_bytes());
        put_string(&mut answer, "orders");
        answer.push(0);
        put_i32(&mut answer, 1); // partitions
        answer.extend(0i16.to_be_bytes());
        put_i32(&mut answer, 0);
        put_i32(&mut answer, leader);
        for list in [&[0, 1, 2][..], in_sync] {
            put_i32(&mut answer, list.len() as i32);
            list.iter().for_each(|id| put_i32(&mut answer, *id));
        }
        answer
    }

    #[test]
    fn metadata_tells_the_leader_and_who_is_in_sync() {
        let metadata = parse_metadata(&answer_with(1, &[1, 2])).unwrap();
        assert_eq!(
            metadata.brokers,
            [(2, "kafka-2".to_owned(), "edge".to_owned())]
        );
        let partition = &metadata.partitions[0];
        assert_eq!((partition.topic.as_str(), partition.leader), ("orders", 1));
        assert_eq!(partition.in_sync, [1, 2]);
        assert!(!partition.is_whole(), "broker 0 is missing");
    }

    #[test]
    fn a_partition_is_whole_only_with_a_leader_and_all_replicas() {
        let whole = |leader, in_sync: &[i32]| {
            parse_metadata(&answer_with(leader, in_sync))
                .unwrap()
                .partitions[0]
                .is_whole()
        };
        assert!(whole(0, &[0, 1, 2]));
        assert!(!whole(-1, &[0, 1, 2]));
    }

    #[test]
    fn an_answer_cut_anywhere_is_an_error_and_no_panic() {
        let answer = answer_with(0, &[0, 1, 2]);
        for length in 0..answer.len() {
            assert!(
                parse_metadata(&answer[..length]).is_err(),
                "cut at {length}"
            );
        }
    }

    #[test]
    fn a_placement_replaces_both_counts() {
        let mut spec = TopicSpec::replicated("t", 6);
        let counts = |spec: &TopicSpec| {
            let body = create_topic_body(spec);
            let mut reader = Reader(&body[4 + 2 + 1..]);
            (
                reader.i32().unwrap(),
                reader.i16().unwrap(),
                reader.i32().unwrap(),
            )
        };
        assert_eq!(counts(&spec), (6, 3, 0));
        spec.placement = Some(vec![vec![1, 0, 2], vec![2, 0, 1]]);
        assert_eq!(counts(&spec), (-1, -1, 2));
    }
}
