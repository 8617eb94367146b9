//! What `cargo xtask bench qos` had measured in a virtual machine, whose kernel has what this one's lacks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::report::{Backend, Measured, Report};

/// The backend that is measured there.
const BACKEND: Backend = Backend::Edt;

/// What came of the virtual machine.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Guest {
    Measured {
        /// On which kernel, and by which clock.
        place: String,
        report: Box<GuestReport>,
    },
    Failed(String),
}

/// The part that counts of what a run in it reports.
#[derive(Debug, Deserialize)]
struct GuestReport {
    edt: Option<Measured>,
    absent: BTreeMap<Backend, String>,
    faults: Vec<String>,
}

/// Adds it to what is found out here, where its figures are judged with the others.
/// # Errors  when the file is none that xtask writes.
pub fn add(report: &mut Report, file: &Path) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let guest = serde_json::from_str(&text).with_context(|| format!("{}", file.display()))?;
    let (place, found) = match guest {
        Guest::Measured { place, report } => (place, report),
        Guest::Failed(why) => {
            report.faults.push(format!("{BACKEND}: {why}"));
            return Ok(());
        }
    };
    report
        .faults
        .extend(found.faults.into_iter().map(|it| format!("{place}: {it}")));
    match found.edt {
        Some(measured) => {
            let measured_in = place;
            report.backends.insert(
                BACKEND,
                Measured {
                    measured_in,
                    ..measured
                },
            );
            report.absent.remove(&BACKEND);
        }
        None => {
            let why = found.absent.get(&BACKEND).map_or("no reason", |why| why);
            report
                .faults
                .push(format!("{place}: {BACKEND} was not measured: {why}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(text: &str) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("guest.json");
        fs::write(&file, text).unwrap();
        let mut report = Report::default();
        report.absent.insert(BACKEND, "no fq here".to_owned());
        add(&mut report, &file).unwrap();
        report
    }

    fn figures(faults: &[&str]) -> String {
        let mut report = Report {
            faults: faults.iter().map(|it| (*it).to_owned()).collect(),
            ..Report::default()
        };
        report.backends.insert(BACKEND, Measured::default());
        let report = serde_json::to_value(&report).unwrap();
        serde_json::json!({"measured": {"place": "a guest", "report": report}}).to_string()
    }

    #[test]
    fn what_a_guest_measured_counts_as_measured_and_is_judged() {
        let report = added(&figures(&[]));
        assert_eq!(report.backends[&BACKEND].measured_in, "a guest");
        assert!(report.absent.is_empty() && report.faults.is_empty());
        let missed = report.missed();
        assert!(
            missed
                .iter()
                .any(|it| it.starts_with("edt: guarantee_ratio_min 0")),
            "{missed:?}"
        );
    }

    #[test]
    fn what_voids_a_guests_figures_voids_the_run() {
        let report = added(&figures(&["idle: late"]));
        assert_eq!(report.faults, ["a guest: idle: late"]);
    }

    #[test]
    fn a_guest_without_figures_is_a_fault_that_says_why() {
        let report = added(r#"{"failed": "it did not boot"}"#);
        assert_eq!(report.faults, ["edt: it did not boot"]);
        assert_eq!(report.absent.len(), 1);
        let report = added(
            r#"{"measured": {"place": "a guest", "report": {"absent": {"edt": "chose vq"}, "faults": []}}}"#,
        );
        assert_eq!(report.faults, ["a guest: edt was not measured: chose vq"]);
        assert_eq!(report.exit_code(), 1);
    }
}
