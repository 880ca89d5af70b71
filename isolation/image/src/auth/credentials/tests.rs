//! Tables of files that are taken and refused, and what is found in them.

use super::*;

fn login(user: &str, password: &str) -> Found {
    Found::Login(Login::Password {
        user: user.into(),
        password: Secret::new(password.into()),
    })
}

fn read(text: &str) -> Credentials {
    Credentials::from_config(text.as_bytes()).unwrap()
}

#[test]
fn a_login_belongs_to_its_registry() {
    let credentials = read(
        r#"{"auths":{
            "reg.lan:5000":{"auth":"dTpw"},
            "https://old.lan/v1/":{"username":"o","password":"x:y"},
            "http://plain.lan":{"auth":"cDpxOnI"},
            "https://index.docker.io/v1/":{"auth":"ZDplAAA="},
            "quay.lan":{"auth":"cTpx"},
            "quay.lan/team/a":{"auth":"dDp0"},
            "id.lan":{"auth":"dTpw","identitytoken":"id"},
            "user.lan":{"username":"<token>","password":"id2"},
            "direct.lan":{"registrytoken":"acc"},
            "empty.lan":{}
        },"HttpHeaders":{"User-Agent":"x"},"psFormat":"table"}"#,
    );
    let identity = |text: &str| Found::Login(Login::Identity(Secret::new(text.into())));
    for (host, repository, found) in [
        ("reg.lan:5000", "a/b", login("u", "p")),
        ("REG.lan:5000", "a/b", login("u", "p")),
        ("reg.lan", "a/b", Found::Nothing),
        ("reg.lan:5001", "a/b", Found::Nothing),
        ("xreg.lan:5000", "a/b", Found::Nothing),
        ("old.lan", "a", login("o", "x:y")),
        ("old.lan:443", "a", login("o", "x:y")),
        ("plain.lan", "a", login("p", "q:r")),
        ("docker.io", "library/a", login("d", "e")),
        ("quay.lan", "team/a", login("t", "t")),
        ("quay.lan", "team/a/b", login("t", "t")),
        ("quay.lan", "team/ab", login("q", "q")),
        ("id.lan", "a", identity("id")),
        ("user.lan", "a", identity("id2")),
        (
            "direct.lan",
            "a",
            Found::Login(Login::Access(Secret::new("acc".into()))),
        ),
        ("empty.lan", "a", Found::Nothing),
    ] {
        assert_eq!(
            credentials.find(host, repository),
            found,
            "{host} {repository}"
        );
    }
    let text = format!("{credentials:?}");
    for secret in ["x:y", "q:r", "\"id\"", "id2", "acc"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn programs_and_the_older_form() {
    let credentials = read(
        r#"{"auths":{"kept.lan":{},"own.lan":{"auth":"dTpw"}},
            "credHelpers":{"https://cloud.lan/v2/":"cloud"},"credsStore":"desktop"}"#,
    );
    let program = |name: &str, expected| Found::Program {
        name: name.into(),
        expected,
    };
    for (host, found) in [
        ("cloud.lan", program("cloud", true)),
        ("kept.lan", program("desktop", true)),
        ("other.lan", program("desktop", false)),
        ("own.lan", login("u", "p")),
    ] {
        assert_eq!(credentials.find(host, "a"), found, "{host}");
    }
    let older =
        read(r#"{"reg.lan":{"auth":"dTpw","email":"a@b"},"psFormat":"x","HttpHeaders":{"a":"b"}}"#);
    assert_eq!(older.find("reg.lan", "a"), login("u", "p"));
    assert_eq!(older.find("HttpHeaders", "a"), Found::Nothing);
    assert!(read("{}").is_empty() && read(r#"{"auths":{}}"#).is_empty());
    assert!(!older.is_empty());
}

#[test]
fn refusals_say_no_secret() {
    let deep = format!("{}{}", r#"{"auths":"#.repeat(200), "}".repeat(200));
    let many: Vec<String> = (0..2000).map(|n| format!(r#""h{n}":{{}}"#)).collect();
    for text in [
        "",
        "[]",
        "null",
        "hunter2",
        r#"{"auths":"hunter2"}"#,
        r#"{"auths":{"a":"hunter2"}}"#,
        r#"{"auths":{"a":{"password":{"x":"hunter2"}}}}"#,
        r#"{"auths":{"a":{"auth":["hunter2"]}}}"#,
        r#"{"auths":{"a":{"auth":"hunter2!"}}}"#,
        r#"{"auths":{"a":{"auth":"aHVudGVyMg=="}}}"#,
        r#"{"auths":{"a":{"auth":"Omh1bnRlcjI="}}}"#,
        r#"{"auths":{"a":{"username":"u","password":"hunter2\n"}}}"#,
        r#"{"auths":{"a":{"username":"u:v","password":"hunter2"}}}"#,
        r#"{"auths":{"a":{"identitytoken":"hunter2 \r\nX-Evil: 1"}}}"#,
        r#"{"credsStore":7}"#,
        deep.as_str(),
        &format!(r#"{{"auths":{{{}}}}}"#, many.join(",")),
        &format!(r#"{{"auths":{{}}{}}}"#, " ".repeat(1 << 20)),
    ] {
        let error = Credentials::from_config(text.as_bytes()).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(!told.contains("hunter2"), "{told}");
        let short: String = text.chars().take(80).collect();
        assert!(!told.is_empty(), "{short}");
    }
}
