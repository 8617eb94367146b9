//! Figures over time, or their distribution, as a picture: panels of lines and dots, one below the other.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// Told apart by people who see few colours too.
pub const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];
const WIDTH: u32 = 980;
const PANEL_HEIGHT: u32 = 300;
const FONT: &str = "sans-serif";

/// A picture with axes.
#[derive(Clone, Debug)]
pub struct Panel {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    /// What is marked across the panel.
    pub marks: Vec<Mark>,
    /// Where it says which series is which.
    pub legend: Corner,
}

/// Where lines leave room.
#[derive(Clone, Copy, Debug)]
pub enum Corner {
    UpperRight,
    LowerRight,
    /// No corner: lines are at both sides.
    Middle,
}

#[derive(Clone, Debug)]
pub struct Axis {
    pub title: &'static str,
    pub from: f64,
    pub to: f64,
    /// Each decade is as long as the others.
    pub is_logarithmic: bool,
}

/// Values of one kind.
#[derive(Clone, Debug)]
pub struct Series {
    pub name: String,
    pub colour: RGBColor,
    pub points: Vec<(f64, f64)>,
    /// Dots that nothing joins.
    pub is_dotted: bool,
}

/// A gray line across a panel, with words at it.
#[derive(Clone, Debug)]
pub enum Mark {
    /// From left to right at this height.
    Level(f64, String),
    /// From top to bottom at this place.
    Moment(f64, String),
}

impl Axis {
    pub fn linear(title: &'static str, from: f64, to: f64) -> Self {
        Self {
            title,
            from,
            to,
            is_logarithmic: false,
        }
    }

    pub fn logarithmic(title: &'static str, from: f64, to: f64) -> Self {
        Self {
            title,
            from,
            to,
            is_logarithmic: true,
        }
    }

    /// Where a value is drawn; one beyond the ends is drawn at the end.
    fn place(&self, value: f64) -> f64 {
        let value = value.clamp(self.from, self.to);
        match self.is_logarithmic {
            true => value.log10(),
            false => value,
        }
    }

    fn label(&self, place: f64) -> String {
        match self.is_logarithmic {
            true => format!("{:.0}", 10_f64.powf(place)),
            // Steps are sums of fractions.
            false => format!("{}", (place * 1e6).round() / 1e6),
        }
    }
}

/// Writes the panels as an SVG picture.
/// # Errors  when the file cannot be written.
pub fn write(path: &Path, panels: &[Panel]) -> Result<()> {
    let text = draw(panels)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn draw(panels: &[Panel]) -> Result<String> {
    let mut text = String::new();
    let size = (WIDTH, PANEL_HEIGHT * panels.len() as u32);
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        let drawn = root.fill(&WHITE).and_then(|()| {
            let areas = root.split_evenly((panels.len(), 1));
            areas.iter().zip(panels).try_for_each(draw_panel)?;
            root.present()
        });
        drawn.map_err(|error| anyhow!("cannot draw: {error}"))?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn draw_panel<'b>((area, panel): (&Area<'b>, &Panel)) -> Drawn<'b> {
    let (x, y) = (&panel.x, &panel.y);
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, (FONT, 15))
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(
            x.place(x.from)..x.place(x.to),
            y.place(y.from)..y.place(y.to),
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(x.title)
        .y_desc(y.title)
        .x_label_formatter(&|place| x.label(*place))
        .y_label_formatter(&|place| y.label(*place))
        .label_style((FONT, 12))
        .draw()?;
    for mark in &panel.marks {
        draw_mark(&mut chart, panel, mark)?;
    }
    for series in &panel.series {
        draw_series(&mut chart, panel, series)?;
    }
    chart
        .configure_series_labels()
        .position(match panel.legend {
            Corner::UpperRight => SeriesLabelPosition::UpperRight,
            Corner::LowerRight => SeriesLabelPosition::LowerRight,
            Corner::Middle => SeriesLabelPosition::MiddleMiddle,
        })
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 12))
        .draw()
}

fn draw_mark<'b>(chart: &mut Chart<'_, 'b>, panel: &Panel, mark: &Mark) -> Drawn<'b> {
    let (x, y) = (&panel.x, &panel.y);
    let (ends, words) = match mark {
        Mark::Level(height, words) => ([(x.from, *height), (x.to, *height)], words),
        Mark::Moment(moment, words) => ([(*moment, y.to), (*moment, y.from)], words),
    };
    let ends = ends.map(|(at_x, at_y)| (x.place(at_x), y.place(at_y)));
    let style = BLACK.mix(0.4).stroke_width(1);
    chart.draw_series(LineSeries::new(ends, style))?;
    let text = Text::new(words.clone(), ends[0], (FONT, 12));
    chart.draw_series([text]).map(drop)
}

fn draw_series<'b>(chart: &mut Chart<'_, 'b>, panel: &Panel, series: &Series) -> Drawn<'b> {
    let colour = series.colour;
    let place = |&(x, y): &(f64, f64)| (panel.x.place(x), panel.y.place(y));
    let points = series.points.iter().map(place);
    let drawn = match series.is_dotted {
        true => chart.draw_series(points.map(|at| Circle::new(at, 1, colour.filled())))?,
        false => chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?,
    };
    drawn
        .label(&series.name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_series_and_marks_are_in_the_picture_and_values_beyond_stand_at_its_edge() {
        let panel = |y: Axis, points: &[(f64, f64)]| Panel {
            title: "answers".into(),
            x: Axis::linear("seconds", 0.0, 10.0),
            y,
            series: [("lines", false), ("dots", true)]
                .map(|(name, is_dotted)| Series {
                    name: name.into(),
                    colour: COLOURS[0],
                    points: points.to_vec(),
                    is_dotted,
                })
                .into(),
            marks: vec![
                Mark::Level(50.0, "ceiling".into()),
                Mark::Moment(5.0, "from here on".into()),
            ],
            legend: Corner::UpperRight,
        };
        let picture = draw(&[
            panel(Axis::linear("ms", 0.0, 100.0), &[(0.0, 10.0), (9.0, 500.0)]),
            panel(
                Axis::logarithmic("ms", 1.0, 100.0),
                &[(0.0, 0.0), (9.0, 10.0)],
            ),
        ])
        .unwrap();
        for words in [
            "answers",
            "lines",
            "dots",
            "ceiling",
            "from here on",
            "seconds",
        ] {
            assert_eq!(picture.matches(words).count(), 2, "{words} in {picture}");
        }
        assert_eq!(picture.matches("<circle").count(), 4);
        let heights: Vec<i32> = picture
            .lines()
            .filter(|line| line.starts_with("<circle"))
            .map(|line| line.split("cy=\"").nth(1).unwrap())
            .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert!(
            heights[1] < heights[0],
            "larger values are higher up: {heights:?}"
        );
        let (low, high) = (heights[2], heights[3]);
        let middle = (low - high) - (heights[0] - heights[1]) * 10 / 18;
        assert!(
            middle.abs() <= 1,
            "10 is in the middle of 1 and 100: {heights:?}"
        );
    }
}
