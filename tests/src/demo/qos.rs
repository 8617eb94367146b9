//! Replication fills a paid link that clients share: without the shaper, and with it from one moment to the next.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Report;
use super::screen::Screen;
use crate::bench::qos::course::{Course, Running};
use crate::bench::qos::load::{CongestionControl, ExchangeSpec, StreamSpec};
use crate::bench::qos::scene::{Link, Profile, RELOAD_LIMIT, Rates, Scene};
use crate::bench::statistics::percentile;
use crate::chart::{self, Axis, COLOURS, Corner, Mark, Panel, Series};
use crate::lab::{Lab, Wan};

const LINK_BPS: u64 = 50_000_000;
/// A few per cent below the link, so that what waits does so at the sender.
const PROFILE: Profile = Profile {
    ceiling_bps: LINK_BPS / 100 * 96,
    replication_percent: 40,
    client_percent: 30,
    backend: None,
};
/// Kafka may be there still, and has the classes' other ports.
const REPLICATION_PORT: u16 = 7002;
const CLIENT_PORT: u16 = 7003;
const STREAMS: [StreamSpec; 2] = [
    StreamSpec {
        port: REPLICATION_PORT,
        flows: 1,
        on_and_off: None,
        congestion_control: CongestionControl::CUBIC,
    },
    StreamSpec {
        port: CLIENT_PORT,
        flows: 8,
        on_and_off: None,
        congestion_control: CongestionControl::CUBIC,
    },
];
const QUESTIONS: ExchangeSpec = ExchangeSpec {
    port: CLIENT_PORT,
    interval: Duration::from_millis(10),
    answer_bytes: 200,
};
const IDLE: Duration = Duration::from_secs(2);
/// TCP finds its rate.
const SETTLE: Duration = Duration::from_secs(2);
/// What waits in the link's queue, a tenth of a second of the link, leaves by the 4 % that the ceiling spares: in
/// 2.5 s, and as long again for what the shaper let through at first.
const DRAIN: Duration = Duration::from_secs(5);
const MEASURE: Duration = Duration::from_secs(5);

/// With less than that on the full link there is nothing to spare anybody; its queue holds 100 ms.
const QUEUED_MS_MIN: f64 = 10.0;

/// What happened in one part of the act.
#[derive(Clone, Debug)]
struct Part {
    replication_bps: f64,
    clients_bps: f64,
    client_p99_ms: f64,
}

/// The whole act: one run of the same loads.
struct Act {
    course: Course,
    idle_p99_ms: f64,
    without: Part,
    with: Part,
    /// When every agent had the profile in force.
    shaped_ns: u64,
    backend: String,
}

pub(super) fn play(
    lab: &Lab,
    screen: &Screen,
    report: &mut Report,
    picture: Option<PathBuf>,
) -> Result<()> {
    screen.act(
        'f',
        "who shares a paid link: a bulk replication, eight client streams, and a client who waits for answers",
    );
    let scene = Scene::in_lab(lab)?;
    scene.set_link(&Link {
        rate_bps: Some(LINK_BPS),
        ..Link::default()
    })?;
    let act = observe(&scene, screen)?;
    scene.set_profile(None)?;
    lab.set_wan(&Wan::Router)?;
    tell(&act, screen, report);
    if let Some(path) = picture {
        draw(&act, &path)?;
        screen.step(&format!("a picture of it: {}", path.display()));
        report.qos_picture = Some(path);
    }
    Ok(())
}

fn observe(scene: &Scene<&Lab>, screen: &Screen) -> Result<Act> {
    let mut running = Running::start(scene, &[QUESTIONS])?;
    let idle_ns = running.watch(IDLE)?;
    running.add(&STREAMS)?;
    running.watch(SETTLE)?;
    let without_ns = running.watch(MEASURE)?;
    screen
        .step("the same traffic goes on; every node's configuration gets a ceiling and guarantees");
    let rates = Some(Rates::from(PROFILE));
    scene.write_rates(rates)?;
    let is_taken = running.watch_until(RELOAD_LIMIT, || scene.have_taken(rates))?;
    ensure!(is_taken, scene.not_taken());
    let shaped_ns = running.sampled_ns();
    let backend = scene.backend()?;
    running.watch(DRAIN)?;
    let with_ns = running.watch(MEASURE)?;
    let course = running.stop()?;
    Ok(Act {
        idle_p99_ms: p99_ms(&course, &idle_ns),
        without: part(&course, &without_ns),
        with: part(&course, &with_ns),
        shaped_ns,
        backend,
        course,
    })
}

fn part(course: &Course, span_ns: &Range<u64>) -> Part {
    Part {
        replication_bps: course.stream_bps(0, span_ns),
        clients_bps: course.stream_bps(1, span_ns),
        client_p99_ms: p99_ms(course, span_ns),
    }
}

fn p99_ms(course: &Course, span_ns: &Range<u64>) -> f64 {
    let times = course.times_ns(0, span_ns);
    percentile(&times, 99.0).map_or(f64::NAN, |ns| ns as f64 / 1e6)
}

