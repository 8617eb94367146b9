//! Loads that run, and what happens meanwhile, tenth by tenth of a second.

use std::borrow::Borrow;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::load::{Answer, ExchangeSpec, Exchanges, StreamSpec, Streams};
use super::scene::{Elsewhere, Scene};
use crate::lab::Lab;
use crate::traffic::sleep_until_ns;

pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Samples that make a second.
const WINDOW: usize = 10;

/// What was counted until a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub at_ns: u64,
    /// By the link, since it exists.
    pub wire_bytes: u64,
    /// By those who fetch, of each [`StreamSpec`] that had begun.
    pub streams_bytes: Vec<u64>,
}

/// What happened while loads ran. Times are those of the monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct Course {
    pub samples: Vec<Sample>,
    /// Of each [`ExchangeSpec`], in the order in which they came.
    pub answers: Vec<Vec<Answer>>,
}

impl Course {
    /// The link as a whole.
    pub fn wire_bps(&self, span_ns: &Range<u64>) -> f64 {
        self.rate_bps(span_ns, |sample| sample.wire_bytes)
    }

    /// What one [`StreamSpec`] brought over.
    pub fn stream_bps(&self, stream: usize, span_ns: &Range<u64>) -> f64 {
        self.rate_bps(span_ns, |sample| stream_bytes(sample, stream))
    }

    /// The most that the link carried in a second.
    pub fn wire_bps_max_1s(&self) -> f64 {
        let seconds = self.samples.windows(WINDOW + 1);
        let rates = seconds.map(|it| between_bps(&it[0], &it[WINDOW], |it| it.wire_bytes));
        rates.fold(0.0, f64::max)
    }

    /// How long the answers took to what was asked of one [`ExchangeSpec`] in that time, sorted.
    pub fn times_ns(&self, exchange: usize, span_ns: &Range<u64>) -> Vec<u64> {
        let answers = self.answers.get(exchange).into_iter().flatten();
        let asked = answers.filter(|it| span_ns.contains(&it.due_ns));
        let mut times: Vec<u64> = asked.map(|it| it.took_ns).collect();
        times.sort_unstable();
        times
    }

    /// The link's rate between each two samples, by when the later one was taken.
    pub fn wire_line(&self) -> Vec<(u64, f64)> {
        self.line(|sample| sample.wire_bytes)
    }

    /// The same of one [`StreamSpec`].
    pub fn stream_line(&self, stream: usize) -> Vec<(u64, f64)> {
        self.line(|sample| stream_bytes(sample, stream))
    }

    fn line(&self, bytes: impl Fn(&Sample) -> u64) -> Vec<(u64, f64)> {
        let pairs = self.samples.windows(2);
        pairs
            .map(|it| (it[1].at_ns, between_bps(&it[0], &it[1], &bytes)))
            .collect()
    }

    fn rate_bps(&self, span_ns: &Range<u64>, bytes: impl Fn(&Sample) -> u64) -> f64 {
        let is_within = |it: &&Sample| (span_ns.start..=span_ns.end).contains(&it.at_ns);
        let first = self.samples.iter().find(is_within);
        let last = self.samples.iter().rfind(is_within);
        first
            .zip(last)
            .map_or(0.0, |(first, last)| between_bps(first, last, bytes))
    }
}

fn stream_bytes(sample: &Sample, stream: usize) -> u64 {
    sample.streams_bytes.get(stream).copied().unwrap_or(0)
}

fn between_bps(first: &Sample, last: &Sample, bytes: impl Fn(&Sample) -> u64) -> f64 {
    let seconds = (last.at_ns - first.at_ns) as f64 / 1e9;
    match seconds > 0.0 {
        true => bytes(last).saturating_sub(bytes(first)) as f64 * 8.0 / seconds,
        false => 0.0,
    }
}

/// Loads that run in a scene.
#[derive(Debug)]
pub struct Running<'a, L: Borrow<Lab>> {
    scene: &'a Scene<L>,
    asking: Vec<Exchanges>,
    streams: Vec<Streams>,
    samples: Vec<Sample>,
}

impl<'a, L: Borrow<Lab>> Running<'a, L> {
    /// Begins to ask.
    /// # Errors  when nothing is answered.
    pub fn start(scene: &'a Scene<L>, exchanges: &[ExchangeSpec]) -> Result<Self> {
        let asking = exchanges
            .iter()
            .map(|spec| Exchanges::start(&scene.data, &scene.fetcher, *spec))
            .collect::<Result<_>>()?;
        let mut running = Self {
            scene,
            asking,
            streams: Vec::new(),
            samples: Vec::new(),
        };
        running.sample()?;
        Ok(running)
    }

    /// Begins to send, beside what runs.
    pub fn add(&mut self, streams: &[StreamSpec]) -> Result<()> {
        for spec in streams {
            let started = Streams::start(&self.scene.data, &self.scene.fetcher, *spec)?;
            self.streams.push(started);
        }
        Ok(())
    }

