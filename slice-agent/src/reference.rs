//! Reference pages, printed from the tables that the program itself uses.

use std::fmt::Write;

use slice_common::drop_reason::DropReason;

use crate::model::fields::OBJECTS;

/// `slice-agent reference drop-reasons`.
pub fn drop_reasons() -> String {
    let mut page = String::from(
        "# Drop reasons\n\n\
         Every packet that Sliceplane drops is counted under one of these reasons, per slice, in \
         the metric `sliceplane_drops_total` (label `reason`). Numbers are never reused.\n\n\
         | number | reason | what happened | what to look at |\n\
         | --- | --- | --- | --- |\n",
    );
    for reason in DropReason::ALL {
        let (number, label) = (reason.number(), reason.label());
        let (sentence, hint) = (cell(reason.sentence()), cell(reason.hint()));
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| {number} | `{label}` | {sentence} | {hint} |");
    }
    page
}

/// `slice-agent reference configuration`.
pub fn configuration() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         `slice-agent agent --config PATH` reads one YAML file or a folder of `*.yaml` files. \
         Documents are of kind `Node` (exactly one: this host) and `Slice` (one for each slice). \
         Unknown fields are errors. `slice-agent check --config PATH` checks a configuration on \
         any machine.\n\n\
         Regular files and links to them are read, up to 1000 files and 16 MiB together, nested up \
         to 32 levels. The agent follows changes: it takes what two reads 150 ms apart agree on, \
         and of files that are written without a pause what is there every 5 seconds. A finished \
         file that is renamed into its place is never taken by half.\n",
    );
    for object in OBJECTS {
        let _ = write!(
            page,
            "\n## {}\n\n| field | when absent | meaning |\n| --- | --- | --- |\n",
            object.title
        );
        for field in object.fields {
            let (name, default, text) = (field.name, field.default, cell(field.text));
            let _ = writeln!(page, "| `{name}` | {default} | {text} |");
        }
    }
    page
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_row() {
        let page = drop_reasons();
        let rows = page
            .lines()
            .filter(|line| line.starts_with("| ") && line.contains('`'))
            .count();
        assert_eq!(rows, DropReason::ALL.len());
        assert!(
            page.contains("| 30 | `policy_denied` | No rule of the slice's policy"),
            "{page}"
        );
    }

    #[test]
    fn every_object_has_a_heading_and_each_field_a_row() {
        let page = configuration();
        assert_eq!(page.matches("\n## ").count(), OBJECTS.len());
        assert!(page.contains("| `sliceAddress` | required | Its address inside the slice"));
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(
            rows,
            OBJECTS
                .iter()
                .map(|object| object.fields.len())
                .sum::<usize>()
        );
    }
}
