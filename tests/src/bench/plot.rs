//! Figures as a picture: each median, its interval and its limit on one line.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::report::{Figure, Report};
use super::statistics::{Limit, Verdict};

const LEFT: f64 = 330.0;
const RIGHT: f64 = 880.0;
const WIDTH: f64 = 980.0;
const LINE_HEIGHT: f64 = 24.0;
const TOP: f64 = 40.0;

/// Writes `FILE.ratios.svg` and `FILE.program-times.svg` beside `FILE.json`, and returns their paths.
pub(super) fn write_beside(report: &Report, json: &Path) -> Result<[PathBuf; 2]> {
    let ratios = picture(report, |key| !key.ends_with("_ns"), Axis::RATIOS);
    let times = picture(report, |key| key.ends_with("_ns"), Axis::TIMES_NS);
    let pictures = [("ratios.svg", ratios), ("program-times.svg", times)];
    let written = pictures.map(|(extension, text)| {
        let path = json.with_extension(extension);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        anyhow::Ok(path)
    });
    let [ratios, times] = written;
    Ok([ratios?, times?])
}

/// What stands below the lines.
#[derive(Clone, Copy)]
struct Axis {
    title: &'static str,
    from: f64,
    to: f64,
    step: f64,
}

impl Axis {
    const RATIOS: Self = Self {
        title: "ratio to the other way; dot: median, bar: 95 % interval, red: limit",
        from: 0.0,
        to: 2.0,
        step: 0.25,
    };
    const TIMES_NS: Self = Self {
        title: "ns for a packet, less an empty program; dot: median, bar: 95 % interval, red: limit",
        from: 0.0,
        to: 1600.0,
        step: 200.0,
    };

    /// Values beyond the ends stand at the ends.
    fn x(&self, value: f64) -> f64 {
        let share = ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0);
        LEFT + share * (RIGHT - LEFT)
    }
}

fn picture(report: &Report, wanted: impl Fn(&str) -> bool, axis: Axis) -> String {
    let figures: Vec<_> = report
        .figures
        .iter()
        .filter(|(key, _)| wanted(key))
        .collect();
    let bottom = TOP + LINE_HEIGHT * figures.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\">{title}</text>\n",
        height = bottom + 30.0,
        title = axis.title,
    );
    let mut mark = axis.from;
    while mark <= axis.to {
        let x = axis.x(mark);
        let _ = write!(
            svg,
            "<line x1=\"{x}\" x2=\"{x}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\n\
             <text x=\"{x}\" y=\"{label}\" text-anchor=\"middle\">{mark}</text>\n",
            label = bottom + 16.0,
        );
        mark += axis.step;
    }
    for (index, (key, figure)) in figures.into_iter().enumerate() {
        let y = TOP + LINE_HEIGHT * (index as f64 + 0.5);
        svg += &line(key, figure, axis, y);
    }
    svg + "</svg>\n"
}

fn line(key: &str, figure: &Figure, axis: Axis, y: f64) -> String {
    let estimate = &figure.estimate;
    let [low, median, high] = [estimate.low, estimate.median, estimate.high].map(|it| axis.x(it));
    let colour = match figure.verdict {
        Some(Verdict::Met) => "green",
        Some(Verdict::Missed) => "red",
        Some(Verdict::Unresolved) => "orange",
        None => "gray",
    };
    let mut line = format!(
        "<text x=\"10\" y=\"{text_y}\">{key}</text>\n\
         <line x1=\"{low}\" x2=\"{high}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{colour}\" \
         stroke-width=\"4\"/>\n\
         <circle cx=\"{median}\" cy=\"{y}\" r=\"5\" fill=\"{colour}\"/>\n\
         <text x=\"{value_x}\" y=\"{text_y}\">{value:.3}</text>\n",
        text_y = y + 4.0,
        value_x = RIGHT + 20.0,
        value = estimate.median,
    );
    if let Some(Limit::AtMost(limit) | Limit::AtLeast(limit)) = figure.limit {
        let x = axis.x(limit);
        let _ = writeln!(
            line,
            "<line x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\" stroke=\"red\" stroke-width=\"2\"/>",
            y - 10.0,
            y + 10.0
        );
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::statistics::estimate;

    #[test]
    fn every_figure_has_a_line_and_an_outlier_stays_in_the_picture() {
        let figure = |value: f64, limit| Figure {
            estimate: estimate(&[value; 15]).unwrap(),
            limit,
            verdict: None,
        };
        let mut report = Report::default();
        let figures = [
            (
                "rr64_p50_ratio_vs_plain",
                figure(1.0, Some(Limit::AtMost(1.08))),
            ),
            ("connect_rate_ratio_vs_plain", figure(27.0, None)),
            ("pod_egress_hit_ns", figure(300.0, None)),
        ];
        report.figures = figures.map(|(key, it)| (key.to_owned(), it)).into();

        let ratios = picture(&report, |key| !key.ends_with("_ns"), Axis::RATIOS);

        assert_eq!(ratios.matches("<circle").count(), 2);
        assert_eq!(
            ratios.matches("stroke=\"red\"").count(),
            1,
            "one has a limit"
        );
        assert!(
            ratios.contains("<circle cx=\"605\"") && ratios.contains(">1.000<"),
            "{ratios}"
        );
        assert!(ratios.contains(&format!("<circle cx=\"{RIGHT}\"")) && ratios.contains("27.000"));
        assert!(!ratios.contains("pod_egress"));
    }
}
