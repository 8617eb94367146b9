//! Each drop reason has one canonical test: a function or scene named `drop_<label>`.

use super::{Finding, SourceFile};

const REASONS_FILE: &str = "slice-common/src/drop_reason.rs";

/// Returns an error for each reason that no test below tests/ is named after.
pub(super) fn without_test(files: &[SourceFile]) -> Vec<Finding> {
    let Some(reasons) = files.iter().find(|file| file.is_below(REASONS_FILE)) else {
        return Vec::new();
    };
    let found = labels(&reasons.text);
    if found.is_empty() {
        return vec![reasons.error(1, "tidy finds no drop reason here: its shape has changed")];
    }
    found
        .into_iter()
        .filter(|(_, label)| !files.iter().any(|file| tests_label(file, label)))
        .map(|(line, label)| {
            let message = format!("reason {label} has no canonical test `drop_{label}` in tests/");
            reasons.error(line, message)
        })
        .collect()
}

/// Reads `7 TooBig "too_big":` and returns line number and label of each reason.
fn labels(text: &str) -> Vec<(usize, &str)> {
    let label = |line: &'_ str| -> Option<(usize, usize)> {
        let words = line.trim_start();
        let number: usize = words.chars().take_while(char::is_ascii_digit).count();
        let rest = words[number..].strip_prefix(' ').filter(|_| number > 0)?;
        let quote = rest.find('"')?;
        let name = &rest[..quote];
        let is_name = name.trim_end().chars().all(char::is_alphanumeric) && name.ends_with(' ');
        let end = rest[quote + 1..].find("\":")?;
        let begin = line.len() - rest.len() + quote + 1;
        is_name.then_some((begin, begin + end))
    };
    text.lines()
        .enumerate()
        .filter_map(|(at, line)| label(line).map(|(begin, end)| (at + 1, &line[begin..end])))
        .collect()
}

fn tests_label(file: &SourceFile, label: &str) -> bool {
    file.is_below("tests")
        && file.is_rust()
        && (file.text.contains(&format!("fn drop_{label}("))
            || file.text.contains(&format!("\"drop_{label}\"")))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile {
            path: PathBuf::from(path),
            text: text.to_owned(),
        }
    }

    const REASONS: &str = r#"drop_reasons! {
    1 Malformed "malformed":
        "Shorter.";
    7 TooBig "too_big":
        "It does not fit: 50 bytes.";
}
"#;

    #[test]
    fn labels_are_found_with_their_lines_and_sentences_are_not_labels() {
        assert_eq!(labels(REASONS), [(2, "malformed"), (4, "too_big")]);
    }

    #[test]
    fn a_reason_without_a_test_of_its_name_is_an_error() {
        let files = [
            file(REASONS_FILE, REASONS),
            file("tests/tests/testrun.rs", "fn drop_malformed() {}"),
            file("tests/src/scenes.rs", "fn drop_too_big_and_more() {}"),
        ];

        let findings = without_test(&files);

        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].place, format!("{REASONS_FILE}:4"));
        assert!(findings[0].is_error && findings[0].message.contains("`drop_too_big`"));
    }

    #[test]
    fn a_scene_of_that_name_will_do_but_only_below_tests() {
        let scene = "scene(\"drop_malformed\"); scene(\"drop_too_big\");";
        let elsewhere = [
            file(REASONS_FILE, REASONS),
            file("slice-agent/src/lib.rs", scene),
        ];
        let in_tests = [
            file(REASONS_FILE, REASONS),
            file("tests/src/scenes.rs", scene),
        ];

        assert_eq!(without_test(&elsewhere).len(), 2);
        assert_eq!(without_test(&in_tests), []);
    }

    #[test]
    fn a_file_of_reasons_that_cannot_be_read_is_an_error_and_not_silence() {
        assert_eq!(
            without_test(&[file(REASONS_FILE, "enum DropReason {}")]).len(),
            1
        );
    }
}
