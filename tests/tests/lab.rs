//! The lab itself, without any agent. Needs root.

use slice_tests::netns::NetNs;

fn root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("SLICE_TESTS_REQUIRED").is_none_or(|value| value != "1"),
        "SLICE_TESTS_REQUIRED=1, but the lab tests need root"
    );
    eprintln!("SKIPPED: lab tests need root");
    false
}

#[test]
fn a_namespace_has_its_own_network_and_its_own_hosts_file() {
    if !root() {
        return;
    }
    let name = format!("slt-{}", std::process::id());
    let namespace = NetNs::create(&name).unwrap();
    assert!(NetNs::create(&name).is_err(), "a second one of that name");
    let hosts = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(hosts.path(), "10.9.9.9 far\n").unwrap();

    let inside = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let cat = namespace.command_with_hosts("cat", hosts.path()).arg("/etc/hosts").output().unwrap();
    let outside = std::fs::read_to_string("/etc/hosts").unwrap();
    let devices = namespace.command("ip").args(["-br", "link"]).output().unwrap();
    NetNs::delete(&name).unwrap();

    assert_eq!(inside.unwrap().lines().count(), 3, "two heading lines and lo");
    assert_eq!(String::from_utf8(cat.stdout).unwrap(), "10.9.9.9 far\n");
    assert!(!outside.contains("10.9.9.9"), "the machine's own file is untouched");
    assert!(String::from_utf8(devices.stdout).unwrap().starts_with("lo"), "lo is up or unknown");
    assert!(NetNs::open(&name).is_err());
}
