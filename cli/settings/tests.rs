//! Which source counts, and what the errors say.

use std::os::unix::fs::PermissionsExt;

use super::*;

static KEYS: [Key; 6] = [
    Key::new("port", "PORT", "a port from 0 to 65535", "").default("5051"),
    Key::new("data-dir", "DIR", "a directory", "").mesos("work_dir"),
    Key::new("attributes", "PAIRS", "pairs", "")
        .kind(Kind::Pairs)
        .mesos("attributes"),
    Key::new("mirror", "HOST", "hosts", "").kind(Kind::Many),
    Key::new("strict", "BOOL", "true or false", "").kind(Kind::Switch),
    Key::new("password", "TEXT", "a text", "").secret(),
];
static ROLE: Role = Role {
    name: "agent",
    prefix: "GANTRY_AGENT_",
    mesos: true,
    keys: &KEYS,
};

fn read(line: &[&str], env: &[(&str, &str)], file: Option<&Path>) -> Result<Settings, Failure> {
    let command = clap::Command::new("x").no_binary_name(true);
    let matches = arguments(command, ROLE.prefix, KEYS.iter()).get_matches_from(line);
    let env = env
        .iter()
        .map(|(k, v)| (OsString::from(k), OsString::from(v)));
    Settings::read(&ROLE, given(&matches, KEYS.iter()), file, env)
}

fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    file
}

fn port(settings: &Settings) -> (u16, Source) {
    let port = settings.one("port", str::parse::<u16>).unwrap().unwrap();
    (port, settings.source(&KEYS[0]))
}

#[test]
fn flags_before_variables_before_the_file_before_defaults() {
    let file = file(
        "# ours\n[agent]\nport = 3\n\n[agent.attributes]\nrack = \"r1\"\nlevel = 2\n",
        0o644,
    );
    let path = Some(file.path());
    let one = [("GANTRY_AGENT_PORT", "2")];
    let at = |settings: Result<Settings, Failure>| port(&settings.unwrap());
    assert_eq!(
        at(read(&["--port", "1"], &one, path)),
        (1, Source::Flag("--port".into()))
    );
    assert_eq!(
        at(read(&[], &one, path)),
        (2, Source::Variable("GANTRY_AGENT_PORT".into()))
    );
    let settings = read(&[], &[("GANTRY_AGENT_PORT", "")], path).unwrap();
    assert_eq!(
        port(&settings),
        (3, Source::File(file.path().to_owned(), 3))
    );
    assert_eq!(settings.text("attributes").unwrap(), "rack:r1;level:2");
    assert_eq!(at(read(&[], &[], None)), (5051, Source::Default));
    let named = file.path().to_str().unwrap();
    assert_eq!(at(read(&[], &[("GANTRY_AGENT_CONFIG", named)], None)).0, 3);
}

#[test]
fn names_of_mesos_are_understood() {
    for line in [
        ["--work_dir", "/a"],
        ["--work-dir", "/a"],
        ["--data_dir", "/a"],
    ] {
        assert_eq!(
            read(&line, &[], None).unwrap().text("data-dir").unwrap(),
            "/a"
        );
    }
    let env = [
        ("MESOS_WORK_DIR", "/b"),
        ("MESOS_TASK_ID", "x"),
        ("MESOS_PORT", "1"),
    ];
    let settings = read(&[], &env, None).unwrap();
    assert_eq!(settings.text("data-dir").unwrap(), "/b");
    assert_eq!(port(&settings).0, 5051, "this key has no name of Mesos's");
    let both = [("GANTRY_AGENT_DATA_DIR", "/c"), ("MESOS_WORK_DIR", "/b")];
    assert_eq!(
        read(&[], &both, None).unwrap().text("data-dir").unwrap(),
        "/c"
    );
    let file = file("[agent]\nwork_dir = '/d'\n", 0o644);
    let settings = read(&[], &[], Some(file.path())).unwrap();
    assert_eq!(settings.text("data-dir").unwrap(), "/d");
}

