//! With whom a node lends: from text to partners, and every refusal with its message.

mod config_support;

use config_support::check_text;
use config_support::qos::{CEILING, CLASSES, shaped_but};
use slice_agent::compile::lending_in_words;
use slice_agent::lending::obstacles;
use slice_agent::model::render;

const PLAIN: &str = "rate: 300M";

/// An uplink of three nodes whose lending says this.
fn with(lending: &str) -> String {
    shaped_but(&[(PLAIN, &format!("rate: 300M, nodes: 3, lending: {lending}"))])
}

fn refusal(text: &str) -> String {
    let message = check_text(text).expect_err("a mistake that is noticed");
    message.trim_end().to_owned()
}

#[test]
fn partners_and_the_file_are_taken_over() {
    let text = with(
        "{partners: [\"172.20.1.12:9464\", \"172.20.1.13:9465\"], tokenFile: /etc/sliceplane/lending.token}",
    );
    let configuration = check_text(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let lending = configuration.node().uplinks[0]
        .lending
        .clone()
        .expect("lending");
    let partners: Vec<_> = lending.partners.iter().map(ToString::to_string).collect();
    assert_eq!(partners, ["172.20.1.12:9464", "172.20.1.13:9465"]);
    assert_eq!(
        lending.token_file.to_str(),
        Some("/etc/sliceplane/lending.token")
    );
    assert_eq!(
        lending_in_words(&configuration.node().uplinks[0]).as_deref(),
        Some(
            "uplink wan: lends what it does not use of that to 172.20.1.12:9464, 172.20.1.13:9465, and borrows from \
             there where packets do not wait in classes of htb; the token is expected in /etc/sliceplane/lending.token"
        )
    );
    let without = check_text(shaped_but(&[])).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(without.node().uplinks[0].lending, None);
}

const PLACE: &str = "node.yaml, document 1, Node east/east-1, uplinks[0].lending";

macro_rules! refused {
    ($($name:ident: $partners:literal, $token:literal => $at:literal $message:literal;)*) => {
        $(
            #[test]
            fn $name() {
                let lending = format!("{{partners: [{}], tokenFile: {}}}", $partners, $token);
                assert_eq!(refusal(&with(&lending)), format!("{PLACE}{}: {}", $at, $message));
            }
        )*
    };
}

refused! {
    a_partner_without_a_port: "172.20.1.12", "/t" => ".partners[0]"
        "`172.20.1.12` is no place where an agent listens; write the partner's address and the port of its `--listen`, \
         as in 192.0.2.12:9464";

    a_partner_with_port_zero: "\"172.20.1.12:0\"", "/t" => ".partners[0]"
        "`172.20.1.12:0` is no place where an agent listens; write the partner's address and the port of its \
         `--listen`, as in 192.0.2.12:9464";

    a_partner_by_name: "\"east-2:9464\"", "/t" => ".partners[0]"
        "`east-2:9464` is no place where an agent listens; write the partner's address and the port of its `--listen`, \
         as in 192.0.2.12:9464";

    a_partner_on_loopback: "\"127.0.0.1:9464\"", "/t" => ".partners[0]"
        "`127.0.0.1` is not the address of one host; give a unicast address, as in 192.0.2.11";

    the_node_itself_as_a_partner: "\"172.20.1.11:9464\"", "/t" => ".partners[0]"
        "172.20.1.11 is this node itself; a partner is another node that sends by the link";

    a_partner_twice: "\"172.20.1.12:9464\", \"172.20.1.12:9465\"", "/t" => ".partners[1]"
        "172.20.1.12 is a partner already; a partner is known by its address, so list each once";

    a_pod_by_its_own_address: "\"10.1.1.10:9464\"", "/t" => ".partners[0]"
        "10.1.1.10 is pod kafka/kafka-0 of this node: a partner is a node, and whoever answers there gets to know the \
         token; give the node's own address";

    a_pod_by_its_address_in_the_slice: "\"10.77.0.2:9464\"", "/t" => ".partners[0]"
        "10.77.0.2 is pod kafka/kafka-0 of this node: a partner is a node, and whoever answers there gets to know the \
         token; give the node's own address";

    a_pod_of_another_node: "\"10.77.64.9:9464\"", "/t" => ".partners[0]"
        "10.77.64.9 is in the `ranges` of slice kafka: a partner is a node, and whoever answers there gets to know the \
         token; give the node's own address";

    nobody: "", "/t" => ".partners"
        "lists 0 of 2 others: of the nodes that send by the link (`nodes: 3`) this is one; list one at least of the \
         others, or correct `nodes`";

    more_than_there_are: "\"172.20.1.12:1\", \"172.20.1.13:1\", \"172.20.1.14:1\"", "/t" => ".partners"
        "lists 3 of 2 others: of the nodes that send by the link (`nodes: 3`) this is one; list one at least of the \
         others, or correct `nodes`";

    a_file_somewhere: "\"172.20.1.12:9464\"", "token" => ".tokenFile"
        "`token` is no path of a file from the root on; write it as in /etc/sliceplane/lending.token";

    a_folder_as_file: "\"172.20.1.12:9464\"", "/" => ".tokenFile"
        "`/` is no path of a file from the root on; write it as in /etc/sliceplane/lending.token";

    a_folder_with_a_name_as_file: "\"172.20.1.12:9464\"", "/etc/" => ".tokenFile"
        "`/etc/` is no path of a file from the root on; write it as in /etc/sliceplane/lending.token";

    a_file_of_two_lines: "\"172.20.1.12:9464\"", r#""/t\nready""# => ".tokenFile"
        r"`/t\nready` is no path of a file from the root on; write it as in /etc/sliceplane/lending.token";
}

/// What `plan` tells, since the agent would only log it.
#[test]
fn a_token_that_cannot_be_read_is_an_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lending.token");
    let shown = file.display();
    let text = with(&format!(
        "{{partners: [\"172.20.1.12:9464\"], tokenFile: {shown}}}"
    ));
    let configuration = check_text(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let told = || obstacles(&configuration.node().uplinks);
    let missing =
        format!("on uplink wan: cannot open {shown}: No such file or directory (os error 2)");
    assert_eq!(told(), [missing]);
    std::fs::write(&file, "0123456789abcdef").unwrap();
    assert_eq!(told(), [""; 0]);
}

#[test]
fn who_is_alone_has_nobody_to_lend_to() {
    let alone = "rate: 300M, lending: {partners: [\"172.20.1.12:9464\"], tokenFile: /t}";
    let expected = format!(
        "{PLACE}.partners: lists 1 of 0 others: of the nodes that send by the link (`nodes: 1`) this is one; list one at \
         least of the others, or correct `nodes`"
    );
    assert_eq!(refusal(&shaped_but(&[(PLAIN, alone)])), expected);
}

#[test]
fn what_is_guaranteed_of_the_uplink_cannot_be_lent() {
    let open = "  isolation: {level: Open}\n";
    let shop = format!(
        "{open}  qos:\n    ceiling: {{default: 150M}}\n    sliceGuarantee: {{default: 100M}}\n"
    );
    let lending =
        "rate: 300M, nodes: 2, lending: {partners: [\"172.20.1.12:9464\"], tokenFile: /t}";
    let tight = [(PLAIN, lending), (open, shop.as_str())];
    let expected = format!(
        "{PLACE}: kafka 200M + shop 150M = 350M on uplink wan, which has 300M: slices have guaranteed parts of it then, \
         and nodes cannot lend those; lower ceilings by 50M, or remove `lending`"
    );
    assert_eq!(refusal(&shaped_but(&tight)), expected);
    let wide = lending.replace("rate: 300M", "rate: 350M");
    let fits = shaped_but(&[(PLAIN, &wide), (open, shop.as_str())]);
    check_text(&fits).unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn a_partner_of_another_cluster_is_doubted() {
    let doubts = |partner: &str| {
        let text = with(&format!(
            "{{partners: [\"{partner}:9464\"], tokenFile: /t}}"
        ));
        let configuration = check_text(&text).unwrap_or_else(|errors| panic!("{errors}"));
        render(configuration.doubts()).trim_end().to_owned()
    };
    assert_eq!(doubts("172.20.1.12"), "");
    let expected = format!(
        "{PLACE}.partners[0]: 172.20.2.11 is west/west-1, of another cluster: what it sends leaves by a link of its own \
         as a rule, and what it lends would be sent by this one on top of the ceiling; remove it, unless it sends by \
         this link too"
    );
    let told = doubts("172.20.2.11");
    assert!(told.ends_with(&expected), "{told}");
}

#[test]
fn lending_where_no_slice_has_a_ceiling_is_doubted() {
    let doubts = |text: &str| {
        let configuration = check_text(text).unwrap_or_else(|errors| panic!("{errors}"));
        render(configuration.doubts()).trim_end().to_owned()
    };
    let shaped = with("{partners: [\"172.20.1.12:9464\"], tokenFile: /t}");
    assert_eq!(doubts(&shaped), "");
    // Shares of a class are refused where there is no ceiling.
    let class = "    - {name: control, match: [{protocol: TCP, port: 9090}]}\n";
    let told = doubts(&shaped.replace(CEILING, "").replace(CLASSES, class));
    let expected = format!(
        "{PLACE}: no slice here has a ceiling, so there is nothing to lend or borrow on uplink wan; add one to a \
         Slice, as in `qos: {{ceiling: {{default: 200M}}}}`, or remove this"
    );
    assert!(told.ends_with(&expected), "{told}");
}

#[test]
fn a_field_that_is_missing_or_unknown_is_named() {
    for (lending, part) in [
        ("{partners: []}", "missing field `tokenFile`"),
        ("{tokenFile: /t}", "missing field `partners`"),
        (
            "{partners: [], tokenFile: /t, token: abc}",
            "unknown field `token`",
        ),
    ] {
        let message = refusal(&with(lending));
        assert!(message.contains(part), "{message}");
    }
}
