//! What can be wrong with the files themselves, and how they are put together.

mod config_support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use config_support::{Folder, RIGHT, check, check_text, right};
use nix::sys::stat::Mode;
use slice_agent::agent::config::Watched;
use slice_agent::model::{ConfigError, Validated};
use slice_agent::source::file::{BYTES_MAX, DEPTH_MAX, FILES_MAX, Source, VALUES_MAX};

fn refusal(bytes: impl AsRef<[u8]>) -> String {
    check_text(bytes)
        .expect_err("a mistake that is noticed")
        .trim_end()
        .to_owned()
}

#[test]
fn the_examples_are_right() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples");
    let example = check(examples.as_ref()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(
        (example.node().name.as_str(), example.slices().len()),
        ("east-1", 1)
    );
}

#[test]
fn the_example_with_ceilings_is_right_also_with_what_its_comment_adds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/shaped");
    let example = check(folder.as_ref()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(example.doubts(), []);
    assert_eq!(example.node().uplinks[0].lending, None);
    let read = |name: &str| fs::read_to_string(format!("{folder}/{name}")).expect("a text");
    let node = read("node-east-1.yaml").replace("# lending:", "lending:");
    let text = format!("{node}---\n{}", read("slice-kafka.yaml"));
    let lending = check_text(text).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(lending.doubts(), []);
    assert!(lending.node().uplinks[0].lending.is_some());
}