#[test]
fn lists_and_switches() {
    let listed = file(
        "[agent]\nmirror = ['a', 'b']\nstrict = true\n[coordinator]\nx = 1\n",
        0o644,
    );
    let settings = read(&[], &[], Some(listed.path())).unwrap();
    let many = |settings: &Settings| settings.many("mirror", str::parse::<String>).unwrap();
    assert_eq!(
        (many(&settings), settings.switch("strict").unwrap()),
        (vec!["a".into(), "b".into()], true)
    );
    let settings = read(
        &["--mirror", "c", "--strict=false"],
        &[],
        Some(listed.path()),
    )
    .unwrap();
    assert_eq!(
        (many(&settings), settings.switch("strict").unwrap()),
        (vec!["c".into()], false)
    );
    let settings = read(&["--strict"], &[("GANTRY_AGENT_MIRROR", "d  e")], None).unwrap();
    assert_eq!(
        (many(&settings), settings.switch("strict").unwrap()),
        (vec!["d".into(), "e".into()], true)
    );
}

fn words(result: Result<Settings, Failure>) -> String {
    let failure = result.expect_err("it is wrong");
    assert_eq!(failure.exit, Exit::Usage);
    format!("{} | {}", failure.message, failure.hint.unwrap_or_default())
}

#[test]
fn errors_name_key_source_and_what_is_right() {
    let written = file("[agent]\n\nport = 'many'\n", 0o644);
    for (line, env, path, source) in [
        (
            vec!["--port", "70000"],
            vec![],
            None,
            "port (flag --port): '70000'",
        ),
        (
            vec![],
            vec![("GANTRY_AGENT_PORT", "x")],
            None,
            "port (variable GANTRY_AGENT_PORT): 'x'",
        ),
        (
            vec![],
            vec![],
            Some(written.path()),
            ":3): 'many' is not right: invalid digit",
        ),
    ] {
        let settings = read(&line, &env, path).unwrap();
        let failure = settings.one("port", str::parse::<u16>).unwrap_err();
        assert!(failure.message.contains(source), "{}", failure.message);
        assert_eq!(failure.hint.unwrap(), "it takes a port from 0 to 65535");
    }
    let unknown = words(read(&[], &[("GANTRY_AGENT_PROT", "1")], None));
    assert!(
        unknown.contains("GANTRY_AGENT_PROT") && unknown.contains("'port'?"),
        "{unknown}"
    );
    for (text, want) in [
        (
            "[agent]\nport = 1\nattribute = 1\n",
            ":3: 'attribute' is no setting of `gantry agent` | did you mean 'attributes'?",
        ),
        (
            "[agent]\nzzz = 1\n",
            ":2: 'zzz' is no setting of `gantry agent` | `gantry agent --help` lists the keys",
        ),
        (
            "[agnet]\n",
            ":1: 'agnet' is no section | keys stand in the sections [agent] and [coordinator]",
        ),
        ("port = 1\n", ":1: 'port' is no section"),
        (
            "[agent]\nport = [1]\n",
            ":2: the value of 'port' is of a wrong kind | it takes a port",
        ),
        (
            "[agent]\ndata-dir = 'a'\nwork_dir = 'b'\n",
            "is there twice",
        ),
        ("[agent]\nport = = 1\n", ": line 2: "),
        (
            "[agent]\npassword = 'x'\n",
            ":2: 'password' is a secret and others can read the file | chmod 600 ",
        ),
    ] {
        let file = file(text, 0o644);
        let said = words(read(&[], &[], Some(file.path())));
        assert!(said.contains(want), "{said}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let file = file("[agent]\npassword = 'hidden'\n", 0o600);
    let settings = read(&["--port", "7"], &[], Some(file.path())).unwrap();
    let rows: Vec<String> = settings
        .rows(&[("data-dir", "/chosen".to_owned())])
        .map(|row| row.join("|"))
        .collect();
    assert!(rows.contains(&"port|7|flag --port".to_owned()), "{rows:?}");
    assert!(
        rows.contains(&"data-dir|/chosen|default".to_owned()),
        "{rows:?}"
    );
    let password = format!(
        "password|{REDACTED}|{}:2",
        file.path().display(),
        REDACTED = "(set, not shown)"
    );
    assert!(rows.contains(&password), "{rows:?}");
    assert!(
        !settings
            .wrong("password", "too short")
            .message
            .contains("hidden")
    );
    let command = arguments(clap::Command::new("x"), ROLE.prefix, KEYS.iter());
    assert!(
        command
            .get_arguments()
            .all(|arg| arg.get_id() != "password")
    );
}
