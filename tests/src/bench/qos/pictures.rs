//! What a backend did, as pictures: what each class sends over time, and how long answers take.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::controls::LINK_ALONE;
use super::observe::Observed;
use super::plans::{IDLE, Plan, S4, S5, S6};
use super::report::{Limits, Report};
use super::{PROMISE, report::Backend};
use crate::bench::statistics::percentile;
use crate::chart::{self, Axis, COLOURS, Corner, Mark, Panel, Series};
use crate::json_file::JsonFile;

/// The points of pictures, few enough for the serial line of a virtual machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pictures {
    /// By scenario, the link and each class: seconds, and Mbit/s in the tenth of a second before.
    pub throughput: BTreeMap<String, Vec<Curve>>,
    /// By scenario, of a client's answers: milliseconds, and how many of a hundred took no longer.
    pub answers: BTreeMap<String, Vec<[f64; 2]>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    pub name: String,
    pub points: Vec<[f64; 2]>,
}

/// Closer where the slow ones are.
const PERCENTS: [f64; 27] = [
    0.0, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0, 55.0, 60.0, 65.0,
    70.0, 75.0, 80.0, 85.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 100.0,
];

impl Pictures {
    /// Keeps what is drawn of a scenario.
    pub fn note(&mut self, plan: &Plan, observed: &Observed) {
        match plan.name {
            S5 | S6 => {
                let curves = curves(plan, observed);
                self.throughput.insert(plan.name.to_owned(), curves);
            }
            IDLE | S4 | LINK_ALONE => {
                let points = distribution(&observed.times_ns[0]);
                self.answers.insert(plan.name.to_owned(), points);
            }
            _ => {}
        }
    }
}

fn curves(plan: &Plan, observed: &Observed) -> Vec<Curve> {
    let course = &observed.course;
    let began_ns = course.samples.first().map_or(0, |it| it.at_ns);
    let curve = |name: String, line: Vec<(u64, f64)>| {
        let seconds = |at_ns: u64| rounded(at_ns.saturating_sub(began_ns) as f64 / 1e9, 3);
        let points = line.into_iter();
        let points = points.map(|(at_ns, bps)| [seconds(at_ns), rounded(bps / 1e6, 2)]);
        Curve {
            name,
            points: points.collect(),
        }
    };
    let streams = plan.streams.iter().enumerate().map(|(at, spec)| {
        let who = match spec.port {
            super::plans::CLIENT => "client",
            _ => "replication",
        };
        let name = format!("{} {who} streams", spec.flows);
        curve(name, course.stream_line(at))
    });
    let link = curve("the link".to_owned(), course.wire_line());
    std::iter::once(link).chain(streams).collect()
}