#[test]
fn one_document_per_file_is_the_same_as_all_in_one() {
    let documents: Vec<_> = RIGHT.split("---\n").collect();
    let folder = Folder::with(documents[0]);
    folder.write("kafka.yaml", documents[1]);
    folder.write("shop.yml", documents[2]);
    folder.write(".shop.yaml.swp.yaml", "half a");
    folder.write("README.md", "not: [yaml");
    let split = check(folder.path()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(split.node().name, right().node().name);
    assert_eq!(split.slices().len(), right().slices().len());
}

#[test]
fn comments_between_separators_are_no_documents() {
    let text = format!("# a comment\n---\n{RIGHT}---\n# the end\n");
    check_text(text).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn equal_bytes_are_equal_texts_and_a_changed_byte_is_not() {
    let folder = Folder::with(RIGHT);
    let source = Source::new(folder.path());
    let before = source.read().expect("readable");
    assert_eq!(source.read().expect("readable"), before);
    folder.write("node.yaml", format!("{RIGHT} "));
    assert_ne!(source.read().expect("readable"), before);
}

#[test]
fn every_mistake_is_reported_at_once() {
    let text = RIGHT
        .replace("10.1.1.10", "10.1.1.300")
        .replace("id: 7", "id: 0")
        .replace("action: Allow", "action: Permit");
    assert_eq!(
        refusal(text),
        "node.yaml, document 2, Slice kafka, id: `0` is out of range; a slice id is 1 to 2097150\n\
         node.yaml, document 2, Slice kafka, spec.policy.rules[0].action: `Permit` is unknown; an \
         action is Allow or Deny\n\
         node.yaml, document 2, Slice kafka, spec.policy.rules[1].action: `Permit` is unknown; an \
         action is Allow or Deny\n\
         node.yaml, document 1, Node east/east-1, endpoints[0].address: `10.1.1.300` is not an \
         IPv4 address; write four numbers from 0 to 255, as in 10.77.0.2"
    );
}

#[test]
fn a_file_that_is_not_there() {
    let folder = Folder::with(RIGHT);
    let message = check(&folder.path().join("other.yaml")).expect_err("no file");
    assert_eq!(
        message.trim_end(),
        "other.yaml: cannot be read (No such file or directory (os error 2)); check that the path \
         exists and may be read"
    );
}

#[test]
fn a_file_that_cannot_be_read() {
    // A dangling link cannot be read by anybody; a mode of 000 can by root.
    let folder = Folder::with(RIGHT);
    symlink("/nowhere/at/all", folder.path().join("zz.yaml")).expect("a link");
    let message = check(folder.path()).expect_err("an unreadable file");
    assert_eq!(
        message.trim_end(),
        "zz.yaml: cannot be read (No such file or directory (os error 2)); check that the path \
         exists and may be read"
    );
}

#[test]
fn a_folder_without_yaml() {
    let folder = Folder::with(RIGHT);
    fs::rename(folder.file(), folder.path().join("node.txt")).expect("a renamed file");
    let message = check(folder.path()).expect_err("no yaml");
    let expected = "the folder holds no *.yaml or *.yml file; put a Node document and its slices \
                    there";
    assert!(message.trim_end().ends_with(expected), "{message}");
}

#[test]
fn a_folder_without_a_node() {
    let message = refusal(RIGHT.split_once("---\n").expect("documents").1);
    assert_eq!(
        message,
        "node.yaml: no document of kind Node; one describes this host (cluster, name, underlay, \
         ...)"
    );
}

#[test]
fn an_empty_file_and_one_with_comments_only() {
    let expected = "node.yaml: holds no document; write a document of kind Node and one of kind \
                    Slice per slice";
    assert_eq!(refusal(""), expected);
    assert_eq!(refusal("# to do\n"), expected);
}

#[test]
fn garbage_bytes() {
    assert_eq!(
        refusal(b"kind: Node\n\xff\xfe\x00"),
        "node.yaml: is not text in UTF-8 (first bad byte at offset 11); is it a YAML file?"
    );
}

#[test]
fn text_in_other_encodings() {
    let utf16 = |mark: &str| -> Vec<u8> {
        let text = format!("{mark}{RIGHT}");
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    };
    assert_eq!(
        refusal(utf16("\u{feff}")),
        "node.yaml: is text in UTF-16; save it as UTF-8"
    );
    assert_eq!(
        refusal(utf16("")),
        "node.yaml: has a zero byte at offset 1, which no YAML has; save it as UTF-8 text, if it \
         is text in UTF-16 or UTF-32"
    );
    check_text(format!("\u{feff}{RIGHT}")).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn names_and_values_cannot_write_lines_of_their_own() {
    let folder = Folder::with(RIGHT);
    folder.write("a\nb\u{1b}[2J.yaml", "kind: \"No\\nde\\e[31m\"\n");
    assert_eq!(
        check(folder.path()).expect_err("an unknown kind"),
        "a\\nb\\u{1b}[2J.yaml, document 1: the kind `No\\nde\\u{1b}[31m` is unknown; write `kind: \
         Node` or `kind: Slice`\n"
    );
}

#[test]
fn a_document_that_is_a_list() {
    assert_eq!(
        refusal("- one\n- two\n"),
        "node.yaml, document 1: the document has no `kind`; write `kind: Node` or `kind: Slice` \
         first"
    );
}

/// `RIGHT` with a field that costs more than its length shows; the refusal, which comes soon.
fn refusal_of(field: &str) -> String {
    refusal(RIGHT.replacen("cluster: east", &format!("cluster: east\n{field}"), 1))
}

#[test]
fn aliases_that_explode() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let one = format!("*a{}", level - 1);
        text.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            vec![one; 10].join(", ")
        ));
    }
    let message = refusal_of(&text);
    let expected = format!("more than {VALUES_MAX} values here, aliases written out");
    assert!(message.contains(&expected), "{message}");
    assert!(message.starts_with("node.yaml, line 8: "), "{message}");
}

#[test]
fn few_aliases_of_much_text() {
    let text = format!(
        "long: &long {}\nlonger: [{}]",
        "x".repeat(1_000_000),
        vec!["*long"; 1000].join(", ")
    );
    let message = refusal_of(&text);
    assert!(message.contains("aliases written out"), "{message}");
}

#[test]
fn an_alias_of_itself() {
    let message = refusal_of("cycle: &me [*me]");
    assert_eq!(
        message,
        "node.yaml, line 3: the alias `*me` stands inside what it repeats; write the value out"
    );
}