    /// Begins to send from elsewhere; counted after what was there before.
    pub fn add_from(&mut self, from: Elsewhere, spec: StreamSpec) -> Result<()> {
        self.streams.push(self.scene.stream_from(from, spec)?);
        Ok(())
    }

    /// Lets everything run for so long, and returns from when to when that was.
    pub fn watch(&mut self, length: Duration) -> Result<Range<u64>> {
        let (began, began_ns) = (Instant::now(), self.sampled_ns());
        while began.elapsed() < length {
            self.watch_a_tenth()?;
        }
        Ok(began_ns..self.sampled_ns())
    }

    /// When the last sample was taken.
    pub fn sampled_ns(&self) -> u64 {
        self.samples.last().map_or(0, |sample| sample.at_ns)
    }

    /// Lets everything run until it is so, and returns whether that came about in time.
    pub fn watch_until(
        &mut self,
        limit: Duration,
        mut is_so: impl FnMut() -> Result<bool>,
    ) -> Result<bool> {
        let began = Instant::now();
        while !is_so()? {
            if began.elapsed() > limit {
                return Ok(false);
            }
            self.watch_a_tenth()?;
        }
        Ok(true)
    }

    /// Ends everything: waits for all answers, not for what streams have under way.
    pub fn stop(self) -> Result<Course> {
        let answers = self.asking.into_iter().map(Exchanges::stop);
        let course = Course {
            answers: answers.collect::<Result<_>>()?,
            samples: self.samples,
        };
        self.streams.into_iter().try_for_each(Streams::stop)?;
        Ok(course)
    }

    fn watch_a_tenth(&mut self) -> Result<()> {
        crate::bench::stop_if_told()?;
        // Not so long after this call: what sampling takes would make every interval longer.
        sleep_until_ns(self.sampled_ns() + SAMPLE_INTERVAL.as_nanos() as u64);
        self.sample()
    }

    fn sample(&mut self) -> Result<()> {
        let (wire_bytes, at_ns) = self.scene.wire_bytes()?;
        self.samples.push(Sample {
            at_ns,
            wire_bytes,
            streams_bytes: self.streams.iter().map(Streams::wire_bytes).collect(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH_NS: u64 = 100_000_000;

    /// 1250 bytes each tenth of a second, twice that from the 15th to the 24th; a stream of half of it begins
    /// at the 20th. A question is due in the middle of each tenth, and takes as many ns as the tenth's number.
    fn course() -> Course {
        let mut samples = vec![Sample::default()];
        for tenth in 1..=40 {
            let last = samples[tenth - 1].clone();
            let step = if (15..25).contains(&tenth) {
                2500
            } else {
                1250
            };
            let stream = last.streams_bytes.first().map(|bytes| bytes + step / 2);
            samples.push(Sample {
                at_ns: tenth as u64 * TENTH_NS,
                wire_bytes: last.wire_bytes + step,
                streams_bytes: stream.or((tenth == 20).then_some(0)).into_iter().collect(),
            });
        }
        let answer = |tenth| Answer {
            due_ns: tenth * TENTH_NS - TENTH_NS / 2,
            took_ns: tenth,
        };
        Course {
            samples,
            answers: vec![(1..=40).rev().map(answer).collect()],
        }
    }

    #[test]
    fn rates_are_those_of_the_span() {
        let course = course();
        let (quiet, busy) = (0..14 * TENTH_NS, 14 * TENTH_NS..24 * TENTH_NS);
        assert_eq!(course.wire_bps(&quiet), 100_000.0);
        assert_eq!(course.wire_bps(&busy), 200_000.0);
        assert_eq!(course.wire_bps_max_1s(), 200_000.0);
        assert_eq!(course.stream_bps(0, &quiet), 0.0);
        assert_eq!(
            course.stream_bps(0, &(25 * TENTH_NS..40 * TENTH_NS)),
            50_000.0
        );
        assert_eq!(course.stream_bps(1, &busy), 0.0, "there is no such stream");
        assert_eq!(course.wire_bps(&(TENTH_NS + 1..TENTH_NS + 2)), 0.0);
    }

    #[test]
    fn lines_have_a_point_for_each_tenth_and_answers_belong_to_when_they_were_due() {
        let course = course();
        let line = course.wire_line();
        assert_eq!(line.len(), 40);
        assert_eq!(
            [line[13], line[14]],
            [(14 * TENTH_NS, 100_000.0), (15 * TENTH_NS, 200_000.0)]
        );
        assert_eq!(course.stream_line(0)[19], (20 * TENTH_NS, 0.0));
        assert_eq!(course.times_ns(0, &(TENTH_NS..3 * TENTH_NS)), [2, 3]);
        assert_eq!(course.times_ns(1, &(0..u64::MAX)), Vec::<u64>::new());
    }
}