fn distribution(sorted_ns: &[u64]) -> Vec<[f64; 2]> {
    let point = |percent: f64| {
        let ns = percentile(sorted_ns, percent)?;
        Some([rounded(ns as f64 / 1e6, 3), percent])
    };
    PERCENTS.into_iter().filter_map(point).collect()
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

impl Report {
    /// Draws every backend's pictures beside the file with the figures, and returns where they are.
    /// # Errors  when one cannot be written.
    pub fn draw_beside(&self, figures: &JsonFile) -> Result<Vec<PathBuf>> {
        let mut drawn = Vec::new();
        for (backend, measured) in &self.backends {
            let kinds = [
                ("throughput", measured.pictures.rates(*backend)),
                ("answers", measured.pictures.times(*backend)),
            ];
            for (kind, panels) in kinds {
                let path = figures.beside(&format!("{backend}.{kind}.svg"));
                if let Some(path) = path.filter(|_| !panels.is_empty()) {
                    chart::write(&path, &panels)?;
                    drawn.push(path);
                }
            }
        }
        Ok(drawn)
    }
}

impl Pictures {
    fn rates(&self, backend: Backend) -> Vec<Panel> {
        let panel = |(name, curves): (&String, &Vec<Curve>)| {
            let what = match name.as_str() {
                S5 => "both classes always have more to send",
                _ => "replication is silent every other second",
            };
            let points = curves.iter().flat_map(|it| &it.points);
            let ended = points.map(|[at, _]| *at).fold(1.0, f64::max);
            let series = curves.iter().zip([2, 1, 0]).map(|(curve, colour)| Series {
                name: curve.name.clone(),
                colour: COLOURS[colour],
                points: pairs(&curve.points),
                is_dotted: false,
            });
            let megabits = PROMISE.ceiling_bps / 1e6;
            let level = |bps: f64, words: &str| Mark::Level(bps / 1e6, words.to_owned());
            Panel {
                title: format!("{backend}: {what}"),
                x: Axis::linear("seconds", 0.0, ended),
                y: Axis::linear("Mbit/s", 0.0, megabits * 1.6),
                series: series.collect(),
                marks: vec![
                    level(PROMISE.ceiling_bps, "ceiling"),
                    level(PROMISE.replication_bps, "guaranteed to replication"),
                    level(PROMISE.client_bps, "guaranteed to clients"),
                ],
                legend: Corner::UpperRight,
            }
        };
        self.throughput.iter().map(panel).collect()
    }

    /// Everything, and then closer up what is nearly the same.
    fn times(&self, backend: Backend) -> Vec<Panel> {
        let (Some(quiet), Some(shaped)) = (self.answers.get(IDLE), self.answers.get(S4)) else {
            return Vec::new();
        };
        let limit_ms = reached_ms(quiet, 99.0) + Limits::of(backend).client_p99_added_ms_max;
        let panel = |title: &str, kinds: &[Kind], x: fn(f64, f64) -> Axis, legend| {
            let series = self.series(kinds);
            let ms = series.iter().flat_map(|it| &it.points).map(|(ms, _)| *ms);
            let (least_ms, most_ms) = ms.fold((limit_ms, limit_ms), |(least, most), ms| {
                (ms.min(least), ms.max(most))
            });
            Panel {
                title: format!("{backend}: {title}"),
                x: x(least_ms, most_ms),
                y: Axis::linear("answers within that time, %", 0.0, 100.0),
                series,
                marks: vec![Mark::Moment(limit_ms, "limit for 99 %".to_owned())],
                legend,
            }
        };
        let close_ms = reached_ms(shaped, 99.0).max(limit_ms);
        let mut close = panel("the same, closer", &KINDS[..2], around, Corner::LowerRight);
        close.x.to = close_ms + (close_ms - close.x.from) * 0.15;
        vec![
            panel(
                "how long a client waits for an answer",
                &KINDS,
                by_decades,
                Corner::Middle,
            ),
            close,
        ]
    }

    fn series(&self, kinds: &[Kind]) -> Vec<Series> {
        let series = |(scenario, name, colour): &Kind| {
            Some(Series {
                name: (*name).to_owned(),
                colour: COLOURS[*colour],
                points: pairs(self.answers.get(*scenario)?),
                is_dotted: false,
            })
        };
        kinds.iter().filter_map(series).collect()
    }
}

/// Scenario, what it is, and its colour.
type Kind = (&'static str, &'static str, usize);
const KINDS: [Kind; 3] = [
    (IDLE, "nothing else is sent", 2),
    (S4, "8 streams of replication saturate the ceiling", 0),
    (LINK_ALONE, "the same on a full link, no shaper", 1),
];

fn around(least_ms: f64, most_ms: f64) -> Axis {
    Axis::linear("ms", least_ms - 0.05, most_ms)
}

fn by_decades(least_ms: f64, most_ms: f64) -> Axis {
    Axis::logarithmic("ms", least_ms * 0.95, most_ms * 1.1)
}

/// Within how long so many of a hundred answers were there.
fn reached_ms(points: &[[f64; 2]], percent: f64) -> f64 {
    let found = points.iter().find(|[_, it]| *it >= percent);
    found.map_or(0.0, |[ms, _]| *ms)
}

fn pairs(points: &[[f64; 2]]) -> Vec<(f64, f64)> {
    points.iter().map(|[x, y]| (*x, *y)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::qos::course::{Course, Sample};
    use crate::bench::qos::plans::{both_saturated, client_answers, idle};
    use crate::bench::qos::report::Measured;

    fn observed() -> Observed {
        let sample = |tenth: u64| Sample {
            at_ns: 7 + tenth * 100_000_000,
            wire_bytes: tenth * 625_000,
            streams_bytes: vec![tenth * 250_000, tenth * 375_000],
        };
        Observed {
            times_ns: vec![(1..=1000).map(|it| 10_000_000 + it * 1000).collect()],
            course: Course {
                samples: (0..=100).map(sample).collect(),
                ..Course::default()
            },
            ..Observed::default()
        }
    }

    #[test]
    fn what_is_kept_is_small_and_comes_back_as_it_was() {
        let mut pictures = Pictures::default();
        for plan in [idle(), client_answers(), both_saturated()] {
            pictures.note(&plan, &observed());
        }
        let curves = &pictures.throughput[S5];
        let names: Vec<_> = curves.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(
            names,
            ["the link", "4 replication streams", "8 client streams"]
        );
        assert_eq!(curves[0].points[0], [0.1, 50.0]);
        assert_eq!(curves[2].points[99], [10.0, 30.0]);
        assert_eq!(pictures.answers[S4][12], [10.5, 50.0]);
        let text = serde_json::to_string(&pictures).unwrap();
        assert!(text.len() < 8000, "{}", text.len());
        let back: Pictures = serde_json::from_str(&text).unwrap();
        assert_eq!(back.throughput, pictures.throughput);
    }

    #[test]
    fn each_backend_has_its_pictures_beside_the_figures_and_none_without_points() {
        let folder = tempfile::tempdir().unwrap();
        let figures = JsonFile::checked(&folder.path().join("out.json")).unwrap();
        let mut report = Report::default();
        let mut measured = Measured::default();
        for plan in [idle(), client_answers(), both_saturated()] {
            measured.pictures.note(&plan, &observed());
        }
        report.backends.insert(Backend::Edt, measured);
        report.backends.insert(Backend::Vq, Measured::default());
        let drawn = report.draw_beside(&figures).unwrap();
        let names: Vec<_> = drawn
            .iter()
            .map(|it| it.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["out.edt.throughput.svg", "out.edt.answers.svg"]);
        let pictures = drawn.iter().map(|it| std::fs::read_to_string(it).unwrap());
        let texts: Vec<String> = pictures.collect();
        assert!(texts[0].contains("4 replication streams") && texts[0].contains("ceiling"));
        assert!(texts[1].contains("nothing else is sent") && texts[1].contains("limit for 99 %"));
        assert!(texts.iter().all(|it| it.len() < 60_000));
    }
}