#[test]
fn an_alias_that_saves_writing_is_fine() {
    let text = RIGHT
        .replacen("namespace: web", "namespace: &web web", 1)
        .replacen("namespace: web", "namespace: *web", 1);
    assert_eq!(text.matches("*web").count(), 1);
    check_text(text).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn millions_of_open_brackets_and_dashes() {
    let expected = format!(
        "nested deeper than {DEPTH_MAX} levels, which no field needs; check brackets and \
         indentation there"
    );
    for opening in ["[", "{a: ", "{a:\n", "- ", "? ", "a: ["] {
        let message = refusal(opening.repeat(4_000_000 / opening.len()));
        assert!(message.ends_with(&expected), "{opening}: {message}");
    }
    let nested = |levels| format!("deep: {}{}", "[".repeat(levels), "]".repeat(levels));
    let message = refusal_of(&nested(DEPTH_MAX));
    assert!(message.ends_with(&expected), "{message}");
    let message = refusal_of(&nested(DEPTH_MAX - 1));
    assert!(message.contains("unknown field `deep`"), "{message}");
}

#[test]
fn thousands_of_directives() {
    let directives: String = (0..200_000)
        .map(|number| format!("%TAG !t{number}! x\n"))
        .collect();
    assert_eq!(
        refusal(format!("{directives}---\n{RIGHT}")),
        "node.yaml, line 1: `%TAG` is not supported; remove it, no field needs a tag"
    );
}

#[test]
fn values_are_counted_over_all_files() {
    let folder = Folder::with(RIGHT);
    let half = format!("[{}]", "x, ".repeat(VALUES_MAX / 2));
    folder.write("one.yaml", &half);
    let message = check(folder.path()).expect_err("no document");
    assert!(message.contains("has no `kind`"), "{message}");
    folder.write("two.yaml", &half);
    let message = check(folder.path()).expect_err("too much");
    assert!(message.contains("two.yaml, line 1: the configuration holds more than 1000000"));
}

#[test]
fn what_is_no_regular_file() {
    let folder = Folder::with(RIGHT);
    let at = |name: &str| folder.path().join(name);
    nix::unistd::mkfifo(&at("fifo.yaml"), Mode::S_IRWXU).expect("a FIFO");
    let _socket = UnixListener::bind(at("socket.yaml")).expect("a socket");
    symlink("/dev/zero", at("zero.yaml")).expect("a link");
    fs::create_dir(at("folder.yaml")).expect("a folder");
    let expected = |name: &str, kind: &str| {
        format!("{name}: is {kind}; a regular file with YAML in it is expected, or a link to one\n")
    };
    assert_eq!(
        check(folder.path()).expect_err("four that are no files"),
        [
            expected("fifo.yaml", "a FIFO"),
            expected("folder.yaml", "a folder"),
            expected("socket.yaml", "a socket"),
            expected("zero.yaml", "a device"),
        ]
        .concat()
    );
    assert_eq!(
        check(&at("fifo.yaml")).expect_err("a FIFO"),
        expected("fifo.yaml", "a FIFO")
    );
}

#[test]
fn links_as_kubernetes_makes_them() {
    let folder = Folder::with("");
    fs::create_dir(folder.path().join("..2026")).expect("a folder");
    folder.write("..2026/node.yaml", RIGHT);
    fs::remove_file(folder.file()).expect("removed");
    symlink("..2026", folder.path().join("..data")).expect("a link");
    symlink("..data/node.yaml", folder.file()).expect("a link");
    check(folder.path()).unwrap_or_else(|errors| panic!("{errors}"));
    check(&folder.file()).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn a_folder_of_too_many_files() {
    let folder = Folder::with(RIGHT);
    for number in 0..FILES_MAX {
        folder.write(&format!("{number}.yaml"), "");
    }
    let message = check(folder.path()).expect_err("too many files");
    let expected = "the folder holds more than 1000 *.yaml and *.yml files; join files, or is it \
                    another folder?";
    assert!(message.trim_end().ends_with(expected), "{message}");
}

#[test]
fn a_file_of_more_than_16_mib() {
    let folder = Folder::with(RIGHT);
    let huge = fs::File::create(folder.path().join("huge.yaml")).expect("a file");
    huge.set_len(BYTES_MAX + 1).expect("a sparse file");
    let message = check(&folder.path().join("huge.yaml")).expect_err("too large");
    assert_eq!(
        message.trim_end(),
        "huge.yaml: has 16777217 bytes or more, the limit is 16777216; is it a configuration file?"
    );
    assert!(
        check(&folder.file()).is_ok(),
        "the other file is small enough"
    );
}

/// The next answer, polled for.
fn next(watched: &mut Watched) -> Result<Validated, Vec<ConfigError>> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = watched.poll() {
            return answer;
        }
        assert!(Instant::now() < deadline, "no answer within 20 seconds");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Writes the file in place, pod by pod; returns the longest time without a write.
fn write_slowly(folder: &Folder, lines: &[&str]) -> Duration {
    let mut file = fs::File::create(folder.file()).expect("an empty file");
    let mut longest = Duration::ZERO;
    for line in lines {
        let start = Instant::now();
        thread::sleep(Duration::from_millis(40));
        file.write_all(line.as_bytes()).expect("a written line");
        longest = longest.max(start.elapsed());
    }
    longest
}

#[test]
fn a_file_that_is_being_written_is_not_taken_by_half() {
    // With the slices first, every piece that ends with a line is valid and has fewer peers.
    let (node, slices) = RIGHT.split_once("---\n").expect("documents");
    let (head, _) = node.split_once("peers:\n").expect("peers");
    let mut text = format!("{slices}---\n{head}peers:\n");
    for number in 1..40 {
        text.push_str(&format!(
            "- {{cluster: west, name: w-{number}, underlay: 172.20.2.{number}, blocks: []}}\n"
        ));
    }
    let (first, rest) = text.split_once("- {cluster: west").expect("a peer");
    let first = format!("{first}- {{cluster: west");
    let mut lines = vec![first.as_str()];
    lines.extend(rest.split_inclusive('\n'));
    check_text(lines[..5].concat()).unwrap_or_else(|errors| panic!("not valid: {errors}"));

    let folder = Folder::with(RIGHT);
    let mut watched = Watched::new(folder.path());
    assert_eq!(next(&mut watched).expect("right").node().peers.len(), 2);
    for _ in 0..20 {
        let longest = thread::scope(|scope| {
            let writer = scope.spawn(|| write_slowly(&folder, &lines));
            let peers = next(&mut watched).map(|seen| seen.node().peers.len());
            let longest = writer.join().expect("a writer");
            // A machine that held the writer up for so long proves nothing.
            if longest < Duration::from_millis(140) {
                assert_eq!(peers, Ok(39), "taken by half");
            }
            longest
        });
        if longest < Duration::from_millis(140) {
            return;
        }
        folder.write("node.yaml", RIGHT);
        while next(&mut watched).map(|seen| seen.node().peers.len()) != Ok(2) {}
    }
    panic!("this machine never let a writer write every 140 ms");
}

#[test]
fn polling_does_not_wait_for_a_large_configuration() {
    let folder = Folder::with(format!("huge: [{}]\n---\n{RIGHT}", "x, ".repeat(900_000)));
    let start = Instant::now();
    check(folder.path()).expect_err("a document without a kind");
    let needed = start.elapsed();
    let mut watched = Watched::new(folder.path());
    let mut longest = Duration::ZERO;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let start = Instant::now();
        let answer = watched.poll();
        longest = longest.max(start.elapsed());
        if answer.is_some() {
            break;
        }
        assert!(Instant::now() < deadline, "no answer within 20 seconds");
        thread::sleep(Duration::from_millis(1));
    }
    assert!(longest < needed / 2, "{longest:?} of {needed:?}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever stands in a file, the answer is a configuration or a list of mistakes, soon.
    #[test]
    fn damaged_text_never_hangs_or_panics(
        at in 0usize..2000,
        junk in "[\\-:{}\\[\\]&*!|>'\"%@a ,\n]{0,8}",
    ) {
        let at = at.min(RIGHT.len());
        let _ = check_text(format!("{}{junk}{}", &RIGHT[..at], &RIGHT[at..]));
        let _ = check_text(format!("{}{junk}", &RIGHT[..at]));
    }
}