/// Of what the full link adds to the answers' time, the part that the shaper takes away; no number where
/// nothing waits without it.
fn spared_ratio(idle_ms: f64, without_ms: f64, with_ms: f64) -> f64 {
    match without_ms - idle_ms {
        queued_ms if queued_ms > QUEUED_MS_MIN => (without_ms - with_ms) / queued_ms,
        _ => f64::NAN,
    }
}

fn tell(act: &Act, screen: &Screen, report: &mut Report) {
    let guarantee_bps = (PROFILE.ceiling_bps * PROFILE.replication_percent / 100) as f64;
    let ratio = |part: &Part| part.replication_bps / guarantee_bps;
    let (without, with) = (&act.without, &act.with);
    let spared = spared_ratio(act.idle_p99_ms, without.client_p99_ms, with.client_p99_ms);
    report.qos_link_bps = Some(LINK_BPS);
    report.qos_backend = Some(act.backend.clone());
    report.qos_client_p99_ms_idle = Some(act.idle_p99_ms);
    report.qos_client_p99_ms_without = Some(without.client_p99_ms);
    report.qos_client_p99_ms_with = Some(with.client_p99_ms);
    report.qos_client_p99_spared_ratio = Some(spared);
    report.qos_replication_guarantee_ratio_without = Some(ratio(without));
    report.qos_replication_guarantee_ratio = Some(ratio(with));
    for (when, part) in [("without", without), ("with", with)] {
        screen.step(&format!(
            "{when} the shaper: replication {:.1} Mbit/s ({:.0} % of its guarantee), clients {:.1}; 99 % of \
             answers within {:.1} ms",
            part.replication_bps / 1e6,
            ratio(part) * 100.0,
            part.clients_bps / 1e6,
            part.client_p99_ms,
        ));
    }
    screen.judged(
        report.qos_holds(),
        &format!(
            "on a full link of {} Mbit/s replication has {:.0} % of what it is guaranteed, and 99 % of a \
             client's answers come within {:.1} ms; {:.1} ms when nothing else is sent, {:.1} ms without the \
             shaper ({})",
            LINK_BPS / 1_000_000,
            ratio(with) * 100.0,
            with.client_p99_ms,
            act.idle_p99_ms,
            without.client_p99_ms,
            act.backend,
        ),
    );
}

fn draw(act: &Act, path: &Path) -> Result<()> {
    let began_ns = act.course.samples.first().map_or(0, |it| it.at_ns);
    let ended_ns = act.course.samples.last().map_or(0, |it| it.at_ns);
    let seconds = |at_ns: u64| at_ns.saturating_sub(began_ns) as f64 / 1e9;
    let x = Axis::linear("seconds", 0.0, seconds(ended_ns));
    let series = |name: &str, colour, line: Vec<(u64, f64)>| Series {
        name: name.to_owned(),
        colour,
        points: line
            .into_iter()
            .map(|(at, bps)| (seconds(at), bps / 1e6))
            .collect(),
        is_dotted: false,
    };
    let guarantee = (PROFILE.ceiling_bps * PROFILE.replication_percent / 100) as f64 / 1e6;
    let from_here_on = Mark::Moment(seconds(act.shaped_ns), "shaper in force".to_owned());
    let rates = Panel {
        title: "What each class sends".to_owned(),
        x: x.clone(),
        y: Axis::linear("Mbit/s", 0.0, LINK_BPS as f64 / 1e6 * 1.4),
        series: vec![
            series("the link", COLOURS[2], act.course.wire_line()),
            series("8 client streams", COLOURS[0], act.course.stream_line(1)),
            series(
                "1 replication stream",
                COLOURS[1],
                act.course.stream_line(0),
            ),
        ],
        marks: vec![
            Mark::Level(guarantee, "guarantee of replication".to_owned()),
            from_here_on.clone(),
        ],
        legend: Corner::UpperRight,
    };
    let answers: Vec<_> = act.course.answers.iter().flatten().collect();
    let slowest_ns = answers.iter().map(|it| it.took_ns).max().unwrap_or(0);
    let times = Panel {
        title: "How long a client waits for an answer".to_owned(),
        x,
        y: Axis::linear("ms", 0.0, slowest_ns as f64 / 1e6 * 1.1),
        series: vec![Series {
            name: "each answer".to_owned(),
            colour: COLOURS[0],
            points: answers
                .iter()
                .map(|it| (seconds(it.due_ns), it.took_ns as f64 / 1e6))
                .collect(),
            is_dotted: true,
        }],
        marks: vec![from_here_on],
        legend: Corner::UpperRight,
    };
    chart::write(path, &[rates, times])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spared_is_part_of_what_waits() {
        assert_eq!(spared_ratio(10.0, 110.0, 10.0), 1.0);
        assert_eq!(spared_ratio(10.0, 110.0, 60.0), 0.5);
        assert!(spared_ratio(10.0, 19.0, 10.0).is_nan());
        assert!(spared_ratio(f64::NAN, 110.0, 10.0).is_nan());
    }
}
